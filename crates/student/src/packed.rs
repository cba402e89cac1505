//! A student in its packed form: integer products on processors, without the tensor library.

use crate::{Serving, StudentError};
use decoder::{Answer, Choice, Encoded, Engine, Feed, LabelTree, Slot, Slots, Want};
use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use t5::{Config, Model, Sampler, Step, Strategy};
use tch::Kind;

/// The packed form beside a checkpoint's weights.
const FILE: &str = "model.t5packed";
/// Threads of one engine at most.
const THREADS_MAX: usize = 64;
/// Rows that are written at once at most, and tokens of one.
const SLOTS: usize = 1_024;
const TOKENS_MAX: usize = 1 << 16;

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

/// A row that is written, in its slot.
#[derive(Debug)]
pub(crate) struct Place {
    slot: Slot,
    /// Its last token.
    token: u32,
    sampler: Option<Sampler>,
}

impl Packed {
    /// Packs the weights of `model`.
    ///
    /// # Errors
    /// The engine does not compute this model; or no thread can be started.
    pub(crate) fn new(model: &Model, serving: Serving) -> Result<Self, StudentError> {
        Self::of(packed(model, serving)?, model.config().clone(), serving)
    }

    /// The packed form that [`Serving::write_packed`] left in a folder; `None` where there is none for this student: the weights are
    /// packed again then.
    ///
    /// # Errors
    /// The file cannot be read, or no thread can be started.
    pub(crate) fn load(
        folder: &Path,
        config: &Config,
        serving: Serving,
    ) -> Result<Option<Self>, StudentError> {
        let path = folder.join(FILE);
        let failed = |error: std::io::Error| StudentError::Internal(format!("{}: {error}", path.display()));
        if !path.try_exists().map_err(failed)? {
            return Ok(None);
        }
        let fits = |model: &decoder::Model| -> Result<bool, StudentError> {
            Ok(*model.shape() == shape(config)? && Some(*model.precisions()) == serving.precisions())
        };
        match decoder::Model::from_bytes(&std::fs::read(&path).map_err(failed)?) {
            Ok(model) if fits(&model)? => Self::of(model, config.clone(), serving).map(Some),
            Ok(_) => Ok(None),
            Err(error) => {
                tracing::warn!(%error, path = %path.display(), "a packed form is not used: the weights are packed again");
                Ok(None)
            }
        }
    }

    fn of(model: decoder::Model, config: Config, serving: Serving) -> Result<Self, StudentError> {
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).clamp(1, THREADS_MAX);
        let engine = RefCell::new(Engine::new(Arc::new(model), threads)?);
        Ok(Self { config, engine, serving })
    }

    pub(crate) fn serving(&self) -> Serving {
        self.serving
    }

    /// No row yet.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub(crate) fn slots(&self) -> Result<Slots, StudentError> {
        Ok(Slots::new(self.engine.borrow().model(), SLOTS, TOKENS_MAX)?)
    }

    /// What the encoder makes of rows; an error for one that it cannot read.
    ///
    /// # Errors
    /// There is no memory, or a worker failed.
    pub(crate) fn encode(
        &self,
        sources: &[&[i64]],
    ) -> Result<Vec<Result<Encoded, StudentError>>, StudentError> {
        let tokens: Vec<Result<Vec<u32>, StudentError>> = sources.iter().map(|ids| tokens(ids)).collect();
        let good: Vec<&[u32]> = tokens.iter().flatten().map(Vec::as_slice).collect();
        let mut encoded = self.engine.borrow_mut().encode(&good)?.into_iter();
        let lost = || StudentError::Internal("a row was not encoded".to_owned());
        let mut next = || Ok(encoded.next().ok_or_else(lost)??);
        Ok(tokens.into_iter().map(|tokens| tokens.and_then(|_| next())).collect())
    }

    /// The log-likelihood of each candidate, the end token counted, as the answer to each row.
    ///
    /// # Errors
    /// As [`Packed::encode`]; or a candidate's id lies outside the vocabulary.
    pub(crate) fn score(&self, rows: &[(&Encoded, &LabelTree)]) -> Result<Vec<Vec<f64>>, StudentError> {
        Ok(self.engine.borrow_mut().score_many(rows)?)
    }

    /// A row that begins to write.
    ///
    /// # Errors
    /// No slot is free, or there is no memory.
    pub(crate) fn begin(
        &self,
        slots: &mut Slots,
        encoded: &Encoded,
        (strategy, tokens_max): (Strategy, usize),
    ) -> Result<Place, StudentError> {
        // Each row is the first of its own: what is drawn for it does not depend on its company.
        let sampler = Sampler::of(strategy, 0)?;
        let token = token(self.config.decoder_start_token_id)?;
        Ok(Place { slot: slots.join(encoded, tokens_max)?, token, sampler })
    }

    /// The next step of every row.
    ///
    /// # Errors
    /// There is no memory, or a worker failed.
    pub(crate) fn step(&self, slots: &mut Slots, rows: &mut [&mut Place]) -> Result<Vec<Step>, StudentError> {
        let chosen = choose(&mut self.engine.borrow_mut(), slots, rows)?;
        let steps = rows.iter_mut().zip(chosen).map(|(row, choice)| {
            row.token = choice.id;
            let log_probability = if choice.finite { choice.log_probability } else { f64::NAN };
            Step::of(&self.config, i64::from(choice.id), log_probability)
        });
        Ok(steps.collect())
    }

    /// A row is over.
    pub(crate) fn leave(&self, slots: &mut Slots, place: &Place) {
        // One that has left before has nothing to give back.
        let _ = slots.leave(place.slot);
    }
}

/// The next token of every row.
fn choose(
    engine: &mut Engine,
    slots: &mut Slots,
    rows: &mut [&mut Place],
) -> Result<Vec<Choice>, StudentError> {
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

impl Serving {
    /// Writes the packed form of `model` into its folder, where it is served in one: it is loaded in place of the weights.
    ///
    /// # Errors
    /// The engine does not compute this model, or the file cannot be written.
    pub fn write_packed(self, model: &Model, folder: &Path) -> Result<(), StudentError> {
        if self == Self::Reference {
            return Ok(());
        }
        let path = folder.join(FILE);
        std::fs::write(&path, packed(model, self)?.to_bytes())
            .map_err(|error| StudentError::Internal(format!("{}: {error}", path.display())))
    }
}

fn packed(model: &Model, serving: Serving) -> Result<decoder::Model, StudentError> {
    let precisions = serving
        .precisions()
        .ok_or_else(|| StudentError::Internal("the reference has no packed form".to_owned()))?;
    let weight = |name: &str| {
        let (_, tensor) = model.parameters().iter().find(|(known, _)| known == name)?;
        Vec::<f32>::try_from(&tensor.detach().to_kind(Kind::Float).contiguous().view([-1])).ok()
    };
    Ok(decoder::Model::pack(&shape(model.config())?, &weight, &precisions)?)
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
