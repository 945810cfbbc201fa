//! Rules and dashboards ask only for metrics and labels that `monitoring/METRICS.md` lists, and leave out none without a
//! reason. The documented alerts are there as documented; every alert says what it means, has a runbook, and has been seen
//! to fire and to stay quiet. Files that start a node name only options that exist.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use llm_config_policy::queries::{Asked, asked};
use llm_config_policy::{root, rust_files};
use serde_json::Value;

/// Labels that Prometheus adds, and the one that a file of targets does.
const TARGET_LABELS: [&str; 4] = ["job", "instance", "cluster", "le"];

/// What Prometheus itself knows of a target.
const MADE_BY_PROMETHEUS: [&str; 3] =
    ["up", "scrape_duration_seconds", "scrape_samples_post_metric_relabeling"];

const SEVERITIES: [&str; 4] = ["critical", "warning", "info", "none"];
const COMPONENTS: [&str; 12] = [
    "availability",
    "backup",
    "cache",
    "configuration",
    "deployment",
    "monitoring",
    "raft",
    "requests",
    "resources",
    "security",
    "slo",
    "storage",
];

const RUNBOOKS: &str = "docs/operations/runbooks/alerts.md";

/// The five points of a runbook's section as a description has them, after a sentence that says what happened.
const POINTS: [&str; 5] = ["Impact:", "Causes:", "Look at:", "Resolve:", "Escalate:"];

/// An alert of the operations guide: its name, how long its condition has to hold, its severity, and its threshold as the
/// rule writes it.
type Documented = (&'static str, Option<&'static str>, &'static str, &'static str);

/// The guide's three tables, and the shorter durations that it gives elsewhere, which are `info`.
const DOCUMENTED_ALERTS: [Documented; 20] = [
    ("ServiceDown", Some("1m"), "critical", "absent(up{job=\"llm-config-manager\"})"),
    (
        "HighErrorRate",
        Some("5m"),
        "critical",
        "job:error_rate:5m{job=\"llm-config-manager\"} > 0.10",
    ),
    ("StorageFailure", Some("1m"), "critical", "component=\"storage\"} == 0"),
    (
        "OutOfMemory",
        Some("2m"),
        "critical",
        "instance:memory_usage:ratio{job=\"llm-config-manager\"} > 0.95",
    ),
    (
        "ElevatedErrorRate",
        Some("10m"),
        "warning",
        "job:error_rate:5m{job=\"llm-config-manager\"} > 0.05",
    ),
    (
        "HighLatency",
        Some("10m"),
        "warning",
        "job:http_request_duration_seconds:p95_5m{job=\"llm-config-manager\"} > 0.2",
    ),
    (
        "LowCacheHitRate",
        Some("15m"),
        "warning",
        "job:cache_hit_rate:5m{job=\"llm-config-manager\"} < 0.70",
    ),
    (
        "HighCPU",
        Some("15m"),
        "warning",
        "instance:cpu_usage:ratio_rate5m{job=\"llm-config-manager\"} > 0.85",
    ),
    (
        "HighMemory",
        Some("10m"),
        "warning",
        "instance:memory_usage:ratio{job=\"llm-config-manager\"} > 0.80",
    ),
    (
        "StorageNearCapacity",
        Some("30m"),
        "warning",
        "instance:storage_usage:ratio{job=\"llm-config-manager\"} > 0.85",
    ),
    (
        "StorageNearCapacity",
        Some("1m"),
        "critical",
        "instance:storage_usage:ratio{job=\"llm-config-manager\"} > 0.90",
    ),
    ("DeploymentStarted", None, "info", "changes(process_start_time_seconds{"),
    (
        "ConfigurationChanged",
        None,
        "info",
        "max by (job, cluster, environment) (increase(config_changes_total{",
    ),
    (
        "UnusualAccessPattern",
        Some("5m"),
        "info",
        "> 3 * sum by (job, cluster) (rate(config_operations_total{",
    ),
    ("CacheEvictionHigh", Some("20m"), "info", "> 0.10 * ("),
    (
        "ElevatedErrorRate",
        Some("5m"),
        "info",
        "job:error_rate:5m{job=\"llm-config-manager\"} > 0.05",
    ),
    (
        "HighLatency",
        Some("5m"),
        "info",
        "job:http_request_duration_seconds:p95_5m{job=\"llm-config-manager\"} > 0.2",
    ),
    (
        "LowCacheHitRate",
        Some("10m"),
        "info",
        "job:cache_hit_rate:5m{job=\"llm-config-manager\"} < 0.70",
    ),
    (
        "HighCPU",
        Some("10m"),
        "info",
        "instance:cpu_usage:ratio_rate5m{job=\"llm-config-manager\"} > 0.85",
    ),
    ("HighMemory", Some("1m"), "info", "> 3.5 * 1024 * 1024 * 1024"),
];

