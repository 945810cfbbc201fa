//! Body of the fuzz target for tokens of an issuer: their header, their claims, and the issuer's key set.
//!
//! What chance makes is never signed, so each part is read alone. The target is in `.ci/fuzz`; the test below runs the body
//! over its inputs.

use serde_json::{Map, Value};

use super::keys::KeySet;
use super::{Head, JwtError, LEEWAY, TOKEN_BYTES_MAX, claims};
use crate::settings::{JwtKeys, JwtSettings};

/// A part of a token or of its issuer; the first byte says which.
pub fn jwt(data: &[u8]) {
    let Some((part, data)) = data.split_first() else { return };
    match part {
        0 => head(data),
        1 => {
            let Ok(keys) = KeySet::parse(data) else { return };
            assert!(keys.len() > 0, "a key set without a key");
        }
        _ => {
            let Ok(claims) = serde_json::from_slice(data) else { return };
            identity(&claims);
        }
    }
}

fn head(data: &[u8]) {
    let Ok(token) = std::str::from_utf8(data) else { return };
    let head = Head::read(token);
    assert!(token.len() <= TOKEN_BYTES_MAX || head.as_ref().err() == Some(&JwtError::TooLong));
    if head.is_ok() {
        assert_eq!(token.matches('.').count(), 2);
    }
}

fn identity(claims: &Map<String, Value>) {
    let settings = JwtSettings {
        keys: JwtKeys::File("unused".into()),
        issuer: "https://id.example".to_owned(),
        audience: "unused".to_owned(),
        roles_claim: "realm.roles".to_owned(),
    };
    let Ok(identity) = claims::identity(claims, &settings, LEEWAY) else { return };
    assert_eq!(claims.get("iss").and_then(Value::as_str), Some("https://id.example"));
    assert!((1..=200).contains(&identity.subject.len()));
    assert!(!identity.subject.contains(char::is_control));
    assert!(identity.roles.len() <= 64 && !identity.roles.contains(&String::new()));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("jwt", super::jwt);
    }
}
