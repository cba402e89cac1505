//! Writes the rows of `examples/word-problems`: one- and two-step word problems with the equation as the label.
//!
//! `cargo xtask word-problems --out DIR [--seed N] [--train N] [--validation N] [--test N]` writes `train.jsonl`,
//! `validation.jsonl` and `test.jsonl`, rows `{"input", "label", "split"}`. Equal arguments give equal bytes on every machine.
//!
//! Every problem comes from a template: who and what it is about, the numbers and the wording are drawn, and the
//! equation follows. Numbers are drawn until every step of the equation is a positive whole number. No two rows,
//! in one split or in two, share their text, nor both template and numbers, so that a test row is never a train
//! row with another name in it.

use crate::generated::{Command, Random, Row, Sizes, choose_words};
use anyhow::{Context as _, bail};
use serde_json::json;
use std::collections::HashSet;

const COMMAND: Command =
    Command { name: "word-problems", sizes: Sizes { train: 6_000, validation: 200, test: 400 }, flags: &[] };

/// The largest value a label may have: the problems stay a school child's.
const VALUE_MAX: u64 = 9_999;

/// Runs the command with the arguments that follow its name.
///
/// # Errors
/// Those of [`Command::run`].
pub(crate) fn run(arguments: impl Iterator<Item = String>) -> anyhow::Result<()> {
    COMMAND.run(arguments, problem)
}

/// One labelled problem.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    input: String,
    /// The equation, its tokens apart: `( 12 + 7 ) * 3`.
    label: String,
    /// Which template, with which numbers: two problems with one key differ in words alone.
    key: String,
}

/// A template of a kind of problem.
struct Template {
    /// Tokens apart; `a`, `b`, `c` and `d` stand for the numbers.
    equation: &'static str,
    /// Lowest and highest value of `a`, `b`, `c` and `d`. A number that the text has and the equation does not is a
    /// distractor.
    ranges: &'static [(u64, u64)],
    /// `[one|other]` is a choice of words, `{slot}` is filled in.
    text: &'static str,
}

struct Person {
    name: &'static str,
    he: &'static str,
    he_capitalised: &'static str,
    his: &'static str,
    him: &'static str,
}

impl Row for Problem {
    fn key(&self) -> &str {
        &self.key
    }

    fn input(&self) -> &str {
        &self.input
    }

    fn line(&self, split: &str) -> String {
        json!({"input": self.input, "label": self.label, "split": split}).to_string()
    }
}

/// Draws one problem. The order of the draws is part of the format: another order is another data set.
fn problem(random: &mut Random) -> anyhow::Result<Problem> {
    let index = random.below(TEMPLATES.len());
    let template = TEMPLATES.get(index).context("no templates")?;
    let (person, friend) = random.two_of(SHE.len() + HE.len());
    let person = person_at(person)?;
    let friend = person_at(friend)?;
    let (thing, things) = random.one_of(THINGS)?;
    let (container, containers) = random.one_of(BOXES)?;
    let (colour, shade) = random.two_of(COLOURS.len());
    let (numbers, label) = draw_numbers(random, template)?;
    let mut text = choose_words(random, template.text)?;
    for (slot, value) in [
        ("{name}", person.name),
        ("{friend}", friend.name),
        ("{he}", person.he),
        ("{He}", person.he_capitalised),
        ("{his}", person.his),
        ("{him}", person.him),
        ("{thing}", thing),
        ("{things}", things),
        ("{box}", container),
        ("{boxes}", containers),
        ("{colour}", COLOURS.get(colour).context("no colours")?),
        ("{shade}", COLOURS.get(shade).context("no colours")?),
    ] {
        text = text.replace(slot, value);
    }
    for (slot, number) in ["{a}", "{b}", "{c}", "{d}"].iter().zip(&numbers) {
        text = text.replace(slot, &number.to_string());
    }
    Ok(Problem { input: text, key: format!("{index}:{label}"), label })
}

