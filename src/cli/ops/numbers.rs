//! The key numbers beside their targets, the room that every node has left, and the certificates.

use std::collections::BTreeMap;

use super::source::{Reading, Source};
use super::{Check, Outcome};
use crate::baseline::measures::{MEASURES, Window, numbers, rounded};
use crate::exposition::Page;
use crate::output::span;
use crate::prometheus::{Prometheus, Selector};

const KEY: &str = "key number";
const DISK: &str = "disk";
const QUOTA: &str = "quota";
const CERTIFICATE: &str = "certificate";
const DAY_SECONDS: f64 = 86_400.0;
/// Parts of a whole from which on a person should look, and from which on it is late.
const ROOM: (f64, f64) = (0.8, 0.9);
/// Days that a certificate has left.
const CERTIFICATE_DAYS: (f64, f64) = (21.0, 3.0);
/// Errors for which the service is to blame, not its caller.
const FAULTS: [&str; 7] = [
    "INTERNAL",
    "NO_LEADER",
    "NOT_READY",
    "OUTCOME_UNKNOWN",
    "OVERLOADED",
    "STALE",
    "STORAGE_FULL",
];

const UP: &str = "up_pct";
const SUCCESS: &str = "success_rate_pct";

/// What is aimed at, and from where on it is a failure, if it is one at all: a cold cache is not.
struct Target {
    key: &'static str,
    unit: &'static str,
    target: f64,
    limit: Option<f64>,
    higher_is_better: bool,
}

impl Target {
    const fn at_most(
        key: &'static str,
        unit: &'static str,
        target: f64,
        limit: Option<f64>,
    ) -> Self {
        Self { key, unit, target, limit, higher_is_better: false }
    }

    const fn at_least(key: &'static str, target: f64, limit: Option<f64>) -> Self {
        Self { key, unit: "%", target, limit, higher_is_better: true }
    }

    fn check(&self, value: Option<f64>, when: &str) -> Check {
        let Self { key, unit, target, .. } = self;
        let Some(value) = value.filter(|value| value.is_finite()).map(rounded) else {
            return Check::new(KEY, *key, Outcome::NotChecked, format!("there is no value {when}"));
        };
        let misses = |bound: f64| if self.higher_is_better { value < bound } else { value > bound };
        let result = if self.limit.is_some_and(misses) {
            Outcome::Failed
        } else if misses(*target) {
            Outcome::Attention
        } else {
            Outcome::Ok
        };
        let side = if self.higher_is_better { "at least" } else { "at most" };
        Check::new(KEY, *key, result, format!("{value} {unit} {when}; {side} {target} is aimed at"))
    }
}

/// Those of the guide, with the thresholds of its alerts.
const TARGETS: [Target; 7] = [
    Target::at_least(UP, 99.9, None),
    Target::at_least(SUCCESS, 99.0, Some(95.0)),
    Target::at_most("p95_latency_ms", "ms", 100.0, Some(200.0)),
    Target::at_least("cache_hit_rate_pct", 80.0, None),
    Target::at_most("cpu_usage_pct", "%", 70.0, None),
    Target::at_most("memory_usage_gb", "GiB", 2.0, Some(3.5)),
    Target::at_most("error_rate_pct", "%", 1.0, Some(5.0)),
];

pub(crate) async fn key(source: &Source, seconds: u64, now: u64) -> Vec<Check> {
    let (values, when) = match source {
        Source::Prometheus(prometheus, selector) => {
            match measured(prometheus, selector, seconds).await {
                Ok(values) => (values, format!("over {}", span(seconds))),
                Err(error) => return vec![Check::broken(KEY, &error)],
            }
        }
        Source::Pages(pages) => (counted(pages, now), "since the nodes started".to_owned()),
        Source::Nowhere(reason) => return vec![Check::skipped(KEY, reason)],
    };
    let pages = matches!(source, Source::Pages(_));
    let targets = TARGETS.iter().filter(|target| !(pages && target.key == UP));
    targets.map(|target| target.check(values.get(target.key).copied(), &when)).collect()
}

type Values = BTreeMap<&'static str, f64>;

