//! Which failures of one attempt are worth another, and how long to wait before it.
//!
//! An attempt fails in one of three ways. *Refused before anything was proposed* (`NO_LEADER`, `OVERLOADED`,
//! `RATE_LIMITED`, no connection): try again, not before the time that the node names. *Lost* (the connection broke, no answer in time, `OUTCOME_UNKNOWN`): a write may have
//! happened; trying again is safe because every attempt carries the same idempotency key, but a failure can no longer
//! be reported as "did not happen". *Rejected*: final.

use std::error::Error as _;
use std::time::Duration;

use rand::Rng as _;
use tonic::{Code, ConnectError, Status};
use tonic_types::StatusExt as _;

use crate::error::{Rejection, Violation};

const BACKOFF_FIRST: Duration = Duration::from_millis(25);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// Longest wait that a node is believed; a call gives up before it anyway.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// How one attempt failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection could not be opened.
    Unreachable(String),
    /// The node answered that it proposed nothing and that trying again makes sense, `after` this time if it named one.
    Refused { code: String, reason: String, after: Option<Duration> },
    /// No answer: a write may have happened.
    Lost(String),
    /// Final.
    Rejected(Rejection),
}

impl Failure {
    /// Names the node in the reason; a refusal speaks for the cluster and stays as it is.
    pub(crate) fn at(self, address: &str) -> Self {
        match self {
            Self::Unreachable(reason) => Self::Unreachable(format!("{address}: {reason}")),
            Self::Lost(reason) => Self::Lost(format!("{address}: {reason}")),
            Self::Refused { .. } => self,
            Self::Rejected(rejection) => Self::Rejected(rejection),
        }
    }

    /// How long to wait before the next attempt at least: what the node asked for.
    pub(crate) fn wait(&self) -> Duration {
        match self {
            Self::Refused { after, .. } => after.unwrap_or_default().min(WAIT_MAX),
            Self::Unreachable(_) | Self::Lost(_) | Self::Rejected(_) => Duration::ZERO,
        }
    }

    /// A refusal for what this node alone has too much of: it says nothing about who leads.
    pub(crate) fn is_of_load(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "OVERLOADED" || code == "RATE_LIMITED")
    }

    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Unreachable(reason) | Self::Lost(reason) => reason.clone(),
            Self::Refused { code, reason, .. } => format!("{code}: {reason}"),
            Self::Rejected(rejection) => rejection.to_string(),
        }
    }
}

/// Reads the failure out of a status.
pub(crate) fn classify(status: &Status) -> Failure {
    match status.get_details_error_info() {
        Some(info) => classify_coded(status, info.reason, info.metadata),
        None => classify_bare(status),
    }
}

/// The node's own refusals: they carry a stable code.
fn classify_coded(
    status: &Status,
    code: String,
    details: std::collections::HashMap<String, String>,
) -> Failure {
    let is = |name: &str, value: &str| details.get(name).is_some_and(|v| v == value);
    match code.as_str() {
        "NO_LEADER" | "NOT_READY" | "OVERLOADED" | "STALE" => {
            Failure::Refused { code, reason: status.message().to_owned(), after: None }
        }
        // Too many requests of this caller, on this node, at this moment.
        "RATE_LIMITED" => Failure::Refused {
            code,
            reason: status.message().to_owned(),
            after: status.get_details_retry_info().and_then(|info| info.retry_delay),
        },
        "OUTCOME_UNKNOWN" => Failure::Lost(format!("{code}: {}", status.message())),
        // Codes of later versions say themselves what they mean.
        _ if is("applied", "unknown") => Failure::Lost(format!("{code}: {}", status.message())),
        _ => Failure::Rejected(Rejection {
            code,
            message: status.message().to_owned(),
            details,
            violations: violations(status),
        }),
    }
}

fn violations(status: &Status) -> Vec<Violation> {
    let request = status.get_details_bad_request();
    let fields = request.into_iter().flat_map(|request| request.field_violations);
    fields.map(|one| Violation { path: one.field, message: one.description }).collect()
}

