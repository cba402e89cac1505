//! The model: float32 master weights by name, the training pass, and the decoder step by step.

use crate::checkpoint;
use crate::config::Config;
use crate::initialise::{draw, parameter_shapes};
use crate::pass::Pass;
use crate::rows::Rows;
use crate::stack::{Encoded, KeyValueCache};
use crate::weights::{Part, WeightSource, Weights};
use crate::{Compute, Error, IGNORED, Result};
use kernels::Draw;
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Lengths are padded to a multiple of this.
const LENGTH_MULTIPLE: usize = 8;
/// All tokens of a pass are filled up to a multiple of this, so that the shapes of its products come again.
pub const TOKENS_MULTIPLE: i64 = 32;
/// What is added to the score of a hidden position.
const MASKED: f64 = -1e9;

/// A T5 with its master weights.
#[derive(Debug)]
pub struct Model {
    config: Config,
    device: Device,
    parameters: Vec<(String, Tensor)>,
    indices: HashMap<String, usize>,
}

/// A row of training: the ids of its source and those of its target, each with its end token.
pub type Pair<'a> = (&'a [i64], &'a [i64]);

/// Rows that pass through the model together.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, source]`, int64.
    pub input_ids: Tensor,
    /// `[batch, source]`, bool: true where a token is real.
    pub input_mask: Tensor,
    /// `[batch, target]`, int64: -100 where there is nothing to predict.
    pub labels: Tensor,
}

impl Batch {
    /// Rows padded to the longest, and that to a multiple of 8.
    pub fn padded(rows: &[Pair<'_>]) -> Self {
        let width = |of: fn(&Pair<'_>) -> usize| {
            rows.iter().map(of).max().unwrap_or(1).max(1).next_multiple_of(LENGTH_MULTIPLE)
        };
        let (source, target) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let (mut ids, mut mask, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for (from, to) in rows {
            ids.extend(from.iter().copied().chain(std::iter::repeat(0)).take(source));
            mask.extend((0..source).map(|place| place < from.len()));
            labels.extend(to.iter().copied().chain(std::iter::repeat(IGNORED)).take(target));
        }
        let count = rows.len() as i64;
        let table = |values: Tensor, width: usize| values.reshape([count, width as i64]);
        Self {
            input_ids: table(Tensor::from_slice(&ids), source),
            input_mask: table(Tensor::from_slice(&mask), source),
            labels: table(Tensor::from_slice(&labels), target),
        }
    }
}

/// How a pass is made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ForwardOptions {
    /// The number format.
    pub compute: Compute,
    /// Dropout; 0 outside training.
    pub dropout: f64,
}

/// The encoder's output over a batch.
#[derive(Debug)]
pub struct EncoderOutput {
    /// `[batch, source, d_model]`.
    pub(crate) states: Tensor,
    /// float32 `[batch, 1, 1, source]`: 0 or a large negative number.
    pub(crate) mask: Tensor,
}

/// The decoder's state between steps: keys and values of the tokens so far, and of the encoder's output.
#[derive(Debug)]
pub struct DecoderState {
    caches: Vec<KeyValueCache>,
    mask: Tensor,
    position: i64,
}

impl DecoderState {
    /// Keeps the rows at these indices, in this order; an index may repeat.
    pub fn select(&mut self, rows: &[i64]) {
        let rows = Tensor::from_slice(rows).to_device(self.mask.device());
        for cache in &mut self.caches {
            cache.own = cache.own.as_ref().map(|own| own.select(&rows));
            cache.encoded = cache.encoded.select(&rows);
        }
        self.mask = self.mask.index_select(0, &rows);
    }

    /// Tokens decoded so far.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Rows in the state.
    pub fn rows(&self) -> i64 {
        self.mask.size().first().copied().unwrap_or(0)
    }
}

impl EncoderOutput {
    /// Rows in the batch.
    pub fn rows(&self) -> i64 {
        self.mask.size().first().copied().unwrap_or(0)
    }

    /// Keeps the rows at these indices, in this order; an index may repeat.
    #[must_use]
    pub fn select(&self, rows: &[i64]) -> Self {
        let rows = Tensor::from_slice(rows).to_device(self.mask.device());
        Self { states: self.states.index_select(0, &rows), mask: self.mask.index_select(0, &rows) }
    }
}

impl Model {
    /// A model with fresh weights, the same bytes for the same seed.
    ///
    /// # Errors
    /// The tensor library's, such as a lack of memory.
    pub fn from_scratch(config: Config, seed: i64, device: Device) -> Result<Self> {
        let parameters = draw(&parameter_shapes(&config), seed, device);
        Ok(Self::assemble(config, device, parameters))
    }

