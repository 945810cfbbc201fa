//! What the nodes of a cluster answer: forwarded writes, reads everywhere, and refusals without a quorum.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says so by failing"
)]

mod http_support;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use axum::http::Method;
use http_support::{Api, Options, request, wait_for};
use llm_config_server::service::ServiceLimits;
use tempfile::TempDir;

const ENTRY: &str = "/api/v1/configs/app/k";

struct Cluster {
    nodes: Vec<Api>,
    _folder: TempDir,
}

/// Starts the first `running` of three founders.
async fn cluster(running: usize, options: &Options) -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let members: BTreeMap<_, _> = (1..)
        .zip(&listeners)
        .map(|(id, listener)| (id, listener.local_addr().unwrap().to_string()))
        .collect();
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners).take(running) {
        nodes.push(Api::start(id, listener, members.clone(), folder.path(), options).await);
    }
    Cluster { nodes, _folder: folder }
}

fn impatient() -> Options {
    let service =
        ServiceLimits { request_timeout: Duration::from_millis(500), ..ServiceLimits::default() };
    Options { service, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_never_had_a_cluster_refuses_instead_of_answering_not_found() {
    let cluster = cluster(1, &impatient()).await;
    let node = &cluster.nodes[0];
    node.get(ENTRY).await.problem(503, "NOT_READY");
    for path in
        [ENTRY, "/api/v1/configs/app", "/api/v1/namespaces", "/api/v1/resolve/app", "/api/v1/watch"]
    {
        let refused = node.get(path).await;
        assert_eq!(refused.problem(503, "NOT_READY")["applied"], "no", "{path}");
        assert_eq!(refused.header("retry-after"), "1");
        assert!(!refused.headers.contains_key("x-config-leader"), "nobody leads");
    }
    let linearizable = node.get(&format!("{ENTRY}?consistency=linearizable")).await.expect(503);
    assert!(
        ["NO_LEADER", "NOT_READY"].contains(&linearizable["code"].as_str().unwrap()),
        "{linearizable}"
    );
    let write = node.put(ENTRY, r#"{"value": 1}"#).await.expect(503);
    assert!(["NO_LEADER", "NOT_READY"].contains(&write["code"].as_str().unwrap()), "{write}");
    assert_eq!(write["applied"], "no");
    node.get("/api/v1/cluster").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_writes_and_reads() {
    let cluster = cluster(3, &Options::default()).await;
    for node in &cluster.nodes {
        node.until_ready().await;
    }
    let leader = cluster.nodes[0].get(ENTRY).await.header("x-config-leader").to_owned();
    for (writer, value) in cluster.nodes.iter().zip(1..) {
        let entry = writer.put(ENTRY, &format!(r#"{{"value": {value}}}"#)).await;
        assert!(entry.status.is_success(), "{}", entry.text());
        let revision = entry.json()["revision"].as_u64().unwrap();
        for reader in &cluster.nodes {
            // Both ways to read one's own write on another node; the second is answered from memory.
            for query in [
                format!("min_revision={revision}"),
                "consistency=linearizable".into(),
                format!("min_revision={revision}"),
            ] {
                let answer = reader.get(&format!("{ENTRY}?{query}")).await;
                assert_eq!(answer.expect(200)["value"], value, "{query}");
                assert!(
                    answer.header("x-config-revision").parse::<u64>().unwrap() >= revision,
                    "{query}"
                );
                assert_eq!(answer.header("x-config-leader"), leader);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_claimed_and_cached_reads_go_on() {
    let cluster = cluster(3, &impatient()).await;
    for node in &cluster.nodes {
        node.until_ready().await;
    }
    let leads = |node: &&Api| node.service.replica().status().role.as_str() == "leader";
    let leader = wait_for("a leader", || cluster.nodes.iter().find(leads)).await;
    leader.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    leader.get(ENTRY).await.expect(200);

    let others = cluster.nodes.iter().filter(|node| !std::ptr::eq(*node, leader));
    futures::future::join_all(others.map(|node| async { node.stop().await })).await;

    // While the leader still believes in itself a write is proposed and stays open; later it is refused.
    let key = [("idempotency-key", "k")];
    let mut codes = Vec::new();
    let deadline = std::time::Instant::now() + http_support::PATIENCE;
    while codes.last().is_none_or(|code| code != "NO_LEADER")
        && std::time::Instant::now() < deadline
    {
        let answer = leader.call(request(Method::PUT, ENTRY, &key, r#"{"value": 2}"#)).await;
        let problem = answer.json();
        let code = problem["code"].as_str().unwrap_or_else(|| panic!("{problem}")).to_owned();
        match code.as_str() {
            "OUTCOME_UNKNOWN" => {
                answer.problem(504, "OUTCOME_UNKNOWN");
                assert_eq!(
                    (&problem["applied"], &problem["retryable"]),
                    (&"unknown".into(), &true.into())
                );
            }
            "NO_LEADER" => {
                answer.problem(503, "NO_LEADER");
                assert_eq!(problem["applied"], "no");
            }
            other => panic!("{other}: {problem}"),
        }
        codes.push(code);
    }
    assert_eq!(codes.last().map(String::as_str), Some("NO_LEADER"), "{codes:?}");

    assert_eq!(leader.get(ENTRY).await.expect(200)["value"], 1);
    leader.get(&format!("{ENTRY}?consistency=linearizable")).await.problem(503, "NO_LEADER");
    wait_for("the last contact is a second ago", || {
        let age = leader.service.replica().leader_contact_age();
        age.is_none_or(|age| age > Duration::from_secs(1)).then_some(())
    })
    .await;
    leader.get(&format!("{ENTRY}?max_staleness_ms=1000")).await.problem(503, "STALE");
}
