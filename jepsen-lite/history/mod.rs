//! What clients asked and what they heard: one operation a line of JSON, in the order in which they ended.
//!
//! All times are nanoseconds of one monotonic clock of the one process that drives the clients. A write whose answer was
//! lost is `unknown` and may take effect at any later time, or never; a read without an answer is not written down.

mod file;
mod security;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
pub use serde_json::Value;

pub use file::{ReadError, Writer, read, read_file, write_file};
pub use security::{
    AuditRecord, BALLAST, Chain, MASK, Member, PERMISSION_DENIED, Policy, Right, Target,
    UNAUTHENTICATED, request, requester, secret, secret_name, shown, shown_name,
};

/// The form of the lines; a file of another one is refused.
pub const FORMAT: u32 = 1;

/// A whole run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// What the checkers have to know about the run.
    pub header: Header,
    /// In the order of the file.
    pub operations: Vec<Operation>,
    /// What was done to the cluster: for the reader of a timeline, no checker looks at it.
    pub faults: Vec<Fault>,
    /// The file has its last line. A history that was cut off is no proof of anything.
    pub whole: bool,
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// What was run.
    pub workload: String,
    /// What it was derived from.
    pub seed: u64,
    /// The nodes that a closing scan has to cover.
    pub nodes: Vec<u64>,
    /// How many versions of an entry the store keeps.
    pub history_limit: u64,
    /// Every node was scanned when all was over: operations with `last`. Without it, durability and the equality of the
    /// nodes are not decided.
    #[serde(default)]
    pub closing: bool,
    /// The audit log was read when all was over. Without it, whether it has everything is not decided.
    #[serde(default)]
    pub audited: bool,
    /// What transactions have to keep.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sums: Vec<Sum>,
    /// These are some operations of a run, not all: what they do not explain may have been done by the others. Changes of
    /// who may do what are all here nevertheless.
    #[serde(default)]
    pub partial: bool,
    /// For people: commit, command, and the like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            format: FORMAT,
            workload: String::new(),
            seed: 0,
            nodes: Vec::new(),
            history_limit: 100,
            closing: false,
            audited: false,
            sums: Vec::new(),
            partial: false,
            notes: BTreeMap::new(),
        }
    }
}

/// Whole numbers whose sum no transaction changes, once the first of them exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// The entries.
    pub keys: Vec<String>,
    /// Their sum.
    pub total: i64,
}

