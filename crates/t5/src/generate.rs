//! Writing text: greedy, beam and sampled decoding, and the likelihood of given answers.

use crate::model::{EncoderOutput, Model};
use crate::pass::Pass;
use crate::weights::Weights;
use crate::{Compute, Config, Error, IGNORED, Result, token_losses};
use std::ops::ControlFlow;
use tch::{Kind, Tensor};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Strategy {
    /// The likeliest.
    Greedy,
    /// The likeliest sequence among `width` that are followed at once; scores are divided by length^`length_penalty`.
    Beam {
        /// Sequences followed.
        width: usize,
        /// 0 prefers short answers, 1 is neutral.
        length_penalty: f64,
    },
    /// Drawn by chance.
    Sample {
        /// Divides the logits.
        temperature: f64,
        /// Keeps so many likeliest tokens; 0 keeps all.
        top_k: usize,
        /// Keeps the likeliest tokens that together have this mass; 1 keeps all.
        top_p: f64,
        /// The same seed draws the same text. Every row has a generator of its own.
        seed: u64,
    },
}

/// How text is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateOptions {
    /// Most tokens a row.
    pub tokens_max: usize,
    /// How tokens are chosen.
    pub strategy: Strategy,
    /// The number format.
    pub compute: Compute,
}

/// The text of every row as token ids, without the start token and the end token.
///
/// # Errors
/// Ids outside the vocabulary.
pub fn generate(
    model: &Model,
    input_ids: &Tensor,
    input_mask: &Tensor,
    options: &GenerateOptions,
) -> Result<Vec<Vec<i64>>> {
    if let Strategy::Beam { width, length_penalty } = options.strategy {
        let weights = model.weights(options.compute)?;
        let encoded = model.encode(&weights, input_ids, input_mask)?;
        let rows = input_ids.size().first().copied().unwrap_or(0);
        return (0..rows)
            .map(|row| {
                beam(
                    model,
                    &weights,
                    &encoded.select(&[row]),
                    width.max(1),
                    length_penalty,
                    options.tokens_max,
                )
            })
            .collect();
    }
    let rows = usize::try_from(input_ids.size().first().copied().unwrap_or(0)).unwrap_or(0);
    let mut texts = vec![Vec::new(); rows];
    let weights = model.weights(options.compute)?;
    let mut all_finite = true;
    generate_with(model, &weights, input_ids, input_mask, options, &mut |row, step| {
        match step {
            Step::Token { id, .. } => texts.iter_mut().skip(row).take(1).for_each(|text| text.push(id)),
            Step::End { .. } => {}
            Step::NotFinite => all_finite = false,
        }
        ControlFlow::Continue(())
    })?;
    if all_finite { Ok(texts) } else { Err(Error::Logits) }
}

/// One step of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Step {
    /// A token was chosen.
    Token {
        /// Its id.
        id: i64,
        /// The natural logarithm of its probability under the model.
        log_probability: f64,
    },
    /// The end token was chosen: the row is complete.
    End {
        /// The natural logarithm of the end token's probability.
        log_probability: f64,
    },
    /// The row's logits are not finite: it ends without an answer.
    NotFinite,
}

impl Step {
    /// What the choice of a token is to its row; a log-probability that is not finite is that of no token.
    pub fn of(config: &Config, id: i64, log_probability: f64) -> Self {
        match id {
            _ if !log_probability.is_finite() => Self::NotFinite,
            id if config.ends(id) => Self::End { log_probability },
            id => Self::Token { id, log_probability },
        }
    }
}

