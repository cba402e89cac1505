//! The services as a process of their own: some of the roles, behind one ingress. Roles next to a harvester speak to it over
//! memory, as on one machine; roles without one call the harvester that `[client]` names.

use crate::admin::{Admin, Jobs, Readiness};
use crate::checkpoint_store::{self, Writers};
use crate::config::Config;
use crate::ingress::Ingress;
use crate::roles::{self, Harvesting, Inferring};
use crate::{client, exposition, transport};
use anyhow::{Context, anyhow, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use wire::Channel;

/// The services of a harvester, by name.
const HARVESTER: &[&str] = &[
    "distillery.v1.DatasetsService",
    "distillery.v1.DistillationsService",
    "distillery.v1.RationalesService",
    "distillery.v1.RunsService",
    "distillery.v1.ModelsService",
];
/// The service of inference, by name. Each model has a health of its own under `<this>/<name>`.
const INFERENCE: &str = "distillery.v1.InferenceService";
/// The same, for standard clients.
const OPEN_INFERENCE: &str = "inference.GRPCInferenceService";
/// The health of the whole process, as the protocol has it.
const WHOLE: &str = "";
/// The health of the health service: whether the process lives.
const LIVES: &str = "grpc.health.v1.Health";
/// What every service accepts, and sends to callers who ask for it.
const GZIP: CompressionEncoding = CompressionEncoding::Gzip;
/// Most bytes of a question to server reflection.
const REFLECTION_BYTES_MAX: usize = 4 * 1024;
/// The services that every process has.
const COMMON: &[&str] =
    &[LIVES, "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// What one process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Roles {
    /// Own the records, ask teachers, answer the API.
    pub harvester: bool,
    /// Train.
    pub trainer: bool,
    /// Serve students.
    pub inference: bool,
}

impl Roles {
    fn where_harvester(self) -> roles::Harvester {
        if self.harvester { roles::Harvester::Here } else { roles::Harvester::Elsewhere }
    }

    fn is_trainer_alone(self) -> bool {
        self == Self { trainer: true, ..Self::default() }
    }

    /// Their names, joined by `between`.
    pub fn names(self, between: &str) -> String {
        let all = [(self.harvester, "harvester"), (self.trainer, "trainer"), (self.inference, "inference")];
        let names: Vec<&str> = all.into_iter().filter(|(is_one, _)| *is_one).map(|(_, name)| name).collect();
        names.join(between)
    }

    /// The gRPC services of these roles, by name.
    fn services(self) -> Vec<&'static str> {
        let inference = [INFERENCE, OPEN_INFERENCE].into_iter().filter(|_| self.inference);
        HARVESTER.iter().copied().filter(|_| self.harvester).chain(inference).collect()
    }
}

