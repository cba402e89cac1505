//! Uploads: rows are read twice, once to be checked and known by their content, once to be sent. A file of any length
//! costs the memory of a few chunks.

use crate::client::{Patience, failure, request_id};
use crate::commands::rows::mistakes;
use crate::exit::Usage;
use crate::progress::Progress;
use anyhow::anyhow;
use domain::Example;
use readers::{Options, Source};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use wire::Channel;
use wire::v1;
use wire::v1::datasets_service_client::DatasetsServiceClient;

/// Rows of one uploaded chunk.
const CHUNK_ROWS: usize = 500;
/// Chunks that are read ahead of the connection.
const CHUNKS_AHEAD: usize = 2;
/// Uploads of fewer rows are over before anybody asks how far they are.
const ROWS_SHOWN_MIN: u64 = 20_000;

/// Rows that can be read from the first one again and again.
#[derive(Clone)]
pub(crate) enum Rows {
    /// Those of files, one file after another.
    Files(Vec<Source>, Options),
    /// Those at hand.
    Here(Arc<[Example]>),
}

impl Rows {
    fn read(&self) -> Box<dyn Iterator<Item = anyhow::Result<Example>> + Send> {
        match self {
            Self::Files(sources, options) => {
                let rows = readers::rows(sources.clone(), options.clone());
                Box::new(rows.map(|row| row.map_err(mistakes)))
            }
            Self::Here(rows) => {
                let rows = Arc::clone(rows);
                Box::new((0..rows.len()).filter_map(move |place| rows.get(place).cloned()).map(Ok))
            }
        }
    }
}

/// By what an upload is known before it is made: how many rows, and the sha256 over all of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Content {
    rows: u64,
    sha256: Vec<u8>,
}

/// Counts and hashes rows as they pass.
#[derive(Default)]
struct Reading {
    rows: u64,
    hasher: Sha256,
}

impl Reading {
    fn note(&mut self, row: &Example) -> anyhow::Result<()> {
        self.rows += 1;
        self.hasher.update(serde_json::to_vec(row)?);
        self.hasher.update(b"\n");
        Ok(())
    }

    fn content(self) -> Content {
        Content { rows: self.rows, sha256: self.hasher.finalize().to_vec() }
    }
}

