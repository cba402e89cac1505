//! The events of a job, on the screen.

use crate::client::jobs::{self, Found};
use crate::client::runs;
use crate::progress::Progress;
use crate::report::{grouped, percent};
use crate::terminal::say;
use domain::event::EventKind;
use domain::ids::DistillationId;
use domain::metric::Accuracy;
use domain::records::{Distillation, HarvestProgress, Run};
use domain::share::{End, Gain, PROBES_MAX, Share};
use domain::state::{DistillationState as State, PromptState, Reason, RunState, Verdict};
use domain::{Split, Timestamp};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Channel, Watched, rfc3339};

/// How often a job that trains without a sign of it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Follows a job on the screen until it ends or pauses, from behind the event `after`. What happened before `since`, in an
/// earlier call, is not shown again.
pub(crate) async fn follow(
    channel: &Channel,
    job: DistillationId,
    after: u64,
    since: Option<Timestamp>,
) -> anyhow::Result<()> {
    let shown = Mutex::new(Shown::default());
    let events = jobs::follow(channel, job, after, |watched| {
        if since.is_none_or(|since| watched.at().is_none_or(|at| at >= since)) {
            screen(&shown).show(watched);
        }
        Ok(())
    });
    tokio::select! {
        ended = events => ended?,
        () = tell_of_waiting(channel, job, &shown) => {}
    }
    shown.into_inner().unwrap_or_else(PoisonError::into_inner).end();
    Ok(())
}

fn screen(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says once that no trainer has come, where none has. Never ends.
async fn tell_of_waiting(channel: &Channel, job: DistillationId, shown: &Mutex<Shown>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !screen(shown).is_without_a_trainer() {
            continue;
        }
        let Ok(Found { job: Distillation { run: Some(run), .. }, .. }) = jobs::get(channel, job).await else {
            continue;
        };
        let Ok(run) = runs::get(channel, run).await else { continue };
        if let Some(waiting) = waiting_for_trainer(&run) {
            say(&format!("training: {waiting}: is one there (`distillery serve --role trainer`), and free?"));
            screen(shown).is_waiting_told = true;
        }
    }
}

/// That no trainer works at a run, and since when; `None` where one does, or it is over.
pub(crate) fn waiting_for_trainer(run: &Run) -> Option<String> {
    match (run.state, run.fence) {
        (RunState::Pending, 0) => Some(format!("waiting for a trainer since {}", rfc3339(run.created_at))),
        (RunState::Pending, _) => Some("waiting for another trainer".to_owned()),
        _ => None,
    }
}

/// What is on the screen.
#[derive(Default)]
struct Shown {
    harvest: Option<Progress>,
    training: Option<Progress>,
    funnel: String,
    validation: Option<f64>,
    is_training: bool,
    is_waiting_told: bool,
}

/// What was spent beside tokens, as far as there is anything to tell.
fn spent(progress: &HarvestProgress) -> String {
    let mut words = String::new();
    if progress.money_micros > 0 {
        words.push_str(&format!(", money {:.4}", progress.money_micros as f64 / 1e6));
        let projected = progress.projected().map_or(0, |projected| projected.money_micros);
        if projected > progress.money_micros {
            words.push_str(&format!(" of {:.4} projected", projected as f64 / 1e6));
        }
    }
    if progress.in_doubt.calls > 0 {
        words.push_str(&format!(", in doubt {}", grouped(progress.in_doubt.calls)));
    }
    words
}

/// What a probe is called.
pub(crate) fn probe_name(share: Share) -> String {
    format!("probe {} of at most {PROBES_MAX}, {}", share.place() + 1, share.words())
}

/// What a probe came to, and what follows.
fn probed(
    share: Share,
    accuracy: Accuracy,
    gain: Option<Gain>,
    next: Option<Share>,
    end: Option<End>,
) -> String {
    let gain = gain.map_or_else(String::new, |gain| {
        format!(" ({:+.1} points, at most {:+.1})", gain.value * 100.0, gain.upper * 100.0)
    });
    let follows = match (next, end) {
        (Some(next), _) => format!("the teacher is asked about {} next", next.rows()),
        (None, Some(end)) => format!("the teacher is asked about no more rows: {}", end.words()),
        (None, None) => "the teacher is asked about no more rows".to_owned(),
    };
    format!("{}: {}{gain}; {follows}", probe_name(share), percent(accuracy.value()))
}

impl Shown {
    /// Whether it trains, and nothing shows that a trainer does.
    fn is_without_a_trainer(&self) -> bool {
        self.is_training && self.training.is_none() && !self.is_waiting_told
    }

