//! `baseline`: what is normal, taken from Prometheus into a file, and what is now compared with it.
//!
//! The fixed thresholds of the shipped alerts stay as they are, whatever is recorded here.

pub(crate) mod file;
pub(crate) mod measures;
mod rules;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use comfy_table::Table;
use llm_config_client::Options;
use serde::Serialize;

use crate::Usage;
use crate::args::{Baseline, CompareBaseline, JOB, RecordBaseline};
use crate::http::{Address, Http};
use crate::output::{self, Output, span, table};
use crate::prometheus::{Prometheus, Selector};

use file::{Baselines, FILE_BYTES_MAX};
use measures::{MEASURES, Window, coverage, named, numbers, rounded};

/// Of a window there must be values for this much: less is not that window.
const COVERAGE_MIN: f64 = 0.8;
const STDOUT: &str = "-";

pub(crate) async fn run(
    options: &Options,
    command: Baseline,
    output: Output,
) -> anyhow::Result<()> {
    match command {
        Baseline::Record(args) => record(options, args, output).await,
        Baseline::Compare(args) => compare(options, args, output).await,
    }
}

/// The server that is named, asked about now.
fn prometheus(options: &Options, address: &str) -> Result<Prometheus, Usage> {
    let address = Address::parse("--prometheus", address)?;
    let http = Http::new(options.tls.as_ref(), address.encrypted(), options.timeout)?;
    Ok(Prometheus::new(http, address, now()))
}

/// In seconds since the Unix epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// As 2026-01-31T12:00:00Z.
pub(crate) fn time(seconds: u64) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    prost_types::Timestamp { seconds, nanos: 0 }.to_string()
}

async fn record(options: &Options, args: RecordBaseline, output: Output) -> anyhow::Result<()> {
    if args.file == Path::new(STDOUT) && args.rules.as_deref() == Some(Path::new(STDOUT)) {
        return Err(Usage("--file and --rules: only one of them can be stdout".to_owned()).into());
    }
    let prometheus = prometheus(options, &args.prometheus)?;
    let selector = Selector::find(&prometheus, args.job, args.cluster).await?;
    let window = Window::last(args.window.as_secs());
    let file = measure(&prometheus, &selector, window).await?;
    write(&args.file, &file.yaml())?;
    if let Some(path) = &args.rules {
        write(path, &rules::yaml(&file, &selector))?;
    }
    for (key, reason) in &file.gaps {
        say!("{key}: not recorded: {reason}");
    }
    for (measure, _, threshold) in file.known() {
        if let Some((_, fixed)) = FIXED.iter().find(|(key, _)| *key == measure.key)
            && measure.passed(threshold, *fixed)
        {
            say!(
                "{}: the threshold of {threshold} {unit} is beyond that of the shipped alert, {fixed} {unit}, which fires first",
                measure.key,
                unit = measure.unit,
            );
        }
    }
    if args.file == Path::new(STDOUT) || args.rules.as_deref() == Some(Path::new(STDOUT)) {
        return Ok(());
    }
    output.print(&file, recorded_table)
}

/// Thresholds of the shipped alerts of the same numbers.
const FIXED: [(&str, f64); 4] = [
    ("p95_latency_ms", 200.0),
    ("cache_hit_rate_pct", 70.0),
    ("cpu_usage_pct", 85.0),
    ("error_rate_pct", 5.0),
];

async fn measure(
    prometheus: &Prometheus,
    selector: &Selector,
    window: Window,
) -> anyhow::Result<Baselines> {
    let at = prometheus.address();
    let covered = coverage(prometheus, selector, window).await?;
    let length = span(window.seconds);
    if covered == 0.0 {
        bail!(
            "{at}: no value of the recording rules within {length}; load monitoring/prometheus/rules/recording.yml"
        );
    }
    ensure!(
        covered >= COVERAGE_MIN,
        "{at} has values for {:.1} % of the last {length}; give a shorter --window, or wait",
        covered * 100.0
    );
    let over = MEASURES.iter().map(|measure| measure.over(selector, window)).collect();
    let worst = MEASURES.iter().map(|measure| measure.worst_hour(selector, window)).collect();
    let over = numbers(prometheus, over).await?;
    let worst = numbers(prometheus, worst).await?;
    let mut file = Baselines {
        recorded_at: Some(time(now())),
        window: Some(length),
        job: Some(selector.job.clone()),
        cluster: Some(selector.cluster.clone()).filter(|cluster| !cluster.is_empty()),
        coverage_pct: Some(rounded(covered * 100.0)),
        ..Baselines::default()
    };
    for (measure, (baseline, worst)) in MEASURES.iter().zip(over.into_iter().zip(worst)) {
        let Some(baseline) = baseline.map(rounded) else {
            file.gaps.insert(measure.key.to_owned(), missing(measure.key).to_owned());
            continue;
        };
        let worst = worst.map(rounded);
        file.thresholds.insert(measure.key.to_owned(), measure.threshold(baseline, worst));
        if let Some(worst) = worst {
            file.worst_hours.insert(measure.key.to_owned(), worst);
        }
        file.baselines.insert(measure.key.to_owned(), baseline);
    }
    let rate = file.baselines.get("request_rate_rps").copied().unwrap_or(0.0);
    ensure!(
        rate > 0.0,
        "{at}: no request came in the window; a baseline of a cluster that nobody uses says nothing"
    );
    Ok(file)
}

/// Why there may be no value of it.
fn missing(key: &str) -> &'static str {
    match key {
        "cache_hit_rate_pct" => "no entry was looked up in the window",
        "error_rate_pct" => "no operation was counted in the window",
        _ => "Prometheus has no value of it in the window",
    }
}