/// Calls `on_step(row, step)` for every step of every row; `Break` ends that row. Greedy or sampled only. `weights` are the
/// model's in the number format of the passes: computed once, they serve every call.
///
/// # Errors
/// Ids outside the vocabulary, or a beam.
pub fn generate_with(
    model: &Model,
    weights: &Weights,
    input_ids: &Tensor,
    input_mask: &Tensor,
    options: &GenerateOptions,
    on_step: &mut dyn FnMut(usize, Step) -> ControlFlow<()>,
) -> Result<()> {
    let encoded = model.encode(weights, input_ids, input_mask)?;
    let count = usize::try_from(input_ids.size().first().copied().unwrap_or(0)).unwrap_or(0);
    let mut samplers =
        (0..count as u64).map(|row| Sampler::of(options.strategy, row)).collect::<Result<Vec<_>>>()?;
    let mut state = model.start(weights, &encoded)?;
    let config = model.config();
    let mut rows: Vec<usize> = (0..count).collect();
    let mut tokens = vec![config.decoder_start_token_id; rows.len()];
    for _ in 0..options.tokens_max {
        let logits = model.step(weights, &mut state, &tokens)?;
        let chosen = choose(&logits, &rows, &mut samplers)?;
        let (mut kept, mut next) = (Vec::new(), Vec::new());
        for ((place, row), (id, log_probability)) in (0_i64..).zip(&rows).zip(chosen) {
            let step = Step::of(config, id, log_probability);
            if on_step(*row, step).is_continue() && matches!(step, Step::Token { .. }) {
                kept.push((place, *row));
                next.push(id);
            }
        }
        if kept.is_empty() {
            break;
        }
        // Rows that are done leave the batch at once.
        if kept.len() < rows.len() {
            state.select(&kept.iter().map(|(place, _)| *place).collect::<Vec<_>>());
        }
        rows = kept.into_iter().map(|(_, row)| row).collect();
        tokens = next;
    }
    Ok(())
}

/// Draws the tokens of one row by chance.
#[derive(Debug, Clone)]
pub struct Sampler {
    temperature: f64,
    top_k: usize,
    top_p: f64,
    generator: Generator,
}

impl Sampler {
    /// The sampler of row number `row`; `None` for a strategy that draws nothing.
    ///
    /// # Errors
    /// A beam, which is not followed token by token.
    pub fn of(strategy: Strategy, row: u64) -> Result<Option<Self>> {
        match strategy {
            Strategy::Greedy => Ok(None),
            Strategy::Sample { temperature, top_k, top_p, seed } => {
                let generator = Generator::of(seed, row);
                Ok(Some(Self { temperature: temperature.max(1e-6), top_k, top_p, generator }))
            }
            Strategy::Beam { .. } => Err(Error::Input("a beam cannot be followed token by token".to_owned())),
        }
    }

    /// The next token; `logits` is `[vocabulary]`.
    pub fn draw(&mut self, logits: &[f32]) -> i64 {
        sample(logits, self.temperature, self.top_k, self.top_p, &mut self.generator)
    }
}

/// The next token of every row and its log-probability, which is not finite where one of the row's logits is not;
/// `logits` is `[rows, vocab]`.
fn choose(logits: &Tensor, rows: &[usize], samplers: &mut [Option<Sampler>]) -> Result<Vec<(i64, f64)>> {
    let greedy: Vec<i64> = Vec::try_from(logits.argmax(-1, false))?;
    let mut chosen = Vec::with_capacity(rows.len());
    for ((place, row), likeliest) in (0_i64..).zip(rows).zip(greedy) {
        chosen.push(match samplers.get_mut(*row).and_then(Option::as_mut) {
            Some(sampler) => sampler.draw(&Vec::<f32>::try_from(logits.get(place))?),
            None => likeliest,
        });
    }
    let ids = Tensor::from_slice(&chosen).to_device(logits.device()).unsqueeze(1);
    let own = logits.gather(1, &ids, false).squeeze_dim(1);
    let log_probabilities: Vec<f64> =
        Vec::try_from((own - logits.logsumexp(&[-1_i64][..], false)).to_kind(Kind::Double))?;
    Ok(chosen.into_iter().zip(log_probabilities).collect())
}

/// splitmix64: small, and a row's own.
#[derive(Debug, Clone)]
struct Generator(u64);

