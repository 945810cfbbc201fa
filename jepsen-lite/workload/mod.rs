//! What clients do while the cluster is being broken: each workload in a namespace of its own, several clients each.

mod access;
mod closing;
mod counter;
mod member;
mod register;
mod secret;
mod session;
mod staleness;
mod txn;
mod versions;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use jepsen_lite::history::{Operation, Outcome, Scope, Sum};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::task::JoinSet;

use crate::client::{Client, Recorder, Watcher};
use crate::lab::{Target, Targets};
pub use closing::{NAMESPACE as PLAIN, look, scan, serve};

/// Clients wait this long between two calls, at most: the machine's two processors also carry the nodes.
const THINK_MS: u64 = 12;
/// And this long after a call that failed, so that a cluster without a leader is not flooded.
const FAILED_MS: u64 = 60;
/// How long watches may take to catch up at the end.
const WATCH_PATIENCE: Duration = Duration::from_secs(30);
const ENVIRONMENT: &str = "production";

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Workload {
    /// Single entries: read, write, compare-and-set, delete.
    Register,
    /// Additions that are retried hard and must happen once.
    Counter,
    /// Long histories of few entries: writes, deletes, rollbacks.
    Versions,
    /// Transactions that move amounts between entries.
    Txn,
    /// Watches of the other workloads.
    Watch,
    /// Clients that must see their own writes and never go back, on any node.
    Session,
    /// Reads that bound how old their answer may be.
    Staleness,
    /// Secrets that are shown and hidden, under keys that are exchanged.
    Secret,
    /// Tokens and roles that are made, changed and revoked while they are used.
    Access,
    /// What each node says of the members.
    Member,
}

impl Workload {
    /// Where its entries are.
    fn namespace(self) -> &'static str {
        match self {
            Self::Register => "jl-register",
            Self::Counter => "jl-counter",
            Self::Versions => "jl-versions",
            Self::Txn => "jl-txn",
            Self::Watch => "jl-watch",
            Self::Session => "jl-session",
            Self::Staleness => "jl-staleness",
            Self::Secret => "jl-secret",
            Self::Access => "jl-access",
            Self::Member => "jl-member",
        }
    }

    /// All its entries.
    #[must_use]
    pub fn scope(self) -> Scope {
        Scope {
            prefix: format!("{}/", self.namespace()),
            environment: Some(ENVIRONMENT.to_owned()),
        }
    }

    /// An entry of it.
    fn key(self, name: impl std::fmt::Display) -> String {
        format!("{}/{name}@{ENVIRONMENT}", self.namespace())
    }

    /// Whether it has any.
    fn has_entries(self) -> bool {
        !matches!(self, Self::Watch | Self::Member)
    }

    /// What its transactions have to keep.
    #[must_use]
    pub fn sums(self) -> Vec<Sum> {
        if self == Self::Txn { txn::sums() } else { Vec::new() }
    }
}

/// What every client of every workload is given.
#[derive(Debug, Clone)]
struct Setting {
    recorder: Arc<Recorder>,
    targets: Targets,
    stop: Arc<AtomicBool>,
    pace: u64,
}

/// A client of a workload: with chance of its own, derived from the seed.
#[derive(Debug)]
struct Worker {
    client: Client,
    chance: StdRng,
    setting: Setting,
    value: u64,
    name: u64,
}

impl Worker {
    fn new(setting: &Setting, seed: u64) -> Self {
        let client = Client::new(setting.recorder.clone(), setting.targets.clone());
        let name = setting.recorder.process();
        let chance = StdRng::seed_from_u64(seed);
        Self { client, chance, setting: setting.clone(), value: 0, name }
    }

    fn goes_on(&self) -> bool {
        !self.setting.stop.load(Ordering::Relaxed)
    }

    /// Any node: each takes any request.
    fn target(&mut self) -> Target {
        choose(&self.client.targets(), &mut self.chance)
    }

    /// One of a hundred.
    fn dice(&mut self) -> u32 {
        self.chance.random_range(0..100)
    }

    /// A value that nobody else ever writes.
    fn unique(&mut self) -> serde_json::Value {
        self.value += 1;
        format!("{}.{}", self.name, self.value).into()
    }

    /// A request's name that nobody else ever gives.
    fn request(&mut self) -> String {
        self.value += 1;
        format!("r{}.{}", self.name, self.value)
    }