/// One call of one client.
///
/// A key is a text that names one entry: `namespace/key@environment`. Checkers only compare it, and look at its beginning
/// and at what follows the last `@` (see [`Scope`]); no namespace of a run may be another one's name up to a slash.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Unique in the history.
    pub id: u64,
    /// Who asked; one thing at a time. After an unknown outcome, a client goes on under another number.
    pub process: u64,
    /// Operations of one session must not go back in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The token that it was asked with, by its name; absent: the administrator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Who was asked; 0 when the client chose.
    pub node: u64,
    /// What was asked.
    pub call: Call,
    /// Before the first byte was sent.
    pub invoked_ns: u64,
    /// After the answer was received. Absent when there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_ns: Option<u64>,
    /// What the client may conclude.
    pub outcome: Outcome,
    /// Of a write, the revision that it made. Of a read, of a list that was one page and of a transaction that changed
    /// nothing, the very revision that the answer reflects; left out where only a bound of it is known. Of a watch that was
    /// opened "from now on", the revision after which it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// What was answered. Of a refusal, only [`Answer::Conflict`] and [`Answer::Compacted`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
    /// The code of a refusal, as `VERSION_CONFLICT`; of an unknown outcome, how it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// A part of the closing scan: all faults are over, all writes have ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// What a client may conclude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It happened, and this is the answer.
    Ok,
    /// The cluster says that it did not happen and will not.
    Fail,
    /// It happened, will happen, or never does.
    Unknown,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Call {
    /// One entry. Answer: [`Answer::Entry`].
    Get {
        key: String,
        read: Read,
        /// An old version instead of the current one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u64>,
    },
    /// A write. Answer: [`Answer::Written`], or [`Answer::Conflict`] with the error `VERSION_CONFLICT`.
    Set {
        key: String,
        value: Value,
        /// Only if the entry has this version; 0: only if it does not exist.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_version: Option<u64>,
        /// Operations with the same one are one request that was sent more than once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// Answer: [`Answer::Written`], or [`Answer::Conflict`]; the error `NOT_FOUND` when there is nothing to delete.
    Delete {
        key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_version: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// A new version with the value of an old one. Answer: [`Answer::Written`], with the value.
    Rollback {
        key: String,
        to_version: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// Answer: [`Answer::Txn`].
    Txn {
        compare: Vec<Compare>,
        success: Vec<TxnOp>,
        failure: Vec<TxnOp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idempotency_key: Option<String>,
    },
    /// Adds to a number, with however many reads, conditional writes and retries that takes: one write, when it is over. An
    /// entry that does not exist counts as 0. Answer: [`Answer::Written`], with the sum.
    Increment { key: String, by: u64 },
    /// All entries of a scope at one revision. Answer: [`Answer::Entries`].
    List { scope: Scope, read: Read },
    /// The versions of an entry that are kept. Answer: [`Answer::Versions`].
    History { key: String, read: Read },
    /// A watch was opened, or opened again after it broke. No answer.
    WatchOpen {
        watch: u64,
        scope: Scope,
        /// Starts with this revision itself; absent: with the next change.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from_revision: Option<u64>,
    },
    /// Something came from a watch. Answer: [`Answer::Events`].
    WatchBatch { watch: u64 },
    /// The watch was read until everything up to here was said to be delivered; `fail` when that did not come. No answer.
    WatchEnd { watch: u64, up_to: u64 },
    /// Who may do what is changed. No answer.
    Policy { change: Policy },
    /// The keys that seal secrets are exchanged. No answer.
    RotateKeys,
    /// The audit log from its first record on, as a node has it. Answer: [`Answer::Audit`].
    Audit { read: Read },
    /// A node walks its audit log. Answer: [`Answer::Chain`].
    VerifyAudit,
    /// The cluster as a node sees it. Answer: [`Answer::Members`].
    Members,
    /// What no checker looks at. No answer.
    Other { name: String },
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Confirmed with the leader; else what the node has applied.
    pub linearizable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_revision: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_staleness_ms: Option<u64>,
    /// A secret is to be shown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reveal: bool,
}

impl Read {
    /// Confirmed with the leader.
    pub const LINEARIZABLE: Self =
        Self { linearizable: true, min_revision: None, max_staleness_ms: None, reveal: false };
    /// What the node has applied.
    pub const CACHED: Self =
        Self { linearizable: false, min_revision: None, max_staleness_ms: None, reveal: false };
}

/// Some entries by their keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// Keys that begin with this: `namespace/` and what else is asked for.
    pub prefix: String,
    /// Keys of this environment; absent: of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
}

impl Scope {
    /// Whether the entry is in it.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        let environment = || key.rsplit_once('@').map(|(_, environment)| environment);
        key.starts_with(&self.prefix)
            && self.environment.as_deref().is_none_or(|wanted| environment() == Some(wanted))
    }
}

/// A comparison of a transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    pub key: String,
    /// 0: it must not exist.
    pub version: u64,
}

/// A step of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum TxnOp {
    Set { key: String, value: Value },
    Delete { key: String },
    Get { key: String },
}

impl TxnOp {
    /// The entry that it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Set { key, .. } | Self::Delete { key } | Self::Get { key } => key,
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// The entry; absent when there is none.
    Entry {
        entry: Option<Entry>,
    },
    /// The version that the write made; with the value where the call does not say it.
    Written {
        version: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
    },
    /// The entry had another version than was expected; 0: it did not exist.
    Conflict {
        current_version: u64,
    },
    /// Which list was done, and what came of each step, in order.
    Txn {
        succeeded: bool,
        results: Vec<TxnResult>,
    },
    /// Without the deleted ones.
    Entries {
        entries: Vec<Keyed>,
    },
    /// Newest first, deletes included.
    Versions {
        versions: Vec<Entry>,
    },
    /// All changes of one revision, or none: then everything up to this revision has been delivered.
    Events {
        revision: u64,
        events: Vec<Keyed>,
    },
    /// What a watch asks for is forgotten; this and what came later is not.
    Compacted {
        oldest_revision: u64,
    },
    /// Oldest first.
    Audit {
        records: Vec<AuditRecord>,
    },
    Chain {
        chain: Chain,
    },
    /// Who leads by the word of the node, in which term, and who is in the cluster.
    Members {
        term: u64,
        leader: Option<u64>,
        members: Vec<Member>,
    },
}

