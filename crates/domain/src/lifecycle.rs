//! The life of a distillation and of its runs: what each call does to them, as pure functions of the records.
//!
//! A caller locks the records, asks here what the call does, applies the answer and appends its events, all in one
//! transaction. Nothing else decides what a job or a run may do next.
//!
//! ```text
//! queued -> harvesting -> training -> evaluating -> succeeded
//!    pause: any of the first four -> paused          resume: -> where it stopped
//!    fail:  training, evaluating  -> failed          resume: -> training
//!    cancel: all but the ends     -> cancelled
//! ```
//!
//! A job moves with its own run, the one that [`Distillation::run`] names; what happens to another run of the same job
//! changes that run alone.

use crate::event::EventKind;
use crate::ids::{DatasetId, DistillationId, RunId};
use crate::records::{Distillation, Model, NewRun, Run};
use crate::run::RunPlan;
use crate::spec::TeacherSource;
use crate::state::{DatasetState, DistillationState, PromptState, RunState};

use DistillationState::{Cancelled, Evaluating, Failed, Harvesting, Paused, Queued, Succeeded, Training};

/// What a call does to a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The state it is in now.
    pub state: DistillationState,
    /// The state that resuming it returns to.
    pub resume_state: Option<DistillationState>,
    /// Why it is paused, failed or cancelled; empty otherwise.
    pub reason: String,
    /// What becomes of its runs; those that change have no reason any more.
    pub runs: Vec<Change<RunState>>,
    /// What becomes of its prompts; the failures of those that change are counted anew.
    pub prompts: Vec<Change<PromptState>>,
    /// What is appended to its events, in order.
    pub events: Vec<EventKind>,
}

/// What becomes of everything that is in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change<State> {
    /// The state that it is in.
    pub from: State,
    /// The state that it gets.
    pub to: State,
}

/// What a call does to a run: its lease ends.
#[derive(Debug, Clone, PartialEq)]
pub struct RunTransition {
    /// The state it is in now.
    pub state: RunState,
    /// Why it failed; empty otherwise.
    pub reason: String,
    /// What is appended to the events of its job, before those of `job`.
    pub events: Vec<EventKind>,
    /// What becomes of its job.
    pub job: Option<Transition>,
}

/// What a trainer has to do after a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunInstruction {
    /// Keep training.
    Continue,
    /// The job was cancelled or deleted: stop within a step.
    Cancel,
}

/// What a publication is to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publication {
    /// The final run: its result and the job's model are still to be written.
    Model,
    /// Any other run: its result alone is still to be written.
    Result,
    /// All is written: the reply to the first call was lost.
    Repeated,
}

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The job's state forbids it.
    #[error("distillation {job} is {state}: it cannot {action}")]
    State {
        /// The job.
        job: DistillationId,
        /// The state it is in.
        state: DistillationState,
        /// What was asked of it.
        action: &'static str,
    },
    /// Its rows are gone.
    #[error("distillation {job} cannot {action}: its dataset {dataset} was deleted")]
    DatasetDeleted {
        /// The job.
        job: DistillationId,
        /// Its dataset.
        dataset: DatasetId,
        /// What was asked of it.
        action: &'static str,
    },
    /// Its rows are not complete yet.
    #[error("dataset {dataset} is not committed yet: finish its upload first")]
    DatasetStaged {
        /// The dataset.
        dataset: DatasetId,
    },
    /// Another trainer holds the run, or none does.
    #[error("run {run} is {state} under fence {fence}: the lease with fence {lost} is lost")]
    LeaseLost {
        /// The run.
        run: RunId,
        /// The state it is in.
        state: RunState,
        /// Its present fence.
        fence: u64,
        /// The caller's.
        lost: u64,
    },
}

/// What a call does to a job; `None` where it is so already and nothing changes.
pub type Decision = Result<Option<Transition>, Conflict>;

/// Accepts a job over a dataset in that state: the event that its life begins with.
///
/// # Errors
/// The dataset is still being uploaded.
pub fn submit(dataset: DatasetId, state: DatasetState) -> Result<EventKind, Conflict> {
    match state {
        DatasetState::Staged => Err(Conflict::DatasetStaged { dataset }),
        DatasetState::Committed => {
            Ok(EventKind::StateChanged { from: None, to: Queued, reason: String::new() })
        }
    }
}

