//! Counts error lines of logs, of any form that a node or what runs it writes: text, JSON, and either of them behind
//! what Compose, Kubernetes or journald put in front.

use std::io::{BufRead, BufReader, Read as _};
use std::time::SystemTime;

use super::{Check, Outcome};
use crate::Usage;
use crate::output::span;

const LOG: &str = "log";
/// The rest of a longer line is not looked at: time and level stand at its beginning.
const LINE_BYTES_MAX: u64 = 32 << 10;
/// Words in front of a line: a container's name, a host, a unit.
const WORDS_MAX: usize = 12;

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Lines with a time and a level.
    pub(crate) lines: u64,
    /// Of them, those in the window.
    pub(crate) recent: u64,
    pub(crate) errors: u64,
}

/// # Errors
/// A file that cannot be read is wrong usage.
pub(crate) fn check(files: &[String], now: u64, window_seconds: u64) -> anyhow::Result<Vec<Check>> {
    if files.is_empty() {
        let how = "--log FILE,… counts error lines; `-` reads stdin, as from `docker compose logs --since 12h` or `journalctl -u llm-config-manager --since -12h`";
        return Ok(vec![Check::skipped(LOG, how)]);
    }
    let from = now.saturating_sub(window_seconds);
    let mut checks = Vec::new();
    for file in files {
        let wrong = |error| Usage(format!("--log {file}: {error}"));
        let counted = if file == "-" {
            count(std::io::stdin().lock(), from)
        } else {
            std::fs::File::open(file).and_then(|file| count(BufReader::new(file), from))
        };
        checks.push(row(file, counted.map_err(wrong)?, window_seconds));
    }
    Ok(checks)
}

fn row(file: &str, counted: Counted, window_seconds: u64) -> Check {
    let Counted { lines, recent, errors } = counted;
    let window = span(window_seconds);
    let (result, found) = if lines == 0 {
        (Outcome::NotChecked, "no line of it is a log line of a node".to_owned())
    } else if recent == 0 {
        (Outcome::Attention, format!("no line of the last {window}; {lines} older ones"))
    } else if errors > 0 {
        (Outcome::Attention, format!("{errors} of {recent} lines of the last {window} are errors"))
    } else {
        (Outcome::Ok, format!("no error in {recent} lines of the last {window}"))
    };
    Check::new(LOG, file, result, found)
}

/// # Errors
/// When it cannot be read.
pub(crate) fn count(mut input: impl BufRead, from: u64) -> std::io::Result<Counted> {
    let mut counted = Counted::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(counted);
        }
        if !line.ends_with(b"\n") {
            skip_line(&mut input)?;
        }
        let Some((time, level)) = head(&String::from_utf8_lossy(&line)) else { continue };
        counted.lines += 1;
        if time >= from {
            counted.recent += 1;
            counted.errors += u64::from(level == Level::Error);
        }
    }
}

/// To the end of the line, without keeping it.
fn skip_line(input: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let held = input.fill_buf()?;
        if held.is_empty() {
            return Ok(());
        }
        let end = held.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(held.len(), |end| end + 1);
        input.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Other,
}

/// Time and level of a line that a node wrote.
fn head(line: &str) -> Option<(u64, Level)> {
    let plain = without_colours(line);
    if let Some(start) = plain.find("{\"timestamp\":\"") {
        let rest = &plain[start + "{\"timestamp\":\"".len()..];
        let (stamp, rest) = rest.split_once('"')?;
        let level = rest.strip_prefix(",\"level\":\"")?.split('"').next()?;
        return Some((seconds(stamp)?, named(level)?));
    }
    let words: Vec<&str> = plain.split_whitespace().take(WORDS_MAX).collect();
    // The node's own time stands right in front of its level; others may stand before.
    words.windows(2).find_map(|pair| Some((seconds(pair[0])?, named(pair[1])?)))
}

fn named(word: &str) -> Option<Level> {
    match word {
        "ERROR" => Some(Level::Error),
        "WARN" | "INFO" | "DEBUG" | "TRACE" => Some(Level::Other),
        _ => None,
    }
}

fn seconds(word: &str) -> Option<u64> {
    if !word.starts_with(|char: char| char.is_ascii_digit()) || !word.contains('T') {
        return None;
    }
    let time: prost_types::Timestamp = word.parse().ok()?;
    let time = SystemTime::try_from(time).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

/// Without what a terminal would take for colours.
fn without_colours(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("\u{1b}[") {
        out.push_str(&rest[..start]);
        let code = &rest[start + 2..];
        let end = code.find(|char: char| char.is_ascii_alphabetic());
        rest = end.map_or("", |end| &code[end + 1..]);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: u64 = 1_769_860_800;

    fn counted(text: &str) -> Counted {
        count(text.as_bytes(), FROM).unwrap()
    }

    #[test]
    fn lines_are_counted_in_every_form() {
        for line in [
            "2026-01-31T12:00:00.123456Z ERROR llm_config_server: it broke",
            "\u{1b}[2m2026-01-31T12:00:00.1Z\u{1b}[0m \u{1b}[31mERROR\u{1b}[0m it broke",
            "llm-config-manager-1  | 2026-01-31T12:00:00.1Z ERROR it broke",
            "Jan 31 13:00:00 host llm-config-manager[7]: 2026-01-31T12:00:00Z ERROR it broke",
            "2026-01-31T12:00:01.9Z 2026-01-31T12:00:00Z ERROR it broke",
            "x | {\"timestamp\":\"2026-01-31T12:00:00.1Z\",\"level\":\"ERROR\",\"fields\":{}}",
        ] {
            let expected = Counted { lines: 1, recent: 1, errors: 1 };
            assert_eq!(counted(line), expected, "{line}");
        }
    }

    #[test]
    fn only_the_level_makes_an_error_and_only_the_window_counts() {
        let text = "2026-01-31T12:00:00Z  INFO x: ERROR is a word\n\
            2026-01-31T11:59:59Z ERROR x: before\n\
            {\"timestamp\":\"2026-01-31T12:00:00Z\",\"level\":\"WARN\",\"error\":\"ERROR\"}\n\
            ERROR without a time\n\n\
            2026-01-31T12:00:00Z ERROR now\n";
        assert_eq!(counted(text), Counted { lines: 4, recent: 3, errors: 1 });
    }

    #[test]
    fn long_lines_are_one_line() {
        let long = "x".repeat(100_000);
        let text = format!("2026-01-31T12:00:00Z INFO {long} \n2026-01-31T12:00:00Z ERROR x\n");
        assert_eq!(counted(&text), Counted { lines: 2, recent: 2, errors: 1 });
        let hidden = format!("{long} 2026-01-31T12:00:00Z ERROR x");
        assert_eq!(counted(&hidden), Counted::default());
    }

    #[test]
    fn what_is_not_the_log_of_a_node_is_no_good_news() {
        let result = |counted| row("f", counted, 43_200).result;
        assert_eq!(result(Counted::default()), Outcome::NotChecked);
        assert_eq!(result(Counted { lines: 1, ..Counted::default() }), Outcome::Attention);
        assert_eq!(result(Counted { lines: 1, recent: 1, errors: 0 }), Outcome::Ok);
        assert_eq!(result(Counted { lines: 2, recent: 2, errors: 1 }), Outcome::Attention);
        assert_eq!(check(&[], FROM, 9).unwrap()[0].result, Outcome::NotChecked);
        assert!(check(&["/no/such".into()], FROM, 9).unwrap_err().is::<Usage>());
    }
}
