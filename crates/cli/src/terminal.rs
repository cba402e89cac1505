//! What reaches a terminal: this file alone writes to standard output and standard error (a lint of `clippy.toml` refuses
//! their names elsewhere), and nothing passes it that a terminal would act on.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Width};
use console::Term;
use domain::visible;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, TermLike};
use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::sync::LazyLock;

/// The bars on standard error, of which a process has one: lines are written above them, whoever writes.
static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
    let target = if is_watched() {
        ProgressDrawTarget::term_like_with_hz(Box::new(Narrowed(Term::buffered_stderr())), DRAWS_PER_SECOND)
    } else {
        ProgressDrawTarget::hidden()
    };
    MultiProgress::with_draw_target(target)
});
const DRAWS_PER_SECOND: u8 = 5;
/// Columns that stay free behind a bar: the `^C` that a terminal writes at Ctrl-C would wrap, and the bar above it would stay.
const FREE: u16 = 4;

/// A terminal to whose last columns nothing is written.
#[derive(Debug)]
struct Narrowed(Term);

impl TermLike for Narrowed {
    fn width(&self) -> u16 {
        TermLike::width(&self.0).saturating_sub(FREE)
    }

    fn height(&self) -> u16 {
        TermLike::height(&self.0)
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}

/// One JSON object on standard output.
pub(crate) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print(&visible::json(&serde_json::to_string(value)?))
}

/// One line on standard output, whatever line feeds are in it.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(&visible::line(line))
}

/// A text on standard output, on its own lines.
pub(crate) fn print_lines(text: &str) -> anyhow::Result<()> {
    print(&visible::lines(text))
}

/// A table on standard output: as wide as it is, or as the terminal that it goes to.
pub(crate) fn print_table(table: &Table) -> anyhow::Result<()> {
    let columns = Term::stdout().size_checked().map(|(_, columns)| columns);
    print(&columns.map_or_else(|| table.text(), |columns| table.text_within(columns)))
}

/// A text of this program's own on standard output, as it is.
pub(crate) fn print_own(text: &[u8]) -> anyhow::Result<()> {
    Ok(stdout().write_all(text)?)
}

/// One line for people, on standard error: standard output belongs to results.
pub(crate) fn say(line: &str) {
    write_error(&visible::line(line));
}

/// Lines for people, on standard error.
pub(crate) fn say_lines(lines: &str) {
    write_error(&visible::lines(lines));
}

/// What went wrong, on standard error: marked with a colour where people look on who want colours.
pub(crate) fn say_error(lines: &str) {
    let mark = console::style("distillery:").for_stderr().red().bold();
    write_error(&format!("{mark} {}", visible::lines(lines)));
}

/// A bar below the lines for people; none is drawn where nobody looks.
pub(crate) fn bar() -> ProgressBar {
    BARS.add(ProgressBar::new(0))
}

/// How wide a bar may be.
pub(crate) fn bar_columns() -> Option<usize> {
    Term::stderr().size_checked().map(|(_, columns)| usize::from(columns.saturating_sub(FREE)))
}

/// Whether people look at standard error.
pub(crate) fn is_watched() -> bool {
    stderr().is_terminal()
}

/// Longest answer of a person, in bytes.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Whether somebody can be asked: reads what is said, and writes.
pub(crate) fn can_ask() -> bool {
    is_watched() && io::stdin().is_terminal()
}

/// Asks for one line, on standard error. An empty answer is the proposal; `None`: there is nobody any more.
pub(crate) fn ask(question: &str, proposal: &str) -> anyhow::Result<Option<String>> {
    let shown = if proposal.is_empty() { String::new() } else { format!(" [{proposal}]") };
    write!(stderr().lock(), "{}", visible::line(&format!("{question}{shown}: ")))?;
    let mut answer = String::new();
    if io::stdin().lock().take(ANSWER_BYTES_MAX).read_line(&mut answer)? == 0 {
        return Ok(None);
    }
    let answer = answer.trim();
    Ok(Some(if answer.is_empty() { proposal.to_owned() } else { answer.to_owned() }))
}

#[allow(clippy::disallowed_methods, reason = "this is where standard output is written")]
fn stdout() -> io::Stdout {
    io::stdout()
}

