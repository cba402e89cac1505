//! The training loop.

use crate::TrainError;
use crate::batches::{Role, Share, epoch, parts, per_epoch, shares, tensors};
use crate::data::Item;
use crate::evaluate;
use crate::link::Link;
use crate::resume::{self, Best};
use crate::schedule::learning_rate;
use crate::student::Student;
use checkpoints::Checkpoints;
use domain::Split;
use domain::metric::Accuracy;
use domain::spec::{Objective, TrainingSpec};
use std::time::Instant;
use t5::ForwardOptions;
use tch::{Kind, Tensor};

/// Trains to the last step, or until nothing gets better. What it returns holds the best weights beside the last.
pub(crate) fn train(
    mut student: Student,
    link: &mut Link,
    checkpoints: &Checkpoints,
) -> Result<Student, TrainError> {
    let training = student.spec.training.clone();
    let steps = u64::from(training.steps);
    let mut batches = Batches::new(&student);
    let mut began = Instant::now();
    let mut pace = Pace::default();
    while student.progress.step < steps && !student.progress.stopped_early {
        let step = student.progress.step;
        let batch = batches.of(step);
        let items: Vec<&Item> = batch.iter().filter_map(|place| student.items.get(*place)).collect();
        let passes = Passes { options: student.options(), training: &training, model: &student.model };
        let losses = optimise(&passes, &mut student.optimizer, &items, step)?;
        student.progress.step = step + 1;
        pace.count(items.len());
        if link.is_due() {
            link.note(step + 1, &numbers(&losses, learning_rate(&training, step), &mut pace))?;
        }
        if due(step + 1, training.evaluate_every_steps, steps) {
            validate(&mut student, link)?;
        }
        if due(step + 1, training.checkpoint_every_steps, steps) || link.is_interrupted() {
            student.progress.train_seconds += began.elapsed().as_secs_f64();
            began = Instant::now();
            resume::save(&student, link, checkpoints)?;
        }
        if link.is_interrupted() {
            return Err(TrainError::Interrupted);
        }
    }
    student.progress.train_seconds += began.elapsed().as_secs_f64();
    Ok(student)
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
    fn new(student: &Student) -> Self {
        Self {
            lengths: student.items.iter().map(Item::length).collect(),
            batch: student.spec.training.batch_examples as usize,
            seed: student.spec.training.seed,
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

/// What a step reads of the student beside its optimiser.
struct Passes<'a> {
    model: &'a t5::Model,
    options: ForwardOptions,
    training: &'a TrainingSpec,
}

/// Losses of one step; `None` where no row counts in one.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Losses {
    label: Option<f64>,
    rationale: Option<f64>,
    gradient_norm: f64,
}

/// One optimiser step over `items`, in as many parts as the token budget makes of them.
fn optimise(
    passes: &Passes<'_>,
    optimizer: &mut crate::optimizer::AdamW,
    items: &[&Item],
    step: u64,
) -> Result<Losses, TrainError> {
    let training = passes.training;
    let alpha = (training.objective == Objective::StepByStep).then_some(training.alpha);
    // The library's generator cannot be saved: it is set anew at every step, so that dropout is the same after a resume.
    tch::manual_seed((training.seed ^ (step + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)) as i64);
    optimizer.zero_gradients();
    let mut sums = [Tensor::from(0.0_f64), Tensor::from(0.0_f64)];
    let shares = shares(items, alpha);
    let counts = |role: Role| shares.iter().any(|share| share.role == role);
    let (labels, rationales) = (counts(Role::Label), counts(Role::Rationale));
    for part in parts(shares, training.batch_tokens_max as usize) {
        let (loss, own) = part_loss(passes, &part)?;
        loss.backward();
        for (sum, own) in sums.iter_mut().zip(own) {
            *sum = &*sum + own;
        }
    }
    let not_finite = |what| TrainError::NotFinite { step, what, rows: rows_of(items) };
    let [label, rationale] = sums.map(|sum| f64::try_from(sum).unwrap_or(f64::NAN));
    if !label.is_finite() || !rationale.is_finite() {
        return Err(not_finite("loss"));
    }
    let gradient_norm = optimizer.gradient_norm();
    if !gradient_norm.is_finite() {
        return Err(not_finite("gradient"));
    }
    let scale = (training.clip_norm / (gradient_norm + 1e-6)).min(1.0);
    optimizer.step(learning_rate(training, step), scale);
    Ok(Losses { label: labels.then_some(label), rationale: rationales.then_some(rationale), gradient_norm })
}

/// The part's share of the whole loss, and of each loss by itself.
fn part_loss(passes: &Passes<'_>, part: &[Share<'_>]) -> Result<(Tensor, [Tensor; 2]), TrainError> {
    let rows: Vec<(&[i64], &[i64])> =
        part.iter().map(|share| (share.row.source.as_slice(), share.row.target.as_slice())).collect();
    let batch = tensors(&rows);
    let logits = passes.model.forward(&batch, &passes.options)?;
    // `[rows]`: the sum of each row's token losses.
    let losses = t5::token_losses(&logits, &batch.labels).sum_dim_intlist(&[-1_i64][..], false, Kind::Float);
    let factors = |of: &dyn Fn(&Share<'_>) -> f64| {
        let factors: Vec<f32> = part.iter().map(|share| of(share) as f32).collect();
        Tensor::from_slice(&factors).to_device(losses.device())
    };
    let own = |role: Role| {
        let factors = factors(&|share| if share.role == role { share.own } else { 0.0 });
        (losses.detach() * factors).sum(Kind::Double).to_device(tch::Device::Cpu)
    };
    let loss = (&losses * factors(&|share| share.factor)).sum(Kind::Float);
    Ok((loss, [own(Role::Label), own(Role::Rationale)]))
}

fn rows_of(items: &[&Item]) -> String {
    let rows: Vec<String> = items.iter().take(64).map(|item| item.row.to_string()).collect();
    rows.join(", ")
}

/// Measures the student on validation rows, and remembers the weights where it is the best so far.
fn validate(student: &mut Student, link: &mut Link) -> Result<(), TrainError> {
    if student.sampled.is_empty() {
        return Ok(());
    }
    let accuracy = evaluate::measure(student, &student.sampled, link)?;
    let step = student.progress.step;
    link.note(step, &[("validation_accuracy", accuracy.value())])?;
    link.report(Some((step, Split::Validation, accuracy)))?;
    if student.progress.best.as_ref().is_none_or(|best| accuracy.correct > best.correct) {
        student.progress.best =
            Some(Best { step, correct: accuracy.correct, weights: student.model.snapshot() });
        student.progress.evaluations_without_better = 0;
    } else {
        student.progress.evaluations_without_better += 1;
    }
    let patience = student.spec.training.patience;
    student.progress.stopped_early =
        patience.is_some_and(|patience| student.progress.evaluations_without_better >= patience);
    Ok(())
}

/// How fast it goes, since it was last told.
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

/// The accuracy that a report shows where there is nothing to measure.
pub(crate) fn measured(accuracy: Accuracy) -> Option<Accuracy> {
    (accuracy.rows > 0).then_some(accuracy)
}
