//! What the teacher is asked next: a pure function of a job's rules and of what is known, asked again after each wave.
//!
//! A row is asked in stages: samples of the first profile, until the vote is decided; where gold shows that every label is
//! wrong, samples of the next profile; at last once more with the gold label as a hint. Each stage follows from the row's
//! prompts alone, so that a crash, a replica or another order of arrival asks the same.

use crate::label::{Comparison, same};
use crate::records::LedgerEntry;
use crate::spec::{Hint, Judging, TeacherSpec};
use crate::state::Reason;
use std::collections::BTreeMap;
use std::fmt;

/// Most prompts of one wave.
pub const WAVE_MAX: usize = 4_096;
/// Samples of the first round of a vote.
const ROUND_FIRST: u32 = 3;
/// The share of readable answers that the smoke gate asks for.
const READABLE_LEAST: f64 = 0.5;

/// The rules of a job, as far as they say what is asked.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// How the teacher is asked.
    pub teacher: &'a TeacherSpec,
    /// How its answers are judged.
    pub judging: &'a Judging,
    /// How labels are compared.
    pub metric: Comparison,
}

/// A question to ask about a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// Which of the job's profiles, by its place.
    pub profile: u32,
    /// The sample's number within its row.
    pub sample: u32,
    /// Whether the gold label is given.
    pub hinted: bool,
}

/// A prompt of a train row that was planned before.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The sample's number within its row.
    pub sample: u32,
    /// Whether the gold label was given.
    pub hinted: bool,
    /// What became of it.
    pub fate: Fate<'a>,
}

/// What became of a prompt.
#[derive(Debug, Clone, Copy)]
pub enum Fate<'a> {
    /// It is being asked, or waits for its turn.
    Waiting,
    /// It will not be answered.
    GivenUp,
    /// It was answered.
    Answered(&'a LedgerEntry),
}

impl Rules<'_> {
    fn profiles(&self) -> u32 {
        u32::try_from(self.teacher.profiles.as_ref().map_or(1, Vec::len)).unwrap_or(u32::MAX).max(1)
    }

    /// The number of the first sample of a profile. Samples count on from profile to profile.
    fn first_sample(&self, profile: u32) -> u32 {
        profile.saturating_mul(self.teacher.samples)
    }

    /// What a row without prompts is asked first.
    fn round(&self, profile: u32, from: u32, to: u32, hinted: bool) -> Vec<Ask> {
        let first = self.first_sample(profile);
        (from..to).map(|sample| Ask { profile, sample: first.saturating_add(sample), hinted }).collect()
    }

    /// Whether a vote may end before every sample is asked.
    fn votes_early(&self) -> bool {
        self.judging.vote && self.judging.vote_confidence < 1.0
    }

    /// Samples of one profile that a row is asked for before anything is known.
    pub fn samples_first(&self) -> u32 {
        if self.votes_early() { self.teacher.samples.min(ROUND_FIRST) } else { self.teacher.samples }
    }

    /// Whether a row that was asked about may be asked about again.
    pub fn has_follow_ups(&self) -> bool {
        self.votes_early() || self.profiles() > 1 || self.judging.hint == Hint::After
    }
}

/// What a train row is to be asked next; nothing where it waits for an answer, or is done.
pub fn next(rules: &Rules<'_>, gold: Option<&str>, known: &[Known<'_>]) -> Vec<Ask> {
    if known.iter().any(|prompt| matches!(prompt.fate, Fate::Waiting)) {
        return Vec::new();
    }
    let hint_first = rules.judging.hint == Hint::First && gold.is_some();
    for profile in 0..rules.profiles() {
        let first = rules.first_sample(profile);
        let own = |prompt: &&Known<'_>| {
            let place = prompt.sample.checked_sub(first);
            place.is_some_and(|place| place < rules.teacher.samples) && prompt.hinted == hint_first
        };
        let asked = u32::try_from(known.iter().filter(own).count()).unwrap_or(u32::MAX);
        let labels: Vec<&str> = known.iter().filter(own).filter_map(readable).collect();
        let wanted = samples_wanted(rules, asked, &labels);
        if asked < wanted {
            return rules.round(profile, asked, wanted, hint_first);
        }
        if !is_wrong(rules, gold, &labels) {
            return Vec::new();
        }
    }
    let was_hinted = known.iter().any(|prompt| prompt.hinted);
    if rules.judging.hint != Hint::After
        || was_hinted
        || known.iter().all(|prompt| readable(prompt).is_none() && !is_answered(prompt))
    {
        return Vec::new();
    }
    let profile = rules.profiles() - 1;
    vec![Ask { profile, sample: rules.first_sample(rules.profiles()), hinted: true }]
}

