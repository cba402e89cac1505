//! What a student is asked, as tokens: the texts of its task and objective, and how its answers are read.

use crate::{Candidates, StudentError, Tokenizer};
use domain::objective::{self, Objective, Read};
use domain::spec::TrainingSpec;
use domain::task::LabelSet;
use domain::{Example, Task};
use std::sync::Arc;
use t5::Strategy;

/// Most tokens that a caller may ask for.
const TOKENS_MAX: usize = 2048;

/// Most bytes of an input for each token that a student reads: far more than words take, and little enough that whatever a
/// caller sends is measured before it is made into tokens, which take hundreds of times its memory.
const BYTES_PER_TOKEN_MAX: usize = 64;

/// How long texts may be, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// What is read; a longer input is refused.
    pub input_tokens_max: usize,
    /// What is written.
    pub target_tokens_max: usize,
    /// What is written where it is a label and nothing else.
    pub label_tokens_max: usize,
}

impl Limits {
    /// The limits of a student that was trained so. One that writes labels alone stops after `label_tokens_max`, which its
    /// provenance names.
    pub fn of(training: &TrainingSpec, label_tokens_max: Option<u32>) -> Self {
        let target_tokens_max = training.target_tokens_max as usize;
        let label = label_tokens_max.map_or(target_tokens_max, |tokens| tokens as usize);
        Self {
            input_tokens_max: training.input_tokens_max as usize,
            target_tokens_max,
            label_tokens_max: label.min(target_tokens_max),
        }
    }
}

impl Default for Limits {
    /// The limits of a checkpoint that does not name its own.
    fn default() -> Self {
        Self { input_tokens_max: 1024, target_tokens_max: 256, label_tokens_max: 256 }
    }
}

/// One question to a student.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    /// What it reads, closed by the end token.
    pub ids: Vec<i64>,
    /// What it answers.
    pub ask: Ask,
}

/// What a student is asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Text.
    Text {
        /// How its tokens are chosen.
        strategy: Strategy,
        /// Most tokens.
        tokens_max: usize,
    },
    /// The likeliest of these labels.
    Choice(Arc<Candidates>),
}

/// Task, objective, limits and tokenizer of a student: all that is needed to ask it and to read its answers.
#[derive(Debug, Clone)]
pub struct Codec {
    /// What is asked.
    pub task: Task,
    /// What the student was trained to write.
    pub objective: Objective,
    /// How long texts may be.
    pub limits: Limits,
    /// Text to tokens and back.
    pub tokenizer: Tokenizer,
    /// The task's closed set, where the student chooses from it.
    closed: Option<Arc<Candidates>>,
}

impl Codec {
    /// Puts the parts together.
    ///
    /// # Errors
    /// The tokenizer cannot tell two labels of the task's closed set apart.
    pub fn new(
        task: Task,
        objective: Objective,
        limits: Limits,
        tokenizer: Tokenizer,
    ) -> Result<Self, StudentError> {
        let mut codec = Self { task, objective, limits, tokenizer, closed: None };
        if let (LabelSet::Closed(labels), true) = (&codec.task.labels, objective.writes_label_alone()) {
            codec.closed = Some(Arc::new(Candidates::new(&codec.tokenizer, labels)?));
        }
        Ok(codec)
    }

    /// Whether rationales have a question of their own. Otherwise they are written with the label. A student that was trained
    /// on labels alone is asked all the same: its base may know how to explain.
    pub fn explains_separately(&self) -> bool {
        self.objective.writes_label_alone()
    }

    /// Whether the student chooses labels from sets: it writes labels alone, and the task or its rows name them.
    pub fn has_label_set(&self) -> bool {
        self.objective.writes_label_alone() && !matches!(self.task.labels, LabelSet::Open)
    }

    /// The question for the label of `example`: a choice where its set of labels is closed. A row without choices has an
    /// open set.
    ///
    /// # Errors
    /// The input is too long, or the tokenizer cannot tell two of the row's choices apart.
    pub fn predict(&self, example: &Example) -> Result<Prompt, StudentError> {
        let ids = self.encode(&objective::predict_source(&self.task, example))?;
        let set =
            self.task.label_set(example).filter(|set| self.objective.writes_label_alone() && !set.is_empty());
        let ask = match (set, &self.closed) {
            (Some(_), Some(closed)) => Ask::Choice(Arc::clone(closed)),
            (Some(set), None) => Ask::Choice(Arc::new(Candidates::new(&self.tokenizer, set)?)),
            (None, _) => greedy(self.answer_tokens_max()),
        };
        Ok(Prompt { ids, ask })
    }

    /// The question for the rationale of `example`, of at most `tokens_max` tokens; 0 for the student's own limit.
    ///
    /// # Errors
    /// The input is too long.
    pub fn explain(&self, example: &Example, tokens_max: u32) -> Result<Prompt, StudentError> {
        let source = match self.explains_separately() {
            true => objective::explain_source(&self.task, example),
            false => objective::predict_source(&self.task, example),
        };
        Ok(Prompt { ids: self.encode(&source)?, ask: greedy(self.limit(tokens_max)) })
    }

    /// A question in the caller's own words.
    ///
    /// # Errors
    /// The input is too long.
    pub fn generate(&self, input: &str, strategy: Strategy, tokens_max: u32) -> Result<Prompt, StudentError> {
        Ok(Prompt {
            ids: self.encode(input)?,
            ask: Ask::Text { strategy, tokens_max: self.limit(tokens_max) },
        })
    }

    /// What an answer to [`Codec::predict`] says.
    pub fn read(&self, text: &str) -> Read {
        self.objective.split(text)
    }

    /// Whether the student can write `label`: the tokenizer knows all of it.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn can_write(&self, label: &str) -> Result<bool, StudentError> {
        Ok(!self.tokenizer.has_unknown(&self.tokenizer.label(label)?))
    }

    fn encode(&self, text: &str) -> Result<Vec<i64>, StudentError> {
        let limit = self.limits.input_tokens_max.saturating_mul(BYTES_PER_TOKEN_MAX);
        if text.len() > limit {
            return Err(StudentError::TooLarge { bytes: text.len(), limit });
        }
        let ids = self.tokenizer.encode(text)?;
        let limit = self.limits.input_tokens_max;
        if ids.len() > limit {
            return Err(StudentError::TooLong { tokens: ids.len(), limit });
        }
        Ok(ids)
    }

    fn answer_tokens_max(&self) -> usize {
        match self.objective.writes_label_alone() {
            true => self.limits.label_tokens_max,
            false => self.limits.target_tokens_max,
        }
    }

    fn limit(&self, tokens_max: u32) -> usize {
        match tokens_max as usize {
            0 => self.limits.target_tokens_max,
            tokens => tokens.min(TOKENS_MAX),
        }
    }
}

fn greedy(tokens_max: usize) -> Ask {
    Ask::Text { strategy: Strategy::Greedy, tokens_max }
}
