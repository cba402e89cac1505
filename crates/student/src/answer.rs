//! What a student answers to one row.

use domain::objective::Read;
use std::time::Duration;

/// The answer to the label question of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What it wrote, whole; the label where it chose one.
    pub text: String,
    /// The label; empty where the text has none.
    pub label: String,
    /// The rationale, for the objectives that write it with the label.
    pub rationale: Option<String>,
    /// Each label's probability, where it chose from a set.
    pub probabilities: Vec<LabelProbability>,
    /// The natural logarithm of the answer's probability: among the labels where it chose one, else of the text.
    pub log_probability: f64,
    /// Tokens of the answer, without the end token.
    pub tokens: usize,
    /// From the beginning of its pass to its last token.
    pub took: Duration,
}

/// How likely a label is.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelProbability {
    /// The label.
    pub label: String,
    /// Between 0 and 1.
    pub probability: f64,
}

/// The answer to a question with candidates.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// The likeliest label.
    pub label: String,
    /// Each label's probability, in the order of the set: the softmax over the labels' log-likelihoods.
    pub probabilities: Vec<LabelProbability>,
    /// The natural logarithm of the likeliest one's probability.
    pub log_probability: f64,
    /// The label's tokens.
    pub tokens: usize,
}

impl Answer {
    /// The label's probability, where it was chosen from a set.
    pub fn probability(&self) -> Option<f64> {
        self.probabilities.iter().find(|entry| entry.label == self.label).map(|entry| entry.probability)
    }

    pub(crate) fn chosen(choice: Choice, took: Duration) -> Self {
        let Choice { label, probabilities, log_probability, tokens } = choice;
        Self { text: label.clone(), label, rationale: None, probabilities, log_probability, tokens, took }
    }

    pub(crate) fn written(
        text: String,
        read: Read,
        log_probability: f64,
        tokens: usize,
        took: Duration,
    ) -> Self {
        let Read { label, rationale } = read;
        Self { text, label, rationale, probabilities: Vec::new(), log_probability, tokens, took }
    }
}
