//! In which form a student is served on processors: measured once, where it is published.

use crate::packed::Packed;
use crate::{Codec, Predictor, StudentError};
use decoder::{Precision, Precisions};
use domain::Example;
use t5::Model;

/// Rows that are compared at most.
pub const CALIBRATION_ROWS_MAX: usize = 256;
/// The share of those rows whose label may differ from the reference's.
const DISAGREEMENT_MAX: f64 = 0.005;

/// In which form a student answers on a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// As it was trained: crate `t5`, in float32 or bfloat16.
    Reference,
    /// Weights and activations of 8 bits.
    Int8,
    /// The same, with activations of 16 bits before the feed-forward layer's second projection, which is known for outliers.
    Int8WideOutput,
    /// Weights of 8 bits, activations of 16 bits.
    Int8Wide,
}

impl Serving {
    /// The packed forms, the fastest first.
    const PACKED: [Self; 3] = [Self::Int8, Self::Int8WideOutput, Self::Int8Wide];

    /// As a student's provenance names it; empty for the reference.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reference => "",
            Self::Int8 => "int8",
            Self::Int8WideOutput => "int8_wide_output",
            Self::Int8Wide => "int8_wide",
        }
    }

    /// The form of this name. A name that is not known, of a later version, is the reference, which answers for every student.
    pub fn of(name: &str) -> Self {
        Self::PACKED.into_iter().find(|form| form.name() == name).unwrap_or(Self::Reference)
    }

    pub(crate) fn precisions(self) -> Option<Precisions> {
        let int8 = Precisions::all(Precision::Int8);
        match self {
            Self::Reference => None,
            Self::Int8 => Some(int8),
            Self::Int8WideOutput => Some(Precisions { feed_forward_output: Precision::Int8Wide, ..int8 }),
            Self::Int8Wide => Some(Precisions::all(Precision::Int8Wide)),
        }
    }

    /// The fastest form that gives `examples` the labels that `reference` gives them: at most one in 200 may differ. Without an
    /// answer to compare, or where the engine does not compute the model, it is the reference. `pause` is called between passes; an error of it ends the
    /// work.
    ///
    /// # Errors
    /// A failure that is not of one row, or `pause`'s.
    pub fn measured<E: From<StudentError>>(
        codec: &Codec,
        model: &Model,
        reference: &Predictor<'_>,
        examples: &[&Example],
        pause: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let examples = examples.get(..CALIBRATION_ROWS_MAX).unwrap_or(examples);
        if examples.is_empty() {
            return Ok(Self::Reference);
        }
        let expected = labels(reference, examples, pause)?;
        let answered = expected.iter().flatten().count();
        if answered == 0 {
            return Ok(Self::Reference);
        }
        for form in Self::PACKED {
            let packed = match Packed::new(model, form) {
                Ok(packed) => packed,
                Err(StudentError::Packed(error)) => {
                    tracing::info!(%error, "the student is served by its reference");
                    return Ok(Self::Reference);
                }
                Err(error) => return Err(error.into()),
            };
            let found = labels(&Predictor::packed(codec, &packed), examples, pause)?;
            let differ = expected.iter().zip(&found).filter(|(expected, found)| expected != found).count();
            tracing::info!(
                form = form.name(),
                rows = examples.len(),
                differ,
                "labels of a packed form compared"
            );
            if differ as f64 <= DISAGREEMENT_MAX * examples.len() as f64 {
                return Ok(form);
            }
        }
        Ok(Self::Reference)
    }
}

/// The label of each row; `None` where it has no answer.
fn labels<E: From<StudentError>>(
    predictor: &Predictor<'_>,
    examples: &[&Example],
    pause: &mut dyn FnMut() -> Result<(), E>,
) -> Result<Vec<Option<String>>, E> {
    let answers = predictor.answers(examples, pause)?;
    Ok(answers.into_iter().map(|answer| answer.ok().map(|answer| answer.label)).collect())
}
