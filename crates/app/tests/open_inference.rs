//! The Open Inference Protocol: a standard client gets the answers that ours gets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use app::serve::Roles;
use checkpoints::{Checkpoints, PREDICTIONS, Prediction, Predictions, Provenance};
use common::{PAIRS, Server, pairs, publish, served};
use domain::Split;
use domain::metric::Accuracy;
use tonic::Code;
use wire::open_inference as v2;
use wire::open_inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use wire::open_inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use wire::v1::inference_service_client::InferenceServiceClient;
use wire::{Channel, v1};

fn tensor(name: &str, texts: &[&str]) -> InferInputTensor {
    let bytes_contents = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    InferInputTensor {
        name: name.to_owned(),
        datatype: "BYTES".to_owned(),
        shape: vec![texts.len() as i64],
        contents: Some(v2::InferTensorContents { bytes_contents, ..Default::default() }),
        ..Default::default()
    }
}

fn request() -> v2::ModelInferRequest {
    let column = |of: fn(&(&'static str, &'static str, &'static str)) -> &'static str| {
        PAIRS.iter().map(of).collect::<Vec<&str>>()
    };
    v2::ModelInferRequest {
        model_name: "student".to_owned(),
        id: "mine".to_owned(),
        inputs: vec![tensor("premise", &column(|pair| pair.0)), tensor("hypothesis", &column(|pair| pair.1))],
        ..Default::default()
    }
}

/// The same request, its elements as raw bytes.
fn raw(mut request: v2::ModelInferRequest) -> v2::ModelInferRequest {
    for input in &mut request.inputs {
        let mut bytes = Vec::new();
        for text in input.contents.take().unwrap().bytes_contents {
            bytes.extend_from_slice(&(text.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&text);
        }
        request.raw_input_contents.push(bytes);
    }
    request
}

/// Label, probability of the label, and rationale of each row, by our own service.
async fn ours(channel: &Channel) -> Vec<(String, f64, String)> {
    let mut client = InferenceServiceClient::new(channel.clone());
    let mut answers = Vec::new();
    for example in pairs() {
        let request = v1::PredictAndExplainRequest { example: Some(example), ..Default::default() };
        let answer = client.predict_and_explain(request).await.unwrap().into_inner();
        assert_eq!(answer.probabilities.len(), 3);
        let chosen = answer.probabilities.iter().find(|entry| entry.label == answer.label).unwrap();
        answers.push((answer.label, chosen.probability, answer.rationale));
    }
    answers
}

fn texts(response: &v2::ModelInferResponse, output: usize) -> Vec<String> {
    let contents = response.outputs[output].contents.as_ref().unwrap();
    contents.bytes_contents.iter().map(|text| String::from_utf8(text.clone()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standard_client_gets_the_same_answers() {
    let all = Roles { harvester: true, trainer: true, inference: true };
    let server = Server::start(all, |config, _| config.harvester.workers = 1).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel.clone());
    assert!(client.server_live(v2::ServerLiveRequest {}).await.unwrap().into_inner().live);
    publish(&channel, "nli", pairs()).await;
    served(&channel).await;
    assert!(client.server_ready(v2::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let server_name = client.server_metadata(v2::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(server_name.name, "distillery");

    let metadata = v2::ModelMetadataRequest { name: "student".to_owned(), version: "1".to_owned() };
    let metadata = client.model_metadata(metadata).await.unwrap().into_inner();
    let names = |tensors: &[v2::model_metadata_response::TensorMetadata]| {
        tensors
            .iter()
            .map(|tensor| format!("{} {} {:?}", tensor.name, tensor.datatype, tensor.shape))
            .collect()
    };
    let (inputs, outputs): (Vec<String>, Vec<String>) = (names(&metadata.inputs), names(&metadata.outputs));
    assert_eq!(metadata.versions, ["1"]);
    assert_eq!(inputs, ["premise BYTES [-1]", "hypothesis BYTES [-1]"]);
    assert_eq!(outputs, ["label BYTES [-1]", "probability FP64 [-1]", "rationale BYTES [-1]"]);

    let wanted = ours(&channel).await;
    let typed = client.model_infer(request()).await.unwrap().into_inner();
    assert_eq!((typed.id.as_str(), typed.model_version.as_str()), ("mine", "1"));
    let probabilities = &typed.outputs[1].contents.as_ref().unwrap().fp64_contents;
    for (row, (label, probability, rationale)) in wanted.iter().enumerate() {
        assert_eq!((&texts(&typed, 0)[row], &texts(&typed, 2)[row]), (label, rationale));
        assert_eq!(probabilities[row].to_bits(), probability.to_bits(), "{probabilities:?} {wanted:?}");
    }
    let bytes = client.model_infer(raw(request())).await.unwrap().into_inner();
    let labels: Vec<u8> = wanted
        .iter()
        .flat_map(|(label, ..)| [&(label.len() as u32).to_le_bytes(), label.as_bytes()].concat())
        .collect();
    assert_eq!(bytes.raw_output_contents[0], labels);

    let label = InferRequestedOutputTensor { name: "label".to_owned(), ..Default::default() };
    let only = client.model_infer(v2::ModelInferRequest { outputs: vec![label], ..request() }).await.unwrap();
    assert_eq!(only.into_inner().outputs.len(), 1);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_there_is_not_found() {
    let inference = Roles { harvester: true, trainer: false, inference: true };
    let server = Server::start(inference, |_, _| {}).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel);
    let ask =
        |version: &str| v2::ModelReadyRequest { name: "student".to_owned(), version: version.to_owned() };
    assert!(!client.model_ready(ask("")).await.unwrap().into_inner().ready);
    assert_eq!(client.model_ready(ask("one")).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(client.model_infer(request()).await.unwrap_err().code(), Code::NotFound);
    server.stop().await.unwrap();
}

/// The accuracy over a file's rows, computed here from the answers and the gold labels.
fn recomputed(rows: &[Prediction]) -> Accuracy {
    let correct =
        rows.iter().filter(|row| row.label.trim().to_lowercase() == row.gold.to_lowercase()).count();
    let parsed = rows.iter().filter(|row| !row.label.is_empty()).count();
    Accuracy::measure(rows.len() as u64, correct as u64, parsed as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accuracy_is_that_of_the_published_predictions_which_are_what_is_served() {
    let all = Roles { harvester: true, trainer: true, inference: true };
    let server = Server::start(all, |config, _| config.harvester.workers = 1).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let mut rows = pairs();
    for (place, split) in [v1::Split::Validation, v1::Split::Test, v1::Split::Test].into_iter().enumerate() {
        let premise = Some(format!("A man plays {place} flutes."));
        rows.push(v1::Example { split: split.into(), premise, ..pairs()[place].clone() });
    }
    let published = publish(&channel, "nli", rows.clone()).await;
    served(&channel).await;

    let store = Checkpoints::open_shared(&server.folder.path().join("data/checkpoints")).unwrap();
    let folder = store.fetch(&published.model.path, Some(&published.model.manifest_sha256)).unwrap();
    let provenance = Provenance::read(&folder).unwrap().unwrap();
    let reported = [
        (Split::Validation, 1, provenance.validation, published.model.validation),
        (Split::Test, 2, provenance.test, published.model.test),
    ];
    let mut client = InferenceServiceClient::new(channel.clone());
    for (split, count, in_provenance, in_record) in reported {
        let predictions = Predictions::read(&folder, split).unwrap().unwrap();
        assert_eq!(predictions.rows.len(), count, "{split}");
        let accuracy = recomputed(&predictions.rows);
        assert_eq!(in_provenance, Some(accuracy), "{split}");
        let in_record = in_record.unwrap();
        assert_eq!(
            (in_record.rows, in_record.correct, in_record.parsed),
            (accuracy.rows, accuracy.correct, accuracy.parsed)
        );
        assert_eq!((in_record.low, in_record.high), (accuracy.low, accuracy.high), "{split}");
        for row in predictions.rows {
            let example = Some(rows[usize::try_from(row.row).unwrap()].clone());
            let answer = client.predict(v1::PredictRequest { example, ..Default::default() }).await.unwrap();
            let answer = answer.into_inner();
            assert_eq!(answer.label, row.label);
            let chosen = answer.probabilities.iter().find(|entry| entry.label == row.label).unwrap();
            assert_eq!(Some(chosen.probability.to_bits()), row.probability.map(f64::to_bits));
        }
    }
    // They are part of what is published: whoever changes one of them is found.
    let file = folder.join(PREDICTIONS).join("test.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text + "\n").unwrap();
    let changed = store.fetch(&published.model.path, None).unwrap_err().to_string();
    assert!(changed.contains("test.jsonl"), "{changed}");
    server.stop().await.unwrap();
}
