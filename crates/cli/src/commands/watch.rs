//! `distillery watch`: a job's events as they come, for people or as JSON Lines.

use super::{print_json, print_report};
use crate::args::WatchArguments;
use crate::job;
use crate::shown::{Shown, follow, state_name};
use crate::target::{self, unless_interrupted};
use app::config::Config;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use wire::v1::watch_distillation_response::Event;
use wire::v1::{self, WatchDistillationResponse as Message};

/// See [`crate::args::Verb::Watch`].
pub(crate) async fn watch(
    config: Config,
    arguments: WatchArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let channel = target::server(&config, &arguments.server).await?;
    let reported = unless_interrupted(&shutdown, async {
        let id = job::of(job::find(&channel, &arguments.job).await?.distillation)?.id;
        let mut shown = Shown::default();
        follow(&channel, &id, arguments.after, |message| {
            if arguments.json {
                return print_json(&line(message));
            }
            message.event.into_iter().for_each(|event| shown.event(event));
            Ok(())
        })
        .await?;
        shown.end();
        job::report(&channel, &id).await
    })
    .await?;
    if !arguments.json {
        print_report(&reported)?;
    }
    reported.outcome.succeeded()
}

/// One event as one JSON object: its number (0 for a snapshot), its time, its kind, and what it says.
fn line(message: Message) -> Value {
    let mut line = Map::new();
    line.insert("sequence".to_owned(), message.sequence.into());
    line.insert("at".to_owned(), message.at.map(|at| at.to_string()).into());
    let (kind, says) = match message.event {
        Some(event) => said(event),
        None => ("unknown", json!({})),
    };
    line.insert("event".to_owned(), kind.into());
    if let Value::Object(says) = says {
        line.extend(says);
    }
    Value::Object(line)
}

fn said(event: Event) -> (&'static str, Value) {
    match event {
        Event::StateChanged(change) => {
            let from = (change.from != 0).then(|| state_name(change.from()));
            ("state_changed", json!({"from": from, "to": state_name(change.to()), "reason": change.reason}))
        }
        Event::HarvestProgress(progress) => ("harvest_progress", job::harvest_json(&progress)),
        Event::TrainingProgress(progress) => {
            let metrics: Map<String, Value> =
                progress.metrics.into_iter().map(|point| (point.name, point.value.into())).collect();
            let (run, step, steps) = (progress.run_id, progress.step, progress.steps);
            ("training_progress", json!({"run": run, "step": step, "steps": steps, "metrics": metrics}))
        }
        Event::Evaluated(evaluated) => {
            let split = match evaluated.split() {
                v1::Split::Test => "test",
                v1::Split::Train => "train",
                v1::Split::Validation | v1::Split::Unspecified => "validation",
            };
            let accuracy = job::accuracy_json(evaluated.accuracy);
            let (run, step) = (evaluated.run_id, evaluated.step);
            ("evaluated", json!({"run": run, "step": step, "split": split, "accuracy": accuracy}))
        }
        Event::TeacherMeasured(measured) => {
            ("teacher_measured", json!({"accuracy": job::accuracy_json(measured.accuracy)}))
        }
        Event::Published(published) => {
            let model = format!("{}@{}", published.name, published.version);
            ("published", json!({"model": model, "id": published.model_id}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_flat_object() {
        let change =
            v1::StateChanged { from: 0, to: v1::DistillationState::Queued.into(), reason: String::new() };
        let at = Some("2026-01-02T03:04:05Z".parse().unwrap());
        let message = Message { sequence: 1, at, event: Some(Event::StateChanged(change)) };
        assert_eq!(
            line(message).to_string(),
            r#"{"sequence":1,"at":"2026-01-02T03:04:05Z","event":"state_changed","from":null,"to":"queued","reason":""}"#
        );
        assert_eq!(line(Message::default())["event"], "unknown");
    }
}
