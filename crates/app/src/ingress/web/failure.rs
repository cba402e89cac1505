//! Statuses of gRPC as answers of HTTP: the code as `google/rpc/code.proto` maps it, and `google.rpc.Status` as JSON, or the
//! form that the caller's protocol has for it.

use super::answers::{json, with_id};
use super::frames::Messages;
use http::header::{ALLOW, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// How a failure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `google.rpc.Status`.
    Status,
    /// The Open Inference Protocol's.
    OpenInference,
    /// OpenAI's.
    OpenAi,
}

/// The answer that says why a call failed.
pub(super) fn response(status: &Status, style: Style) -> Response<Body> {
    let code = http_code(status.code());
    let mut response = json(code, body(status, style).to_string());
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    if status.code() == Code::ResourceExhausted {
        let after = retry.unwrap_or(Duration::from_secs(1));
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if code == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The JSON that says why a call failed.
pub(super) fn body(status: &Status, style: Style) -> Value {
    match style {
        Style::Status => {
            let code = i32::from(status.code());
            serde_json::json!({"code": code, "message": status.message(), "details": details(status)})
        }
        Style::OpenInference => serde_json::json!({"error": status.message()}),
        Style::OpenAi => {
            let kind = match status.code() {
                Code::ResourceExhausted => "rate_limit_error",
                Code::Unauthenticated => "authentication_error",
                Code::PermissionDenied => "permission_error",
                Code::NotFound => "not_found_error",
                _ if http_code(status.code()).is_client_error() => "invalid_request_error",
                _ => "server_error",
            };
            let field = wire::violations_of(status).into_iter().next().map(|violation| violation.field);
            serde_json::json!({"error": {"message": status.message(), "type": kind, "param": field, "code": Value::Null}})
        }
    }
}

fn details(status: &Status) -> Vec<Value> {
    let mut found = Vec::new();
    let violations = wire::violations_of(status);
    if !violations.is_empty() {
        let list: Vec<Value> = violations
            .into_iter()
            .map(|violation| serde_json::json!({"field": violation.field, "description": violation.message}))
            .collect();
        found.push(serde_json::json!({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": list}));
    }
    if let Some(delay) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        let delay = format!("{}s", delay.as_secs_f64());
        found.push(
            serde_json::json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}),
        );
    }
    found
}

/// What the guard says to a path that there is not: who may call hears that it is not there.
pub(super) fn nothing(called: Response<Body>, path: &str) -> Response<Body> {
    let (id, opened) = Messages::of(called);
    let status = match opened {
        Err(status) if status.code() != Code::Unimplemented => status,
        _ => Status::not_found(format!("there is no path `{path}` here: GET /openapi.json lists them")),
    };
    with_id(response(&status, Style::Status), id)
}

/// What a path says to a method of HTTP that it does not take.
pub(super) fn otherwise(verbs: &[&str]) -> Response<Body> {
    let list = verbs.join(", ");
    let status = Status::unimplemented(format!("this path takes {list}"));
    let mut response = response(&status, Style::Status);
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    if let Ok(list) = HeaderValue::from_str(&list) {
        response.headers_mut().insert(ALLOW, list);
    }
    response
}

fn http_code(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        // The caller left: nobody reads it.
        Code::Cancelled => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
