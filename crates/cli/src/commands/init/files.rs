//! The files that are written, each line explained.

use super::proposal::{Proposal, SPLIT_SEED};
use domain::task::{Exemplar, LabelSet, PLACEHOLDER};
use domain::visible;
use std::fmt::Write;
use std::path::{Component, Path, PathBuf};

/// The name of the specification that is written.
pub(crate) const SPEC: &str = "spec.toml";
/// The name of the task that is written.
pub(crate) const TASK: &str = "task.toml";

/// A text of TOML on one line, with quotes: as JSON writes it, which leaves one control character in.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// How the specification in folder `out` names `data`; absolute where one of them is.
pub(crate) fn relative(data: &Path, out: &Path) -> PathBuf {
    let plain = |component: &Component<'_>| !matches!(component, Component::CurDir);
    let steps: Vec<Component<'_>> = out.components().filter(plain).collect();
    let is_below = steps.iter().all(|step| matches!(step, Component::Normal(_)));
    if !data.is_relative() || !is_below {
        return std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    }
    let up: PathBuf = steps.iter().map(|_| "..").collect();
    up.join(data.components().filter(plain).collect::<PathBuf>())
}

/// The specification; `data` is the path of the rows from where it lies.
pub(crate) fn spec(proposal: &Proposal, data: &Path) -> String {
    let path = data.display().to_string();
    let mut text = format!(
        "# Written by `distillery init` for {}, of about {} rows. Edit it freely: every key is explained in\n\
         # docs/reference/spec.md, and every mistake is named with its line. Where a key is left out, its default holds.\n\n\
         # The name of the job, and of the model that it publishes.\nname = {}\n\n\
         # How the teacher is asked and its answers are read: the file next to this one.\ntask = {}\n\n[data]\n",
        visible::line(&path),
        proposal.rows,
        quoted(&proposal.name),
        quoted(TASK),
    );
    data_section(&mut text, proposal, &path);
    teacher_section(&mut text, proposal);
    student_section(&mut text, proposal);
    text
}

fn data_section(text: &mut String, proposal: &Proposal, path: &str) {
    let chosen = &proposal.chosen;
    let mut add = |comment: &str, line: String| {
        let _ = writeln!(text, "# {comment}\n{line}");
    };
    if chosen.split.is_some() {
        add(
            "The rows, relative to this file. They say themselves which split they belong to.",
            format!("file = {}", quoted(path)),
        );
    } else {
        add("The rows, relative to this file.", format!("train = {}", quoted(path)));
    }
    let fields = [
        ("input", &chosen.input),
        ("label", &chosen.label),
        ("choices", &chosen.choices),
        ("split", &chosen.split),
    ];
    let pairs: Vec<String> = fields
        .iter()
        .filter_map(|(field, column)| Some(format!("{field} = {}", quoted(column.as_ref()?))))
        .collect();
    add(
        "Which column of the file is which field of a row; columns that are no field are passed over.",
        format!("columns = {{ {} }}", pairs.join(", ")),
    );
    let held_out = proposal.held_out;
    if let Some(share) = held_out.test {
        add(
            "This share of the rows is held out: read once, at the end, to measure teacher and student.",
            format!("test_share = {share}"),
        );
    }
    if let Some(share) = held_out.validation {
        add(
            "This share is held out to choose the best step of training, and to stop it early.",
            format!("validation_share = {share}"),
        );
    }
    if held_out.test.is_some() || held_out.validation.is_some() {
        add(
            "Rows are held out by a hash of their text under this seed, in the proportions of the labels.",
            format!("split_seed = {SPLIT_SEED}"),
        );
    }
}

fn teacher_section(text: &mut String, proposal: &Proposal) {
    let mut add = |line: &str| {
        let _ = writeln!(text, "{line}");
    };
    add("\n[teacher]");
    let profile = format!("profile = {}", quoted(&proposal.profile));
    if !proposal.is_taught() {
        add("# No teacher is asked: the student learns the labels of the rows alone.");
        add(&profile);
        return;
    }
    add("# Whom to ask: a profile of the configuration, as `distillery config` prints it.");
    add(&profile);
    if let Some(rows) = proposal.student.teacher_rows {
        add(
            "# How many train rows get a rationale, from the first one on; the student learns the labels of all.",
        );
        add(&format!("rows = {rows}"));
    }
    add("# The teacher answers so many test rows at most too, so that the student can be compared with it.");
    add("evaluate_rows = 200");
    add(
        "# A hard limit, retries included: remove the # and choose a number. Tokens and money can be limited as well.",
    );
    add("# budget = { prompts = 1000 }");
    add("\n[judging]");
    if proposal.is_partly_labelled {
        add(
            "# Some rows have no label: the student learns the teacher's. Where all have one, \"gold\" learns theirs.",
        );
        add("label = \"teacher\"");
    } else {
        add(
            "# The student learns the labels of the rows (\"teacher\": those of the teacher), and a rationale is kept where it ends in",
        );
        add("# the row's label.");
        add("label = \"gold\"");
    }
}

