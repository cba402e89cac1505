//! Jobs: their records, their events and their ledger.
//!
//! The messages about one job do not repeat its id: a reader gives the id that it asked with.

use crate::convert::{Checked, id, optional, present, timestamp, timestamp_of, under};
use crate::enums::Named;
use crate::v1::{self, watch_distillation_response::Event as Message};
use domain::budget::Amount;
use domain::completion::Parsed;
use domain::event::{Event, EventKind};
use domain::ids::DistillationId;
use domain::records::{Distillation, HarvestProgress, LedgerEntry, ParkedPrompt, PhaseSeconds};
use domain::share::Gain;
use domain::state::{DistillationState, PromptState, Purpose, Reason, Verdict};
use domain::{Split, Timestamp, Violation};

/// The state to resume to and the trace context stay with the server: they are empty here.
impl TryFrom<v1::Distillation> for Distillation {
    type Error = Vec<Violation>;

    fn try_from(message: v1::Distillation) -> Checked<Self> {
        let accuracy = message.teacher_accuracy.map(TryInto::try_into).transpose();
        Ok(Self {
            id: id("id", &message.id)?,
            spec: under("spec", present("spec", message.spec)?.try_into())?,
            dataset: id("dataset_id", &message.dataset_id)?,
            state: Named::required("state", message.state)?,
            reason: message.reason,
            resume_state: None,
            created_at: timestamp_of(message.created_at),
            updated_at: timestamp_of(message.updated_at),
            run: optional(&message.run_id).map(|text| id("run_id", text)).transpose()?,
            model: optional(&message.model_id).map(|text| id("model_id", text)).transpose()?,
            teacher_accuracy: under("teacher_accuracy", accuracy)?,
            seconds: PhaseSeconds {
                harvest: message.harvest_seconds,
                train: message.train_seconds,
                evaluate: message.evaluate_seconds,
            },
            traceparent: String::new(),
        })
    }
}

impl From<Distillation> for v1::Distillation {
    fn from(job: Distillation) -> Self {
        Self {
            id: job.id.to_string(),
            spec: Some(job.spec.into()),
            dataset_id: job.dataset.to_string(),
            state: job.state.number(),
            reason: job.reason,
            created_at: Some(timestamp(job.created_at)),
            updated_at: Some(timestamp(job.updated_at)),
            run_id: job.run.map_or_else(String::new, |run| run.to_string()),
            model_id: job.model.map_or_else(String::new, |model| model.to_string()),
            teacher_accuracy: job.teacher_accuracy.map(Into::into),
            harvest_seconds: job.seconds.harvest,
            train_seconds: job.seconds.train,
            evaluate_seconds: job.seconds.evaluate,
        }
    }
}

/// Counts under names that are unknown here are left out.
impl From<v1::HarvestProgress> for HarvestProgress {
    fn from(message: v1::HarvestProgress) -> Self {
        Self {
            prompts: counts_of(PromptState::ALL, &message.prompts),
            verdicts: counts_of(Verdict::ALL, &message.verdicts),
            reasons: counts_of(Reason::ALL, &message.reasons),
            calls: message.calls,
            cache_hits: message.cache_hits,
            calls_paid_twice: message.calls_paid_twice,
            tokens_in: message.tokens_in,
            tokens_out: message.tokens_out,
            money_micros: message.money_micros,
            open: message.open.map(Amount::from).unwrap_or_default(),
            in_doubt: message.in_doubt.map(Amount::from).unwrap_or_default(),
            expected: message.expected,
            obstacle: message.obstacle,
        }
    }
}

impl From<v1::CallAmount> for Amount {
    fn from(message: v1::CallAmount) -> Self {
        Self { calls: message.calls, tokens: message.tokens, money_micros: message.money_micros }
    }
}

impl From<Amount> for v1::CallAmount {
    fn from(amount: Amount) -> Self {
        Self { calls: amount.calls, tokens: amount.tokens, money_micros: amount.money_micros }
    }
}

impl From<HarvestProgress> for v1::HarvestProgress {
    fn from(progress: HarvestProgress) -> Self {
        Self {
            prompts: counts(PromptState::ALL, &progress.prompts),
            verdicts: counts(Verdict::ALL, &progress.verdicts),
            reasons: counts(Reason::ALL, &progress.reasons),
            calls: progress.calls,
            cache_hits: progress.cache_hits,
            calls_paid_twice: progress.calls_paid_twice,
            tokens_in: progress.tokens_in,
            tokens_out: progress.tokens_out,
            money_micros: progress.money_micros,
            open: Some(progress.open.into()),
            in_doubt: Some(progress.in_doubt.into()),
            expected: progress.expected,
            obstacle: progress.obstacle,
        }
    }
}

