//! The documents of each provider, as its reference shows them.

use super::asker::BatchTeacher;
use super::grouping::{BatchAnswer, BatchClose, BatchOutput, BatchStatus, LineSaid, Page, Proof};
use super::{anthropic, gemini, openai};
use crate::client::Client;
use crate::meters::Meters;
use crate::profile::{Prices, Profile, Provider};
use crate::{Question, Sampling};
use domain::ids::CallId;
use serde_json::{Value, json};

const CALL: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const MARK: &str = "01890a5d-ac96-774b-bcce-b302099a8058/3";

fn call() -> CallId {
    CALL.parse().unwrap()
}

fn teacher(provider: Provider) -> BatchTeacher {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let prices = Prices {
        in_per_million: 1.0,
        out_per_million: 4.0,
        cached_per_million: Some(0.5),
        written_per_million: None,
    };
    let profile =
        Profile { batch: true, prices, ..Profile::new("test", provider, "http://h/v1?a=b", "small") };
    BatchTeacher::new(&Client::new(profile).unwrap(), &Meters::new("test")).unwrap()
}

fn question() -> Question {
    let sampling = Sampling { tokens_max: 16, top_p: 1.0, ..Sampling::default() };
    Question { instruction: String::new(), prompt: "1 + 1?".to_owned(), sampling }
}

#[test]
fn lines_have_the_shape_of_their_provider() {
    let check = |provider, expected: Value| {
        let teacher = teacher(provider);
        let (mark, question) = ("m/0", question());
        let mut bytes = teacher.head(mark);
        bytes.extend(teacher.line(call(), &question, true));
        bytes.extend(teacher.line(call(), &question, false));
        bytes.extend(teacher.tail(mark));
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<Value> = match provider {
            Provider::Anthropic => {
                serde_json::from_str::<Value>(&text).unwrap()["requests"].as_array().unwrap().clone()
            }
            _ => text
                .lines()
                .filter(|line| line.starts_with('{'))
                .map(|line| serde_json::from_str(line).unwrap())
                .collect(),
        };
        assert_eq!(lines, [expected.clone(), expected], "{provider:?}");
        text
    };
    let chat = json!({"model": "small", "messages": [{"role": "user", "content": "1 + 1?"}], "temperature": 0.0,
        "top_p": 1.0, "max_tokens": 16, "seed": 0});
    let form = check(
        Provider::OpenAiChat,
        json!({"custom_id": CALL, "method": "POST", "url": "/v1/chat/completions", "body": chat}),
    );
    assert!(
        form.starts_with("--distillery-m-0\r\n") && form.ends_with("\r\n--distillery-m-0--\r\n"),
        "{form}"
    );
    assert!(
        form.contains("name=\"purpose\"\r\n\r\nbatch\r\n") && form.contains("filename=\"m-0.jsonl\""),
        "{form}"
    );
    let completion = json!({"model": "small", "prompt": "1 + 1?", "temperature": 0.0, "top_p": 1.0,
        "max_tokens": 16, "seed": 0});
    check(
        Provider::OpenAiCompletions,
        json!({"custom_id": CALL, "method": "POST", "url": "/v1/completions", "body": completion}),
    );
    let params = json!({"model": "small", "max_tokens": 16, "messages": [{"role": "user", "content": "1 + 1?"}],
        "stop_sequences": [], "temperature": 0.0});
    check(Provider::Anthropic, json!({"custom_id": CALL, "params": params}));
    let request = json!({"contents": [{"role": "user", "parts": [{"text": "1 + 1?"}]}],
        "generationConfig": {"temperature": 0.0, "topP": 1.0, "maxOutputTokens": 16, "stopSequences": [], "seed": 0}});
    check(Provider::Gemini, json!({"key": CALL, "request": request}));
}

#[test]
fn a_line_costs_its_part_of_the_price() {
    let (teacher, question) = (teacher(Provider::OpenAiChat), question());
    assert_eq!(teacher.bound(&question).money_micros, (6 + 128 + 4 * 16) / 2);
    let body = json!({"choices": [{"message": {"content": "2"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}});
    let reply = teacher.read(call(), 200, body.to_string().as_bytes(), &question).unwrap();
    assert_eq!((reply.call, reply.usage.money_micros), (call(), (60 + 20 + 40) / 2));
    assert!(teacher.read(call(), 500, b"{}", &question).is_err());
    let plain = Profile::new("test", Provider::OpenAiChat, "http://h/v1", "small");
    assert!(
        BatchTeacher::new(&Client::new(plain).unwrap(), &Meters::new("test")).is_none(),
        "few of OpenAI's servers have batches"
    );
}

#[test]
fn a_batch_is_created_with_its_mark() {
    assert_eq!(
        openai::create("file-1", openai::CHAT, MARK),
        json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h",
               "metadata": {"distillery": MARK}})
    );
    assert_eq!(
        gemini::create("files/1", MARK),
        json!({"batch": {"display_name": MARK, "input_config": {"file_name": "files/1"}}})
    );
}

