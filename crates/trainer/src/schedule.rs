//! The learning rate over the steps: linear warm-up, then its course.

use domain::spec::{Schedule, TrainingSpec};

/// The learning rate of `step`, counted from 0.
pub fn learning_rate(training: &TrainingSpec, step: u64) -> f64 {
    let (step, warmup, steps) = (step as f64, f64::from(training.warmup_steps), f64::from(training.steps));
    if step < warmup {
        return training.learning_rate * (step + 1.0) / warmup;
    }
    let share = ((step - warmup) / (steps - warmup).max(1.0)).clamp(0.0, 1.0);
    training.learning_rate
        * match training.schedule {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - share,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            Schedule::InverseSquareRoot => (warmup.max(1.0) / (step + 1.0).max(1.0)).sqrt().min(1.0),
        }
}
