//! What the service refuses or fails with, and the one table that says how each error looks outside.
//!
//! HTTP and gRPC render from this table only. It does not render anything itself.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use llm_config_domain::{InvalidArgument, ValueError, limits};
use tonic::Code as GrpcCode;

/// Everything a call can end with besides its answer. `Display` is the `detail` a caller reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    #[error("{field}: {reason}")]
    InvalidArgument { field: Cow<'static, str>, reason: String },
    #[error("content-type: {found} is not supported here; send application/json")]
    UnsupportedMediaType { found: String },
    #[error("method: {method} is not allowed on this path; the Allow header lists what is")]
    MethodNotAllowed { method: String },
    /// `revision`: the state in which it was looked for, when that is known.
    #[error("{what}")]
    NotFound { what: String, revision: Option<u64> },
    #[error(
        "the entry is at version {current_version} (0 means that it does not exist), which is not the version expected"
    )]
    VersionConflict { current_version: u64 },
    #[error(
        "idempotency_key: it was used for another request within the last 10 minutes; use a new one"
    )]
    IdempotencyKeyReused,
    #[error(
        "what was asked for is older than what is kept; the oldest kept revision is {oldest_revision}"
    )]
    RevisionCompacted { oldest_revision: u64 },
    #[error("{reason}")]
    MembershipConflict { reason: String },
    /// Carried out only when the caller insists (`force`).
    #[error("{reason}; `force` does it all the same")]
    QuorumAtRisk { reason: String },
    /// `of`: the key and its namespace. The violations are told in part when they are many.
    #[error("value: does not meet the schema of {of}{}", first(violations))]
    SchemaViolation { of: String, violations: Vec<Violation> },
    #[error("{what}: larger than the limit of {limit} bytes")]
    PayloadTooLarge { what: Cow<'static, str>, limit: u64 },
    #[error("no leader is known; nothing was changed, try again")]
    NoLeader,
    #[error("this node cannot answer yet: {reason}")]
    NotReady { reason: String },
    #[error("too much at once: {reason}; try again in a moment")]
    Overloaded { reason: String },
    #[error("this node's state is too old for the request: {reason}")]
    Stale { reason: String },
    #[error(
        "the change may or may not have happened: {reason}; retry with the same Idempotency-Key, or read before deciding"
    )]
    OutcomeUnknown { reason: String, idempotent: bool },
    /// Of a change of the members: these need no key to be sent again.
    #[error(
        "the change of the members may or may not have happened: {reason}; send it again, which completes what is half \
         done and changes nothing that is done"
    )]
    MembershipUnknown { reason: String },
    #[error(
        "the store is full: {reason}; reads and deletes still work, free space before writing again"
    )]
    StorageFull { reason: String },
    /// Nobody knows who is asking. `reason` never holds what was sent.
    #[error("authorization: {reason}")]
    Unauthenticated { reason: String },
    #[error("{reason}")]
    PermissionDenied { reason: String },
    #[error("too many requests: wait {retry_after_s} s, and send fewer")]
    RateLimited { retry_after_s: u64 },
    /// `until_ms`: since the Unix epoch.
    #[error(
        "this address is banned until {}, after failed authentications or too many requests; wait, or let an \
         administrator lift the ban",
        moment(*until_ms)
    )]
    Banned { until_ms: u64, retry_after_s: u64 },
    /// Of this node alone, until its operator changes something.
    #[error("secrets cannot be used on this node: {reason}")]
    SecretsUnavailable { reason: String },
    #[error("internal fault: {reason}")]
    Internal { reason: String, effect: Effect },
}

/// What a value does not meet.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Violation {
    /// Where: a JSON Pointer (RFC 6901) into the value, empty for the value as a whole; of a transaction, into its document.
    pub path: String,
    /// What is wrong there, without repeating the value.
    pub message: String,
}

fn first(violations: &[Violation]) -> String {
    violations
        .first()
        .map_or_else(String::new, |first| format!(": at \"{}\", {}", first.path, first.message))
}

/// A time as people write it, to the second.
fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// Whether the refused request may have changed anything: `applied` in the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It did not happen and will not.
    No,
    /// It may have happened, or may still.
    Unknown,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::No => "no",
            Effect::Unknown => "unknown",
        }
    }
}

/// One line of the table.
struct Row {
    code: &'static str,
    status: StatusCode,
    grpc: GrpcCode,
    title: &'static str,
    retryable: bool,
    effect: Effect,
}

const fn row(
    code: &'static str,
    status: StatusCode,
    grpc: GrpcCode,
    title: &'static str,
    retryable: bool,
    effect: Effect,
) -> Row {
    Row { code, status, grpc, title, retryable, effect }
}

