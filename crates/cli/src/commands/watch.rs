//! `distillery watch`: follow a job's events, for people or as JSON Lines.

use super::print_report;
use crate::args::WatchArguments;
use crate::client::jobs;
use crate::job;
use crate::shown;
use crate::target::{self, unless_interrupted};
use crate::terminal::print_json;
use app::config::Config;
use domain::event::EventKind;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use wire::{Watched, rfc3339};

/// See [`crate::args::Verb::Watch`].
pub(crate) async fn watch(
    config: Config,
    arguments: WatchArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let channel = target::server(&config, &arguments.server, &shutdown).await?;
    let reported = unless_interrupted(&shutdown, async {
        let id = jobs::find(&channel, &arguments.job).await?.job.id;
        if arguments.json {
            jobs::follow(&channel, id, arguments.after, |watched| print_json(&line(watched))).await?;
        } else {
            shown::follow(&channel, id, arguments.after, None).await?;
        }
        job::report(&channel, id).await
    })
    .await?;
    if !arguments.json {
        print_report(&reported)?;
    }
    reported.outcome.succeeded()
}

/// One event as one JSON object: its number (0 for a snapshot), its time, its kind, and its content.
fn line(watched: Watched) -> Value {
    let mut line = Map::new();
    line.insert("sequence".to_owned(), watched.sequence().into());
    line.insert("at".to_owned(), watched.at().map(rfc3339).into());
    let (kind, content) = match watched {
        Watched::Event(event) => content(event.kind),
        Watched::Snapshot { progress, .. } => ("harvest_progress", job::harvest_json(&progress)),
        Watched::Unknown { .. } => ("unknown", json!({})),
    };
    line.insert("event".to_owned(), kind.into());
    if let Value::Object(content) = content {
        line.extend(content);
    }
    Value::Object(line)
}

fn content(event: EventKind) -> (&'static str, Value) {
    match event {
        EventKind::StateChanged { from, to, reason } => {
            ("state_changed", json!({"from": from, "to": to, "reason": reason}))
        }
        EventKind::TrainingProgress { run, step, steps, metrics } => {
            let metrics: Map<String, Value> =
                metrics.into_iter().map(|(name, value)| (name, value.into())).collect();
            let run = run.to_string();
            ("training_progress", json!({"run": run, "step": step, "steps": steps, "metrics": metrics}))
        }
        EventKind::Evaluated { run, step, split, accuracy } => {
            let (run, accuracy) = (run.to_string(), job::accuracy_json(Some(accuracy)));
            ("evaluated", json!({"run": run, "step": step, "split": split, "accuracy": accuracy}))
        }
        EventKind::TeacherMeasured { accuracy } => {
            ("teacher_measured", json!({"accuracy": job::accuracy_json(Some(accuracy))}))
        }
        EventKind::Probing { run, share } => ("probing", json!({"run": run.to_string(), "share": share})),
        EventKind::Probed { run, share, accuracy, gain, next, end } => {
            let (run, accuracy) = (run.to_string(), job::accuracy_json(Some(accuracy)));
            let decided = json!({"run": run, "share": share, "accuracy": accuracy, "gain": gain, "next": next, "end": end});
            ("probed", decided)
        }
        EventKind::Published { model, name, version } => {
            ("published", json!({"model": format!("{name}@{version}"), "id": model.to_string()}))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Timestamp;
    use domain::event::Event;
    use domain::ids::DistillationId;
    use domain::state::DistillationState;

    #[test]
    fn an_event_is_one_flat_object() {
        let kind =
            EventKind::StateChanged { from: None, to: DistillationState::Queued, reason: String::new() };
        let (distillation, at) = (DistillationId::generate(), Timestamp(1_767_323_045_000));
        let event = Watched::Event(Event { distillation, sequence: 1, at, kind });
        assert_eq!(
            line(event).to_string(),
            r#"{"sequence":1,"at":"2026-01-02T03:04:05Z","event":"state_changed","from":null,"to":"queued","reason":""}"#
        );
        assert_eq!(line(Watched::Unknown { sequence: 2, at })["event"], "unknown");
    }
}
