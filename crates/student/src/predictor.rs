//! The one place that computes what a student answers.

use crate::packed::{Packed, Place};
use crate::session::{Keyed, Written};
use crate::writing::{OnEvent, Writing};
use crate::{
    Answer, Ask, Candidate, Candidates, Choice, Codec, Event, LabelProbability, Prompt, Session,
    StudentError, Tokenizer,
};
use decoder::Slots;
use domain::Example;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::Instant;
use t5::{Compute, GenerateOptions, Model, Strategy, Weights};
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
        let mut rest = asked.into_iter().peekable();
        while rest.peek().is_some() {
            let mut batch: Vec<(usize, Prompt)> = Vec::new();
            while let Some(row) = rest.next_if(|(_, prompt)| fits(batch.len(), prompt)) {
                batch.push(row);
            }
            self.answer(batch, &mut answers)?;
            pause()?;
        }
        Ok(answers)
    }

    /// Answers questions together, each at its place.
    fn answer(
        &self,
        asked: Vec<(usize, Prompt)>,
        answers: &mut [Result<Answer, StudentError>],
    ) -> Result<(), StudentError> {
        let began = Instant::now();
        let rows = u32::try_from(asked.len()).unwrap_or(u32::MAX).max(1);
        let mut session = Session::default();
        let mut texts: HashMap<u64, String> = HashMap::with_capacity(asked.len());
        for (place, prompt) in asked {
            session.join(place as u64, prompt);
        }
        while !session.is_empty() {
            self.step(&mut session, &mut |key, event| {
                let answer = match event {
                    Event::Token(piece) => {
                        texts.entry(key).or_default().push_str(&piece);
                        return ControlFlow::Continue(());
                    }
                    Event::Done { rest, log_probability, tokens } => {
                        let text = texts.remove(&key).unwrap_or_default() + &rest;
                        let read = self.codec.read(&text);
                        Ok(Answer::written(text, read, log_probability, tokens, began.elapsed()))
                    }
                    Event::Chosen(choice) => Ok(Answer::chosen(choice, began.elapsed() / rows)),
                    Event::Failed(error) => Err(error),
                };
                if let Some(slot) = usize::try_from(key).ok().and_then(|place| answers.get_mut(place)) {
                    *slot = answer;
                }
                ControlFlow::Break(())
            })?;
        }
        Ok(())
    }
}

