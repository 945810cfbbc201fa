//! What the pages say exists: the targets of their links, the commands and options that they show, the metrics that they
//! ask for, and the alerts that they describe.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use llm_config_policy::commands::{Taken, arguments, commands};
use llm_config_policy::markdown::{Page, Placed};
use llm_config_policy::queries::{Asked, asked};
use llm_config_policy::{root, rust_files};
use serde_json::Value;

/// Folders whose pages are for readers; `""` is the root itself, without what is below.
const FOLDERS: [&str; 6] = ["", "benches", "cluster", "docs", "monitoring", "src/client-python"];
/// Everyone can ask for these, though no node exports them.
const OF_PROMETHEUS: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_scraped",
    "scrape_samples_post_metric_relabeling",
    "ALERTS",
];
/// Every series has these.
const OF_TARGETS: [&str; 4] = ["job", "instance", "cluster", "le"];
/// Written by `llm-config baseline record`, not shipped: alert, duration, severity.
const GENERATED_ALERT: (&str, &str, &str) = ("BaselineDeviation", "1h", "info");
const ALERT_HEAD: [&str; 4] = ["Alert", "Fires when", "Duration", "Severity"];
const RUNBOOK: &str = "docs/operations/runbooks/alerts.md";
const POINTS: [&str; 5] = [
    "**What it means** –",
    "**Why it fired** –",
    "**How to investigate**",
    "**How to resolve**",
    "**When to escalate** –",
];

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(dir: &Path, ending: &str, deep: bool, found: &mut Vec<PathBuf>) {
    let entries =
        std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for path in entries.map(|entry| entry.expect("readable folder").path()) {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir() && deep && !hidden {
            files(&path, ending, deep, found);
        } else if path.extension().is_some_and(|extension| extension == ending) {
            found.push(path);
        }
    }
    found.sort();
}

fn pages() -> BTreeMap<PathBuf, Page> {
    let mut paths = Vec::new();
    for folder in FOLDERS {
        files(&root().join(folder), "md", !folder.is_empty(), &mut paths);
    }
    let pages: BTreeMap<_, _> =
        paths.into_iter().map(|path| (path.clone(), Page::read(&text(&path)))).collect();
    assert!(pages.len() > 20, "the pages are missing: {:?}", pages.keys());
    pages
}

fn page(path: &str) -> Page {
    Page::read(&text(&root().join(path)))
}

/// Finding by finding, so that one run shows all that is to be done.
fn none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

fn place<T>(path: &Path, placed: &Placed<T>) -> String {
    format!("{}:{}", path.strip_prefix(root()).unwrap_or(path).display(), placed.line)
}

/// `path` without `.` and `..`: a file must not be found on another way than the link says.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut findings = Vec::new();
    let mut seen = 0;
    for (path, page) in &pages {
        for link in &page.links {
            if link.what.contains("://") || link.what.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.what.split_once('#').unwrap_or((&link.what, ""));
            let target = match file {
                "" => path.clone(),
                file => plain(&path.parent().expect("a folder").join(file)),
            };
            let there = match pages.get(&target) {
                Some(page) => anchor.is_empty() || page.anchors.contains(anchor),
                None => anchor.is_empty() && target.starts_with(root()) && target.exists(),
            };
            if !there {
                findings.push(format!("{}: leads nowhere: {}", place(path, link), link.what));
            }
        }
    }
    assert!(seen > 100, "only {seen} links were found");
    none(&findings);
}

fn sources(dir: &str) -> Vec<String> {
    let paths = rust_files(&root().join(dir)).expect("readable sources");
    paths.iter().map(|path| text(path)).collect()
}

#[test]
fn every_command_of_ours_is_one_that_exists() {
    let programs = [
        ("llm-config", Taken::read(&sources("src/cli"))),
        ("llm-config-manager", Taken::read(&sources("src/server"))),
    ];
    for (name, taken) in &programs {
        assert!(taken.commands.len() > 4 && taken.options.len() > 10, "{name}: {taken:?}");
    }
    let mut findings = Vec::new();
    let mut seen = 0;
    for (path, page) in pages() {
        // Of older releases.
        if path.ends_with("CHANGELOG.md") {
            continue;
        }
        let inline = page.inline.iter().filter(|code| code.what.starts_with("llm-config"));
        let blocks =
            page.blocks.iter().filter(|block| matches!(block.what.language.as_str(), "" | "sh"));
        let texts = inline
            .map(|code| (place(&path, code), code.what.clone()))
            .chain(blocks.map(|block| (place(&path, block), block.what.text.clone())));
        for (place, text) in texts {
            for words in commands(&text) {
                for (name, taken) in &programs {
                    let Some(arguments) = arguments(&words, name) else { continue };
                    seen += 1;
                    if let Some(unknown) = taken.unknown(arguments) {
                        findings
                            .push(format!("{place}: {name}: {unknown}, in: {}", words.join(" ")));
                    }
                }
            }
        }
    }
    assert!(seen > 200, "only {seen} commands were found");
    none(&findings);
}

fn rules() -> Vec<Value> {
    let mut paths = Vec::new();
    files(&root().join("monitoring/prometheus/rules"), "yml", false, &mut paths);
    let mut rules = Vec::new();
    for path in paths {
        let file: Value = serde_saphyr::from_str(&text(&path)).expect("rules");
        for group in file["groups"].as_array().expect("groups") {
            rules.extend(group["rules"].as_array().expect("rules").iter().cloned());
        }
    }
    rules
}

