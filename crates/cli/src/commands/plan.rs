//! `distillery plan`: what a distillation would ask, and what that would cost.

use crate::args::{Place, PlanArguments};
use crate::client::jobs;
use crate::job;
use crate::next;
use crate::report::grouped;
use crate::spec_file::{self, SpecFile};
use crate::target::{Target, unless_interrupted};
use crate::terminal::{Table, print_json, print_line, print_lines, print_table, say};
use app::config::Config;
use app::local::Scope;
use domain::budget::Amount;
use domain::estimate::{Estimate, Probed, Stage, StageEstimate};
use domain::share::Share;
use domain::spec::{Start, TeacherSpec};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// See [`crate::args::Verb::Plan`].
pub(crate) async fn plan(
    config: Config,
    place: Place,
    arguments: PlanArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let mut file = spec_file::read(&arguments.spec)?;
    if file.init.is_some() {
        // A plan trains nothing: where the student starts does not matter to it.
        file.spec.start = Start::Scratch { size: domain::spec::StudentSize::Mini, vocabulary: 2048 };
    }
    let target = Target::open_with(config, &arguments.server, Scope::PLAN, shutdown.clone()).await?;
    let estimated = unless_interrupted(&shutdown, async {
        let dataset = job::dataset(target.channel(), &mut file).await?;
        let probe = arguments.probe.unwrap_or(0);
        let estimated = jobs::estimate(target.channel(), &file.spec, dataset.id, probe).await;
        estimated.map_err(|status| job::refused(&file, status))
    })
    .await;
    target.close().await?;
    let estimate = estimated?;
    if arguments.json {
        return print_json(&as_json(&estimate, &file));
    }
    print(&estimate, &file)?;
    let spec = arguments.spec.display().to_string();
    let next = match arguments.server.url() {
        Some(url) => next::command(&place, &["submit", &spec, "--server", url, "--watch"]),
        None => next::command(&place, &["run", &spec]),
    };
    say(&format!("next: {next}"));
    Ok(())
}

fn as_json(estimate: &Estimate, file: &SpecFile) -> Value {
    let stages: Vec<Value> = estimate
        .stages
        .iter()
        .map(|stage| {
            json!({
                "stage": stage.stage, "profile": stage.profile, "prompts": stage.prompts,
                "from_store": stage.from_store, "expected": job::amount_json(stage.expected),
                "at_most": job::amount_json(stage.at_most),
            })
        })
        .collect();
    let probed: Vec<Value> = estimate.probed.iter().map(probed_json).collect();
    let prompts: Vec<Value> = estimate
        .prompts
        .iter()
        .map(|prompt| json!({"row": prompt.row, "instruction": prompt.instruction, "prompt": prompt.prompt}))
        .collect();
    json!({
        "name": file.spec.name, "stages": stages, "prompts": prompts, "probed": probed,
        "at_least": job::amount_json(at_least(estimate, file)),
        "expected": job::amount_json(total(estimate, |stage| stage.expected)),
        "at_most": job::amount_json(total(estimate, |stage| stage.at_most)),
        "budget": file.spec.teacher.as_ref().map(|teacher| teacher.budget),
    })
}

fn probed_json(row: &Probed) -> Value {
    json!({
        "row": row.asked.row, "prompt": row.asked.prompt, "completion": row.completion,
        "rationale": row.parsed.as_ref().map(|parsed| &parsed.rationale),
        "label": row.parsed.as_ref().and_then(|parsed| parsed.label.as_ref()),
        "gold": row.gold, "verdict": row.verdict, "reason": row.reason, "error": row.error,
        "from_store": row.from_store,
    })
}

fn total(estimate: &Estimate, amount: impl Fn(&StageEstimate) -> Amount) -> Amount {
    estimate.stages.iter().fold(Amount::default(), |sum, stage| sum.plus(amount(stage)))
}

/// What is expected where rationales are found not to help as early as can be: the first share of the train rows.
fn at_least(estimate: &Estimate, file: &SpecFile) -> Amount {
    let stops_early = file.spec.teacher.as_ref().is_some_and(TeacherSpec::stops_early);
    total(estimate, |stage| {
        let Amount { calls, tokens, money_micros } = stage.expected;
        if !stops_early || stage.stage == Stage::Evaluate {
            return stage.expected;
        }
        let part = |number: u64| {
            let (first, all) = (u64::from(Share::Eighth.eighths()), u64::from(Share::All.eighths()));
            number.saturating_mul(first).div_ceil(all)
        };
        Amount { calls: part(calls), tokens: part(tokens), money_micros: part(money_micros) }
    })
}

fn money(micros: u64) -> String {
    format!("{:.4}", micros as f64 / 1e6)
}

fn print(estimate: &Estimate, file: &SpecFile) -> anyhow::Result<()> {
    if estimate.stages.is_empty() {
        return print_line("no teacher is asked");
    }
    for prompt in &estimate.prompts {
        print_line(&format!("--- the prompt of row {} ---", prompt.row))?;
        if !prompt.instruction.is_empty() {
            print_lines(&format!("[system] {}", prompt.instruction))?;
        }
        print_lines(&prompt.prompt)?;
    }
    for row in &estimate.probed {
        print_probed(row)?;
    }
    let mut table =
        Table::new(&["stage", "profile", "prompts", "stored", "calls", "tokens", "money", "at most"]);
    for stage in &estimate.stages {
        table.add([
            stage.stage.to_string(),
            stage.profile.clone(),
            grouped(stage.prompts),
            grouped(stage.from_store),
            grouped(stage.expected.calls),
            grouped(stage.expected.tokens),
            money(stage.expected.money_micros),
            money(stage.at_most.money_micros),
        ]);
    }
    table.align_figures();
    print_table(&table)?;
    let (expected, at_most) =
        (total(estimate, |stage| stage.expected), total(estimate, |stage| stage.at_most));
    if file.spec.teacher.as_ref().is_some_and(TeacherSpec::stops_early) {
        // Whether rationales go on helping is not known before they are tried.
        print_line(&format!(
            "at least: {} (`until` stops after 1/8 of the rows)",
            words(at_least(estimate, file))
        ))?;
    }
    print_line(&format!("expected: {}", words(expected)))?;
    print_line(&format!("at most:  {}", words(at_most)))?;
    let budget = file.spec.teacher.as_ref().map(|teacher| teacher.budget).unwrap_or_default();
    if !expected.fits(&budget) {
        print_line("the budget is less than what is expected: some rows will not be asked about")?;
    }
    Ok(())
}

fn words(amount: Amount) -> String {
    let (calls, tokens) = (grouped(amount.calls), grouped(amount.tokens));
    format!("{calls} calls, {tokens} tokens, money {}", money(amount.money_micros))
}

fn print_probed(row: &Probed) -> anyhow::Result<()> {
    print_line(&format!("--- row {}, asked ---", row.asked.row))?;
    print_lines(&row.asked.prompt)?;
    if !row.error.is_empty() {
        return print_line(&format!("no answer: {}", row.error));
    }
    print_lines(&format!("answer:    {}", row.completion))?;
    if let Some(parsed) = &row.parsed {
        print_lines(&format!("rationale: {}", parsed.rationale))?;
        print_line(&format!("label:     {}", parsed.label.as_deref().unwrap_or("-")))?;
    }
    print_line(&format!("gold:      {}", row.gold.as_deref().unwrap_or("-")))?;
    let reason = row.reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    print_line(&format!("verdict:   {}{reason}", row.verdict))
}