fn person_at(index: usize) -> anyhow::Result<Person> {
    if let Some(name) = SHE.get(index) {
        return Ok(Person { name, he: "she", he_capitalised: "She", his: "her", him: "her" });
    }
    let name = HE.get(index - SHE.len()).context("no such person")?;
    Ok(Person { name, he: "he", he_capitalised: "He", his: "his", him: "him" })
}

/// Numbers, all different, for which every step of the equation is positive and whole; and the equation itself.
fn draw_numbers(random: &mut Random, template: &Template) -> anyhow::Result<(Vec<u64>, String)> {
    for _ in 0..10_000 {
        let numbers: Vec<u64> =
            template.ranges.iter().map(|&(low, high)| random.between(low, high)).collect();
        if numbers.iter().collect::<HashSet<_>>().len() < numbers.len() {
            continue;
        }
        let label = fill_equation(template.equation, &numbers);
        if evaluate(&label).is_some_and(|value| (2..=VALUE_MAX).contains(&value)) {
            return Ok((numbers, label));
        }
    }
    bail!("no numbers fit the equation {}", template.equation)
}

fn fill_equation(equation: &str, numbers: &[u64]) -> String {
    let mut tokens = Vec::new();
    for token in equation.split(' ') {
        let position = ["a", "b", "c", "d"].iter().position(|letter| *letter == token);
        let number = position.and_then(|position| numbers.get(position));
        tokens.push(number.map_or_else(|| token.to_owned(), u64::to_string));
    }
    tokens.join(" ")
}

/// The value of an equation with separated tokens; None if a step is zero, negative or not whole, or the text is no
/// equation.
fn evaluate(equation: &str) -> Option<u64> {
    let tokens: Vec<&str> = equation.split(' ').collect();
    let (value, rest) = sum(&tokens)?;
    rest.is_empty().then_some(value)
}

fn sum<'tokens, 'text>(tokens: &'tokens [&'text str]) -> Option<(u64, &'tokens [&'text str])> {
    let (mut value, mut rest) = product(tokens)?;
    while let Some((operator @ (&"+" | &"-"), after)) = rest.split_first() {
        let (right, remainder) = product(after)?;
        value = if *operator == "+" { value.checked_add(right)? } else { value.checked_sub(right)? };
        if value == 0 {
            return None;
        }
        rest = remainder;
    }
    Some((value, rest))
}

fn product<'tokens, 'text>(tokens: &'tokens [&'text str]) -> Option<(u64, &'tokens [&'text str])> {
    let (mut value, mut rest) = factor(tokens)?;
    while let Some((operator @ (&"*" | &"/"), after)) = rest.split_first() {
        let (right, remainder) = factor(after)?;
        value = match *operator {
            "*" => value.checked_mul(right)?,
            _ if value.checked_rem(right)? == 0 => value.checked_div(right)?,
            _ => return None,
        };
        rest = remainder;
    }
    Some((value, rest))
}

fn factor<'tokens, 'text>(tokens: &'tokens [&'text str]) -> Option<(u64, &'tokens [&'text str])> {
    let (first, rest) = tokens.split_first()?;
    if *first != "(" {
        return Some((first.parse().ok()?, rest));
    }
    let (value, rest) = sum(rest)?;
    let (close, rest) = rest.split_first()?;
    (*close == ")").then_some((value, rest))
}

const SHE: &[&str] = &[
    "Maria", "Priya", "Aisha", "Emma", "Lena", "Yuki", "Sofia", "Grace", "Nadia", "Chloe", "Hanna", "Rosa",
    "Ivy", "Tara", "Mina", "Olga", "Zoe", "Farah", "Julia", "Keiko", "Lucy", "Amara", "Ines", "Petra",
];

const HE: &[&str] = &[
    "Tom", "Omar", "Liam", "Kofi", "Diego", "Ravi", "Hugo", "Ben", "Nikolai", "Samir", "Paul", "Jonas",
    "Felix", "Mateo", "Adam", "Kenji", "Leo", "Victor", "Idris", "Marco", "Peter", "Anton", "Yusuf", "Oscar",
];