impl Generator {
    /// Rows start at places that have nothing to do with each other: at neighbouring ones, a row would draw what another
    /// drew a token before.
    fn of(seed: u64, row: u64) -> Self {
        Self(Self(Self(seed).next() ^ row).next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Evenly from 0 to below 1.
    fn next_share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn sample(logits: &[f32], temperature: f64, top_k: usize, top_p: f64, generator: &mut Generator) -> i64 {
    let mut ranked: Vec<(usize, f64)> =
        logits.iter().enumerate().map(|(id, logit)| (id, f64::from(*logit) / temperature)).collect();
    ranked.sort_by(|left, right| right.1.total_cmp(&left.1).then(left.0.cmp(&right.0)));
    if top_k > 0 {
        ranked.truncate(top_k);
    }
    let highest = ranked.first().map_or(0.0, |(_, logit)| *logit);
    let masses: Vec<f64> = ranked.iter().map(|(_, logit)| (logit - highest).exp()).collect();
    let total: f64 = masses.iter().sum();
    // The nucleus: the fewest likeliest tokens whose mass reaches top_p.
    let mut nucleus = 0.0;
    let kept = masses.iter().take_while(|mass| {
        let before = nucleus;
        nucleus += **mass;
        before < top_p * total
    });
    let kept = kept.count().max(1);
    let mass: f64 = masses.iter().take(kept).sum();
    let mut left = generator.next_share() * mass;
    for ((id, _), share) in ranked.iter().zip(&masses).take(kept) {
        left -= share;
        if left <= 0.0 {
            return *id as i64;
        }
    }
    ranked.get(kept - 1).map_or(0, |(id, _)| *id as i64)
}

/// A sequence that a beam follows, or has finished.
#[derive(Debug, Clone)]
struct Hypothesis {
    tokens: Vec<i64>,
    score: f64,
}

/// Beam search over one row, as `transformers` does it: a sequence ends when it draws the end token among the `width`
/// likeliest continuations; the search ends when no open sequence can beat the worst of `width` finished ones.
fn beam(
    model: &Model,
    weights: &Weights,
    encoded: &EncoderOutput,
    width: usize,
    length_penalty: f64,
    tokens_max: usize,
) -> Result<Vec<i64>> {
    let config = model.config();
    let mut state = model.start(weights, &encoded.select(&vec![0; width]))?;
    let first = Hypothesis { tokens: Vec::new(), score: 0.0 };
    let mut open = vec![first];
    let mut finished: Vec<Hypothesis> = Vec::new();
    for length in 0..tokens_max {
        let mut tokens: Vec<i64> = open
            .iter()
            .map(|hypothesis| hypothesis.tokens.last().copied().unwrap_or(config.decoder_start_token_id))
            .collect();
        // Before the first token all beams are the same one.
        tokens.resize(width, config.decoder_start_token_id);
        let scores = model.step(weights, &mut state, &tokens)?.log_softmax(-1, Kind::Float);
        let ranked = continuations(&scores, &open, 2 * width)?;
        let (mut next, mut parents) = (Vec::new(), Vec::new());
        for (rank, (parent, token, score)) in ranked.into_iter().enumerate() {
            let Some(hypothesis) = open.get(parent) else { continue };
            let mut tokens = hypothesis.tokens.clone();
            if config.ends(token) {
                if rank < width {
                    let score = score / ((length + 1) as f64).powf(length_penalty);
                    finished.push(Hypothesis { tokens, score });
                }
            } else if next.len() < width {
                tokens.push(token);
                next.push(Hypothesis { tokens, score });
                parents.push(parent as i64);
            }
        }
        keep_best(&mut finished, width);
        let best_open = next.first().map_or(f64::NEG_INFINITY, |hypothesis| hypothesis.score)
            / ((length + 1) as f64).powf(length_penalty);
        let worst = finished.last().map_or(f64::NEG_INFINITY, |hypothesis| hypothesis.score);
        if finished.len() >= width && worst >= best_open {
            break;
        }
        parents.resize(width, 0);
        state.select(&parents);
        open = next;
        if length + 1 == tokens_max {
            finished.extend(open.iter().map(|hypothesis| Hypothesis {
                tokens: hypothesis.tokens.clone(),
                score: hypothesis.score / (tokens_max as f64).powf(length_penalty),
            }));
            keep_best(&mut finished, width);
        }
    }
    Ok(finished.into_iter().next().map_or_else(Vec::new, |hypothesis| hypothesis.tokens))
}

fn keep_best(finished: &mut Vec<Hypothesis>, width: usize) {
    finished.sort_by(|left, right| right.score.total_cmp(&left.score));
    finished.truncate(width);
}

/// The likeliest (parent, token, score) over all open sequences; `scores` is `[width, vocab]`.
fn continuations(scores: &Tensor, open: &[Hypothesis], count: usize) -> Result<Vec<(usize, i64, f64)>> {
    let vocabulary = scores.size().last().copied().unwrap_or(1);
    let past: Vec<f32> = open.iter().map(|hypothesis| hypothesis.score as f32).collect();
    let rows = open.len() as i64;
    let total = scores.narrow(0, 0, rows) + Tensor::from_slice(&past).to_device(scores.device()).unsqueeze(1);
    let flat = total.reshape([-1]);
    let (values, places) = flat.topk((count as i64).min(flat.size1()?), 0, true, true);
    let values: Vec<f32> = Vec::try_from(values)?;
    let places: Vec<i64> = Vec::try_from(places)?;
    if values.iter().any(|value| value.is_nan()) {
        return Err(Error::Logits);
    }
    Ok(places
        .into_iter()
        .zip(values)
        .map(|(place, value)| ((place / vocabulary) as usize, place % vocabulary, f64::from(value)))
        .collect())
}

/// The log-likelihood of each candidate (the end token counted) as the answer to row `row` of `encoded`. It is not finite
/// where the model's logits are not.
///
/// # Errors
/// Ids outside the vocabulary.
pub fn score(
    model: &Model,
    weights: &Weights,
    encoded: &EncoderOutput,
    row: i64,
    candidates: &[Vec<i64>],
) -> Result<Vec<f64>> {
    if candidates.is_empty() {
        return Ok(Vec::new());
    }
    if !(0..encoded.rows()).contains(&row) {
        return Err(Error::Input(format!("row {row} of {} that were read", encoded.rows())));
    }
    let config = model.config();
    let length = candidates.iter().map(Vec::len).max().unwrap_or(0) + 1;
    let mut labels = Vec::with_capacity(candidates.len() * length);
    let mut inputs = Vec::with_capacity(candidates.len() * length);
    for candidate in candidates {
        if let Some(token) = candidate.iter().find(|token| !(0..config.vocab_size).contains(*token)) {
            return Err(Error::Input(format!("a candidate's token {token} lies outside the vocabulary")));
        }
        let filling = length - candidate.len() - 1;
        labels.extend(candidate.iter().copied().chain([config.eos_token_id]));
        labels.extend(std::iter::repeat_n(IGNORED, filling));
        inputs.extend(std::iter::once(config.decoder_start_token_id).chain(candidate.iter().copied()));
        inputs.extend(std::iter::repeat_n(config.pad_token_id, filling));
    }
    let shape = [candidates.len() as i64, length as i64];
    let labels = Tensor::from_slice(&labels).reshape(shape).to_device(model.device());
    let inputs = Tensor::from_slice(&inputs).reshape(shape).to_device(model.device());
    let encoded = encoded.select(&vec![row; candidates.len()]);
    let logits = tch::no_grad(|| model.decode_with(weights, &encoded, &inputs, &Pass::undropped()))?;
    let losses: Vec<f64> =
        Vec::try_from(token_losses(&logits, &labels).sum_dim_intlist(&[-1_i64][..], false, Kind::Double))?;
    Ok(losses.into_iter().map(|loss| -loss).collect())
}