/// Metrics that no rule and no dashboard asks for, and why. One that is asked for has no place here.
const NOT_SHOWN: &[(&str, &str)] = &[
    ("backup_duration_seconds", "for whoever plans backups; BackupFailing says when one fails"),
    ("bans_total", "bans_active and ban_expiry_timestamp_seconds show who is banned"),
    ("cache_entries", "how full the cache is shows in cache_size_bytes"),
    ("config_environment_errors_total", "the runbooks ask for it, to tell which environment fails"),
    ("llm_config_raft_entries_applied_total", "is the rate of llm_config_raft_applied_index"),
    ("llm_config_raft_log_appended_bytes_total", "the disk sees process_io_written_bytes_total"),
    ("llm_config_raft_members", "voters and learners are shown"),
    ("llm_config_raft_purged_index", "llm_config_raft_log_entries shows what is kept"),
    ("metrics_render_duration_seconds", "the runbook of ScrapeFailing asks for it"),
    ("process_threads", "tokio_workers are those that count"),
    ("process_virtual_memory_bytes", "address space is no memory; for those who know the name"),
    (
        "tls_handshake_failures_total",
        "every scanner raises it; the runbook of QuorumLost asks for it",
    ),
    ("tokio_alive_tasks", "the runbook of MemoryLeakSuspected asks for it"),
];

fn files(dir: &str, ending: &str) -> Vec<(PathBuf, String)> {
    let dir = root().join(dir);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has no .{ending}", dir.display());
    paths.into_iter().map(|path| (path.clone(), text(&path))).collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<Value> {
    let mut rules = Vec::new();
    for (path, text) in files("monitoring/prometheus/rules", "yml") {
        let file: Value = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for group in file["groups"].as_array().expect("groups") {
            rules.extend(group["rules"].as_array().expect("rules").iter().cloned());
        }
    }
    rules
}

/// A row of `monitoring/METRICS.md`.
struct Exported {
    name: String,
    kind: String,
    labels: BTreeSet<String>,
}

fn exported() -> Vec<Exported> {
    let rows = text(&root().join("monitoring/METRICS.md"));
    let rows = rows.lines().filter_map(|line| line.strip_prefix("| `")).map(|row| {
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [name, kind, labels, ..] = cells[..] else { panic!("a row of a table: {row}") };
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        Exported { name: name.to_owned(), kind: kind.to_owned(), labels: labels.collect() }
    });
    rows.collect()
}

/// The names under which a metric can be asked for.
fn series(name: &str, kind: &str) -> Vec<String> {
    if kind == "histogram" {
        ["_bucket", "_sum", "_count"].map(|ending| format!("{name}{ending}")).to_vec()
    } else {
        vec![name.to_owned()]
    }
}

/// Name → labels, for everything that a query may ask for; histograms by the names of their series.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known =
        BTreeMap::from(MADE_BY_PROMETHEUS.map(|name| (name.to_owned(), BTreeSet::new())));
    for Exported { name, kind, labels } in exported() {
        for name in series(&name, &kind) {
            known.insert(name, labels.clone());
        }
    }
    for rule in rules() {
        if let Some(name) = rule["record"].as_str() {
            let labels = rule["labels"].as_object().map(|labels| labels.keys().cloned().collect());
            known.insert(name.to_owned(), labels.unwrap_or_default());
        }
    }
    known
}

