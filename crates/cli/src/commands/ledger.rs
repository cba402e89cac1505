//! `distillery ledger`: list the teacher's answers with their verdicts, judge them again, ask for them again.

use crate::args::LedgerArguments;
use crate::client::call::failure;
use crate::client::jobs::{self, Found};
use crate::client::ledger;
use crate::exit::Usage;
use crate::known_keys::{known_keys, unknown_key};
use crate::progress::Progress;
use crate::report::grouped;
use crate::spec_file;
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_table, say};
use anyhow::Context;
use app::config::Config;
use app::local::Scope;
use domain::Violation;
use domain::ids::RequestId;
use domain::ports::{ForgetOutcome, LedgerFilter};
use domain::records::{Distillation, LedgerEntry};
use domain::rejudge::{Fate, Rejudged};
use domain::spec::JudgingDraft;
use domain::state::{DistillationState, Purpose, Reason};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// Entries of a table, where the user asks for no other number.
const TABLE_ROWS: usize = 50;
/// Characters of a rationale or a completion in a table.
const TEXT_CHARACTERS: usize = 100;
/// Characters of a completion that is asked for.
const COMPLETION_CHARACTERS: usize = 400;

/// See [`crate::args::Verb::Ledger`].
pub(crate) async fn ledger(
    config: Config,
    arguments: LedgerArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let rules = arguments.judge.as_deref().map(rules).transpose()?;
    let scope = if arguments.forget || arguments.retry { Scope::RECORDS } else { Scope::READ };
    let target = Target::open_with(config, &arguments.job.server, scope, shutdown.clone()).await?;
    let done = unless_interrupted(&shutdown, act(target.channel(), &arguments, rules)).await;
    target.close().await?;
    done
}

async fn act(
    channel: &Channel,
    arguments: &LedgerArguments,
    rules: Option<JudgingDraft>,
) -> anyhow::Result<()> {
    let Found { job, dataset, .. } = jobs::find(channel, &arguments.job.job).await?;
    let (filter, json) = (arguments.which.filter(), arguments.job.json);
    if let Some(rules) = rules {
        let rows = dataset.map_or(0, |dataset| dataset.rows);
        return judge(channel, &job, rules, rows, json).await;
    }
    if let Some(file) = &arguments.export {
        return export(channel, &job, &filter, file).await;
    }
    if arguments.forget {
        return forget(channel, &job, &filter, arguments).await;
    }
    if arguments.parked {
        return parked(channel, &job, arguments).await;
    }
    if json {
        let limit = arguments.limit.unwrap_or(usize::MAX);
        return ledger::entries(channel, job.id, &filter, limit, |entry| print_json(&to_json(&entry))).await;
    }
    list(channel, &job, &filter, arguments).await
}

async fn list(
    channel: &Channel,
    job: &Distillation,
    filter: &LedgerFilter,
    arguments: &LedgerArguments,
) -> anyhow::Result<()> {
    let mut header = vec!["row", "sample", "verdict", "reason", "label", "rationale"];
    if arguments.completions {
        header.extend(["completion", "model"]);
    }
    let mut table = Table::new(&header);
    let limit = arguments.limit.unwrap_or(TABLE_ROWS);
    ledger::entries(channel, job.id, filter, limit, |entry| {
        add(&mut table, entry, arguments.completions);
        Ok(())
    })
    .await?;
    if table.rows() == 0 {
        return print_line("no entries");
    }
    print_table(&table)?;
    if table.rows() == limit {
        say(&format!("the first {limit} entries; --limit shows more, --json all of them"));
    }
    Ok(())
}

fn add(table: &mut Table, entry: LedgerEntry, completions: bool) {
    let row = entry.row.to_string();
    let sample = entry.sample.to_string();
    let verdict = entry.verdict.to_string();
    let reason = entry.reason.map_or("-", Reason::as_str).to_owned();
    let label = entry.parsed.label.unwrap_or_else(|| "-".to_owned());
    let rationale = shortened(&entry.parsed.rationale, TEXT_CHARACTERS);
    if completions {
        let completion = shortened(&entry.completion, COMPLETION_CHARACTERS);
        table.add([row, sample, verdict, reason, label, rationale, completion, entry.model]);
    } else {
        table.add([row, sample, verdict, reason, label, rationale]);
    }
}

