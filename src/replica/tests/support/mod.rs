//! A cluster in this process, on ports that the operating system picked.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot set up its cluster has failed")]

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use llm_config_domain::{Address, Change, Command, JsonValue, Operation, Reader, Set, query};
use llm_config_replica::{
    Advertise, Config, Join, MemberChange, Observer, Replica, StartError, Tuning,
};
use llm_config_tls::NodeTls;

const TIMEOUT: Duration = Duration::from_secs(60);

pub fn in_time() -> Instant {
    Instant::now() + TIMEOUT
}

pub fn address(key: &str) -> Address {
    Address::parse("ns", key, "base").unwrap()
}

pub fn set(key: &str, value: u64) -> Command {
    let set = Set {
        address: address(key),
        value: JsonValue::parse(value.to_string().as_bytes()).unwrap().into(),
        description: String::new(),
        tags: Vec::new(),
        comment: String::new(),
        expected_version: None,
        declassify: false,
    };
    Command::new("test", Operation::Set(set))
}

pub fn tuning() -> Tuning {
    Tuning {
        heartbeat_interval: Duration::from_millis(100),
        election_timeout_min: Duration::from_millis(500),
        election_timeout_max: Duration::from_millis(1000),
        snapshot_log_entries: 100,
        log_entries_kept: 20,
        snapshot_chunk_bytes: 1024,
        ..Tuning::default()
    }
}

