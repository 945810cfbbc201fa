//! What every request and answer has in common: admission, who asks, request id, node headers, problem documents,
//! metrics.
//!
//! It wraps all routes and the fallbacks, so that no answer leaves without these, not even after a panic.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderName, HeaderValue, Method, header};

use super::AppState;
use super::body::TXN_BODY_BYTES_MAX;
use super::browser::Browser;
use super::problem::{self, Failure};
use super::render::AnswerRevision;
use crate::admission::Permit;
use crate::error::{Effect, ServiceError};
use crate::holding;
use crate::limits::Decision;
use crate::peer::{ClientCertificate, PeerAddress};
use crate::request_id::{REQUEST_ID, RequestId};
use crate::service::{Entered, Knock, TurnedAway};

const NODE: HeaderName = HeaderName::from_static("x-config-node");
const LEADER: HeaderName = HeaderName::from_static("x-config-leader");
const REVISION: HeaderName = HeaderName::from_static("x-config-revision");

/// The route of requests that match none, as a metric label.
const UNMATCHED: &str = "unmatched";

/// The one route whose answers do not end, so that they are bounded elsewhere.
pub(super) const WATCH_ROUTE: &str = "/api/v1/watch";

pub(super) async fn envelope(
    State((state, browser)): State<(AppState, Browser)>,
    mut request: Request,
    next: Next,
) -> Response {
    let begun = Instant::now();
    let id = RequestId::of(request.headers());
    let method = request.method().clone();
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);

    let (response, left) = match admit(&state, &request, route) {
        Ok(permit) => match enter(&state, &mut request, route, id.text()).await {
            Ok(left) => {
                let response = match browser.refusal(&request) {
                    Some(error) => Failure(error).into_response(),
                    None => answer(request, next, &method).await,
                };
                (hold(permit, response), left)
            }
            Err(refused) => (Failure(refused.error).into_response(), refused.left),
        },
        Err(refusal) => (Failure(refusal).into_response(), None),
    };
    let mut response = finish(&state, response, id, uri.path());
    if let Some(left) = left {
        left.write(response.headers_mut());
    }
    let status = response.status().as_u16();
    state.service.metrics().http(label(&method), route, status, begun.elapsed());
    response
}

/// Takes room for a request to the API; health and documentation are always answered.
fn admit(state: &AppState, request: &Request, route: &str) -> Result<Option<Permit>, ServiceError> {
    if !route.starts_with("/api/") || route == WATCH_ROUTE {
        return Ok(None);
    }
    // A body without a length is charged the largest one that would be read.
    let upper = HttpBody::size_hint(request.body()).upper().unwrap_or(u64::MAX);
    let bytes = usize::try_from(upper).unwrap_or(usize::MAX).min(TXN_BODY_BYTES_MAX);
    state.service.admission().enter(bytes).map(Some)
}

/// Finds out who asks. Health and documentation are for everybody, and never limited.
async fn enter(
    state: &AppState,
    request: &mut Request,
    route: &str,
    request_id: &Arc<str>,
) -> Result<Option<Decision>, TurnedAway> {
    if !route.starts_with("/api/") {
        return Ok(None);
    }
    // Over a listener there always is one.
    let peer = request.extensions().get::<PeerAddress>();
    let knock = Knock {
        peer: peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.0.ip()),
        headers: request.headers(),
        certificate: request.extensions().get::<ClientCertificate>(),
        request_id,
        verb: request.method().as_str(),
        path: request.uri().path(),
    };
    let Entered { caller, left } = state.service.enter(knock).await?;
    request.extensions_mut().insert(caller);
    Ok(left)
}

/// Keeps the room until the answer has been taken by the connection: a client that does not read holds its answer here.
fn hold(permit: Option<Permit>, response: Response) -> Response {
    let Some(mut permit) = permit else { return response };
    let bytes = HttpBody::size_hint(response.body()).exact().unwrap_or(0);
    permit.charge(usize::try_from(bytes).unwrap_or(0));
    holding::hold(response, permit, |_, _| {}).map(Body::new)
}

async fn answer(request: Request, next: Next, method: &Method) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            let effect = if method.is_safe() { Effect::No } else { Effect::Unknown };
            Failure(ServiceError::Internal {
                reason: "the request could not be handled".into(),
                effect,
            })
            .into_response()
        }
    }
}

/// Renders errors and puts the common headers on.
fn finish(state: &AppState, response: Response, id: RequestId, path: &str) -> Response {
    let request_id: &str = id.text();
    let mut revision = response.extensions().get::<AnswerRevision>().map(|revision| revision.0);
    let mut response = match response.extensions().get::<Failure>().cloned() {
        None => response,
        Some(Failure(error)) => {
            if matches!(error, ServiceError::Internal { .. }) {
                tracing::error!(request_id, path, %error, "request failed");
            }
            revision = error.revision();
            problem::render(response, &error, request_id, path)
        }
    };
    let replica = state.service.replica();
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id.into_header());
    headers.insert(NODE, HeaderValue::from(replica.node_id()));
    if let Some(leader) = replica.leader_id() {
        headers.insert(LEADER, HeaderValue::from(leader));
    }
    headers.insert(
        REVISION,
        HeaderValue::from(revision.unwrap_or_else(|| replica.applied_revision())),
    );
    if !headers.contains_key(header::CACHE_CONTROL) && path.starts_with("/api/") {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// Methods are a caller's to invent; labels are not.
fn label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::from_fn;
    use axum::routing::any;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_internal_fault() {
        async fn handler() {
            panic!("a fault of ours");
        }
        for (method, effect) in [(Method::GET, Effect::No), (Method::PUT, Effect::Unknown)] {
            let guard = |request: Request, next: Next| async move {
                let method = request.method().clone();
                answer(request, next, &method).await
            };
            let app = Router::new().route("/", any(handler)).layer(from_fn(guard));
            let request = Request::builder().method(method).uri("/").body(Body::empty()).unwrap();
            let response = app.oneshot(request).await.unwrap();
            let Failure(error) = response.extensions().get::<Failure>().unwrap();
            assert_eq!((error.code(), error.effect()), ("INTERNAL", effect));
        }
    }

    #[test]
    fn invented_methods_share_a_label() {
        assert_eq!(label(&Method::from_bytes(b"BREW").unwrap()), "OTHER");
    }
}
