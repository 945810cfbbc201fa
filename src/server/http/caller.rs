//! Who asks, as the envelope found out. A handler that wants to know cannot be reached without it.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::AppState;
use super::problem::Failure;
use crate::access::Caller;
use crate::error::{Effect, ServiceError};

/// The caller of a request.
pub(super) struct Asking(pub(super) Caller);

impl FromRequestParts<AppState> for Asking {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &AppState) -> Result<Self, Failure> {
        parts.extensions.get::<Caller>().cloned().map(Asking).ok_or_else(|| {
            Failure(ServiceError::Internal {
                reason: "the route is not one that callers enter by".into(),
                effect: Effect::No,
            })
        })
    }
}