/// One version of an entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub version: u64,
    /// The revision that made this version.
    pub revision: u64,
    /// Absent: this version is a delete.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some")]
    pub value: Option<Value>,
}

/// A value that is there, also when it is `null`.
fn some<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// An entry under its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyed {
    pub key: String,
    pub entry: Entry,
}

/// What came of one step of a transaction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum TxnResult {
    /// A set or a delete, and the version that it made.
    Written { version: u64 },
    /// What a get read.
    Got { entry: Option<Entry> },
}

/// Something that was done to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which fault.
    pub name: String,
    /// Whom it struck.
    pub nodes: Vec<u64>,
    pub from_ns: u64,
    /// When it was mended; absent when it never was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_ns: Option<u64>,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// The error code of a write whose expected version was not met.
pub const VERSION_CONFLICT: &str = "VERSION_CONFLICT";
/// The error code of a watch that begins with what is forgotten.
pub const REVISION_COMPACTED: &str = "REVISION_COMPACTED";
/// The error code of a delete of nothing.
pub const NOT_FOUND: &str = "NOT_FOUND";

impl Call {
    /// What it would change may be changed even if no answer comes.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Self::Set { .. }
            | Self::Delete { .. }
            | Self::Rollback { .. }
            | Self::Txn { .. }
            | Self::Increment { .. } => true,
            Self::Policy { .. }
            | Self::RotateKeys
            | Self::Audit { .. }
            | Self::VerifyAudit
            | Self::Members
            | Self::Get { .. }
            | Self::List { .. }
            | Self::History { .. }
            | Self::WatchOpen { .. }
            | Self::WatchBatch { .. }
            | Self::WatchEnd { .. }
            | Self::Other { .. } => false,
        }
    }

    /// As [`is_write`](Self::is_write), of anything that the cluster keeps.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.is_write() || matches!(self, Self::Policy { .. } | Self::RotateKeys)
    }

    /// The right that it needs, besides that to read if it reveals.
    #[must_use]
    pub fn needs(&self) -> Option<Right> {
        match self {
            Self::Get { read, .. } if read.reveal => Some(Right::Reveal),
            Self::Get { .. } | Self::List { .. } | Self::History { .. } => Some(Right::Read),
            Self::Set { .. } => Some(Right::Write),
            Self::Delete { .. } => Some(Right::Delete),
            Self::Rollback { .. } => Some(Right::Rollback),
            _ => None,
        }
    }

    /// The freshness that a read asked for.
    #[must_use]
    pub fn read(&self) -> Option<Read> {
        match self {
            Self::Get { read, .. } | Self::List { read, .. } | Self::History { read, .. } => {
                Some(*read)
            }
            _ => None,
        }
    }

    /// What tells this request from others.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        match self {
            Self::Set { idempotency_key, .. }
            | Self::Delete { idempotency_key, .. }
            | Self::Rollback { idempotency_key, .. }
            | Self::Txn { idempotency_key, .. } => idempotency_key.as_deref(),
            _ => None,
        }
    }

    /// The entries that it names.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<&str> {
        match self {
            Self::Get { key, .. }
            | Self::Set { key, .. }
            | Self::Delete { key, .. }
            | Self::Rollback { key, .. }
            | Self::Increment { key, .. }
            | Self::History { key, .. } => BTreeSet::from([key.as_str()]),
            Self::Txn { compare, success, failure, .. } => compare
                .iter()
                .map(|compare| compare.key.as_str())
                .chain(success.iter().chain(failure).map(TxnOp::key))
                .collect(),
            Self::List { .. }
            | Self::WatchOpen { .. }
            | Self::WatchBatch { .. }
            | Self::WatchEnd { .. }
            | Self::Policy { .. }
            | Self::RotateKeys
            | Self::Audit { .. }
            | Self::VerifyAudit
            | Self::Members
            | Self::Other { .. } => BTreeSet::new(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Get { .. } => "get",
            Self::Set { .. } => "set",
            Self::Delete { .. } => "delete",
            Self::Rollback { .. } => "rollback",
            Self::Txn { .. } => "txn",
            Self::Increment { .. } => "increment",
            Self::List { .. } => "list",
            Self::History { .. } => "history",
            Self::WatchOpen { .. } => "watch_open",
            Self::WatchBatch { .. } => "watch_batch",
            Self::WatchEnd { .. } => "watch_end",
            Self::Policy { .. } => "policy",
            Self::RotateKeys => "rotate_keys",
            Self::Audit { .. } => "audit",
            Self::VerifyAudit => "verify_audit",
            Self::Members => "members",
            Self::Other { .. } => "other",
        }
    }
}

