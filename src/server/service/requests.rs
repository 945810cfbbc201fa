//! What callers ask and what they get: plain data, the same for HTTP and gRPC.
//!
//! Requests hold text as it arrived; the service parses. Answers hold domain types; the gateways render.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use llm_config_domain::{
    Entry, Environment, Key, Namespace, NamespaceSummary, Schema, TxnResult, Value,
};

use crate::access::Caller;
use crate::error::ServiceError;
use crate::secrets::Plaintext;
pub use crate::watch::WatchFrom;

/// On whose behalf, since when, and until when.
#[derive(Debug, Clone)]
pub struct Context {
    pub caller: Caller,
    pub begun: Instant,
    pub deadline: Instant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What this node has applied; no network.
    #[default]
    Cached,
    /// Confirmed with the leader.
    Linearizable,
}

impl Consistency {
    /// The word of the APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Consistency::Cached => "cached",
            Consistency::Linearizable => "linearizable",
        }
    }

    pub fn parse(text: &str) -> Result<Self, ServiceError> {
        match text {
            "cached" => Ok(Consistency::Cached),
            "linearizable" => Ok(Consistency::Linearizable),
            _ => Err(ServiceError::invalid("consistency", "allowed are cached and linearizable")),
        }
    }
}

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    pub consistency: Consistency,
    /// Wait until this node has applied this revision.
    pub min_revision: Option<u64>,
    /// Refuse when this node has not heard from a leader for this long.
    pub max_staleness_ms: Option<u64>,
}

/// The address of an entry as text. An empty environment means base.
#[derive(Debug, Clone, Default)]
pub struct Target {
    pub namespace: String,
    pub key: String,
    pub environment: String,
}

#[derive(Debug, Clone, Default)]
pub struct GetRequest {
    pub target: Target,
    pub read: ReadOptions,
    /// Apply the environment's fallback.
    pub resolve: bool,
    /// An old version instead of the current one.
    pub version: Option<u64>,
    /// Show the plaintext of a secret.
    pub reveal: bool,
}

#[derive(Debug)]
pub struct GetAnswer {
    pub entry: Arc<Entry>,
    /// Of a secret, when it was asked for.
    pub revealed: Option<Plaintext>,
    pub revision: u64,
}

