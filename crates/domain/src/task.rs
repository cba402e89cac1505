//! A task is data: how the teacher is asked, how its answer is read, and what the student reads.
//!
//! The built-in tasks follow the prompts of Hsieh et al. (2023, appendix); the exemplars are this project's own. A user
//! adds a task in a TOML file of the same shape (see `crates/domain/tasks/`).

use crate::example::Example;
use crate::fault::Violation;
use crate::label::Comparison;
use crate::named::named;
use crate::template;
use serde::{Deserialize, Serialize};

/// Most exemplars of one task.
pub const EXEMPLARS_MAX: usize = 64;
/// Longest template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 64 * 1024;
/// Most labels of a closed set. Each is scored for every row, and their tokens are held with every model.
pub const LABELS_MAX: usize = 1_024;
/// Longest label of a closed set, in bytes.
pub const LABEL_BYTES_MAX: usize = 1_024;
/// Most tokens of a completion.
pub const TOKENS_MAX: u32 = 8192;
/// Most stop sequences: what common servers take.
pub const STOPS_MAX: usize = 4;

/// How a rationale begins that nobody has written yet: a task with one is refused.
pub const PLACEHOLDER: &str = "EDIT ME:";

named!(
    /// Which shape the answer has after its marker.
    AnswerShape {
        /// An arithmetic expression, such as `(84 / 2)`.
        Expression = "expression",
        /// A lettered option, such as `(d) body of water`: the label is the option's text.
        Choice = "choice",
        /// The rest of the line.
        Text = "text",
    }
);

/// Which labels there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSet {
    /// Any text.
    Open,
    /// Exactly these, in this order (an integer label of the official data is an index into them).
    Closed(Vec<String>),
    /// Each row's own `choices`.
    Choices,
}

/// What an integer stands for where a label is asked for; see [`Task::place_of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelPlace<'a> {
    /// It is no place in the set: the label is what is written.
    None,
    /// This label.
    Label(&'a str),
    /// The row has no gold label.
    NoGold,
}

/// How a completion is cut and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerPattern {
    /// What stands between rationale and label, such as `The answer is`. It must stand exactly once.
    pub marker: String,
    /// What follows it.
    pub shape: AnswerShape,
}

/// One worked example of the prompt: rendered first and byte-identical, so that providers cache the shared prefix.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Exemplar {
    /// The question, as [`Example::input`].
    #[serde(default)]
    pub input: String,
    /// Its options.
    #[serde(default)]
    pub choices: Vec<String>,
    /// The premise of a pair.
    #[serde(default)]
    pub premise: Option<String>,
    /// The hypothesis of a pair.
    #[serde(default)]
    pub hypothesis: Option<String>,
    /// The chain of thought.
    pub rationale: String,
    /// The label it ends in, written as the teacher is to write it.
    pub label: String,
}

impl Exemplar {
    /// The row that it answers, without a label.
    pub fn example(&self) -> Example {
        Example {
            input: self.input.clone(),
            choices: self.choices.clone(),
            premise: self.premise.clone(),
            hypothesis: self.hypothesis.clone(),
            ..Example::default()
        }
    }
}

/// A task, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its name, such as `equation`.
    pub name: String,
    /// What a chat model is given before the prompt (the system message); empty for none.
    #[serde(default)]
    pub instruction: String,
    /// The minijinja template of the prompt, over `exemplars`, `example` and `hint` (the gold label, or undefined).
    pub template: String,
    /// The worked examples.
    #[serde(default)]
    pub exemplars: Vec<Exemplar>,
    /// Sequences that end a completion; also where an imported, run-on completion is cut.
    pub stop: Vec<String>,
    /// How the answer is read.
    pub answer: AnswerPattern,
    /// Which labels there are.
    pub labels: LabelSet,
    /// How labels are compared.
    pub metric: Comparison,
    /// Most tokens of a completion, unless the specification says otherwise.
    #[serde(default = "default_tokens_max")]
    pub tokens_max: u32,
}

fn default_tokens_max() -> u32 {
    256
}

/// The names of the built-in tasks.
pub const BUILT_IN: &[&str] = &["equation", "choice", "nli", "esnli", "classify", "generate"];

