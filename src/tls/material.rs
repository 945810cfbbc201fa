//! Certificates, keys and authorities as files: read with a bound, parsed, and checked against each other.

use std::hash::BuildHasher;
use std::io::Read as _;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};

use crate::error::TlsError;
use crate::file::{File, Files};
use crate::names::Facts;
use crate::provider::provider;

/// Largest file that is read: every authority of a large system fits in several times.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Certificates of a chain: more than any authority hands out, and a handshake carries all of them.
const CHAIN_MAX: usize = 16;
const CERTIFICATE_REMEDY: &str = "give the certificate, followed by those of its issuers";
const KEY_REMEDY: &str =
    "give the private key in clear text; `openssl pkey -in FILE` takes a passphrase away";
const CA_REMEDY: &str = "give the certificates of the authorities";

impl File {
    pub(crate) fn read(&self) -> Result<Vec<u8>, TlsError> {
        let unreadable = |source| TlsError::Unreadable { file: self.clone(), source };
        let file = std::fs::File::open(&self.path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(TlsError::TooLarge { file: self.clone(), max: FILE_BYTES_MAX });
        }
        Ok(bytes)
    }

    fn not_pem(&self, what: &'static str, remedy: &'static str) -> TlsError {
        TlsError::NotPem { file: self.clone(), what, remedy }
    }

    fn unusable(&self, reason: String) -> TlsError {
        TlsError::Unusable { file: self.clone(), reason }
    }

    /// Never empty.
    fn certificates(
        &self,
        bytes: &[u8],
        remedy: &'static str,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            // The parser's own words may quote the file, which may be a key.
            Ok(_) | Err(_) => Err(self.not_pem("certificate", remedy)),
        }
    }

    fn private_key(&self, bytes: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(bytes).map_err(|_| self.not_pem("private key", KEY_REMEDY))
    }

    /// Who is believed. One that cannot be read is an error: leaving it out would show only when it is missed.
    pub(crate) fn authorities(&self, bytes: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(bytes, CA_REMEDY)? {
            roots.add(certificate).map_err(|error| {
                self.unusable(format!("an authority cannot be used ({error}); {CA_REMEDY}"))
            })?;
        }
        Ok(Arc::new(roots))
    }
}

/// The files of one configuration, which are exchanged together.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) own: Files,
    pub(crate) ca: Option<File>,
}

type Bytes = Result<Vec<u8>, TlsError>;

/// What was in the files at one moment.
pub(crate) struct Contents {
    certificate: Bytes,
    key: Bytes,
    ca: Option<Bytes>,
}

/// What is in them, checked.
pub(crate) struct Material {
    pub(crate) own: CertifiedKey,
    /// Of the own certificate.
    pub(crate) facts: Facts,
    pub(crate) roots: Option<Arc<RootCertStore>>,
}

impl Set {
    pub(crate) fn read(&self) -> Contents {
        Contents {
            certificate: self.own.certificate.read(),
            key: self.own.key.read(),
            ca: self.ca.as_ref().map(File::read),
        }
    }

    pub(crate) fn parse(&self, contents: Contents) -> Result<Material, TlsError> {
        let Files { certificate, key } = &self.own;
        let chain = certificate.certificates(&contents.certificate?, CERTIFICATE_REMEDY)?;
        if chain.len() > CHAIN_MAX {
            return Err(certificate.unusable(format!(
                "holds {} certificates; {CERTIFICATE_REMEDY}, at most {CHAIN_MAX}",
                chain.len()
            )));
        }
        let unreadable = |reason| certificate.unusable(format!("{reason}; {CERTIFICATE_REMEDY}"));
        let facts = chain.iter().map(Facts::of).collect::<Result<Vec<_>, _>>();
        let facts = facts.map_err(unreadable)?.into_iter().next();
        let facts = facts.ok_or_else(|| certificate.not_pem("certificate", CERTIFICATE_REMEDY))?;
        let private = key.private_key(&contents.key?)?;
        let own = CertifiedKey::from_der(chain, private, &provider());
        let own = own.map_err(|error| match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { key: key.clone(), certificate: certificate.clone() }
            }
            error => key.unusable(format!("the key cannot be used ({error}); {KEY_REMEDY}")),
        })?;
        let roots = match (&self.ca, contents.ca) {
            (Some(file), Some(bytes)) => Some(file.authorities(&bytes?)?),
            _ => None,
        };
        Ok(Material { own, facts, roots })
    }
}

impl Contents {
    /// The same for the same contents, errors included; means nothing outside this process.
    pub(crate) fn fingerprint(&self, hasher: &impl BuildHasher) -> u64 {
        let ca = self.ca.as_ref().map(plain);
        hasher.hash_one((plain(&self.certificate), plain(&self.key), ca))
    }
}

fn plain(bytes: &Bytes) -> Result<&[u8], String> {
    bytes.as_deref().map_err(ToString::to_string)
}
