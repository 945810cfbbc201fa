//! Requests that this node makes of others, over HTTP or HTTPS.

use bytes::Bytes;
use http_body_util::Empty;
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use llm_config_tls::provider;
use rustls::{ClientConfig, RootCertStore};

/// Sends requests without a body.
pub type Http = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Who is believed when no file says so: the authorities of the system. They are asked for only when something is
/// encrypted, as an image may have none.
///
/// # Errors
/// Why they cannot be used.
pub fn of_the_system(encrypted: bool) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if encrypted {
        builder.with_native_roots().map_err(|error| error.to_string())?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

/// A client that asks for `https` addresses by `config`, and for `http` ones unless it must not.
pub fn client(config: ClientConfig, https_only: bool) -> Http {
    let connector = HttpsConnectorBuilder::new().with_tls_config(config);
    let connector = if https_only { connector.https_only() } else { connector.https_or_http() };
    Client::builder(TokioExecutor::new()).build(connector.enable_http1().build())
}

/// An error with its causes: the outermost alone says "client error".
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
