//! `cargo xtask tidy`: the rules of the house that no compiler checks. Who may import whom, where versions live, and
//! that every room stands in the README's code map.

use crate::boundary;
use crate::circles;
use crate::repository;
use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A room: the workspace crates it may import, and the foreign ones that it never does.
struct Room {
    name: &'static str,
    imports: &'static [&'static str],
    never: &'static [&'static str],
}

/// The edges, as the README's code map states them. They bind normal dependencies; tests may name more.
const ROOMS: &[Room] = &[
    Room {
        name: "domain",
        imports: &[],
        never: &["tonic", "sqlx", "redis", "tch", "reqwest", "tokio", "tracing", "metrics", "opentelemetry"],
    },
    Room { name: "readers", imports: &["domain"], never: NO_SERVER },
    Room { name: "checkpoints", imports: &["domain"], never: NO_SERVER },
    Room { name: "wire", imports: &["domain"], never: &["sqlx", "redis", "tch"] },
    Room { name: "t5", imports: &[], never: &["tonic", "sqlx", "redis", "tokio"] },
    Room { name: "teacher", imports: &["domain"], never: NO_SERVER },
    Room { name: "embedded", imports: &["domain"], never: &["tonic", "tch"] },
    Room { name: "distributed", imports: &["domain"], never: &["tonic", "tch"] },
    Room { name: "conformance", imports: &["domain"], never: &["tonic", "tch"] },
    Room { name: "harvester", imports: &["domain", "wire", "teacher"], never: &["sqlx", "redis", "tch"] },
    Room {
        name: "student",
        imports: &["domain", "checkpoints", "t5"],
        never: &["tokio", "tonic", "sqlx", "redis"],
    },
    Room {
        name: "trainer",
        imports: &["domain", "wire", "checkpoints", "t5", "student"],
        never: &["sqlx", "redis", "tokenizers"],
    },
    Room {
        name: "inference",
        imports: &["domain", "wire", "checkpoints", "student"],
        never: &["sqlx", "redis", "tch", "tokenizers"],
    },
    Room { name: "app", imports: EVERY_ROOM_BELOW_APP, never: &[] },
    Room { name: "cli", imports: &["app", "wire", "domain", "readers"], never: &["sqlx", "redis", "tch"] },
    Room { name: "xtask", imports: &["domain"], never: &[] },
    Room { name: "tests", imports: &["domain", "wire"], never: &["tch"] },
];

const NO_SERVER: &[&str] = &["tonic", "sqlx", "redis", "tch"];
const EVERY_ROOM_BELOW_APP: &[&str] = &[
    "domain",
    "readers",
    "checkpoints",
    "wire",
    "t5",
    "student",
    "teacher",
    "embedded",
    "distributed",
    "harvester",
    "trainer",
    "inference",
];

/// Edges between files that close a circle today, still to be opened. The list only shrinks: an entry that closes no
/// circle any more is a fault.
const KNOWN_CIRCLES: &[circles::Edge] = &[
    ("crates/checkpoints/src/lib.rs", "crates/checkpoints/src/bucket.rs"),
    ("crates/inference/src/engine.rs", "crates/inference/src/lib.rs"),
    ("crates/inference/src/served.rs", "crates/inference/src/engine.rs"),
    ("crates/inference/src/watch.rs", "crates/inference/src/lib.rs"),
    ("crates/readers/src/paper/mod.rs", "crates/readers/src/paper/report.rs"),
    ("crates/readers/src/rows.rs", "crates/readers/src/csv.rs"),
    ("crates/readers/src/rows.rs", "crates/readers/src/jsonl.rs"),
    ("crates/readers/src/rows.rs", "crates/readers/src/parquet.rs"),
    ("crates/trainer/src/link.rs", "crates/trainer/src/lib.rs"),
    ("crates/trainer/src/student.rs", "crates/trainer/src/lib.rs"),
    ("crates/trainer/src/student.rs", "crates/trainer/src/resume.rs"),
];

