//! What a history says of secrets, of who may do what, of the audit log and of the members.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a store shows in the place of a secret that nobody asked to see.
pub const MASK: &str = "********";
/// The error code of a request by nobody who is known.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// The error code of a request by somebody who may not.
pub const PERMISSION_DENIED: &str = "PERMISSION_DENIED";

/// A secret: a history knows it by a name, and never has its plaintext.
#[must_use]
pub fn secret(name: &str) -> Value {
    json!({ "secret": name })
}

/// A secret whose plaintext came without having been asked for.
#[must_use]
pub fn shown(name: &str) -> Value {
    json!({ "shown": name })
}

/// The name of a secret, if the value is one.
#[must_use]
pub fn secret_name(value: &Value) -> Option<&str> {
    value.get("secret")?.as_str()
}

/// The name of a secret that was shown to who had not asked.
#[must_use]
pub fn shown_name(value: &Value) -> Option<&str> {
    value.get("shown")?.as_str()
}

/// Something that a role may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    Read,
    Write,
    Delete,
    Rollback,
    Reveal,
}

impl Right {
    /// Its word in the API.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Delete => "delete",
            Self::Rollback => "rollback",
            Self::Reveal => "reveal",
        }
    }
}

/// A change of who may do what. Whoever is not the administrator has a token with one role, and is good for one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum Policy {
    /// A token of this name, which no other one ever has.
    CreateToken {
        token: String,
        role: String,
        namespace: String,
    },
    RevokeToken {
        token: String,
    },
    /// From then on the role allows this and nothing else.
    PutRole {
        role: String,
        allows: Vec<Right>,
    },
    DeleteRole {
        role: String,
    },
}

impl Policy {
    /// What the audit log calls it.
    #[must_use]
    pub fn recorded_as(&self) -> &'static str {
        match self {
            Self::CreateToken { .. } => "auth.token_create",
            Self::RevokeToken { .. } => "auth.token_revoke",
            Self::PutRole { .. } => "auth.role_put",
            Self::DeleteRole { .. } => "auth.role_delete",
        }
    }
}

/// What the lab stores by itself to make snapshots large is in this namespace, and in no history.
pub const BALLAST: &str = "jl-ballast";

/// A record of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditRecord {
    /// Counts from 1 without a gap.
    pub sequence: u64,
    /// By the clock of the leader, in milliseconds.
    pub time_ms: u64,
    /// Of a change of entries, the revision that it made; of everything else, the one that there was.
    pub revision: u64,
    /// What happened, as `config.set`.
    pub what: String,
    /// The name of the request that did it (see [`request`]).
    pub request: String,
    /// The entries that it is about, and the version of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<Target>,
    /// The hash of the record before, in hex.
    pub previous: String,
    /// Its own hash, in hex.
    pub hash: String,
}

/// An entry that a record is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    pub key: String,
    pub version: u64,
}

/// What a node found when it walked its own audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chain {
    /// The oldest record that it keeps.
    pub first: u64,
    /// The newest.
    pub last: u64,
    /// The hash of the newest, in hex.
    pub head: String,
    /// Where the chain is broken, and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// A member of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    pub id: u64,
    /// Whether its vote counts.
    pub votes: bool,
}

const REQUEST: &str = "jl-";

/// The name under which an operation sends its requests; those of one operation that sends several are counted.
#[must_use]
pub fn request(operation: u64, attempt: u64) -> String {
    format!("{REQUEST}{operation}.{attempt}")
}

/// The operation that sent a request of this name.
#[must_use]
pub fn requester(request: &str) -> Option<u64> {
    let (operation, attempt) = request.strip_prefix(REQUEST)?.split_once('.')?;
    attempt.parse::<u64>().ok()?;
    operation.parse().ok()
}
