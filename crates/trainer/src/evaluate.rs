//! Measuring a student: what it answers, against what is right.

use crate::TrainError;
use crate::batches::tensors;
use crate::link::Link;
use crate::student::Student;
use crate::tokenizer::Tokenizer;
use domain::label;
use domain::metric::Accuracy;
use domain::objective::{TrainingExample, predict_source};
use domain::spec::Spec;
use t5::{Compute, GenerateOptions, Model, Strategy};

/// Rows of one pass at most, and padded source tokens.
const ROWS_MAX: usize = 64;
const TOKENS_MAX: usize = 8_192;
/// Room for a label beyond the longest one that the student has seen.
const LABEL_MARGIN: usize = 8;

/// What is needed to ask a student.
pub struct Asker<'a> {
    /// The weights.
    pub model: &'a Model,
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Task, objective and limits.
    pub spec: &'a Spec,
    /// The number format.
    pub compute: Compute,
    /// Most tokens of an answer.
    pub tokens_max: usize,
}

impl Asker<'_> {
    /// The labels of `examples`, in their order. `pause` is called between passes; an error of it ends the asking.
    ///
    /// # Errors
    /// The model's, the tokenizer's, or `pause`'s.
    pub fn labels(
        &self,
        examples: &[TrainingExample],
        pause: &mut dyn FnMut() -> Result<(), TrainError>,
    ) -> Result<Vec<String>, TrainError> {
        let mut rows = Vec::with_capacity(examples.len());
        for (place, example) in examples.iter().enumerate() {
            let text = predict_source(&self.spec.task, &example.row.example);
            rows.push((place, self.tokenizer.encode(&text, self.spec.training.input_tokens_max as usize)?));
        }
        rows.sort_by_key(|(place, ids)| (ids.len(), *place));
        let mut answers = vec![String::new(); examples.len()];
        let mut begin = 0;
        while let Some(rest) = rows.get(begin..).filter(|rest| !rest.is_empty()) {
            let batch = rest.get(..fitting(rest)).unwrap_or(rest);
            begin += batch.len();
            for ((place, _), answer) in batch.iter().zip(self.answer(batch, examples)?) {
                if let Some(slot) = answers.get_mut(*place) {
                    *slot = answer;
                }
            }
            pause()?;
        }
        Ok(answers)
    }

    fn answer(
        &self,
        batch: &[(usize, Vec<i64>)],
        examples: &[TrainingExample],
    ) -> Result<Vec<String>, TrainError> {
        let rows: Vec<(&[i64], &[i64])> = batch.iter().map(|(_, ids)| (ids.as_slice(), &[][..])).collect();
        let tensors = tensors(&rows);
        let sets: Vec<Option<&[String]>> = batch
            .iter()
            .map(|(place, _)| {
                examples.get(*place).and_then(|example| self.spec.task.label_set(&example.row.example))
            })
            .collect();
        if self.spec.training.objective.writes_label_alone() && sets.iter().all(Option::is_some) {
            return self.choose(&tensors, &sets);
        }
        let options = GenerateOptions {
            tokens_max: self.tokens_max,
            strategy: Strategy::Greedy,
            compute: self.compute,
        };
        let texts = t5::generate(self.model, &tensors.input_ids, &tensors.input_mask, &options)?;
        texts
            .iter()
            .map(|ids| Ok(self.spec.training.objective.split(&self.tokenizer.decode(ids)?).label))
            .collect()
    }

    /// The likeliest label of each row's closed set.
    fn choose(&self, tensors: &t5::Batch, sets: &[Option<&[String]>]) -> Result<Vec<String>, TrainError> {
        let weights = self.model.weights(self.compute)?;
        let encoded = self.model.encode(&weights, &tensors.input_ids, &tensors.input_mask)?;
        let mut answers = Vec::with_capacity(sets.len());
        for (row, set) in (0_i64..).zip(sets) {
            let set = set.unwrap_or_default();
            let mut candidates = Vec::with_capacity(set.len());
            for label in set {
                let mut ids = self.tokenizer.encode(label, self.spec.training.target_tokens_max as usize)?;
                ids.pop();
                candidates.push(ids);
            }
            let scores = t5::score(self.model, &weights, &encoded, row, &candidates)?;
            // The first of equals, so that the answer does not depend on how they are compared.
            let best =
                scores.iter().zip(set).fold(None::<(f64, &String)>, |best, (score, label)| match best {
                    Some((highest, _)) if highest >= *score => best,
                    _ => Some((*score, label)),
                });
            answers.push(best.map_or_else(String::new, |(_, label)| label.clone()));
        }
        Ok(answers)
    }
}

fn fitting(rows: &[(usize, Vec<i64>)]) -> usize {
    let mut count = 0;
    for (_, ids) in rows.iter().take(ROWS_MAX) {
        if count > 0 && (count + 1) * ids.len() > TOKENS_MAX {
            break;
        }
        count += 1;
    }
    count.max(1)
}

/// Most tokens of an answer: for labels alone, a little more than the longest label that trains.
pub fn tokens_max(student: &Student) -> usize {
    let limit = student.spec.training.target_tokens_max as usize;
    if !student.spec.training.objective.writes_label_alone() {
        return limit;
    }
    let longest = student.items.iter().flat_map(|item| &item.labels).map(|row| row.target.len()).max();
    longest.map_or(limit, |longest| (longest + LABEL_MARGIN).min(limit))
}

/// The student's accuracy over the rows that have a gold label.
pub(crate) fn measure(
    student: &Student,
    examples: &[TrainingExample],
    link: &mut Link,
) -> Result<Accuracy, TrainError> {
    let labelled: Vec<TrainingExample> =
        examples.iter().filter(|example| example.row.example.label.is_some()).cloned().collect();
    let asker = Asker {
        model: &student.model,
        tokenizer: &student.tokenizer,
        spec: &student.spec,
        compute: student.compute,
        tokens_max: tokens_max(student),
    };
    let answers = asker.labels(&labelled, &mut || link.beat())?;
    let (mut correct, mut parsed) = (0, 0);
    for (example, answer) in labelled.iter().zip(&answers) {
        let gold = example.row.example.label.as_deref().unwrap_or_default();
        correct += u64::from(label::same(student.spec.task.metric, answer, gold));
        parsed += u64::from(!answer.is_empty());
    }
    Ok(Accuracy::measure(labelled.len() as u64, correct, parsed))
}
