//! A teacher's server, and a profile that asks it.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test program uses a part of it"
)]

use bytes::Bytes;
use domain::Secret;
use embedded::MemoryRateLimiter;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use teacher::{Prices, Profile, Provider, Question, Reply, Sampling, Teacher, TeacherError, Unmetered};
use tokio::net::TcpListener;

/// One answer: status, headers, body.
pub type Answer = (u16, &'static [(&'static str, &'static str)], Vec<u8>);

/// Serves `answers` one after another, the last one again and again; counts the requests.
pub async fn server(answers: Vec<Answer>) -> (String, Arc<AtomicUsize>) {
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

pub fn profile(url: &str) -> Profile {
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

pub fn question() -> Question {
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

pub async fn ask(profile: Profile) -> Result<Reply, TeacherError> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Teacher::new(profile, Arc::new(MemoryRateLimiter::default()))?.ask(question(), Arc::new(Unmetered)).await
}

pub fn teacher(profile: Profile) -> Teacher {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Teacher::new(profile, Arc::new(MemoryRateLimiter::default())).unwrap()
}
