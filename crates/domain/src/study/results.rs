//! What a study found, from what its students answered.
//!
//! Numbers are rounded to six digits: equal answers give equal bytes.

use super::answers::{Answered, Answers, Asked, count, rounded, share};
use super::grid::{Cell, Grid, Question, Setting};
use super::routing::Routing;
use super::statistics::{Estimate, LEVEL, Scores, estimates, holm, smallest_difference};
use super::trust::Trust;
use crate::metric::Accuracy;
use crate::paired::{Difference, Finding};
use crate::spec::StudentSize;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// The format of [`Results`].
const FORMAT: u32 = 2;
/// Most labels for which there is a figure of their own.
const CLASSES_MAX: usize = 20;
/// A point: the difference for which the results say how many rows it would take.
const POINT: f64 = 0.01;

/// Everything that a study found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Results {
    /// The version of this form.
    pub format: u32,
    /// The study's name, which is its specification's.
    pub study: String,
    /// The task's name.
    pub task: String,
    /// How many test rows there are that have a label.
    pub test_rows: u64,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// A difference of up to this share of the rows does not matter.
    pub margin: f64,
    /// On the test rows that it was asked about; `None` where it was asked about none.
    pub teacher: Option<TeacherResult>,
    /// Arms, fractions and sizes: the students of all seeds together.
    pub settings: Vec<Measured>,
    /// What was asked, and the answers.
    pub questions: Vec<Answer>,
    /// What becomes of rows that the students of all rows are not sure of.
    pub routing: Vec<Routing>,
    /// Every student.
    pub cells: Vec<CellResult>,
}

/// The teacher, measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TeacherResult {
    /// See [`Asked::name`].
    pub name: String,
    /// The rows that it was asked about.
    pub rows: u64,
    /// The share that it answered right.
    pub accuracy: f64,
    /// The lower end of the 95% interval, over rows.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The students of one setting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The setting.
    #[serde(flatten)]
    pub setting: Setting,
    /// How many parameters each student has, at most.
    pub parameters: u64,
    /// The share of right answers, over rows and seeds.
    pub accuracy: f64,
    /// The lower end of the 95% interval, for other rows and other seeds.
    pub low: f64,
    /// The upper end.
    pub high: f64,
    /// The share of answers that say a label.
    pub parsed: f64,
    /// The share of right answers on the rows that the teacher was asked about; `None` where there are none.
    pub on_teachers_rows: Option<f64>,
    /// By right label, in the order of the labels; empty where there are more than 20, or one.
    pub classes: Vec<ClassAccuracy>,
    /// What their rationales are like; `None` where they write none.
    pub trust: Option<Trust>,
}

/// The rows of one label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClassAccuracy {
    /// The right label.
    pub label: String,
    /// How many test rows have it.
    pub rows: u64,
    /// The share of right answers among them, over all seeds.
    pub accuracy: f64,
}

/// Whether one arm is better than another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The arm that may be better, with its fraction and size.
    #[serde(flatten)]
    pub first: Setting,
    /// The arm that it is compared with, at the same size.
    pub against: super::grid::Arm,
    /// On which fraction of the train rows: the same one, or all of them.
    pub against_fraction: f64,
    /// How much better the first is, in shares of right answers; for other rows and other seeds.
    #[serde(flatten)]
    pub difference: Difference,
    /// The p-value for a table of so many questions (Holm 1979).
    pub p_table: f64,
    /// The word for it: `better` and `worse` need the interval beyond zero and `p_table` at most 0.05.
    pub finding: Finding,
    /// The share of rows and seeds on which only one of the two was right.
    pub discordance: f64,
    /// The smallest difference that would have been found in four of five such studies.
    pub smallest_difference: f64,
    /// About how many test rows it would take to find a difference of one point; `None` where no number does with so few
    /// seeds.
    pub rows_for_one_point: Option<u64>,
}

