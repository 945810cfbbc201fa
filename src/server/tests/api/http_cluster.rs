//! What the nodes of a cluster answer: forwarded writes, reads everywhere, and refusals without a quorum.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use crate::http_support::{Answer, Api, Options, alone, request, wait_for};
use axum::http::Method;
use llm_config_replica::Join;
use llm_config_server::service::ServiceLimits;
use serde_json::json;
use tempfile::TempDir;

const ENTRY: &str = "/api/v1/configs/app/k";

struct Cluster {
    nodes: Vec<Api>,
    folder: TempDir,
}

const MEMBERS: &str = "/api/v1/cluster/members";

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
    Cluster { nodes, folder }
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
    let deadline = std::time::Instant::now() + crate::http_support::PATIENCE;
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

/// A node with an empty disk that waits to be added.
async fn waiting(id: u64, cluster: &Cluster) -> (Api, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let raft = listener.local_addr().unwrap().to_string();
    let cluster_id = cluster.nodes[0].get("/api/v1/cluster").await.json()["cluster_id"].clone();
    let join = Join { cluster_id: cluster_id.as_str().map(str::to_owned) };
    let options = Options { join: Some(join), ..Options::default() };
    let node = Api::start(id, listener, BTreeMap::new(), cluster.folder.path(), &options).await;
    let body = serde_json::json!({
        "id": id, "raft": raft, "http": format!("127.0.0.1:{}", 8079 + id), "grpc": format!("127.0.0.1:{}", 50050 + id),
    });
    (node, body.to_string())
}

