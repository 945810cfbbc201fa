//! A digest of a request that carries a secret, by which a retry is recognised.
//!
//! The ciphertext of a retry differs, so the plaintext is digested; with a key, because the digest is in the log, and who
//! reads that must not be able to try guesses.

use aws_lc_rs::hmac;

use super::keyring::DataKey;

const DIGEST_BYTES: usize = 32;
const LABEL: &[u8] = b"llm-config request digest v1";
/// The owner of the digest's key in the key ring: nobody, since every namespace has a name.
///
/// Digests of different keys cannot be compared: while a request is remembered, its key must stay.
pub const DIGEST_OWNER: &str = "";

/// HMAC-SHA256 over the parts, each with its length before it.
#[must_use]
pub fn keyed_digest(key: &DataKey, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.bytes().expose());
    let mut context = hmac::Context::with_key(&key);
    context.update(LABEL);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut digest = [0; DIGEST_BYTES];
    digest.copy_from_slice(context.sign().as_ref());
    digest
}

#[cfg(test)]
mod tests {
    use llm_config_domain::Namespace;
    use proptest::prelude::*;

    use super::*;

    fn digest(key: u8, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
        keyed_digest(&DataKey::fixed(1, [key; 32]), parts)
    }

    /// Made with another implementation of HMAC.
    #[test]
    fn the_digest_is_the_one_that_releases_have_stored() {
        let made = digest(0x42, &[b"set", b"", b"\"sk\""]);
        assert_eq!(
            crate::hex::hex(&made),
            "075dc87177d149bd5e95bbd67cc0ebb939e1687a9af1d6e04e2d5118d405efe0"
        );
    }

    #[test]
    fn it_depends_on_the_key_and_on_each_part() {
        let base = digest(1, &[b"ab", b"c"]);
        assert_eq!(base, digest(1, &[b"ab", b"c"]));
        for other in [
            digest(2, &[b"ab", b"c"]),
            digest(1, &[b"a", b"bc"]),
            digest(1, &[b"abc"]),
            digest(1, &[b"ab", b"c", b""]),
            digest(1, &[b"", b"ab", b"c"]),
            digest(1, &[b"ab", b"d"]),
            digest(1, &[]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn no_namespace_owns_the_key() {
        assert!(Namespace::parse(DIGEST_OWNER).is_err());
    }

    proptest! {
        #[test]
        fn no_two_lists_of_parts_have_the_same_digest(
            one in proptest::collection::vec(proptest::collection::vec(0u8..2, 0..3), 0..4),
            other in proptest::collection::vec(proptest::collection::vec(0u8..2, 0..3), 0..4),
        ) {
            let of = |parts: &[Vec<u8>]| {
                digest(1, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            prop_assert_eq!(of(&one) == of(&other), one == other);
        }
    }
}
