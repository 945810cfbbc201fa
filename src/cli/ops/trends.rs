//! What a week looks like beside the week before: latency, hits and errors, when a disk is full, and whether the baseline
//! still holds.

use std::time::SystemTime;

use futures::try_join;

use super::source::{Reading, Source};
use super::{Check, Outcome, WEEK_SECONDS};
use crate::baseline::file::Baselines;
use crate::baseline::measures::{MEASURES, Measure, Window, coverage, numbers, rounded};
use crate::baseline::{against, change, worse};
use crate::prometheus::{Prometheus, Selector};

use super::numbers::{both, bytes};

const TREND: &str = "trend";
const DISK: &str = "disk full in";
const QUOTA: &str = "quota full in";
const BASELINE: &str = "baseline";
const DAY_SECONDS: f64 = 86_400.0;
/// Days until something is full.
const FULL_DAYS: (f64, f64) = (30.0, 7.0);
/// Beyond this it is not worth a number.
const FULL_DAYS_MAX: f64 = 3_650.0;
/// A week of which less is known has no trend.
const COVERAGE_MIN: f64 = 0.2;
/// Baselines are looked at every month.
const BASELINE_DAYS_MAX: u64 = 31;

const WEEK: Window = Window { seconds: WEEK_SECONDS, ended_ago_seconds: 0 };
const WEEK_BEFORE: Window = Window { seconds: WEEK_SECONDS, ended_ago_seconds: WEEK_SECONDS };

pub(crate) async fn performance(source: &Source) -> Vec<Check> {
    let Source::Prometheus(prometheus, selector) = source else {
        return vec![source.needs_prometheus(TREND)];
    };
    match compare(prometheus, selector).await {
        Ok(checks) => checks,
        Err(error) => vec![Check::broken(TREND, &error)],
    }
}

async fn compare(prometheus: &Prometheus, selector: &Selector) -> anyhow::Result<Vec<Check>> {
    let known = coverage(prometheus, selector, WEEK_BEFORE).await?;
    if known < COVERAGE_MIN {
        let found = format!(
            "Prometheus has values for {:.0} % of the week before; it must keep two weeks",
            known * 100.0
        );
        return Ok(vec![Check::skipped(TREND, found)]);
    }
    let of = |window| MEASURES.iter().map(|measure| measure.over(selector, window)).collect();
    let (now, before) =
        try_join!(numbers(prometheus, of(WEEK)), numbers(prometheus, of(WEEK_BEFORE)))?;
    Ok(MEASURES
        .iter()
        .zip(before.into_iter().zip(now))
        .map(|(measure, (before, now))| trend(measure, before, now))
        .collect())
}

fn trend(measure: &Measure, before: Option<f64>, now: Option<f64>) -> Check {
    let Measure { key, unit, .. } = measure;
    let (Some(before), Some(now)) = (before.map(rounded), now.map(rounded)) else {
        return Check::new(TREND, *key, Outcome::NotChecked, "one of the two weeks has no value");
    };
    let result = if worse(key, before, now) { Outcome::Attention } else { Outcome::Ok };
    let by = change(before, now).map_or_else(String::new, |by| format!(" ({by})"));
    Check::new(TREND, *key, result, format!("{now} {unit}, the week before {before} {unit}{by}"))
}

/// When disk and quota are full if the node goes on as in the last week.
pub(crate) async fn capacity(source: &Source) -> Vec<Check> {
    let Source::Prometheus(prometheus, selector) = source else {
        return vec![source.needs_prometheus(DISK), source.needs_prometheus(QUOTA)];
    };
    let seen = match coverage(prometheus, selector, WEEK).await {
        Ok(seen) => seen,
        Err(error) => return vec![Check::broken(DISK, &error)],
    };
    if seen < COVERAGE_MIN {
        let found = format!("Prometheus has values for {:.0} % of the week", seen * 100.0);
        return vec![Check::skipped(DISK, found.clone()), Check::skipped(QUOTA, found)];
    }
    let mut checks = match rates(source, prometheus, selector).await {
        Ok(checks) => checks,
        Err(error) => vec![Check::broken(DISK, &error)],
    };
    if checks.is_empty() {
        checks.push(Check::new(DISK, "", Outcome::Failed, "no node tells of its disk"));
    }
    checks
}

async fn rates(
    source: &Source,
    prometheus: &Prometheus,
    selector: &Selector,
) -> anyhow::Result<Vec<Check>> {
    let slope = |metric| format!("deriv({}[{WEEK_SECONDS}s])", selector.of(metric, ""));
    let (free, size) = (slope("llm_config_storage_free_bytes"), slope("storage_size_bytes"));
    let (disk, used, free_slope, size_slope) = try_join!(
        source.readings("llm_config_storage_free_bytes"),
        both(source, ["storage_size_bytes", "storage_quota_bytes"]),
        prometheus.query(&free),
        prometheus.query(&size)
    )?;
    let slope_of = |samples: &[crate::prometheus::Sample], node: &str| {
        samples.iter().find(|sample| sample.label("instance") == node).map(|sample| sample.value)
    };
    let mut checks = Vec::new();
    for Reading { instance, value, .. } in disk {
        let growth = slope_of(&free_slope, &instance).map(|slope| -slope);
        checks.push(full(DISK, instance, value, growth));
    }
    for (node, [size, quota]) in used {
        if quota > 0.0 {
            let growth = slope_of(&size_slope, &node);
            checks.push(full(QUOTA, node, (quota - size).max(0.0), growth));
        }
    }
    Ok(checks)
}

