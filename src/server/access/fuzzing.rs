//! Body of the fuzz target for the header that says who somebody is.
//!
//! The target is in `.ci/fuzz`; the test below runs the body over its inputs.

use super::token::{TOKEN_TEXT_BYTES_MAX, bearer, fingerprint, looks_like_jwt};

/// `Authorization`: a token that is taken is one printable word, and reads the same when it is sent again.
pub fn authorization(data: &[u8]) {
    let Some(token) = bearer(data) else { return };
    assert!((1..=TOKEN_TEXT_BYTES_MAX).contains(&token.len()));
    assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
    assert_eq!(bearer(format!("Bearer {token}").as_bytes()), Some(token));
    if looks_like_jwt(token) {
        assert_eq!(token.matches('.').count(), 2);
    }
    assert_ne!(fingerprint(token), fingerprint(""));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("authorization", super::authorization);
    }
}
