//! Errors as RFC 9457 problem documents.
//!
//! A handler answers `Failure`; the envelope around all routes renders it, because only there the request's id and
//! path are known. What an error means is the error table's, not decided here.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::{ServiceError, Violation};

/// The media type of problem documents.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// An error on its way to the envelope.
#[derive(Debug, Clone)]
pub(super) struct Failure(pub(super) ServiceError);

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Failure(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What went wrong, in RFC 9457 form.
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    /// Identifies the kind of problem.
    #[schema(example = "urn:llm-config:problem:version-conflict")]
    pub r#type: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened and what to do; names the field at fault.
    pub detail: String,
    /// The path of the request.
    pub instance: String,
    /// The stable word to compare.
    #[schema(example = "VERSION_CONFLICT")]
    pub code: String,
    /// The `X-Request-Id` of the answer.
    pub request_id: String,
    /// Whether the very same request may be sent again.
    pub retryable: bool,
    /// `no`: it did not happen and will not; `unknown`: it may have happened.
    #[schema(example = "no")]
    pub applied: String,
    /// With `VERSION_CONFLICT`: the version that the entry has; 0 when it does not exist.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<u64>,
    /// With `REVISION_COMPACTED`: the oldest revision that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_revision: Option<u64>,
    /// With `SCHEMA_VIOLATION`: what the value does not meet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub violations: Vec<Violation>,
}

/// Fills in the body and the headers of an error.
pub(super) fn render(
    response: Response,
    error: &ServiceError,
    request_id: &str,
    instance: &str,
) -> Response {
    let (mut parts, _) = response.into_parts();
    if let Some(wait) = error.retry_after() {
        parts.headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    if error.status() == StatusCode::UNAUTHORIZED {
        parts.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.status = error.status();
    Response::from_parts(parts, body(error, request_id, instance).into())
}

/// The problem document of an error.
pub(super) fn body(error: &ServiceError, request_id: &str, instance: &str) -> Vec<u8> {
    let kind = error.code().to_ascii_lowercase().replace('_', "-");
    let extensions = error.extensions();
    let extension =
        |name: &str| extensions.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    let problem = Problem {
        r#type: format!("urn:llm-config:problem:{kind}"),
        title: error.title().to_owned(),
        status: error.status().as_u16(),
        detail: error.to_string(),
        instance: instance.to_owned(),
        code: error.code().to_owned(),
        request_id: request_id.to_owned(),
        retryable: error.retryable(),
        applied: error.effect().as_str().to_owned(),
        current_version: extension("current_version"),
        oldest_revision: extension("oldest_revision"),
        violations: error.violations().to_vec(),
    };
    // Texts and numbers always serialise.
    serde_json::to_vec(&problem).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_and_the_extensions_of_its_code() {
        let error = ServiceError::VersionConflict { current_version: 3 };
        let body: serde_json::Value =
            serde_json::from_slice(&body(&error, "r-1", "/api/v1/configs/a/b")).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "type": "urn:llm-config:problem:version-conflict",
                "title": "Version conflict",
                "status": 409,
                "detail": error.to_string(),
                "instance": "/api/v1/configs/a/b",
                "code": "VERSION_CONFLICT",
                "request_id": "r-1",
                "retryable": false,
                "applied": "no",
                "current_version": 3,
            })
        );
    }
    #[test]
    fn a_refusal_says_how_to_be_let_in_or_when() {
        let headers = |error: ServiceError| {
            let response = Failure(error.clone()).into_response();
            render(response, &error, "r-1", "/").headers().clone()
        };
        let unknown = headers(ServiceError::Unauthenticated { reason: "send a token".into() });
        assert_eq!(unknown[header::WWW_AUTHENTICATE], "Bearer");
        assert!(!unknown.contains_key(header::RETRY_AFTER));

        let limited = headers(ServiceError::RateLimited { retry_after_s: 2 });
        assert_eq!(limited[header::RETRY_AFTER], "2");
        let banned = headers(ServiceError::Banned { until_ms: 0, retry_after_s: 3600 });
        assert_eq!(banned[header::RETRY_AFTER], "3600");
        for other in [limited, banned] {
            assert!(!other.contains_key(header::WWW_AUTHENTICATE));
        }
    }
}
