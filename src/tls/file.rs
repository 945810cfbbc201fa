//! Where a certificate or a key is, and which option said so: every message names both.

use std::fmt;
use std::path::PathBuf;

/// A file, and the option that named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// The option, for messages.
    pub option: &'static str,
    /// The path.
    pub path: PathBuf,
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.option, self.path.display())
    }
}

/// A certificate chain and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The chain, the own certificate first.
    pub certificate: File,
    /// The private key of the first one.
    pub key: File,
}