/// Statuses without a code come from the transport, a proxy, or tonic itself.
fn classify_bare(status: &Status) -> Failure {
    if is_connect_error(status) {
        return Failure::Unreachable(chain(status));
    }
    match status.code() {
        // Decided before a handler ran: tonic or a proxy turned the request away.
        Code::Unimplemented
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::InvalidArgument => Failure::Rejected(Rejection {
            code: code_name(status.code()).to_owned(),
            message: status.message().to_owned(),
            details: std::collections::HashMap::new(),
            violations: Vec::new(),
        }),
        _ => Failure::Lost(format!("{}: {}", code_name(status.code()), chain(status))),
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn is_connect_error(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The message with the causes that it does not already name: "tcp connect error" alone helps nobody.
fn chain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = status.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// Full jitter: a random time up to an exponentially growing bound, so that clients that failed together do not come
/// back together.
pub(crate) fn backoff(failures: u32) -> Duration {
    backoff_within(failures, BACKOFF_MAX)
}

/// The same with another upper bound, for what is tried for ever.
pub(crate) fn backoff_within(failures: u32, max: Duration) -> Duration {
    let bound = BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(max);
    bound.mul_f64(rand::rng().random_range(0.0..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn coded(grpc: Code, code: &str, details: &[(&str, &str)]) -> Status {
        let details: std::collections::HashMap<String, String> =
            details.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Status::with_error_details(
            grpc,
            "words",
            ErrorDetails::with_error_info(code, "llmconfig", details),
        )
    }

    #[test]
    fn codes_decide_what_is_tried_again() {
        for code in ["NO_LEADER", "NOT_READY", "OVERLOADED", "STALE"] {
            let failure = classify(&coded(Code::Unavailable, code, &[]));
            assert!(matches!(failure, Failure::Refused { .. }), "{code}");
        }
        for code in ["NOT_FOUND", "VERSION_CONFLICT", "STORAGE_FULL", "INVALID_ARGUMENT"] {
            let failure = classify(&coded(Code::NotFound, code, &[]));
            assert!(matches!(failure, Failure::Rejected(_)), "{code}");
        }
        let failure = classify(&coded(Code::DeadlineExceeded, "OUTCOME_UNKNOWN", &[]));
        assert!(matches!(failure, Failure::Lost(_)));
    }

    #[test]
    fn a_caller_that_is_too_fast_waits_as_long_as_it_is_told() {
        let info = ErrorDetails::with_error_info("RATE_LIMITED", "llm-config", []);
        let mut told = info.clone();
        told.set_retry_info(Some(Duration::from_secs(2)));
        let mut absurd = info.clone();
        absurd.set_retry_info(Some(Duration::from_secs(1 << 40)));
        let cases = [(told, Duration::from_secs(2)), (absurd, WAIT_MAX), (info, Duration::ZERO)];
        for (details, wait) in cases {
            let status = Status::with_error_details(Code::ResourceExhausted, "words", details);
            let failure = classify(&status);
            assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
            assert_eq!(failure.wait(), wait);
            assert!(failure.is_of_load());
        }
    }

    #[test]
    fn each_place_that_is_wrong_is_kept() {
        let mut details = ErrorDetails::with_error_info("SCHEMA_VIOLATION", "llm-config", []);
        details.add_bad_request_violation("/max_tokens", "is too small");
        details.add_bad_request_violation("", "is no object");
        let status = Status::with_error_details(Code::InvalidArgument, "words", details);
        let Failure::Rejected(rejection) = classify(&status) else { panic!("not refused") };
        let places =
            rejection.violations.iter().map(|one| (one.path.as_str(), one.message.as_str()));
        let expected = [("/max_tokens", "is too small"), ("", "is no object")];
        assert_eq!(places.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn who_may_not_is_not_asked_to_try_again() {
        for (grpc, code) in [
            (Code::Unauthenticated, "UNAUTHENTICATED"),
            (Code::PermissionDenied, "PERMISSION_DENIED"),
            (Code::PermissionDenied, "BANNED"),
            (Code::FailedPrecondition, "SECRETS_UNAVAILABLE"),
        ] {
            let mut details = ErrorDetails::with_error_info(code, "llm-config", []);
            details.set_retry_info(Some(Duration::from_secs(60)));
            let failure = classify(&Status::with_error_details(grpc, "words", details));
            assert!(matches!(failure, Failure::Rejected(_)), "{code}: {failure:?}");
        }
    }

    #[test]
    fn an_unknown_code_is_final_unless_it_may_have_been_applied() {
        let unsure = classify(&coded(Code::Internal, "NEW_CODE", &[("applied", "unknown")]));
        assert!(matches!(unsure, Failure::Lost(_)));
        let refused = classify(&coded(Code::Internal, "NEW_CODE", &[("applied", "no")]));
        assert!(matches!(refused, Failure::Rejected(_)));
    }

    #[test]
    fn the_extensions_of_a_refusal_are_readable() {
        let status = coded(Code::Aborted, "VERSION_CONFLICT", &[("current_version", "7")]);
        let Failure::Rejected(rejection) = classify(&status) else {
            panic!("a conflict is final");
        };
        assert_eq!(rejection.current_version(), Some(7));
        assert_eq!(rejection.oldest_revision(), None);
    }

    #[test]
    fn a_status_without_a_code_may_have_been_applied() {
        assert!(matches!(classify(&Status::unavailable("broken pipe")), Failure::Lost(_)));
        assert!(matches!(classify(&Status::internal("h2")), Failure::Lost(_)));
        assert!(matches!(classify(&Status::unimplemented("no")), Failure::Rejected(_)));
    }

    #[test]
    fn backoff_is_bounded() {
        for failures in 0..40 {
            assert!(backoff(failures) <= BACKOFF_MAX);
        }
        assert!(backoff(0) <= BACKOFF_FIRST);
    }
}
