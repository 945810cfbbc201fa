//! Service errors as gRPC statuses: the table of `crate::error` with a `google.rpc.ErrorInfo`.

use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::ServiceError;

/// `ErrorInfo.domain` of every error.
pub(super) const DOMAIN: &str = "llm-config";

/// `leader` is the client gRPC address of the leader, when known.
pub(super) fn status(error: &ServiceError, leader: Option<&str>) -> Status {
    let mut metadata = HashMap::from([
        ("retryable".to_owned(), error.retryable().to_string()),
        ("applied".to_owned(), error.effect().as_str().to_owned()),
    ]);
    metadata.extend(
        error.extensions().into_iter().map(|(name, value)| (name.to_owned(), value.to_string())),
    );
    metadata.extend(leader.map(|leader| ("leader".to_owned(), leader.to_owned())));
    let mut details = ErrorDetails::with_error_info(error.code(), DOMAIN, metadata);
    match error {
        ServiceError::InvalidArgument { field, reason } => {
            details.add_bad_request_violation(field.to_string(), reason);
        }
        ServiceError::SchemaViolation { violations, .. } => {
            for violation in violations {
                details.add_bad_request_violation(&violation.path, &violation.message);
            }
        }
        _ => {}
    }
    if let Some(delay) = error.retry_after() {
        details.set_retry_info(Some(delay));
    }
    Status::with_error_details(error.grpc(), error.to_string(), details)
}

/// What tonic itself refused before the service saw it, in the service's words; `None` when it is not such a refusal.
pub(super) fn of_undecodable(status: &Status, request_bytes_max: usize) -> Option<ServiceError> {
    if !status.details().is_empty() {
        return None;
    }
    let message = status.message();
    match status.code() {
        Code::Internal if message.contains("failed to decode Protobuf message") => {
            Some(ServiceError::invalid(
                "request",
                format!("is not the message of this method ({message})"),
            ))
        }
        Code::OutOfRange | Code::ResourceExhausted
            if message.contains("decoded message length too large") =>
        {
            Some(ServiceError::PayloadTooLarge {
                what: "request".into(),
                limit: request_bytes_max as u64,
            })
        }
        _ => None,
    }
}

/// The name of a code as gRPC writes it.
/// Every name that [`code_name`] gives.
pub(super) const CODE_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) fn code_name(code: Code) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Violation;

    #[test]
    fn every_code_has_a_name_in_the_list() {
        for (number, name) in (0..).zip(CODE_NAMES) {
            assert_eq!(code_name(Code::from(number)), name);
        }
    }

    #[test]
    fn an_error_carries_its_stable_code_and_numbers() {
        let status = status(&ServiceError::VersionConflict { current_version: 7 }, Some("a:1"));
        assert_eq!(status.code(), Code::Aborted);
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("VERSION_CONFLICT", DOMAIN));
        let expected = [
            ("retryable", "false"),
            ("applied", "no"),
            ("current_version", "7"),
            ("leader", "a:1"),
        ];
        assert_eq!(info.metadata, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn what_is_wrong_with_a_request_is_told_field_by_field() {
        let told = |error| {
            let request = status(&error, None).get_details_bad_request().unwrap();
            let fields = request.field_violations.into_iter();
            fields.map(|one| (one.field, one.description)).collect::<Vec<_>>()
        };
        let invalid = ServiceError::invalid("limit", "must be 1 to 1000");
        assert_eq!(told(invalid), [("limit".to_owned(), "must be 1 to 1000".to_owned())]);
        let violation = |path: &str| Violation { path: path.into(), message: "is wrong".into() };
        let violations = vec![violation(""), violation("/a")];
        let unmet = ServiceError::SchemaViolation { of: "k in app".into(), violations };
        let wrong = |path: &str| (path.to_owned(), "is wrong".to_owned());
        assert_eq!(told(unmet), [wrong(""), wrong("/a")]);
    }

    #[test]
    fn passing_refusals_say_when_to_come_back() {
        let status = status(&ServiceError::NoLeader, None);
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
        let limited = super::status(&ServiceError::RateLimited { retry_after_s: 2 }, None);
        assert_eq!(limited.code(), Code::ResourceExhausted);
        let delay = limited.get_details_retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(std::time::Duration::from_secs(2)));
    }
}
