//! The one place that computes what a student answers.

use crate::packed::Packed;
use crate::{
    Answer, Ask, Candidate, Choice, Codec, IncrementalDetokenizer, LabelProbability, Prompt, StudentError,
};
use domain::Example;
use std::ops::ControlFlow;
use std::time::Instant;
use t5::{Compute, GenerateOptions, Model, Step, Strategy, Weights};
use tch::{Kind, Tensor};

/// Rows of one pass at most, and padded source tokens.
const ROWS_MAX: usize = 64;
const TOKENS_MAX: usize = 8_192;
/// Lengths are padded to a multiple of this.
const LENGTH_MULTIPLE: usize = 8;

/// A student that is asked: its codec, and what computes its answers.
#[derive(Debug, Clone, Copy)]
pub struct Predictor<'a> {
    codec: &'a Codec,
    engine: Engine<'a>,
}

/// What computes answers.
#[derive(Debug, Clone, Copy)]
enum Engine<'a> {
    /// The model, and its weights in the number format of the passes.
    Reference { model: &'a Model, weights: &'a Weights, compute: Compute },
    /// Its packed form.
    Packed(&'a Packed),
}

/// What one row of [`Predictor::write`] does.
#[derive(Debug)]
pub enum Event {
    /// One more token; the text that it completes, which may be empty.
    Token(String),
    /// The row is complete.
    Done {
        /// What is left of its text.
        rest: String,
        /// The natural logarithm of the text's probability: the sum over its tokens, and the end token where it was written.
        log_probability: f64,
        /// Tokens written, without the end token.
        tokens: usize,
    },
    /// The row has no answer.
    Failed(StudentError),
}

impl<'a> Predictor<'a> {
    /// A student of these parts; `weights` are the model's in the number format `compute`.
    pub fn new(codec: &'a Codec, model: &'a Model, weights: &'a Weights, compute: Compute) -> Self {
        Self { codec, engine: Engine::Reference { model, weights, compute } }
    }

    pub(crate) fn packed(codec: &'a Codec, packed: &'a Packed) -> Self {
        Self { codec, engine: Engine::Packed(packed) }
    }

