//! Writes rows that take several dependent steps, with a scripted teacher's rationale for each train row.
//!
//! `cargo xtask steps --task TASK --out DIR [--wrong PERCENT] [--seed N] [--train N] [--validation N] [--test N]` writes
//! `train.jsonl`, `validation.jsonl` and `test.jsonl`. Every row has its label; train rows have a rationale that states every
//! intermediate. Of the rationales, about PERCENT are wrong: one intermediate is another than it is, and what follows from it
//! follows. Equal arguments give equal bytes on every machine, and the same rows whatever PERCENT is.
//!
//! | task | asks | the rationale states |
//! | --- | --- | --- |
//! | `oldest` | which of five people is the oldest, from one age and four differences | every age |
//! | `key` | who has the key after six exchanges among five people | who has it after each |
//! | `prices` | whether somebody can pay for three things, whose prices are nowhere in the rows | every price, and their sum |
//! | `heavier` | whether one thing is heavier than another, whose weights are nowhere in the rows | both weights |
//! | `villages` | whether most of seven villages lie north, which is nowhere in the rows | where each lies |
//!
//! In the last three a rationale holds what its teacher knows and a label hardly tells.

use crate::generated::{Command, Options, Random, Row, Sizes};
use anyhow::{Context as _, bail};
use serde_json::json;

const COMMAND: Command = Command {
    name: "steps",
    sizes: Sizes { train: 2_000, validation: 200, test: 2_000 },
    flags: &[("--task", "oldest|key|prices|heavier|villages"), ("--wrong", "PERCENT")],
};

/// Runs the command with the arguments that follow its name.
///
/// # Errors
/// Those of [`Command::run`], or an unknown task.
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let options = COMMAND.parse(arguments)?;
    let script = Script::of(&options)?;
    COMMAND.write(&options, |random| script.draw(random))
}

/// What is asked, and how often the teacher is wrong.
#[derive(Clone, Copy)]
struct Script {
    task: Task,
    wrong_percent: u64,
}

#[derive(Clone, Copy)]
enum Task {
    Oldest,
    Key,
    Prices,
    Heavier,
    Villages,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Question {
    input: String,
    label: String,
    rationale: String,
    /// What no two rows may share, where it is not the input.
    key: Option<String>,
}

impl Row for Question {
    fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(&self.input)
    }

    fn input(&self) -> &str {
        &self.input
    }

    fn line(&self, split: &str) -> String {
        match split {
            "train" => {
                json!({"input": self.input, "label": self.label, "rationale": self.rationale}).to_string()
            }
            _ => json!({"input": self.input, "label": self.label}).to_string(),
        }
    }
}

impl Script {
    fn of(options: &Options) -> anyhow::Result<Self> {
        let task = match options.flag("--task") {
            Some("oldest") => Task::Oldest,
            Some("key") => Task::Key,
            Some("prices") => Task::Prices,
            Some("heavier") => Task::Heavier,
            Some("villages") => Task::Villages,
            Some(other) => {
                bail!("--task: there is no task {other:?}: oldest, key, prices, heavier or villages")
            }
            None => bail!("--task is missing: oldest, key, prices, heavier or villages"),
        };
        let wrong_percent = match options.flag("--wrong") {
            Some(percent) => percent.parse().ok().filter(|percent| *percent <= 100),
            None => Some(0),
        };
        Ok(Self { task, wrong_percent: wrong_percent.context("--wrong: name a percentage from 0 to 100")? })
    }

    /// The draws of a row do not depend on whether its rationale is wrong.
    fn draw(self, random: &mut Random) -> anyhow::Result<Question> {
        let is_wrong = random.below(100) < self.wrong_percent as usize;
        let (place, by) = (random.below(1_000), random.below(1_000));
        let slip = is_wrong.then_some(Slip { place, by });
        match self.task {
            Task::Oldest => oldest(random, slip),
            Task::Key => key(random, slip),
            Task::Prices => prices(random, slip),
            Task::Heavier => heavier(random, slip),
            Task::Villages => villages(random, slip),
        }
    }
}