impl ServiceError {
    /// The table. `retryable` means that the very same request may succeed later and is safe to send again.
    #[rustfmt::skip]
    fn row(&self) -> Row {
        use Effect::{No, Unknown};
        use ServiceError as E;
        use StatusCode as S;
        match self {
            E::InvalidArgument { .. }     => row("INVALID_ARGUMENT", S::BAD_REQUEST, GrpcCode::InvalidArgument, "Invalid argument", false, No),
            E::UnsupportedMediaType { .. } => row("INVALID_ARGUMENT", S::UNSUPPORTED_MEDIA_TYPE, GrpcCode::InvalidArgument, "Unsupported media type", false, No),
            E::MethodNotAllowed { .. }    => row("INVALID_ARGUMENT", S::METHOD_NOT_ALLOWED, GrpcCode::Unimplemented, "Method not allowed", false, No),
            E::NotFound { .. }            => row("NOT_FOUND", S::NOT_FOUND, GrpcCode::NotFound, "Not found", false, No),
            E::VersionConflict { .. }     => row("VERSION_CONFLICT", S::CONFLICT, GrpcCode::Aborted, "Version conflict", false, No),
            E::IdempotencyKeyReused       => row("IDEMPOTENCY_KEY_REUSED", S::CONFLICT, GrpcCode::FailedPrecondition, "Idempotency key reused", false, No),
            E::MembershipConflict { .. }  => row("MEMBERSHIP_CONFLICT", S::CONFLICT, GrpcCode::FailedPrecondition, "Membership conflict", false, No),
            E::QuorumAtRisk { .. }        => row("QUORUM_AT_RISK", S::CONFLICT, GrpcCode::FailedPrecondition, "Quorum at risk", false, No),
            E::RevisionCompacted { .. }   => row("REVISION_COMPACTED", S::GONE, GrpcCode::OutOfRange, "Revision compacted", false, No),
            E::PayloadTooLarge { .. }     => row("PAYLOAD_TOO_LARGE", S::PAYLOAD_TOO_LARGE, GrpcCode::InvalidArgument, "Payload too large", false, No),
            E::SchemaViolation { .. }     => row("SCHEMA_VIOLATION", S::UNPROCESSABLE_ENTITY, GrpcCode::InvalidArgument, "Schema violation", false, No),
            E::NoLeader                   => row("NO_LEADER", S::SERVICE_UNAVAILABLE, GrpcCode::Unavailable, "No leader", true, No),
            E::NotReady { .. }            => row("NOT_READY", S::SERVICE_UNAVAILABLE, GrpcCode::Unavailable, "Not ready", true, No),
            E::Overloaded { .. }          => row("OVERLOADED", S::SERVICE_UNAVAILABLE, GrpcCode::ResourceExhausted, "Overloaded", true, No),
            E::Stale { .. }               => row("STALE", S::SERVICE_UNAVAILABLE, GrpcCode::Unavailable, "State too old", true, No),
            // Sending it again is safe only when the cluster can recognise it.
            E::OutcomeUnknown { idempotent, .. } => row("OUTCOME_UNKNOWN", S::GATEWAY_TIMEOUT, GrpcCode::DeadlineExceeded, "Outcome unknown", *idempotent, Unknown),
            E::MembershipUnknown { .. }   => row("OUTCOME_UNKNOWN", S::GATEWAY_TIMEOUT, GrpcCode::DeadlineExceeded, "Outcome unknown", true, Unknown),
            E::StorageFull { .. }         => row("STORAGE_FULL", S::INSUFFICIENT_STORAGE, GrpcCode::ResourceExhausted, "Storage full", false, No),
            E::Unauthenticated { .. }     => row("UNAUTHENTICATED", S::UNAUTHORIZED, GrpcCode::Unauthenticated, "Not authenticated", false, No),
            E::PermissionDenied { .. }    => row("PERMISSION_DENIED", S::FORBIDDEN, GrpcCode::PermissionDenied, "Permission denied", false, No),
            E::RateLimited { .. }         => row("RATE_LIMITED", S::TOO_MANY_REQUESTS, GrpcCode::ResourceExhausted, "Too many requests", true, No),
            E::Banned { .. }              => row("BANNED", S::FORBIDDEN, GrpcCode::PermissionDenied, "Address banned", false, No),
            E::SecretsUnavailable { .. }  => row("SECRETS_UNAVAILABLE", S::SERVICE_UNAVAILABLE, GrpcCode::FailedPrecondition, "Secrets unavailable", false, No),
            E::Internal { effect, .. }    => row("INTERNAL", S::INTERNAL_SERVER_ERROR, GrpcCode::Internal, "Internal fault", false, *effect),
        }
    }