/// Sends a change until nothing passing stands in its way.
async fn surely(node: &Api, method: Method, path: &str, body: &str) -> Answer {
    let deadline = std::time::Instant::now() + crate::http_support::PATIENCE;
    loop {
        let answer = node.call(request(method.clone(), path, &[], body)).await;
        if answer.status.is_success() {
            return answer;
        }
        assert!(std::time::Instant::now() < deadline, "{path}: {}", answer.text());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_added_promoted_demoted_replaced_and_removed() {
    let cluster = cluster(3, &Options::default()).await;
    for node in &cluster.nodes {
        node.until_ready().await;
    }
    let leads = |node: &&Api| node.service.replica().status().role.as_str() == "leader";
    let leader = wait_for("a leader", || cluster.nodes.iter().find(leads)).await;
    let leader_id = leader.service.replica().node_id();
    // What is not there cannot be added, promoted or removed.
    let (fourth, body) = waiting(4, &cluster).await;
    let nobody = r#"{"id": 9, "raft": "127.0.0.1:1", "http": "h:1", "grpc": "h:1"}"#;
    let refused = leader.post(MEMBERS, nobody).await.problem(409, "MEMBERSHIP_CONFLICT");
    assert!(refused["detail"].as_str().unwrap().contains("--join"), "{refused}");
    leader.post(&format!("{MEMBERS}/9/promote"), "").await.problem(404, "NOT_FOUND");
    let health = fourth.get("/health").await.expect(503);
    assert_eq!((&health["status"], &health["cluster_id"]), (&"unhealthy".into(), &().into()));
    assert!(health["checks"]["raft"].as_str().unwrap().contains("cluster add --id 4"), "{health}");
    let ready = fourth.get("/health/ready").await.expect(503);
    assert!(ready["reason"].as_str().unwrap().contains("cluster add"), "{ready}");
    fourth.post(MEMBERS, &body).await.problem(503, "NOT_READY");

    // Added on a follower, twice: the second time changes nothing.
    let follower = cluster.nodes.iter().find(|node| !std::ptr::eq(*node, leader)).unwrap();
    for _ in 0..2 {
        let added = surely(follower, Method::POST, MEMBERS, &body).await;
        assert_eq!(added.status, 201);
        assert_eq!((&added.json()["id"], &added.json()["role"]), (&4.into(), &"learner".into()));
    }
    fourth.until_ready().await;
    let cluster_id = leader.get("/health").await.json()["cluster_id"].clone();
    assert_eq!(fourth.get("/health").await.json()["cluster_id"], cluster_id);

    // Promoted, demoted and promoted, each answered with what the member is then.
    for (change, role) in [("promote", "follower"), ("demote", "learner")] {
        let path = format!("{MEMBERS}/4/{change}");
        let changed = surely(follower, Method::POST, &path, "{}").await;
        assert_eq!((changed.status.as_u16(), &changed.json()["role"]), (200, &role.into()));
    }

    // It takes the place of a founder that stopped, and is the only one with a claim to it.
    let old =
        cluster.nodes.iter().find(|n| !std::ptr::eq(*n, leader) && !std::ptr::eq(*n, follower));
    let old = old.unwrap();
    let old_id = old.service.replica().node_id();
    old.stop().await;
    let path = format!("{MEMBERS}/{old_id}/replace");
    let replaced = surely(follower, Method::POST, &path, r#"{"with": 4}"#).await;
    assert_eq!((&replaced.json()["id"], &replaced.json()["role"]), (&4.into(), &"follower".into()));
    let members = leader.get("/api/v1/cluster").await.json()["members"].clone();
    let ids: Vec<u64> =
        members.as_array().unwrap().iter().map(|m| m["id"].as_u64().unwrap()).collect();
    assert!(ids.len() == 3 && !ids.contains(&old_id) && ids.contains(&4), "{members}");

    // The leader can be told to go, and to give way.
    let to = serde_json::json!({"to": 4}).to_string();
    let moved = surely(follower, Method::POST, "/api/v1/cluster/transfer-leader", &to).await;
    assert_eq!(moved.json(), serde_json::json!({"leader_id": 4}));
    let path = format!("{MEMBERS}/{leader_id}");
    assert_eq!(surely(follower, Method::DELETE, &path, "").await.status, 204);
    fourth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_voter_stays() {
    let alone = crate::http_support::alone().await;
    for query in ["", "?force=true"] {
        alone.delete(&format!("{MEMBERS}/1{query}")).await.problem(409, "MEMBERSHIP_CONFLICT");
    }
    let demoted = alone.post(&format!("{MEMBERS}/1/demote"), r#"{"force": true}"#).await;
    demoted.problem(409, "MEMBERSHIP_CONFLICT");
    let path = "/api/v1/cluster/transfer-leader";
    alone.post(path, "").await.problem(409, "MEMBERSHIP_CONFLICT");
    let moved = alone.post(path, r#"{"to": 1}"#).await.expect(200);
    assert_eq!(moved["leader_id"], 1);
    // A voter that is promoted is a voter.
    assert_eq!(alone.post(&format!("{MEMBERS}/1/promote"), "").await.expect(200)["role"], "leader");
    alone.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_cache_reads_from_storage_again_and_loses_nothing() {
    let node = alone().await;
    node.put("/api/v1/configs/app/k", r#"{"value": 1}"#).await.expect(201);
    let misses = || {
        let page = String::from_utf8(node.service.metrics().render().unwrap()).unwrap();
        let line = page.lines().find(|line| line.starts_with("cache_misses_total{tier=\"l1\"}"));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).unwrap()
    };
    assert_eq!(node.get("/api/v1/configs/app/k").await.expect(200)["value"], 1);
    let before = misses();
    assert_eq!(node.get("/api/v1/configs/app/k").await.expect(200)["value"], 1);
    assert_eq!(misses(), before, "it was in memory");
    let cleared = node.post("/api/v1/admin/cache/clear", "").await.expect(200);
    assert_eq!((&cleared["node_id"], &cleared["entries"]), (&json!(1), &json!(1)));
    assert_eq!(node.get("/api/v1/configs/app/k").await.expect(200)["value"], 1);
    assert_eq!(misses(), before + 1);
}