fn counts_of<T: ToString, const COUNT: usize>(names: &[T], messages: &[v1::NamedCount]) -> [u64; COUNT] {
    let mut counts = [0; COUNT];
    for (name, count) in names.iter().map(ToString::to_string).zip(&mut counts) {
        *count = messages.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.count);
    }
    counts
}

fn counts<T: ToString>(names: &[T], counts: &[u64]) -> Vec<v1::NamedCount> {
    names
        .iter()
        .zip(counts)
        .map(|(name, count)| v1::NamedCount { name: name.to_string(), count: *count })
        .collect()
}

/// What a watcher of a job receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// An event, by whose sequence the watcher can resume.
    Event(Event),
    /// The harvest's numbers between two events; the one at the harvest's end carries its time.
    Snapshot {
        /// When the harvest ended.
        at: Option<Timestamp>,
        /// The numbers.
        progress: HarvestProgress,
    },
    /// An event of a newer server, which this program cannot read.
    Unknown {
        /// Its number.
        sequence: u64,
        /// When it happened.
        at: Timestamp,
    },
}

impl Watched {
    /// Its place among the job's events; 0 for a snapshot, which has none.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Event(event) => event.sequence,
            Self::Unknown { sequence, .. } => *sequence,
            Self::Snapshot { .. } => 0,
        }
    }

    /// When it happened; `None` for a snapshot of a harvest that has not ended.
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::Event(Event { at, .. }) | Self::Unknown { at, .. } => Some(*at),
            Self::Snapshot { at, .. } => *at,
        }
    }
}

impl TryFrom<(DistillationId, v1::WatchDistillationResponse)> for Watched {
    type Error = Vec<Violation>;

    fn try_from((distillation, message): (DistillationId, v1::WatchDistillationResponse)) -> Checked<Self> {
        let (sequence, at) = (message.sequence, timestamp_of(message.at));
        let kind = match message.event {
            None => return Ok(Self::Unknown { sequence, at }),
            Some(Message::HarvestProgress(progress)) => {
                return Ok(Self::Snapshot { at: message.at.map(|_| at), progress: progress.into() });
            }
            Some(Message::StateChanged(change)) => EventKind::StateChanged {
                from: DistillationState::read("from", change.from)?,
                to: Named::required("to", change.to)?,
                reason: change.reason,
            },
            Some(Message::TrainingProgress(progress)) => EventKind::TrainingProgress {
                run: id("run_id", &progress.run_id)?,
                step: progress.step,
                steps: progress.steps,
                metrics: progress.metrics.into_iter().map(|point| (point.name, point.value)).collect(),
            },
            Some(Message::Evaluated(evaluated)) => EventKind::Evaluated {
                run: id("run_id", &evaluated.run_id)?,
                step: evaluated.step,
                split: <Split as Named>::required("split", evaluated.split)?.to_string(),
                accuracy: present("accuracy", evaluated.accuracy)?.try_into()?,
            },
            Some(Message::TeacherMeasured(measured)) => {
                EventKind::TeacherMeasured { accuracy: present("accuracy", measured.accuracy)?.try_into()? }
            }
            Some(Message::Probing(probing)) => EventKind::Probing {
                run: id("run_id", &probing.run_id)?,
                share: Named::required("share", probing.share)?,
            },
            Some(Message::Probed(probed)) => EventKind::Probed {
                run: id("run_id", &probed.run_id)?,
                share: Named::required("share", probed.share)?,
                accuracy: present("accuracy", probed.accuracy)?.try_into()?,
                gain: probed.gain.map(|gain| Gain { value: gain.value, upper: gain.upper }),
                next: Named::read("next", probed.next)?,
                end: Named::read("end", probed.end)?,
            },
            Some(Message::Published(published)) => EventKind::Published {
                model: id("model_id", &published.model_id)?,
                name: published.name,
                version: published.version,
            },
        };
        Ok(Self::Event(Event { distillation, sequence, at, kind }))
    }
}

impl From<Watched> for v1::WatchDistillationResponse {
    fn from(watched: Watched) -> Self {
        let (sequence, at) = (watched.sequence(), watched.at().map(timestamp));
        let event = match watched {
            Watched::Event(event) => Some(event.kind.into()),
            Watched::Snapshot { progress, .. } => Some(Message::HarvestProgress(progress.into())),
            Watched::Unknown { .. } => None,
        };
        Self { sequence, at, event }
    }
}

