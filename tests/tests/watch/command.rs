//! Runs the programs that check dashboards and alerts.

use std::process::{Command, Output, Stdio};

/// Runs a program to its end.
pub(crate) fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
