//! Answer or ask: what it takes and brings to send the rows that a student is least sure of to its teacher.

use super::answers::{Answered, Answers, Asked, rounded, share};
use super::grid::Setting;
use crate::metric::median;
use serde::Serialize;
use std::collections::HashMap;

/// Shares of the rows that go to the teacher.
const ASKED: [f64; 7] = [0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

/// The students of one setting, with their teacher behind them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Routing {
    /// The setting.
    #[serde(flatten)]
    pub setting: Setting,
    /// From no row to every row.
    pub shares: Vec<Route>,
    /// What keeps the wanted accuracy, where one is wanted.
    pub kept: Option<Kept>,
}

/// What becomes of it when a share of the rows, those with the least log-probability, goes to the teacher.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Route {
    /// The share of rows that go to the teacher.
    pub asked: f64,
    /// The log-probability below which they do, in the middle of the students; `None` where no row goes, or all.
    pub below: Option<f64>,
    /// The share of right answers among the rows that the student answers; `None` where it answers none.
    pub answered: Option<f64>,
    /// The share of right answers of both together, on the rows that the teacher was measured on; `None` where there are none.
    pub together: Option<f64>,
}

/// A threshold for a wanted accuracy: chosen on every other row and measured on the rest, and the other way round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kept {
    /// The share of right answers that is wanted among the rows that the student answers.
    pub wanted: f64,
    /// The log-probability below which a row goes to the teacher, in the middle of the students; `None` where no row has to, or all.
    pub below: Option<f64>,
    /// The share of rows that go to the teacher.
    pub asked: f64,
    /// The share of right answers among the rest; `None` where there is no rest.
    pub answered: Option<f64>,
}

impl Routing {
    /// Of the students of one setting; `None` where an answer has no log-probability.
    pub(super) fn of(
        setting: Setting,
        cells: &[&Answers],
        teacher: Option<&Asked>,
        wanted: Option<f64>,
    ) -> Option<Self> {
        let students: Vec<Vec<Scored<'_>>> =
            cells.iter().map(|cell| scored(&cell.rows)).collect::<Option<_>>()?;
        let is_right: HashMap<u64, bool> =
            teacher.into_iter().flat_map(|asked| &asked.rows).map(|row| (row.row, row.right)).collect();
        let shares = ASKED.iter().map(|asked| route(&students, &is_right, *asked)).collect();
        Some(Self { setting, shares, kept: wanted.map(|wanted| kept(&students, wanted)) })
    }
}

/// A row, and how sure the student is of its answer.
#[derive(Clone, Copy)]
struct Scored<'a> {
    row: &'a Answered,
    log_probability: f64,
}

fn scored(rows: &[Answered]) -> Option<Vec<Scored<'_>>> {
    rows.iter().map(|row| Some(Scored { row, log_probability: row.log_probability? })).collect()
}

/// The least sure first; rows that are equally sure in their own order.
fn by_sureness<'a>(rows: impl Iterator<Item = Scored<'a>>) -> Vec<Scored<'a>> {
    let mut rows: Vec<Scored<'_>> = rows.collect();
    rows.sort_by(|left, right| {
        left.log_probability.total_cmp(&right.log_probability).then(left.row.row.cmp(&right.row.row))
    });
    rows
}

