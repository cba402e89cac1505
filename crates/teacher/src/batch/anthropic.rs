//! Anthropic's Message Batches API: a batch is made of its lines, and its results are one stream.

use super::grouping::{
    BatchAnswer, BatchClose, BatchLimits, BatchOutput, BatchStatus, Candidate, LineSaid, Page, Proof, instant,
};
use domain::ids::CallId;
use serde_json::{Value, json};

/// 100,000 requests and 256 MB.
pub(super) const LIMITS: BatchLimits = BatchLimits { lines_max: 100_000, bytes_max: 256_000_000 };
/// Where batches are, behind the profile's url.
pub(super) const PATH: [&str; 2] = ["messages", "batches"];
pub(super) const HEAD: &[u8] = b"{\"requests\":[";
pub(super) const TAIL: &[u8] = b"]}";
/// Everything that requests are counted under.
const COUNTS: [&str; 5] = ["processing", "succeeded", "errored", "canceled", "expired"];

pub(super) fn line(call: CallId, params: Value) -> Value {
    json!({"custom_id": call.to_string(), "params": params})
}

fn count(batch: &Value, keys: &[&str]) -> Option<u64> {
    let counts = batch.get("request_counts")?;
    keys.iter().try_fold(0_u64, |sum, key| sum.checked_add(counts.get(*key)?.as_u64()?))
}

/// A batch has no mark; one of another number of lines is not ours.
pub(super) fn page(list: &Value, lines: u64) -> Option<Page> {
    let batches = list.get("data")?.as_array()?;
    let candidate = |batch: &Value| {
        let name = batch.get("id")?.as_str()?.to_owned();
        let output = match status(batch)? {
            BatchStatus::Over(output) => Some(BatchOutput { files: vec![name.clone()], ..output }),
            BatchStatus::Running { .. } | BatchStatus::Gone(_) => None,
        };
        (count(batch, &COUNTS)? == lines).then_some(Candidate { name, proof: Proof::Lines, output })
    };
    let created = |batch: &Value| batch.get("created_at").and_then(Value::as_str).and_then(instant);
    let has_more = list.get("has_more").and_then(Value::as_bool).unwrap_or(false);
    let last = list.get("last_id").and_then(Value::as_str).map(str::to_owned);
    Some(Page {
        candidates: batches.iter().filter_map(candidate).collect(),
        oldest: batches.iter().filter_map(created).min(),
        next: last.filter(|_| has_more),
    })
}

pub(super) fn status(batch: &Value) -> Option<BatchStatus> {
    match batch.get("processing_status")?.as_str()? {
        "ended" => {}
        "canceling" => return Some(BatchStatus::Running { is_cancelling: true }),
        _ => return Some(BatchStatus::Running { is_cancelling: false }),
    }
    let is_some = |key: &str| count(batch, &[key]).is_some_and(|count| count > 0);
    let close = match (is_some("expired"), is_some("canceled")) {
        (true, _) => BatchClose::Expired,
        (false, true) => BatchClose::Cancelled,
        (false, false) => BatchClose::Completed,
    };
    let files = batch.get("id").and_then(Value::as_str).map(str::to_owned).into_iter().collect();
    Some(BatchStatus::Over(BatchOutput { files, close, lines: count(batch, &["succeeded"]) }))
}

pub(super) fn answer(line: &Value) -> Option<BatchAnswer> {
    let call = line.get("custom_id")?.as_str()?.parse().ok();
    let result = line.get("result")?;
    let part = |key: &str| result.get(key).unwrap_or(&Value::Null).to_string().into_bytes();
    let said = match result.get("type")?.as_str()? {
        "succeeded" => LineSaid::Answer { status: 200, body: part("message") },
        "errored" => LineSaid::Answer { status: status_of(result), body: part("error") },
        "canceled" | "expired" => LineSaid::Unasked,
        _ => LineSaid::Garbled,
    };
    Some(BatchAnswer { call, said })
}

/// The status that a call by itself has with such an error.
fn status_of(result: &Value) -> u16 {
    let kind = result.pointer("/error/error/type").or_else(|| result.pointer("/error/type"));
    match kind.and_then(Value::as_str).unwrap_or_default() {
        "invalid_request_error" | "invalid_request" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => 500,
    }
}
