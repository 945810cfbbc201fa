//! What is on the disk and between nodes, across releases: a data directory of each release that is kept here opens with
//! everything in it, and a form that a newer release wrote ends the program with exit code 3 and says so.
//!
//! `UPDATE=1 cargo test -p llm-config-server --test process stored_forms` makes the directory of the present release anew.

use std::fs;
use std::path::Path;
use std::sync::Once;

use crate::forms::{Database, records};
use crate::support::{Cluster, Node, Ports, http, own_ip, wait_for};
use llm_config_proto::internal as pb;
use llm_config_proto::internal::replication_client::ReplicationClient;
use prost::Message as _;
use serde_json::{Value, json};

const WAY_OUT: &str = "use the release that wrote it or a newer one";

/// The kept directories, by release.
fn fixtures() -> Vec<std::path::PathBuf> {
    static UPDATED: Once = Once::new();
    UPDATED.call_once(|| {
        if std::env::var_os("UPDATE").is_some() {
            crate::forms::make_fixture(
                &Path::new(crate::forms::FIXTURES).join(env!("CARGO_PKG_VERSION")),
            );
        }
    });
    let kept: Vec<_> =
        fs::read_dir(crate::forms::FIXTURES).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!kept.is_empty());
    kept
}

/// A node on a copy of a kept directory.
struct Copy {
    node: Node,
    expected: Value,
    _folder: tempfile::TempDir,
}

impl Copy {
    fn of(fixture: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports::free(own_ip());
        let founders = format!("1={}", ports.raft);
        let node = Node::new(1, ports, folder.path(), founders);
        crate::forms::copy_folder(&fixture.join("data"), &node.data_dir);
        let expected = fs::read(fixture.join("expected.json")).unwrap();
        Self { node, expected: serde_json::from_slice(&expected).unwrap(), _folder: folder }
    }

    /// Of the present release.
    fn present() -> Self {
        let present = Path::new(crate::forms::FIXTURES).join(env!("CARGO_PKG_VERSION"));
        fixtures();
        assert!(present.exists(), "run with UPDATE=1 to make {}", present.display());
        Self::of(&present)
    }

    fn log(&self) -> Database {
        Database::open(&self.node.data_dir.join("log"))
    }

    /// The folder that a pointer names.
    fn named(&self, pointer: &str) -> Database {
        let pointer = fs::read_to_string(self.node.data_dir.join(pointer)).unwrap();
        Database::open(&self.node.data_dir.join(pointer.lines().next().unwrap()))
    }

    fn edit(&self, file: &str, change: impl Fn(String) -> String) {
        let path = self.node.data_dir.join(file);
        fs::write(&path, change(fs::read_to_string(&path).unwrap())).unwrap();
    }
}

#[test]
fn the_directory_of_every_release_opens_with_everything_in_it() {
    for fixture in fixtures() {
        let Copy { mut node, expected, _folder } = Copy::of(&fixture);
        node.start();
        node.wait_ready();
        let cluster = node.cluster().unwrap();
        assert_eq!(cluster["cluster_id"], expected["cluster_id"], "{}", fixture.display());
        for (path, answer) in expected["answers"].as_object().unwrap() {
            let reply = node.get(path).unwrap();
            assert_eq!(&json!([reply.status, reply.json()]), answer, "{path}");
        }
        // It goes on where it was: versions count on over the delete, and the history is whole.
        let deleted = node.put("gone", "\"back\"").unwrap();
        assert_eq!(
            (deleted.status, &deleted.json()["version"]),
            (201, &json!(3)),
            "{}",
            deleted.body
        );
        let history = node.get("/api/v1/configs/test/gone/history").unwrap().json();
        let versions: Vec<_> =
            history["items"].as_array().unwrap().iter().map(|v| &v["version"]).collect();
        assert_eq!(versions, [&json!(3), &json!(2), &json!(1)]);
        node.signal("TERM");
        assert_eq!(node.wait_exit().code(), Some(0), "{}", node.log());
    }
}

fn refused(copy: Copy, form: &str) {
    refused_at(copy, form, 2);
}

/// What is written in format 2 by now is newer in 3.
fn refused_at(mut copy: Copy, form: &str, format: u32) {
    copy.node.start();
    let code = copy.node.wait_exit().code();
    let log = copy.node.log();
    let error = log.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
    assert_eq!(code, Some(3), "{form}: {log}");
    assert!(
        error.contains(form) && error.contains(&format!("has format {format}")),
        "{form}: {log}"
    );
    assert!(error.contains(WAY_OUT), "{form}: {log}");
}

#[test]
fn newer_files_are_refused() {
    let copy = Copy::present();
    copy.edit("identity", |text| text.replace("format=1", "format=2"));
    refused(copy, "identity");
    for pointer in ["CURRENT-STATE", "CURRENT-SNAPSHOT"] {
        let copy = Copy::present();
        copy.edit(pointer, |text| text.replace("format=1", "format=2"));
        refused(copy, pointer);
    }
    let copy = Copy::present();
    let path = copy.node.data_dir.join("watermark");
    let mut slots = fs::read(&path).unwrap();
    for slot in slots.chunks_mut(512) {
        let end = 2 + usize::from(u16::from_le_bytes([slot[0], slot[1]]));
        let newer = records::raised(&slot[2..end]);
        slot[2..end].copy_from_slice(&newer);
    }
    fs::write(&path, slots).unwrap();
    refused(copy, "the watermark");
}