fn student_section(text: &mut String, proposal: &Proposal) {
    let student = proposal.student;
    let mut add = |line: &str| {
        let _ = writeln!(text, "{line}");
    };
    add("\n[student]");
    add(
        "# From scratch: tiny, mini, small, base or large. Or `init = \"path/to/flan-t5-small\"` in place of both lines.",
    );
    add(&format!("size = {}", quoted(&student.size.to_string())));
    add("# Entries of the tokenizer that is made from the rows.");
    add(&format!("vocabulary = {}", student.vocabulary));
    add("\n[training]");
    add("# Optimiser steps at most; training stops earlier where validation no longer improves.");
    add(&format!("steps = {}", student.steps));
    add("# The seed of everything random in training.");
    add("seed = 0");
}

/// The task.
pub(crate) fn task(proposal: &Proposal) -> String {
    let task = proposal.task();
    let mut text = format!(
        "# How the teacher is asked about a row, and how its answer is read. examples/tasks/sentiment.toml explains more.\n\n\
         # The task's name in tables and records.\nname = {}\n\n\
         # What a chat model is told before the prompt; plain completion models do not see it.\ninstruction = {}\n\n\
         # The prompt: the exemplars below, then the row. `hint` is the row's label, where a row is asked again with it.\n\
         template = \"\"\"\n{}\"\"\"\n\n\
         # Where a completion ends: where the teacher would begin the next row.\nstop = [{}]\n\n\
         # How labels are compared: \"text\" (without case, white space, a final full stop) or \"equation\" (by value).\n\
         metric = {}\n\n# Most tokens of a completion.\ntokens_max = {}\n",
        quoted(&task.name),
        quoted(&task.instruction),
        task.template,
        task.stop.iter().map(|stop| quoted(stop)).collect::<Vec<_>>().join(", "),
        quoted(&task.metric.to_string()),
        task.tokens_max,
    );
    labels(&mut text, &task.labels);
    let _ = write!(
        text,
        "\n# An answer is a rationale, the marker, and the label. Shapes: \"text\" (the rest of the line), \"choice\" (a lettered\n\
         # option), \"expression\" (arithmetic).\n[answer]\nmarker = {}\nshape = {}\n",
        quoted(&task.answer.marker),
        quoted(&task.answer.shape.to_string()),
    );
    exemplars(&mut text, &task.exemplars);
    text
}

fn labels(text: &mut String, labels: &LabelSet) {
    match labels {
        LabelSet::Open => text.push_str("\n# Any label is allowed.\nlabels = \"open\"\n"),
        LabelSet::Choices => {
            text.push_str("\n# The labels are each row's own choices.\nlabels = \"choices\"\n")
        }
        LabelSet::Closed(labels) => {
            let names: Vec<String> = labels.iter().map(|label| quoted(label)).collect();
            text.push_str("\n# The labels, all of them: a row with another one is refused.\n");
            if labels.iter().zip(0..).all(|(label, place): (&String, usize)| *label == place.to_string()) {
                text.push_str(
                    "# A teacher understands words better than numbers: write a name for each, in this order, here and in the\n\
                     # exemplars below. The numbers in the rows then stand for the names in their place, from 0.\n",
                );
            }
            let _ = writeln!(text, "[labels]\nclosed = [{}]", names.join(", "));
        }
    }
}