/// Singular and plural.
const THINGS: &[(&str, &str)] = &[
    ("marble", "marbles"),
    ("sticker", "stickers"),
    ("pencil", "pencils"),
    ("apple", "apples"),
    ("shell", "shells"),
    ("book", "books"),
    ("coin", "coins"),
    ("button", "buttons"),
    ("card", "cards"),
    ("orange", "oranges"),
    ("stamp", "stamps"),
    ("balloon", "balloons"),
    ("ribbon", "ribbons"),
    ("candle", "candles"),
    ("lemon", "lemons"),
    ("postcard", "postcards"),
    ("bead", "beads"),
    ("crayon", "crayons"),
    ("plum", "plums"),
    ("bottle", "bottles"),
    ("brick", "bricks"),
    ("tomato", "tomatoes"),
    ("notebook", "notebooks"),
    ("biscuit", "biscuits"),
    ("walnut", "walnuts"),
    ("magnet", "magnets"),
    ("peach", "peaches"),
    ("badge", "badges"),
    ("rose", "roses"),
    ("toy car", "toy cars"),
    ("paper plane", "paper planes"),
    ("light bulb", "light bulbs"),
];

/// Containers, singular and plural.
const BOXES: &[(&str, &str)] = &[
    ("box", "boxes"),
    ("bag", "bags"),
    ("basket", "baskets"),
    ("crate", "crates"),
    ("jar", "jars"),
    ("tray", "trays"),
    ("drawer", "drawers"),
    ("sack", "sacks"),
    ("bucket", "buckets"),
    ("packet", "packets"),
];

const COLOURS: &[&str] =
    &["red", "blue", "green", "yellow", "white", "black", "silver", "grey", "purple", "brown"];

