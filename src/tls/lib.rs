//! TLS for listeners and connections: certificates read from files, read again when they change, and the names in them.
//!
//! [`ServerTls`] is for the listeners of clients, [`NodeTls`] for both ends between nodes. Nothing here opens a
//! connection, and nothing decides what somebody with a name may do. One provider of cryptography, named explicitly
//! everywhere: a process-wide default is neither set nor used.

#[cfg(test)]
#[path = "tests/authority/mod.rs"]
mod authority;
mod error;
mod file;
mod handshake;
mod material;
mod names;
mod provider;
mod reload;
#[cfg(test)]
mod testing;
mod tls;

pub use error::TlsError;
pub use file::{File, Files};
pub use handshake::{Failures, refusal};
pub use names::{Names, node_name};
pub use provider::provider;
pub use reload::{Reloading, Reloads};
pub use rustls::pki_types;
pub use tls::{NodeTls, Nodes, Server, ServerTls, outgoing};
pub use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};
