//! Three real processes: founding, writes through every node, kill -9 of one and of all.

use std::collections::BTreeSet;

use crate::support::{Cluster, Node, wait_for};
use serde_json::json;

#[test]
fn three_nodes_form_one_cluster_in_any_order_and_each_takes_writes() {
    for order in [[0, 1, 2], [2, 1, 0]] {
        let mut cluster = Cluster::new(3);
        // The second node starts while the first waits for company, and the last when two may have founded already.
        cluster.nodes[order[0]].start();
        cluster.nodes[order[1]].start();
        wait_for("two of three serve", || {
            cluster.nodes[order[1]].get("/health/ready").filter(|r| r.status == 200)
        });
        cluster.nodes[order[2]].start();
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        let ids: BTreeSet<_> = cluster
            .nodes
            .iter()
            .map(|node| node.cluster().unwrap()["cluster_id"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(ids.len(), 1, "one cluster: {ids:?}");
        for (n, node) in cluster.nodes.iter().enumerate() {
            node.put_surely(&format!("by-{n}"), &n.to_string());
        }
        for node in &cluster.nodes {
            for n in 0..3 {
                wait_for("a linearizable read of every write on every node", || {
                    node.read(&format!("by-{n}")).filter(|value| *value == json!(n))
                });
            }
        }
    }
}

#[test]
fn a_killed_leader_is_replaced_and_comes_back_as_a_follower() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put_surely("before", "1");
    let old = cluster.leader();
    cluster.nodes[old].kill();
    let other = (old + 1) % 3;
    cluster.nodes[other].put_surely("after", "2");
    let new = cluster.leader();
    assert_ne!(new, old);
    assert_eq!(cluster.nodes[other].read("before"), Some(json!(1)));

    cluster.nodes[old].start();
    cluster.nodes[old].wait_ready();
    wait_for("the returned node has what it missed", || {
        cluster.nodes[old].read("after").filter(|v| *v == json!(2))
    });
}

#[test]
fn a_cluster_that_was_killed_as_a_whole_has_every_acknowledged_write() {
    let mut cluster = Cluster::started(3);
    for n in 0..20 {
        cluster.nodes[n % 3].put_surely(&format!("k{n}"), &n.to_string());
    }
    let id = cluster.nodes[0].cluster().unwrap()["cluster_id"].clone();
    cluster.nodes.iter_mut().for_each(Node::kill);
    cluster.nodes.iter_mut().for_each(Node::start);
    cluster.nodes.iter_mut().for_each(Node::wait_ready);
    for n in 0..20 {
        let key = format!("k{n}");
        wait_for("every write is there", || {
            cluster.nodes[(n + 1) % 3].read(&key).filter(|v| *v == json!(n))
        });
    }
    assert_eq!(cluster.nodes[2].cluster().unwrap()["cluster_id"], id);
}

#[test]
fn without_a_majority_no_node_is_healthy_and_cached_reads_go_on() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put_surely("kept", "true");
    for node in &cluster.nodes {
        wait_for("the write is everywhere", || {
            node.get("/api/v1/configs/test/kept").filter(|r| r.status == 200)
        });
    }
    cluster.nodes[1].kill();
    cluster.nodes[2].kill();
    let left = &cluster.nodes[0];
    let health = wait_for("the lonely node calls itself unhealthy", || {
        left.get("/health").filter(|r| r.status == 503)
    });
    let body = health.json();
    assert_eq!(body["status"], "unhealthy");
    assert!(body["checks"]["raft"].as_str().unwrap().starts_with("unhealthy"), "{body}");
    assert_eq!(left.get("/health/live").unwrap().status, 200);
    assert_eq!(left.get("/health/leader").unwrap().status, 503);
    assert_eq!(left.get("/api/v1/configs/test/kept").unwrap().json()["value"], true);
}

#[test]
fn a_node_that_slept_does_not_unseat_the_leader() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let sleeper = (leader + 1) % 3;
    let term =
        |cluster: &Cluster, node: usize| cluster.nodes[node].cluster().unwrap()["term"].as_u64();
    let before = term(&cluster, leader);
    cluster.nodes[sleeper].signal("STOP");
    // Long enough for its election timeout to have passed when it wakes.
    wait_for("the leader misses it", || {
        let members = cluster.nodes[leader].cluster()?["members"].clone();
        let missed = members.as_array()?.iter().find(|m| m["id"] == cluster.nodes[sleeper].id)?;
        (missed["reachable"] == false).then_some(())
    });
    cluster.nodes[sleeper].signal("CONT");
    cluster.nodes[sleeper].wait_ready();
    cluster.nodes[sleeper].put_surely("awake", "true");
    assert_eq!(term(&cluster, leader), before, "the leader was unseated by a node that had slept");
    assert_eq!(cluster.leader(), leader);
}

#[test]
fn exactly_one_node_calls_itself_the_leader() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    wait_for("leadership shows in one place", || {
        let answers: Vec<_> =
            cluster.nodes.iter().map(|n| n.get("/health/leader").map(|r| r.status)).collect();
        let expected: Vec<_> = (0..3).map(|n| Some(if n == leader { 200 } else { 503 })).collect();
        (answers == expected).then_some(())
    });
    for node in &cluster.nodes {
        let health = wait_for("healthy", || node.get("/health").filter(|r| r.status == 200)).json();
        assert_eq!(health["service"], "llm-config-manager");
        assert_eq!(health["node_id"], node.id);
        assert_eq!(health["leader_id"], cluster.nodes[leader].id);
    }
}
