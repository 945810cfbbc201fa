//! Prints data on stdout in the form the user chose. Text from the cluster is made harmless for a terminal in tables;
//! JSON and YAML carry it as it is.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Read as _, Write as _};

use anyhow::Context as _;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::{Color, Format};
use crate::{Usage, yaml};

const CELL_CHARS_MAX: usize = 100;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Whether what is printed on stdout may be coloured.
    pub(crate) paint: Paint,
}

/// Colours, or the lack of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint(pub(crate) bool);

impl Paint {
    pub(crate) fn stdout(when: Color) -> Self {
        Self::on(when, io::stdout().is_terminal(), std::env::var_os)
    }

    pub(crate) fn stderr(when: Color) -> Self {
        Self::on(when, io::stderr().is_terminal(), std::env::var_os)
    }

    fn on(
        when: Color,
        terminal: bool,
        variable: impl Fn(&'static str) -> Option<OsString>,
    ) -> Self {
        // https://no-color.org: any value but an empty one.
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self(match when {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && set("NO_COLOR").is_none() && !dumb,
        })
    }

    pub(crate) fn good(self, text: &str) -> String {
        self.code("32", text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.code("31", text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.code("33", text)
    }

    pub(crate) fn faint(self, text: &str) -> String {
        self.code("36", text)
    }

    pub(crate) fn strong(self, text: &str) -> String {
        self.code("1", text)
    }

    fn code(self, code: &str, text: &str) -> String {
        if self.0 { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
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

/// Goes through JSON text: it keeps numbers as they are written.
fn yaml<T: Serialize>(data: &T) -> anyhow::Result<String> {
    Ok(yaml::write(&serde_json::value::to_raw_value(data)?))
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

/// Words on stderr. Nobody reads them when it is closed, which is no fault.
pub(crate) fn say(text: &str) {
    let _unread = writeln!(io::stderr().lock(), "{text}");
}

/// Words for the person at the terminal; left out when nobody is there to read them.
pub(crate) fn remark(text: &str) {
    if io::stderr().is_terminal() {
        say(text);
    }
}

/// Asks on the terminal; no without one, or when it is closed.
pub(crate) fn confirm(question: &str) -> anyhow::Result<bool> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Ok(false);
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// The bytes of a file that was named on the command line, or of stdin for `-`.
///
/// # Errors
/// When it cannot be read, or is larger than `limit` bytes.
pub(crate) fn read_file(file: &str, limit: u64) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if file == "-" {
        let mut input = io::stdin().lock().take(limit + 1);
        input.read_to_end(&mut bytes).context("cannot read stdin")?;
    } else {
        let wrong = |error| Usage(format!("cannot read {file}: {error}"));
        let opened = std::fs::File::open(file).map_err(wrong)?;
        opened.take(limit + 1).read_to_end(&mut bytes).map_err(wrong)?;
    }
    if bytes.len() as u64 > limit {
        return Err(Usage(format!("{file}: is larger than {limit} bytes")).into());
    }
    Ok(bytes)
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

/// So many entries, in words.
pub(crate) fn entries(count: usize) -> String {
    if count == 1 { "1 entry".to_owned() } else { format!("{count} entries") }
}

/// A length of time in the largest unit that fits, like 7d, 12h or 90m.
pub(crate) fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    let fits =
        units.iter().find(|(_, length)| seconds >= *length && seconds.is_multiple_of(*length));
    fits.map_or_else(
        || format!("{seconds}s"),
        |(unit, length)| format!("{}{unit}", seconds / length),
    )
}

/// Text of several lines for a terminal: no control characters but line breaks.
pub(crate) fn harmless(text: &str) -> String {
    let shown = |char: char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char };
    text.chars().map(shown).collect()
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
    fn colours_are_asked_for_or_belong_to_a_terminal() {
        let on = |when, terminal, set: Option<(&str, &str)>| {
            let variable = |name| {
                set.filter(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
            };
            Paint::on(when, terminal, variable).0
        };
        assert!(on(Color::Auto, true, None) && !on(Color::Auto, false, None));
        assert!(!on(Color::Auto, true, Some(("NO_COLOR", "1"))));
        assert!(on(Color::Auto, true, Some(("NO_COLOR", ""))), "an empty one says nothing");
        assert!(!on(Color::Auto, true, Some(("TERM", "dumb"))));
        assert!(on(Color::Always, false, Some(("NO_COLOR", "1"))), "asked for in so many words");
        assert!(!on(Color::Never, true, None));
        assert_eq!(Paint(true).bad("x"), "\u{1b}[31mx\u{1b}[0m");
        assert_eq!(Paint(false).bad("x"), "x");
    }

    #[test]
    fn a_file_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "12345").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(read_file(path, 5).unwrap(), b"12345");
        let error = read_file(path, 4).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("4 bytes"), "{error}");
        assert!(read_file("/no/such/file", 9).unwrap_err().is::<Usage>());
    }

    #[test]
    fn lengths_of_time_have_the_largest_unit_that_fits() {
        let spans = [604_800, 43_200, 5_400, 61, 0].map(span);
        assert_eq!(spans, ["7d", "12h", "90m", "61s", "0s"]);
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
