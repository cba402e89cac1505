//! The page of one job: what came of it, how its student learnt, what became of the answers, what it cost, some examples.

use crate::client::call::failure;
use crate::client::{jobs, runs};
use crate::html::{document, html, shortened, table, write_whole};
use crate::job::Reported;
use crate::report::{grouped, interval, percent};
use crate::study::evidence::{self, TestRow};
use anyhow::Context;
use app::local::Local;
use domain::event::EventKind;
use domain::metric::Accuracy;
use domain::records::HarvestProgress;
use domain::state::{Reason, Verdict};
use domain::study::Answered;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use wire::{Channel, Watched};

/// The folder of these pages in the data folder.
pub(crate) const REPORTS: &str = "reports";
/// Rows that are shown: where the rationale contradicts the label, wrong ones, right ones.
const EXAMPLES_OF_KIND: [usize; 3] = [4, 4, 4];
/// Points of a curve that are kept: every other one is left out where there are more.
const POINTS_MAX: usize = 400;
/// The drawing, in its own units.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// The numbers of a training, by step.
#[derive(Default)]
struct Curve {
    points: Vec<(u64, f64)>,
    /// Of how many measurements one is kept.
    every: usize,
    seen: usize,
}

impl Curve {
    fn add(&mut self, step: u64, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.every = self.every.max(1);
        // A run that was taken up again reports steps anew.
        while self.points.last().is_some_and(|(last, _)| *last >= step) {
            self.points.pop();
        }
        self.seen = self.seen.wrapping_add(1);
        if self.seen.is_multiple_of(self.every) {
            self.points.push((step, value));
        }
        if self.points.len() > POINTS_MAX {
            self.every = self.every.saturating_mul(2);
            let mut place = 0_usize;
            self.points.retain(|_| {
                place = place.wrapping_add(1);
                place.is_multiple_of(2)
            });
        }
    }
}

#[derive(Default)]
struct Curves {
    label: Curve,
    rationale: Curve,
    validation: Curve,
}

/// Writes the page of a job that succeeded into `folder`, and returns where it is.
pub(crate) async fn write(
    local: &Local,
    folder: &Path,
    reported: &Reported,
    specification: &str,
) -> anyhow::Result<PathBuf> {
    let channel = local.channel();
    let jobs::Found { job, harvest, .. } = jobs::get(channel, reported.id).await.map_err(failure)?;
    let test_rows = evidence::test_rows(channel, job.dataset, &job.spec.task).await?;
    let mut answers = Vec::new();
    let mut milliseconds = None;
    if let Some(run) = job.run {
        let run = runs::get(channel, run).await.map_err(failure)?;
        if let Some(result) = run.result.as_ref().filter(|_| !test_rows.is_empty()) {
            let said = local.test_answers(result).await?;
            milliseconds = said.milliseconds;
            let task = &job.spec.task;
            answers =
                said.rows.into_iter().map(|row| evidence::with_conclusion(task, &test_rows, row)).collect();
        }
    }
    let curves = curves(channel, &job).await?;
    let page = Page { reported, harvest: &harvest, curves, answers, milliseconds, test_rows, specification };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(format!("{}.html", job.spec.name));
    write_whole(&path, page.file(&job.spec.name).as_bytes())?;
    Ok(path)
}

/// How the student of a job learnt: its events again, from the first one.
async fn curves(channel: &Channel, job: &domain::records::Distillation) -> anyhow::Result<Curves> {
    let mut curves = Curves::default();
    jobs::follow(channel, job.id, 0, |watched| {
        if let Watched::Event(event) = watched
            && let EventKind::TrainingProgress { run, step, metrics, .. } = event.kind
            && Some(run) == job.run
        {
            for (name, value) in metrics {
                match name.as_str() {
                    "loss_label" => curves.label.add(step, value),
                    "loss_rationale" => curves.rationale.add(step, value),
                    "validation_accuracy" => curves.validation.add(step, value),
                    _ => {}
                }
            }
        }
        Ok(())
    })
    .await?;
    Ok(curves)
}

