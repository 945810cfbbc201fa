//! TLS towards the nodes: whom to believe, and what to show them.
//!
//! It is set up by the transport; this says what of, and refuses early what could only fail at each connection.

use std::error::Error as _;
use std::fmt;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::error::Error;

/// How every certificate begins in PEM.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// TLS towards the nodes. By default the authorities of the system are believed, and no certificate is shown.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct TlsOptions {
    /// Authorities that vouch for the nodes, in PEM; those of the system when absent.
    pub ca_pem: Option<Vec<u8>>,
    /// What this client shows: a certificate chain and its private key, both in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    /// The name that the certificates of the nodes must have, instead of the host of each endpoint.
    pub domain: Option<String>,
}

/// Without the private key.
impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("own_ca", &self.ca_pem.is_some())
            .field("identity", &self.identity.is_some())
            .field("domain", &self.domain)
            .finish()
    }
}

impl TlsOptions {
    /// Sets [`TlsOptions::ca_pem`].
    #[must_use]
    pub fn ca_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_pem = Some(pem.into());
        self
    }

    /// Sets [`TlsOptions::identity`].
    #[must_use]
    pub fn identity(
        mut self,
        certificate_pem: impl Into<Vec<u8>>,
        key_pem: impl Into<Vec<u8>>,
    ) -> Self {
        self.identity = Some((certificate_pem.into(), key_pem.into()));
        self
    }

    /// Sets [`TlsOptions::domain`].
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    fn config(&self) -> Result<ClientTlsConfig, Error> {
        let has_certificate =
            |pem: &[u8]| pem.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE);
        let mut config = match &self.ca_pem {
            Some(pem) if has_certificate(pem) => {
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            Some(_) => return Err(invalid("the authorities hold no certificate in PEM form")),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        if let Some((certificate, key)) = &self.identity {
            if !has_certificate(certificate) {
                return Err(invalid("the own certificate is not in PEM form"));
            }
            config = config.identity(Identity::from_pem(certificate, key));
        }
        if let Some(domain) = &self.domain {
            config = config.domain_name(domain.clone());
        }
        Ok(config)
    }

    /// Secures an endpoint.
    pub(crate) fn secure(&self, endpoint: Endpoint) -> Result<Endpoint, Error> {
        endpoint.tls_config(self.config()?).map_err(|error| {
            // The outermost alone says "transport error".
            let mut causes = Vec::new();
            let mut source = error.source();
            while let Some(cause) = source {
                causes.push(cause.to_string());
                source = cause.source();
            }
            invalid(&causes.join(": "))
        })
    }
}

fn invalid(reason: &str) -> Error {
    Error::InvalidTls { reason: reason.to_owned() }
}
