//! Metric families from plain numbers, for values that are read when the page is asked for.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

pub(super) fn counter(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, vec![sample(MetricType::COUNTER, None, value)])
}

pub(super) fn gauge(name: &str, help: &str, value: f64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, vec![sample(MetricType::GAUGE, None, value)])
}

/// A counter for each value of one label.
pub(super) fn counters(
    name: &str,
    help: &str,
    label: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) -> MetricFamily {
    labelled(name, help, MetricType::COUNTER, label, samples)
}

/// A gauge for each value of one label.
pub(super) fn gauges(
    name: &str,
    help: &str,
    label: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) -> MetricFamily {
    labelled(name, help, MetricType::GAUGE, label, samples)
}

fn labelled(
    name: &str,
    help: &str,
    kind: MetricType,
    label: &str,
    samples: impl IntoIterator<Item = (String, f64)>,
) -> MetricFamily {
    let samples =
        samples.into_iter().map(|(of, value)| sample(kind, Some((label, of)), value)).collect();
    family(name, help, kind, samples)
}

fn family(name: &str, help: &str, kind: MetricType, samples: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(samples);
    family
}

fn sample(kind: MetricType, label: Option<(&str, String)>, value: f64) -> Metric {
    let labels = label.map(|(name, of)| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(of);
        pair
    });
    let mut metric = Metric::from_label(labels.into_iter().collect());
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
