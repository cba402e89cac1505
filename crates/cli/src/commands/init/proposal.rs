//! What is proposed for a file: a task, its exemplars, a split, a student.

use super::columns::{Chosen, Labels, shown, splits_in};
use domain::completion::{FinishReason, parse};
use domain::holdout::Shares;
use domain::label::{Comparison, normalise, same};
use domain::spec::{PROFILE_NONE, StudentSize};
use domain::study::conclusion;
use domain::task::{AnswerPattern, AnswerShape, Exemplar, LabelSet, PLACEHOLDER, Task};
use domain::{Example, Split};
use readers::{Sample, Value};
use std::cmp::Reverse;

/// Exemplars of the task.
pub(crate) const EXEMPLARS: usize = 3;
/// An exemplar's text is read with every prompt: shorter ones are preferred.
const EXEMPLAR_CHARACTERS: usize = 300;
/// Labels that an instruction lists.
const LISTED_MAX: usize = 50;
/// The seed by which rows are held out.
pub(crate) const SPLIT_SEED: u64 = 0;
/// Train rows that get a rationale at most, unless a person says otherwise: each costs a call.
const TEACHER_ROWS: u64 = 2_000;
/// Rows of one optimiser step.
const BATCH: u64 = 32;
/// How often a step's worth of rows is read at least before training ends, if no validation ends it sooner.
const EPOCHS: u64 = 40;

/// How much of the rows is held out, where the file does not say it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HeldOut {
    pub(crate) validation: Option<f64>,
    pub(crate) test: Option<f64>,
}

impl HeldOut {
    /// For a file: less of a large one, and nothing for splits that it names itself.
    pub(crate) fn of(sample: &Sample, chosen: &Chosen) -> Self {
        let named = chosen.split.as_deref().map(|column| splits_in(sample, column)).unwrap_or_default();
        let (validation, test) = if sample.is_whole { (0.1, 0.2) } else { (0.05, 0.1) };
        let unless = |split: Split, share: f64| (!named.contains(&split)).then_some(share);
        Self { validation: unless(Split::Validation, validation), test: unless(Split::Test, test) }
    }

    /// As the reader of a specification has it.
    pub(crate) fn shares(self) -> Option<Shares> {
        Shares::new(self.validation, self.test, SPLIT_SEED).ok()
    }
}

/// Everything that is written.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    /// The job's.
    pub(crate) name: String,
    pub(crate) chosen: Chosen,
    pub(crate) labels: Labels,
    /// Whether some rows have no label.
    pub(crate) is_partly_labelled: bool,
    pub(crate) rows: u64,
    pub(crate) held_out: HeldOut,
    /// Rationales are placeholders until they are known.
    pub(crate) exemplars: Vec<Exemplar>,
    pub(crate) profile: String,
    pub(crate) student: Student,
}

/// The student, and how long it is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Student {
    pub(crate) size: StudentSize,
    pub(crate) vocabulary: u32,
    pub(crate) steps: u64,
    /// Train rows that the teacher is asked about; all where absent.
    pub(crate) teacher_rows: Option<u64>,
}

impl Student {
    /// For so many rows, of which these shares are held out.
    pub(crate) fn of(rows: u64, held_out: HeldOut, size: Option<StudentSize>) -> Self {
        let kept = 1.0 - held_out.validation.unwrap_or(0.0) - held_out.test.unwrap_or(0.0);
        let train = (rows as f64 * kept) as u64;
        let by_rows = if train < 50_000 { StudentSize::Mini } else { StudentSize::Small };
        let steps = (train * EPOCHS / BATCH).next_multiple_of(50).clamp(100, 2_000);
        Self {
            size: size.unwrap_or(by_rows),
            vocabulary: if train < 2_000 { 512 } else { 2_048 },
            steps,
            teacher_rows: (train > TEACHER_ROWS).then_some(TEACHER_ROWS),
        }
    }
}

