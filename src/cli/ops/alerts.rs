//! Which alerts fired, as Prometheus remembers them, and whether they reach Alertmanager.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use futures::try_join;
use serde::Deserialize;

use super::source::Source;
use super::{Check, Outcome, WEEK_SECONDS};
use crate::Usage;
use crate::http::{Address, Http};
use crate::output::{read_file, span};
use crate::prometheus::{Prometheus, Sample, Selector};

const ALERT: &str = "alert";
const RECEIVED: &str = "alertmanager";
const RUNBOOK: &str = "runbook";
const ANSWER_BYTES_MAX: usize = 16 << 20;
const RUNBOOK_BYTES_MAX: u64 = 4 << 20;
/// An alert that begins more often than this in a week asks for another threshold, or for a repair.
const OFTEN: u64 = 10;
/// How long an alert may be on its way.
const ON_ITS_WAY_SECONDS: u64 = 120;

/// An alert by its name and severity.
type Name = (String, String);

/// What became of one alert in a stretch of time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Fired {
    /// How often it began: on the first node where it does, not on each.
    begins: u64,
    /// Minutes in which it fired at least once.
    minutes: u64,
    now: bool,
}

/// Looked at once a minute: what is shorter may be missed.
async fn fired(
    prometheus: &Prometheus,
    selector: &Selector,
    seconds: u64,
    offset: &str,
) -> anyhow::Result<BTreeMap<Name, Fired>> {
    let alerts = selector.alerts();
    let by = "by (alertname, severity)";
    let firing = format!("count {by} ({alerts})");
    let range = format!("[{seconds}s:1m]{offset}");
    let minutes = format!("count_over_time(({firing}){range})");
    let begins =
        format!("count_over_time(({firing} unless count {by} ({alerts} offset 1m)){range})");
    let now = format!("count {by} ({alerts}{offset})");
    let (minutes, begins, now) =
        try_join!(prometheus.query(&minutes), prometheus.query(&begins), prometheus.query(&now))?;
    let mut found: BTreeMap<Name, Fired> = BTreeMap::new();
    for sample in &minutes {
        found.entry(name(sample)).or_default().minutes = whole(sample.value);
    }
    for sample in &begins {
        found.entry(name(sample)).or_default().begins = whole(sample.value);
    }
    for sample in &now {
        found.entry(name(sample)).or_default().now = true;
    }
    Ok(found)
}

fn name(sample: &Sample) -> Name {
    (sample.label("alertname").to_owned(), sample.label("severity").to_owned())
}

/// Counts come as floating point numbers; one that is out of range becomes the nearest that is in it.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

fn rank(severity: &str) -> u8 {
    match severity {
        "critical" => 0,
        "warning" => 1,
        _ => 2,
    }
}

/// The worst first.
fn sorted(found: BTreeMap<Name, Fired>) -> Vec<(Name, Fired)> {
    let mut rows: Vec<_> = found.into_iter().collect();
    rows.sort_by_key(|((name, severity), fired)| (!fired.now, rank(severity), name.clone()));
    rows
}

fn times(begins: u64) -> String {
    match begins {
        0 => "began before".to_owned(),
        1 => "once".to_owned(),
        _ => format!("{begins} times"),
    }
}

/// What fired in the last hours, and still does.
pub(crate) async fn night(source: &Source, seconds: u64) -> Vec<Check> {
    let Source::Prometheus(prometheus, selector) = source else {
        return vec![source.needs_prometheus(ALERT)];
    };
    let found = match fired(prometheus, selector, seconds, "").await {
        Ok(found) => found,
        Err(error) => return vec![Check::broken(ALERT, &error)],
    };
    let rows = sorted(found).into_iter();
    let checks: Vec<Check> = rows.map(|(name, fired)| of_the_night(&name, fired)).collect();
    if checks.is_empty() {
        let found = format!("none fired in the last {}", span(seconds));
        return vec![Check::new(ALERT, "", Outcome::Ok, found)];
    }
    checks
}

fn of_the_night((name, severity): &Name, fired: Fired) -> Check {
    let result = match (severity.as_str(), fired.now) {
        ("critical", true) => Outcome::Failed,
        ("critical" | "warning", _) => Outcome::Attention,
        _ => Outcome::Ok,
    };
    let now = if fired.now { "fires now" } else { "over" };
    let found = format!("{severity}; {now}; {}, {} min in all", times(fired.begins), fired.minutes);
    Check::new(ALERT, name, result, found)
}