/// Gives a job prompts, to be asked or answered already: a queued job begins to harvest.
///
/// # Errors
/// It is past its harvest, or paused.
pub fn plan(job: &Distillation) -> Decision {
    match job.state {
        Queued => Ok(Some(moved(job, Harvesting, ""))),
        Harvesting => Ok(None),
        Training | Evaluating | Succeeded | Failed | Cancelled | Paused => Err(refused(job, "take prompts")),
    }
}

/// Ends the harvest: the job trains, with a run of its own, which the caller makes where it has none yet.
///
/// # Errors
/// It has no run, and is not harvesting.
pub fn start_training(job: &Distillation) -> Decision {
    match job.state {
        Harvesting => Ok(Some(moved(job, Training, ""))),
        _ if job.run.is_some() => Ok(None),
        Queued | Training | Evaluating | Succeeded | Failed | Cancelled | Paused => {
            Err(refused(job, "start training"))
        }
    }
}

/// Whether a job's ledger can be trained on by a further run: its harvest has ended, so that the ledger stays as it is. A
/// probe over a share of the rows belongs to the harvest itself, which asks about no other rows meanwhile.
///
/// # Errors
/// It was never harvested to the end, or its dataset was deleted; of a probe: it does not harvest.
pub fn create_run(job: &Distillation, plan: &RunPlan, has_dataset: bool) -> Result<(), Conflict> {
    if plan.share.is_some() {
        return if job.state == Harvesting {
            Ok(())
        } else {
            Err(refused(job, "be probed: it does not harvest"))
        };
    }
    if job.run.is_none() {
        return Err(refused(job, "take further runs: its harvest is not over"));
    }
    if !has_dataset {
        let action = "take further runs";
        return Err(Conflict::DatasetDeleted { job: job.id, dataset: job.dataset, action });
    }
    Ok(())
}

/// What a run that was just created appends to the events of its job.
pub fn begun(run: &NewRun) -> Option<EventKind> {
    run.plan.share.map(|share| EventKind::Probing { run: run.id, share })
}

/// Pauses a job; it returns to the present state when it is resumed.
///
/// # Errors
/// It has ended, or is paused already.
pub fn pause(job: &Distillation, reason: &str) -> Decision {
    match job.state {
        Queued | Harvesting | Training | Evaluating => {
            Ok(Some(Transition { resume_state: Some(job.state), ..moved(job, Paused, reason) }))
        }
        Succeeded | Failed | Cancelled | Paused => Err(refused(job, "be paused")),
    }
}

/// Pauses a job at which harvesters were lost, one after the other and without its coming any further; `None` while there were
/// fewer than `lost_max`, or where nobody harvests it any more. What so many died of is likely the job itself.
pub fn lose_harvesters(job: &Distillation, lost: u64, lost_max: u64) -> Option<Transition> {
    if lost < lost_max || !matches!(job.state, Queued | Harvesting) {
        return None;
    }
    let reason = format!(
        "{lost} harvesters in a row were lost while they worked at it, and it came no further: their logs say of what (memory, most \
         often); look at its task and its longest rows; `distillery resume` tries again"
    );
    Some(Transition { resume_state: Some(job.state), ..moved(job, Paused, &reason) })
}

/// Returns a paused or failed job to the state it stopped in; its parked and skipped prompts are pending again, its failed
/// runs too. A job that is running stays as it is.
///
/// # Errors
/// It has succeeded or was cancelled, or its dataset was deleted.
pub fn resume(job: &Distillation, has_dataset: bool) -> Decision {
    match job.state {
        Queued | Harvesting | Training | Evaluating => Ok(None),
        Succeeded | Cancelled => Err(refused(job, "be resumed")),
        Paused | Failed if !has_dataset => {
            Err(Conflict::DatasetDeleted { job: job.id, dataset: job.dataset, action: "be resumed" })
        }
        Paused | Failed => Ok(Some(Transition {
            runs: vec![Change { from: RunState::Failed, to: RunState::Pending }],
            prompts: [PromptState::Parked, PromptState::Skipped]
                .map(|from| Change { from, to: PromptState::Pending })
                .to_vec(),
            ..moved(job, job.resume_state.unwrap_or(Queued), "")
        })),
    }
}

