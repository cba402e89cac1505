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
use std::time::Instant;

/// Trains to the last step, or until nothing gets better. What it returns holds the best weights next to the last.
pub(crate) fn train(
    mut state: TrainState,
    link: &mut Link,
    checkpoints: &Checkpoints,
) -> Result<TrainState, TrainError> {
    let training = state.spec.training.clone();
    let (steps, options) = (u64::from(training.steps), state.options());
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
        let losses =
            optimise(&training, optimizer, &items, step, tokens_max, &mut pass(&state.model, options))?;
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
    let patience = state.spec.training.patience;
    state.progress.stopped_early =
        patience.is_some_and(|patience| state.progress.evaluations_without_better >= patience);
    Ok(())
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
