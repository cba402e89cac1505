//! Calls of many rows: they wait their turn, name the row that cannot be answered, and may be compressed.

use crate::made::{INPUT_TOKENS, row, serve, settings, spec, tensor, write};
use domain::objective::Objective;
use domain::spec::Precision;
use domain::{Example, Task};
use inference::Settings;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Status};
use wire::open_inference as v2;
use wire::open_inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use wire::v1::inference_service_client::InferenceServiceClient;
use wire::{Channel, v1};

/// Enough to be asked for at once.
const ROWS: usize = 64;
/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

struct Made {
    folder: tempfile::TempDir,
    end: CancellationToken,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let task = Task::built_in("classify").unwrap();
        let spec = spec(&task, Objective::StepByStep, Precision::Float32);
        write(folder.path(), &spec, &[row(&task, 0), row(&task, 5)], 3);
        Self { folder, end: CancellationToken::new() }
    }

    /// Serves it with this room, and keeps answers.
    async fn serve_again(&self, queue_tokens_max: usize) -> Channel {
        let settings = Settings { queue_tokens_max, ..Settings::default() };
        serve("student", self.folder.path(), settings, &self.end).await
    }

    /// Serves it with room for so many tokens in the queue.
    async fn serve(&self, queue_tokens_max: usize) -> Channel {
        let settings = Settings { queue_tokens_max, ..settings() };
        serve("student", self.folder.path(), settings, &self.end).await
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// `count` rows of almost as many tokens as the student reads, each a little different.
fn long_rows(count: usize) -> Vec<Example> {
    let choices = ["granite", "pellar", "stovish"].map(str::to_owned);
    let row = |number: usize| Example {
        input: format!("{number:02} {}", "pellar ".repeat(18)),
        choices: choices.to_vec(),
        ..Example::default()
    };
    (0..count).map(row).collect()
}

fn request(rows: &[Example]) -> v2::ModelInferRequest {
    let rows: Vec<&Example> = rows.iter().collect();
    v2::ModelInferRequest {
        model_name: "student".to_owned(),
        inputs: vec![tensor("input", &rows), tensor("choices", &rows)],
        ..Default::default()
    }
}

async fn infer(channel: &Channel, rows: &[Example]) -> Result<v2::ModelInferResponse, Status> {
    let mut client = GrpcInferenceServiceClient::new(channel.clone());
    let answer = tokio::time::timeout(PATIENCE, client.model_infer(request(rows))).await;
    Ok(answer.expect("the call did not end")?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_on_an_idle_server_does_not_refuse_itself() {
    let made = Made::new();
    let rows = long_rows(ROWS);
    let wide = infer(&made.serve(65_536).await, &rows).await.unwrap();
    // Less than one row, about two rows, and less than all of them.
    for tokens in [1, 2 * INPUT_TOKENS as usize, 1_000] {
        let channel = made.serve(tokens).await;
        let narrow = infer(&channel, &rows).await.unwrap_or_else(|status| panic!("{tokens}: {status}"));
        assert_eq!(narrow, wide, "{tokens}");
        // One call that asks two questions.
        let mut client = InferenceServiceClient::new(channel.clone());
        let example = Some(v1::Example::from(rows[0].clone()));
        let both = v1::PredictAndExplainRequest { example, ..Default::default() };
        client.predict_and_explain(both).await.unwrap_or_else(|status| panic!("{tokens}: {status}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_for_room_end_with_the_deadline_of_their_call() {
    let made = Made::new();
    let channel = made.serve(1).await;
    let mut request = Request::new(request(&long_rows(1_000)));
    request.set_timeout(Duration::from_millis(300));
    let mut client = GrpcInferenceServiceClient::new(channel.clone());
    let ended = tokio::time::timeout(PATIENCE, client.model_infer(request)).await.unwrap().unwrap_err();
    assert!(matches!(ended.code(), Code::DeadlineExceeded | Code::Cancelled), "{ended}");
    // The rows that waited do not hold the queue. The client's clock may run out before the
    // server's, so the first tries may still be refused.
    let freed = async {
        loop {
            match infer(&channel, &long_rows(2)).await {
                Err(status) if status.code() == Code::ResourceExhausted => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answer => return answer,
            }
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the queue stays full").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_row_that_cannot_be_answered_is_named() {
    let made = Made::new();
    let channel = made.serve(65_536).await;
    let mut rows = long_rows(5);
    rows[3].input = "granite ".repeat(200);
    let status = infer(&channel, &rows).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(status.message().starts_with("rows[3]: example: its input has "), "{}", status.message());
    rows.remove(3);
    assert_eq!(infer(&channel, &rows).await.unwrap().outputs[0].shape, [4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_requests_are_answered_and_answers_are_compressed_when_asked() {
    let made = Made::new();
    let channel = made.serve(65_536).await;
    let plain = infer(&channel, &long_rows(2)).await.unwrap();
    let mut client = GrpcInferenceServiceClient::new(channel.clone())
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = client.model_infer(request(&long_rows(2))).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding").map(|name| name.as_bytes()), Some(&b"gzip"[..]));
    assert_eq!(answer.into_inner(), plain);
    let mut client = InferenceServiceClient::new(channel).send_compressed(CompressionEncoding::Gzip);
    let example = Some(v1::Example::from(long_rows(1).remove(0)));
    let answer = client.predict(v1::PredictRequest { example, ..Default::default() }).await.unwrap();
    assert_eq!(answer.metadata().get("grpc-encoding"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_student_can_read_is_refused_before_it_is_made_into_tokens() {
    let made = Made::new();
    let channel = made.serve(65_536).await;
    let mut client = InferenceServiceClient::new(channel.clone());
    let input = "granite ".repeat(100_000);
    let nowhere = v1::PredictRequest {
        example: Some(v1::Example { input: "granite".to_owned(), ..Default::default() }),
        route_below: Some(f64::NAN),
        ..Default::default()
    };
    let refused = client.predict(nowhere).await.unwrap_err();
    assert!(refused.message().starts_with("route_below: is no number"), "{refused}");
    let generate = v1::GenerateRequest { input: input.clone(), ..Default::default() };
    let refused = client.generate(generate).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("its input has 800000 bytes, and the model reads at most"),
        "{refused}"
    );
    let crowded = (0..5_000).map(|number| number.to_string()).collect();
    let long = vec!["a".repeat(5_000), "b".to_owned()];
    let limits = ["give between 2 and 26", "tokens, and the model reads at most"];
    for (choices, limit) in [crowded, long].into_iter().zip(limits) {
        let example = Some(v1::Example { input: "granite".to_owned(), choices, ..Default::default() });
        let request = v1::PredictRequest { example, ..Default::default() };
        let refused = client.predict(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(limit), "{refused}");
    }
    // The server reads no message that holds more than any example.
    let generate = v1::GenerateRequest { input: input.repeat(4), ..Default::default() };
    let refused = client.generate(generate).await.unwrap_err();
    assert!(
        matches!(refused.code(), Code::OutOfRange | Code::InvalidArgument | Code::ResourceExhausted),
        "{refused}"
    );
}

async fn predicted(channel: &Channel, row: &Example) -> Result<v1::PredictAndExplainResponse, Status> {
    let request = v1::PredictAndExplainRequest { example: Some(row.clone().into()), ..Default::default() };
    let mut client = InferenceServiceClient::new(channel.clone());
    Ok(client.predict_and_explain(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_was_answered_is_answered_again_without_being_computed() {
    let made = Made::new();
    let rows = long_rows(2);
    let computed = predicted(&made.serve(65_536).await, &rows[0]).await.unwrap();
    let channel = made.serve_again(2_030).await;
    for _ in 0..2 {
        assert_eq!(predicted(&channel, &rows[0]).await.unwrap(), computed);
    }
    // A text that is written holds all that may be held: who asks something else is refused.
    let long = v1::GenerateRequest {
        input: "granite has stones".to_owned(),
        tokens_max: 2_000,
        temperature: 1e-3,
        ..Default::default()
    };
    let mut client = InferenceServiceClient::new(channel.clone());
    let mut held = Vec::new();
    for _ in 0..4 {
        match client.generate(long.clone()).await {
            Ok(stream) => held.push(stream.into_inner()),
            Err(refused) => assert_eq!(refused.code(), Code::ResourceExhausted),
        }
    }
    assert_eq!(held.len(), 1, "one of them fits");
    let refused = predicted(&channel, &rows[1]).await;
    assert_eq!(refused.map_err(|status| status.code()), Err(Code::ResourceExhausted));
    assert_eq!(predicted(&channel, &rows[0]).await.unwrap(), computed);
}
