//! What a backup says about itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The first thing in a file: which state it holds, and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the program that made the backup.
    pub product_version: String,
    /// The cluster that it was made of.
    pub cluster_id: String,
    /// The node that made it.
    pub node_id: u64,
    /// Store revision of the state in it.
    pub revision: u64,
    /// Raft term of the last entry that is applied in it.
    pub applied_term: u64,
    /// Log index of that entry.
    pub applied_index: u64,
    /// When it was begun, in milliseconds since the Unix epoch, by the clock of the node.
    pub created_at_ms: u64,
    /// Versions kept for each entry.
    pub history_limit: u64,
    /// The voters of the cluster and their node-to-node addresses.
    pub voters: BTreeMap<u64, String>,
}

/// What a whole file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// What it says about itself.
    pub manifest: Manifest,
    /// Format of the file.
    pub format: u32,
    /// Pairs of key and value.
    pub pairs: u64,
    /// Length of the file.
    pub file_bytes: u64,
    /// SHA-256 of everything before the last 32 bytes, which hold it: tells this backup from every other.
    pub digest: [u8; 32],
}

impl Summary {
    /// The digest in hexadecimal, as it is shown.
    #[must_use]
    pub fn digest_hex(&self) -> String {
        self.digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
