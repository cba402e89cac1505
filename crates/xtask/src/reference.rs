//! `cargo xtask reference [--check]`: the reference pages of the specification and of the configuration, and the document of
//! the API over HTTP, from the code.

use anyhow::{Context, bail};
use domain::Task;
use domain::spec::{
    Draft, Field, JudgingDraft, SECTIONS, Section, Spec, StudentDraft, StudyDraft, TeacherDraft,
    TrainingDraft,
};
use domain::task::BUILT_IN;
use std::fmt::Write;
use std::fs;
use std::path::Path;

const SPEC: &str = "docs/reference/spec.md";
const CONFIGURATION: &str = "docs/reference/configuration.md";
const API: &str = "docs/reference/openapi.json";
const DESCRIPTORS: &str = "crates/wire/src/gen/distillery.v1.bin";
const DEFAULTS: &str = "crates/app/src/default.toml";

/// Writes the pages, or checks that they are what the code says.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let check = match arguments.next().as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => bail!("reference takes --check or nothing, not `{other}`"),
    };
    let root = crate::repository::root()?;
    let defaults = fs::read_to_string(root.join(DEFAULTS)).context(DEFAULTS)?;
    let descriptors = fs::read(root.join(DESCRIPTORS)).context(DESCRIPTORS)?;
    let pages =
        [(SPEC, specification()?), (CONFIGURATION, configuration(&defaults)), (API, api(&descriptors)?)];
    for (page, text) in pages {
        let path = root.join(page);
        if check {
            check_fresh(&text, &path)?;
        } else {
            fs::create_dir_all(path.parent().context("a page has a folder")?)?;
            fs::write(&path, text).context(page)?;
        }
    }
    Ok(())
}

