//! From named cells, whatever file they stood in, to an example.

use crate::error::Place;
use domain::example::CHOICES_MAX;
use domain::label::Comparison;
use domain::label::normalise;
use domain::spec::suggestion;
use domain::task::LabelPlace;
use domain::task::LabelSet;
use domain::{Answer, Example, Split, Task, Violation};
use serde_json::value::RawValue;

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

/// Whether a column of this name is the index of a table that pandas wrote, and no field of a row.
pub(crate) fn is_index(name: &str) -> bool {
    name.is_empty() || name == "__index_level_0__" || name.starts_with("Unnamed: 0")
}

/// A row's cells with their names, in the order of the file.
pub(crate) type Cells = Vec<(String, Cell)>;

/// Why an unknown field is refused.
pub(crate) fn unknown(name: &str) -> Violation {
    let lower = name.to_lowercase();
    let synonym = SYNONYMS.iter().find(|(other, _)| *other == lower).map(|(_, known)| *known);
    let message = match (synonym, suggestion(&lower, FIELDS.iter().copied())) {
        (Some(known), _) => {
            format!(
                "is not a field of a row: did you mean `{known}`? Rename it, or map it (`columns`, docs/DATA.md)"
            )
        }
        (None, Some(known)) => format!("is not a field of a row: did you mean `{known}`?"),
        (None, None) => format!("is not a field of a row: the fields are {}", FIELDS.join(", ")),
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
    if let Some((name, _)) = cells.iter().find(|(name, cell)| is_wrapper(name, cell)) {
        let shown = shown(name);
        let message = format!("holds rows: write one a line, with `jq -c '.[\"{shown}\"][]'`");
        return Err(vec![Violation::new(shown, message)]);
    }
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

/// Whether the whole file is one object, whose rows are in this field.
fn is_wrapper(name: &str, cell: &Cell) -> bool {
    let holds_objects = matches!(cell, Cell::List(items) if items.first() == Some(&Cell::Other("an object")));
    holds_objects && !FIELDS.contains(&name)
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
        index if is_index(index) => return pass_over(cell),
        other => return Err(unknown(other)),
    }
    Ok(())
}

/// An index counts rows; a column without a name that does not may be anything.
fn pass_over(cell: Cell) -> Result<(), Violation> {
    let text = match cell {
        Cell::Null => return Ok(()),
        Cell::Text(text) | Cell::Bare(text) => text,
        Cell::List(_) | Cell::Other(_) => "a structure".to_owned(),
    };
    if text.parse::<i64>().is_ok() {
        return Ok(());
    }
    let message = format!(
        "has no name, as the index of a table, and holds `{}`: name it, or leave it out \
         (`df.to_csv(f, index=False)`)",
        shown(&text)
    );
    Err(Violation::new("the first column", message))
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
        Cell::Other("an object") => {
            let message =
                "is an object: it must be text (`df.to_json(f, orient=\"records\", lines=True)` writes rows)";
            Err(Violation::new(name, message))
        }
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

/// Gives the gold label its name where it is an integer, a place in the task's set; one that is less than nothing is
/// none.
///
/// # Errors
/// It is none, and `required`.
pub(crate) fn name_label(task: &Task, required: bool, example: &mut Example) -> Result<(), Violation> {
    let Some(label) = &example.label else { return Ok(()) };
    match task.place_of(label) {
        LabelPlace::None => {}
        LabelPlace::Label(name) => example.label = Some(name.to_owned()),
        LabelPlace::NoGold if required => {
            let message = format!(
                "`{}` is no gold label: remove the row, or train on the teacher's (judging.label = \"teacher\")",
                shown(label)
            );
            return Err(Violation::new("label", message));
        }
        LabelPlace::NoGold => example.label = None,
    }
    Ok(())
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

/// `value` as a cell: its numbers as they are written.
///
/// # Errors
/// A text in it that is none.
pub(crate) fn json_cell(value: &RawValue) -> Result<Cell, serde_json::Error> {
    let scalar = |value: &RawValue| {
        let raw = value.get();
        Ok(match raw.as_bytes().first() {
            Some(b'"') => Cell::Text(serde_json::from_str(raw)?),
            Some(b'n') => Cell::Null,
            Some(b'{') => Cell::Other("an object"),
            // No field is an array of arrays: what is in them is not looked at, however deep it is.
            Some(b'[') => Cell::Other("an array"),
            _ => Cell::Bare(raw.to_owned()),
        })
    };
    if !value.get().starts_with('[') {
        return scalar(value);
    }
    let items: Vec<&RawValue> = serde_json::from_str(value.get())?;
    Ok(Cell::List(items.into_iter().map(scalar).collect::<Result<_, _>>()?))
}

/// The JSON value in `text` as a cell.
///
/// # Errors
/// It is none.
pub(crate) fn json_cells(text: &str) -> Result<Cell, serde_json::Error> {
    json_cell(serde_json::from_str(text)?)
}

/// What is wrong with JSON, without serde's own account of where.
pub(crate) fn json_message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let message = text.rsplit_once(" at line ").map_or(text.as_str(), |(message, _)| message);
    format!("is broken JSON: {message}")
}
