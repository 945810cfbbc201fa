//! Baselines, against a Prometheus that says what it is told.

use serde_json::Value;

use crate::store::Store;
use crate::store::monitoring::{Said, Web, prometheus};
use crate::{done, run, text};

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