impl Predictor<'_> {
    /// Moves the rows of `session` on. Where the packed form serves, that is one token of each row that is written, behind the
    /// choices among labels and the first tokens of the rows that have joined; the reference answers all rows of a pass to their ends.
    /// `on_event(key, event)` is called for every token, and once at the end of each row; `Break` ends that row at once.
    ///
    /// # Errors
    /// A failure that is not of one row: the rows of the session have no answer.
    pub fn step(&self, session: &mut Session, on_event: &mut OnEvent<'_>) -> Result<(), StudentError> {
        match self.engine {
            Engine::Reference { model, weights, compute } => {
                let (choices, texts) = session.take_pass();
                for (key, prompt) in choices {
                    let event =
                        self.chosen(&prompt, |candidates| score(model, weights, &prompt.ids, candidates));
                    let _ = on_event(key, event);
                }
                self.write((model, weights, compute), &texts, on_event)
            }
            Engine::Packed(packed) => {
                let mut slots = match session.slots.take() {
                    Some(slots) => slots,
                    None => packed.slots()?,
                };
                let joined = std::mem::take(&mut session.joined);
                self.begin(packed, joined, (&mut slots, &mut session.written), on_event)?;
                self.advance(packed, (&mut slots, &mut session.written), on_event)?;
                session.slots = Some(slots);
                Ok(())
            }
        }
    }

    /// Reads rows: chooses labels, and begins texts.
    fn begin(
        &self,
        packed: &Packed,
        joined: Vec<Keyed>,
        (slots, written): (&mut Slots, &mut Vec<Written>),
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), StudentError> {
        if joined.is_empty() {
            return Ok(());
        }
        let sources: Vec<&[i64]> = joined.iter().map(|(_, prompt)| prompt.ids.as_slice()).collect();
        let encoded = packed.encode(&sources)?;
        let scored = joined.iter().zip(&encoded).filter_map(|((_, prompt), encoded)| match &prompt.ask {
            Ask::Choice(candidates) => Some((encoded.as_ref().ok()?, candidates.tree()?)),
            Ask::Text { .. } => None,
        });
        let mut scores = packed.score(&scored.collect::<Vec<_>>())?.into_iter();
        for ((key, prompt), encoded) in joined.iter().zip(encoded) {
            let event = match (&prompt.ask, encoded) {
                (_, Err(error)) => Event::Failed(error),
                (Ask::Choice(_), Ok(_)) => self.chosen(prompt, |candidates| match candidates.tree() {
                    Some(_) => Ok(scores.next().unwrap_or_default()),
                    None => {
                        Err(StudentError::Labels("they have more prefixes than can be told apart".to_owned()))
                    }
                }),
                (Ask::Text { strategy, tokens_max }, Ok(encoded)) => {
                    let text = Writing::new(*key, *tokens_max);
                    match packed.begin(slots, &encoded, (*strategy, text.tokens_max())) {
                        Ok(place) => {
                            written.push(Written { place, text });
                            continue;
                        }
                        Err(error) => Event::Failed(error),
                    }
                }
            };
            let _ = on_event(*key, event);
        }
        Ok(())
    }

    /// One token of every row that is written.
    fn advance(
        &self,
        packed: &Packed,
        (slots, written): (&mut Slots, &mut Vec<Written>),
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), StudentError> {
        if written.is_empty() {
            return Ok(());
        }
        let mut places: Vec<&mut Place> = written.iter_mut().map(|row| &mut row.place).collect();
        let mut steps = packed.step(slots, &mut places)?.into_iter();
        written.retain_mut(|row| {
            let Some(step) = steps.next() else { return true };
            let goes_on = row.text.take(step, self.words(), on_event).is_continue();
            if !goes_on {
                packed.leave(slots, &row.place);
            }
            goes_on
        });
        Ok(())
    }

    /// Writes texts of the same strategy to their ends.
    fn write(
        &self,
        (model, weights, compute): (&Model, &Weights, Compute),
        prompts: &[Keyed],
        on_event: &mut OnEvent<'_>,
    ) -> Result<(), StudentError> {
        let asked = prompts.iter().filter_map(|(key, prompt)| match &prompt.ask {
            Ask::Text { strategy, tokens_max } => Some((Writing::new(*key, *tokens_max), *strategy)),
            Ask::Choice(_) => None,
        });
        let (mut rows, strategies): (Vec<Writing>, Vec<Strategy>) = asked.unzip();
        let Some(strategy) = strategies.first().copied() else { return Ok(()) };
        let tokens_max = rows.iter().map(Writing::tokens_max).max().unwrap_or(1);
        let sources: Vec<&[i64]> = prompts.iter().map(|(_, prompt)| prompt.ids.as_slice()).collect();
        let (ids, mask) = tensors(model, &sources);
        let options = GenerateOptions { tokens_max, strategy, compute };
        Ok(t5::generate_with(model, weights, &ids, &mask, &options, &mut |place, step| match rows
            .get_mut(place)
        {
            Some(row) => row.take(step, self.words(), on_event),
            None => ControlFlow::Break(()),
        })?)
    }

    /// What a row says of the scores of its labels.
    fn chosen(
        &self,
        prompt: &Prompt,
        score: impl FnOnce(&Candidates) -> Result<Vec<f64>, StudentError>,
    ) -> Event {
        let Ask::Choice(candidates) = &prompt.ask else {
            return Event::Failed(StudentError::Internal("a text is not chosen".to_owned()));
        };
        let choice = score(candidates).and_then(|scores| {
            if scores.iter().any(|score| !score.is_finite()) {
                return Err(StudentError::NotFinite(self.precision()));
            }
            let empty = || StudentError::Labels("the set is empty".to_owned());
            likeliest(candidates.entries(), &scores).ok_or_else(empty)
        });
        choice.map_or_else(Event::Failed, Event::Chosen)
    }

    /// What tokens become text with.
    fn words(&self) -> (&Tokenizer, &'static str) {
        (&self.codec.tokenizer, self.precision())
    }

    /// The number format of the passes: `float32`, `bfloat16`, or the name of a packed form.
    pub fn precision(&self) -> &'static str {
        match self.engine {
            Engine::Reference { compute: Compute::Float32, .. } => "float32",
            Engine::Reference { compute: Compute::BFloat16, .. } => "bfloat16",
            Engine::Packed(packed) => packed.serving().name(),
        }
    }

    /// Tokens that a pass over rows of these lengths reads: those of the rows, and what fills them up where rows are padded.
    pub fn tokens_read(&self, lengths: &[usize]) -> usize {
        match self.engine {
            Engine::Reference { .. } => lengths.len().saturating_mul(width(lengths.iter().copied())),
            Engine::Packed(_) => lengths.iter().sum(),
        }
    }
}

/// The log-likelihood of each candidate as the answer to one row. The row goes through the model on its own: the last bits of
/// a probability would depend on the rows next to it.
fn score(
    model: &Model,
    weights: &Weights,
    ids: &[i64],
    candidates: &Candidates,
) -> Result<Vec<f64>, StudentError> {
    let (input_ids, input_mask) = tensors(model, &[ids]);
    let encoded = model.encode(weights, &input_ids, &input_mask)?;
    let labels: Vec<Vec<i64>> = candidates.entries().iter().map(|candidate| candidate.ids.clone()).collect();
    Ok(t5::score(model, weights, &encoded, 0, &labels)?)
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

/// Whether a row fits behind so many rows that are not longer.
fn fits(rows: usize, prompt: &Prompt) -> bool {
    rows == 0 || (rows < ROWS_MAX && (rows + 1) * prompt.ids.len() <= TOKENS_MAX)
}
