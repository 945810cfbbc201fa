//! Data keys: made at random, wrapped with a master key for the replicated key ring, and unwrapped when one is needed.
//!
//! The key ring itself is part of the state. Here are its keys in the clear, for as long as this process needs them.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use super::envelope::{self, Context, FORMAT, Fault, KeyBytes, OVERHEAD_BYTES, Refused};
use super::master::{MasterKey, MasterKeyId, MasterKeys};

const LABEL: &str = "llm-config data key v1";
/// Unwrapped keys in memory; others are unwrapped again, which takes microseconds.
const CACHED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// What the secrets of one owner are sealed with.
#[derive(Debug)]
pub struct DataKey {
    version: u32,
    bytes: KeyBytes,
}

impl DataKey {
    /// A new one. Versions of an owner's keys count up and are not used again.
    ///
    /// # Errors
    /// [`Fault`] without random numbers.
    pub fn random(version: u32) -> Result<Self, Fault> {
        Ok(Self { version, bytes: KeyBytes::random()? })
    }

    /// Which of its owner's keys it is.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    pub(super) fn bytes(&self) -> &KeyBytes {
        &self.bytes
    }

    #[cfg(test)]
    pub(super) fn fixed(version: u32, bytes: [u8; envelope::KEY_BYTES]) -> Self {
        Self { version, bytes: KeyBytes::copy_of(&bytes).unwrap() }
    }
}

/// A data key as it may be stored and replicated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The master key that opens it.
    pub master_id: MasterKeyId,
    /// What it opens.
    pub bytes: Vec<u8>,
}