fn full(check: &'static str, node: String, left: f64, growth: Option<f64>) -> Check {
    let Some(growth) = growth.filter(|growth| growth.is_finite()) else {
        return Check::new(check, node, Outcome::NotChecked, "there is no week of values");
    };
    let a_day = growth * DAY_SECONDS;
    if a_day < 1.0 {
        return Check::new(
            check,
            node,
            Outcome::Ok,
            format!("it does not grow; {} left", bytes(left)),
        );
    }
    let days = left / a_day;
    let found = format!("{} left, {} more a day", bytes(left), bytes(a_day));
    if days > FULL_DAYS_MAX {
        return Check::new(check, node, Outcome::Ok, format!("more than ten years: {found}"));
    }
    let result = if days < FULL_DAYS.1 {
        Outcome::Failed
    } else if days < FULL_DAYS.0 {
        Outcome::Attention
    } else {
        Outcome::Ok
    };
    Check::new(check, node, result, format!("{days:.0} days: {found}"))
}

/// The week beside the recorded baseline, and how old that is.
pub(crate) async fn thresholds(source: &Source, file: Option<&Baselines>, now: u64) -> Vec<Check> {
    let Some(file) = file else {
        let how = "--file FILE would compare with what `llm-config baseline record` wrote";
        return vec![Check::skipped(BASELINE, how)];
    };
    let mut checks = vec![age(file.recorded_at.as_deref(), now)];
    let Source::Prometheus(prometheus, selector) = source else {
        checks.push(source.needs_prometheus(BASELINE));
        return checks;
    };
    match against(prometheus, selector, file, WEEK).await {
        Err(error) => checks.push(Check::broken(BASELINE, &error)),
        Ok(compared) => checks.extend(compared.into_iter().map(|one| {
            let (result, now) = match (one.passed, one.now) {
                (Some(true), Some(now)) => (Outcome::Attention, now.to_string()),
                (_, Some(now)) => (Outcome::Ok, now.to_string()),
                (_, None) => (Outcome::NotChecked, "no value".to_owned()),
            };
            let found =
                format!("{now} this week; recorded {}, threshold {}", one.baseline, one.threshold);
            Check::new(BASELINE, one.key, result, found)
        })),
    }
    checks
}

fn age(recorded_at: Option<&str>, now: u64) -> Check {
    let recorded = recorded_at
        .and_then(|text| text.parse::<prost_types::Timestamp>().ok())
        .and_then(|time| SystemTime::try_from(time).ok())
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let Some(recorded) = recorded else {
        return Check::skipped(BASELINE, "the file does not say when it was recorded");
    };
    let days = now.saturating_sub(recorded.as_secs()) / 86_400;
    let old = days > BASELINE_DAYS_MAX;
    let result = if old { Outcome::Attention } else { Outcome::Ok };
    let advice = if old { "; look at it, and record it again" } else { "" };
    Check::new(BASELINE, "age", result, format!("recorded {days} days ago{advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::measures::named;

    const NOW: u64 = 1_769_860_800;

    #[test]
    fn what_got_worse_is_told_from_what_got_better() {
        let result = |key, before, now| trend(named(key).unwrap(), before, now).result;
        assert_eq!(result("p95_latency_ms", Some(45.0), Some(60.0)), Outcome::Attention);
        assert_eq!(result("p95_latency_ms", Some(60.0), Some(45.0)), Outcome::Ok);
        assert_eq!(result("cache_hit_rate_pct", Some(90.0), Some(80.0)), Outcome::Attention);
        assert_eq!(result("cache_hit_rate_pct", Some(80.0), Some(90.0)), Outcome::Ok);
        assert_eq!(result("error_rate_pct", None, Some(1.0)), Outcome::NotChecked);
        let found = trend(named("p95_latency_ms").unwrap(), Some(50.0), Some(60.0)).found;
        assert_eq!(found, "60 ms, the week before 50 ms (+20 %)");
    }

    #[test]
    fn what_is_soon_full_is_said_in_days() {
        let days = |days: f64| full(DISK, "a".into(), days * 1e9, Some(1e9 / DAY_SECONDS));
        assert_eq!(
            [40.0, 20.0, 5.0].map(|left| days(left).result),
            [Outcome::Ok, Outcome::Attention, Outcome::Failed]
        );
        assert!(days(20.0).found.starts_with("20 days: "), "{}", days(20.0).found);
        assert!(days(5_000.0).found.starts_with("more than ten years"));
        let shrinks = full(DISK, "a".into(), 0.0, Some(-5.0));
        assert_eq!(shrinks.result, Outcome::Ok);
        assert_eq!(full(DISK, "a".into(), 1.0, None).result, Outcome::NotChecked);
    }

    #[test]
    fn an_old_baseline_is_looked_at_again() {
        let at = |text: &str| age(Some(text), NOW).result;
        assert_eq!(at("2026-01-31T11:00:00Z"), Outcome::Ok);
        assert_eq!(at("2025-12-31T11:00:00Z"), Outcome::Ok);
        assert_eq!(at("2025-12-30T11:00:00Z"), Outcome::Attention);
        assert_eq!(at("yesterday"), Outcome::NotChecked);
        assert_eq!(age(None, NOW).result, Outcome::NotChecked);
    }
}
