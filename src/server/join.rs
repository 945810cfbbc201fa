//! How a node that founds nothing finds its cluster: it asks the nodes of `--join` over HTTP until one names it.
//!
//! It only asks. Taking the node in is the operator's decision (`llm-config cluster add`).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

/// How long one node may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after every node was asked in vain; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is read: a cluster of hundreds of nodes has less.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is read of the answer to `GET /api/v1/cluster`.
#[derive(Deserialize)]
struct Answer {
    cluster_id: Option<String>,
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// The id of the cluster that the first of these nodes to answer belongs to. Asks until there is one: the nodes may be
/// started in any order.
pub(crate) async fn cluster_id(urls: &[String]) -> String {
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    let mut pause = PAUSE_FIRST;
    loop {
        let mut reasons = Vec::new();
        for url in urls {
            match ask(&client, url).await {
                Ok(cluster_id) => {
                    tracing::info!(%cluster_id, url, "found the cluster to join");
                    return cluster_id;
                }
                Err(reason) => reasons.push(format!("{url}: {reason}")),
            }
        }
        tracing::warn!(
            "--join: no node names a cluster yet ({}); asking again in {pause:?}",
            reasons.join("; ")
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn ask(client: &Http, url: &str) -> Result<String, String> {
    match tokio::time::timeout(ASK_TIMEOUT, get(client, url)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ASK_TIMEOUT:?}")),
    }
}

async fn get(client: &Http, url: &str) -> Result<String, String> {
    let uri = format!("{url}/api/v1/cluster").parse().map_err(|_| "is no URL".to_owned())?;
    let response = client.get(uri).await.map_err(|error| chain(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
    if !status.is_success() {
        return Err(format!("answered {status}"));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| {
        "does not answer like a node of a cluster; is it its HTTP address?".to_owned()
    })?;
    answer.cluster_id.ok_or_else(|| "it belongs to no cluster itself yet".to_owned())
}

/// An error with its causes: the outermost alone says "client error".
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;

    use super::*;

    /// A node that answers with this status and text.
    async fn node(status: u16, body: &'static str) -> String {
        let answer =
            move || async move { (axum::http::StatusCode::from_u16(status).unwrap(), body) };
        let router = Router::new().route("/api/v1/cluster", get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    }

    #[tokio::test]
    async fn the_first_node_that_names_a_cluster_is_believed() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let urls = [
            silent,
            node(503, "{}").await,
            node(200, r#"{"cluster_id": null}"#).await,
            node(200, "<html>").await,
            node(200, r#"{"cluster_id": "c-1", "more": 1}"#).await,
            node(200, r#"{"cluster_id": "c-2"}"#).await,
        ];
        assert_eq!(cluster_id(&urls).await, "c-1");
    }

    #[tokio::test]
    async fn every_refusal_says_what_is_wrong() {
        let client: Http = Client::builder(TokioExecutor::new()).build_http();
        for (status, body, part) in [
            (503, "{}", "503"),
            (200, r#"{"cluster_id": null}"#, "no cluster itself"),
            (200, "<html>", "HTTP address"),
        ] {
            let reason = ask(&client, &node(status, body).await).await.unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
    }
}
