//! OpenAI's Batch API: a file of lines is uploaded, a batch made of it, and files of answers and of errors come of that.

use super::grouping::{
    BatchAnswer, BatchClose, BatchLimits, BatchOutput, BatchStatus, Candidate, LineSaid, PAGE, Page, Proof,
};
use domain::ids::CallId;
use serde_json::{Value, json};
use std::time::{Duration, UNIX_EPOCH};

/// 50,000 requests and 200 MB.
pub(super) const LIMITS: BatchLimits = BatchLimits { lines_max: 50_000, bytes_max: 200_000_000 };
/// What lines of chats ask.
pub(super) const CHAT: &str = "/v1/chat/completions";
/// What lines of completions ask.
pub(super) const COMPLETIONS: &str = "/v1/completions";
/// The key of the mark in a batch's metadata.
const MARK: &str = "distillery";
/// Why a line was not asked.
const UNASKED: [&str; 3] = ["batch_expired", "batch_cancelled", "batch_canceled"];
/// Why a batch is not taken at present.
const TEMPORARY: [&str; 3] = ["token_limit_exceeded", "rate_limit_exceeded", "request_limit_exceeded"];

pub(super) fn boundary(mark: &str) -> String {
    format!("distillery-{}", mark.replace('/', "-"))
}

/// The form that the file is uploaded in, up to its first line.
pub(super) fn head(mark: &str) -> Vec<u8> {
    let boundary = boundary(mark);
    let name = mark.replace('/', "-");
    format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}.jsonl\"\r\n\
         Content-Type: application/jsonl\r\n\r\n"
    )
    .into_bytes()
}

pub(super) fn tail(mark: &str) -> Vec<u8> {
    format!("\r\n--{}--\r\n", boundary(mark)).into_bytes()
}

pub(super) fn line(call: CallId, url: &str, body: Value) -> Value {
    json!({"custom_id": call.to_string(), "method": "POST", "url": url, "body": body})
}

pub(super) fn create(file: &str, endpoint: &str, mark: &str) -> Value {
    json!({"input_file_id": file, "endpoint": endpoint, "completion_window": "24h", "metadata": {MARK: mark}})
}

pub(super) fn page(list: &Value, mark: &str) -> Option<Page> {
    let batches = list.get("data")?.as_array()?;
    let is_marked = |batch: &&Value| {
        batch.pointer("/metadata").and_then(|metadata| metadata.get(MARK)).and_then(Value::as_str)
            == Some(mark)
    };
    let name = |batch: &Value| batch.get("id").and_then(Value::as_str).map(str::to_owned);
    let candidates = batches.iter().filter(is_marked).filter_map(name);
    let created = |batch: &Value| {
        let seconds = batch.get("created_at").and_then(Value::as_u64)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    };
    // Servers that do not say whether there are more have no more where a page is not full.
    let has_more = list.get("has_more").and_then(Value::as_bool).unwrap_or(batches.len() >= PAGE);
    Some(Page {
        candidates: candidates.map(|name| Candidate { name, proof: Proof::Mark, output: None }).collect(),
        oldest: batches.iter().filter_map(created).min(),
        next: batches.last().and_then(name).filter(|_| has_more),
    })
}

pub(super) fn status(batch: &Value) -> Option<BatchStatus> {
    let close = match batch.get("status")?.as_str()? {
        "completed" => BatchClose::Completed,
        "expired" => BatchClose::Expired,
        "cancelled" | "canceled" => BatchClose::Cancelled,
        "failed" => refused(batch),
        "cancelling" | "canceling" => return Some(BatchStatus::Running { is_cancelling: true }),
        // `validating`, `in_progress`, `finalizing`, and whatever else is no end.
        _ => return Some(BatchStatus::Running { is_cancelling: false }),
    };
    let file =
        |key: &str| batch.get(key).and_then(Value::as_str).filter(|id| !id.is_empty()).map(str::to_owned);
    let count = |key: &str| {
        batch.pointer("/request_counts").and_then(|counts| counts.get(key)).and_then(Value::as_u64)
    };
    // Answers are what was paid for. Whether lines that were not asked are in the file of errors, servers disagree.
    let lines = count("completed");
    let files = ["output_file_id", "error_file_id"].into_iter().filter_map(file).collect();
    Some(BatchStatus::Over(BatchOutput { files, close, lines }))
}

fn refused(batch: &Value) -> BatchClose {
    let errors =
        batch.pointer("/errors/data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text =
        |error: &Value, key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_temporary = errors.iter().any(|error| TEMPORARY.contains(&text(error, "code").as_str()));
    let mut message = errors.first().map(|error| {
        let line = error
            .get("line")
            .and_then(Value::as_u64)
            .map_or_else(String::new, |line| format!(" (line {line})"));
        format!("{}{line}", text(error, "message"))
    });
    message = message.filter(|message| !message.is_empty());
    BatchClose::Refused { message: message.unwrap_or_else(|| "no reason was given".to_owned()), is_temporary }
}

pub(super) fn answer(line: &Value) -> Option<BatchAnswer> {
    let call = line.get("custom_id")?.as_str()?.parse().ok();
    let error = line.get("error").filter(|error| !error.is_null());
    let code = error.and_then(|error| error.get("code")).and_then(Value::as_str).unwrap_or_default();
    let response = line.get("response").filter(|response| response.is_object());
    let said = match (response, error) {
        _ if UNASKED.contains(&code) => LineSaid::Unasked,
        (Some(response), _) => {
            let status = response.get("status_code").and_then(Value::as_u64).unwrap_or(200);
            let body = response.get("body").unwrap_or(&Value::Null).to_string().into_bytes();
            LineSaid::Answer { status: u16::try_from(status).unwrap_or(500), body }
        }
        (None, Some(error)) => {
            LineSaid::Answer { status: 500, body: json!({"error": error}).to_string().into_bytes() }
        }
        (None, None) => LineSaid::Garbled,
    };
    Some(BatchAnswer { call, said })
}