/// The document of everything that can be called over HTTP. A server's own, at `/openapi.json`, has what that one serves.
fn api(descriptors: &[u8]) -> anyhow::Result<String> {
    let document =
        transcode::openapi(&transcode::Api::new(descriptors)?, env!("CARGO_PKG_VERSION"), |_| true);
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn check_fresh(wanted: &str, path: &Path) -> anyhow::Result<()> {
    let present = fs::read_to_string(path).with_context(|| format!("{} is missing", path.display()))?;
    if present != wanted {
        bail!("{} is stale: run `cargo xtask reference` and commit what it writes", path.display());
    }
    Ok(())
}

const SPEC_HEAD: &str = "\
# Specification

Written by `cargo xtask reference` from `crates/domain/src/spec/sections.rs`; do not edit it. A specification is a TOML
file; every key outside `name`, `task` and `[data]` has a default. Unknown keys are errors. Where a default depends on
what the student starts from, it is shown as *from scratch* / *from a checkpoint*.

| key | what it means |
| --- | --- |
| `name` | The name of the job and of the model it publishes: 1 to 64 letters, digits, `-`, `_` or `.`. Required. |
";

const DATA: &str = "
## `[data]`

| key | what it means |
| --- | --- |
| `train`, `validation`, `test` | Files of rows (JSONL, CSV or Parquet), relative to the specification. |
| `file` | One file whose rows name their own split. |
| `dataset` | The name of an imported dataset, which brings its own splits, in place of files. |
| `columns` | Which column of the files is which field of a row: `{ input = \"text\", label = \"sentiment\" }`. Others keep their own names. |
| `test_share`, `validation_share` | Shares of the train rows that are held out, above 0 and together below 1, where no file is named for them. |
| `split_seed` | The seed by which they are held out. Default: 0. |
";

fn specification() -> anyhow::Result<String> {
    let mut text = SPEC_HEAD.to_owned();
    let tasks: Vec<String> = BUILT_IN.iter().map(|name| format!("`{name}`")).collect();
    writeln!(
        text,
        "| `task` | A built-in task ({}), or the path of a task file. Required. |",
        tasks.join(", ")
    )?;
    text.push_str(DATA);
    let (scratch, tuned) = (resolved(StudentDraft::default())?, resolved(checkpoint())?);
    for section in SECTIONS {
        section_table(&mut text, section, &scratch, &tuned)?;
    }
    text.push_str(
        "\n`student.init` names a checkpoint folder: the command line registers it and starts from it.\n",
    );
    Ok(text)
}

fn checkpoint() -> StudentDraft {
    StudentDraft { base: Some("t5".to_owned()), ..StudentDraft::default() }
}

/// A specification of defaults, as the stored form shows it.
fn resolved(student: StudentDraft) -> anyhow::Result<serde_json::Value> {
    let draft = Draft {
        name: "reference".to_owned(),
        task: Task::built_in("generate").context("there is no task `generate`")?,
        teacher: TeacherDraft::default(),
        judging: JudgingDraft::default(),
        student,
        training: TrainingDraft::default(),
    };
    let spec: Spec = draft
        .resolve()
        .map_err(|violations| anyhow::anyhow!("the defaults do not resolve: {violations:?}"))?;
    let mut resolved = serde_json::to_value(spec)?;
    if let Some(sections) = resolved.as_object_mut() {
        sections.insert("study".to_owned(), serde_json::to_value(StudyDraft::default().resolve())?);
    }
    Ok(resolved)
}

fn section_table(
    text: &mut String,
    section: &Section,
    scratch: &serde_json::Value,
    tuned: &serde_json::Value,
) -> anyhow::Result<()> {
    let name = section.name;
    writeln!(text, "\n## `[{name}]`\n\n{}\n", one_line(section.documentation))?;
    writeln!(text, "| key | value | default | what it means |\n| --- | --- | --- | --- |")?;
    let pointer = format!("/{}", name.replace('.', "/"));
    for field in section.fields.iter().filter(|field| field.kind != "section") {
        let value = |spec: &serde_json::Value| {
            spec.pointer(&format!("{pointer}/{}", field.key))
                .filter(|value| !value.is_null())
                .map(ToString::to_string)
        };
        let default = match (value(scratch), value(tuned)) {
            (None, None) => String::new(),
            (scratch, tuned) if scratch == tuned => format!("`{}`", scratch.unwrap_or_default()),
            (scratch, tuned) => {
                let shown =
                    |value: Option<String>| value.map_or("absent".to_owned(), |value| format!("`{value}`"));
                format!("{} / {}", shown(scratch), shown(tuned))
            }
        };
        let meaning = meaning(field);
        writeln!(text, "| `{}` | {} | {default} | {meaning} |", field.key, kind(field))?;
    }
    Ok(())
}

fn kind(field: &Field) -> String {
    match field.range {
        Some((low, high)) => format!("{}, {} to {}", field.kind, number(low), number(high)),
        None => field.kind.to_owned(),
    }
}

/// Very small and very large numbers in powers of ten.
fn number(value: f64) -> String {
    if value != 0.0 && (value.abs() < 1e-3 || value.abs() >= 1e6) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

fn meaning(field: &Field) -> String {
    let mut text = one_line(field.documentation);
    for (value, documentation) in (field.choices)() {
        let _ = write!(text, "<br>`{value}`: {}", one_line(documentation));
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

const CONFIGURATION_HEAD: &str = "\
# Configuration

Written by `cargo xtask reference` from `crates/app/src/default.toml`; do not edit it. `distillery config` prints that file.

";

/// The documented defaults as tables: a comment documents the key below it, or the section.
fn configuration(defaults: &str) -> String {
    let mut text = CONFIGURATION_HEAD.to_owned();
    let mut comment: Vec<&str> = Vec::new();
    let mut in_table = false;
    for line in defaults.lines() {
        if let Some(words) = line.strip_prefix('#') {
            comment.push(words.trim());
        } else if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let _ = write!(text, "\n## `[{section}]`\n");
            if !comment.is_empty() {
                let _ = write!(text, "\n{}\n", std::mem::take(&mut comment).join(" "));
            }
            in_table = false;
        } else if let Some((key, value)) = line.split_once('=') {
            if !in_table {
                text.push_str("\n| key | default | what it means |\n| --- | --- | --- |\n");
                in_table = true;
            }
            let meaning = std::mem::take(&mut comment).join(" ");
            let _ =
                writeln!(text, "| `{}` | `{}` | {} |", key.trim(), value.trim(), meaning.replace('|', "\\|"));
        } else if !comment.is_empty() && !in_table {
            // A comment on its own, such as the one that heads the file.
            let _ = writeln!(text, "{}", std::mem::take(&mut comment).join(" "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_on_the_page() {
        let page = specification().unwrap();
        for section in SECTIONS {
            for field in section.fields.iter().filter(|field| field.kind != "section") {
                assert!(page.contains(&format!("| `{}` |", field.key)), "{}.{}", section.name, field.key);
            }
        }
        assert!(page.contains("| `learning_rate` | number, 1e-9 to 10 | `0.001` / `0.00005` |"), "{page}");
        assert!(page.contains("`step_by_step`: Label and rationale as two tasks (Hsieh et al. 2023)."));
    }

    #[test]
    fn a_comment_documents_the_key_below_it() {
        let page =
            configuration("# The file.\n\n# One.\n# Two.\na = 1\n\n[b]\n# Three.\nc = \"x|y\"\nd = 2\n");
        let tables = page.strip_prefix(CONFIGURATION_HEAD).unwrap();
        assert_eq!(
            tables,
            "The file.\n\n| key | default | what it means |\n| --- | --- | --- |\n| `a` | `1` | One. Two. |\n\n\
             ## `[b]`\n\n| key | default | what it means |\n| --- | --- | --- |\n| `c` | `\"x|y\"` | Three. |\n\
             | `d` | `2` |  |\n"
        );
    }
}