async fn measured(
    prometheus: &Prometheus,
    selector: &Selector,
    seconds: u64,
) -> anyhow::Result<Values> {
    let mean = |metric| {
        let series = selector.of(metric, "");
        format!("100 * avg by (job, cluster) (avg_over_time({series}[{seconds}s]))")
    };
    let mut keys = vec![UP, SUCCESS];
    let mut expressions = vec![mean("up"), mean("job:http_success_rate:5m")];
    for measure in &MEASURES {
        keys.push(measure.key);
        expressions.push(measure.over(selector, Window::last(seconds)));
    }
    let values = numbers(prometheus, expressions).await?;
    Ok(keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect())
}

/// From the counters of the pages, which begin at 0 with each node. What nothing was counted of has no value.
fn counted(pages: &[(String, Page)], now: u64) -> Values {
    let sum = |name: &str, wanted: &dyn Fn(&crate::prometheus::Sample) -> bool| {
        pages.iter().filter_map(|(_, page)| page.sum(name, wanted)).reduce(|a, b| a + b)
    };
    let all = |_: &crate::prometheus::Sample| true;
    let share = |part: Option<f64>, whole: Option<f64>| {
        whole.filter(|whole| *whole > 0.0).map(|whole| 100.0 * part.unwrap_or(0.0) / whole)
    };
    let mut values = Values::new();
    let mut put = |key, value: Option<f64>| {
        if let Some(value) = value {
            values.insert(key, value);
        }
    };
    let good = sum("http_requests_total", &|sample| !sample.label("status").starts_with('5'));
    put(SUCCESS, share(good, sum("http_requests_total", &all)));
    let faults = sum("config_errors_total", &|sample| FAULTS.contains(&sample.label("code")));
    put("error_rate_pct", share(faults, sum("config_operations_total", &all)));
    let l1 = |sample: &crate::prometheus::Sample| sample.label("tier") == "l1";
    let hits = sum("cache_hits_total", &l1);
    let misses = sum("cache_misses_total", &l1);
    put("cache_hit_rate_pct", share(hits, hits.zip(misses).map(|(hits, misses)| hits + misses)));
    put("p95_latency_ms", quantile(pages, 0.95).map(|seconds| seconds * 1e3));
    let nodes = |of: &dyn Fn(&Page) -> Option<f64>| {
        let found: Vec<f64> = pages.iter().filter_map(|(_, page)| of(page)).collect();
        (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64)
    };
    let gib = (1_u64 << 30) as f64;
    put("memory_usage_gb", nodes(&|page| Some(page.one("process_resident_memory_bytes")? / gib)));
    put(
        "cpu_usage_pct",
        nodes(&|page| {
            let age = now as f64 - page.one("process_start_time_seconds")?;
            let cores = page.one("process_cpu_limit_cores")?;
            let used = page.one("process_cpu_seconds_total")?;
            (age > 0.0 && cores > 0.0).then(|| 100.0 * used / age / cores)
        }),
    );
    values
}

