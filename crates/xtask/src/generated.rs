//! Rows that are generated: what the generators of the examples share.
//!
//! Equal arguments give equal bytes on every machine: the generator of random numbers is our own, and nothing depends on
//! hashing order or on time.

use std::collections::HashSet;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use domain::metric::SplitMix;

/// A command that writes rows: its name and what it does by default.
pub(crate) struct Command {
    /// As it is typed behind `cargo xtask`.
    pub(crate) name: &'static str,
    /// Rows of each split, unless the command line says otherwise.
    pub(crate) sizes: Sizes,
    /// Options of its own, with what they take.
    pub(crate) flags: &'static [(&'static str, &'static str)],
}

/// The arguments of the command line.
pub(crate) struct Options {
    pub(crate) seed: u64,
    pub(crate) out: PathBuf,
    pub(crate) sizes: Sizes,
    flags: Vec<(&'static str, String)>,
}

impl Options {
    /// What was given for an option of the command's own.
    pub(crate) fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().find(|(flag, _)| *flag == name).map(|(_, value)| value.as_str())
    }
}

/// Rows wanted in each split.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) train: usize,
    pub(crate) validation: usize,
    pub(crate) test: usize,
}

/// A generated row.
pub(crate) trait Row {
    /// Two rows with one key are too much alike to be in one data set.
    fn key(&self) -> &str;
    /// What is asked.
    fn input(&self) -> &str;
    /// The row as a line of `split`'s file.
    fn line(&self, split: &str) -> String;
}

impl Command {
    /// Runs the command with the arguments that follow its name.
    ///
    /// # Errors
    /// Unknown or malformed arguments, a folder that cannot be written, or more rows asked for than `draw` can give.
    pub(crate) fn run<R: Row>(
        &self,
        arguments: impl Iterator<Item = String>,
        draw: impl Fn(&mut Random) -> anyhow::Result<R>,
    ) -> anyhow::Result<()> {
        self.write(&self.parse(arguments)?, draw)
    }

    /// Writes the rows that the options ask for.
    ///
    /// # Errors
    /// A folder that cannot be written, or more rows asked for than `draw` can give.
    #[allow(clippy::disallowed_methods, reason = "a tool of the repository, which prints what is its own")]
    pub(crate) fn write<R: Row>(
        &self,
        options: &Options,
        draw: impl Fn(&mut Random) -> anyhow::Result<R>,
    ) -> anyhow::Result<()> {
        std::fs::create_dir_all(&options.out)
            .with_context(|| format!("cannot create {}", options.out.display()))?;
        for (split, rows) in generate(&options.sizes, options.seed, draw)? {
            if rows.is_empty() {
                continue;
            }
            let path = options.out.join(format!("{split}.jsonl"));
            let text: String = rows.iter().map(|row| row.line(split) + "\n").collect();
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            writeln!(std::io::stdout(), "{}: {} rows", path.display(), rows.len())?;
        }
        Ok(())
    }

    pub(crate) fn parse(&self, mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Options> {
        let own: String = self.flags.iter().map(|(flag, value)| format!(" [{flag} {value}]")).collect();
        let usage = format!(
            "usage: cargo xtask {} --out DIR{own} [--seed N] [--train N] [--validation N] [--test N]",
            self.name
        );
        let (mut seed, mut out, mut sizes, mut flags) = (1, None, self.sizes, Vec::new());
        while let Some(flag) = arguments.next() {
            let value = arguments.next().with_context(|| format!("{flag} needs a value\n{usage}"))?;
            let number = || {
                value.parse::<u64>().with_context(|| format!("{flag} needs a whole number, not {value:?}"))
            };
            match flag.as_str() {
                "--out" => out = Some(PathBuf::from(&value)),
                "--seed" => seed = number()?,
                "--train" => sizes.train = usize::try_from(number()?)?,
                "--validation" => sizes.validation = usize::try_from(number()?)?,
                "--test" => sizes.test = usize::try_from(number()?)?,
                _ => match self.flags.iter().find(|(known, _)| *known == flag) {
                    Some((known, _)) => flags.push((*known, value)),
                    None => bail!("unknown argument {flag}\n{usage}"),
                },
            }
        }
        let out = out.with_context(|| format!("--out is missing\n{usage}"))?;
        Ok(Options { seed, out, sizes, flags })
    }
}

/// Splits in the order they are drawn. Test comes first: its rows stay the same whatever the size of train.
pub(crate) fn generate<R: Row>(
    sizes: &Sizes,
    seed: u64,
    draw: impl Fn(&mut Random) -> anyhow::Result<R>,
) -> anyhow::Result<Vec<(&'static str, Vec<R>)>> {
    let mut seen = HashSet::new();
    let mut splits = Vec::new();
    let wanted = [("test", sizes.test), ("validation", sizes.validation), ("train", sizes.train)];
    for (number, (split, count)) in (0_u64..).zip(wanted) {
        let mut random = Random::new(seed, number);
        splits.push((split, distinct(split, count, || draw(&mut random), &mut seen)?));
    }
    Ok(splits)
}

/// `count` new rows.
fn distinct<R: Row>(
    split: &str,
    count: usize,
    mut draw: impl FnMut() -> anyhow::Result<R>,
    seen: &mut HashSet<String>,
) -> anyhow::Result<Vec<R>> {
    let mut rows = Vec::new();
    // Bounded: the templates hold only so many rows.
    for _ in 0..count.saturating_mul(50).saturating_add(1_000) {
        if rows.len() == count {
            return Ok(rows);
        }
        let row = draw()?;
        if seen.contains(row.key()) || seen.contains(row.input()) {
            continue;
        }
        seen.insert(row.key().to_owned());
        seen.insert(row.input().to_owned());
        rows.push(row);
    }
    bail!("{split}: the templates cannot give {count} distinct rows")
}

/// Replaces every `[one|other]` by one of its choices.
pub(crate) fn choose_words(random: &mut Random, template: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('[') {
        let (choices, remainder) = after.split_once(']').context("a choice without its closing bracket")?;
        let choices: Vec<&str> = choices.split('|').collect();
        text.push_str(before);
        text.push_str(random.one_of(&choices)?);
        rest = remainder;
    }
    text.push_str(rest);
    Ok(text)
}

/// Draws from the workspace's generator, whose numbers never change.
pub(crate) struct Random(SplitMix);

impl Random {
    /// One for each split of a data set, so that its rows do not depend on the sizes of the others.
    pub(crate) fn new(seed: u64, split: u64) -> Self {
        Self(SplitMix::new(seed.wrapping_mul(1_000_003).wrapping_add(split)))
    }

    /// From 0 to `bound`, exclusive.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound as u64) as usize
    }

    /// From `low` to `high`, inclusive.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below((high - low + 1) as usize) as u64
    }

    pub(crate) fn one_of<T: Copy>(&mut self, items: &[T]) -> anyhow::Result<T> {
        let index = self.below(items.len());
        items.get(index).copied().context("nothing to choose from")
    }

    /// In place.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }

    /// Two different indices below `count`.
    pub(crate) fn two_of(&mut self, count: usize) -> (usize, usize) {
        let first = self.below(count);
        let second = (first + 1 + self.below(count - 1)) % count;
        (first, second)
    }
}
