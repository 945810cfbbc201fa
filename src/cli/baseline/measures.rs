//! What a baseline is made of: six numbers, how Prometheus is asked for each, and how far from its baseline one may be.

use futures::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::prometheus::{Prometheus, Selector};

/// Expressions that Prometheus works on at the same time.
const PARALLEL: usize = 4;
const HOUR_SECONDS: u64 = 3_600;
/// A fifth above the baseline; of a hit rate, a fifth more misses.
const TOLERANCE: f64 = 0.2;

/// On which side of its baseline a value is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worse {
    Above,
    /// A share of 100: what is missing from it counts.
    Below,
}

#[derive(Debug)]
pub(crate) struct Measure {
    /// As the file of baselines names it, with its unit.
    pub(crate) key: &'static str,
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) worse: Worse,
    /// The least distance of a threshold from the baseline: a fifth of next to nothing is noise.
    step: f64,
    /// A series for each cluster or node, and what else is matched on it.
    series: (&'static str, &'static str),
    /// From the series' unit to that of the key.
    scale: f64,
}

const GIB: f64 = (1_u64 << 30) as f64;

/// In the order of the file.
pub(crate) const MEASURES: [Measure; 6] = [
    Measure {
        key: "request_rate_rps",
        name: "request rate",
        unit: "requests/s",
        worse: Worse::Above,
        step: 1.0,
        // Every request is in the last bucket.
        series: ("job_le:http_request_duration_seconds_bucket:rate5m", "le=\"+Inf\""),
        scale: 1.0,
    },
    Measure {
        key: P95,
        name: "P95 latency",
        unit: "ms",
        worse: Worse::Above,
        step: 5.0,
        series: ("job:http_request_duration_seconds:p95_5m", ""),
        scale: 1e3,
    },
    Measure {
        key: "cache_hit_rate_pct",
        name: "cache hit rate",
        unit: "%",
        worse: Worse::Below,
        step: 5.0,
        series: ("job:cache_hit_rate:5m", ""),
        scale: 100.0,
    },
    Measure {
        key: "cpu_usage_pct",
        name: "CPU usage",
        unit: "%",
        worse: Worse::Above,
        step: 5.0,
        series: ("instance:cpu_usage:ratio_rate5m", ""),
        scale: 100.0,
    },
    Measure {
        key: "memory_usage_gb",
        name: "memory usage",
        unit: "GiB",
        worse: Worse::Above,
        step: 0.1,
        series: ("process_resident_memory_bytes", ""),
        scale: 1.0 / GIB,
    },
    Measure {
        key: "error_rate_pct",
        name: "error rate",
        unit: "%",
        worse: Worse::Above,
        step: 1.0,
        series: ("job:error_rate:5m", ""),
        scale: 100.0,
    },
];

const P95: &str = "p95_latency_ms";

/// A stretch of time that ends some seconds before now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) seconds: u64,
    pub(crate) ended_ago_seconds: u64,
}

impl Window {
    pub(crate) fn last(seconds: u64) -> Self {
        Self { seconds, ended_ago_seconds: 0 }
    }

    /// Behind a range or a subquery.
    pub(crate) fn offset(self) -> String {
        match self.ended_ago_seconds {
            0 => String::new(),
            ago => format!(" offset {ago}s"),
        }
    }

    /// Between the values that a subquery looks at: some hundreds of them, and none twice.
    fn step(self) -> u64 {
        (self.seconds / 500).clamp(15, 300)
    }
}

impl Measure {
    /// The value of the last minutes, one for each cluster.
    pub(crate) fn now(&self, selector: &Selector) -> String {
        self.scaled(&selector.of(self.series.0, self.series.1))
    }

