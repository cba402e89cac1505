//! Calls that no generated client would make: any body to any method, and what a server says that it serves.

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::http::HeaderMap;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// No call takes longer; its deadline is a third of it.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// Most files of a server's reflection.
const FILES_MAX: usize = 200;
/// Bytes of a message that are sent at once.
const PART_BYTES: usize = 64 * 1024;
/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// `/package.Service/Method`.
pub fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Messages as the body of a call.
pub fn framed(messages: &[Vec<u8>]) -> Vec<u8> {
    let mut body = Vec::new();
    for message in messages {
        body.push(0);
        body.extend(u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend(message);
    }
    body
}

/// The messages in the body of an answer.
fn unframed(mut body: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some((prefix, rest)) = body.split_first_chunk::<PREFIX_BYTES>() {
        let [_, length @ ..] = *prefix;
        let Some((message, rest)) = rest.split_at_checked(u32::from_be_bytes(length) as usize) else { break };
        messages.push(message.to_vec());
        body = rest;
    }
    messages
}

/// Sends `body` to the method at `path` with these headers added, and returns at most `answers` messages.
///
/// # Errors
/// The status that the server ended the call with; DATA_LOSS where there is none, or no end.
pub async fn send(
    channel: &Channel,
    path: &str,
    headers: &[(&'static str, &'static str)],
    body: Vec<u8>,
    answers: usize,
) -> Result<Vec<Vec<u8>>, Status> {
    let mut request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.header("grpc-timeout", format!("{}S", PATIENCE.as_secs() / 3));
    let request = request.body(Body::new(Full::new(Bytes::from(body)))).map_err(ended_badly)?;
    let exchange = exchange(channel.clone(), request, answers);
    tokio::time::timeout(PATIENCE, exchange).await.map_err(ended_badly)?
}

/// Begins a call with all of the longest message but its last byte, and waits for its answer.
pub async fn begin_longest(mut channel: Channel, path: String, bytes: usize) -> Option<Status> {
    let prefix = [&[0][..], &u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()].concat();
    let part = Bytes::from(vec![0x5a; PART_BYTES]);
    let parts = (0..bytes.div_ceil(PART_BYTES)).map(move |number| {
        let left = bytes - 1 - number * PART_BYTES;
        part.slice(..left.min(PART_BYTES))
    });
    let frames =
        std::iter::once(Bytes::from(prefix)).chain(parts).map(|data| Ok::<_, Status>(Frame::data(data)));
    let body = StreamBody::new(stream::iter(frames).chain(stream::pending()));
    let request = Request::post(path).header("content-type", "application/grpc").header("te", "trailers");
    let ready = std::future::poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context));
    ready.await.ok()?;
    let answer = channel.call(request.body(Body::new(body)).ok()?).await.ok()?;
    Status::from_header_map(answer.headers())
}

async fn exchange(
    mut channel: Channel,
    request: Request<Body>,
    answers: usize,
) -> Result<Vec<Vec<u8>>, Status> {
    let ready = std::future::poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context));
    ready.await.map_err(ended_badly)?;
    let (head, mut body) = channel.call(request).await.map_err(ended_badly)?.into_parts();
    ended(&head.headers)?;
    let mut received = Vec::new();
    while unframed(&received).len() < answers {
        let Some(frame) = body.frame().await else { break };
        let frame = frame.map_err(ended_badly)?;
        match frame.into_data() {
            Ok(data) => received.extend(data),
            Err(frame) => {
                let trailers = frame.into_trailers().map_err(|_| ended_badly("no trailers"))?;
                ended(&trailers)?;
            }
        }
    }
    Ok(unframed(&received))
}

/// The status in these headers, where there is one that is not OK.
fn ended(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

/// A call that did not end as calls do: the connection broke, the stream was reset, no end came. Its code is DATA_LOSS, which
/// no server here sends.
fn ended_badly(why: impl std::fmt::Debug) -> Status {
    Status::data_loss(format!("{why:?}"))
}

/// Every method that the server behind `channel` says it serves, with its messages.
///
/// # Errors
/// It has no reflection, or names a file that it does not have.
pub async fn served(channel: &Channel) -> anyhow::Result<Vec<MethodDescriptor>> {
    let list = reflect(channel, MessageRequest::ListServices(String::new())).await?;
    let MessageResponse::ListServicesResponse(list) = list else { bail!("no list of services: {list:?}") };
    let mut pool = DescriptorPool::new();
    let mut methods = Vec::new();
    for service in list.service {
        add(channel, &mut pool, MessageRequest::FileContainingSymbol(service.name.clone())).await?;
        let service = pool.get_service_by_name(&service.name).context(service.name)?;
        methods.extend(service.methods());
    }
    Ok(methods)
}

/// Adds the file of `wanted`, and those that it imports.
async fn add(channel: &Channel, pool: &mut DescriptorPool, wanted: MessageRequest) -> anyhow::Result<()> {
    let (mut wanted, mut found, mut asked) = (vec![wanted], Vec::new(), BTreeSet::new());
    while let Some(next) = wanted.pop() {
        let MessageResponse::FileDescriptorResponse(files) = reflect(channel, next.clone()).await? else {
            bail!("no file for {next:?}");
        };
        for bytes in files.file_descriptor_proto {
            let file = FileDescriptorProto::decode(bytes.as_slice())?;
            let imports = file.dependency.iter().filter(|name| asked.insert((*name).clone()));
            wanted.extend(imports.map(|name| MessageRequest::FileByFilename(name.clone())));
            found.push(file);
        }
        ensure!(found.len() < FILES_MAX, "more than {FILES_MAX} files");
    }
    Ok(pool.add_file_descriptor_protos(found)?)
}

async fn reflect(channel: &Channel, request: MessageRequest) -> anyhow::Result<MessageResponse> {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let mut client = ServerReflectionClient::new(channel.clone());
    let answers = client.server_reflection_info(tokio_stream::once(request)).await?;
    let answer = answers.into_inner().message().await?.context("no answer of the reflection")?;
    answer.message_response.context("an empty answer of the reflection")
}
