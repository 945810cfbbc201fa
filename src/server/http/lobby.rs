//! What a node answers while it has nothing to serve yet: it lives, and everything else has to wait.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use uuid::Uuid;

use super::problem;
use crate::error::ServiceError;
use crate::health;
use crate::request_id::REQUEST_ID;

/// The routes of a node without a cluster. `reason` ends the sentence "this node cannot answer yet: …".
pub fn lobby(reason: String) -> Router {
    Router::new().route("/health/live", get(health::live)).fallback(refuse).with_state(reason)
}

async fn refuse(State(reason): State<String>, request: Request) -> Response {
    let request_id = Uuid::now_v7().to_string();
    let error = ServiceError::NotReady { reason };
    let empty = StatusCode::SERVICE_UNAVAILABLE.into_response();
    let mut response = problem::render(empty, &error, &request_id, request.uri().path());
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn get(path: &str) -> (StatusCode, serde_json::Value) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = lobby("it looks for its cluster".into()).oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_node_without_a_cluster_lives_and_serves_nothing() {
        assert_eq!(get("/health/live").await.0, StatusCode::OK);
        for path in ["/health", "/health/ready", "/health/leader", "/api/v1/cluster", "/x"] {
            let (status, body) = get(path).await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!((&body["code"], &body["applied"]), (&"NOT_READY".into(), &"no".into()));
            assert!(body["detail"].as_str().unwrap().contains("looks for its cluster"), "{body}");
        }
    }
}
