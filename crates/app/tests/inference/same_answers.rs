//! What the trainer measures is what the services answer: for every kind of task, every objective, both number formats and every
//! packed form, the same labels and texts byte for byte, and the same probabilities bit for bit.

use crate::made::{LABEL_TOKENS, TARGET_TOKENS, rows, serve, settings, spec, tasks, tensor, write_served};
use checkpoints::{Prediction, Predictions};
use domain::example::Row;
use domain::objective::{self, Objective, TrainingExample};
use domain::spec::{Precision, Spec};
use domain::{Example, Split};
use std::path::Path;
use student::{Device, Serving, Student};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use trainer::evaluate;
use wire::open_inference as v2;
use wire::open_inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use wire::v1::inference_service_client::InferenceServiceClient;
use wire::{Channel, v1};

/// What the trainer says when it publishes a student.
fn measured(folder: &Path, rows: &[Example]) -> Predictions {
    let examples: Vec<TrainingExample> = (0..)
        .zip(rows)
        .map(|(index, example)| TrainingExample {
            row: Row { index, example: example.clone() },
            target: example.label.clone(),
            rationales: Vec::new(),
        })
        .collect();
    let student = Student::open(folder, Device::Cpu).unwrap();
    student
        .with(|predictor| {
            let codec = student.codec();
            let mut said = evaluate::predict(codec, predictor, Split::Test, &examples, &mut || Ok(()))?;
            evaluate::explain(codec, predictor, &examples, &mut said, &mut || Ok(()))?;
            Ok::<_, trainer::TrainError>(said)
        })
        .unwrap()
}

/// One student: what was measured of it, and where it is served.
struct Served {
    spec: Spec,
    serving: Serving,
    name: String,
    channel: Channel,
    /// Each row with what the trainer says of it.
    rows: Vec<(Example, Prediction)>,
}

impl Served {
    fn client(&self) -> InferenceServiceClient<Channel> {
        InferenceServiceClient::new(self.channel.clone())
    }

    async fn predict(&self, row: &Example) -> Result<v1::PredictResponse, Status> {
        let request = v1::PredictRequest { example: Some(row.clone().into()), ..Default::default() };
        Ok(self.client().predict(request).await?.into_inner())
    }

    async fn predict_and_explain(&self, row: &Example) -> v1::PredictAndExplainResponse {
        let request =
            v1::PredictAndExplainRequest { example: Some(row.clone().into()), ..Default::default() };
        self.client().predict_and_explain(request).await.unwrap().into_inner()
    }

    async fn explain(&self, row: &Example) -> String {
        let request = v1::ExplainRequest { example: Some(row.clone().into()), ..Default::default() };
        let mut pieces = self.client().explain(request).await.unwrap().into_inner();
        let mut text = String::new();
        while let Some(piece) = pieces.next().await {
            text.push_str(&piece.unwrap().text);
        }
        text
    }

    /// The text of the label question, asked in the caller's own words.
    async fn generate(&self, row: &Example) -> String {
        let tokens_max =
            if self.spec.training.objective.writes_label_alone() { LABEL_TOKENS } else { TARGET_TOKENS };
        let input = objective::predict_source(&self.spec.task, row);
        let request = v1::GenerateRequest { input, tokens_max, ..Default::default() };
        let mut pieces = self.client().generate(request).await.unwrap().into_inner();
        let mut text = String::new();
        while let Some(piece) = pieces.next().await {
            text.push_str(&piece.unwrap().text);
        }
        text
    }

    async fn check(&self) {
        let mut answered = 0;
        for (row, measured) in &self.rows {
            let name = format!("{} row {}", self.name, measured.row);
            if let Some(error) = &measured.error {
                let status = self.predict(row).await.unwrap_err();
                assert_eq!(status.code(), Code::InvalidArgument, "{name}");
                assert_eq!(status.message(), format!("example: {error}"), "{name}");
                continue;
            }
            answered += 1;
            let answer = self.predict(row).await.unwrap();
            assert_eq!(answer.label, measured.label, "{name}");
            check_probability(&name, &answer.label, &answer.probabilities, measured);
            self.check_routing(&name, row, &answer, measured).await;
            let both = self.predict_and_explain(row).await;
            assert_eq!(both.label, measured.label, "{name}");
            check_probability(&name, &both.label, &both.probabilities, measured);
            if measured.probability.is_none() {
                assert_eq!(self.generate(row).await, measured.answer, "{name}");
            }
            if !self.spec.training.objective.writes_label_alone() {
                let rationale = self.spec.training.objective.split(&measured.answer).rationale;
                assert_eq!(both.rationale, rationale.clone().unwrap_or_default(), "{name}");
                assert_eq!(self.explain(row).await, rationale.unwrap_or_default(), "{name}");
            } else {
                assert_eq!(self.explain(row).await, both.rationale, "{name}");
                let explained = self.spec.training.objective.explains_separately();
                assert_eq!(measured.rationale, explained.then_some(both.rationale), "{name}");
            }
        }
        assert_eq!(answered, self.rows.len() - 1, "{}: one row is too long", self.name);
        self.check_infer().await;
    }