struct Page<'a> {
    reported: &'a Reported,
    harvest: &'a HarvestProgress,
    curves: Curves,
    answers: Vec<Answered>,
    milliseconds: Option<f64>,
    test_rows: BTreeMap<u64, TestRow>,
    specification: &'a str,
}

impl Page<'_> {
    fn file(&self, name: &str) -> String {
        let mut page = String::new();
        self.accuracies(&mut page);
        self.learning(&mut page);
        self.verdicts(&mut page);
        self.bill(&mut page);
        self.examples(&mut page);
        let _ = writeln!(
            page,
            "<h2>The same again</h2>\n<p>With this specification, <code>distillery run SPEC</code>:</p>\n<pre>{}</pre>",
            html(self.specification)
        );
        document(name, "What the student learnt", &page)
    }

    fn accuracies(&self, page: &mut String) {
        let outcome = &self.reported.outcome;
        let parameters = outcome.student.parameters.map_or_else(|| "-".to_owned(), grouped);
        let row = |who: &str, accuracy: Accuracy, parameters: &str| {
            let rows = grouped(accuracy.rows);
            vec![who.to_owned(), percent(accuracy.value()), interval(accuracy), rows, parameters.to_owned()]
        };
        let teacher = self
            .reported
            .teacher
            .map(|accuracy| row(&format!("teacher {}", outcome.teacher.name), accuracy, "-"));
        let same = self
            .reported
            .student_on_teachers_rows
            .map(|accuracy| row("student, the same rows", accuracy, &parameters));
        let student = self.reported.student.map(|accuracy| row("student", accuracy, &parameters));
        let rows: Vec<Vec<String>> = [teacher, same, student].into_iter().flatten().collect();
        if rows.is_empty() {
            page.push_str("<p class=\"lead\">No test row has a label: nothing was measured.</p>\n");
            return;
        }
        table(page, "accuracies", &["", "accuracy", "95% interval", "test rows", "parameters"], &rows, 2);
    }

    fn learning(&self, page: &mut String) {
        page.push_str("<h2>How it learnt</h2>\n<div class=\"charts\">");
        let losses = [("loss of labels", &self.curves.label), ("loss of rationales", &self.curves.rationale)];
        chart(page, "loss, by step", &losses, |value| format!("{value:.2}"));
        chart(
            page,
            "accuracy on validation rows, by step",
            &[("accuracy", &self.curves.validation)],
            percent,
        );
        page.push_str("</div>\n");
    }

    fn verdicts(&self, page: &mut String) {
        let harvest = self.harvest;
        let mut rows = vec![vec!["accepted".to_owned(), grouped(harvest.with_verdict(Verdict::Accepted))]];
        for (reason, count) in Reason::ALL.iter().zip(harvest.reasons).filter(|(_, count)| *count > 0) {
            rows.push(vec![format!("rejected: {reason}"), grouped(count)]);
        }
        page.push_str("<h2>The teacher's answers about train rows</h2>\n");
        table(page, "verdicts", &["", "answers"], &rows, usize::MAX);
    }

    fn bill(&self, page: &mut String) {
        let (teacher, seconds) = (&self.reported.outcome.teacher, &self.reported.outcome.seconds);
        let milliseconds = self.milliseconds.map_or_else(|| "-".to_owned(), |time| format!("{time:.1}"));
        let rows = [
            ("calls to the teacher", grouped(teacher.prompts)),
            ("answers from the store", grouped(teacher.cached)),
            ("tokens in", grouped(teacher.tokens_in)),
            ("tokens out", grouped(teacher.tokens_out)),
            ("money", format!("{:.4}", teacher.money_micros as f64 / 1e6)),
            ("seconds of asking", format!("{:.1}", seconds.harvest)),
            ("seconds of training", format!("{:.1}", seconds.train)),
            ("seconds of measuring", format!("{:.1}", seconds.evaluate)),
            ("milliseconds of a student's answer", milliseconds),
        ];
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(what, much)| vec![what.to_owned(), much]).collect();
        page.push_str("<h2>The bill</h2>\n");
        table(page, "bill", &["", "this job"], &rows, usize::MAX);
    }

    fn examples(&self, page: &mut String) {
        let kind = |row: &&Answered| match (row.agrees, row.right) {
            (Some(false), _) => 0,
            (_, false) => 1,
            (_, true) => 2,
        };
        if self.answers.is_empty() {
            return;
        }
        page.push_str("<h2>Examples</h2>\n");
        for (wanted, most) in EXAMPLES_OF_KIND.iter().enumerate() {
            // Those that were explained say more.
            let explained = self.answers.iter().filter(|row| row.rationale.is_some());
            let silent = self.answers.iter().filter(|row| row.rationale.is_none());
            for row in explained.chain(silent).filter(|row| kind(row) == wanted).take(*most) {
                self.example(page, row);
            }
        }
    }

    fn example(&self, page: &mut String, row: &Answered) {
        let input = self.test_rows.get(&row.row).map_or("", |known| known.input.as_str());
        let said = if row.prediction.is_empty() { "no label" } else { row.prediction.as_str() };
        let word = if row.right { "better\">right" } else { "worse\">wrong" };
        let _ = write!(
            page,
            "<article><p>{}</p><p><small>row {}, right: {}</small></p><p>{} <span class=\"{word}</span>",
            html(&shortened(input)),
            row.row,
            html(&row.gold),
            html(said)
        );
        if let Some(rationale) = &row.rationale {
            let against = if row.agrees == Some(false) { " (which says otherwise)" } else { "" };
            let _ = write!(page, "<br><small>{}{against}</small>", html(&shortened(rationale)));
        }
        page.push_str("</p></article>\n");
    }
}

