//! What is on a terminal after what was written to it: as much of one as progress bars and tables need.

/// A screen of any number of rows.
#[derive(Debug)]
pub struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// Rows that were written over their end, as they were then.
    wrapped: Vec<String>,
}

impl Screen {
    /// The screen of so many columns after `written`.
    pub fn after(columns: usize, written: &str) -> Self {
        let mut screen = Self { columns, rows: vec![Vec::new()], row: 0, column: 0, wrapped: Vec::new() };
        let mut rest = written;
        while let Some(letter) = rest.chars().next() {
            rest = match rest.strip_prefix("\u{1b}[") {
                Some(sequence) => screen.control(sequence),
                None => {
                    screen.put(letter);
                    rest.get(letter.len_utf8()..).unwrap_or_default()
                }
            };
        }
        screen
    }

    /// Its rows, from the top.
    pub fn lines(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    /// Rows that were written over their end.
    pub fn wrapped(&self) -> &[String] {
        &self.wrapped
    }

    fn put(&mut self, letter: char) {
        match letter {
            '\r' => self.column = 0,
            '\n' => self.go_to(self.row + 1),
            letter if letter.is_control() => {}
            letter => {
                if self.column >= self.columns {
                    self.wrapped.extend(self.rows.get(self.row).map(|row| row.iter().collect()));
                    self.go_to(self.row + 1);
                    self.column = 0;
                }
                let column = self.column;
                self.edit(|row| {
                    row.resize(row.len().max(column + 1), ' ');
                    row.splice(column..=column, [letter]);
                });
                self.column += 1;
            }
        }
    }

    /// A control sequence: its numbers, and a letter that says what it does. Returns what follows it.
    fn control<'a>(&mut self, sequence: &'a str) -> &'a str {
        let end = sequence.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(sequence.len());
        let (numbers, rest) = sequence.split_at(end);
        let (number, column) = (numbers.parse::<usize>().ok(), self.column);
        match rest.chars().next() {
            Some('A') => self.go_to(self.row.saturating_sub(number.unwrap_or(1))),
            Some('B') => self.go_to(self.row + number.unwrap_or(1)),
            Some('C') => self.column += number.unwrap_or(1),
            Some('D') => self.column = column.saturating_sub(number.unwrap_or(1)),
            Some('G') => self.column = number.unwrap_or(1).saturating_sub(1),
            Some('K') if number == Some(2) => self.edit(Vec::clear),
            Some('K') => self.edit(|row| row.truncate(column)),
            Some('J') => {
                self.edit(|row| row.truncate(column));
                self.rows.truncate(self.row + 1);
            }
            _ => {}
        }
        rest.get(1..).unwrap_or_default()
    }

    fn go_to(&mut self, row: usize) {
        self.row = row;
        self.rows.resize(self.rows.len().max(row + 1), Vec::new());
    }

    /// Changes the row that is written to.
    fn edit(&mut self, change: impl FnOnce(&mut Vec<char>)) {
        if let Some(row) = self.rows.get_mut(self.row) {
            change(row);
        }
    }
}
