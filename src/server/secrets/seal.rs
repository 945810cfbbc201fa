//! One secret as it is stored: sealed with a data key, and bound to the entry and the version that it belongs to.
//!
//! Which data key that is, and whether somebody may see what it opens, is decided elsewhere.

use llm_config_domain::limits;

use super::envelope::{self, Context, FORMAT, Fault, OVERHEAD_BYTES, Refused};
use super::keyring::DataKey;
use super::plaintext::Plaintext;

const LABEL: &str = "llm-config secret v1";
/// Largest sealed secret.
pub const SEALED_BYTES_MAX: usize = limits::VALUE_BYTES_MAX + OVERHEAD_BYTES;

/// What a sealed secret belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The environment's number in stored bytes.
    pub environment: u8,
    /// The key within the namespace.
    pub key: &'a str,
    /// The version of the entry.
    pub version: u64,
}

impl Place<'_> {
    fn context(&self, data_key_version: u32) -> Context {
        Context::new(LABEL)
            .text(self.namespace)
            .fixed([self.environment])
            .text(self.key)
            .fixed(self.version.to_be_bytes())
            .fixed(data_key_version.to_be_bytes())
    }
}

/// Why a secret was not sealed or opened. None of these says anything about its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Longer than a value may be.
    #[error("value: has {bytes} bytes, at most {} are allowed", limits::VALUE_BYTES_MAX)]
    TooLarge {
        /// Of the plaintext.
        bytes: usize,
    },
    /// Written by a newer release.
    #[error(
        "the secret has format {found}, and this release knows {FORMAT}; use the release that wrote it or a newer one"
    )]
    Newer {
        /// The format.
        found: u8,
    },
    /// Not even a nonce and a tag.
    #[error(
        "the secret is stored in {bytes} bytes and has {OVERHEAD_BYTES} at least: it was cut off; write it again or restore a backup"
    )]
    TooShort {
        /// How many there are.
        bytes: usize,
    },
    /// The tag does not fit.
    #[error(
        "the secret does not authenticate: it was altered, or belongs to another entry or version, or the key is another one; \
         write it again or restore a backup"
    )]
    NotAuthentic,
    /// It would have to be opened with a key that was not given.
    #[error(
        "the secret is sealed with data key {found}, not with {expected}; open it with that one"
    )]
    OtherDataKey {
        /// What it is sealed with.
        found: u32,
        /// What was given.
        expected: u32,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<Refused> for SecretError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Newer(found) => Self::Newer { found },
            Refused::TooShort(bytes) => Self::TooShort { bytes },
            Refused::NotAuthentic => Self::NotAuthentic,
            Refused::Fault(fault) => Self::Fault(fault),
        }
    }
}

/// Seals a secret for one version of one entry.
///
/// # Errors
/// [`SecretError::TooLarge`], [`SecretError::Fault`].
pub fn seal(
    key: &DataKey,
    place: Place<'_>,
    plaintext: &Plaintext,
) -> Result<Vec<u8>, SecretError> {
    let bytes = plaintext.expose().len();
    if bytes > limits::VALUE_BYTES_MAX {
        return Err(SecretError::TooLarge { bytes });
    }
    let context = place.context(key.version());
    Ok(envelope::close(key.bytes(), &context, plaintext.expose())?)
}

/// Opens what [`seal`] made for this very place with this very key.
///
/// # Errors
/// All of [`SecretError`].
pub fn open(key: &DataKey, place: Place<'_>, sealed: &[u8]) -> Result<Plaintext, SecretError> {
    if sealed.len() > SEALED_BYTES_MAX {
        return Err(SecretError::TooLarge { bytes: sealed.len() - OVERHEAD_BYTES });
    }
    let content = envelope::open(key.bytes(), &place.context(key.version()), sealed)?;
    Ok(content.into())
}

#[cfg(test)]
mod tests {
    use llm_config_domain::Environment;
    use proptest::prelude::*;

    use super::*;
    use crate::hex::hex;

    const PLACE: Place<'_> =
        Place { namespace: "team/app", environment: 4, key: "openai/key", version: 7 };

    /// [`PLACE`] with data key 3, all 0x42, and the nonce 00 01 … 0b.
    const KNOWN_SECRET: &str =
        "01000102030405060708090a0b27adfaf0c2499179f8726669843224adf45c25775e76f3587a0c4d";

    fn key() -> DataKey {
        DataKey::fixed(3, [0x42; 32])
    }

    fn sealed(place: Place<'_>) -> Vec<u8> {
        seal(&key(), place, &Plaintext::from("\"sk-secret\"".to_owned())).unwrap()
    }

    /// Made with another implementation of AES-GCM. If this fails, what releases have stored cannot be read any more.
    #[test]
    fn the_layout_is_the_one_that_releases_have_stored() {
        let nonce = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
        let context = PLACE.context(3);
        let made = envelope::close_with(key().bytes(), nonce, &context, b"\"sk-secret\"").unwrap();
        assert_eq!(hex(&made), KNOWN_SECRET);
        assert_eq!(open(&key(), PLACE, &made).unwrap().expose(), b"\"sk-secret\"");
    }

