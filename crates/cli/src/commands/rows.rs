//! `distillery import` and `distillery export`: read rows from files, write rows to files.

use crate::args::{
    ExportArguments, FileFormat, ImportFile, ImportFormat, ImportPaper, PaperDataset, ServerArguments,
};
use crate::client::datasets;
use crate::exit::{Usage, mistakes};
use crate::report::{grouped, percent};
use crate::target::{Target, unless_interrupted};
use crate::task_file::NamedTask;
use crate::terminal::{self, print_json, print_line, say};
use crate::upload::{Rows, upload};
use app::config::Config;
use domain::records::Dataset;
use domain::spec::is_name;
use domain::state::Reason;
use domain::{Split, Task};
use readers::paper::{self, PaperImport, SplitReport};
use readers::{Format, Options, Source, WriteError, Writer};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use wire::Channel;

/// See [`crate::args::Verb::Import`].
pub(crate) async fn import(
    config: Config,
    format: ImportFormat,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    match format {
        ImportFormat::Paper(arguments) => import_paper(config, arguments, shutdown).await,
        ImportFormat::Jsonl(file) => import_file(config, Format::Jsonl, file, shutdown).await,
        ImportFormat::Csv(file) => import_file(config, Format::Csv, file, shutdown).await,
        ImportFormat::Parquet(file) => import_file(config, Format::Parquet, file, shutdown).await,
        ImportFormat::Checkpoint(arguments) => super::checkpoint::import(arguments, shutdown).await,
    }
}

async fn import_file(
    config: Config,
    format: Format,
    arguments: ImportFile,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let name = match arguments.name {
        Some(name) => name,
        None => stem(&arguments.file),
    };
    check_name(&name)?;
    let source = Source { path: arguments.file, format, split: None };
    let task = arguments.task.as_deref().map(read_task).transpose()?;
    let options = Options { task, columns: arguments.columns.mapping()?, ..Options::default() };
    let rows = Rows::of_sources(vec![source], options);
    let dataset = stage(config, &arguments.server, &name, rows, shutdown).await?;
    if arguments.json {
        return print_json(&dataset_json(&dataset));
    }
    print_line(&dataset_line(&dataset))
}

fn read_task(name: &str) -> anyhow::Result<Task> {
    let task = NamedTask::find(name, Path::new(name)).and_then(NamedTask::sound);
    Ok(task.map_err(|words| Usage(format!("--task: {words}")))?)
}

async fn import_paper(
    config: Config,
    arguments: ImportPaper,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let which = match arguments.dataset {
        PaperDataset::Svamp => paper::PaperDataset::Svamp,
        PaperDataset::Cqa => paper::PaperDataset::Cqa,
        PaperDataset::Anli1 => paper::PaperDataset::Anli1,
        PaperDataset::Esnli => paper::PaperDataset::Esnli,
    };
    let name = arguments.name.unwrap_or_else(|| which.as_str().to_owned());
    check_name(&name)?;
    let PaperImport { examples, report, .. } = paper::read(which, &arguments.from).map_err(mistakes)?;
    let dataset = stage(config, &arguments.server, &name, Rows::Here(examples.into()), shutdown).await?;
    if arguments.json {
        let splits: Vec<_> = report.splits.iter().map(split_json).collect();
        return print_json(&serde_json::json!({"dataset": dataset_json(&dataset), "splits": splits}));
    }
    for split in &report.splits {
        print_line(&split_line(split))?;
    }
    print_line(&dataset_line(&dataset))
}

fn split_json(split: &SplitReport) -> serde_json::Value {
    let reasons: serde_json::Map<String, serde_json::Value> =
        Reason::ALL.iter().map(|reason| (reason.to_string(), split.of(*reason).into())).collect();
    serde_json::json!({
        "split": split.split.to_string(),
        "rows": split.rows,
        "failures": reasons,
        "teacher_accuracy": split.accuracy_careful().value(),
        "teacher_accuracy_official": split.accuracy_official().value(),
    })
}

fn split_line(split: &SplitReport) -> String {
    let reasons: Vec<String> = Reason::ALL
        .iter()
        .filter(|reason| split.of(**reason) > 0)
        .map(|reason| format!("{reason} {}", grouped(split.of(*reason))))
        .collect();
    let reasons = if reasons.is_empty() { "none".to_owned() } else { reasons.join(", ") };
    format!(
        "{}: {} rows, teacher {} (by the official rule {}), failures: {reasons}",
        split.split,
        grouped(split.rows),
        percent(split.accuracy_careful().value()),
        percent(split.accuracy_official().value()),
    )
}

