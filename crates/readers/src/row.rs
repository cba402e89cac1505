//! From named cells, whatever file they stood in, to an example.

use crate::error::Place;
use domain::example::CHOICES_MAX;
use domain::label::Comparison;
use domain::label::normalise;
use domain::spec::suggestion;
use domain::task::LabelSet;
use domain::{Answer, Example, Split, Task, Violation};

/// The fields of a row.
pub const FIELDS: &[&str] =
    &["id", "split", "input", "choices", "premise", "hypothesis", "label", "rationale"];

/// Who wrote a rationale that came in a column.
const TEACHER: &str = "import";

/// What others call our fields.
const SYNONYMS: &[(&str, &str)] = &[
    ("question", "input"),
    ("text", "input"),
    ("sentence", "input"),
    ("prompt", "input"),
    ("answer", "label"),
    ("target", "label"),
    ("output", "label"),
    ("gold", "label"),
    ("explanation", "rationale"),
    ("reason", "rationale"),
    ("options", "choices"),
    ("key", "id"),
    ("uid", "id"),
];

/// A row's cells in their place.
pub(crate) struct Record {
    pub(crate) place: Place,
    pub(crate) cells: Cells,
}

/// One value of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    Text(String),
    /// A number or truth value, as text.
    Bare(String),
    List(Vec<Cell>),
    /// Anything else, by what it is called.
    Other(&'static str),
}

/// A row's cells with their names, in the order of the file.
pub(crate) type Cells = Vec<(String, Cell)>;

/// Why an unknown field is refused.
pub(crate) fn unknown(name: &str) -> Violation {
    let lower = name.to_lowercase();
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == lower).map(|(_, known)| *known);
    let message = match synonym.or_else(|| suggestion(&lower, FIELDS.iter().copied())) {
        Some(known) => format!("is not a field of a row: did you mean `{known}`?"),
        None => format!("is not a field of a row: the fields are {}", FIELDS.join(", ")),
    };
    Violation::new(shown(name), message)
}

/// A name or value from a file, short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// The example in `cells`, or all that is wrong with it.
pub(crate) fn build(cells: Cells, split: Option<Split>) -> Result<Example, Vec<Violation>> {
    let mut example = Example { split: split.unwrap_or_default(), ..Example::default() };
    let mut found = Vec::new();
    let mut seen: Vec<String> = Vec::new();
    for (name, cell) in cells {
        if seen.contains(&name) {
            found.push(Violation::new(shown(&name), "stands twice in one row: remove one of them"));
        } else if let Err(violation) = set(&mut example, &name, cell, split) {
            found.push(violation);
        }
        seen.push(name);
    }
    // What a field should have held is not known where it was refused: its absence is then no further mistake.
    for violation in example.violations() {
        if !found.iter().any(|known| known.field == violation.field) {
            found.push(violation);
        }
    }
    if found.is_empty() { Ok(example) } else { Err(found) }
}

fn set(example: &mut Example, name: &str, cell: Cell, file_split: Option<Split>) -> Result<(), Violation> {
    match name {
        "id" => example.key = bare(name, cell)?,
        "split" => {
            if let Some(text) = text(name, cell)? {
                example.split = read_split(&text, file_split)?;
            }
        }
        "input" => example.input = text(name, cell)?.unwrap_or_default(),
        "choices" => example.choices = list(name, cell)?,
        "premise" => example.premise = text(name, cell)?,
        "hypothesis" => example.hypothesis = text(name, cell)?,
        "label" => example.label = bare(name, cell)?,
        "rationale" => {
            if let Some(text) = text(name, cell)?.filter(|text| !text.trim().is_empty()) {
                example.answers.push(Answer::Rationale { teacher: TEACHER.to_owned(), text, label: None });
            }
        }
        other => return Err(unknown(other)),
    }
    Ok(())
}