/// The one intermediate in which a rationale goes wrong, as a large number to be cut to the number of intermediates, and by how
/// much.
#[derive(Clone, Copy)]
struct Slip {
    place: usize,
    by: usize,
}

impl Slip {
    fn is_at(slip: Option<Self>, place: usize, places: usize) -> Option<usize> {
        slip.filter(|slip| slip.place % places == place).map(|slip| slip.by)
    }
}

const NAMES: &[&str] = &["Ann", "Bob", "Cid", "Dee", "Eve", "Fay", "Gus", "Hal", "Ida", "Jon"];
const PEOPLE: usize = 5;
const EXCHANGES: usize = 6;

fn oldest(random: &mut Random, slip: Option<Slip>) -> anyhow::Result<Question> {
    // Bounded: most draws have one oldest.
    for _ in 0..1_000 {
        let mut names = NAMES.to_vec();
        random.shuffle(&mut names);
        let first = random.between(20, 60);
        // Each one's age rests on that of one before.
        let links: Vec<(usize, u64, bool)> = (1..PEOPLE)
            .map(|place| (random.below(place), random.between(1, 9), random.below(2) == 0))
            .collect();
        let ages = |slip: Option<Slip>| -> Vec<u64> {
            let mut ages = vec![first];
            for (place, (before, years, is_older)) in links.iter().enumerate() {
                let before = ages.get(*before).copied().unwrap_or(first);
                let age = if *is_older { before + years } else { before.saturating_sub(*years) };
                // Wrong by one to nine years.
                let slipped = Slip::is_at(slip, place, links.len()).map(|by| age + 1 + by as u64 % 9);
                ages.push(slipped.unwrap_or(age));
            }
            ages
        };
        let Some(label) = of_most(&names, &ages(None)) else { continue };
        let stated_ages = ages(slip);
        let most = stated_ages.iter().max();
        // A rationale that is wrong may find two: it takes the first.
        let concluded =
            names.iter().zip(&stated_ages).find(|(_, age)| Some(*age) == most).map_or("", |(name, _)| name);
        let mut sentences = vec![format!("{} is {first}.", names.first().context("a name")?)];
        for (place, (before, years, is_older)) in (1..).zip(&links) {
            let (name, other) = (names.get(place).context("a name")?, names.get(*before).context("a name")?);
            let word = if *is_older { "older" } else { "younger" };
            sentences.push(format!("{name} is {years} {word} than {other}."));
        }
        let stated: Vec<String> =
            names.iter().zip(&stated_ages).map(|(name, age)| format!("{name} {age}")).collect();
        return Ok(Question {
            input: sentences.join(" "),
            label: label.to_owned(),
            rationale: format!("{}: {concluded}.", stated.join(", ")),
            key: None,
        });
    }
    bail!("no five people of whom one is the oldest")
}

/// Who alone has the most.
fn of_most<'a>(names: &[&'a str], ages: &[u64]) -> Option<&'a str> {
    let most = ages.iter().max()?;
    let mut of_most = names.iter().zip(ages).filter(|(_, age)| *age == most);
    let (name, _) = of_most.next()?;
    of_most.next().is_none().then_some(*name)
}

fn key(random: &mut Random, slip: Option<Slip>) -> anyhow::Result<Question> {
    let names = NAMES.get(..PEOPLE).context("five names")?;
    let mut holder = random.below(PEOPLE);
    let mut stated_holder = holder;
    let name = |place: usize| names.get(place).copied().context("a name");
    let mut sentences = vec![format!("{} has the key.", name(holder)?)];
    let mut stated = vec![name(holder)?];
    for exchange in 0..EXCHANGES {
        let (one, other) = random.two_of(PEOPLE);
        sentences.push(format!("{} and {} swap.", name(one)?, name(other)?));
        holder = swapped(holder, one, other);
        stated_holder = swapped(stated_holder, one, other);
        if let Some(by) = Slip::is_at(slip, exchange, EXCHANGES) {
            stated_holder = (stated_holder + 1 + by % (PEOPLE - 1)) % PEOPLE;
        }
        stated.push(name(stated_holder)?);
    }
    Ok(Question {
        input: sentences.join(" "),
        label: name(holder)?.to_owned(),
        rationale: format!("{}.", stated.join(", ")),
        key: None,
    })
}