/// Waits for a condition; the time limit is for a hanging test only.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let limit = in_time();
    while !condition() {
        assert!(Instant::now() < limit, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[derive(Default)]
struct Counting {
    resets: AtomicU64,
}

impl Observer for Counting {
    fn applied(&self, _revision: u64, _changes: &[Change]) {}

    fn rules(&self, _: &dyn Reader) {}

    fn reset(&self, _revision: u64) {
        self.resets.fetch_add(1, Ordering::Relaxed);
    }
}

struct Slot {
    dir: PathBuf,
    address: String,
    listener: Option<TcpListener>,
    observer: Arc<Counting>,
    replica: Option<Replica>,
    /// Set in a node that joins instead of founding.
    join: Option<Join>,
    /// What the node secures its connections with.
    tls: Option<Arc<NodeTls>>,
}

impl Slot {
    /// The address is kept beside the directory, so that another process can bring the same node back.
    fn new(root: &Path, id: u64, join: Option<Join>) -> Self {
        let kept = root.join(format!("{id}.address"));
        let (address, listener) = match std::fs::read_to_string(&kept) {
            Ok(address) => (address, None),
            Err(_) => {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let address = listener.local_addr().unwrap().to_string();
                std::fs::write(&kept, &address).unwrap();
                (address, Some(listener))
            }
        };
        Self {
            dir: root.join(id.to_string()),
            address,
            listener,
            observer: Arc::default(),
            replica: None,
            join,
            tls: None,
        }
    }
}

pub struct Cluster {
    root: PathBuf,
    /// Deletes the folder at the end, unless it is somebody else's.
    owned: Option<tempfile::TempDir>,
    slots: BTreeMap<u64, Slot>,
}

impl Cluster {
    /// Addresses and directories of a cluster; nothing runs yet.
    pub fn prepare(nodes: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut cluster = Self::prepare_in(root.path(), nodes);
        cluster.owned = Some(root);
        cluster
    }

    /// The same in a folder that outlives this process.
    pub fn prepare_in(root: &Path, nodes: u64) -> Self {
        let slots = (1..=nodes).map(|id| (id, Slot::new(root, id, None))).collect();
        Self { root: root.to_owned(), owned: None, slots }
    }

    /// A place for a node that joins later.
    pub fn prepare_joiner(&mut self, id: u64, cluster_id: Option<String>) {
        let slot = Slot::new(&self.root, id, Some(Join { cluster_id }));
        assert!(self.slots.insert(id, slot).is_none(), "node {id} has its place already");
    }

    /// Gives a node what it secures its connections with, from its next start on.
    pub fn secure(&mut self, id: u64, tls: Arc<NodeTls>) {
        self.slots.get_mut(&id).unwrap().tls = Some(tls);
    }

    /// Starts a node that waits to join.
    pub async fn start_joiner(&mut self, id: u64) {
        self.prepare_joiner(id, None);
        self.start_node(id).await.unwrap();
    }

    /// Forgets a node that has gone for good.
    pub async fn forget(&mut self, id: u64) {
        self.stop_node(id).await;
        self.slots.remove(&id);
    }

    /// What adds a node.
    pub fn add(&self, id: u64) -> MemberChange {
        MemberChange::Add { id, addresses: self.advertise(id) }
    }

    pub fn advertise(&self, id: u64) -> Advertise {
        Advertise {
            http: format!("127.0.0.1:{}", 10_000 + id),
            grpc: format!("127.0.0.1:{}", 20_000 + id),
            raft: self.slots[&id].address.clone(),
        }
    }

    /// A cluster in which every node is ready.
    pub async fn start(nodes: u64) -> Self {
        let mut cluster = Self::prepare(nodes);
        for id in 1..=nodes {
            cluster.start_node(id).await.unwrap();
        }
        cluster.all_ready().await;
        cluster
    }

    pub async fn start_node(&mut self, id: u64) -> Result<(), StartError> {
        let dir = self.dir(id).to_owned();
        self.start_node_on(id, &dir).await
    }

    pub async fn start_node_tuned(&mut self, id: u64, tuning: Tuning) -> Result<(), StartError> {
        let dir = self.dir(id).to_owned();
        self.start_with(id, &dir, tuning).await
    }

    pub async fn start_node_on(&mut self, id: u64, dir: &Path) -> Result<(), StartError> {
        self.start_with(id, dir, tuning()).await
    }

    async fn start_with(&mut self, id: u64, dir: &Path, tuning: Tuning) -> Result<(), StartError> {
        let initial_cluster = match self.slots[&id].join {
            None => self.founding_list(),
            Some(_) => BTreeMap::new(),
        };
        let advertise = self.advertise(id);
        let slot = self.slots.get_mut(&id).unwrap();
        let raft_listener = match slot.listener.take() {
            Some(listener) => listener,
            None => rebind(&slot.address).await,
        };
        let config = Config {
            node_id: id,
            data_dir: dir.to_owned(),
            raft_listener,
            advertise,
            initial_cluster,
            join: slot.join.clone(),
            tls: slot.tls.clone(),
            history_limit: 100,
            version: "test".into(),
            tuning,
        };
        let observer = Arc::clone(&slot.observer);
        slot.replica = Some(Replica::start(config, observer).await?);
        Ok(())
    }

    /// What every founder is told.
    pub fn founding_list(&self) -> BTreeMap<u64, String> {
        let founders = self.slots.iter().filter(|(_, slot)| slot.join.is_none());
        founders.map(|(id, slot)| (*id, slot.address.clone())).collect()
    }

    /// A place for files that go with the cluster.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub async fn stop_node(&mut self, id: u64) {
        if let Some(replica) = self.slots.get_mut(&id).unwrap().replica.take() {
            replica.shutdown().await;
            drop(replica);
            // Connections of other nodes let go of the storage a moment later; the lock of the directory goes last.
            let lock = std::fs::File::open(self.dir(id).join("LOCK")).unwrap();
            eventually("the storage is closed", || lock.try_lock().is_ok()).await;
        }
    }

    pub async fn stop(mut self) {
        let ids: Vec<u64> = self.slots.keys().copied().collect();
        for id in ids {
            self.stop_node(id).await;
        }
        if let Some(root) = self.owned {
            root.close().unwrap();
        }
    }

    pub fn wipe(&self, id: u64) {
        std::fs::remove_dir_all(self.dir(id)).unwrap();
    }

    pub fn dir(&self, id: u64) -> &Path {
        &self.slots[&id].dir
    }

    pub fn raft_address(&self, id: u64) -> &str {
        &self.slots[&id].address
    }

    pub fn resets(&self, id: u64) -> u64 {
        self.slots[&id].observer.resets.load(Ordering::Relaxed)
    }

    pub fn node(&self, id: u64) -> &Replica {
        self.slots[&id].replica.as_ref().unwrap()
    }

    pub fn runs(&self, id: u64) -> bool {
        self.slots[&id].replica.is_some()
    }

    pub fn running(&self) -> impl Iterator<Item = &Replica> {
        self.slots.values().filter_map(|slot| slot.replica.as_ref())
    }

    pub async fn all_ready(&self) {
        eventually("every node is ready", || self.running().all(Replica::ready)).await;
    }

    pub async fn all_registered(&self) {
        let members = self.slots.len();
        eventually("every node is registered on every node", || {
            self.running().all(|replica| query::nodes(&replica.view()).unwrap().len() == members)
        })
        .await;
    }

    /// The node that a majority follows.
    pub async fn leader(&self) -> u64 {
        let leads = |replica: &&Replica| {
            let status = replica.status();
            status.leader_id == Some(status.node_id) && status.has_quorum
        };
        eventually("there is a leader", || self.running().any(|replica| leads(&replica))).await;
        self.running().find(leads).unwrap().status().node_id
    }
}

/// The listener of a stopped node is closed a moment after the node.
async fn rebind(address: &str) -> TcpListener {
    let limit = in_time();
    loop {
        match TcpListener::bind(address) {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < limit, "{address} stays taken: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
