//! What runs on a simulated machine: a replica, and a door for those who ask it.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use llm_config_domain::{Address, Applied, Change, Command, Outcome, Reader, Rejection, query};
use llm_config_replica::simulation::{Connection, Listener, World};
use llm_config_replica::{
    Advertise, Config, Join, MemberChange, Observer, ProposeError, Replica, Tuning, View,
};
use tokio::sync::mpsc;

use crate::plan::{Mistake, Plan};

const PORT: u16 = 50_061;
/// The beginning of time: 2026.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// Connections that wait to be served.
const ARRIVING_MAX: usize = 256;
/// Questions that wait.
const ASKS_MAX: usize = 256;

pub fn name(id: u64) -> String {
    format!("n{id}")
}

pub fn address(id: u64) -> String {
    format!("n{id}:{PORT}")
}

pub fn data_dir(id: u64) -> PathBuf {
    PathBuf::from(format!("/n{id}"))
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which node a runtime belongs to, and how wrong the nodes' clocks are.
#[derive(Default)]
struct Places {
    nodes: HashMap<tokio::runtime::Id, u64>,
    skew_ms: BTreeMap<u64, i64>,
}

static PLACES: LazyLock<Mutex<Places>> = LazyLock::new(Mutex::default);

pub fn set_skew(id: u64, skew_ms: i64) {
    lock(&PLACES).skew_ms.insert(id, skew_ms);
}

fn here() -> u64 {
    let runtime = tokio::runtime::Handle::current().id();
    lock(&PLACES).nodes.get(&runtime).copied().unwrap_or(0)
}

/// The network of turmoil, its clock, and the simulated disks.
pub struct Surroundings;

impl World for Surroundings {
    fn connect(
        &self,
        address: String,
    ) -> Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>> {
        Box::pin(
            async move { turmoil::net::TcpStream::connect(address).await.map(Connection::new) },
        )
    }

    fn wall_clock_ms(&self) -> u64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        let node = here();
        let skew = lock(&PLACES).skew_ms.get(&node).copied().unwrap_or(0);
        (EPOCH_MS + u64::try_from(elapsed).unwrap_or(0)).saturating_add_signed(skew)
    }

    fn disk_latency(&self) -> Duration {
        llm_config_simdisk::latency(&data_dir(here()))
    }
}

/// A question to a node.
#[derive(Debug, Clone)]
pub enum Ask {
    Write(Box<Command>),
    /// Reads what is at least as new as all that was acknowledged before.
    Linearizable(Address),
    /// Reads what is at least as new as a revision.
    Session(Address, u64),
    /// Reads what is there, and how old it may be.
    Stale(Address),
    Members(MemberChange),
    /// Makes a snapshot, and keeps so many entries behind it.
    Snapshot(u64),
    /// Stands for election.
    Election,
    /// Gives leadership to a node.
    Transfer(u64),
}

/// What is found at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub version: u64,
    pub revision: u64,
    /// Who wrote it.
    pub operation: u64,
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Written {
        revision: u64,
        version: u64,
        replayed: bool,
    },
    /// The state machine refused.
    Refused(String),
    /// It certainly did not happen.
    NotDone(String),
    /// It may have happened.
    Unknown,
    Read {
        revision: u64,
        found: Option<Found>,
        age: Option<Duration>,
    },
    NotRead(String),
    Done,
    MembersRefused(String),
    /// What must never be.
    Wrong(String),
}

/// A question under way.
pub struct Asked {
    pub number: u64,
    pub ask: Ask,
    pub timeout: Duration,
}

/// What whoever runs the simulation knows of a machine from the outside.
#[derive(Default)]
pub struct Slot {
    pub replica: Option<Replica>,
    /// Why the program ended, when it did so by itself.
    pub ended: Option<String>,
    asks: Option<mpsc::Sender<Asked>>,
    pub answers: Vec<(u64, Answer)>,
}

