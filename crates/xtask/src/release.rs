//! `cargo xtask release VERSION [--check]`: everything in the repository that carries a version, in one step.
//!
//! It sets the version of the workspace and of what is deployed, moves the unreleased changes of CHANGELOG.md under the
//! version, and records the protocol, with which `buf breaking` compares from then on. `--check` lists what it would write.

use crate::{changelog, repository};
use anyhow::{Context, bail};
use cargo_metadata::semver::Version;
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where released protocols are recorded, one a version.
const PROTOCOLS: &str = "proto/released";
/// Samples of stored forms, a folder for each version that changed them. They are made by hand, from a real job.
const SAMPLES: &str = "tests/compat";
/// What names the version of images to run, below the repository.
const DEPLOYED: [&str; 2] = ["docker-compose.yml", "deploy"];

/// The files that a release writes, by their path below the repository.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Releases, or says what a release would write.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let (mut versions, mut check) = (Vec::new(), false);
    for argument in arguments {
        if argument == "--check" { check = true } else { versions.push(argument) }
    }
    let [version] = versions.as_slice() else { bail!("usage: cargo xtask release VERSION [--check]") };
    let version =
        Version::parse(version).with_context(|| format!("`{version}` is not a version such as 1.2.3"))?;
    let root = repository::root()?;
    let files = plan(&root, &version, &output("date", &["--utc", "+%F"], &root)?)?;
    let names: Vec<String> = files.keys().map(|path| path.display().to_string()).collect();
    if check {
        return say(&format!("release {version} would write:\n  {}", names.join("\n  ")));
    }
    for (path, bytes) in &files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        fs::write(&path, bytes).with_context(|| path.display().to_string())?;
    }
    // Cargo.lock names the workspace's crates with their version.
    output("cargo", &["update", "--workspace", "--offline", "--quiet"], &root)?;
    let samples = samples(&root).map_or_else(String::new, |newest| newest.to_string());
    say(&format!(
        "wrote:\n  {}\nNext: add {SAMPLES}/{version} if a stored form changed since {samples}; make lint test; commit as \
         \"Release {version}\"; git tag v{version}",
        names.join("\n  ")
    ))
}

/// Every file that changes, or all reasons why this version cannot be released.
fn plan(root: &Path, version: &Version, date: &str) -> anyhow::Result<Files> {
    let text = |path: &Path| fs::read_to_string(root.join(path)).with_context(|| path.display().to_string());
    let mut files = Files::new();
    let manifest = text(Path::new("Cargo.toml"))?;
    let present = present_version(&manifest)?;
    let mut faults = Vec::new();
    if *version < present {
        faults.push(format!("Cargo.toml has version {present}: a release is not older"));
    }
    let changes = text(Path::new("CHANGELOG.md"))?;
    faults.extend(changelog::faults(&changes));
    if let Some(last) = changelog::versions(&changes).iter().max().filter(|last| *last >= version) {
        faults.push(format!("CHANGELOG.md: {last} is released already: a release is newer"));
    }
    if samples(root).is_none_or(|newest| newest > *version) {
        faults.push(format!(
            "{SAMPLES} has no sample of the stored forms of {version} or before: see its README"
        ));
    }
    match changelog::release(&changes, version, date) {
        Ok(changes) => drop(files.insert("CHANGELOG.md".into(), changes.into_bytes())),
        Err(fault) => faults.push(fault.to_string()),
    }
    if !faults.is_empty() {
        bail!("{version} cannot be released:\n{}", faults.join("\n"));
    }
    if *version != present {
        let line = |version: &Version| format!("\nversion = \"{version}\"\n");
        files.insert("Cargo.toml".into(), manifest.replacen(&line(&present), &line(version), 1).into_bytes());
        for path in deployed(root)? {
            let before = text(&path)?;
            let after = replace_version(&before, &present.to_string(), &version.to_string());
            if after != before {
                files.insert(path, after.into_bytes());
            }
        }
    }
    files.insert(format!("{PROTOCOLS}/{version}.binpb").into(), protocol(&root.join("proto"))?);
    Ok(files)
}

/// The newest version with samples of its stored forms.
fn samples(root: &Path) -> Option<Version> {
    let folders = fs::read_dir(root.join(SAMPLES)).into_iter().flatten().flatten();
    folders.filter_map(|entry| Version::parse(entry.file_name().to_str()?).ok()).max()
}

/// The version of the workspace's packages.
fn present_version(manifest: &str) -> anyhow::Result<Version> {
    let package =
        manifest.split("[workspace.package]").nth(1).context("Cargo.toml has no [workspace.package]")?;
    let version = package.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    Ok(Version::parse(version.context("Cargo.toml: [workspace.package] has no version")?)?)
}

/// The files of what is deployed, as git knows them.
fn deployed(root: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let names = output("git", &[["ls-files", "--"].as_slice(), DEPLOYED.as_slice()].concat(), root)?;
    let is_text =
        |path: &PathBuf| fs::read(root.join(path)).is_ok_and(|bytes| std::str::from_utf8(&bytes).is_ok());
    Ok(names.lines().map(PathBuf::from).filter(is_text).collect())
}

