//! A whole namespace as an application sees it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::caller::Asking;
use super::headers::Headers;
use super::openapi::{ReadErrors, ResolveDocument};
use super::params::{ENV, Query, REVEAL, query_parameters};
use super::path::Segments;
use super::render::{self, AnswerRevision, Object};
use super::{Answer, AppState};
use crate::service::{ResolveAnswer, ResolveRequest};

query_parameters! {
    ResolveParameters: [ENV, REVEAL, CONSISTENCY, MIN_REVISION, MAX_STALENESS]
}

/// A namespace as an application in one environment sees it
///
/// Each key from the environment itself or from where it falls back to. The `ETag` changes with the content only, so
/// that `If-None-Match` answers 304 while nothing in this namespace changed. Secrets are masked unless `reveal=true`.
#[utoipa::path(
    get, path = "/api/v1/resolve/{ns}", tag = "configs", operation_id = "resolve",
    params(
        ("ns" = String, Path, description = "Namespace; a `/` in it is written `%2F`"),
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of an earlier answer"),
        ResolveParameters,
    ),
    responses(
        (status = 200, description = "Values and where they come from", body = ResolveDocument),
        (status = 304, description = "The content is still that of `If-None-Match`"),
        ReadErrors,
    )
)]
pub(super) async fn resolve(
    State(state): State<AppState>,
    Asking(caller): Asking,
    segments: Segments,
    query: Query<ResolveParameters>,
    headers: Headers,
) -> Answer {
    let request = ResolveRequest {
        namespace: segments.namespace()?,
        environment: query.text(ENV),
        reveal: query.flag(REVEAL)?,
        read: query.read_options()?,
    };
    let answer = state.service.resolve(&state.service.context(caller, None), request).await?;
    let tag = format!("\"{}\"", answer.digest);
    let mut response =
        if headers.has_content(&tag) { unchanged(answer.revision) } else { content(&answer) };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    // A client may keep it, but has to ask before each use.
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    Ok(response)
}

fn unchanged(revision: u64) -> Response {
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    response.extensions_mut().insert(AnswerRevision(revision));
    response
}

fn content(answer: &ResolveAnswer) -> Response {
    render::object(StatusCode::OK, answer.revision, |object| {
        object.member("namespace", answer.namespace.as_str());
        object.member("environment", answer.environment.as_str());
        let mut values = Object::open(object.raw("values"));
        for (key, value, _) in &answer.values {
            render::value(values.raw(key.as_str()), value, answer.revealed.get(key));
        }
        values.close();
        let mut sources = Object::open(object.raw("sources"));
        for (key, _, source) in &answer.values {
            sources.member(key.as_str(), source.as_str());
        }
        sources.close();
        object.member("revision", &answer.revision);
    })
}