fn over(close: BatchClose, files: &[&str], lines: Option<u64>) -> Option<BatchStatus> {
    let files = files.iter().map(|file| (*file).to_owned()).collect();
    Some(BatchStatus::Over(BatchOutput { files, close, lines }))
}

fn refused(message: &str, is_temporary: bool) -> BatchClose {
    BatchClose::Refused { message: message.to_owned(), is_temporary }
}

const RUNNING: Option<BatchStatus> = Some(BatchStatus::Running { is_cancelling: false });
const CANCELLING: Option<BatchStatus> = Some(BatchStatus::Running { is_cancelling: true });

#[test]
fn openai_says_how_a_batch_stands() {
    let check =
        |batch: Value, expected: Option<BatchStatus>| assert_eq!(openai::status(&batch), expected, "{batch}");
    for status in ["validating", "in_progress", "finalizing", "queued"] {
        check(json!({"status": status}), RUNNING);
    }
    check(json!({"status": "cancelling"}), CANCELLING);
    let ended = |status: &str| {
        json!({"status": status, "output_file_id": "o", "error_file_id": "e",
               "request_counts": {"total": 9, "completed": 7, "failed": 2}})
    };
    check(ended("completed"), over(BatchClose::Completed, &["o", "e"], Some(7)));
    check(ended("expired"), over(BatchClose::Expired, &["o", "e"], Some(7)));
    check(ended("cancelled"), over(BatchClose::Cancelled, &["o", "e"], Some(7)));
    check(
        json!({"status": "completed", "output_file_id": null, "error_file_id": "e"}),
        over(BatchClose::Completed, &["e"], None),
    );
    let failed = |code: &str| {
        json!({"status": "failed", "errors": {"object": "list", "data": [
            {"code": code, "message": "No.", "param": null, "line": 3}]}})
    };
    check(failed("invalid_json_line"), over(refused("No. (line 3)", false), &[], None));
    check(failed("token_limit_exceeded"), over(refused("No. (line 3)", true), &[], None));
    check(json!({"status": "failed"}), over(refused("no reason was given", false), &[], None));
    check(json!({"id": "batch_1"}), None);
}

#[test]
fn anthropic_says_how_a_batch_stands() {
    let check = |status: &str, [canceled, expired]: [u64; 2], expected: Option<BatchStatus>| {
        let batch = json!({"id": "msgbatch_1", "processing_status": status, "request_counts":
            {"processing": 0, "succeeded": 5, "errored": 1, "canceled": canceled, "expired": expired}});
        assert_eq!(anthropic::status(&batch), expected, "{batch}");
    };
    let files = ["msgbatch_1"];
    check("in_progress", [0, 0], RUNNING);
    check("canceling", [0, 0], CANCELLING);
    check("ended", [0, 0], over(BatchClose::Completed, &files, Some(5)));
    check("ended", [2, 0], over(BatchClose::Cancelled, &files, Some(5)));
    check("ended", [0, 2], over(BatchClose::Expired, &files, Some(5)));
    assert_eq!(anthropic::status(&json!({})), None);
}

#[test]
fn gemini_says_how_a_batch_stands() {
    let check =
        |batch: Value, expected: Option<BatchStatus>| assert_eq!(gemini::status(&batch), expected, "{batch}");
    let batch = |state: &str| json!({"name": "batches/1", "metadata": {"state": state}});
    for state in ["BATCH_STATE_PENDING", "BATCH_STATE_RUNNING", "JOB_STATE_RUNNING", ""] {
        check(batch(state), RUNNING);
    }
    let done = |state: &str| {
        json!({"name": "batches/1", "metadata": {"state": state, "batchStats": {"successfulRequestCount": "5"}},
               "done": true, "response": {"responsesFile": "files/r"}})
    };
    check(done("BATCH_STATE_SUCCEEDED"), over(BatchClose::Completed, &["files/r"], Some(5)));
    check(done("JOB_STATE_EXPIRED"), over(BatchClose::Expired, &["files/r"], Some(5)));
    check(batch("BATCH_STATE_CANCELLED"), over(BatchClose::Cancelled, &[], None));
    let failed = |code: u64| json!({"name": "batches/1", "metadata": {"state": "BATCH_STATE_FAILED"}, "error": {"code": code, "message": "No."}});
    check(failed(3), over(refused("No.", false), &[], None));
    check(failed(8), over(refused("No.", true), &[], None));
    check(json!({}), None);
}

