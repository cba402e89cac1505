//! The alerts, as Prometheus reads them.

use crate::command::output;
use crate::dashboards::{root, words};
use crate::promql::{self, Names, Recorded};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;
use tests::folder::Folder;
use tests::prometheus::{Prometheus, tools};

/// Every rule of deploy/prometheus/rules.
pub(crate) struct Rules(Vec<Value>);

impl Rules {
    pub(crate) fn read() -> Self {
        Self::read_of(&root().join("deploy/prometheus/rules/*.yml"))
    }

    fn read_of(pattern: &std::path::Path) -> Self {
        let rules = Prometheus::start(pattern, &[]).unwrap().rules().unwrap();
        assert!(!rules.is_empty(), "{}", pattern.display());
        Self(rules)
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |rule| rule["type"] == kind)
    }

    /// The metrics in the rules, or the first mistake.
    pub(crate) fn check(&self) -> Result<Names, String> {
        let (mut recorded, mut named) = (Recorded::new(), Names::new());
        for rule in self.of_kind("recording") {
            let used = promql::check(words(&rule["query"]), &recorded)?;
            let labels = rule["labels"].as_object().into_iter().flat_map(|labels| labels.keys().cloned());
            let all: Names = used.labels.into_iter().chain(labels).collect();
            recorded.entry(words(&rule["name"]).to_owned()).or_default().extend(all);
            named.extend(used.metrics);
        }
        for rule in self.of_kind("alerting") {
            let name = words(&rule["name"]);
            let used = promql::check(words(&rule["query"]), &recorded)
                .map_err(|error| format!("{name}: {error}"))?;
            check_words(rule, &used.labels).map_err(|error| format!("{name}: {error}"))?;
            named.extend(used.metrics);
        }
        Ok(named)
    }
}

/// Checks that an alert has severity, summary and runbook link, and that its texts use labels it has.
fn check_words(rule: &Value, labels: &Names) -> Result<(), String> {
    let severity = words(&rule["labels"]["severity"]);
    if !["warning", "critical"].contains(&severity) {
        return Err(format!("its severity is `{severity}`"));
    }
    for annotation in ["summary", "description", "runbook_url"] {
        let text = words(&rule["annotations"][annotation]);
        if text.is_empty() {
            return Err(format!("has no {annotation}"));
        }
        for label in text.split("$labels.").skip(1).filter_map(|part| part.split([' ', '}']).next()) {
            if !labels.contains(label) {
                return Err(format!("its {annotation} names the label `{label}`, and there is {labels:?}"));
            }
        }
    }
    check_runbook(words(&rule["annotations"]["runbook_url"]), words(&rule["name"]))
}

/// Checks that the link leads to the alert's section.
fn check_runbook(link: &str, name: &str) -> Result<(), String> {
    let (file, section) = link.split_once('#').ok_or("its runbook_url names no section")?;
    let text = std::fs::read_to_string(root().join(file)).map_err(|error| format!("{file}: {error}"))?;
    let heading = text.lines().filter_map(|line| line.strip_prefix("## ")).find(|heading| *heading == name);
    if heading.is_none() || section != name.to_lowercase() {
        return Err(format!("its runbook_url `{link}` leads to no section of its own"));
    }
    let body = text.split(&format!("## {name}\n")).nth(1).unwrap_or_default();
    let body = body.split("\n## ").next().unwrap_or_default();
    match ["**Means**", "**Look**", "**Do**"].iter().find(|part| !body.contains(*part)) {
        Some(part) => Err(format!("its section of {file} has no {part}")),
        None => Ok(()),
    }
}

fn promtool(arguments: &[&str], folder: &std::path::Path) -> Result<String, String> {
    let said =
        output(Command::new(tools().unwrap().join("bin/promtool")).args(arguments).current_dir(folder));
    let text = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    if said.status.success() { Ok(text) } else { Err(text) }
}

fn files(folder: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    assert!(!found.is_empty(), "{folder}");
    found
}

/// A copy of deploy/prometheus with one word replaced.
fn planted(file: &str, word: &str, other: &str) -> Folder {
    let copy = Folder::empty().unwrap();
    for folder in ["rules", "tests"] {
        std::fs::create_dir(copy.join(folder)).unwrap();
        for path in files(&format!("deploy/prometheus/{folder}")) {
            std::fs::copy(&path, copy.join(folder).join(path.file_name().unwrap())).unwrap();
        }
    }
    let text = std::fs::read_to_string(copy.join(file)).unwrap();
    assert!(text.contains(word), "{file} does not say `{word}`");
    std::fs::write(copy.join(file), text.replace(word, other)).unwrap();
    copy
}