/// One student.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CellResult {
    /// The cell's name.
    pub cell: String,
    /// What it was trained on.
    #[serde(flatten)]
    pub setting: Setting,
    /// Its seed.
    pub seed: u64,
    /// How many parameters it has.
    pub parameters: u64,
    /// How many rows it answered right.
    pub right: u64,
    /// How many of its answers say a label.
    pub parsed: u64,
}

impl Answer {
    /// Whether it compares a part of the rows with all of them.
    pub fn is_of_less(&self) -> bool {
        self.against_fraction > self.first.fraction()
    }
}

impl Answers {
    fn rights(&self) -> Vec<bool> {
        self.rows.iter().map(|row| row.right).collect()
    }

    fn result(&self) -> CellResult {
        CellResult {
            cell: self.cell.name(),
            setting: self.cell.setting,
            seed: self.cell.seed,
            parameters: self.parameters,
            right: count(&self.rows, |row| row.right),
            parsed: count(&self.rows, |row| !row.prediction.is_empty()),
        }
    }
}

impl Results {
    /// What a grid's cells show.
    ///
    /// # Errors
    /// A cell is absent, or answered other rows than the others.
    pub fn of(
        grid: &Grid,
        study: &str,
        task: &str,
        cells: &[Answers],
        teacher: Option<&Asked>,
    ) -> Result<Self, String> {
        let evidence = Evidence::of(grid, cells)?;
        let rows = cells.first().map_or(0, |cell| cell.rows.len() as u64);
        Ok(Self {
            format: FORMAT,
            study: study.to_owned(),
            task: task.to_owned(),
            test_rows: rows,
            seeds: grid.seeds.clone(),
            margin: rounded(grid.margin),
            teacher: teacher.map(measured_teacher),
            settings: evidence.settings(grid, teacher)?,
            questions: evidence.answers(grid, rows)?,
            routing: evidence.routing(grid, teacher)?,
            cells: cells.iter().map(Answers::result).collect(),
        })
    }

    /// What was measured in a setting; `None` where it is not in the study.
    pub fn measured(&self, setting: Setting) -> Option<&Measured> {
        self.settings.iter().find(|measured| measured.setting == setting)
    }

    /// The answer to a question about an arm beside another on the same rows.
    pub fn answer(&self, first: Setting, against: super::grid::Arm) -> Option<&Answer> {
        self.questions
            .iter()
            .find(|answer| answer.first == first && answer.against == against && !answer.is_of_less())
    }

    /// The sizes of students, in order.
    pub fn sizes(&self) -> Vec<Option<StudentSize>> {
        let mut sizes: Vec<_> = self.settings.iter().map(|measured| measured.setting.size).collect();
        sizes.dedup();
        sizes
    }
}

fn measured_teacher(asked: &Asked) -> TeacherResult {
    let rows = asked.rows.len() as u64;
    let parsed = count(&asked.rows, |row| !row.prediction.is_empty());
    let accuracy = Accuracy::measure(rows, count(&asked.rows, |row| row.right), parsed);
    TeacherResult {
        name: asked.name.clone(),
        rows,
        accuracy: rounded(accuracy.value()),
        low: rounded(accuracy.low),
        high: rounded(accuracy.high),
    }
}

/// The cells of a study by their setting, in the order of the seeds.
struct Evidence<'a>(HashMap<Setting, Vec<&'a Answers>>);

impl<'a> Evidence<'a> {
    fn of(grid: &Grid, cells: &'a [Answers]) -> Result<Self, String> {
        let known: HashMap<Cell, &Answers> = cells.iter().map(|cell| (cell.cell, cell)).collect();
        let first = cells.first().map(|cell| cell.rows.as_slice()).unwrap_or_default();
        let mut by_setting: HashMap<Setting, Vec<&Answers>> = HashMap::new();
        for cell in grid.cells() {
            let name = cell.name();
            let answers =
                known.get(&cell).ok_or_else(|| format!("there are no predictions of cell {name}"))?;
            let same = |left: &Answered, right: &Answered| left.row == right.row && left.gold == right.gold;
            let is_same = answers.rows.len() == first.len()
                && answers.rows.iter().zip(first).all(|(left, right)| same(left, right));
            if !is_same {
                return Err(format!("cell {name} answered other rows than the others"));
            }
            by_setting.entry(cell.setting).or_default().push(answers);
        }
        Ok(Self(by_setting))
    }

