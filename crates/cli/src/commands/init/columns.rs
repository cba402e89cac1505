//! Which column of a file is the text, the label, the choices: told from names and values.

use domain::example::CHOICES_MAX;
use domain::label::normalise;
use domain::spec::suggestion;
use domain::task::LABELS_MAX;
use domain::{Split, equation};
use readers::{Sample, SampledColumn, Value};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

/// Names that a label often has, the surest first.
const LABEL_NAMES: &[&str] = &[
    "label",
    "labels",
    "sentiment",
    "class",
    "category",
    "target",
    "answer",
    "gold",
    "intent",
    "topic",
    "output",
    "equation",
    "solution",
];
/// Those of them whose values may all be different: answers, not classes.
const OPEN_NAMES: &[&str] = &["label", "target", "answer", "gold", "output", "equation", "solution"];
/// Names of what explains a row, which is never the text that is labelled.
const RATIONALE_NAMES: &[&str] = &["rationale", "explanation", "reason", "reasoning"];
/// Words that name a split, as rows are read.
const SPLIT_WORDS: &[&str] = &["train", "validation", "valid", "dev", "test"];
/// A label that is longer is a text.
const LABEL_CHARACTERS_MAX: f64 = 60.0;
/// So few values are classes if each is there twice, more of them if each is there four times.
const FEW_LABELS: usize = 20;
/// Columns and values that a message names.
const NAMED_MAX: usize = 12;

/// The columns of a file that are fields of its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) input: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) choices: Option<String>,
    pub(crate) split: Option<String>,
}

impl Chosen {
    /// Whether a column has its place already.
    fn has(&self, name: &str) -> bool {
        [&self.input, &self.label, &self.choices, &self.split]
            .into_iter()
            .flatten()
            .any(|known| known == name)
    }
}

/// What labels there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Labels {
    /// These, each with its number of rows, in the order of the alphabet.
    Closed(Vec<(String, usize)>),
    /// Each row's own choices.
    OfChoices,
    /// Arithmetic expressions, each with a value.
    Equations,
    /// Any text.
    Open,
}

/// What can be said of a column.
#[derive(Debug, Clone, Default, PartialEq)]
struct Traits {
    filled: usize,
    lists: usize,
    numbers: usize,
    /// Values that consist of several words.
    sentences: usize,
    distinct: usize,
    mean_characters: f64,
}

impl Traits {
    fn of(column: &SampledColumn) -> Self {
        let (mut traits, mut seen, mut characters) = (Self::default(), HashSet::new(), 0_usize);
        for cell in &column.cells {
            match cell {
                Value::Absent => continue,
                Value::List(_) => traits.lists += 1,
                Value::Other => {}
                Value::Text(text) | Value::Number(text) => {
                    // In CSV a number is a text too.
                    traits.numbers += usize::from(text.trim().parse::<f64>().is_ok());
                    traits.sentences += usize::from(text.trim().contains(char::is_whitespace));
                    characters += text.chars().count();
                    seen.insert(normalise(text));
                }
            }
            traits.filled += 1;
        }
        traits.distinct = seen.len();
        traits.mean_characters = characters as f64 / traits.filled.max(1) as f64;
        traits
    }

    fn are_texts(&self) -> bool {
        self.filled > 0 && self.lists == 0 && self.distinct > 0
    }

    /// Whether few values are repeated.
    fn are_classes(&self) -> bool {
        let each = self.filled / self.distinct.max(1);
        let is_set = self.distinct <= FEW_LABELS && each >= 2 || self.distinct <= LABELS_MAX && each >= 4;
        self.are_texts() && self.distinct >= 2 && is_set && self.mean_characters <= LABEL_CHARACTERS_MAX
    }
}

fn is_named(column: &SampledColumn, names: &[&str]) -> Option<usize> {
    let name = column.name.trim().to_lowercase();
    names.iter().position(|known| *known == name)
}

/// The column that says which split a row belongs to.
pub(crate) fn split(sample: &Sample) -> Option<String> {
    let is_split = |column: &&SampledColumn| {
        let words: HashSet<&str> = column.cells.iter().filter_map(Value::text).collect();
        let are_known = !words.is_empty() && words.iter().all(|word| SPLIT_WORDS.contains(word));
        are_known && (words.contains("train") && words.len() > 1 || column.name == "split")
    };
    sample.columns.iter().find(is_split).map(|column| column.name.clone())
}