#[allow(clippy::disallowed_methods, reason = "this is where standard error is written")]
fn stderr() -> io::Stderr {
    io::stderr()
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

fn write_error(text: &str) {
    // Where nobody reads messages, there is nobody to tell.
    let _ = BARS.suspend(|| writeln!(stderr().lock(), "{text}"));
}

/// A table of any number of columns as text, all but the first aligned to the right.
pub(crate) fn table_text(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new(header);
    for row in rows {
        table.0.add_row(row.iter().map(|cell| visible::line(cell).into_owned()));
    }
    table.align_figures();
    table.text()
}

/// Columns around a cell, and around a table.
const PADDING: u16 = 2;
const BORDERS: u16 = 2;
/// The longest word that a table is not wrapped within: an id.
const WORD_MAX: u16 = 36;

/// A table with a header; a cell is one line.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// An empty table.
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::UTF8_BORDERS_ONLY);
        table.set_header(header);
        Self(table)
    }

    /// Adds a row.
    pub(crate) fn add<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.0.add_row(cells.map(|cell| visible::line(&cell).into_owned()));
    }

    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.0.row_count()
    }

    /// Aligns all columns but the first to the right.
    pub(crate) fn align_figures(&mut self) {
        for column in self.0.column_iter_mut().skip(1) {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }

    /// As wide as it is.
    fn text(&self) -> String {
        visible::lines(&self.0.to_string()).into_owned()
    }

    /// Within so many columns: cells are wrapped between words; where words are too long for that, a row is as many lines as it
    /// has cells, so that an id can be read and copied.
    fn text_within(&self, columns: u16) -> String {
        let least: Vec<u16> =
            self.0.column_iter().enumerate().map(|(place, _)| self.longest_word(place) + PADDING).collect();
        if least.iter().sum::<u16>() + BORDERS > columns {
            return self.records_within(columns);
        }
        let mut fitted = self.0.clone();
        for (column, least) in fitted.column_iter_mut().zip(least) {
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(least)));
        }
        fitted.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
        visible::lines(&fitted.to_string()).into_owned()
    }

    /// Every row as lines of a name and a value, with a line between rows.
    fn records_within(&self, columns: u16) -> String {
        let mut records = comfy_table::Table::new();
        records.load_style(comfy_table::presets::NOTHING);
        records.set_content_arrangement(ContentArrangement::Dynamic).set_width(columns);
        let contents = |row: &Row| row.cell_iter().map(Cell::content).collect::<Vec<_>>();
        let names = self.0.header().map(contents).unwrap_or_default();
        for (number, row) in self.0.row_iter().enumerate() {
            if number > 0 {
                records.add_row(["", ""]);
            }
            for (name, value) in names.iter().zip(contents(row)).filter(|(_, value)| !value.is_empty()) {
                records.add_row([name, &value]);
            }
        }
        if let Some(names) = records.column_mut(0) {
            names.set_constraint(ColumnConstraint::ContentWidth);
        }
        let lines: Vec<String> = records.lines().map(|line| line.trim_end().to_owned()).collect();
        visible::lines(&lines.join("\n")).into_owned()
    }

    /// The longest word of a column, its header among them; a longer one than an id is cut where it must be.
    fn longest_word(&self, place: usize) -> u16 {
        let rows = self.0.header().into_iter().chain(self.0.row_iter());
        let cells = rows.filter_map(|row| row.cell_iter().nth(place)).map(Cell::content);
        let longest =
            cells.flat_map(|cell| cell.split(' ').map(console::measure_text_width).collect::<Vec<_>>());
        longest.max().map_or(0, |width| u16::try_from(width).unwrap_or(WORD_MAX)).min(WORD_MAX)
    }
}

/// Standard output for exported rows: byte by byte into a file or a pipe, made fit where it is a terminal.
pub(crate) struct Rows {
    out: io::Stdout,
    /// The line that is not ended yet, where people look on.
    line: Option<Vec<u8>>,
}

impl Rows {
    /// To standard output.
    pub(crate) fn new() -> Self {
        let out = stdout();
        let line = out.is_terminal().then(Vec::new);
        Self { out, line }
    }

    /// Whether people look on.
    pub(crate) fn is_watched(&self) -> bool {
        self.line.is_some()
    }
}

impl Write for Rows {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(line) = &mut self.line else { return self.out.write(bytes) };
        line.extend_from_slice(bytes);
        if let Some(end) = line.iter().rposition(|byte| *byte == b'\n') {
            let rest = line.split_off(end + 1);
            let whole = std::mem::replace(line, rest);
            self.out.write_all(visible::lines(&String::from_utf8_lossy(&whole)).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal() {
        let mut table = Table::new(&["name", "state", "submitted", "teacher", "id", "reason"]);
        let reason = "teacher `local` at http://127.0.0.1:8089/v1 cannot be reached: connection refused: start it, or write \
                      its address into the profile, then resume the job";
        table.add([
            "reviews".to_owned(),
            "paused".to_owned(),
            "2026-11-27T09:00:00Z".to_owned(),
            "-".to_owned(),
            "018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11".to_owned(),
            reason.to_owned(),
        ]);
        let width = |text: &str| text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(width(&table.text()) > 200);
        for columns in [80, 100, 160] {
            let text = table.text_within(columns);
            assert!(width(&text) <= usize::from(columns), "{columns}:\n{text}");
            let letters = |text: &str| text.chars().filter(|letter| letter.is_alphanumeric()).count();
            assert_eq!(letters(&text), letters(&table.text()), "nothing is cut:\n{text}");
            for whole in ["018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a11", "2026-11-27T09:00:00Z", "submitted"] {
                assert!(text.contains(whole), "{whole} is broken at {columns}:\n{text}");
            }
        }
        // Two rows of a table that is too wide are told apart.
        table.add(
            ["other", "queued", "2026-11-28T09:00:00Z", "-", "018f3a54-7c1e-7d2a-9f63-0c2b8e5d4a12", ""]
                .map(str::to_owned),
        );
        let text = table.text_within(80);
        assert!(text.contains("\n\n") && text.starts_with(" name"), "{text}");
    }

    #[test]
    fn a_cell_is_one_line_without_what_a_terminal_acts_on() {
        let mut table = Table::new(&["label", "rationale"]);
        table.add([
            "yes\u{7}\0".to_owned(),
            "one\ntwo\r\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}".to_owned(),
        ]);
        let text = table.text();
        assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'), "{text:?}");
        assert_eq!(text.lines().count(), 5, "{text}");
        for part in ["yes\\u{7}\\u{0}", "one\\ntwo\\r\\u{1b}[2J\\u{1b}]0;owned\\u{7}\\u{9b}31m\\u{202e}"] {
            assert!(text.contains(part), "{part} is not in:\n{text}");
        }
    }

    #[test]
    fn rows_are_made_fit_line_by_line_where_people_look_on() {
        let mut rows = Rows { out: stdout(), line: Some(Vec::new()) };
        rows.write_all("a\u{1b}".as_bytes()).unwrap();
        assert_eq!(rows.line.as_deref(), Some(&b"a\x1b"[..]), "nothing leaves before its line ends");
    }
}