/// Curves over the steps, in one drawing; nothing where they have no point.
fn chart(page: &mut String, title: &str, curves: &[(&str, &Curve)], shown: impl Fn(f64) -> String) {
    let points = || curves.iter().flat_map(|(_, curve)| &curve.points);
    let Some(last) = points().map(|(step, _)| *step).max() else { return };
    let most = points().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let x = |step: u64| LEFT + (WIDTH - LEFT - RIGHT) * step as f64 / last.max(1) as f64;
    let y = |value: f64| TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value / most);
    let _ =
        write!(page, "<figure><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">");
    for part in 0..=4_u32 {
        let value = most * f64::from(part) / 4.0;
        let _ = write!(
            page,
            "<path d=\"M{LEFT} {0:.1}H{1:.1}\" stroke=\"var(--line)\" stroke-width=\"1\"/><text x=\"{2:.1}\" y=\"{3:.1}\" \
             text-anchor=\"end\">{4}</text>",
            y(value),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0,
            shown(value)
        );
    }
    for step in [0, last / 2, last] {
        let _ = write!(
            page,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            x(step).min(WIDTH - 24.0),
            HEIGHT - 8.0,
            grouped(step)
        );
    }
    let mut key = Vec::new();
    for (place, (name, curve)) in (1..).zip(curves).filter(|(_, (_, curve))| !curve.points.is_empty()) {
        let line: Vec<String> =
            curve.points.iter().map(|(step, value)| format!("{:.1},{:.1}", x(*step), y(*value))).collect();
        let dash = if place == 1 { "none" } else { "7 4" };
        let _ = write!(
            page,
            "<polyline class=\"a{place}\" points=\"{}\" style=\"fill:none\" stroke-width=\"2\" stroke-dasharray=\"{dash}\"/>",
            line.join(" ")
        );
        key.push(if place == 1 { format!("{name} (solid)") } else { format!("{name} (dashed)") });
    }
    let key = if key.len() > 1 { format!(": {}", key.join(", ")) } else { String::new() };
    let _ = write!(page, "</svg><figcaption>{title}{key}</figcaption></figure>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_is_thinned_and_taken_up_again() {
        let mut curve = Curve::default();
        (0..5_000).for_each(|step| curve.add(step, 1.0));
        assert!((100..=POINTS_MAX).contains(&curve.points.len()), "{}", curve.points.len());
        let mut curve = Curve::default();
        for step in [10, 20, 30, 20, 30] {
            curve.add(step, step as f64);
        }
        curve.add(40, f64::NAN);
        let steps: Vec<u64> = curve.points.iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, [10, 20, 30]);
    }
}