fn route(students: &[Vec<Scored<'_>>], is_right: &HashMap<u64, bool>, asked: f64) -> Route {
    let (mut right, mut answered) = (0, 0);
    let (mut right_together, mut measured) = (0, 0);
    let mut borders = Vec::new();
    for student in students {
        let rows = by_sureness(student.iter().copied());
        let (below, above) = rows.split_at(part(asked, rows.len()));
        if !below.is_empty() {
            borders.extend(above.first().map(|row| row.log_probability));
        }
        answered += above.len() as u64;
        right += above.iter().filter(|row| row.row.right).count() as u64;
        let rows = by_sureness(student.iter().copied().filter(|row| is_right.contains_key(&row.row.row)));
        let (below, above) = rows.split_at(part(asked, rows.len()));
        measured += rows.len() as u64;
        right_together += above.iter().filter(|row| row.row.right).count() as u64;
        right_together += below.iter().filter(|row| is_right.get(&row.row.row) == Some(&true)).count() as u64;
    }
    Route {
        asked,
        below: median(borders).map(rounded),
        answered: (answered > 0).then(|| share(right, answered)),
        together: (measured > 0).then(|| share(right_together, measured)),
    }
}

fn part(share: f64, rows: usize) -> usize {
    ((share * rows as f64).round() as usize).min(rows)
}

fn kept(students: &[Vec<Scored<'_>>], wanted: f64) -> Kept {
    let (mut right, mut answered, mut all) = (0, 0, 0);
    let mut borders = Vec::new();
    for student in students {
        for half in 0..2 {
            let is_of_half = |(place, _): &(usize, &Scored<'_>)| place % 2 == half;
            let (chosen, rest): (Vec<_>, Vec<_>) = student.iter().enumerate().partition(is_of_half);
            let border = threshold(&by_sureness(chosen.into_iter().map(|(_, row)| *row)), wanted);
            borders.push(border);
            let above: Vec<_> = rest.iter().filter(|(_, row)| row.log_probability >= border).collect();
            all += rest.len() as u64;
            answered += above.len() as u64;
            right += above.iter().filter(|(_, row)| row.row.right).count() as u64;
        }
    }
    let border = median(borders).filter(|border| border.is_finite());
    Kept {
        wanted,
        below: border.map(rounded),
        asked: rounded(1.0 - share(answered, all)),
        answered: (answered > 0).then(|| share(right, answered)),
    }
}

/// The least log-probability from which on the wanted share of `rows` is right: below every number where all of them are right that
/// often, above where there is none. `rows` rise.
fn threshold(rows: &[Scored<'_>], wanted: f64) -> f64 {
    let mut right = 0;
    let mut found = f64::INFINITY;
    for (count, row) in (1_u64..).zip(rows.iter().rev()) {
        right += u64::from(row.row.right);
        if right as f64 >= wanted * count as f64 {
            found = row.log_probability;
        }
    }
    // Where all of them are right that often, no other row has to go either.
    if right as f64 >= wanted * rows.len() as f64 && !rows.is_empty() { f64::NEG_INFINITY } else { found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Rationales;
    use crate::study::{Arm, Cell};

    /// A student that is right on every row of which it is sure, and on every third of the others.
    fn student() -> Answers {
        let setting = Setting {
            arm: Arm { objective: crate::objective::Objective::StepByStep, rationales: Rationales::Own },
            millionths: 1_000_000,
            size: None,
        };
        let row = |row: u64| {
            let is_sure = row % 10 >= 4;
            Answered {
                row,
                right: is_sure || row.is_multiple_of(3),
                log_probability: Some(if is_sure { -0.1 } else { -1.0 - row as f64 / 1e3 }),
                ..Answered::default()
            }
        };
        Answers { cell: Cell { setting, seed: 0 }, parameters: 1, rows: (0..300).map(row).collect() }
    }

    fn routing(teacher: Option<&Asked>, wanted: Option<f64>) -> Routing {
        let student = student();
        Routing::of(student.cell.setting, &[&student], teacher, wanted).unwrap()
    }

    #[test]
    fn the_least_sure_rows_go_to_the_teacher() {
        let rows = (0..100).map(|row| Answered { row, right: row % 5 != 0, ..Answered::default() }).collect();
        let found = routing(Some(&Asked { name: "local".into(), rows }), None);
        let at = |asked: f64| found.shares.iter().find(|route| (route.asked - asked).abs() < 1e-9).unwrap();
        assert_eq!(at(0.0).answered, Some(0.733_333));
        assert_eq!((at(0.0).below, at(1.0).below, at(1.0).answered), (None, None, None));
        assert_eq!(at(1.0).together, Some(0.8), "the teacher alone");
        let half = at(0.5);
        assert_eq!((half.answered, half.below), (Some(1.0), Some(-0.1)));
        assert!(half.together.unwrap() > at(0.0).together.unwrap());
        assert_eq!(routing(None, None).shares[0].together, None);
    }

    #[test]
    fn a_threshold_keeps_the_wanted_accuracy_on_rows_that_did_not_choose_it() {
        let kept = routing(None, Some(0.99)).kept.unwrap();
        assert!(kept.answered.unwrap() > 0.98 && (0.39..0.42).contains(&kept.asked), "{kept:?}");
        let all = routing(None, Some(0.5)).kept.unwrap();
        assert_eq!((all.asked, all.answered, all.below), (0.0, Some(0.733_333), None));
        let mut wrong = student();
        wrong.rows.iter_mut().for_each(|row| row.right = false);
        let none = Routing::of(wrong.cell.setting, &[&wrong], None, Some(0.5)).unwrap().kept.unwrap();
        assert_eq!((none.asked, none.answered, none.below), (1.0, None, None));
    }

    #[test]
    fn without_log_probabilities_there_is_nothing_to_route_by() {
        let mut silent = student();
        silent.rows[7].log_probability = None;
        assert_eq!(Routing::of(silent.cell.setting, &[&silent], None, None), None);
    }
}
