//! Baselines, and the checks of the day and the week, against a Prometheus and an Alertmanager that say what they are told.

use serde_json::Value;

use crate::store::Store;
use crate::store::monitoring::{Said, Web, now, prometheus};
use crate::{done, run, text};

const FIRING: &[(&str, &str)] = &[("alertname", "HighErrorRate"), ("severity", "critical")];
const INFO: &[(&str, &str)] = &[("alertname", "DeploymentStarted"), ("severity", "info")];

/// One node, which finds itself degraded: a day with one row that asks for attention.
async fn store_of_one() -> Store {
    let store = Store::start().await;
    for id in [2, 3] {
        done(&store, &format!("cluster remove {id} --force"), "").await;
    }
    store
}

/// The rows of a report, whether or not one failed.
async fn rows(store: &Store, line: &str, code: i32) -> Vec<Value> {
    let output = run(store, &format!("{line} --output json"), "").await;
    assert_eq!(
        output.status.code(),
        Some(code),
        "{line}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    report["checks"].as_array().unwrap().clone()
}

/// The result and the words of a row.
fn row(rows: &[Value], check: &str, subject: &str) -> (String, String) {
    let found = rows.iter().find(|row| row["check"] == check && row["subject"] == subject);
    let found = found.unwrap_or_else(|| panic!("no row {check} {subject}: {rows:#?}"));
    let word = |name: &str| found[name].as_str().unwrap().to_owned();
    (word("result"), word("found"))
}

fn result(rows: &[Value], check: &str, subject: &str) -> String {
    row(rows, check, subject).0
}

#[tokio::test]
async fn a_baseline_is_recorded_with_its_rules_and_compared() {
    let store = Store::start().await;
    let web = prometheus(Vec::new()).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, rules) = (folder.path().join("b.yml"), folder.path().join("r.yml"));
    let line = format!(
        "baseline record --prometheus {} --window 7d --file {} --rules {}",
        web.url(),
        file.display(),
        rules.display()
    );
    let (table, words) = done(&store, &line, "").await;
    assert!(table.contains("p95_latency_ms") && words.is_empty(), "{table}{words}");
    let written: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written["baselines"]["p95_latency_ms"], 45);
    assert_eq!(written["baselines"]["request_rate_rps"], 1000);
    assert_eq!(written["baselines"]["memory_usage_gb"], 1.5);
    assert_eq!(written["thresholds"]["request_rate_rps"], 1500, "the busiest hour");
    assert_eq!(written["thresholds"]["p95_latency_ms"], 54);
    assert_eq!(written["thresholds"]["cache_hit_rate_pct"], 80);
    assert_eq!((&written["window"], &written["cluster"]), (&"7d".into(), &"c".into()));
    let rules: Value = serde_saphyr::from_str(&std::fs::read_to_string(&rules).unwrap()).unwrap();
    assert_eq!(rules["groups"][0]["rules"].as_array().unwrap().len(), 6);
    let others = web.asked().into_iter().skip(1);
    for query in others {
        assert!(query.contains("job=\"llm-config-manager\", cluster=\"c\""), "{query}");
    }

    let compare = |web: &Web| {
        format!("baseline compare --prometheus {} --file {}", web.url(), file.display())
    };
    let (table, _) = done(&store, &compare(&web), "").await;
    assert!(table.contains("+0 %") && table.contains("ok") && !table.contains("passed"), "{table}");
    let slow = prometheus(vec![
        ("1000 * histogram_quantile", vec![(&[], 60.0)]),
        ("avg_over_time(job:cache_hit_rate", vec![]),
    ])
    .await;
    let output = run(&store, &compare(&slow), "").await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("beyond the threshold: p95_latency_ms"));
    let table = text(&output.stdout);
    assert!(table.contains("+33 %") && table.contains("no value"), "{table}");
}