    /// The answers to the label questions of `examples`, in their order; an error for a row that has none. Rows of like
    /// length share a pass. `pause` is called between passes; an error of it ends the work.
    ///
    /// # Errors
    /// A failure that is not of one row, or `pause`'s.
    pub fn answers<E: From<StudentError>>(
        &self,
        examples: &[&Example],
        pause: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Vec<Result<Answer, StudentError>>, E> {
        self.asked(examples, |example| self.codec.predict(example), pause)
    }

    /// The rationales of `examples`, in their order, as [`Codec::explain`] asks for them with the student's own limit; an error for a
    /// row that has none. `pause` is called between passes; an error of it ends the work.
    ///
    /// # Errors
    /// A failure that is not of one row, or `pause`'s.
    pub fn rationales<E: From<StudentError>>(
        &self,
        examples: &[&Example],
        pause: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Vec<Result<String, StudentError>>, E> {
        let answers = self.asked(examples, |example| self.codec.explain(example, 0), pause)?;
        let rationale = |answer: Answer| match self.codec.explains_separately() {
            true => answer.text,
            false => answer.rationale.unwrap_or_default(),
        };
        Ok(answers.into_iter().map(|answer| answer.map(rationale)).collect())
    }

    fn asked<E: From<StudentError>>(
        &self,
        examples: &[&Example],
        question: impl Fn(&Example) -> Result<Prompt, StudentError>,
        pause: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Vec<Result<Answer, StudentError>>, E> {
        let mut answers = Vec::with_capacity(examples.len());
        let mut asked: Vec<(usize, Prompt)> = Vec::new();
        for (place, example) in examples.iter().enumerate() {
            match question(example) {
                Ok(prompt) => {
                    answers.push(Err(StudentError::Internal("the row was not answered".to_owned())));
                    asked.push((place, prompt));
                }
                Err(error) if error.is_of_one_row() => answers.push(Err(error)),
                Err(error) => return Err(error.into()),
            }
        }
        asked.sort_by_key(|(place, prompt)| (prompt.ids.len(), *place));
        let mut rest = asked.as_slice();
        while !rest.is_empty() {
            let (batch, later) = rest.split_at_checked(fitting(rest)).unwrap_or((rest, &[]));
            rest = later;
            let prompts: Vec<&Prompt> = batch.iter().map(|(_, prompt)| prompt).collect();
            for ((place, _), answer) in batch.iter().zip(self.answer(&prompts)?) {
                if let Some(slot) = answers.get_mut(*place) {
                    *slot = answer;
                }
            }
            pause()?;
        }
        Ok(answers)
    }

    /// Answers questions that share a pass.
    fn answer(&self, prompts: &[&Prompt]) -> Result<Vec<Result<Answer, StudentError>>, StudentError> {
        let began = Instant::now();
        let mut texts = vec![String::new(); prompts.len()];
        let mut answers: Vec<Option<Result<Answer, StudentError>>> = prompts.iter().map(|_| None).collect();
        let (mut written, mut places) = (Vec::new(), Vec::new());
        for (place, (prompt, slot)) in prompts.iter().zip(&mut answers).enumerate() {
            if let Ask::Choice(candidates) = &prompt.ask {
                let began = Instant::now();
                let choice = self.choose(&prompt.ids, candidates);
                *slot = Some(choice.map(|choice| Answer::chosen(choice, began.elapsed())));
            } else {
                written.push(*prompt);
                places.push(place);
            }
        }
        self.write(&written, &mut |row, event| {
            let place = places.get(row).copied().unwrap_or(usize::MAX);
            let (Some(text), Some(slot)) = (texts.get_mut(place), answers.get_mut(place)) else {
                return ControlFlow::Break(());
            };
            match event {
                Event::Token(piece) => text.push_str(&piece),
                Event::Done { rest, log_probability, tokens } => {
                    text.push_str(&rest);
                    let read = self.codec.read(text);
                    *slot = Some(Ok(Answer::written(
                        std::mem::take(text),
                        read,
                        log_probability,
                        tokens,
                        began.elapsed(),
                    )));
                }
                Event::Failed(error) => *slot = Some(Err(error)),
            }
            ControlFlow::Continue(())
        })?;
        let lost = || Err(StudentError::Internal("the row was not answered".to_owned()));
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect())
    }
}

impl Predictor<'_> {
    /// The likeliest of `candidates` as the answer to one row. The row goes through the model on its own: the last bits of
    /// a probability would depend on the rows next to it.
    ///
    /// # Errors
    /// The model's logits are not finite, or an id lies outside its vocabulary.
    pub fn choose(&self, ids: &[i64], candidates: &[Candidate]) -> Result<Choice, StudentError> {
        let scores = match self.engine {
            Engine::Reference { model, weights, .. } => {
                let (input_ids, input_mask) = tensors(model, &[ids]);
                let encoded = model.encode(weights, &input_ids, &input_mask)?;
                let labels: Vec<Vec<i64>> =
                    candidates.iter().map(|candidate| candidate.ids.clone()).collect();
                t5::score(model, weights, &encoded, 0, &labels)?
            }
            Engine::Packed(packed) => {
                let labels: Vec<&[i64]> =
                    candidates.iter().map(|candidate| candidate.ids.as_slice()).collect();
                packed.score(ids, &labels)?
            }
        };
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(StudentError::NotFinite(self.precision()));
        }
        likeliest(candidates, &scores).ok_or_else(|| StudentError::Labels("the set is empty".to_owned()))
    }

