//! A teacher with limits of its own: it counts the requests of the last minute, refused ones included, as strict servers do.

#![allow(dead_code, reason = "each program that uses it needs a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// How the server treats a request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Requests in any window of this length, and how long an answer takes.
    pub(crate) limit: Option<usize>,
    pub(crate) window: Duration,
    pub(crate) latency: Duration,
    /// The status of every answer until this much time has passed.
    pub(crate) refuses: Option<(u16, Duration)>,
    pub(crate) retry_after: Option<&'static str>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            limit: None,
            window: Duration::from_secs(60),
            latency: Duration::from_millis(20),
            refuses: None,
            retry_after: None,
        }
    }
}

/// A request as the server saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) status: u16,
}

#[derive(Debug, Default)]
struct State {
    window: VecDeque<Instant>,
    seen: Vec<Seen>,
    in_flight: usize,
    most_in_flight: usize,
}

/// The server; it ends with the runtime.
#[derive(Clone)]
pub(crate) struct LimitedTeacher {
    pub(crate) url: String,
    rules: Arc<Mutex<Rules>>,
    state: Arc<Mutex<State>>,
    began: Instant,
}

impl LimitedTeacher {
    pub(crate) async fn start(rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            url: format!("http://{}/v1", listener.local_addr().unwrap()),
            rules: Arc::new(Mutex::new(rules)),
            state: Arc::default(),
            began: Instant::now(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |_| serving.clone().answer());
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        server
    }

    /// Every request until now.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn statuses(&self, status: u16) -> usize {
        self.seen().iter().filter(|seen| seen.status == status).count()
    }

    pub(crate) fn most_in_flight(&self) -> usize {
        self.state.lock().unwrap().most_in_flight
    }

    /// The most requests in any window of this length.
    pub(crate) fn most_in(&self, window: Duration) -> usize {
        let seen = self.seen();
        let mut first = 0;
        let mut most = 0;
        for (last, request) in seen.iter().enumerate() {
            while seen.get(first).is_some_and(|early| early.at + window <= request.at) {
                first += 1;
            }
            most = most.max(last + 1 - first);
        }
        most
    }

    async fn answer(self) -> Result<Response<Full<Bytes>>, Infallible> {
        let rules = *self.rules.lock().unwrap();
        let status = self.take(&rules);
        if status == 200 {
            tokio::time::sleep(rules.latency).await;
        }
        self.state.lock().unwrap().in_flight -= 1;
        let body = match status {
            200 => {
                r#"{"choices": [{"text": "two", "finish_reason": "stop"}], "usage": {"prompt_tokens": 5, "completion_tokens": 5}}"#
            }
            _ => "slow down",
        };
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let (true, Some(wait)) = (status != 200, rules.retry_after) {
            response.headers_mut().insert("retry-after", wait.parse().unwrap());
        }
        Ok(response)
    }

    fn take(&self, rules: &Rules) -> u16 {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        while state.window.front().is_some_and(|early| *early + rules.window <= now) {
            state.window.pop_front();
        }
        state.window.push_back(now);
        let over = rules.limit.is_some_and(|limit| state.window.len() > limit);
        let refused = rules.refuses.filter(|(_, lasts)| self.began.elapsed() < *lasts);
        let status = match refused {
            Some((status, _)) => status,
            None if over => 429,
            None => 200,
        };
        state.seen.push(Seen { at: now, status });
        state.in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.in_flight);
        status
    }
}
