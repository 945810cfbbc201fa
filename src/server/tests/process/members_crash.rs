//! Kill -9 in the middle of every step of a change of the members: the same change, sent again, completes it, and no
//! acknowledged write is lost. Also a new follower that is killed while it receives the state.
//!
//! A process dies at a named point by itself (`LLM_CONFIG_TEST_CRASH_AT`, in builds with debug assertions only).

use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::support::{Cluster, Node, http, wait_for};
use serde_json::{Value, json};

const MEMBERS: &str = "/api/v1/cluster/members";
const CRASH_AT: &str = "LLM_CONFIG_TEST_CRASH_AT";
const SNAPSHOT_ENTRIES: &str = "LLM_CONFIG_TEST_SNAPSHOT_ENTRIES";
const ABORTED: i32 = 6;

/// One change of the members.
struct Change {
    method: &'static str,
    path: String,
    body: String,
}

impl Change {
    fn add(node: &Node) -> Self {
        let body = json!({
            "id": node.id,
            "raft": node.ports.raft.to_string(),
            "http": node.ports.http.to_string(),
            "grpc": node.ports.grpc.to_string(),
        });
        Self { method: "POST", path: MEMBERS.into(), body: body.to_string() }
    }

    fn vote(id: u64, change: &str) -> Self {
        Self { method: "POST", path: format!("{MEMBERS}/{id}/{change}"), body: "{}".into() }
    }

    fn replace(old: u64, new: u64) -> Self {
        let body = json!({"with": new}).to_string();
        Self { method: "POST", path: format!("{MEMBERS}/{old}/replace"), body }
    }

    fn remove(id: u64) -> Self {
        Self { method: "DELETE", path: format!("{MEMBERS}/{id}"), body: String::new() }
    }

    fn lead(id: u64) -> Self {
        let body = json!({"to": id}).to_string();
        Self { method: "POST", path: "/api/v1/cluster/transfer-leader".into(), body }
    }

    /// Sent once; the answer counts for nothing.
    fn send(&self, through: &Node) {
        drop(http(through.ports.http, self.method, &self.path, Some(&self.body)));
    }

    /// Sent until it is carried out.
    fn surely(&self, through: &Node) {
        let what = format!("{} {} {}", self.method, self.path, self.body);
        let mut last = String::new();
        wait_for(&what, || {
            let reply = http(through.ports.http, self.method, &self.path, Some(&self.body))?;
            if reply.status >= 300 && last != reply.body {
                last.clone_from(&reply.body);
                eprintln!("{what}: {last}");
            }
            (reply.status < 300).then_some(())
        });
    }
}

/// A cluster whose every acknowledged write is looked for after each crash.
struct Story {
    cluster: Cluster,
    writes: u64,
}

impl Story {
    fn begin(size: u64) -> Self {
        Self { cluster: Cluster::started(size), writes: 0 }
    }

    fn node(&mut self, id: u64) -> &mut Node {
        self.cluster.nodes.iter_mut().find(|node| node.id == id).unwrap()
    }

    /// Position of the node that leads, as those say that belong to the cluster.
    fn leader(&mut self) -> usize {
        wait_for("the members agree on a leader", || {
            let mut seen = Vec::new();
            for node in &mut self.cluster.nodes {
                if node.running() {
                    let cluster = node.cluster().filter(|cluster| !cluster["cluster_id"].is_null());
                    seen.extend(cluster.map(|cluster| cluster["leader_id"].as_u64()));
                }
            }
            let leader = (*seen.first()?)?;
            let place = self.cluster.nodes.iter().position(|node| node.id == leader)?;
            let agreed = seen.iter().all(|id| *id == Some(leader));
            (agreed && self.cluster.nodes[place].running()).then_some(place)
        })
    }

    /// A node that waits to be added, dying at this point.
    fn joins(&mut self, id: u64, crash_at: Option<&str>) {
        let mut node = Node::joining(id, self.cluster.folder.path(), &self.cluster.nodes);
        node.env = crash_at.map(|point| (CRASH_AT, point.to_owned())).into_iter().collect();
        node.start();
        wait_for("the node waits to be added", || {
            let health = node.get("/health").filter(|reply| reply.status == 503)?.json();
            health["checks"]["raft"].as_str()?.contains("cluster add").then_some(())
        });
        self.cluster.nodes.push(node);
    }