fn tests_of(folder: &std::path::Path) -> Result<String, String> {
    let names = files("deploy/prometheus/tests");
    let names: Vec<String> =
        names.iter().map(|path| format!("tests/{}", path.file_name().unwrap().display())).collect();
    let arguments: Vec<&str> =
        ["test", "rules"].into_iter().chain(names.iter().map(String::as_str)).collect();
    promtool(&arguments, folder)
}

#[test]
fn rules_name_metrics_of_the_table_and_sections_of_the_runbook() {
    let rules = Rules::read();
    let named = rules.check().unwrap();
    println!("{} alerts watch {} metrics", rules.of_kind("alerting").count(), named.len());
    for (file, word, other, wanted) in [
        (
            "rules/harvest.yml",
            "distillery_queue_entries",
            "distillery_queue_length",
            "no metric is called `distillery_queue_length`",
        ),
        ("rules/harvest.yml", "sum by (profile)", "sum by (teacher)", "no label `teacher`"),
        ("rules/serving.yml", "{outcome=\"failed\"}", "{result=\"failed\"}", "no label `result`"),
        (
            "rules/processes.yml",
            "distillery:process_memory_limit_bytes) >",
            "distillery:memory) >",
            "no metric is called",
        ),
        ("rules/training.yml", "#notrainer", "#trainer", "leads to no section"),
        (
            "rules/training.yml",
            "{{ $labels.instance }}",
            "{{ $labels.trainer }}",
            "names the label `trainer`",
        ),
        ("rules/serving.yml", "severity: critical", "severity: bad", "its severity is `bad`"),
    ] {
        let copy = planted(file, word, other);
        let error = Rules::read_of(&copy.join("rules/*.yml")).check().unwrap_err();
        println!("planted {other}: {error}");
        assert!(error.contains(wanted), "{other}: {error}");
    }
    // No section without an alert.
    let text = std::fs::read_to_string(root().join("deploy/RUNBOOK.md")).unwrap();
    let sections: Names =
        text.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let alerts: Names = rules.of_kind("alerting").map(|rule| words(&rule["name"]).to_owned()).collect();
    assert_eq!(sections, alerts);
}

#[test]
fn promtool_accepts_the_configuration_and_the_rules() {
    let folder = root().join("deploy/prometheus");
    let said = promtool(&["check", "config", "prometheus.yml"], &folder).unwrap();
    println!("{said}");
    assert!(said.contains("SUCCESS: 4 rule files found"), "{said}");
    let copy = planted("rules/harvest.yml", "for: 10m", "for: ten");
    let error = promtool(&["check", "rules", "rules/harvest.yml"], copy.path()).unwrap_err();
    assert!(error.contains("ten"), "{error}");
}

#[test]
fn every_alert_fires_when_it_should_and_not_before() {
    let folder = root().join("deploy/prometheus");
    let said = tests_of(&folder).unwrap();
    println!("{said}");
    // Each alert is tested firing and not firing.
    let text: String =
        files("deploy/prometheus/tests").iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for rule in Rules::read().of_kind("alerting") {
        let name = words(&rule["name"]);
        let (mut firing, mut silent) = (0, 0);
        for part in text.split(&format!("alertname: {name}\n")).skip(1) {
            let next = part.lines().next().unwrap_or_default().trim();
            if next == "exp_alerts: []" { silent += 1 } else { firing += 1 }
        }
        assert!(firing > 0 && silent > 0, "{name}: {firing} tests see it firing, {silent} silent");
    }
    for (file, word, other) in [
        ("rules/harvest.yml", "[5m])) > 0.2", "[5m])) > 0.9"),
        ("rules/processes.yml", "for: 2m", "for: 20m"),
        ("rules/serving.yml", "> 10\n", "> 100\n"),
        ("rules/training.yml", "unless sum (distillery_training_active_runs) > 0", ""),
    ] {
        let error = tests_of(planted(file, word, other).path()).unwrap_err();
        assert!(error.contains("FAILED"), "{other}: {error}");
    }
}
