//! Runs: what they do, what they came to, and what a trainer reads.

use crate::convert::{Checked, duration, id, present, timestamp, timestamp_of, under};
use crate::enums::Named;
use crate::spec::Section;
use crate::v1;
use domain::Violation;
use domain::metric::Accuracy;
use domain::objective::{AcceptedRationale, TrainingExample};
use domain::records::{LeasedRun, Run};
use domain::run::{Outcomes, RunDraft, RunOutcomes, RunPlan, RunPurpose, RunResult};
use domain::spec::{JudgingDraft, StudentDraft, TrainingDraft};

/// A plan as a caller wrote it: what is absent is left to the job's specification.
impl TryFrom<v1::RunPlan> for RunDraft {
    type Error = Vec<Violation>;

    fn try_from(message: v1::RunPlan) -> Checked<Self> {
        let (draft, found) = run_draft(message);
        if found.is_empty() { Ok(draft) } else { Err(found) }
    }
}

/// What can be read of a plan, and every mistake in the rest.
pub fn run_draft(message: v1::RunPlan) -> (RunDraft, Vec<Violation>) {
    let mut found = Vec::new();
    let mut keep = |violations: Vec<Violation>| found.extend(violations);
    let purpose = purpose(&message).map_err(&mut keep).unwrap_or(RunPurpose::Probe);
    let share = Named::read("share", message.share).map_err(&mut keep).unwrap_or_default();
    let v1::RunRows { fraction, seed } = message.rows.unwrap_or_default();
    let draft = RunDraft {
        purpose,
        fraction,
        seed,
        share,
        judging: Section::read(message.judging.unwrap_or_default(), &mut found),
        student: Section::read(message.student.unwrap_or_default(), &mut found),
        training: Section::read(message.training.unwrap_or_default(), &mut found),
    };
    (draft, found)
}

fn purpose(message: &v1::RunPlan) -> Checked<RunPurpose> {
    let name = match v1::RunPurpose::try_from(message.purpose) {
        Ok(v1::RunPurpose::Final) => "final",
        Ok(v1::RunPurpose::Probe | v1::RunPurpose::Unspecified) => "probe",
        Ok(v1::RunPurpose::Cell) => "cell",
        Err(_) => {
            let words =
                format!("has the unknown value {}: is the client newer than this server?", message.purpose);
            return Err(vec![Violation::new("purpose", words)]);
        }
    };
    RunPurpose::read(name, &message.study, &message.cell).map_err(|violation| vec![violation])
}

impl From<RunPlan> for v1::RunPlan {
    fn from(plan: RunPlan) -> Self {
        let purpose = match plan.purpose {
            RunPurpose::Final => v1::RunPurpose::Final,
            RunPurpose::Probe => v1::RunPurpose::Probe,
            RunPurpose::Cell { .. } => v1::RunPurpose::Cell,
        };
        let (study, cell) = plan.purpose.study_and_cell();
        Self {
            purpose: purpose.into(),
            study: study.to_owned(),
            cell: cell.to_owned(),
            rows: Some(v1::RunRows { fraction: Some(plan.rows.fraction()), seed: Some(plan.rows.seed) }),
            judging: Some(JudgingDraft::from(plan.judging).into()),
            student: Some(StudentDraft::from(plan.start).into()),
            training: Some(TrainingDraft::from(plan.training).into()),
            share: plan.share.map_or(0, Named::number),
        }
    }
}

impl TryFrom<v1::RunOutcomes> for RunOutcomes {
    type Error = Vec<Violation>;

    fn try_from(message: v1::RunOutcomes) -> Checked<Self> {
        let v1::RunOutcomes { validation_right: right, validation_wrong: wrong, needed } = message;
        let most = Self::ROWS_MAX;
        if right.len() + wrong.len() > most || needed.len() > most {
            return Err(vec![Violation::new("validation", format!("names more than {most} rows of a kind"))]);
        }
        Ok(Self { validation: Outcomes { right, wrong }, needed })
    }
}

impl From<RunOutcomes> for v1::RunOutcomes {
    fn from(outcomes: RunOutcomes) -> Self {
        let Outcomes { right, wrong } = outcomes.validation;
        Self { validation_right: right, validation_wrong: wrong, needed: outcomes.needed }
    }
}

