//! Kept data directories: how one is made, copied, and changed into what a newer release would have written.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use llm_config_domain::{
    Action, Address, BanOrder, Change, Command, Credential, DataKey, Delete, Environment, Grant,
    JsonValue, Namespace, Operation, Origin, Reader, Role, Rollback, Scope, Sealed, Set, Token,
    Value, query,
};
use llm_config_replica::{Advertise, Config, Observer, Replica, Tuning};
use serde_json::json;

use crate::support::{Node, Ports, own_ip, wait_for};

pub const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");
/// What RocksDB writes for people to read, and the locks: no part of the data.
const LEFT_OUT: [&str; 2] = ["LOG", "LOCK"];

struct Deaf;

impl Observer for Deaf {
    fn applied(&self, _revision: u64, _changes: &[Change]) {}

    fn rules(&self, _: &dyn Reader) {}

    fn reset(&self, _revision: u64) {}
}

pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if LEFT_OUT.iter().any(|out| name.to_string_lossy().starts_with(out)) {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(name));
        } else {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}

fn address(key: &str) -> Address {
    Address::parse("test", key, "base").unwrap()
}

fn set(key: &str, value: &str) -> Operation {
    Operation::Set(Set {
        address: address(key),
        value: JsonValue::parse(value.as_bytes()).unwrap().into(),
        description: format!("what {key} is for"),
        tags: vec!["kept".into()],
        comment: "made by a test".into(),
        expected_version: None,
        declassify: false,
    })
}

/// One of each that is kept of who may do what, and a secret.
fn security() -> Vec<Operation> {
    let token = |id: &str| Token {
        id: id.into(),
        name: "somebody".into(),
        prefix: format!("lcm_{id}"),
        credential: Credential::Hash([7; 32]),
        roles: vec!["admin".into()],
        scope: Scope::default(),
        created_at_ms: 0,
        created_by: String::new(),
        expires_at_ms: 0,
    };
    let by_certificate =
        Token { credential: Credential::Certificate("robot".into()), ..token("robot") };
    let namespaces = vec![Namespace::parse("test").unwrap()];
    let scope = Scope { namespaces, environments: vec![Environment::Production] };
    let grants = vec![Grant { actions: vec![Action::Read, Action::Reveal], scope }];
    let role = Role { name: "revealer".into(), description: "sees secrets".into(), grants };
    let ban = BanOrder {
        address: "192.0.2.66".into(),
        first_ms: 60_000,
        longest_ms: 600_000,
        reason: "failures".into(),
    };
    let key = DataKey {
        owner: "test".into(),
        version: 1,
        master_id: vec![1; 8].into(),
        wrapped: vec![2; 64].into(),
        created_at_ms: 0,
    };
    let sealed = Sealed { key_version: 1, version: 1, bytes: vec![3; 48].into() };
    let Operation::Set(plain) = set("secret", "0") else { unreachable!("a set") };
    vec![
        Operation::Bootstrap(token("first")),
        Operation::CreateToken(by_certificate),
        Operation::PutRole(role),
        Operation::Ban(ban),
        Operation::AddDataKey(key),
        Operation::Set(Set { value: Value::Sealed(sealed), ..plain }),
    ]
}

/// Writes a directory with a snapshot, a log that begins behind it and goes on after it, history and a deletion; and
/// beside it what the release that wrote it answers, `[status, body]` by path.
pub fn make_fixture(fixture: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("node-1");
    tokio::runtime::Runtime::new().unwrap().block_on(write_directory(&data_dir));
    if fixture.exists() {
        fs::remove_dir_all(fixture).unwrap();
    }
    copy_folder(&data_dir, &fixture.join("data"));

    let ports = Ports::free(own_ip());
    let founders = format!("1={}", ports.raft);
    let mut node = Node::new(1, ports, folder.path(), founders);
    node.start();
    node.wait_ready();
    let mut answers = BTreeMap::new();
    for path in [
        "/api/v1/configs/test?limit=100",
        "/api/v1/configs/test/deep",
        "/api/v1/configs/test/deep?version=2",
        "/api/v1/configs/test/deep/history",
        "/api/v1/configs/test/gone/history",
        "/api/v1/namespaces",
        "/api/v1/resolve/test?env=production",
    ] {
        let reply = node.get(path).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        answers.insert(path, json!([reply.status, reply.json()]));
    }
    let cluster_id = node.cluster().unwrap()["cluster_id"].clone();
    let expected = json!({ "cluster_id": cluster_id, "answers": answers });
    let text = serde_json::to_string_pretty(&expected).unwrap() + "\n";
    fs::write(fixture.join("expected.json"), text).unwrap();
}