/// Beside the name first: a reader sees the old file or the new one. Prometheus reads it under another user.
fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new(STDOUT) {
        return output::write(text);
    }
    let shown = path.display();
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let wrong = |error| Usage(format!("cannot write {shown}: {error}"));
    let mut file = tempfile::Builder::new()
        .prefix(".llm-config-baseline-")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(wrong)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all());
    written.with_context(|| format!("cannot write {shown}"))?;
    file.persist(path).map_err(|error| wrong(error.error))?;
    Ok(())
}

fn recorded_table(file: &Baselines) -> Table {
    let mut rows = table(&["BASELINE", "VALUE", "WORST HOUR", "THRESHOLD"]);
    for (measure, baseline, threshold) in file.known() {
        let worst = file.worst_hours.get(measure.key);
        rows.add_row([
            measure.key.to_owned(),
            baseline.to_string(),
            worst.map_or_else(|| "-".to_owned(), f64::to_string),
            threshold.to_string(),
        ]);
    }
    rows
}

/// # Errors
/// When it cannot be read, or is no such file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Baselines> {
    let name = path.to_string_lossy();
    let bytes = output::read_file(&name, FILE_BYTES_MAX)?;
    Baselines::parse(&bytes).map_err(|error| Usage(format!("{name}: {error:#}")).into())
}

/// One of the numbers now, beside its baseline.
#[derive(Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) key: &'static str,
    pub(crate) baseline: f64,
    pub(crate) now: Option<f64>,
    pub(crate) threshold: f64,
    /// Whether it is beyond the threshold; null when there is no value now.
    pub(crate) passed: Option<bool>,
}

/// The means over `window`, each beside its baseline.
pub(crate) async fn against(
    prometheus: &Prometheus,
    selector: &Selector,
    file: &Baselines,
    window: Window,
) -> anyhow::Result<Vec<Compared>> {
    let known: Vec<_> = file.known().collect();
    let asked = known.iter().map(|(measure, ..)| measure.over(selector, window)).collect();
    let values = numbers(prometheus, asked).await?;
    let compared = known.into_iter().zip(values).map(|((measure, baseline, threshold), value)| {
        let now = value.map(rounded);
        let passed = now.map(|now| measure.passed(now, threshold));
        Compared { key: measure.key, baseline, now, threshold, passed }
    });
    Ok(compared.collect())
}

async fn compare(options: &Options, args: CompareBaseline, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        recorded_at: Option<String>,
        window_seconds: u64,
        values: BTreeMap<&'static str, Compared>,
    }
    let file = read(&args.file)?;
    let prometheus = prometheus(options, &args.prometheus)?;
    let job = args.job.or_else(|| file.job.clone()).unwrap_or_else(|| JOB.to_owned());
    let cluster = args.cluster.or_else(|| file.cluster.clone());
    let selector = Selector::find(&prometheus, job, cluster).await?;
    let window = Window::last(args.window.as_secs());
    let compared = against(&prometheus, &selector, &file, window).await?;
    let passed: Vec<_> =
        compared.iter().filter(|one| one.passed == Some(true)).map(|one| one.key).collect();
    let known = compared.iter().any(|one| one.passed.is_some());
    let view = View {
        recorded_at: file.recorded_at,
        window_seconds: window.seconds,
        values: compared.into_iter().map(|one| (one.key, one)).collect(),
    };
    output.print(&view, |view| compared_table(&view.values))?;
    ensure!(known, "{}: no value of the last {}", prometheus.address(), span(window.seconds));
    ensure!(passed.is_empty(), "beyond the threshold: {}", passed.join(", "));
    Ok(())
}

fn compared_table(values: &BTreeMap<&'static str, Compared>) -> Table {
    let mut rows = table(&["BASELINE", "VALUE", "NOW", "CHANGE", "THRESHOLD", "RESULT"]);
    for one in MEASURES.iter().filter_map(|measure| values.get(measure.key)) {
        let dash = || "-".to_owned();
        rows.add_row([
            one.key.to_owned(),
            one.baseline.to_string(),
            one.now.map_or_else(dash, |now| now.to_string()),
            one.now.and_then(|now| change(one.baseline, now)).unwrap_or_else(dash),
            one.threshold.to_string(),
            match one.passed {
                Some(true) => "passed",
                Some(false) => "ok",
                None => "no value",
            }
            .to_owned(),
        ]);
    }
    rows
}

/// By how much of `before`, in percent; nothing when there was nothing.
pub(crate) fn change(before: f64, now: f64) -> Option<String> {
    // Adding 0 takes the sign from what rounds to it.
    (before > 0.0).then(|| format!("{:+.0} %", ((now - before) / before * 100.0).round() + 0.0))
}

/// Whether a value is worse than another by more than what is tolerated.
pub(crate) fn worse(key: &str, before: f64, now: f64) -> bool {
    named(key).is_some_and(|measure| measure.passed(now, measure.threshold(before, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_readable_for_prometheus() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rules.yml");
        write(&path, "old").unwrap();
        write(&path, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain), "not for its owner only");
        assert!(write(Path::new("/nowhere/x"), "").unwrap_err().is::<Usage>());
    }

    #[test]
    fn changes_are_in_percent_and_times_in_words() {
        assert_eq!(change(50.0, 60.0).unwrap(), "+20 %");
        assert_eq!(change(50.0, 49.9).unwrap(), "+0 %");
        assert_eq!(change(0.0, 1.0), None);
        assert!(worse("p95_latency_ms", 45.0, 54.5) && !worse("p95_latency_ms", 45.0, 54.0));
        assert_eq!(time(1_769_860_800), "2026-01-31T12:00:00Z");
    }
}