impl From<EventKind> for Message {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::StateChanged { from, to, reason } => Self::StateChanged(v1::StateChanged {
                from: from.map_or(0, Named::number),
                to: to.number(),
                reason,
            }),
            EventKind::TrainingProgress { run, step, steps, metrics } => {
                let metrics =
                    metrics.into_iter().map(|(name, value)| v1::MetricPoint { step, name, value }).collect();
                Self::TrainingProgress(v1::TrainingProgress { run_id: run.to_string(), step, steps, metrics })
            }
            EventKind::Evaluated { run, step, split, accuracy } => Self::Evaluated(v1::Evaluated {
                run_id: run.to_string(),
                step,
                split: split.parse().map_or(0, Split::number),
                accuracy: Some(accuracy.into()),
            }),
            EventKind::TeacherMeasured { accuracy } => {
                Self::TeacherMeasured(v1::TeacherMeasured { accuracy: Some(accuracy.into()) })
            }
            EventKind::Probing { run, share } => {
                Self::Probing(v1::Probing { run_id: run.to_string(), share: share.number() })
            }
            EventKind::Probed { run, share, accuracy, gain, next, end } => Self::Probed(v1::Probed {
                run_id: run.to_string(),
                share: share.number(),
                accuracy: Some(accuracy.into()),
                gain: gain.map(|gain| v1::ProbeGain { value: gain.value, upper: gain.upper }),
                next: next.map_or(0, Named::number),
                end: end.map_or(0, Named::number),
            }),
            EventKind::Published { model, name, version } => {
                Self::Published(v1::Published { model_id: model.to_string(), name, version })
            }
        }
    }
}

/// An entry of a job's ledger. Why its completion could not be parsed stays with the server: [`LedgerEntry::reason`] says
/// what became of it.
///
/// # Errors
/// An id is not one, or the verdict or the reason is unknown.
pub fn ledger_entry(distillation: DistillationId, message: v1::Rationale) -> Checked<LedgerEntry> {
    Ok(LedgerEntry {
        distillation,
        prompt: id("prompt_id", &message.prompt_id)?,
        row: message.row,
        sample: message.sample,
        hinted: message.hinted,
        purpose: if message.evaluates { Purpose::Evaluate } else { Purpose::Train },
        parsed: Parsed { rationale: message.rationale, label: message.label, reason: None },
        verdict: Named::required("verdict", message.verdict)?,
        reason: Reason::read("reason", message.reason)?,
        weight: message.weight,
        completion: message.completion,
        model: message.model,
    })
}

impl From<LedgerEntry> for v1::Rationale {
    fn from(entry: LedgerEntry) -> Self {
        Self {
            prompt_id: entry.prompt.to_string(),
            row: entry.row,
            sample: entry.sample,
            hinted: entry.hinted,
            evaluates: entry.purpose == Purpose::Evaluate,
            rationale: entry.parsed.rationale,
            label: entry.parsed.label,
            verdict: entry.verdict.number(),
            reason: entry.reason.map_or(0, Named::number),
            weight: entry.weight,
            completion: entry.completion,
            model: entry.model,
        }
    }
}

impl TryFrom<v1::ParkedPrompt> for ParkedPrompt {
    type Error = Vec<Violation>;

    fn try_from(message: v1::ParkedPrompt) -> Checked<Self> {
        Ok(Self {
            id: id("prompt_id", &message.prompt_id)?,
            row: message.row,
            sample: message.sample,
            failures: message.failures,
            error: message.error,
        })
    }
}

