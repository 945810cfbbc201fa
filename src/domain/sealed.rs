//! Values that only some may read: what is stored of a secret, and the wrapped keys that open it.
//!
//! The rules see bytes and the numbers of keys and versions. What is in them, and how they are made, is the edge's: no
//! cipher is here, and no key in the clear ever is.

use std::fmt;

use bytes::Bytes;

use crate::limits;
use crate::names::InvalidArgument;
use crate::value::JsonValue;

/// A secret as it is stored: encrypted for one version of one entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Which data key of the entry's namespace opens it, from 1.
    pub key_version: u32,
    /// The version of the entry that it was encrypted for; in another one it does not open.
    pub version: u64,
    /// The encrypted value.
    pub bytes: Bytes,
}

/// Ciphertext helps nobody in a log.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key_version, version, bytes } = self;
        write!(f, "Sealed(key {key_version}, version {version}, {} bytes)", bytes.len())
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// JSON that everybody sees who may read the entry.
    Json(JsonValue),
    /// A secret.
    Sealed(Sealed),
}

impl Value {
    /// Bytes it takes up.
    pub fn size(&self) -> usize {
        match self {
            Self::Json(json) => json.as_bytes().len(),
            Self::Sealed(sealed) => sealed.bytes.len(),
        }
    }

    /// What everybody may see.
    pub fn json(&self) -> Option<&JsonValue> {
        match self {
            Self::Json(json) => Some(json),
            Self::Sealed(_) => None,
        }
    }

    /// The secret, if it is one.
    pub fn sealed(&self) -> Option<&Sealed> {
        match self {
            Self::Sealed(sealed) => Some(sealed),
            Self::Json(_) => None,
        }
    }

    /// Whether it is a secret.
    pub fn is_secret(&self) -> bool {
        self.sealed().is_some()
    }
}

impl From<JsonValue> for Value {
    fn from(json: JsonValue) -> Self {
        Self::Json(json)
    }
}

/// A key that opens values, wrapped by a master key that no node stores.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKey {
    /// The namespace whose secrets it opens; empty for the key that idempotency digests of secrets are made with.
    pub owner: String,
    /// Counts 1, 2, 3… for each owner.
    pub version: u32,
    /// Names the master key.
    pub master_id: Bytes,
    /// The key, encrypted.
    pub wrapped: Bytes,
    /// When it was added. Set by apply.
    pub created_at_ms: u64,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKey({:?}, version {})", self.owner, self.version)
    }
}

/// One secret under another key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResealedVersion {
    /// Of the entry.
    pub version: u64,
    /// What is stored in its place.
    pub sealed: Sealed,
}

pub(crate) fn validate_sealed(sealed: &Sealed) -> Result<(), InvalidArgument> {
    let bound = limits::VALUE_BYTES_MAX + limits::SEAL_OVERHEAD_BYTES_MAX;
    if sealed.bytes.is_empty() || sealed.bytes.len() > bound {
        let reason =
            format!("a secret of {} bytes; at most {bound} are allowed", sealed.bytes.len());
        return Err(InvalidArgument::new("value", reason));
    }
    if sealed.key_version == 0 || sealed.version == 0 {
        return Err(InvalidArgument::new("value", "a secret names its key and its version"));
    }
    Ok(())
}

pub(crate) fn validate_data_key(key: &DataKey) -> Result<(), InvalidArgument> {
    if !key.owner.is_empty() {
        crate::names::Namespace::parse(&key.owner)?;
    }
    let bounded = |bytes: &Bytes| (1..=limits::WRAPPED_KEY_BYTES_MAX).contains(&bytes.len());
    if key.version == 0 || !bounded(&key.master_id) || !bounded(&key.wrapped) {
        return Err(InvalidArgument::new("key", "a data key that is not well-formed"));
    }
    Ok(())
}
