//! The keys that open secrets, and which secrets each of them opens.
//!
//! A key stays as long as some version of some entry needs it: an index says which. Exchanging a key is many small commands,
//! each of which may be repeated, so that a rotation that was cut off goes on where it stopped.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::keys;
use crate::names::Address;
use crate::outcome::Rejection;
use crate::overlay::Overlay;
use crate::query::{self, QueryResult};
use crate::record::Record as _;
use crate::sealed::{DataKey, Sealed};
use crate::store::{self, Order, Reader, StoreError};
use crate::wire;

/// Refuses a secret whose key is not there (any more).
pub(crate) fn check_key<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
    sealed: &Sealed,
) -> QueryResult<()> {
    match data_key(reader, address.namespace.as_str(), sealed.key_version)? {
        Some(_) => Ok(()),
        None => Err(Rejection::UnknownKey { version: sealed.key_version }.into()),
    }
}

/// Notes that a version needs a key.
pub(crate) fn mark<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    address: &Address,
    sealed: &Sealed,
) {
    store.put(keys::sealed(address, sealed.key_version, sealed.version), Bytes::new());
}

/// Notes that a version needs a key no longer.
pub(crate) fn unmark<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    address: &Address,
    key_version: u32,
    version: u64,
) {
    store.delete(keys::sealed(address, key_version, version));
}

/// A key.
pub fn data_key<R: Reader + ?Sized>(
    reader: &R,
    owner: &str,
    version: u32,
) -> Result<Option<DataKey>, StoreError> {
    let bytes = reader.get(&keys::data_key(owner, version))?;
    Ok(bytes.map(wire::DataKey::from_bytes).transpose()?.map(DataKey::from))
}

/// The newest key of an owner: new secrets are encrypted with it.
pub fn latest<R: Reader + ?Sized>(reader: &R, owner: &str) -> Result<Option<DataKey>, StoreError> {
    let mut found = None;
    let (from, to) = keys::data_keys_of(owner);
    reader.scan(&from, &to, Order::Descending, &mut |_, value| {
        found = Some(wire::DataKey::from_bytes(Bytes::copy_from_slice(value))?.into());
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Every key, bounded by [`crate::limits::DATA_KEYS_MAX`], by owner and version.
pub fn data_keys<R: Reader + ?Sized>(reader: &R) -> Result<Vec<DataKey>, StoreError> {
    store::all(reader, keys::data_keys(), |bytes| {
        wire::DataKey::from_bytes(bytes).map(DataKey::from)
    })
}

/// Some of the versions that a key opens, in order.
pub fn sealed_with<R: Reader + ?Sized>(
    reader: &R,
    owner: &str,
    key_version: u32,
    limit: usize,
) -> Result<Vec<(Address, u64)>, StoreError> {
    let mut found = Vec::new();
    let (from, to) = keys::sealed_with(owner, key_version);
    reader.scan(&from, &to, Order::Ascending, &mut |key, _| {
        if found.len() == limit {
            return Ok(ControlFlow::Break(()));
        }
        found.push(keys::sealed_version(owner, key)?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// What is stored of a secret, whichever version history shows.
pub fn sealed_version<R: Reader + ?Sized>(
    reader: &R,
    address: &Address,
    version: u64,
) -> Result<Option<Sealed>, StoreError> {
    let entry = query::stored_version(reader, address, version)?;
    Ok(entry.and_then(|entry| entry.value?.sealed().cloned()))
}
