//! What pages are made of: one file each, which fetches nothing and runs nothing.

pub(crate) use app::pages::html;

use anyhow::Context;
use app::pages::{COLOURS, STYLE, grouped};
use domain::study::Answered;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Characters of a row's text that are shown.
const INPUT_CHARACTERS: usize = 400;

/// A whole page.
pub(crate) fn document(subject: &str, title: &str, body: &str) -> String {
    let (subject, title) = (html(subject), html(title));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{subject}: {title}</title><style>{COLOURS}{STYLE}</style></head>\n<body><main>\n\
         <p class=\"soft\">{subject}</p><h1>{title}</h1>\n{body}</main></body></html>\n"
    )
}

/// A text as long as a page shows one.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(INPUT_CHARACTERS).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// A table; the column `beneath` stands beneath the one before it.
pub(crate) fn table(page: &mut String, id: &str, header: &[&str], rows: &[Vec<String>], beneath: usize) {
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

/// What a page says of costs.
pub(crate) struct Amounts {
    pub(crate) calls: u64,
    pub(crate) cache_hits: u64,
    pub(crate) tokens_in: u64,
    pub(crate) tokens_out: u64,
    pub(crate) money_micros: u64,
    /// Of asking, training and measuring.
    pub(crate) seconds: [f64; 3],
    /// Of a student's answer.
    pub(crate) milliseconds: String,
}

/// What it cost, `of` what.
pub(crate) fn bill(page: &mut String, of: &str, amounts: Amounts) {
    let [harvest, train, evaluate] = amounts.seconds;
    let each_call = match amounts.calls {
        0 => "-".to_owned(),
        calls => format!("{:.0}", harvest * 1e3 / calls as f64),
    };
    let rows = [
        ("calls to the teacher", grouped(amounts.calls)),
        ("answers from the store", grouped(amounts.cache_hits)),
        ("tokens in", grouped(amounts.tokens_in)),
        ("tokens out", grouped(amounts.tokens_out)),
        ("money", format!("{:.4}", amounts.money_micros as f64 / 1e6)),
        ("seconds of asking", format!("{harvest:.1}")),
        ("seconds of training", format!("{train:.1}")),
        ("seconds of measuring", format!("{evaluate:.1}")),
        ("milliseconds of a student's answer", amounts.milliseconds),
        ("milliseconds of asking, for each call", each_call),
    ];
    let rows: Vec<Vec<String>> = rows.into_iter().map(|(what, much)| vec![what.to_owned(), much]).collect();
    page.push_str("<h2>The bill</h2>\n");
    table(page, "bill", &["", of], &rows, usize::MAX);
}

/// The beginning of an example: a row, and what is right. `answer`s and the end of the article follow.
pub(crate) fn row_head(page: &mut String, input: &str, row: &Answered) {
    let _ = write!(
        page,
        "<article><p>{}</p><p><small>row {}, right: {}</small></p>",
        html(&shortened(input)),
        row.row,
        html(&row.gold)
    );
}

/// What a student said of a row, and why; `who` stands before it.
pub(crate) fn answer(page: &mut String, who: &str, row: &Answered) {
    let said = if row.prediction.is_empty() { "no label" } else { row.prediction.as_str() };
    let word = if row.right { "better\">right" } else { "worse\">wrong" };
    let _ = write!(page, "<p>{}{} <span class=\"{word}</span>", html(who), html(said));
    if let Some(rationale) = &row.rationale {
        let against = if row.agrees == Some(false) { " (which says otherwise)" } else { "" };
        let _ = write!(page, "<br><small>{}{against}</small>", html(&shortened(rationale)));
    }
    page.push_str("</p>");
}

/// A file that takes its name when it is whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let words = || format!("{} cannot be written", path.display());
    let mut file = fs::File::create(&part).with_context(words)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).with_context(words)?;
    fs::rename(&part, path).with_context(words)
}
