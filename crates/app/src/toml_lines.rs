//! Where the keys of a TOML file stand: the line of each, for messages about it.

use toml::de::{DeTable, DeValue};

/// The keys of a file, each with its line. A key is named by its path, such as `teacher.samples` or `exemplars[2].label`.
#[derive(Debug, Default)]
pub struct TomlLines(Vec<(String, usize)>);

impl TomlLines {
    /// The keys of `text`; none where it is not TOML.
    pub fn of(text: &str) -> Self {
        let mut found = Self::default();
        if let Ok(table) = DeTable::parse(text) {
            found.collect(table.get_ref(), "", text);
        }
        found
    }

    /// The line of `path`, or of the nearest key around it; 1 where there is none.
    pub fn line(&self, path: &str) -> usize {
        let mut wanted = path;
        loop {
            if let Some((_, line)) = self.0.iter().find(|(known, _)| known == wanted) {
                return *line;
            }
            match wanted.rsplit_once(['.', '[']) {
                Some((around, _)) => wanted = around,
                None => return 1,
            }
        }
    }

    fn collect(&mut self, table: &DeTable<'_>, prefix: &str, text: &str) {
        for (key, value) in table {
            let path = match prefix {
                "" => key.get_ref().to_string(),
                prefix => format!("{prefix}.{}", key.get_ref()),
            };
            match value.get_ref() {
                DeValue::Table(inner) => self.collect(inner, &path, text),
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        if let DeValue::Table(inner) = item.get_ref() {
                            let path = format!("{path}[{index}]");
                            self.collect(inner, &path, text);
                            self.0.push((path, line_of(text, item.span().start)));
                        }
                    }
                }
                _ => {}
            }
            self.0.push((path, line_of(text, key.span().start)));
        }
    }
}

/// The line, from 1, of a byte of `text`.
pub fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_or_the_nearest_one_around_it_has_a_line() {
        let lines = TomlLines::of("a = 1\n[b]\nc = 2\nd = { e = 3 }\n[[f]]\ng = 4\n[[f]]\n\ng = 5\n");
        for (path, line) in [
            ("a", 1),
            ("b", 2),
            ("b.c", 3),
            ("b.d.e", 4),
            ("b.absent", 2),
            ("f[0].g", 6),
            ("f[1].g", 9),
            ("f[1].absent", 7),
            ("absent", 1),
        ] {
            assert_eq!(lines.line(path), line, "{path}");
        }
        assert_eq!(TomlLines::of("a = ").line("a"), 1);
    }
}
