//! Uploads: rows are read twice, once to be checked and known by their content, once to be sent. A file of any length
//! costs the memory of a few chunks.

use crate::client::call::{Patience, failure};
use crate::client::datasets::{self, Chunk};
use crate::exit::{Usage, mistakes};
use crate::progress::Progress;
use crate::spec_data::Files;
use domain::fingerprint::{RowsHash, upload_request};
use domain::holdout::{Holdout, Shares};
use domain::ids::{DatasetId, RequestId};
use domain::records::Dataset;
use domain::state::DatasetState;
use domain::subset::Stratum;
use domain::{Example, Split, Task, Violation};
use readers::{Format, Options, Source};
use std::path::Path;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use wire::Channel;

/// Rows of one uploaded chunk.
const CHUNK_ROWS: usize = 500;
/// Chunks that are read ahead of the connection.
const CHUNKS_AHEAD: usize = 2;
/// Uploads of fewer rows end before progress is worth showing.
const ROWS_SHOWN_MIN: u64 = 20_000;

/// Rows that can be read from the first one again and again.
#[derive(Clone)]
pub(crate) enum Rows {
    /// Those of files, one file after another, with the train rows that are held out.
    Files(Box<FileRows>),
    /// Those at hand.
    Here(Arc<[Example]>),
}

/// Rows of files.
#[derive(Clone)]
pub(crate) struct FileRows {
    sources: Vec<Source>,
    options: Options,
    holdout: Option<Arc<Holdout>>,
}

/// Why rows cannot be divided.
pub(crate) enum Undivided {
    /// They cannot be read.
    Reading(anyhow::Error),
    /// They are divided already.
    Twice(Violation),
}

impl Rows {
    /// The rows of files, for a task; those of a file with a split of its own belong to it.
    pub(crate) fn of_files(files: &Files, task: &Task, labels_required: bool) -> anyhow::Result<Self> {
        let mut sources = Vec::new();
        for (split, path) in &files.files {
            sources.push(Source { path: path.clone(), format: format_of(path)?, split: *split });
        }
        let (task, columns) = (Some(task.clone()), files.columns.clone());
        Ok(Self::of_sources(sources, Options { task, labels_required, columns }))
    }

    /// The rows of these files, each as it says.
    pub(crate) fn of_sources(sources: Vec<Source>, options: Options) -> Self {
        Self::Files(Box::new(FileRows { sources, options, holdout: None }))
    }

    /// The same rows, a share of the train rows held out. Reads them once.
    pub(crate) fn divided(self, shares: Shares, task: &Task) -> Result<Self, Undivided> {
        let (mut failed, mut twice) = (None, None);
        let rows = self.read().map_while(|row| row.map_err(|error| failed = Some(error)).ok());
        let train = rows.filter(|row| {
            if shares.hold_out(row.split) {
                twice.get_or_insert(row.split);
            }
            row.split == Split::Train
        });
        let holdout = shares.divide(train.map(|row| {
            let stratum = Stratum::of(task, &row);
            (row, stratum)
        }));
        if let Some(error) = failed {
            return Err(Undivided::Reading(error));
        }
        if let Some(split) = twice {
            let message =
                format!("contradicts the rows, some of which say that they are `{split}` rows: remove it");
            return Err(Undivided::Twice(Violation::new(format!("data.{split}_share"), message)));
        }
        Ok(match self {
            Self::Files(files) => {
                Self::Files(Box::new(FileRows { holdout: Some(Arc::new(holdout)), ..*files }))
            }
            Self::Here(rows) => Self::Here(rows),
        })
    }

    /// Whether a train row has a label. Rows behind a mistake are not looked at: it is named when they are sent.
    pub(crate) fn have_train_label(&self) -> bool {
        self.read().map_while(Result::ok).any(|row| row.split == Split::Train && row.label.is_some())
    }

    fn read(&self) -> Box<dyn Iterator<Item = anyhow::Result<Example>> + Send> {
        match self {
            Self::Files(files) => {
                let FileRows { sources, options, holdout } = FileRows::clone(files);
                let rows = readers::rows(sources, options);
                Box::new(rows.map(move |row| {
                    let mut row = row.map_err(mistakes)?;
                    if let Some(holdout) = holdout.as_ref().filter(|_| row.split == Split::Train) {
                        row.split = holdout.split_of(&row);
                    }
                    Ok(row)
                }))
            }
            Self::Here(rows) => {
                let rows = Arc::clone(rows);
                Box::new((0..rows.len()).filter_map(move |place| rows.get(place).cloned()).map(Ok))
            }
        }
    }
}