    /// Writes once more, and sees everything that was ever acknowledged.
    fn check(&mut self) {
        self.writes += 1;
        let writes = self.writes;
        let key = format!("k{writes}");
        // Asked anew each time: whoever leads may be the one that is being removed.
        wait_for("the leader takes a write", || {
            let leader = self.leader();
            let reply = self.cluster.nodes[leader].put(&key, &writes.to_string())?;
            matches!(reply.status, 200 | 201).then_some(())
        });
        for n in 1..=writes {
            wait_for("every acknowledged write is there", || {
                let leader = self.leader();
                let value = self.cluster.nodes[leader].read(&format!("k{n}"))?;
                (value == json!(n)).then_some(())
            });
        }
    }

    /// A voter leads, is asked for the change, dies at the point and comes back; then another node is asked again.
    fn crash(&mut self, leader: u64, point: &str, change: &Change) {
        eprintln!("--- {} {} dies at {point}", change.method, change.path);
        let node = self.node(leader);
        node.signal("TERM");
        assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
        node.env = vec![(CRASH_AT, point.to_owned())];
        node.start();
        node.wait_ready();
        Change::lead(leader).surely(node);
        wait_for("it leads", || (node.cluster()?["role"] == "leader").then_some(()));
        change.send(node);
        assert_eq!(node.wait_exit().signal(), Some(ABORTED), "at {point}: {}", node.log());
        node.env.clear();
        node.start();
        let place = self.leader();
        change.surely(&self.cluster.nodes[place]);
        self.node(leader).wait_ready();
        self.check();
    }

    fn members(&mut self) -> Vec<(u64, bool)> {
        let leader = self.leader();
        let members = self.cluster.nodes[leader].cluster().unwrap()["members"].clone();
        let row = |m: &Value| (m["id"].as_u64().unwrap(), m["role"] != "learner");
        members.as_array().unwrap().iter().map(row).collect()
    }

    fn expect(&mut self, members: &[(u64, bool)]) {
        wait_for(&format!("the members are {members:?}"), || {
            (self.members() == members).then_some(())
        });
    }

    /// It has learned that it was removed, and takes that with it.
    fn is_gone(&mut self, id: u64) {
        let node = self.node(id);
        assert_eq!(node.wait_exit().code(), Some(3), "{}", node.log());
        node.start();
        assert_eq!(node.wait_exit().code(), Some(3), "{}", node.log());
        self.cluster.nodes.retain(|node| node.id != id);
    }
}

#[test]
fn a_crash_while_a_node_is_added_or_promoted_leaves_nothing_that_a_repetition_does_not_complete() {
    let mut story = Story::begin(3);
    let points = ["members.add.before-node", "members.add.after-node", "members.add.after-learner"];
    for (id, point) in (4..).zip(points) {
        story.joins(id, None);
        let change = Change::add(story.node(id));
        story.crash(1 + id % 3, point, &change);
        story.node(id).wait_ready();
    }
    story.expect(&[(1, true), (2, true), (3, true), (4, false), (5, false), (6, false)]);
    story.crash(1, "members.voters.before", &Change::vote(4, "promote"));
    story.crash(2, "members.voters.after", &Change::vote(4, "demote"));
    story.crash(3, "members.joint", &Change::vote(5, "promote"));
    story.crash(1, "members.joint", &Change::vote(5, "demote"));
    story.expect(&[(1, true), (2, true), (3, true), (4, false), (5, false), (6, false)]);
}

#[test]
fn a_crash_while_a_node_is_removed_or_replaced_leaves_nothing_that_a_repetition_does_not_complete()
{
    let mut story = Story::begin(3);
    for id in 4..=7 {
        story.joins(id, None);
        let change = Change::add(story.node(id));
        change.surely(&story.cluster.nodes[0]);
        story.node(id).wait_ready();
    }
    // Learners go at each point, then a voter.
    for (id, point) in [(4, "members.mark.before"), (5, "members.mark.after")] {
        story.crash(1, point, &Change::remove(id));
        story.is_gone(id);
    }
    story.crash(2, "members.joint", &Change::replace(3, 6));
    story.is_gone(3);
    story.expect(&[(1, true), (2, true), (6, true), (7, false)]);
    story.crash(1, "members.drop.before", &Change::replace(6, 7));
    story.is_gone(6);
    story.expect(&[(1, true), (2, true), (7, true)]);
    story.crash(2, "members.drop.after", &Change::remove(7));
    story.is_gone(7);
    story.expect(&[(1, true), (2, true)]);
}

#[test]
fn a_crash_while_leadership_moves_costs_nothing() {
    let mut story = Story::begin(3);
    story.crash(1, "members.transfer.before", &Change::lead(2));
    story.crash(2, "members.transfer.after", &Change::lead(3));
    // The leader takes its own vote: it hands over, dies, and the next one finishes.
    story.crash(3, "members.handed-over", &Change::vote(3, "demote"));
    story.expect(&[(1, true), (2, true), (3, false)]);
}