impl From<ParkedPrompt> for v1::ParkedPrompt {
    fn from(prompt: ParkedPrompt) -> Self {
        Self {
            prompt_id: prompt.id.to_string(),
            row: prompt.row,
            sample: prompt.sample,
            failures: prompt.failures,
            error: prompt.error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Task;
    use domain::ids::{DatasetId, ModelId, PromptId, RunId};
    use domain::metric::Accuracy;
    use domain::spec::{Draft, JudgingDraft, StudentDraft, TeacherDraft, TrainingDraft};

    const AT: Timestamp = Timestamp(1_700_000_000_123);

    fn accuracy() -> Accuracy {
        Accuracy { rows: 8, correct: 6, parsed: 7, low: 0.5, high: 0.9 }
    }

    #[test]
    fn jobs_survive_the_wire() {
        let draft = Draft {
            name: "job".into(),
            task: Task::built_in("choice").unwrap(),
            teacher: TeacherDraft { profile: Some("local".into()), ..TeacherDraft::default() },
            judging: JudgingDraft::default(),
            student: StudentDraft::default(),
            training: TrainingDraft::default(),
        };
        let spec = draft.resolve().unwrap();
        for (run, model, teacher_accuracy) in
            [(None, None, None), (Some(RunId::generate()), Some(ModelId::generate()), Some(accuracy()))]
        {
            let job = Distillation {
                id: DistillationId::generate(),
                spec: spec.clone(),
                dataset: DatasetId::generate(),
                state: DistillationState::Paused,
                reason: "the key was refused".into(),
                resume_state: None,
                created_at: AT,
                updated_at: Timestamp(AT.0 + 1),
                run,
                model,
                teacher_accuracy,
                seconds: PhaseSeconds { harvest: 1.5, train: 2.5, evaluate: 0.25 },
                traceparent: String::new(),
            };
            assert_eq!(Distillation::try_from(v1::Distillation::from(job.clone())), Ok(job));
        }
        let fields =
            |message: v1::Distillation| Distillation::try_from(message).unwrap_err()[0].field.clone();
        assert_eq!(fields(v1::Distillation::default()), "id");
        assert_eq!(
            fields(v1::Distillation { id: RunId::generate().to_string(), ..Default::default() }),
            "spec"
        );
    }

    #[test]
    fn every_event_survives_the_wire() {
        let job = DistillationId::generate();
        let run = RunId::generate();
        let progress = HarvestProgress {
            prompts: [1, 2, 3, 4, 5],
            verdicts: [6, 7, 8],
            reasons: [9, 10, 11, 12, 13, 14, 15, 16],
            calls: 17,
            cache_hits: 18,
            calls_paid_twice: 19,
            tokens_in: 20,
            tokens_out: 21,
            money_micros: 22,
            open: Amount { calls: 23, tokens: 24, money_micros: 25 },
            in_doubt: Amount { calls: 26, tokens: 27, money_micros: 28 },
            expected: 29,
            obstacle: "teacher `local` cannot be reached".into(),
        };
        let kinds = [
            EventKind::StateChanged { from: None, to: DistillationState::Queued, reason: String::new() },
            EventKind::StateChanged {
                from: Some(DistillationState::Training),
                to: DistillationState::Failed,
                reason: "the loss is NaN".into(),
            },
            EventKind::TrainingProgress {
                run,
                step: 3,
                steps: 9,
                metrics: vec![("loss_label".into(), 0.5), ("loss_rationale".into(), 1.5)],
            },
            EventKind::Evaluated { run, step: 3, split: "validation".into(), accuracy: accuracy() },
            EventKind::Evaluated { run, step: 9, split: "test".into(), accuracy: accuracy() },
            EventKind::TeacherMeasured { accuracy: accuracy() },
            EventKind::Probing { run, share: domain::share::Share::None },
            EventKind::Probed {
                run,
                share: domain::share::Share::Eighth,
                accuracy: accuracy(),
                gain: Some(Gain { value: 0.005, upper: 0.0125 }),
                next: Some(domain::share::Share::Quarter),
                end: None,
            },
            EventKind::Probed {
                run,
                share: domain::share::Share::None,
                accuracy: accuracy(),
                gain: None,
                next: None,
                end: Some(domain::share::End::NoBetter),
            },
            EventKind::Published { model: ModelId::generate(), name: "job".into(), version: 2 },
        ];
        let events = kinds
            .into_iter()
            .zip(1..)
            .map(|(kind, sequence)| Watched::Event(Event { distillation: job, sequence, at: AT, kind }));
        let others = [
            Watched::Snapshot { at: None, progress: progress.clone() },
            Watched::Snapshot { at: Some(AT), progress },
            Watched::Unknown { sequence: 4, at: AT },
        ];
        for watched in events.chain(others) {
            let message = v1::WatchDistillationResponse::from(watched.clone());
            assert_eq!(Watched::try_from((job, message)), Ok(watched));
        }
    }

    #[test]
    fn the_ledger_survives_the_wire() {
        let job = DistillationId::generate();
        for (label, verdict, reason, purpose) in [
            (None, Verdict::Rejected, Some(Reason::NoAnswer), Purpose::Train),
            (Some("(A)".to_owned()), Verdict::Accepted, None, Purpose::Evaluate),
        ] {
            let entry = LedgerEntry {
                distillation: job,
                prompt: PromptId::generate(),
                row: 4,
                sample: 2,
                hinted: true,
                purpose,
                parsed: Parsed { rationale: "Because.".into(), label, reason: None },
                verdict,
                reason,
                weight: 0.5,
                completion: "Because. The answer is (A)".into(),
                model: "teacher-1".into(),
            };
            assert_eq!(ledger_entry(job, v1::Rationale::from(entry.clone())), Ok(entry));
        }
        let unjudged = v1::Rationale { prompt_id: PromptId::generate().to_string(), ..Default::default() };
        assert_eq!(ledger_entry(job, unjudged).unwrap_err()[0].field, "verdict");
        let parked = ParkedPrompt {
            id: PromptId::generate(),
            row: 7,
            sample: 1,
            failures: 5,
            error: "HTTP 500".into(),
        };
        assert_eq!(ParkedPrompt::try_from(v1::ParkedPrompt::from(parked.clone())), Ok(parked));
    }
}
