//! A student in its packed form: integer products on processors, without the tensor library.

use crate::{Serving, StudentError};
use decoder::{Answer, Choice, Encoded, Engine, Feed, LabelTree, Slots, Want};
use std::cell::RefCell;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use t5::{Config, Model, Sampler, Step, Strategy};
use tch::Kind;

/// Threads of one engine at most.
const THREADS_MAX: usize = 64;

/// A packed student. One thread uses it at a time.
pub(crate) struct Packed {
    config: Config,
    engine: RefCell<Engine>,
    serving: Serving,
}

impl fmt::Debug for Packed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Packed").field("serving", &self.serving).finish_non_exhaustive()
    }
}

/// A row that is written.
struct Row {
    place: usize,
    slot: decoder::Slot,
    token: u32,
    sampler: Option<Sampler>,
}

impl Packed {
    /// Packs the weights of `model`.
    ///
    /// # Errors
    /// The engine does not compute this model; or no thread can be started.
    pub(crate) fn new(model: &Model, serving: Serving) -> Result<Self, StudentError> {
        let precisions = serving
            .precisions()
            .ok_or_else(|| StudentError::Internal("the reference has no packed form".to_owned()))?;
        let weight = |name: &str| {
            let (_, tensor) = model.parameters().iter().find(|(known, _)| known == name)?;
            Vec::<f32>::try_from(&tensor.detach().to_kind(Kind::Float).contiguous().view([-1])).ok()
        };
        let packed = decoder::Model::pack(&shape(model.config())?, &weight, &precisions)?;
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, THREADS_MAX);
        let engine = RefCell::new(Engine::new(Arc::new(packed), threads)?);
        Ok(Self { config: model.config().clone(), engine, serving })
    }

    pub(crate) fn serving(&self) -> Serving {
        self.serving
    }

    /// The log-likelihood of each candidate, the end token counted, as the answer to one row.
    pub(crate) fn score(&self, ids: &[i64], candidates: &[&[i64]]) -> Result<Vec<f64>, StudentError> {
        let candidates = candidates.iter().map(|ids| tokens(ids)).collect::<Result<Vec<_>, _>>()?;
        let candidates: Vec<&[u32]> = candidates.iter().map(Vec::as_slice).collect();
        let tree = LabelTree::new(&candidates)?;
        let mut engine = self.engine.borrow_mut();
        let encoded = encode(&mut engine, &[ids])?;
        let Some(encoded) = encoded.first() else { return Ok(Vec::new()) };
        Ok(engine.score(encoded, &tree)?)
    }

    /// Writes rows; `on_step(row, step)` is called for every token and once at the end of each row, and `Break` ends that row. The
    /// same contract as [`t5::generate_with`].
    pub(crate) fn write(
        &self,
        sources: &[&[i64]],
        strategy: Strategy,
        tokens_max: usize,
        on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
    ) -> Result<(), StudentError> {
        let mut engine = self.engine.borrow_mut();
        let encoded = encode(&mut engine, sources)?;
        let mut slots = Slots::new(engine.model(), sources.len().max(1), tokens_max.max(1))?;
        let start = token(self.config.decoder_start_token_id)?;
        let mut rows = Vec::with_capacity(encoded.len());
        for (place, encoded) in encoded.iter().enumerate() {
            let slot = slots.join(encoded, tokens_max.max(1))?;
            rows.push(Row { place, slot, token: start, sampler: Sampler::of(strategy, place as u64)? });
        }
        for _ in 0..tokens_max {
            if rows.is_empty() {
                break;
            }
            let chosen = choose(&mut engine, &mut slots, &mut rows)?;
            let mut kept = Vec::with_capacity(rows.len());
            for (mut row, choice) in rows.into_iter().zip(chosen) {
                let log_probability = if choice.finite { choice.log_probability } else { f64::NAN };
                let step = Step::of(&self.config, i64::from(choice.id), log_probability);
                if on_step(row.place, step).is_continue() && matches!(step, Step::Token { .. }) {
                    row.token = choice.id;
                    kept.push(row);
                } else {
                    slots.leave(row.slot)?;
                }
            }
            rows = kept;
        }
        Ok(())
    }
}

