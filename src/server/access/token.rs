//! The text of a token: how one is made, told apart and looked up.

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::error::{Effect, ServiceError};

/// How every token that this store makes begins, so that scanners of leaked secrets know one.
const PREFIX: &str = "lcm_";
const ID_BYTES: usize = 9;
const SECRET_BYTES: usize = 32;
/// Longest text that is looked at; a token of an issuer is the longest.
pub const TOKEN_TEXT_BYTES_MAX: usize = 8 << 10;

/// A new token: its id, the text that is shown once, and what is kept.
pub struct NewToken {
    pub id: String,
    /// How the text begins.
    pub prefix: String,
    pub text: String,
    pub hash: [u8; 32],
}

/// A token of 256 random bits.
///
/// # Errors
/// [`ServiceError::Internal`] when the system gives no random numbers.
pub fn new_token() -> Result<NewToken, ServiceError> {
    let mut random = [0; ID_BYTES + SECRET_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|_| ServiceError::Internal {
        reason: "the system gives no random numbers".into(),
        effect: Effect::No,
    })?;
    let (id, secret) = random.split_at(ID_BYTES);
    let id = URL_SAFE_NO_PAD.encode(id);
    let prefix = format!("{PREFIX}{id}");
    let text = format!("{prefix}_{}", URL_SAFE_NO_PAD.encode(secret));
    let hash = fingerprint(&text);
    Ok(NewToken { id, prefix, text, hash })
}

/// What is kept of a token. It has as many random bits as the hash, so guessing it from there is as hard as guessing it.
#[must_use]
pub fn fingerprint(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The token in an `Authorization` header (RFC 6750, section 2.1).
pub(super) fn bearer(header: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(header).ok()?.trim();
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim_start();
    let plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    let sane = (1..=TOKEN_TEXT_BYTES_MAX).contains(&token.len()) && plain;
    (scheme.eq_ignore_ascii_case("bearer") && sane).then_some(token)
}

/// Three parts of base64url with a dot between (RFC 7519); the tokens of this store have no dot.
pub(super) fn looks_like_jwt(text: &str) -> bool {
    !text.starts_with(PREFIX) && text.split('.').count() == 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_random_and_begin_with_what_tells_them_apart() {
        let (one, other) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one.text, other.text);
        assert!(one.text.starts_with(&one.prefix) && one.prefix.ends_with(&one.id));
        assert_eq!(one.text.len(), PREFIX.len() + 12 + 1 + 43);
        assert_eq!(one.hash, fingerprint(&one.text));
        assert!(!looks_like_jwt(&one.text));
    }

    #[test]
    fn a_bearer_token_is_one_printable_word() {
        assert_eq!(bearer(b"Bearer abc"), Some("abc"));
        assert_eq!(bearer(b"bearer  a.b-c_~+/="), Some("a.b-c_~+/="));
        for bad in
            [&b""[..], b"Bearer", b"Bearer ", b"Basic abc", b"Bearer a b", b"Bearer \xff", b"abc"]
        {
            assert_eq!(bearer(bad), None, "{bad:?}");
        }
        let long = format!("Bearer {}", "x".repeat(TOKEN_TEXT_BYTES_MAX + 1));
        assert_eq!(bearer(long.as_bytes()), None);
    }
}