    /// The mean over a window; for the latency, the percentile of all its requests.
    pub(crate) fn over(&self, selector: &Selector, window: Window) -> String {
        let (seconds, offset) = (window.seconds, window.offset());
        if self.key == P95 {
            let buckets = selector.of("job_le:http_request_duration_seconds_bucket:rate5m", "");
            return format!(
                "1000 * histogram_quantile(0.95, sum by (job, cluster, le) (sum_over_time({buckets}[{seconds}s]{offset})))"
            );
        }
        let series = selector.of(self.series.0, self.series.1);
        self.scaled(&format!("avg_over_time({series}[{seconds}s]{offset})"))
    }

    /// The worst mean of an hour in a window, at most as long as the window.
    pub(crate) fn worst_hour(&self, selector: &Selector, window: Window) -> String {
        let hour = window.seconds.min(HOUR_SECONDS);
        let step = (hour / 4).max(15);
        let mean = self.over(selector, Window::last(hour));
        let worst = match self.worse {
            Worse::Above => "max_over_time",
            Worse::Below => "min_over_time",
        };
        // The first hours would reach back before the window.
        let rest = (window.seconds - hour).max(step);
        format!("{worst}(({mean})[{rest}s:{step}s]{})", window.offset())
    }

    fn scaled(&self, series: &str) -> String {
        let mean = format!("avg by (job, cluster) ({series})");
        if self.key == "memory_usage_gb" {
            return format!("{mean} / {}", 1_u64 << 30);
        }
        if self.scale == 1.0 { mean } else { format!("{} * {mean}", self.scale) }
    }

    /// A fifth worse than the baseline, at least a step, and not better than the worst hour: what was normal then raises
    /// no alert later.
    pub(crate) fn threshold(&self, baseline: f64, worst_hour: Option<f64>) -> f64 {
        let threshold = match self.worse {
            Worse::Above => {
                let limit = baseline + (baseline * TOLERANCE).max(self.step);
                worst_hour.map_or(limit, |hour| limit.max(hour))
            }
            Worse::Below => {
                let misses = 100.0 - baseline;
                let limit = (baseline - (misses * TOLERANCE).max(self.step)).max(0.0);
                worst_hour.map_or(limit, |hour| limit.min(hour))
            }
        };
        rounded(threshold)
    }

    pub(crate) fn passed(&self, value: f64, threshold: f64) -> bool {
        match self.worse {
            Worse::Above => value > threshold,
            Worse::Below => value < threshold,
        }
    }

    /// Between it and the threshold in an expression of an alert.
    pub(crate) fn comparison(&self) -> &'static str {
        match self.worse {
            Worse::Above => ">",
            Worse::Below => "<",
        }
    }
}

pub(crate) fn named(key: &str) -> Option<&'static Measure> {
    MEASURES.iter().find(|measure| measure.key == key)
}

/// The value of each expression, in their order.
pub(crate) async fn numbers(
    prometheus: &Prometheus,
    expressions: Vec<String>,
) -> anyhow::Result<Vec<Option<f64>>> {
    let asked = expressions.into_iter().map(|text| async move { prometheus.number(&text).await });
    stream::iter(asked).buffered(PARALLEL).try_collect().await
}

/// How much of a window Prometheus has values of, from 0 to 1. They are those of the recording rules, which the other
/// expressions need.
pub(crate) async fn coverage(
    prometheus: &Prometheus,
    selector: &Selector,
    window: Window,
) -> anyhow::Result<f64> {
    let (seconds, step) = (window.seconds, window.step());
    let series = selector.of("instance:memory_usage:ratio", "");
    let offset = window.offset();
    let counted = format!(
        "count_over_time((count by (job, cluster) ({series}))[{seconds}s:{step}s]{offset})"
    );
    let found = prometheus.number(&counted).await?.unwrap_or(0.0);
    let expected = (seconds / step).max(1) as f64;
    Ok((found / expected).min(1.0))
}

