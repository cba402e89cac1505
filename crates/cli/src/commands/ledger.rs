//! `distillery ledger`: what the teacher answered, and what became of it.

use super::{print_json, print_line};
use crate::args::{LedgerArguments, VerdictName};
use crate::client::{Patience, failure, page};
use crate::job;
use crate::progress::say;
use crate::target::{Target, unless_interrupted};
use app::config::Config;
use comfy_table::Table;
use tokio_util::sync::CancellationToken;
use wire::Channel;
use wire::v1::rationales_service_client::RationalesServiceClient;
use wire::v1::{self, Reason, Verdict};

/// Entries of a table, where the user asks for no other number.
const TABLE_ROWS: usize = 50;
/// Characters of a rationale in a table.
const RATIONALE_CHARACTERS: usize = 100;

/// See [`crate::args::Verb::Ledger`].
pub(crate) async fn ledger(
    config: Config,
    arguments: LedgerArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let target = Target::open(config, &arguments.server, shutdown.clone()).await?;
    let told = unless_interrupted(&shutdown, tell(target.channel(), &arguments)).await;
    target.close().await?;
    told
}

async fn tell(channel: &Channel, arguments: &LedgerArguments) -> anyhow::Result<()> {
    let id = job::of(job::find(channel, &arguments.job).await?.distillation)?.id;
    if arguments.json {
        let limit = arguments.limit.unwrap_or(usize::MAX);
        return entries(channel, &id, arguments.verdict, limit, |entry| print_json(&json(&entry))).await;
    }
    let mut table = super::table(&["row", "sample", "verdict", "reason", "label", "rationale"]);
    let limit = arguments.limit.unwrap_or(TABLE_ROWS);
    entries(channel, &id, arguments.verdict, limit, |entry| {
        add(&mut table, entry);
        Ok(())
    })
    .await?;
    if table.row_count() == 0 {
        return print_line("no entries");
    }
    print_line(&table.to_string())?;
    if table.row_count() == limit {
        say(&format!("the first {limit} entries; --limit shows more, --json all of them"));
    }
    Ok(())
}

/// Hands up to `limit` entries to `see`, in order, page by page: a long ledger outlives its connections.
async fn entries(
    channel: &Channel,
    id: &str,
    verdict: Option<VerdictName>,
    limit: usize,
    mut see: impl FnMut(v1::Rationale) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut client =
        RationalesServiceClient::new(channel.clone()).max_decoding_message_size(wire::MESSAGE_BYTES_MAX);
    let verdict = verdict.map_or(Verdict::Unspecified, verdict_of).into();
    let (mut seen, mut token) = (0, String::new());
    let mut patience = Patience::default();
    while let Some(page) = page(limit, seen, &mut token) {
        let resumed = page.page_token.clone();
        let request = v1::ListRationalesRequest { distillation_id: id.to_owned(), verdict, page: Some(page) };
        let answer = match client.list_rationales(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                patience.wait(status).await.map_err(failure)?;
                token = resumed;
                continue;
            }
        };
        patience.restored();
        // A page holds whole rows, and may be longer than what is left.
        for entry in answer.rationales.into_iter().take(limit - seen) {
            see(entry)?;
            seen += 1;
        }
        if answer.next_page_token.is_empty() {
            break;
        }
        token = answer.next_page_token;
    }
    Ok(())
}

fn add(table: &mut Table, entry: v1::Rationale) {
    let mut rationale: String = entry.rationale.chars().take(RATIONALE_CHARACTERS).collect();
    if rationale.len() < entry.rationale.len() {
        rationale.push_str("...");
    }
    table.add_row([
        entry.row.to_string(),
        entry.sample.to_string(),
        verdict_name(entry.verdict()).to_owned(),
        reason_name(entry.reason()).unwrap_or("-").to_owned(),
        entry.label.unwrap_or_else(|| "-".to_owned()),
        rationale,
    ]);
}

fn json(entry: &v1::Rationale) -> serde_json::Value {
    serde_json::json!({
        "row": entry.row,
        "sample": entry.sample,
        "hinted": entry.hinted,
        "evaluates": entry.evaluates,
        "verdict": verdict_name(entry.verdict()),
        "reason": reason_name(entry.reason()),
        "weight": entry.weight,
        "label": entry.label,
        "rationale": entry.rationale,
        "completion": entry.completion,
        "model": entry.model,
        "prompt": entry.prompt_id,
    })
}

fn verdict_of(name: VerdictName) -> Verdict {
    match name {
        VerdictName::Unjudged => Verdict::Unjudged,
        VerdictName::Accepted => Verdict::Accepted,
        VerdictName::Rejected => Verdict::Rejected,
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unspecified => "unknown",
        Verdict::Unjudged => "unjudged",
        Verdict::Accepted => "accepted",
        Verdict::Rejected => "rejected",
    }
}

fn reason_name(reason: Reason) -> Option<&'static str> {
    match reason {
        Reason::Unspecified => None,
        Reason::NoAnswer => Some("no_answer"),
        Reason::Truncated => Some("truncated"),
        Reason::Refused => Some("refused"),
        Reason::EmptyRationale => Some("empty_rationale"),
        Reason::LabelNotInSet => Some("label_not_in_set"),
        Reason::Disagrees => Some("disagrees"),
        Reason::Outvoted => Some("outvoted"),
        Reason::NoMajority => Some("no_majority"),
    }
}
