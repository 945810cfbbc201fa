//! The face of this crate: start a node, write to it, read from it, ask how it is, stop it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use llm_config_archive::Summary;
use llm_config_bugs::{Bug, active};
use llm_config_domain::{Applied, Command, Node as Registration};
use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::{Raft, ServerState};
use rocksdb::statistics::Ticker;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::backup::BackupError;
use crate::config::{Advertise, Config, Join};
use crate::error::{ProposeError, ReadError, StartError};
use crate::handover::{self, HAND_OVER_TIMEOUT};
use crate::lifecycle::{check, close, open_storage, raft_config, serve};
use crate::local::{Local, Secure};
use crate::membership::{self, MemberChange, MemberError};
use crate::network::client::Network;
use crate::node::Node;
use crate::observer::Observer;
use crate::status::{Member, Readings, Role, Stats, Status};
use crate::steward::Steward;
use crate::storage::directory::{Directory, Identity};
use crate::storage::state::Shared;
use crate::storage::view::View;
use crate::{backup, founding, propose, read, reclaim};

/// How long a stopping node waits for its connections.
const SERVER_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Entries that a ready node may be behind what it knows to be committed.
const READY_LAG_MAX: u64 = 1_000;

/// A handle to a running node; clones share it.
#[derive(Clone)]
pub struct Replica {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    advertise: Advertise,
    recovered: watch::Receiver<bool>,
    stop: watch::Sender<bool>,
    tasks: parking_lot::Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("node_id", &self.inner.node.local.node_id())
            .finish_non_exhaustive()
    }
}

impl Replica {
    /// Opens the data directory, joins the cluster (founding it when it is new) and serves the other nodes.
    ///
    /// Returns as soon as the node runs; it need not know a leader yet.
    ///
    /// # Errors
    /// See [`StartError`]; nothing is changed by a refused start.
    pub async fn start(config: Config, observer: Arc<dyn Observer>) -> Result<Self, StartError> {
        check(&config)?;
        if Directory::is_new(&config.data_dir)
            && config.initial_cluster.is_empty()
            && config.join.is_none()
        {
            return Err(StartError::Usage(format!(
                "{} is empty: a new node needs --initial-cluster, the list of all founding nodes, or --join",
                config.data_dir.display()
            )));
        }
        let (directory, mut identity) = Directory::open(&config.data_dir, config.node_id)?;
        let founding = founding::digest(&config.initial_cluster);
        if identity.cluster_id.is_none() && !founding.is_empty() && founding != identity.founding {
            identity.founding = founding;
            directory.write_identity(&identity).map_err(|error| {
                StartError::DataDir(format!("{}: {error}", config.data_dir.display()))
            })?;
        }
        let directory = Arc::new(directory);
        let (state, log) = open_storage(&directory, &config.tuning, observer, &identity).await?;
        let shared = state.shared();
        check_belonging(&config, &identity, &shared)?;
        let registration = Registration {
            id: config.node_id,
            incarnation: identity.incarnation.clone(),
            http: config.advertise.http.clone(),
            grpc: config.advertise.grpc.clone(),
            raft: config.advertise.raft.clone(),
            version: config.version.clone(),
        };
        let local = Arc::new(Local::new(
            identity,
            config.version.clone(),
            config.join.clone(),
            config.tls.clone().map(|tls| Arc::new(Secure::new(tls))),
            config.tuning.clone(),
            shared,
        ));
        let raft = Raft::build(
            config.node_id,
            Arc::new(raft_config(&config.tuning)?),
            Network::new(Arc::clone(&local)),
            log.clone(),
            state,
        )
        .await
        .map_err(|error| {
            StartError::DataDir(directory.damage().unwrap_or_else(|| {
                format!(
                    "{}: {error}. This node cannot start on it: restore the directory, or replace the node",
                    config.data_dir.display()
                )
            }))
        })?;
        local.runs(raft.metrics());
        let node = Arc::new(Node::new(local, raft, log, directory));
        reclaim::measure(&node).await;

        let (stop, stopped) = watch::channel(false);
        let server = serve(Arc::clone(&node), config.raft_listener, stopped.clone())?;
        node.raft.run();
        if let Err(error) = founding::found(&node, &config.initial_cluster).await {
            stop.send_replace(true);
            close(&node).await;
            return Err(error);
        }
        let (recovered, is_recovered) = watch::channel(false);
        let steward = Steward {
            node: Arc::clone(&node),
            registration,
            history_limit: config.history_limit,
            recovered,
        };
        let steward = tokio::spawn(steward.run(stopped));
        Ok(Self {
            inner: Arc::new(Inner {
                node,
                advertise: config.advertise,
                recovered: is_recovered,
                stop,
                tasks: parking_lot::Mutex::new(vec![server, steward]),
            }),
        })
    }