    #[test]
    fn a_flipped_bit_is_refused() {
        let sealed = sealed(PLACE);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = open(&key(), PLACE, &flipped).unwrap_err();
            let newer = flipped[0] > FORMAT;
            assert_eq!(matches!(refused, SecretError::Newer { .. }), newer, "bit {bit}");
            assert_eq!(refused == SecretError::NotAuthentic, !newer, "bit {bit}");
        }
    }

    /// Every text with one bit changed that still is a text.
    fn flipped_texts(text: &str) -> Vec<String> {
        let flip = |bit: usize| {
            let mut bytes = text.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            String::from_utf8(bytes).ok()
        };
        let flipped: Vec<_> = (0..text.len() * 8).filter_map(flip).collect();
        assert_eq!(flipped.len(), text.len() * 7, "all bits but the highest of ASCII");
        flipped
    }

    #[test]
    fn a_flipped_bit_of_what_it_belongs_to_is_refused() {
        let sealed = sealed(PLACE);
        let refused = |place: Place<'_>| {
            assert_ne!(place, PLACE);
            let error = open(&key(), place, &sealed).unwrap_err();
            assert_eq!(error, SecretError::NotAuthentic, "{place:?}");
        };
        for namespace in flipped_texts(PLACE.namespace) {
            refused(Place { namespace: &namespace, ..PLACE });
        }
        for key in flipped_texts(PLACE.key) {
            refused(Place { key: &key, ..PLACE });
        }
        for bit in 0..8 {
            refused(Place { environment: PLACE.environment ^ (1 << bit), ..PLACE });
        }
        for bit in 0..64 {
            refused(Place { version: PLACE.version ^ (1 << bit), ..PLACE });
        }
        for bit in 0..32 {
            let other = DataKey::fixed(3 ^ (1 << bit), [0x42; 32]);
            let error = open(&other, PLACE, &sealed).unwrap_err();
            assert_eq!(error, SecretError::NotAuthentic, "bit {bit} of the data key's version");
        }
    }

    #[test]
    fn secrets_cannot_change_places() {
        let places = [
            PLACE,
            Place { key: "openai/key2", ..PLACE },
            Place { namespace: "team/app2", ..PLACE },
            Place { namespace: "team", key: "app/openai/key", ..PLACE },
            Place { namespace: "team/app/openai", key: "key", ..PLACE },
            Place { environment: Environment::Base.code(), ..PLACE },
            Place { version: 6, ..PLACE },
            Place { version: 8, ..PLACE },
        ];
        for from in places {
            let sealed = sealed(from);
            for to in places {
                let opened = open(&key(), to, &sealed);
                assert_eq!(opened.is_ok(), from == to, "{from:?} at {to:?}");
            }
        }
    }

    #[test]
    fn another_key_opens_nothing() {
        let other = DataKey::fixed(3, [0x43; 32]);
        let error = open(&other, PLACE, &sealed(PLACE)).unwrap_err();
        assert_eq!(error, SecretError::NotAuthentic);
        let text = error.to_string();
        for part in ["altered", "another entry or version", "the key is another one"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let newer = [&[2], &sealed(PLACE)[1..]].concat();
        let error = open(&key(), PLACE, &newer).unwrap_err();
        assert!(error.to_string().contains("has format 2"), "{error}");
        assert!(error.to_string().contains("use the release that wrote it"), "{error}");
        for length in [0, 1, OVERHEAD_BYTES - 1] {
            let error = open(&key(), PLACE, &sealed(PLACE)[..length]).unwrap_err();
            assert_eq!(error, SecretError::TooShort { bytes: length });
        }
        // One byte is enough to tell a newer format.
        assert_eq!(open(&key(), PLACE, &[9]).unwrap_err(), SecretError::Newer { found: 9 });
    }

    #[test]
    fn the_largest_value_fits_and_nothing_larger() {
        let largest = Plaintext::from(vec![b'x'; limits::VALUE_BYTES_MAX]);
        let sealed = seal(&key(), PLACE, &largest).unwrap();
        assert_eq!(sealed.len(), SEALED_BYTES_MAX);
        assert_eq!(open(&key(), PLACE, &sealed).unwrap().expose(), largest.expose());
        let bytes = limits::VALUE_BYTES_MAX + 1;
        let larger = Plaintext::from(vec![b'x'; bytes]);
        assert_eq!(seal(&key(), PLACE, &larger).unwrap_err(), SecretError::TooLarge { bytes });
        let sealed = [sealed, vec![0]].concat();
        assert_eq!(open(&key(), PLACE, &sealed).unwrap_err(), SecretError::TooLarge { bytes });
    }

    proptest! {
        #[test]
        fn secrets_of_any_length_and_place_come_back(
            content in proptest::collection::vec(any::<u8>(), 0..5_000),
            namespace in "[a-z/]{1,40}",
            name in "\\PC{1,40}",
            environment in 1u8..=5,
            version: u64,
            key_version: u32,
        ) {
            let key = DataKey::fixed(key_version, [9; 32]);
            let place = Place { namespace: &namespace, environment, key: &name, version };
            let sealed = seal(&key, place, &Plaintext::copy_of(&content)).unwrap();
            prop_assert_eq!(sealed.len(), content.len() + OVERHEAD_BYTES);
            let opened = open(&key, place, &sealed).unwrap();
            prop_assert_eq!(opened.expose(), content.as_slice());
        }
    }
}