/// Checks everything, and names every fault.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    if let Some(other) = arguments.next() {
        bail!("tidy takes no arguments, not `{other}`");
    }
    let faults = faults(&repository::root()?)?;
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let metadata = MetadataCommand::new().manifest_path(root.join("Cargo.toml")).no_deps().exec()?;
    let readme = fs::read_to_string(root.join("README.md")).context("README.md")?;
    let mut faults = check_edges(&edges(&metadata));
    let mut graphs = Vec::new();
    for package in &metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)?;
        let name = package.name.as_str();
        let folder = package.manifest_path.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
        faults.extend(check_manifest(name, folder, &manifest));
        if !readme.contains(&format!("`{name}`")) {
            faults.push(format!("README.md: the code map does not name `{name}`"));
        }
        graphs.extend(circles::graphs(root, package)?);
    }
    faults.extend(circles::faults(&graphs, KNOWN_CIRCLES));
    faults.extend(boundary::faults(root)?);
    Ok(faults)
}

/// The normal dependencies of every workspace crate.
fn edges(metadata: &Metadata) -> BTreeMap<String, Vec<String>> {
    let normal = |package: &cargo_metadata::Package| {
        let kinds =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        kinds.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), normal(package))).collect()
}

fn check_edges(edges: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, imports) in edges {
        let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
            faults.push(format!(
                "{name}: is no room of the house: give it one in xtask's tidy and in the README"
            ));
            continue;
        };
        for import in imports {
            if edges.contains_key(import) && !room.imports.contains(&import.as_str()) {
                let may =
                    if room.imports.is_empty() { "nothing".to_owned() } else { room.imports.join(", ") };
                faults.push(format!("{name} -> {import}: {name} may import {may} of this workspace"));
            }
            if room.never.contains(&import.as_str()) {
                faults.push(format!("{name} -> {import}: {name} never imports {}", room.never.join(", ")));
            }
        }
    }
    faults
}

/// Versions and lints live in the workspace's manifest; a folder is called as its crate.
fn check_manifest(name: &str, folder: &str, manifest: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if name != folder {
        faults.push(format!("{folder}: holds the crate `{name}`: folder and crate have one name"));
    }
    if !manifest.contains("[lints]\nworkspace = true") {
        faults.push(format!("{name}: does not take the workspace's lints: add [lints] workspace = true"));
    }
    let mut in_dependencies = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_dependencies = line.contains("dependencies");
        } else if in_dependencies && line.contains('=') && !line.starts_with('#') {
            let shared = line.contains(".workspace = true") || line.contains("workspace = true");
            if !shared {
                faults.push(format!("{name}: `{line}`: a version lives in the workspace's manifest only"));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        assert_eq!(faults(&repository::root().unwrap()).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_forbidden_edge_is_named() {
        let check = |name: &str, import: &str, wanted: &str| {
            let workspace = ["domain", "embedded", "harvester", "trainer", "t5", "cli", "teacher"];
            let mut edges: BTreeMap<String, Vec<String>> =
                workspace.iter().map(|name| ((*name).to_owned(), Vec::new())).collect();
            edges.entry(name.to_owned()).or_default().push(import.to_owned());
            let faults = check_edges(&edges);
            if wanted.is_empty() {
                assert_eq!(faults, Vec::<String>::new(), "{name} -> {import}");
            } else {
                assert!(faults.iter().any(|fault| fault.contains(wanted)), "{name} -> {import}: {faults:?}");
            }
        };
        check("harvester", "domain", "");
        check("harvester", "serde_json", "");
        check("harvester", "embedded", "harvester -> embedded: harvester may import domain, wire, teacher");
        check("harvester", "tch", "harvester -> tch: harvester never imports sqlx, redis, tch");
        check("trainer", "harvester", "trainer -> harvester");
        check("domain", "tokio", "domain -> tokio: domain never imports");
        check("t5", "domain", "t5 may import nothing of this workspace");
        check("cli", "embedded", "cli -> embedded");
        check("shed", "domain", "shed: is no room of the house");
    }

    #[test]
    fn a_manifest_with_rules_of_its_own_is_named() {
        let sound = "[package]\nname = \"a\"\n[lints]\nworkspace = true\n[dependencies]\nx.workspace = true\n\
                     y = { workspace = true, features = [\"z\"] }\n";
        assert_eq!(check_manifest("a", "a", sound), Vec::<String>::new());
        let check = |folder: &str, manifest: &str, wanted: &str| {
            let faults = check_manifest("a", folder, manifest);
            assert!(faults.iter().any(|fault| fault.contains(wanted)), "{faults:?}");
        };
        check("b", sound, "b: holds the crate `a`");
        check("a", &sound.replace("[lints]", "[lint]"), "does not take the workspace's lints");
        check("a", &sound.replace("x.workspace = true", "x = \"1\""), "`x = \"1\"`: a version lives");
    }
}