/// Ends a job, and every run of it that has not ended. A cancelled job stays as it is.
///
/// # Errors
/// It has succeeded or failed.
pub fn cancel(job: &Distillation, reason: &str) -> Decision {
    match job.state {
        Queued | Harvesting | Training | Evaluating | Paused => Ok(Some(Transition {
            runs: [RunState::Pending, RunState::Leased]
                .map(|from| Change { from, to: RunState::Cancelled })
                .to_vec(),
            ..moved(job, Cancelled, reason)
        })),
        Cancelled => Ok(None),
        Succeeded | Failed => Err(refused(job, "be cancelled")),
    }
}

/// What forgetting a job's answers does to its prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forgetting {
    /// They are asked again, by this job.
    AskAgain,
    /// Nothing: its ledger stays as it is, and the next job that asks the same asks the teacher.
    Mark,
}

/// Forgets answers of a job: one that harvests, or is paused in its harvest, asks again.
///
/// # Errors
/// Its answers came with the data, so that nobody can be asked for others.
pub fn forget(job: &Distillation) -> Result<Forgetting, Conflict> {
    let source = job.spec.teacher.as_ref().map(|teacher| &teacher.source);
    if !matches!(source, Some(TeacherSource::Profile(_))) {
        return Err(refused(job, "forget answers: it asks no teacher for others"));
    }
    Ok(if harvests(job) { Forgetting::AskAgain } else { Forgetting::Mark })
}

/// Whether a job's parked prompts can be asked again one by one, without resuming the whole of it.
///
/// # Errors
/// It does not harvest, and is not paused in its harvest.
pub fn retry_parked(job: &Distillation) -> Result<(), Conflict> {
    if harvests(job) { Ok(()) } else { Err(refused(job, "ask parked prompts again: it does not harvest")) }
}

/// Whether prompts of a job are asked, now or once it is resumed.
fn harvests(job: &Distillation) -> bool {
    job.state == Harvesting || (job.state == Paused && job.resume_state == Some(Harvesting))
}

/// Whether a job can be deleted.
///
/// # Errors
/// It is running.
pub fn delete(job: &Distillation) -> Result<(), Conflict> {
    match job.state {
        Succeeded | Failed | Cancelled | Paused => Ok(()),
        Queued | Harvesting | Training | Evaluating => Err(refused(job, "be deleted: cancel it first")),
    }
}

/// Checks that a call holds a run's lease: the trainer that leased it last is the one that may write.
///
/// # Errors
/// The lease was lost.
pub fn hold(run: &Run, fence: u64) -> Result<(), Conflict> {
    if run.fence == fence && run.state == RunState::Leased {
        return Ok(());
    }
    Err(Conflict::LeaseLost { run: run.id, state: run.state, fence: run.fence, lost: fence })
}

/// What a trainer that reports has to do; a run that was deleted with its job is `None`.
///
/// # Errors
/// The lease was lost.
pub fn report(run: Option<&Run>, fence: u64) -> Result<RunInstruction, Conflict> {
    match run {
        None => Ok(RunInstruction::Cancel),
        Some(run) if run.fence == fence && run.state == RunState::Cancelled => Ok(RunInstruction::Cancel),
        Some(run) => hold(run, fence).map(|()| RunInstruction::Continue),
    }
}

/// Begins the evaluation of a run: its job is evaluating where it was training.
///
/// # Errors
/// The lease was lost.
pub fn start_evaluating(job: &Distillation, run: &Run, fence: u64) -> Decision {
    hold(run, fence)?;
    Ok((moves_with(job, run) && job.state == Training).then(|| moved(job, Evaluating, "")))
}

/// Whether a run may publish, or has done so.
///
/// # Errors
/// The lease was lost.
pub fn publication(run: &Run, fence: u64) -> Result<Publication, Conflict> {
    if run.fence == fence && run.state == RunState::Succeeded {
        return Ok(Publication::Repeated);
    }
    hold(run, fence)?;
    Ok(if run.plan.purpose.is_final() { Publication::Model } else { Publication::Result })
}

/// Ends a run with its result and, of a final run, the model that was made of it.
pub fn publish(job: &Distillation, run: &Run, model: Option<&Model>) -> RunTransition {
    let published = |model: &Model| EventKind::Published {
        model: model.id,
        name: model.name.clone(),
        version: model.version,
    };
    RunTransition {
        state: RunState::Succeeded,
        reason: String::new(),
        events: model.map(published).into_iter().collect(),
        job: moves_with(job, run).then(|| moved(job, Succeeded, "")),
    }
}

