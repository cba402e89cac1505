//! What a person sees: bars, tables and errors on a terminal of either width, piped, and without colours.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests fail loudly too"
)]

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;
use tests::binary;
use tests::data::{SpecText, teach};
use tests::folder::{Folder, Said};
use tests::screen::Screen;
use tests::teacher::Teacher;

const ROWS: [usize; 3] = [40, 8, 12];
const RUN: &[&str] = &["run", "spec.toml"];
/// Long enough that bars are drawn while the teacher is asked.
const DELAY: Duration = Duration::from_millis(60);

fn job() -> Folder {
    Folder::with_problems(ROWS, &SpecText::default()).unwrap()
}

fn said(mut command: Command, teacher: &Teacher) -> Said {
    command.env("DISTILLERY_TEACHER_URL", teacher.url());
    binary::output(command).unwrap().into()
}

fn on_terminal(job: &Folder, columns: usize, teacher: &Teacher, arguments: &[&str]) -> (i32, Screen, String) {
    let said = said(binary::command_on_terminal(job.path(), columns, arguments).unwrap(), teacher);
    (said.code, Screen::after(columns, &said.out), said.out)
}

/// Whether a line is a bar: a phase to the right of its column, and figures.
fn is_bar(line: &str) -> bool {
    let phase = line.trim_start();
    line.starts_with("  ") && ["harvest ", "training "].iter().any(|name| phase.starts_with(name))
}

#[test]
fn bars_fit_their_terminal_and_leave_nothing_behind() {
    let teacher = Teacher::start(|asked| teach(&asked.prompt).after(DELAY)).unwrap();
    for columns in [80, 160] {
        let job = job();
        let (code, screen, written) = on_terminal(&job, columns, &teacher, RUN);
        let lines = screen.lines();
        let shown = lines.join("\n");
        assert_eq!(code, 0, "{shown}");
        assert!(written.contains("prompts/s"), "a bar was drawn: {written}");
        let stayed: Vec<&String> = lines.iter().filter(|line| is_bar(line)).collect();
        assert!(stayed.is_empty(), "{columns}: {stayed:?} in\n{shown}");
        let wrapped: Vec<&String> = screen.wrapped().iter().filter(|line| is_bar(line)).collect();
        assert!(wrapped.is_empty(), "{columns}: {wrapped:?}");
        for wanted in
            ["teacher on the test rows: ", "harvest: accepted ", "training: trained (", "published: job@1"]
        {
            assert!(lines.iter().any(|line| line.starts_with(wanted)), "wanted {wanted:?} in\n{shown}");
        }
        let (_, screen, _) = on_terminal(&job, columns, &teacher, &["list"]);
        assert!(screen.wrapped().is_empty(), "{:?}", screen.lines());
    }
}

#[test]
fn who_presses_ctrl_c_reads_a_sentence_and_no_log() {
    for columns in [80, 160] {
        let teacher = Teacher::start(|asked| teach(&asked.prompt).after(DELAY * 16)).unwrap();
        let job = job();
        let mut command = binary::command_on_terminal(job.path(), columns, RUN).unwrap();
        command.env("DISTILLERY_TEACHER_URL", teacher.url()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A bar is on the screen, which is drawn when some answers are there.
        assert!(binary::wait_until(&mut child, Duration::from_secs(60), || teacher.requests() > 24).unwrap());
        let mut keys = child.stdin.take().unwrap();
        keys.write_all(b"\x03").unwrap();
        keys.flush().unwrap();
        let said: Said = binary::finish(child).unwrap().into();
        drop(keys);
        let screen = Screen::after(columns, &said.out);
        let shown = screen.lines().join("\n");
        assert_eq!(said.code, 130, "{shown}");
        assert!(said.out.contains("prompts/s"), "a bar was drawn: {:?}", said.out);
        assert!(shown.contains("shutting down when what was begun here is done"), "{shown}");
        assert!(shown.contains("distillery: interrupted: run the same command again to resume"), "{shown}");
        assert!(
            !shown.contains("WARN") && !screen.lines().iter().any(|line| is_bar(line)),
            "{shown}\n{:?}",
            said.out
        );
    }
}

#[test]
fn colours_are_for_terminals_of_those_who_want_them() {
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let job = job();
    let logged = ["list"];
    let is_coloured = |command: Command| {
        let mut command = command;
        command.env("DISTILLERY_LOG_LEVEL", "debug");
        let said = said(command, &teacher);
        (said.out + &said.err).contains("\u{1b}[")
    };
    for arguments in [&logged[..], &["lst"]] {
        let terminal = || binary::command_on_terminal(job.path(), 80, arguments).unwrap();
        assert!(is_coloured(terminal()), "{arguments:?}");
        let mut plain = terminal();
        plain.env("NO_COLOR", "1");
        assert!(!is_coloured(plain), "{arguments:?}");
        assert!(!is_coloured(binary::command(job.path(), arguments).unwrap()), "{arguments:?} into a pipe");
    }
    let piped = job.say(teacher.url(), RUN).unwrap();
    assert_eq!(piped.code, 0, "{}", piped.err);
    assert!(!piped.err.contains(['\u{1b}', '\r']) && piped.err.contains("harvest: "), "{}", piped.err);
}

#[test]
fn a_job_is_shown_with_what_it_came_to() {
    let teacher = Teacher::start(|asked| teach(&asked.prompt)).unwrap();
    let job = job();
    let ran = job.say(teacher.url(), RUN).unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    let shown = job.say(teacher.url(), &["show", "job"]).unwrap();
    for (name, wanted) in [
        ("tokens", "in "),
        ("teacher", "% to "),
        ("run", "succeeded, step 4 of at most 4, "),
        ("test", "12 rows)"),
        ("validation", "8 rows)"),
        ("seconds", "training "),
        ("model", "job@1, "),
    ] {
        let line = shown.out.lines().find(|line| line.split_whitespace().next() == Some(name));
        assert!(
            line.is_some_and(|line| line.contains(wanted)),
            "{name}: wanted {wanted:?} in\n{}",
            shown.out
        );
    }
    let json = job.say(teacher.url(), &["show", "job", "--json"]).unwrap().json().unwrap();
    assert_eq!((&json["training"]["state"], &json["training"]["step"]), (&"succeeded".into(), &4.into()));
    assert_eq!((&json["student"]["model"], &json["student"]["test"]["rows"]), (&"job@1".into(), &12.into()));
}
