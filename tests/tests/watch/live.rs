//! A job on a cluster, watched: a real Prometheus asks every role while it goes on, and every panel has something to show.

use crate::alerts::Rules;
use crate::dashboards::{Query, Source, dashboards, filled, list, queries, root, words};
use crate::records::Reader;
use serde_json::Value;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use tests::cluster::{Cluster, LIMIT, NOBODY, Work, alone, done, wait_for};
use tests::data::{SpecText, question, teach};
use tests::prometheus::{Job, Prometheus};
use tests::service::Service;
use tests::teacher::Reply;

/// How far rates look back here, where Prometheus asks each second.
const INTERVAL: &str = "10s";
/// Longer than the whole test.
const SPAN: Duration = Duration::from_secs(600);
/// The row whose question the teacher never answers.
const HOPELESS: &str = "box 7 ";
const ROLES: [&str; 3] = ["harvester", "trainer", "inference"];

/// A cluster whose processes Prometheus asks.
struct Watched {
    // Dropped in this order.
    prometheus: Prometheus,
    services: Vec<Service>,
    cluster: Cluster,
}

impl Watched {
    fn new() -> Self {
        let work = Work { rows: [80, 10, 12], steps: 80, delay: Duration::from_millis(250), concurrency: 4 };
        let cluster = Cluster::taught_by(work, move |asked| {
            // One prompt is garbage for ever, and each tenth call is asked to wait.
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
            let settings =
                [("DISTILLERY_ADMIN_LISTEN", admin.as_str()), ("DISTILLERY_HARVESTER_FAILURES_MAX", "2")];
            services.push(cluster.try_start(role, &harvester, &settings).unwrap());
            targets.push(vec![admin]);
        }
        let jobs: Vec<Job<'_>> =
            ROLES.iter().zip(&targets).map(|(role, targets)| Job { role, targets }).collect();
        let prometheus = Prometheus::start(&root().join("deploy/prometheus/rules/*.yml"), &jobs).unwrap();
        let watched = Self { prometheus, services, cluster };
        // Everything is seen at zero before it counts.
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

/// What the records show of the job while its prompts are asked.
fn check_harvest(watched: &Watched, reader: &mut Reader) {
    let sql = "SELECT state, progress, seconds_left, prompts_per_second, teacher FROM watch.jobs WHERE name = 'job'";
    let seen = wait_for("a harvest in the middle", || {
        let (rows, _) = reader.ask(sql).unwrap();
        let row = rows.into_iter().next()?;
        let share = row["progress"].as_f64().unwrap_or_default();
        (row["state"] == "harvesting" && share > 0.3 && share < 0.9).then_some(row)
    });
    println!("in the middle of the harvest: {seen}");
    assert!(seen["seconds_left"].as_f64().unwrap() > 0.0, "{seen}");
    assert!(seen["prompts_per_second"].as_f64().unwrap() > 1.0, "{seen}");
    assert_eq!(seen["teacher"], "local");
    let (rows, _) = reader.ask("SELECT sum(pending + leased) AS open FROM watch.backlog").unwrap();
    let open = rows[0]["open"].as_f64().unwrap();
    assert!(open > 0.0 && open < watched.cluster.work.prompts() as f64, "{open}");
}

/// A panel's query with what it shows.
fn show(query: &Query, count: usize, sample: &str) {
    let source = if query.source == Source::Metrics { "PromQL" } else { "SQL" };
    println!("| {} | {source} | `{}` | {count} | {sample} |", query.place, query.text);
}

fn ask(query: &Query, job: &str, watched: &Watched, reader: &mut Reader) -> (usize, String) {
    let text = filled(query, job, INTERVAL);
    match query.source {
        Source::Metrics => {
            let series = watched.prometheus.query(&text, SPAN).unwrap();
            let sample = series.iter().max_by(|one, other| one.newest.abs().total_cmp(&other.newest.abs()));
            let sample = sample.map(|series| format!("{} {:.6}", series.labels, series.newest));
            (series.len(), sample.unwrap_or_default())
        }
        Source::Records => {
            let (rows, took) = reader.ask(&text).unwrap_or_else(|error| panic!("{}: {error}", query.place));
            let sample = rows.first().map(|row| row.to_string().chars().take(160).collect::<String>());
            (rows.len(), format!("{} ({:.1} ms)", sample.unwrap_or_default(), took.as_secs_f64() * 1e3))
        }
    }
}

/// Asks every query of every dashboard, prints what it shows, and returns those that show nothing.
fn empty_panels(job: &str, watched: &Watched, reader: &mut Reader) -> Vec<String> {
    let mut empty = Vec::new();
    println!("| panel | language | query | series or rows | sample |");
    for (name, dashboard) in dashboards() {
        for query in queries(&name, &dashboard) {
            let (count, sample) = ask(&query, job, watched, reader);
            show(&query, count, &sample);
            if count == 0 {
                empty.push(query.place);
            }
        }
    }
    empty
}

/// No alert is in the air, and Prometheus could work out each.
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
    let mut reader = Reader::new(&watched.cluster.postgres);
    let began = Instant::now();
    watched.cluster.submit(watched.url(0));
    let other = SpecText { name: "other", ..SpecText::default() };
    watched.cluster.folder.write("other.toml", other.to_string()).unwrap();
    done(watched.cluster.say(watched.url(0), &["submit", "other.toml", "--json"]));
    done(watched.cluster.say(watched.url(0), &["cancel", "other"]));
    check_harvest(&watched, &mut reader);
    watched.cluster.watch(watched.url(0));
    let predict = ["predict", "--model", "job", "--explain", "--file", "test.jsonl", "--json"];
    for _ in 0..3 {
        // A model is served a moment after it is published.
        wait_for("the model is served", || {
            (watched.cluster.say(watched.url(2), &predict).code == 0).then_some(())
        });
    }
    // The newest numbers, and a rate over them.
    std::thread::sleep(Duration::from_secs(3));
    let (rows, _) = reader.ask("SELECT job FROM watch.jobs WHERE name = 'job'").unwrap();
    let job = words(&rows[0]["job"]).to_owned();
    println!("{:.1?} from submit to answers; job {job}", began.elapsed());
    let empty = empty_panels(&job, &watched, &mut reader);
    assert!(empty.is_empty(), "these show nothing: {empty:#?}");
    check_alerts(&watched);
    // A query that nothing answers would be seen.
    let nothing =
        watched.prometheus.query("sum (rate(distillery_prompts_harvest_total[10s]))", SPAN).unwrap();
    assert!(nothing.is_empty());
    assert!(Rules::read().check().is_ok());
    for service in watched.services {
        assert_eq!(service.stop(LIMIT).unwrap(), 0);
    }
}
