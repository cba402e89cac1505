//! Small word problems, made up on the spot, and the answers a teacher gives to them.

use crate::teacher::Reply;
use std::fmt::Write as _;
use std::path::Path;

/// Writes `rows` word problems of one split as JSON Lines; `salt` keeps splits apart.
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

/// What a careful teacher says to the last question of `prompt`; to every fifth it says something wrong, always the
/// same.
pub fn teach(prompt: &str) -> Reply {
    let question = prompt.rsplit("Q:").next().unwrap_or_default();
    let numbers: Vec<u64> = question
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    let [left, place, right] = numbers.as_slice() else {
        return Reply::completion(" I do not know.");
    };
    let operator = if place % 5 == 0 { '-' } else { '+' };
    Reply::completion(&format!(
        " Ann has {left} pens. She buys {right} more. {left} {operator} {right}. The answer is ({left} {operator} {right})."
    ))
}

/// A specification over `train.jsonl`, `validation.jsonl` and `test.jsonl` beside it.
///
/// # Errors
/// The file cannot be written.
pub fn write_spec(path: &Path, training: &str) -> std::io::Result<()> {
    std::fs::write(
        path,
        format!(
            "name = \"job\"\ntask = \"equation\"\n\n[data]\ntrain = \"train.jsonl\"\nvalidation = \"validation.jsonl\"\n\
             test = \"test.jsonl\"\n\n[teacher]\nprofile = \"local\"\n\n[student]\nsize = \"tiny\"\nvocabulary = 400\n\n\
             [training]\n{training}\n"
        ),
    )
}
