//! Writes the rows of `examples/reviews`: short reviews of things, places, shows and meals, which praise or blame.
//!
//! `cargo xtask reviews --out DIR [--seed N] [--train N] [--validation N] [--test N]` writes `train.jsonl`, `test.jsonl` and,
//! where it is asked for, `validation.jsonl`. Rows of train and validation have no label: whoever learns from them asks a
//! teacher. Rows of test have the one that they were made for. Equal arguments give equal bytes on every machine.
//!
//! A review has one to three clauses of opinion, mixed in some: then the side of the majority is its label. Words of praise
//! are denied in blame and the other way round, sentences that say nothing of either are strewn in, and clauses stand alone or
//! are joined by `and` or `but`. No two rows, in one split or in two, share their text, nor the same clauses on the same
//! subject, so that a test row is never a train row in another order.

use crate::generated::{Command, Random, Row, Sizes, choose_words};
use anyhow::Context as _;
use serde_json::json;

const COMMAND: Command =
    Command { name: "reviews", sizes: Sizes { train: 3_000, validation: 0, test: 1_000 }, flags: &[] };

/// Clauses for the label and against it, each as likely as the others.
const MIXTURES: &[(usize, usize)] =
    &[(1, 0), (1, 0), (2, 0), (2, 0), (2, 0), (2, 0), (3, 0), (3, 0), (2, 1), (3, 1)];

/// Sentences that say nothing of either side, each number as likely as the others.
const FILLERS: &[usize] = &[0, 0, 1, 1, 1, 2];

/// Runs the command with the arguments that follow its name.
///
/// # Errors
/// Those of [`Command::run`].
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    COMMAND.run(arguments, review)
}

/// One review.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Review {
    input: String,
    label: &'static str,
    /// The subject and its clauses, in an order of their own.
    key: String,
}

/// What is reviewed, with what is said of this kind only.
struct Kind {
    subjects: &'static [&'static str],
    aspects: &'static [Aspect],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Praise,
    Blame,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Praise => Self::Blame,
            Self::Blame => Self::Praise,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Praise => "positive",
            Self::Blame => "negative",
        }
    }

    fn clause(self, aspect: Aspect) -> &'static str {
        match self {
            Self::Praise => aspect.0,
            Self::Blame => aspect.1,
        }
    }
}

impl Row for Review {
    fn key(&self) -> &str {
        &self.key
    }

    fn input(&self) -> &str {
        &self.input
    }

    fn line(&self, split: &str) -> String {
        match split {
            "test" => json!({"input": self.input, "label": self.label}).to_string(),
            _ => json!({"input": self.input}).to_string(),
        }
    }
}

/// Draws one review. The order of the draws is part of the format: another order is another data set.
fn review(random: &mut Random) -> anyhow::Result<Review> {
    let kind = KINDS.get(random.below(KINDS.len())).context("no kinds")?;
    let subject = random.one_of(kind.subjects)?;
    let side = random.one_of(&[Side::Praise, Side::Blame])?;
    let (with, against) = random.one_of(MIXTURES)?;
    // Nothing is praised and blamed in one review.
    let mut aspects = [OF_ANYTHING, kind.aspects].concat();
    random.shuffle(&mut aspects);
    let sides = std::iter::repeat_n(side, with).chain(std::iter::repeat_n(side.other(), against));
    let mut clauses = Vec::new();
    for (aspect, side) in aspects.into_iter().zip(sides) {
        clauses.push((side, choose_words(random, side.clause(aspect))?.replace("{it}", subject)));
    }
    let mut key: Vec<&str> = clauses.iter().map(|(_, clause)| clause.as_str()).collect();
    key.sort_unstable();
    let key = format!("{subject}: {}", key.join("; "));
    random.shuffle(&mut clauses);
    let mut sentences = join(random, subject, &clauses);
    let mut fillers = FILLER.to_vec();
    random.shuffle(&mut fillers);
    for filler in fillers.into_iter().take(random.one_of(FILLERS)?) {
        let at = random.below(sentences.len() + 1);
        sentences.insert(at, choose_words(random, filler)?.replace("{it}", subject));
    }
    let sentences: Vec<String> = sentences.iter().map(|sentence| capitalised(sentence) + ".").collect();
    Ok(Review { input: sentences.join(" "), label: side.label(), key })
}

