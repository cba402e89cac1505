//! Exit codes: 0 done, 1 failed, 2 bad usage or bad specification, 130 interrupted.

use std::fmt;
use std::process::ExitCode;

/// A mistake of the user's: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// The user ended it, or a signal did: exit code 130.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Says what went wrong on standard error, and turns it into the exit code.
#[allow(clippy::print_stderr, reason = "this is where errors are shown")]
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.is::<Interrupted>() {
        eprintln!("distillery: {error}");
        return ExitCode::from(130);
    }
    // A reader that left (`distillery export ... | head`) is no failure of ours.
    if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("distillery: {error:#}");
    let usage = error.is::<Usage>() || error.is::<crate::spec_file::SpecError>();
    ExitCode::from(if usage { 2 } else { 1 })
}
