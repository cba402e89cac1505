//! The whole T5 in float64, written to be read: what the engine must compute.

use decoder::{Activation, Shape};

type Matrix = Vec<Vec<f64>>;

/// A model's tensors, and how its numbers are rounded.
pub(crate) struct Reference<'a> {
    pub(crate) shape: &'a Shape,
    pub(crate) tensors: &'a dyn Fn(&str) -> Option<Vec<f32>>,
    /// Weights, embeddings, and the decoder's keys and values go through this.
    pub(crate) round: fn(f32) -> f32,
}

/// Nearest bfloat16.
pub(crate) fn bfloat16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

fn bucket(distance: i64, shape: &Shape, two_sided: bool) -> usize {
    let all = shape.relative_attention_num_buckets as i64;
    let (count, base, distance) = if two_sided {
        (all / 2, if distance > 0 { all / 2 } else { 0 }, distance.abs())
    } else {
        (all, 0, (-distance).max(0))
    };
    let exact = count / 2;
    if distance < exact {
        return (base + distance) as usize;
    }
    let ratio = (distance as f32 / exact as f32).ln()
        / (shape.relative_attention_max_distance as f32 / exact as f32).ln();
    (base + (exact + (ratio * (count - exact) as f32) as i64).min(count - 1)) as usize
}

