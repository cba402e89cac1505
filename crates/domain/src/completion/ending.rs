//! Where an answer ends, though the text goes on.

/// Special tokens that end a turn or begin another, where a server has left them in the text.
const END_TOKENS: &[&str] = &[
    "</s>",
    "<|im_end|>",
    "<|im_start|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|start_header_id|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|end|>",
    "<|return|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<start_of_turn>",
    "<turn|>",
    "<|turn>",
    "<|user|>",
    "<|assistant|>",
    "<|END_RESPONSE|>",
    "<|END_OF_TURN_TOKEN|>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<eos>",
    "<pad>",
    "[INST]",
    "[/INST]",
];

/// Special tokens that open the answer.
const START_TOKENS: &[&str] = &[
    "<s>",
    "<bos>",
    "<|begin_of_text|>",
    "<|im_start|>assistant",
    "<|start_header_id|>assistant<|end_header_id|>",
    "<start_of_turn>model",
    "<|turn>model",
    "<|assistant|>",
    "<｜Assistant｜>",
    "<|START_RESPONSE|>",
    "[/INST]",
];

/// How a chat model takes its leave, in lower case.
const PLEASANTRIES: &[&str] = &[
    "best of luck",
    "best regards",
    "can i help",
    "cheers",
    "do you have any",
    "do you need",
    "do you want",
    "don't hesitate",
    "feel free",
    "glad i could",
    "glad to help",
    "good luck",
    "happy to help",
    "have a good",
    "have a great",
    "have a nice",
    "hope it helps",
    "hope that helps",
    "hope this",
    "i hope",
    "i'm happy to",
    "i'm here to",
    "if there is anything",
    "if there's anything",
    "if you have",
    "if you need",
    "if you want",
    "if you would",
    "if you'd",
    "is there anything",
    "kind regards",
    "let me know",
    "please don't hesitate",
    "please feel free",
    "please let me know",
    "thank you",
    "thanks for",
    "would you like",
    "you are welcome",
    "you're welcome",
];

/// Most special tokens in front of an answer.
const START_TOKENS_MAX: usize = 8;

/// In how many characters behind a sentence a leave has to begin and be known.
const LEAVE_CHARACTERS_MAX: usize = 48;

/// What may stand between a sentence's last mark and the white space behind it.
const CLOSERS: &[char] = &['*', '_', '`', '~', '$', '"', '\'', '”', '’', '»', ')', ']', '}', '\\'];

/// `text` up to the first of `stops` in it, and whether there is one.
pub fn cut<'a>(text: &'a str, stops: &[String]) -> (&'a str, bool) {
    first_cut(text, stops.iter().map(String::as_str).filter(|stop| !stop.is_empty()))
}

/// `text` without special tokens in front and from the first that ends it, and whether there is one that ends it.
pub(super) fn without_tokens(text: &str) -> (&str, bool) {
    let mut rest = text;
    for _ in 0..START_TOKENS_MAX {
        let start = rest.trim_start();
        match START_TOKENS.iter().find_map(|token| start.strip_prefix(token)) {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    first_cut(rest, END_TOKENS.iter().copied())
}

fn first_cut<'a, 'b>(text: &'a str, ends: impl Iterator<Item = &'b str>) -> (&'a str, bool) {
    let first = ends
        .filter_map(|end| text.split_once(end))
        .map(|(before, _)| before)
        .min_by_key(|before| before.len());
    first.map_or((text, false), |before| (before, true))
}

/// What is left of `after`, the text behind the marker, where an invented question follows on the same line: a stop
/// sequence that begins a line (`\nQ:`), with any white space in its place. Before the marker the same words are the
/// rationale's own. `free` says that a label may hold any words: then a sentence has to end before it.
pub(super) fn before_run_on<'a>(
    after: &'a str,
    stops: &[String],
    set: &[String],
    free: bool,
) -> Option<&'a str> {
    let openings = stops.iter().filter(|stop| stop.starts_with(char::is_whitespace)).map(|stop| stop.trim());
    openings
        .filter(|opening| !opening.is_empty() && !set.iter().any(|label| label.contains(opening)))
        .filter_map(|opening| {
            after.match_indices(opening).find_map(|(place, _)| {
                let before = after.get(..place)?;
                let label = before.trim_end();
                let apart = label.len() < before.len() && label.contains(char::is_alphanumeric);
                (apart && (!free || ends_sentence(label))).then_some(before)
            })
        })
        .min_by_key(|before| before.len())
}