    pub fn invalid(field: impl Into<Cow<'static, str>>, reason: impl Into<String>) -> Self {
        ServiceError::InvalidArgument { field: field.into(), reason: reason.into() }
    }

    /// The stable word that programs compare.
    pub fn code(&self) -> &'static str {
        self.row().code
    }

    pub fn status(&self) -> StatusCode {
        self.row().status
    }

    pub fn grpc(&self) -> GrpcCode {
        self.row().grpc
    }

    pub fn title(&self) -> &'static str {
        self.row().title
    }

    pub fn retryable(&self) -> bool {
        self.row().retryable
    }

    pub fn effect(&self) -> Effect {
        self.row().effect
    }

    /// How long a caller should wait before it tries again; only for refusals that pass by themselves.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            ServiceError::RateLimited { retry_after_s }
            | ServiceError::Banned { retry_after_s, .. } => {
                Some(Duration::from_secs(*retry_after_s))
            }
            ServiceError::SecretsUnavailable { .. } => None,
            _ => {
                (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(Duration::from_secs(1))
            }
        }
    }

    /// The state that a "not there" was read from; other errors tell nothing about the state.
    pub fn revision(&self) -> Option<u64> {
        match self {
            ServiceError::NotFound { revision, .. } => *revision,
            _ => None,
        }
    }

    /// What a value does not meet.
    pub fn violations(&self) -> &[Violation] {
        match self {
            ServiceError::SchemaViolation { violations, .. } => violations,
            _ => &[],
        }
    }

    /// The numbers that some codes carry besides the common members.
    pub fn extensions(&self) -> Vec<(&'static str, u64)> {
        match self {
            ServiceError::VersionConflict { current_version } => {
                vec![("current_version", *current_version)]
            }
            ServiceError::RevisionCompacted { oldest_revision } => {
                vec![("oldest_revision", *oldest_revision)]
            }
            _ => Vec::new(),
        }
    }
}

impl From<InvalidArgument> for ServiceError {
    fn from(error: InvalidArgument) -> Self {
        ServiceError::invalid(error.field, error.reason)
    }
}

