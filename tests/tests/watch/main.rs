//! Dashboards and alerts: every metric and label is in the table of names, every column is in a view, every panel has data
//! while a job runs, and planted mistakes are found.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

mod alerts;
mod command;
mod dashboards;
mod live;
mod promql;
mod records;

use command::output;
use dashboards::{PanelSource, Query, dashboards, filled, legend_labels, queries, root, words};
use domain::telemetry::METRICS;
use promql::{Names, Recorded};
use records::ReadOnlyConnection;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use tests::folder::Folder;
use tests::prometheus::tools;

/// The id of no job.
const NO_JOB: &str = "00000000-0000-0000-0000-000000000000";

/// The metrics in the Prometheus queries of all dashboards, or the first mistake.
fn check_metrics(all: &BTreeMap<String, Value>, recorded: &Recorded) -> Result<Names, String> {
    let mut named = Names::new();
    for query in all.iter().flat_map(|(name, dashboard)| queries(name, dashboard)) {
        if query.source == PanelSource::Metrics {
            named.extend(check_query(&query, recorded).map_err(|error| format!("{}: {error}", query.place))?);
        }
    }
    Ok(named)
}

fn check_query(query: &Query, recorded: &Recorded) -> Result<Names, String> {
    let used = promql::check(&filled(query, NO_JOB, "5m"), recorded)?;
    match legend_labels(&query.legend).into_iter().find(|label| !used.labels.contains(*label)) {
        Some(label) => Err(format!("the legend names `{label}`, and there is {:?}", used.labels)),
        None => Ok(used.metrics),
    }
}

/// Runs every SQL query of all dashboards, or returns the first that fails.
fn check_columns(all: &BTreeMap<String, Value>, reader: &mut ReadOnlyConnection) -> Result<usize, String> {
    let mut count = 0;
    for query in all.iter().flat_map(|(name, dashboard)| queries(name, dashboard)) {
        if query.source == PanelSource::Records {
            let asked = reader.ask(&filled(&query, NO_JOB, "5m"));
            asked.map_err(|error| format!("{}: {error}", query.place))?;
            count += 1;
        }
    }
    Ok(count)
}

/// The dashboards with one occurrence of `word` replaced.
fn planted(word: &str, other: &str) -> BTreeMap<String, Value> {
    let all = dashboards();
    let text = serde_json::to_string(&all).unwrap();
    assert!(text.contains(word), "nothing says `{word}`: there is nothing to plant");
    serde_json::from_str(&text.replacen(word, other, 1)).unwrap()
}

#[test]
fn panels_name_metrics_and_labels_of_the_table() {
    let named = check_metrics(&dashboards(), &Recorded::new()).unwrap();
    println!("{} metrics of {} are on panels", named.len(), METRICS.len());
    for (word, other, wanted) in [
        (
            "rate(distillery_prompts_harvested_total",
            "rate(distillery_prompts_answered_total",
            "distillery_prompts_answered_total",
        ),
        ("sum by (profile, outcome)", "sum by (teacher, outcome)", "no label `teacher`"),
        ("{cached=\\\"true\\\"}", "{stored=\\\"true\\\"}", "no label `stored`"),
        ("{{verdict}}", "{{reason}}", "the legend names `reason`"),
        ("max (distillery_queue_entries)", "rate(distillery_queue_entries[1m])", "is a gauge"),
        ("duration_seconds_bucket", "duration_seconds_sum", "no label `le`"),
    ] {
        let error = check_metrics(&planted(word, other), &Recorded::new()).unwrap_err();
        println!("planted {other}: {error}");
        assert!(error.contains(wanted), "{other}: {error}");
    }
}