impl Reference<'_> {
    fn vector(&self, name: &str) -> Vec<f64> {
        (self.tensors)(name).unwrap().into_iter().map(f64::from).collect()
    }

    /// `[rows, columns]`.
    fn matrix(&self, name: &str, columns: usize) -> Matrix {
        let values = (self.tensors)(name).unwrap();
        values
            .chunks(columns)
            .map(|row| row.iter().map(|value| f64::from((self.round)(*value))).collect())
            .collect()
    }

    /// `x` times the transposed weights.
    fn multiply(&self, x: &Matrix, name: &str) -> Matrix {
        let weights = self.matrix(name, x[0].len());
        let dot =
            |left: &[f64], right: &[f64]| left.iter().zip(right).map(|(left, right)| left * right).sum();
        x.iter().map(|row| weights.iter().map(|column| dot(row, column)).collect()).collect()
    }

    fn norm(&self, x: &Matrix, name: &str) -> Matrix {
        let weights = self.vector(name);
        let normed = |row: &Vec<f64>| {
            let mean = row.iter().map(|value| value * value).sum::<f64>() / row.len() as f64;
            let factor = 1.0 / (mean + self.shape.layer_norm_epsilon).sqrt();
            row.iter().zip(&weights).map(|(value, weight)| value * factor * weight).collect()
        };
        x.iter().map(normed).collect()
    }

    fn activate(&self, x: f64) -> f64 {
        let erf = |x: f64| {
            let (mut term, mut sum) = (x, x);
            for n in 1..200 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            if x.abs() > 5.0 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
        };
        match self.shape.activation {
            Activation::Relu => x.max(0.0),
            Activation::Silu => x / (1.0 + (-x).exp()),
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
            }
            Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2.0_f64.sqrt())),
        }
    }

    fn feed_forward(&self, x: &Matrix, layer: &str) -> Matrix {
        let normed = self.norm(x, &format!("{layer}.layer_norm.weight"));
        let first = if self.shape.gated { "wi_0" } else { "wi" };
        let mut inner = self.multiply(&normed, &format!("{layer}.DenseReluDense.{first}.weight"));
        inner.iter_mut().flatten().for_each(|value| *value = self.activate(*value));
        if self.shape.gated {
            let values = self.multiply(&normed, &format!("{layer}.DenseReluDense.wi_1.weight"));
            inner.iter_mut().flatten().zip(values.iter().flatten()).for_each(|(gate, value)| *gate *= value);
        }
        add(x, &self.multiply(&inner, &format!("{layer}.DenseReluDense.wo.weight")))
    }

    /// Attention of queries from `x` over keys and values from `source`; `score` is what is added for (head, query, key).
    fn attention(
        &self,
        x: &Matrix,
        source: &Matrix,
        name: &str,
        rounded: bool,
        score: &dyn Fn(usize, usize, usize) -> f64,
    ) -> Matrix {
        let width = self.shape.d_kv;
        let round = |value: f64| if rounded { f64::from((self.round)(value as f32)) } else { value };
        let query = self.multiply(x, &format!("{name}.q.weight"));
        let [mut key, mut value] =
            ["k", "v"].map(|part| self.multiply(source, &format!("{name}.{part}.weight")));
        key.iter_mut().chain(value.iter_mut()).flatten().for_each(|value| *value = round(*value));
        let mut attended = vec![vec![0.0; width * self.shape.num_heads]; x.len()];
        for (q, attended) in attended.iter_mut().enumerate() {
            for head in 0..self.shape.num_heads {
                let columns = head * width..(head + 1) * width;
                let scores: Vec<f64> = (0..source.len())
                    .map(|k| {
                        let pairs = query[q][columns.clone()].iter().zip(&key[k][columns.clone()]);
                        pairs.map(|(query, key)| query * key).sum::<f64>() + score(head, q, k)
                    })
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (weight, value) in weights.iter().zip(&value) {
                    for column in columns.clone() {
                        attended[column] += weight / sum * value[column];
                    }
                }
            }
        }
        self.multiply(&attended, &format!("{name}.o.weight"))
    }

    fn embed(&self, name: &str, ids: &[u32]) -> Matrix {
        let table = self.matrix(name, self.shape.d_model);
        ids.iter().map(|id| table[*id as usize].clone()).collect()
    }

    /// Logits after each of `targets`, `[targets, vocab]`.
    pub(crate) fn logits(&self, source: &[u32], targets: &[u32]) -> Matrix {
        let shape = self.shape;
        let bias = |stack: &str| {
            let name = format!("{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
            let weights = self.vector(&name);
            weights.chunks(shape.num_heads).map(<[f64]>::to_vec).collect::<Matrix>()
        };
        let (encoder_bias, decoder_bias) = (bias("encoder"), bias("decoder"));
        let mut x = self.embed("shared.weight", source);
        for layer in 0..shape.num_layers {
            let block = format!("encoder.block.{layer}.layer");
            let normed = self.norm(&x, &format!("{block}.0.layer_norm.weight"));
            let score = |head: usize, q: usize, k: usize| {
                encoder_bias[bucket(k as i64 - q as i64, shape, true)][head]
            };
            x = add(
                &x,
                &self.attention(&normed, &normed, &format!("{block}.0.SelfAttention"), false, &score),
            );
            x = self.feed_forward(&x, &format!("{block}.1"));
        }
        let encoded = self.norm(&x, "encoder.final_layer_norm.weight");
        let table = if shape.own_decoder_embedding { "decoder.embed_tokens.weight" } else { "shared.weight" };
        let mut x = self.embed(table, targets);
        for layer in 0..shape.num_decoder_layers {
            let block = format!("decoder.block.{layer}.layer");
            let normed = self.norm(&x, &format!("{block}.0.layer_norm.weight"));
            let score = |head: usize, q: usize, k: usize| match k.cmp(&q) {
                std::cmp::Ordering::Greater => f64::NEG_INFINITY,
                _ => decoder_bias[bucket(k as i64 - q as i64, shape, false)][head],
            };
            x = add(&x, &self.attention(&normed, &normed, &format!("{block}.0.SelfAttention"), true, &score));
            let normed = self.norm(&x, &format!("{block}.1.layer_norm.weight"));
            let name = format!("{block}.1.EncDecAttention");
            x = add(&x, &self.attention(&normed, &encoded, &name, true, &|_, _, _| 0.0));
            x = self.feed_forward(&x, &format!("{block}.2"));
        }
        let mut states = self.norm(&x, "decoder.final_layer_norm.weight");
        if shape.scale_decoder_outputs {
            let factor = (shape.d_model as f64).powf(-0.5);
            states.iter_mut().flatten().for_each(|state| *state *= factor);
        }
        self.multiply(&states, if shape.own_head { "lm_head.weight" } else { "shared.weight" })
    }
}

fn add(left: &Matrix, right: &Matrix) -> Matrix {
    let rows = left.iter().zip(right);
    rows.map(|(left, right)| left.iter().zip(right).map(|(left, right)| left + right).collect()).collect()
}