impl Task {
    /// A built-in task by name; `None` where there is none of that name.
    pub fn built_in(name: &str) -> Option<Self> {
        let text = match name {
            "equation" => include_str!("../tasks/equation.toml"),
            "choice" => include_str!("../tasks/choice.toml"),
            "nli" => include_str!("../tasks/nli.toml"),
            "esnli" => include_str!("../tasks/esnli.toml"),
            "classify" => include_str!("../tasks/classify.toml"),
            "generate" => include_str!("../tasks/generate.toml"),
            _ => return None,
        };
        toml::from_str(text).ok()
    }

    /// Stands for a task that could not be read, so that what is around it is checked all the same.
    pub fn stand_in() -> Self {
        Self {
            name: "generate".into(),
            instruction: String::new(),
            template: "{{ example.input }}".into(),
            exemplars: Vec::new(),
            stop: vec!["\n\n".into()],
            answer: AnswerPattern { marker: "A:".into(), shape: AnswerShape::Text },
            labels: LabelSet::Open,
            metric: Comparison::Text,
            tokens_max: default_tokens_max(),
        }
    }

    /// Every mistake of the task's own data.
    pub fn violations(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        if self.name.trim().is_empty() {
            found.push(Violation::new("task.name", "is empty: give the task a name"));
        }
        if self.template.trim().is_empty() || self.template.len() > TEMPLATE_BYTES_MAX {
            found.push(Violation::new(
                "task.template",
                format!("must have between 1 and {TEMPLATE_BYTES_MAX} bytes"),
            ));
        }
        if let Err(refused) = template::check(&self.template) {
            found.push(Violation::new("task.template", refused.to_string()));
        }
        if self.exemplars.len() > EXEMPLARS_MAX {
            found.push(Violation::new("task.exemplars", format!("has more than {EXEMPLARS_MAX} entries")));
        }
        if self.stop.len() > STOPS_MAX || self.stop.iter().any(String::is_empty) {
            found.push(Violation::new(
                "task.stop",
                format!("takes at most {STOPS_MAX} sequences, none of them empty"),
            ));
        }
        if self.answer.marker.trim().is_empty() {
            found.push(Violation::new("task.answer.marker", "is empty: name what stands before the label"));
        }
        if let LabelSet::Closed(labels) = &self.labels {
            if !(2..=LABELS_MAX).contains(&labels.len()) {
                let message = format!("has {} labels: a closed set has 2 to {LABELS_MAX}", labels.len());
                found.push(Violation::new("task.labels", message));
            }
            if labels.iter().any(|label| label.len() > LABEL_BYTES_MAX) {
                let message = format!("has a label of more than {LABEL_BYTES_MAX} bytes");
                found.push(Violation::new("task.labels", message));
            }
        }
        if !(1..=TOKENS_MAX).contains(&self.tokens_max) {
            found.push(Violation::new("task.tokens_max", format!("must lie between 1 and {TOKENS_MAX}")));
        }
        for violation in self.placeholders() {
            found.push(Violation::new(format!("task.{}", violation.field), violation.message));
        }
        found
    }

    /// The rationales that nobody has written yet, each by its field within the task.
    pub fn placeholders(&self) -> Vec<Violation> {
        let exemplars = self.exemplars.iter().enumerate();
        let open = exemplars.filter(|(_, one)| one.rationale.trim_start().starts_with(PLACEHOLDER));
        open.map(|(place, exemplar)| {
            let message =
                format!("is a placeholder: write in a sentence or two why the label is `{}`", exemplar.label);
            Violation::new(format!("exemplars[{place}].rationale"), message)
        })
        .collect()
    }

    /// The labels that `example` can have; `None` where the set is open.
    pub fn label_set<'a>(&'a self, example: &'a Example) -> Option<&'a [String]> {
        match &self.labels {
            LabelSet::Open => None,
            LabelSet::Closed(labels) => Some(labels),
            LabelSet::Choices => Some(&example.choices),
        }
    }

