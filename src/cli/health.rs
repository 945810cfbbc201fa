//! What a node says of its own health: `GET /health` of its HTTP address. The SDK does not ask this, since no application
//! should.

use std::future::poll_fn;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Limited};
use serde::{Deserialize, Serialize};
use tonic::body::Body;
use tonic::client::GrpcService as _;
use tonic::codegen::http::Request;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use llm_config_client::TlsOptions;

/// The answer is a few hundred bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How a node finds itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// healthy, degraded or unhealthy.
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) uptime_seconds: u64,
    /// A sentence for each part.
    #[serde(default)]
    pub(crate) checks: std::collections::BTreeMap<String, String>,
}

/// Asks one node; an unhealthy one answers, too.
pub(crate) async fn ask(
    address: &str,
    tls: Option<&TlsOptions>,
    limit: Duration,
) -> anyhow::Result<Health> {
    tokio::time::timeout(limit, answer(address, tls, limit))
        .await
        .unwrap_or_else(|_| bail!("no answer within {limit:?}"))
}

async fn answer(
    address: &str,
    tls: Option<&TlsOptions>,
    limit: Duration,
) -> anyhow::Result<Health> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let address = match address.split_once("://") {
        Some((_, rest)) => rest,
        None => address,
    };
    let uri = format!("{scheme}://{address}");
    let mut endpoint = Endpoint::from_shared(uri.clone())?.connect_timeout(limit);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(config(tls))?;
    }
    let mut channel = endpoint.connect().await?;
    poll_fn(|context| channel.poll_ready(context)).await?;
    let request = Request::get(format!("{uri}/health")).body(Body::empty())?;
    let response = channel.call(request).await?;
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
    serde_json::from_slice(&body).context("the answer is not that of a node")
}

fn config(tls: &TlsOptions) -> ClientTlsConfig {
    let mut config = match &tls.ca_pem {
        Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    if let Some(domain) = &tls.domain {
        config = config.domain_name(domain);
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_whatever_else_it_says() {
        let text = r#"{"status":"degraded","service":"x","node_id":1,"uptime_seconds":61,
            "checks":{"raft":"healthy","disk":"degraded: 5 % are free"}}"#;
        let health: Health = serde_json::from_str(text).unwrap();
        assert_eq!((health.status.as_str(), health.uptime_seconds), ("degraded", 61));
        assert_eq!(health.checks.len(), 2);
    }

    #[tokio::test]
    async fn an_address_where_nobody_answers_is_an_error_in_time() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // Connections are taken by the system, and never answered.
        let silent = ask(&address, None, Duration::from_millis(200)).await;
        assert!(silent.is_err());
        drop(listener);
        assert!(ask(&address, None, Duration::from_secs(5)).await.is_err());
    }
}
