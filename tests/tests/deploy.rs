//! Images, compose and Kubernetes, checked without a container engine or a cluster: against the schemas of the programs that
//! read the files, and against rules of our own (tests/python/deploy). Every check is seen failing on a planted mistake.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests fail loudly too"
)]

use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tests::binary;
use tests::data::{SpecText, teach};
use tests::folder::{Folder, Said};
use tests::postgres::Postgres;
use tests::redis::Redis;
use tests::service::Service;
use tests::teacher::Teacher;

const LIMIT: Duration = Duration::from_secs(90);

/// Files that the checks read.
const READ: &[&str] = &[
    ".dockerignore",
    ".gitignore",
    "Cargo.toml",
    "Cargo.lock",
    "LICENSE",
    "docker-compose.yml",
    "deploy",
    "proto",
    "scripts",
];
/// Files that a build context must have; a copy gets empty ones.
const CONTEXT: &[&str] = &["crates/cli/src/main.rs", "tests/Cargo.toml"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// The Python that has the tools.
fn python() -> &'static str {
    static PYTHON: OnceLock<String> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = root().join("scripts/deploy-tools.sh");
        let said = Command::new(script).stderr(Stdio::inherit()).output().unwrap();
        assert!(said.status.success());
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    })
}

/// A file with every setting: the output of `distillery config`.
fn defaults() -> &'static Path {
    static DEFAULTS: OnceLock<(Folder, PathBuf)> = OnceLock::new();
    let (_, path) = DEFAULTS.get_or_init(|| {
        let folder = Folder::empty().unwrap();
        let said = binary::output(binary::command(folder.path(), &["config"]).unwrap()).unwrap();
        assert!(said.status.success());
        let path = folder.write("defaults.toml", said.stdout).unwrap();
        (folder, path)
    });
    path
}

/// Runs one section of the checks over `tree`. Returns whether there were complaints, and the output.
fn checked(tree: &Path, arguments: &[&str]) -> (bool, String) {
    let said = Command::new(python())
        .arg(root().join("tests/python/deploy"))
        .args(arguments)
        .arg("--root")
        .arg(tree)
        .arg("--defaults")
        .arg(defaults())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8(said.stdout).unwrap(), String::from_utf8(said.stderr).unwrap());
    assert!(matches!(said.status.code(), Some(0 | 1)) && err.is_empty(), "{out}{err}");
    (said.status.code() == Some(1), out)
}

/// The same over many trees in one process: reading the schemas takes most of the time of a check.
fn all_checked(trees: &[(Folder, &[&str])]) -> Vec<(bool, String)> {
    let mut python = Command::new(python())
        .arg(root().join("tests/python/deploy"))
        .arg("-")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Small enough to fit into the pipe before anything is read.
    let mut input = python.stdin.take().unwrap();
    for (tree, arguments) in trees {
        let given = ["--root", tree.path().to_str().unwrap(), "--defaults", defaults().to_str().unwrap()];
        let line = serde_json::to_string(&[*arguments, given.as_slice()].concat()).unwrap();
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let said = python.wait_with_output().unwrap();
    assert!(said.status.success(), "{said:?}");
    let lines = |value: &Value| -> Vec<String> { serde_json::from_value(value.clone()).unwrap() };
    let answer = |line: &str| {
        let said: Value = serde_json::from_str(line).unwrap();
        let (complaints, notes) = (lines(&said["complaints"]), lines(&said["notes"]));
        if complaints.is_empty() { (false, notes.join("\n")) } else { (true, complaints.join("\n")) }
    };
    let answers: Vec<_> = String::from_utf8(said.stdout).unwrap().lines().map(answer).collect();
    assert_eq!(answers.len(), trees.len());
    answers
}

fn check_section(section: &str) {
    let (complained, said) = checked(&root(), &[section]);
    println!("{said}");
    assert!(!complained, "{said}");
    assert!(said.contains(section), "it looked at nothing: {said}");
}

#[test]
fn images_are_what_is_asked_for() {
    check_section("images");
}

#[test]
fn compose_is_what_is_asked_for() {
    check_section("compose");
}

#[test]
fn every_overlay_is_what_is_asked_for() {
    check_section("kubernetes");
}

#[test]
fn every_setting_that_is_named_exists() {
    check_section("settings");
}

/// A mistake: `from` becomes `to` in a file, and a section must report `said`.
struct Mistake {
    arguments: &'static [&'static str],
    file: &'static str,
    from: &'static str,
    to: &'static str,
    said: &'static str,
}