const TEMPLATES: &[Template] = &[
    // One step: addition.
    Template {
        equation: "a + b",
        ranges: &[(3, 400), (3, 400)],
        text: "{name} [has|owns|counts] {a} {things}. {friend} [gives|hands|brings] {him} {b} more. \
               How many {things} does {name} have [now|altogether|in the end]?",
    },
    Template {
        equation: "a + b",
        ranges: &[(5, 300), (5, 300)],
        text: "[There are|A shop has|{name} sees] {a} {colour} {things} and {b} {shade} {things}. \
               [How many {things} are there in all?|What is the total number of {things}?|How many \
               {things} is that together?]",
    },
    Template {
        equation: "a + b",
        ranges: &[(10, 400), (10, 400)],
        text: "{name} [walked|ran|cycled] {a} metres in the morning and {b} metres in the \
               [afternoon|evening]. How [far did {he} go|many metres did {he} cover] [that day|in \
               total]?",
    },
    Template {
        equation: "a + b",
        ranges: &[(4, 200), (4, 200)],
        text: "After [giving away|losing|selling] {b} {things}, {name} [has|is left with|still has] \
               {a} {things}. How many {things} did {he} have [at first|before that|to begin with]?",
    },
    Template {
        equation: "a + b",
        ranges: &[(6, 90), (3, 60)],
        text: "{friend} scored {a} points in a game. {name} scored {b} points more than {friend}. \
               [How many points did {name} score|What was {name}'s score|How many points did {name} \
               get]?",
    },
    Template {
        equation: "a + b",
        ranges: &[(8, 500), (4, 90)],
        text: "A [coat|lamp|chair|jacket] costs {a} dollars. A [bicycle|table|radio] costs {b} \
               dollars more than that. How [much|many dollars] does the dearer one cost?",
    },
    // One step: subtraction.
    Template {
        equation: "a - b",
        ranges: &[(20, 500), (3, 300)],
        text: "{name} [has|had|bought] {a} {things}. {He} [gives|hands|sends] {b} of them to \
               {friend}. How many {things} does {name} have [left|now]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(20, 400), (3, 300)],
        text: "[There are|A shop has|{name} sees] {a} {colour} {things} and {b} {shade} {things}. How \
               many more {colour} {things} than {shade} {things} [are there|is that]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(20, 400), (3, 200)],
        text: "{name} [needs|wants|has to collect] {a} {things}. So far {he} [has|has found|has got] \
               {b}. How many more {things} does {he} [need|have to find|still lack]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(20, 300), (3, 200)],
        text: "{friend} has {b} {things} and {name} has {a}. How many [fewer {things} does {friend} \
               have than {name}|more {things} does {name} have than {friend}]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(30, 600), (10, 400)],
        text: "A book has {a} pages. {name} [has read|read|has finished] {b} [pages|of them]. How \
               many pages [are left|remain|does {he} still have to read]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(20, 400), (3, 300)],
        text: "{b} of the {a} [seats|places|tickets] [in the hall|for the show|on the boat] [are \
               taken|are sold]. How many are [free|left]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(20, 300), (3, 200)],
        text: "This [morning|week|year] {name} [had|owned] some {things}. Then {he} [got|found|was \
               given] {b} more, and now {he} has {a}. How many {things} did {he} have [before|at the \
               start]?",
    },
    Template {
        equation: "a - b",
        ranges: &[(20, 500), (3, 300)],
        text: "{name} paid {b} dollars for a [lamp|coat|radio|bag] that used to cost {a} dollars. How \
               [much|many dollars] did {he} save?",
    },
    // One step: multiplication.
    Template {
        equation: "a * b",
        ranges: &[(2, 40), (3, 60)],
        text: "{name} has {a} {boxes}. [There are {b} {things} in each {box}|Each {box} holds {b} \
               {things}|Every {box} contains {b} {things}]. How many {things} [does {name} have|are \
               there] [in all|altogether]?",
    },
    Template {
        equation: "a * b",
        ranges: &[(2, 40), (3, 60)],
        text: "One {box} [holds|takes|has room for] {b} {things}. How many {things} [fit in|go into] \
               {a} {boxes}?",
    },
    Template {
        equation: "a * b",
        ranges: &[(3, 40), (3, 60)],
        text: "A [hall|theatre|cinema] has {a} rows with {b} seats [each|in every row]. How many \
               seats [are there|does it have]?",
    },
    Template {
        equation: "a * b",
        ranges: &[(2, 30), (4, 60)],
        text: "{name} types {b} [pages|letters|lines] [every|each|a] day. How many does {he} type in \
               {a} days?",
    },
    Template {
        equation: "a * b",
        ranges: &[(2, 40), (3, 60)],
        text: "One [ticket|meal|shirt|ball] costs {b} dollars. How [much do|many dollars do] {a} of \
               them cost?",
    },
    Template {
        equation: "a * b",
        ranges: &[(3, 60), (2, 20)],
        text: "{friend} has {a} {things}. {name} has {b} times as many. How many {things} does {name} \
               have?",
    },
    // One step: division.
    Template {
        equation: "a / b",
        ranges: &[(20, 400), (2, 20)],
        text: "{name} [shares|divides|splits] {a} {things} [equally|evenly|fairly] among {b} \
               [friends|children|people]. How many {things} does each [one|of them] get?",
    },
    Template {
        equation: "a / b",
        ranges: &[(20, 400), (2, 20)],
        text: "{name} has {a} {things} and [puts|packs] {b} [of them |]into each {box}. How many \
               {boxes} does {he} [need|fill]?",
    },
    Template {
        equation: "a / b",
        ranges: &[(20, 400), (2, 20)],
        text: "{b} {boxes} hold {a} {things} [in all|altogether|in total], the same number each. How \
               many {things} are in [one|each|every] {box}?",
    },
    Template {
        equation: "a / b",
        ranges: &[(30, 500), (2, 20)],
        text: "A [train|bus|boat|lorry] [travels|goes|covers] {a} kilometres in {b} hours. How many \
               kilometres does it [travel|go|cover] per hour?",
    },
    Template {
        equation: "a / b",
        ranges: &[(20, 400), (2, 20)],
        text: "{name} has {a} dollars. A [ticket|meal|shirt|ball] costs {b} dollars. How many can \
               {he} [buy|pay for|afford]?",
    },
    Template {
        equation: "a / b",
        ranges: &[(20, 300), (2, 9)],
        text: "{name} has {b} times as many {things} as {friend}. {name} has {a}. How many {things} \
               does {friend} have?",
    },
    // Two steps: sums and differences.
    Template {
        equation: "a + b - c",
        ranges: &[(10, 200), (5, 100), (3, 120)],
        text: "{name} [has|had|owned] {a} {things}. {He} [gets|finds|buys] {b} more and then [gives \
               {c} to {friend}|loses {c} of them|sells {c}]. How many {things} does {he} [have \
               left|have now|have in the end]?",
    },
    Template {
        equation: "a - b + c",
        ranges: &[(20, 200), (3, 120), (5, 100)],
        text: "{name} [has|had|owned] {a} {things}. {He} [gives {b} to {friend}|loses {b} of \
               them|sells {b}] and then [gets|finds|buys] {c} more. How many {things} does {he} have \
               [now|in the end|after that]?",
    },
    Template {
        equation: "a - b - c",
        ranges: &[(40, 400), (3, 120), (3, 120)],
        text: "{name} has {a} {things}. {He} [gives|sends|lends] {b} to {friend} and {c} to [a \
               neighbour|{his} sister|{his} uncle|a teacher]. How many {things} does {he} [keep|have \
               left]?",
    },
    Template {
        equation: "a + b + c",
        ranges: &[(5, 200), (5, 200), (5, 200)],
        text: "[On Monday|In the first week|In May] {name} [sold|made|found] {a} {things}, \
               [then|after that] {b}, and [at last|finally|in the end] {c}. How many {things} is that \
               [together|in all|altogether]?",
    },
    Template {
        equation: "a - b - c",
        ranges: &[(40, 400), (10, 150), (10, 150)],
        text: "A [road|rope|path|fence] is {a} metres long. {name} [paints|checks|measures] {b} \
               metres [today|on Friday] and {c} metres [tomorrow|on Saturday]. How many metres \
               [remain|are left]?",
    },
    Template {
        equation: "a - ( b + c )",
        ranges: &[(40, 400), (5, 120), (5, 120)],
        text: "A {box} holds {a} {things}. It [already has|contains] {b} {colour} and {c} {shade} \
               ones. How many more {things} [fit in|can go in|does it have room for]?",
    },
    Template {
        equation: "a - ( b + c )",
        ranges: &[(60, 500), (5, 150), (5, 150)],
        text: "{name} buys a [lamp|coat|radio|bag] for {b} dollars and a [book|game|clock|cap] for \
               {c} dollars. {He} [pays with|gives the shop] {a} dollars. How much [change|money] does \
               {he} get back?",
    },
    Template {
        equation: "a + b - c",
        ranges: &[(10, 150), (10, 150), (5, 150)],
        text: "[A bus leaves with|On a train are|In a hall are] {a} people. [Later|After an hour] {c} \
               people leave and {b} [come|arrive|enter]. How many people are there [now|then]?",
    },
    Template {
        equation: "a + ( a + b )",
        ranges: &[(5, 120), (3, 80)],
        text: "{friend} [has|collected|found] {a} {things}. {name} [has|collected|found] {b} more \
               than {friend}. How many {things} do they have [together|in all|altogether]?",
    },
    Template {
        equation: "a + ( a - b )",
        ranges: &[(20, 150), (3, 80)],
        text: "{name} [has|collected|found] {a} {things}. {friend} [has|collected|found] {b} fewer \
               than {name}. How many {things} do they have [together|in all|altogether]?",
    },
    // Two steps: products with a sum or a difference.
    Template {
        equation: "a * b + c",
        ranges: &[(2, 30), (3, 40), (3, 90)],
        text: "{name} has {a} {boxes} with {b} {things} each and {c} [loose|single|extra] {things}. \
               How many {things} [does {he} have|are there] [in all|altogether]?",
    },
    Template {
        equation: "a * b - c",
        ranges: &[(2, 30), (3, 40), (3, 90)],
        text: "{name} [buys|has|gets] {a} {boxes} of {things} with {b} in each {box}. {c} of the \
               {things} are [broken|lost|given away|sold]. How many {things} are left?",
    },
    Template {
        equation: "a - b * c",
        ranges: &[(60, 600), (2, 20), (3, 40)],
        text: "{name} has {a} dollars. {He} buys {b} [tickets|meals|shirts|balls] [for|at] {c} \
               dollars each. How [much|many dollars] does {he} have left?",
    },
    Template {
        equation: "a - b * c",
        ranges: &[(60, 600), (2, 20), (3, 40)],
        text: "A book has {a} pages. {name} reads {c} pages a day for {b} days. How many pages [are \
               left|remain|does {he} still have to read]?",
    },
    Template {
        equation: "( a + b ) * c",
        ranges: &[(3, 60), (3, 60), (2, 15)],
        text: "[Every|Each] day {name} sells {a} {colour} and {b} {shade} {things}. How many {things} \
               does {he} sell in {c} [days|working days]?",
    },
    Template {
        equation: "( a + b ) * c",
        ranges: &[(3, 90), (3, 90), (2, 15)],
        text: "A [meal|shirt|ball] costs {a} dollars and a [book|drink|ticket] costs {b} dollars. {c} \
               [friends|people|children] each buy one of both. How [much|many dollars] do they pay \
               [together|in all]?",
    },
    Template {
        equation: "( a - b ) * c",
        ranges: &[(8, 120), (2, 60), (2, 20)],
        text: "A [meal|shirt|ball|ticket] [usually costs|used to cost] {a} dollars, but [today|this \
               week|now] it is {b} dollars cheaper. How [much|many dollars] do {c} of them cost \
               [today|this week|now]?",
    },
    Template {
        equation: "( a - b ) * c",
        ranges: &[(8, 90), (2, 50), (2, 20)],
        text: "[There are|{name} has] {c} {boxes} with {a} {things} each. {b} {things} are \
               [taken|removed] from every {box}. How many {things} are left [in all|altogether]?",
    },
    Template {
        equation: "a * b + c",
        ranges: &[(2, 20), (3, 60), (3, 90)],
        text: "A [painter|driver|gardener|plumber] asks {c} dollars for coming and {b} dollars \
               [an|for every] hour. How [much|many dollars] does {name} pay for {a} hours?",
    },
    Template {
        equation: "a * b * c",
        ranges: &[(2, 12), (2, 15), (2, 15)],
        text: "A [shop|school|library] has {a} rooms with {b} {boxes} [each|in every room]. Each \
               {box} holds {c} {things}. How many {things} are there?",
    },
    Template {
        equation: "a + a * b",
        ranges: &[(3, 60), (2, 12)],
        text: "{friend} has {a} {things}. {name} has {b} times as many as {friend}. How many {things} \
               do they have [together|in all|altogether]?",
    },
    // Two steps: quotients.
    Template {
        equation: "( a + b ) / c",
        ranges: &[(10, 200), (10, 200), (2, 12)],
        text: "{name} has {a} {colour} and {b} {shade} {things}. {He} [shares|divides|splits] them \
               [equally|evenly] among {c} [friends|children|people]. How many {things} does each \
               [one|of them] get?",
    },
    Template {
        equation: "( a - b ) / c",
        ranges: &[(30, 300), (3, 150), (2, 12)],
        text: "{name} has {a} {things}. {He} keeps {b} and [shares|divides|splits] the rest \
               [equally|evenly] among {c} [friends|children|people]. How many {things} does each \
               [one|of them] get?",
    },
    Template {
        equation: "( a + b ) / c",
        ranges: &[(10, 200), (10, 200), (2, 12)],
        text: "{name} [picks|finds] {a} {things} and {friend} [picks|finds] {b}. They [pack|put] {c} \
               {things} into each {box}. How many {boxes} do they [fill|need]?",
    },
    Template {
        equation: "( a - b ) / c",
        ranges: &[(30, 400), (3, 150), (2, 15)],
        text: "{name} wants to [buy a bicycle|buy a radio|go on a trip] that costs {a} dollars. {He} \
               has {b} dollars and [saves|earns] {c} dollars [a|each|every] week. How many weeks does \
               it take?",
    },
    Template {
        equation: "a * b / c",
        ranges: &[(2, 30), (3, 40), (2, 12)],
        text: "{name} has {a} {boxes} with {b} {things} each. {He} [shares|divides|splits] all the \
               {things} [equally|evenly] among {c} [friends|children|people]. How many does each \
               [one|of them] get?",
    },
    Template {
        equation: "a / b + c",
        ranges: &[(20, 400), (2, 15), (3, 90)],
        text: "{a} {things} are [shared|divided|split] [equally|evenly] among {b} [children|people], \
               {name} among them. {name} [already had|had] {c}. How many {things} does {he} have now?",
    },
    Template {
        equation: "a / b - c",
        ranges: &[(40, 400), (2, 12), (2, 60)],
        text: "{name} and {his} friends, {b} people in all, [share|divide|split] {a} {things} \
               [equally|evenly]. {name} then [gives {c} to {friend}|loses {c}]. How many {things} \
               does {he} have left?",
    },
    Template {
        equation: "a / b * c",
        ranges: &[(20, 300), (2, 15), (2, 20)],
        text: "{b} [tickets|shirts|meals|balls] cost {a} dollars. How [much|many dollars] do {c} [of \
               them|such items] cost?",
    },
    Template {
        equation: "a / ( b + c )",
        ranges: &[(30, 400), (2, 15), (2, 15)],
        text: "A [class|group|team] has {b} girls and {c} boys. They share {a} {things} \
               [equally|evenly]. How many {things} does each child get?",
    },
    // One number too many: the question decides which ones count.
    Template {
        equation: "a - b",
        ranges: &[(30, 300), (3, 150), (2, 60)],
        text: "{name} has {a} {things} and {c} {boxes}. {He} [gives|hands|sends] {b} {things} to \
               {friend}. How many {things} does {name} have [left|now]?",
    },
    Template {
        equation: "a + b",
        ranges: &[(5, 200), (5, 200), (5, 60)],
        text: "{name} is {c} years old. {He} collected {a} {things} [on Monday|in June] and {b} [on \
               Tuesday|in July]. How many {things} did {he} collect in all?",
    },
    Template {
        equation: "a * b",
        ranges: &[(2, 30), (3, 60), (2, 40)],
        text: "{name} buys {a} {boxes} of {things}, {b} in each {box}, and walks {c} minutes to the \
               shop. How many {things} does {he} buy?",
    },
    Template {
        equation: "( a + b ) / c",
        ranges: &[(10, 200), (10, 200), (2, 12), (5, 90)],
        text: "A farmer picks {a} [apples|plums|pears] and {b} [peaches|lemons|melons] in {d} minutes \
               and packs them into {c} {boxes}, the same number in each. How many pieces of fruit are \
               in [one|each] {box}?",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generated::generate;
    use std::path::Path;

    const SMALL: Sizes = Sizes { train: 600, validation: 50, test: 100 };

    fn splits(seed: u64, sizes: Sizes) -> Vec<(&'static str, Vec<Problem>)> {
        generate(&sizes, seed, problem).expect("the templates give this many problems")
    }

    #[test]
    fn equal_arguments_write_equal_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, seed: &str| {
            let out = folder.path().join(name);
            let arguments = ["--seed", seed, "--train", "60", "--validation", "5", "--test", "9", "--out"];
            let out_argument = out.to_str().expect("a readable path").to_owned();
            run(arguments.iter().map(ToString::to_string).chain([out_argument])).expect("written");
            ["train", "validation", "test"]
                .map(|split| std::fs::read_to_string(out.join(format!("{split}.jsonl"))).expect("read"))
        };
        let first = write("first", "7");
        assert_eq!(first, write("second", "7"));
        assert_ne!(first, write("third", "8"));
        assert_eq!(first.map(|text| text.lines().count()), [60, 5, 9]);
    }

    #[test]
    fn the_checked_in_rows_are_what_the_command_writes() {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/word-problems");
        for (split, rows) in splits(1, COMMAND.sizes) {
            let path = examples.join(format!("{split}.jsonl"));
            let text = std::fs::read_to_string(path).expect("the example's rows");
            let written: Vec<String> = rows.iter().map(|row| row.line(split)).collect();
            assert!(written.iter().eq(text.lines()), "{split}: write the rows again, or undo the change");
        }
    }

    #[test]
    fn no_two_rows_share_their_text_or_both_template_and_numbers() {
        let all: Vec<Problem> = splits(3, SMALL).into_iter().flat_map(|(_, rows)| rows).collect();
        let inputs: HashSet<&str> = all.iter().map(|row| row.input.as_str()).collect();
        let keys: HashSet<&str> = all.iter().map(|row| row.key.as_str()).collect();
        assert_eq!((inputs.len(), keys.len(), all.len()), (750, 750, 750));
    }

    #[test]
    fn the_test_split_does_not_depend_on_the_size_of_train() {
        assert_eq!(splits(3, SMALL).first(), splits(3, Sizes { train: 900, ..SMALL }).first());
    }

    #[test]
    fn labels_are_positive_whole_numbers_told_in_the_text() {
        for row in splits(5, SMALL).into_iter().flat_map(|(_, rows)| rows) {
            assert!(evaluate(&row.label).is_some_and(|value| (2..=VALUE_MAX).contains(&value)), "{row:?}");
            assert!(!row.input.contains(['{', '}', '[', ']', '|']), "{row:?}");
            assert!(row.input.ends_with('?') && !row.input.contains("  "), "{row:?}");
            let told: HashSet<&str> = row.input.split(|c: char| !c.is_ascii_digit()).collect();
            let mut numbers = row.label.split(' ').filter(|token| token.parse::<u64>().is_ok());
            assert!(numbers.all(|number| told.contains(number)), "{row:?}");
        }
    }

    #[test]
    fn every_template_tells_its_numbers() {
        for template in TEMPLATES {
            let letters: Vec<&str> = ["a", "b", "c", "d"].into_iter().take(template.ranges.len()).collect();
            for letter in &letters {
                assert!(template.text.contains(&format!("{{{letter}}}")), "{}", template.text);
            }
            for token in template.equation.split(' ').filter(|token| token.chars().all(char::is_alphabetic)) {
                assert!(letters.contains(&token), "{}", template.text);
            }
        }
    }

    #[test]
    fn equations_evaluate_by_precedence_and_refuse_what_is_not_positive_and_whole() {
        let cases = [
            ("12 + 7", Some(19)),
            ("( 12 + 7 ) * 3", Some(57)),
            ("12 + 7 * 3", Some(33)),
            ("40 - ( 5 + 7 )", Some(28)),
            ("40 - 5 - 7", Some(28)),
            ("84 / 2 / 3", Some(14)),
            ("85 / 2", None),
            ("5 / 0", None),
            ("5 - 5", None),
            ("5 - 6", None),
            ("( 5 + 6", None),
            ("5 6", None),
            ("+", None),
            ("", None),
        ];
        for (equation, value) in cases {
            assert_eq!(evaluate(equation), value, "{equation}");
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        let cases = [
            (vec!["--seed", "1"], "--out is missing"),
            (vec!["--out"], "--out needs a value"),
            (vec!["--out", "x", "--train", "many"], "--train needs a whole number"),
            (vec!["--sed", "1"], "unknown argument --sed"),
        ];
        for (arguments, message) in cases {
            let outcome = COMMAND.parse(arguments.iter().map(ToString::to_string));
            let error = outcome.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(message), "{arguments:?}: {error}");
        }
    }
}
