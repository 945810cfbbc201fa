//! Changes of the key ring: keys come, are wrapped anew, take over secrets, and go.

use crate::command::Reseal;
use crate::key_ring::{check_key, data_key, latest, mark, sealed_with, unmark};
use crate::keys;
use crate::limits;
use crate::outcome::{Outcome, Rejection};
use crate::overlay::Overlay;
use crate::query::QueryResult;
use crate::record::{Record as _, Version};
use crate::sealed::DataKey;
use crate::store::Reader;
use crate::wire;
use crate::writer::Writer;

/// Adds the next key of an owner. Refused when another node was faster; it then uses that one's.
pub(crate) fn add<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    key: &DataKey,
) -> QueryResult<Outcome> {
    let latest = latest(&*writer.store, &key.owner)?.map_or(0, |known| known.version);
    if latest.checked_add(1) != Some(key.version) {
        return Err(Rejection::KeyVersion { latest }.into());
    }
    if writer.meta.data_keys >= limits::DATA_KEYS_MAX {
        let (size, limit) = (writer.meta.data_keys + 1, limits::DATA_KEYS_MAX);
        return Err(Rejection::TooLarge { what: "the key ring".into(), size, limit }.into());
    }
    let key = DataKey { created_at_ms: writer.meta.last_time_ms, ..key.clone() };
    put(writer.store, &key);
    writer.meta.data_keys += 1;
    writer.meta.keys_revision += 1;
    Ok(Outcome::Done)
}

fn put<R: Reader + ?Sized>(store: &mut Overlay<'_, R>, key: &DataKey) {
    store.put(keys::data_key(&key.owner, key.version), wire::DataKey::from(key).to_bytes());
}

/// Stores keys that are there under another master key. One that is gone by now is passed over.
pub(crate) fn rewrap<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    rewrapped: &[DataKey],
) -> QueryResult<Outcome> {
    for key in rewrapped {
        if let Some(known) = data_key(&*writer.store, &key.owner, key.version)? {
            put(writer.store, &DataKey { created_at_ms: known.created_at_ms, ..key.clone() });
        }
    }
    writer.meta.keys_revision += 1;
    Ok(Outcome::Done)
}

/// Replaces secrets by the same under another key. A version that is gone, or under another key by now, is passed over.
pub(crate) fn reseal<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    reseal: &Reseal,
) -> QueryResult<Outcome> {
    let address = &reseal.address;
    for resealed in &reseal.versions {
        let storage_key = keys::version(address, resealed.version);
        let Some(bytes) = writer.store.get(&storage_key)? else { continue };
        let mut record = Version::from_bytes(bytes)?;
        let fits = record.key_version() == Some(reseal.from_key_version)
            && resealed.sealed.version == resealed.version;
        if !fits {
            continue;
        }
        check_key(&*writer.store, address, &resealed.sealed)?;
        record.reseal(&resealed.sealed);
        writer.store.put(storage_key, record.to_bytes());
        unmark(writer.store, address, reseal.from_key_version, resealed.version);
        mark(writer.store, address, &resealed.sealed);
    }
    Ok(Outcome::Done)
}

/// Forgets a key that opens nothing any more and is not the newest.
pub(crate) fn drop_key<R: Reader + ?Sized>(
    writer: &mut Writer<'_, '_, R>,
    owner: &str,
    version: u32,
) -> QueryResult<Outcome> {
    if data_key(&*writer.store, owner, version)?.is_none() {
        return Ok(Outcome::Done);
    }
    let latest = latest(&*writer.store, owner)?.is_some_and(|latest| latest.version == version);
    if latest || !sealed_with(&*writer.store, owner, version, 1)?.is_empty() {
        return Err(Rejection::KeyInUse.into());
    }
    writer.store.delete(keys::data_key(owner, version));
    writer.meta.data_keys = writer.meta.data_keys.saturating_sub(1);
    writer.meta.keys_revision += 1;
    Ok(Outcome::Done)
}