/// Why a data key cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The node was started without.
    #[error(
        "this node has no master key, so it can neither take nor reveal secrets; start it with --master-key-file, the same \
         keys as on the other nodes"
    )]
    NoMasterKey,
    /// The master key that is needed is not among those of this node.
    #[error(
        "data key {version} of {owner} is wrapped with the master key {needed}, and --master-key-file of this node has {}; \
         add the missing one to the file",
        listed(.present)
    )]
    OtherMasterKey {
        /// Whose data key.
        owner: String,
        /// Which one.
        version: u32,
        /// What would open it.
        needed: MasterKeyId,
        /// What there is, the current one first.
        present: Vec<MasterKeyId>,
    },
    /// The tag does not fit, though the master key is the right one.
    #[error(
        "data key {version} of {owner} does not authenticate with the master key {master_id}: it was altered, or belongs to \
         another owner or version; restore a backup"
    )]
    NotAuthentic {
        /// Whose data key.
        owner: String,
        /// Which one.
        version: u32,
        /// What it should open with.
        master_id: MasterKeyId,
    },
    /// Written by a newer release.
    #[error(
        "data key {version} of {owner} has format {found}, and this release knows {FORMAT}; use the release that wrote it or \
         a newer one"
    )]
    Newer {
        /// Whose data key.
        owner: String,
        /// Which one.
        version: u32,
        /// The format.
        found: u8,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

fn listed(ids: &[MasterKeyId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    ids.join(", ")
}

fn context(owner: &str, version: u32, master_id: MasterKeyId) -> Context {
    Context::new(LABEL).text(owner).fixed(version.to_be_bytes()).fixed(master_id.to_bytes())
}

/// Encrypts a data key of this owner with a master key.
///
/// # Errors
/// [`Fault`] without random numbers.
pub fn wrap(master: &MasterKey, owner: &str, key: &DataKey) -> Result<WrappedKey, Fault> {
    let context = context(owner, key.version, master.id());
    let bytes = envelope::close(master.bytes(), &context, key.bytes.expose())?;
    Ok(WrappedKey { master_id: master.id(), bytes })
}

/// Decrypts a data key with that one of the master keys that it names.
///
/// # Errors
/// All of [`KeyError`].
pub fn unwrap(
    masters: Option<&MasterKeys>,
    owner: &str,
    version: u32,
    wrapped: &WrappedKey,
) -> Result<DataKey, KeyError> {
    unwrap_with(&*find(masters, owner, version, wrapped)?, owner, version, wrapped)
}

fn find(
    masters: Option<&MasterKeys>,
    owner: &str,
    version: u32,
    wrapped: &WrappedKey,
) -> Result<Arc<MasterKey>, KeyError> {
    let masters = masters.ok_or(KeyError::NoMasterKey)?;
    masters.by_id(wrapped.master_id).ok_or_else(|| KeyError::OtherMasterKey {
        owner: owner.to_owned(),
        version,
        needed: wrapped.master_id,
        present: masters.ids(),
    })
}

fn unwrap_with(
    master: &MasterKey,
    owner: &str,
    version: u32,
    wrapped: &WrappedKey,
) -> Result<DataKey, KeyError> {
    let refused = |refused| match refused {
        Refused::Newer(found) => KeyError::Newer { owner: owner.to_owned(), version, found },
        Refused::Fault(fault) => KeyError::Fault(fault),
        Refused::TooShort(_) | Refused::NotAuthentic => {
            KeyError::NotAuthentic { owner: owner.to_owned(), version, master_id: master.id() }
        }
    };
    // Nothing longer is a key; it is not worth decrypting.
    if wrapped.bytes.len() > envelope::KEY_BYTES + OVERHEAD_BYTES {
        return Err(refused(Refused::NotAuthentic));
    }
    let context = context(owner, version, master.id());
    let bytes = envelope::open(master.bytes(), &context, &wrapped.bytes).map_err(refused)?;
    let bytes = KeyBytes::copy_of(&bytes).ok_or_else(|| refused(Refused::NotAuthentic))?;
    Ok(DataKey { version, bytes })
}

struct Cached {
    record: WrappedKey,
    key: Arc<DataKey>,
}

/// The data keys as this node can use them, with those in memory that were used lately.
pub struct DataKeys {
    masters: Option<Arc<MasterKeys>>,
    /// By owner and version; an answer only to who brings the same record.
    cached: Mutex<LruCache<(Box<str>, u32), Cached>>,
}

impl DataKeys {
    /// `None`: a node that serves everything but secrets.
    #[must_use]
    pub fn new(masters: Option<Arc<MasterKeys>>) -> Self {
        Self { masters, cached: Mutex::new(LruCache::new(CACHED_MAX)) }
    }

    /// The master keys, if this node has any.
    #[must_use]
    pub fn masters(&self) -> Option<&Arc<MasterKeys>> {
        self.masters.as_ref()
    }

    /// The data key in this record of the key ring. A record that was changed is unwrapped anew, and one whose master key
    /// was taken out of the file is no longer opened.
    ///
    /// # Errors
    /// All of [`KeyError`].
    pub fn get(
        &self,
        owner: &str,
        version: u32,
        record: &WrappedKey,
    ) -> Result<Arc<DataKey>, KeyError> {
        let master = find(self.masters.as_deref(), owner, version, record)?;
        let name = (Box::from(owner), version);
        if let Some(cached) = self.cached.lock().get(&name)
            && cached.record == *record
        {
            return Ok(Arc::clone(&cached.key));
        }
        let key = Arc::new(unwrap_with(&master, owner, version, record)?);
        let cached = Cached { record: record.clone(), key: Arc::clone(&key) };
        self.cached.lock().put(name, cached);
        Ok(key)
    }

    /// A new data key, and the record of it for the key ring, under the current master key. It is good for sealing once
    /// the record was replicated: another node may have made one at the same moment.
    ///
    /// # Errors
    /// [`KeyError::NoMasterKey`], [`KeyError::Fault`].
    pub fn make(&self, owner: &str, version: u32) -> Result<(DataKey, WrappedKey), KeyError> {
        let masters = self.masters.as_ref().ok_or(KeyError::NoMasterKey)?;
        let key = DataKey::random(version)?;
        let record = wrap(&masters.current(), owner, &key)?;
        Ok((key, record))
    }

    /// The same data key under the current master key. `None`: it is so already.
    ///
    /// # Errors
    /// All of [`KeyError`].
    pub fn rewrap(
        &self,
        owner: &str,
        version: u32,
        record: &WrappedKey,
    ) -> Result<Option<WrappedKey>, KeyError> {
        let masters = self.masters.as_ref().ok_or(KeyError::NoMasterKey)?;
        let current = masters.current();
        if record.master_id == current.id() {
            return Ok(None);
        }
        let key = self.get(owner, version, record)?;
        Ok(Some(wrap(&current, owner, &key)?))
    }

    /// Drops every key in memory: the state was replaced as a whole.
    pub fn forget(&self) {
        self.cached.lock().clear();
    }
}

/// Numbers only.
impl std::fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataKeys")
            .field("masters", &self.masters)
            .field("cached", &self.cached.lock().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::master::testing::{self, Folder};
    use super::*;
    use crate::hex::hex;

    const OWNER: &str = "team/app";
    /// Key 3 of [`OWNER`], all 0x42, with the master key of all 0x11 and the nonce 00 01 … 0b.
    const KNOWN_KEY: &str = "01000102030405060708090a0b51a1f45139e177b656fa91dd86edb5648be3422a5737106deba2fd3dbf02216c39eba9513ebf4c02960939a720408197";

    fn master(byte: u8) -> MasterKey {
        testing::master(byte)
    }

    fn not_authentic(error: &KeyError) -> bool {
        matches!(error, KeyError::NotAuthentic { .. })
    }

    /// Made with another implementation of AES-GCM. If this fails, no secret that releases have stored can be read any more.
    #[test]
    fn the_layout_is_the_one_that_releases_have_stored() {
        let (master, key) = (master(0x11), DataKey::fixed(3, [0x42; 32]));
        let nonce = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let context = context(OWNER, 3, master.id());
        let bytes =
            envelope::close_with(master.bytes(), nonce, &context, key.bytes.expose()).unwrap();
        assert_eq!(hex(&bytes), KNOWN_KEY);
        let wrapped = WrappedKey { master_id: master.id(), bytes };
        let key = unwrap_with(&master, OWNER, 3, &wrapped).unwrap();
        assert_eq!((key.version(), key.bytes.expose()), (3, &[0x42; 32]));
    }

    #[test]
    fn a_wrapped_key_comes_back() {
        let folder = Folder::new(&[1, 2]);
        let masters = folder.load();
        let key = DataKey::random(5).unwrap();
        let wrapped = wrap(&masters.current(), OWNER, &key).unwrap();
        assert_eq!(wrapped.master_id, master(1).id());
        let back = unwrap(Some(&masters), OWNER, 5, &wrapped).unwrap();
        assert_eq!(back.bytes.expose(), key.bytes.expose());
        // By a master key that is not the current one any more, too.
        let wrapped = wrap(&master(2), OWNER, &key).unwrap();
        let back = unwrap(Some(&masters), OWNER, 5, &wrapped).unwrap();
        assert_eq!(back.bytes.expose(), key.bytes.expose());
        assert!(!format!("{key:?} {wrapped:?}").contains(&hex(key.bytes.expose())));
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let master = master(1);
        let wrapped = wrap(&master, OWNER, &DataKey::fixed(3, [7; 32])).unwrap();
        for bit in 0..wrapped.bytes.len() * 8 {
            let mut flipped = wrapped.clone();
            flipped.bytes[bit / 8] ^= 1 << (bit % 8);
            let error = unwrap_with(&master, OWNER, 3, &flipped).unwrap_err();
            match flipped.bytes[0] {
                newer if newer > FORMAT => assert!(matches!(error, KeyError::Newer { .. })),
                _ => assert!(not_authentic(&error), "bit {bit}: {error}"),
            }
        }
        for bit in 0..32 {
            let error = unwrap_with(&master, OWNER, 3 ^ (1 << bit), &wrapped).unwrap_err();
            assert!(not_authentic(&error), "bit {bit} of the version: {error}");
        }
        for bit in 0..OWNER.len() * 8 {
            let mut owner = OWNER.as_bytes().to_vec();
            owner[bit / 8] ^= 1 << (bit % 8);
            let Ok(owner) = String::from_utf8(owner) else { continue };
            let error = unwrap_with(&master, &owner, 3, &wrapped).unwrap_err();
            assert!(not_authentic(&error), "{owner}: {error}");
        }
        let folder = Folder::new(&[1]);
        let masters = folder.load();
        for bit in 0..64 {
            let mut id = wrapped.master_id.to_bytes();
            id[bit / 8] ^= 1 << (bit % 8);
            let flipped = WrappedKey { master_id: MasterKeyId::from_bytes(id), ..wrapped.clone() };
            let error = unwrap(Some(&masters), OWNER, 3, &flipped).unwrap_err();
            assert!(matches!(error, KeyError::OtherMasterKey { .. }), "bit {bit}: {error}");
        }
    }

    #[test]
    fn what_was_cut_or_grew_is_refused() {
        let master = master(1);
        let wrapped = wrap(&master, OWNER, &DataKey::fixed(3, [7; 32])).unwrap();
        for length in 0..wrapped.bytes.len() {
            let bytes = wrapped.bytes[..length].to_vec();
            let cut = WrappedKey { bytes, ..wrapped };
            assert!(not_authentic(&unwrap_with(&master, OWNER, 3, &cut).unwrap_err()));
        }
        let grown = WrappedKey { bytes: [&wrapped.bytes[..], &[0; 4096]].concat(), ..wrapped };
        assert!(not_authentic(&unwrap_with(&master, OWNER, 3, &grown).unwrap_err()));
        // An envelope of something that is no key.
        let context = context(OWNER, 3, master.id());
        let bytes = envelope::close(master.bytes(), &context, b"short").unwrap();
        let no_key = WrappedKey { master_id: master.id(), bytes };
        assert!(not_authentic(&unwrap_with(&master, OWNER, 3, &no_key).unwrap_err()));
    }

    #[test]
    fn errors_tell_a_missing_a_wrong_and_an_altered_key_apart() {
        let folder = Folder::new(&[1, 2]);
        let masters = folder.load();
        let wrapped = wrap(&master(3), OWNER, &DataKey::fixed(4, [7; 32])).unwrap();

        let error = unwrap(None, OWNER, 4, &wrapped).unwrap_err();
        assert_eq!(error, KeyError::NoMasterKey);
        assert!(error.to_string().contains("--master-key-file"), "{error}");

        let text = unwrap(Some(&masters), OWNER, 4, &wrapped).unwrap_err().to_string();
        let ids = [3, 1, 2].map(|byte| master(byte).id().to_string());
        for part in ["data key 4 of team/app", "--master-key-file", &ids[0], &ids[1], &ids[2]] {
            assert!(text.contains(part), "{text}");
        }

        // Said to be of a master key that is there, and is not.
        let forged = WrappedKey { master_id: master(1).id(), ..wrapped };
        let error = unwrap(Some(&masters), OWNER, 4, &forged).unwrap_err();
        assert!(not_authentic(&error), "{error}");
        assert!(error.to_string().contains("altered"), "{error}");
    }

    #[test]
    fn a_key_in_memory_answers_only_for_its_record() {
        let folder = Folder::new(&[1]);
        let keys = DataKeys::new(Some(Arc::new(folder.load())));
        let (made, record) = keys.make(OWNER, 1).unwrap();
        let first = keys.get(OWNER, 1, &record).unwrap();
        assert_eq!(first.bytes.expose(), made.bytes.expose());
        assert!(Arc::ptr_eq(&first, &keys.get(OWNER, 1, &record).unwrap()));
        // The record was replaced, by a restore or a key made elsewhere.
        let (other, other_record) = keys.make(OWNER, 1).unwrap();
        let second = keys.get(OWNER, 1, &other_record).unwrap();
        assert_eq!(second.bytes.expose(), other.bytes.expose());
        // And nothing else is answered for it.
        assert!(not_authentic(&keys.get("team/other", 1, &record).unwrap_err()));
        assert!(not_authentic(&keys.get(OWNER, 2, &record).unwrap_err()));
        keys.forget();
        assert!(!Arc::ptr_eq(&second, &keys.get(OWNER, 1, &other_record).unwrap()));
    }

    #[test]
    fn the_keys_in_memory_are_bounded() {
        let folder = Folder::new(&[1]);
        let keys = DataKeys::new(Some(Arc::new(folder.load())));
        for number in 0..CACHED_MAX.get() + 50 {
            let owner = format!("owner-{number}");
            let (_, record) = keys.make(&owner, 1).unwrap();
            keys.get(&owner, 1, &record).unwrap();
        }
        assert_eq!(keys.cached.lock().len(), CACHED_MAX.get());
    }

    #[test]
    fn a_master_key_is_replaced_and_taken_away() {
        let folder = Folder::new(&[1]);
        let masters = Arc::new(folder.load());
        let keys = DataKeys::new(Some(Arc::clone(&masters)));
        let (made, old_record) = keys.make(OWNER, 1).unwrap();
        assert_eq!(keys.rewrap(OWNER, 1, &old_record).unwrap(), None);

        folder.write(&[2, 1]);
        assert!(masters.reload().unwrap());
        let record = keys.rewrap(OWNER, 1, &old_record).unwrap().unwrap();
        assert_eq!(record.master_id, master(2).id());
        assert_eq!(keys.rewrap(OWNER, 1, &record).unwrap(), None);
        assert_eq!(keys.get(OWNER, 1, &record).unwrap().bytes.expose(), made.bytes.expose());

        keys.get(OWNER, 1, &old_record).unwrap();
        folder.write(&[2]);
        assert!(masters.reload().unwrap());
        let error = keys.get(OWNER, 1, &old_record).unwrap_err();
        assert!(
            matches!(error, KeyError::OtherMasterKey { .. }),
            "though it is in memory: {error}"
        );
        assert!(keys.get(OWNER, 1, &record).is_ok());
    }

    #[test]
    fn without_master_keys_there_are_no_data_keys() {
        let keys = DataKeys::new(None);
        assert!(keys.masters().is_none());
        assert_eq!(keys.make(OWNER, 1).unwrap_err(), KeyError::NoMasterKey);
        let record = wrap(&master(1), OWNER, &DataKey::fixed(1, [7; 32])).unwrap();
        assert_eq!(keys.get(OWNER, 1, &record).unwrap_err(), KeyError::NoMasterKey);
        assert_eq!(keys.rewrap(OWNER, 1, &record).unwrap_err(), KeyError::NoMasterKey);
    }
}
