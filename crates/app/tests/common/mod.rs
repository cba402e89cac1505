//! A server in this process, reached over real TCP, and the raw calls that no generated client would make.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses a part of it")]

use app::config::{Config, TokenSection};
use app::serve::{Roles, Serving};
use domain::objective::Objective;
use domain::spec::{Draft, StudentDraft, StudentSize, TeacherDraft, TrainingDraft};
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use wire::v1::datasets_service_client::DatasetsServiceClient;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::models_service_client::ModelsServiceClient;
use wire::{Channel, v1};

/// Nothing in these tests takes longer.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const HARVESTER: Roles = Roles { harvester: true, trainer: false, inference: false };

/// A running server; it ends with this value.
pub struct Server {
    pub url: String,
    pub admin: Option<String>,
    pub folder: TempDir,
    pub shutdown: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

/// The documented defaults, over a folder, on a free port; the harvester only answers.
pub fn config(folder: &TempDir) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::load(None, []).unwrap();
    config.data_dir = folder.path().join("data");
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.harvester.workers = 0;
    config.client.token_env.clear();
    config.trainer.threads = 1;
    config
}

impl Server {
    pub async fn start(which: Roles, change: impl FnOnce(&mut Config, &TempDir)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        change(&mut config, &folder);
        let serving = open(config, which).await;
        let (url, admin) = (serving.url().to_owned(), serving.admin_url().map(str::to_owned));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(serving.run(shutdown.clone()));
        Self { url, admin, folder, shutdown, task }
    }

    /// A channel of a caller whose settings are the defaults with `change`.
    pub async fn channel(
        &self,
        change: impl FnOnce(&mut app::config::ClientSection),
    ) -> anyhow::Result<Channel> {
        self.channel_to(&self.url, change).await
    }

    /// The same, to another URL.
    pub async fn channel_to(
        &self,
        url: &str,
        change: impl FnOnce(&mut app::config::ClientSection),
    ) -> anyhow::Result<Channel> {
        let mut client = config(&self.folder).client;
        change(&mut client);
        app::client::connect(&client, url).await
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        self.ended().await
    }

    /// The same, and returns its folder, which is kept until that is dropped.
    pub async fn halt(self) -> anyhow::Result<TempDir> {
        self.shutdown.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server did not end").unwrap()?;
        Ok(self.folder)
    }

    /// Waits until it has ended.
    pub async fn ended(self) -> anyhow::Result<()> {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server did not end").unwrap()
    }
}

/// Opens the services; a data folder that a server before this one had is free a moment after that has ended.
async fn open(config: Config, which: Roles) -> Serving {
    let opened = async {
        loop {
            match Serving::open(config.clone(), which).await {
                Err(error) if error.to_string().contains("is in use") => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                opened => return opened.unwrap(),
            }
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("the data folder was not given back")
}

/// Adds a token of `role`, named as its role, and returns the file that holds it.
pub fn add_token(config: &mut Config, folder: &TempDir, role: &str, expires: &str) -> PathBuf {
    let file = folder.path().join(format!("token-{role}"));
    std::fs::write(&file, format!("secret-of-{role}-0123456789")).unwrap();
    let section = TokenSection {
        role: role.to_owned(),
        env: String::new(),
        file: file.clone(),
        expires: expires.to_owned(),
    };
    config.server.tokens.insert(role.to_owned(), section);
    file
}

/// The bytes of messages, as they are.
#[derive(Default, Clone, Copy)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; bytes::Buf::remaining(buffer)];
        bytes::Buf::copy_to_slice(buffer, &mut item);
        Ok(Some(item))
    }
}

/// Sends `messages` to the method at `path`, whatever kind it is, and returns what comes back: at most `answers` messages.
pub async fn call(
    channel: &Channel,
    path: &str,
    messages: Vec<Vec<u8>>,
    answers: usize,
) -> Result<Vec<Vec<u8>>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = path.parse().unwrap();
    let mut request = Request::new(tokio_stream::iter(messages));
    request.set_timeout(PATIENCE / 3);
    let exchange = async {
        let mut stream = client.streaming(request, path, Raw).await?.into_inner();
        let mut received = Vec::new();
        while received.len() < answers {
            match stream.next().await {
                Some(message) => received.push(message?),
                None => break,
            }
        }
        Ok(received)
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("the call did not end")
}

