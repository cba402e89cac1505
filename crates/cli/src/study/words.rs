//! What a study found, for people: the same words on the terminal and on the page.

use crate::report::{grouped, percent};
use domain::spec::StudentSize;
use domain::study::{Answer, Arm, Measured, Results, Setting};
use domain::visible;

/// The header of [`settings`].
pub(crate) const SETTINGS: [&str; 7] =
    ["", "rows", "accuracy", "95% interval", "with a label", "teacher's rows", "parameters"];
/// The header of [`questions`].
pub(crate) const QUESTIONS: [&str; 6] =
    ["paired, in points", "rows", "difference", "95% interval", "p (Holm)", "finding"];

/// A share of the rows in points, with its sign.
pub(crate) fn points(share: f64) -> String {
    // Rounded first: there is no -0.0.
    let points = (share * 1000.0).round() / 10.0;
    format!("{:+.1}", if points == 0.0 { 0.0 } else { points })
}

/// An interval of points.
pub(crate) fn points_interval(low: f64, high: f64) -> String {
    format!("{} to {}", points(low), points(high))
}

/// An interval of shares.
pub(crate) fn percent_interval(low: f64, high: f64) -> String {
    format!("{} to {}", percent(low), percent(high))
}

/// A fraction of the rows as `25%` or `12.5%`.
pub(crate) fn fraction(setting: Setting) -> String {
    format!("{}%", (setting.fraction() * 1e6).round() / 1e4)
}

/// An arm, with the student's size where there are several.
fn name(arm: Arm, size: Option<StudentSize>) -> String {
    size.map_or_else(|| arm.words(), |size| format!("{} ({size})", arm.words()))
}

/// A row for the teacher, and one for each setting.
pub(crate) fn settings(results: &Results) -> Vec<Vec<String>> {
    let dash = || "-".to_owned();
    let teacher = results.teacher.iter().map(|teacher| {
        let all = vec![
            format!("teacher {}", teacher.name),
            dash(),
            percent(teacher.accuracy),
            percent_interval(teacher.low, teacher.high),
            dash(),
            percent(teacher.accuracy),
            dash(),
        ];
        all
    });
    let student = |measured: &Measured| {
        vec![
            name(measured.setting.arm, measured.setting.size),
            fraction(measured.setting),
            percent(measured.accuracy),
            percent_interval(measured.low, measured.high),
            percent(measured.parsed),
            measured.on_teachers_rows.map_or_else(dash, percent),
            grouped(measured.parameters),
        ]
    };
    teacher.chain(results.settings.iter().map(student)).collect()
}

/// A row for each question.
pub(crate) fn questions(results: &Results) -> Vec<Vec<String>> {
    let row = |answer: &Answer| {
        vec![
            format!("{} less {}", name(answer.first.arm, answer.first.size), answer.against.words()),
            fraction(answer.first),
            points(answer.difference.value),
            points_interval(answer.difference.low, answer.difference.high),
            p_value(answer.p_table),
            answer.finding.to_string(),
        ]
    };
    results.questions.iter().map(row).collect()
}

fn p_value(value: f64) -> String {
    if value < 0.001 { "<0.001".to_owned() } else { format!("{value:.3}") }
}

/// Two sentences: what all rows say, and what the control and the size of the study leave open.
pub(crate) fn sentences(results: &Results) -> Vec<String> {
    let largest =
        results.settings.iter().rev().find(|measured| measured.setting.arm.objective.needs_rationales());
    let explained =
        results.settings.iter().find(|measured| measured.setting.arm.objective.needs_rationales());
    let (Some(largest), Some(explained)) = (largest, explained) else { return Vec::new() };
    let setting = Setting { arm: explained.setting.arm, ..largest.setting };
    let accuracy = |arm: Arm| {
        let wanted = Setting { arm, ..setting };
        results
            .settings
            .iter()
            .find(|measured| measured.setting == wanted)
            .map_or(0.0, |found| found.accuracy)
    };
    let Some(gain) = results.answer(setting, Arm::NONE) else { return Vec::new() };
    let mut sentences = vec![format!(
        "Learning {} from all rows, students are right on {} of {} test rows, and on {} with labels only: {} points \
         (95% interval {}), {}.",
        setting.arm.words(),
        percent(accuracy(setting.arm)),
        grouped(results.test_rows),
        percent(accuracy(Arm::NONE)),
        points(gain.difference.value),
        points_interval(gain.difference.low, gain.difference.high),
        gain.finding,
    )];
    let control =
        results.questions.iter().find(|answer| answer.first == setting && answer.against != Arm::NONE);
    if let Some(control) = control {
        sentences.push(format!(
            "Beside students that learn other rows' rationales the difference is {} points ({}), {}; differences below {:.1} \
             points would have been missed more often than once in five such studies.",
            points(control.difference.value),
            points_interval(control.difference.low, control.difference.high),
            control.finding,
            gain.smallest_difference * 100.0,
        ));
    }
    sentences
}

/// What it takes to know more, beneath the table.
pub(crate) fn power(results: &Results) -> String {
    let smallest = results.questions.iter().map(|answer| answer.smallest_difference).fold(0.0, f64::max);
    let rows = results.questions.iter().map(|answer| answer.rows_for_one_point).max_by_key(|rows| {
        // Where no number of rows is enough, that is the most.
        rows.unwrap_or(u64::MAX)
    });
    let one_point = match rows.flatten() {
        Some(rows) => format!("one point would take about {} test rows", grouped(rows)),
        None => "one point would take more seeds".to_owned(),
    };
    format!(
        "{} test rows, {} seeds, {} questions: every difference of {:.1} points is found in four of five such studies; {one_point}",
        grouped(results.test_rows),
        results.seeds.len(),
        results.questions.len(),
        smallest * 100.0,
    )
}

/// A text from outside, as it stands in a page.
pub(crate) fn html(outside: &str) -> String {
    let mut escaped = String::with_capacity(outside.len());
    for character in visible::lines(outside).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_is_no_markup() {
        let found = html("<script>\"&'\u{1b}[2J</script>\nb");
        assert_eq!(found, "&lt;script&gt;&quot;&amp;&#39;\\u{1b}[2J&lt;/script&gt;\nb");
    }

    #[test]
    fn points_have_a_sign_and_no_negative_zero() {
        for (share, expected) in [(0.024, "+2.4"), (-0.0004, "+0.0"), (-0.0251, "-2.5"), (0.0, "+0.0")] {
            assert_eq!(points(share), expected);
        }
        assert_eq!((p_value(0.0004), p_value(0.0123)), ("<0.001".to_owned(), "0.012".to_owned()));
    }
}