    fn cells(&self, setting: Setting) -> Result<&[&'a Answers], String> {
        self.0.get(&setting).map(Vec::as_slice).ok_or_else(|| "a setting has no cell".to_owned())
    }

    fn rights(&self, setting: Setting) -> Result<Vec<Vec<bool>>, String> {
        Ok(self.cells(setting)?.iter().map(|cell| cell.rights()).collect())
    }

    fn settings(&self, grid: &Grid, teacher: Option<&Asked>) -> Result<Vec<Measured>, String> {
        let settings = grid.settings();
        let rights: Vec<Vec<Vec<bool>>> =
            settings.iter().map(|setting| self.rights(*setting)).collect::<Result<_, _>>()?;
        let scores: Vec<Scores> = rights.iter().map(|rights| Scores::right(rights)).collect();
        let asked: Option<Vec<u64>> = teacher.map(|asked| asked.rows.iter().map(|row| row.row).collect());
        settings
            .into_iter()
            .zip(estimates(&scores))
            .map(|(setting, estimate)| {
                let cells = self.cells(setting)?;
                let rows: u64 = cells.iter().map(|cell| cell.rows.len() as u64).sum();
                let parsed = cells.iter().map(|cell| cell.result().parsed).sum();
                Ok(Measured {
                    setting,
                    parameters: cells.iter().map(|cell| cell.parameters).max().unwrap_or(0),
                    accuracy: rounded(estimate.value),
                    low: rounded(estimate.low),
                    high: rounded(estimate.high),
                    parsed: share(parsed, rows),
                    on_teachers_rows: asked.as_deref().and_then(|asked| on_rows(cells, asked)),
                    classes: classes(cells),
                    trust: Trust::of(cells, teacher),
                })
            })
            .collect()
    }

    /// For every setting of all rows.
    fn routing(&self, grid: &Grid, teacher: Option<&Asked>) -> Result<Vec<Routing>, String> {
        let most = grid.millionths.iter().max().copied();
        let mut routing = Vec::new();
        for setting in grid.settings().into_iter().filter(|setting| Some(setting.millionths) == most) {
            routing.extend(Routing::of(setting, self.cells(setting)?, teacher, grid.accuracy));
        }
        Ok(routing)
    }

    fn answers(&self, grid: &Grid, rows: u64) -> Result<Vec<Answer>, String> {
        let questions = grid.questions();
        let scores: Vec<Scores> = questions
            .iter()
            .map(|Question { first, second }| {
                Ok(Scores::difference(&self.rights(*first)?, &self.rights(*second)?))
            })
            .collect::<Result<_, String>>()?;
        let estimates = estimates(&scores);
        let p_table = holm(&estimates.iter().map(|estimate| estimate.p_value).collect::<Vec<_>>());
        let all = questions.len();
        let answers = questions.iter().zip(&scores).zip(&estimates).zip(p_table);
        Ok(answers
            .map(|(((question, scores), estimate), p_table)| {
                answer(
                    *question,
                    scores,
                    estimate,
                    p_table,
                    Table { rows, questions: all, margin: grid.margin },
                )
            })
            .collect())
    }
}

/// Right answers by right label.
fn classes(cells: &[&Answers]) -> Vec<ClassAccuracy> {
    let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for row in cells.iter().flat_map(|cell| &cell.rows) {
        let (right, all) = counts.entry(&row.gold).or_default();
        *right += u64::from(row.right);
        *all += 1;
        if counts.len() > CLASSES_MAX {
            return Vec::new();
        }
    }
    if counts.len() < 2 {
        return Vec::new();
    }
    let students = cells.len().max(1) as u64;
    counts
        .into_iter()
        .map(|(label, (right, all))| ClassAccuracy {
            label: label.to_owned(),
            rows: all / students,
            accuracy: share(right, all),
        })
        .collect()
}

