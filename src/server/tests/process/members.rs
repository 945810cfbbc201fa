//! Real processes whose cluster changes: nodes join, get and lose their vote, are replaced and removed, and die halfway.

use crate::support::{Cluster, Node, Reply, finish, http, wait_for};
use serde_json::{Value, json};

const MEMBERS: &str = "/api/v1/cluster/members";

/// A node waits with an empty disk until it is added.
fn waiting(id: u64, cluster: &Cluster) -> Node {
    let mut node = Node::joining(id, cluster.folder.path(), &cluster.nodes);
    node.start();
    wait_until_it_waits(&mut node);
    node
}

fn wait_until_it_waits(node: &mut Node) {
    wait_for("the node waits to be added", || {
        assert!(node.running(), "node {} ended:\n{}", node.id, node.log());
        let health = node.get("/health").filter(|reply| reply.status == 503)?.json();
        health["checks"]["raft"].as_str()?.contains("cluster add").then_some(())
    });
}

fn description(node: &Node) -> String {
    json!({
        "id": node.id,
        "raft": node.ports.raft.to_string(),
        "http": node.ports.http.to_string(),
        "grpc": node.ports.grpc.to_string(),
    })
    .to_string()
}

fn post(node: &Node, path: &str, body: &str) -> Option<Reply> {
    http(node.ports.http, "POST", path, Some(body))
}

/// Sends a change to `node` until it is carried out; what passes (no leader, not caught up yet) is tried again, as an
/// operator would.
fn surely(node: &Node, method: &str, path: &str, body: &str) -> Reply {
    let mut last = None;
    wait_for(&format!("{method} {path} {body}"), || {
        let reply = http(node.ports.http, method, path, Some(body))?;
        if reply.status >= 300 && last.as_ref() != Some(&reply.body) {
            eprintln!("{method} {path} {body}: {} {}", reply.status, reply.body);
            last = Some(reply.body.clone());
        }
        (reply.status < 300).then_some(reply)
    })
}

fn add(through: &Node, node: &Node) -> Reply {
    surely(through, "POST", MEMBERS, &description(node))
}

fn promote(through: &Node, id: u64) -> Reply {
    surely(through, "POST", &format!("{MEMBERS}/{id}/promote"), "{}")
}

/// The refusal's problem document.
#[track_caller]
fn refusal(reply: Option<Reply>, status: u16, code: &str) -> Value {
    let reply = reply.expect("an answer");
    assert_eq!(reply.status, status, "{}", reply.body);
    let problem = reply.json();
    assert_eq!(problem["code"], code, "{problem}");
    problem
}

fn voters(node: &Node) -> Option<Vec<u64>> {
    let cluster = node.cluster()?;
    let voters = cluster["members"].as_array()?.iter().filter(|member| member["role"] != "learner");
    Some(voters.filter_map(|member| member["id"].as_u64()).collect())
}

fn wait_voters(nodes: &[&Node], expected: &[u64]) {
    for node in nodes {
        wait_for(&format!("node {} knows the voters {expected:?}", node.id), || {
            (voters(node)? == expected).then_some(())
        });
    }
}

/// A start that is refused for good.
fn refused_start(node: &Node) -> String {
    let (code, _, stderr) = finish(&mut node.command());
    assert_eq!(code, Some(3), "{stderr}");
    stderr
}

#[test]
fn a_node_joins_is_added_and_promoted_and_counts() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put_surely("before", "1");
    let mut fourth = waiting(4, &cluster);

    assert_eq!(fourth.get("/health/live").unwrap().status, 200);
    assert_eq!(fourth.get("/health/ready").unwrap().status, 503);
    assert_eq!(fourth.get("/api/v1/configs/test/before").unwrap().status, 503);
    let ports = fourth.ports.clone();
    let line = format!(
        "cluster add --id 4 --raft {} --http {} --grpc {}",
        ports.raft, ports.http, ports.grpc
    );
    wait_for("the log has the command", || fourth.log().contains(&line).then_some(()));
    // Asked itself, it belongs to no cluster; the others have not taken it in.
    assert_eq!(cluster.nodes[0].member(4), None);

    let follower = (cluster.leader() + 1) % 3;
    let added = add(&cluster.nodes[follower], &fourth);
    assert_eq!(added.status, 201);
    let member = added.json();
    assert_eq!((&member["id"], &member["role"]), (&json!(4), &json!("learner")));
    assert_eq!(member["raft"], ports.raft.to_string());

    // A learner serves reads and passes writes on; it has no vote.
    fourth.wait_ready();
    wait_for("the learner reads linearizably", || {
        fourth.read("before").filter(|value| *value == json!(1))
    });
    fourth.put_surely("through-the-learner", "2");
    wait_for("the learner answers from its own state", || {
        fourth.get("/api/v1/configs/test/through-the-learner").filter(|reply| reply.status == 200)
    });
    assert_eq!(fourth.cluster().unwrap()["role"], "learner");
    let id = cluster.nodes[0].get("/health").unwrap().json()["cluster_id"].clone();
    assert!(id.as_str().is_some_and(|id| !id.is_empty()), "{id}");
    assert_eq!(fourth.get("/health").unwrap().json()["cluster_id"], id);

    assert_eq!(promote(&cluster.nodes[follower], 4).json()["role"], "follower");
    let all: Vec<&Node> = cluster.nodes.iter().chain([&fourth]).collect();
    wait_voters(&all, &[1, 2, 3, 4]);
    wait_for("every member says which release it is", || {
        let members = cluster.nodes[follower].cluster()?["members"].clone();
        members.as_array()?.iter().all(|m| m["version"] == env!("CARGO_PKG_VERSION")).then_some(())
    });

    // Its vote counts: three of four go on without one of the founders.
    let leader = cluster.leader();
    cluster.nodes[leader].kill();
    fourth.put_surely("after", "3");
    cluster.nodes[leader].start();
    cluster.nodes[leader].wait_ready();

    // The same flags start it again, also when nobody of the list answers any more.
    fourth.signal("TERM");
    assert_eq!(fourth.wait_exit().code(), Some(0), "{}", fourth.log());
    fourth.join = format!("http://{}", crate::support::free_port(crate::support::own_ip()));
    fourth.start();
    fourth.wait_ready();
    wait_for("it has everything", || fourth.read("after").filter(|value| *value == json!(3)));
}