const fn mistake(
    arguments: &'static [&'static str],
    file: &'static str,
    from: &'static str,
    to: &'static str,
    said: &'static str,
) -> Mistake {
    Mistake { arguments, file, from, to, said }
}

const LOCAL: &[&str] = &["kubernetes", "--overlay", "local"];
const GPU: &[&str] = &["kubernetes", "--overlay", "gpu"];
const KUEUE: &[&str] = &["kubernetes", "--overlay", "gpu-kueue"];
const DOCKERFILE: &str = "deploy/images/Dockerfile";
const COMPOSE: &str = "docker-compose.yml";
const HARVESTER: &str = "deploy/kubernetes/base/harvester.yaml";
const TRAINER: &str = "deploy/kubernetes/base/trainer.yaml";
const INFERENCE: &str = "deploy/kubernetes/base/inference.yaml";

const MISTAKES: &[Mistake] = &[
    // Images.
    mistake(&["images"], DOCKERFILE, "AS trainer-cuda", "AS trainer-gpu", "has no target `trainer-cuda`"),
    mistake(&["images"], DOCKERFILE, "USER 10001:10001", "USER distillery", "runs as `distillery`"),
    mistake(
        &["images"],
        DOCKERFILE,
        "FROM tools AS build-harvester",
        "FROM cook-student AS build-harvester",
        "is to have no libtorch",
    ),
    mistake(&["images"], DOCKERFILE, "debian:bookworm-slim", "debian:latest", "has no version"),
    mistake(
        &["images"],
        DOCKERFILE,
        "COPY scripts/teacher.sh",
        "COPY scripts/demo.sh scripts/teacher.sh",
        "copies `scripts/demo.sh`",
    ),
    mistake(&["images"], DOCKERFILE, "--role\", \"inference\"", "--role\", \"trainer\"", "serves trainer"),
    mistake(&["images"], DOCKERFILE, "EXPOSE 7070 9464", "EXPOSED 7070 9464", "hadolint"),
    mistake(
        &["images"],
        DOCKERFILE,
        "\"health\", \"--admin\"",
        "\"health\", \"--server\", \"http://127.0.0.1:7070\"",
        "its HEALTHCHECK does not ask the admin port",
    ),
    mistake(&["images"], ".dockerignore", "!LICENSE", "!deploy", "deploy/secrets"),
    // Compose.
    mistake(
        &["compose"],
        COMPOSE,
        "\"health\", \"--admin\"",
        "\"health\", \"--server\", \"http://127.0.0.1:7070\"",
        "its health check does not ask the admin port",
    ),
    mistake(&["compose"], COMPOSE, "stop_grace_period: 11m", "stop_grace: 11m", "stop_grace"),
    mistake(
        &["compose"],
        COMPOSE,
        "stop_grace_period: 11m",
        "stop_grace_period: 5m",
        "its last call may take 600 s",
    ),
    mistake(
        &["compose"],
        COMPOSE,
        "{condition: service_completed_successfully}",
        "{condition: service_healthy}",
        "which has no health check",
    ),
    mistake(
        &["compose"],
        COMPOSE,
        "DISTILLERY_DATABASE_URL_FILE: /run/secrets/database_url",
        "DISTILLERY_DATABASE_URL: postgres://a:b@postgres/d",
        "is a secret in clear text",
    ),
    mistake(
        &["compose"],
        COMPOSE,
        "POSTGRES_PASSWORD_FILE: /run/secrets/postgres_password",
        "POSTGRES_PASSWORD: hunter2",
        "POSTGRES_PASSWORD is a secret in clear text",
    ),
    mistake(&["compose"], COMPOSE, "redis:7.4-bookworm", "redis:latest", "has no version"),
    mistake(&["compose"], COMPOSE, "target: inference}", "target: trainer}", "builds `trainer`"),
    mistake(&["compose"], COMPOSE, "    build: *harvester\n", "", "no registry has it"),
    mistake(&["compose"], COMPOSE, "\"127.0.0.1:7070:7070\"", "\"7070:7070\"", "open to other machines"),
    mistake(
        &["compose"],
        COMPOSE,
        "secrets: [cli_token, worker_token]\n    volumes",
        "secrets: [worker_token]\n    volumes",
        "names the secret `cli_token`",
    ),
    mistake(
        &["compose"],
        "deploy/compose/gpu.yml",
        "target: trainer-cuda",
        "target: trainer",
        "builds `trainer`",
    ),
    // Settings.
    mistake(
        &["settings"],
        COMPOSE,
        "DISTILLERY_TELEMETRY_OTLP_ENDPOINT",
        "DISTILLERY_TELEMETRY_OTLP",
        "is no variable",
    ),
    mistake(
        &["settings"],
        "deploy/compose/trainer.toml",
        "harvester_url",
        "harvester",
        "`client.harvester` is not a setting",
    ),
    mistake(
        &["settings"],
        "deploy/kubernetes/base/config/inference.toml",
        "drain_seconds = 60",
        "drain_seconds = \"60\"",
        "`server.drain_seconds` is '60'",
    ),
    // Kubernetes: what a schema says.
    mistake(
        LOCAL,
        HARVESTER,
        "terminationGracePeriodSeconds",
        "terminationGraceSeconds",
        "terminationGraceSeconds",
    ),
    mistake(
        LOCAL,
        HARVESTER,
        "revisionHistoryLimit: 5",
        "revisionHistoryLimit: \"5\"",
        "is not of type 'integer'",
    ),
    mistake(
        LOCAL,
        INFERENCE,
        "kind: PodDisruptionBudget",
        "kind: PodDisruptionBudgets",
        "PodDisruptionBudgets",
    ),
    mistake(
        GPU,
        "deploy/kubernetes/components/keda/workers.yaml",
        "pollingInterval",
        "pollInterval",
        "pollInterval",
    ),
    mistake(
        KUEUE,
        "deploy/kubernetes/components/kueue-trainer/queue.yaml",
        "clusterQueue:",
        "queue:",
        "queue",
    ),
    // Kubernetes: our own rules.
    mistake(
        LOCAL,
        HARVESTER,
        "          livenessProbe:\n            httpGet: {path: /healthz, port: metrics}\n            periodSeconds: 10\n            timeoutSeconds: 5\n            failureThreshold: 6\n",
        "",
        "has no livenessProbe",
    ),
    mistake(
        LOCAL,
        HARVESTER,
        "          livenessProbe:\n            httpGet: {path: /healthz, port: metrics}",
        "          livenessProbe:\n            grpc: {port: 7070, service: grpc.health.v1.Health}",
        "livenessProbe does not ask the admin port",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/inference.yaml",
        "httpGet: {path: /readyz, port: metrics}",
        "httpGet: {path: /readyz, port: grpc}",
        "readinessProbe asks port grpc, and the admin port is 9464",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/workers.yaml",
        "httpGet: {path: /readyz, port: metrics}",
        "httpGet: {path: /healthz, port: metrics}",
        "readinessProbe asks for `/healthz`, and not for /readyz",
    ),
    mistake(
        KUEUE,
        "deploy/kubernetes/components/kueue-trainer/job.yaml",
        "{name: DISTILLERY_ADMIN_LISTEN, value: \"0.0.0.0:9464\"}",
        "{name: DISTILLERY_LOG_LEVEL, value: debug}",
        "the admin port is off",
    ),
    mistake(
        LOCAL,
        HARVESTER,
        "terminationGracePeriodSeconds: 60",
        "terminationGracePeriodSeconds: 40",
        "its last call may take 40 s",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/workers.yaml",
        "terminationGracePeriodSeconds: 660",
        "terminationGracePeriodSeconds: 120",
        "its last call may take 610 s",
    ),
    mistake(GPU, TRAINER, "limits: {memory: 8Gi}", "limits: {cpu: \"2\"}", "resources.limits.memory"),
    mistake(
        LOCAL,
        TRAINER,
        "readOnlyRootFilesystem: true",
        "readOnlyRootFilesystem: false",
        "can write to its root",
    ),
    mistake(
        LOCAL,
        TRAINER,
        "kind: PodDisruptionBudget\nmetadata: {name: trainer}\nspec:\n  maxUnavailable: 1\n  unhealthyPodEvictionPolicy: AlwaysAllow\n  selector:\n    matchLabels: {app.kubernetes.io/name: trainer}",
        "kind: PodDisruptionBudget\nmetadata: {name: trainer}\nspec:\n  maxUnavailable: 1\n  selector:\n    matchLabels: {app.kubernetes.io/name: coach}",
        "covers no pod",
    ),
    mistake(LOCAL, TRAINER, "topology.kubernetes.io/zone", "topology.kubernetes.io/region", "is not spread"),
    mistake(
        LOCAL,
        TRAINER,
        "image: distillery-trainer",
        "image: distillery-coach:0.1.0",
        "no target of the Dockerfile",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/kustomization.yaml",
        "  - name: distillery-inference\n    newTag: 0.1.0",
        "  - name: distillery-inference\n    newTag: latest",
        "has no version",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/components/pvc/kustomization.yaml",
        "persistentVolumeClaim: {claimName: checkpoints}",
        "emptyDir: {sizeLimit: 5Gi}",
        "checkpoints at /var/lib/distillery/checkpoints are on ['emptyDir']",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/network.yaml",
        "policyTypes: [Ingress, Egress]",
        "policyTypes: [Ingress]",
        "denies what is not named",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/network.yaml",
        "port: 9464",
        "port: 9465",
        "no NetworkPolicy opens its ingress on port 9464",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/base/config/harvester.toml",
        "/etc/distillery/secrets/redis_url",
        "/etc/distillery/redis_url",
        "which is not mounted",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/overlays/local/postgres.yaml",
        "secretName: distillery-postgres",
        "secretName: distillery-database",
        "does not say how `distillery-database` is made",
    ),
    mistake(
        LOCAL,
        "deploy/kubernetes/overlays/local/postgres.yaml",
        "- {name: POSTGRES_PASSWORD_FILE, value: /etc/postgres-secrets/postgres_password}",
        "- {name: POSTGRES_PASSWORD, value: hunter2}",
        "is a secret in clear text",
    ),
    mistake(
        GPU,
        "deploy/kubernetes/components/gpu/kustomization.yaml",
        "{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}",
        "{key: other, operator: Exists, effect: NoSchedule}",
        "does not tolerate",
    ),
    mistake(
        GPU,
        "deploy/kubernetes/components/keda/workers.yaml",
        "scaleTargetRef: {name: harvester-workers}",
        "scaleTargetRef: {name: workers}",
        "there is no Deployment `workers`",
    ),
    mistake(
        KUEUE,
        "deploy/kubernetes/components/kueue-trainer/job.yaml",
        "queue-name: trainers",
        "queue-name: coaches",
        "there is no LocalQueue `coaches`",
    ),
];