    /// Writes the answers of questions that share a pass: the same strategy, or greedy. `on_event(row, event)` is called
    /// for every token, and once at the end of each row; `Break` ends that row at once.
    ///
    /// # Errors
    /// A failure of the pass as a whole.
    pub fn write(
        &self,
        prompts: &[&Prompt],
        on_event: &mut dyn FnMut(usize, Event) -> ControlFlow<()>,
    ) -> Result<(), StudentError> {
        let mut rows: Vec<Row> = prompts.iter().map(|prompt| Row::of(&prompt.ask)).collect();
        let Some(strategy) = rows.first().map(|row| row.strategy) else { return Ok(()) };
        let longest = rows.iter().map(|row| row.tokens_max).max().unwrap_or(0);
        let sources: Vec<&[i64]> = prompts.iter().map(|prompt| prompt.ids.as_slice()).collect();
        let mut failure = None;
        let mut on_step = |place: usize, step| {
            let Some(row) = rows.get_mut(place) else { return ControlFlow::Break(()) };
            self.take(row, step, &mut |event| on_event(place, event)).unwrap_or_else(|error| {
                failure = Some(error);
                ControlFlow::Break(())
            })
        };
        match self.engine {
            Engine::Reference { model, weights, compute } => {
                let options = GenerateOptions { tokens_max: longest, strategy, compute };
                let (ids, mask) = tensors(model, &sources);
                t5::generate_with(model, weights, &ids, &mask, &options, &mut on_step)?;
            }
            Engine::Packed(packed) => packed.write(&sources, strategy, longest, &mut on_step)?,
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// One step of one row.
    fn take(
        &self,
        row: &mut Row,
        step: Step,
        on_event: &mut dyn FnMut(Event) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, StudentError> {
        let tokenizer = &self.codec.tokenizer;
        match step {
            Step::Token { id, log_probability } => {
                row.tokens += 1;
                row.log_probability += log_probability;
                let piece = row.text.push(tokenizer, id)?;
                if on_event(Event::Token(piece)).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                if row.tokens < row.tokens_max {
                    return Ok(ControlFlow::Continue(()));
                }
            }
            Step::End { log_probability } => row.log_probability += log_probability,
            Step::NotFinite => return Ok(on_event(Event::Failed(StudentError::NotFinite(self.precision())))),
        }
        let rest = row.text.finish(tokenizer)?;
        let _ = on_event(Event::Done { rest, log_probability: row.log_probability, tokens: row.tokens });
        Ok(ControlFlow::Break(()))
    }

    /// The number format of the passes: `float32`, `bfloat16`, or the name of a packed form.
    pub fn precision(&self) -> &'static str {
        match self.engine {
            Engine::Reference { compute: Compute::Float32, .. } => "float32",
            Engine::Reference { compute: Compute::BFloat16, .. } => "bfloat16",
            Engine::Packed(packed) => packed.serving().name(),
        }
    }
}

/// Rows as ids and mask, both `[batch, source]`, padded.
fn tensors(model: &Model, rows: &[&[i64]]) -> (Tensor, Tensor) {
    let length = width(rows.iter().map(|row| row.len()));
    let pad = model.config().pad_token_id;
    let mut ids = Vec::with_capacity(rows.len() * length);
    let mut mask = Vec::with_capacity(rows.len() * length);
    for row in rows {
        ids.extend_from_slice(row);
        ids.extend(std::iter::repeat_n(pad, length - row.len()));
        mask.extend((0..length).map(|place| place < row.len()));
    }
    let shape = [rows.len() as i64, length as i64];
    (Tensor::from_slice(&ids).reshape(shape), Tensor::from_slice(&mask).reshape(shape).to_kind(Kind::Bool))
}

/// A row that is written.
struct Row {
    strategy: Strategy,
    tokens_max: usize,
    text: IncrementalDetokenizer,
    log_probability: f64,
    tokens: usize,
}

impl Row {
    fn of(ask: &Ask) -> Self {
        let (strategy, tokens_max) = match ask {
            Ask::Text { strategy, tokens_max } => (*strategy, *tokens_max),
            Ask::Choice(_) => (Strategy::Greedy, 0),
        };
        Self {
            strategy,
            tokens_max,
            text: IncrementalDetokenizer::default(),
            log_probability: 0.0,
            tokens: 0,
        }
    }
}

/// Positions of each row of a pass: the longest, padded to a multiple of 8.
pub fn width(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.max().unwrap_or(1).max(1).next_multiple_of(LENGTH_MULTIPLE)
}

/// The likeliest label, the first of equals, and each one's probability; `None` for an empty set.
fn likeliest(candidates: &[Candidate], scores: &[f64]) -> Option<Choice> {
    let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mass: f64 = scores.iter().map(|score| (score - highest).exp()).sum();
    let best = scores.iter().position(|score| *score >= highest)?;
    let candidate = candidates.get(best)?;
    let probability = |(candidate, score): (&Candidate, &f64)| LabelProbability {
        label: candidate.label.clone(),
        probability: (score - highest).exp() / mass,
    };
    Some(Choice {
        label: candidate.label.clone(),
        probabilities: candidates.iter().zip(scores).map(probability).collect(),
        log_probability: -mass.ln(),
        tokens: candidate.ids.len(),
    })
}

/// How many of `rows`, sorted by length, fit into a pass.
fn fitting(rows: &[(usize, Prompt)]) -> usize {
    let mut count = 0;
    for (_, prompt) in rows.iter().take(ROWS_MAX) {
        if count > 0 && (count + 1) * prompt.ids.len() > TOKENS_MAX {
            break;
        }
        count += 1;
    }
    count.max(1)
}