/// Of the requests of all pages, without watches, which stay open on purpose.
fn quantile(pages: &[(String, Page)], wanted: f64) -> Option<f64> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for sample in pages.iter().flat_map(|(_, page)| page.of("http_request_duration_seconds_bucket"))
    {
        if sample.label("route") == "/api/v1/watch" {
            continue;
        }
        let Ok(bound) = crate::prometheus::number(sample.label("le")) else { continue };
        match buckets.iter_mut().find(|(known, _)| *known == bound) {
            Some((_, count)) => *count += sample.value,
            None => buckets.push((bound, sample.value)),
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (_, total) = *buckets.last()?;
    if total.is_nan() || total <= 0.0 {
        return None;
    }
    let rank = wanted * total;
    let (mut lower, mut below) = (0.0, 0.0);
    for (bound, count) in buckets {
        if count >= rank {
            // Beyond the last bound nothing more is known.
            let inside = count - below;
            let part = if inside > 0.0 { (rank - below) / inside } else { 1.0 };
            return Some(if bound.is_finite() { lower + (bound - lower) * part } else { lower });
        }
        (lower, below) = (bound, count);
    }
    None
}

/// Disk and quota of every node. They hold the same, so nothing is added up.
pub(crate) async fn room(source: &Source) -> Vec<Check> {
    if let Source::Nowhere(reason) = source {
        return vec![Check::skipped(DISK, reason), Check::skipped(QUOTA, reason)];
    }
    let mut checks = match both(source, ["llm_config_storage_free_bytes", "storage_capacity_bytes"])
        .await
    {
        Ok(nodes) if nodes.is_empty() => vec![nothing(DISK)],
        Ok(nodes) => {
            nodes.into_iter().map(|(node, [free, capacity])| disk(node, free, capacity)).collect()
        }
        Err(error) => vec![Check::broken(DISK, &error)],
    };
    match both(source, ["storage_size_bytes", "storage_quota_bytes"]).await {
        Ok(nodes) if nodes.is_empty() => checks.push(nothing(QUOTA)),
        Ok(nodes) => {
            checks.extend(nodes.into_iter().map(|(node, [size, bound])| quota(node, size, bound)));
        }
        Err(error) => checks.push(Check::broken(QUOTA, &error)),
    }
    checks
}

fn nothing(check: &'static str) -> Check {
    Check::new(check, "", Outcome::Failed, "no node tells of it")
}

/// Two metrics of every node that has both.
pub(crate) async fn both(
    source: &Source,
    [first, second]: [&str; 2],
) -> anyhow::Result<Vec<(String, [f64; 2])>> {
    let first = source.readings(first).await?;
    let second: BTreeMap<String, f64> =
        source.readings(second).await?.into_iter().map(|r| (r.instance, r.value)).collect();
    let pair = |reading: Reading| {
        let other = *second.get(&reading.instance)?;
        Some((reading.instance, [reading.value, other]))
    };
    Ok(first.into_iter().filter_map(pair).collect())
}

fn disk(node: String, free: f64, capacity: f64) -> Check {
    if capacity.is_nan() || capacity <= 0.0 {
        return Check::new(DISK, node, Outcome::NotChecked, "the node does not know its size");
    }
    let used = 1.0 - free / capacity;
    let found = format!("{:.0} % of {} used", used * 100.0, bytes(capacity));
    Check::new(DISK, node, Outcome::at(used, ROOM.0, ROOM.1), found)
}

fn quota(node: String, size: f64, quota: f64) -> Check {
    if quota.is_nan() || quota <= 0.0 {
        return Check::new(QUOTA, node, Outcome::Ok, format!("{} stored, no quota", bytes(size)));
    }
    let used = size / quota;
    let found = format!("{:.0} % of {} used", used * 100.0, bytes(quota));
    Check::new(QUOTA, node, Outcome::at(used, ROOM.0, ROOM.1), found)
}

pub(crate) fn bytes(number: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = units.iter().find(|(_, shift)| number >= (1_u64 << shift) as f64);
    match fits {
        Some((unit, shift)) => format!("{:.1} {unit}", number / (1_u64 << shift) as f64),
        None => format!("{number:.0} B"),
    }
}

pub(crate) async fn certificates(source: &Source, now: u64) -> Vec<Check> {
    if let Source::Nowhere(reason) = source {
        return vec![Check::skipped(CERTIFICATE, reason)];
    }
    match source.readings("tls_certificate_expiry_timestamp_seconds").await {
        Ok(readings) if readings.is_empty() => {
            vec![Check::new(CERTIFICATE, "", Outcome::Ok, "no node uses one")]
        }
        Ok(readings) => readings.into_iter().map(|reading| certificate(reading, now)).collect(),
        Err(error) => vec![Check::broken(CERTIFICATE, &error)],
    }
}

fn certificate(reading: Reading, now: u64) -> Check {
    let days = (reading.value - now as f64) / DAY_SECONDS;
    let result = if days < CERTIFICATE_DAYS.1 {
        Outcome::Failed
    } else if days < CERTIFICATE_DAYS.0 {
        Outcome::Attention
    } else {
        Outcome::Ok
    };
    let which = reading.labels.get("certificate").map_or("", String::as_str);
    let found = if days < 0.0 {
        format!("expired {:.0} days ago", -days)
    } else {
        format!("expires in {days:.0} days")
    };
    Check::new(CERTIFICATE, format!("{} {which}", reading.instance), result, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_769_860_800;

    fn target(key: &str) -> &'static Target {
        TARGETS.iter().find(|target| target.key == key).unwrap()
    }

    #[test]
    fn targets_are_missed_on_their_own_side() {
        let result = |key, value| target(key).check(Some(value), "now").result;
        assert_eq!(result("p95_latency_ms", 100.0), Outcome::Ok);
        assert_eq!(result("p95_latency_ms", 100.1), Outcome::Attention);
        assert_eq!(result("p95_latency_ms", 201.0), Outcome::Failed);
        assert_eq!(result(SUCCESS, 99.0), Outcome::Ok);
        assert_eq!(result(SUCCESS, 98.9), Outcome::Attention);
        assert_eq!(result(SUCCESS, 94.0), Outcome::Failed);
        assert_eq!(result("cache_hit_rate_pct", 1.0), Outcome::Attention);
        for nothing in [None, Some(f64::NAN)] {
            assert_eq!(target(UP).check(nothing, "now").result, Outcome::NotChecked);
        }
    }

    fn pages() -> Vec<(String, Page)> {
        let page = |text: &str| Page::read(text).unwrap();
        let start = NOW - 1_000;
        vec![
            (
                "a:1".to_owned(),
                page(&format!(
                    "http_requests_total{{status=\"200\"}} 96\nhttp_requests_total{{status=\"503\"}} 2\n\
                     http_request_duration_seconds_bucket{{route=\"/x\",le=\"0.1\"}} 50\n\
                     http_request_duration_seconds_bucket{{route=\"/x\",le=\"0.2\"}} 100\n\
                     http_request_duration_seconds_bucket{{route=\"/x\",le=\"+Inf\"}} 100\n\
                     http_request_duration_seconds_bucket{{route=\"/api/v1/watch\",le=\"+Inf\"}} 9000\n\
                     config_operations_total{{operation=\"get\"}} 90\n\
                     config_errors_total{{code=\"NOT_FOUND\"}} 50\nconfig_errors_total{{code=\"INTERNAL\"}} 3\n\
                     cache_hits_total{{tier=\"l1\"}} 9\ncache_hits_total{{tier=\"l2\"}} 0\n\
                     cache_misses_total{{tier=\"l1\"}} 1\ncache_misses_total{{tier=\"l2\"}} 1000\n\
                     process_start_time_seconds {start}\nprocess_cpu_limit_cores 2\n\
                     process_cpu_seconds_total 500\nprocess_resident_memory_bytes 1073741824\n"
                )),
            ),
            (
                "b:1".to_owned(),
                page(
                    "http_requests_total{status=\"200\"} 2\nconfig_operations_total{operation=\"get\"} 10\nprocess_resident_memory_bytes 3221225472\n",
                ),
            ),
        ]
    }

    #[test]
    fn pages_are_added_up_where_that_is_right() {
        let values = counted(&pages(), NOW);
        assert_eq!(values[SUCCESS], 98.0);
        assert_eq!(values["error_rate_pct"], 3.0);
        assert_eq!(values["cache_hit_rate_pct"], 90.0);
        assert_eq!(values["cpu_usage_pct"], 25.0);
        assert_eq!(values["memory_usage_gb"], 2.0, "the mean of the nodes");
        assert!((values["p95_latency_ms"] - 190.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_counted_has_no_value() {
        let idle = "http_requests_total{status=\"200\"} 0\ncache_hits_total{tier=\"l1\"} 0\ncache_misses_total{tier=\"l1\"} 0\nhttp_request_duration_seconds_bucket{le=\"+Inf\"} 0\n";
        let values = counted(&[("a".to_owned(), Page::read(idle).unwrap())], NOW);
        assert!(values.is_empty(), "{values:?}");
    }

    #[test]
    fn room_is_seen_before_it_is_gone() {
        let used = |part: f64| disk("a".into(), 100.0 - part, 100.0).result;
        assert_eq!(
            [79.0, 81.0, 91.0].map(used),
            [Outcome::Ok, Outcome::Attention, Outcome::Failed]
        );
        assert_eq!(quota("a".into(), 81.0, 100.0).result, Outcome::Attention);
        assert_eq!(quota("a".into(), 81.0, 0.0).found, "81 B stored, no quota");
        assert_eq!(disk("a".into(), 0.0, 0.0).result, Outcome::NotChecked);
        assert_eq!(bytes(1.5 * 1_073_741_824.0), "1.5 GiB");
    }

    #[test]
    fn certificates_are_seen_before_they_expire() {
        let left = |days: f64| {
            let labels = BTreeMap::from([("certificate".to_owned(), "node".to_owned())]);
            let value = NOW as f64 + days * DAY_SECONDS;
            certificate(Reading { instance: "a:1".into(), labels, value }, NOW)
        };
        assert_eq!(left(22.0).result, Outcome::Ok);
        assert_eq!(left(20.0).result, Outcome::Attention);
        assert_eq!(left(2.0).result, Outcome::Failed);
        assert_eq!(
            (left(-3.0).found.as_str(), left(-3.0).subject.as_str()),
            ("expired 3 days ago", "a:1 node")
        );
    }
}
