//! What is written: values that differ and do not compress, the same for every system, and numbered where somebody
//! waits for them.

use anyhow::Context as _;
use bytes::Bytes;
use rand::Rng;

/// Where all keys lie.
pub const NAMESPACE: &str = "bench/load";

const POOL_BYTES: usize = 1 << 16;
/// Hexadecimal digits of a stamp.
const STAMP_BYTES: usize = 16;
const QUOTES: usize = 2;

/// The name of a key in its namespace.
#[must_use]
pub fn key(number: usize) -> String {
    format!("key-{number}")
}

/// JSON strings cut out of random letters.
#[derive(Debug)]
pub struct Values {
    pool: Vec<u8>,
    letters: usize,
}

impl Values {
    /// Values of so many bytes, with quotes; `stamps` when they are to be numbered.
    ///
    /// # Errors
    /// When that is too few.
    pub fn new(value_bytes: usize, stamps: bool) -> anyhow::Result<Self> {
        let letters = value_bytes
            .checked_sub(QUOTES)
            .context("a value has at least 2 bytes: the quotes of a JSON string")?;
        let least = QUOTES + STAMP_BYTES;
        anyhow::ensure!(
            !stamps || letters >= STAMP_BYTES,
            "a value that watchers wait for has at least {least} bytes"
        );
        let random = rand::rng().sample_iter(rand::distr::Alphanumeric);
        Ok(Self { pool: random.take(POOL_BYTES + letters).collect(), letters })
    }

    /// One of them, with the number in its first letters if there is one.
    pub fn any(&self, rng: &mut impl Rng, stamp: Option<u64>) -> Bytes {
        let start = rng.random_range(0..POOL_BYTES);
        let letters = self.pool.get(start..start + self.letters).unwrap_or_default();
        let mut value = Vec::with_capacity(self.letters + QUOTES);
        value.push(b'"');
        match stamp {
            Some(number) => {
                value.extend_from_slice(format!("{number:0STAMP_BYTES$x}").as_bytes());
                value.extend_from_slice(letters.get(STAMP_BYTES..).unwrap_or_default());
            }
            None => value.extend_from_slice(letters),
        }
        value.push(b'"');
        value.into()
    }
}

/// The number in a value's first letters.
#[must_use]
pub fn stamp(value: &[u8]) -> Option<u64> {
    let digits = value.strip_prefix(b"\"")?.get(..STAMP_BYTES)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_wanted_size_and_differ() {
        let values = Values::new(256, false).unwrap();
        let (a, b) = (values.any(&mut rand::rng(), None), values.any(&mut rand::rng(), None));
        assert_eq!((a.len(), b.len()), (256, 256));
        assert_ne!(a, b);
        let json: String = serde_json::from_slice(&a).unwrap();
        assert_eq!(json.len(), 254);
        assert_eq!(Values::new(2, false).unwrap().any(&mut rand::rng(), None), "\"\"");
        assert!(Values::new(1, false).is_err());
    }

    #[test]
    fn a_stamp_is_found_again_and_changes_no_size() {
        let values = Values::new(18, true).unwrap();
        for number in [0, 1, 0xdead_beef, u64::MAX] {
            let value = values.any(&mut rand::rng(), Some(number));
            assert_eq!((value.len(), stamp(&value)), (18, Some(number)));
        }
        assert!(Values::new(17, true).is_err());
        assert_eq!(stamp(b"\"short\""), None);
        assert_eq!(stamp(b"\"not a number at all\""), None);
        assert_eq!(stamp(b""), None);
    }
}
