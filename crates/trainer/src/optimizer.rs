//! AdamW (Loshchilov and Hutter 2019) over the master weights.

use crate::TrainError;
use kernels::{Buffers, Update};
use std::path::Path;
use t5::{Flat, Group, Span};
use tch::Tensor;

const BETA_FIRST: f64 = 0.9;
const BETA_SECOND: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// How much faster the relative position bias learns where a student starts from scratch. A bias is a handful of numbers
/// that every example moves, and AdamW moves a number by about one learning rate a step: with the others' rate it learns
/// order last, and nothing can be copied before (validation of the word problems after 1,000 steps: 94% at 1, 98% at 10).
pub const POSITION_BIAS_RATE: f64 = 10.0;

/// The optimiser's state over the master weights of one model, which it owns.
#[derive(Debug)]
pub struct AdamW {
    flat: Flat,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: u64,
    weight_decay: f64,
    from_scratch: bool,
}

impl AdamW {
    /// Fresh moments for a model's weights. Norms and biases do not decay.
    pub fn new(flat: Flat, weight_decay: f64, from_scratch: bool) -> Self {
        let (exp_avg, exp_avg_sq) = (flat.weights().zeros_like(), flat.weights().zeros_like());
        Self { flat, exp_avg, exp_avg_sq, step: 0, weight_decay, from_scratch }
    }

    /// Before the passes of a step: forgets the gradients of the step before, and lets passes read the weights as they are.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn begin(&mut self) -> Result<(), TrainError> {
        Ok(self.flat.begin()?)
    }

    /// After each pass of a step: its gradients are summed with the others'.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn collect(&mut self) -> Result<(), TrainError> {
        Ok(self.flat.collect()?)
    }

    /// The global norm of the gradients.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn gradient_norm(&self) -> Result<f64, TrainError> {
        Ok(kernels::norm(self.flat.gradients())?)
    }

    /// One step with gradients multiplied by `scale` (below 1 where they were clipped).
    ///
    /// # Errors
    /// The tensor library's.
    pub fn step(&mut self, learning_rate: f64, scale: f64) -> Result<(), TrainError> {
        self.step += 1;
        for (group, range) in self.flat.groups() {
            let (rate, weight_decay) = match group {
                Group::Matrix => (1.0, self.weight_decay),
                Group::Norm => (1.0, 0.0),
                Group::PositionBias => (if self.from_scratch { POSITION_BIAS_RATE } else { 1.0 }, 0.0),
            };
            let part = |buffer: &Tensor| buffer.f_narrow(0, range.start, range.end - range.start);
            let update = Update {
                rate: learning_rate * rate,
                weight_decay,
                beta_first: BETA_FIRST,
                beta_second: BETA_SECOND,
                epsilon: EPSILON,
                scale,
                step: self.step,
            };
            let buffers = Buffers {
                weights: &mut part(self.flat.weights())?,
                gradients: &part(self.flat.gradients())?,
                firsts: &mut part(&self.exp_avg)?,
                seconds: &mut part(&self.exp_avg_sq)?,
            };
            kernels::adamw(buffers, &update)?;
        }
        Ok(())
    }

    /// The moments of every weight, in order of name: views.
    fn moments(&self) -> impl Iterator<Item = (String, Tensor)> {
        let kinds = [("first", &self.exp_avg), ("second", &self.exp_avg_sq)];
        let mut spans: Vec<&Span> = self.flat.spans().iter().collect();
        spans.sort_by(|left, right| left.name.cmp(&right.name));
        spans.into_iter().flat_map(move |span| {
            kinds.map(|(kind, buffer)| (format!("{kind}.{}", span.name), span.of(buffer)))
        })
    }

    /// Writes the moments.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), TrainError> {
        Ok(t5::checkpoint::save_tensors(path, &self.moments().collect::<Vec<_>>())?)
    }

    /// Reads the moments back, after `step` steps.
    ///
    /// # Errors
    /// The file cannot be read, or belongs to another model.
    pub fn load(&mut self, path: &Path, step: u64) -> Result<(), TrainError> {
        let tensors: std::collections::HashMap<String, Tensor> =
            t5::checkpoint::load_tensors(path)?.into_iter().collect();
        for (name, mut moments) in self.moments() {
            match tensors.get(&name) {
                Some(source) if source.size() == moments.size() => moments.f_copy_(source)?,
                _ => return Err(TrainError::Data(format!("{}: has no moments `{name}`", path.display()))),
            }
        }
        self.step = step;
        Ok(())
    }
}
