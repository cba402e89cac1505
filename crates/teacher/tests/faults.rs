//! Every fault of a teacher, produced by a server of this test, and the client's error for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use bytes::Bytes;
use common::{ask, profile, server};
use domain::budget::CallEnd;
use domain::completion::FinishReason;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;
use teacher::{Profile, Provider, TeacherError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn completion(text: &str, finish_reason: &str) -> Vec<u8> {
    serde_json::json!({"model": "small-1", "choices": [{"text": text, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    .to_string()
    .into_bytes()
}

#[tokio::test]
async fn a_good_answer_is_read_whole() {
    let (url, _) = server(vec![(200, &[], completion(" two", "length"))]).await;
    let reply = ask(profile(&url)).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish_reason), (" two", FinishReason::Length));
    assert_eq!((reply.model.as_str(), reply.usage.tokens_in, reply.usage.tokens_out), ("small-1", 7, 3));
    assert_eq!(reply.usage.money_micros, 13, "7 tokens at 1 a million and 3 at 2, in millionths");
}

#[tokio::test]
async fn transient_errors_are_retried_within_bounds() {
    let good = completion("two", "stop");
    for status in [408, 409, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 527, 529, 530] {
        let (url, requests) =
            server(vec![(status, &[("retry-after", "0")], "busy".into()), (200, &[], good.clone())]).await;
        assert_eq!(ask(profile(&url)).await.unwrap().text, "two");
        assert_eq!(requests.load(Ordering::SeqCst), 2, "{status}");
    }
    let (url, requests) = server(vec![(503, &[("retry-after", "0")], "down".into())]).await;
    let error = ask(profile(&url)).await.unwrap_err();
    assert!(matches!(error, TeacherError::Unavailable { .. }), "{error}");
    assert_eq!(requests.load(Ordering::SeqCst), 3, "attempts_max calls and no more");
}

#[tokio::test]
async fn a_wait_is_returned_and_not_retried() {
    let check = |headers: &'static [(&'static str, &'static str)], seconds: u64| async move {
        let (url, requests) = server(vec![(429, headers, "slow down".into())]).await;
        let error = ask(profile(&url)).await.unwrap_err();
        let TeacherError::Wait { wait, .. } = error else { panic!("{error}") };
        let (least, most) = (Duration::from_secs(seconds), Duration::from_secs(seconds).mul_f64(1.1));
        assert!(wait >= least && wait <= most, "{wait:?} is never less than {least:?}, with some jitter");
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    };
    check(&[], 2).await;
    check(&[("retry-after", "7")], 7).await;
    check(&[("retry-after-ms", "3000"), ("retry-after", "7")], 3).await;
    check(
        &[
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-limit-tokens", "9"),
            ("x-ratelimit-reset-tokens", "1m1s"),
        ],
        61,
    )
    .await;
    check(&[("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], 2).await;
}

#[tokio::test]
async fn permanent_errors_say_what_to_do() {
    let check = |status: u16, body: &'static str, words: &'static str| async move {
        let (url, requests) = server(vec![(status, &[], body.into())]).await;
        let error = ask(profile(&url)).await.unwrap_err();
        assert!(matches!(error, TeacherError::Permanent { .. }), "{status}: {error}");
        let message = error.to_string();
        assert!(message.contains(words) && message.contains("`test`") && message.contains(&url), "{message}");
        assert!(!message.contains("hunter2"), "a key in a message: {message}");
        assert_eq!((requests.load(Ordering::SeqCst), error.end()), (1, CallEnd::Refused));
    };
    check(401, "no", "check the profile's api_key_env").await;
    check(403, "no", "check the profile's api_key_env").await;
    check(404, "no", "check the profile's url and model").await;
    check(302, "", "final address").await;
    check(402, "no", "add money").await;
    check(407, "no", "the proxy wants a user").await;
    check(410, "no", "check the profile's url and model").await;
    check(415, "no", "check the profile's url and provider").await;
    check(429, r#"{"error":{"code":"insufficient_quota"}}"#, "exhausted quota").await;
}

#[tokio::test]
async fn unusable_answers_are_quoted() {
    let check = |status: u16, body: Vec<u8>, words: &'static str| async move {
        let (url, _) = server(vec![(status, &[], body)]).await;
        let error = ask(profile(&url)).await.unwrap_err();
        assert!(matches!(error, TeacherError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(words), "wanted {words:?} in {error}");
        assert!(error.to_string().len() < 700, "a message quotes a bounded part of a body");
    };
    check(200, "<html>welcome</html>".into(), "not JSON").await;
    check(200, r#"{"choices": [{"te"#.into(), "not JSON").await;
    check(200, "{}".into(), "without `choices`").await;
    check(200, completion("", "stop"), "without text").await;
    check(200, "x".repeat(5_000_000).into(), "more than").await;
}

#[tokio::test]
async fn timeouts_and_closed_connections_are_distinguished() {
    let check = |error: TeacherError, words: &str, end: CallEnd| {
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(error.end(), end, "{error}");
    };
    // A port that was just closed.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(profile(&format!("http://{free}/v1"))).await.unwrap_err();
    check(error, "cannot be reached: check that it runs", CallEnd::Refused);

    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", hung.local_addr().unwrap());
    let error = ask(Profile { attempts_max: 1, ..profile(&url) }).await.unwrap_err();
    check(error, "timed out (idle", CallEnd::InDoubt);

    let cut = async |status: &'static str, body: &'static [u8]| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 100\r\n\r\n");
                // Closed with a request unread, a connection is reset, and its answer may be lost.
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
            }
        });
        ask(Profile { attempts_max: 2, ..profile(&url) }).await.unwrap_err()
    };
    let text = b"{\"choi";
    check(cut("200 OK", text).await, "before its answer was complete", CallEnd::InDoubt);
    let zipped = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff\xab\x56";
    check(
        cut("200 OK\r\ncontent-encoding: gzip", zipped).await,
        "before its answer was complete",
        CallEnd::InDoubt,
    );
    check(cut("502 Bad Gateway", text).await, "answered 502", CallEnd::Failed);
    check(cut("401 Unauthorized", text).await, "rejects the key", CallEnd::Refused);
}

#[tokio::test]
async fn bodies_are_read_in_the_encodings_that_servers_use() {
    // `{"choices": [{"text": "two"}]}`, compressed.
    const GZIP: &str =
        "1f8b0800000000000203ab564acec8cf4c4e2d56b25288ae562a49ad2801b2944acaf3956a636b013ee27b831e000000";
    let zipped: Vec<u8> =
        (0..GZIP.len()).step_by(2).map(|at| u8::from_str_radix(&GZIP[at..at + 2], 16).unwrap()).collect();
    let (url, _) = server(vec![(200, &[("content-encoding", "gzip")], zipped.clone())]).await;
    assert_eq!(ask(profile(&url)).await.unwrap().text, "two");

    let check = |headers: &'static [(&'static str, &'static str)], body: Vec<u8>, words: &'static str| async move {
        let (url, _) = server(vec![(200, headers, body)]).await;
        let error = ask(profile(&url)).await.unwrap_err();
        assert!(matches!(error, TeacherError::Malformed(_)) && error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains(|character: char| character.is_control()), "{error:?}");
        // Nothing is known of what it cost, but that it was an answer.
        let paid = error.usage().unwrap();
        assert!(paid.tokens_in > 0 && paid.money_micros > 0, "{paid:?}");
    };
    check(&[("content-type", "application/json")], zipped.clone(), "compressed (gzip) and does not say so")
        .await;
    check(&[("content-encoding", "br")], zipped, "`content-encoding: br`").await;
    check(&[("content-encoding", "gzip")], b"{\"choices\": []}".to_vec(), "cannot be decompressed").await;
    check(&[("content-type", "text/html")], b"<html>\x01</html>".to_vec(), "the content type `text/html`")
        .await;
}

#[tokio::test]
async fn the_model_that_a_server_names_is_asked_for_once() {
    let check = |body: &'static str, served: Option<&'static str>| async move {
        let (url, requests) = server(vec![(200, &[], body.into())]).await;
        let teacher = common::teacher(profile(&url));
        for _ in 0..3 {
            assert_eq!(teacher.served_model().await.as_deref(), served, "{body}");
        }
        assert_eq!(requests.load(Ordering::SeqCst), 1, "{body}");
    };
    check(r#"{"data": [{"id": "qwen"}]}"#, Some("qwen")).await;
    check(r#"{"data": [{"id": "small", "root": "org/small-7b"}, {"id": "large"}]}"#, Some("org/small-7b"))
        .await;
    check(
        r#"{"data": [{"id": "qwen", "meta": {"n_params": 7, "size": 9}}]}"#,
        Some("qwen n_params=7 size=9"),
    )
    .await;
    check(r#"{"data": [{"id": "qwen"}, {"id": "large"}]}"#, None).await;
    check(r#"{"data": "none"}"#, None).await;
    check("welcome", None).await;
    let gemini = Profile { provider: Provider::Gemini, ..profile("http://127.0.0.1:9/v1") };
    assert_eq!(common::teacher(gemini).served_model().await, None);
    // One that is away is asked again.
    let list = r#"{"data": [{"id": "qwen"}]}"#;
    let (url, _) = server(vec![(503, &[], "down".into()), (200, &[], list.into())]).await;
    let teacher = common::teacher(profile(&url));
    assert_eq!(teacher.served_model().await, None);
    assert_eq!(teacher.served_model().await.as_deref(), Some("qwen"));
}

#[tokio::test]
async fn an_invalid_url_is_refused_at_once() {
    for url in ["", "localhost:80", "ftp://host/v1"] {
        let error = ask(profile(url)).await.unwrap_err();
        assert!(error.to_string().starts_with("teacher `test`: url"), "{error}");
    }
}

/// What a server received: the path, the header that should contain the key, and the body.
async fn received(
    provider: Provider,
    key_header: &'static str,
    answer: serde_json::Value,
) -> (String, String, serde_json::Value) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let (tell, mut received_one) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let (tell, answer) = (tell.clone(), answer.to_string());
            async move {
                let path = request.uri().path().to_owned();
                let key =
                    request.headers().get(key_header).map_or("", |value| value.to_str().unwrap()).to_owned();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                tell.send((path, key, serde_json::from_slice(&body).unwrap())).await.unwrap();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(answer))))
            }
        });
        let _ =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    });
    let reply = ask(Profile { provider, ..profile(&url) }).await.unwrap();
    assert_eq!(reply.text, "two", "{provider:?}");
    received_one.recv().await.unwrap()
}

