//! Progress for people: bars on a terminal, plain lines elsewhere.

use crate::terminal::{self, is_watched, say};
use domain::visible;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// Plain lines come this often.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Columns before the numbers of a bar: its phase, itself, and the spaces around it.
const BEFORE: usize = 10 + 1 + 16 + 1;

/// One phase's progress, on standard error.
pub(crate) struct Progress {
    bar: ProgressBar,
    phase: &'static str,
    plain: Option<Plain>,
    started: Instant,
    /// Where the counting began: what was done by an earlier run does not count into the speed.
    begin: Option<u64>,
}

struct Plain {
    last: Option<Instant>,
}

impl Progress {
    /// A phase of `total` units named `unit`.
    pub(crate) fn start(phase: &'static str) -> Self {
        let bar = terminal::bar();
        let template = "{prefix:>10} {bar:16} {pos}/{len} {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(phase);
        let plain = (!is_watched()).then_some(Plain { last: None });
        Self { bar, phase, plain, started: Instant::now(), begin: None }
    }

    /// Units done of all, and what else there is to say.
    pub(crate) fn update(&mut self, done: u64, total: u64, unit: &str, words: &str) {
        let begin = *self.begin.get_or_insert(done);
        let speed = done.saturating_sub(begin) as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let left = time_left(total.saturating_sub(done), speed);
        let message = format!("{speed:.1} {unit}/s{left}{}{words}", if words.is_empty() { "" } else { ", " });
        self.bar.set_length(total);
        self.bar.set_position(done);
        let shown = visible::line(&message);
        self.bar.set_message(match terminal::bar_columns() {
            Some(columns) => within(columns, done, total, &shown),
            None => shown.into_owned(),
        });
        if let Some(plain) = &mut self.plain
            && plain.last.is_none_or(|last| last.elapsed() >= LINE_EVERY)
        {
            plain.last = Some(Instant::now());
            say(&format!("{}: {done}/{total} {message}", self.phase));
        }
    }

    /// The phase is over: its last line stays.
    pub(crate) fn finish(self, words: &str) {
        self.bar.finish_and_clear();
        say(&format!("{}: {words} ({:.1} s)", self.phase, self.started.elapsed().as_secs_f64()));
    }
}

/// What fits behind the numbers of a bar, with a mark where more was cut: what wraps is drawn again below itself.
fn within(columns: usize, done: u64, total: u64, message: &str) -> String {
    let numbers = format!("{done}/{total} ").len();
    console::truncate_str(message, columns.saturating_sub(BEFORE + numbers), "\u{2026}").into_owned()
}

fn time_left(remaining: u64, speed: f64) -> String {
    if remaining == 0 || speed < 1e-6 {
        return String::new();
    }
    format!(", {} left", spoken((remaining as f64 / speed).round() as u64))
}

/// A time as people tell it.
pub(crate) fn spoken(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_leaves_room_and_says_where_it_is_cut() {
        let message = "31.3 steps/s, 21 s left, label loss 0.001, rationale loss 0.010, 1002 examples/s";
        assert_eq!(within(76, 233, 900, message), "31.3 steps/s, 21 s left, label loss 0.0\u{2026}");
        assert_eq!(within(156, 233, 900, message), message);
        assert!(within(20, 233, 900, message).chars().count() <= 1);
    }

    #[test]
    fn time_left_is_told_as_people_tell_it() {
        assert_eq!(time_left(30, 1.0), ", 30 s left");
        assert_eq!(time_left(90, 1.0), ", 1 min 30 s left");
        assert_eq!(time_left(7300, 1.0), ", 2 h 1 min left");
        assert_eq!(time_left(10, 0.0), "");
    }
}