/// What `query` asks for and nobody provides.
fn unknown(query: &str, known: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut unknown = Vec::new();
    for Asked { metric, labels } in asked(query) {
        let Some(own) = known.get(&metric) else {
            unknown.push(metric);
            continue;
        };
        let foreign = labels
            .into_iter()
            .filter(|label| !own.contains(label) && !TARGET_LABELS.contains(&label.as_str()));
        unknown.extend(foreign.map(|label| format!("{metric}{{{label}}}")));
    }
    unknown
}

/// Every query below `value`: of panels and annotations, and of variables.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(query) if name == "expr" => found.push(query.to_owned()),
                    Some(query) if name == "query" && query.starts_with("label_values(") => {
                        let query = query.trim_start_matches("label_values(");
                        let selector =
                            query.rsplit_once(',').map_or(query, |(selector, _)| selector);
                        found.push(selector.to_owned());
                    }
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn rules_ask_only_for_what_is_exported() {
    let known = known();
    for rule in rules() {
        let unknown = unknown(rule["expr"].as_str().expect("expr"), &known);
        assert!(unknown.is_empty(), "not in monitoring/METRICS.md: {unknown:?}, in {rule:#}");
    }
}

#[test]
fn dashboards_ask_only_for_what_is_exported() {
    let known = known();
    for (path, text) in files("monitoring/grafana/dashboards", "json") {
        let dashboard: Value = serde_json::from_str(&text).expect("JSON");
        let mut found = Vec::new();
        queries(&dashboard, &mut found);
        assert!(!found.is_empty(), "{} asks for nothing", path.display());
        for query in found {
            let unknown = unknown(&query, &known);
            assert!(
                unknown.is_empty(),
                "{}: not in monitoring/METRICS.md: {unknown:?}, in {query}",
                path.display()
            );
        }
    }
}

#[test]
fn the_check_finds_what_it_looks_for() {
    let known = known();
    assert_eq!(unknown("rate(http_requests_totals[5m])", &known), ["http_requests_totals"]);
    assert_eq!(
        unknown("http_requests_total{code=\"200\", job=\"x\"}", &known),
        ["http_requests_total{code}"]
    );
    assert_eq!(
        unknown("http_request_duration_seconds", &known).len(),
        1,
        "a histogram has no such series"
    );
    assert!(unknown("http_request_duration_seconds_bucket{route=\"/\"}", &known).is_empty());
}

#[test]
fn the_documented_alerts_are_as_documented() {
    let rules = rules();
    for (name, duration, severity, threshold) in DOCUMENTED_ALERTS {
        let found = rules.iter().any(|rule| {
            rule["alert"] == name
                && rule["for"].as_str() == duration
                && rule["labels"]["severity"] == severity
                && rule["expr"].as_str().is_some_and(|expr| expr.contains(threshold))
        });
        assert!(found, "no alert {name} for {duration:?} with severity {severity}: {threshold}");
    }
    for name in ["job:http_success_rate:5m", "job:cache_hit_rate:5m", "job:error_rate:5m"] {
        assert!(rules.iter().any(|rule| rule["record"] == name), "no recording rule {name}");
    }
}

fn alerts() -> Vec<Value> {
    rules().into_iter().filter(|rule| rule["alert"].is_string()).collect()
}

fn name(alert: &Value) -> &str {
    alert["alert"].as_str().expect("an alert")
}

/// The first point that a description does not have once, in its place and with a sentence of its own.
fn missing_point(description: &str) -> Option<&'static str> {
    let (mut point, mut rest) = ("what happened", description);
    let sentence = |text: &str| text.len() > 1 && text.ends_with('.');
    for next in POINTS {
        let Some((text, after)) = rest.split_once(next) else {
            return Some(next);
        };
        if description.matches(next).count() != 1 {
            return Some(next);
        }
        if !sentence(text.trim()) {
            return Some(point);
        }
        (point, rest) = (next, after);
    }
    (!sentence(rest.trim())).then_some(point)
}