fn ends_sentence(text: &str) -> bool {
    text.trim_end_matches(CLOSERS).ends_with(['.', '!', '?', '。'])
}

/// `text` up to the sentence in which a chat model takes its leave.
pub(super) fn without_pleasantry(text: &str) -> &str {
    let Some(said) = text.find(char::is_alphanumeric) else { return text };
    let leaves = |rest: &str| {
        // Bounded, so that a text of nothing but boundaries is read in time.
        let start =
            rest.chars().take(LEAVE_CHARACTERS_MAX).collect::<String>().to_lowercase().replace('’', "'");
        let start = start.trim_start_matches(|character: char| !character.is_alphanumeric());
        PLEASANTRIES.iter().any(|pleasantry| start.starts_with(pleasantry))
    };
    boundaries(text)
        .filter(|place| *place > said)
        .filter_map(|place| text.split_at_checked(place))
        .find(|(_, rest)| leaves(rest))
        .map_or(text, |(label, _)| label)
}

/// Where sentences and lines of `text` end, its own end left out.
pub(super) fn boundaries(text: &str) -> impl Iterator<Item = usize> {
    let mut ended = false;
    text.char_indices().filter_map(move |(place, character)| {
        let boundary = character == '\n' || (ended && character.is_whitespace());
        ended = match character {
            '.' | '!' | '?' | '。' => true,
            other => ended && CLOSERS.contains(&other),
        };
        boundary.then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_stop_cuts() {
        let stops = ["ab".to_owned(), "b".to_owned(), String::new()];
        assert_eq!(cut("xxabyy", &stops), ("xx", true));
        assert_eq!(cut("xby ab", &stops), ("x", true));
        assert_eq!(cut("xyz", &stops), ("xyz", false));
    }

    #[test]
    fn special_tokens_are_no_text() {
        let check =
            |text: &str, kept: &str, ended| assert_eq!(without_tokens(text), (kept, ended), "{text:?}");
        check("We add.", "We add.", false);
        check("We add.</s>", "We add.", true);
        check("We add.<|im_end|>\n<|im_start|>user\nAnd", "We add.", true);
        check(" <s> <|im_start|>assistant\nWe add.", "\nWe add.", false);
        check("\n\nQ: We", "\n\nQ: We", false);
        check("</s>", "", true);
    }

    #[test]
    fn run_ons_follow_the_label() {
        let stops = ["\nQ:".to_owned(), "Premise".to_owned()];
        let check = |after: &str, free, expected: Option<&str>| {
            assert_eq!(before_run_on(after, &stops, &["b".to_owned()], free), expected, "{after:?}");
        };
        check(" (a) sea. Q: Where", false, Some(" (a) sea. "));
        check(" (a) sea Q: Where", false, Some(" (a) sea "));
        check(" (a) sea Q: Where", true, None);
        check(" **sea.** Q: Where", true, Some(" **sea.** "));
        check(" FAQ: Where", false, None);
        check(" Q: Where", false, None);
        check(" (a) Premise sea", false, None);
        assert_eq!(before_run_on(" b. Q: c", &stops, &["the Q: key".to_owned()], false), None);
    }

    #[test]
    fn leave_is_not_part_of_a_label() {
        let check = |text: &str, kept: &str| assert_eq!(without_pleasantry(text), kept, "{text:?}");
        check("(1).\n\nLet me know!", "(1).");
        check("(1). I hope this helps!", "(1).");
        check("**(1).** *If you’d like more, ask.*", "**(1).**");
        check("(1)\n\n---\n\n😊 Let me know!", "(1)");
        check("Let me know", "Let me know");
        check("a hope. Saturday", "a hope. Saturday");
        check("we say I hope so", "we say I hope so");
    }
}
