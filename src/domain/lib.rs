//! What a command does to the replicated state: pure and deterministic, the same on every node.
//!
//! [`apply()`] turns a [`Command`] and the time the leader stamped on it into an answer and changes; [`query`] reads.
//! Both work on any [`Reader`]: RocksDB in a node, memory in a test. `limits` bounds everything, `keys` and `record` say
//! how state is laid out, `wire` how commands and answers travel.
//!
//! Not here, on purpose: input and output, clocks, randomness, threads, hash maps (see `clippy.toml`), metrics, ciphers,
//! and who a caller is: what a known caller may do is (`access`).
#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod access;
pub mod apply;
pub mod audit;
pub mod bans;
mod change_log;
pub mod command;
pub mod entry;
pub mod event;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod key_ring;
mod keys;
pub mod limits;
pub mod names;
pub mod outcome;
pub mod overlay;
pub mod policy;
pub mod query;
mod record;
#[cfg(test)]
#[path = "../../.ci/fuzz/replay.rs"]
mod replay;
mod requests;
pub mod restore;
mod rotation;
pub mod schemas;
pub mod sealed;
pub mod store;
mod validate;
pub mod value;
mod wire;
mod writer;

pub use access::{Action, Credential, Grant, Need, Rights, Role, Scope, Token};
pub use apply::{Batch, Stamped, apply, reads_again};
pub use audit::AuditQuery;
pub use command::{
    AddNode, AuditRetention, Authority, Ban, BanOrder, CheckedSchema, Command, Compact, Compare,
    DecodeError, Delete, DeleteSchema, DropDataKey, Found, Node, Operation, Origin, PutSchema,
    RemoveNode, RemovedNode, RequestId, Reseal, Rollback, Schema, Set, Txn, TxnOp,
};
pub use entry::{Change, ChangeKind, Entry};
pub use event::{AuditEvent, AuditKind, AuditRecord, AuditTarget};
pub use names::{Address, Environment, InvalidArgument, Key, Namespace};
pub use outcome::{Applied, Outcome, Rejection, TxnResult};
pub use overlay::Overlay;
pub use query::{
    ListQuery, MASK, Meta, NamespaceSummary, Page, QueryError, Resolved, RevisionChanges,
};
pub use record::{RECORD_FORMAT, check_format};
pub use sealed::{DataKey, ResealedVersion, Sealed, Value};
pub use store::{MemoryStore, Order, Reader, StoreError, Visit, Writes, digest};
pub use value::{JsonValue, ValueError};
pub use wire::COMMAND_FORMAT;