/// Clauses as sentences: some are joined with the one before, two at most, and name the subject once.
fn join(random: &mut Random, subject: &str, clauses: &[(Side, String)]) -> Vec<String> {
    let named = format!("the {subject}");
    let mut sentences: Vec<String> = Vec::new();
    let mut alone: Option<Side> = None;
    for (side, clause) in clauses {
        match (alone, sentences.last_mut()) {
            (Some(before), Some(sentence)) if random.below(2) == 0 => {
                sentence.push_str(if before == *side { " and " } else { ", but " });
                let is_named = sentence.contains(&named);
                sentence.push_str(&if is_named { clause.replace(&named, "it") } else { clause.clone() });
                alone = None;
            }
            _ => {
                sentences.push(clause.clone());
                alone = Some(*side);
            }
        }
    }
    sentences
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What is said in praise and, of the same, in blame. `[one|other]` is a choice of words, `{it}` is the subject.
type Aspect = (&'static str, &'static str);

/// What can be said of anything: in praise and in blame.
const OF_ANYTHING: &[Aspect] = &[
    ("the {it} was [excellent|wonderful|lovely|superb]", "the {it} was [awful|terrible|dreadful|horrible]"),
    ("I [loved|enjoyed|adored] the {it}", "I [hated|regret|disliked] the {it}"),
    ("the {it} was not [bad|dull|disappointing] at all", "the {it} was not [good|pleasant|enjoyable] at all"),
    ("nothing went wrong with the {it}", "nothing went well with the {it}"),
    ("the {it} was worth [every cent|the price]", "the {it} was a waste of [money|time]"),
    ("it made my [day|week]", "it ruined my [day|week]"),
    ("the {it} was better than I [hoped|expected]", "the {it} was worse than I [feared|expected]"),
    ("I recommend the {it} to [anyone|everyone]", "I would not recommend the {it} to [anyone|a friend]"),
    ("I have no complaint about the {it}", "I complained about the {it} [twice|at once]"),
    ("the staff were [kind|friendly|helpful|quick]", "the staff were [rude|cold|unhelpful|slow]"),
    ("everyone was [happy|delighted|smiling]", "everyone was [annoyed|bored|angry]"),
    ("I would choose the same {it} again", "I will never choose the same {it} again"),
];

const KINDS: &[Kind] = &[
    Kind {
        subjects: &["lamp", "kettle", "phone", "jacket", "chair", "radio", "suitcase", "blanket", "bicycle"],
        aspects: &[
            ("it works [perfectly|every time]", "it broke [after a week|on the first day]"),
            ("it is [easy|simple] to use", "it is [difficult|awkward] to use"),
            ("it looks [beautiful|elegant]", "it looks [cheap|ugly]"),
            ("it feels [solid|well made]", "I want my money back"),
        ],
    },
    Kind {
        subjects: &["hotel", "museum", "garden", "campsite", "library", "pool", "market", "station"],
        aspects: &[
            ("everything was [clean|tidy|bright]", "everything was [dirty|broken|dark]"),
            ("we felt [welcome|at home]", "nobody [greeted|helped] us"),
            ("we want to come back soon", "we will never come back"),
            ("the view was [beautiful|splendid]", "the noise was [unbearable|dreadful]"),
        ],
    },
    Kind {
        subjects: &["film", "concert", "play", "book", "tour", "class", "lecture", "exhibition"],
        aspects: &[
            ("we laughed [a lot|all evening]", "we were bored [to tears|all evening]"),
            ("it was [exciting|moving] from start to end", "it was [dull|confusing] from start to end"),
            ("the time flew by", "we left before the end"),
            ("we talked about it with joy for days", "half of the people fell asleep"),
        ],
    },
    Kind {
        subjects: &["soup", "pizza", "coffee", "cake", "breakfast", "salad", "curry", "bread"],
        aspects: &[
            ("it tasted [delicious|fresh]", "it tasted [stale|burnt]"),
            ("we ordered a second one at once", "it made me ill"),
            ("we finished every bite with pleasure", "we could not finish it"),
            ("it smelled [wonderful|lovely]", "it smelled [strange|awful]"),
        ],
    },
];

/// Sentences that neither praise nor blame.
const FILLER: &[&str] = &[
    "we were [two|three|four] people",
    "it was my [first|second|third] {it} this year",
    "I went on a [Monday|Friday|Sunday]",
    "it was [raining|snowing] outside",
    "my [sister|brother|neighbour] told me about it",
    "I paid [in cash|by card]",
    "we had read about the {it} in the [paper|news]",
    "the sign at the door was [blue|green|red]",
    "I took the [bus|train] there",
    "I am writing this on [Tuesday|Saturday]",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::generate;
    use std::collections::{BTreeMap, HashSet};
    use std::path::Path;

    const SMALL: Sizes = Sizes { train: 600, validation: 50, test: 400 };

    fn splits(seed: u64, sizes: Sizes) -> Vec<(&'static str, Vec<Review>)> {
        generate(&sizes, seed, review).expect("the clauses give this many reviews")
    }

    #[test]
    fn the_checked_in_rows_are_what_the_command_writes() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/reviews");
        for (split, rows) in splits(1, COMMAND.sizes).into_iter().filter(|(_, rows)| !rows.is_empty()) {
            let path = examples.join(format!("{split}.jsonl"));
            let text = std::fs::read_to_string(path).expect("the example's rows");
            let written: Vec<String> = rows.iter().map(|row| row.line(split)).collect();
            assert!(written.iter().eq(text.lines()), "{split}: write the rows again, or undo the change");
        }
    }

    #[test]
    fn only_test_rows_have_a_label() {
        for (split, rows) in splits(2, SMALL) {
            for row in rows {
                let line: serde_json::Value = serde_json::from_str(&row.line(split)).expect("a line of JSON");
                let keys: Vec<&String> = line.as_object().expect("an object").keys().collect();
                let expected = if split == "test" { vec!["input", "label"] } else { vec!["input"] };
                assert_eq!(keys, expected, "{split}");
            }
        }
    }

    #[test]
    fn no_two_rows_share_their_text_or_their_clauses() {
        let all: Vec<Review> = splits(3, SMALL).into_iter().flat_map(|(_, rows)| rows).collect();
        let inputs: HashSet<&str> = all.iter().map(|row| row.input.as_str()).collect();
        let keys: HashSet<&str> = all.iter().map(|row| row.key.as_str()).collect();
        assert_eq!((inputs.len(), keys.len(), all.len()), (1_050, 1_050, 1_050));
        assert_eq!(splits(3, SMALL).first(), splits(3, Sizes { train: 900, ..SMALL }).first());
        assert_ne!(splits(3, SMALL), splits(4, SMALL));
    }

    #[test]
    fn reviews_are_whole_sentences_and_the_labels_are_balanced() {
        let mut labels = BTreeMap::<&str, usize>::new();
        for row in splits(5, SMALL).into_iter().flat_map(|(_, rows)| rows) {
            *labels.entry(row.label).or_default() += 1;
            assert!(!row.input.contains(['{', '}', '[', ']', '|']) && !row.input.contains("  "), "{row:?}");
            for sentence in row.input.trim_end_matches('.').split(". ") {
                assert!(sentence.starts_with(char::is_uppercase), "{row:?}");
            }
            assert!(row.input.ends_with('.'), "{row:?}");
        }
        // 1,050 coins have a standard deviation of 16.
        assert!(labels.len() == 2 && labels.values().all(|count| (460..590).contains(count)), "{labels:?}");
    }
}
