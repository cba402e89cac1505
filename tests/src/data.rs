//! Generated word problems, the answers of a teacher, and specifications over them.

use crate::teacher::Reply;
use std::fmt::{self, Write as _};
use std::path::Path;

/// Writes `rows` word problems of one split as JSON Lines; `salt` makes splits differ.
///
/// # Errors
/// The file cannot be written.
pub fn write_problems(path: &Path, rows: usize, salt: usize) -> std::io::Result<()> {
    let mut text = String::new();
    for row in 0..rows {
        let (left, right) = numbers(row + salt * 1_000);
        let input = format!(
            "Ann has {left} pens in box {} and buys {right} more. How many pens has she?",
            row + salt
        );
        let line = serde_json::json!({"input": input, "label": format!("( {left} + {right} )")});
        let _ = writeln!(text, "{line}");
    }
    std::fs::write(path, text)
}

fn numbers(seed: usize) -> (usize, usize) {
    (2 + seed * 7 % 89, 3 + seed * 13 % 83)
}

/// The last question of `prompt`: the row's input, which identifies the row.
pub fn question(prompt: &str) -> &str {
    prompt.rsplit("Q:").next().unwrap_or_default().lines().next().unwrap_or_default().trim()
}

/// The questions of a prompt about several rows, each with its number; none of a prompt about one.
pub fn questions(prompt: &str) -> Vec<(usize, String)> {
    let Some((_, asked)) = prompt.split_once("questions follow, each under its number in square brackets.")
    else {
        return Vec::new();
    };
    let mut found: Vec<(usize, String)> = Vec::new();
    for line in asked.lines().take_while(|line| !line.starts_with("Answer all ")) {
        let number =
            line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(|n| n.parse().ok());
        match (number, found.last_mut()) {
            (Some(number), _) => found.push((number, String::new())),
            (None, Some((_, question))) => {
                question.push_str(line);
                question.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// A teacher's answer to the last question of `prompt`. It is wrong for every fifth question, always in the same way,
/// unless the prompt contains a hint.
pub fn teach(prompt: &str) -> Reply {
    let numbers: Vec<u64> = question(prompt)
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    let [left, place, right] = numbers.as_slice() else {
        return Reply::completion(" I do not know.");
    };
    let operator = if is_hinted(prompt) || place % 5 != 0 { '+' } else { '-' };
    Reply::completion(&format!(
        " Ann has {left} pens. She buys {right} more. {left} {operator} {right}. The answer is ({left} {operator} {right})."
    ))
}

/// Whether `prompt` contains a hint with the answer.
pub fn is_hinted(prompt: &str) -> bool {
    prompt.contains("Hint: the correct answer is")
}

/// A specification, section by section. The defaults are a job of one or two seconds.
#[derive(Debug, Clone)]
pub struct SpecText<'a> {
    /// The job's name.
    pub name: &'a str,
    /// The task's name or file.
    pub task: &'a str,
    /// The lines of `[data]`.
    pub data: &'a str,
    /// The lines of `[teacher]`.
    pub teacher: &'a str,
    /// The lines of `[judging]`.
    pub judging: &'a str,
    /// The lines of `[student]`.
    pub student: &'a str,
    /// The lines of `[training]`.
    pub training: &'a str,
}

impl Default for SpecText<'_> {
    fn default() -> Self {
        Self {
            name: "job",
            task: "equation",
            data: "train = \"train.jsonl\"\nvalidation = \"validation.jsonl\"\ntest = \"test.jsonl\"",
            teacher: "profile = \"local\"",
            judging: "",
            student: "size = \"tiny\"\nvocabulary = 400",
            training: "steps = 4\nbatch_examples = 8\ntarget_tokens_max = 32",
        }
    }
}

impl fmt::Display for SpecText<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "name = \"{}\"\ntask = \"{}\"", self.name, self.task)?;
        let sections = [
            ("data", self.data),
            ("teacher", self.teacher),
            ("judging", self.judging),
            ("student", self.student),
            ("training", self.training),
        ];
        for (name, lines) in sections {
            writeln!(formatter, "\n[{name}]\n{lines}")?;
        }
        Ok(())
    }
}