    #[cfg(feature = "simulation")]
    pub(crate) fn node(&self) -> &Node {
        &self.inner.node
    }

    /// Whether a data directory belongs to no cluster yet, so that [`Config::join`] means something. Opens nothing.
    #[must_use]
    pub fn is_unclaimed(data_dir: &Path) -> bool {
        Directory::is_unclaimed(data_dir)
    }

    /// A consistent view of what this node has applied.
    #[must_use]
    pub fn view(&self) -> View {
        self.inner.node.local.state.view()
    }

    /// The store revision that this node has applied.
    #[must_use]
    pub fn applied_revision(&self) -> u64 {
        self.inner.node.local.state.progress().revision
    }

    /// Writes, from any node: passes the command to the leader and waits until it is applied there.
    ///
    /// A refusal by the state machine is an answer, in [`Applied::result`].
    ///
    /// # Errors
    /// [`ProposeError::OutcomeUnknown`] when the write may have happened; every other error promises that it did not.
    pub async fn propose(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let begun = Instant::now();
        let outcome = self.propose_when_founded(&command, deadline).await;
        // Here and not further down: what the node proposes for itself is nobody's write.
        self.inner.node.counters.ended(&outcome, begun.elapsed());
        outcome
    }

    async fn propose_when_founded(
        &self,
        command: &Command,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        if self.inner.node.local.cluster_id().is_none() {
            self.wait_founded(deadline).await?;
        }
        propose::propose(&self.inner.node, command, deadline).await
    }

