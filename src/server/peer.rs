//! Who is at the other end of a connection: the listeners put it into the extensions of each request.
//!
//! The address is that of the connection, which may be a proxy's; what to make of it is decided elsewhere.

use std::net::SocketAddr;
use std::sync::Arc;

use llm_config_tls::Names;

/// Where the connection comes from. Every request over a listener has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerAddress(pub SocketAddr);

impl PeerAddress {
    /// An IPv4 address stays one on a listener that takes both kinds.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

/// The names of the client certificate that was shown, when one was: an authority of `--tls-client-ca` vouches for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate(Arc<Names>);

impl ClientCertificate {
    /// Names that were verified.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self(Arc::new(names))
    }

    /// The names.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.0
    }
}

/// Both, for one connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where it comes from.
    pub address: PeerAddress,
    /// Who it was shown to be from.
    pub certificate: Option<ClientCertificate>,
}

impl Peer {
    /// Tells a request who it comes from.
    pub fn mark<B>(&self, request: &mut http::Request<B>) {
        let extensions = request.extensions_mut();
        extensions.insert(self.address);
        if let Some(certificate) = &self.certificate {
            extensions.insert(certificate.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_one_way() {
        let address = |text: &str| PeerAddress::new(text.parse().unwrap());
        assert_eq!(address("[::ffff:192.0.2.7]:5"), address("192.0.2.7:5"));
        assert_ne!(address("[::1]:5"), address("127.0.0.1:5"));
    }
}