/// An alert as Alertmanager has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) name: String,
    /// Silenced, or held back by another one.
    pub(crate) suppressed: bool,
}

/// The alerts in an answer of Alertmanager's `/api/v2/alerts`.
pub(crate) fn read(body: &[u8]) -> anyhow::Result<Vec<Received>> {
    #[derive(Deserialize)]
    struct Item {
        labels: BTreeMap<String, String>,
        status: Status,
    }
    #[derive(Deserialize)]
    struct Status {
        state: String,
    }
    let items: Vec<Item> =
        serde_json::from_slice(body).context("that is no answer of Alertmanager")?;
    let alert = |mut item: Item| Received {
        name: item.labels.remove("alertname").unwrap_or_default(),
        suppressed: item.status.state == "suppressed",
    };
    Ok(items.into_iter().map(alert).collect())
}

/// Whether what Prometheus says fires is known to Alertmanager, which sends it on.
pub(crate) async fn received(
    source: &Source,
    http: &Http,
    alertmanager: Option<&Address>,
) -> Vec<Check> {
    let Some(address) = alertmanager else {
        let how = "--alertmanager URL would tell whether alerts reach it";
        return vec![Check::skipped(RECEIVED, how)];
    };
    match compare(source, http, address).await {
        Ok(check) => vec![check],
        Err(error) => vec![Check::broken(RECEIVED, &error)],
    }
}

async fn compare(source: &Source, http: &Http, address: &Address) -> anyhow::Result<Check> {
    let url = address.below("/api/v2/alerts");
    let answer = http.get(&url, ANSWER_BYTES_MAX).await;
    let (status, body) = answer.with_context(|| address.as_str().to_owned())?;
    anyhow::ensure!(status == 200, "{}: HTTP {status}", address.as_str());
    let received = read(&body).with_context(|| address.as_str().to_owned())?;
    let suppressed = received.iter().filter(|alert| alert.suppressed).count();
    let known = format!("{} alerts, {suppressed} of them silenced or inhibited", received.len());
    let Source::Prometheus(prometheus, _) = source else {
        return Ok(Check::new(RECEIVED, "", Outcome::Ok, known));
    };
    let firing = "ALERTS{alertstate=\"firing\"}";
    let expression =
        format!("count by (alertname) ({firing} and {firing} offset {ON_ITS_WAY_SECONDS}s)");
    let names: BTreeSet<String> = received.into_iter().map(|alert| alert.name).collect();
    let firing = prometheus.query(&expression).await?;
    let firing = firing.iter().map(|sample| sample.label("alertname"));
    let lost: Vec<&str> = firing.filter(|name| !names.contains(*name)).collect();
    Ok(if lost.is_empty() {
        Check::new(RECEIVED, "", Outcome::Ok, known)
    } else {
        let found = format!("does not know what fires: {}", lost.join(", "));
        Check::new(RECEIVED, "", Outcome::Failed, found)
    })
}

/// The headings of the second level of a runbook: an alert has one each.
pub(crate) fn sections(path: &Path) -> anyhow::Result<BTreeSet<String>> {
    let name = path.to_string_lossy();
    let text = String::from_utf8(read_file(&name, RUNBOOK_BYTES_MAX)?)
        .map_err(|_| Usage(format!("{name}: is not UTF-8 text")))?;
    let found: BTreeSet<String> =
        text.lines().filter_map(|line| Some(line.strip_prefix("## ")?.trim().to_owned())).collect();
    if found.is_empty() {
        return Err(Usage(format!("{name}: no heading `## Alert` is in it")).into());
    }
    Ok(found)
}

/// What fired in the last week beside the week before, and whether there is a runbook for it.
pub(crate) async fn trends(source: &Source, runbook: Option<&BTreeSet<String>>) -> Vec<Check> {
    let Source::Prometheus(prometheus, selector) = source else {
        return vec![source.needs_prometheus(ALERT), source.needs_prometheus(RUNBOOK)];
    };
    let before = format!(" offset {WEEK_SECONDS}s");
    let asked = try_join!(
        fired(prometheus, selector, WEEK_SECONDS, ""),
        fired(prometheus, selector, WEEK_SECONDS, &before)
    );
    let (week, before) = match asked {
        Ok(weeks) => weeks,
        Err(error) => return vec![Check::broken(ALERT, &error)],
    };
    let mut names: BTreeMap<Name, Fired> =
        before.keys().cloned().map(|n| (n, Fired::default())).collect();
    names.extend(week);
    let rows = sorted(names);
    let mut checks: Vec<Check> = rows
        .iter()
        .map(|(name, fired)| of_the_week(name, *fired, before.get(name).copied()))
        .collect();
    if checks.is_empty() {
        checks.push(Check::new(ALERT, "", Outcome::Ok, "none fired in the last two weeks"));
    }
    let fired = rows.iter().filter(|(_, fired)| *fired != Fired::default());
    checks.push(written(runbook, fired.map(|((name, _), _)| name)));
    checks
}

