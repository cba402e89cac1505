//! Every fault of a teacher, produced by a server of this test, and the client's error for it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot be set up has failed"
)]

use bytes::Bytes;
use domain::Secret;
use domain::completion::FinishReason;
use embedded::MemoryRateLimiter;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use teacher::{Prices, Profile, Provider, Question, Reply, Sampling, Teacher, TeacherError, Unmetered};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// One answer: status, headers, body.
type Answer = (u16, &'static [(&'static str, &'static str)], String);

/// Serves `answers` one after another, the last one again and again; counts the requests.
async fn server(answers: Vec<Answer>) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answers, counted) = (answers.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let service = service_fn(move |_| {
                    let place = counted.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
                    let (status, headers, body) = answers[place].clone();
                    async move {
                        let mut response = Response::new(Full::new(Bytes::from(body)));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        for (name, value) in headers {
                            response.headers_mut().insert(*name, value.parse().unwrap());
                        }
                        Ok::<_, Infallible>(response)
                    }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    (url, requests)
}

fn profile(url: &str) -> Profile {
    Profile {
        api_key: Secret::new("hunter2"),
        concurrency_max: 2,
        attempts_max: 3,
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_millis(300),
        total_timeout: Duration::from_secs(2),
        prices: Prices { in_per_million: 1.0, out_per_million: 2.0, ..Prices::default() },
        ..Profile::new("test", Provider::OpenAiCompletions, url, "small")
    }
}

fn question() -> Question {
    Question {
        instruction: String::new(),
        prompt: "Q: 1 + 1?\nA:".into(),
        sampling: Sampling {
            temperature: 0.0,
            top_p: 1.0,
            tokens_max: 16,
            stop: vec!["\n\n".into()],
            sample: 0,
        },
    }
}

async fn ask(profile: Profile) -> Result<Reply, TeacherError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Teacher::new(profile, Arc::new(MemoryRateLimiter::default()))?.ask(question(), Arc::new(Unmetered)).await
}

fn completion(text: &str, finish_reason: &str) -> String {
    serde_json::json!({"model": "small-1", "choices": [{"text": text, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3}})
    .to_string()
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
    for status in [408, 500, 502, 503, 504, 529] {
        let (url, requests) = server(vec![(status, &[], "busy".into()), (200, &[], good.clone())]).await;
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
        assert_eq!(requests.load(Ordering::SeqCst), 1);
    };
    check(401, "no", "check the profile's api_key_env").await;
    check(403, "no", "check the profile's api_key_env").await;
    check(404, "no", "check the profile's url and model").await;
    check(302, "", "final address").await;
    check(429, r#"{"error":{"code":"insufficient_quota"}}"#, "exhausted quota").await;
}

#[tokio::test]
async fn unusable_answers_are_quoted() {
    let check = |status: u16, body: String, words: &'static str| async move {
        let (url, _) = server(vec![(status, &[], body)]).await;
        let error = ask(profile(&url)).await.unwrap_err();
        assert!(matches!(error, TeacherError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(words), "wanted {words:?} in {error}");
        assert!(error.to_string().len() < 600, "a message quotes a bounded part of a body");
    };
    check(200, "<html>welcome</html>".into(), "not JSON").await;
    check(200, r#"{"choices": [{"te"#.into(), "not JSON").await;
    check(200, "{}".into(), "without `choices`").await;
    check(200, completion("", "stop"), "without text").await;
    check(200, "x".repeat(5_000_000), "more than").await;
    check(400, "context too long".into(), "context too long").await;
}

#[tokio::test]
async fn timeouts_and_closed_connections_are_distinguished() {
    // A port that was just closed.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(profile(&format!("http://{free}/v1"))).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached: check that it runs"), "{error}");

    let hung = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", hung.local_addr().unwrap());
    let error = ask(Profile { attempts_max: 1, ..profile(&url) }).await.unwrap_err().to_string();
    assert!(error.contains("timed out (idle"), "{error}");

    let cut = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", cut.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = cut.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"choi").await;
        }
    });
    let error = ask(Profile { attempts_max: 2, ..profile(&url) }).await.unwrap_err().to_string();
    assert!(error.contains("before its answer was complete"), "{error}");
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
