//! `jepsen-lite check FILE`: what the checkers say of a history, and of one that fails, a smaller one and a picture of it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::check::{CHECKERS, Facts, Limits, Overall, Report, Verdict, check};
use crate::history::{History, Outcome, ReadError, read_file, write_file};
use crate::shrink::shrink;
use crate::timeline;

/// How a history is judged.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How far the search for an order goes.
    pub limits: Limits,
    /// How long a failing history is made smaller; zero: not at all.
    pub shrink_time: Duration,
    /// Say how long each checker took.
    pub stats: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { limits: Limits::default(), shrink_time: Duration::from_secs(60), stats: false }
    }
}

/// Why a history could not be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The file is no history.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// What was found cannot be written.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Judges the history in a file and says it to `out`. Next to a failing one it writes `<file>.minimal.jsonl` and `<file>.html`.
///
/// # Errors
/// [`JudgeError`].
pub fn judge_file(
    path: &Path,
    options: &Options,
    out: &mut impl Write,
) -> Result<Overall, JudgeError> {
    let history =
        read_file(path).map_err(|source| JudgeError::Read { path: path.to_path_buf(), source })?;
    if options.stats {
        stats(&history, &options.limits, out)?;
    }
    let report = check(&history, &options.limits);
    writeln!(out, "{report}")?;
    if report.overall() == Overall::Fail {
        for written in explain(&history, &report, options, path)? {
            writeln!(out, "see {}", written.display())?;
        }
    }
    Ok(report.overall())
}

/// Writes what shows a failure best: a smaller history, if there is one, and a picture. Says which files it wrote.
///
/// # Errors
/// What the files say.
pub fn explain(
    history: &History,
    report: &Report,
    options: &Options,
    path: &Path,
) -> io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    let Some((checker, violation)) = report.first_violation() else { return Ok(written) };
    let next_to = |ending: &str| {
        let mut name: OsString = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let picture = next_to(".html");
    let smaller = (!options.shrink_time.is_zero())
        .then(|| shrink(history, checker, violation.rule, &options.limits, options.shrink_time))
        .flatten();
    let page = match &smaller {
        Some(smaller) => {
            let minimal = next_to(".minimal.jsonl");
            write_file(&minimal, &smaller.history)?;
            written.push(minimal);
            timeline::html(&smaller.history, &[(smaller.checker, &smaller.violation)])
        }
        None => timeline::html(history, &[(checker, violation)]),
    };
    std::fs::write(&picture, page)?;
    written.push(picture);
    Ok(written)
}

fn stats(history: &History, limits: &Limits, out: &mut impl Write) -> io::Result<()> {
    let count = |wanted| history.operations.iter().filter(|op| op.outcome == wanted).count();
    writeln!(
        out,
        "{} ok, {} refused, {} unknown",
        count(Outcome::Ok),
        count(Outcome::Fail),
        count(Outcome::Unknown)
    )?;
    let begun = Instant::now();
    let facts = Facts::new(history);
    writeln!(out, "{:<14}{:>8} ms", "sorting", begun.elapsed().as_millis())?;
    for checker in CHECKERS {
        let begun = Instant::now();
        let verdict = checker.check(&facts, limits);
        let seconds = begun.elapsed().as_secs_f64();
        let checked = match verdict {
            Verdict::Pass { checked } => checked as f64 / seconds.max(1e-9),
            Verdict::Fail { .. } | Verdict::Unknown { .. } => 0.0,
        };
        writeln!(out, "{:<14}{:>8.0} ms {:>12.0} checks/s", checker.name, seconds * 1e3, checked)?;
    }
    Ok(())
}