/// The roles, started.
pub struct Serving {
    url: String,
    admin_url: Option<String>,
    notice: Duration,
    health: Health,
    drain_inference: Option<Box<dyn FnOnce() + Send + Sync>>,
    /// Ends the ingress, then the roles, then the API between them.
    ingress_closing: CancellationToken,
    roles_end: CancellationToken,
    api_end: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
    /// Whether the role may end by itself.
    may_end: bool,
    close_records: Option<BoxFuture<'static, ()>>,
    /// The admin port, which is the last to close.
    watched: JoinSet<()>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Serving").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Serving {
    /// Opens the ingress and starts the roles behind it.
    ///
    /// # Errors
    /// The address, TLS, a token, a teacher, the records or the checkpoints: the error says what is wrong and what to do.
    pub async fn open(mut config: Config, which: Roles) -> anyhow::Result<Self> {
        if which == Roles::default() {
            bail!("there is no role to serve: name at least one");
        }
        // With other roles a trainer without work keeps running: its end would end them.
        if !which.is_trainer_alone() {
            config.trainer.idle_seconds_max = 0;
        }
        // Listeners come first: a mistake in them is reported before a database is opened, and probes are answered meanwhile.
        let admin = Admin::open(&config.admin).await?;
        let ingress = Ingress::open(&config.server).await?;
        let services = which.services();
        let health = Health::start(&services).await;
        // Before anything is opened that counts.
        let jobs = Jobs::new(&config, which.harvester);
        let (admin_url, watched) = watch(admin, which, &health, jobs.clone())?;
        let (ingress_closing, roles_end, api_end) =
            (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (mut running, reached) = (JoinSet::new(), CancellationToken::new());
        let api = Api::open(&config, which, &roles_end, &api_end, &mut running).await?;
        if which.harvester {
            jobs.open(api.channel.clone());
        }
        let checkpoints = || checkpoint_store::open(&config, Writers::Many);
        if which.trainer {
            let (channel, checkpoints, end) = (api.channel.clone(), checkpoints()?, roles_end.clone());
            let (config, where_harvester, reached) =
                (config.clone(), which.where_harvester(), reached.clone());
            running.spawn(roles::train(config, where_harvester, channel, checkpoints, reached, end));
        }
        let mut routes = api.routes;
        let mut drain_inference = None;
        if which.inference {
            let opened = roles::infer(&config, routes, api.channel, checkpoints()?, roles_end.clone())?;
            let Inferring { routes: with_inference, work, drain, models } = opened;
            routes = with_inference;
            drain_inference = Some(drain);
            running.spawn(work.map(Ok));
            running.spawn(health.clone().follow(models, roles_end.clone()).map(Ok));
        }
        let routes = health.with(reflection(which, routes)?);
        let url = ingress.url();
        let notice = Duration::from_secs(config.server.notice_seconds);
        let answered: Vec<&str> = services.iter().chain(COMMON).copied().collect();
        running.spawn(ingress.serve(routes, &answered, ingress_closing.clone())?.map(Ok));
        // A trainer is ready when its harvester has answered; inference says so itself, when its models are loaded.
        if which.trainer {
            running.spawn(health.clone().serving_once(reached, roles_end.clone()).map(Ok));
        } else {
            health.serving(WHOLE).await;
        }
        for name in services.iter().filter(|name| ![INFERENCE, OPEN_INFERENCE].contains(*name)) {
            health.serving(name).await;
        }
        let close_records = api.close;
        Ok(Self {
            url,
            admin_url,
            notice,
            health,
            drain_inference,
            ingress_closing,
            roles_end,
            api_end,
            running,
            may_end: config.trainer.idle_seconds_max > 0,
            close_records,
            watched,
        })
    }

    /// Where metrics and probes are answered on this machine; `None` where they are not.
    pub fn admin_url(&self) -> Option<&str> {
        self.admin_url.as_deref()
    }

    /// Where it can be reached on this machine.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Serves until `shutdown`, or until a trainer on its own had no run for long enough. Then ends in order: the health
    /// service says so, the ingress closes, calls finish within their time, the trainer writes its resume state and hands its
    /// run back, the harvester writes what it asked, the database closes.
    ///
    /// # Errors
    /// A role ended by itself.
    pub async fn run(mut self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let ended = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            Some(ended) = self.running.join_next() => match ended {
                Ok(Ok(())) if self.may_end => Ok(()),
                Ok(Ok(())) => Err(anyhow!("a role ended by itself")),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(anyhow!("a role broke down: {panic}")),
            },
        };
        self.drain(ended.is_ok()).await;
        ended
    }

    async fn drain(mut self, gives_notice: bool) {
        self.health.over().await;
        if gives_notice {
            tokio::time::sleep(self.notice).await;
        }
        self.ingress_closing.cancel();
        if let Some(drain) = self.drain_inference.take() {
            drain();
        }
        self.roles_end.cancel();
        while let Some(ended) = self.running.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::error!(error = format!("{error:#}"), "a role did not end well");
            }
        }
        self.api_end.cancel();
        if let Some(close) = self.close_records {
            close.await;
        }
        self.watched.shutdown().await;
    }
}

/// Answers at the admin port, where there is one, for as long as the task is kept. Returns its URL, too.
fn watch(
    admin: Option<Admin>,
    which: Roles,
    health: &Health,
    jobs: Jobs,
) -> anyhow::Result<(Option<String>, JoinSet<()>)> {
    let mut watched = JoinSet::new();
    let Some(admin) = admin else { return Ok((None, watched)) };
    let url = format!("http://{}", admin.address());
    tracing::info!(url, "metrics and probes are answered");
    watched.spawn(admin.serve(exposition::install(which.names(","))?, health.readiness(), jobs));
    Ok((Some(url), watched))
}

/// The harvester's API: its own, or a line to it.
struct Api {
    channel: Channel,
    routes: Routes,
    close: Option<BoxFuture<'static, ()>>,
}

impl Api {
    async fn open(
        config: &Config,
        which: Roles,
        roles_end: &CancellationToken,
        api_end: &CancellationToken,
        running: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        if !which.harvester {
            let channel = client::lazy(&config.client, &config.client.harvester_url).context("client")?;
            return Ok(Self { channel, routes: Routes::default(), close: None });
        }
        let Harvesting { routes, work, close } = roles::harvest(config, roles_end.clone()).await?;
        let channel = transport::in_memory(routes.clone(), api_end.clone()).await?;
        running.spawn(work.map(Ok));
        Ok(Self { channel, routes, close: Some(close) })
    }
}

