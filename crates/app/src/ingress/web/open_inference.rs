//! The Open Inference Protocol, version 2, over REST
//! (<https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md>): the calls of its
//! service of gRPC, and their answers. Tensors are JSON, or bytes behind it (the extension for binary data), as the caller
//! sends and asks.

use super::answers::{json, with_id};
use super::caller::Caller;
use super::failure::{self, Style};
use super::frames::Messages;
use super::reading::Read;
use bytes::Bytes;
use domain::{Fault, Violation};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use wire::Message;
use wire::open_inference as v2;
use wire::open_inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use wire::open_inference::model_infer_response::InferOutputTensor;

/// Bytes of the JSON, where tensors follow it.
const HEADER_BYTES: &str = "inference-header-content-length";
const TEXT: &str = "BYTES";

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Live,
    Ready,
    Server,
    Model { name: String, version: String },
    ModelReady { name: String, version: String },
    Infer { name: String, version: String },
}

/// What a path of the protocol asks; `None` for another path.
pub(super) fn find(verb: &Method, path: &str) -> Option<Asked> {
    let parts: Vec<&str> = path.strip_prefix("/v2")?.split('/').skip(1).collect();
    let get = matches!(*verb, Method::GET | Method::HEAD);
    let post = *verb == Method::POST;
    let (name, version, rest) = match parts.as_slice() {
        [] | [""] if get && matches!(path, "/v2" | "/v2/") => return Some(Asked::Server),
        ["health", "live"] if get => return Some(Asked::Live),
        ["health", "ready"] if get => return Some(Asked::Ready),
        ["models", name, "versions", version, rest @ ..] => (*name, *version, rest),
        ["models", name, rest @ ..] => (*name, "", rest),
        _ => return None,
    };
    let (name, version) = (name.to_owned(), version.to_owned());
    match rest {
        [] if get => Some(Asked::Model { name, version }),
        ["ready"] if get => Some(Asked::ModelReady { name, version }),
        ["infer"] if post => Some(Asked::Infer { name, version }),
        _ => None,
    }
}

/// Answers a request of the protocol.
pub(super) async fn answer<S>(asked: Asked, caller: Caller<S>, request: Request<Body>) -> Response<Body>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let (head, body) = request.into_parts();
    let wanted = Arc::new(OnceLock::new());
    let (method, read): (&str, Read) = match asked.clone() {
        Asked::Live => ("ServerLive", whole(v2::ServerLiveRequest {})),
        Asked::Ready => ("ServerReady", whole(v2::ServerReadyRequest {})),
        Asked::Server => ("ServerMetadata", whole(v2::ServerMetadataRequest {})),
        Asked::Model { name, version } => {
            ("ModelMetadata", whole(v2::ModelMetadataRequest { name, version }))
        }
        Asked::ModelReady { name, version } => ("ModelReady", whole(v2::ModelReadyRequest { name, version })),
        Asked::Infer { name, version } => {
            let (wanted, length) = (Arc::clone(&wanted), json_bytes(&head.headers));
            let read = move |text: &[u8]| {
                let (message, wants) = infer_request(name, version, text, length?).map_err(wire::invalid)?;
                let _ = wanted.set(wants);
                Ok(vec![message.encode_to_vec()])
            };
            ("ModelInfer", Box::new(read))
        }
    };
    let path = format!("/inference.GRPCInferenceService/{method}");
    let (id, opened) = Messages::of(caller.call(&path, &head, body, read).await);
    let answered = match opened {
        Ok(messages) => messages.one().await.and_then(|message| written(&asked, &message, wanted.get())),
        Err(status) => Err(status),
    };
    with_id(answered.unwrap_or_else(|status| failure::response(&status, Style::OpenInference)), id)
}

/// One message, whatever the body is.
fn whole(message: impl Message + 'static) -> Read {
    let bytes = message.encode_to_vec();
    Box::new(move |_| Ok(vec![bytes]))
}

fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Status> {
    let Some(value) = headers.get(HEADER_BYTES) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length
        .map(Some)
        .ok_or_else(|| Status::invalid_argument(format!("{HEADER_BYTES} is not a number of bytes")))
}