    /// Shows one more event.
    fn show(&mut self, watched: Watched) {
        let event = match watched {
            Watched::Event(event) => event.kind,
            Watched::Snapshot { progress, .. } => return self.harvest(&progress),
            Watched::Unknown { .. } => return,
        };
        match event {
            EventKind::StateChanged { to, reason, .. } => self.state(to, &reason),
            EventKind::TrainingProgress { step, steps, metrics, .. } => self.training(step, steps, &metrics),
            EventKind::Evaluated { step, split, accuracy, .. } => self.evaluated(step, &split, accuracy),
            EventKind::TeacherMeasured { accuracy } => {
                say(&format!("teacher on the test rows: {}", percent(accuracy.value())));
            }
            EventKind::Probing { share, .. } => say(&format!("{}: training", probe_name(share))),
            EventKind::Probed { share, accuracy, gain, next, end, .. } => {
                say(&probed(share, accuracy, gain, next, end));
            }
            EventKind::Published { name, version, .. } => say(&format!("published: {name}@{version}")),
        }
    }

    fn state(&mut self, to: State, reason: &str) {
        self.is_training = to == State::Training;
        if !matches!(to, State::Queued | State::Harvesting)
            && let Some(progress) = self.harvest.take()
        {
            progress.finish(&self.funnel);
        }
        if to != State::Training
            && let Some(progress) = self.training.take()
        {
            progress.finish("trained");
        }
        if !reason.is_empty() {
            say(&format!("{to}: {reason}"));
        }
    }

    fn harvest(&mut self, progress: &HarvestProgress) {
        let total = progress.total();
        if total == 0 {
            // Not planned yet, or there are no prompts.
            return;
        }
        let reasons: Vec<String> = Reason::ALL
            .iter()
            .zip(progress.reasons)
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let unanswered: String = [PromptState::Parked, PromptState::Skipped]
            .into_iter()
            .map(|state| (state, progress.in_state(state)))
            .filter(|(_, count)| *count > 0)
            .map(|(state, count)| format!(", {state} {count}"))
            .collect();
        self.funnel = format!(
            "accepted {}, rejected {}{reasons}{unanswered}, tokens {}{}",
            progress.with_verdict(Verdict::Accepted),
            progress.with_verdict(Verdict::Rejected),
            grouped(progress.tokens_in + progress.tokens_out),
            spent(progress),
        );
        let words = match progress.obstacle.is_empty() {
            true => self.funnel.clone(),
            false => format!("{}: waiting: {}", self.funnel, progress.obstacle),
        };
        let bar = self.harvest.get_or_insert_with(|| Progress::start("harvest"));
        bar.update(progress.done(), progress.total_expected(), "prompts", &words);
    }

    fn training(&mut self, step: u64, steps: u64, metrics: &[(String, f64)]) {
        let metric = |wanted: &str| metrics.iter().find(|(name, _)| name == wanted).map(|(_, value)| *value);
        self.validation = metric("validation_accuracy").or(self.validation);
        let mut words = Vec::new();
        for (name, label) in [("loss_label", "label"), ("loss_rationale", "rationale")] {
            if let Some(value) = metric(name) {
                words.push(format!("{label} loss {value:.3}"));
            }
        }
        if let Some(value) = self.validation {
            words.push(format!("validation {}", percent(value)));
        }
        if let Some(value) = metric("examples_per_second") {
            words.push(format!("{value:.0} examples/s"));
        }
        let bar = self.training.get_or_insert_with(|| Progress::start("training"));
        bar.update(step, steps, "steps", &words.join(", "));
    }

    fn evaluated(&mut self, step: u64, split: &str, accuracy: Accuracy) {
        if split == Split::Validation.as_str() {
            self.validation = Some(accuracy.value());
        }
        say(&format!("step {step}: {split} accuracy {}", percent(accuracy.value())));
    }

    /// Ends what is still shown.
    fn end(self) {
        for progress in [self.harvest, self.training].into_iter().flatten() {
            progress.finish("stopped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_says_what_it_came_to_and_what_follows() {
        let accuracy = Accuracy::measure(200, 122, 200);
        let gain = Some(Gain { value: 0.02, upper: 0.0312 });
        let said = probed(Share::Eighth, accuracy, gain, Some(Share::Quarter), None);
        assert_eq!(
            said,
            "probe 2 of at most 4, with rationales for 1/8 of the rows: 61.0% (+2.0 points, at most +3.1); the teacher is \
             asked about 1/4 of the rows next"
        );
        let said = probed(Share::None, accuracy, None, None, Some(End::NoBetter));
        assert!(said.starts_with("probe 1 of at most 4, without rationales: 61.0%; "), "{said}");
        assert!(said.ends_with("no more rows: a student without rationales is not worse"), "{said}");
    }
}