/// A copy of the files that the checks read.
fn copy() -> Folder {
    let folder = Folder::empty().unwrap();
    for name in READ {
        let status = Command::new("cp").arg("-r").arg(root().join(name)).arg(folder.path()).status().unwrap();
        assert!(status.success(), "{name}");
    }
    for name in CONTEXT {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    // A secret that must not be sent.
    std::fs::create_dir_all(folder.join("deploy/secrets")).unwrap();
    folder.write("deploy/secrets/cli_token", "not to be sent").unwrap();
    folder
}

#[test]
fn every_planted_mistake_is_found() {
    let planted = |mistake: &'static Mistake| {
        let Mistake { arguments, file, from, to, .. } = mistake;
        let folder = copy();
        let before = std::fs::read_to_string(folder.join(file)).unwrap();
        assert!(before.contains(from), "{file} has no {from:?}");
        folder.write(file, before.replacen(from, to, 1)).unwrap();
        (folder, *arguments)
    };
    let mut trees: Vec<(Folder, &[&str])> = MISTAKES.iter().map(planted).collect();
    // The copy itself has none.
    let sections: [&[&str]; 4] = [&["images"], &["compose"], &["settings"], &["kubernetes"]];
    trees.extend(sections.map(|section| (copy(), section)));
    let answers = all_checked(&trees);
    let (planted, untouched) = answers.split_at(MISTAKES.len());
    for (Mistake { file, to, said: wanted, .. }, (complained, said)) in MISTAKES.iter().zip(planted) {
        assert!(*complained && said.contains(wanted), "{file}: {to:?}: {said:?}, wanted {wanted:?}");
        let line = said.lines().find(|line| line.contains(wanted)).unwrap_or_default();
        println!("{line}");
    }
    for (complained, said) in untouched {
        assert!(!complained, "{said}");
    }
}