impl From<ValueError> for ServiceError {
    fn from(error: ValueError) -> Self {
        match error {
            ValueError::TooLarge { .. } => ServiceError::PayloadTooLarge {
                what: "value".into(),
                limit: limits::VALUE_BYTES_MAX as u64,
            },
            ValueError::Invalid(invalid) => invalid.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each variant. The match makes a new variant a compile error until it is listed here.
    fn every_variant() -> Vec<ServiceError> {
        use ServiceError as E;
        let all = vec![
            E::invalid("key", "is empty"),
            E::UnsupportedMediaType { found: "text/plain".into() },
            E::MethodNotAllowed { method: "PATCH".into() },
            E::NotFound { what: "no such entry".into(), revision: None },
            E::VersionConflict { current_version: 3 },
            E::IdempotencyKeyReused,
            E::MembershipConflict { reason: "another change is under way".into() },
            E::QuorumAtRisk { reason: "one of two would be left".into() },
            E::RevisionCompacted { oldest_revision: 7 },
            E::PayloadTooLarge { what: "value".into(), limit: 1 },
            E::SchemaViolation {
                of: "k in app".into(),
                violations: vec![Violation { path: "/a".into(), message: "is missing".into() }],
            },
            E::NoLeader,
            E::NotReady { reason: "starting".into() },
            E::Overloaded { reason: "requests".into() },
            E::Stale { reason: "behind".into() },
            E::OutcomeUnknown { reason: "no answer in time".into(), idempotent: true },
            E::MembershipUnknown { reason: "no answer in time".into() },
            E::StorageFull { reason: "node 1 stores too much".into() },
            E::Unauthenticated { reason: "send a token".into() },
            E::PermissionDenied { reason: "write needs another role".into() },
            E::RateLimited { retry_after_s: 2 },
            E::Banned { until_ms: 60_000, retry_after_s: 60 },
            E::SecretsUnavailable { reason: "it has no master key".into() },
            E::Internal { reason: "fault".into(), effect: Effect::Unknown },
        ];
        for error in &all {
            match error {
                E::InvalidArgument { .. }
                | E::UnsupportedMediaType { .. }
                | E::MethodNotAllowed { .. } => {}
                E::NotFound { .. } | E::VersionConflict { .. } | E::IdempotencyKeyReused => {}
                E::MembershipConflict { .. }
                | E::QuorumAtRisk { .. }
                | E::MembershipUnknown { .. } => {}
                E::RevisionCompacted { .. }
                | E::PayloadTooLarge { .. }
                | E::SchemaViolation { .. }
                | E::NoLeader
                | E::NotReady { .. } => {}
                E::Overloaded { .. }
                | E::Stale { .. }
                | E::OutcomeUnknown { .. }
                | E::StorageFull { .. } => {}
                E::Unauthenticated { .. }
                | E::PermissionDenied { .. }
                | E::RateLimited { .. }
                | E::Banned { .. }
                | E::SecretsUnavailable { .. } => {}
                E::Internal { .. } => {}
            }
        }
        all
    }

    #[test]
    fn the_table_is_the_contract() {
        let seen: Vec<_> = every_variant()
            .iter()
            .map(|e| (e.code(), e.status().as_u16(), e.retryable(), e.effect().as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("INVALID_ARGUMENT", 400, false, "no"),
                ("INVALID_ARGUMENT", 415, false, "no"),
                ("INVALID_ARGUMENT", 405, false, "no"),
                ("NOT_FOUND", 404, false, "no"),
                ("VERSION_CONFLICT", 409, false, "no"),
                ("IDEMPOTENCY_KEY_REUSED", 409, false, "no"),
                ("MEMBERSHIP_CONFLICT", 409, false, "no"),
                ("QUORUM_AT_RISK", 409, false, "no"),
                ("REVISION_COMPACTED", 410, false, "no"),
                ("PAYLOAD_TOO_LARGE", 413, false, "no"),
                ("SCHEMA_VIOLATION", 422, false, "no"),
                ("NO_LEADER", 503, true, "no"),
                ("NOT_READY", 503, true, "no"),
                ("OVERLOADED", 503, true, "no"),
                ("STALE", 503, true, "no"),
                ("OUTCOME_UNKNOWN", 504, true, "unknown"),
                ("OUTCOME_UNKNOWN", 504, true, "unknown"),
                ("STORAGE_FULL", 507, false, "no"),
                ("UNAUTHENTICATED", 401, false, "no"),
                ("PERMISSION_DENIED", 403, false, "no"),
                ("RATE_LIMITED", 429, true, "no"),
                ("BANNED", 403, false, "no"),
                ("SECRETS_UNAVAILABLE", 503, false, "no"),
                ("INTERNAL", 500, false, "unknown"),
            ]
        );
    }

    #[test]
    fn every_error_explains_itself() {
        for error in every_variant() {
            assert!(error.status().is_client_error() || error.status().is_server_error());
            assert_ne!(error.grpc(), GrpcCode::Ok, "{error:?}");
            assert!(!error.title().is_empty() && !error.to_string().is_empty());
        }
    }

    #[test]
    fn what_passes_by_itself_says_when() {
        let seconds = |error: &ServiceError| error.retry_after().map(|wait| wait.as_secs());
        for error in every_variant() {
            let expected = match error.code() {
                "NO_LEADER" | "NOT_READY" | "OVERLOADED" | "STALE" => Some(1),
                "RATE_LIMITED" => Some(2),
                "BANNED" => Some(60),
                _ => None,
            };
            assert_eq!(seconds(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn who_may_come_in_again_is_told_apart_over_grpc_too() {
        let codes: Vec<_> = every_variant()
            .iter()
            .filter(|error| matches!(error.status().as_u16(), 401 | 403 | 429))
            .map(|error| (error.code(), error.grpc()))
            .collect();
        assert_eq!(
            codes,
            [
                ("UNAUTHENTICATED", GrpcCode::Unauthenticated),
                ("PERMISSION_DENIED", GrpcCode::PermissionDenied),
                ("RATE_LIMITED", GrpcCode::ResourceExhausted),
                ("BANNED", GrpcCode::PermissionDenied),
            ]
        );
        let secrets = ServiceError::SecretsUnavailable { reason: "x".into() };
        assert_eq!(secrets.grpc(), GrpcCode::FailedPrecondition);
    }

    #[test]
    fn a_ban_says_until_when() {
        let text = |until_ms| ServiceError::Banned { until_ms, retry_after_s: 1 }.to_string();
        assert!(text(1_700_000_000_999).contains("until 2023-11-14T22:13:20Z"), "{}", text(1));
        assert!(!text(u64::MAX).is_empty(), "a time beyond all calendars is no fault");
    }

    #[test]
    fn an_unknown_outcome_is_retryable_only_with_an_idempotency_key() {
        let error = ServiceError::OutcomeUnknown { reason: "x".into(), idempotent: false };
        assert!(!error.retryable());
    }

    #[test]
    fn conflicts_and_compaction_carry_their_numbers() {
        assert_eq!(
            ServiceError::VersionConflict { current_version: 3 }.extensions(),
            [("current_version", 3)]
        );
        assert_eq!(
            ServiceError::RevisionCompacted { oldest_revision: 7 }.extensions(),
            [("oldest_revision", 7)]
        );
    }
}
