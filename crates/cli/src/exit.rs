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

/// The error and its causes, each said once: many errors have their cause in their own words already.
fn words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

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
    eprintln!("distillery: {}", words(&error));
    let usage = error.is::<Usage>()
        || error.is::<crate::spec_file::SpecError>()
        || error.is::<app::config::ConfigError>();
    ExitCode::from(if usage { 2 } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("no such file").context("spec.toml: no such file").context("run");
        assert_eq!(words(&error), "run: spec.toml: no such file");
    }
}