#[test]
fn a_point_that_a_description_lacks_is_found() {
    let whole = "It is. Impact: a. Causes: b. Look at: c. Resolve: d. Escalate: no, unless e.";
    assert_eq!(missing_point(whole), None);
    for (from, to, missing) in [
        ("It is. ", "", "what happened"),
        ("Impact: a. ", "", "Impact:"),
        ("Causes: b. Look at: c. ", "Look at: c. Causes: b. ", "Look at:"),
        ("Look at: c. ", "Look at: ", "Look at:"),
        ("Resolve: d. ", "Resolve: d. Impact: d. ", "Impact:"),
        ("Escalate: no, unless e.", "Escalate:", "Escalate:"),
        ("Escalate: no, unless e.", "", "Escalate:"),
    ] {
        let broken = whole.replace(from, to);
        assert_eq!(missing_point(&broken), Some(missing), "{broken}");
    }
}

#[test]
fn every_alert_says_what_happened_how_bad_it_is_and_what_to_do() {
    for alert in alerts() {
        for annotation in ["summary", "description"] {
            let text = alert["annotations"][annotation].as_str();
            assert!(
                text.is_some_and(|text| !text.is_empty()),
                "{annotation} is missing: {alert:#}"
            );
        }
        let description = alert["annotations"]["description"].as_str().expect("a description");
        let missing = missing_point(description);
        assert_eq!(missing, None, "{}: {description}", name(&alert));
        for (label, allowed) in [("severity", &SEVERITIES[..]), ("component", &COMPONENTS[..])] {
            let value = alert["labels"][label].as_str().unwrap_or_default();
            assert!(allowed.contains(&value), "{}: {label} is {value:?}", name(&alert));
        }
    }
}

#[test]
fn every_alert_has_a_section_of_the_runbooks() {
    let runbooks = text(&root().join(RUNBOOKS));
    let sections: BTreeSet<&str> =
        runbooks.lines().filter_map(|line| line.strip_prefix("## ")).map(str::trim).collect();
    for alert in alerts() {
        let name = name(&alert);
        let address = format!("{RUNBOOKS}#{}", name.to_lowercase());
        assert_eq!(alert["annotations"]["runbook_url"], address.as_str(), "of {name}");
        assert!(sections.contains(name), "{RUNBOOKS} has no section `## {name}`");
    }
}

/// Labels that the alerts of a rule have, as far as its expression tells: those that its sums keep, or those of its metrics.
fn labels_of(alert: &Value) -> BTreeSet<String> {
    let query = alert["expr"].as_str().expect("expr");
    let fixed = alert["labels"].as_object().into_iter().flatten().map(|(label, _)| label.clone());
    let mut labels: BTreeSet<String> = fixed.collect();
    let mut kept = query.split(" by (").skip(1).peekable();
    if kept.peek().is_some() {
        for list in kept {
            let list = list.split(')').next().unwrap_or_default();
            labels.extend(list.split(',').map(|label| label.trim().to_owned()));
        }
        return labels;
    }
    let known = known();
    for Asked { metric, .. } in asked(query) {
        labels.extend(["job", "cluster"].map(str::to_owned));
        if !metric.starts_with("job:") && !metric.starts_with("slo:") {
            labels.insert("instance".to_owned());
        }
        labels.extend(known.get(&metric).into_iter().flatten().cloned());
    }
    labels
}

#[test]
fn annotations_name_only_labels_that_are_there() {
    for alert in alerts() {
        let labels = labels_of(&alert);
        for (_, text) in alert["annotations"].as_object().expect("annotations") {
            for named in text.as_str().expect("text").split("$labels.").skip(1) {
                let named: String =
                    named.chars().take_while(|&c| c.is_ascii_alphanumeric() || c == '_').collect();
                assert!(labels.contains(&named), "{}: no label {named}", name(&alert));
            }
        }
    }
}

/// Other programs export metrics of the same names (`process_cpu_seconds_total`).
#[test]
fn every_rule_looks_at_our_nodes_only() {
    for rule in rules() {
        let query = rule["expr"].as_str().expect("expr");
        for Asked { metric, labels } in asked(query) {
            // What a recording rule made is ours already.
            let ours = metric.contains(':') || labels.iter().any(|label| label == "job");
            assert!(ours, "{metric} of which job? In {rule:#}");
        }
        for job in query.split("job=").skip(1) {
            assert!(job.starts_with("\"llm-config-manager\""), "another job: {rule:#}");
        }
    }
}

