//! `ops`: what an operator looks at every morning and every week, as one report.
//!
//! Nothing is repaired here. What cannot be looked at with what was given is in the report, too, with what would help.

mod alerts;
mod backups;
mod logs;
mod nodes;
mod numbers;
mod source;
mod trends;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use alerts::read as read_alertmanager;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use logs::count as count_log_lines;

use std::time::Duration;

use anyhow::ensure;
use futures::join;
use llm_config_client::Options;
use serde::Serialize;

use crate::args::{Daily, Format, Global, Ops, Weekly};
use crate::baseline::{now, time};
use crate::http::{Address, Http};
use crate::output::{self, Output, Paint, span, table};

/// Longer sentences are cut in the table.
const SENTENCE_CHARS_MAX: usize = 400;
/// For each node: one that is dead must not keep the report waiting as long as a large question to Prometheus may.
const NODE_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const WEEK_SECONDS: u64 = 7 * 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Ok,
    NotChecked,
    Attention,
    Failed,
}

impl Outcome {
    fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NotChecked => "not checked",
            Self::Attention => "attention",
            Self::Failed => "failed",
        }
    }

    /// Failed from the second bound on, attention from the first.
    pub(crate) fn at(value: f64, attention: f64, failed: f64) -> Self {
        if value >= failed {
            Self::Failed
        } else if value >= attention {
            Self::Attention
        } else {
            Self::Ok
        }
    }
}

/// A row of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) check: &'static str,
    /// The node, alert, number or file that it is about; empty for the whole.
    pub(crate) subject: String,
    pub(crate) result: Outcome,
    pub(crate) found: String,
}

impl Check {
    pub(crate) fn new(
        check: &'static str,
        subject: impl Into<String>,
        result: Outcome,
        found: impl Into<String>,
    ) -> Self {
        Self { check, subject: subject.into(), result, found: found.into() }
    }

    /// What it was not looked at for.
    pub(crate) fn skipped(check: &'static str, reason: impl Into<String>) -> Self {
        Self::new(check, "", Outcome::NotChecked, reason)
    }

    /// It was looked at, and could not be seen.
    pub(crate) fn broken(check: &'static str, error: &anyhow::Error) -> Self {
        Self::new(check, "", Outcome::Failed, format!("{error:#}"))
    }
}

#[derive(Debug, Serialize)]
struct Report {
    task: &'static str,
    at: String,
    window: String,
    checks: Vec<Check>,
}

pub(crate) async fn run(
    global: &Global,
    options: &Options,
    command: Ops,
    output: Output,
) -> anyhow::Result<()> {
    let now = now();
    let report = match command {
        Ops::Daily(args) => daily(global, options, args, now).await?,
        Ops::Weekly(args) => weekly(options, args, now).await?,
    };
    print(&report, output)?;
    let failed = report.checks.iter().filter(|check| check.result == Outcome::Failed).count();
    let checks = if failed == 1 { "check" } else { "checks" };
    ensure!(failed == 0, "{failed} {checks} failed");
    Ok(())
}

/// Connections for everything but the nodes' own ports.
fn http(options: &Options, addresses: &[&Address]) -> anyhow::Result<Http> {
    let encrypted = addresses.iter().any(|address| address.encrypted());
    Ok(Http::new(options.tls.as_ref(), encrypted, options.timeout)?)
}

async fn daily(
    global: &Global,
    options: &Options,
    args: Daily,
    now: u64,
) -> anyhow::Result<Report> {
    let Daily { sources, alertmanager, log, data_dir, since } = args;
    let seconds = since.as_secs();
    let alertmanager =
        alertmanager.as_deref().map(|text| Address::parse("--alertmanager", text)).transpose()?;
    let http = http(options, &alertmanager.iter().collect::<Vec<_>>())?;
    // Files first: a name that is wrong is said before anything is asked.
    let log = logs::check(&log, now, seconds)?;
    let files = data_dir.as_deref().map(|dir| backups::check(dir, now)).transpose()?;
    let nodes = options.clone().timeout(options.timeout.min(NODE_TIMEOUT));
    let (members, source) =
        join!(nodes::check(global, &nodes), source::open(options, sources, now));
    let mut checks = members;
    let (source, found) = source?;
    checks.extend(found);
    let (alerts, received, targets, numbers) = join!(
        alerts::night(&source, seconds),
        alerts::received(&source, &http, alertmanager.as_ref()),
        nodes::targets(&source),
        numbers::key(&source, seconds, now),
    );
    checks.extend(alerts);
    checks.extend(received);
    checks.extend(targets);
    checks.extend(numbers);
    checks.extend(log);
    checks.extend(backups::kept(&source, now).await);
    checks.extend(files.into_iter().flatten());
    checks.extend(numbers::room(&source).await);
    checks.extend(numbers::certificates(&source, now).await);
    Ok(Report { task: "daily", at: time(now), window: span(seconds), checks })
}