/// The program reads the deployed configuration files: a mistake ends it with exit code 2.
#[test]
fn every_configuration_is_read_by_the_program() {
    let folder = Folder::empty().unwrap();
    let read = |path: &Path| {
        let mut command = binary::command(folder.path(), &["list"]).unwrap();
        command.arg("--config").arg(path).args(["--server", "http://127.0.0.1:9"]);
        // It fails later, on the missing server or token file.
        binary::output(command).unwrap()
    };
    let mut count = 0;
    for place in ["deploy/compose", "deploy/kubernetes/base/config"] {
        for entry in std::fs::read_dir(root().join(place)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let said = read(&path);
                let words = String::from_utf8_lossy(&said.stderr).into_owned();
                assert!(!words.contains("is not a known key") && !words.contains("must be"), "{words}");
                count += 1;
            }
        }
    }
    assert_eq!(count, 6);
    let wrong = folder.write("wrong.toml", "[server]\nlisten_at = \"x\"\n").unwrap();
    let said = read(&wrong);
    assert!(String::from_utf8_lossy(&said.stderr).contains("is not a known key"));
    assert_eq!(said.status.code(), Some(2));
}

/// Queries the database with psql: tuples only, no alignment.
fn psql(url: &str, statements: &str) -> Result<String, String> {
    client(url, &["--command", statements])
}