#[tokio::test]
async fn nothing_is_recorded_of_what_was_not_measured() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("b.yml");
    let days: Vec<Said> = vec![("count_over_time((count by (job", vec![(&[], 576.0)])];
    let idle: Vec<Said> = vec![("avg_over_time(job_le", vec![(&[], 0.0)])];
    let no_rules: Vec<Said> = vec![("count_over_time((count by (job", vec![])];
    let no_target: Vec<Said> = vec![("count by (cluster) (up", vec![])];
    let clusters: Vec<Said> = vec![(
        "count by (cluster) (up",
        vec![(&[("cluster", "a")], 3.0), (&[("cluster", "b")], 3.0)],
    )];
    for (differs, code, words) in [
        (days, 1, "has values for 28.6 % of the last 7d"),
        (idle, 1, "no request came"),
        (no_rules, 1, "recording.yml"),
        (no_target, 1, "no target has the job"),
        (clusters, 2, "knows the clusters a, b"),
    ] {
        let web = prometheus(differs).await;
        let line = format!(
            "baseline record --prometheus {} --window 7d --file {}",
            web.url(),
            file.display()
        );
        let output = run(&store, &line, "").await;
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{words}: {}", text(&output.stderr));
        assert!(!file.exists(), "{words}");
    }
    let web = prometheus(vec![("job:cache_hit_rate:5m", vec![])]).await;
    let line = format!("baseline record --prometheus {} --window 7d --file -", web.url());
    let (written, words) = done(&store, &line, "").await;
    assert!(words.contains("cache_hit_rate_pct: not recorded: no entry was looked up"), "{words}");
    let written: Value = serde_saphyr::from_str(&written).unwrap();
    assert!(written["baselines"].get("cache_hit_rate_pct").is_none());
    assert!(written["gaps"]["cache_hit_rate_pct"].is_string());
}