fn exemplars(text: &mut String, exemplars: &[Exemplar]) {
    if exemplars.is_empty() {
        return;
    }
    text.push_str("\n# Worked examples, in the wording and form that the teacher should use: rows of the file, each with why.\n");
    if exemplars.iter().any(|exemplar| exemplar.rationale.starts_with(PLACEHOLDER)) {
        let _ = writeln!(
            text,
            "# TO BE EDITED: nobody has said why yet. Write each rationale that begins with \"{PLACEHOLDER}\" anew, in a sentence or\n\
             # two; `distillery plan` and `run` refuse the file until then."
        );
    }
    for exemplar in exemplars {
        let _ = writeln!(text, "[[exemplars]]\ninput = {}", quoted(&exemplar.input));
        if !exemplar.choices.is_empty() {
            let choices: Vec<String> = exemplar.choices.iter().map(|choice| quoted(choice)).collect();
            let _ = writeln!(text, "choices = [{}]", choices.join(", "));
        }
        let (rationale, label) = (quoted(&exemplar.rationale), quoted(&exemplar.label));
        let _ = writeln!(text, "rationale = {rationale}\nlabel = {label}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::super::columns::{Chosen, Labels};
    use super::super::proposal::{HeldOut, Student};
    use super::*;
    use domain::task::Task;

    fn exemplar(input: &str, label: &str, choices: &[&str]) -> Exemplar {
        let choices = choices.iter().map(|choice| (*choice).to_owned()).collect();
        let (input, label, rationale) = (input.to_owned(), label.to_owned(), "Why \"not\"?".to_owned());
        Exemplar { input, choices, premise: None, hypothesis: None, rationale, label }
    }

    fn proposal(labels: Labels, exemplars: Vec<Exemplar>) -> Proposal {
        let held_out = HeldOut { validation: Some(0.1), test: Some(0.2) };
        Proposal {
            name: "reviews".into(),
            chosen: Chosen {
                input: Some("the \"text\"\n# x = 1".into()),
                label: Some("mood".into()),
                ..Chosen::default()
            },
            labels,
            is_partly_labelled: false,
            rows: 300,
            held_out,
            exemplars,
            profile: "local".into(),
            student: Student::of(300, held_out, None),
        }
    }

    #[test]
    fn a_task_reads_back_as_what_was_proposed() {
        let closed = Labels::Closed(vec![("a \"b\"".into(), 3), ("c\\d".into(), 4)]);
        let odd =
            exemplar("One\r\nline\u{1b}[2J\u{7f}\u{85} and \"\"\"another\"\"\" = {{ x }}", "a \"b\"", &[]);
        let options = exemplar("Which?", "y", &["x", "y"]);
        for (labels, one) in [
            (closed, odd),
            (Labels::OfChoices, options),
            (Labels::Equations, exemplar("How many?", "(1 + 2)", &[])),
            (Labels::Open, exemplar("Who?", "she", &[])),
        ] {
            let proposal = proposal(labels, vec![one.clone(), one]);
            let text = task(&proposal);
            let read: Task = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
            assert_eq!(read, proposal.task(), "{text}");
        }
    }

    #[test]
    fn a_specification_is_explained_line_by_line_and_holds_what_was_proposed() {
        let mut proposal = proposal(Labels::Open, Vec::new());
        let text = spec(&proposal, Path::new("../rows.csv"));
        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
        let at = |section: &str, key: &str| table[section][key].clone();
        assert_eq!(at("data", "train"), "../rows.csv".into());
        assert_eq!(at("data", "columns")["input"], "the \"text\"\n# x = 1".into());
        assert_eq!((at("data", "test_share"), at("student", "size")), (0.2.into(), "mini".into()));
        let keys = text
            .lines()
            .zip(text.lines().skip(1))
            .filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'));
        for (before, line) in keys {
            assert!(before.starts_with('#'), "{line} is not explained");
        }
        proposal.chosen.split = Some("part".into());
        proposal.held_out = HeldOut { validation: None, test: None };
        proposal.is_partly_labelled = true;
        let table: toml::Table = spec(&proposal, Path::new("rows.csv")).parse().unwrap();
        assert_eq!(
            (&table["data"]["file"], &table["judging"]["label"]),
            (&"rows.csv".into(), &"teacher".into())
        );
        assert!(table["data"].get("split_seed").is_none());
        proposal.profile = "none".into();
        let table: toml::Table = spec(&proposal, Path::new("rows.csv")).parse().unwrap();
        assert!(table.get("judging").is_none() && table["teacher"]["profile"] == "none".into());
    }

    #[test]
    fn rows_are_found_from_where_the_specification_lies() {
        let check = |data: &str, out: &str, expected: &str| {
            assert_eq!(relative(Path::new(data), Path::new(out)), Path::new(expected), "{data} from {out}");
        };
        check("reviews.csv", "reviews", "../reviews.csv");
        check("./data/r.csv", "a/b/", "../../data/r.csv");
        check("../r.csv", "./o", "../../r.csv");
        check("r.csv", ".", "r.csv");
        check("/r.csv", "o", "/r.csv");
        assert!(relative(Path::new("r.csv"), Path::new("/tmp/o")).is_absolute());
        assert!(relative(Path::new("r.csv"), Path::new("../o")).is_absolute());
    }
}