/// Rows for the exemplars: with different labels where there are any, short, and of those that stay train rows, so that no
/// prompt shows the label of a row that it is measured on.
pub(crate) fn exemplars(
    sample: &Sample,
    chosen: &Chosen,
    labels: &Labels,
    held_out: HeldOut,
) -> Vec<Exemplar> {
    let mut rows = candidates(sample, chosen);
    let shares = held_out.shares();
    rows.sort_by_cached_key(|row| {
        let characters = row.input.chars().count();
        let excess = characters.saturating_sub(EXEMPLAR_CHARACTERS);
        // The last ones in the order of their label train.
        (excess, Reverse(shares.map_or(0, |shares| shares.rank(row))))
    });
    let mut wanted: Vec<String> = match labels {
        Labels::Closed(labels) => {
            let mut often: Vec<&(String, usize)> = labels.iter().collect();
            often.sort_by_key(|(_, rows)| Reverse(*rows));
            often.into_iter().map(|(label, _)| normalise(label)).cycle().take(EXEMPLARS).collect()
        }
        Labels::OfChoices | Labels::Equations | Labels::Open => Vec::new(),
    };
    let is_closed = !wanted.is_empty();
    wanted.reverse();
    let mut found: Vec<Exemplar> = Vec::new();
    while found.len() < EXEMPLARS {
        let label = wanted.pop();
        let is_new = |row: &Example| {
            let own = row.label.as_deref().map(normalise);
            if is_closed {
                return own == label;
            }
            !found.iter().any(|known| Some(normalise(&known.label)) == own)
        };
        let Some(place) = rows.iter().position(is_new) else {
            if is_closed && !wanted.is_empty() {
                continue;
            }
            break;
        };
        let row = rows.remove(place);
        rows.retain(|other| other.input != row.input);
        let label = row.label.unwrap_or_default();
        let rationale = placeholder(&label);
        let (input, choices) = (row.input, row.choices);
        found.push(Exemplar { input, choices, premise: None, hypothesis: None, rationale, label });
    }
    found
}