/// Server reflection with `routes`: what this process serves, and nothing else. In both versions of its protocol: most
/// clients still speak the older one.
fn reflection(which: Roles, routes: Routes) -> anyhow::Result<Routes> {
    let builder = || {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(wire::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health")
            .with_service_name("grpc.reflection.v1.ServerReflection")
            .with_service_name("grpc.reflection.v1alpha.ServerReflection");
        which.services().into_iter().fold(builder, tonic_reflection::server::Builder::with_service_name)
    };
    let older = builder().register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
    let newer =
        builder().register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
    let (newer, older) =
        (newer.build_v1().context("server reflection")?, older.build_v1alpha().context("server reflection")?);
    let newer = newer.max_decoding_message_size(REFLECTION_BYTES_MAX);
    let older = older.max_decoding_message_size(REFLECTION_BYTES_MAX);
    Ok(routes
        .add_service(newer.accept_compressed(GZIP).send_compressed(GZIP))
        .add_service(older.accept_compressed(GZIP).send_compressed(GZIP)))
}

/// Who is asked whether this process serves. The whole does where every one of its services does.
#[derive(Clone)]
struct Health {
    reporter: HealthReporter,
    /// The whole and the services, by name.
    names: Arc<[&'static str]>,
    /// Those that do not serve yet. Once nothing does any more, none of them ever will.
    awaited: Arc<Mutex<BTreeSet<&'static str>>>,
    readiness: watch::Sender<Readiness>,
}

impl Health {
    /// Nothing serves yet.
    async fn start(services: &[&'static str]) -> Self {
        let names: Vec<&'static str> = services.iter().copied().chain([WHOLE]).collect();
        let awaited = Arc::new(Mutex::new(names.iter().copied().collect()));
        let (readiness, _) = watch::channel(Readiness::Starting);
        let health = Self { reporter: HealthReporter::new(), names: names.into(), awaited, readiness };
        for name in health.names.iter() {
            health.not_serving(name).await;
        }
        // Who asks whether the process lives, and not whether it is ready, asks for this one: it serves to the end.
        health.reporter.set_service_status(LIVES, ServingStatus::Serving).await;
        health
    }

    /// The readiness that probes see.
    fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// The health service with `routes`.
    fn with(&self, routes: Routes) -> Routes {
        let health = HealthServer::new(HealthService::from_health_reporter(self.reporter.clone()));
        routes.add_service(health.accept_compressed(GZIP).send_compressed(GZIP))
    }

    async fn serving(&self, name: &str) {
        let mut awaited = self.awaited.lock().await;
        if *self.readiness.borrow() == Readiness::Draining {
            return;
        }
        awaited.remove(name);
        if name != WHOLE {
            self.reporter.set_service_status(name, ServingStatus::Serving).await;
        }
        if awaited.is_empty() && *self.readiness.borrow() == Readiness::Starting {
            self.reporter.set_service_status(WHOLE, ServingStatus::Serving).await;
            self.readiness.send_replace(Readiness::Ready);
        }
    }

    /// The whole serves, as far as it is not a service, once `reached` is cancelled. Lasts as long as the roles do.
    async fn serving_once(self, reached: CancellationToken, roles_end: CancellationToken) {
        tokio::select! {
            () = reached.cancelled() => self.serving(WHOLE).await,
            () = roles_end.cancelled() => {}
        }
        roles_end.cancelled().await;
    }

    async fn not_serving(&self, name: &str) {
        self.reporter.set_service_status(name, ServingStatus::NotServing).await;
    }

    /// Nothing serves any more.
    async fn over(&self) {
        let _awaited = self.awaited.lock().await;
        self.readiness.send_replace(Readiness::Draining);
        for name in self.names.iter() {
            self.not_serving(name).await;
        }
    }

    /// Inference serves once its models are loaded; each of them by its own name, as long as it is published.
    async fn follow(
        mut self,
        mut models: watch::Receiver<Option<BTreeMap<String, u64>>>,
        end: CancellationToken,
    ) {
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        loop {
            let changed = tokio::select! {
                changed = models.changed() => changed,
                () = end.cancelled() => return,
            };
            if changed.is_err() {
                return;
            }
            let Some(served) = models.borrow_and_update().clone() else { continue };
            for gone in known.keys().filter(|name| !served.contains_key(*name)) {
                self.reporter.clear_service_status(&format!("{INFERENCE}/{gone}")).await;
            }
            for name in served.keys().filter(|name| !known.contains_key(*name)) {
                self.serving(&format!("{INFERENCE}/{name}")).await;
            }
            self.serving(INFERENCE).await;
            self.serving(OPEN_INFERENCE).await;
            known = served;
        }
    }
}
