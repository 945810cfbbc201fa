//! Latencies in buckets of growing width: constant memory, every quantile within 1 % of the true value.

use std::time::Duration;

use serde::Serialize;

/// Buckets per power of two; bounds the relative error to 1/128.
const SUB_BUCKETS: u64 = 128;
const SUB_BITS: u32 = SUB_BUCKETS.trailing_zeros();
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB_BUCKETS as usize;

/// Counts of latencies in microseconds.
#[derive(Debug, Clone)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

/// What a report says of a histogram; `null` in JSON where nothing was recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Half of them stay at or below this, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 90 %.
    pub p90_ms: Option<f64>,
    /// 99 %.
    pub p99_ms: Option<f64>,
    /// 99.9 %.
    pub p999_ms: Option<f64>,
    /// All of them.
    pub max_ms: Option<f64>,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Adds one latency.
    pub fn record(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
            self.total += 1;
            self.max = self.max.max(micros);
        }
    }

    /// Adds everything of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// The longest one, exactly.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (self.total > 0).then(|| Duration::from_micros(self.max))
    }

    /// For a report.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        // A bucket's bound may lie above the longest one in it.
        let quantile = |q| self.quantile(q).min(self.max()).map(millis);
        Quantiles {
            count: self.total,
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            p999_ms: quantile(0.999),
            max_ms: self.max().map(millis),
        }
    }

    /// How many latencies were recorded.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The latency that a share `q` of all stays at or below; nothing when nothing was recorded.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count of operations of one run is far below 2^52"
        )]
        let rank = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_micros(upper_bound(index as u64)));
            }
        }
        None
    }
}

/// Whole microseconds as milliseconds, without digits that nobody measured.
fn millis(latency: Duration) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a run takes far less than 2^52 microseconds")]
    let micros = latency.as_micros() as f64;
    micros / 1e3
}

/// Values below `SUB_BUCKETS` have a bucket each; above, each power of two is cut into `SUB_BUCKETS` equal parts.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    usize::try_from(u64::from(shift) * SUB_BUCKETS + (value >> shift)).unwrap_or(usize::MAX)
}

fn upper_bound(index: u64) -> u64 {
    let shift = (index / SUB_BUCKETS).saturating_sub(1);
    let start = (index - shift * SUB_BUCKETS) << shift;
    start + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_is_close_to_it() {
        for exponent in 0..60 {
            for offset in [0_u64, 1, 3, 7] {
                let value = (1_u64 << exponent) + offset * ((1 << exponent) / 9);
                let bound = upper_bound(bucket(value) as u64);
                assert!(bound >= value, "{value} {bound}");
                assert!(bound - value <= value / 100, "{value} {bound}");
            }
        }
        assert!(bucket(u64::MAX) < BUCKETS);
        assert!((1..100_000).all(|v| bucket(v) >= bucket(v - 1)));
    }

    #[test]
    fn quantiles_are_those_of_the_recorded_values() {
        let (mut odd, mut even) = (Histogram::default(), Histogram::default());
        assert_eq!(odd.quantile(0.5), None);
        for millis in 1..=1000 {
            let histogram = if millis % 2 == 0 { &mut even } else { &mut odd };
            histogram.record(Duration::from_millis(millis));
        }
        odd.merge(&even);
        assert_eq!(odd.total(), 1000);
        for (q, millis) in [(0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = odd.quantile(q).unwrap().as_secs_f64() * 1000.0;
            assert!((found - millis).abs() <= millis * 0.01, "{q}: {found}");
        }
    }

    #[test]
    fn the_longest_is_exact_and_bounds_the_quantiles() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.max(), histogram.quantiles()), (None, Quantiles::default()));
        let longest = Duration::from_micros(123_457);
        histogram.record(longest);
        let mut other = Histogram::default();
        other.record(Duration::from_micros(5));
        histogram.merge(&other);
        assert_eq!(histogram.max(), Some(longest));
        let quantiles = histogram.quantiles();
        assert_eq!((quantiles.count, quantiles.p50_ms), (2, Some(0.005)));
        assert_eq!((quantiles.p999_ms, quantiles.max_ms), (Some(123.457), Some(123.457)));
    }
}
