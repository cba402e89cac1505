//! A served student: labels and rationales.

use domain::Example;
use domain::label::Comparison;
use tonic::Status;
use wire::v1::inference_service_client::InferenceServiceClient;
use wire::{Channel, v1};

/// A served model, and how to reach it.
#[derive(Clone)]
pub(crate) struct Student {
    pub(crate) channel: Channel,
    /// Empty where the server has just one.
    pub(crate) model: String,
    /// 0 for the newest.
    pub(crate) version: u64,
}

/// What is wanted besides the label.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// The rationale.
    pub(crate) explain: bool,
    /// Whether the answer's log-probability is below this.
    pub(crate) route_below: Option<f64>,
}

/// What a student says of one row.
pub(crate) struct Prediction {
    pub(crate) label: String,
    /// Each label of a closed set with its probability; empty for an open one.
    pub(crate) probabilities: Vec<(String, f64)>,
    /// Absent where it was not asked for.
    pub(crate) rationale: Option<String>,
    /// The natural logarithm of the answer's probability.
    pub(crate) log_probability: f64,
    /// Whether the student is less sure than was asked for.
    pub(crate) ask_teacher: bool,
    /// How the student's task compares labels.
    pub(crate) comparison: Comparison,
}

impl Student {
    /// Labels a row.
    pub(crate) async fn predict(&self, row: Example, wanted: Wanted) -> Result<Prediction, Status> {
        let mut client = InferenceServiceClient::new(self.channel.clone())
            .max_decoding_message_size(wire::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(wire::MESSAGE_BYTES_MAX);
        let (model, version) = (self.model.clone(), self.version);
        let example = Some(row.into());
        let Wanted { explain, route_below } = wanted;
        let (answer, rationale) = if explain {
            let request =
                v1::PredictAndExplainRequest { model, version, example, tokens_max: 0, route_below };
            let answer = client.predict_and_explain(request).await?.into_inner();
            let predicted = v1::PredictResponse {
                label: answer.label,
                probabilities: answer.probabilities,
                answerer: answer.answerer,
                log_probability: answer.log_probability,
                ask_teacher: answer.ask_teacher,
            };
            (predicted, Some(answer.rationale))
        } else {
            let request = v1::PredictRequest { model, version, example, route_below };
            (client.predict(request).await?.into_inner(), None)
        };
        // A server of another version may not say it.
        let metric = answer.answerer.map_or(0, |answerer| answerer.metric);
        let comparison = wire::filter("metric", metric).ok().flatten().unwrap_or(Comparison::Text);
        let entries = answer.probabilities.into_iter();
        Ok(Prediction {
            label: answer.label,
            probabilities: entries.map(|entry| (entry.label, entry.probability)).collect(),
            rationale,
            log_probability: answer.log_probability,
            ask_teacher: answer.ask_teacher,
            comparison,
        })
    }
}
