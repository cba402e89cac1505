//! `report.html`: one file that reads the same on a phone, on a desk and on paper; no script, nothing that is fetched.
//!
//! Every text that comes from outside (names, labels, rows, the specification) passes [`html`].

use super::chart;
use super::words;
use crate::html::{Amounts, answer, bill, document, html, row_head, table};
use domain::study::{Answered, Answers, Arm, Results};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How many rows are shown of each kind, in the order of [`kind`].
const EXAMPLES_OF_KIND: [usize; 5] = [3, 3, 2, 2, 2];

/// What a page shows.
pub(crate) struct Page<'a> {
    pub(crate) results: &'a Results,
    pub(crate) bill: &'a Value,
    pub(crate) students: &'a [Answers],
    /// The texts of the test rows, by row.
    pub(crate) inputs: &'a BTreeMap<u64, String>,
    /// The specification as it was typed.
    pub(crate) specification: &'a str,
}

/// A row, and what each arm's student said of it.
type Example<'a> = (u64, Vec<(Arm, &'a Answered)>);

impl Page<'_> {
    /// The whole file.
    pub(crate) fn file(&self) -> String {
        let mut page = String::new();
        for sentence in words::sentences(self.results) {
            let _ = writeln!(page, "<p class=\"lead\">{}</p>", html(&sentence));
        }
        chart::charts(&mut page, self.results);
        self.tables(&mut page);
        self.details(&mut page);
        self.bill(&mut page);
        self.examples(&mut page);
        let _ = writeln!(
            page,
            "<h2>The same again</h2>\n<p>With this specification, <code>distillery study SPEC</code>:</p>\n<pre>{}</pre>",
            html(self.specification)
        );
        document(&self.results.study, "Was the teacher worth it?", &page)
    }

    fn tables(&self, page: &mut String) {
        page.push_str("<h2>Every setting</h2>\n");
        // An interval stands beneath its number: a phone is narrow.
        table(page, "settings", &words::SETTINGS, &words::settings(self.results), 3);
        page.push_str("<h2>Every question</h2>\n");
        table(page, "questions", &words::QUESTIONS, &words::questions(self.results), 3);
        let _ = writeln!(page, "<p id=\"power\">{}.</p>", html(&words::power(self.results)));
        page.push_str(
            "<p class=\"soft\">Intervals are for other rows and other seeds. better and worse: the interval is beyond zero, and \
             Holm's test over all questions agrees. no difference: the interval is inside the margin",
        );
        let _ = writeln!(
            page,
            " of {:.1} points. not decided: more rows or seeds are needed.</p>",
            self.results.margin * 100.0
        );
    }

    /// What lies beneath the accuracies of the students of all rows.
    fn details(&self, page: &mut String) {
        let plain = |page: &mut String, id: &str, header: &[String], rows: &[Vec<String>]| {
            let header: Vec<&str> = header.iter().map(String::as_str).collect();
            table(page, id, &header, rows, usize::MAX);
        };
        let classes = words::classes(self.results);
        if !classes.is_empty() {
            page.push_str("<h2>By label</h2>\n");
            plain(page, "classes", &words::classes_header(self.results), &classes);
        }
        let trust = words::trust(self.results);
        if !trust.is_empty() {
            page.push_str(
                "<h2>Can the rationales be trusted?</h2>\n<p class=\"soft\">Of rationales of test rows: how many come to a label by \
                 themselves, how many of these to the label that the student predicts, and how many of their words the \
                 teacher's have too. None of it is part of the accuracies.</p>\n",
            );
            table(page, "trust", &words::TRUST, &trust, usize::MAX);
        }
        let routing = words::routing(self.results);
        if !routing.is_empty() {
            page.push_str(
                "<h2>Answer or ask</h2>\n<p class=\"soft\">Right answers where the rows of which a student is least sure go to the \
                 teacher.</p>\n",
            );
            plain(page, "routing", &words::routing_header(self.results), &routing);
            for sentence in words::kept(self.results, self.bill) {
                let _ = writeln!(page, "<p>{}</p>", html(&sentence));
            }
        }
    }

    fn bill(&self, page: &mut String) {
        let count = |name: &str| self.bill.get(name).and_then(Value::as_u64).unwrap_or(0);
        let seconds = |name: &str| {
            self.bill.pointer(&format!("/seconds/{name}")).and_then(Value::as_f64).unwrap_or(0.0)
        };
        let amounts = Amounts {
            calls: count("calls"),
            cache_hits: count("cache_hits"),
            tokens_in: count("tokens_in"),
            tokens_out: count("tokens_out"),
            money_micros: count("money_micros"),
            seconds: ["harvest", "train", "evaluate"].map(seconds),
            milliseconds: self.milliseconds(),
        };
        bill(page, "the whole study", amounts);
    }

    /// From the fastest student to the slowest.
    fn milliseconds(&self) -> String {
        let cells = self.bill.get("cells").and_then(Value::as_object);
        let times = || {
            let cells = cells.into_iter().flat_map(serde_json::Map::values);
            cells.filter_map(|cell| cell.get("milliseconds").and_then(Value::as_f64))
        };
        match times().next() {
            Some(_) => {
                format!("{:.1} to {:.1}", times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max))
            }
            None => "-".to_owned(),
        }
    }

    /// Rows that say something: of the students of all rows and the first seed, first those on which two arms differ.
    fn examples(&self, page: &mut String) {
        let chosen = self.chosen();
        if chosen.is_empty() {
            return;
        }
        page.push_str("<h2>Examples</h2>\n<p class=\"soft\">Test rows, answered by the students of all rows and the first seed.</p>\n");
        for (row, answers) in chosen {
            let input = self.inputs.get(&row).map_or("", String::as_str);
            if let Some((_, first)) = answers.first() {
                row_head(page, input, first);
            }
            for (arm, answered) in answers {
                answer(page, &format!("{}: ", arm.words()), answered);
            }
            page.push_str("</article>\n");
        }
    }

    fn chosen(&self) -> Vec<Example<'_>> {
        let most = self.students.iter().map(|student| student.cell.setting.millionths).max();
        let first = self.students.first();
        let shown: Vec<&Answers> = self
            .students
            .iter()
            .filter(|student| Some(student.cell.setting.millionths) == most)
            .filter(|student| first.is_some_and(|first| student.cell.seed == first.cell.seed))
            .filter(|student| first.is_some_and(|first| student.cell.setting.size == first.cell.setting.size))
            .collect();
        let rows = first.map_or(0, |first| first.rows.len());
        let mut kinds: Vec<Vec<Example<'_>>> = vec![Vec::new(); EXAMPLES_OF_KIND.len()];
        for place in 0..rows {
            let answers: Vec<(Arm, &Answered)> = shown
                .iter()
                .filter_map(|student| Some((student.cell.setting.arm, student.rows.get(place)?)))
                .collect();
            let [(_, one), (_, other), ..] = answers.as_slice() else { continue };
            let (row, place) = (one.row, kind(one, other));
            let most = EXAMPLES_OF_KIND.get(place).copied().unwrap_or(0);
            if let Some(kind) = kinds.get_mut(place).filter(|kind| kind.len() < most) {
                kind.push((row, answers));
            }
        }
        kinds.into_iter().flatten().collect()
    }
}

/// A rationale that contradicts its answer; else by which of the first two arms is right: only the second, only the first, none,
/// both.
fn kind(one: &Answered, other: &Answered) -> usize {
    match (other.agrees, one.right, other.right) {
        (Some(false), ..) => 0,
        (_, false, true) => 1,
        (_, true, false) => 2,
        (_, false, false) => 3,
        (_, true, true) => 4,
    }
}