/// To four significant digits: more would be noise.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threshold(key: &str, baseline: f64, worst_hour: Option<f64>) -> f64 {
        named(key).unwrap().threshold(baseline, worst_hour)
    }

    #[test]
    fn thresholds_are_a_fifth_worse_and_never_better_than_what_was_seen() {
        assert_eq!(threshold("p95_latency_ms", 45.0, None), 54.0);
        assert_eq!(threshold("p95_latency_ms", 45.0, Some(80.0)), 80.0);
        assert_eq!(threshold("p95_latency_ms", 45.0, Some(46.0)), 54.0);
        assert_eq!(threshold("p95_latency_ms", 1.0, None), 6.0, "at least a step");
        assert_eq!(threshold("request_rate_rps", 1000.0, Some(1500.0)), 1500.0);
        // A hit rate is worse below, and by its misses: 15 % of them become 18 %, a step is more.
        assert_eq!(threshold("cache_hit_rate_pct", 85.0, None), 80.0);
        assert_eq!(threshold("cache_hit_rate_pct", 50.0, None), 40.0);
        assert_eq!(threshold("cache_hit_rate_pct", 85.0, Some(71.0)), 71.0);
        assert_eq!(threshold("cache_hit_rate_pct", 2.0, None), 0.0);
        // 0.05 % and a fifth is 0.06 %, one error in a quiet hour.
        assert_eq!(threshold("error_rate_pct", 0.05, None), 1.05);
        let hits = named("cache_hit_rate_pct").unwrap();
        assert!(hits.passed(79.0, 80.0) && !hits.passed(80.0, 80.0) && !hits.passed(99.0, 80.0));
        let errors = named("error_rate_pct").unwrap();
        assert!(errors.passed(2.0, 1.05) && !errors.passed(1.0, 1.05));
    }

    #[test]
    fn windows_are_asked_for_as_they_are_meant() {
        let selector = Selector { job: "j".into(), cluster: "c".into() };
        let before = Window { seconds: 604_800, ended_ago_seconds: 604_800 };
        let over = |key: &str| named(key).unwrap().over(&selector, before);
        assert_eq!(
            over("cpu_usage_pct"),
            "100 * avg by (job, cluster) (avg_over_time(instance:cpu_usage:ratio_rate5m{job=\"j\", cluster=\"c\"}[604800s] offset 604800s))"
        );
        assert!(over("p95_latency_ms").contains("[604800s] offset 604800s"));
        let worst = named("cache_hit_rate_pct").unwrap().worst_hour(&selector, before);
        assert!(worst.starts_with("min_over_time((100 * avg by"), "{worst}");
        assert!(worst.contains("[3600s]") && worst.ends_with("[601200s:900s] offset 604800s)"));
        let short = named("cpu_usage_pct").unwrap().worst_hour(&selector, Window::last(600));
        assert!(short.contains("[600s]") && short.ends_with("[150s:150s])"), "{short}");
    }

    /// Names of metrics stand in front of their matchers, and every one has some.
    #[test]
    fn every_expression_asks_for_what_there_is_and_names_the_job() {
        let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
        let read =
            |file| std::fs::read_to_string(format!("{here}/../../monitoring/{file}")).unwrap();
        let known = read("METRICS.md") + &read("prometheus/rules/recording.yml");
        let selector = Selector { job: "j".into(), cluster: String::new() };
        let window = Window::last(600);
        for measure in &MEASURES {
            for expression in [
                measure.now(&selector),
                measure.over(&selector, window),
                measure.worst_hour(&selector, window),
            ] {
                let mut found = 0;
                for (index, _) in expression.match_indices("{job=\"j\"") {
                    let name = expression[..index].rsplit(['(', ' ']).next().unwrap();
                    let listed = [format!("| `{name}` |"), format!("record: {name}\n")];
                    assert!(listed.iter().any(|line| known.contains(line)), "{name}");
                    found += 1;
                }
                assert_eq!(found, expression.matches('{').count(), "{expression}");
                assert!(found > 0, "{expression}");
            }
        }
    }
}
