//! The ingress over real TCP: TLS, tokens, roles, deadlines, limits, and its closing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod common;

use app::config::Config;
use app::serve::Roles;
use common::{HARVESTER, PATIENCE, Server, add_token, call};
use domain::Fault;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_stream::StreamExt;
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use wire::Channel;
use wire::v1;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;

const INFERENCE: Roles = Roles { harvester: false, trainer: false, inference: true };
const LIST_MODELS: &str = "/distillery.v1.ModelsService/ListModels";

/// An authority, and what it signed.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, folder }
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// A certificate for `host` and its key, as files.
    fn sign(&self, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (self.folder.join(format!("{host}.pem")), self.folder.join(format!("{host}.key")));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }
}

fn show_certificate(config: &mut Config, folder: &TempDir) -> Authority {
    let authority = Authority::new(folder.path(), "authority");
    (config.server.tls_certificate, config.server.tls_key) = authority.sign("127.0.0.1");
    authority
}

async fn list_models(channel: &Channel) -> Result<(), Status> {
    call(channel, LIST_MODELS, vec![Vec::new()], 1).await.map(drop)
}

async fn health(channel: &Channel, service: &str) -> Result<ServingStatus, Status> {
    let request = HealthCheckRequest { service: service.to_owned() };
    Ok(HealthClient::new(channel.clone()).check(request).await?.into_inner().status())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_to_those_who_trust_the_certificate() {
    let mut ca = PathBuf::new();
    let mut other = PathBuf::new();
    let server = Server::start(HARVESTER, |config, folder| {
        ca = show_certificate(config, folder).ca();
        other = Authority::new(folder.path(), "other").ca();
    })
    .await;
    assert!(server.url.starts_with("https://127.0.0.1:"), "{}", server.url);
    list_models(&server.channel(|client| client.ca = ca.clone()).await.unwrap()).await.unwrap();
    let stranger = server.channel(|client| client.ca = other.clone()).await.unwrap_err().to_string();
    assert!(stranger.contains("certificate") && stranger.contains("--ca, client.ca"), "{stranger}");
    // Plain text at the same port gets no answer, and does not disturb the others.
    let plain = server.url.replace("https", "http");
    let mut stream = tokio::net::TcpStream::connect(plain.trim_start_matches("http://")).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let read =
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("it was kept open");
    // At most a TLS alert: never the settings that HTTP/2 begins with.
    assert!(read.is_err() || answer.first().is_none_or(|kind| *kind == 21), "{answer:?}");
    if let Ok(channel) = server.channel_to(&plain, |_| {}).await {
        let status = list_models(&channel).await.unwrap_err();
        let words = app::client::unanswered(&status).unwrap_or_default();
        assert!(words.contains("If it has TLS, write https://"), "{words}: {status:?}");
    }
    list_models(&server.channel(|client| client.ca = ca.clone()).await.unwrap()).await.unwrap();
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_asks_for_a_certificate_of_the_right_authority() {
    let mut ca = PathBuf::new();
    let mut right = (PathBuf::new(), PathBuf::new());
    let mut wrong = (PathBuf::new(), PathBuf::new());
    let server = Server::start(HARVESTER, |config, folder| {
        ca = show_certificate(config, folder).ca();
        let callers = Authority::new(folder.path(), "callers");
        config.server.tls_client_ca = callers.ca();
        right = callers.sign("trainer");
        wrong = Authority::new(folder.path(), "others").sign("trainer");
    })
    .await;
    let reach = async |certificate: Option<(PathBuf, PathBuf)>| {
        let channel = server
            .channel(|client| {
                client.ca = ca.clone();
                (client.certificate, client.key) = certificate.unwrap_or_default();
            })
            .await?;
        // With TLS 1.3 the client learns only after its handshake that it was not wanted.
        list_models(&channel)
            .await
            .map_err(|status| anyhow::anyhow!("{}", app::client::unanswered(&status).unwrap_or_default()))
    };
    reach(Some(right)).await.unwrap();
    let without = reach(None).await.expect_err("let in without a certificate").to_string();
    assert!(without.contains("client.certificate and client.key"), "{without}");
    let stranger = reach(Some(wrong)).await.expect_err("let in with a stranger's certificate").to_string();
    assert_ne!(stranger, "transport error");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_asked_for_and_probes_carry_none() {
    let mut read = PathBuf::new();
    let mut old = PathBuf::new();
    let server = Server::start(HARVESTER, |config, folder| {
        read = add_token(config, folder, "read", "");
        old = add_token(config, folder, "operate", "2020-01-01T00:00:00Z");
    })
    .await;
    let wrong = server.folder.path().join("wrong");
    std::fs::write(&wrong, "another-secret-altogether").unwrap();
    let code = async |file: &Path, path: &str| {
        let channel = server.channel(|client| client.token_file = file.to_owned()).await.unwrap();
        call(&channel, path, vec![Vec::new()], 1).await.err().map(|status| status.code())
    };
    let none = Path::new("");
    assert_eq!(code(&read, LIST_MODELS).await, None);
    assert_eq!(code(none, LIST_MODELS).await, Some(Code::Unauthenticated));
    assert_eq!(code(&wrong, LIST_MODELS).await, Some(Code::Unauthenticated));
    assert_eq!(code(&old, LIST_MODELS).await, Some(Code::Unauthenticated));
    assert_eq!(code(&read, "/distillery.v1.RunsService/LeaseRun").await, Some(Code::PermissionDenied));
    assert_eq!(code(none, "/grpc.health.v1.Health/Check").await, None);
    // What nobody serves is told to those alone who may ask.
    assert_eq!(code(none, "/distillery.v1.ModelsService/Invented").await, Some(Code::Unauthenticated));
    assert_eq!(code(&read, "/distillery.v1.ModelsService/Invented").await, Some(Code::Unimplemented));
    server.stop().await.unwrap();
}

/// Who may call a method, by its name and without the table of the ingress.
fn allowed(role: &str, path: &str) -> bool {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap();
    let looks = ["Get", "List", "Watch", "Stream", "Predict", "Explain", "Generate", "Judge"];
    let submits = ["Create", "Upload", "Commit", "Submit", "Estimate", "Cancel", "Resume", "Forget", "Retry"];
    let operates = ["Delete", "Register"];
    // The probes of the Open Inference Protocol, and what it says of the server itself.
    match method {
        "ServerLive" | "ServerReady" => return true,
        "ServerMetadata" => return !role.is_empty(),
        _ => {}
    }
    let looks = [&looks[..], &["Model"]].concat();
    let is = |words: &[&str]| words.iter().any(|word| method.starts_with(word));
    // Who submits jobs creates further runs over their ledgers; carrying runs out is a worker's.
    let of_a_run = service == "distillery.v1.RunsService" && !is(&["Get", "List", "Create"]);
    match role {
        "worker" => of_a_run || method == "WatchModels",
        _ if of_a_run => false,
        "read" => is(&looks),
        "submit" => is(&looks) || is(&submits),
        "operate" => is(&looks) || is(&submits) || is(&operates),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_call_what_it_is_for_and_nothing_else() {
    const ROLES: [&str; 5] = ["read", "submit", "operate", "worker", ""];
    let server = Server::start(HARVESTER, |config, folder| {
        for role in ROLES.iter().filter(|role| !role.is_empty()) {
            add_token(config, folder, role, "");
        }
    })
    .await;
    let paths = common::paths();
    assert!(paths.len() > 30, "{paths:?}");
    for role in ROLES {
        let file =
            if role.is_empty() { PathBuf::new() } else { server.folder.path().join(format!("token-{role}")) };
        let channel = server.channel(|client| client.token_file = file).await.unwrap();
        for path in &paths {
            let code = call(&channel, path, vec![Vec::new()], 1)
                .await
                .map_or_else(|status| status.code(), |_| Code::Ok);
            let refused = if role.is_empty() { Code::Unauthenticated } else { Code::PermissionDenied };
            assert_eq!(code != refused, allowed(role, path), "`{role}` at {path}: {code:?}");
        }
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_told_of_the_whole_and_of_every_service() {
    let server = Server::start(HARVESTER, |_, _| {}).await;
    let channel = server.channel(|_| {}).await.unwrap();
    for service in ["", "distillery.v1.DatasetsService", "distillery.v1.RunsService"] {
        assert_eq!(health(&channel, service).await.unwrap(), ServingStatus::Serving, "{service}");
    }
    let unknown = health(&channel, "distillery.v1.InferenceService").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_lists_what_is_served_here() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
    let server = Server::start(HARVESTER, |_, _| {}).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let ask = async |request: MessageRequest| -> MessageResponse {
        let request = ServerReflectionRequest { host: String::new(), message_request: Some(request) };
        let mut client = ServerReflectionClient::new(channel.clone());
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
        let answers: Vec<ServerReflectionResponse> = answers.collect::<Result<_, _>>().await.unwrap();
        answers.into_iter().next().unwrap().message_response.unwrap()
    };
    let MessageResponse::ListServicesResponse(list) = ask(MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let mut names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let wanted = [
        "distillery.v1.DatasetsService",
        "distillery.v1.DistillationsService",
        "distillery.v1.ModelsService",
        "distillery.v1.RationalesService",
        "distillery.v1.RunsService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ];
    assert_eq!(names, wanted);
    let symbol = MessageRequest::FileContainingSymbol("distillery.v1.DatasetsService".to_owned());
    assert!(matches!(ask(symbol).await, MessageResponse::FileDescriptorResponse(_)));
    server.stop().await.unwrap();
}

/// One exchange without a client's own notion of deadlines: the status that the server sent, before or after its body.
async fn exchange(
    url: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
    ends: bool,
) -> (i32, String) {
    use http_body_util::{BodyExt, StreamBody};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let stream = tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let first = tokio_stream::once(Ok::<_, std::io::Error>(http_body::Frame::data(bytes::Bytes::from(body))));
    let rest = tokio_stream::pending();
    let body = if ends {
        StreamBody::new(first.boxed_frames())
    } else {
        StreamBody::new(first.chain(rest).boxed_frames())
    };
    let mut request = http::Request::post(format!("{url}{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let exchanged = async {
        let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let headers = response.headers().clone();
        let trailers = response.into_body().collect().await.unwrap().trailers().cloned().unwrap_or_default();
        let find = |name: &str| {
            let value = headers.get(name).or(trailers.get(name));
            value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
        };
        (find("grpc-status").parse().unwrap_or(-1), find("x-request-id"))
    };
    tokio::time::timeout(PATIENCE, exchanged).await.expect("the exchange did not end")
}

type Frames = std::pin::Pin<
    Box<dyn tokio_stream::Stream<Item = Result<http_body::Frame<bytes::Bytes>, std::io::Error>> + Send>,
>;

trait BoxedFrames {
    fn boxed_frames(self) -> Frames;
}

impl<S> BoxedFrames for S
where
    S: tokio_stream::Stream<Item = Result<http_body::Frame<bytes::Bytes>, std::io::Error>> + Send + 'static,
{
    fn boxed_frames(self) -> Frames {
        Box::pin(self)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_before_and_within_its_answer() {
    const LATE: i32 = Code::DeadlineExceeded as i32;
    let server = Server::start(HARVESTER, |_, _| {}).await;
    let empty = vec![0; 5];
    let soon = [("grpc-timeout", "50m")];
    // The upload waits for rows that never come; the watch never ends.
    let upload = "/distillery.v1.DatasetsService/UploadRows";
    assert_eq!(exchange(&server.url, upload, &soon, Vec::new(), false).await.0, LATE);
    let watch = "/distillery.v1.ModelsService/WatchModels";
    assert_eq!(exchange(&server.url, watch, &soon, empty.clone(), true).await.0, LATE);
    assert_eq!(exchange(&server.url, LIST_MODELS, &[("grpc-timeout", "1M")], empty.clone(), true).await.0, 0);
    let odd = [("grpc-timeout", "soon")];
    assert_eq!(exchange(&server.url, LIST_MODELS, &odd, empty, true).await.0, Code::InvalidArgument as i32);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_given_back_or_made() {
    let server = Server::start(HARVESTER, |_, _| {}).await;
    let id = async |headers: &[(&str, &str)]| {
        exchange(&server.url, LIST_MODELS, headers, vec![0; 5], true).await.1
    };
    assert_eq!(id(&[("x-request-id", "mine-1")]).await, "mine-1");
    let made = id(&[]).await;
    assert!(made.parse::<uuid::Uuid>().is_ok(), "{made}");
    assert_ne!(id(&[]).await, made);
    let long = "x".repeat(200);
    assert_ne!(id(&[("x-request-id", &long)]).await, long);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_or_none_is_the_callers_mistake() {
    let server = Server::start(HARVESTER, |_, _| {}).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let path = "/distillery.v1.DatasetsService/CreateDataset";
    let long = call(&channel, path, vec![vec![0; wire::MESSAGE_BYTES_MAX + 1]], 1).await.unwrap_err();
    assert_eq!(long.code(), Code::OutOfRange, "{long}");
    let garbage = call(&channel, path, vec![vec![0xff; 40]], 1).await.unwrap_err();
    assert_eq!(garbage.code(), Code::InvalidArgument, "{garbage}");
    assert!(garbage.message().starts_with("the message cannot be read"), "{garbage}");
    list_models(&channel).await.unwrap();
    server.stop().await.unwrap();
}

/// A message of `length` bytes as it is framed, of which only `sent` have come.
fn begun(length: u32, sent: usize) -> Vec<u8> {
    [&[0], length.to_be_bytes().as_slice(), &vec![0xff; sent]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_answers_for_costs_little_and_is_the_callers_mistake() {
    const LONG: u32 = 3_900_000;
    const INVALID: i32 = Code::InvalidArgument as i32;
    let server = Server::start(INFERENCE, |config, folder| {
        add_token(config, folder, "read", "");
        config.client.harvester_url = "http://127.0.0.1:1".to_owned();
    })
    .await;
    let probes = [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/inference.GRPCInferenceService/ServerLive",
        "/inference.GRPCInferenceService/ServerReady",
    ];
    for path in probes {
        let ask = async |body: Vec<u8>, ends: bool| exchange(&server.url, path, &[], body, ends).await.0;
        // The rest never comes: the answer is there before it.
        assert_eq!(ask(begun(LONG, 8 * 1024), false).await, Code::OutOfRange as i32, "{path}");
        for garbage in
            [Vec::new(), begun(5, 3), begun(40, 40), vec![7; 40], vec![1, 0, 0, 0, 1, 7], vec![0; 3]]
        {
            assert_eq!(ask(garbage.clone(), true).await, INVALID, "{path} after {garbage:?}");
        }
    }
    // Before a token is looked at, nothing of a message is.
    let refused =
        exchange(&server.url, "/inference.GRPCInferenceService/ModelInfer", &[], begun(LONG, 9), false);
    assert_eq!(refused.await.0, Code::Unauthenticated as i32);
    let token =
        format!("Bearer {}", std::fs::read_to_string(server.folder.path().join("token-read")).unwrap());
    let known = [("authorization", token.as_str())];
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let answered = exchange(&server.url, reflection, &known, begun(LONG, 9), false).await.0;
    assert_ne!(answered, Code::Internal as i32, "it is not waited for");
    for garbage in [Vec::new(), begun(5, 3), vec![7; 40], vec![1, 0, 0, 0, 1, 7]] {
        let path = "/inference.GRPCInferenceService/ModelInfer";
        assert_eq!(
            exchange(&server.url, path, &known, garbage.clone(), true).await.0,
            INVALID,
            "{garbage:?}"
        );
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_beyond_the_limit_are_refused_with_a_hint_and_probes_are_not() {
    use tonic_types::StatusExt;
    let server = Server::start(HARVESTER, |config, _| config.server.calls_max = 1).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let mut watch = ModelsServiceClient::new(channel.clone());
    let mut watch = watch.watch_models(v1::WatchModelsRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let refused = list_models(&channel).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let hint = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert_eq!(hint, Some(Duration::from_secs(1)));
    assert_eq!(health(&channel, "").await.unwrap(), ServingStatus::Serving);
    // Workers have places of their own.
    let lease = call(&channel, "/distillery.v1.RunsService/LeaseRun", vec![Vec::new()], 1).await.unwrap_err();
    assert_eq!(lease.code(), Code::InvalidArgument);
    drop(watch);
    let freed = async {
        while list_models(&channel).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed).await.expect("the place was not given back");
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_connection_ends_and_the_next_call_takes_a_new_one() {
    let server = Server::start(HARVESTER, |config, _| config.server.connection_age_seconds = 1).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let mut watch = ModelsServiceClient::new(channel.clone());
    let mut watch = watch.watch_models(v1::WatchModelsRequest {}).await.unwrap().into_inner();
    watch.message().await.unwrap().unwrap();
    let ended =
        tokio::time::timeout(PATIENCE, watch.message()).await.expect("the watch did not end").unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended}");
    // A call that is sent while the old connection closes is refused with it, and may be repeated. This side may notice
    // first, and then says that the call was cancelled.
    let mut refused = 0;
    while let Err(status) = list_models(&channel).await {
        refused += 1;
        assert!(wire::fault_of(&status) == Fault::Unavailable && refused < 10, "{status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.stop().await.unwrap();
}

fn upload(dataset: &v1::Dataset, offset: u64) -> v1::UploadRowsRequest {
    let example = v1::Example { input: format!("row {offset}"), ..Default::default() };
    v1::UploadRowsRequest { dataset_id: dataset.id.clone(), offset, examples: vec![example] }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_is_told_first_then_calls_finish_and_watches_end() {
    let server = Server::start(HARVESTER, |config, _| config.server.notice_seconds = 1).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let mut datasets = DatasetsServiceClient::new(channel.clone());
    let create =
        v1::CreateDatasetRequest { request_id: uuid::Uuid::new_v4().to_string(), name: "rows".into() };
    let dataset = datasets.create_dataset(create).await.unwrap().into_inner().dataset.unwrap();
    // A call in the middle, a watch, and a probe that watches.
    let (rows, sent) = tokio::sync::mpsc::channel(4);
    rows.send(upload(&dataset, 0)).await.unwrap();
    let mut uploader = datasets.clone();
    let uploading =
        tokio::spawn(
            async move { uploader.upload_rows(tokio_stream::wrappers::ReceiverStream::new(sent)).await },
        );
    let mut models = ModelsServiceClient::new(channel.clone());
    let mut models = models.watch_models(v1::WatchModelsRequest {}).await.unwrap().into_inner();
    models.message().await.unwrap().unwrap();
    let mut probe = HealthClient::new(channel.clone());
    let mut probe = probe.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let status = |message: Option<HealthCheckResponse>| message.unwrap().status();
    assert_eq!(status(probe.message().await.unwrap()), ServingStatus::Serving);
    let url = server.url.clone();
    server.shutdown.cancel();
    assert_eq!(status(probe.message().await.unwrap()), ServingStatus::NotServing);
    // Told, and still served: this is the notice.
    list_models(&channel).await.unwrap();
    assert_eq!(models.message().await.unwrap_err().code(), Code::Unavailable);
    // The ingress is closed; the running call continues to its end.
    assert!(
        tokio::net::TcpStream::connect(url.trim_start_matches("http://")).await.is_err(),
        "still listening"
    );
    rows.send(upload(&dataset, 1)).await.unwrap();
    drop(rows);
    assert_eq!(uploading.await.unwrap().unwrap().into_inner().rows, 2);
    server.ended().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_does_not_finish_is_cut_off_at_the_drain_time() {
    let server = Server::start(HARVESTER, |config, _| config.server.drain_seconds = 1).await;
    let channel = server.channel(|_| {}).await.unwrap();
    let (rows, sent) = tokio::sync::mpsc::channel::<v1::UploadRowsRequest>(4);
    let mut datasets = DatasetsServiceClient::new(channel.clone());
    let request = Request::new(tokio_stream::wrappers::ReceiverStream::new(sent));
    let uploading = tokio::spawn(async move { datasets.upload_rows(request).await });
    list_models(&channel).await.unwrap();
    server.stop().await.unwrap();
    let cut = tokio::time::timeout(PATIENCE, uploading).await.expect("the caller was left waiting").unwrap();
    assert_eq!(wire::fault_of(&cut.unwrap_err()), Fault::Unavailable);
    drop(rows);
}

/// Waits until the server has closed a connection, having sent nothing but what HTTP/2 begins with.
async fn closed(mut stream: tokio::net::TcpStream) {
    let reading = async {
        let mut bytes = [0; 1024];
        // A reset is an end, too.
        while matches!(stream.read(&mut bytes).await, Ok(count) if count > 0) {}
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("the connection stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_say_nothing_are_let_go_and_no_address_takes_every_place() {
    let server = Server::start(HARVESTER, |config, _| {
        config.server.connections_max = 4;
        config.server.peer_connections_max = 3;
    })
    .await;
    let connect = || tokio::net::TcpStream::connect(server.url.trim_start_matches("http://"));
    let mut silent = Vec::new();
    for begun in [&b""[..], b"PRI * HTTP/2.0\r\n", b"P"] {
        let mut stream = connect().await.unwrap();
        stream.write_all(begun).await.unwrap();
        silent.push(stream);
    }
    // The fourth of this address is closed at once, long before the silent ones are.
    tokio::time::timeout(Duration::from_secs(5), closed(connect().await.unwrap())).await.unwrap();
    for stream in silent {
        closed(stream).await;
    }
    // Whoever speaks keeps its connection, also where it rests.
    let channel = server.channel(|_| {}).await.unwrap();
    list_models(&channel).await.unwrap();
    server.stop().await.unwrap();
}
