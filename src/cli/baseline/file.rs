//! The file of baselines: what was normal, when that was, and where a deviation begins.
//!
//! The six numbers below `baselines` may be all that is in it; what is missing beside them follows from them.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::measures::{MEASURES, Measure, named};
use crate::json::quoted;

pub(crate) const FILE_BYTES_MAX: u64 = 1 << 20;

type Numbers = BTreeMap<String, f64>;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Baselines {
    /// Like 2026-01-31T12:00:00Z.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) recorded_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) job: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster: Option<String>,
    /// How much of the window there were values of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) coverage_pct: Option<f64>,
    pub(crate) baselines: Numbers,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) worst_hours: Numbers,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) thresholds: Numbers,
    /// What there was no value of, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) gaps: BTreeMap<String, String>,
}

impl Baselines {
    /// # Errors
    /// When it is no such file, or says what cannot be.
    pub(crate) fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let text = std::str::from_utf8(bytes).context("is not UTF-8 text")?;
        let file: Self =
            serde_saphyr::from_str(text).map_err(|error| anyhow::Error::msg(error.to_string()))?;
        for (section, numbers) in [
            ("baselines", &file.baselines),
            ("worst_hours", &file.worst_hours),
            ("thresholds", &file.thresholds),
        ] {
            for (key, value) in numbers {
                ensure!(named(key).is_some(), "{section}: there is no {key:?}; one of {}", keys());
                ensure!(
                    value.is_finite() && *value >= 0.0,
                    "{section}.{key}: must be a number from 0 on"
                );
            }
        }
        ensure!(!file.baselines.is_empty(), "baselines: it has none of {}", keys());
        Ok(file)
    }

    /// What is in it, in the order of the measures, with the threshold of each.
    pub(crate) fn known(&self) -> impl Iterator<Item = (&'static Measure, f64, f64)> {
        MEASURES.iter().filter_map(|measure| {
            let baseline = *self.baselines.get(measure.key)?;
            let threshold = self.thresholds.get(measure.key).copied().unwrap_or_else(|| {
                measure.threshold(baseline, self.worst_hours.get(measure.key).copied())
            });
            Some((measure, baseline, threshold))
        })
    }

    /// As YAML, with the documented part as it is documented.
    pub(crate) fn yaml(&self) -> String {
        let mut text =
            "# Made by `llm-config baseline record`; `llm-config baseline compare` reads it.\n"
                .to_owned();
        for (name, value) in [
            ("recorded_at", &self.recorded_at),
            ("window", &self.window),
            ("job", &self.job),
            ("cluster", &self.cluster),
        ] {
            if let Some(value) = value {
                text.push_str(&format!("{name}: {}\n", quoted(value)));
            }
        }
        if let Some(coverage) = self.coverage_pct {
            text.push_str(&format!("coverage_pct: {coverage}\n"));
        }
        for (section, comment, numbers) in [
            ("baselines", "", &self.baselines),
            ("worst_hours", "# The worst mean of an hour in the window.\n", &self.worst_hours),
            (
                "thresholds",
                "# Beyond them for an hour is a deviation: below for the hit rate, above for everything else.\n",
                &self.thresholds,
            ),
        ] {
            let lines = MEASURES.iter().filter_map(|measure| {
                Some(format!("  {}: {}\n", measure.key, numbers.get(measure.key)?))
            });
            let lines: String = lines.collect();
            if !lines.is_empty() {
                text.push_str(&format!("{comment}{section}:\n{lines}"));
            }
        }
        if !self.gaps.is_empty() {
            text.push_str("gaps:\n");
            for (key, reason) in &self.gaps {
                text.push_str(&format!("  {}: {}\n", quoted(key), quoted(reason)));
            }
        }
        text
    }
}

fn keys() -> String {
    MEASURES.map(|measure| measure.key).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTED: &str = "baselines:\n  request_rate_rps: 1000\n  p95_latency_ms: 45\n  cache_hit_rate_pct: 85\n  cpu_usage_pct: 40\n  memory_usage_gb: 1.5\n  error_rate_pct: 0.05\n";

    #[test]
    fn the_documented_file_is_enough() {
        let file = Baselines::parse(DOCUMENTED.as_bytes()).unwrap();
        let known: Vec<_> =
            file.known().map(|(measure, baseline, limit)| (measure.key, baseline, limit)).collect();
        assert_eq!(known[0], ("request_rate_rps", 1000.0, 1200.0));
        assert_eq!(known[2], ("cache_hit_rate_pct", 85.0, 80.0));
        assert_eq!(known.len(), 6);
        assert!(file.yaml().ends_with(DOCUMENTED), "{}", file.yaml());
    }

    #[test]
    fn what_was_written_reads_back() {
        let mut file = Baselines::parse(DOCUMENTED.as_bytes()).unwrap();
        file.recorded_at = Some("2026-01-31T12:00:00Z".into());
        file.cluster = Some("yes: \"no\"".into());
        file.coverage_pct = Some(99.5);
        file.thresholds.insert("error_rate_pct".into(), 2.0);
        file.gaps.insert("p95_latency_ms".into(), "no requests\nat all".into());
        let again = Baselines::parse(file.yaml().as_bytes()).unwrap();
        assert_eq!(again, file);
        let limits: Vec<f64> = again.known().map(|(_, _, limit)| limit).collect();
        assert_eq!(limits[5], 2.0, "a threshold that is written down counts");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, words) in [
            ("", "end of input"),
            ("baselines: {}", "none of request_rate_rps"),
            ("baselines: {p95_latency_s: 1}", "p95_latency_s"),
            ("baselines: {p95_latency_ms: -1}", "from 0 on"),
            ("baselines: {p95_latency_ms: .nan}", "from 0 on"),
            ("baselines: {p95_latency_ms: x}", "x"),
            ("baselines: {p95_latency_ms: 1}\nthreshold: {}", "threshold"),
        ] {
            let error = format!("{:#}", Baselines::parse(text.as_bytes()).unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
