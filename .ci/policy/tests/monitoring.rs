//! Rules and dashboards ask only for metrics and labels that `monitoring/METRICS.md` lists, the documented alerts are
//! there as documented, and files that start a node name only options that exist.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use llm_config_policy::queries::{Asked, asked};
use llm_config_policy::{root, rust_files};
use serde_json::Value;

/// Labels that Prometheus adds, and the one that a file of targets does.
const TARGET_LABELS: [&str; 4] = ["job", "instance", "cluster", "le"];

/// Alert, duration, severity.
const DOCUMENTED_ALERTS: [(&str, Option<&str>, &str); 14] = [
    ("ServiceDown", Some("1m"), "critical"),
    ("HighErrorRate", Some("5m"), "critical"),
    ("StorageFailure", Some("1m"), "critical"),
    ("OutOfMemory", Some("2m"), "critical"),
    ("ElevatedErrorRate", Some("10m"), "warning"),
    ("HighLatency", Some("10m"), "warning"),
    ("LowCacheHitRate", Some("15m"), "warning"),
    ("HighCPU", Some("15m"), "warning"),
    ("HighMemory", Some("10m"), "warning"),
    ("StorageNearCapacity", Some("30m"), "warning"),
    ("DeploymentStarted", None, "info"),
    ("ConfigurationChanged", None, "info"),
    ("UnusualAccessPattern", Some("5m"), "info"),
    ("CacheEvictionHigh", Some("20m"), "info"),
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

/// Name → labels, for everything that a query may ask for; histograms by the names of their series.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let mut known = BTreeMap::from([("up".to_owned(), BTreeSet::new())]);
    for line in text(&root().join("monitoring/METRICS.md")).lines() {
        let Some(row) = line.strip_prefix("| `") else { continue };
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let [name, kind, labels, ..] = cells[..] else { panic!("a row of a table: {line}") };
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels: BTreeSet<String> = labels.collect();
        if kind == "histogram" {
            for ending in ["_bucket", "_sum", "_count"] {
                known.insert(format!("{name}{ending}"), labels.clone());
            }
        } else {
            known.insert(name.to_owned(), labels);
        }
    }
    for rule in rules() {
        if let Some(name) = rule["record"].as_str() {
            known.insert(name.to_owned(), BTreeSet::new());
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
    for (name, duration, severity) in DOCUMENTED_ALERTS {
        let found = rules.iter().any(|rule| {
            rule["alert"] == name
                && rule["for"].as_str() == duration
                && rule["labels"]["severity"] == severity
        });
        assert!(found, "no alert {name} for {duration:?} with severity {severity}");
    }
    for name in ["job:http_success_rate:5m", "job:cache_hit_rate:5m", "job:error_rate:5m"] {
        assert!(rules.iter().any(|rule| rule["record"] == name), "no recording rule {name}");
    }
}

#[test]
fn every_alert_says_what_happened() {
    for rule in rules().iter().filter(|rule| rule["alert"].is_string()) {
        for annotation in ["summary", "description"] {
            assert!(
                rule["annotations"][annotation].is_string(),
                "{annotation} is missing: {rule:#}"
            );
        }
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