#[test]
fn a_node_that_finds_no_cluster_yet_lives_and_waits() {
    let mut cluster = Cluster::new(1);
    let mut second = Node::joining(2, cluster.folder.path(), &cluster.nodes);
    second.start();
    wait_for("it answers probes", || {
        second.get("/health/live").filter(|reply| reply.status == 200)
    });
    for path in ["/health", "/health/ready", "/api/v1/cluster"] {
        refusal(second.get(path), 503, "NOT_READY");
    }
    wait_for("its log says whom it asks", || second.log().contains(&second.join).then_some(()));
    // Stopped and started while it waits; then the cluster comes.
    second.signal("TERM");
    assert_eq!(second.wait_exit().code(), Some(0), "{}", second.log());
    second.start();
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    wait_until_it_waits(&mut second);
    // A wait that was interrupted goes on.
    second.kill();
    second.start();
    wait_until_it_waits(&mut second);
    add(&cluster.nodes[0], &second);
    second.wait_ready();
}

#[test]
fn a_removed_node_stops_and_stays_away() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put_surely("kept", "1");
    let leader = cluster.leader();
    // The leader itself: it hands over first.
    let id = cluster.nodes[leader].id;
    let other = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    let removed = surely(&cluster.nodes[other], "DELETE", &format!("{MEMBERS}/{id}"), "");
    assert_eq!(removed.status, 204);
    assert_eq!(cluster.nodes[leader].wait_exit().code(), Some(3));
    let log = cluster.nodes[leader].log();
    assert!(log.contains("removed"), "{log}");
    for _ in 0..2 {
        let stderr = refused_start(&cluster.nodes[leader]);
        assert!(stderr.contains("removed") && stderr.contains(&format!("node {id}")), "{stderr}");
    }
    // Not even when nobody else is there to say so.
    cluster.nodes[other].put_surely("kept", "2");
    let rest: Vec<u64> = (1..=3).filter(|node| *node != id).collect();
    wait_voters(&[&cluster.nodes[other], &cluster.nodes[third]], &rest);
    // Done again it is still done; the number is gone for ever.
    assert_eq!(surely(&cluster.nodes[other], "DELETE", &format!("{MEMBERS}/{id}"), "").status, 204);
    let mut again = Node::joining(id, &cluster.folder.path().join("again"), &[]);
    again.join = format!("http://{}", cluster.nodes[other].ports.http);
    std::fs::create_dir_all(cluster.folder.path().join("again")).unwrap();
    again.start();
    let refused = post(&cluster.nodes[other], MEMBERS, &description(&again));
    refusal(refused, 409, "MEMBERSHIP_CONFLICT");
}

#[test]
fn a_removed_node_that_was_down_hears_of_it_when_it_comes_back() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let gone = (leader + 1) % 3;
    let id = cluster.nodes[gone].id;
    cluster.nodes[gone].kill();
    wait_for("the leader misses it", || {
        (cluster.nodes[leader].member(id)?["reachable"] == false).then_some(())
    });
    surely(&cluster.nodes[leader], "DELETE", &format!("{MEMBERS}/{id}"), "");
    let term = cluster.nodes[leader].cluster().unwrap()["term"].clone();
    for _ in 0..2 {
        cluster.nodes[gone].start();
        assert_eq!(
            cluster.nodes[gone].wait_exit().code(),
            Some(3),
            "{}",
            cluster.nodes[gone].log()
        );
    }
    assert!(cluster.nodes[gone].log().contains("removed"), "{}", cluster.nodes[gone].log());
    cluster.nodes[leader].put_surely("undisturbed", "1");
    assert_eq!(cluster.nodes[leader].cluster().unwrap()["term"], term, "it unseated the leader");
}

