//! A task as a user names it: a built-in one, or a TOML file of its own, of which every mistake is named with file, line and
//! field, all at once.

use crate::known_keys::{Keys, Reads, known_keys};
use crate::mistakes::{Mistake, Mistakes};
use app::toml_lines::{TomlLines, line_of};
use domain::Violation;
use domain::fault::beside;
use domain::spec::suggestion;
use domain::task::{BUILT_IN, Exemplar, Task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Largest specification or task file, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the name of a task stands for.
pub(crate) enum NamedTask {
    BuiltIn(Task),
    File(TaskFile),
}

/// A file that holds a task.
#[derive(Debug)]
pub(crate) struct TaskFile {
    /// What can be read of it; the rest is that of [`Task::stand_in`].
    pub(crate) task: Task,
    /// What cannot be read, by fields of the specification: `task.stop`.
    pub(crate) found: Vec<Violation>,
    path: PathBuf,
    lines: TomlLines,
    /// Where what is wrong with the whole of it stands.
    line: usize,
}

impl NamedTask {
    /// The built-in task called `name`, or the file at `path`, where that is what the name is.
    ///
    /// # Errors
    /// It is neither, or the file cannot be opened.
    pub(crate) fn find(name: &str, path: &Path) -> Result<Self, String> {
        if let Some(task) = Task::built_in(name) {
            return Ok(Self::BuiltIn(task));
        }
        if name.ends_with(".toml") {
            return Ok(Self::File(TaskFile::read(path)?));
        }
        let near = suggestion(name, BUILT_IN.iter().copied())
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        Err(format!(
            "`{name}` is neither a built-in task ({}) nor a path that ends in .toml{near}",
            BUILT_IN.join(", ")
        ))
    }

    /// The task.
    ///
    /// # Errors
    /// Every mistake of its file, a line each.
    pub(crate) fn sound(self) -> Result<Task, String> {
        let file = match self {
            Self::BuiltIn(task) => return Ok(task),
            Self::File(file) => file,
        };
        let mut found = file.found.clone();
        found.extend(beside(&file.found, file.task.violations()));
        if found.is_empty() {
            return Ok(file.task);
        }
        let mut located: Vec<Mistake> = found.iter().filter_map(|one| file.locate(one)).collect();
        located.sort_by_key(|mistake| mistake.line);
        Err(Mistakes(located).to_string())
    }
}

impl TaskFile {
    fn read(path: &Path) -> Result<Self, String> {
        let text = read_text(path)?;
        let mut found = Vec::new();
        let (task, line) = match parse(&text) {
            Ok(table) => (task_of(table, &mut found), 1),
            Err((line, words)) => {
                found.push(Violation::new("task", words));
                (Task::stand_in(), line)
            }
        };
        Ok(Self { task, found, path: path.to_owned(), lines: TomlLines::of(&text), line })
    }

    /// Where a violation of a task stands in the file; `None` for one of anything else.
    pub(crate) fn locate(&self, violation: &Violation) -> Option<Mistake> {
        let within = violation.field.strip_prefix("task")?;
        let (line, field) = match within.strip_prefix('.') {
            Some(field) => (self.lines.line(field), field),
            None if within.is_empty() => (self.line, "file"),
            None => return None,
        };
        let violation = Violation::new(field, violation.message.clone());
        Some(Mistake { file: self.path.clone(), line, violation })
    }
}

/// What a table says of a task, key by key.
fn task_of(mut table: Table, found: &mut Vec<Violation>) -> Task {
    let stand_in = Task::stand_in();
    if let Some(Value::Table(answer)) = table.get_mut("answer") {
        *answer = sound("task.answer.", std::mem::take(answer), &stand_in.answer, found);
    }
    if let Some(Value::Array(exemplars)) = table.get_mut("exemplars") {
        for (index, exemplar) in exemplars.iter_mut().enumerate() {
            if let Value::Table(exemplar) = exemplar {
                let prefix = format!("task.exemplars[{index}].");
                *exemplar = sound(&prefix, std::mem::take(exemplar), &Exemplar::default(), found);
            }
        }
    }
    let sound = sound("task.", table, &stand_in, found);
    Task::deserialize(Value::Table(sound)).unwrap_or(stand_in)
}

/// The table of a `T`, as far as it can be read; the rest is that of `stand_in`.
fn sound<T: DeserializeOwned + Serialize>(
    prefix: &str,
    table: Table,
    stand_in: &T,
    found: &mut Vec<Violation>,
) -> Table {
    let known: Vec<_> = known_keys::<T>().iter().map(|key| (*key, None)).collect();
    let base = Table::try_from(stand_in).unwrap_or_default();
    let reads: &Reads<'_> = &|table| T::deserialize(Value::Table(table)).map(drop);
    Keys { prefix, known: &known, base: &base }.sound(table, reads, found)
}

/// The text of a specification or task.
///
/// # Errors
/// It cannot be read, is no text, or is too long.
pub(crate) fn read_text(path: &Path) -> Result<String, String> {
    let describe = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => "does not exist: check the path".to_owned(),
        _ => format!("cannot be read: {error}"),
    };
    let length = std::fs::metadata(path).map_err(describe)?.len();
    if length > FILE_BYTES_MAX {
        return Err(format!("is {length} bytes long: a specification has at most {FILE_BYTES_MAX}"));
    }
    let bytes = std::fs::read(path).map_err(describe)?;
    String::from_utf8(bytes).map_err(|error| {
        format!("is not UTF-8 (byte {}): save it as UTF-8", error.utf8_error().valid_up_to())
    })
}

