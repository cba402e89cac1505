//! `distillery bench-serve`: an open load on a served student.

use crate::answers::rows_of;
use crate::args::BenchServeArguments;
use crate::client::models::name_and_version;
use crate::client::student::Student;
use crate::exit::Usage;
use crate::html::write_whole;
use crate::load::calls::Load;
use crate::load::knee::{Rates, Search};
use crate::load::pace::{self, Sender};
use crate::load::picture::picture;
use crate::load::tally::Tally;
use crate::load::told::{self, Knee};
use crate::target::{self, Service, unless_interrupted};
use crate::terminal::{print_json, print_lines, say};
use anyhow::bail;
use app::config::Config;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The rate where none is named.
const RATE: f64 = 10.0;

/// See [`crate::args::Verb::BenchServe`].
pub(crate) async fn bench_serve(
    config: Config,
    arguments: BenchServeArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    // The rows are read first: a mistake in them is reported before anything is sent.
    let rows = rows_of(&arguments.file, &arguments.columns)?;
    let (tallies, url) = unless_interrupted(&shutdown, async {
        let (students, url) = connect(&config, &arguments).await?;
        let load = load(&arguments, rows.len());
        let sender = Sender {
            students,
            rows,
            deadline: arguments.deadline.map(|ms| Duration::from_millis(ms.into())),
            in_flight_max: usize::try_from(arguments.in_flight)?,
        };
        Ok((measure(&arguments, Arc::new(sender), load).await?, url))
    })
    .await?;
    tell(&arguments, &url, &tallies)
}

/// The student over as many connections as are asked for.
async fn connect(config: &Config, arguments: &BenchServeArguments) -> anyhow::Result<(Vec<Student>, String)> {
    let words = "--server: name an inference service (or set DISTILLERY_SERVER); `distillery serve --role all` is one";
    let urls = arguments.server.url().ok_or_else(|| Usage(words.to_owned()))?;
    let (model, version) = name_and_version(&arguments.model)?;
    let mut students = Vec::new();
    for _ in 0..arguments.connections {
        let channel = target::find(&config.client, urls, &arguments.server, Service::Answers).await?;
        students.push(Student { channel, model: model.clone(), version });
    }
    Ok((students, urls.to_owned()))
}

/// The load at the first rate.
fn load(arguments: &BenchServeArguments, rows: usize) -> Load {
    Load {
        arrivals: arguments.arrivals,
        rate: RATE,
        seconds: arguments.seconds,
        mix: arguments.mix.clone(),
        rows,
        cancel: arguments.cancel,
        cancel_within: Duration::from_millis(arguments.cancel_within.into()),
        seed: arguments.seed,
    }
}

/// Every rate, one after another.
async fn measure(
    arguments: &BenchServeArguments,
    sender: Arc<Sender>,
    load: Load,
) -> anyhow::Result<Vec<Tally>> {
    let mut rates = match (arguments.knee, arguments.rates.is_empty()) {
        (true, _) => Rates::Search(Search::new(arguments.from)),
        (false, false) => Rates::Named(arguments.rates.clone().into_iter()),
        (false, true) => Rates::Named(vec![arguments.rate.unwrap_or(RATE)].into_iter()),
    };
    let mut tallies = Vec::new();
    while let Some(rate) = rates.next() {
        say(&format!("rate {}/s for {} s", told::rate(rate), arguments.seconds));
        let tally = pace::send(Arc::clone(&sender), Load { rate, ..load.clone() }).await?;
        say(&told::line(&tally));
        rates.saw(rate, tally.is_held(arguments.held_p99.into()));
        tallies.push(tally);
    }
    tallies.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    Ok(tallies)
}

fn tell(arguments: &BenchServeArguments, url: &str, tallies: &[Tally]) -> anyhow::Result<()> {
    let p99_ms_max = f64::from(arguments.held_p99);
    let knee = arguments.knee.then(|| {
        let held = tallies.iter().filter(|tally| tally.is_held(p99_ms_max)).map(|tally| tally.rate);
        Knee { rate: held.max_by(f64::total_cmp), p99_ms_max }
    });
    if let Some(path) = &arguments.picture {
        let title = format!("Latency of {} against rate", named(arguments));
        write_whole(path, picture(&title, tallies, knee.and_then(|knee| knee.rate)).as_bytes())?;
    }
    if arguments.json {
        print_json(&json(arguments, url, tallies, knee))?;
    } else {
        print_lines(&told::lines(tallies, knee))?;
    }
    // A measurement of nothing is none, whatever was counted.
    let failed = tallies.iter().flat_map(|tally| &tally.failures).next();
    match failed {
        Some((code, (_, words))) if tallies.iter().all(|tally| tally.all.answered == 0) => {
            bail!("no call was answered: {code}: {words}")
        }
        _ => Ok(()),
    }
}

fn named(arguments: &BenchServeArguments) -> &str {
    if arguments.model.is_empty() { "the student" } else { &arguments.model }
}

fn json(
    arguments: &BenchServeArguments,
    url: &str,
    tallies: &[Tally],
    knee: Option<Knee>,
) -> serde_json::Value {
    let mix: serde_json::Map<String, serde_json::Value> =
        arguments.mix.iter().map(|(ask, weight)| (ask.as_str().to_owned(), (*weight).into())).collect();
    serde_json::json!({
        "server": url,
        "model": arguments.model,
        "arrivals": arguments.arrivals.as_str(),
        "seconds": arguments.seconds,
        "mix": mix,
        "cancel": arguments.cancel,
        "deadline_ms": arguments.deadline,
        "connections": arguments.connections,
        "in_flight_max": arguments.in_flight,
        "seed": arguments.seed,
        "rates": told::rates_json(tallies),
        "knee": knee.map(|knee| serde_json::json!({"rate": knee.rate, "p99_ms_max": knee.p99_ms_max})),
        "picture": arguments.picture,
    })
}
