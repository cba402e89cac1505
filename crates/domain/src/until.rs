//! Until rationales stop helping: which share of the train rows a teacher is asked about.
//!
//! Short trainings say what rationales are worth: one without any, then one over the rationales of an eighth, a quarter and
//! half of the rows, all on every row's label. After each of them a pure function of which rows the students got right says
//! whether twice as many rows are asked about, or none.

use crate::objective::Objective;
use crate::run::{Outcomes, RunPlan, RunPurpose};
use crate::share::{End, Gain, Share};
use crate::spec::{Select, Spec};
use crate::subset::{Stratum, Subset};
use std::collections::HashSet;

/// A doubling that gains less than this share of the rows is not worth its calls.
pub const GAIN_LEAST: f64 = 0.01;
/// How sure it has to be that a gain is less.
const CONFIDENCE: f64 = 0.9;
/// A probe makes this part of its job's steps, where the specification does not say how many.
const STEPS_PART: u32 = 4;

/// What follows from the probes so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// The last one's gain over the one before; `None` for the first.
    pub gain: Option<Gain>,
    /// The share to ask about next, or why there is none.
    pub next: Result<Share, End>,
}

/// What follows from what the probes got right, in order of their share, from the one without rationales on; `None` where
/// there is no probe. Asking ends where a student without rationales gets as many rows right, or where the gain of the last
/// probe over the one before is below [`GAIN_LEAST`] with 90%.
pub fn decide(probes: &[Outcomes]) -> Option<Decision> {
    let last = probes.last()?;
    let next = Share::ALL.get(probes.len()).copied().unwrap_or(Share::All);
    let (Some(none), Some(before)) =
        (probes.first(), probes.len().checked_sub(2).and_then(|place| probes.get(place)))
    else {
        return Some(Decision { gain: None, next: Ok(next) });
    };
    let pairs = last.against(before);
    let gain = Gain { value: pairs.value(), upper: pairs.upper(CONFIDENCE) };
    let end = if last.against(none).value() <= 0.0 {
        Some(End::NoBetter)
    } else {
        (gain.upper < GAIN_LEAST).then_some(End::Flat)
    };
    Some(Decision { gain: Some(gain), next: end.map_or(Ok(next), Err) })
}

/// The train rows of a share, of all of them with the stratum of each. A share contains the ones before it.
///
/// With [`Select::Needed`], up to half of what a share adds are rows that the probe before it got wrong (`needed`, by the
/// place of the probe's share); the rest keeps the proportions of the labels among the rows that are left.
pub fn rows_of(
    share: Share,
    select: Select,
    seed: u64,
    rows: &[(u64, Stratum)],
    needed: &[Vec<u64>],
) -> HashSet<u64> {
    let choose = |share: Share, rows: &[(u64, Stratum)]| {
        share.subset(seed).map(|subset| subset.choose(rows.iter().cloned())).unwrap_or_default()
    };
    if select == Select::Stratified || share == Share::All {
        return choose(share, rows);
    }
    let known: HashSet<u64> = rows.iter().map(|(row, _)| *row).collect();
    let order = Subset::all(seed);
    let mut chosen = HashSet::new();
    for (before, step) in Share::ALL.iter().skip(1).enumerate().take_while(|(_, step)| **step <= share) {
        let added = choose(*step, rows).len().saturating_sub(chosen.len());
        let mut wrong: Vec<u64> = needed.get(before).into_iter().flatten().copied().collect();
        wrong.retain(|row| known.contains(row) && !chosen.contains(row));
        wrong.sort_unstable_by_key(|row| (order.rank(*row), *row));
        wrong.dedup();
        wrong.truncate(added.div_ceil(2));
        let rest = added - wrong.len();
        chosen.extend(wrong);
        let left: Vec<(u64, Stratum)> =
            rows.iter().filter(|(row, _)| !chosen.contains(row)).cloned().collect();
        let parts = (rest as u128 * 1_000_000).checked_div(left.len() as u128).unwrap_or(0);
        let parts = u32::try_from(parts).unwrap_or(0).max(u32::from(rest > 0));
        if let Some(subset) = Subset::of_millionths(parts, seed) {
            chosen.extend(subset.choose(left));
        }
    }
    chosen
}

