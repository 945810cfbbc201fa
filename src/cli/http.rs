//! Asks HTTP servers that are not the cluster's API: Prometheus, Alertmanager, and the metrics pages of nodes. They speak
//! HTTP/1.1, which the SDK's connections do not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tonic::codegen::http::Uri;

use llm_config_client::TlsOptions;

use crate::Usage;

/// The address of a server, with the path that its own paths are below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address(String);

impl Address {
    /// `option` is named when it is wrong.
    pub(crate) fn parse(option: &str, text: &str) -> Result<Self, Usage> {
        let refuse = |reason: &str| {
            Err(Usage(format!("{option}: {text:?} {reason}; give http://HOST:PORT, or https")))
        };
        let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let Ok(uri) = full.parse::<Uri>() else { return refuse("is no address") };
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return refuse("is neither http nor https");
        }
        let Some(authority) = uri.authority() else { return refuse("names no host") };
        if authority.host().is_empty() {
            return refuse("names no host");
        }
        if authority.as_str().contains('@') {
            return Err(Usage(format!(
                "{option}: a user and a password in an address are not taken"
            )));
        }
        if uri.query().is_some() || full.contains('#') {
            return refuse("has a query or a fragment");
        }
        Ok(Self(full.trim_end_matches('/').to_owned()))
    }

    pub(crate) fn encrypted(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// A path of the server.
    pub(crate) fn below(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Sends requests, one deadline for each of them.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    limit: Duration,
}

impl Http {
    /// The authorities of the system are asked for only when something is encrypted: a machine may have none.
    pub(crate) fn new(
        tls: Option<&TlsOptions>,
        encrypted: bool,
        limit: Duration,
    ) -> Result<Self, Usage> {
        let config = config(tls.and_then(|tls| tls.ca_pem.as_deref()), encrypted)
            .map_err(|error| Usage(format!("--tls-ca: {error:#}")))?;
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector.build()), limit })
    }

    /// The same connections, with another deadline.
    pub(crate) fn within(&self, limit: Duration) -> Self {
        Self { client: self.client.clone(), limit: self.limit.min(limit) }
    }

    /// Status and body; a body of more than `bytes_max` bytes is an error.
    pub(crate) async fn get(&self, url: &str, bytes_max: usize) -> anyhow::Result<(u16, Bytes)> {
        let uri: Uri = url.parse().context("the address is too long, or not one")?;
        let answer = async {
            let response = self.client.get(uri).await.map_err(|error| anyhow!(causes(&error)))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), bytes_max).collect().await;
            let body = body.map_err(|error| anyhow!("the answer: {}", causes(&*error)))?;
            Ok((status, body.to_bytes()))
        };
        match tokio::time::timeout(self.limit, answer).await {
            Ok(answer) => answer,
            Err(_) => bail!("no answer within {:?}", self.limit),
        }
    }
}

fn config(ca: Option<&[u8]>, encrypted: bool) -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    let builder = match ca {
        _ if !encrypted => builder.with_root_certificates(roots),
        None => builder.with_native_roots().context("the system's authorities")?,
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                roots.add(certificate.map_err(|error| anyhow!("{error}"))?)?;
            }
            anyhow::ensure!(!roots.is_empty(), "there is no certificate in it");
            builder.with_root_certificates(roots)
        }
    };
    Ok(builder.with_no_client_auth())
}

/// An error with its causes: the outermost alone says "client error".
fn causes(error: &dyn std::error::Error) -> String {
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn an_address_is_a_server_and_perhaps_a_path() {
        let address = |text| Address::parse("--prometheus", text).map(|address| address.0);
        assert_eq!(address("host:9091").unwrap(), "http://host:9091");
        assert_eq!(address("https://host/prometheus/").unwrap(), "https://host/prometheus");
        for bad in ["", "ftp://host", "http://", "http://h/?q=1", "http://h/#x", "a b", "http:///x"]
        {
            let error = address(bad).unwrap_err().0;
            assert!(error.starts_with("--prometheus: "), "{bad}: {error}");
        }
        let secret = address("http://ann:hunter2@host").unwrap_err().0;
        assert!(!secret.contains("hunter2"), "{secret}");
    }

    #[test]
    fn authorities_come_from_a_file_or_from_the_system() {
        assert!(config(Some(b"nothing"), true).is_err());
        assert!(config(Some(b"nothing"), false).is_ok(), "nothing is encrypted");
    }

    #[tokio::test]
    async fn an_answer_is_bounded_in_time_and_size() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let http = Http::new(None, false, Duration::from_millis(200)).unwrap();
        // Connections are taken by the system, and never answered.
        let error = http.get(&url, 9).await.unwrap_err().to_string();
        assert!(error.contains("no answer within"), "{error}");

        let served = tokio::spawn(async move {
            for _ in 0..3 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _head = stream.read(&mut [0; 1024]).await;
                let _gone = stream
                    .write_all(
                        b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 5\r\n\r\nworks",
                    )
                    .await;
            }
        });
        let http = http.within(Duration::from_secs(30));
        let http = Http { limit: Duration::from_secs(30), ..http };
        assert_eq!(http.get(&url, 5).await.unwrap(), (503, Bytes::from_static(b"works")));
        assert!(http.get(&url, 4).await.unwrap_err().to_string().contains("the answer: "));
        served.abort();
    }
}