impl TryFrom<v1::RunResult> for RunResult {
    type Error = Vec<Violation>;

    fn try_from(message: v1::RunResult) -> Checked<Self> {
        let accuracy = |field: &str, accuracy: Option<v1::Accuracy>| {
            accuracy.map(|accuracy| under(field, Accuracy::try_from(accuracy))).transpose()
        };
        Ok(Self {
            path: message.path,
            manifest_sha256: message.manifest_sha256,
            parameters: message.parameters,
            validation: accuracy("validation", message.validation)?,
            test: accuracy("test", message.test)?,
            train_seconds: message.train_seconds,
            evaluate_seconds: message.evaluate_seconds,
        })
    }
}

impl From<RunResult> for v1::RunResult {
    fn from(result: RunResult) -> Self {
        Self {
            path: result.path,
            manifest_sha256: result.manifest_sha256,
            parameters: result.parameters,
            validation: result.validation.map(Into::into),
            test: result.test.map(Into::into),
            train_seconds: result.train_seconds,
            evaluate_seconds: result.evaluate_seconds,
        }
    }
}

impl TryFrom<v1::Run> for Run {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Run) -> Checked<Self> {
        let draft: RunDraft = under("plan", present("plan", message.plan)?.try_into())?;
        Ok(Self {
            id: id("id", &message.id)?,
            distillation: id("distillation_id", &message.distillation_id)?,
            state: Named::required("state", message.state)?,
            fence: message.fence,
            trainer: message.trainer,
            step: message.step,
            resume_path: message.resume_path,
            reason: message.reason,
            created_at: timestamp_of(message.created_at),
            plan: under("plan", draft.complete())?,
            ledger_fingerprint: message.ledger_fingerprint,
            result: message.result.map(|result| under("result", result.try_into())).transpose()?,
        })
    }
}

impl From<Run> for v1::Run {
    fn from(run: Run) -> Self {
        Self {
            id: run.id.to_string(),
            distillation_id: run.distillation.to_string(),
            state: run.state.number(),
            fence: run.fence,
            trainer: run.trainer,
            step: run.step,
            resume_path: run.resume_path,
            reason: run.reason,
            created_at: Some(timestamp(run.created_at)),
            plan: Some(run.plan.into()),
            ledger_fingerprint: run.ledger_fingerprint,
            result: run.result.map(Into::into),
        }
    }
}

impl TryFrom<v1::LeasedRun> for LeasedRun {
    type Error = Vec<Violation>;

    fn try_from(message: v1::LeasedRun) -> Checked<Self> {
        Ok(Self {
            run: under("run", present("run", message.run)?.try_into())?,
            spec: under("spec", present("spec", message.spec)?.try_into())?,
            dataset: under("dataset", present("dataset", message.dataset)?.try_into())?,
            traceparent: message.traceparent,
        })
    }
}

impl From<LeasedRun> for v1::LeasedRun {
    fn from(leased: LeasedRun) -> Self {
        Self {
            run: Some(leased.run.into()),
            spec: Some(leased.spec.into()),
            dataset: Some(leased.dataset.into()),
            traceparent: leased.traceparent,
        }
    }
}

impl TryFrom<v1::TrainingExample> for TrainingExample {
    type Error = Vec<Violation>;

    fn try_from(message: v1::TrainingExample) -> Checked<Self> {
        Ok(Self {
            row: under("row", present("row", message.row)?.try_into())?,
            target: message.target,
            rationales: message.rationales.into_iter().map(Into::into).collect(),
        })
    }
}

impl From<TrainingExample> for v1::TrainingExample {
    fn from(example: TrainingExample) -> Self {
        let rationales = example.rationales.into_iter().map(Into::into).collect();
        Self { row: Some(example.row.into()), target: example.target, rationales }
    }
}

impl From<v1::AcceptedRationale> for AcceptedRationale {
    fn from(message: v1::AcceptedRationale) -> Self {
        let v1::AcceptedRationale { text, label, weight, sample } = message;
        Self { sample, text, label, weight }
    }
}

impl From<AcceptedRationale> for v1::AcceptedRationale {
    fn from(rationale: AcceptedRationale) -> Self {
        let AcceptedRationale { sample, text, label, weight } = rationale;
        Self { text, label, weight, sample }
    }
}