#[derive(Deserialize)]
struct Infer {
    #[serde(default)]
    id: String,
    #[serde(default)]
    parameters: Parameters,
    inputs: Vec<Input>,
    #[serde(default)]
    outputs: Vec<Output>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters {
    binary_data_size: Option<usize>,
    binary_data: Option<bool>,
    binary_data_output: Option<bool>,
}

#[derive(Deserialize)]
struct Input {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Parameters,
    data: Option<Value>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Parameters,
}

/// Which outputs the caller wants as bytes.
#[derive(Debug, Default)]
struct Wants {
    all: bool,
    named: Vec<(String, Option<bool>)>,
}

impl Wants {
    fn binary(&self, output: &str) -> bool {
        let named = self.named.iter().find(|(name, _)| name == output).and_then(|(_, binary)| *binary);
        named.unwrap_or(self.all)
    }
}

fn infer_request(
    name: String,
    version: String,
    text: &[u8],
    json_bytes: Option<usize>,
) -> Result<(v2::ModelInferRequest, Wants), Vec<Violation>> {
    let wrong = |field: &str, words: String| vec![Violation::new(field, words)];
    let (text, mut raw) = text
        .split_at_checked(json_bytes.unwrap_or(text.len()))
        .ok_or_else(|| wrong("body", format!("is shorter than {HEADER_BYTES} says")))?;
    let read: Infer = serde_json::from_slice(text).map_err(|error| wrong("body", error.to_string()))?;
    let mut inputs = Vec::with_capacity(read.inputs.len());
    for input in read.inputs {
        let field = format!("inputs.{}", input.name);
        let mut elements = Vec::new();
        match (input.parameters.binary_data_size, input.data) {
            (Some(size), None) => {
                let (own, rest) = raw.split_at_checked(size).ok_or_else(|| {
                    wrong(&field, format!("binary_data_size is {size}, and {} bytes are left", raw.len()))
                })?;
                raw = rest;
                elements = texts(own)
                    .ok_or_else(|| wrong(&field, "its bytes are no texts with their lengths".to_owned()))?;
            }
            (None, Some(data)) => {
                flatten(data, &mut elements).map_err(|words| wrong(&field, words.to_owned()))?
            }
            (None, None) => return Err(wrong(&field, "has no data".to_owned())),
            (Some(_), Some(_)) => {
                return Err(wrong(&field, "has its data twice: as JSON and as bytes".to_owned()));
            }
        }
        inputs.push(InferInputTensor {
            name: input.name,
            datatype: input.datatype,
            shape: input.shape,
            contents: Some(v2::InferTensorContents { bytes_contents: elements, ..Default::default() }),
            ..Default::default()
        });
    }
    let outputs = read
        .outputs
        .iter()
        .map(|output| InferRequestedOutputTensor { name: output.name.clone(), ..Default::default() });
    let request = v2::ModelInferRequest {
        model_name: name,
        model_version: version,
        id: read.id,
        inputs,
        outputs: outputs.collect(),
        ..Default::default()
    };
    let all = read.parameters.binary_data_output.unwrap_or(false);
    let named = read.outputs.into_iter().map(|output| (output.name, output.parameters.binary_data)).collect();
    Ok((request, Wants { all, named }))
}

/// The texts of a tensor, in the order of its elements, however its rows are nested.
fn flatten(data: Value, into: &mut Vec<Vec<u8>>) -> Result<(), &'static str> {
    match data {
        Value::String(text) => into.push(text.into_bytes()),
        Value::Array(items) => items.into_iter().try_for_each(|item| flatten(item, into))?,
        _ => return Err("holds what is no text: students read BYTES"),
    }
    Ok(())
}

/// Texts, each behind its length in four bytes.
fn texts(mut bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (text, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        found.push(text.to_vec());
        bytes = rest;
    }
    Some(found)
}

fn decoded<M: Message + Default>(message: &Bytes) -> Result<M, Status> {
    M::decode(message.clone()).map_err(|error| wire::status(Fault::Internal, error.to_string()))
}

