//! How a node that founds nothing finds its cluster: it asks the nodes of `--join` over HTTP or HTTPS until one names it.
//!
//! It only asks, and asks for what everybody may see (`GET /health`): it has no token. Taking the node in is the
//! operator's decision (`llm-config cluster add`).

use std::path::Path;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use llm_config_domain::limits;
use llm_config_replica::StartError;
use llm_config_tls::{TlsError, outgoing};
use rustls::ClientConfig;
use serde::Deserialize;

use crate::outbound::{self, Http, causes, of_the_system};

/// How long one node may take to answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause after every node was asked in vain; doubles up to the longest.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Largest answer that is read: a health report has a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is read of the answer to `GET /health`.
#[derive(Deserialize)]
struct Answer {
    cluster_id: Option<String>,
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    /// `--tls-ca` cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// There is nobody to vouch for the nodes.
    #[error(transparent)]
    Authorities(#[from] StartError),
}

/// The nodes to ask.
pub(crate) struct Search<'a> {
    client: Http,
    urls: &'a [String],
}

impl<'a> Search<'a> {
    /// Nodes with `https` addresses must be vouched for by `ca`, else by the authorities of the system.
    pub(crate) fn new(urls: &'a [String], ca: Option<&Path>) -> Result<Self, SearchError> {
        Ok(Self { client: outbound::client(config(urls, ca)?, false), urls })
    }

    /// The id of the cluster that the first of the nodes to answer belongs to. Asks until there is one: the nodes may be
    /// started in any order.
    pub(crate) async fn cluster_id(&self) -> String {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut reasons = Vec::new();
            for url in self.urls {
                match ask(&self.client, url).await {
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
}

fn config(urls: &[String], ca: Option<&Path>) -> Result<ClientConfig, SearchError> {
    if let Some(ca) = ca {
        return Ok(outgoing("--tls-ca", ca)?);
    }
    let encrypted = urls.iter().any(|url| url.starts_with("https://"));
    of_the_system(encrypted).map_err(|error| {
        SearchError::Authorities(StartError::Usage(format!(
            "--join with https needs authorities that vouch for the nodes, and those of the system cannot be used \
             ({error}); give --tls-ca FILE"
        )))
    })
}

async fn ask(client: &Http, url: &str) -> Result<String, String> {
    match tokio::time::timeout(ASK_TIMEOUT, get(client, url)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {ASK_TIMEOUT:?}")),
    }
}

async fn get(client: &Http, url: &str) -> Result<String, String> {
    let uri = format!("{url}/health").parse().map_err(|_| "is no URL".to_owned())?;
    let response = client.get(uri).await.map_err(|error| causes(&error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
    // A node that is unhealthy knows its cluster all the same.
    if !status.is_success() && status != StatusCode::SERVICE_UNAVAILABLE {
        return Err(format!("answered {status}"));
    }
    named(&body)
}

/// The cluster that an answer names.
fn named(body: &[u8]) -> Result<String, String> {
    let foreign = || "does not answer like a node of a cluster; is it its HTTP address?".to_owned();
    let answer: Answer = serde_json::from_slice(body).map_err(|_| foreign())?;
    let id = answer.cluster_id.ok_or_else(|| "it belongs to no cluster itself yet".to_owned())?;
    // It is logged, compared, and told to other nodes in a header.
    let plain = id.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || !(1..=limits::NODE_TEXT_BYTES_MAX).contains(&id.len()) {
        return Err(foreign());
    }
    Ok(id)
}

/// Body of a fuzz target; see `.ci/fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing {
    /// What a node of `--join` answers.
    pub fn join_answer(data: &[u8]) {
        match super::named(data) {
            Ok(id) => assert!((1..=512).contains(&id.len()) && !id.contains(char::is_whitespace)),
            Err(reason) => assert!(reason.len() < 200, "{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::Router;
    use axum::routing::get;

    use super::*;

    /// A node that answers with this status and text.
    async fn node(status: u16, body: &'static str) -> String {
        let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        let router = Router::new().route("/health", get(answer));
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
            node(404, r#"{"cluster_id": "c-0"}"#).await,
            node(503, r#"{"code": "NOT_READY"}"#).await,
            node(200, r#"{"cluster_id": null}"#).await,
            node(200, "<html>").await,
            node(503, r#"{"cluster_id": "c-1", "more": 1}"#).await,
            node(200, r#"{"cluster_id": "c-2"}"#).await,
        ];
        assert_eq!(Search::new(&urls, None).unwrap().cluster_id().await, "c-1");
    }

    #[test]
    fn the_inputs_of_the_fuzz_target_pass() {
        crate::replay::run("join_answer", super::fuzzing::join_answer);
    }

    #[tokio::test]
    async fn every_refusal_says_what_is_wrong() {
        for (status, body, part) in [
            (404, "{}", "404"),
            (503, "{}", "no cluster itself"),
            (200, r#"{"cluster_id": null}"#, "no cluster itself"),
            (200, "<html>", "HTTP address"),
            (200, r#"{"cluster_id": "two\nlines"}"#, "HTTP address"),
        ] {
            let urls = [node(status, body).await];
            let search = Search::new(&urls, None).unwrap();
            let reason = ask(&search.client, &urls[0]).await.unwrap_err();
            assert!(reason.contains(part), "{reason}");
        }
    }

    #[test]
    fn a_file_of_authorities_must_be_one() {
        let urls = ["https://localhost:1".to_owned()];
        let error = Search::new(&urls, Some(Path::new("/nowhere"))).err().unwrap();
        assert!(error.to_string().starts_with("--tls-ca /nowhere: "), "{error}");
    }
}
