//! The 32 bytes of a key, and what is encrypted with one: `format, nonce, ciphertext, tag`.
//!
//! It knows neither secrets nor data keys, only bytes and what they belong to.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use zeroize::{Zeroize as _, Zeroizing};

pub(super) const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + NONCE_LEN;
/// The format that this release writes, and the only one that it reads.
pub(super) const FORMAT: u8 = 1;
/// Bytes that an envelope has beyond its content.
pub(super) const OVERHEAD_BYTES: usize = HEAD_BYTES + TAG_BYTES;

/// The system has no random numbers, or the cryptographic library refuses what it never refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}; nothing was encrypted or decrypted, look at the state of the machine")]
pub struct Fault(&'static str);

/// Boxed, so that the bytes stay in one place when the key moves, and are overwritten there.
pub(super) struct KeyBytes(Box<[u8; KEY_BYTES]>);

impl KeyBytes {
    pub(super) fn random() -> Result<Self, Fault> {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        fill(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// A copy, if there are as many bytes as a key has.
    pub(super) fn copy_of(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::new([0; KEY_BYTES]));
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// The library overwrites what it makes of the key when this is dropped.
    fn cipher(&self) -> Result<LessSafeKey, Fault> {
        let key = UnboundKey::new(&AES_256_GCM, self.0.as_slice())
            .map_err(|_| Fault("the cryptographic library refused a key"))?;
        Ok(LessSafeKey::new(key))
    }
}

impl Drop for KeyBytes {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyBytes(..)")
    }
}

fn fill(bytes: &mut [u8]) -> Result<(), Fault> {
    SystemRandom::new().fill(bytes).map_err(|_| Fault("the system gave no random numbers"))
}

/// What an envelope belongs to. Texts go in with their length before them, so that no two places look alike.
pub(super) struct Context(Vec<u8>);

impl Context {
    pub(super) fn new(label: &str) -> Self {
        Self(label.as_bytes().to_vec())
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0.extend((text.len() as u64).to_be_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    /// Bytes that are always as many.
    pub(super) fn fixed<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.0.extend(bytes);
        self
    }
}

/// Why an envelope is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Newer(u8),
    TooShort(usize),
    NotAuthentic,
    Fault(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

pub(super) fn close(key: &KeyBytes, context: &Context, content: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut nonce = [0; NONCE_LEN];
    fill(&mut nonce)?;
    close_with(key, nonce, context, content)
}

/// A nonce must never meet the same key twice: outside tests it is random, and a key is replaced long before 2^32 uses.
pub(super) fn close_with(
    key: &KeyBytes,
    nonce: [u8; NONCE_LEN],
    context: &Context,
    content: &[u8],
) -> Result<Vec<u8>, Fault> {
    let cipher = key.cipher()?;
    // Overwritten if the content stays in it; of the right size, so that it is never left behind by growing.
    let mut envelope = Zeroizing::new(Vec::with_capacity(content.len() + OVERHEAD_BYTES));
    envelope.push(FORMAT);
    envelope.extend_from_slice(&nonce);
    envelope.extend_from_slice(content);
    let tag = cipher
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(context.0.as_slice()),
            &mut envelope[HEAD_BYTES..],
        )
        .map_err(|_| Fault("the cryptographic library refused to encrypt"))?;
    envelope.extend_from_slice(tag.as_ref());
    Ok(std::mem::take(&mut *envelope))
}

pub(super) fn open(
    key: &KeyBytes,
    context: &Context,
    envelope: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Refused> {
    match envelope.first() {
        Some(&found) if found > FORMAT => return Err(Refused::Newer(found)),
        // No release wrote it.
        Some(0) => return Err(Refused::NotAuthentic),
        _ => {}
    }
    if envelope.len() < OVERHEAD_BYTES {
        return Err(Refused::TooShort(envelope.len()));
    }
    let (head, body) = envelope.split_at(HEAD_BYTES);
    let nonce = Nonce::try_assume_unique_for_key(&head[1..])
        .map_err(|_| Refused::TooShort(envelope.len()))?;
    let cipher = key.cipher()?;
    let mut content = Zeroizing::new(body.to_vec());
    let length = cipher
        .open_in_place(nonce, Aad::from(context.0.as_slice()), &mut content)
        .map_err(|_| Refused::NotAuthentic)?
        .len();
    content.truncate(length);
    Ok(content)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> KeyBytes {
        KeyBytes::copy_of(&[byte; KEY_BYTES]).unwrap()
    }

    fn context() -> Context {
        Context::new("label").text("a").text("bc").fixed(7u32.to_be_bytes())
    }

    /// Each of them with one bit changed.
    fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> + '_ {
        (0..bytes.len() * 8).map(|bit| {
            let mut flipped = bytes.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            flipped
        })
    }

    #[test]
    fn what_is_closed_opens() {
        let envelope = close(&key(1), &context(), b"content").unwrap();
        assert_eq!(envelope.len(), 7 + OVERHEAD_BYTES);
        assert_eq!(envelope[0], FORMAT);
        assert!(!envelope.windows(7).any(|window| window == b"content"));
        assert_eq!(open(&key(1), &context(), &envelope).unwrap().as_slice(), b"content");
    }

    #[test]
    fn the_same_content_never_looks_the_same() {
        let make = || close(&key(1), &context(), b"content").unwrap();
        assert_ne!(make()[1..HEAD_BYTES], make()[1..HEAD_BYTES], "nonces are random");
        assert_ne!(KeyBytes::random().unwrap().expose(), KeyBytes::random().unwrap().expose());
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let envelope = close(&key(1), &context(), b"content").unwrap();
        for flipped in flips(&envelope) {
            let refused = open(&key(1), &context(), &flipped).unwrap_err();
            let expected = match flipped[0] {
                FORMAT | 0 => Refused::NotAuthentic,
                newer => Refused::Newer(newer),
            };
            assert_eq!(refused, expected);
        }
        for flipped in flips(&context().0) {
            let refused = open(&key(1), &Context(flipped), &envelope).unwrap_err();
            assert_eq!(refused, Refused::NotAuthentic);
        }
        for flipped in flips(key(1).expose()) {
            let other = KeyBytes::copy_of(&flipped).unwrap();
            assert_eq!(open(&other, &context(), &envelope).unwrap_err(), Refused::NotAuthentic);
        }
    }

    #[test]
    fn what_was_cut_or_grew_is_refused() {
        let envelope = close(&key(1), &context(), b"content").unwrap();
        for length in 0..envelope.len() {
            let refused = open(&key(1), &context(), &envelope[..length]).unwrap_err();
            let expected = if length < OVERHEAD_BYTES {
                Refused::TooShort(length)
            } else {
                Refused::NotAuthentic
            };
            assert_eq!(refused, expected);
        }
        let grown = [envelope.as_slice(), &[0]].concat();
        assert_eq!(open(&key(1), &context(), &grown).unwrap_err(), Refused::NotAuthentic);
    }

    #[test]
    fn no_two_contexts_look_alike() {
        let texts = |texts: [&str; 2]| Context::new("l").text(texts[0]).text(texts[1]).0;
        assert_ne!(texts(["ab", "c"]), texts(["a", "bc"]));
        assert_ne!(texts(["", "a"]), texts(["a", ""]));
        assert_ne!(texts(["a", "b"]), Context::new("l").text("ab").0);
    }

    #[test]
    fn only_keys_of_the_right_length_are_taken() {
        assert!(KeyBytes::copy_of(&[1; KEY_BYTES - 1]).is_none());
        assert!(KeyBytes::copy_of(&[1; KEY_BYTES + 1]).is_none());
        assert_eq!(format!("{:?}", key(1)), "KeyBytes(..)");
    }

    proptest! {
        #[test]
        fn content_of_any_length_comes_back(
            content in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                proptest::collection::vec(any::<u8>(), 10_000..10_040),
            ],
        ) {
            let envelope = close(&key(1), &context(), &content).unwrap();
            prop_assert_eq!(envelope.len(), content.len() + OVERHEAD_BYTES);
            let opened = open(&key(1), &context(), &envelope).unwrap();
            prop_assert_eq!(opened.as_slice(), content.as_slice());
        }
    }
}
