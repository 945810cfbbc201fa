//! What is only shown: status, differences, watches, manual pages.

use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use crate::store::Store;
use crate::{command, done, json, run, text};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_status_tells_of_every_node_and_of_the_quorum() {
    let store = Store::start().await;
    let (table, _) = done(&store, "status", "").await;
    for shown in [
        "cluster c-1: node 1 leads",
        "3 of 3 voters reachable, 2 needed: one more may be lost",
        "degraded",
        "1h1m",
        "node 1: disk: degraded: 5 % are free",
    ] {
        assert!(table.contains(shown), "{shown}: {table}");
    }
    let status = json(&store, "status").await;
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(status["nodes"][0]["health"]["checks"]["raft"], "healthy");
    assert_eq!(status["cluster"]["survives_one_more_loss"], true);
    assert_eq!(status["nodes"][1]["health"], serde_json::Value::Null);

    let silent = run(&store, "status --endpoints 127.0.0.1:1 --timeout 1", "").await;
    assert_eq!(silent.status.code(), Some(1));
    assert!(text(&silent.stderr).contains("no endpoint answers"));
}

#[tokio::test]
async fn a_status_is_kept_up_to_date_until_it_is_interrupted() {
    let store = Store::start().await;
    let mut child = command(&store, "status --watch 0.05 --output json").spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        let status: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(status["cluster"]["leader_id"], 1);
    }
    // Who reads no more ends it, quietly.
    drop(lines);
    let output = timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[tokio::test]
async fn a_difference_is_by_lines_for_people_and_a_patch_for_programs() {
    let store = Store::start().await;
    done(&store, "set n k {\"a\":1.0}", "").await;
    done(&store, "set n k {\"a\":2.0}", "").await;
    let (lines, _) = done(&store, "diff n k --from 1 --to 2", "").await;
    assert!(lines.ends_with("  {\n-   \"a\": 1.0\n+   \"a\": 2.0\n  }\n"), "{lines}");
    let difference = json(&store, "diff n k --from 1 --to 2").await;
    assert_eq!(difference["patch"][0]["op"], "replace");
    let (colours, _) = done(&store, "diff n k --from 1 --to 2 --color always", "").await;
    assert!(colours.contains("\u{1b}[31m-   \"a\": 1.0\u{1b}[0m"), "{colours:?}");
}

#[tokio::test]
async fn namespaces_are_watched_by_their_beginning() {
    let store = Store::start().await;
    for namespace in ["shop/a", "shop/b", "other"] {
        done(&store, &format!("set {namespace} k 1"), "").await;
    }
    for (line, expected) in [
        ("watch --namespace-prefix shop/", vec!["shop/a", "shop/b"]),
        ("watch other", vec!["other"]),
        ("watch --all-namespaces", vec!["other", "shop/a", "shop/b"]),
    ] {
        let mut child = command(&store, &format!("{line} --output json")).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for namespace in expected {
            let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["entry"]["namespace"], namespace);
        }
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn there_is_a_manual_page_for_every_command() {
    let store = Store::start().await;
    let (page, _) = done(&store, "man", "").await;
    assert!(page.contains(".TH llm-config") && page.contains("NO_COLOR"), "{page}");
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    done(&store, &format!("man {}", pages.display()), "").await;
    for name in ["llm-config", "llm-config-edit", "llm-config-context-set", "llm-config-schema-put"]
    {
        assert!(pages.join(format!("{name}.1")).is_file(), "{name}");
    }
    let import = std::fs::read_to_string(pages.join("llm-config-import.1")).unwrap();
    assert!(import.contains("Examples:"), "{import}");
}

#[tokio::test]
async fn a_closed_stderr_is_no_fault_either() {
    let store = Store::start().await;
    let mut child = command(&store, "get n absent").spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(1));
}