fn swapped(holder: usize, one: usize, other: usize) -> usize {
    match holder {
        holder if holder == one => other,
        holder if holder == other => one,
        holder => holder,
    }
}

/// Things of which the teacher knows the price, and no row tells it.
const THINGS: &[&str] = &[
    "lamp", "rope", "kettle", "drum", "boat", "chair", "spoon", "cup", "hat", "coat", "shoe", "glove",
    "scarf", "ring", "watch", "book", "pen", "map", "lock", "door", "fence", "tent", "stove", "pan", "pot",
    "plate", "fork", "knife", "bowl", "jar", "box", "bag", "sack", "crate", "barrel", "wheel", "cart",
    "saddle", "whip", "bell", "horn", "flute", "harp", "violin", "guitar", "piano", "easel", "brush",
    "canvas", "frame", "mirror", "clock", "candle", "torch", "lantern", "mat", "rug", "quilt", "pillow",
    "sheet", "towel", "soap", "comb", "razor", "needle", "button", "ribbon", "cheese", "honey", "melon",
    "lemon", "ham", "fish", "crab", "goat", "sheep", "hen", "duck", "goose", "horse", "mule", "donkey",
    "dog", "cat", "parrot", "finch", "ladder", "hammer", "saw", "axe", "shovel", "rake", "hoe", "plough",
    "anvil", "chisel", "drill", "plane", "file", "vice", "thread", "lace", "silk", "linen", "wool", "cotton",
    "leather", "fur", "bread", "butter", "jam", "tea", "coffee", "sugar", "salt", "pepper", "flour", "rice",
    "bean", "onion",
];
const WANTED: usize = 3;
const PRICE_MAX: u64 = 20;
/// Most coins by which the sum is missed or left over.
const NEAR: u64 = 8;

/// From 1 to [`PRICE_MAX`], fixed for all time.
fn price(thing: usize) -> u64 {
    Random::new(7, thing as u64).between(1, PRICE_MAX)
}

fn prices(random: &mut Random, slip: Option<Slip>) -> anyhow::Result<Question> {
    let mut things: Vec<usize> = (0..THINGS.len()).collect();
    random.shuffle(&mut things);
    things.truncate(WANTED);
    let sum: u64 = things.iter().map(|thing| price(*thing)).sum();
    let (is_enough, by) = (random.below(2) == 0, random.between(1, NEAR));
    // Where the sum is too small to be missed by so much, it is missed by less.
    let coins = if is_enough { sum + by - 1 } else { sum.saturating_sub(by).max(1) };
    let stated: Vec<u64> = things
        .iter()
        .enumerate()
        .map(|(place, thing)| match Slip::is_at(slip, place, WANTED) {
            // Another price than the right one.
            Some(by) => (price(*thing) + by as u64 % (PRICE_MAX - 1)) % PRICE_MAX + 1,
            None => price(*thing),
        })
        .collect();
    let names: Vec<&str> = things
        .iter()
        .map(|thing| THINGS.get(*thing).copied().context("a thing"))
        .collect::<anyhow::Result<_>>()?;
    let [first, second, third] = names.as_slice() else { bail!("three things") };
    let each: Vec<String> =
        names.iter().zip(&stated).map(|(name, price)| format!("{name} {price}")).collect();
    let (label, all): (_, u64) = (if coins >= sum { "yes" } else { "no" }, stated.iter().sum());
    let concluded = if coins >= all { "not more than" } else { "more than" };
    let word = if coins >= all { "yes" } else { "no" };
    Ok(Question {
        input: format!(
            "{} has {coins} coins and wants a {first}, a {second} and a {third}.",
            random.one_of(NAMES)?
        ),
        label: label.to_owned(),
        rationale: format!("{}: {all}, {concluded} {coins}: {word}.", each.join(", ")),
        key: None,
    })
}

/// Weights are from 1 to this.
const WEIGHT_MAX: u64 = 9;

