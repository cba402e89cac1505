//! The thoughts that a reasoning model writes into its answer.

/// What opens thoughts and what closes them, without case, by several families of models.
const TAGS: &[(&str, &str)] = &[
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
];

/// With which character a tag begins.
const TAG_STARTS: &[char] = &['<', '[', '◁'];
/// Opens a message's channel in the harmony format.
const CHANNEL: &str = "<|channel|>";
/// Stands between a message's channel and its text.
const MESSAGE: &str = "<|message|>";
/// What ends a message's text.
const MESSAGE_ENDS: &[&str] = &["<|end|>", "<|return|>", "<|call|>", "<|start|>"];
/// The channel that the user is shown.
const FINAL: &str = "final";

/// The thoughts in `text`, and the answer that is left without them. Thoughts are no rationale: they quote the prompt,
/// try answers and drop them, so that neither stop sequences nor the marker may be looked for in them.
///
/// - Between tags such as `<think>` and `</think>`. A closing tag without an opening one, as where the prompt's template
///   has opened it, makes everything before it thoughts; an opening tag that is never closed, everything behind it.
/// - In every channel but `final` of the harmony format, also where a server removed the special tokens and left
///   `analysis...assistantfinal...`. Behind the first final message a model only runs on.
///
/// Without thoughts the answer is `text`.
pub fn split_thoughts(text: &str) -> (String, String) {
    if text.contains(CHANNEL) {
        return channels(text);
    }
    let bare = text.trim_start().strip_prefix("analysis").and_then(|rest| rest.split_once("assistantfinal"));
    if let Some((thoughts, answer)) = bare {
        return (thoughts.trim().to_owned(), answer.to_owned());
    }
    tags(text)
}

fn tags(text: &str) -> (String, String) {
    let mut thoughts: Vec<String> = Vec::new();
    let mut answer = String::new();
    let mut open: Option<&str> = None;
    let mut start = 0;
    for (place, _) in text.match_indices(TAG_STARTS) {
        let (Some(piece), Some(from)) = (text.get(start..place), text.get(place..)) else { continue };
        match open {
            Some(close) if begins(from, close) => {
                thoughts.push(piece.to_owned());
                open = None;
                start = place + close.len();
            }
            Some(_) => {}
            None => {
                if let Some((tag, close)) = TAGS.iter().find(|(tag, _)| begins(from, tag)) {
                    answer.push_str(piece);
                    open = Some(close);
                    start = place + tag.len();
                } else if let Some((_, close)) = TAGS.iter().find(|(_, close)| begins(from, close)) {
                    answer.push_str(piece);
                    thoughts.push(std::mem::take(&mut answer));
                    start = place + close.len();
                }
            }
        }
    }
    let rest = text.get(start..).unwrap_or_default();
    if open.is_some() {
        thoughts.push(rest.to_owned());
    } else {
        answer.push_str(rest);
    }
    (joined(thoughts), answer)
}

fn begins(text: &str, tag: &str) -> bool {
    text.get(..tag.len()).is_some_and(|head| head.eq_ignore_ascii_case(tag))
}

fn channels(text: &str) -> (String, String) {
    let mut parts = text.split(CHANNEL);
    // A template may have opened the first channel, and that is one for thoughts where another follows it.
    let mut thoughts = vec![message(parts.next().unwrap_or_default()).to_owned()];
    for part in parts {
        // A server that removes some special tokens may leave none between channel and text.
        let unmarked = || part.strip_prefix(FINAL).filter(|body| !body.starts_with("<|"));
        let (header, body) =
            part.split_once(MESSAGE).or_else(|| Some((FINAL, unmarked()?))).unwrap_or(("", part));
        if header.split_whitespace().next() == Some(FINAL) {
            return (joined(thoughts), message(body).to_owned());
        }
        thoughts.push(message(body).to_owned());
    }
    (joined(thoughts), String::new())
}

/// A message's text up to its end.
fn message(text: &str) -> &str {
    let ends = MESSAGE_ENDS.iter().filter_map(|end| text.split_once(end));
    ends.map(|(before, _)| before).min_by_key(|before| before.len()).unwrap_or(text)
}

fn joined(thoughts: Vec<String>) -> String {
    let kept: Vec<&str> =
        thoughts.iter().map(|thought| thought.trim()).filter(|thought| !thought.is_empty()).collect();
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str, thoughts: &str, answer: &str) {
        assert_eq!(split_thoughts(text), (thoughts.to_owned(), answer.to_owned()), "{text:?}");
    }

    #[test]
    fn tags_keep_thoughts_apart() {
        check("We add.", "", "We add.");
        check("<think>Hm.</think>We add.", "Hm.", "We add.");
        check("<think>\n\n</think>\n\nWe add.", "", "\n\nWe add.");
        check("Hm.\n</think>\nWe add.", "Hm.", "\nWe add.");
        check("<THINK>Hm.</Think>We add.", "Hm.", "We add.");
        check("<think>One.</think>We <thinking>Two.</thinking>add.", "One.\nTwo.", "We add.");
        check(
            "<think>A <think> in it, </thought>.</think>We add.",
            "A <think> in it, </thought>.",
            "We add.",
        );
        check("<think>A </think> in it.</think>We add.", "A\nin it.", "We add.");
        check("<think>Hm", "Hm", "");
        check("We add. <think>Hm", "Hm", "We add. ");
        check("[THINK]Hm.[/THINK]We add.", "Hm.", "We add.");
        check("◁think▷Hm.◁/think▷We add.", "Hm.", "We add.");
        check("<|channel>thought\nHm.<channel|>We add.", "Hm.", "We add.");
        check("1 < 2 [THINKING] <thinks> é</", "", "1 < 2 [THINKING] <thinks> é</");
    }

    #[test]
    fn channels_keep_thoughts_apart() {
        let end = "<|end|><|start|>assistant";
        let analysis = "<|channel|>analysis<|message|>Hm.";
        let last = "<|channel|>final<|message|>We add.";
        check(&format!("{analysis}{end}{last}"), "Hm.", "We add.");
        check(&format!("{analysis}{end}{last}<|return|>"), "Hm.", "We add.");
        check(&format!("{last}{end}{analysis}{end}<|channel|>final<|message|>No."), "", "We add.");
        check(&format!("Hm.{end}{last}"), "Hm.", "We add.");
        check(&format!("<|start|>assistant{last}"), "", "We add.");
        check(
            &format!("{analysis}{end}<|channel|>commentary to=x<|message|>Ho.<|call|>{last}"),
            "Hm.\nHo.",
            "We add.",
        );
        check(&format!("{analysis}{end}<|channel|>final<|constrain|>"), "Hm.\nfinal<|constrain|>", "");
        check(&format!("{analysis}{end}<|channel|>finalWe add."), "Hm.", "We add.");
        check(analysis, "Hm.", "");
        check("analysisHm.assistantfinalWe add.", "Hm.", "We add.");
        check("analysis of the sum: we add.", "", "analysis of the sum: we add.");
    }

    proptest! {
        #[test]
        fn no_text_loses_its_answer(thought in "[a-z .(\n]{0,40}", answer in "[a-z .(\n]{0,40}") {
            for (open, close) in TAGS {
                let (thoughts, rest) = split_thoughts(&format!("{open}{thought}{close}{answer}"));
                prop_assert_eq!((thoughts.as_str(), rest.as_str()), (thought.trim(), answer.as_str()));
            }
            prop_assert_eq!(split_thoughts(&answer), (String::new(), answer));
        }
    }
}