    async fn rest(&mut self, done: Option<&Operation>) {
        let fine = done.is_some_and(|operation| operation.outcome == Outcome::Ok);
        let most = if fine { THINK_MS } else { FAILED_MS } * self.setting.pace / 100;
        let wait = Duration::from_millis(self.chance.random_range(0..=most));
        tokio::time::sleep(wait).await;
    }
}

fn choose(targets: &[Target], chance: &mut StdRng) -> Target {
    let nobody = Target { id: 0, grpc: ([127, 0, 0, 1], 1).into() };
    if targets.is_empty() { nobody } else { targets[chance.random_range(0..targets.len())] }
}

/// All clients at work.
#[derive(Debug)]
pub struct Work {
    clients: JoinSet<()>,
    watchers: JoinSet<()>,
    stop: Arc<AtomicBool>,
    until: tokio::sync::watch::Sender<Option<u64>>,
}

impl Work {
    /// Puts the clients to work, on the runtime of whoever calls. `pace` is in hundredths: 200 rests twice as long.
    #[must_use]
    pub fn begin(
        workloads: &BTreeSet<Workload>,
        recorder: &Arc<Recorder>,
        targets: &Targets,
        seed: u64,
        pace: u64,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let setting = Setting {
            recorder: recorder.clone(),
            targets: targets.clone(),
            stop: stop.clone(),
            pace,
        };
        let (until, _) = tokio::sync::watch::channel(None);
        let mut work = Self { clients: JoinSet::new(), watchers: JoinSet::new(), stop, until };
        let mut seeds = StdRng::seed_from_u64(seed);
        for workload in workloads {
            let clients = &mut work.clients;
            match workload {
                Workload::Register => register::begin(clients, &setting, &mut seeds),
                Workload::Counter => counter::begin(clients, &setting, &mut seeds),
                Workload::Versions => versions::begin(clients, &setting, &mut seeds),
                Workload::Txn => txn::begin(clients, &setting, &mut seeds),
                Workload::Session => session::begin(clients, &setting, &mut seeds),
                Workload::Staleness => staleness::begin(clients, &setting, &mut seeds),
                Workload::Secret => secret::begin(clients, &setting, &mut seeds),
                Workload::Access => access::begin(clients, &setting, &mut seeds),
                Workload::Member => member::begin(clients, &setting, &mut seeds),
                Workload::Watch => work.watch(workloads, &setting, &mut seeds),
            }
        }
        work
    }

    fn watch(&mut self, workloads: &BTreeSet<Workload>, setting: &Setting, seeds: &mut StdRng) {
        for watched in workloads.iter().filter(|workload| workload.has_entries()) {
            let (recorder, targets) = (setting.recorder.clone(), setting.targets.clone());
            let watcher = Watcher::new(recorder, targets, watched.scope());
            let mut chance = StdRng::seed_from_u64(seeds.random());
            let until = self.until.subscribe();
            let choose = move |targets: &[Target]| choose(targets, &mut chance);
            self.watchers.spawn(watcher.follow(choose, until, WATCH_PATIENCE));
        }
        let (recorder, targets) = (setting.recorder.clone(), setting.targets.clone());
        let ahead = Watcher::new(recorder, targets, Workload::Register.scope());
        let mut chance = StdRng::seed_from_u64(seeds.random());
        let choose = move |targets: &[Target]| choose(targets, &mut chance);
        self.watchers.spawn(ahead.look_ahead(choose, self.until.subscribe()));
    }

    /// Lets every client finish what it is at.
    ///
    /// # Errors
    /// When one does not within `patience`, or panicked.
    pub async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        join(&mut self.clients, patience).await
    }

    /// Lets every watch go on until everything up to `revision` has come.
    ///
    /// # Errors
    /// When one panicked, or does not end although its time is over.
    pub async fn drain_watches(&mut self, revision: u64) -> anyhow::Result<()> {
        self.until.send_replace(Some(revision));
        join(&mut self.watchers, WATCH_PATIENCE * 2).await
    }
}

async fn join(tasks: &mut JoinSet<()>, patience: Duration) -> anyhow::Result<()> {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            ended?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(patience, all).await.map_err(|_| {
        anyhow::anyhow!("clients do not end within {patience:?}") //
    })?
}