/// The next token of every row.
fn choose(engine: &mut Engine, slots: &mut Slots, rows: &mut [Row]) -> Result<Vec<Choice>, StudentError> {
    let fed: Vec<[u32; 1]> = rows.iter().map(|row| [row.token]).collect();
    let feeds: Vec<Feed<'_>> = rows
        .iter()
        .zip(&fed)
        .map(|(row, tokens)| Feed {
            slot: row.slot,
            tokens,
            want: if row.sampler.is_some() { Want::Logits } else { Want::Choices },
        })
        .collect();
    let answers = engine.step(slots, &feeds)?;
    let lost = || StudentError::Internal("a row was not answered".to_owned());
    rows.iter_mut()
        .zip(answers)
        .map(|(row, answer)| match (answer, &mut row.sampler) {
            (Answer::Choices(choices), _) => choices.first().copied().ok_or_else(lost),
            (Answer::Logits(logits), Some(sampler)) => Ok(drawn(&logits, sampler)),
            (Answer::Logits(_), None) => Err(lost()),
        })
        .collect()
}

/// A token that is drawn from logits, with its log-probability under the model.
fn drawn(logits: &[f32], sampler: &mut Sampler) -> Choice {
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mass: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    let finite = logits.iter().all(|logit| logit.is_finite());
    let id = if finite { sampler.draw(logits) } else { 0 };
    let own = usize::try_from(id).ok().and_then(|id| logits.get(id)).copied().unwrap_or(f32::NAN);
    let log_probability = f64::from(own) - f64::from(highest) - mass.ln();
    Choice { id: u32::try_from(id).unwrap_or_default(), log_probability, finite }
}

/// Rows that the encoder has read; one that it cannot read fails all, as an id that is none of the vocabulary is no row's fault.
fn encode(engine: &mut Engine, sources: &[&[i64]]) -> Result<Vec<Encoded>, StudentError> {
    let sources = sources.iter().map(|ids| tokens(ids)).collect::<Result<Vec<_>, _>>()?;
    let sources: Vec<&[u32]> = sources.iter().map(Vec::as_slice).collect();
    Ok(engine.encode(&sources)?.into_iter().collect::<Result<Vec<_>, _>>()?)
}

fn tokens(ids: &[i64]) -> Result<Vec<u32>, StudentError> {
    ids.iter().map(|id| token(*id)).collect()
}

fn token(id: i64) -> Result<u32, StudentError> {
    u32::try_from(id)
        .map_err(|_| decoder::Error::Input(format!("the id {id} is none of a vocabulary")).into())
}

fn shape(config: &Config) -> Result<decoder::Shape, StudentError> {
    let whole = |name: &'static str, number: i64| {
        usize::try_from(number).map_err(|_| StudentError::Internal(format!("{name} is {number}")))
    };
    Ok(decoder::Shape {
        d_model: whole("d_model", config.d_model)?,
        d_kv: whole("d_kv", config.d_kv)?,
        d_ff: whole("d_ff", config.d_ff)?,
        num_layers: whole("num_layers", config.num_layers)?,
        num_decoder_layers: whole("num_decoder_layers", config.num_decoder_layers)?,
        num_heads: whole("num_heads", config.num_heads)?,
        vocab_size: whole("vocab_size", config.vocab_size)?,
        relative_attention_num_buckets: whole("buckets", config.relative_attention_num_buckets)?,
        relative_attention_max_distance: whole("max_distance", config.relative_attention_max_distance)?,
        layer_norm_epsilon: config.layer_norm_epsilon,
        activation: match config.feed_forward.activation {
            t5::Activation::Relu => decoder::Activation::Relu,
            t5::Activation::Gelu => decoder::Activation::Gelu,
            t5::Activation::GeluTanh => decoder::Activation::GeluTanh,
            t5::Activation::Silu => decoder::Activation::Silu,
        },
        gated: config.feed_forward.gated,
        own_decoder_embedding: config.own_decoder_embedding,
        own_head: config.own_head,
        scale_decoder_outputs: config.scale_decoder_outputs,
        decoder_start_token_id: token(config.decoder_start_token_id)?,
        eos_token_id: token(config.eos_token_id)?,
    })
}
