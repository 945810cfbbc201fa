//! Prints data on stdout in the form the user chose. Text from the cluster is made harmless for a terminal in tables;
//! JSON and YAML carry it as it is.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::Format;

const CELL_CHARS_MAX: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Prints a document: as JSON or YAML, or as the table that `table` makes of it.
    pub(crate) fn print<T: Serialize>(
        self,
        data: &T,
        table: impl FnOnce(&T) -> Table,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => line(&render(table(data))),
            Format::Json => line(&serde_json::to_string_pretty(data)?),
            Format::Yaml => write(&yaml(data)?),
        }
    }

    /// Prints one of many documents: a line of JSON, a YAML document, or `text`.
    pub(crate) fn print_one_of_many<T: Serialize>(
        self,
        data: &T,
        text: impl FnOnce(&T) -> String,
    ) -> anyhow::Result<()> {
        match self.format {
            Format::Table => line(&text(data)),
            Format::Json => line(&serde_json::to_string(data)?),
            Format::Yaml => write(&format!("---\n{}", yaml(data)?)),
        }
    }
}

/// Goes through a JSON value: raw JSON text means something to serde_json only.
fn yaml<T: Serialize>(data: &T) -> anyhow::Result<String> {
    let value = serde_json::to_value(data)?;
    let mut text = serde_saphyr::to_string(&value).context("cannot write this as YAML")?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Writes a line to stdout.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    write(&format!("{text}\n"))
}

/// Writes text to stdout, all of it or an error: a full disk behind `>` must not look like success.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .context("cannot write to stdout")
}

/// Words for the person at the terminal; left out when nobody is there to read them.
pub(crate) fn remark(text: &str) {
    if io::stderr().is_terminal() {
        eprintln!("{text}");
    }
}

/// An empty table with these columns.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // Scripts get one line per row; only a terminal gets its lines wrapped.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(header.iter().copied());
    table
}

fn render(table: Table) -> String {
    table.trim_fmt()
}

/// Text for a table cell: one line, bounded, no control characters.
pub(crate) fn cell(text: &str) -> String {
    let mut cell: String = text
        .chars()
        .take(CELL_CHARS_MAX)
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect();
    if text.chars().nth(CELL_CHARS_MAX).is_some() {
        cell.push('…');
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_one_bounded_harmless_line() {
        assert_eq!(cell("a\u{1b}[31m\nb"), "a\u{fffd}[31m\u{fffd}b");
        assert_eq!(cell(&"x".repeat(500)).chars().count(), CELL_CHARS_MAX + 1);
        assert_eq!(cell(&"x".repeat(CELL_CHARS_MAX)).chars().count(), CELL_CHARS_MAX);
    }

    #[test]
    fn yaml_reads_back_as_what_it_was() {
        let data = json!({
            "text": ["yes", "1.0", "null", "", "a: b", "# no", "two\nlines", "ü", "😀", " lead", "-", "~"],
            "numbers": [0.1, 1e-7, 12_345_678_901_234_u64, -3],
            "nested": {"a": {"b": []}, "c": {}},
            "nothing": null,
            "truth": true,
        });
        let text = yaml(&data).unwrap();
        let back: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(back, data, "{text}");
    }

    #[test]
    fn tables_have_a_row_per_item() {
        let mut table = table(&["KEY", "VALUE"]);
        table.add_row(["a", "1"]);
        let text = render(table);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("KEY"), "{text}");
    }
}
