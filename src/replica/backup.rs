//! A backup of a running node: one consistent view of its state, written out in order.
//!
//! The view is pinned once, so everything in the file belongs to one revision, whatever is written meanwhile. Memory is
//! bounded by one block of the file. RocksDB keeps what the view shows for as long as the backup takes: whoever passes a
//! slow `out` keeps disk space from being given back.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;

use llm_config_archive::{ArchiveError, Manifest, Summary, Writer};
use llm_config_domain::{Reader, StoreError, query};
use thiserror::Error;

use crate::codec::log_id_to_proto;
use crate::node::{Node, wall_clock_ms};
use crate::storage::snapshot;
use crate::storage::view::View;
use crate::types::SnapshotMeta;

/// Why there is no backup.
#[derive(Debug, Error)]
pub enum BackupError {
    /// This node has not heard of a founded cluster yet: there is nothing to back up.
    #[error("this node belongs to no founded cluster yet; there is nothing to back up")]
    NotReady,
    /// The state could not be read.
    #[error("the state could not be read: {0}")]
    Storage(String),
    /// The backup could not be written: what was written of it is no backup.
    #[error("the backup could not be written: {0}")]
    Output(#[source] ArchiveError),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// Writes the state of a running node; blocks.
pub(crate) fn backup(node: &Node, out: &mut dyn Write) -> Result<Summary, BackupError> {
    write(&node.local.state.view(), node.local.node_id(), out)
}

/// Bytes that a backup made now would take, roughly: the tables are compressed and the backup is not.
pub(crate) fn estimate_bytes(node: &Node) -> u64 {
    const COMPRESSION: u64 = 4;
    let state = node.local.state.current();
    let property =
        |name: &str| state.db().property_int_value(name).ok().flatten().unwrap_or_default();
    property("rocksdb.estimate-live-data-size").saturating_mul(COMPRESSION)
        + property("rocksdb.cur-size-all-mem-tables")
}

/// What a state says of itself, for the file.
pub(crate) fn manifest(view: &View, node_id: u64) -> Result<Manifest, BackupError> {
    let storage = |error: &dyn std::fmt::Display| BackupError::Storage(error.to_string());
    let meta = query::meta(view).map_err(|error| storage(&error))?;
    let applied: SnapshotMeta =
        snapshot::read_applied(|key| view.get(key).map_err(std::io::Error::other))
            .map_err(|error| storage(&error))?;
    let (Some(cluster_id), Some(position)) = (meta.cluster_id, applied.last_log_id) else {
        return Err(BackupError::NotReady);
    };
    Ok(Manifest {
        product_version: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id,
        node_id,
        revision: meta.revision,
        applied_term: log_id_to_proto(&position).term,
        applied_index: position.index,
        created_at_ms: wall_clock_ms(),
        history_limit: meta.history_limit,
        voters: voters(&applied),
    })
}

/// The voters at a position, and their node-to-node addresses.
pub(crate) fn voters(position: &SnapshotMeta) -> BTreeMap<u64, String> {
    let membership = position.last_membership.membership();
    let address =
        |id: &u64| membership.get_node(id).map_or_else(String::new, |node| node.addr.clone());
    membership.voter_ids().map(|id| (id, address(&id))).collect()
}

/// Writes everything in a view; blocks.
pub(crate) fn write(
    view: &View,
    node_id: u64,
    out: &mut dyn Write,
) -> Result<Summary, BackupError> {
    let mut writer = Writer::new(out, &manifest(view, node_id)?).map_err(BackupError::Output)?;
    let mut failed = None;
    view.scan_domain(&mut |key, value| match writer.pair(key, value) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) => {
            failed = Some(error);
            Ok(ControlFlow::Break(()))
        }
    })?;
    match failed {
        Some(error) => Err(BackupError::Output(error)),
        None => writer.finish().map_err(BackupError::Output),
    }
}
