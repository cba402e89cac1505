//! A job on a cluster with a real Prometheus that scrapes every role: every panel shows data while the job runs.

use crate::alerts::Rules;
use crate::dashboards::{PanelSource, Query, dashboards, filled, list, queries, root, words};
use crate::records::ReadOnlyConnection;
use serde_json::Value;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tests::cluster::{Cluster, LIMIT, NOBODY, Workload, alone, done, wait_for};
use tests::data::{SpecText, question, teach};
use tests::prometheus::{Prometheus, ScrapeJob, Series};
use tests::service::Service;
use tests::teacher::Reply;

/// The window of rates, for a scrape interval of one second.
const INTERVAL: &str = "10s";
/// Longer than the whole test.
const SPAN: Duration = Duration::from_secs(600);
/// The row that the teacher never answers.
const HOPELESS: &str = "box 7 ";
const ROLES: [&str; 3] = ["harvester", "trainer", "inference"];
/// Panels that may show only zero: without faults, or if Prometheus does not scrape at the right moment.
const CALM: [&str; 14] = [
    "harvest: Batches A",
    "harvest: Batches B",
    "harvest: Paid twice A",
    "harvest: Answers from the store A",
    "harvest: Stale answers A",
    "serving: Refused A",
    "serving: Given up A",
    "serving: Loads that failed, a day A",
    "serving: Refusals by reason A",
    // Students in their packed form are not padded.
    "serving: Padding A",
    "serving: Tokens that requests hold A",
    "system: Processes that do not A",
    "system: Calls that failed A",
    "training: Runs that failed, a day A",
];

/// A cluster whose processes Prometheus scrapes.
struct Watched {
    // Drop order matters.
    prometheus: Prometheus,
    services: Vec<Service>,
    cluster: Cluster,
}

impl Watched {
    fn new() -> Self {
        let work =
            Workload { rows: [80, 10, 12], steps: 600, delay: Duration::from_millis(250), concurrency: 4 };
        let cluster = Cluster::taught_by(work, move |asked| {
            // One prompt is always answered with garbage, and each tenth call with a request to wait.
            let reply = match asked {
                asked if question(&asked.prompt).contains(HOPELESS) => Reply::completion(""),
                asked if asked.before % 10 == 9 => Reply::status(429, "later").header("retry-after", "1"),
                asked => teach(&asked.prompt),
            };
            reply.after(work.delay)
        });
        let mut services: Vec<Service> = Vec::new();
        let mut targets: Vec<Vec<String>> = Vec::new();
        for role in ROLES {
            let harvester = services.first().map_or(NOBODY.to_owned(), |service| service.url().to_owned());
            let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let settings = [
                ("DISTILLERY_ADMIN_LISTEN", admin.as_str()),
                ("DISTILLERY_HARVESTER_FAILURES_MAX", "2"),
                ("DISTILLERY_TEACHERS_LOCAL_PRICE_IN_PER_MILLION", "10.0"),
            ];
            services.push(cluster.try_start(role, &harvester, &settings).unwrap());
            targets.push(vec![admin]);
        }
        let jobs: Vec<ScrapeJob<'_>> =
            ROLES.iter().zip(&targets).map(|(role, targets)| ScrapeJob { role, targets }).collect();
        let prometheus = Prometheus::start(&root().join("deploy/prometheus/rules/*.yml"), &jobs).unwrap();
        let watched = Self { prometheus, services, cluster };
        // Every series is scraped at zero before it counts.
        wait_for("Prometheus sees every role", || (watched.value("sum (up)")? >= 3.0).then_some(()));
        std::thread::sleep(Duration::from_secs(2));
        watched
    }

    fn url(&self, place: usize) -> &str {
        self.services[place].url()
    }

    fn value(&self, expression: &str) -> Option<f64> {
        Some(self.prometheus.query(expression, Duration::from_secs(2)).ok()?.first()?.newest)
    }
}

/// The job's row in the database once it is in `state` and partly done.
fn in_the_middle(reader: &mut ReadOnlyConnection, state: &str) -> Value {
    let sql =
        "SELECT state, progress, seconds_left, prompts_per_second, steps_per_second, teacher FROM watch.jobs
               WHERE name = 'job'";
    let seen = wait_for(state, || {
        let (rows, _) = reader.ask(sql).unwrap();
        let row = rows.into_iter().next()?;
        let progress = row["progress"].as_f64().unwrap_or_default();
        // The speed of a stage is known shortly after its start.
        let told = row["seconds_left"].is_number();
        (row["state"] == state && told && progress > 0.2 && progress < 0.9).then_some(row)
    });
    println!("in the middle: {seen}");
    assert!(seen["seconds_left"].as_f64().unwrap() > 0.0, "{seen}");
    assert_eq!(seen["teacher"], "local");
    seen
}