/// The format that a file's extension names.
pub(crate) fn format_of(path: &Path) -> anyhow::Result<Format> {
    let unknown = || {
        let path = path.display();
        Usage(format!("{path}: its extension names no format: use .jsonl, .csv or .parquet"))
    };
    Ok(Format::of(path).ok_or_else(unknown)?)
}

/// What identifies an upload before it is made: the number of rows, and the sha256 over all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Content {
    rows: u64,
    sha256: [u8; 32],
}

/// Counts and hashes rows as they pass.
#[derive(Default)]
struct Reading {
    rows: u64,
    hasher: RowsHash,
}

impl Reading {
    fn note(&mut self, row: &Example) {
        self.rows += 1;
        self.hasher.add(row);
    }

    fn content(self) -> Content {
        Content { rows: self.rows, sha256: self.hasher.finish() }
    }
}

/// Uploads rows by their content: rows that are stored already are not sent again, and an interrupted upload resumes, here
/// after a lost connection and in a later call after anything else. Where a row has a mistake, nothing is sent.
pub(crate) async fn upload(channel: &Channel, name: &str, rows: Rows) -> anyhow::Result<Dataset> {
    let content = content(rows.clone()).await?;
    let request = upload_request(name, &content.sha256);
    let mut patience = Patience::default();
    let mut stored = 0;
    loop {
        let lost = match upload_rest(channel, (request, name), &rows, &content, &mut stored).await {
            Ok(dataset) => return Ok(dataset),
            Err(Broken::Reading(error)) => return Err(error),
            Err(Broken::Lost { status, progressed }) => {
                if progressed {
                    patience.restored();
                }
                status
            }
        };
        patience.wait(lost).await.map_err(failure)?;
    }
}

/// Reads all rows once; stops when the caller is gone.
async fn content(rows: Rows) -> anyhow::Result<Content> {
    let (waits, waited_for) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let read = || {
            let mut reading = Reading::default();
            for row in rows.read().take_while(|_| !waits.is_closed()) {
                reading.note(&row?);
            }
            Ok(reading.content())
        };
        let read = read();
        let _ = waits.send(read);
    });
    waited_for.await?
}

/// Why an attempt ended.
enum Broken {
    /// The rows cannot be read, or are others than before.
    Reading(anyhow::Error),
    /// The server or the connection failed; `progressed` where more rows are stored than at the attempt before.
    Lost { status: Status, progressed: bool },
}

/// One attempt, from where the server is: `stored` is set to that.
async fn upload_rest(
    channel: &Channel,
    (request, name): (RequestId, &str),
    rows: &Rows,
    content: &Content,
    stored: &mut u64,
) -> Result<Dataset, Broken> {
    let lost = |status| Broken::Lost { status, progressed: false };
    let dataset = datasets::create(channel, request, name).await.map_err(lost)?;
    if dataset.state == DatasetState::Committed {
        return Ok(dataset);
    }
    let progressed = dataset.rows > *stored;
    *stored = dataset.rows;
    if dataset.rows < content.rows {
        let sent = send_rest(channel, dataset.id, dataset.rows, rows, content).await?;
        sent.map_err(|status| Broken::Lost { status, progressed })?;
    }
    datasets::commit(channel, dataset.id).await.map_err(lost)
}

/// Sends what is not stored yet.
async fn send_rest(
    channel: &Channel,
    dataset: DatasetId,
    stored: u64,
    rows: &Rows,
    content: &Content,
) -> Result<Result<(), Status>, Broken> {
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let (rows, content) = (rows.clone(), content.clone());
    let sending = Sending { stored, chunks };
    let reading = tokio::task::spawn_blocking(move || sending.run(&rows, &content));
    let sent = datasets::append(channel, dataset, received).await;
    if let Err(error) = reading.await.unwrap_or_else(|panic| Err(panic.into())) {
        // The rows sent may differ from the content that names the upload: a later one must not continue behind them.
        let _ = datasets::delete(channel, dataset).await;
        return Err(Broken::Reading(error));
    }
    Ok(sent)
}