    async fn wait_founded(&self, deadline: Instant) -> Result<(), ProposeError> {
        let mut progress = self.inner.node.local.state.watch_progress();
        let founded = progress.wait_for(|_| self.inner.node.local.cluster_id().is_some());
        match tokio::time::timeout_at(deadline.into(), founded).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ProposeError::NotReady),
        }
    }

    /// Changes the members, from any node. Every change may be repeated: one that is done already, or half done, is
    /// completed. `force` carries out what would be refused as [`MemberError::QuorumAtRisk`].
    ///
    /// # Errors
    /// [`MemberError::OutcomeUnknown`] when the change may have happened, in part or in whole.
    pub async fn change_members(
        &self,
        change: MemberChange,
        force: bool,
        actor: &str,
        deadline: Instant,
    ) -> Result<(), MemberError> {
        membership::change(&self.inner.node, change, force, actor, deadline).await
    }

    /// Whether this node was started to join a cluster and none has taken it in yet.
    #[must_use]
    pub fn awaits_cluster(&self) -> bool {
        self.inner.node.local.awaits_cluster()
    }

    /// Waits until [`Self::view`] is at least as new as every write acknowledged before the call, by ReadIndex.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn linearizable(&self, deadline: Instant) -> Result<(), ReadError> {
        read::linearizable(&self.inner.node, deadline).await
    }

    /// Waits until this node has applied a store revision.
    ///
    /// # Errors
    /// [`ReadError::Behind`] when the deadline passes first.
    pub async fn wait_revision(&self, revision: u64, deadline: Instant) -> Result<(), ReadError> {
        read::wait_revision(&self.inner.node, revision, deadline).await
    }

    /// How long ago this node heard from a leader; on the leader, how long ago a quorum confirmed it. `None` is never.
    #[must_use]
    pub fn leader_contact_age(&self) -> Option<Duration> {
        self.quorum_age().unwrap_or_else(|| self.inner.node.local.contacts.leader_age())
    }

    /// How old this node's state may be: it holds every write that was acknowledged longer ago than this. `None`: nothing
    /// is known. As exact as the clocks' rates; a leader that was cut off together with this node is believed until its
    /// own lease ends.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        let local = &self.inner.node.local;
        match self.quorum_age() {
            // What this leader acknowledged is applied here, and so is what came before the first entry of its own.
            Some(age) if self.leads_what_is_applied() => age,
            Some(_) | None => local.contacts.staleness(local.state.progress().index),
        }
    }

    /// Whether the newest entry that this node has applied is one that it proposed as the leader that it is.
    fn leads_what_is_applied(&self) -> bool {
        let metrics = self.inner.node.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_applied.is_some_and(|applied| applied.leader_id == metrics.vote.leader_id)
    }

    /// On the leader: how long ago a quorum answered it. Outer `None` on other nodes.
    fn quorum_age(&self) -> Option<Option<Duration>> {
        let node = &self.inner.node;
        node.leads().then(|| node.local.unconfirmed())
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.inner.node.local.node_id()
    }

    /// Everything that this node stores is in here.
    #[must_use]
    pub fn data_dir(&self) -> &std::path::Path {
        self.inner.node.directory.root()
    }

    /// The leader, when this node knows one. Cheaper than [`Self::status`].
    #[must_use]
    pub fn leader_id(&self) -> Option<u64> {
        let known = self.inner.node.raft.metrics().borrow_watched().current_leader;
        known.filter(|_| self.hears_a_quorum())
    }

    /// Openraft goes on naming a leader that has died, and one that was cut off goes on naming itself.
    fn hears_a_quorum(&self) -> bool {
        let lease = self.inner.node.local.tuning.election_timeout_max;
        self.leader_contact_age().is_some_and(|age| age <= lease)
    }

    /// The leader's addresses, when this node knows them. Cheaper than [`Self::status`].
    #[must_use]
    pub fn leader_addresses(&self) -> Option<Advertise> {
        let node = &self.inner.node;
        let leader = self.leader_id()?;
        if leader == node.local.node_id() {
            return Some(self.inner.advertise.clone());
        }
        let known = node.local.state.registered(leader)?;
        Some(Advertise { http: known.http, grpc: known.grpc, raft: known.raft })
    }

    /// Whether everything that was committed before the start of this process is applied again. Until then an absent
    /// entry proves nothing.
    #[must_use]
    pub fn recovered(&self) -> bool {
        active(Bug::ReadBeforeReplay)
            || *self.inner.recovered.borrow() && self.inner.node.local.state.cluster_id().is_some()
    }

    /// Whether the node has recovered, is in contact with a working majority and has caught up.
    #[must_use]
    pub fn ready(&self) -> bool {
        let status = self.status();
        self.recovered()
            && status.has_quorum
            && status.leader_id.is_some()
            && status.applied_index + READY_LAG_MAX >= status.committed_index
    }

    /// This node's view of the cluster.
    #[must_use]
    pub fn status(&self) -> Status {
        let node = &self.inner.node;
        let has_quorum = self.hears_a_quorum();
        let metrics = node.raft.metrics();
        let metrics = metrics.borrow_watched().clone();
        let leader_id = metrics.current_leader.filter(|_| has_quorum);
        let role = role_of(metrics.state);
        let registry = node.local.state.registry();
        let own = node.local.node_id();
        let addresses = |id: u64, raft: String| match registry.nodes.get(&id) {
            Some(known) => Advertise { http: known.http.clone(), grpc: known.grpc.clone(), raft },
            None if id == own => Advertise { raft, ..self.inner.advertise.clone() },
            None => Advertise { raft, ..Advertise::default() },
        };
        let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
        let matched = |id: u64| match &metrics.replication {
            Some(_) if id == own => metrics.last_log_index,
            Some(replication) => {
                replication.get(&id).and_then(|log_id| log_id.as_ref().map(|id| id.index))
            }
            None => None,
        };
        let members: Vec<Member> = metrics
            .membership_config
            .nodes()
            .map(|(id, known)| Member {
                id: *id,
                role: match leader_id {
                    _ if *id == own => role,
                    Some(leader) if leader == *id => Role::Leader,
                    _ if voters.contains(id) => Role::Follower,
                    _ => Role::Learner,
                },
                addresses: addresses(*id, known.addr.clone()),
                reachable: *id == own || node.reachable(*id),
                matched_index: matched(*id),
                version: registry.nodes.get(id).map_or_else(
                    || if *id == own { node.local.release.clone() } else { String::new() },
                    |known| known.version.clone(),
                ),
            })
            .collect();
        let leader = leader_id
            .and_then(|id| members.iter().find(|member| member.id == id))
            .map(|member| member.addresses.clone());
        let progress = node.local.state.progress();
        Status {
            cluster_id: node.local.cluster_id(),
            node_id: own,
            role,
            leader_id,
            leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            purged_index: metrics.purged.map_or(0, |id| id.index),
            committed_index: metrics
                .cluster_committed
                .max(metrics.local_committed)
                .map_or(0, |id| id.index),
            applied_index: progress.index,
            revision: progress.revision,
            has_quorum: leader_id.is_some(),
            members,
        }
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let node = &self.inner.node;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let log = node.log.stats();
        let state = &node.local.state.stats;
        let counters = &node.counters;
        let current = node.local.state.current();
        let inserted = current.options().get_ticker_count(Ticker::BlockCacheBytesWrite);
        let added = current.options().get_ticker_count(Ticker::BlockCacheAdd);
        let held = node.local.state.cache().get_usage() as u64;
        Stats {
            log_fsyncs: log.fsyncs.count(),
            log_entries_appended: load(&log.entries),
            log_bytes_appended: load(&log.bytes),
            entries_applied: load(&state.entries),
            proposals: load(&counters.proposals),
            proposals_forwarded: load(&counters.forwarded),
            proposals_failed: counters.failures(),
            proposals_in_flight: (node.local.tuning.proposals_in_flight_max
                - node.slots.available_permits()) as u64,
            read_index_rounds: load(&counters.read_rounds),
            read_index_reads: load(&counters.read_served),
            read_index_failures: load(&counters.read_failed),
            leader_changes: load(&counters.leader_changes),
            elections: load(&counters.elections),
            tls_handshake_failures: node
                .local
                .secure
                .as_ref()
                .map_or(0, |secure| secure.arriving.count()),
            snapshots_built: state.built.durations.count(),
            snapshots_installed: state.installed.durations.count(),
            space: node.space.stats(),
            block_cache_hits: current.options().get_ticker_count(Ticker::BlockCacheHit),
            block_cache_misses: current.options().get_ticker_count(Ticker::BlockCacheMiss),
            block_cache_evictions: evicted_blocks(added, inserted, held),
            block_cache_bytes: held,
            block_cache_capacity_bytes: node.local.tuning.block_cache_bytes as u64,
        }
    }

    /// Times, ages and sizes for a monitoring system. It waits for nobody, and nobody waits for it.
    #[must_use]
    pub fn readings(&self) -> Readings {
        let node = &self.inner.node;
        let own = node.local.node_id();
        let (voters, members, snapshot) = {
            let metrics = node.raft.metrics();
            let metrics = metrics.borrow_watched();
            let members: Vec<u64> = metrics.membership_config.nodes().map(|(id, _)| *id).collect();
            (metrics.membership_config.voter_ids().count(), members, metrics.snapshot)
        };
        let others = members.iter().filter(|id| **id != own);
        let contact_ages = others.filter_map(|id| Some((*id, node.local.contacts.age(*id)?)));
        let state = &node.local.state.stats;
        let [log, applied] = *node.engines.lock();
        Readings {
            voters,
            learners: members.len().saturating_sub(voters),
            snapshot_index: snapshot.map_or(0, |id| id.index),
            log_bytes: node.space.measured().log_bytes,
            quorum_ack_age: self.quorum_age().flatten(),
            contact_ages: contact_ages.collect(),
            log_fsync: node.log.stats().fsyncs.sample(),
            apply: state.applies.sample(),
            proposal: node.counters.answered.sample(),
            read_index: node.counters.confirmed.sample(),
            snapshots: [
                state.built.sample("build"),
                node.local.snapshots_sent.sample("send"),
                state.installed.sample("install"),
            ],
            peers: node.local.peers.sample(),
            engines: [("log", log), ("state", applied)],
        }
    }

    /// Resolves when this node can no longer be trusted; the process must then end with the error's exit code.
    pub async fn failure(&self) -> StartError {
        let mut failure = self.inner.node.local.watch_failure();
        match failure.wait_for(Option::is_some).await.map(|failure| failure.clone()) {
            Ok(Some(failure)) => failure.into_error(),
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Writes a backup of what this node has applied: one consistent view at one revision. Blocks; call it on a blocking
    /// thread. The view lasts as long as `out` takes, and what it shows cannot be given back meanwhile.
    ///
    /// To hold every write that was acknowledged before, call [`Self::linearizable`] first.
    ///
    /// # Errors
    /// See [`BackupError`]; what was written until then is no backup, and every reader refuses it.
    pub fn backup(&self, out: &mut dyn std::io::Write) -> Result<Summary, BackupError> {
        if !self.recovered() {
            return Err(BackupError::NotReady);
        }
        backup::backup(&self.inner.node, out)
    }

    /// Bytes that a backup made now would take, roughly.
    #[must_use]
    pub fn backup_bytes_estimate(&self) -> u64 {
        backup::estimate_bytes(&self.inner.node)
    }

    /// Asks RocksDB to give back the space of what was overwritten and deleted. Blocks; call it on a blocking thread.
    pub fn compact(&self) {
        self.inner.node.local.state.current().db().compact_range(None::<&[u8]>, None::<&[u8]>);
    }

    /// Hands over leadership when this node leads and another voter is up. The node goes on taking writes, which it then
    /// passes on; so this comes before [`Self::shutdown`], while requests are still in flight.
    pub async fn hand_over(&self) {
        handover::hand_over(&self.inner.node, Instant::now() + HAND_OVER_TIMEOUT).await;
    }

    /// Hands over leadership when another voter is up, stops serving the other nodes, and closes the storage.
    pub async fn shutdown(&self) {
        let node = &self.inner.node;
        self.hand_over().await;
        handover::finish_writes(node).await;
        self.inner.stop.send_replace(true);
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        close(node).await;
        for mut task in tasks {
            if tokio::time::timeout(SERVER_STOP_TIMEOUT, &mut task).await.is_err() {
                tracing::warn!("connections of other nodes did not end in time");
                task.abort();
            }
        }
    }
}

/// Refuses a directory whose node was removed, and one that does not fit the way it was started.
fn check_belonging(config: &Config, identity: &Identity, state: &Shared) -> Result<(), StartError> {
    let path = config.data_dir.display();
    let cluster_id = state.cluster_id().or_else(|| identity.cluster_id.clone());
    match (cluster_id, &config.join) {
        (Some(cluster_id), _) if state.is_removed(config.node_id) => {
            let reason = founding::removed(config.node_id, &cluster_id);
            Err(StartError::DataDir(format!("{path}: {reason}")))
        }
        (Some(ours), Some(Join { cluster_id: Some(wanted) })) if ours != *wanted => {
            Err(StartError::DataDir(format!(
                "{path}: this directory belongs to cluster {ours}, and --join names cluster {wanted}; give this node \
                 an empty directory and a new node id, or --join its own cluster"
            )))
        }
        (None, Some(_)) if !identity.founding.is_empty() => Err(StartError::Usage(format!(
            "{path} was used to found a cluster of {}; start this node with that --initial-cluster again, or --join \
             with an empty directory",
            identity.founding
        ))),
        (None, None) if identity.founding.is_empty() => Err(StartError::Usage(format!(
            "{path} belongs to no cluster yet: start this node with --join, or with --initial-cluster"
        ))),
        (Some(_), _) | (None, _) => Ok(()),
    }
}

/// RocksDB counts what it inserts and holds, not what it drops; the rest follows at the mean size of a block.
fn evicted_blocks(added: u64, inserted_bytes: u64, held_bytes: u64) -> u64 {
    if inserted_bytes <= held_bytes || inserted_bytes == 0 {
        return 0;
    }
    let evicted =
        u128::from(added) * u128::from(inserted_bytes - held_bytes) / u128::from(inserted_bytes);
    u64::try_from(evicted).unwrap_or(u64::MAX)
}

fn role_of(state: ServerState) -> Role {
    match state {
        ServerState::Leader => Role::Leader,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Follower | ServerState::Shutdown => Role::Follower,
    }
}