/// The rows that may be exemplars: those of the sample that train, with text and label.
fn candidates(sample: &Sample, chosen: &Chosen) -> Vec<Example> {
    let cells = |name: &Option<String>| {
        name.as_deref().and_then(|name| sample.column(name)).map(|column| &column.cells)
    };
    let (inputs, labels) = (cells(&chosen.input), cells(&chosen.label));
    let (choices, splits) = (cells(&chosen.choices), cells(&chosen.split));
    let row = |place: usize| {
        let text = |cells: Option<&Vec<Value>>| {
            cells?.get(place)?.text().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        if text(splits).is_some_and(|split| split != "train") {
            return None;
        }
        let choices = match choices.and_then(|cells| cells.get(place)) {
            Some(Value::List(items)) => items.clone(),
            _ => Vec::new(),
        };
        let input = inputs.and_then(|cells| cells.get(place))?.text()?.to_owned();
        Some(Example { input, label: Some(text(labels)?), choices, ..Example::default() })
    };
    (0..sample.rows).filter_map(row).filter(|row| row.violations().is_empty()).collect()
}

/// What stands in a task file until somebody writes the rationale.
pub(crate) fn placeholder(label: &str) -> String {
    format!("{PLACEHOLDER} say in a sentence or two why the label is `{}`.", shown(label))
}

impl Proposal {
    /// How rows are called in prompts.
    pub(crate) fn question(&self) -> &'static str {
        match self.labels {
            Labels::Closed(_) | Labels::OfChoices => "Text",
            Labels::Equations | Labels::Open => "Q",
        }
    }

    /// Whether a teacher is asked.
    pub(crate) fn is_taught(&self) -> bool {
        self.profile != PROFILE_NONE
    }

    fn instruction(&self) -> String {
        let end = format!("then end with: {}", self.marker());
        match &self.labels {
            Labels::Closed(labels) if labels.len() <= LISTED_MAX => {
                let names: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
                format!(
                    "You sort texts. Reason in one or two sentences, {end} LABEL. LABEL is one of: {}.",
                    names.join(", ")
                )
            }
            Labels::Closed(_) => {
                format!("You sort texts. Reason in one or two sentences, {end} and the label.")
            }
            Labels::OfChoices => {
                format!(
                    "You choose among options. Reason in one or two sentences, {end} and the option alone."
                )
            }
            Labels::Equations => {
                format!("You solve word problems. Reason in one or two short sentences, {end} (expression).")
            }
            Labels::Open => {
                format!("You answer questions. Reason in one or two sentences, {end} and the answer alone.")
            }
        }
    }

    /// What stands between rationale and label.
    pub(crate) fn marker(&self) -> &'static str {
        match self.labels {
            Labels::Equations => "The answer is",
            Labels::Closed(_) | Labels::OfChoices | Labels::Open => "So the answer is",
        }
    }

    fn template(&self) -> String {
        let (question, marker) = (self.question(), self.marker());
        let options = |item: &str| match self.labels {
            Labels::OfChoices => format!("Options: {{{{ {item}.choices | join(\", \") }}}}\n"),
            Labels::Closed(_) | Labels::Equations | Labels::Open => String::new(),
        };
        format!(
            "{{% for exemplar in exemplars -%}}\n{question}: {{{{ exemplar.input }}}}\n{}\
             A: {{{{ exemplar.rationale }}}} {marker} {{{{ exemplar.label }}}}.\n\n{{% endfor -%}}\n\
             {question}: {{{{ example.input }}}}\n{}{{% if hint is defined and hint -%}}\n\
             Hint: the correct answer is {{{{ hint }}}}.\n{{% endif -%}}\nA:",
            options("exemplar"),
            options("example"),
        )
    }

    /// The task that is written.
    pub(crate) fn task(&self) -> Task {
        let (shape, metric) = match self.labels {
            Labels::Equations => (AnswerShape::Expression, Comparison::Equation),
            Labels::Closed(_) | Labels::OfChoices | Labels::Open => (AnswerShape::Text, Comparison::Text),
        };
        let labels = match &self.labels {
            Labels::Closed(labels) => {
                LabelSet::Closed(labels.iter().map(|(label, _)| label.clone()).collect())
            }
            Labels::OfChoices => LabelSet::Choices,
            Labels::Equations | Labels::Open => LabelSet::Open,
        };
        Task {
            name: self.name.clone(),
            instruction: self.instruction(),
            template: self.template(),
            exemplars: self.exemplars.clone(),
            stop: vec![format!("\n{}:", self.question())],
            answer: AnswerPattern { marker: self.marker().to_owned(), shape },
            labels,
            metric,
            tokens_max: 128,
        }
    }

    /// A rationale on one line, where a teacher's answer with it would be read as it and the exemplar's label.
    pub(crate) fn fitting(&self, place: usize, rationale: &str) -> Option<String> {
        let words: Vec<&str> = rationale.split_whitespace().collect();
        let rationale = words.join(" ");
        let exemplar = self.exemplars.get(place)?;
        let answer = format!(" {rationale} {} {}.", self.marker(), exemplar.label);
        let parsed = parse(&self.task(), &exemplar.example(), &answer, FinishReason::Stop);
        (!rationale.is_empty() && parsed.reason.is_none() && parsed.rationale == rationale)
            .then_some(rationale)
    }

    /// The label that a rationale comes to by itself, where it is not the exemplar's.
    pub(crate) fn contradicts(&self, place: usize, rationale: &str) -> Option<String> {
        let (task, exemplar) = (self.task(), self.exemplars.get(place)?);
        let found = conclusion(&task, &exemplar.example(), rationale)?;
        (!same(task.metric, &found, &exemplar.label)).then_some(found)
    }

    /// The labels in words.
    pub(crate) fn labels_in_words(&self) -> String {
        match &self.labels {
            Labels::Closed(labels) => {
                let named: Vec<String> =
                    labels.iter().take(10).map(|(label, rows)| format!("{} {rows}", shown(label))).collect();
                let more = if labels.len() > named.len() { ", ..." } else { "" };
                format!("a closed set of {}: {}{more}", labels.len(), named.join(", "))
            }
            Labels::OfChoices => "one of the row's choices".to_owned(),
            Labels::Equations => "an expression, compared by its value".to_owned(),
            Labels::Open => "free text, each value its own".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use readers::SampledColumn;

    fn sample(columns: &[(&str, Vec<Value>)]) -> Sample {
        let rows = columns[0].1.len();
        let columns =
            columns.iter().map(|(name, cells)| SampledColumn { name: (*name).into(), cells: cells.clone() });
        Sample { columns: columns.collect(), rows, is_whole: true, rows_about: rows as u64 }
    }

    fn texts(rows: usize, cell: impl Fn(usize) -> String) -> Vec<Value> {
        (0..rows).map(|row| Value::Text(cell(row))).collect()
    }

    fn proposal(labels: Labels, exemplars: Vec<Exemplar>) -> Proposal {
        let held_out = HeldOut { validation: Some(0.1), test: Some(0.2) };
        let chosen = Chosen { input: Some("text".into()), label: Some("mood".into()), ..Chosen::default() };
        let student = Student::of(300, held_out, None);
        let (name, profile) = ("reviews".to_owned(), "local".to_owned());
        Proposal {
            name,
            chosen,
            labels,
            is_partly_labelled: false,
            rows: 300,
            held_out,
            exemplars,
            profile,
            student,
        }
    }

    fn closed(labels: &[&str]) -> Labels {
        Labels::Closed(labels.iter().map(|label| ((*label).to_owned(), 10)).collect())
    }

    #[test]
    fn exemplars_have_different_labels_and_stay_train_rows() {
        let long = "x ".repeat(400);
        let text =
            |row: usize| if row.is_multiple_of(3) { format!("{long}{row}") } else { format!("text {row}") };
        let label = |row: usize| ["a", "b", "c", "d"][row % 4].to_owned();
        let sample = sample(&[("text", texts(200, text)), ("mood", texts(200, label))]);
        let labels = closed(&["a", "b", "c", "d"]);
        let chosen = proposal(labels.clone(), Vec::new()).chosen;
        let held_out = HeldOut::of(&sample, &chosen);
        let found = exemplars(&sample, &chosen, &labels, held_out);
        assert_eq!(found.iter().map(|one| one.label.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
        let task = proposal(labels, found.clone()).task();
        let rows = candidates(&sample, &chosen).into_iter().map(|row| {
            let stratum = domain::subset::Stratum::of(&task, &row);
            (row, stratum)
        });
        let holdout = held_out.shares().unwrap().divide(rows);
        for exemplar in &found {
            assert!(exemplar.input.len() < 20, "{}", exemplar.input);
            assert_eq!(holdout.split_of(&exemplar.example()), Split::Train);
            assert!(exemplar.rationale.starts_with(PLACEHOLDER));
        }
        // With two labels one of them comes twice, over different texts; free answers differ.
        let two = exemplars(&sample, &chosen, &closed(&["a", "b"]), held_out);
        assert_eq!(two.iter().map(|one| one.label.as_str()).collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_ne!(two[0].input, two[2].input);
        let free = exemplars(&sample, &chosen, &Labels::Open, held_out);
        assert_eq!(free.iter().map(|one| &one.label).collect::<std::collections::HashSet<_>>().len(), 3);
    }

    #[test]
    fn what_the_file_says_of_splits_is_not_held_out_again() {
        let check = |words: [&str; 2], expected: (Option<f64>, Option<f64>)| {
            let split = texts(20, |row| words[row % 2].to_owned());
            let sample = sample(&[("text", texts(20, |row| format!("t {row}"))), ("split", split)]);
            let chosen = Chosen { split: Some("split".into()), ..Chosen::default() };
            let held_out = HeldOut::of(&sample, &chosen);
            assert_eq!((held_out.validation, held_out.test), expected, "{words:?}");
        };
        check(["train", "test"], (Some(0.1), None));
        check(["train", "dev"], (None, Some(0.2)));
        check(["train", "train"], (Some(0.1), Some(0.2)));
    }

    #[test]
    fn every_kind_of_task_is_sound_and_reads_its_exemplars() {
        let exemplar = |label: &str, choices: &[&str]| Exemplar {
            input: "What is it?".into(),
            choices: choices.iter().map(|choice| (*choice).to_owned()).collect(),
            premise: None,
            hypothesis: None,
            rationale: "It is what it is.".into(),
            label: label.into(),
        };
        for (labels, one) in [
            (closed(&["good", "bad"]), exemplar("good", &[])),
            (closed(&["0", "1"]), exemplar("1", &[])),
            (Labels::OfChoices, exemplar("a bank", &["a bank", "a river"])),
            (Labels::Equations, exemplar("( 4.0 + 3.0 )", &[])),
            (Labels::Open, exemplar("The Hague", &[])),
        ] {
            let proposal = proposal(labels, vec![one.clone()]);
            assert_eq!(proposal.task().violations(), vec![], "{:?}", proposal.labels);
            assert_eq!(proposal.fitting(0, " It is \n so. ").as_deref(), Some("It is so."), "{one:?}");
            let marked = format!("So. {} it.", proposal.marker());
            assert_eq!(proposal.fitting(0, &marked), None, "the marker stands once");
            assert_eq!(proposal.fitting(0, "  "), None);
        }
        let said = |rationale: &str| {
            proposal(closed(&["good", "bad"]), vec![exemplar("good", &[])]).contradicts(0, rationale)
        };
        assert_eq!(said("It means well, but the answer is bad.").as_deref(), Some("bad"));
        assert_eq!((said("Not bad: good."), said("It shines.")), (None, None));
        let open = proposal(closed(&["a", "b"]), vec![exemplar("a", &[])]);
        let mut task = open.task();
        task.exemplars[0].rationale = placeholder("a");
        assert_eq!(task.violations().len(), 1, "a placeholder is refused");
    }

    #[test]
    fn the_student_grows_with_the_rows() {
        let held_out = HeldOut { validation: Some(0.1), test: Some(0.2) };
        let check = |rows: u64, size: StudentSize, steps: u64, teacher_rows: Option<u64>| {
            let student = Student::of(rows, held_out, None);
            assert_eq!(
                (student.size, student.steps, student.teacher_rows),
                (size, steps, teacher_rows),
                "{rows}"
            );
        };
        check(10, StudentSize::Mini, 100, None);
        check(300, StudentSize::Mini, 300, None);
        check(10_000, StudentSize::Mini, 2_000, Some(2_000));
        check(1_000_000, StudentSize::Small, 2_000, Some(2_000));
        assert_eq!(Student::of(300, held_out, Some(StudentSize::Tiny)).size, StudentSize::Tiny);
    }
}