/// Checks the progress of the job in the database.
fn check_progress(watched: &Watched, reader: &mut ReadOnlyConnection) {
    let harvest = in_the_middle(reader, "harvesting");
    assert!(harvest["prompts_per_second"].as_f64().unwrap() > 1.0, "{harvest}");
    let (rows, _) = reader.ask("SELECT sum(pending + leased) AS open FROM watch.backlog").unwrap();
    let open = rows[0]["open"].as_f64().unwrap();
    assert!(open > 0.0 && open < watched.cluster.work.prompts() as f64, "{open}");
    let training = in_the_middle(reader, "training");
    assert!(training["steps_per_second"].as_f64().unwrap() > 0.1, "{training}");
    let (rows, _) = reader.ask("SELECT sum(pending + leased) AS open FROM watch.backlog").unwrap();
    assert_eq!(rows[0]["open"], Value::Null, "nobody is needed to harvest");
}

/// The result of a query: the number of series or rows, whether any is not zero, and a sample.
struct Shown {
    count: usize,
    moves: bool,
    sample: String,
}

fn ask(query: &Query, job: &str, watched: &Watched, reader: &mut ReadOnlyConnection) -> Shown {
    let text = filled(query, job, INTERVAL);
    match query.source {
        PanelSource::Metrics => {
            let series = watched.prometheus.query(&text, SPAN).unwrap();
            let most = series.iter().max_by(|one, other| one.largest.total_cmp(&other.largest));
            let words =
                |most: &Series| format!("{} {:.4}, at most {:.4}", most.labels, most.newest, most.largest);
            let sample = most.map(words).unwrap_or_default();
            Shown { count: series.len(), moves: most.is_some_and(|most| most.largest != 0.0), sample }
        }
        PanelSource::Records => {
            let (rows, took) = reader.ask(&text).unwrap_or_else(|error| panic!("{}: {error}", query.place));
            let row: String =
                rows.first().map(Value::to_string).unwrap_or_default().chars().take(160).collect();
            Shown {
                count: rows.len(),
                moves: true,
                sample: format!("{row} ({:.1} ms)", took.as_secs_f64() * 1e3),
            }
        }
    }
}

/// Runs every query of every dashboard, prints its result, and returns those without data.
fn empty_panels(job: &str, watched: &Watched, reader: &mut ReadOnlyConnection) -> Vec<String> {
    let mut empty = Vec::new();
    println!("| panel | language | query | series or rows | sample |");
    for (name, dashboard) in dashboards() {
        for query in queries(&name, &dashboard) {
            let shown = ask(&query, job, watched, reader);
            let language = if query.source == PanelSource::Metrics { "PromQL" } else { "SQL" };
            println!(
                "| {} | {language} | `{}` | {} | {} |",
                query.place, query.text, shown.count, shown.sample
            );
            if shown.count == 0 || !shown.moves && !CALM.contains(&query.place.as_str()) {
                empty.push(query.place);
            }
        }
    }
    empty
}

/// Checks that no alert is active, and that Prometheus could evaluate each.
fn check_alerts(watched: &Watched) {
    for rule in watched.prometheus.rules().unwrap() {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_ne!(rule["state"], "firing", "{rule}");
        let pending: Vec<&Value> = list(&rule["alerts"]).collect();
        if !pending.is_empty() {
            println!("pending: {} {:?}", words(&rule["name"]), pending);
        }
    }
}

#[test]
fn every_panel_shows_something_while_a_job_goes_on() {
    let _alone = alone();
    let watched = Watched::new();
    let mut reader = ReadOnlyConnection::new(&watched.cluster.postgres);
    let began = Instant::now();
    watched.cluster.submit(watched.url(0));
    let other = SpecText { name: "other", ..SpecText::default() };
    watched.cluster.folder.write("other.toml", other.to_string()).unwrap();
    done(watched.cluster.say(watched.url(0), &["submit", "other.toml", "--json"]));
    done(watched.cluster.say(watched.url(0), &["cancel", "other"]));
    check_progress(&watched, &mut reader);
    watched.cluster.watch(watched.url(0));
    println!("{:.1?} from submit to success", began.elapsed());
    let predict = ["predict", "--model", "job", "--explain", "--file", "test.jsonl", "--json"];
    for _ in 0..3 {
        // A model is served a moment after it is published.
        wait_for("the model is served", || {
            let said = watched.cluster.say(watched.url(2), &predict);
            println!("{:.1?} from submit to an answer: {} {}", began.elapsed(), said.code, said.err.trim());
            (said.code == 0).then_some(())
        });
    }
    // Wait for the newest values and a rate over them.
    std::thread::sleep(Duration::from_secs(3));
    let (rows, _) = reader.ask("SELECT job FROM watch.jobs WHERE name = 'job'").unwrap();
    let job = words(&rows[0]["job"]).to_owned();
    let empty = empty_panels(&job, &watched, &mut reader);
    assert!(empty.is_empty(), "these show nothing: {empty:#?}");
    check_alerts(&watched);
    // A query without data is noticed.
    let nothing =
        watched.prometheus.query("sum (rate(distillery_prompts_harvest_total[10s]))", SPAN).unwrap();
    assert!(nothing.is_empty());
    assert!(Rules::read().check().is_ok());
    for service in watched.services {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}