/// A trainer's request for a run.
pub fn lease_request(trainer: &str, lease: std::time::Duration) -> v1::LeaseRunRequest {
    v1::LeaseRunRequest { trainer: trainer.to_owned(), lease: Some(duration(lease)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::ids::{DistillationId, RunId};
    use domain::spec::{Judging, LabelSource, Spec, Start, StudentSize};
    use domain::state::RunState;
    use domain::subset::Subset;
    use domain::{Task, Timestamp};

    fn spec(student: v1::StudentSpec) -> Spec {
        let message = v1::DistillationSpec {
            name: "job".into(),
            task_source: Some(v1::distillation_spec::TaskSource::Task(
                Task::built_in("choice").unwrap().into(),
            )),
            teacher: Some(v1::TeacherSpec { profile: "local".into(), ..Default::default() }),
            student: Some(student),
            ..Default::default()
        };
        message.try_into().unwrap()
    }

    fn run(plan: RunPlan, result: Option<RunResult>) -> Run {
        Run {
            id: RunId::generate(),
            distillation: DistillationId::generate(),
            state: RunState::Succeeded,
            fence: 2,
            trainer: "trainer".into(),
            step: 7,
            resume_path: "resume".into(),
            reason: String::new(),
            created_at: Timestamp(1_000),
            plan,
            ledger_fingerprint: "5a".into(),
            result,
        }
    }

    #[test]
    fn runs_survive_the_wire() {
        let scratch = v1::StudentSpec { size: v1::StudentSize::Tiny.into(), ..Default::default() };
        let base = v1::StudentSpec { base: "t5".into(), ..Default::default() };
        let result = RunResult {
            path: "runs/a".into(),
            manifest_sha256: "00".into(),
            parameters: 12,
            validation: None,
            test: Some(Accuracy::measure(40, 29, 38)),
            train_seconds: 1.5,
            evaluate_seconds: 0.25,
        };
        let cell = RunPurpose::Cell { study: "curve".into(), cell: "rows-0.25".into() };
        for (purpose, student, result) in [
            (RunPurpose::Final, scratch.clone(), None),
            (RunPurpose::Probe, base, Some(result.clone())),
            (cell, scratch, Some(result)),
        ] {
            let mut plan = RunPlan::new(purpose, Subset::new(0.25, u64::MAX).unwrap(), &spec(student));
            plan.judging = Judging {
                label: LabelSource::Teacher,
                agree: false,
                hint: domain::spec::Hint::After,
                vote: true,
                vote_confidence: 0.9,
            };
            (plan.training.dropout, plan.training.patience) = (Some(0.25), 3);
            plan.share = Some(domain::share::Share::Quarter);
            let run = run(plan, result);
            assert_eq!(Run::try_from(v1::Run::from(run.clone())), Ok(run));
        }
    }

    #[test]
    fn outcomes_survive_the_wire_and_are_bounded() {
        let outcomes =
            RunOutcomes { validation: Outcomes { right: vec![1, 7], wrong: vec![3] }, needed: vec![9] };
        assert_eq!(RunOutcomes::try_from(v1::RunOutcomes::from(outcomes.clone())), Ok(outcomes));
        let many = v1::RunOutcomes { needed: vec![0; RunOutcomes::ROWS_MAX + 1], ..Default::default() };
        assert!(RunOutcomes::try_from(many).is_err());
    }

    #[test]
    fn a_plan_without_a_word_is_a_probe_like_its_job() {
        let job = spec(v1::StudentSpec::default());
        let plan = RunDraft::try_from(v1::RunPlan::default()).unwrap().resolve(&job).unwrap();
        assert_eq!(plan, RunPlan { purpose: RunPurpose::Probe, ..RunPlan::of_job(&job) });
        assert_eq!(plan.start, Start::Scratch { size: StudentSize::Mini, vocabulary: 2048 });
    }

    #[test]
    fn every_mistake_of_a_plan_is_named() {
        let message = v1::RunPlan {
            purpose: 99,
            training: Some(v1::TrainingSpec { schedule: 99, ..Default::default() }),
            ..Default::default()
        };
        let fields: Vec<String> =
            RunDraft::try_from(message).unwrap_err().into_iter().map(|violation| violation.field).collect();
        assert_eq!(fields, ["purpose", "training.schedule"]);
    }
}