#[derive(Debug, Clone, Default)]
pub struct SetRequest {
    pub target: Target,
    /// JSON text.
    pub value: Bytes,
    /// Absent: as the entry is.
    pub secret: Option<bool>,
    pub description: String,
    pub tags: Vec<String>,
    pub comment: String,
    /// 0 means "must not exist".
    pub expected_version: Option<u64>,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct SetAnswer {
    pub entry: Arc<Entry>,
    pub created: bool,
    pub revision: u64,
    /// The answer was remembered from the first request with this idempotency key.
    pub replayed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteRequest {
    pub target: Target,
    pub expected_version: Option<u64>,
    pub comment: String,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct DeleteAnswer {
    /// The version that the delete itself is.
    pub version: u64,
    pub revision: u64,
    pub replayed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct RollbackRequest {
    pub target: Target,
    /// The version whose value comes back.
    pub version: u64,
    pub expected_version: Option<u64>,
    pub comment: String,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct RollbackAnswer {
    pub entry: Arc<Entry>,
    pub revision: u64,
    pub replayed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ListRequest {
    pub namespace: String,
    pub environment: String,
    pub prefix: String,
    pub limit: Option<u64>,
    pub cursor: Option<String>,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct ListAnswer {
    pub items: Vec<Entry>,
    pub next_cursor: Option<String>,
    pub revision: u64,
}

#[derive(Debug, Clone, Default)]
pub struct NamespacesRequest {
    pub prefix: String,
    pub limit: Option<u64>,
    pub cursor: Option<String>,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct NamespacesAnswer {
    pub items: Vec<NamespaceSummary>,
    pub next_cursor: Option<String>,
    pub revision: u64,
}

#[derive(Debug, Clone, Default)]
pub struct HistoryRequest {
    pub target: Target,
    pub limit: Option<u64>,
    pub cursor: Option<String>,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct HistoryAnswer {
    /// Newest first, deletes included.
    pub items: Vec<Entry>,
    pub next_cursor: Option<String>,
    pub revision: u64,
}

/// Compares two versions (`from`, and `to` or the current one), or the current values in two environments.
#[derive(Debug, Clone, Default)]
pub struct DiffRequest {
    pub target: Target,
    pub from: Option<u64>,
    pub to: Option<u64>,
    pub environment_from: String,
    pub environment_to: String,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct DiffAnswer {
    pub from: Entry,
    pub to: Entry,
    /// RFC 6902 JSON Patch, as JSON text.
    pub patch: String,
    pub revision: u64,
}

#[derive(Debug, Clone, Default)]
pub struct ResolveRequest {
    pub namespace: String,
    pub environment: String,
    /// Show the plaintext of secrets.
    pub reveal: bool,
    pub read: ReadOptions,
}

#[derive(Debug)]
pub struct ResolveAnswer {
    pub namespace: Namespace,
    pub environment: Environment,
    /// Sorted by key, each with the environment that supplied it.
    pub values: Vec<(Key, Value, Environment)>,
    /// Of secrets, when it was asked for.
    pub revealed: BTreeMap<Key, Plaintext>,
    pub revision: u64,
    /// Changes if and only if the resolved content does.
    pub digest: String,
}

#[derive(Debug, Clone, Default)]
pub struct CompareRequest {
    pub target: Target,
    /// 0 means "must not exist".
    pub version: u64,
}

#[derive(Debug, Clone)]
pub enum TxnOpRequest {
    Set {
        target: Target,
        value: Bytes,
        secret: Option<bool>,
        description: String,
        tags: Vec<String>,
        comment: String,
        expected_version: Option<u64>,
    },
    Delete {
        target: Target,
        expected_version: Option<u64>,
        comment: String,
    },
    Get {
        target: Target,
    },
}

#[derive(Debug, Clone, Default)]
pub struct TxnRequest {
    pub compare: Vec<CompareRequest>,
    pub success: Vec<TxnOpRequest>,
    pub failure: Vec<TxnOpRequest>,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct TxnAnswer {
    pub succeeded: bool,
    pub revision: u64,
    pub results: Vec<TxnResult>,
    pub replayed: bool,
}

/// Absent or empty namespace and environment watch all of them.
#[derive(Debug, Clone)]
pub struct WatchRequest {
    pub namespace: Option<String>,
    /// Instead of a namespace: those that begin with this.
    pub namespace_prefix: String,
    pub prefix: String,
    pub environment: Option<String>,
    pub from: WatchFrom,
}

/// What a node kept in memory before its cache was cleared.
#[derive(Debug, Clone, Copy)]
pub struct CacheCleared {
    pub entries: usize,
    pub revision: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct CompactRequest {
    /// Forget the changes before this revision, on every node.
    pub revision: Option<u64>,
}

#[derive(Debug, Clone)]
pub struct CompactAnswer {
    pub revision: u64,
    /// The oldest revision that a watch can start from.
    pub oldest_revision: u64,
    /// `compacted`, or `running` when this node's storage needs longer than the request may take.
    pub storage: &'static str,
}

#[derive(Debug, Clone, Default)]
pub struct PutSchemaRequest {
    pub namespace: String,
    pub key: String,
    /// JSON text.
    pub schema: Bytes,
    pub comment: String,
    /// 0 means "must not exist".
    pub expected_version: Option<u64>,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct PutSchemaAnswer {
    pub schema: Schema,
    pub created: bool,
    pub revision: u64,
    pub replayed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct GetSchemaRequest {
    pub namespace: String,
    pub key: String,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct SchemaAnswer {
    pub schema: Schema,
    pub revision: u64,
}

#[derive(Debug, Clone, Default)]
pub struct ListSchemasRequest {
    pub namespace: String,
    pub prefix: String,
    pub limit: Option<u64>,
    pub cursor: Option<String>,
    pub read: ReadOptions,
}

#[derive(Debug, Clone)]
pub struct SchemasAnswer {
    pub items: Vec<Schema>,
    pub next_cursor: Option<String>,
    pub revision: u64,
}

#[derive(Debug, Clone, Default)]
pub struct DeleteSchemaRequest {
    pub namespace: String,
    pub key: String,
    pub comment: String,
    pub expected_version: Option<u64>,
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Clone)]
pub struct DeleteSchemaAnswer {
    /// Of the schema that was deleted.
    pub version: u64,
    pub replayed: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ExportRequest {
    pub namespace: String,
    pub environment: String,
    pub read: ReadOptions,
}