async fn write_directory(data_dir: &Path) {
    let raft_listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let raft = raft_listener.local_addr().unwrap().to_string();
    let config = Config {
        node_id: 1,
        data_dir: data_dir.to_owned(),
        raft_listener,
        advertise: Advertise {
            http: "127.0.0.1:8080".into(),
            grpc: "127.0.0.1:50051".into(),
            raft: raft.clone(),
        },
        initial_cluster: BTreeMap::from([(1, raft)]),
        join: None,
        tls: None,
        history_limit: 100,
        version: env!("CARGO_PKG_VERSION").into(),
        tuning: Tuning { snapshot_log_entries: 30, log_entries_kept: 5, ..Tuning::default() },
    };
    let replica = Replica::start(config, Arc::new(Deaf)).await.unwrap();
    let propose = async |operation| {
        let deadline = Instant::now() + Duration::from_secs(30);
        let origin = Origin { source: "192.0.2.1".into(), node: 1, ..Origin::default() };
        let command = Command::new("test", operation).from_origin(origin);
        let applied = replica.propose(command, deadline).await.unwrap();
        applied.result.unwrap();
    };
    for operation in security() {
        propose(operation).await;
    }
    for version in 1..=4 {
        propose(set("deep", &format!("{{\"n\":{version},\"list\":[1,2.50,\"ü\"]}}"))).await;
    }
    propose(set("gone", "\"soon\"")).await;
    let gone =
        Delete { address: address("gone"), expected_version: Some(1), comment: "enough".into() };
    propose(Operation::Delete(gone)).await;
    for number in 0..40 {
        propose(set(&format!("key-{}", number % 10), &number.to_string())).await;
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while replica.stats().snapshots_built == 0 || replica.status().purged_index == 0 {
        assert!(Instant::now() < deadline, "no snapshot was made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let back = Rollback {
        address: address("deep"),
        version: 2,
        expected_version: None,
        comment: String::new(),
        resealed: None,
    };
    propose(Operation::Rollback(back)).await;
    for number in 0..3 {
        propose(set("tail", &number.to_string())).await;
    }
    assert!(query::meta(&replica.view()).unwrap().cluster_id.is_some());
    replica.shutdown().await;
    drop(replica);
    let lock = fs::File::open(data_dir.join("LOCK")).unwrap();
    wait_for("the storage is closed", || lock.try_lock().ok());
}

/// One of a node's databases, opened beside the program that owns it.
pub struct Database(rocksdb::DB);

impl Database {
    pub fn open(path: &Path) -> Self {
        Self(rocksdb::DB::open(&rocksdb::Options::default(), path).unwrap())
    }

    pub fn change(&self, key: &[u8], change: impl Fn(&[u8]) -> Vec<u8>) {
        let value = self.0.get(key).unwrap().unwrap_or_else(|| panic!("{key:02x?} is not there"));
        self.0.put(key, change(&value)).unwrap();
        self.0.flush().unwrap();
    }

    pub fn last_key(&self) -> Vec<u8> {
        self.0.iterator(rocksdb::IteratorMode::End).next().unwrap().unwrap().0.into()
    }

    pub fn first_key_from(&self, from: &[u8]) -> Vec<u8> {
        let mode = rocksdb::IteratorMode::From(from, rocksdb::Direction::Forward);
        self.0.iterator(mode).next().unwrap().unwrap().0.into()
    }
}

pub mod records {
    //! Sealed records: format, message, CRC-32 of both.

    pub fn body(record: &[u8]) -> &[u8] {
        &record[1..record.len() - 4]
    }

    pub fn sealed(format: u8, body: &[u8]) -> Vec<u8> {
        let mut record = vec![format];
        record.extend(body);
        record.extend(crc32fast::hash(&record).to_le_bytes());
        record
    }

    /// The same record in the next format.
    pub fn raised(record: &[u8]) -> Vec<u8> {
        sealed(record[0] + 1, body(record))
    }

    pub fn with_first_byte(bytes: &[u8], first: u8) -> Vec<u8> {
        [&[first], &bytes[1..]].concat()
    }
}
