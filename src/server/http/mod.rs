//! The HTTP door: REST under `/api/v1`, health, OpenAPI.
//!
//! A handler takes a request apart, calls the service and renders what comes back; it decides nothing. Routes and the
//! OpenAPI document come from one place (`openapi.rs`), and every answer passes through `envelope.rs` and `browser.rs`.

mod audit;
mod backup;
mod body;
mod browser;
mod caller;
mod cluster;
mod configs;
mod envelope;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod headers;
mod history;
mod listings;
mod lobby;
mod members;
mod openapi;
mod params;
mod path;
mod problem;
mod render;
mod resolve;
mod schemas;
mod security;
mod txn;
mod watch;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use utoipa_swagger_ui::{Config, SwaggerUi};

use crate::error::ServiceError;
use crate::health;
use crate::service::Service;
use problem::Failure;

pub use browser::Browser;
pub use lobby::lobby;
pub use openapi::document;

/// What every handler works with.
#[derive(Clone)]
pub struct AppState {
    pub service: Service,
}

impl AppState {
    pub fn new(service: Service) -> Self {
        AppState { service }
    }
}

/// What a handler answers.
type Answer = Result<Response, Failure>;

/// Everything that this node serves over HTTP, metrics excepted.
pub fn router(state: AppState, browser: &Browser) -> Router {
    let (api, document) = openapi::routes().split_for_parts();
    let api: Router = api.with_state(state.clone());
    // Without a validator, the page tells nobody else where this node is.
    let page = Config::default().validator_url("none");
    let router = Router::new()
        .merge(api)
        .merge(health::router(state.clone()))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document).config(page))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(not_found)
        .layer(from_fn_with_state((state, browser.clone()), envelope::envelope));
    browser.protect(router)
}

async fn not_found(request: Request) -> Failure {
    let shown: String = request.uri().path().chars().take(256).collect();
    let what = format!(
        "there is no path {shown}; a '/' inside a namespace or key is written %2F, see /docs"
    );
    Failure(ServiceError::NotFound { what, revision: None })
}

async fn method_not_allowed(request: Request) -> Failure {
    let method = request.method().as_str().chars().take(32).collect();
    Failure(ServiceError::MethodNotAllowed { method })
}