/// The table that `text` is.
///
/// # Errors
/// It is none: on which line, and why.
pub(crate) fn parse(text: &str) -> Result<Table, (usize, String)> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        (line, format!("is not TOML: {}", error.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = include_str!("../../../examples/tasks/sentiment.toml");

    fn check(changes: &[(&str, &str)], expected: &[&str]) {
        let mut text = SOUND.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("task.toml");
        std::fs::write(&path, text).unwrap();
        let said = NamedTask::find("task.toml", &path).unwrap().sound().err().unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, wanted) in lines.iter().zip(expected) {
            assert!(line.contains(wanted), "wanted {wanted:?} in {line:?}");
        }
    }

    #[test]
    fn every_mistake_of_a_task_is_named_with_its_line() {
        let line = |start: &str| SOUND.lines().position(|line| line.starts_with(start)).unwrap() + 1;
        let at = |start: &str, words: &str| format!("task.toml:{}: {words}", line(start));
        check(&[], &[]);
        check(
            &[("stop =", "stops =")],
            &[
                "task.toml:1: stop: is missing: add `stop = ...`",
                &at("stop", "stops: is not a known key: did you mean `stop`?"),
            ],
        );
        check(
            &[("marker =", "markr =")],
            &["answer.marker: is missing", "answer.markr: is not a known key: did you mean `marker`?"],
        );
        check(
            &[("rationale =", "rational =")],
            &["exemplars[0].rationale: is missing", "exemplars[0].rational: is not a known key"],
        );
        let placeholder = at("rationale", "exemplars[0].rationale: is a placeholder: write");
        check(&[("rationale = \"", "rationale = \"EDIT ME: ")], &[&placeholder]);
        check(
            &[
                ("metric = \"text\"", "metric = \"txt\"\ncolour = 1"),
                ("tokens_max = 128", "tokens_max = 0"),
                ("stop = [", "stop = [7, "),
                ("rationale = \"", "rationale = 7 # \""),
            ],
            &[
                "stop: is integer `7`: write text, in quotes",
                "metric: is `txt`: write `text` or `equation`",
                "colour: is not a known key",
                "tokens_max: must lie between 1 and 8192",
                "exemplars[0].rationale: is integer `7`: write text, in quotes",
            ],
        );
        check(&[("name =", "name")], &[&at("name", "file: is not TOML")]);
    }
}
