//! The order in which a node starts and stops.
//!
//! Up: refuse what cannot work, open and check the storage, serve the other nodes. Down, after leadership was handed
//! over (`handover`): end the core, close the log, flush the state.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;
use rocksdb::Cache;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, Tuning};
use crate::error::StartError;
use crate::form::NewerForm;
use crate::local::Failure;
use crate::machine;
use crate::network::secure;
use crate::network::service::Service;
use crate::node::Node;
use crate::observer::Observer;
use crate::storage::directory::{Directory, Identity, sync_dir};
use crate::storage::log::LogStore;
use crate::storage::rocks::RocksEngine;
use crate::storage::state::StateMachine;
use crate::storage::watermark::Watermark;

/// Refuses what cannot work before anything is opened.
pub(crate) fn check(config: &Config) -> Result<(), StartError> {
    let usage = |message: String| Err(StartError::Usage(message));
    if config.node_id == 0 {
        return usage("--node-id must not be 0".into());
    }
    if config.initial_cluster.contains_key(&0) {
        return usage("--initial-cluster: node id 0 is not allowed".into());
    }
    if config.join.is_some() && !config.initial_cluster.is_empty() {
        return usage(
            "--join and --initial-cluster exclude each other: a node either founds a cluster or joins one".into(),
        );
    }
    if !config.initial_cluster.is_empty() && !config.initial_cluster.contains_key(&config.node_id) {
        return usage(format!(
            "--initial-cluster does not list this node ({}); every founder gets the same list, itself included",
            config.node_id
        ));
    }
    Ok(())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// openraft's settings; its defaults are too small for a busy machine.
pub(crate) fn raft_config(tuning: &Tuning) -> Result<openraft::Config, StartError> {
    let election_max = millis(tuning.election_timeout_max);
    openraft::Config {
        cluster_name: "llm-config".into(),
        heartbeat_interval: millis(tuning.heartbeat_interval),
        election_timeout_min: millis(tuning.election_timeout_min),
        election_timeout_max: election_max,
        heartbeat_min_interval: Some(millis(tuning.heartbeat_interval) * 2 / 3),
        // Without it a partitioned node comes back with a higher term and unseats a healthy leader.
        enable_pre_vote: Some(true),
        // A partial partition can otherwise leave a leader that nobody can unseat (openraft #2080).
        quorum_loss_probe_interval: Some(election_max * 3),
        // The state has no write-ahead log, so a restarted leader must win an election before it serves (openraft #1511).
        enable_leader_restore: Some(false),
        max_payload_entries: 4096,
        max_append_entries: Some(4096),
        api_batch_capacity: 4096,
        purge_batch_size: tuning.log_entries_kept.clamp(1, 4096),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(tuning.snapshot_log_entries),
        max_in_snapshot_log_to_keep: tuning.log_entries_kept,
        replication_lag_threshold: tuning.snapshot_log_entries.max(tuning.log_entries_kept) + 1,
        install_snapshot_timeout: 60_000,
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|error| StartError::Usage(format!("timing: {error}")))
}

/// Opens and checks everything that a crash may have left.
pub(crate) async fn open_storage(
    directory: &Arc<Directory>,
    tuning: &Tuning,
    observer: Arc<dyn Observer>,
    identity: &Identity,
) -> Result<(StateMachine, LogStore), StartError> {
    let (directory, tuning) = (Arc::clone(directory), tuning.clone());
    let root = directory.root().to_owned();
    let open = move || -> io::Result<(StateMachine, LogStore)> {
        let cache = Cache::new_lru_cache(tuning.block_cache_bytes);
        let state = StateMachine::open(Arc::clone(&directory), cache, observer)?;
        let engine = RocksEngine::open(&directory.log(), Some(Arc::clone(&directory)))?;
        let watermark = Watermark::open(&directory.watermark())?;
        // What is synced in a new folder is worth nothing while the folder itself may be gone after a power cut.
        sync_dir(directory.root())?;
        let log = LogStore::open(Arc::new(engine), Some(watermark), tuning.log_cache_bytes)?;
        state.cover(log.range())?;
        Ok((state, log))
    };
    let (state, log) = machine::spawn_blocking(open)
        .await
        .map_err(|error| StartError::Runtime(error.to_string()))?
        .map_err(|error| match NewerForm::within(&error) {
            Some(newer) => StartError::DataDir(format!("{}: {newer}", root.display())),
            None => StartError::DataDir(format!(
                "{}: {error}. This node cannot start on it: restore the directory, or replace the node",
                root.display()
            )),
        })?;
    if let (Some(stored), Some(named)) = (state.shared().cluster_id(), &identity.cluster_id)
        && stored != *named
    {
        return Err(StartError::DataDir(format!(
            "{}: the identity names cluster {named}, the data belongs to cluster {stored}; restore the directory",
            root.display()
        )));
    }
    Ok((state, log))
}

/// Serves the other nodes until told to stop.
pub(crate) fn serve(
    node: Arc<Node>,
    listener: machine::Listener,
    mut stop: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, StartError> {
    let address = listener.local_addr();
    let failed = |error: io::Error| {
        StartError::Runtime(format!("the node-to-node listener failed: {error}"))
    };
    let listener = machine::listen(listener).map_err(failed)?;
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(Duration::from_secs(2)))
        .initial_stream_window_size(2 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(1024)
        .add_service(Service::server(Arc::clone(&node), stop.clone()));
    Ok(tokio::spawn(async move {
        let stopped = async move {
            // An error means that the sender is gone, which is a stop as well.
            drop(stop.wait_for(|stop| *stop).await);
        };
        let served = match node.local.secure.clone() {
            Some(secure) => {
                let incoming = secure::incoming(listener, secure);
                server.serve_with_incoming_shutdown(incoming, stopped).await
            }
            None => {
                let incoming = machine::incoming(listener);
                server.serve_with_incoming_shutdown(incoming, stopped).await
            }
        };
        if let Err(error) = served {
            node.local.fail(Failure::Fault(format!(
                "the node-to-node listener {address:?} failed: {error}"
            )));
        }
    }))
}

/// Ends the Raft core, then the log writer, then makes the state durable.
pub(crate) async fn close(node: &Arc<Node>) {
    if let Err(error) = node.raft.shutdown().await {
        tracing::error!(%error, "the Raft core did not end cleanly");
    }
    node.tidying.end().await;
    let node = Arc::clone(node);
    let closed = machine::spawn_blocking(move || {
        node.log.close();
        // The state has no write-ahead log: flushed, the next start has nothing to replay.
        if let Err(error) = node.local.state.current().db().flush() {
            tracing::error!(%error, "the state could not be flushed");
        }
    });
    if let Err(error) = closed.await {
        tracing::error!(%error, "the storage did not close cleanly");
    }
}