impl Operation {
    /// Says what is wrong with it as a record of a call: an answer that is no answer to it, times that run backwards.
    ///
    /// # Errors
    /// What is wrong.
    pub fn validate(&self) -> Result<(), String> {
        if self.completed_ns.is_some_and(|completed| completed < self.invoked_ns) {
            return Err("it completed before it was invoked".to_owned());
        }
        match self.outcome {
            Outcome::Ok => {
                if self.completed_ns.is_none() {
                    return Err("it is ok and has no `completed_ns`".to_owned());
                }
                self.answered()?;
                let changes = !matches!(&self.answer, Some(Answer::Txn { .. }));
                if self.call.is_write() && changes && self.revision.is_none() {
                    return Err("it is a write that is ok and has no `revision`".to_owned());
                }
            }
            Outcome::Fail => {
                if self.error.is_none() {
                    return Err("it failed and has no `error`".to_owned());
                }
                let refusal = matches!(
                    self.answer,
                    None | Some(Answer::Conflict { .. } | Answer::Compacted { .. })
                );
                if !refusal {
                    return Err("it failed and has an answer that is no refusal".to_owned());
                }
            }
            Outcome::Unknown if !self.call.changes() => {
                return Err(
                    "its outcome is unknown and it changes nothing: leave it out".to_owned()
                );
            }
            Outcome::Unknown if self.answer.is_some() => {
                return Err("its outcome is unknown and it has an answer".to_owned());
            }
            Outcome::Unknown => {}
        }
        Ok(())
    }

    /// Whether the answer of what is ok is one to this call.
    fn answered(&self) -> Result<(), String> {
        let fits = match (&self.call, &self.answer) {
            (Call::Get { .. }, Some(Answer::Entry { .. }))
            | (Call::Set { .. } | Call::Delete { .. }, Some(Answer::Written { .. }))
            | (
                Call::Rollback { .. } | Call::Increment { .. },
                Some(Answer::Written { value: Some(_), .. }),
            )
            | (Call::List { .. }, Some(Answer::Entries { .. }))
            | (Call::History { .. }, Some(Answer::Versions { .. }))
            | (Call::WatchBatch { .. }, Some(Answer::Events { .. }))
            | (Call::Audit { .. }, Some(Answer::Audit { .. }))
            | (Call::VerifyAudit, Some(Answer::Chain { .. }))
            | (Call::Members, Some(Answer::Members { .. }))
            | (
                Call::WatchOpen { .. }
                | Call::WatchEnd { .. }
                | Call::Policy { .. }
                | Call::RotateKeys
                | Call::Other { .. },
                None,
            ) => true,
            (Call::Txn { success, failure, .. }, Some(Answer::Txn { succeeded, results })) => {
                let done = if *succeeded { success } else { failure };
                let fits = |(op, result): (&TxnOp, &TxnResult)| {
                    matches!(op, TxnOp::Get { .. }) == matches!(result, TxnResult::Got { .. })
                };
                let writes = done.iter().any(|op| !matches!(op, TxnOp::Get { .. }));
                if writes && self.revision.is_none() {
                    return Err("it is a write that is ok and has no `revision`".to_owned());
                }
                done.len() == results.len() && done.iter().zip(results).all(fits)
            }
            _ => false,
        };
        if !fits {
            return Err(format!("its answer is none to a {}", self.call.kind()));
        }
        Ok(())
    }
}
