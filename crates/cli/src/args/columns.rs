//! Which column of a file is which field, for verbs that read one.

use crate::exit::Usage;
use clap::Args;
use readers::Columns;

/// See [`Columns`].
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ColumnArguments {
    /// Column of the file that holds a field, where it has another name: input=text,label=mood
    #[arg(long, value_name = "FIELD=COLUMN", value_delimiter = ',', value_parser = pair)]
    columns: Vec<(String, String)>,
}

impl ColumnArguments {
    /// The mapping.
    pub(crate) fn mapping(&self) -> anyhow::Result<Columns> {
        Columns::new(self.columns.iter().cloned()).map_err(|violations| {
            let lines: Vec<String> = violations.iter().map(|violation| format!("--{violation}")).collect();
            Usage(lines.join("\n")).into()
        })
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(field, column)| !field.is_empty() && !column.is_empty());
    let words = "name a field and its column, such as input=text";
    pair.map(|(field, column)| (field.to_owned(), column.to_owned())).ok_or_else(|| words.to_owned())
}