/// Prometheus does not follow an alias in an expression, it takes it for the name of a metric.
#[test]
fn no_expression_is_an_alias() {
    for (path, text) in files("monitoring/prometheus/rules", "yml") {
        let alias = text.lines().find(|line| line.trim_start().starts_with("expr: *"));
        assert_eq!(alias, None, "{}", path.display());
    }
}

/// Every exported metric that `query` depends on, through recording rules too.
fn depends_on(query: &str, rules: &[Value], found: &mut BTreeSet<String>) {
    for Asked { metric, .. } in asked(query) {
        if found.insert(metric.clone()) {
            for rule in rules.iter().filter(|rule| rule["record"] == metric.as_str()) {
                depends_on(rule["expr"].as_str().expect("expr"), rules, found);
            }
        }
    }
}

/// A question of a test of the rules whether an alert fires.
struct Check {
    /// Labels that the alert must have.
    asked: BTreeMap<String, String>,
    /// The clusters that it is expected to fire for.
    expected: Vec<String>,
    /// Series that the test has made up, by cluster.
    input: Vec<(String, String)>,
}

/// `label="value"` pairs.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    for part in text.split("\",").map(|part| part.trim().trim_end_matches('"')) {
        if let Some((label, value)) = part.split_once("=\"") {
            pairs.insert(label.trim().to_owned(), value.to_owned());
        }
    }
    pairs
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, inner) = text.split_once(open)?;
    Some(inner.rsplit_once(close)?.0)
}

fn checks() -> Vec<Check> {
    let mut checks = Vec::new();
    for (path, text) in files("monitoring/prometheus/tests", "yml") {
        let file: Value = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for test in file["tests"].as_array().expect("tests") {
            let input: Vec<(String, String)> = test["input_series"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|series| {
                    let series = series["series"].as_str().expect("a series");
                    let (metric, _) = series.split_once('{')?;
                    let cluster = pairs(between(series, "{", "}")?).remove("cluster")?;
                    Some((metric.to_owned(), cluster))
                })
                .collect();
            for check in test["promql_expr_test"].as_array().into_iter().flatten() {
                let expr = check["expr"].as_str().expect("expr");
                let Some(alert) = between(expr, "group by (job, cluster, instance) (ALERTS{", "})")
                else {
                    continue;
                };
                let mut asked = pairs(alert);
                assert_eq!(asked.remove("alertstate").as_deref(), Some("firing"), "{expr}");
                let samples = check["exp_samples"].as_array().cloned().unwrap_or_default();
                let expected = samples.iter().map(|sample| {
                    let labels = between(sample["labels"].as_str().expect("labels"), "{", "}");
                    pairs(labels.expect("labels")).remove("cluster").unwrap_or_default()
                });
                let expected: Vec<String> = expected.collect();
                let loud = expected.iter().all(|cluster| cluster.starts_with("loud"));
                assert!(loud, "{}: a quiet cluster must not fire: {expr}", path.display());
                checks.push(Check { asked, expected, input: input.clone() });
            }
        }
    }
    checks
}

/// Whether a check asks for this alert, and not for one of its name and another severity.
fn is_of(check: &Check, alert: &Value) -> bool {
    check.asked.iter().all(|(label, value)| {
        let own = if label == "alertname" { &alert["alert"] } else { &alert["labels"][label] };
        own == value.as_str()
    })
}