fn is_answered(prompt: &Known<'_>) -> bool {
    matches!(prompt.fate, Fate::Answered(_))
}

/// The label of a prompt whose answer could train.
fn readable<'a>(prompt: &Known<'a>) -> Option<&'a str> {
    match prompt.fate {
        Fate::Answered(entry) if entry.parsed.reason.is_none() => entry.parsed.label.as_deref(),
        Fate::Answered(_) | Fate::GivenUp | Fate::Waiting => None,
    }
}

/// Whether gold shows that no label of a profile is right. Without gold, or where agreement is not asked for, nothing does.
fn is_wrong(rules: &Rules<'_>, gold: Option<&str>, labels: &[&str]) -> bool {
    rules.judging.agree
        && gold.is_some_and(|gold| !labels.iter().any(|label| same(rules.metric, gold, label)))
}

/// How many samples a profile has to be asked for, of which `asked` were: all of them, or, where a vote is counted, one
/// more until it is decided.
fn samples_wanted(rules: &Rules<'_>, asked: u32, labels: &[&str]) -> u32 {
    let all = rules.teacher.samples;
    if asked == 0 || !rules.votes_early() {
        return rules.samples_first().max(asked);
    }
    if asked >= all || is_decided(rules, all - asked, labels) { asked } else { asked + 1 }
}

/// Whether `left` more samples are unlikely to change the winner of a vote: either they cannot, or the probability that the
/// leader is the label of more than half of all answers, given the votes for it and for the next one, reaches the
/// confidence that the rules ask for (the Beta criterion of Aggarwal et al. 2023, Adaptive-Consistency).
fn is_decided(rules: &Rules<'_>, left: u32, labels: &[&str]) -> bool {
    let mut votes: Vec<(&str, u32)> = Vec::new();
    for label in labels {
        match votes.iter_mut().find(|(known, _)| same(rules.metric, known, label)) {
            Some((_, count)) => *count += 1,
            None => votes.push((label, 1)),
        }
    }
    votes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let leader = votes.first().map_or(0, |(_, count)| *count);
    let second = votes.get(1).map_or(0, |(_, count)| *count);
    leader > second.saturating_add(left)
        || majority_probability(leader, second) >= rules.judging.vote_confidence
}

/// P(p > 1/2) for p of Beta(leader + 1, second + 1): the probability that at most `leader` of `leader + second + 1` fair coins
/// show heads.
fn majority_probability(leader: u32, second: u32) -> f64 {
    let coins = leader.saturating_add(second).saturating_add(1);
    let (mut ways, mut total) = (1.0_f64, 0.0_f64);
    for heads in 0..=leader {
        total += ways;
        ways *= f64::from(coins - heads.min(coins)) / f64::from(heads + 1);
    }
    total / 2.0_f64.powi(i32::try_from(coins).unwrap_or(i32::MAX))
}

/// What the first rows of a job came to, before the rest is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Smoke {
    /// Prompts that were asked.
    pub prompts: u64,
    /// Answers that could be read.
    pub readable: u64,
    /// The others, by reason; those without an answer under `None`.
    pub reasons: BTreeMap<Option<Reason>, u64>,
}

impl Smoke {
    /// Counts a prompt: `None` for one without an answer, else why its answer cannot be read, if it cannot.
    pub fn count(&mut self, answered: Option<Option<Reason>>) {
        self.prompts += 1;
        match answered {
            Some(None) => self.readable += 1,
            Some(Some(reason)) => *self.reasons.entry(Some(reason)).or_default() += 1,
            None => *self.reasons.entry(None).or_default() += 1,
        }
    }

    /// Whether too few answers can be read for the rest to be worth asking.
    pub fn fails(&self) -> bool {
        self.prompts > 0 && (self.readable as f64) < READABLE_LEAST * self.prompts as f64
    }
}

