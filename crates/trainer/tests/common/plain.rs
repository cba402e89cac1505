//! The plain version of the optimiser, one weight after another: what the fast one is compared with.

use tch::{Kind, Tensor};
use trainer::optimizer::POSITION_BIAS_RATE;

const BETA_FIRST: f64 = 0.9;
const BETA_SECOND: f64 = 0.999;
const EPSILON: f64 = 1e-8;

/// The optimiser's state over one model.
#[derive(Debug)]
pub struct PlainAdamW {
    slots: Vec<ParameterState>,
    step: u64,
    weight_decay: f64,
}

#[derive(Debug)]
struct ParameterState {
    parameter: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    decays: bool,
    rate: f64,
}

impl PlainAdamW {
    /// Fresh moments for a model's weights. Norms and biases do not decay.
    pub fn new(model: &t5::Model, weight_decay: f64, from_scratch: bool) -> Self {
        let slots = model.parameters().iter().map(|(name, parameter)| {
            let bias = name.contains("relative_attention_bias");
            ParameterState {
                parameter: parameter.shallow_clone(),
                exp_avg: parameter.detach().zeros_like(),
                exp_avg_sq: parameter.detach().zeros_like(),
                decays: parameter.dim() > 1 && !bias,
                rate: if bias && from_scratch { POSITION_BIAS_RATE } else { 1.0 },
            }
        });
        Self { slots: slots.collect(), step: 0, weight_decay }
    }

    /// Forgets the gradients of the step before.
    pub fn zero_gradients(&mut self) {
        for slot in &mut self.slots {
            slot.parameter.zero_grad();
        }
    }

    /// The global norm of the gradients.
    pub fn gradient_norm(&self) -> f64 {
        let norms: Vec<Tensor> = self
            .slots
            .iter()
            .map(|slot| slot.parameter.grad())
            .filter(Tensor::defined)
            .map(|gradient| gradient.norm())
            .collect();
        if norms.is_empty() {
            return 0.0;
        }
        f64::try_from(Tensor::stack(&norms, 0).norm().to_kind(Kind::Double)).unwrap_or(f64::NAN)
    }

    /// One step with gradients multiplied by `scale` (below 1 where they were clipped).
    pub fn step(&mut self, learning_rate: f64, scale: f64) {
        self.step += 1;
        let step = i32::try_from(self.step).unwrap_or(i32::MAX);
        let first_correction = 1.0 - BETA_FIRST.powi(step);
        let second_correction = (1.0 - BETA_SECOND.powi(step)).sqrt();
        let weight_decay = self.weight_decay;
        tch::no_grad(|| {
            for slot in &mut self.slots {
                let gradient = slot.parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                let gradient = gradient * scale;
                let rate = learning_rate * slot.rate;
                if slot.decays && weight_decay > 0.0 {
                    let _ = slot.parameter.g_mul_scalar_(1.0 - rate * weight_decay);
                }
                let _ = slot.exp_avg.lerp_(&gradient, 1.0 - BETA_FIRST);
                let _ = slot.exp_avg_sq.g_mul_scalar_(BETA_SECOND);
                let _ = slot.exp_avg_sq.g_add_(&(gradient.square() * (1.0 - BETA_SECOND)));
                let denominator = slot.exp_avg_sq.sqrt() / second_correction + EPSILON;
                let _ = slot.parameter.g_sub_(&(&slot.exp_avg / denominator * (rate / first_correction)));
            }
        });
    }
}