fn shortened(text: &str, characters: usize) -> String {
    let mut short: String = text.chars().take(characters).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

fn to_json(entry: &LedgerEntry) -> serde_json::Value {
    serde_json::json!({
        "row": entry.row,
        "sample": entry.sample,
        "hinted": entry.hinted,
        "evaluates": entry.purpose == Purpose::Evaluate,
        "verdict": entry.verdict,
        "reason": entry.reason,
        "weight": entry.weight,
        "label": entry.parsed.label,
        "rationale": entry.parsed.rationale,
        "completion": entry.completion,
        "model": entry.model,
        "prompt": entry.prompt.to_string(),
    })
}

/// Writes entries to a file, which takes its name when it is whole.
async fn export(
    channel: &Channel,
    job: &Distillation,
    filter: &LedgerFilter,
    file: &Path,
) -> anyhow::Result<()> {
    if file.as_os_str() == "-" {
        return ledger::entries(channel, job.id, filter, usize::MAX, |entry| print_json(&to_json(&entry)))
            .await;
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let words = || format!("{} cannot be written", file.display());
    let mut writer = BufWriter::new(File::create(&part).with_context(words)?);
    let mut count = 0;
    let written = ledger::entries(channel, job.id, filter, usize::MAX, |entry| {
        count += 1;
        serde_json::to_writer(&mut writer, &to_json(&entry)).with_context(words)?;
        writer.write_all(b"\n").with_context(words)
    })
    .await
    .and_then(|()| writer.flush().with_context(words))
    .and_then(|()| std::fs::rename(&part, file).with_context(words));
    if written.is_err() {
        // What is left of it is of no use; the first failure is the one that matters.
        let _ = std::fs::remove_file(&part);
    }
    written?;
    say(&format!("{} entries in {}", grouped(count), file.display()));
    Ok(())
}

async fn forget(
    channel: &Channel,
    job: &Distillation,
    filter: &LedgerFilter,
    arguments: &LedgerArguments,
) -> anyhow::Result<()> {
    if !arguments.yes {
        return Err(Usage(preview(channel, job, filter).await?).into());
    }
    let request = RequestId::generate();
    let outcome = ledger::forget(channel, request, job.id, filter).await.map_err(failure)?;
    let ForgetOutcome { forgotten, asked_again, harvests } = outcome;
    if arguments.job.json {
        return print_json(&serde_json::json!({
            "distillation": job.id.to_string(), "forgotten": forgotten, "asked_again": asked_again,
            "harvests": harvests,
        }));
    }
    print_line(&format!(
        "{} answers are forgotten, {} prompts are asked again",
        grouped(forgotten),
        grouped(asked_again)
    ))?;
    match (harvests, job.state) {
        (true, DistillationState::Paused) => {
            say(&format!("the job is paused: `distillery resume {}` lets it ask", arguments.job.job));
        }
        (true, _) => {}
        (false, _) => say(
            "the job's harvest is over, and its ledger stays as it is: the next job that asks the same asks the teacher; \
             `distillery run SPEC.toml --refresh` makes one",
        ),
    }
    Ok(())
}

/// What would be forgotten, by reason.
async fn preview(channel: &Channel, job: &Distillation, filter: &LedgerFilter) -> anyhow::Result<String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    ledger::entries(channel, job.id, filter, usize::MAX, |entry| {
        *counts.entry(fate_name(Some((entry.verdict, entry.reason)))).or_default() += 1;
        Ok(())
    })
    .await?;
    let total: u64 = counts.values().sum();
    let fates: Vec<String> =
        counts.iter().map(|(fate, count)| format!("{fate} {}", grouped(*count))).collect();
    Ok(format!(
        "--forget: the answers of {} entries would be asked for again ({}): add --yes to do it",
        grouped(total),
        if fates.is_empty() { "none".to_owned() } else { fates.join(", ") }
    ))
}

async fn parked(channel: &Channel, job: &Distillation, arguments: &LedgerArguments) -> anyhow::Result<()> {
    let (error, json) = (arguments.error.as_deref().unwrap_or_default(), arguments.job.json);
    if arguments.retry {
        let retried = ledger::retry_parked(channel, job.id, error).await.map_err(failure)?;
        if json {
            return print_json(&serde_json::json!({"distillation": job.id.to_string(), "retried": retried}));
        }
        return print_line(&format!("{} parked prompts are asked again", grouped(retried)));
    }
    let mut table = Table::new(&["row", "sample", "failures", "last failure"]);
    ledger::parked(channel, job.id, |prompt| {
        if !prompt.error.contains(error) {
            return Ok(());
        }
        if json {
            return print_json(&serde_json::json!({
                "row": prompt.row, "sample": prompt.sample, "failures": prompt.failures, "error": prompt.error,
                "prompt": prompt.id.to_string(),
            }));
        }
        let (row, sample) = (prompt.row.to_string(), prompt.sample.to_string());
        table.add([row, sample, prompt.failures.to_string(), shortened(&prompt.error, COMPLETION_CHARACTERS)]);
        Ok(())
    })
    .await?;
    match (json, table.rows()) {
        (true, _) => Ok(()),
        (false, 0) => print_line("no parked prompts"),
        (false, _) => print_table(&table),
    }
}

/// Rules as a user names them: a specification whose judging they are, or settings such as `agree=false,vote=true`.
fn rules(text: &str) -> anyhow::Result<JudgingDraft> {
    let path = Path::new(text);
    if path.extension().is_some_and(|extension| extension == "toml") || path.is_file() {
        return Ok(spec_file::read_without_rows(path)?.spec.judging.into());
    }
    let mut table = toml::Table::new();
    for setting in text.split(',') {
        let mistake = |words: String| Usage(format!("--judge: `{setting}` {words}"));
        let Some((key, value)) = setting.split_once('=') else {
            let words = "is neither a specification (FILE.toml) nor a rule such as agree=false";
            return Err(mistake(words.to_owned()).into());
        };
        let key = key.trim();
        if let Some(words) = unknown_key(key, known_keys::<JudgingDraft>().iter().copied()) {
            return Err(mistake(words).into());
        }
        table.insert(key.to_owned(), setting_value(value.trim()));
    }
    table.try_into().map_err(|error: toml::de::Error| Usage(format!("--judge: {}", error.message())).into())
}

fn setting_value(text: &str) -> toml::Value {
    let boolean = text.parse().map(toml::Value::Boolean).ok();
    let number = || text.parse().map(toml::Value::Float).ok();
    boolean.or_else(number).unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

async fn judge(
    channel: &Channel,
    job: &Distillation,
    rules: JudgingDraft,
    rows: u64,
    json: bool,
) -> anyhow::Result<()> {
    let mut bar = Progress::start("judging");
    let judged = ledger::judge(channel, job.id, rules, |done| bar.update(done, rows, "rows", "")).await;
    let judged = judged.map_err(|status| match wire::violations_of(&status) {
        found if found.is_empty() => failure(status),
        found => Usage(found.iter().map(Violation::to_string).collect::<Vec<_>>().join("\n")).into(),
    })?;
    bar.finish(&format!("{} rows", grouped(judged.rows())));
    if json {
        return print_json(&judged_json(job, &judged));
    }
    let mut table = Table::new(&["verdict", "before", "after"]);
    for (fate, (before, after)) in judged.totals() {
        table.add([fate_name(fate), grouped(before), grouped(after)]);
    }
    print_table(&table)?;
    for ((before, after), entries) in judged.counts().filter(|((before, after), _)| before != after) {
        print_line(&format!("{} -> {}: {}", fate_name(before), fate_name(after), grouped(entries)))?;
    }
    print_line(&format!(
        "{} entries would change; nothing was written, no teacher was asked",
        grouped(judged.changed())
    ))
}

fn fate_name(fate: Fate) -> String {
    match fate {
        None => "not judged".to_owned(),
        Some((verdict, None)) => verdict.to_string(),
        Some((verdict, Some(reason))) => format!("{verdict}: {reason}"),
    }
}

fn judged_json(job: &Distillation, judged: &Rejudged) -> serde_json::Value {
    let fate =
        |fate: Fate| fate.map(|(verdict, reason)| serde_json::json!({"verdict": verdict, "reason": reason}));
    let fates: Vec<serde_json::Value> = judged
        .counts()
        .map(|((before, after), entries)| {
            serde_json::json!({"before": fate(before), "after": fate(after), "entries": entries})
        })
        .collect();
    serde_json::json!({
        "distillation": job.id.to_string(), "rows": judged.rows(), "changed": judged.changed(), "fates": fates,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::spec::LabelSource;

    #[test]
    fn rules_are_settings_of_judging() {
        let read = rules("agree=false, vote = true,label=teacher").unwrap();
        let expected = JudgingDraft {
            agree: Some(false),
            vote: Some(true),
            label: Some(LabelSource::Teacher),
            ..JudgingDraft::default()
        };
        assert_eq!(read, expected);
        for (text, words) in [
            ("agree", "neither a specification"),
            ("", "neither a specification"),
            ("agre=true", "did you mean `agree`?"),
            ("agree=maybe", "boolean"),
            ("label=both", "unknown variant"),
            ("agree=true,,", "neither a specification"),
        ] {
            let error = rules(text).unwrap_err().to_string();
            assert!(error.contains(words) && error.starts_with("--judge"), "{text:?}: {error}");
        }
        let error = rules("absent.toml").unwrap_err().to_string();
        assert!(error.contains("absent.toml"), "{error}");
    }
}
