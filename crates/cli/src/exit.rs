//! Exit codes: 0 done, 1 failed, 2 bad usage or bad specification, 130 interrupted.

use crate::terminal::say_error;
use domain::Fault;
use readers::ReadErrors;
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

/// Interrupted by the user or a signal: exit code 130.
#[derive(Debug)]
pub(crate) struct Interrupted(pub(crate) String);

impl fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Interrupted {}

/// Mistakes in a file are the user's; a disk that fails is not.
pub(crate) fn mistakes(errors: ReadErrors) -> anyhow::Error {
    match errors.fault() {
        Fault::Internal | Fault::Unavailable => anyhow::anyhow!("{errors}"),
        _ => Usage(errors.to_string()).into(),
    }
}

/// The error and its causes, each once: many errors repeat their cause in their own message.
fn words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

/// Prints the error on standard error, and returns the exit code.
pub(crate) fn code(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if error.is::<Interrupted>() {
        say_error(&error.to_string());
        return ExitCode::from(130);
    }
    // A reader that closed the pipe (`distillery export ... | head`) is not a failure.
    if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    say_error(&words(&error));
    let usage = error.is::<Usage>()
        || error.is::<crate::mistakes::Mistakes>()
        || error.is::<app::config::ConfigError>();
    ExitCode::from(if usage { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_printed_once() {
        let error = anyhow::anyhow!("no such file").context("spec.toml: no such file").context("run");
        assert_eq!(words(&error), "run: spec.toml: no such file");
    }
}