impl Slot {
    /// False when nobody is there to be asked.
    pub fn ask(&self, asked: Asked) -> bool {
        self.replica.is_some()
            && self.asks.as_ref().is_some_and(|asks| asks.try_send(asked).is_ok())
    }

    /// The machine is off.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

pub type Shared<T> = Arc<Mutex<T>>;

/// What each revision changed, as all nodes saw it.
#[derive(Default)]
pub struct Seen {
    changes: BTreeMap<u64, (u64, u32)>,
    pub contradictions: Vec<String>,
}

struct Watching {
    id: u64,
    seen: Shared<Seen>,
}

impl Observer for Watching {
    fn applied(&self, revision: u64, changes: &[Change]) {
        let digest = crc32fast::hash(format!("{changes:?}").as_bytes());
        let mut seen = lock(&self.seen);
        let (first, known) = *seen.changes.entry(revision).or_insert((self.id, digest));
        if known != digest {
            let contradiction =
                format!("revision {revision} is not the same on n{first} and n{}", self.id);
            seen.contradictions.push(contradiction);
        }
    }

    fn rules(&self, _state: &dyn Reader) {}

    fn reset(&self, _revision: u64) {}
}

/// What a machine needs to know to start its program.
#[derive(Clone)]
pub struct Software {
    pub id: u64,
    pub founders: u64,
    pub tuning: Tuning,
    pub mistake: Option<Mistake>,
    pub slot: Shared<Slot>,
    pub seen: Shared<Seen>,
}

impl Software {
    pub fn new(plan: &Plan, id: u64, seen: &Shared<Seen>) -> Self {
        Self {
            id,
            founders: plan.founders,
            tuning: plan.tuning.clone(),
            mistake: plan.mistake,
            slot: Arc::default(),
            seen: Arc::clone(seen),
        }
    }

    fn config(&self, listener: Listener) -> Config {
        let joins = self.id > self.founders;
        let advertise = Advertise {
            http: format!("{}:8080", name(self.id)),
            grpc: format!("{}:50051", name(self.id)),
            raft: address(self.id),
        };
        let founders = (1..=self.founders).map(|id| (id, address(id)));
        Config {
            node_id: self.id,
            data_dir: data_dir(self.id),
            raft_listener: listener,
            advertise,
            initial_cluster: if joins { BTreeMap::new() } else { founders.collect() },
            join: joins.then(Join::default),
            tls: None,
            history_limit: 10_000,
            version: "simulated".into(),
            tuning: self.tuning.clone(),
        }
    }

    /// Runs until the machine is switched off, also when the program has ended.
    pub async fn run(self) -> turmoil::Result {
        let runtime = tokio::runtime::Handle::current().id();
        lock(&PLACES).nodes.insert(runtime, self.id);
        let ended = match self.serve().await {
            Ok(reason) => reason,
            Err(error) => format!("did not start: {error}"),
        };
        {
            let mut slot = lock(&self.slot);
            slot.replica = None;
            slot.ended = Some(ended);
        }
        std::future::pending().await
    }