fn of_the_week((name, severity): &Name, fired: Fired, before: Option<Fired>) -> Check {
    let before = before.unwrap_or_default();
    let result = match severity.as_str() {
        "critical" if fired.minutes > 0 => Outcome::Attention,
        _ if fired.begins > OFTEN => Outcome::Attention,
        _ => Outcome::Ok,
    };
    let often = if fired.begins > OFTEN { "; look at its threshold, or its cause" } else { "" };
    let of = |fired: Fired| match fired {
        Fired { minutes: 0, begins: 0, .. } => "not at all".to_owned(),
        Fired { minutes, begins, .. } => format!("{}, {minutes} min", times(begins)),
    };
    let found = format!("{severity}; {} (week before: {}){often}", of(fired), of(before));
    Check::new(ALERT, name, result, found)
}

fn written<'a>(
    runbook: Option<&BTreeSet<String>>,
    fired: impl Iterator<Item = &'a String>,
) -> Check {
    let Some(sections) = runbook else {
        return Check::skipped(
            RUNBOOK,
            "--runbook FILE would tell whether every alert that fired has a section in it",
        );
    };
    let fired: BTreeSet<&String> = fired.collect();
    let missing: Vec<&str> =
        fired.iter().filter(|name| !sections.contains(**name)).map(|name| name.as_str()).collect();
    if missing.is_empty() {
        let found = format!("fired: {}; each has its section", fired.len());
        return Check::new(RUNBOOK, "", Outcome::Ok, found);
    }
    let found = format!("no section for {}", missing.join(", "));
    Check::new(RUNBOOK, "", Outcome::Attention, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(severity: &str) -> Name {
        ("X".to_owned(), severity.to_owned())
    }

    #[test]
    fn what_fires_now_and_matters_is_a_failure() {
        let result = |severity, now| {
            of_the_night(&named(severity), Fired { begins: 1, minutes: 3, now }).result
        };
        assert_eq!(result("critical", true), Outcome::Failed);
        assert_eq!(result("critical", false), Outcome::Attention);
        assert_eq!(result("warning", true), Outcome::Attention);
        assert_eq!(result("info", true), Outcome::Ok);
    }

    #[test]
    fn what_fires_often_asks_for_another_threshold() {
        let week = |severity, begins| {
            of_the_week(&named(severity), Fired { begins, minutes: 5, now: false }, None)
        };
        assert_eq!(week("warning", 10).result, Outcome::Ok);
        assert_eq!(week("info", 11).result, Outcome::Attention);
        assert!(week("info", 11).found.contains("threshold"));
        assert_eq!(week("critical", 1).result, Outcome::Attention);
        let gone = of_the_week(
            &named("critical"),
            Fired::default(),
            Some(Fired { begins: 2, minutes: 9, now: false }),
        );
        assert_eq!(gone.result, Outcome::Ok);
        assert_eq!(gone.found, "critical; not at all (week before: 2 times, 9 min)");
    }

    #[test]
    fn every_alert_that_fired_has_a_section() {
        let sections = BTreeSet::from(["A".to_owned()]);
        let names = ["A".to_owned(), "B".to_owned()];
        let check = written(Some(&sections), names.iter());
        assert_eq!((check.result, check.found.as_str()), (Outcome::Attention, "no section for B"));
        assert_eq!(written(Some(&sections), names[..1].iter()).result, Outcome::Ok);
        assert_eq!(written(None, names.iter()).result, Outcome::NotChecked);
    }

    #[test]
    fn alerts_of_alertmanager_are_read() {
        let body = r#"[{"labels":{"alertname":"A"},"status":{"state":"active","silencedBy":[]},"x":1},
            {"labels":{"alertname":"B"},"status":{"state":"suppressed"}}]"#;
        let alerts = read(body.as_bytes()).unwrap();
        assert_eq!(alerts[0], Received { name: "A".into(), suppressed: false });
        assert!(alerts[1].suppressed);
        assert!(read(b"{}").is_err());
    }
}