/// The share of right answers on some of the rows; `None` where the students were asked none of them.
fn on_rows(cells: &[&Answers], rows: &[u64]) -> Option<f64> {
    let of_cells =
        || cells.iter().flat_map(|cell| &cell.rows).filter(|row| rows.binary_search(&row.row).is_ok());
    let (right, all) = (of_cells().filter(|row| row.right).count(), of_cells().count());
    (all > 0).then(|| share(right as u64, all as u64))
}

/// The table that an answer stands in.
#[derive(Clone, Copy)]
struct Table {
    rows: u64,
    questions: usize,
    margin: f64,
}

fn answer(question: Question, scores: &Scores, estimate: &Estimate, p_table: f64, table: Table) -> Answer {
    let difference = Difference {
        value: rounded(estimate.value),
        low: rounded(estimate.low),
        high: rounded(estimate.high),
        p_value: rounded(estimate.p_value),
    };
    let finding = match difference.finding(table.margin) {
        // What the table as a whole does not carry is not claimed.
        Finding::Better | Finding::Worse if p_table > LEVEL => {
            let is_inside = -table.margin <= difference.low && difference.high <= table.margin;
            if is_inside { Finding::NoDifference } else { Finding::NotDecided }
        }
        finding => finding,
    };
    Answer {
        first: question.first,
        against: question.second.arm,
        against_fraction: question.second.fraction(),
        difference,
        p_table: rounded(p_table),
        finding,
        discordance: rounded(scores.discordance()),
        smallest_difference: rounded(smallest_difference(estimate.error, table.questions)),
        rows_for_one_point: rows_for_one_point(estimate, table),
    }
}