    async fn serve(&self) -> Result<String, Box<dyn std::error::Error>> {
        let socket = turmoil::net::TcpListener::bind(("0.0.0.0", PORT)).await?;
        let (arrived, arriving) = mpsc::channel(ARRIVING_MAX);
        tokio::spawn(async move {
            loop {
                match socket.accept().await {
                    // One that finds no room is closed.
                    Ok((stream, _)) => drop(arrived.try_send(Connection::new(stream))),
                    // Whoever came is gone again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        let listener = Listener::new(address(self.id), arriving);
        let observer = Watching { id: self.id, seen: Arc::clone(&self.seen) };
        let replica = Replica::start(self.config(listener), Arc::new(observer)).await?;
        let (asks, mut asked) = mpsc::channel::<Asked>(ASKS_MAX);
        {
            let mut slot = lock(&self.slot);
            slot.replica = Some(replica.clone());
            slot.asks = Some(asks);
        }
        let (door, slot, mistake) = (replica.clone(), Arc::clone(&self.slot), self.mistake);
        tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                let (replica, slot) = (door.clone(), Arc::clone(&slot));
                tokio::spawn(async move {
                    let answer = answer(&replica, asked.ask, asked.timeout, mistake).await;
                    lock(&slot).answers.push((asked.number, answer));
                });
            }
        });
        Ok(replica.failure().await.to_string())
    }
}

async fn answer(
    replica: &Replica,
    ask: Ask,
    timeout: Duration,
    mistake: Option<Mistake>,
) -> Answer {
    let deadline = Instant::now() + timeout;
    match ask {
        Ask::Write(command) if mistake == Some(Mistake::AnswersEarly) => {
            let revision = replica.applied_revision() + 1;
            let replica = replica.clone();
            tokio::spawn(async move { drop(replica.propose(*command, deadline).await) });
            Answer::Written { revision, version: 0, replayed: false }
        }
        Ask::Write(command) => written(replica.propose(*command, deadline).await),
        Ask::Linearizable(address) => {
            let confirmed = match mistake {
                Some(Mistake::ReadsUnconfirmed) => Ok(()),
                _ => replica.linearizable(deadline).await,
            };
            match confirmed {
                Ok(()) => read(&replica.view(), &address, None),
                Err(error) => Answer::NotRead(error.to_string()),
            }
        }
        Ask::Session(address, revision) => match replica.wait_revision(revision, deadline).await {
            Ok(()) => read(&replica.view(), &address, None),
            Err(error) => Answer::NotRead(error.to_string()),
        },
        Ask::Stale(address) => {
            let age = replica.staleness();
            read(&replica.view(), &address, age)
        }
        Ask::Members(change) => {
            match replica.change_members(change, false, "operator", deadline).await {
                Ok(()) => Answer::Done,
                Err(error) => Answer::MembersRefused(error.to_string()),
            }
        }
        Ask::Snapshot(keep) => {
            replica.snapshot_and_purge(keep).await;
            Answer::Done
        }
        Ask::Election => {
            replica.stand_for_election().await;
            Answer::Done
        }
        Ask::Transfer(target) => {
            replica.give_leadership_to(target).await;
            Answer::Done
        }
    }
}

fn written(outcome: Result<Applied, ProposeError>) -> Answer {
    match outcome {
        Ok(Applied { revision, result: Ok(outcome), replayed }) => match outcome {
            Outcome::Set { entry, .. } | Outcome::Deleted { entry } => {
                Answer::Written { revision, version: entry.version, replayed }
            }
            other => Answer::Wrong(format!("a write was answered with {other:?}")),
        },
        Ok(Applied {
            result:
                Err(
                    refused @ (Rejection::NotFound
                    | Rejection::VersionConflict { .. }
                    | Rejection::NotFounded),
                ),
            ..
        }) => Answer::Refused(refused.to_string()),
        Ok(Applied { result: Err(refused), .. }) => {
            Answer::Wrong(format!("a write was refused: {refused}"))
        }
        Err(ProposeError::OutcomeUnknown) => Answer::Unknown,
        Err(error) => Answer::NotDone(error.to_string()),
    }
}

fn read(view: &View, address: &Address, age: Option<Duration>) -> Answer {
    let answer = || -> Result<Answer, Box<dyn std::error::Error>> {
        let revision = view.revision()?;
        let found = match query::get(view, address)? {
            Some(entry) => Some(Found {
                version: entry.version,
                revision: entry.revision,
                operation: entry.comment.parse()?,
            }),
            None => None,
        };
        Ok(Answer::Read { revision, found, age })
    };
    answer().unwrap_or_else(|error| Answer::Wrong(format!("a read failed: {error}")))
}

/// What is durable of a database, for [`llm_config_replica::simulation::DurableLog`].
pub fn durable(database: &Path, key: &[u8]) -> Option<bytes::Bytes> {
    rocksdb::simulated::durable(database, key).map(|value| bytes::Bytes::copy_from_slice(&value))
}