fn written(asked: &Asked, message: &Bytes, wanted: Option<&Wants>) -> Result<Response<Body>, Status> {
    let ready = |is: bool| if is { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let said = |code: StatusCode, value: Value| Ok(json(code, value.to_string()));
    match asked {
        Asked::Live => {
            let live = decoded::<v2::ServerLiveResponse>(message)?.live;
            said(ready(live), json!({"live": live}))
        }
        Asked::Ready => {
            let is_ready = decoded::<v2::ServerReadyResponse>(message)?.ready;
            said(ready(is_ready), json!({"ready": is_ready}))
        }
        Asked::ModelReady { name, .. } => {
            let is_ready = decoded::<v2::ModelReadyResponse>(message)?.ready;
            said(ready(is_ready), json!({"name": name, "ready": is_ready}))
        }
        Asked::Server => {
            let server: v2::ServerMetadataResponse = decoded(message)?;
            let mut extensions = server.extensions;
            extensions.push("binary_tensor_data".to_owned());
            said(
                StatusCode::OK,
                json!({"name": server.name, "version": server.version, "extensions": extensions}),
            )
        }
        Asked::Model { .. } => {
            let model: v2::ModelMetadataResponse = decoded(message)?;
            let tensors = |list: Vec<v2::model_metadata_response::TensorMetadata>| -> Vec<Value> {
                let of = |tensor: v2::model_metadata_response::TensorMetadata| json!({"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape});
                list.into_iter().map(of).collect()
            };
            let (inputs, outputs) = (tensors(model.inputs), tensors(model.outputs));
            let value = json!({"name": model.name, "versions": model.versions, "platform": model.platform,
                "inputs": inputs, "outputs": outputs});
            said(StatusCode::OK, value)
        }
        Asked::Infer { .. } => inferred(decoded(message)?, wanted.unwrap_or(&Wants::default())),
    }
}

fn inferred(answer: v2::ModelInferResponse, wanted: &Wants) -> Result<Response<Body>, Status> {
    let (mut outputs, mut raw) = (Vec::new(), Vec::new());
    for output in answer.outputs {
        let mut value = json!({"name": output.name, "datatype": output.datatype, "shape": output.shape});
        let (key, entry) = if wanted.binary(&output.name) {
            let bytes = as_bytes(output);
            let size = bytes.len();
            raw.extend(bytes);
            ("parameters", json!({"binary_data_size": size}))
        } else {
            ("data", as_json(output)?)
        };
        if let Some(value) = value.as_object_mut() {
            value.insert(key.to_owned(), entry);
        }
        outputs.push(value);
    }
    let mut value =
        json!({"model_name": answer.model_name, "model_version": answer.model_version, "outputs": outputs});
    if let Some(value) = value.as_object_mut().filter(|_| !answer.id.is_empty()) {
        value.insert("id".to_owned(), answer.id.into());
    }
    let text = value.to_string();
    if raw.is_empty() {
        return Ok(json(StatusCode::OK, text));
    }
    let length = HeaderValue::from(text.len());
    let mut response = json(StatusCode::OK, [text.into_bytes(), raw].concat());
    response.headers_mut().insert(HEADER_BYTES, length);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    Ok(response)
}

fn as_json(output: InferOutputTensor) -> Result<Value, Status> {
    let contents = output.contents.unwrap_or_default();
    if output.datatype != TEXT {
        return Ok(json!(contents.fp64_contents));
    }
    let texts = contents.bytes_contents.into_iter().map(String::from_utf8);
    let texts: Result<Vec<String>, _> = texts.collect();
    texts.map(Value::from).map_err(|error| wire::status(Fault::Internal, error.to_string()))
}

fn as_bytes(output: InferOutputTensor) -> Vec<u8> {
    let contents = output.contents.unwrap_or_default();
    if output.datatype != TEXT {
        return contents.fp64_contents.into_iter().flat_map(f64::to_le_bytes).collect();
    }
    let mut bytes = Vec::new();
    for text in contents.bytes_contents {
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&text);
    }
    bytes
}