fn rows_for_one_point(estimate: &Estimate, table: Table) -> Option<u64> {
    let needed = (POINT / smallest_difference(1.0, table.questions)).powi(2);
    let (all, of_seeds) = (estimate.error.powi(2), estimate.error_of_seeds.powi(2));
    let rows = table.rows as f64 * (all - of_seeds).max(0.0) / (needed - of_seeds);
    (needed > of_seeds && rows < 1e12).then(|| rows.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::SplitMix;
    use crate::objective::Objective;
    use crate::spec::Rationales;
    use crate::study::Arm;

    const STEP_BY_STEP: Arm = Arm { objective: Objective::StepByStep, rationales: Rationales::Own };
    const SHUFFLED: Arm = Arm { rationales: Rationales::Shuffled, ..STEP_BY_STEP };

    fn grid() -> Grid {
        Grid {
            arms: vec![Arm::NONE, STEP_BY_STEP, SHUFFLED],
            millionths: vec![250_000, 1_000_000],
            seeds: vec![0, 1],
            sizes: vec![None],
            margin: 0.02,
            accuracy: None,
        }
    }

    /// Students that are right on the shares of rows that their arm and fraction have.
    fn cells(rows: u64, share: fn(Setting) -> f64) -> Vec<Answers> {
        let of_cell = |cell: Cell| {
            let mut generator = SplitMix::new(cell.seed);
            let row = |row: u64| {
                let right = generator.next_f64() < share(cell.setting);
                let prediction = if right { "yes" } else { "" };
                Answered {
                    row: row * 3,
                    gold: "yes".into(),
                    prediction: prediction.into(),
                    right,
                    ..Answered::default()
                }
            };
            Answers { cell, parameters: 7, rows: (0..rows).map(row).collect() }
        };
        grid().cells().into_iter().map(of_cell).collect()
    }

    fn results(cells: &[Answers], teacher: Option<&Asked>) -> Result<Results, String> {
        Results::of(&grid(), "study", "equation", cells, teacher)
    }

    /// Rationales help where there are few rows, and shuffled ones do nothing.
    fn few_rows_gain(setting: Setting) -> f64 {
        match (setting.arm == STEP_BY_STEP, setting.millionths) {
            (true, 250_000) => 0.7,
            (false, 250_000) => 0.5,
            _ => 0.9,
        }
    }

    #[test]
    fn each_question_has_its_word() {
        let found = results(&cells(1_500, few_rows_gain), None).unwrap();
        let words: Vec<(&str, f64, &str, Finding)> = found
            .questions
            .iter()
            .map(|answer| {
                (answer.first.arm.name(), answer.first.fraction(), answer.against.name(), answer.finding)
            })
            .collect();
        let expected = [
            ("step_by_step", 0.25, "none", Finding::Better),
            ("step_by_step", 0.25, "shuffled", Finding::Better),
            ("shuffled", 0.25, "none", Finding::NoDifference),
            ("step_by_step", 1.0, "none", Finding::NoDifference),
            ("step_by_step", 1.0, "shuffled", Finding::NoDifference),
            ("shuffled", 1.0, "none", Finding::NoDifference),
            // A quarter of the rows with rationales, beside all of them with labels only.
            ("step_by_step", 0.25, "none", Finding::Worse),
        ];
        assert_eq!(words, expected);
        let answer = found.answer(found.settings[1].setting, Arm::NONE).unwrap();
        assert!((answer.difference.value - 0.2).abs() < 0.03, "{answer:?}");
        assert!(answer.rows_for_one_point.is_some_and(|rows| rows > 1_500), "{answer:?}");
        assert_eq!(found.settings.len(), 6);
        let first = &found.settings[0];
        assert!(first.low < first.accuracy && first.accuracy < first.high && first.accuracy == first.parsed);
        assert_eq!(found.cells.len(), 12);
        assert_eq!((found.test_rows, found.sizes(), found.teacher), (1_500, vec![None], None));
        let few = results(&cells(40, |_| 0.5), None).unwrap();
        assert!(few.questions.iter().all(|answer| answer.finding == Finding::NotDecided));
    }

    #[test]
    fn the_teacher_is_beside_its_students_on_its_own_rows() {
        let cells = cells(100, few_rows_gain);
        let asked = |row: u64| Answered {
            row,
            gold: "yes".into(),
            prediction: "yes".into(),
            right: row.is_multiple_of(2),
            ..Answered::default()
        };
        let teacher = Asked { name: "local".into(), rows: (0..10).map(|row| asked(row * 3)).collect() };
        let found = results(&cells, Some(&teacher)).unwrap();
        let measured = found.teacher.unwrap();
        assert_eq!((measured.rows, measured.accuracy), (10, 0.5));
        let right: usize =
            [0, 6].iter().map(|cell| cells[*cell].rows.iter().take(10).filter(|row| row.right).count()).sum();
        assert_eq!(found.settings[0].on_teachers_rows, Some(right as f64 / 20.0));
    }

    #[test]
    fn equal_answers_are_equal_bytes_and_one_row_changes_them() {
        let bytes = |cells: &[Answers]| serde_json::to_string(&results(cells, None).unwrap()).unwrap();
        let mut cells = cells(200, few_rows_gain);
        let before = bytes(&cells);
        assert_eq!(before, bytes(&cells));
        assert!(
            before.contains(
                r#"{"arm":"step_by_step","fraction":0.25,"against":"none","against_fraction":0.25,"value":"#
            ),
            "{before}"
        );
        let row = &mut cells[3].rows[17];
        row.right = !row.right;
        assert_ne!(before, bytes(&cells));
    }

    #[test]
    fn incomplete_evidence_is_refused() {
        let check = |change: fn(&mut Vec<Answers>), words: &str| {
            let mut changed = cells(20, few_rows_gain);
            change(&mut changed);
            let said = results(&changed, None).unwrap_err();
            assert!(said.contains(words), "{said}");
        };
        check(|cells| drop(cells.pop()), "no predictions of cell shuffled-1-student-1");
        check(|cells| drop(cells[2].rows.pop()), "cell shuffled-0.25-student-0 answered other rows");
        check(
            |cells| cells[4].rows[3].gold = "no".into(),
            "cell step_by_step-1-student-0 answered other rows",
        );
    }
}
