//! Metric families from plain numbers, for values that are read when the page is asked for.

use llm_config_replica::DurationSample;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

/// Labels and their values.
pub(super) type Labels = Vec<(&'static str, String)>;

pub(super) fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    counters_of(name, help, [(Vec::new(), value)])
}

pub(super) fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    gauges_of(name, help, [(Vec::new(), value)])
}

/// A counter for each value of one label.
pub(super) fn counters(
    name: &str,
    help: &str,
    label: &'static str,
    samples: impl IntoIterator<Item = (String, f64)>,
) -> MetricFamily {
    counters_of(name, help, samples.into_iter().map(|(of, value)| (vec![(label, of)], value)))
}

/// A gauge for each value of one label.
pub(super) fn gauges(
    name: &str,
    help: &str,
    label: &'static str,
    samples: impl IntoIterator<Item = (String, f64)>,
) -> MetricFamily {
    gauges_of(name, help, samples.into_iter().map(|(of, value)| (vec![(label, of)], value)))
}

/// A counter for each set of labels.
pub(super) fn counters_of(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels, f64)>,
) -> MetricFamily {
    let samples = samples.into_iter().map(|(labels, value)| {
        let mut metric = labelled(labels);
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, samples.collect())
}

/// A gauge for each set of labels.
pub(super) fn gauges_of(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels, f64)>,
) -> MetricFamily {
    let samples = samples.into_iter().map(|(labels, value)| {
        let mut metric = labelled(labels);
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, samples.collect())
}

/// A histogram for each set of labels.
pub(super) fn histograms_of<'a>(
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels, &'a DurationSample)>,
) -> MetricFamily {
    let samples = samples.into_iter().map(|(labels, sample)| {
        let mut metric = labelled(labels);
        metric.set_histogram(histogram(sample));
        metric
    });
    family(name, help, MetricType::HISTOGRAM, samples.collect())
}

/// Prometheus' buckets count what is below them too; the last one, without a bound, is the number of all.
fn histogram(sample: &DurationSample) -> Histogram {
    let mut below = 0;
    let mut buckets = Vec::with_capacity(sample.bounds.len());
    for (bound, count) in sample.bounds.iter().zip(&sample.counts) {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(sample.counts.iter().sum());
    histogram.set_sample_sum(sample.seconds);
    histogram
}

/// In the order of their names, as the crate's own vectors show them.
fn labelled(mut labels: Labels) -> Metric {
    labels.sort_unstable_by_key(|(name, _)| *name);
    let labels = labels.into_iter().map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value);
        pair
    });
    Metric::from_label(labels.collect())
}

fn family(name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up() {
        let sample = DurationSample { bounds: &[0.1, 1.0], counts: vec![2, 1, 4], seconds: 9.5 };
        let histogram = histogram(&sample);
        let buckets = histogram.get_bucket();
        let counts: Vec<u64> = buckets.iter().map(|bucket| bucket.cumulative_count()).collect();
        assert_eq!((counts, histogram.get_sample_count()), (vec![2, 3], 7));
    }
}