    /// Opens a checkpoint folder in the Hugging Face layout.
    ///
    /// # Errors
    /// See [`Error`]: absent or truncated files, tensors that are absent, misshapen, unknown or not finite.
    pub fn load(folder: &Path, device: Device) -> Result<Self> {
        let (config, parameters) = checkpoint::read(folder, device)?;
        Ok(Self::assemble(config, device, parameters))
    }

    /// Writes the model in the Hugging Face layout; more than `shard_bytes_max` bytes are split over several files.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn save(&self, folder: &Path, shard_bytes_max: u64) -> Result<()> {
        checkpoint::write(folder, &self.config, &self.parameters, shard_bytes_max)
    }

    pub(crate) fn assemble(config: Config, device: Device, parameters: Vec<(String, Tensor)>) -> Self {
        let indices = parameters.iter().enumerate().map(|(index, (name, _))| (name.clone(), index)).collect();
        Self { config, device, parameters, indices }
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Every weight, ordered by name: float32 leaves.
    pub fn parameters(&self) -> &[(String, Tensor)] {
        &self.parameters
    }

    /// How many numbers the model has; shared ones are counted once.
    pub fn parameter_count(&self) -> i64 {
        self.parameters.iter().map(|(_, tensor)| tensor.numel() as i64).sum()
    }

    /// Whether passes record what gradients need.
    pub fn set_trainable(&mut self, trainable: bool) {
        for (_, tensor) in &mut self.parameters {
            *tensor = tensor.set_requires_grad(trainable);
        }
    }

    /// A copy of every weight, on the CPU.
    pub fn snapshot(&self) -> Vec<(String, Tensor)> {
        self.parameters
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.detach().to_device(Device::Cpu).copy()))
            .collect()
    }

    /// Overwrites the weights with those of a snapshot.
    ///
    /// # Errors
    /// A weight is absent or has another shape.
    pub fn copy_from(&mut self, snapshot: &[(String, Tensor)]) -> Result<()> {
        for (name, source) in snapshot {
            let Some(target) = self.parameter_mut(name) else {
                return Err(Error::Input(format!("the model has no weight `{name}`")));
            };
            if target.size() != source.size() {
                return Err(Error::Input(format!("weight `{name}` has another shape")));
            }
            tch::no_grad(|| target.f_copy_(source))?;
        }
        Ok(())
    }

    /// The weights as a pass uses them: made anew for every pass where they are trained, else once.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn weights(&self, compute: Compute) -> Result<Weights> {
        let find = |part: &Part| self.made(part, compute.kind());
        WeightSource { config: &self.config, find: &find }.weights()
    }

    /// A part of a pass, made of the weights' values.
    fn made(&self, part: &Part, kind: Kind) -> Result<Tensor> {
        let weights = part.names.iter().map(|name| {
            self.parameter(name).ok_or_else(|| Error::Input(format!("the model has no weight `{name}`")))
        });
        let made = match weights.collect::<Result<Vec<_>>>()?.as_slice() {
            [weight] => weight.shallow_clone(),
            weights => Tensor::f_cat(weights, 0)?,
        };
        Ok(if part.cast { made.to_kind(kind) } else { made })
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.indices.get(name).and_then(|index| self.parameters.get(*index)).map(|(_, weight)| weight)
    }

    pub(crate) fn parameter_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        self.indices.get(name).and_then(|index| self.parameters.get_mut(*index)).map(|(_, weight)| weight)
    }

    /// Logits `[batch, target, vocab]` in float32, teacher-forced on the labels: the plain version, which makes its weights
    /// anew and draws dropout from the library's generator.
    ///
    /// # Errors
    /// Ids outside the vocabulary, or parts of the batch that do not fit each other.
    pub fn forward(&self, batch: &Batch, options: &ForwardOptions) -> Result<Tensor> {
        let (weights, pass) = (self.weights(options.compute)?, Pass::plain(options.dropout));
        self.check(&batch.input_ids, &batch.input_mask)?;
        let labels = batch.labels.to_device(self.device);
        self.check_labels(&labels, &batch.input_ids)?;
        let encoded = self.encode_with(&weights, &batch.input_ids, &batch.input_mask, &pass)?;
        self.decode_with(&weights, &encoded, &self.shifted(&labels), &pass)
    }

    /// The loss of every target token of `rows`, one row after the other, float32 `[tokens]`: what [`Model::forward`] and
    /// [`crate::token_losses`] make of them, over the weights of [`Model::flatten`], with dropout drawn by counter, and
    /// without a position of padding outside attention.
    ///
    /// # Errors
    /// A row is empty, an id lies outside the vocabulary, or the dropout rate is not in `0..1`.
    pub fn losses(&self, weights: &Weights, rows: &[Pair<'_>], dropout: f64, draw: Draw) -> Result<Tensor> {
        let empty = || Error::Input("a row has no source or no target, or there is none".to_owned());
        let lengths = |of: fn(&Pair<'_>) -> usize| {
            let lengths = kernels::Rows::new(rows.iter().map(|row| of(row) as i64).collect());
            lengths.map(|rows| rows.rounded(TOKENS_MULTIPLE, LENGTH_MULTIPLE as i64)).ok_or_else(empty)
        };
        let (sources, targets) = (lengths(|row| row.0.len())?, lengths(|row| row.1.len())?);
        let start = self.config.decoder_start_token_id;
        let shifted = |target: &[i64]| {
            let before = target.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default();
            std::iter::once(start).chain(before)
        };
        let ids = self.ids("input ids", rows.iter().flat_map(|row| row.0.iter().copied()), &sources)?;
        let labels = self.ids("labels", rows.iter().flat_map(|row| row.1.iter().copied()), &targets)?;
        let inputs = self.ids("labels", rows.iter().flat_map(|row| shifted(row.1)), &targets)?;
        let mask = self.mask(&sources);
        let (width, real) = (targets.width(), targets.lengths().iter().sum());
        let (sources, targets) = (Rows::Packed(sources), Rows::Packed(targets));
        let pass = &Pass::fast(dropout, draw);
        let x = pass.embedding(&weights.encoder_embedding, &ids)?;
        let states = weights.encoder.encode(&x, &sources, &mask, pass)?;
        let encoded = Encoded { states: &states, rows: &sources, mask: &mask };
        let x = pass.embedding(&weights.decoder_embedding, &inputs)?;
        let states = weights.decoder.decode(&x, &targets, &self.causal(width), &encoded, pass)?;
        Ok(pass.token_losses(&head(weights, &states, pass)?, &labels)?.narrow(0, 0, real))
    }

    /// Ids of `rows`, end to end, `[tokens]`.
    fn ids(&self, what: &str, ids: impl Iterator<Item = i64>, rows: &kernels::Rows) -> Result<Tensor> {
        let filling =
            std::iter::repeat_n(self.config.pad_token_id, usize::try_from(rows.filling()).unwrap_or(0));
        let ids: Vec<i64> = ids.chain(filling).collect();
        match ids.iter().find(|id| !(0..self.config.vocab_size).contains(*id)) {
            Some(id) => Err(self.outside(what, *id)),
            None => Ok(Tensor::from_slice(&ids).to_device(self.device)),
        }
    }

    /// What is added to the scores of keys in rows of these lengths: float32 `[rows, 1, 1, width]`.
    fn mask(&self, rows: &kernels::Rows) -> Tensor {
        let lengths = Tensor::from_slice(rows.lengths()).to_device(self.device).view([-1, 1, 1, 1]);
        let places = Tensor::arange(rows.width(), (Kind::Int64, self.device));
        places.ge_tensor(&lengths).to_kind(Kind::Float) * MASKED
    }

    /// What is added to the scores of a target's keys: float32 `[1, 1, length, length]`.
    fn causal(&self, length: i64) -> Tensor {
        let hidden = Tensor::full([length, length], MASKED, (Kind::Float, self.device)).triu(1);
        hidden.unsqueeze(0).unsqueeze(0)
    }

    /// The decoder's inputs: labels shifted one position to the right, after the start token. `[batch, target]`.
    fn shifted(&self, labels: &Tensor) -> Tensor {
        let size = labels.size();
        let (batch, length) = (size.first().copied().unwrap_or(0), size.get(1).copied().unwrap_or(0));
        let start = Tensor::full([batch, 1], self.config.decoder_start_token_id, (Kind::Int64, self.device));
        let shifted = Tensor::cat(&[start, labels.narrow(1, 0, (length - 1).max(0))], 1);
        shifted.where_scalarother(&shifted.ne(IGNORED), self.config.pad_token_id)
    }

    /// The encoder's output.
    ///
    /// # Errors
    /// Ids outside the vocabulary, or a mask of another shape.
    pub fn encode(
        &self,
        weights: &Weights,
        input_ids: &Tensor,
        input_mask: &Tensor,
    ) -> Result<EncoderOutput> {
        self.check(input_ids, input_mask)?;
        tch::no_grad(|| self.encode_with(weights, input_ids, input_mask, &Pass::undropped()))
    }

    fn encode_with(
        &self,
        weights: &Weights,
        input_ids: &Tensor,
        input_mask: &Tensor,
        pass: &Pass,
    ) -> Result<EncoderOutput> {
        let ids = input_ids.to_device(self.device);
        let hidden = input_mask.to_device(self.device).to_kind(Kind::Bool).logical_not();
        let mask = hidden.to_kind(Kind::Float).unsqueeze(1).unsqueeze(1) * MASKED;
        let x = Tensor::embedding(&weights.encoder_embedding, &ids, -1, false, false);
        Ok(EncoderOutput { states: weights.encoder.encode(&x, &Rows::Padded, &mask, pass)?, mask })
    }

    /// Logits `[batch, target, vocab]` of whole targets.
    pub(crate) fn decode_with(
        &self,
        weights: &Weights,
        encoded: &EncoderOutput,
        ids: &Tensor,
        pass: &Pass,
    ) -> Result<Tensor> {
        let length = ids.size().get(1).copied().unwrap_or(0);
        let x = Tensor::embedding(&weights.decoder_embedding, ids, -1, false, false);
        let rows = &Rows::Padded;
        let encoded = Encoded { states: &encoded.states, rows, mask: &encoded.mask };
        let states = weights.decoder.decode(&x, rows, &self.causal(length), &encoded, pass)?;
        project(weights, &states)
    }

    /// The decoder before its first token.
    ///
    /// # Errors
    /// The tensor library's.
    pub fn start(&self, weights: &Weights, encoded: &EncoderOutput) -> Result<DecoderState> {
        tch::no_grad(|| {
            let caches = weights.decoder.project_kv(&encoded.states)?;
            Ok(DecoderState { caches, mask: encoded.mask.shallow_clone(), position: 0 })
        })
    }

    /// Feeds one token a row, `[batch]`; logits `[batch, vocab]` of the next, in float32. The first token is
    /// `decoder_start_token_id`.
    ///
    /// # Errors
    /// Ids outside the vocabulary, or not one for every row.
    pub fn step(&self, weights: &Weights, state: &mut DecoderState, tokens: &[i64]) -> Result<Tensor> {
        if tokens.len() as i64 != state.rows() {
            return Err(Error::Input(format!("{} tokens for {} rows", tokens.len(), state.rows())));
        }
        if let Some(token) = tokens.iter().find(|token| !(0..self.config.vocab_size).contains(*token)) {
            return Err(self.outside("a token", *token));
        }
        tch::no_grad(|| {
            let ids = Tensor::from_slice(tokens).to_device(self.device).unsqueeze(1);
            let x = Tensor::embedding(&weights.decoder_embedding, &ids, -1, false, false);
            let states = weights.decoder.step(&x, &mut state.caches, state.position, &state.mask)?;
            state.position += 1;
            Ok(project(weights, &states)?.squeeze_dim(1))
        })
    }

    fn check(&self, input_ids: &Tensor, input_mask: &Tensor) -> Result<()> {
        if input_ids.dim() != 2 || input_ids.size() != input_mask.size() || input_ids.numel() == 0 {
            return Err(Error::Input(format!(
                "ids {:?} and their mask {:?} must both be [batch, source], and not empty",
                input_ids.size(),
                input_mask.size()
            )));
        }
        self.check_ids("input ids", input_ids)
    }

    fn check_labels(&self, labels: &Tensor, input_ids: &Tensor) -> Result<()> {
        if labels.dim() != 2 || labels.numel() == 0 || labels.size().first() != input_ids.size().first() {
            return Err(Error::Input(format!(
                "labels {:?} must be [batch, target], not empty, and have a row for every row of the ids {:?}",
                labels.size(),
                input_ids.size()
            )));
        }
        if labels.kind() != Kind::Int64 {
            return Err(kind("labels", labels));
        }
        self.check_ids("labels", &labels.where_scalarother(&labels.ne(IGNORED), self.config.pad_token_id))
    }

    fn check_ids(&self, what: &str, ids: &Tensor) -> Result<()> {
        if ids.kind() != Kind::Int64 {
            return Err(kind(what, ids));
        }
        let (low, high) = (ids.f_min()?.int64_value(&[]), ids.f_max()?.int64_value(&[]));
        match [low, high].into_iter().find(|id| !(0..self.config.vocab_size).contains(id)) {
            Some(id) => Err(self.outside(what, id)),
            None => Ok(()),
        }
    }

    fn outside(&self, what: &str, id: i64) -> Error {
        Error::Input(format!(
            "{what}: {id} lies outside the vocabulary of {}: does the tokenizer belong to this model?",
            self.config.vocab_size
        ))
    }
}

fn kind(what: &str, ids: &Tensor) -> Error {
    Error::Input(format!("{what} are {:?}: they must be int64", ids.kind()))
}

fn project(weights: &Weights, states: &Tensor) -> Result<Tensor> {
    Ok(head(weights, states, &Pass::undropped())?.to_kind(Kind::Float))
}

/// The decoder's output as logits, in the pass's number format.
fn head(weights: &Weights, states: &Tensor, pass: &Pass) -> Result<Tensor> {
    match weights.head_scale {
        Some(scale) => pass.linear(&(states * scale), &weights.head),
        None => pass.linear(states, &weights.head),
    }
}