/// Each alert fires for a cluster that a test calls `loud`, and does not before its time; and in the same test there is a
/// cluster called `quiet`, with numbers that the rule looks at, for which it never fires.
#[test]
fn every_alert_was_seen_to_fire_and_to_stay_quiet() {
    let (rules, alerts, checks) = (rules(), alerts(), checks());
    for check in &checks {
        let count = alerts.iter().filter(|alert| is_of(check, alert)).count();
        assert_eq!(count, 1, "rules that a test asks for with {:?}", check.asked);
    }
    for alert in &alerts {
        // It always fires.
        if name(alert) == "Watchdog" {
            continue;
        }
        let mut looked_at = BTreeSet::new();
        depends_on(alert["expr"].as_str().expect("expr"), &rules, &mut looked_at);
        let own: Vec<&Check> = checks.iter().filter(|check| is_of(check, alert)).collect();
        let has = |check: &Check, cluster: &str| {
            let mut input = check.input.iter();
            input.any(|(metric, name)| name.starts_with(cluster) && looked_at.contains(metric))
        };
        let fires = own
            .iter()
            .any(|check| !check.expected.is_empty() && has(check, "loud") && has(check, "quiet"));
        let waits = own.iter().any(|check| check.expected.is_empty() && has(check, "loud"));
        let which = format!("{} ({})", name(alert), alert["labels"]);
        assert!(fires, "no test sees {which} fire for `loud` and not for `quiet`");
        assert!(waits, "no test sees {which} quiet before its time");
    }
}

/// The three ways to find nodes differ in nothing else.
#[test]
fn prometheus_is_configured_alike_however_it_finds_the_nodes() {
    let read = |(path, text): (PathBuf, String)| {
        let mut file: Value = serde_saphyr::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let jobs = file["scrape_configs"].take();
        let nodes = jobs.as_array().expect("jobs")[0].clone();
        file["alerting"].take();
        (path, file, nodes)
    };
    let found: Vec<_> = files("monitoring/prometheus", "yml").into_iter().map(read).collect();
    assert_eq!(found.len(), 3);
    let (_, first, nodes) = &found[0];
    assert_eq!(nodes["job_name"], "llm-config-manager");
    for (path, file, other) in &found {
        assert_eq!(file, first, "{}", path.display());
        for field in
            ["job_name", "sample_limit", "scrape_interval", "scrape_timeout", "metrics_path"]
        {
            assert_eq!(other[field], nodes[field], "{field} in {}", path.display());
        }
    }
}

#[test]
fn every_metric_is_looked_at_or_left_out_for_a_reason() {
    let mut queried = Vec::new();
    for rule in rules() {
        queried.push(rule["expr"].as_str().expect("expr").to_owned());
    }
    for (_, text) in files("monitoring/grafana/dashboards", "json") {
        queries(&serde_json::from_str(&text).expect("JSON"), &mut queried);
    }
    let queried: BTreeSet<String> =
        queried.iter().flat_map(|query| asked(query)).map(|asked| asked.metric).collect();
    let left_out: BTreeMap<&str, &str> = NOT_SHOWN.iter().copied().collect();
    let (mut missing, mut shown_after_all) = (Vec::new(), Vec::new());
    let exported = exported();
    for Exported { name, kind, .. } in &exported {
        let shown = series(name, kind).iter().any(|name| queried.contains(name));
        match (shown, left_out.contains_key(name.as_str())) {
            (false, false) => missing.push(name),
            (true, true) => shown_after_all.push(name),
            _ => {}
        }
    }
    assert!(missing.is_empty(), "no rule and no dashboard asks for {missing:?}");
    assert!(shown_after_all.is_empty(), "take out of NOT_SHOWN: {shown_after_all:?}");
    for name in left_out.keys() {
        assert!(exported.iter().any(|metric| metric.name == *name), "{name} is no metric");
    }
}

/// Words in capitals that begin with the prefix of our environment variables.
fn variables(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("LLM_CONFIG_")).map(str::to_owned).collect()
}

#[test]
fn files_that_start_a_node_set_only_options_that_exist() {
    let mut known: BTreeSet<String> = rust_files(&root().join("src"))
        .expect("readable sources")
        .iter()
        .flat_map(|path| variables(&text(path)))
        .collect();
    // Of compose.yaml itself: which image to start.
    known.insert("LLM_CONFIG_IMAGE".to_owned());
    let mut paths = vec![root().join("cluster/compose.yaml"), root().join("cluster/Dockerfile")];
    paths.extend(files("cluster/systemd", "service").into_iter().map(|(path, _)| path));
    for path in paths {
        let unknown: Vec<_> = variables(&text(&path)).difference(&known).cloned().collect();
        assert!(unknown.is_empty(), "{}: no option is set by {unknown:?}", path.display());
    }
}