fn read_split(text: &str, file: Option<Split>) -> Result<Split, Violation> {
    let split = match text {
        "valid" | "dev" => Split::Validation,
        other => other.parse().map_err(|violation: Violation| Violation::new("split", violation.message))?,
    };
    match file {
        Some(file) if file != split => Err(Violation::new(
            "split",
            format!("is `{split}`, and the whole file was given as `{file}`: remove one of the two"),
        )),
        _ => Ok(split),
    }
}

fn text(name: &str, cell: Cell) -> Result<Option<String>, Violation> {
    match cell {
        Cell::Null => Ok(None),
        Cell::Text(text) => Ok(Some(text)),
        Cell::Bare(text) => {
            Err(Violation::new(name, format!("is `{}`: write it as text, in quotes", shown(&text))))
        }
        Cell::List(_) => Err(Violation::new(name, "is an array: it must be text")),
        Cell::Other(kind) => Err(Violation::new(name, format!("is {kind}: it must be text"))),
    }
}

/// Text, or a number or truth value by its text.
fn bare(name: &str, cell: Cell) -> Result<Option<String>, Violation> {
    match cell {
        Cell::Bare(text) => Ok(Some(text)),
        other => text(name, other),
    }
}

fn list(name: &str, cell: Cell) -> Result<Vec<String>, Violation> {
    let cells = match cell {
        Cell::Null => return Ok(Vec::new()),
        Cell::List(cells) => cells,
        _ => return Err(Violation::new(name, "must be an array of texts, such as [\"yes\", \"no\"]")),
    };
    if cells.len() > CHOICES_MAX {
        let message = format!("has {} entries: give between 2 and {CHOICES_MAX}", cells.len());
        return Err(Violation::new(name, message));
    }
    let item = |(place, cell)| {
        let name = format!("{name}[{place}]");
        bare(&name, cell)?.ok_or_else(|| Violation::new(name, "is null: every choice needs text"))
    };
    cells.into_iter().enumerate().map(item).collect()
}

/// What `task` asks of a row's gold label, and what a row's own choices do.
pub(crate) fn label_violation(task: Option<&Task>, required: bool, example: &Example) -> Option<Violation> {
    let Some(label) = &example.label else {
        return required.then(|| Violation::new("label", "is missing: every row needs a gold label here"));
    };
    let set = match task.map(|task| &task.labels) {
        Some(LabelSet::Closed(labels)) => labels,
        Some(LabelSet::Open) => &Vec::new(),
        Some(LabelSet::Choices) | None => &example.choices,
    };
    let normal = normalise(label);
    if !set.is_empty() && !set.iter().any(|known| normalise(known) == normal) {
        let message = format!("`{}` is not one of: {}", shown(label), shown_list(set));
        return Some(Violation::new("label", message));
    }
    let equation = task.is_some_and(|task| task.metric == Comparison::Equation);
    (equation && domain::equation::value(label).is_none()).then(|| {
        let message = format!("`{}` is not an arithmetic expression such as (84 / 2)", shown(label));
        Violation::new("label", message)
    })
}

fn shown_list(texts: &[String]) -> String {
    let mut items: Vec<String> = texts.iter().take(10).map(|text| shown(text)).collect();
    if texts.len() > items.len() {
        items.push(format!("and {} more", texts.len() - items.len()));
    }
    items.join(", ")
}

/// `value` as a cell.
pub(crate) fn json_cell(value: serde_json::Value) -> Cell {
    match value {
        serde_json::Value::Null => Cell::Null,
        serde_json::Value::Bool(truth) => Cell::Bare(truth.to_string()),
        serde_json::Value::Number(number) => Cell::Bare(number.to_string()),
        serde_json::Value::String(text) => Cell::Text(text),
        serde_json::Value::Array(items) => Cell::List(items.into_iter().map(json_cell).collect()),
        serde_json::Value::Object(_) => Cell::Other("an object"),
    }
}

/// What is wrong with JSON, without serde's own account of where.
pub(crate) fn json_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    format!("is broken JSON: {message}")
}