impl fmt::Display for Smoke {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} of {} answers can be read", self.readable, self.prompts)?;
        for (reason, count) in &self.reasons {
            match reason {
                Some(reason) => write!(formatter, ", {reason} {count}")?,
                None => write!(formatter, ", no answer {count}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::Parsed;
    use crate::ids::{DistillationId, PromptId};
    use crate::metric::SplitMix;
    use crate::spec::{Budget, LabelSource, Select, TeacherSource, Until};
    use crate::state::{Purpose, Verdict};

    fn teacher(samples: u32, profiles: &[&str]) -> TeacherSpec {
        TeacherSpec {
            source: TeacherSource::Profile("cheap".into()),
            profiles: (!profiles.is_empty())
                .then(|| profiles.iter().map(|name| (*name).to_owned()).collect()),
            rows: None,
            samples,
            temperature: 0.7,
            top_p: 1.0,
            tokens_max: 256,
            evaluate: true,
            evaluate_rows: 200,
            smoke_rows: 16,
            batch: false,
            rows_per_call: 1,
            until: Until::Off,
            select: Select::Stratified,
            probe_steps: None,
            budget: Budget::default(),
        }
    }

    fn judging(hint: Hint, vote: bool) -> Judging {
        Judging { label: LabelSource::Gold, agree: true, hint, vote, vote_confidence: 0.9 }
    }

    /// A prompt by its sample: a label, `-` for an answer that cannot be read, `?` for one that waits, `!` for one given
    /// up; a `h` before a label says that it was hinted.
    fn entry(sample: u32, text: &str) -> LedgerEntry {
        let absent = text == "-";
        LedgerEntry {
            distillation: DistillationId::generate(),
            prompt: PromptId::generate(),
            row: 0,
            sample,
            hinted: false,
            purpose: Purpose::Train,
            parsed: Parsed {
                rationale: "Because.".into(),
                label: (!absent).then(|| text.to_owned()),
                reason: absent.then_some(Reason::NoAnswer),
            },
            verdict: Verdict::Unjudged,
            reason: None,
            weight: 1.0,
            completion: String::new(),
            model: String::new(),
        }
    }

    fn asks(
        teacher: &TeacherSpec,
        judging: &Judging,
        gold: Option<&str>,
        known: &[&str],
    ) -> Vec<(u32, u32, bool)> {
        let entries: Vec<(LedgerEntry, bool)> = known
            .iter()
            .zip(0..)
            .map(|(text, sample)| {
                let (hinted, text) = text.strip_prefix('h').map_or((false, *text), |text| (true, text));
                (entry(sample, text), hinted)
            })
            .collect();
        let known: Vec<Known<'_>> = entries
            .iter()
            .map(|(entry, hinted)| Known {
                sample: entry.sample,
                hinted: *hinted,
                fate: match entry.parsed.label.as_deref() {
                    Some("?") => Fate::Waiting,
                    Some("!") => Fate::GivenUp,
                    _ => Fate::Answered(entry),
                },
            })
            .collect();
        let rules = Rules { teacher, judging, metric: Comparison::Equation };
        next(&rules, gold, &known).into_iter().map(|ask| (ask.profile, ask.sample, ask.hinted)).collect()
    }

    #[test]
    fn a_row_is_asked_in_stages() {
        let (plain, hint) = (judging(Hint::Off, false), judging(Hint::After, false));
        let one = teacher(1, &[]);
        let two = teacher(2, &[]);
        let cascade = teacher(1, &["cheap", "strong"]);
        let gold = Some("6");
        for (teacher, judging, gold, known, expected) in [
            (&one, &plain, gold, &[][..], &[(0, 0, false)][..]),
            (&one, &plain, None, &[], &[(0, 0, false)]),
            (&two, &plain, gold, &[], &[(0, 0, false), (0, 1, false)]),
            (&two, &plain, gold, &["?", "6"], &[]),
            (&two, &plain, gold, &["7", "8"], &[]),
            // Where no sample agrees, once more with the answer.
            (&one, &hint, gold, &["6"], &[]),
            (&one, &hint, gold, &["7"], &[(0, 1, true)]),
            (&one, &hint, gold, &["-"], &[(0, 1, true)]),
            (&one, &hint, gold, &["?"], &[]),
            (&one, &hint, gold, &["!"], &[]),
            (&one, &hint, None, &["7"], &[]),
            (&one, &hint, gold, &["7", "h7"], &[]),
            (&one, &hint, gold, &["7", "h!"], &[]),
            (&two, &hint, gold, &["7", "!"], &[(0, 2, true)]),
            // At once with the answer, where it is known.
            (&one, &judging_first(), gold, &[], &[(0, 0, true)]),
            (&one, &judging_first(), None, &[], &[(0, 0, false)]),
            (&one, &judging_first(), gold, &["h7"], &[]),
            // The strong profile only where gold shows that the cheap one is wrong.
            (&cascade, &plain, gold, &[], &[(0, 0, false)]),
            (&cascade, &plain, gold, &["6"], &[]),
            (&cascade, &plain, gold, &["7"], &[(1, 1, false)]),
            (&cascade, &plain, gold, &["-"], &[(1, 1, false)]),
            (&cascade, &plain, gold, &["!"], &[(1, 1, false)]),
            (&cascade, &plain, None, &["7"], &[]),
            (&cascade, &plain, gold, &["7", "6"], &[]),
            (&cascade, &hint, gold, &["7", "7"], &[(1, 2, true)]),
        ] {
            assert_eq!(asks(teacher, judging, gold, known), expected, "{known:?} {judging:?} {gold:?}");
        }
    }

    fn judging_first() -> Judging {
        judging(Hint::First, false)
    }

    #[test]
    fn a_vote_is_asked_until_it_is_decided() {
        let eight = teacher(8, &[]);
        let vote = judging(Hint::Off, true);
        let next = |known: &[&str]| asks(&eight, &vote, None, known);
        assert_eq!(next(&[]), [(0, 0, false), (0, 1, false), (0, 2, false)]);
        assert_eq!(next(&["6", "6", "2 * 3"]), [], "P is 0.94");
        assert_eq!(next(&["6", "6", "7"]), [(0, 3, false)], "P is 0.69");
        assert_eq!(next(&["6", "6", "7", "6"]), [(0, 4, false)], "P is 0.81");
        assert_eq!(next(&["6", "7", "6", "6", "7", "6", "6"]), [], "one more changes nothing");
        assert_eq!(next(&["6", "7", "6", "7", "6", "7", "6"]), [(0, 7, false)]);
        assert_eq!(next(&["-", "-", "-"]), [(0, 3, false)]);
        assert_eq!(next(&["6", "7", "6", "7", "6", "7", "6", "7"]), []);
        let all = Judging { vote_confidence: 1.0, ..vote };
        assert_eq!(asks(&eight, &all, None, &[]).len(), 8);
    }

    #[test]
    fn the_probability_of_a_majority_is_that_of_coins() {
        for (leader, second, expected) in
            [(0, 0, 0.5), (1, 0, 0.75), (3, 0, 0.9375), (4, 0, 0.968_75), (3, 3, 0.5)]
        {
            let found = majority_probability(leader, second);
            assert!((found - expected).abs() < 1e-12, "{leader} to {second}: {found}");
        }
    }

    /// Votes to 8 of a teacher that is right in so many of its answers, and wrong in three ways else: the share of the
    /// samples that is asked, and how many points of labels that costs.
    fn early_vote(accuracy: f64) -> (f64, f64) {
        let eight = teacher(8, &[]);
        let vote = judging(Hint::Off, true);
        let mut random = SplitMix::new(7);
        let (mut samples, mut lost) = (0_u32, 0_i32);
        let rows = 4_000_u32;
        for _row in 0..rows {
            let answers: Vec<&str> = (0..8)
                .map(|_| {
                    let wrong = ["7", "8", "9"].get(random.below(3) as usize).copied().unwrap_or("7");
                    if random.next_f64() < accuracy { "6" } else { wrong }
                })
                .collect();
            let mut known = 0;
            loop {
                let more = asks(&eight, &vote, None, &answers[..known]).len();
                known += more;
                if more == 0 {
                    break;
                }
            }
            samples += u32::try_from(known).unwrap();
            let right = |answers: &[&str]| {
                let count = |label: &str| answers.iter().filter(|answer| **answer == label).count();
                i32::from(["7", "8", "9"].iter().all(|wrong| count(wrong) < count("6")))
            };
            lost += right(&answers) - right(&answers[..known]);
        }
        (f64::from(samples) / f64::from(8 * rows), 100.0 * f64::from(lost) / f64::from(rows))
    }

    #[test]
    fn early_votes_take_fewer_samples_for_the_same_labels() {
        for (accuracy, most) in [(0.95, 0.5), (0.6, 0.8)] {
            let (share, points) = early_vote(accuracy);
            println!("a teacher right in {accuracy}: {share:.3} of the samples, {points:.2} points");
            assert!(share <= most && points <= 0.5, "{accuracy}: {share} of the samples, {points} points");
        }
    }

    #[test]
    fn fewer_than_half_readable_fails_the_gate() {
        let smoke = |readable: u64, unread: u64, absent: u64| {
            let mut smoke = Smoke::default();
            (0..readable).for_each(|_| smoke.count(Some(None)));
            (0..unread).for_each(|_| smoke.count(Some(Some(Reason::NoAnswer))));
            (0..absent).for_each(|_| smoke.count(None));
            smoke
        };
        assert!(!smoke(0, 0, 0).fails());
        assert!(!smoke(8, 8, 0).fails());
        assert!(smoke(7, 8, 1).fails());
        assert_eq!(smoke(7, 8, 1).to_string(), "7 of 16 answers can be read, no answer 1, no_answer 8");
    }
}
