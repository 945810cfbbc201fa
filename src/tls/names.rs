//! What a certificate says: whose it is, and for how long. Whether to believe it was decided before, in the handshake.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const NODE_PREFIX: &str = "node-";
const NODE_SUFFIX: &str = ".llm-config";

/// The DNS name of a node in its certificate. It names the node, not a machine: nobody resolves it.
#[must_use]
pub fn node_name(node_id: u64) -> String {
    format!("{NODE_PREFIX}{node_id}{NODE_SUFFIX}")
}

/// Whose certificate it is, in its own words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    /// The common name of the subject; none when there are several.
    pub common_name: Option<String>,
    /// The DNS names among the subject alternative names.
    pub dns: Vec<String>,
    /// The URIs among them.
    pub uris: Vec<String>,
}

impl Names {
    /// Reads a certificate that was verified. Names with control characters are left out: no authority means them.
    ///
    /// # Errors
    /// Says what cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        parse(certificate).and_then(|certificate| Self::within(&certificate))
    }

    fn within(certificate: &X509Certificate<'_>) -> Result<Self, String> {
        let mut common = certificate.subject().iter_common_name().map(|name| name.as_str());
        let common_name = match (common.next(), common.next()) {
            (Some(Ok(name)), None) => Some(name.to_owned()).filter(|name| is_plain(name)),
            _ => None,
        };
        let mut names = Self { common_name, ..Self::default() };
        let alternative = certificate
            .subject_alternative_name()
            .map_err(|error| format!("its subject alternative names cannot be read ({error})"))?;
        for name in alternative.into_iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) if is_plain(name) => names.dns.push((*name).to_owned()),
                GeneralName::URI(name) if is_plain(name) => names.uris.push((*name).to_owned()),
                _ => {}
            }
        }
        Ok(names)
    }

    /// The node that the certificate names as `node-N.llm-config`: none unless it names exactly one.
    #[must_use]
    pub fn node_id(&self) -> Option<u64> {
        let mut ids = self.dns.iter().filter_map(|name| node_id(name));
        ids.next().filter(|_| ids.next().is_none())
    }
}

/// One way to write each number, so that no two names mean one node.
fn node_id(name: &str) -> Option<u64> {
    let name = name.to_ascii_lowercase();
    let digits = name.strip_prefix(NODE_PREFIX)?.strip_suffix(NODE_SUFFIX)?;
    let id = digits.parse().ok().filter(|id| *id != 0)?;
    (node_name(id) == name).then_some(id)
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(char::is_control)
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    X509Certificate::from_der(certificate)
        .map(|(_, certificate)| certificate)
        .map_err(|error| format!("a certificate cannot be read ({error})"))
}

/// What matters of an own certificate.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) names: Names,
    /// Seconds since the Unix epoch.
    pub(crate) expires_at_s: i64,
    begins_at_s: i64,
    expires: String,
    begins: String,
}

impl Facts {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let certificate = parse(certificate)?;
        let validity = certificate.validity();
        Ok(Self {
            names: Names::within(&certificate)?,
            expires_at_s: validity.not_after.timestamp(),
            begins_at_s: validity.not_before.timestamp(),
            expires: validity.not_after.to_string(),
            begins: validity.not_before.to_string(),
        })
    }

    /// Why the others refuse this certificate at present.
    pub(crate) fn out_of_date(&self) -> Option<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        if now > self.expires_at_s {
            return Some(format!("it expired on {}", self.expires));
        }
        (now < self.begins_at_s).then(|| format!("it is valid only from {} on", self.begins))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_name_written_one_way() {
        for (name, id) in [
            ("node-1.llm-config", Some(1)),
            ("NODE-12.LLM-Config", Some(12)),
            ("node-18446744073709551615.llm-config", Some(u64::MAX)),
            ("node-0.llm-config", None),
            ("node-01.llm-config", None),
            ("node-+1.llm-config", None),
            ("node-.llm-config", None),
            ("node-18446744073709551616.llm-config", None),
            ("node-1.llm-config.example", None),
            ("x.node-1.llm-config", None),
            ("*.llm-config", None),
        ] {
            assert_eq!(node_id(name), id, "{name}");
        }
        assert_eq!(node_id(&node_name(7)), Some(7));
    }

    #[test]
    fn a_certificate_of_two_nodes_is_of_none() {
        let names = |dns: &[&str]| Names {
            dns: dns.iter().map(|&name| name.to_owned()).collect(),
            ..Names::default()
        };
        assert_eq!(names(&["host", "node-2.llm-config"]).node_id(), Some(2));
        assert_eq!(names(&["node-1.llm-config", "node-2.llm-config"]).node_id(), None);
        assert_eq!(names(&["host"]).node_id(), None);
    }
}