/// The splits that rows name in this column.
pub(crate) fn splits_in(sample: &Sample, column: &str) -> Vec<Split> {
    let words = sample.column(column).into_iter().flat_map(|column| &column.cells).filter_map(Value::text);
    let split = |word: &str| match word {
        "valid" | "dev" => Some(Split::Validation),
        other => other.parse().ok(),
    };
    let found: HashSet<Split> = words.filter_map(split).collect();
    Split::ALL.iter().copied().filter(|split| found.contains(split)).collect()
}

/// The column with the options of each row.
pub(crate) fn choices(sample: &Sample, chosen: &Chosen) -> Option<String> {
    let are_choices = |column: &&SampledColumn| {
        !chosen.has(&column.name)
            && column
                .cells
                .iter()
                .all(|cell| matches!(cell, Value::List(items) if (2..=CHOICES_MAX).contains(&items.len())))
    };
    sample.columns.iter().find(are_choices).map(|column| column.name.clone())
}

/// The column with the text: the longest ones in words, most of them different.
pub(crate) fn input(sample: &Sample, chosen: &Chosen) -> Option<String> {
    let candidates = sample.columns.iter().filter(|column| !chosen.has(&column.name));
    let texts =
        candidates.filter(|column| is_named(column, RATIONALE_NAMES).is_none()).filter_map(|column| {
            let traits = Traits::of(column);
            let are_many =
                traits.are_texts() && traits.distinct * 2 >= traits.filled && traits.numbers < traits.filled;
            are_many.then_some((traits.sentences * 2 >= traits.filled, traits.mean_characters, column))
        });
    let longest = texts.max_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    longest.map(|(_, _, column)| column.name.clone())
}

/// The column with the label: one of the usual name before others, texts before numbers, few values before many.
pub(crate) fn label(sample: &Sample, chosen: &Chosen) -> Option<String> {
    let is_free = |column: &&SampledColumn| !chosen.has(&column.name) && Traits::of(column).are_texts();
    let candidates: Vec<&SampledColumn> = sample.columns.iter().filter(is_free).collect();
    if let Some(choices) = chosen.choices.as_ref().and_then(|name| sample.column(name)) {
        return candidates
            .into_iter()
            .find(|column| are_of(column, choices))
            .map(|column| column.name.clone());
    }
    let classes = candidates.iter().filter_map(|column| {
        let traits = Traits::of(column);
        let name = is_named(column, LABEL_NAMES).unwrap_or(LABEL_NAMES.len());
        let is_number = traits.numbers == traits.filled;
        traits.are_classes().then_some((name, is_number, traits.distinct, *column))
    });
    let classes = classes.min_by_key(|(name, is_number, distinct, _)| (*name, *is_number, *distinct));
    let open = || {
        let named = candidates.iter().filter_map(|column| Some((is_named(column, OPEN_NAMES)?, *column)));
        let many = named.filter(|(_, column)| Traits::of(column).distinct > 1);
        many.min_by_key(|(name, _)| *name).map(|(_, column)| column)
    };
    classes.map(|(_, _, _, column)| column).or_else(open).map(|column| column.name.clone())
}

/// Whether nearly all labels are among their rows' choices.
fn are_of(labels: &SampledColumn, choices: &SampledColumn) -> bool {
    let (mut filled, mut fitting) = (0_usize, 0_usize);
    for (label, choices) in labels.cells.iter().zip(&choices.cells) {
        let (Some(label), Value::List(choices)) = (label.text(), choices) else { continue };
        filled += 1;
        let label = normalise(label);
        fitting += usize::from(choices.iter().any(|choice| normalise(choice) == label));
    }
    filled > 0 && fitting * 100 >= filled * 95
}

/// What labels a column holds.
///
/// # Errors
/// None, or one alone.
pub(crate) fn labels(column: &SampledColumn, has_choices: bool) -> Result<Labels, String> {
    let texts = column.cells.iter().filter_map(Value::text).filter(|text| !text.trim().is_empty());
    let texts: Vec<&str> = texts.collect();
    let mut counts: BTreeMap<String, BTreeMap<&str, usize>> = BTreeMap::new();
    for text in &texts {
        *counts.entry(normalise(text)).or_default().entry(text.trim()).or_default() += 1;
    }
    let name = &column.name;
    match counts.len() {
        0 => return Err(format!("column `{name}` holds no label in the rows that were read")),
        1 => {
            let only = texts.first().copied().unwrap_or_default();
            return Err(format!(
                "column `{name}` has one value, `{}`: a student learns to tell two or more apart; name another column with \
                 --label",
                shown(only)
            ));
        }
        _ if has_choices => return Ok(Labels::OfChoices),
        _ => {}
    }
    let are_expressions = texts.iter().all(|text| equation::value(text).is_some());
    let are_computed = texts.iter().any(|text| text.trim().parse::<f64>().is_err());
    if are_expressions && (are_computed || counts.len() > FEW_LABELS) {
        return Ok(Labels::Equations);
    }
    if !Traits::of(column).are_classes() {
        return Ok(Labels::Open);
    }
    let most = |spellings: BTreeMap<&str, usize>| {
        let rows = spellings.values().sum();
        let spelling =
            spellings.into_iter().min_by_key(|(_, rows)| Reverse(*rows)).map(|(text, _)| text.to_owned());
        spelling.map(|text| (text, rows))
    };
    Ok(Labels::Closed(counts.into_values().filter_map(most).collect()))
}

