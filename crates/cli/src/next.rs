//! What a person does next: commands that can be copied.

use crate::args::Place;
use domain::Task;
use domain::task::LabelSet;
use std::path::Path;

/// A word as a shell takes it.
pub(crate) fn word(text: &str) -> String {
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_./@=,:+%".contains(character);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// A command of this program over the same data and settings.
pub(crate) fn command(place: &Place, words: &[&str]) -> String {
    let mut line = "distillery".to_owned();
    let flags = [("--data-dir", &place.data_dir), ("--config", &place.config)];
    let given = flags.iter().filter_map(|(flag, path)| Some([(*flag).to_owned(), shown(path.as_ref()?)]));
    for part in words.iter().map(|text| word(text)).chain(given.flatten()) {
        line.push(' ');
        line.push_str(&part);
    }
    line
}

fn shown(path: &Path) -> String {
    word(&path.display().to_string())
}

/// What to ask a student of this name first.
pub(crate) fn predict(place: &Place, model: &str, task: &Task) -> String {
    let mut words = vec!["predict", "--model", model, "--explain"];
    if task.template.contains("hypothesis") {
        words.extend(["--premise", "a text of your own", "--hypothesis", "what may follow from it"]);
    } else {
        words.extend(["--input", "a text of your own"]);
    }
    if task.labels == LabelSet::Choices {
        words.extend(["--choice", "one option", "--choice", "another option"]);
    }
    command(place, &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied() {
        let mut place = Place { data_dir: None, config: None };
        assert_eq!(command(&place, &["run", "my spec's.toml"]), "distillery run 'my spec'\\''s.toml'");
        place.data_dir = Some("/data".into());
        assert_eq!(command(&place, &["run", "spec.toml"]), "distillery run spec.toml --data-dir /data");
        assert_eq!(word(""), "''");
    }
}