    /// What the trainer says of its sureness is what is served, and decides whether the teacher is to be asked.
    async fn check_routing(
        &self,
        name: &str,
        row: &Example,
        answer: &v1::PredictResponse,
        measured: &Prediction,
    ) {
        let sure = measured.log_probability.unwrap();
        match measured.probability {
            Some(_) => assert_eq!(answer.log_probability.to_bits(), sure.to_bits(), "{name}"),
            // Integer sums do not depend on the other rows of the batch.
            None if self.serving != Serving::Reference => {
                assert_eq!(answer.log_probability.to_bits(), sure.to_bits(), "{name}");
            }
            // The last bits of a written answer's do.
            None => {
                assert!((answer.log_probability - sure).abs() < 0.05 * sure.abs().max(1.0), "{name}: {sure}")
            }
        }
        assert!(!answer.ask_teacher, "{name}");
        for (border, asks) in [(answer.log_probability, false), (answer.log_probability + 1e-9, true)] {
            let request = v1::PredictRequest {
                example: Some(row.clone().into()),
                route_below: Some(border),
                ..Default::default()
            };
            let answer = self.client().predict(request).await.unwrap().into_inner();
            assert_eq!(answer.ask_teacher, asks, "{name}: {border}");
        }
    }

    /// All rows in one call of the standard protocol.
    async fn check_infer(&self) {
        let mut client = GrpcInferenceServiceClient::new(self.channel.clone());
        let metadata = v2::ModelMetadataRequest { name: self.name.clone(), ..Default::default() };
        let declared = client.model_metadata(metadata).await.unwrap().into_inner();
        let request = |rows: &[&Example]| v2::ModelInferRequest {
            model_name: self.name.clone(),
            inputs: declared.inputs.iter().map(|input| tensor(&input.name, rows)).collect(),
            ..Default::default()
        };
        let all: Vec<&Example> = self.rows.iter().map(|(row, _)| row).collect();
        let status = client.model_infer(request(&all)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{}", self.name);
        if self.spec.task.name == "open" {
            assert!(status.message().starts_with("inputs.choices: "), "{}", status.message());
            return;
        }
        let too_long = self.rows.last().unwrap().1.error.clone().unwrap();
        assert_eq!(status.message(), format!("rows[6]: example: {too_long}"));
        let short: Vec<&Example> = all.iter().copied().take(6).collect();
        let answer = client.model_infer(request(&short)).await.unwrap().into_inner();
        let column = |name: &str| answer.outputs.iter().find(|output| output.name == name);
        let labels = &column("label").unwrap().contents.as_ref().unwrap().bytes_contents;
        let probabilities =
            column("probability").map(|column| &column.contents.as_ref().unwrap().fp64_contents);
        for (place, (_, measured)) in self.rows.iter().take(6).enumerate() {
            assert_eq!(labels[place], measured.label.as_bytes(), "{} row {place}", self.name);
            let served = probabilities.map(|probabilities| probabilities[place].to_bits());
            assert_eq!(served, measured.probability.map(f64::to_bits), "{} row {place}", self.name);
        }
    }
}

fn check_probability(name: &str, label: &str, served: &[v1::LabelProbability], measured: &Prediction) {
    let own = served.iter().find(|entry| entry.label == label).map(|entry| entry.probability.to_bits());
    assert_eq!(own, measured.probability.map(f64::to_bits), "{name}");
    assert!(served.iter().all(|entry| entry.probability.is_finite()), "{name}: {served:?}");
}

async fn check(precision: Precision, serving: Serving) {
    student::use_threads(1);
    let mut distinct = std::collections::BTreeSet::new();
    for (place, task) in tasks().iter().enumerate() {
        for (seed, objective) in Objective::ALL.iter().enumerate() {
            let (folder, end) = (tempfile::tempdir().unwrap(), CancellationToken::new());
            let (spec, rows) = (spec(task, *objective, precision), rows(task));
            write_served(folder.path(), &spec, &rows, (place * 10 + seed) as i64, serving);
            let predictions = measured(folder.path(), &rows);
            distinct.extend(predictions.rows.iter().map(|row| row.answer.clone()));
            let name = format!("{}-{objective}", task.name);
            let channel = serve(&name, folder.path(), settings(), &end).await;
            let rows = rows.into_iter().zip(predictions.rows).collect();
            Served { spec, serving, name, channel, rows }.check().await;
            end.cancel();
        }
    }
    assert!(distinct.len() > 40, "the answers are too few to tell anything: {distinct:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_served_in_float32() {
    check(Precision::Float32, Serving::Reference).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_served_in_bfloat16() {
    check(Precision::Bfloat16, Serving::Reference).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_served_in_int8() {
    check(Precision::Float32, Serving::Int8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_what_is_served_in_int8_with_wide_activations() {
    check(Precision::Float32, Serving::Int8WideOutput).await;
    check(Precision::Float32, Serving::Int8Wide).await;
}
