//! Page cursors: where the next page begins, opaque to the caller.
//!
//! A cursor carries a format version and a check over the listing it belongs to, so that a damaged one, or one of
//! another listing, is refused instead of silently giving wrong pages. It is no secret and no permission.

use sha2::{Digest, Sha256};

use crate::error::ServiceError;
use crate::hex::{hex, unhex};

const FORMAT: u8 = 1;
const CHECK_BYTES: usize = 8;
/// Format, check and the longest position (a key) in hexadecimal.
const TEXT_BYTES_MAX: usize = 2 * (1 + CHECK_BYTES + llm_config_domain::limits::KEY_BYTES_MAX);

/// The listing that a cursor belongs to: its kind and everything that selects its items.
pub(super) struct Listing<'a>(pub(super) &'a [&'a str]);

impl Listing<'_> {
    pub(super) fn cursor(&self, position: &[u8]) -> String {
        let mut bytes = vec![FORMAT];
        bytes.extend(self.check(position));
        bytes.extend_from_slice(position);
        hex(&bytes)
    }

    pub(super) fn position(&self, cursor: &str) -> Result<Vec<u8>, ServiceError> {
        let refuse = || {
            ServiceError::invalid(
                "cursor",
                "it is damaged or belongs to another listing; begin without one",
            )
        };
        if cursor.len() > TEXT_BYTES_MAX {
            return Err(refuse());
        }
        let bytes = unhex(cursor).ok_or_else(refuse)?;
        let (format, rest) = bytes.split_first().ok_or_else(refuse)?;
        let (check, position) = rest.split_at_checked(CHECK_BYTES).ok_or_else(refuse)?;
        if *format != FORMAT || check != self.check(position) {
            return Err(refuse());
        }
        Ok(position.to_vec())
    }

    fn check(&self, position: &[u8]) -> [u8; CHECK_BYTES] {
        let mut hash = Sha256::new();
        for part in self.0 {
            // Lengths keep ("ab", "c") and ("a", "bc") apart.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(position);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
        check
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing<'_> = Listing(&["list", "app", "base", ""]);

    #[test]
    fn a_cursor_comes_back() {
        for position in ["", "key", "bedrock/us.anthropic.claude-3:0", &"ü".repeat(256)] {
            let cursor = LISTING.cursor(position.as_bytes());
            assert_eq!(LISTING.position(&cursor).unwrap(), position.as_bytes());
        }
    }

    #[test]
    fn a_damaged_or_foreign_cursor_is_refused() {
        let cursor = LISTING.cursor(b"key");
        let foreign = Listing(&["list", "app", "production", ""]).cursor(b"key");
        let shifted = Listing(&["list", "appb", "ase", ""]).cursor(b"key");
        let flipped = format!("{}0", &cursor[..cursor.len() - 1]);
        let newer = format!("02{}", &cursor[2..]);
        let long = "ab".repeat(TEXT_BYTES_MAX);
        for bad in [
            "",
            "x",
            "zz",
            "ü",
            "01",
            &cursor[1..],
            &cursor[2..],
            &foreign,
            &shifted,
            &flipped,
            &newer,
            &long,
        ] {
            let error = LISTING.position(bad).unwrap_err();
            assert_eq!(
                (error.code(), error.to_string().starts_with("cursor: ")),
                ("INVALID_ARGUMENT", true),
                "{bad}"
            );
        }
    }
}
