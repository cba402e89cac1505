//! In which form a student is served: measured once, where it is published.

use crate::packed::Packed;
use crate::{Codec, Predictor, Serving, StudentError};
use domain::Example;
use t5::{Compute, Model};

/// Rows that are compared at most.
const ROWS_MAX: usize = 256;
/// The share of those rows whose label may differ from the reference's.
const DISAGREEMENT_MAX: f64 = 0.005;

impl Serving {
    /// The fastest form that gives `examples` the labels that the reference gives them, `model` in the number format `compute`: at most
    /// one in 200 of the first 256 may differ, and rows without an answer are not compared. Without a row to compare, or where the engine does not
    /// compute the model, it is the reference. `pause` is called between passes; an error of it ends the work.
    ///
    /// # Errors
    /// A failure that is not of one row, or `pause`'s.
    pub fn measured<E: From<StudentError>>(
        codec: &Codec,
        model: &Model,
        compute: Compute,
        examples: &[&Example],
        pause: &mut dyn FnMut() -> Result<(), E>,
    ) -> Result<Self, E> {
        let examples = examples.get(..ROWS_MAX).unwrap_or(examples);
        // Before the weights are made once more.
        if examples.is_empty() || Self::Int8.on(model.device()) == Self::Reference {
            return Ok(Self::Reference);
        }
        let weights = tch::no_grad(|| model.weights(compute)).map_err(StudentError::from)?;
        let expected = labels(&Predictor::new(codec, model, &weights, compute), examples, pause)?;
        drop(weights);
        let compared = expected.iter().flatten().count();
        if compared == 0 {
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
            let pairs = expected.iter().zip(&found);
            let differ = pairs.filter(|(expected, found)| expected.is_some() && expected != found).count();
            tracing::info!(form = form.name(), rows = compared, differ, "labels of a packed form compared");
            if differ as f64 <= DISAGREEMENT_MAX * compared as f64 {
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
