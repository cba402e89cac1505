//! What pages are made of: one file each, which fetches nothing and runs nothing.

use crate::report::grouped;
use anyhow::Context;
use domain::study::Answered;
use domain::visible;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

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
h2,h2+p{break-after:avoid}figure,article,table,tr{break-inside:avoid}.wide{overflow:visible}body{font-size:11pt}}";

/// A whole page.
pub(crate) fn document(subject: &str, title: &str, body: &str) -> String {
    let (subject, title) = (html(subject), html(title));
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>{subject}: {title}</title><style>{STYLE}</style></head>\n<body><main>\n\
         <p class=\"soft\">{subject}</p><h1>{title}</h1>\n{body}</main></body></html>\n"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_outside_is_no_markup() {
        let found = html("<script>\"&'\u{1b}[2J</script>\nb");
        assert_eq!(found, "&lt;script&gt;&quot;&amp;&#39;\\u{1b}[2J&lt;/script&gt;\nb");
    }
}