#[test]
fn a_dead_node_is_replaced_in_one_step() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put_surely("kept", "1");
    let leader = cluster.leader();
    let dead = (leader + 1) % 3;
    let old = cluster.nodes[dead].id;
    cluster.nodes[dead].kill();
    let mut fourth = waiting(4, &cluster);
    let through = &cluster.nodes[leader];
    add(through, &fourth);
    let replaced = surely(
        through,
        "POST",
        &format!("{MEMBERS}/{old}/replace"),
        &json!({"with": 4}).to_string(),
    );
    assert_eq!((replaced.status, &replaced.json()["id"]), (200, &json!(4)));
    let mut expected: Vec<u64> = (1..=4).filter(|id| *id != old).collect();
    expected.sort_unstable();
    fourth.wait_ready();
    wait_voters(&[&cluster.nodes[leader], &fourth], &expected);
    assert_eq!(cluster.nodes[leader].member(old), None);
    // The old one comes back too late.
    cluster.nodes[dead].start();
    assert_eq!(cluster.nodes[dead].wait_exit().code(), Some(3), "{}", cluster.nodes[dead].log());
    // The new one's vote counts.
    let other = (leader + 2) % 3;
    cluster.nodes[other].kill();
    fourth.put_surely("after", "2");
    assert_eq!(fourth.read("kept"), Some(json!(1)));
}

#[test]
fn leadership_moves_where_it_is_told_to() {
    let mut cluster = Cluster::started(3);
    let before = cluster.leader();
    let target = (before + 2) % 3;
    let id = cluster.nodes[target].id;
    let path = "/api/v1/cluster/transfer-leader";
    // Asked of a node that is neither the old nor the new leader.
    let moved =
        surely(&cluster.nodes[(before + 1) % 3], "POST", path, &json!({"to": id}).to_string());
    assert_eq!(moved.json()["leader_id"], id);
    wait_for("the told one leads", || (cluster.leader() == target).then_some(()));
    let moved = surely(&cluster.nodes[target], "POST", path, "").json();
    assert_ne!(moved["leader_id"], id);
    wait_for("another one leads", || (cluster.leader() != target).then_some(()));
    refusal(post(&cluster.nodes[0], path, r#"{"to": 9}"#), 404, "NOT_FOUND");
}

#[test]
fn what_would_cost_the_quorum_is_refused() {
    let mut cluster = Cluster::started(3);
    let leader = cluster.leader();
    let dead = (leader + 1) % 3;
    let alive = cluster.nodes[(leader + 2) % 3].id;
    let id = cluster.nodes[dead].id;
    cluster.nodes[dead].kill();
    let through = &cluster.nodes[leader];
    wait_for("the leader misses it", || (through.member(id)?["reachable"] == false).then_some(()));
    // Two of three are left: one of two would be too few.
    let refused = http(through.ports.http, "DELETE", &format!("{MEMBERS}/{alive}"), None);
    let problem = refusal(refused, 409, "QUORUM_AT_RISK");
    assert!(problem["detail"].as_str().unwrap().contains("force"), "{problem}");
    let demoted = post(through, &format!("{MEMBERS}/{alive}/demote"), "{}");
    refusal(demoted, 409, "QUORUM_AT_RISK");
    assert_eq!(voters(through), Some(vec![1, 2, 3]));
    through.put_surely("goes-on", "1");
    // The dead one may go.
    surely(through, "DELETE", &format!("{MEMBERS}/{id}"), "");

    // The last voter stays, whoever insists.
    let alone = Cluster::started(1);
    for query in ["", "?force=true"] {
        let path = format!("{MEMBERS}/1{query}");
        let reply = http(alone.nodes[0].ports.http, "DELETE", &path, None).unwrap();
        assert_eq!(reply.status, 409, "{}", reply.body);
    }
    alone.nodes[0].put_surely("goes-on", "1");
}

#[test]
fn an_emptied_disk_under_a_known_number_is_refused() {
    let mut cluster = Cluster::started(3);
    cluster.nodes[0].put_surely("kept", "1");
    let leader = cluster.leader();
    let emptied = (leader + 1) % 3;
    let id = cluster.nodes[emptied].id;
    wait_for("the cluster knows its disk", || {
        cluster.nodes[leader].member(id).filter(|member| member["version"] != "")
    });
    cluster.nodes[emptied].kill();
    std::fs::remove_dir_all(&cluster.nodes[emptied].data_dir).unwrap();
    let stderr = refused_start(&cluster.nodes[emptied]);
    assert!(stderr.contains("another disk"), "{stderr}");

    // Nor does it get in as a node that joins.
    std::fs::remove_dir_all(&cluster.nodes[emptied].data_dir).unwrap();
    let through = cluster.nodes[(emptied + 1) % 3].ports.http;
    let node = &mut cluster.nodes[emptied];
    node.join = format!("http://{through}");
    node.start();
    assert_eq!(node.wait_exit().code(), Some(3), "{}", node.log());
    assert!(node.log().contains("another disk"), "{}", node.log());
}
