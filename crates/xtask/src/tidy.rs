//! `cargo xtask tidy`: the rules that no compiler checks. Which crate may import which (`edges.toml`), circles between
//! files, where messages are named, where versions live, the changelog's form, and that the README names every crate.

use crate::{boundary, changelog, circles, repository};
use anyhow::{Context, bail};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The workspace crates that a crate may import, and the foreign ones that it never does.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    imports: Vec<String>,
    never: Vec<String>,
}

/// The rule of each crate, by its name.
type Rules = BTreeMap<String, Rule>;

/// The rules of `edges.toml`.
fn rules() -> anyhow::Result<Rules> {
    toml::from_str(include_str!("../edges.toml")).context("crates/xtask/edges.toml")
}

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
    let mut faults = check_imports(&rules()?, &imports(&metadata));
    faults.extend(changelog::faults(&fs::read_to_string(root.join("CHANGELOG.md")).context("CHANGELOG.md")?));
    let mut graphs = Vec::new();
    for package in &metadata.packages {
        let manifest = fs::read_to_string(&package.manifest_path)?;
        let name = package.name.as_str();
        let folder = package.manifest_path.parent().context("a manifest lies in a folder")?;
        faults.extend(check_manifest(name, folder.file_name().unwrap_or_default(), &manifest));
        if !readme.contains(&format!("`{name}`")) {
            faults.push(format!("README.md: the code map does not name `{name}`"));
        }
        graphs.extend(circles::graphs(root, package)?);
    }
    faults.extend(circles::faults(&graphs));
    faults.extend(boundary::faults(root)?);
    Ok(faults)
}

/// The normal dependencies of every workspace crate.
fn imports(metadata: &Metadata) -> BTreeMap<String, Vec<String>> {
    let normal = |package: &cargo_metadata::Package| {
        let kinds =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        kinds.map(|dependency| dependency.name.clone()).collect()
    };
    metadata.packages.iter().map(|package| (package.name.to_string(), normal(package))).collect()
}

fn check_imports(rules: &Rules, imports: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, imports_of_it) in imports {
        let Some(rule) = rules.get(name) else {
            faults.push(format!(
                "{name}: has no line in crates/xtask/edges.toml: add one, and one in the README"
            ));
            continue;
        };
        for import in imports_of_it {
            if imports.contains_key(import) && !rule.imports.contains(import) {
                let may =
                    if rule.imports.is_empty() { "nothing".to_owned() } else { rule.imports.join(", ") };
                faults.push(format!("{name} -> {import}: {name} may import {may} of this workspace"));
            }
            if rule.never.contains(import) {
                faults.push(format!("{name} -> {import}: {name} never imports {}", rule.never.join(", ")));
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
        let rules = rules().unwrap();
        let check = |name: &str, import: &str, wanted: &str| {
            let mut imports: BTreeMap<String, Vec<String>> =
                rules.keys().map(|name| (name.clone(), Vec::new())).collect();
            imports.entry(name.to_owned()).or_default().push(import.to_owned());
            let faults = check_imports(&rules, &imports);
            if wanted.is_empty() {
                assert_eq!(faults, Vec::<String>::new(), "{name} -> {import}");
            } else {
                assert!(faults.iter().any(|fault| fault.contains(wanted)), "{name} -> {import}: {faults:?}");
            }
        };
        check("harvester", "domain", "");
        check("harvester", "serde_json", "");
        check("student", "t5", "");
        check("trainer", "student", "");
        check("app", "student", "");
        check("harvester", "embedded", "harvester -> embedded: harvester may import domain, wire, teacher");
        check("harvester", "tch", "harvester -> tch: harvester never imports sqlx, redis, tch");
        check("trainer", "harvester", "trainer -> harvester");
        check("domain", "tokio", "domain -> tokio: domain never imports");
        check("t5", "domain", "t5 may import kernels of this workspace");
        check("kernels", "t5", "kernels may import nothing of this workspace");
        check("decoder", "tch", "decoder -> tch: decoder never imports");
        check("student", "tokio", "student -> tokio: student never imports");
        check("student", "wire", "student -> wire: student may import domain, checkpoints, t5, decoder");
        check("readers", "checkpoints", "readers -> checkpoints: readers may import domain");
        check("inference", "trainer", "inference -> trainer");
        check("inference", "t5", "inference -> t5: inference may import domain, wire, checkpoints, student");
        check("inference", "tch", "inference -> tch: inference never imports");
        check("cli", "embedded", "cli -> embedded");
        check("shed", "domain", "shed: has no line in crates/xtask/edges.toml");
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
