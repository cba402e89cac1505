//! `report.html`: one file that reads the same on a phone, on a desk and on paper; no script, nothing that is fetched.
//!
//! Every text that comes from outside (names, labels, rows, the specification) passes [`html`].

use super::chart;
use super::words::{self, html};
use crate::report::grouped;
use domain::study::{Answered, Answers, Arm, Results};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Rows that are shown, and of each kind of them.
const EXAMPLES_MAX: usize = 12;
const EXAMPLES_OF_KIND: usize = 3;
/// Characters of a row's text that are shown.
const INPUT_CHARACTERS: usize = 400;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--paper:#fff;--tint:#f6f8fa;--a0:#57606a;--a1:#0b62c4;\
--a2:#b35900;--a3:#1a7f37;--a4:#8250df;--a5:#bf3989}\
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--line:#3d444d;--paper:#0d1117;--tint:#151b23;--a0:#9198a1;\
--a1:#58a6ff;--a2:#f0883e;--a3:#3fb950;--a4:#bc8cff;--a5:#f778ba}}\
*{box-sizing:border-box}body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}\
main{max-width:60rem;margin:0 auto;padding:1.25rem 1rem 3rem}h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0 .6rem}\
h2{font-size:1.15rem;margin:2.2rem 0 .6rem}p{margin:.6rem 0;max-width:46rem}.soft,small{color:var(--soft)}small{font-size:.82rem}\
.lead{font-size:1.08rem}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{padding:.35rem .6rem;border-bottom:1px solid var(--line);text-align:right;vertical-align:top}\
th:first-child,td:first-child{text-align:left;padding-left:0}th{font-weight:600;color:var(--soft);font-size:.85rem}\
td small{display:block;white-space:nowrap}.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));\
gap:1.5rem}figure{margin:0;max-width:34rem}figcaption{color:var(--soft);font-size:.85rem}svg{width:100%;height:auto;display:block}\
svg text{font:12px system-ui,sans-serif;fill:var(--soft)}.better{color:var(--a3);font-weight:600}.worse{color:var(--a2);font-weight:600}\
.a0{stroke:var(--a0);fill:var(--a0)}.a1{stroke:var(--a1);fill:var(--a1)}.a2{stroke:var(--a2);fill:var(--a2)}\
.a3{stroke:var(--a3);fill:var(--a3)}.a4{stroke:var(--a4);fill:var(--a4)}.a5{stroke:var(--a5);fill:var(--a5)}\
ul.key{list-style:none;padding:0;margin:.4rem 0;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:.9rem}\
ul.key svg{width:2.2rem;height:.8rem;display:inline-block;vertical-align:middle;margin-right:.35rem}\
article{border-top:1px solid var(--line);padding:.6rem 0}article p{margin:.2rem 0;overflow-wrap:anywhere}\
pre{background:var(--tint);padding:.8rem;overflow-x:auto;font-size:.82rem;line-height:1.45;white-space:pre-wrap;overflow-wrap:anywhere}\
@media(max-width:36rem){table{font-size:.78rem}th{font-size:.72rem}th,td{padding:.3rem .22rem}td small{font-size:.66rem}}\
@media print{:root{color-scheme:light;--ink:#000;--soft:#444;--line:#bbb;--paper:#fff;--tint:#fff}main{max-width:none;padding:0}\
h2{break-after:avoid}figure,article,tr{break-inside:avoid}.wide{overflow:visible}body{font-size:11pt}}";

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
        let name = html(&self.results.study);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <title>{name}: was the teacher worth it?</title><style>{STYLE}</style></head>\n<body><main>\n\
             <p class=\"soft\">{name}</p><h1>Was the teacher worth it?</h1>\n"
        );
        for sentence in words::sentences(self.results) {
            let _ = writeln!(page, "<p class=\"lead\">{}</p>", html(&sentence));
        }
        chart::charts(&mut page, self.results);
        self.tables(&mut page);
        self.bill(&mut page);
        self.examples(&mut page);
        let _ = writeln!(
            page,
            "<h2>The same again</h2>\n<p>With this specification, <code>distillery study SPEC</code>:</p>\n<pre>{}</pre>\n\
             </main></body></html>",
            html(self.specification)
        );
        page
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

    fn bill(&self, page: &mut String) {
        let count = |name: &str| self.bill.get(name).and_then(Value::as_u64).unwrap_or(0);
        let seconds = |name: &str| {
            self.bill.pointer(&format!("/seconds/{name}")).and_then(Value::as_f64).unwrap_or(0.0)
        };
        let rows = [
            ("calls to the teacher", grouped(count("calls"))),
            ("answers from the store", grouped(count("cache_hits"))),
            ("tokens in", grouped(count("tokens_in"))),
            ("tokens out", grouped(count("tokens_out"))),
            ("money", format!("{:.4}", count("money_micros") as f64 / 1e6)),
            ("seconds of asking", format!("{:.1}", seconds("harvest"))),
            ("seconds of training", format!("{:.1}", seconds("train"))),
            ("seconds of measuring", format!("{:.1}", seconds("evaluate"))),
        ];
        let rows: Vec<Vec<String>> =
            rows.into_iter().map(|(what, much)| vec![what.to_owned(), much]).collect();
        page.push_str("<h2>The bill</h2>\n");
        table(page, "bill", &["", "the whole study"], &rows, usize::MAX);
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
            let mut short: String = input.chars().take(INPUT_CHARACTERS).collect();
            if short.len() < input.len() {
                short.push_str("...");
            }
            let gold = answers.first().map_or("", |(_, answered)| answered.gold.as_str());
            let _ = write!(
                page,
                "<article><p>{}</p><p><small>row {row}, right: {}</small></p>",
                html(&short),
                html(gold)
            );
            for (arm, answered) in answers {
                let said =
                    if answered.prediction.is_empty() { "no label" } else { answered.prediction.as_str() };
                let word = if answered.right { "better\">right" } else { "worse\">wrong" };
                let _ =
                    write!(page, "<p>{}: {} <span class=\"{word}</span></p>", html(&arm.words()), html(said));
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
        // By which of the first two arms is right: only one of them, none, both.
        let mut kinds: Vec<Vec<Example<'_>>> = vec![Vec::new(); 4];
        for place in 0..rows {
            let answers: Vec<(Arm, &Answered)> = shown
                .iter()
                .filter_map(|student| Some((student.cell.setting.arm, student.rows.get(place)?)))
                .collect();
            let [(_, one), (_, other), ..] = answers.as_slice() else { continue };
            let kind = match (one.right, other.right) {
                (false, true) => 0,
                (true, false) => 1,
                (false, false) => 2,
                (true, true) => 3,
            };
            if let Some(kind) = kinds.get_mut(kind).filter(|kind| kind.len() < EXAMPLES_OF_KIND) {
                kind.push((one.row, answers));
            }
        }
        kinds.into_iter().flatten().take(EXAMPLES_MAX).collect()
    }
}

/// A table; the column `beneath` stands beneath the one before it.
fn table(page: &mut String, id: &str, header: &[&str], rows: &[Vec<String>], beneath: usize) {
    let _ = write!(page, "<div class=\"wide\"><table id=\"{id}\"><thead><tr>");
    for (column, words) in header.iter().enumerate() {
        if column != beneath {
            let _ = write!(page, "<th>{}</th>", html(words));
        }
    }
    page.push_str("</tr></thead><tbody>\n");
    for row in rows {
        page.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let class = match cell.as_str() {
                "better" | "worse" => format!(" class=\"{cell}\""),
                _ => String::new(),
            };
            if column != beneath {
                let small = row.get(column + 1).filter(|_| column + 1 == beneath);
                let small = small.map_or_else(String::new, |small| format!("<small>{}</small>", html(small)));
                let _ = write!(page, "<td{class}>{}{small}</td>", html(cell));
            }
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</tbody></table></div>\n");
}