/// The thread that reads what is sent.
struct Sending {
    stored: u64,
    chunks: mpsc::Sender<Chunk>,
}

impl Sending {
    /// Sends what is not stored yet. It ends early where the connection does, which has its own error.
    fn run(&self, rows: &Rows, content: &Content) -> anyhow::Result<()> {
        let mut progress = (content.rows >= ROWS_SHOWN_MIN).then(|| Progress::start("upload"));
        let mut reading = Reading::default();
        let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK_ROWS), 0);
        for row in rows.read() {
            let row = row?;
            reading.note(&row);
            if reading.rows <= self.stored {
                continue;
            }
            bytes += row.bytes();
            chunk.push(row);
            if chunk.len() == CHUNK_ROWS || bytes >= wire::CHUNK_BYTES_MAX {
                bytes = 0;
                if !self.send(reading.rows, std::mem::take(&mut chunk)) {
                    return Ok(());
                }
                if let Some(progress) = &mut progress {
                    progress.update(reading.rows, content.rows, "rows", "");
                }
            }
        }
        let rows = reading.rows;
        if reading.content() != *content {
            return Err(
                Usage("the rows changed while they were read: run the command again".to_owned()).into()
            );
        }
        if (chunk.is_empty() || self.send(rows, chunk))
            && let Some(progress) = progress
        {
            progress.finish(&format!("{rows} rows"));
        }
        Ok(())
    }

    /// Sends a chunk whose last row is the `end`-th. Returns whether there is still a connection to send to.
    fn send(&self, end: u64, rows: Vec<Example>) -> bool {
        let chunk = Chunk { offset: end - rows.len() as u64, rows };
        self.chunks.blocking_send(chunk).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples(count: usize) -> Rows {
        let example = |place: usize| Example { input: format!("row {place}"), ..Example::default() };
        Rows::Here((0..count).map(example).collect())
    }

    fn sent(stored: u64, rows: &Rows, content: &Content) -> anyhow::Result<Vec<(u64, usize)>> {
        let (chunks, mut received) = mpsc::channel(64);
        let sending = Sending { stored, chunks };
        let ended = sending.run(rows, content);
        drop(sending);
        let mut sent = Vec::new();
        while let Some(chunk) = received.blocking_recv() {
            sent.push((chunk.offset, chunk.rows.len()));
        }
        ended.map(|()| sent)
    }

    fn content_of(rows: &Rows) -> Content {
        let mut reading = Reading::default();
        rows.read().flatten().for_each(|row| reading.note(&row));
        reading.content()
    }

    #[test]
    fn an_upload_resumes_behind_the_stored_rows() {
        let rows = examples(1200);
        let content = content_of(&rows);
        assert_eq!(sent(0, &rows, &content).ok(), Some(vec![(0, 500), (500, 500), (1000, 200)]));
        assert_eq!(sent(700, &rows, &content).ok(), Some(vec![(700, 500)]));
        assert_eq!(sent(900, &rows, &content).ok(), Some(vec![(900, 300)]));
    }

    /// 600 documents of 40 kB: many small messages, of which each goes through.
    #[test]
    fn chunks_of_long_rows_have_fewer_of_them() {
        let example = |place: usize| Example {
            input: format!("row {place}{}", " long".repeat(8_000)),
            ..Example::default()
        };
        let rows = Rows::Here((0..600).map(example).collect());
        let content = content_of(&rows);
        let sent = sent(0, &rows, &content).unwrap();
        assert!(sent.iter().all(|(_, count)| count * 40_000 <= 4 << 20), "{sent:?}");
        assert_eq!(sent.len(), 12, "{sent:?}");
        assert_eq!(sent.iter().map(|(_, count)| count).sum::<usize>(), 600);
    }

    #[test]
    fn rows_that_changed_since_they_were_checked_are_refused() {
        let content = content_of(&examples(1200));
        let error = sent(0, &examples(1201), &content).map(drop);
        assert!(error.is_err_and(|error| error.to_string().contains("changed while they were read")));
    }

    #[test]
    fn nothing_is_read_for_a_connection_that_is_gone() {
        let (chunks, received) = mpsc::channel(1);
        drop(received);
        let sending = Sending { stored: 0, chunks };
        assert!(sending.run(&examples(1200), &Content::default()).is_ok());
    }
}