fn client(url: &str, arguments: &[&str]) -> Result<String, String> {
    let folder = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = folder.map(|version| version.path().join("bin/psql")).find(|path| path.exists());
    let said = Command::new(found.unwrap_or_else(|| PathBuf::from("psql")))
        .args([url, "--no-psqlrc", "--tuples-only", "--no-align", "--set", "ON_ERROR_STOP=1"])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().trim().to_owned();
    if said.status.success() { Ok(text(said.stdout)) } else { Err(text(said.stderr)) }
}

/// A job in `state` with this number of prompts in each state.
fn job(state: &str, prompts: &[(&str, usize)]) -> String {
    let insert = format!(
        "WITH job AS (INSERT INTO distillations (id, request_id, name, dataset_id, spec, state, created_at, updated_at) \
         VALUES (gen_random_uuid(), gen_random_uuid(), 'job', gen_random_uuid(), '{{}}', '{state}', now_ms(), now_ms()) \
         RETURNING id) INSERT INTO prompts (id, distillation_id, row_index, sample, hinted, purpose, key, \
         tokens_max, state) "
    );
    let mut first = 0;
    let rows: Vec<String> = prompts
        .iter()
        .map(|(state, count)| {
            let last = first + count;
            let rows = format!(
                "SELECT gen_random_uuid(), job.id, row, 0, false, 'train', sha256(row::text::bytea), 1, '{state}' \
                 FROM job, generate_series({first}, {last} - 1) AS row"
            );
            first = last;
            rows
        })
        .collect();
    insert + &rows.join(" UNION ALL ")
}

