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