#[test]
fn a_batch_is_found_in_a_list() {
    let names = |page: Option<Page>| {
        let page = page.unwrap();
        let names: Vec<(String, Proof)> =
            page.candidates.into_iter().map(|candidate| (candidate.name, candidate.proof)).collect();
        (names, page.next)
    };
    let list = json!({"has_more": true, "data": [
        {"id": "a", "created_at": 20, "metadata": {"distillery": "else"}},
        {"id": "b", "created_at": 10, "metadata": {"distillery": MARK}},
        {"id": "c", "created_at": 5, "metadata": null}]});
    assert_eq!(names(openai::page(&list, MARK)), (vec![("b".to_owned(), Proof::Mark)], Some("c".to_owned())));
    let created = openai::page(&list, MARK).unwrap().oldest.unwrap();
    assert_eq!(created.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs(), 5);
    // A time that no clock has is not known.
    let list = json!({"data": [{"id": "a", "created_at": u64::MAX, "metadata": {"distillery": MARK}}]});
    assert_eq!(openai::page(&list, MARK).unwrap().oldest, None);
    let batch = |id: &str, status: &str, lines: u64| {
        json!({"id": id, "processing_status": status, "created_at": "2026-01-01T00:00:00Z", "request_counts":
            {"processing": lines, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}})
    };
    let list = json!({"data": [batch("a", "ended", 7), batch("b", "in_progress", 8), batch("c", "in_progress", 7)],
        "has_more": false, "last_id": "c"});
    let found = names(anthropic::page(&list, 7));
    assert_eq!(found, (vec![("a".to_owned(), Proof::Lines), ("c".to_owned(), Proof::Lines)], None));
    let list = json!({"operations": [
        {"name": "batches/1", "metadata": {"displayName": "else"}},
        {"name": "batches/2", "metadata": {"displayName": MARK, "createTime": "2026-01-01T00:00:00Z"}}],
        "nextPageToken": "more"});
    let found = names(gemini::page(&list, MARK));
    assert_eq!(found, (vec![("batches/2".to_owned(), Proof::Mark)], Some("more".to_owned())));
    assert_eq!(names(gemini::page(&json!({}), MARK)), (Vec::new(), None));
    assert_eq!(openai::page(&json!([]), MARK), None);
}

#[test]
fn a_line_of_results_is_read() {
    let answered = |status, body: Value| LineSaid::Answer { status, body: body.to_string().into_bytes() };
    type Read = fn(&Value) -> Option<BatchAnswer>;
    let check = |read: Read, line: Value, said: Option<LineSaid>| {
        let expected = said.map(|said| BatchAnswer { call: Some(call()), said });
        assert_eq!(read(&line), expected, "{line}");
    };
    let openai =
        |response: Value, error: Value| json!({"custom_id": CALL, "response": response, "error": error});
    let null = Value::Null;
    let response = json!({"status_code": 200, "body": {"a": 1}});
    check(openai::answer, openai(response, null.clone()), Some(answered(200, json!({"a": 1}))));
    let response = json!({"status_code": 429, "body": {"error": {}}});
    check(openai::answer, openai(response, null.clone()), Some(answered(429, json!({"error": {}}))));
    for code in ["batch_expired", "batch_cancelled"] {
        let error = json!({"code": code, "message": "too late"});
        check(openai::answer, openai(null.clone(), error), Some(LineSaid::Unasked));
    }
    let error = json!({"code": "server_error", "message": "x"});
    check(openai::answer, openai(null.clone(), error.clone()), Some(answered(500, json!({"error": error}))));
    check(openai::answer, openai(null.clone(), null.clone()), Some(LineSaid::Garbled));
    check(openai::answer, json!({"id": "x"}), None);
    let foreign = openai::answer(&json!({"custom_id": "request-1", "response": null})).unwrap();
    assert_eq!(foreign.call, None);

    let anthropic = |result: Value| json!({"custom_id": CALL, "result": result});
    let message = json!({"type": "succeeded", "message": {"content": []}});
    check(anthropic::answer, anthropic(message), Some(answered(200, json!({"content": []}))));
    for (kind, status) in [("invalid_request_error", 400), ("api_error", 500), ("overloaded_error", 529)] {
        let error = json!({"type": "error", "error": {"type": kind, "message": "x"}});
        let line = anthropic(json!({"type": "errored", "error": error}));
        check(anthropic::answer, line, Some(answered(status, error)));
    }
    for kind in ["canceled", "expired"] {
        check(anthropic::answer, anthropic(json!({"type": kind})), Some(LineSaid::Unasked));
    }
    check(anthropic::answer, anthropic(json!({"type": "news"})), Some(LineSaid::Garbled));

    let gemini = |key: &str, value: Value| json!({"key": CALL, key: value});
    let response = json!({"candidates": []});
    check(gemini::answer, gemini("response", response.clone()), Some(answered(200, response)));
    for (code, status) in [(3, 400), (8, 429), (13, 500), (14, 503), (429, 429)] {
        let error = json!({"code": code, "message": "x"});
        check(
            gemini::answer,
            gemini("error", error.clone()),
            Some(answered(status, json!({"error": error}))),
        );
    }
    check(gemini::answer, gemini("status", json!({"code": 1})), Some(LineSaid::Unasked));
    check(gemini::answer, json!({"key": CALL}), Some(LineSaid::Garbled));
}
