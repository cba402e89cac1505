//! No key appears in a log at any level, in an error, or in what is printed for debugging, also where the server repeats it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use bytes::Bytes;
use domain::Secret;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::io::Write;
use std::sync::{Arc, Mutex};
use teacher::{Profile, Provider, TeacherError};
use tokio::net::TcpListener;

/// What is secret: the key, a header, and a part of the address. Each is longer than what a message quotes of it.
const SECRETS: [&str; 3] = ["key-4f7a9b2c", "header-83d1e6", "query-c05b77"];

/// A key and a header of their usual length, and the password within the header.
const KEY: &str = "sk-4f7a9b2c+/8e1d60c3Q5";
const BASIC: &str = "Basic dXNlcjpwYXNzLTgzZDFlNnJ0bTJ4";
const PASSWORD: &str = "pass-83d1e6rtm2x";

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A server that answers with `status` and everything that it was sent, after `before` other characters.
async fn parrot(status: u16, before: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1?token={}", listener.local_addr().unwrap(), SECRETS[2]);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| async move {
                let mut said = "x".repeat(before);
                said.push_str(request.uri().query().unwrap_or_default());
                for value in request.headers().values() {
                    said.push_str(&format!(" {}", value.to_str().unwrap_or_default()));
                }
                let body = format!("{{\"error\": {{\"message\": \"{said}\", \"code\": \"{said}\"}}}}");
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
                Ok::<_, Infallible>(response)
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    url
}

#[tokio::test]
async fn no_key_is_printed() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let mut printed = String::new();
    let mut seen = 0;
    for provider in [Provider::OpenAiChat, Provider::Anthropic, Provider::Gemini] {
        for status in [200, 302, 400, 401, 402, 404, 413, 429, 500] {
            // The quotation ends within a secret, too.
            for before in [0, 100, 135, 145, 150, 155] {
                let profile = Profile {
                    provider,
                    api_key: Secret::new(SECRETS[0]),
                    headers: vec![("x-gateway".to_owned(), Secret::new(SECRETS[1]))],
                    attempts_max: 1,
                    ..common::profile(&parrot(status, before).await)
                };
                printed.push_str(&format!("{profile:?} {:?}", common::teacher(profile.clone())));
                match common::ask(profile).await {
                    Ok(reply) => panic!("{reply:?}"),
                    Err(error) => {
                        printed.push_str(&format!("{error} {error:?} {error:#?}"));
                        seen += usize::from(!matches!(error, TeacherError::Invalid(_)));
                    }
                }
            }
        }
    }
    let gone = common::profile("http://127.0.0.1:1/v1?token=query-c05b77");
    printed.push_str(&format!("{:?}", common::ask(Profile { attempts_max: 1, ..gone }).await));
    let wrong =
        Profile { api_key: Secret::new("key-4f7a9b2c\u{1}"), ..common::profile("http://127.0.0.1:1/v1") };
    printed.push_str(&format!("{:?}", common::ask(wrong).await));

    assert_eq!(seen, 3 * 9 * 6);
    let logged = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(logged.contains("TRACE"), "nothing was logged at trace level");
    for secret in SECRETS {
        // Also no beginning of one, which a cut could leave.
        let part = secret.split('-').nth(1).unwrap().get(..4).unwrap();
        for (place, text) in [("the log", &logged), ("an error", &printed)] {
            if let Some(at) = text.find(part) {
                let from = text.floor_char_boundary(at.saturating_sub(200));
                panic!("{secret} in {place}: {}", &text[from..at + part.len()]);
            }
        }
    }
}

/// A server that answers with `status` and `body`.
async fn sayer(status: u16, body: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let body = body.clone();
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let mut response = Response::new(Full::new(Bytes::from(body.clone())));
                *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap();
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    });
    url
}

/// `said` in every place from which something of a server is kept or shown.
fn bodies(said: &str) -> Vec<(u16, String)> {
    let error = |code: &str| {
        format!(
            "{{\"error\": {{\"message\": \"{said}\", \"code\": \"{code}\", \"param\": \"{said}\", \"type\": \"{said}\"}}}}"
        )
    };
    let answer = |finish: &str| {
        format!(
            "{{\"model\": \"{said}\", \"choices\": [{{\"text\": \"It is {said}.\", \"reasoning\": \"{said}\", \
             \"finish_reason\": \"{finish}\"}}]}}"
        )
    };
    // An escape cannot be split.
    let pieces = said.split_at(if said.contains('\\') { 0 } else { said.len() / 2 });
    let events = [pieces.0, pieces.1].map(|piece| {
        format!("data: {{\"choices\": [{{\"text\": \"{piece}\", \"finish_reason\": \"stop\"}}]}}\n\n")
    });
    vec![
        (200, answer("stop")),
        (200, answer(said)),
        (200, error("")),
        (200, format!("not JSON: {said}")),
        (200, format!("{}data: [DONE]\n\n", events.concat())),
        (400, error("")),
        (400, error("content_filter")),
        (400, format!("<html>{said}</html>")),
        (401, error("")),
        (429, error("insufficient_quota")),
        (503, error(said)),
    ]
}

#[tokio::test]
async fn no_key_is_kept_however_the_server_writes_it() {
    let percent = |text: &str| text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
    let unicode = |text: &str| text.bytes().map(|byte| format!("\\u{byte:04x}")).collect::<String>();
    let ways: Vec<(&str, String)> = vec![
        ("as it is", KEY.to_owned()),
        ("as a header", format!("Authorization: Bearer {KEY}; X-Gateway: {BASIC}")),
        ("percent-encoded", KEY.replace('+', "%2B").replace('/', "%2F")),
        ("percent-encoded as a whole", percent(KEY)),
        ("escaped", unicode(KEY)),
        ("split by an escape", KEY.replace("9b", "\\u0039b")),
        ("split by a line break", KEY.replace("9b", "9\\nb")),
        ("JSON within JSON", KEY.replace("9b", "\\\\u0039b").replace('/', "\\\\/")),
        ("a header in base64", BASIC.trim_start_matches("Basic ").to_owned()),
        ("a header decoded", format!("user:{PASSWORD}")),
        ("a password", PASSWORD.to_owned()),
    ];
    for (way, said) in ways {
        for (status, body) in bodies(&said) {
            let profile = Profile {
                api_key: Secret::new(KEY),
                headers: vec![("x-gateway".to_owned(), Secret::new(BASIC))],
                attempts_max: 1,
                ..common::profile(&sayer(status, body.clone()).await)
            };
            let kept = match common::ask(profile).await {
                Ok(reply) => format!("{} {} {}", reply.text, reply.thoughts, reply.model),
                Err(TeacherError::WrongRequest { failure, parameter }) => format!("{failure} {parameter:?}"),
                Err(error) => error.to_string(),
            };
            for part in ["4f7a", "4f7a9", "8e1d60", "83d1e6", "WDFl", "dXNlcjpw", "0034", "%34"] {
                assert!(!kept.contains(part), "{way}, {status} {body}: {kept}");
            }
        }
    }
}