/// Uploads rows by their content: rows that are there already are not sent again, and an interrupted upload goes on, here
/// after a lost connection and in a later call after more than that. Nothing is sent of rows with a mistake in them.
pub(crate) async fn upload(channel: &Channel, name: &str, rows: Rows) -> anyhow::Result<v1::Dataset> {
    let content = content(rows.clone()).await?;
    let request = v1::CreateDatasetRequest {
        request_id: request_id(&[b"dataset", name.as_bytes(), &content.sha256]),
        name: name.to_owned(),
    };
    let mut patience = Patience::default();
    let mut stored = 0;
    loop {
        let lost = match upload_rest(channel, &request, &rows, &content, &mut stored).await {
            Ok(dataset) => return dataset.ok_or_else(|| anyhow!("the server sent no dataset")),
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

/// Reads all rows once. Where nobody waits for it any more, it stops.
async fn content(rows: Rows) -> anyhow::Result<Content> {
    let (waits, waited_for) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let read = || {
            let mut reading = Reading::default();
            for row in rows.read().take_while(|_| !waits.is_closed()) {
                reading.note(&row?)?;
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
    /// The server's word, or that of the connection; and whether the server is further than at the attempt before.
    Lost { status: Status, progressed: bool },
}

/// One attempt, from where the server is: `stored` is set to that.
async fn upload_rest(
    channel: &Channel,
    request: &v1::CreateDatasetRequest,
    rows: &Rows,
    content: &Content,
    stored: &mut u64,
) -> Result<Option<v1::Dataset>, Broken> {
    let mut datasets = DatasetsServiceClient::new(channel.clone());
    let lost = |status| Broken::Lost { status, progressed: false };
    let created = datasets.create_dataset(request.clone()).await.map_err(lost)?.into_inner();
    let Some(dataset) = created.dataset else { return Ok(None) };
    if dataset.state() == v1::DatasetState::Committed {
        return Ok(Some(dataset));
    }
    let progressed = dataset.rows > *stored;
    *stored = dataset.rows;
    let id = dataset.id;
    if dataset.rows < content.rows {
        let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
        let (rows, content) = (rows.clone(), content.clone());
        let sending = Sending { dataset: id.clone(), stored: dataset.rows, chunks };
        let reading = tokio::task::spawn_blocking(move || sending.run(&rows, &content));
        let sent = datasets.upload_rows(ReceiverStream::new(received)).await;
        if let Err(error) = reading.await.unwrap_or_else(|panic| Err(panic.into())) {
            // What was sent may be no part of what was promised: a later upload shall not go on behind it.
            let _ = datasets.delete_dataset(v1::DeleteDatasetRequest { dataset_id: id }).await;
            return Err(Broken::Reading(error));
        }
        sent.map_err(|status| Broken::Lost { status, progressed })?;
    }
    let committed =
        datasets.commit_dataset(v1::CommitDatasetRequest { dataset_id: id }).await.map_err(lost)?;
    Ok(committed.into_inner().dataset)
}

/// The thread that reads what is sent.
struct Sending {
    dataset: String,
    stored: u64,
    chunks: mpsc::Sender<v1::UploadRowsRequest>,
}

impl Sending {
    /// Sends what is not stored yet. It ends early where the connection does, which has its own error.
    fn run(&self, rows: &Rows, content: &Content) -> anyhow::Result<()> {
        let mut progress = (content.rows >= ROWS_SHOWN_MIN).then(|| Progress::start("upload"));
        let mut reading = Reading::default();
        let mut chunk = Vec::with_capacity(CHUNK_ROWS);
        for row in rows.read() {
            let row = row?;
            reading.note(&row)?;
            if reading.rows <= self.stored {
                continue;
            }
            chunk.push(row.into());
            if chunk.len() == CHUNK_ROWS {
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
            return Err(Usage("the rows changed while they were read: run it again".to_owned()).into());
        }
        if (chunk.is_empty() || self.send(rows, chunk))
            && let Some(progress) = progress
        {
            progress.finish(&format!("{rows} rows"));
        }
        Ok(())
    }

    /// Sends a chunk whose last row is the `end`-th. Says whether there is still somebody to send to.
    fn send(&self, end: u64, examples: Vec<v1::Example>) -> bool {
        let chunk = v1::UploadRowsRequest {
            dataset_id: self.dataset.clone(),
            offset: end - examples.len() as u64,
            examples,
        };
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
        let (chunks, mut received) = mpsc::channel(16);
        let sending = Sending { dataset: "d".to_owned(), stored, chunks };
        let ended = sending.run(rows, content);
        drop(sending);
        let mut sent = Vec::new();
        while let Some(chunk) = received.blocking_recv() {
            sent.push((chunk.offset, chunk.examples.len()));
        }
        ended.map(|()| sent)
    }

    fn content_of(rows: &Rows) -> Content {
        let mut reading = Reading::default();
        rows.read().flatten().for_each(|row| drop(reading.note(&row)));
        reading.content()
    }

    #[test]
    fn an_upload_goes_on_behind_what_is_stored() {
        let rows = examples(1200);
        let content = content_of(&rows);
        assert_eq!(sent(0, &rows, &content).ok(), Some(vec![(0, 500), (500, 500), (1000, 200)]));
        assert_eq!(sent(700, &rows, &content).ok(), Some(vec![(700, 500)]));
        assert_eq!(sent(900, &rows, &content).ok(), Some(vec![(900, 300)]));
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
        let sending = Sending { dataset: "d".to_owned(), stored: 0, chunks };
        assert!(sending.run(&examples(1200), &Content::default()).is_ok());
    }
}