#[tokio::test]
async fn every_provider_is_asked_in_its_dialect() {
    let openai = serde_json::json!({"choices": [{"text": "two"}]});
    let (path, key, body) = received(Provider::OpenAiCompletions, "authorization", openai).await;
    assert_eq!((path.as_str(), key.as_str()), ("/v1/completions", "Bearer hunter2"));
    assert_eq!((&body["prompt"], &body["stop"]), (&"Q: 1 + 1?\nA:".into(), &serde_json::json!(["\n\n"])));

    let chat = serde_json::json!({"choices": [{"message": {"content": "two"}}]});
    let (path, _, body) = received(Provider::OpenAiChat, "authorization", chat).await;
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(body["messages"], serde_json::json!([{"role": "user", "content": "Q: 1 + 1?\nA:"}]));

    let anthropic = serde_json::json!({"content": [{"type": "text", "text": "two"}]});
    let (path, key, body) = received(Provider::Anthropic, "x-api-key", anthropic).await;
    assert_eq!((path.as_str(), key.as_str()), ("/v1/messages", "hunter2"));
    assert_eq!(
        body["stop_sequences"],
        serde_json::json!([]),
        "it refuses stop sequences of white space alone"
    );
    assert_eq!((&body["max_tokens"], body.get("top_p")), (&16.into(), None));

    let gemini = serde_json::json!({"candidates": [{"content": {"parts": [{"text": "two"}]}}]});
    let (path, key, body) = received(Provider::Gemini, "x-goog-api-key", gemini).await;
    assert_eq!((path.as_str(), key.as_str()), ("/v1/models/small:generateContent", "hunter2"));
    assert_eq!(body["generationConfig"]["maxOutputTokens"], 16);
}