/// Ends a run, and its job with it, without a model. A failed job resumes in training: its evaluation begins anew.
///
/// # Errors
/// The lease was lost.
pub fn fail_run(job: &Distillation, run: &Run, fence: u64, reason: &str) -> Result<RunTransition, Conflict> {
    hold(run, fence)?;
    let stopped = if job.state == Paused { job.resume_state } else { Some(job.state) };
    let resume_state = stopped.map(|state| if state == Evaluating { Training } else { state });
    Ok(RunTransition {
        state: RunState::Failed,
        reason: reason.to_owned(),
        events: Vec::new(),
        job: moves_with(job, run).then(|| Transition { resume_state, ..moved(job, Failed, reason) }),
    })
}

/// Ends a run whose trainers were lost, the lease that was just taken among them; `None` while there were fewer than
/// `lost_max` in a row: what so many died of is likely the run itself. Each step beyond those before begins the count anew.
///
/// # Errors
/// None where the run is leased.
pub fn lose_run(
    job: &Distillation,
    run: &Run,
    lost: u64,
    lost_max: u64,
) -> Result<Option<RunTransition>, Conflict> {
    if lost < lost_max {
        return Ok(None);
    }
    let reason = format!(
        "{lost} trainers in a row were lost while they worked at it, behind step {}: their logs say of what (memory, most often); \
         `distillery resume` tries again",
        run.step
    );
    fail_run(job, run, run.fence, &reason).map(Some)
}

/// Hands a run's lease back: it waits for a trainer again.
///
/// # Errors
/// The lease was lost.
pub fn release_run(run: &Run, fence: u64) -> Result<RunTransition, Conflict> {
    hold(run, fence)?;
    Ok(RunTransition { state: RunState::Pending, reason: String::new(), events: Vec::new(), job: None })
}

/// Whether the job moves with this run: it is its own, and the job has not ended.
fn moves_with(job: &Distillation, run: &Run) -> bool {
    job.run == Some(run.id) && !job.state.is_terminal()
}

/// A move with its event and nothing else.
fn moved(job: &Distillation, to: DistillationState, reason: &str) -> Transition {
    Transition {
        state: to,
        resume_state: None,
        reason: reason.to_owned(),
        runs: Vec::new(),
        prompts: Vec::new(),
        events: vec![EventKind::StateChanged { from: Some(job.state), to, reason: reason.to_owned() }],
    }
}