impl RunPlan {
    /// The probe of a job over a share of its rationales: as the job trains, in fewer steps; without a rationale, labels alone.
    pub fn probe(spec: &Spec, share: Share) -> Self {
        let mut probed = spec.clone();
        let training = &mut probed.training;
        let wanted = spec.teacher.as_ref().and_then(|teacher| teacher.probe_steps);
        let steps = wanted.unwrap_or(training.steps / STEPS_PART).clamp(1, training.steps.max(1));
        let scaled = |part: u32| u64::from(part) * u64::from(steps) / u64::from(training.steps.max(1));
        training.warmup_steps = u32::try_from(scaled(training.warmup_steps)).unwrap_or(0);
        training.evaluate_every_steps =
            u32::try_from(scaled(training.evaluate_every_steps)).unwrap_or(1).max(1);
        training.steps = steps;
        if share == Share::None {
            training.objective = Objective::Standard;
        }
        let rows = Subset::all(training.seed);
        Self { share: Some(share), ..Self::new(RunPurpose::Probe, rows, &probed) }
    }

    /// Whether the run says which train rows it gets wrong, so that the teacher is asked about them.
    pub fn looks_for_needed(&self, spec: &Spec) -> bool {
        let selects = spec.teacher.as_ref().is_some_and(|teacher| teacher.select == Select::Needed);
        self.share.is_some() && selects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example::Example;
    use crate::spec::{Draft, JudgingDraft, StudentDraft, TeacherDraft, TrainingDraft, TrainingSpec, Until};
    use crate::task::Task;

    const ROWS: u64 = 1_000;

    /// A student that gets the first `right` of the rows right.
    fn right(right: u64) -> Outcomes {
        Outcomes::of((0..ROWS).map(|row| (row, row < right)))
    }

    fn check(probes: &[u64], next: Result<Share, End>) {
        let probes: Vec<Outcomes> = probes.iter().map(|count| right(*count)).collect();
        let decision = decide(&probes).unwrap();
        assert_eq!(decision.next, next, "{probes:?}", probes = decision);
        assert_eq!(decision.gain.is_some(), probes.len() > 1);
    }

    #[test]
    fn asking_goes_on_as_long_as_rationales_help() {
        assert_eq!(decide(&[]), None);
        check(&[500], Ok(Share::Eighth));
        check(&[500, 600], Ok(Share::Quarter));
        check(&[500, 600, 650], Ok(Share::Half));
        check(&[500, 600, 650, 700], Ok(Share::All));
        // They never help.
        check(&[500, 500], Err(End::NoBetter));
        check(&[500, 490], Err(End::NoBetter));
        check(&[500, 600, 480], Err(End::NoBetter));
        // They help up to some share.
        check(&[500, 501], Err(End::Flat));
        check(&[500, 600, 600], Err(End::Flat));
        check(&[500, 600, 650, 652], Err(End::Flat));
        check(&[500, 600, 650, 640], Err(End::Flat));
        // Almost a point: the bound is above it.
        check(&[500, 600, 608], Ok(Share::Half));
    }

    #[test]
    fn few_rows_do_not_end_the_asking() {
        let few = |right: u64| Outcomes::of((0..50).map(|row| (row, row < right)));
        let decision = decide(&[few(20), few(25), few(25)]).unwrap();
        assert_eq!(decision.next, Ok(Share::Half), "50 rows cannot show that a gain is below a point");
        assert!(decision.gain.unwrap().upper > GAIN_LEAST);
    }

    fn rows(count: u64) -> Vec<(u64, Stratum)> {
        let task = Task::built_in("nli").unwrap();
        let stratum = |row: u64| {
            let label = if row.is_multiple_of(4) { "neutral" } else { "entailment" };
            Stratum::of(&task, &Example { label: Some(label.to_owned()), ..Example::default() })
        };
        (0..count).map(|row| (row, stratum(row))).collect()
    }

    #[test]
    fn shares_are_nested_and_stratified() {
        let rows = rows(800);
        for select in [Select::Stratified, Select::Needed] {
            let mut before = HashSet::new();
            for share in Share::ALL {
                let chosen = rows_of(*share, select, 3, &rows, &[]);
                assert_eq!(chosen.len(), 100 * share.eighths() as usize, "{select} {share}");
                assert!(before.is_subset(&chosen), "{select} {share}");
                let neutral = chosen.iter().filter(|row| row.is_multiple_of(4)).count();
                assert_eq!(
                    neutral,
                    25 * share.eighths() as usize,
                    "{select} {share}: labels keep their share"
                );
                before = chosen;
            }
        }
    }

    #[test]
    fn half_of_a_share_are_rows_that_the_probe_got_wrong() {
        let rows = rows(800);
        let wrong: Vec<u64> = (0..800).filter(|row| row % 5 == 1).collect();
        let needed = [wrong.clone(), wrong.clone(), Vec::new()];
        let is_wrong = |chosen: &HashSet<u64>| chosen.iter().filter(|row| *row % 5 == 1).count();
        let of = |share| rows_of(share, Select::Needed, 3, &rows, &needed);
        let (eighth, quarter, half) = (of(Share::Eighth), of(Share::Quarter), of(Share::Half));
        assert!(eighth.is_subset(&quarter) && quarter.is_subset(&half));
        assert!(
            (100..=102).contains(&eighth.len()) && (200..=204).contains(&quarter.len()),
            "{}",
            quarter.len()
        );
        assert!(
            is_wrong(&eighth) >= 50 && is_wrong(&quarter) >= 100,
            "{} {}",
            is_wrong(&eighth),
            is_wrong(&quarter)
        );
        assert!(is_wrong(&eighth) < 70, "the other half is as the rows are");
        assert_eq!(of(Share::All).len(), 800);
        assert_eq!(rows_of(Share::Quarter, Select::Needed, 3, &rows, &needed), quarter, "always the same");
        // Fewer wrong rows than half: the rest fills up.
        let few = [vec![1, 6, 900], Vec::new(), Vec::new()];
        let chosen = rows_of(Share::Eighth, Select::Needed, 3, &rows, &few);
        assert!(chosen.contains(&1) && chosen.contains(&6) && !chosen.contains(&900));
        assert!((100..=102).contains(&chosen.len()), "{}", chosen.len());
    }

    #[test]
    fn a_probe_is_its_job_in_fewer_steps() {
        let draft = Draft {
            name: "job".into(),
            task: Task::built_in("equation").unwrap(),
            teacher: TeacherDraft {
                profile: Some("local".into()),
                until: Some(Until::NoGain),
                ..TeacherDraft::default()
            },
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        };
        let mut job = draft.resolve().unwrap();
        let probe = RunPlan::probe(&job, Share::Quarter);
        let expected =
            TrainingSpec { steps: 500, warmup_steps: 25, evaluate_every_steps: 50, ..job.training.clone() };
        assert_eq!((probe.training, probe.share), (expected.clone(), Some(Share::Quarter)));
        let none = RunPlan::probe(&job, Share::None);
        assert_eq!(none.training, TrainingSpec { objective: Objective::Standard, ..expected });
        job.teacher.as_mut().unwrap().probe_steps = Some(100);
        let probe = RunPlan::probe(&job, Share::Half);
        assert_eq!((probe.training.steps, probe.rows), (100, Subset::all(job.training.seed)));
        assert_eq!(probe.spec(&job).teacher, job.teacher, "all else is as the job has it");
    }
}