/// Fixed for all time.
fn weight(thing: usize) -> u64 {
    Random::new(8, thing as u64).between(1, WEIGHT_MAX)
}

fn heavier(random: &mut Random, slip: Option<Slip>) -> anyhow::Result<Question> {
    // Bounded: eight of nine pairs differ.
    for _ in 0..1_000 {
        let (one, other) = random.two_of(THINGS.len());
        let weights = [weight(one), weight(other)];
        let [first, second] = weights;
        if first == second {
            continue;
        }
        let stated: Vec<u64> = weights
            .iter()
            .enumerate()
            .map(|(place, weight)| match Slip::is_at(slip, place, weights.len()) {
                // Another weight than the right one.
                Some(by) => (weight + by as u64 % (WEIGHT_MAX - 1)) % WEIGHT_MAX + 1,
                None => *weight,
            })
            .collect();
        let [stated_first, stated_second] = stated.as_slice() else { bail!("two weights") };
        let word = |is_yes: bool| if is_yes { "yes" } else { "no" };
        let name = |thing: usize| THINGS.get(thing).copied().context("a thing");
        return Ok(Question {
            input: format!("Is {} heavier than {}?", name(one)?, name(other)?),
            label: word(first > second).to_owned(),
            rationale: format!(
                "{} {stated_first}, {} {stated_second}, so {}.",
                name(one)?,
                name(other)?,
                word(stated_first > stated_second)
            ),
            // A test row is no train row the other way round.
            key: Some(format!("{} {}", one.min(other), one.max(other))),
        });
    }
    bail!("no two things of different weights")
}

/// Every beginning with every end is a village. A name stands before a comma in the row and before a word in the rationale: a
/// tokenizer trained on words that it counts once makes a piece of it.
const BEGINNINGS: &[&str] = &[
    "ash", "birch", "black", "bram", "bur", "clay", "cold", "elm", "fern", "glen", "hazel", "kirk", "lang",
    "mill", "oak", "red", "stan", "thorn", "whit", "wood",
];
const ENDS: &[&str] = &[
    "bourne", "by", "combe", "dale", "field", "ford", "ham", "hurst", "ley", "mere", "stead", "thorpe",
    "ton", "wick", "worth",
];
const ON_THE_WAY: usize = 7;

/// Whether a village lies north, fixed for all time: one of every two that follow each other does.
fn lies_north(village: usize) -> bool {
    (Random::new(9, (village / 2) as u64).below(2) == 0) == village.is_multiple_of(2)
}

