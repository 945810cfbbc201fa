//! What a command does to the replicated state: pure and deterministic, the same on every node.
//!
//! [`apply()`] turns a [`Command`] and the time the leader stamped on it into an answer and changes; [`query`] reads.
//! Both work on any [`Reader`]: RocksDB in a node, memory in a test. `limits` bounds everything, `keys` and `record` say
//! how state is laid out, `wire` how commands and answers travel.
//!
//! Not here, on purpose: input and output, clocks, randomness, threads, hash maps (see `clippy.toml`), metrics, and
//! whether somebody may do what they ask for.
#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod apply;
mod change_log;
pub mod command;
pub mod entry;
mod keys;
pub mod limits;
pub mod names;
pub mod outcome;
pub mod overlay;
pub mod query;
mod record;
mod requests;
pub mod restore;
pub mod store;
mod validate;
pub mod value;
mod wire;
mod writer;

pub use apply::{Stamped, apply};
pub use command::{
    AddNode, Command, Compact, Compare, DecodeError, Delete, Found, Node, Operation, RemoveNode,
    RemovedNode, RequestId, Rollback, Set, Txn, TxnOp,
};
pub use entry::{Change, ChangeKind, Entry};
pub use names::{Address, Environment, InvalidArgument, Key, Namespace};
pub use outcome::{Applied, Outcome, Rejection, TxnResult};
pub use overlay::Overlay;
pub use query::{ListQuery, Meta, NamespaceSummary, Page, QueryError, Resolved, RevisionChanges};
pub use record::{RECORD_FORMAT, check_format};
pub use store::{MemoryStore, Order, Reader, StoreError, Visit, Writes, digest};
pub use value::{JsonValue, ValueError};
pub use wire::COMMAND_FORMAT;
