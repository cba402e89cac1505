//! The page of one job: what came of it, how its student learnt, what became of the answers, what it cost, some examples.

use crate::client::call::failure;
use crate::client::runs;
use crate::html::{Amounts, answer, bill, document, row_head, table, write_whole};
use crate::job::Reported;
use crate::report::interval;
use crate::study::evidence::{self, TestRow};
use anyhow::Context;
use app::local::Local;
use app::pages::{Curves, grouped, html, percent};
use domain::metric::Accuracy;
use domain::state::{Reason, Verdict};
use domain::study::Answered;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Rows that are shown: where the rationale contradicts the label, wrong ones, right ones.
const EXAMPLES_OF_KIND: [usize; 3] = [4, 4, 4];
/// Writes the page of a job that succeeded into `folder`, and returns where it is.
pub(crate) async fn write(
    local: &Local,
    folder: &Path,
    reported: &Reported,
    specification: &str,
) -> anyhow::Result<PathBuf> {
    let (channel, job) = (local.channel(), &reported.job);
    let model = reported.model.as_ref().context("the job has no model")?;
    let test_rows = evidence::test_rows(channel, job.dataset, &job.spec.task).await?;
    let (mut answers, mut milliseconds) = (Vec::new(), None);
    if !test_rows.is_empty() {
        let said = local.test_answers(&model.path, &model.manifest_sha256).await?;
        milliseconds = said.milliseconds;
        let task = &job.spec.task;
        answers = said.rows.into_iter().map(|row| evidence::with_conclusion(task, &test_rows, row)).collect();
    }
    let curves = Curves::of(&runs::metrics(channel, model.run).await.map_err(failure)?);
    let page = Page { reported, curves, answers, milliseconds, test_rows, specification };
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(format!("{}.html", job.spec.name));
    write_whole(&path, page.file(&job.spec.name).as_bytes())?;
    Ok(path)
}

struct Page<'a> {
    reported: &'a Reported,
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
        page.push_str("<h2>How it learnt</h2>\n");
        self.curves.draw(page);
    }

    fn verdicts(&self, page: &mut String) {
        let harvest = &self.reported.harvest;
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
        let amounts = Amounts {
            calls: teacher.prompts,
            cache_hits: teacher.cached,
            tokens_in: teacher.tokens_in,
            tokens_out: teacher.tokens_out,
            money_micros: teacher.money_micros,
            seconds: [seconds.harvest, seconds.train, seconds.evaluate],
            milliseconds,
        };
        bill(page, "this job", amounts);
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
        row_head(page, input, row);
        answer(page, "", row);
        page.push_str("</article>\n");
    }
}
