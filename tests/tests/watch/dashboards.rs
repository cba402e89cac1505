//! The dashboards, as Grafana reads them: panels, queries and layout.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Grafana's grid.
const COLUMNS: u64 = 24;
/// Variables that Grafana provides.
const BUILT_IN: [&str; 5] = ["__rate_interval", "__timeFilter", "__url_time_range", "__data", "__value"];

/// The data source of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PanelSource {
    /// PromQL for Prometheus.
    Metrics,
    /// SQL for PostgreSQL.
    Records,
}

/// A query of a panel or a variable.
#[derive(Debug)]
pub(crate) struct Query {
    /// Dashboard and panel.
    pub(crate) place: String,
    pub(crate) source: PanelSource,
    pub(crate) text: String,
    /// The legend of its series.
    pub(crate) legend: String,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every dashboard by its name.
pub(crate) fn dashboards() -> BTreeMap<String, Value> {
    let folder = root().join("deploy/grafana/dashboards");
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap())
    };
    let found: BTreeMap<String, Value> = files.map(read).collect();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["harvest", "jobs", "serving", "system", "training"]);
    found
}

/// The panels without row headings.
pub(crate) fn panels(dashboard: &Value) -> Vec<&Value> {
    list(&dashboard["panels"]).filter(|panel| panel["type"] != "row").collect()
}

/// Every query of a dashboard: of its panels, then of its variables.
pub(crate) fn queries(name: &str, dashboard: &Value) -> Vec<Query> {
    let mut found = Vec::new();
    for panel in panels(dashboard) {
        for target in list(&panel["targets"]) {
            let place = format!("{name}: {} {}", words(&panel["title"]), words(&target["refId"]));
            let (source, text) = match words(&target["datasource"]["uid"]) {
                "${prometheus}" => (PanelSource::Metrics, words(&target["expr"])),
                "${postgres}" => (PanelSource::Records, words(&target["rawSql"])),
                other => panic!("{place}: asks `{other}`"),
            };
            let legend = target["legendFormat"].as_str().unwrap_or_default().to_owned();
            found.push(Query { place, source, text: text.to_owned(), legend });
        }
    }
    for variable in list(&dashboard["templating"]["list"]).filter(|variable| variable["type"] == "query") {
        let place = format!("{name}: variable {}", words(&variable["name"]));
        let (source, text) = match &variable["query"] {
            Value::String(sql) => (PanelSource::Records, sql.clone()),
            query => (PanelSource::Metrics, in_promql(words(&query["query"]))),
        };
        found.push(Query { place, source, text, legend: String::new() });
    }
    found
}

/// `label_values(metric, label)` as PromQL.
fn in_promql(text: &str) -> String {
    let inner = text.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (metric, label) = inner.and_then(|inner| inner.split_once(',')).unwrap_or_else(|| panic!("{text}"));
    // The label values of a counter are those of its rate.
    let series = if metric.ends_with("_total") { format!("rate({metric}[1m])") } else { metric.to_owned() };
    format!("count by ({}) ({series})", label.trim())
}

/// A query with its variables replaced as Grafana does, for one job and the last hour.
pub(crate) fn filled(query: &Query, job: &str, interval: &str) -> String {
    let mut text = query.text.replace("$__rate_interval", interval).replace("${job}", job);
    for choice in ["${profile}", "${role}"] {
        text = text.replace(choice, ".*");
    }
    while let Some((before, rest)) = text.split_once("$__timeFilter(") {
        let (column, after) = rest.split_once(')').unwrap_or_else(|| panic!("{}", query.text));
        text = format!("{before}{column} BETWEEN now() - INTERVAL '1 hour' AND now(){after}");
    }
    assert!(!text.contains('$'), "{}: {text}", query.place);
    text
}

/// Checks a dashboard except for its queries.
pub(crate) fn check(name: &str, dashboard: &Value) -> Result<(), String> {
    if dashboard["uid"] != format!("distillery-{name}") {
        return Err(format!("{name}: its uid is {}", dashboard["uid"]));
    }
    check_places(name, dashboard)?;
    let declared: BTreeSet<&str> =
        list(&dashboard["templating"]["list"]).map(|variable| words(&variable["name"])).collect();
    for used in variables(&dashboard.to_string()) {
        if !declared.contains(used.as_str()) && !BUILT_IN.contains(&used.as_str()) {
            return Err(format!("{name}: no variable is called `{used}`"));
        }
    }
    for panel in panels(dashboard) {
        let (title, defaults) = (words(&panel["title"]), &panel["fieldConfig"]["defaults"]);
        let missing = [
            ("title", title.is_empty()),
            ("description", panel["description"].as_str().is_none_or(|text| !text.ends_with('.'))),
            ("unit", defaults["unit"].as_str().is_none_or(str::is_empty)),
            ("thresholds", list(&defaults["thresholds"]["steps"]).next().is_none()),
            ("targets", list(&panel["targets"]).next().is_none()),
        ];
        if let Some((what, _)) = missing.iter().find(|(_, missing)| *missing) {
            return Err(format!("{name}: `{title}` has no {what}"));
        }
    }
    Ok(())
}

/// Checks that panels are inside the grid and do not overlap.
fn check_places(name: &str, dashboard: &Value) -> Result<(), String> {
    let (mut taken, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = words(&panel["title"]);
        let at = |side: &str| panel["gridPos"][side].as_u64().unwrap_or(u64::MAX);
        let (x, y, width, height) = (at("x"), at("y"), at("w"), at("h"));
        if width == 0 || height == 0 || height > 100 || x.saturating_add(width) > COLUMNS {
            return Err(format!("{name}: `{title}` lies outside of the grid"));
        }
        if !ids.insert(panel["id"].as_u64()) {
            return Err(format!("{name}: `{title}` has the id of another panel"));
        }
        for cell in (x..x + width).flat_map(|column| (y..y + height).map(move |line| (column, line))) {
            if let Some(other) = taken.insert(cell, title) {
                return Err(format!("{name}: `{title}` lies on `{other}`"));
            }
        }
    }
    Ok(())
}

/// The variables in a text, as `$name` or `${name...}`.
fn variables(text: &str) -> BTreeSet<String> {
    let named = |part: &str| -> String {
        let part = part.strip_prefix('{').unwrap_or(part);
        part.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
    };
    // Values of Grafana such as `$__all` are no variables.
    text.split('$').skip(1).map(named).filter(|name| !name.is_empty() && name != "__all").collect()
}

/// The labels in a legend.
pub(crate) fn legend_labels(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|part| Some(part.split_once("}}")?.0.trim())).collect()
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn words(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