#[tokio::test]
async fn a_prometheus_that_fails_is_an_error_that_names_it() {
    let store = Store::start().await;
    let refuses =
        Web::start(|_, _| (503, "{\"status\":\"error\",\"error\":\"too busy\"}".into())).await;
    let other = Web::start(|_, _| (200, "<html>".into())).await;
    for (address, code, words) in [
        (refuses.url(), 1, "too busy"),
        (other.url(), 1, "no answer of Prometheus"),
        ("http://127.0.0.1:1".to_owned(), 1, "127.0.0.1:1"),
        ("ftp://x".to_owned(), 2, "--prometheus"),
    ] {
        let line =
            format!("baseline record --prometheus {address} --window 7d --file /nonexistent/f");
        let output = run(&store, &line, "").await;
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{words}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_good_day_fails_nothing() {
    let store = store_of_one().await;
    let web = prometheus(Vec::new()).await;
    let alertmanager = Web::start(|path, _| {
        assert_eq!(path, "/api/v2/alerts");
        (200, "[]".to_owned())
    })
    .await;
    let line =
        format!("ops daily --prometheus {} --alertmanager {}", web.url(), alertmanager.url());
    let checks = rows(&store, &line, 0).await;
    assert_eq!(result(&checks, "cluster", ""), "ok");
    assert_eq!(
        row(&checks, "health", "node 1"),
        ("attention".into(), "disk: degraded: 5 % are free".into())
    );
    for (check, subject) in [
        ("alert", ""),
        ("alertmanager", ""),
        ("scrape", "a:9090"),
        ("key number", "p95_latency_ms"),
        ("key number", "success_rate_pct"),
        ("backup", "a:9090"),
        ("disk", "a:9090"),
        ("quota", "a:9090"),
        ("certificate", "a:9090 client"),
    ] {
        assert_eq!(result(&checks, check, subject), "ok", "{check} {subject}: {checks:#?}");
    }
    let (outcome, how) = row(&checks, "log", "");
    assert!(outcome == "not_checked" && how.contains("--log"), "{how}");

    let (table, _) = done(&store, &line, "").await;
    assert!(table.contains("0 failed, 1 attention"), "{table}");
    assert!(table.contains("daily check of the last 12h"), "{table}");
}

#[tokio::test]
async fn a_bad_night_is_a_failure_that_says_what() {
    let store = store_of_one().await;
    let alerts: &[Said] = &[
        ("unless count by (alertname", vec![(FIRING, 2.0), (INFO, 1.0)]),
        ("count_over_time((count by (alertname", vec![(FIRING, 34.0), (INFO, 5.0)]),
        ("count by (alertname, severity) (ALERTS", vec![(FIRING, 1.0)]),
        ("count by (alertname) (ALERTS", vec![(FIRING, 1.0)]),
        ("1000 * histogram_quantile", vec![(&[], 250.0)]),
        ("backup_last_success", vec![(&[("instance", "a:9090")], 0.0)]),
        ("llm_config_storage_free_bytes{", vec![(&[("instance", "a:9090")], 5e10)]),
        ("up{", vec![(&[("instance", "b:9090")], 0.0)]),
        (
            "tls_certificate_expiry",
            vec![(&[("instance", "a:9090"), ("certificate", "node")], now() + 86_400.0)],
        ),
    ];
    // These have `up` in them, too, which one of those above is about.
    let mut differs: Vec<Said> = vec![("count by (cluster) (up", vec![(&[("cluster", "c")], 1.0)])];
    differs.extend(alerts.iter().cloned());
    differs.insert(1, ("avg_over_time(up", vec![(&[], 99.0)]));
    let web = prometheus(differs).await;
    let alertmanager = Web::start(|_, _| (200, "[]".to_owned())).await;
    let line =
        format!("ops daily --prometheus {} --alertmanager {}", web.url(), alertmanager.url());
    let checks = rows(&store, &line, 1).await;
    let (outcome, found) = row(&checks, "alert", "HighErrorRate");
    assert_eq!(
        (outcome.as_str(), found.as_str()),
        ("failed", "critical; fires now; 2 times, 34 min in all")
    );
    assert_eq!(result(&checks, "alert", "DeploymentStarted"), "ok");
    assert_eq!(row(&checks, "alertmanager", "").1, "does not know what fires: HighErrorRate");
    for (check, subject) in [
        ("alertmanager", ""),
        ("scrape", "b:9090"),
        ("key number", "p95_latency_ms"),
        ("backup", "a:9090"),
        ("disk", "a:9090"),
        ("certificate", "a:9090 node"),
    ] {
        assert_eq!(result(&checks, check, subject), "failed", "{check} {subject}: {checks:#?}");
    }
    assert_eq!(result(&checks, "key number", "up_pct"), "attention");
    let output = run(&store, &line, "").await;
    assert!(text(&output.stderr).contains("checks failed"), "{}", text(&output.stderr));
}

#[tokio::test]
async fn without_prometheus_the_nodes_are_asked_and_the_rest_is_said_to_be_unknown() {
    let store = store_of_one().await;
    let checks = rows(&store, "ops daily", 0).await;
    for check in ["alert", "alertmanager", "log", "key number", "backup", "disk", "certificate"] {
        let (outcome, found) = row(&checks, check, "");
        assert!(outcome == "not_checked" && found.contains("--"), "{check}: {found}");
    }
    let page = format!(
        "backup_last_success_timestamp_seconds {}\nstorage_size_bytes 95\nstorage_quota_bytes 100\nllm_config_storage_free_bytes 50\nstorage_capacity_bytes 100\nconfig_operations_total{{operation=\"get\"}} 100\nconfig_errors_total{{code=\"INTERNAL\"}} 2\n",
        now() - 60.0
    );
    let node = Web::start(move |path, _| match path {
        "/metrics" => (200, page.clone()),
        _ => (404, String::new()),
    })
    .await;
    let name = node.address.to_string();
    let checks = rows(&store, &format!("ops daily --metrics {name},127.0.0.1:1"), 1).await;
    assert_eq!(result(&checks, "metrics", &name), "ok");
    assert_eq!(result(&checks, "metrics", "127.0.0.1:1"), "failed");
    assert_eq!(result(&checks, "backup", &name), "ok");
    assert_eq!(result(&checks, "quota", &name), "failed");
    let (outcome, found) = row(&checks, "key number", "error_rate_pct");
    assert!(outcome == "attention" && found.starts_with("2 % since the nodes started"), "{found}");
    assert_eq!(row(&checks, "alert", "").1, "--prometheus URL would tell");

    let silent = rows(&store, "ops daily --endpoints 127.0.0.1:1 --timeout 1", 1).await;
    assert!(row(&silent, "cluster", "").1.contains("no endpoint answers: 127.0.0.1:1"));
    let dead = rows(&store, "ops daily --prometheus 127.0.0.1:1", 1).await;
    assert_eq!(result(&dead, "prometheus", ""), "failed");
    assert_eq!(row(&dead, "disk", "").1, "Prometheus could not be asked");
}

#[tokio::test]
async fn logs_and_backups_on_this_machine_are_looked_at() {
    let store = store_of_one().await;
    let time = |ago: f64| {
        let output = std::process::Command::new("date")
            .args(["-u", "-d", &format!("@{:.0}", now() - ago), "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .unwrap();
        text(&output.stdout).trim().to_owned()
    };
    let log = format!("{} ERROR x: long ago\n{} ERROR x: it broke\n", time(90_000.0), time(60.0));
    let output = run(&store, "ops daily --log - --output json", &log).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert_eq!(row(checks, "log", "-").1, "1 of 1 lines of the last 12h are errors");

    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("backups");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("8-x.backup"), "half").unwrap();
    let checks = rows(&store, &format!("ops daily --data-dir {}", data.path().display()), 1).await;
    assert_eq!(result(&checks, "backup file", "8-x.backup"), "failed");
    for wrong in ["ops daily --log /no/such", "ops daily --data-dir /no/such"] {
        assert_eq!(run(&store, wrong, "").await.status.code(), Some(2), "{wrong}");
    }
}

#[tokio::test]
async fn a_week_is_seen_beside_the_week_before() {
    let store = Store::start().await;
    let before: &[Said] = &[
        ("unless count by (alertname", vec![(FIRING, 12.0)]),
        ("count_over_time((count by (alertname, severity) (ALERTS", vec![(FIRING, 34.0)]),
        ("[604800s] offset 604800s)))", vec![(&[], 30.0)]),
        (
            "deriv(llm_config_storage_free",
            vec![(&[("instance", "a:9090")], -6e11 / 86_400.0 / 20.0)],
        ),
    ];
    let web = prometheus(before.to_vec()).await;
    let folder = tempfile::tempdir().unwrap();
    let (file, runbook) = (folder.path().join("b.yml"), folder.path().join("alerts.md"));
    std::fs::write(
        &file,
        "recorded_at: \"2020-01-01T00:00:00Z\"\nbaselines: {p95_latency_ms: 20, cpu_usage_pct: 40}\n",
    )
    .unwrap();
    std::fs::write(&runbook, "# Alerts\n\n## HighLatency\n").unwrap();
    let line = format!(
        "ops weekly --prometheus {} --file {} --runbook {}",
        web.url(),
        file.display(),
        runbook.display()
    );
    let checks = rows(&store, &line, 0).await;
    let (outcome, found) = row(&checks, "alert", "HighErrorRate");
    assert!(
        outcome == "attention"
            && found.starts_with("critical; 12 times, 34 min (week before: 12 times"),
        "{found}"
    );
    assert_eq!(row(&checks, "runbook", "").1, "no section for HighErrorRate");
    assert_eq!(row(&checks, "trend", "p95_latency_ms").1, "45 ms, the week before 30 ms (+50 %)");
    assert_eq!(result(&checks, "trend", "p95_latency_ms"), "attention");
    assert_eq!(result(&checks, "trend", "cpu_usage_pct"), "ok");
    assert!(row(&checks, "disk full in", "a:9090").1.starts_with("20 days: "));
    assert_eq!(result(&checks, "disk full in", "a:9090"), "attention");
    assert_eq!(result(&checks, "quota full in", "a:9090"), "ok");
    assert_eq!(result(&checks, "baseline", "age"), "attention");
    assert_eq!(result(&checks, "baseline", "p95_latency_ms"), "attention");
    assert_eq!(result(&checks, "baseline", "cpu_usage_pct"), "ok");

    let short = prometheus(vec![(" offset 604800s)", vec![])]).await;
    let checks = rows(&store, &format!("ops weekly --prometheus {}", short.url()), 0).await;
    let (outcome, found) = row(&checks, "trend", "");
    assert!(outcome == "not_checked" && found.contains("0 % of the week before"), "{found}");
    assert!(row(&checks, "baseline", "").1.contains("--file"));
    let checks = rows(&store, "ops weekly", 0).await;
    assert!(checks.iter().all(|row| row["result"] == "not_checked"), "{checks:#?}");
}