#[test]
fn newer_records_of_the_log_are_refused() {
    for (key, form) in [
        (&b"\x00vote"[..], "vote"),
        (b"\x00purged", "purged position"),
        (b"\x00committed", "committed position"),
    ] {
        let copy = Copy::present();
        copy.log().change(key, records::raised);
        refused(copy, form);
    }
    let copy = Copy::present();
    let last = copy.log().last_key();
    copy.log().change(&last, records::raised);
    refused(copy, "log entry");

    let copy = Copy::present();
    copy.log().change(&last, |record| {
        let mut entry = pb::LogEntry::decode(records::body(record)).unwrap();
        let Some(pb::log_entry::Payload::Normal(normal)) = &mut entry.payload else {
            panic!("the log ends with {entry:?}");
        };
        normal.command = records::with_first_byte(&normal.command, 3).into();
        records::sealed(1, &entry.encode_to_vec())
    });
    refused_at(copy, "command", 3);
}

#[test]
fn newer_records_of_the_state_are_refused() {
    for pointer in ["CURRENT-STATE", "CURRENT-SNAPSHOT"] {
        let copy = Copy::present();
        copy.named(pointer).change(&[1], records::raised);
        refused(copy, "applied record");
        let copy = Copy::present();
        copy.named(pointer).change(&[1], |record| {
            let mut applied = pb::AppliedState::decode(records::body(record)).unwrap();
            applied.state_format = 3;
            records::sealed(1, &applied.encode_to_vec())
        });
        refused_at(copy, "record of the state", 3);
    }
    for (table, name) in [(0x16, "nodes table"), (0x17, "meta table")] {
        let copy = Copy::present();
        let state = copy.named("CURRENT-STATE");
        let key = state.first_key_from(&[table]);
        state.change(&key, |record| records::with_first_byte(record, 3));
        drop(state);
        refused_at(copy, name, 3);
    }
}

#[test]
fn a_newer_record_that_a_write_comes_across_ends_the_node() {
    let mut copy = Copy::present();
    let state = copy.named("CURRENT-STATE");
    let key = state.first_key_from(&[0x10]);
    state.change(&key, |record| records::with_first_byte(record, 3));
    drop(state);
    copy.node.start();
    copy.node.wait_ready();
    // The heads come sorted by name; this is the first. What must not be a secret is not looked up before it is applied.
    let body = Some(r#"{"value": 1, "secret": false}"#);
    let written = http(copy.node.ports.http, "PUT", "/api/v1/configs/test/deep", body);
    assert!(written.is_none_or(|reply| reply.status >= 500));
    assert_eq!(copy.node.wait_exit().code(), Some(3), "{}", copy.node.log());
    let log = copy.node.log();
    assert!(
        log.contains("error: a record of the heads table has format 3") && log.contains(WAY_OUT),
        "{log}"
    );
}

/// One founder of three, alone: it takes messages of the others.
fn lonely_founder() -> (Cluster, tokio::runtime::Runtime) {
    let mut cluster = Cluster::new(3);
    cluster.nodes[0].start();
    wait_for("the node answers", || cluster.nodes[0].get("/health/live"));
    (cluster, tokio::runtime::Runtime::new().unwrap())
}

/// A message of node 2 to the first node.
fn from_second<T>(cluster: &Cluster, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-source-node", "2".parse().unwrap());
    metadata.insert("x-target-node", "1".parse().unwrap());
    metadata.insert("x-founding", cluster.nodes[0].initial_cluster.parse().unwrap());
    request
}

fn stopped_by(mut cluster: Cluster, form: &str) {
    assert_eq!(cluster.nodes[0].wait_exit().code(), Some(3), "{}", cluster.nodes[0].log());
    let log = cluster.nodes[0].log();
    let error = log.lines().rfind(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains(form) && error.contains(WAY_OUT), "{log}");
}

fn vote() -> Option<pb::Vote> {
    Some(pb::Vote { term: 9, node_id: 2, committed: true })
}

#[test]
fn newer_forms_from_a_leader_end_the_node() {
    let command = pb::LogEntry {
        log_id: Some(pb::LogId { term: 9, node_id: 2, index: 0 }),
        payload: Some(pb::log_entry::Payload::Normal(pb::Normal {
            time_ms: 1,
            command: vec![3, 0].into(),
        })),
    };
    let appends = [
        (
            pb::AppendRequest { vote: vote(), entries: vec![command], ..Default::default() },
            "a command in the log",
        ),
        (
            pb::AppendRequest { vote: vote(), format: 2, ..Default::default() },
            "a message with log entries",
        ),
    ];
    for (message, form) in appends {
        let (cluster, runtime) = lonely_founder();
        let url = format!("http://{}", cluster.nodes[0].ports.raft);
        runtime.block_on(async {
            let mut peer = ReplicationClient::connect(url).await.unwrap();
            let refused = peer.heartbeat(from_second(&cluster, message)).await.unwrap_err();
            assert!(refused.message().contains(WAY_OUT), "{refused}");
        });
        stopped_by(cluster, form);
    }
    let (cluster, runtime) = lonely_founder();
    let url = format!("http://{}", cluster.nodes[0].ports.raft);
    runtime.block_on(async {
        let mut peer = ReplicationClient::connect(url).await.unwrap();
        let header = pb::SnapshotHeader { vote: vote(), format: 2, ..Default::default() };
        let chunk = pb::SnapshotChunk { part: Some(pb::snapshot_chunk::Part::Header(header)) };
        let chunks = from_second(&cluster, futures::stream::iter([chunk]));
        let refused = peer.install_snapshot(chunks).await.unwrap_err();
        assert!(refused.message().contains(WAY_OUT), "{refused}");
    });
    stopped_by(cluster, "a snapshot sent by the leader");
}