    /// What `label` stands for in a closed set, where data sets write classes as integers: its place in the set, in the
    /// set's order (`0`, or `0.0` where a table made it a float); one below zero marks a row without a gold label.
    /// A set that has integers itself holds them as they are written.
    pub fn place_of(&self, label: &str) -> LabelPlace<'_> {
        let LabelSet::Closed(labels) = &self.labels else { return LabelPlace::None };
        let integer = |text: &str| text.trim().strip_suffix(".0").unwrap_or(text.trim()).parse::<i64>().ok();
        let Some(place) = integer(label).filter(|_| !labels.iter().any(|known| integer(known).is_some()))
        else {
            return LabelPlace::None;
        };
        match usize::try_from(place) {
            Ok(place) => labels.get(place).map_or(LabelPlace::None, |label| LabelPlace::Label(label)),
            Err(_) => LabelPlace::NoGold,
        }
    }

    /// What the student reads of `example`, without a task prefix.
    ///
    /// Choices are appended as the paper's code does (`\nAnswer Choices:\n(a) ...`); a pair is `premise </s> hypothesis`.
    pub fn student_input(&self, example: &Example) -> String {
        if let (Some(premise), Some(hypothesis)) = (&example.premise, &example.hypothesis) {
            return format!("{premise} </s> {hypothesis}");
        }
        if example.choices.is_empty() {
            return example.input.clone();
        }
        let mut text = format!("{}\nAnswer Choices:", example.input);
        for (letter, choice) in ('a'..='z').zip(&example.choices) {
            text.push_str(&format!("\n({letter}) {choice}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_a_place_in_a_closed_set() {
        let check = |labels: LabelSet, written: &str, expected: LabelPlace<'_>| {
            let task = Task { labels, ..Task::built_in("nli").unwrap() };
            assert_eq!(task.place_of(written), expected, "{written:?}");
        };
        let closed =
            |labels: &[&str]| LabelSet::Closed(labels.iter().map(|text| (*text).to_owned()).collect());
        let words = || closed(&["no", "yes"]);
        check(words(), "0", LabelPlace::Label("no"));
        check(words(), " 1.0", LabelPlace::Label("yes"));
        check(words(), "-1", LabelPlace::NoGold);
        for written in ["2", "yes", "1.5", "", "99999999999999999999"] {
            check(words(), written, LabelPlace::None);
        }
        check(closed(&["0", "1"]), "1", LabelPlace::None);
        check(closed(&["1", "many"]), "-1", LabelPlace::None);
        check(LabelSet::Open, "0", LabelPlace::None);
        check(LabelSet::Choices, "0", LabelPlace::None);
    }

    #[test]
    fn a_closed_set_has_a_limit_and_so_has_a_label() {
        let refused = |labels: Vec<String>| {
            let task = Task { labels: LabelSet::Closed(labels), ..Task::built_in("nli").unwrap() };
            task.violations().iter().any(|violation| violation.field == "task.labels")
        };
        let labels = |count: usize| (0..count).map(|number| format!("label {number}")).collect::<Vec<_>>();
        assert!(!refused(labels(LABELS_MAX)) && refused(labels(LABELS_MAX + 1)) && refused(labels(1)));
        let pair = |bytes: usize| vec!["a".repeat(bytes), "other".to_owned()];
        assert!(!refused(pair(LABEL_BYTES_MAX)) && refused(pair(LABEL_BYTES_MAX + 1)));
    }

    use minijinja::value::Serde;
    use minijinja::{Environment, UndefinedBehavior, Value, context};

    #[test]
    fn every_built_in_task_is_sound() {
        for name in BUILT_IN {
            let task = Task::built_in(name).unwrap_or_else(|| panic!("{name} does not parse"));
            assert_eq!(task.name, *name);
            assert_eq!(task.violations(), vec![], "{name}");
            assert!((3..=7).contains(&task.exemplars.len()), "{name}");
        }
        assert_eq!(Task::built_in("nothing"), None);
    }

    fn sentiment() -> Task {
        toml::from_str(include_str!("../../../examples/tasks/sentiment.toml")).unwrap()
    }

    #[test]
    fn the_documented_task_is_sound() {
        assert_eq!(sentiment().violations(), vec![]);
    }

    fn check(change: impl FnOnce(&mut Task), fields: &[&str]) {
        let mut task = sentiment();
        change(&mut task);
        let found: Vec<String> = task.violations().into_iter().map(|violation| violation.field).collect();
        assert_eq!(found, fields);
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        check(|task| task.name = " ".into(), &["task.name"]);
        check(|task| task.template = String::new(), &["task.template"]);
        check(|task| task.stop = vec!["~".into(); STOPS_MAX + 1], &["task.stop"]);
        check(|task| task.stop = vec![String::new()], &["task.stop"]);
        check(|task| task.labels = LabelSet::Closed(vec!["positive".into()]), &["task.labels"]);
        check(|task| task.tokens_max = 0, &["task.tokens_max"]);
        check(|task| task.exemplars.clear(), &[]);
        let unwritten = format!(" {PLACEHOLDER} why is it mixed?");
        check(|task| task.exemplars[2].rationale = unwritten, &["task.exemplars[2].rationale"]);
    }

    fn render(task: &Task, example: &Example, hint: Option<&str>) -> String {
        // The strictest engine: a template that renders here renders under every other setting.
        let mut engine = Environment::new();
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        let exemplars = Value::from(Serde(&task.exemplars));
        let example = Value::from(Serde(example));
        match hint {
            Some(hint) => engine.render_str(&task.template, context! { exemplars, example, hint }).unwrap(),
            None => engine.render_str(&task.template, context! { exemplars, example }).unwrap(),
        }
    }

    fn row(name: &str) -> Example {
        let pair = matches!(name, "nli" | "esnli");
        let choices = if name == "choice" { vec!["red".to_owned(), "blue".to_owned()] } else { Vec::new() };
        Example {
            input: if pair { String::new() } else { "Which one?".into() },
            premise: pair.then(|| "A dog runs.".into()),
            hypothesis: pair.then(|| "It moves.".into()),
            choices,
            ..Example::default()
        }
    }

    /// How a prompt ends, without a hint.
    fn ending(name: &str) -> &'static str {
        match name {
            "choice" => "\n\nQ: Which one?\nAnswer Choices:\n(a) red\n(b) blue\nA:",
            "nli" | "esnli" => "\n\nPremise: A dog runs.\nHypothesis: It moves.\nA:",
            "classify" => "\n\nText: Which one?\nA:",
            "sentiment" => "\n\nReview: Which one?\nA:",
            _ => "\n\nQ: Which one?\nA:",
        }
    }

    #[test]
    fn prompts_begin_alike_and_end_with_the_row() {
        for name in BUILT_IN.iter().copied().chain(["sentiment"]) {
            let task = Task::built_in(name).unwrap_or_else(sentiment);
            let plain = render(&task, &row(name), None);
            let shared =
                plain.strip_suffix(ending(name)).unwrap_or_else(|| panic!("{name} ends otherwise:\n{plain}"));
            let hinted = render(&task, &row(name), Some("blue"));
            let line = "Hint: the correct answer is blue.\nA:";
            assert_eq!(
                hinted,
                format!("{shared}{}{line}", ending(name).strip_suffix("A:").unwrap()),
                "{name}"
            );
            for exemplar in &task.exemplars {
                assert!(shared.contains(&exemplar.rationale), "{name}: {}", exemplar.rationale);
            }
            assert!(!shared.contains("\n\n\n") && !shared.starts_with('\n'), "{name}:\n{shared}");
        }
    }

    #[test]
    fn exemplars_are_rendered_as_they_are_read() {
        let check = |name: &str, expected: &str| {
            let prompt = render(&Task::built_in(name).unwrap(), &row(name), None);
            assert!(prompt.starts_with(expected), "{name}:\n{prompt}");
        };
        check(
            "equation",
            "Q: 84 pupils ride in 2 buses, the same number in each. How many pupils are in one bus?\n\
            A: We share 84 pupils equally over 2 buses, so we divide. The answer is (84 / 2).\n\nQ: ",
        );
        check(
            "choice",
            "Q: Where would you keep milk so that it does not turn sour?\nAnswer Choices:\n(a) oven\n\
            (b) shelf\n(c) window sill\n(d) refrigerator\n(e) drawer\nA: Milk turns sour",
        );
        check(
            "esnli",
            "Premise: Two girls in yellow raincoats jump into a puddle.\nHypothesis: Children are playing \
            outside.\nA: Girls are children, and jumping into a puddle in raincoats is playing outside.\n\
            Answer: entailment\n\nPremise: ",
        );
        check(
            "classify",
            "Text: The keeper saved two penalties, and the visitors went home without a goal.\n\
            Labels: politics, sport, weather, cooking\nA: A keeper",
        );
    }

    #[test]
    fn choices_and_pairs_reach_the_student_as_in_the_paper() {
        let task = Task::built_in("choice").unwrap();
        assert_eq!(task.student_input(&row("choice")), "Which one?\nAnswer Choices:\n(a) red\n(b) blue");
        assert_eq!(task.student_input(&row("nli")), "A dog runs. </s> It moves.");
        assert_eq!(task.student_input(&row("generate")), "Which one?");
    }
}