async fn weekly(options: &Options, args: Weekly, now: u64) -> anyhow::Result<Report> {
    let Weekly { sources, file, runbook } = args;
    let file = file.as_deref().map(crate::baseline::read).transpose()?;
    let runbook = runbook.as_deref().map(alerts::sections).transpose()?;
    let (source, mut checks) = source::open(options, sources, now).await?;
    checks.extend(alerts::trends(&source, runbook.as_ref()).await);
    checks.extend(trends::performance(&source).await);
    checks.extend(trends::capacity(&source).await);
    checks.extend(trends::thresholds(&source, file.as_ref(), now).await);
    Ok(Report { task: "weekly", at: time(now), window: span(WEEK_SECONDS), checks })
}

fn print(report: &Report, output: Output) -> anyhow::Result<()> {
    if output.format != Format::Table {
        return output.print(report, |_| table(&[]));
    }
    let mut rows = table(&["CHECK", "SUBJECT", "RESULT", "FOUND"]);
    for check in &report.checks {
        let subject = if check.subject.is_empty() { "-" } else { &check.subject };
        rows.add_row([
            check.check.to_owned(),
            output::cell(subject),
            check.result.words().to_owned(),
            sentence(&check.found),
        ]);
    }
    let count = |result| report.checks.iter().filter(|check| check.result == result).count();
    output::write(&format!(
        "{}\n\n{} check of the last {} at {}: {}\n",
        rows.trim_fmt(),
        report.task,
        report.window,
        report.at,
        summary(&count, output.paint)
    ))
}

fn summary(count: &impl Fn(Outcome) -> usize, paint: Paint) -> String {
    let of = |result: Outcome| format!("{} {}", count(result), result.words());
    let (failed, attention) = (of(Outcome::Failed), of(Outcome::Attention));
    let failed = if count(Outcome::Failed) > 0 { paint.bad(&failed) } else { failed };
    let attention = if count(Outcome::Attention) > 0 { paint.warn(&attention) } else { attention };
    format!("{failed}, {attention}, {}, {}", of(Outcome::Ok), of(Outcome::NotChecked))
}

/// One harmless line.
fn sentence(text: &str) -> String {
    let line = output::harmless(text).replace('\n', " ");
    let mut short: String = line.chars().take(SENTENCE_CHARS_MAX).collect();
    if line.chars().nth(SENTENCE_CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_one_bounded_line() {
        assert_eq!(sentence("a\nb\u{1b}[31m"), "a b\u{fffd}[31m");
        assert_eq!(sentence(&"x".repeat(999)).chars().count(), SENTENCE_CHARS_MAX + 1);
    }

    #[test]
    fn bounds_are_reached_from_below() {
        let at = |value| Outcome::at(value, 80.0, 90.0);
        assert_eq!([79.9, 80.0, 90.0].map(at), [Outcome::Ok, Outcome::Attention, Outcome::Failed]);
        assert!(Outcome::Failed > Outcome::Attention && Outcome::Attention > Outcome::NotChecked);
    }

    #[test]
    fn a_summary_counts_every_result() {
        let count = |result| usize::from(result == Outcome::Failed);
        assert_eq!(summary(&count, Paint(false)), "1 failed, 0 attention, 0 ok, 0 not checked");
        assert!(summary(&count, Paint(true)).starts_with("\u{1b}[31m1 failed"));
    }
}
