//! The training loop.

use crate::TrainError;
use crate::batches::{epoch, per_epoch};
use crate::data::TokenizedExample;
use crate::evaluate;
use crate::link::Link;
use crate::meters::Steps;
use crate::resume::BestCheckpoint;
use crate::schedule::learning_rate;
use crate::state::TrainState;
use crate::step::{Losses, optimise, pass};
use checkpoints::Checkpoints;
use domain::Split;
use kernels::KeptMemory;
use std::time::Instant;

/// Trains to the last step, or until nothing gets better. What it returns holds the best weights next to the last.
pub(crate) fn train(
    mut state: TrainState,
    link: &mut Link,
    checkpoints: &Checkpoints,
) -> Result<TrainState, TrainError> {
    let training = state.spec.training.clone();
    let (steps, dropout) = (u64::from(training.steps), state.dropout());
    let _memory = KeptMemory::new();
    let mut batches = Batches::new(&state);
    let mut began = Instant::now();
    let mut pace = Pace::default();
    let meters = Steps::new();
    while state.progress.step < steps && !state.progress.stopped_early {
        let (step, step_began) = (state.progress.step, Instant::now());
        let batch = batches.of(step);
        let items: Vec<&TokenizedExample> =
            batch.iter().filter_map(|place| state.items.get(*place)).collect();
        let (optimizer, tokens_max) = (&mut state.optimizer, &mut state.progress.batch_tokens_max);
        let mut pass = pass(&state.model, &state.weights, dropout);
        let losses = optimise(&training, optimizer, &items, step, tokens_max, &mut pass)?;
        drop(pass);
        state.progress.step = step + 1;
        pace.count(items.len());
        meters.count(items.len(), &losses, step_began.elapsed());
        if link.is_due() {
            link.note(step + 1, &numbers(&losses, learning_rate(&training, step), &mut pace))?;
        }
        if due(step + 1, training.evaluate_every_steps, steps) {
            validate(&mut state, link)?;
        }
        if due(step + 1, training.checkpoint_every_steps, steps) || link.is_interrupted() {
            state.progress.train_seconds += began.elapsed().as_secs_f64();
            began = Instant::now();
            state.save(link, checkpoints)?;
        }
        if link.is_interrupted() {
            return Err(TrainError::Interrupted);
        }
    }
    state.progress.train_seconds += began.elapsed().as_secs_f64();
    Ok(state)
}

fn due(step: u64, every: u32, steps: u64) -> bool {
    step.is_multiple_of(u64::from(every.max(1))) || step == steps
}

/// The batch of every step, an epoch at a time.
struct Batches {
    lengths: Vec<usize>,
    batch: usize,
    seed: u64,
    epoch: Option<(u64, Vec<Vec<usize>>)>,
}

impl Batches {
    fn new(state: &TrainState) -> Self {
        Self {
            lengths: state.items.iter().map(TokenizedExample::length).collect(),
            batch: state.spec.training.batch_examples as usize,
            seed: state.spec.training.seed,
            epoch: None,
        }
    }

    fn of(&mut self, step: u64) -> Vec<usize> {
        let count = per_epoch(self.lengths.len(), self.batch) as u64;
        let (number, place) = (step / count, step % count);
        if self.epoch.as_ref().is_none_or(|(known, _)| *known != number) {
            self.epoch = Some((number, epoch(&self.lengths, self.batch, self.seed, number)));
        }
        let batches = self.epoch.as_ref().map(|(_, batches)| batches);
        batches.and_then(|batches| batches.get(place as usize)).cloned().unwrap_or_default()
    }
}

/// Measures the student on validation rows, and remembers the weights where it is the best so far.
fn validate(state: &mut TrainState, link: &mut Link) -> Result<(), TrainError> {
    let Some(accuracy) = evaluate::validate(state, link)? else { return Ok(()) };
    let step = state.progress.step;
    link.note(step, &[("validation_accuracy", accuracy.value())])?;
    link.report(Some((step, Split::Validation, accuracy)))?;
    if state.progress.best.as_ref().is_none_or(|best| accuracy.correct > best.correct) {
        state.progress.best =
            Some(BestCheckpoint { step, correct: accuracy.correct, weights: state.model.snapshot() });
        state.progress.evaluations_without_better = 0;
    } else {
        state.progress.evaluations_without_better += 1;
    }
    let best = state.progress.best.as_ref().map_or(0, |best| best.correct);
    let (patience, without) = (state.spec.training.patience, state.progress.evaluations_without_better);
    state.progress.stopped_early = is_over(patience, without, best, accuracy.rows);
    Ok(())
}

/// Whether more steps could hardly lead to a better student, of which the best so far is right on `best` of `rows`. A student
/// that has no right answer yet has not begun to learn: for that, patience does not count. One that is right everywhere cannot
/// be bettered.
fn is_over(patience: u32, without_better: u32, best: u64, rows: u64) -> bool {
    patience > 0 && (best == rows || (best > 0 && without_better >= patience))
}

/// The speed since it was last reported.
struct Pace {
    since: Instant,
    examples: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { since: Instant::now(), examples: 0 }
    }
}

impl Pace {
    fn count(&mut self, examples: usize) {
        self.examples += examples;
    }

    fn take(&mut self) -> f64 {
        let speed = self.examples as f64 / self.since.elapsed().as_secs_f64().max(1e-6);
        *self = Self::default();
        speed
    }
}

fn numbers(losses: &Losses, learning_rate: f64, pace: &mut Pace) -> Vec<(&'static str, f64)> {
    let mut numbers = vec![
        ("learning_rate", learning_rate),
        ("gradient_norm", losses.gradient_norm),
        ("examples_per_second", pace.take()),
    ];
    numbers.extend(losses.label.map(|loss| ("loss_label", loss)));
    numbers.extend(losses.rationale.map(|loss| ("loss_rationale", loss)));
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_is_over_where_nothing_gets_better() {
        // Patience, validations without a better one, right answers of the best, rows.
        for (patience, without_better, best, rows, expected) in [
            (3, 2, 40, 50, false),
            (3, 3, 40, 50, true),
            (3, 9, 0, 50, false),
            (3, 0, 50, 50, true),
            (0, 9, 40, 50, false),
            (0, 0, 50, 50, false),
        ] {
            let found = is_over(patience, without_better, best, rows);
            assert_eq!(found, expected, "{patience}, {without_better}, {best} of {rows}");
        }
    }
}