#[test]
fn a_node_that_dies_while_it_learns_its_fate_learns_it_again() {
    let mut story = Story::begin(1);
    let joins = ["members.join.before-identity", "members.join.after-identity"];
    for (id, point) in (2..).zip(joins) {
        story.joins(id, Some(point));
        let change = Change::add(story.node(id));
        change.surely(&story.cluster.nodes[0]);
        let node = story.node(id);
        assert_eq!(node.wait_exit().signal(), Some(ABORTED), "{}", node.log());
        node.env.clear();
        node.start();
        change.surely(&story.cluster.nodes[0]);
        story.node(id).wait_ready();
        story.check();
    }
    let removals = ["members.removed.before-file", "members.removed.after-file"];
    for (id, point) in (2..).zip(removals) {
        let node = story.node(id);
        node.kill();
        node.env = vec![(CRASH_AT, point.to_owned())];
        node.start();
        node.wait_ready();
        Change::remove(id).surely(&story.cluster.nodes[0]);
        let node = story.node(id);
        assert_eq!(node.wait_exit().signal(), Some(ABORTED), "{}", node.log());
        node.env.clear();
        node.start();
        story.is_gone(id);
    }
    story.expect(&[(1, true)]);
}

/// Numbers the writes; stops when told to and answers how many were acknowledged.
fn write_on(address: std::net::SocketAddr, stop: &AtomicBool) -> u64 {
    let mut acknowledged = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/api/v1/configs/stream/{acknowledged}");
        let reply = http(address, "PUT", &path, Some(&format!("{{\"value\":{acknowledged}}}")));
        if reply.is_some_and(|reply| matches!(reply.status, 200 | 201)) {
            acknowledged += 1;
        }
    }
    acknowledged
}

#[test]
fn a_new_follower_that_is_killed_while_it_receives_the_state_gets_all_of_it_in_the_end() {
    const LARGE: usize = 24;
    let mut story = Story { cluster: Cluster::new(3), writes: 0 };
    for node in &mut story.cluster.nodes {
        node.env = vec![(SNAPSHOT_ENTRIES, "100".to_owned())];
        node.start();
    }
    story.cluster.nodes.iter_mut().for_each(Node::wait_ready);
    // Several chunks of state, and a log that begins behind a snapshot.
    let filler = "x".repeat(200_000);
    for n in 0..LARGE {
        story.cluster.nodes[0].put_surely(&format!("large-{n}"), &format!("\"{n}{filler}\""));
    }
    let address = story.cluster.nodes[0].ports.http;
    let stop = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let writer = scope.spawn(|| write_on(address, &stop));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            catch_up_with_crashes(&mut story);
        }));
        stop.store(true, Ordering::Relaxed);
        let acknowledged = writer.join().unwrap();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        acknowledged
    });
    assert!(acknowledged > 0);
    // Every acknowledged write, from the new follower's own state.
    let node = story.node(4);
    let last = acknowledged - 1;
    wait_for("the last write is there", || {
        let path = format!("/api/v1/configs/stream/{last}?consistency=linearizable");
        node.get(&path).filter(|reply| reply.status == 200)
    });
    for n in 0..acknowledged {
        let reply = node.get(&format!("/api/v1/configs/stream/{n}")).unwrap();
        assert_eq!((reply.status, &reply.json()["value"]), (200, &json!(n)), "write {n}");
    }
    for n in 0..LARGE {
        let value = node.get(&format!("/api/v1/configs/test/large-{n}")).unwrap().json();
        assert!(value["value"].as_str().unwrap().starts_with(&format!("{n}x")), "large value {n}");
    }
}

/// The new node dies once after a part of the state, once with all of it, once while it takes it over.
fn catch_up_with_crashes(story: &mut Story) {
    wait_for("the log of every node begins behind a snapshot", || {
        let taken = |node: &Node| node.data_dir.join("CURRENT-SNAPSHOT").exists();
        story.cluster.nodes.iter().all(taken).then_some(())
    });
    let points = ["receive.after-chunk", "receive.finished", "install.before-state-pointer"];
    story.joins(4, Some(points[0]));
    let change = Change::add(story.node(4));
    change.surely(&story.cluster.nodes[0]);
    for next in points.into_iter().skip(1).map(Some).chain([None]) {
        let node = story.node(4);
        assert_eq!(node.wait_exit().signal(), Some(ABORTED), "{}", node.log());
        node.env = next.map(|point| (CRASH_AT, point.to_owned())).into_iter().collect();
        node.start();
    }
    story.node(4).wait_ready();
}