#[test]
fn the_scalers_queries_count_what_waits() {
    let postgres = Postgres::start().unwrap();
    let folder = Folder::empty().unwrap();
    let mut migrate = binary::command(folder.path(), &["migrate"]).unwrap();
    migrate.env("DISTILLERY_DATABASE_URL", postgres.url());
    let migrated = binary::output(migrate).unwrap();
    assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
    let said = String::from_utf8_lossy(&migrated.stdout);
    assert!(said.starts_with("PostgreSQL at ") && !said.contains('@'), "{said}");

    let (_, said) = checked(&root(), &["queries"]);
    let queries: Vec<Value> = serde_json::from_str(&said).unwrap();
    let query = |scales: &str| {
        let found = queries.iter().find(|query| query["scales"] == scales);
        found.unwrap_or_else(|| panic!("nothing scales {scales}: {said}"))["query"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (prompts, runs) = (query("harvester-workers"), query("trainer"));
    // As the user of scalers and dashboards.
    let reader = root().join("deploy/grafana/reader.sql");
    let made = ["--set", "password=of-this-test", "--file", reader.to_str().unwrap()];
    client(&postgres.url(), &made).unwrap();
    let scaler = format!("postgres://grafana:of-this-test@{}", postgres.url().rsplit('@').next().unwrap());
    let count = |query: &str| psql(&scaler, query).unwrap();
    assert_eq!((count(&prompts), count(&runs)), ("0".to_owned(), "0".to_owned()));

    psql(
        &postgres.url(),
        &job("harvesting", &[("pending", 5), ("leased", 2), ("answered", 9), ("parked", 1)]),
    )
    .unwrap();
    psql(&postgres.url(), &job("harvesting", &[("pending", 4)])).unwrap();
    psql(&postgres.url(), &job("paused", &[("pending", 50)])).unwrap();
    psql(&postgres.url(), &job("training", &[("answered", 3)])).unwrap();
    psql(&postgres.url(), &job("succeeded", &[("answered", 3)])).unwrap();
    println!("{prompts}: {}; {runs}: {}", count(&prompts), count(&runs));
    assert_eq!((count(&prompts), count(&runs)), ("11".to_owned(), "1".to_owned()));
    // An unknown column is an error, not zero; so is a table that this user may not read.
    assert!(psql(&scaler, "SELECT count(*) FROM public.prompts").unwrap_err().contains("permission denied"));
    let wrong = psql(&scaler, &prompts.replace("pending", "waiting")).unwrap_err();
    assert!(wrong.contains("does not exist"), "{wrong}");
}

/// The settings of a deployment, with the addresses and folders of this test.
struct Deployment {
    folder: Folder,
    teacher: Teacher,
    _databases: (Postgres, Redis),
}

impl Deployment {
    /// Everything before the services: secrets made by the script, databases, migrations.
    fn new() -> Self {
        let folder = Folder::with_problems([12, 4, 4], &SpecText::default()).unwrap();
        let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
        let (postgres, redis) = (Postgres::start().unwrap(), Redis::start().unwrap());
        let made = Command::new(root().join("scripts/deploy-secrets.sh"))
            .arg(folder.join("secrets"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        folder.write("secrets/database_url", postgres.url()).unwrap();
        folder.write("secrets/redis_url", redis.url()).unwrap();
        let deployment = Self { folder, teacher, _databases: (postgres, redis) };
        let migrate = [("DISTILLERY_DATABASE_URL_FILE", deployment.folder.join("secrets/database_url"))];
        let mut command = binary::command(deployment.folder.path(), &["migrate"]).unwrap();
        command.envs(migrate);
        let migrated = binary::output(command).unwrap();
        assert!(migrated.status.success(), "{}", String::from_utf8_lossy(&migrated.stderr));
        deployment
    }

    fn secret(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join("secrets").join(name)).unwrap()
    }

    /// Starts a role with the settings in `file` of the repository.
    fn start(&self, role: &str, file: &str, harvester: &str, more: &[(&str, &str)]) -> Service {
        let secrets = self.folder.join("secrets");
        let shared = self.folder.join("shared");
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let text = [
            ("/run/secrets", secrets.to_str().unwrap()),
            ("/etc/distillery/secrets", secrets.to_str().unwrap()),
            ("/var/lib/distillery/checkpoints", shared.to_str().unwrap()),
            ("http://harvester:7070", harvester),
            ("http://teacher:8089/v1", self.teacher.url()),
        ]
        .iter()
        .fold(text, |text, (from, to)| text.replace(from, to));
        let config = self.folder.write(&file.replace('/', "-"), text).unwrap();
        let mut settings = vec![("DISTILLERY_CONFIG", config.to_str().unwrap())];
        settings.extend(more);
        Service::start(self.folder.path(), role, &settings).unwrap()
    }

    fn say(&self, url: &str, token: &str, arguments: &[&str]) -> Said {
        let mut command = binary::command(self.folder.path(), arguments).unwrap();
        command.env("DISTILLERY_SERVER", url).env("DISTILLERY_TOKEN", self.secret(token));
        binary::output(command).unwrap().into()
    }

    /// Runs a job from submission to prediction, and checks the rights of each token.
    fn check(&self, harvester: &Service, inference: &Service) {
        let ended = self.say(harvester.url(), "cli_token", &["submit", "spec.toml", "--watch", "--json"]);
        assert_eq!(ended.code, 0, "{} {}", ended.out, ended.err);
        let worker = self.say(harvester.url(), "worker_token", &["delete", "job"]);
        assert_eq!(worker.code, 1, "{}", worker.err);
        let started = Instant::now();
        loop {
            // A model is served a moment after it is published.
            let arguments = ["predict", "--model", "job", "--input", "Ann has 3 pens.", "--json"];
            let said = self.say(inference.url(), "cli_token", &arguments);
            if said.code == 0 {
                println!("{}", said.out.trim());
                break;
            }
            assert!(started.elapsed() < LIMIT, "{}", said.err);
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(
            self.say(inference.url(), "worker_token", &["predict", "--model", "job", "--input", "x"]).code,
            1
        );
    }
}

#[test]
fn the_settings_of_compose_carry_a_job() {
    let deployment = Deployment::new();
    let start = |role: &str, harvester: &str| {
        deployment.start(role, &format!("deploy/compose/{role}.toml"), harvester, &[])
    };
    let harvester = start("harvester", "");
    let (trainer, inference) = (start("trainer", harvester.url()), start("inference", harvester.url()));
    deployment.check(&harvester, &inference);
    for service in [trainer, inference, harvester] {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}

#[test]
fn the_settings_of_kubernetes_carry_a_job() {
    let deployment = Deployment::new();
    let shared = deployment.folder.join("shared");
    let checkpoints = ("DISTILLERY_CHECKPOINTS_ROOT", shared.to_str().unwrap());
    let teacher = ("DISTILLERY_TEACHER_URL", deployment.teacher.url());
    // A delay that only a Kubernetes Service needs.
    let notice = ("DISTILLERY_SERVER_NOTICE_SECONDS", "0");
    let start = |role: &str, harvester: &str, more: &[(&str, &str)]| {
        deployment.start(role, &format!("deploy/kubernetes/base/config/{role}.toml"), harvester, more)
    };
    let harvester = start("harvester", "", &[notice]);
    let workers = start("harvester", "", &[notice, teacher, ("DISTILLERY_HARVESTER_WORKERS", "256")]);
    let trainer = start("trainer", harvester.url(), &[checkpoints]);
    let inference = start("inference", harvester.url(), &[checkpoints, notice]);
    deployment.check(&harvester, &inference);
    for service in [trainer, inference, workers, harvester] {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}
