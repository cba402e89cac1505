//! In which form a student is served: measured once, where it is published.

use crate::packed::Packed;
use crate::{Codec, Predictor, Serving, StudentError};
use domain::Example;
use t5::Model;

/// Rows that are compared at most.
pub const CALIBRATION_ROWS_MAX: usize = 256;
/// The share of those rows whose label may differ from the reference's.
const DISAGREEMENT_MAX: f64 = 0.005;

impl Serving {
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
        if examples.is_empty() || Self::Int8.on(model.device()) == Self::Reference {
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
