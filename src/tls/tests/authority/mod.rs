//! An authority for tests: makes certificates with the names that a test asks for, and writes them into files. Tests of
//! other crates include this file.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot make its certificates has failed")]

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// An authority. Two of one name are strangers to each other all the same.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate with a common name and, as alternative names, DNS names, addresses and URIs (what has `://` in it).
    pub fn issue(&self, common_name: &str, names: &[&str]) -> Issued {
        self.issue_until(2999, common_name, names)
    }

    /// One that ends with a year.
    pub fn issue_until(&self, year: i32, common_name: &str, names: &[&str]) -> Issued {
        let (uris, plain): (Vec<&str>, Vec<&str>) =
            names.iter().partition(|name| name.contains("://"));
        let plain: Vec<String> = plain.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(plain).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 12, 31);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The certificate of a node, for connections to 127.0.0.1.
    pub fn node(&self, id: u64) -> Issued {
        self.issue(&format!("node {id}"), &[&format!("node-{id}.llm-config"), "localhost"])
    }
}

/// Files of one certificate.
#[derive(Debug, Clone)]
pub struct Written {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Issued {
    /// Writes `NAME.pem` and `NAME-key.pem`, over what is there.
    pub fn write(&self, folder: &Path, name: &str) -> Written {
        let written = Written {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}-key.pem")),
        };
        std::fs::write(&written.certificate, &self.certificate).unwrap();
        std::fs::write(&written.key, &self.key).unwrap();
        written
    }
}