/// Replaces a version where it is not part of a longer one: 0.1.0 in `tag:0.1.0`, not in `10.1.0` or `0.1.0.7`.
fn replace_version(text: &str, from: &str, to: &str) -> String {
    let is_part = |character: Option<char>| {
        character.is_some_and(|character| character.is_ascii_digit() || character == '.')
    };
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(from) {
        let mut ahead = after.chars();
        let follows = match ahead.next() {
            // The point that ends a sentence.
            Some('.') => ahead.next().is_some_and(|character| character.is_ascii_digit()),
            other => is_part(other),
        };
        let inside = follows || is_part(before.chars().next_back());
        result.push_str(before);
        result.push_str(if inside { from } else { to });
        rest = after;
    }
    result + rest
}

/// The public API as a descriptor set, which is what `buf breaking` compares with.
fn protocol(proto: &Path) -> anyhow::Result<Vec<u8>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(proto.join("distillery/v1"))? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(protox::compile(&files, [proto])?.encode_to_vec())
}

fn output(program: &str, arguments: &[&str], folder: &Path) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .with_context(|| program.to_owned())?;
    if !output.status.success() {
        bail!("{program} {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

#[allow(clippy::disallowed_methods, reason = "a tool of the repository, which prints what is its own")]
fn say(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const MANIFEST: &str =
        "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\nx = { version = \"0.1.0\" }\n";
    const CHANGES: &str = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A verb.\n";

    /// A repository with these samples, as far as a release looks at it.
    fn repository(samples: &[&str]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("Cargo.toml", MANIFEST);
        write("CHANGELOG.md", CHANGES);
        write("docker-compose.yml", "image: distillery:${IMAGE_TAG:-0.1.0}\nother: 10.1.0\n");
        write("deploy/README.md", "Build 0.1.0.\n");
        write("deploy/other.md", "Nothing.\n");
        write(
            "proto/distillery/v1/models.proto",
            "syntax = \"proto3\";\npackage distillery.v1;\nmessage Model { string name = 1; }\n",
        );
        for version in samples {
            write(&format!("tests/compat/{version}/spec.json"), "{}");
        }
        output("git", &["init", "--quiet"], folder.path()).unwrap();
        output("git", &["add", "."], folder.path()).unwrap();
        folder
    }

    fn written(files: &Files, name: &str) -> String {
        String::from_utf8(files[Path::new(name)].clone()).unwrap()
    }

    #[test]
    fn a_release_writes_everything_that_carries_a_version() {
        let repository = repository(&["0.1.0"]);
        let files = plan(repository.path(), &Version::new(0, 2, 0), "2026-11-26").unwrap();
        let names: Vec<_> = files.keys().map(|path| path.to_str().unwrap()).collect();
        let expected = [
            "CHANGELOG.md",
            "Cargo.toml",
            "deploy/README.md",
            "docker-compose.yml",
            "proto/released/0.2.0.binpb",
        ];
        assert_eq!(names, expected);
        assert_eq!(written(&files, "Cargo.toml"), MANIFEST.replacen("0.1.0", "0.2.0", 1));
        assert_eq!(
            written(&files, "docker-compose.yml"),
            "image: distillery:${IMAGE_TAG:-0.2.0}\nother: 10.1.0\n"
        );
        assert_eq!(written(&files, "deploy/README.md"), "Build 0.2.0.\n");
        assert!(
            written(&files, "CHANGELOG.md").contains("## [0.2.0] - 2026-11-26\n\n### Added\n\n- A verb.")
        );
        let descriptors =
            prost_types::FileDescriptorSet::decode(&*files[Path::new("proto/released/0.2.0.binpb")]).unwrap();
        assert_eq!(descriptors.file[0].name(), "distillery/v1/models.proto");
    }

    #[test]
    fn the_first_release_may_have_the_present_version() {
        let repository = repository(&["0.1.0"]);
        let files = plan(repository.path(), &Version::new(0, 1, 0), "2026-11-26").unwrap();
        let names: Vec<_> = files.keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(names, ["CHANGELOG.md", "proto/released/0.1.0.binpb"]);
    }

    #[test]
    fn what_is_missing_is_named_all_at_once() {
        let check = |repository: &TempDir, version: Version, expected: &[&str]| {
            let error = plan(repository.path(), &version, "2026-11-26").unwrap_err().to_string();
            assert_eq!(error.lines().count(), expected.len() + 1, "{error}");
            expected.iter().for_each(|expected| assert!(error.contains(expected), "{expected}: {error}"));
        };
        let sound = repository(&["0.1.0"]);
        let no_sample = "tests/compat has no sample of the stored forms of 0.0.9 or before";
        check(
            &sound,
            Version::new(0, 0, 9),
            &["Cargo.toml has version 0.1.0: a release is not older", no_sample],
        );
        check(&repository(&[]), Version::new(0, 1, 0), &["tests/compat has no sample"]);
        let released = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-31\n\n### New\n\n- All.\n";
        fs::write(sound.path().join("CHANGELOG.md"), released).unwrap();
        check(
            &sound,
            Version::new(0, 1, 0),
            &[
                "CHANGELOG.md:7: `### New`",
                "0.1.0 is released already: a release is newer",
                "nothing is unreleased",
            ],
        );
    }

    #[test]
    fn a_version_is_replaced_where_it_stands_alone() {
        let check =
            |text: &str, expected: &str| assert_eq!(replace_version(text, "0.1.0", "0.2.0"), expected);
        check("tag:0.1.0", "tag:0.2.0");
        check("0.1.0 and v0.1.0.", "0.2.0 and v0.2.0.");
        check("10.1.0 0.1.07 0.1.0.7 2.0.1.0", "10.1.0 0.1.07 0.1.0.7 2.0.1.0");
        check("", "");
    }
}
