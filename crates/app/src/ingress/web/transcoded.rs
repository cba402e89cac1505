//! The API as its definitions say: JSON in, JSON out; a stream goes out line by line, or as events where the caller asks.

use super::answers::{EVENTS, json, stream, with_id};
use super::caller::Caller;
use super::failure::{self, Style};
use super::frames::Messages;
use bytes::Bytes;
use domain::Violation;
use futures::Stream;
use http::header::ACCEPT;
use http::{HeaderMap, Request, Response, StatusCode};
use std::convert::Infallible;
use std::sync::Arc;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use transcode::{Answer, Api, Found};

/// Answers a request whose path is one of the API.
pub(super) async fn answer<S>(api: &Arc<Api>, caller: Caller<S>, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (head, body) = request.into_parts();
    let (verb, place) = (head.method.as_str().to_owned(), head.uri.path().to_owned());
    let Found::Call(call) = api.find(&verb, &place) else { return failure::otherwise(&[]) };
    let (route, kept, query) = (call.route, Arc::clone(api), head.uri.query().unwrap_or_default().to_owned());
    let read = move |text: &[u8]| {
        let Found::Call(call) = kept.find(&verb, &place) else { return Ok(Vec::new()) };
        let read = call.messages(&query, text);
        read.map_err(|mistake| wire::invalid(vec![Violation::new(mistake.field, mistake.message)]))
    };
    let called = caller.call(&route.path(), &head, body, Box::new(read)).await;
    let (id, opened) = Messages::of(called);
    let answered = match opened {
        Ok(messages) if route.is_streamed() => {
            streamed(messages, Lines { answer: route.answer(), events: wants_events(&head.headers) }).await
        }
        Ok(messages) => messages
            .one()
            .await
            .and_then(|message| Ok(json(StatusCode::OK, written(&route.answer(), &message)?))),
        Err(status) => Err(status),
    };
    with_id(answered.unwrap_or_else(|status| failure::response(&status, Style::Status)), id)
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|text| text.contains(EVENTS))
}

fn written(answer: &Answer, message: &[u8]) -> Result<Vec<u8>, Status> {
    answer.json(message).map_err(|mistake| wire::status(domain::Fault::Internal, mistake.to_string()))
}

/// How the messages of a stream are written.
struct Lines {
    answer: Answer,
    events: bool,
}

impl Lines {
    fn line(&self, message: Result<Bytes, Status>) -> (Vec<u8>, bool) {
        let written = message.and_then(|message| written(&self.answer, &message));
        match (written, self.events) {
            (Ok(text), false) => ([&text[..], b"\n"].concat(), true),
            (Ok(text), true) => ([b"data: ", &text[..], b"\n\n"].concat(), true),
            (Err(status), false) => {
                let error = serde_json::json!({"error": failure::body(&status, Style::Status)});
                (format!("{error}\n").into_bytes(), false)
            }
            (Err(status), true) => {
                let error = failure::body(&status, Style::Status);
                (format!("event: error\ndata: {error}\n\n").into_bytes(), false)
            }
        }
    }
}

/// The messages one by one. What fails before the first is told by the code of HTTP, later by a last line.
async fn streamed(mut messages: Messages, lines: Lines) -> Result<Response<Body>, Status> {
    let first = messages.next().await?;
    let kind = if lines.events { EVENTS } else { "application/x-ndjson" };
    let rest = rest(messages, lines, first);
    Ok(stream(kind, rest))
}

fn rest(messages: Messages, lines: Lines, first: Option<Bytes>) -> impl Stream<Item = Vec<u8>> + Send {
    let begin = first.map(|first| (messages, lines, Some(first)));
    futures::stream::unfold(begin, |state| async move {
        let (mut messages, lines, first) = state?;
        let message = match first {
            Some(first) => Ok(first),
            None => match messages.next().await {
                Ok(message) => Ok(message?),
                Err(status) => Err(status),
            },
        };
        let (line, goes_on) = lines.line(message);
        Some((line, goes_on.then_some((messages, lines, None))))
    })
}
