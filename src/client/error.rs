//! How a call can fail, cut by what the caller may conclude: refused, not sent, or unknown.

use std::collections::HashMap;

/// Why a call failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The cluster refused the request: it did not happen and will not.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// No node took the request before the deadline: a write did not happen and will not, a read got no answer.
    #[error("no node took the request, nothing was changed: {reason}")]
    NotSent {
        /// How the last attempt failed.
        reason: String,
    },
    /// A write was sent and its answer was lost: it happened, or it will, or it never does. Sending it again with the
    /// same idempotency key within ten minutes finds out without doing it twice.
    #[error("the outcome is unknown, it may have happened: {reason} ({})", again(idempotency_key))]
    OutcomeUnknown {
        /// The key that every attempt carried; empty for a change of the members, which is safe to send again without.
        idempotency_key: String,
        /// How the last attempt failed.
        reason: String,
    },
    /// What was being received ended early and is not complete; begin again.
    #[error("it broke off and is not complete, begin again: {reason}")]
    BrokenOff {
        /// How it ended.
        reason: String,
    },
    /// A value is there and is not what the application's type asks for.
    #[error("{namespace}{}: the value does not fit, at `{path}`: {reason}", named(key))]
    Deserialize {
        /// The namespace it is in.
        namespace: String,
        /// Its key; empty when something is wrong with the namespace as a whole, as a field that has no key.
        key: String,
        /// Where in the value, like `limits.max_tokens[0]`; `.` is the whole of it.
        path: String,
        /// What was found and what was asked for. It may quote the value, unless that is a secret.
        reason: String,
    },
    /// A value of the application cannot be written as JSON; nothing was sent.
    #[error("{namespace}{}: the value cannot be written as JSON: {reason}", named(key))]
    Serialize {
        /// The namespace it was meant for.
        namespace: String,
        /// The key it was meant for.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// A choice that cannot be; nothing was tried.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// What was chosen.
        field: &'static str,
        /// What is wrong with it, and the fix.
        reason: String,
    },
    /// The cache file of a live configuration cannot be read, written or trusted.
    #[error("cache file {}: {reason}", path.display())]
    CacheFile {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What was running in the background is no more: the runtime ended, or the application's own code panicked in it.
    #[error("{what} has stopped")]
    Stopped {
        /// What was running.
        what: &'static str,
    },
    /// A node's successful answer lacks what the API promises.
    #[error("the node's answer has no {missing}; is it of another version?")]
    Malformed {
        /// The field that is missing.
        missing: &'static str,
    },
    /// An endpoint that cannot be used; nothing was tried.
    #[error("endpoint {endpoint:?}: {reason}")]
    InvalidEndpoint {
        /// The endpoint as given.
        endpoint: String,
        /// What is wrong with it, and the fix.
        reason: String,
    },
    /// [`Options::tls`](crate::Options::tls) cannot be used; nothing was tried.
    #[error(
        "TLS cannot be set up ({reason}); give the authorities, the certificate and its key in PEM form"
    )]
    InvalidTls {
        /// What is wrong.
        reason: String,
    },
    /// [`Options::token`](crate::Options::token) or its file cannot be used; nothing was tried.
    #[error(
        "the token cannot be used ({reason}); give the one word that was shown when it was made"
    )]
    InvalidToken {
        /// What is wrong; never the token itself.
        reason: String,
    },
}

/// A key behind its namespace, if there is one.
fn named(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!(" {key}") }
}

/// How to find out what became of a request.
fn again(idempotency_key: &str) -> String {
    if idempotency_key.is_empty() {
        return "send it again: what is done is not done twice".to_owned();
    }
    format!("idempotency key {idempotency_key}")
}

impl Error {
    /// The refusal, when the cluster refused.
    #[must_use]
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::NotSent { .. }
            | Self::OutcomeUnknown { .. }
            | Self::BrokenOff { .. }
            | Self::Deserialize { .. }
            | Self::Serialize { .. }
            | Self::InvalidArgument { .. }
            | Self::CacheFile { .. }
            | Self::Stopped { .. }
            | Self::Malformed { .. }
            | Self::InvalidEndpoint { .. }
            | Self::InvalidTls { .. }
            | Self::InvalidToken { .. } => None,
        }
    }

    /// True when no node could be reached or was ready: nothing is wrong with what was asked for.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::NotSent { .. } | Self::OutcomeUnknown { .. } | Self::BrokenOff { .. })
    }

    /// True when the entry has another version than the write expected.
    #[must_use]
    pub fn is_version_conflict(&self) -> bool {
        self.rejection().is_some_and(|r| r.code == "VERSION_CONFLICT")
    }

    /// True when what was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.rejection().is_some_and(|r| r.code == "NOT_FOUND")
    }
}

/// A refusal by the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct Rejection {
    /// The stable code, the same as in the HTTP API: `NOT_FOUND`, `VERSION_CONFLICT`, `PERMISSION_DENIED`, …
    pub code: String,
    /// What was wrong, for people.
    pub message: String,
    /// The extensions of the code, as the node sent them.
    pub details: HashMap<String, String>,
    /// What was wrong with which part of the request: of a `SCHEMA_VIOLATION` each place in the value that does not meet its
    /// schema, of an `INVALID_ARGUMENT` the field.
    pub violations: Vec<Violation>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// Where: a field of the request, or a JSON Pointer (RFC 6901) into the value, empty for the whole of it.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl Rejection {
    /// The entry's version at the time of a `VERSION_CONFLICT`.
    #[must_use]
    pub fn current_version(&self) -> Option<u64> {
        self.number("current_version")
    }

    /// The oldest revision that is still there, of a `REVISION_COMPACTED`.
    #[must_use]
    pub fn oldest_revision(&self) -> Option<u64> {
        self.number("oldest_revision")
    }

    /// Nobody knows who was asking: the token is unknown, revoked or expired, or there was none.
    #[must_use]
    pub fn is_unauthenticated(&self) -> bool {
        self.code == "UNAUTHENTICATED"
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.details.get(name)?.parse().ok()
    }
}
