//! What a student says of rows: opened from a folder, by its name, or at a server.

use crate::args::{ColumnArguments, ServerArguments};
use crate::client::call::{Patience, failure};
use crate::client::models::name_and_version;
use crate::client::student::{Prediction, Student, Wanted};
use crate::exit::{Usage, mistakes};
use crate::target::{self, Service};
use crate::upload::format_of;
use app::config::Config;
use app::student::NoModel;
use domain::Example;
use futures::{StreamExt, TryStreamExt};
use readers::{Options, Source};
use std::path::Path;

/// Rows sent to the student at once; it batches them.
const ROWS_AT_ONCE: usize = 64;

/// A student that answers.
pub(crate) struct Opened {
    pub(crate) student: Student,
    /// Where it is in this process.
    local: Option<app::student::Student>,
}

impl Opened {
    /// Opens `model`: a folder or a name in the data folder, or a name at the server that is given.
    pub(crate) async fn open(config: Config, model: &str, server: &ServerArguments) -> anyhow::Result<Self> {
        if let Some(urls) = server.url() {
            let (model, version) = name_and_version(model)?;
            let channel = target::find(&config.client, urls, server, Service::Answers).await?;
            return Ok(Self { student: Student { channel, model, version }, local: None });
        }
        let local = app::student::Student::open(config, model).await;
        let local = local.map_err(|error| match error.downcast_ref::<NoModel>() {
            Some(absent) => Usage(format!("--model: {absent}")).into(),
            None => error,
        })?;
        // The only student needs no name.
        let student = Student { channel: local.channel.clone(), model: String::new(), version: 0 };
        Ok(Self { student, local: Some(local) })
    }

    /// Stops answering.
    pub(crate) fn close(self) {
        if let Some(local) = self.local {
            local.close();
        }
    }
}

/// A row, and what the student said of it, or why it said nothing.
pub(crate) struct Answered {
    pub(crate) row: Example,
    pub(crate) answer: Result<Prediction, String>,
}

/// The rows of a file.
pub(crate) fn rows_of(file: &Path, columns: &ColumnArguments) -> anyhow::Result<Vec<Example>> {
    let source = Source { path: file.to_owned(), format: format_of(file)?, split: None };
    let options = Options { columns: columns.mapping()?, ..Options::default() };
    readers::rows(vec![source], options).collect::<Result<_, _>>().map_err(mistakes)
}

/// Passes each row's answer to `see`, in the order of the rows, as they come.
pub(crate) async fn each(
    student: &Student,
    rows: Vec<Example>,
    wanted: Wanted,
    mut see: impl FnMut(Answered) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let answers =
        futures::stream::iter(rows).map(|row| answer(student.clone(), row, wanted)).buffered(ROWS_AT_ONCE);
    let mut answers = std::pin::pin!(answers);
    while let Some(answered) = answers.try_next().await? {
        see(answered)?;
    }
    Ok(())
}

/// One row's answer, with retries where the server is overloaded or shutting down.
async fn answer(student: Student, row: Example, wanted: Wanted) -> anyhow::Result<Answered> {
    let mut patience = Patience::default();
    loop {
        let lost = match student.predict(row.clone(), wanted).await {
            Ok(answer) => return Ok(Answered { row, answer: Ok(answer) }),
            Err(status) if status.code() == tonic::Code::NotFound => {
                return Err(Usage(format!("--model: {}", status.message())).into());
            }
            Err(status) if is_of_one_row(&status) => {
                return Ok(Answered { row, answer: Err(status.message().to_owned()) });
            }
            Err(status) => status,
        };
        patience.wait(lost).await.map_err(failure)?;
    }
}

/// Whether a status concerns the row and not the server.
fn is_of_one_row(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition)
}
