//! `distillery import checkpoint`: a checkpoint folder gets the tokenizer that a student needs.

use crate::args::ImportCheckpoint;
use crate::exit::Usage;
use crate::report::grouped;
use crate::target::unless_interrupted;
use crate::terminal::{print_json, print_line};
use app::Imported;
use domain::Fault;
use tokio_util::sync::CancellationToken;

/// See [`crate::args::ImportFormat::Checkpoint`].
pub(crate) async fn import(arguments: ImportCheckpoint, shutdown: CancellationToken) -> anyhow::Result<()> {
    let ImportCheckpoint { folder, out, json } = arguments;
    // A copy of large weights takes minutes.
    let work = tokio::task::spawn_blocking(move || app::import_checkpoint(&folder, out.as_deref()));
    let work = async { Ok(work.await?) };
    let imported = unless_interrupted(&shutdown, work).await?.map_err(|error| match error.fault() {
        Fault::Invalid => anyhow::Error::from(Usage(error.to_string())),
        _ => error.into(),
    })?;
    let Imported { folder, source, tokens } = imported;
    if json {
        return print_json(&serde_json::json!({"folder": folder, "source": source, "tokens": tokens}));
    }
    let tokens = grouped(u64::try_from(tokens)?);
    print_line(&format!("{}: {tokens} tokens from {source}", folder.join("tokenizer.json").display()))
}