#[test]
fn panels_read_columns_of_the_views() {
    let (_postgres, mut reader) = ReadOnlyConnection::of_an_empty_database();
    let count = check_columns(&dashboards(), &mut reader).unwrap();
    println!("{count} queries are understood");
    for (word, other) in [
        ("rationales_accepted", "rationales_taken"),
        ("FROM watch.spend", "FROM watch.spent"),
        ("concat_ws(", "joined("),
    ] {
        let error = check_columns(&planted(word, other), &mut reader).unwrap_err();
        println!("planted {other}: {error}");
        assert!(error.contains("does not exist"), "{other}: {error}");
    }
    // The role can read views and change nothing.
    for (sql, wanted) in [
        ("SELECT * FROM public.prompts", "permission denied"),
        ("SELECT * FROM public.completions", "permission denied"),
        ("SELECT nextval('public.outbox_sequence_seq')", "permission denied"),
    ] {
        let said = reader.ask(sql).map_or_else(|error| error.to_string(), |_| String::new());
        assert!(said.contains(wanted), "{sql}: {said}");
    }
}

#[test]
fn no_view_holds_what_was_said() {
    let (_postgres, mut reader) = ReadOnlyConnection::of_an_empty_database();
    let columns =
        "SELECT c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
                   WHERE c.relnamespace = 'watch'::regnamespace AND a.attnum > 0";
    let (rows, _) = reader.ask(columns).unwrap();
    assert!(rows.len() > 80, "{}", rows.len());
    let told = ["text", "prompt", "example", "rationale", "label", "completion", "key", "spec", "error"];
    for row in &rows {
        assert!(!told.contains(&words(&row["attname"])), "{row}");
    }
    // Quotations of teachers in failures are left out.
    let said = r"teacher `local` at http://h/v1 rejects the prompt (400): `Ann has 3 pens`";
    let (rows, _) = reader.ask(&format!("SELECT watch.unquoted('{said}') AS failure")).unwrap();
    assert_eq!(rows[0]["failure"], "teacher `local` at http://h/v1 rejects the prompt (400)");
    let (rows, _) = reader.ask(r#"SELECT watch.parsed('{"a": "\u0000b"}') ->> 'a' AS read"#).unwrap();
    assert_eq!(rows[0]["read"], "\u{fffd}b");
}

#[test]
fn dashboards_are_whole_and_lie_in_the_grid() {
    let all = dashboards();
    for (name, dashboard) in &all {
        dashboards::check(name, dashboard).unwrap();
    }
    let ids: Names = all.values().map(|dashboard| words(&dashboard["uid"]).to_owned()).collect();
    assert_eq!(ids.len(), all.len());
    for (word, other, wanted) in [
        ("\"w\":24", "\"w\":25", "outside of the grid"),
        ("\"x\":12", "\"x\":11", "lies on"),
        (
            "\"description\":\"As the teachers count",
            "\"descriptions\":\"As the teachers count",
            "no description",
        ),
        ("${profile}", "${teacher}", "no variable is called `teacher`"),
        ("\"unit\":\"reqps\"", "\"units\":\"reqps\"", "no unit"),
    ] {
        let planted = planted(word, other);
        let said = planted.iter().find_map(|(name, dashboard)| dashboards::check(name, dashboard).err());
        println!("planted {other}: {said:?}");
        assert!(said.as_deref().is_some_and(|said| said.contains(wanted)), "{other}: {said:?}");
    }
}

#[test]
fn dashboards_are_what_their_generator_writes() {
    let check = |folder: &Path| output(Command::new("python3").arg(folder.join("build.py")).arg("--check"));
    let said = check(&root().join("deploy/grafana"));
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    let copy = Folder::empty().unwrap();
    std::fs::copy(root().join("deploy/grafana/build.py"), copy.join("build.py")).unwrap();
    std::fs::create_dir(copy.join("dashboards")).unwrap();
    for (name, dashboard) in planted("Answers a second", "Answers") {
        let text = serde_json::to_string_pretty(&dashboard).unwrap() + "\n";
        std::fs::write(copy.join("dashboards").join(format!("{name}.json")), text).unwrap();
    }
    let said = String::from_utf8(check(copy.path()).stderr).unwrap();
    println!("planted: {said}");
    assert!(said.starts_with("stale: harvest.json: run"), "{said}");
}

#[test]
fn dashboards_follow_the_schema_of_grafana() {
    let tools = tools().unwrap();
    let check = |all: &BTreeMap<String, Value>| {
        let folder = Folder::empty().unwrap();
        let paths = all
            .iter()
            .map(|(name, dashboard)| folder.write(&format!("{name}.json"), dashboard.to_string()).unwrap());
        let mut node = Command::new(tools.join("bin/node"));
        node.arg(root().join("tests/grafana/schema.mjs")).arg(tools.join("node_modules")).args(paths);
        output(&mut node)
    };
    let sound = dashboards();
    let said = check(&sound);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    println!("{}", String::from_utf8_lossy(&said.stdout));
    for (word, other, wanted) in [
        ("\"gridPos\"", "\"gridPosition\"", "gridPosition"),
        ("\"fillOpacity\":8", "\"fillOpacity\":\"8\"", "'string' is not assignable to type 'number'"),
        ("\"graphMode\":\"area\"", "\"graphMode\":\"areas\"", "areas"),
        ("\"type\":\"trend\"", "\"type\":\"trends\"", "trends"),
        ("\"legendFormat\"", "\"legend_format\"", "legend_format"),
    ] {
        let mut changed = planted(word, other);
        changed.retain(|name, dashboard| sound.get(name) != Some(&*dashboard));
        let said = check(&changed);
        let errors = String::from_utf8_lossy(&said.stderr);
        println!("planted {other}: {}", errors.lines().next().unwrap_or_default());
        assert!(!said.status.success() && errors.contains(wanted), "{other}: {errors}");
    }
}

/// Words of a text that look like one of our metrics.
fn words_like_metrics(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.split(move |letter| !is_part(letter)).filter(|word| {
        let bare =
            ["_bucket", "_sum", "_count"].iter().find_map(|part| word.strip_suffix(part)).unwrap_or(word);
        let ends = [
            "_total",
            "_seconds",
            "_bytes",
            "_rows",
            "_tokens",
            "_nats",
            "_requests",
            "_runs",
            "_entries",
            "_models",
            "_info",
        ];
        word.starts_with("distillery_") && ends.iter().any(|end| bare.ends_with(end))
    })
}

#[test]
fn deployed_files_name_metrics_of_the_table() {
    let mut folders = vec![root().join("deploy")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            for word in words_like_metrics(&text) {
                assert!(promql::is_known(word), "{}: no metric is called `{word}`", path.display());
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count}");
    let scaler = "query: sum(distillery_prompts_waiting_requests) # and distillery_queue_entries";
    let found: Vec<&str> = words_like_metrics(scaler).collect();
    assert_eq!(found, ["distillery_prompts_waiting_requests", "distillery_queue_entries"]);
    assert_eq!(found.iter().map(|word| promql::is_known(word)).collect::<Vec<_>>(), [false, true]);
}

/// Metrics of the table that are in no panel and in no rule.
fn idle(all: &BTreeMap<String, Value>, watched: &Names) -> Vec<&'static str> {
    let shown = check_metrics(all, &Recorded::new()).unwrap();
    let names = METRICS.iter().map(|metric| metric.name);
    names.filter(|name| !shown.contains(*name) && !watched.contains(*name)).collect()
}

#[test]
fn every_metric_is_shown_or_watched() {
    let watched = alerts::Rules::read().check().unwrap();
    assert_eq!(idle(&dashboards(), &watched), [""; 0]);
    let text = serde_json::to_string(&dashboards()).unwrap().replace("(distillery_inference_models)", "(up)");
    assert_eq!(idle(&serde_json::from_str(&text).unwrap(), &watched), ["distillery_inference_models"]);
}
