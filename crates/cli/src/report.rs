//! The report at the end of `run`: a table for people, one JSON object for scripts.

pub(crate) use app::pages::{grouped, percent};

use crate::terminal::Table;
use domain::metric::Accuracy;
use domain::records::PhaseSeconds;
use domain::spec::Budget;
use domain::state::DistillationState;
use serde::Serialize;

/// The end of a run, as `run --json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The job's state: succeeded, failed, cancelled or paused.
    pub(crate) state: DistillationState,
    /// The job's id.
    pub(crate) distillation: String,
    /// Why it did not succeed; absent where it did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// The student, as `name@version`.
    pub(crate) model: Option<String>,
    /// The student's folder; null where it is a server's.
    pub(crate) model_dir: Option<String>,
    /// Where people find that folder by the model's name.
    pub(crate) model_link: Option<String>,
    /// The page of the job; null where it did not succeed, or is a server's.
    pub(crate) page: Option<String>,
    /// The teacher's part.
    pub(crate) teacher: TeacherOutcome,
    /// The student's part.
    pub(crate) student: StudentOutcome,
    /// Wall-clock seconds of each phase.
    pub(crate) seconds: PhaseSeconds,
}

impl Outcome {
    /// Checks that the job succeeded.
    ///
    /// # Errors
    /// It did not; the error names the reason.
    pub(crate) fn succeeded(&self) -> anyhow::Result<()> {
        match self.state {
            DistillationState::Succeeded => Ok(()),
            DistillationState::Paused => anyhow::bail!(
                "the distillation is paused: {}: it goes on at `distillery resume {}`, or where `distillery run` is called again",
                self.reason,
                self.distillation
            ),
            state => anyhow::bail!("the distillation is {state}: {}", self.reason),
        }
    }
}

/// The teacher, in figures.
#[derive(Debug, Serialize)]
pub(crate) struct TeacherOutcome {
    pub(crate) name: String,
    /// On the test rows; null where it was not measured.
    pub(crate) accuracy: Option<f64>,
    pub(crate) accuracy_low: Option<f64>,
    pub(crate) accuracy_high: Option<f64>,
    /// The test rows that it was measured on.
    pub(crate) accuracy_rows: Option<u64>,
    /// Calls paid for, over all runs of this job.
    pub(crate) prompts: u64,
    /// Prompts answered from the store.
    pub(crate) cached: u64,
    /// Prompts that the teacher failed on too often.
    pub(crate) parked: u64,
    /// Prompts skipped because the budget was exhausted.
    pub(crate) skipped: u64,
    /// Rationales that train the student.
    pub(crate) accepted: u64,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    /// Spent, in millionths of the profile's currency.
    pub(crate) money_micros: u64,
    /// Calls whose end is not known, at the most they can cost: as good as spent.
    pub(crate) in_doubt: serde_json::Value,
    /// The limits.
    pub(crate) budget: Budget,
}

/// The student, in figures.
#[derive(Debug, Serialize)]
pub(crate) struct StudentOutcome {
    pub(crate) parameters: Option<u64>,
    /// On the validation rows.
    pub(crate) validation_accuracy: Option<f64>,
    /// On the test rows.
    pub(crate) accuracy: Option<f64>,
    pub(crate) accuracy_low: Option<f64>,
    pub(crate) accuracy_high: Option<f64>,
    /// On the test rows that the teacher was measured on; null where these are all, or the student is elsewhere.
    pub(crate) accuracy_on_teachers_rows: Option<f64>,
}

/// The teacher's and the student's rows of the table; what was not measured is a dash.
/// The student stands twice where the teacher was measured on some of the test rows: on those, and on all.
pub(crate) fn table(
    outcome: &Outcome,
    teacher: Option<Accuracy>,
    student: Option<Accuracy>,
    same_rows: Option<Accuracy>,
) -> Table {
    let mut table = Table::new(&["", "accuracy", "95% interval", "test rows", "parameters"]);
    let parameters = outcome.student.parameters.map_or_else(|| "-".to_owned(), grouped);
    let mut measured = vec![(format!("teacher {}", outcome.teacher.name), teacher, "-".to_owned())];
    if same_rows.is_some() {
        measured.push(("student, the same rows".to_owned(), same_rows, parameters.clone()));
    }
    measured.push(("student".to_owned(), student, parameters));
    for (who, accuracy, parameters) in measured {
        table.add([
            who,
            accuracy.map_or_else(|| "-".to_owned(), |accuracy| percent(accuracy.value())),
            accuracy.map_or_else(|| "-".to_owned(), interval),
            accuracy.map_or_else(|| "-".to_owned(), |accuracy| grouped(accuracy.rows)),
            parameters,
        ]);
    }
    table.align_figures();
    table
}

/// The lines below the table: what was asked and accepted, and how long it took.
pub(crate) fn totals(outcome: &Outcome) -> [String; 2] {
    let teacher = &outcome.teacher;
    let seconds = &outcome.seconds;
    let unanswered: String = [("parked", teacher.parked), ("skipped (budget exhausted)", teacher.skipped)]
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!(", {what} {}", grouped(*count)))
        .collect();
    [
        format!(
            "prompts {} ({} from the store){unanswered}, rationales accepted {}, tokens in {}, out {}",
            grouped(teacher.prompts),
            grouped(teacher.cached),
            grouped(teacher.accepted),
            grouped(teacher.tokens_in),
            grouped(teacher.tokens_out),
        ),
        format!(
            "seconds: harvest {:.1}, train {:.1}, evaluate {:.1}",
            seconds.harvest, seconds.train, seconds.evaluate,
        ),
    ]
}

/// An interval as `71.0% to 83.0%`.
pub(crate) fn interval(accuracy: Accuracy) -> String {
    format!("{} to {}", percent(accuracy.low), percent(accuracy.high))
}