async fn stage(
    config: Config,
    server: &ServerArguments,
    name: &str,
    rows: Rows,
    shutdown: CancellationToken,
) -> anyhow::Result<Dataset> {
    let target = Target::open(config, server, shutdown.clone()).await?;
    let dataset = unless_interrupted(&shutdown, upload(target.channel(), name, rows)).await;
    target.close().await?;
    dataset
}

fn dataset_json(dataset: &Dataset) -> serde_json::Value {
    let [train, validation, test] = dataset.rows_by_split;
    serde_json::json!({
        "dataset": dataset.name,
        "id": dataset.id.to_string(),
        "rows": dataset.rows,
        "train": train,
        "validation": validation,
        "test": test,
        "labelled": dataset.rows_labelled,
        "fingerprint": dataset.fingerprint,
    })
}

fn dataset_line(dataset: &Dataset) -> String {
    let [train, validation, test] = dataset.rows_by_split;
    format!(
        "dataset {}: {} rows (train {}, validation {}, test {}), {} with a label",
        dataset.name,
        grouped(dataset.rows),
        grouped(train),
        grouped(validation),
        grouped(test),
        grouped(dataset.rows_labelled),
    )
}

fn stem(file: &Path) -> String {
    file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn check_name(name: &str) -> anyhow::Result<()> {
    if is_name(name) {
        return Ok(());
    }
    let words = "cannot name a dataset: use 1 to 64 letters, digits, `-`, `_` or `.` (--name)";
    Err(Usage(format!("`{name}` {words}")).into())
}

/// See [`crate::args::Verb::Export`].
pub(crate) async fn export(
    config: Config,
    arguments: ExportArguments,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let split = arguments
        .split
        .as_deref()
        .map(|split| {
            split.parse::<Split>().map_err(|violation| Usage(format!("--split: {}", violation.message)))
        })
        .transpose()?;
    let target = Target::read(config, &arguments.server, shutdown.clone()).await?;
    let written = unless_interrupted(&shutdown, write_rows(target.channel(), &arguments, split)).await;
    target.close().await?;
    let rows = written?;
    say(&format!("{} rows", grouped(rows)));
    Ok(())
}

async fn write_rows(
    channel: &Channel,
    arguments: &ExportArguments,
    split: Option<Split>,
) -> anyhow::Result<u64> {
    let dataset = datasets::find(channel, &arguments.dataset).await?;
    let format = match arguments.format {
        FileFormat::Jsonl => Format::Jsonl,
        FileFormat::Csv => Format::Csv,
        FileFormat::Parquet => Format::Parquet,
    };
    let output = Output::default();
    let to_stream = arguments.file.as_os_str() == "-";
    if to_stream && format == Format::Parquet && terminal::Rows::new().is_watched() {
        return Err(Usage("Parquet is no text for a terminal: name a file, or pipe it".to_owned()).into());
    }
    let mut writer = if to_stream {
        Writer::to_stream(format, Box::new(output.to_stream()))?
    } else {
        Writer::create(format, &arguments.file)?
    };
    let mut rows = 0;
    datasets::rows(channel, dataset.id, split, |row| {
        writer.write(&row.example).map_err(|error| output.explain(error))?;
        rows += 1;
        Ok(())
    })
    .await?;
    writer.finish().map_err(|error| output.explain(error))?;
    Ok(rows)
}

/// Whether the reader of standard output left: a format's own error does not say so.
#[derive(Clone, Default)]
struct Output {
    left: Arc<AtomicBool>,
}

impl Output {
    fn to_stream(&self) -> Stream {
        Stream { rows: terminal::Rows::new(), output: self.clone() }
    }

    fn explain(&self, error: WriteError) -> anyhow::Error {
        if self.left.load(Ordering::Relaxed) {
            io::Error::from(io::ErrorKind::BrokenPipe).into()
        } else {
            error.into()
        }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.left.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Standard output, which remembers whether its reader left.
struct Stream {
    rows: terminal::Rows,
    output: Output,
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.rows.write(bytes);
        self.output.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.rows.flush();
        self.output.note(flushed)
    }
}