/// Why no text is found.
pub(crate) fn no_input(sample: &Sample) -> String {
    format!(
        "no column looks like a text to label (long, mostly different values): name it with --input; the columns are {}",
        names(sample)
    )
}

/// Why no label is found.
pub(crate) fn no_label(sample: &Sample, chosen: &Chosen) -> String {
    let others: Vec<String> = sample
        .columns
        .iter()
        .filter(|column| !chosen.has(&column.name))
        .map(|column| {
            let traits = Traits::of(column);
            format!("`{}` has {} values in {} rows", shown(&column.name), traits.distinct, traits.filled)
        })
        .collect();
    if others.is_empty() {
        let input = shown(chosen.input.as_deref().unwrap_or_default());
        return format!(
            "there is no column for the label beside `{input}`: add one, with the label of some rows; or, where no row has any, \
             write a task with its label set by hand, like examples/reviews"
        );
    }
    let more = others.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(", and {more} more columns") } else { String::new() };
    let others: Vec<String> = others.into_iter().take(NAMED_MAX).collect();
    format!(
        "no column looks like a label, a few values that are repeated ({}{more}): name it with --label; where all values are \
         different, they are taken as free answers",
        others.join(", ")
    )
}

/// Why a column that was named is none.
pub(crate) fn no_column(sample: &Sample, flag: &str, name: &str) -> String {
    let near = suggestion(name, sample.columns.iter().map(|column| column.name.as_str()));
    let near = near.map_or_else(String::new, |near| format!("; did you mean `{}`?", shown(near)));
    format!("--{flag}: there is no column `{}`: the columns are {}{near}", shown(name), names(sample))
}

/// The names of the columns, for a message.
pub(crate) fn names(sample: &Sample) -> String {
    let mut names: Vec<String> =
        sample.columns.iter().take(NAMED_MAX).map(|column| shown(&column.name)).collect();
    if sample.columns.len() > names.len() {
        names.push(format!("and {} more", sample.columns.len() - names.len()));
    }
    names.join(", ")
}

