//! Why certificates cannot be used: each error names the option, the file and the remedy.

use std::io;

use crate::file::File;

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("{file}: {source}; give the path of a file that this program may read")]
    Unreadable {
        /// The file.
        file: File,
        /// What the system answered.
        source: io::Error,
    },
    /// The file is no certificate and no key.
    #[error("{file}: larger than {max} bytes, which no certificate is; is it the right file?")]
    TooLarge {
        /// The file.
        file: File,
        /// Largest file that is read.
        max: u64,
    },
    /// What is expected is not in the file.
    #[error("{file}: holds no {what} in PEM form (-----BEGIN …-----); {remedy}")]
    NotPem {
        /// The file.
        file: File,
        /// What was looked for.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// It is PEM, and what is in it cannot be used.
    #[error("{file}: {reason}")]
    Unusable {
        /// The file.
        file: File,
        /// Why, and what to do.
        reason: String,
    },
    /// Certificate and key do not belong together.
    #[error(
        "{key}: is not the key of the certificate in {certificate}; give the two files that were made together"
    )]
    Mismatch {
        /// The file of the key.
        key: File,
        /// The file of the certificate.
        certificate: File,
    },
    /// A node's certificate is not that of this node.
    #[error(
        "{file}: {found}, and this is node {node_id}; the certificate of a node names it, and no other node, by the DNS \
         name {} among its subject alternative names", crate::names::node_name(*node_id)
    )]
    WrongNode {
        /// The file.
        file: File,
        /// The id of this node.
        node_id: u64,
        /// What the certificate says instead.
        found: String,
    },
}