fn villages(random: &mut Random, slip: Option<Slip>) -> anyhow::Result<Question> {
    let mut villages: Vec<usize> = (0..BEGINNINGS.len() * ENDS.len()).collect();
    random.shuffle(&mut villages);
    villages.truncate(ON_THE_WAY);
    let name = |village: usize| -> anyhow::Result<String> {
        let beginning = BEGINNINGS.get(village / ENDS.len()).context("a beginning")?;
        Ok(format!("{beginning}{}", ENDS.get(village % ENDS.len()).context("an end")?))
    };
    let names: Vec<String> = villages.iter().map(|village| name(*village)).collect::<anyhow::Result<_>>()?;
    let north: Vec<bool> = villages.iter().map(|village| lies_north(*village)).collect();
    let stated: Vec<bool> = north
        .iter()
        .enumerate()
        .map(|(place, north)| north ^ Slip::is_at(slip, place, ON_THE_WAY).is_some())
        .collect();
    let most = |north: &[bool]| {
        let count = north.iter().filter(|is_north| **is_north).count();
        if count * 2 > north.len() { "yes" } else { "no" }
    };
    let each: Vec<String> = names
        .iter()
        .zip(&stated)
        .map(|(name, north)| format!("{name} {}", if *north { "north" } else { "south" }))
        .collect();
    Ok(Question {
        input: format!("Most north? {}.", names.join(", ")),
        label: most(&north).to_owned(),
        rationale: format!("{}, so {}.", each.join(" "), most(&stated)),
        key: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::generate;
    use std::collections::BTreeMap;

    const SMALL: Sizes = Sizes { train: 900, validation: 50, test: 400 };
    const TASKS: [(&str, Task); 5] = [
        ("oldest", Task::Oldest),
        ("key", Task::Key),
        ("prices", Task::Prices),
        ("heavier", Task::Heavier),
        ("villages", Task::Villages),
    ];

    fn train(task: Task, wrong_percent: u64) -> Vec<Question> {
        let script = Script { task, wrong_percent };
        let splits = generate(&SMALL, 1, |random| script.draw(random)).expect("enough rows");
        splits.into_iter().find(|(split, _)| *split == "train").expect("train rows").1
    }

    /// What a rationale comes to: its last word.
    fn concluded(question: &Question) -> &str {
        question.rationale.trim_end_matches('.').rsplit([' ', ',']).next().expect("a word")
    }

    #[test]
    fn rationales_are_right_or_wrong_as_often_as_they_should_be() {
        for (name, task) in TASKS {
            let (right, half) = (train(task, 0), train(task, 50));
            assert!(right.iter().all(|question| concluded(question) == question.label), "{name}");
            // Prices and ages may be wrong and the conclusion right.
            let differ =
                right.iter().zip(&half).filter(|(one, other)| one.rationale != other.rationale).count();
            assert!((380..520).contains(&differ), "{name}: {differ}");
            assert!(half.iter().any(|question| concluded(question) != question.label), "{name}");
            let same = right
                .iter()
                .zip(&half)
                .all(|(one, other)| one.input == other.input && one.label == other.label);
            assert!(same, "{name}: the rows are the same, whatever the teacher says");
        }
    }

    #[test]
    fn labels_are_balanced() {
        for (name, task) in TASKS {
            let mut labels = BTreeMap::<String, usize>::new();
            for question in train(task, 0) {
                *labels.entry(question.label).or_default() += 1;
            }
            let fair = 900 / labels.len();
            assert!(labels.values().all(|count| count.abs_diff(fair) < fair / 3 + 20), "{name}: {labels:?}");
        }
    }

    #[test]
    fn rationales_state_what_follows_from_the_rows() {
        for question in train(Task::Prices, 0) {
            let (stated, rest) = question.rationale.split_once(": ").expect("prices");
            let sum: u64 = stated
                .split(", ")
                .map(|each| each.rsplit_once(' ').expect("a price").1.parse::<u64>().expect("a number"))
                .sum();
            assert!(rest.starts_with(&format!("{sum}, ")), "{question:?}");
            let coins: u64 = question.input.split(' ').nth(2).expect("coins").parse().expect("a number");
            assert_eq!(question.label == "yes", coins >= sum, "{question:?}");
        }
        for question in train(Task::Key, 0) {
            assert_eq!(question.rationale.split(", ").count(), EXCHANGES + 1, "{question:?}");
        }
        for question in train(Task::Heavier, 0) {
            let weights: Vec<u64> = question
                .rationale
                .split(", ")
                .take(2)
                .map(|each| each.rsplit_once(' ').expect("a weight").1.parse().expect("a number"))
                .collect();
            assert_eq!(question.label == "yes", weights[0] > weights[1], "{question:?}");
        }
        for question in train(Task::Villages, 0) {
            let north = question.rationale.split(' ').filter(|word| word.starts_with("north")).count();
            assert_eq!(question.label == "yes", north * 2 > ON_THE_WAY, "{question:?}");
        }
        for question in train(Task::Oldest, 0) {
            assert_eq!(question.rationale.split(", ").count(), PEOPLE, "{question:?}");
        }
    }

    #[test]
    fn wrong_arguments_are_refused() {
        let check = |arguments: &[&str], expected: &str| {
            let outcome = COMMAND
                .parse(arguments.iter().map(ToString::to_string))
                .and_then(|options| Script::of(&options));
            let error = outcome.err().expect("a mistake").to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(&["--out", "x"], "--task is missing");
        check(&["--out", "x", "--task", "locks"], "there is no task \"locks\"");
        check(&["--out", "x", "--task", "key", "--wrong", "101"], "--wrong");
        check(&["--task", "key"], "--out is missing");
    }
}