/// Queries in blocks of `promql`, and what the runbooks hand to their function `query`.
fn queries(page: &Page) -> Vec<Placed<String>> {
    let mut found = Vec::new();
    for block in &page.blocks {
        if block.what.language == "promql" {
            found.push(Placed { what: block.what.text.clone(), line: block.line });
        }
        for (index, line) in block.what.text.lines().enumerate() {
            if let Some(query) = line.trim_start().strip_prefix("query '") {
                let query = query.split('\'').next().unwrap_or_default().to_owned();
                found.push(Placed { what: query, line: block.line + index });
            }
        }
    }
    found
}

#[test]
fn every_query_asks_for_what_there_is() {
    // Name to labels; what is recorded, or Prometheus' own, may have any.
    let mut known: BTreeMap<String, Option<BTreeSet<&str>>> =
        OF_PROMETHEUS.map(|name| (name.to_owned(), None)).into();
    let reference = page("monitoring/METRICS.md");
    for row in &reference.rows {
        let [name, kind, labels, ..] = &row.what[..] else { continue };
        let name = name.trim_matches('`');
        let labels: BTreeSet<&str> =
            labels.split(',').map(|label| label.trim().trim_matches('`')).collect();
        let endings: &[&str] =
            if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        known
            .extend(endings.iter().map(|ending| (format!("{name}{ending}"), Some(labels.clone()))));
    }
    let rules = rules();
    let recorded = rules.iter().filter_map(|rule| rule["record"].as_str());
    known.extend(recorded.map(|name| (name.to_owned(), None)));
    let mut findings = Vec::new();
    let mut seen = 0;
    for (path, page) in pages() {
        for query in queries(&page) {
            seen += 1;
            let place = place(&path, &query);
            for Asked { metric, labels } in asked(&query.what) {
                match known.get(&metric) {
                    None => findings.push(format!("{place}: no metric {metric}")),
                    Some(None) => {}
                    Some(Some(own)) => findings.extend(
                        labels
                            .iter()
                            .filter(|label| !own.contains(label.as_str()))
                            .filter(|label| !OF_TARGETS.contains(&label.as_str()))
                            .map(|label| format!("{place}: no label {label} of {metric}")),
                    ),
                }
            }
        }
    }
    assert!(seen > 150, "only {seen} queries were found");
    none(&findings);
}

/// Alert, duration (or a dash), severity.
type Row = (String, String, String);

fn shipped() -> BTreeSet<Row> {
    let word = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let alerts = rules().into_iter().filter(|rule| rule["alert"].is_string());
    alerts
        .map(|rule| (word(&rule["alert"]), word(&rule["for"]), word(&rule["labels"]["severity"])))
        .collect()
}

fn described(path: &str) -> BTreeSet<Row> {
    let page = page(path);
    let rows = page.rows_below(&ALERT_HEAD);
    let row = |cells: &[String]| {
        let name =
            cells[0].trim_start_matches('[').split(']').next().unwrap_or_default().to_owned();
        let anchor = format!("#{})", name.to_lowercase());
        assert!(cells[0].ends_with(&anchor), "{path}: the link of {name} must end in {anchor}");
        (name, cells[2].clone(), cells[3].clone())
    };
    rows.into_iter().map(|placed| row(&placed.what)).collect()
}

#[test]
fn the_tables_of_alerts_are_those_of_the_rules() {
    let (name, duration, severity) = GENERATED_ALERT;
    let mut shipped = shipped();
    shipped.insert((name.to_owned(), duration.to_owned(), severity.to_owned()));
    let all = described("docs/MONITORING.md");
    let mut findings: Vec<String> = Vec::new();
    findings
        .extend(shipped.difference(&all).map(|row| format!("docs/MONITORING.md lacks {row:?}")));
    findings.extend(all.difference(&shipped).map(|row| format!("no rule is {row:?}")));
    let guide = described("docs/operations/monitoring.md");
    assert_eq!(guide.len(), 14, "the guide's own tables have 14 alerts: {guide:?}");
    findings.extend(guide.difference(&shipped).map(|row| format!("the guide: no rule is {row:?}")));
    none(&findings);
}

#[test]
fn every_alert_has_a_section_of_five_points() {
    let mut alerts: BTreeSet<String> = shipped().into_iter().map(|(name, ..)| name).collect();
    alerts.insert(GENERATED_ALERT.0.to_owned());
    let sections: BTreeMap<String, String> = page(RUNBOOK).sections.into_iter().collect();
    let mut findings = Vec::new();
    for alert in &alerts {
        let Some(section) = sections.get(alert) else {
            findings.push(format!("{RUNBOOK}: no section {alert}"));
            continue;
        };
        let mut rest = section.as_str();
        for point in POINTS {
            match rest.split_once(&format!("\n{point}")) {
                Some((_, after)) => rest = after,
                None => findings.push(format!("{RUNBOOK}: {alert}: no {point} in its place")),
            }
        }
    }
    let named = |name: &&String| name.as_str() != "Before you begin" && !alerts.contains(*name);
    findings
        .extend(sections.keys().filter(named).map(|name| format!("{RUNBOOK}: no alert {name}")));
    none(&findings);
}
