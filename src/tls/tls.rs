//! Configurations of rustls: for the listeners of clients, and for both ends of a connection between nodes.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::TlsError;
use crate::file::{File, Files};
use crate::material::{Material, Set};
use crate::names::node_name;
use crate::provider::provider;
use crate::reload::Reloading;

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// What a listener of clients needs.
pub struct Server {
    config: Arc<ServerConfig>,
}

/// TLS of the listeners of clients: HTTP/1.1 and HTTP/2.
pub type ServerTls = Reloading<Server>;

impl Reloading<Server> {
    /// With a `client_ca` clients are asked for a certificate. They need not show one; one that is shown and not
    /// vouched for ends the handshake.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn for_clients(files: Files, client_ca: Option<File>) -> Result<Arc<Self>, TlsError> {
        let set = Set { own: files, ca: client_ca };
        let files = set.clone();
        Self::load(set, move |material| {
            let verifier = match (&files.ca, &material.roots) {
                (Some(ca), Some(roots)) => Some(client_verifier(ca, roots, false)?),
                _ => None,
            };
            let config = server(&files, &material, verifier, &[HTTP2, HTTP1])?;
            Ok(Server { config: Arc::new(config) })
        })
    }

    /// Takes the next connection, with the certificate that is in use now.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.with(|server| TlsAcceptor::from(Arc::clone(&server.config)))
    }
}

/// What a node needs towards other nodes.
pub struct Nodes {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// TLS between nodes: HTTP/2, and each side shows a certificate.
pub type NodeTls = Reloading<Nodes>;

impl Reloading<Nodes> {
    /// The certificate must name this node, and `ca` vouches for all nodes.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn for_nodes(node_id: u64, files: Files, ca: File) -> Result<Arc<Self>, TlsError> {
        let set = Set { own: files, ca: Some(ca.clone()) };
        let files = set.clone();
        Self::load(set, move |material| {
            check_node(&files.own.certificate, &material, node_id)?;
            let roots = material.roots.clone().unwrap_or_else(|| Arc::new(RootCertStore::empty()));
            let clients = client_verifier(&ca, &roots, true)?;
            let servers = server_verifier(&ca, &roots)?;
            check_own(&files.own.certificate, &ca, &material, node_id, &*clients, &*servers);
            let server = server(&files, &material, Some(clients), &[HTTP2])?;
            let mut client = ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| unusable(&files.own.certificate, &error))?
                .with_webpki_verifier(servers)
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(material.own)));
            client.alpn_protocols = vec![HTTP2.to_vec()];
            Ok(Nodes { server: Arc::new(server), client: Arc::new(client) })
        })
    }

    /// Takes the next connection, with the certificates that are in use now.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.with(|nodes| TlsAcceptor::from(Arc::clone(&nodes.server)))
    }

    /// Opens the next connection, with the certificates that are in use now.
    #[must_use]
    pub fn connector(&self) -> TlsConnector {
        self.with(|nodes| TlsConnector::from(Arc::clone(&nodes.client)))
    }
}

/// For connections to servers that the authorities in a file vouch for. Shows no certificate, and leaves the protocol
/// to whoever uses it.
///
/// # Errors
/// See [`TlsError`].
pub fn outgoing(option: &'static str, ca: &Path) -> Result<ClientConfig, TlsError> {
    let file = File { option, path: ca.to_owned() };
    let roots = file.authorities(&file.read()?)?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&file, &error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

fn server(
    set: &Set,
    material: &Material,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    protocols: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&set.own.certificate, &error))?;
    let builder = match clients {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let own = SingleCertAndKey::from(material.own.clone());
    let mut config = builder.with_cert_resolver(Arc::new(own));
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn client_verifier(
    ca: &File,
    roots: &Arc<RootCertStore>,
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
    let builder = if required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| unusable(ca, &error))
}

fn server_verifier(
    ca: &File,
    roots: &Arc<RootCertStore>,
) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| unusable(ca, &error))
}

fn unusable(file: &File, error: &dyn std::error::Error) -> TlsError {
    TlsError::Unusable { file: file.clone(), reason: format!("cannot be used: {error}") }
}

fn check_node(file: &File, material: &Material, node_id: u64) -> Result<(), TlsError> {
    let names = &material.facts.names;
    let found = match names.node_id() {
        Some(id) if id == node_id => return Ok(()),
        Some(id) => format!("the certificate is that of node {id}"),
        None => format!("the certificate names {:?}", names.dns),
    };
    Err(TlsError::WrongNode { file: file.clone(), node_id, found })
}

/// The others look at this certificate as this node looks at theirs. Only a warning: while authorities are exchanged,
/// the others may already trust what this node does not.
fn check_own(
    file: &File,
    ca: &File,
    material: &Material,
    node_id: u64,
    clients: &dyn ClientCertVerifier,
    servers: &dyn ServerCertVerifier,
) {
    let Some((own, issuers)) = material.own.cert.split_first() else { return };
    let now = UnixTime::now();
    let as_client = clients.verify_client_cert(own, issuers, now).map(|_| ());
    let as_server = match ServerName::try_from(node_name(node_id)) {
        Ok(name) => servers.verify_server_cert(own, issuers, &name, &[], now).map(|_| ()),
        Err(_) => Ok(()),
    };
    // A date is reported for every kind of certificate.
    if let Err(error) = as_client.and(as_server)
        && material.facts.out_of_date().is_none()
    {
        tracing::warn!(
            "{file}: nodes with the authorities in {ca} refuse this node's certificate: {error}"
        );
    }
}
