//! A job as it is watched: followed over lost connections, and shown on the screen.

use crate::client::{Patience, failure};
use crate::progress::{Progress, say};
use crate::report::{grouped, percent};
use domain::metric::Accuracy;
use wire::Channel;
use wire::v1::distillations_service_client::DistillationsServiceClient;
use wire::v1::watch_distillation_response::Event;
use wire::v1::{self, DistillationState as State, WatchDistillationResponse as Message};

/// Follows a job to where it rests, ended or paused. After a lost connection it goes on behind the last event it saw.
pub(crate) async fn follow(
    channel: &Channel,
    id: &str,
    mut after: u64,
    mut see: impl FnMut(Message) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client = DistillationsServiceClient::new(channel.clone());
    let mut patience = Patience::default();
    loop {
        let request = v1::WatchDistillationRequest { distillation_id: id.to_owned(), after_sequence: after };
        let lost = match client.watch_distillation(request).await {
            Ok(answer) => {
                let mut events = answer.into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(message)) => {
                            patience.restored();
                            // Snapshots have no number of their own.
                            after = after.max(message.sequence);
                            see(message)?;
                        }
                        Ok(None) => return Ok(()),
                        Err(status) => break status,
                    }
                }
            }
            Err(status) => status,
        };
        patience.wait(lost).await.map_err(failure)?;
    }
}

/// What is on the screen.
#[derive(Default)]
pub(crate) struct Shown {
    harvest: Option<Progress>,
    training: Option<Progress>,
    funnel: String,
    validation: Option<f64>,
}

impl Shown {
    /// One more event.
    pub(crate) fn event(&mut self, event: Event) {
        match event {
            Event::StateChanged(change) => self.state(&change),
            Event::HarvestProgress(progress) => self.harvest(&progress),
            Event::TrainingProgress(progress) => self.training(&progress),
            Event::Evaluated(evaluated) => self.evaluated(&evaluated),
            Event::TeacherMeasured(measured) => {
                if let Some(accuracy) =
                    measured.accuracy.and_then(|accuracy| Accuracy::try_from(accuracy).ok())
                {
                    say(&format!("teacher on the test rows: {}", percent(accuracy.value())));
                }
            }
            Event::Published(published) => {
                say(&format!("published: {}@{}", published.name, published.version));
            }
        }
    }

    fn state(&mut self, change: &v1::StateChanged) {
        let to = change.to();
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
        if !change.reason.is_empty() {
            say(&format!("{}: {}", state_name(to), change.reason));
        }
    }

    fn harvest(&mut self, progress: &v1::HarvestProgress) {
        let total: u64 = progress.prompts.iter().map(|entry| entry.count).sum();
        if total == 0 {
            // Not planned yet, or nothing is asked at all.
            return;
        }
        let done: u64 =
            ["answered", "parked", "skipped"].iter().map(|name| counted(&progress.prompts, name)).sum();
        let reasons: Vec<String> = progress
            .reasons
            .iter()
            .filter(|entry| entry.count > 0)
            .map(|entry| format!("{} {}", entry.name, entry.count))
            .collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        let unanswered: String = ["parked", "skipped"]
            .iter()
            .map(|name| (name, counted(&progress.prompts, name)))
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!(", {name} {count}"))
            .collect();
        self.funnel = format!(
            "accepted {}, rejected {}{reasons}{unanswered}, tokens {}",
            counted(&progress.verdicts, "accepted"),
            counted(&progress.verdicts, "rejected"),
            grouped(progress.tokens_in + progress.tokens_out),
        );
        let bar = self.harvest.get_or_insert_with(|| Progress::start("harvest"));
        bar.update(done, total, "prompts", &self.funnel);
    }

    fn training(&mut self, progress: &v1::TrainingProgress) {
        let metric =
            |name: &str| progress.metrics.iter().find(|point| point.name == name).map(|point| point.value);
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
        bar.update(progress.step, progress.steps, "steps", &words.join(", "));
    }

    fn evaluated(&mut self, evaluated: &v1::Evaluated) {
        let Some(accuracy) = evaluated.accuracy.and_then(|accuracy| Accuracy::try_from(accuracy).ok()) else {
            return;
        };
        let split = evaluated.split();
        if split == v1::Split::Validation {
            self.validation = Some(accuracy.value());
        }
        let name = if split == v1::Split::Test { "test" } else { "validation" };
        let line = format!("step {}: {name} accuracy {}", evaluated.step, percent(accuracy.value()));
        match &self.training {
            Some(progress) => progress.say(&line),
            None => say(&line),
        }
    }

    /// Nothing more comes.
    pub(crate) fn end(self) {
        for progress in [self.harvest, self.training].into_iter().flatten() {
            progress.finish("stopped");
        }
    }
}

/// The count of that name; 0 where there is none.
pub(crate) fn counted(counts: &[v1::NamedCount], name: &str) -> u64 {
    counts.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.count)
}

/// A state as people and scripts read it.
pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Unspecified => "unknown",
        State::Queued => "queued",
        State::Harvesting => "harvesting",
        State::Training => "training",
        State::Evaluating => "evaluating",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
        State::Paused => "paused",
    }
}
