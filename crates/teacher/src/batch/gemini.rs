//! Gemini's Batch API: a file of lines is uploaded, a batch made of it, and a file of results comes of that.

use super::grouping::{
    BatchAnswer, BatchClose, BatchLimits, BatchOutput, BatchStatus, Candidate, LineSaid, Page, Proof, instant,
};
use domain::ids::CallId;
use serde_json::{Value, json};

/// Files up to 2 GB; less of it, so that an upload takes no hours. Its number of lines is not limited: this is ours.
pub(super) const LIMITS: BatchLimits = BatchLimits { lines_max: 100_000, bytes_max: 512_000_000 };
/// The type of the file.
pub(super) const LINES: &str = "application/jsonl";

pub(super) fn line(call: CallId, request: Value) -> Value {
    json!({"key": call.to_string(), "request": request})
}

/// What is said of the file before it is uploaded.
pub(super) fn file(mark: &str) -> Value {
    json!({"file": {"display_name": mark}})
}

pub(super) fn create(file: &str, mark: &str) -> Value {
    json!({"batch": {"display_name": mark, "input_config": {"file_name": file}}})
}

pub(super) fn page(list: &Value, mark: &str) -> Option<Page> {
    let batches = match list.get("operations").or_else(|| list.get("batches")) {
        Some(batches) => batches.as_array()?.as_slice(),
        // A list without anything is empty.
        None if list.is_object() => &[],
        None => return None,
    };
    let is_marked = |batch: &&Value| text(batch, "displayName") == Some(mark);
    let name = |batch: &Value| batch.get("name").and_then(Value::as_str).map(str::to_owned);
    let candidates = batches.iter().filter(is_marked).filter_map(name);
    let created = |batch: &Value| text(batch, "createTime").and_then(instant);
    let next = list.get("nextPageToken").and_then(Value::as_str).filter(|token| !token.is_empty());
    Some(Page {
        candidates: candidates.map(|name| Candidate { name, proof: Proof::Mark, output: None }).collect(),
        oldest: batches.iter().filter_map(created).min(),
        next: next.map(str::to_owned),
    })
}

/// A text of a batch, which stands in an operation's metadata or by itself.
fn text<'a>(batch: &'a Value, key: &str) -> Option<&'a str> {
    batch.pointer("/metadata").and_then(|metadata| metadata.get(key)).or_else(|| batch.get(key))?.as_str()
}

pub(super) fn status(batch: &Value) -> Option<BatchStatus> {
    let state = text(batch, "state").unwrap_or_default();
    // `BATCH_STATE_SUCCEEDED`, and `JOB_STATE_SUCCEEDED` in older documents.
    let state = state.rsplit_once("STATE_").map_or(state, |(_, state)| state);
    let error = batch.get("error").filter(|error| error.is_object());
    let close = match (state, error) {
        ("SUCCEEDED" | "PARTIALLY_SUCCEEDED", _) => BatchClose::Completed,
        ("CANCELLED", _) => BatchClose::Cancelled,
        ("EXPIRED", _) => BatchClose::Expired,
        ("FAILED", _) | (_, Some(_)) => {
            let message =
                error.and_then(|error| error.get("message")).and_then(Value::as_str).unwrap_or_default();
            let code = error.and_then(|error| error.get("code")).and_then(Value::as_u64).unwrap_or(0);
            let message = if message.is_empty() { "no reason was given" } else { message }.to_owned();
            BatchClose::Refused { message, is_temporary: matches!(http_status(code), 429 | 500..=599) }
        }
        ("CANCELLING", None) => return Some(BatchStatus::Running { is_cancelling: true }),
        ("", None) if batch.get("name").is_none() => return None,
        (_, None) => return Some(BatchStatus::Running { is_cancelling: false }),
    };
    let places = ["/response/responsesFile", "/metadata/output/responsesFile", "/output/responsesFile"];
    let file = places.iter().find_map(|place| batch.pointer(place)).and_then(Value::as_str);
    let counts = ["/metadata/batchStats/successfulRequestCount", "/batchStats/successfulRequestCount"];
    let lines = counts.iter().find_map(|place| batch.pointer(place));
    // Numbers of 64 bits are texts in Google's JSON.
    let lines = lines.and_then(|count| count.as_u64().or_else(|| count.as_str()?.parse().ok()));
    let files = file.map(str::to_owned).into_iter().collect();
    Some(BatchStatus::Over(BatchOutput { files, close, lines }))
}

pub(super) fn answer(line: &Value) -> Option<BatchAnswer> {
    let call = line.get("key")?.as_str()?.parse().ok();
    let response = line.get("response").filter(|response| response.is_object());
    let error = line.get("error").or_else(|| line.get("status")).filter(|error| error.is_object());
    let said = match (response, error) {
        (Some(response), _) => LineSaid::Answer { status: 200, body: response.to_string().into_bytes() },
        (None, Some(error)) => {
            let code = error.get("code").and_then(Value::as_u64).unwrap_or(0);
            match http_status(code) {
                499 => LineSaid::Unasked,
                status => LineSaid::Answer { status, body: json!({"error": error}).to_string().into_bytes() },
            }
        }
        (None, None) => LineSaid::Garbled,
    };
    Some(BatchAnswer { call, said })
}

/// The status of HTTP for a code, which is one, or one of Google's own.
fn http_status(code: u64) -> u16 {
    match code {
        400..=599 => u16::try_from(code).unwrap_or(500),
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}