fn refused(job: &Distillation, action: &'static str) -> Conflict {
    Conflict::State { job: job.id, state: job.state, action }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelId;
    use crate::records::PhaseSeconds;
    use crate::run::RunPurpose;
    use crate::share::Share;
    use crate::spec::{Draft, JudgingDraft, StudentDraft, TeacherDraft, TrainingDraft};
    use crate::{Task, Timestamp};

    const WHY: &str = "out of quota";
    const FENCE: u64 = 3;

    /// A job in that state with a run of its own; a paused one stopped in its evaluation.
    fn job(state: DistillationState) -> Distillation {
        let draft = Draft {
            name: "job".into(),
            task: Task::built_in("equation").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        };
        Distillation {
            id: DistillationId::generate(),
            spec: draft.resolve().unwrap(),
            dataset: DatasetId::generate(),
            state,
            reason: String::new(),
            resume_state: match state {
                Paused => Some(Evaluating),
                Failed => Some(Training),
                _ => None,
            },
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            run: Some(RunId::generate()),
            model: None,
            teacher_accuracy: None,
            seconds: PhaseSeconds::default(),
            traceparent: String::new(),
        }
    }

    /// The job's final run where it has that id, else a probe.
    fn run(job: &Distillation, id: RunId, state: RunState) -> Run {
        let purpose = if job.run == Some(id) { RunPurpose::Final } else { RunPurpose::Probe };
        Run {
            id,
            distillation: job.id,
            state,
            fence: FENCE,
            trainer: String::new(),
            step: 0,
            resume_path: String::new(),
            reason: String::new(),
            created_at: Timestamp(1),
            plan: RunPlan { purpose, ..RunPlan::of_job(&job.spec) },
            ledger_fingerprint: String::new(),
            result: None,
        }
    }

    fn model(job: &Distillation, run: &Run) -> Model {
        Model {
            id: ModelId::generate(),
            name: "job".into(),
            version: 7,
            distillation: job.id,
            run: run.id,
            path: String::new(),
            manifest_sha256: String::new(),
            parameters: 1,
            validation: None,
            test: None,
            created_at: Timestamp(1),
            traceparent: String::new(),
        }
    }

    /// What a verb does to a job.
    #[derive(Debug, Clone, Copy)]
    enum Does {
        /// It moves there, and would resume in the second state.
        Move(DistillationState, Option<DistillationState>),
        Nothing,
        Refuse,
    }
    use Does::{Move, Nothing, Refuse};

    /// The verb over every state, in the order of `DistillationState::ALL`.
    type Row = [Does; 8];

    #[track_caller]
    fn check(verb: &str, decide: impl Fn(&Distillation) -> Decision, reason: &str, row: Row) {
        for (state, does) in DistillationState::ALL.iter().zip(row) {
            let job = job(*state);
            match (does, decide(&job)) {
                (Move(to, resume_state), Ok(Some(done))) => {
                    let event = EventKind::StateChanged { from: Some(*state), to, reason: reason.to_owned() };
                    assert_eq!((done.state, done.resume_state), (to, resume_state), "{verb} {state}");
                    assert_eq!((done.reason.as_str(), done.events), (reason, vec![event]), "{verb} {state}");
                }
                (Nothing, Ok(None)) => {}
                (Refuse, Err(conflict)) => {
                    let words = conflict.to_string();
                    assert!(words.contains(state.as_str()), "{verb} {state} names the state: {words}");
                    assert!(words.contains(&job.id.to_string()), "{verb} {state} names the job: {words}");
                }
                (does, decided) => panic!("{verb} {state}: expected {does:?}, got {decided:?}"),
            }
        }
    }

    // A row of a table is in the order of the states: queued, harvesting, training, evaluating, succeeded, failed,
    // cancelled, paused.

    #[test]
    fn every_verb_of_a_job_in_every_state() {
        let to_harvesting = Move(Harvesting, None);
        check("plan", plan, "", [to_harvesting, Nothing, Refuse, Refuse, Refuse, Refuse, Refuse, Refuse]);
        let without_run = |job: &Distillation| start_training(&Distillation { run: None, ..job.clone() });
        let to_training = Move(Training, None);
        check(
            "train without a run",
            without_run,
            "",
            [Refuse, to_training, Refuse, Refuse, Refuse, Refuse, Refuse, Refuse],
        );
        check(
            "train again",
            start_training,
            "",
            [Nothing, to_training, Nothing, Nothing, Nothing, Nothing, Nothing, Nothing],
        );
        let pauses = |state| Move(Paused, Some(state));
        check(
            "pause",
            |job| pause(job, WHY),
            WHY,
            [
                pauses(Queued),
                pauses(Harvesting),
                pauses(Training),
                pauses(Evaluating),
                Refuse,
                Refuse,
                Refuse,
                Refuse,
            ],
        );
        check(
            "resume",
            |job| resume(job, true),
            "",
            [
                Nothing,
                Nothing,
                Nothing,
                Nothing,
                Refuse,
                Move(Training, None),
                Refuse,
                Move(Evaluating, None),
            ],
        );
        let ends = Move(Cancelled, None);
        check("cancel", |job| cancel(job, WHY), WHY, [ends, ends, ends, ends, Refuse, Refuse, Nothing, ends]);
        let deletes = |job: &Distillation| delete(job).map(|()| None);
        check("delete", deletes, "", [Refuse, Refuse, Refuse, Refuse, Nothing, Nothing, Nothing, Nothing]);
    }

    #[test]
    fn every_verb_of_a_final_run_in_every_state_of_its_job() {
        let evaluates = |job: &Distillation| {
            let run = run(job, job.run.unwrap(), RunState::Leased);
            start_evaluating(job, &run, FENCE)
        };
        check(
            "evaluate",
            evaluates,
            "",
            [Nothing, Nothing, Move(Evaluating, None), Nothing, Nothing, Nothing, Nothing, Nothing],
        );
        let publishes = |job: &Distillation| {
            let run = run(job, job.run.unwrap(), RunState::Leased);
            Ok(publish(job, &run, Some(&model(job, &run))).job)
        };
        let succeeds = Move(Succeeded, None);
        check(
            "publish",
            publishes,
            "",
            [succeeds, succeeds, succeeds, succeeds, Nothing, Nothing, Nothing, succeeds],
        );
        let fails = |job: &Distillation| {
            let run = run(job, job.run.unwrap(), RunState::Leased);
            fail_run(job, &run, FENCE, WHY).map(|failed| failed.job)
        };
        let fails_in = |state| Move(Failed, Some(state));
        check(
            "fail",
            fails,
            WHY,
            [
                fails_in(Queued),
                fails_in(Harvesting),
                fails_in(Training),
                fails_in(Training),
                Nothing,
                Nothing,
                Nothing,
                fails_in(Training),
            ],
        );
    }

    #[test]
    fn resuming_retries_prompts_and_runs_and_needs_the_rows() {
        for state in [Paused, Failed] {
            let done = resume(&job(state), true).unwrap().unwrap();
            let pending = |from| Change { from, to: PromptState::Pending };
            assert_eq!(done.prompts, [pending(PromptState::Parked), pending(PromptState::Skipped)]);
            assert_eq!(done.runs, [Change { from: RunState::Failed, to: RunState::Pending }]);
            let job = job(state);
            let gone = Conflict::DatasetDeleted { job: job.id, dataset: job.dataset, action: "be resumed" };
            assert_eq!(resume(&job, false), Err(gone), "{state}");
        }
        assert_eq!(resume(&job(Training), false), Ok(None), "a running job is not resumed");
        let fresh = Distillation { resume_state: None, ..job(Paused) };
        assert_eq!(resume(&fresh, true).unwrap().unwrap().state, Queued);
    }

    #[test]
    fn a_job_that_loses_harvesters_pauses_where_it_is_harvested() {
        for state in DistillationState::ALL {
            let paused = lose_harvesters(&job(*state), 3, 3);
            assert_eq!(paused.is_some(), matches!(state, Queued | Harvesting), "{state}");
            if let Some(paused) = paused {
                assert_eq!((paused.state, paused.resume_state), (Paused, Some(*state)));
                assert!(paused.reason.starts_with("3 harvesters in a row"), "{}", paused.reason);
            }
            assert_eq!(lose_harvesters(&job(*state), 2, 3), None, "{state}: fewer");
        }
    }

    #[test]
    fn a_ledger_takes_further_runs_once_its_harvest_is_over() {
        for state in DistillationState::ALL {
            let trained = job(*state);
            let plan = RunPlan { purpose: RunPurpose::Probe, ..RunPlan::of_job(&trained.spec) };
            let create_run = |job: &Distillation, has_dataset| create_run(job, &plan, has_dataset);
            assert_eq!(create_run(&trained, true), Ok(()), "{state}");
            let gone = create_run(&trained, false).unwrap_err().to_string();
            assert!(gone.contains("cannot take further runs") && gone.contains("was deleted"), "{gone}");
            let words = create_run(&Distillation { run: None, ..trained }, true).unwrap_err().to_string();
            assert!(words.contains("its harvest is not over"), "{words}");
        }
    }

    #[test]
    fn a_harvest_takes_probes_and_says_so() {
        for state in DistillationState::ALL {
            let job = Distillation { run: None, ..job(*state) };
            let plan = RunPlan::probe(&job.spec, Share::Eighth);
            assert_eq!(create_run(&job, &plan, true).is_ok(), *state == Harvesting, "{state}");
        }
        let job = job(Harvesting);
        let new = |plan| NewRun {
            id: RunId::generate(),
            request: crate::ids::RequestId::generate(),
            distillation: job.id,
            plan,
            ledger_fingerprint: String::new(),
        };
        let probe = new(RunPlan::probe(&job.spec, Share::Eighth));
        assert_eq!(begun(&probe), Some(EventKind::Probing { run: probe.id, share: Share::Eighth }));
        assert_eq!(begun(&new(RunPlan { purpose: RunPurpose::Probe, ..RunPlan::of_job(&job.spec) })), None);
    }

    #[test]
    fn what_is_forgotten_is_asked_again_while_its_job_harvests() {
        for state in DistillationState::ALL {
            let harvests = *state == Harvesting;
            check_forgetting(&job(*state), harvests);
        }
        for resume_state in [None, Some(Queued), Some(Harvesting), Some(Training), Some(Evaluating)] {
            let paused = Distillation { resume_state, ..job(Paused) };
            check_forgetting(&paused, resume_state == Some(Harvesting));
        }
        let mut imported = job(Harvesting);
        imported.spec.teacher.as_mut().unwrap().source = TeacherSource::Imported;
        let words = forget(&imported).unwrap_err().to_string();
        assert!(words.contains("it asks no teacher for others"), "{words}");
        imported.spec.teacher = None;
        assert!(forget(&imported).is_err());
    }

    fn check_forgetting(job: &Distillation, harvests: bool) {
        let expected = if harvests { Forgetting::AskAgain } else { Forgetting::Mark };
        assert_eq!(forget(job), Ok(expected), "{:?}", job.state);
        assert_eq!(retry_parked(job).is_ok(), harvests, "{:?}", job.state);
    }

    #[test]
    fn cancelling_ends_what_has_not_ended() {
        let runs = cancel(&job(Training), WHY).unwrap().unwrap().runs;
        let cancelled = |from| Change { from, to: RunState::Cancelled };
        assert_eq!(runs, [cancelled(RunState::Pending), cancelled(RunState::Leased)]);
    }

    #[test]
    fn a_job_is_accepted_over_a_committed_dataset() {
        let dataset = DatasetId::generate();
        let queued = EventKind::StateChanged { from: None, to: Queued, reason: String::new() };
        assert_eq!(submit(dataset, DatasetState::Committed), Ok(queued));
        assert_eq!(submit(dataset, DatasetState::Staged), Err(Conflict::DatasetStaged { dataset }));
    }

    #[test]
    fn only_the_holder_of_a_lease_writes() {
        let job = job(Training);
        for state in RunState::ALL {
            for fence in [FENCE - 1, FENCE, FENCE + 1] {
                let run = run(&job, RunId::generate(), *state);
                let holds = fence == FENCE && *state == RunState::Leased;
                let lost = Conflict::LeaseLost { run: run.id, state: *state, fence: FENCE, lost: fence };
                let expected = if holds { Ok(()) } else { Err(lost.clone()) };
                assert_eq!(hold(&run, fence), expected, "{state} {fence}");
                assert_eq!(start_evaluating(&job, &run, fence).map(drop), expected, "{state} {fence}");
                assert_eq!(fail_run(&job, &run, fence, "").map(drop), expected, "{state} {fence}");
                assert_eq!(release_run(&run, fence).map(drop), expected, "{state} {fence}");
                let repeated = fence == FENCE && *state == RunState::Succeeded;
                let expected = match (holds, repeated) {
                    (true, _) => Ok(Publication::Result),
                    (_, true) => Ok(Publication::Repeated),
                    _ => Err(lost.clone()),
                };
                assert_eq!(publication(&run, fence), expected, "{state} {fence}");
                let cancelled = fence == FENCE && *state == RunState::Cancelled;
                let expected = match (holds, cancelled) {
                    (true, _) => Ok(RunInstruction::Continue),
                    (_, true) => Ok(RunInstruction::Cancel),
                    _ => Err(lost),
                };
                assert_eq!(report(Some(&run), fence), expected, "{state} {fence}");
            }
        }
        let own = run(&job, job.run.unwrap(), RunState::Leased);
        assert_eq!(publication(&own, FENCE), Ok(Publication::Model), "the final run makes a model");
        assert_eq!(report(None, FENCE), Ok(RunInstruction::Cancel), "it was deleted with its job");
    }

    #[test]
    fn a_run_ends_with_its_events_and_only_its_own_job() {
        let job = job(Evaluating);
        for (id, own) in [(job.run.unwrap(), true), (RunId::generate(), false)] {
            let run = run(&job, id, RunState::Leased);
            let model = model(&job, &run);
            let done = publish(&job, &run, own.then_some(&model));
            let event = EventKind::Published { model: model.id, name: "job".into(), version: 7 };
            assert_eq!(
                (done.state, done.events, done.job.is_some()),
                (RunState::Succeeded, if own { vec![event] } else { Vec::new() }, own)
            );
            let failed = fail_run(&job, &run, FENCE, WHY).unwrap();
            assert_eq!((failed.state, failed.reason.as_str()), (RunState::Failed, WHY));
            assert_eq!((failed.events, failed.job.is_some()), (Vec::new(), own));
            let released = release_run(&run, FENCE).unwrap();
            assert_eq!((released.state, released.reason.as_str()), (RunState::Pending, ""));
            assert_eq!((released.events, released.job), (Vec::new(), None));
        }
        let mut training = job.clone();
        training.state = Training;
        let other = run(&training, RunId::generate(), RunState::Leased);
        assert_eq!(
            start_evaluating(&training, &other, FENCE),
            Ok(None),
            "another run's evaluation moves no job"
        );
    }
}
