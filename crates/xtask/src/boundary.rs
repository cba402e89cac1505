//! Messages of the API stop at the boundary: only `wire` and the files listed here may name one.
//!
//! A search of the source text, comments left out: `wire::v1`, `wire::open_inference`, an import of them in braces, or a
//! path that begins with `v1::`.

use anyhow::Context;
use std::fs;
use std::path::Path;

/// The boundary: files, and folders that end in `/`, relative to the repository. `wire` itself is left out.
const BOUNDARY: &[&str] = &[
    "crates/app/src/admin/calls.rs",
    "crates/app/src/ingress/web/open_inference.rs",
    "crates/app/src/ingress/web/openai.rs",
    "crates/app/src/models.rs",
    "crates/cli/src/client/",
    "crates/harvester/src/services/",
    "crates/inference/src/lib.rs",
    "crates/inference/src/open_inference.rs",
    "crates/inference/src/service.rs",
    "crates/inference/src/watch.rs",
    "crates/trainer/src/link.rs",
];

/// Every message beyond the boundary, and every file of the boundary that names none.
pub(crate) fn faults(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(root.join("crates"))? {
        let folder = entry?.path();
        if !folder.ends_with("wire") && !folder.ends_with("xtask") {
            collect(root, &folder.join("src"), &mut sources)?;
        }
    }
    sources.sort();
    Ok(check(&sources, BOUNDARY))
}

/// The source files below a folder: path relative to the repository, and text.
fn collect(root: &Path, folder: &Path, sources: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            sources.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn check(sources: &[(String, String)], boundary: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut used = Vec::new();
    for (path, text) in sources {
        let Some(line) = first_message(text) else { continue };
        match boundary.iter().find(|known| path == *known || (known.ends_with('/') && path.starts_with(**known))) {
            Some(known) => used.push(*known),
            None => faults.push(format!(
                "{path}:{line}: names a message of the API beyond the boundary: convert it in `wire`, call it in a file of the boundary"
            )),
        }
    }
    let unused = boundary.iter().filter(|known| !used.contains(known));
    faults.extend(unused.map(|known| format!("{known}: names no message: delete it from the boundary")));
    faults
}

/// The line of the first message that a text names, counted from one.
fn first_message(text: &str) -> Option<usize> {
    let names_one = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        let grouped = code.split_once("wire::{").is_some_and(|(_, group)| {
            let mut names = group.split(['{', '}', ',', ' ', ':', ';']);
            names.any(|name| name == "v1" || name == "open_inference")
        });
        let begins = code.match_indices("v1::").any(|(at, _)| {
            let before = code.get(..at).and_then(|before| before.chars().next_back());
            before.is_none_or(|before| !before.is_alphanumeric() && before != ':' && before != '_')
        });
        grouped || begins || code.contains("wire::v1") || code.contains("wire::open_inference")
    };
    text.lines().position(names_one).map(|place| place + 1)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_message_beyond_the_boundary_is_named() {
        let check = |path: &str, line: &str, wanted: &[&str]| {
            let inside = ("crates/trainer/src/link.rs".to_owned(), "use wire::v1;\n".to_owned());
            let text = format!("//! Prose about v1::Run and wire::v1.\n{line}\n");
            let faults = super::check(
                &[inside, (path.to_owned(), text)],
                &["crates/trainer/src/link.rs", "crates/cli/src/client/"],
            );
            assert_eq!(faults.len(), wanted.len(), "{path}: {line}: {faults:?}");
            for (fault, wanted) in faults.iter().zip(wanted) {
                assert!(fault.starts_with(wanted), "{path}: {line}: {fault}");
            }
        };
        let unused = "crates/cli/src/client/: names no message";
        let outside = ["crates/cli/src/job.rs:2: names a message", unused];
        check("crates/cli/src/client/jobs.rs", "use wire::v1;", &[]);
        check("crates/cli/src/job.rs", "use wire::v1;", &outside);
        check("crates/cli/src/job.rs", "use wire::{Channel, v1};", &outside);
        check("crates/cli/src/job.rs", "use wire::{Channel, v1::{self, Run}};", &outside);
        check("crates/cli/src/job.rs", "use wire::open_inference::ModelInferRequest;", &outside);
        check("crates/cli/src/job.rs", "fn of(run: &v1::Run) {}", &outside);
        check("crates/cli/src/job.rs", "let text = \"v1::Run\";", &outside);
        for line in [
            "use wire::Channel;",
            "tonic_reflection::pb::v1::FILE;",
            "let v1 = 1;",
            "conv1::x();",
            "// v1::Run",
        ] {
            check("crates/cli/src/job.rs", line, &[unused]);
        }
    }
}