/// `/package.Service/Method` of everything in `wire::DESCRIPTORS`.
pub fn paths() -> Vec<String> {
    let pool = prost_reflect::DescriptorPool::decode(wire::DESCRIPTORS).unwrap();
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    methods.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name())).collect()
}

/// A student, and the job that made it.
pub struct Published {
    pub submit: v1::SubmitDistillationRequest,
    pub model: v1::Model,
}

/// Trains a student called `student` on rows of a built-in task, without a teacher, for two steps: those without a split
/// are train rows. The server needs
/// a harvester that works and a trainer.
pub async fn publish(channel: &Channel, task: &str, mut rows: Vec<v1::Example>) -> Published {
    for row in rows.iter_mut().filter(|row| row.split() == v1::Split::Unspecified) {
        row.split = v1::Split::Train.into();
    }
    let request_id = uuid::Uuid::new_v4().to_string();
    let mut datasets = DatasetsServiceClient::new(channel.clone());
    let create = v1::CreateDatasetRequest { request_id: request_id.clone(), name: "rows".into() };
    let dataset_id = datasets.create_dataset(create).await.unwrap().into_inner().dataset.unwrap().id;
    let chunk = v1::UploadRowsRequest { dataset_id: dataset_id.clone(), offset: 0, examples: rows };
    datasets.upload_rows(tokio_stream::once(chunk)).await.unwrap();
    datasets.commit_dataset(v1::CommitDatasetRequest { dataset_id: dataset_id.clone() }).await.unwrap();
    let draft = Draft {
        name: "student".to_owned(),
        task: domain::Task::built_in(task).unwrap(),
        teacher: TeacherDraft { profile: Some("none".to_owned()), ..Default::default() },
        judging: Default::default(),
        student: StudentDraft { size: Some(StudentSize::Tiny), vocabulary: Some(300), ..Default::default() },
        training: TrainingDraft {
            steps: Some(2),
            objective: Some(Objective::Standard),
            target_tokens_max: Some(16),
            ..Default::default()
        },
    };
    let spec = Some(draft.resolve().unwrap().into());
    let submit = v1::SubmitDistillationRequest { request_id, spec, dataset_id };
    let mut jobs = DistillationsServiceClient::new(channel.clone());
    let job = jobs.submit_distillation(submit.clone()).await.unwrap().into_inner().distillation.unwrap();
    let watch = v1::WatchDistillationRequest { distillation_id: job.id, after_sequence: 0 };
    let mut events = jobs.watch_distillation(watch).await.unwrap().into_inner();
    while tokio::time::timeout(PATIENCE, events.message()).await.expect("no student").unwrap().is_some() {}
    let mut models = ModelsServiceClient::new(channel.clone());
    let models = models.list_models(v1::ListModelsRequest::default()).await.unwrap().into_inner().models;
    Published { submit, model: models.into_iter().next().expect("no student was published") }
}

/// Waits until the student is served.
pub async fn served(channel: &Channel) {
    let served = async {
        let request = HealthCheckRequest { service: "distillery.v1.InferenceService/student".to_owned() };
        while HealthClient::new(channel.clone()).check(request.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("the student is not served");
}

/// A premise, a hypothesis and the label of each row of [`pairs`].
pub const PAIRS: [(&str, &str, &str); 3] = [
    ("A man plays a flute.", "A man plays music.", "entailment"),
    ("A dog sleeps.", "A dog runs.", "contradiction"),
    ("A girl reads.", "A girl reads a novel.", "neutral"),
];

/// Rows of the task `nli`.
pub fn pairs() -> Vec<v1::Example> {
    let example = |(premise, hypothesis, label): &(&str, &str, &str)| v1::Example {
        premise: Some((*premise).to_owned()),
        hypothesis: Some((*hypothesis).to_owned()),
        label: Some((*label).to_owned()),
        ..Default::default()
    };
    PAIRS.iter().map(example).collect()
}