/// A text from a file, short enough for a message.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column of `rows` cells, each made of its place.
    fn column(name: &str, rows: usize, cell: impl Fn(usize) -> Value) -> SampledColumn {
        SampledColumn { name: name.to_owned(), cells: (0..rows).map(cell).collect() }
    }

    fn text(text: impl Into<String>) -> Value {
        Value::Text(text.into())
    }

    fn reviews(name: &str) -> SampledColumn {
        column(name, 40, |row| text(format!("The soup of table {row} was good, and the bread was warm.")))
    }

    fn classes(name: &str, count: usize) -> SampledColumn {
        column(name, 40, move |row| text(format!("class {}", row % count)))
    }

    fn sample(columns: Vec<SampledColumn>) -> Sample {
        let rows = columns.first().map_or(0, |column| column.cells.len());
        Sample { columns, rows, is_whole: true, rows_about: rows as u64 }
    }

    #[test]
    fn columns_are_told_by_names_and_values() {
        let check = |columns: Vec<SampledColumn>, expected: [Option<&str>; 4]| {
            let sample = sample(columns);
            let mut chosen = Chosen { split: split(&sample), ..Chosen::default() };
            chosen.choices = choices(&sample, &chosen);
            chosen.input = input(&sample, &chosen);
            chosen.label = label(&sample, &chosen);
            let found = [&chosen.input, &chosen.label, &chosen.choices, &chosen.split].map(Option::as_deref);
            assert_eq!(found, expected, "{}", names(&sample));
        };
        let some = Some::<&str>;
        check(vec![reviews("text"), classes("sentiment", 2)], [some("text"), some("sentiment"), None, None]);
        check(vec![classes("b", 3), reviews("a")], [some("a"), some("b"), None, None]);
        // A usual name before fewer values, texts before numbers.
        let stars = || column("stars", 40, |row| Value::Number((row % 5).to_string()));
        check(
            vec![stars(), classes("country", 2), reviews("body"), classes("label", 4)],
            [some("body"), some("label"), None, None],
        );
        check(vec![stars(), reviews("body"), classes("mood", 8)], [some("body"), some("mood"), None, None]);
        check(vec![stars(), reviews("body")], [some("body"), some("stars"), None, None]);
        // Words before links that are longer, and no explanation.
        let link = column("link", 40, |row| text(format!("https://example.org/{}/{row}", "x".repeat(200))));
        let why = column("explanation", 40, |row| {
            text(format!("A long reason, {row}: {}", "so it is ".repeat(40)))
        });
        check(vec![link, why, reviews("t"), classes("l", 2)], [some("t"), some("l"), None, None]);
        // Answers that are all different have a usual name, or are not told.
        let answers = |name: &str| column(name, 40, |row| text(format!("answer {row}")));
        check(vec![reviews("q"), answers("answer")], [some("q"), some("answer"), None, None]);
        check(vec![reviews("q"), answers("sentiment")], [some("q"), None, None, None]);
        check(
            vec![reviews("q"), answers("label"), classes("kind", 2)],
            [some("q"), some("kind"), None, None],
        );
        check(vec![reviews("text")], [some("text"), None, None, None]);
        check(vec![reviews("text"), classes("sentiment", 1)], [some("text"), None, None, None]);
        check(vec![stars()], [None, some("stars"), None, None]);
        let split_column = column("part", 40, |row| text(if row % 4 == 0 { "test" } else { "train" }));
        check(
            vec![split_column, reviews("text"), classes("mood", 3)],
            [some("text"), some("mood"), None, some("part")],
        );
        let options = column("options", 40, |row| Value::List(vec![format!("a{row}"), format!("b{row}")]));
        let right = column("right", 40, |row| text(format!("A{row}")));
        check(
            vec![classes("kind", 2), reviews("q"), options, right],
            [some("q"), some("right"), some("options"), None],
        );
    }

    #[test]
    fn labels_are_a_set_expressions_or_free() {
        let check = |cells: &[&str], expected: Labels| {
            let column = column("label", cells.len(), |row| text(cells[row]));
            assert_eq!(labels(&column, false), Ok(expected), "{cells:?}");
        };
        let closed = |labels: &[(&str, usize)]| {
            Labels::Closed(labels.iter().map(|(label, rows)| ((*label).to_owned(), *rows)).collect())
        };
        check(&["good", "bad", "Good", "good.", "bad", "good"], closed(&[("bad", 2), ("good", 4)]));
        check(&["1", "2", "1", "2"], closed(&[("1", 2), ("2", 2)]));
        check(&["1 + 2", "3", "1 + 2", "3"], Labels::Equations);
        check(&["(5 - 3)", "( 84 / 2 )", "7 * 8"], Labels::Equations);
        let numbers: Vec<String> = (0..60).map(|number| (number % 30).to_string()).collect();
        check(&numbers.iter().map(String::as_str).collect::<Vec<_>>(), Labels::Equations);
        check(&["a fox", "a hen", "an owl"], Labels::Open);
        let absent = column("label", 9, |_| Value::Absent);
        assert!(labels(&absent, false).unwrap_err().contains("holds no label"));
        let one = column("label", 9, |row| text(if row > 3 { "yes" } else { "Yes" }));
        assert!(labels(&one, false).unwrap_err().contains("has one value, `Yes`"));
        assert_eq!(labels(&column("label", 9, |row| text(row.to_string())), true), Ok(Labels::OfChoices));
    }

    #[test]
    fn what_is_missing_is_said_with_the_flag_that_names_it() {
        let one = sample(vec![reviews("text")]);
        let chosen = Chosen { input: Some("text".into()), ..Chosen::default() };
        assert!(no_label(&one, &chosen).contains("no column for the label beside `text`: add one"));
        let two = sample(vec![reviews("text"), reviews("title")]);
        let words = no_label(&two, &chosen);
        assert!(words.contains("(`title` has 40 values in 40 rows): name it with --label"), "{words}");
        assert!(no_input(&two).ends_with("name it with --input; the columns are text, title"));
        let absent = no_column(&two, "label", "titles");
        assert!(
            absent.starts_with("--label: there is no column `titles`: the columns are text, title; did you")
        );
    }
}
