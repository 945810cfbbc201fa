//! What the claims of a token say, after its signature was found right: who it is for, and the roles.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{JwtError, JwtIdentity};
use crate::settings::JwtSettings;

const SUBJECT_BYTES_MAX: usize = 200;
const ROLES_MAX: usize = 64;

/// The roles claim in errors: its name is a setting.
const ROLES: &str = "with the roles";

pub(super) fn identity(
    claims: &Map<String, Value>,
    settings: &JwtSettings,
    leeway: Duration,
) -> Result<JwtIdentity, JwtError> {
    // A list of issuers is no issuer, whoever else is in it.
    if claims.get("iss").and_then(Value::as_str) != Some(settings.issuer.as_str()) {
        return Err(JwtError::IssuerWrong);
    }
    Ok(JwtIdentity {
        subject: subject(claims)?,
        roles: roles(claims, &settings.roles_claim)?,
        expires_at_ms: expiry_s(claims).saturating_add(leeway.as_secs()).saturating_mul(1_000),
    })
}

fn subject(claims: &Map<String, Value>) -> Result<String, JwtError> {
    let refused = |reason| JwtError::Claim { claim: "sub", reason };
    match claims.get("sub").and_then(Value::as_str) {
        None => Err(refused("is missing or has the wrong form")),
        Some("") => Err(refused("is empty")),
        Some(subject) if subject.len() > SUBJECT_BYTES_MAX => {
            Err(refused("is longer than 200 bytes"))
        }
        Some(subject) if subject.chars().any(char::is_control) => {
            Err(refused("holds a control character"))
        }
        Some(subject) => Ok(subject.to_owned()),
    }
}

/// Was checked to be a time that is not over. Some issuers write it with a fraction.
fn expiry_s(claims: &Map<String, Value>) -> u64 {
    let expiry = claims.get("exp");
    let whole = expiry.and_then(Value::as_u64);
    // A float becomes the nearest number that fits.
    whole.or_else(|| expiry.and_then(Value::as_f64).map(|seconds| seconds as u64)).unwrap_or(0)
}

/// An array of texts, or one text with spaces between the roles.
fn roles(claims: &Map<String, Value>, name: &str) -> Result<Vec<String>, JwtError> {
    let refused = |reason| JwtError::Claim { claim: ROLES, reason };
    let mut roles: Vec<String> = Vec::new();
    let texts: Vec<&str> = match find(claims, name) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) => text.split_whitespace().collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().ok_or(refused("lists something that is no text")))
            .collect::<Result<_, _>>()?,
        Some(_) => return Err(refused("is neither a list of texts nor a text")),
    };
    for text in texts {
        if !text.is_empty() && !roles.iter().any(|known| known == text) {
            roles.push(text.to_owned());
        }
        if roles.len() > ROLES_MAX {
            return Err(refused("lists more than 64"));
        }
    }
    Ok(roles)
}

/// A claim of exactly this name; else each dot leads into an object. Names that are URLs have dots of their own.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::settings::JwtKeys;

    fn read(mut claims: Value, roles_claim: &str) -> Result<JwtIdentity, JwtError> {
        let settings = JwtSettings {
            keys: JwtKeys::File("unused".into()),
            issuer: "https://id.example".to_owned(),
            audience: "unused".to_owned(),
            roles_claim: roles_claim.to_owned(),
        };
        for (name, value) in
            [("iss", json!("https://id.example")), ("sub", json!("ann")), ("exp", json!(100))]
        {
            claims.as_object_mut().unwrap().entry(name).or_insert(value);
        }
        identity(claims.as_object().unwrap(), &settings, Duration::from_secs(60))
    }

    fn roles_of(claims: Value, name: &str) -> Vec<String> {
        read(claims, name).unwrap().roles
    }

    #[test]
    fn roles_are_found_where_the_setting_says() {
        assert_eq!(roles_of(json!({"roles": ["a", "b"]}), "roles"), ["a", "b"]);
        assert_eq!(roles_of(json!({"scope": "a  b a"}), "scope"), ["a", "b"]);
        assert_eq!(roles_of(json!({"realm": {"x": {"roles": ["a"]}}}), "realm.x.roles"), ["a"]);
        assert_eq!(
            roles_of(json!({"https://a.example/roles": ["a"]}), "https://a.example/roles"),
            ["a"]
        );
        for none in [
            json!({}),
            json!({"realm": 1}),
            json!({"realm": {"roles": null}}),
            json!({"roles": "x"}),
        ] {
            assert!(roles_of(none.clone(), "realm.roles").is_empty(), "{none}");
        }
        assert!(roles_of(json!({"roles": ["", ""]}), "roles").is_empty());
    }

    #[test]
    fn roles_of_another_form_are_refused() {
        for roles in [json!(7), json!({"a": 1}), json!(["a", 7]), json!([["a"]]), json!(true)] {
            let error = read(json!({"roles": roles}), "roles").unwrap_err();
            assert!(matches!(error, JwtError::Claim { claim: ROLES, .. }), "{roles}: {error}");
        }
        let many = |count: usize| (0..count).map(|n| format!("r{n}")).collect::<Vec<_>>();
        assert_eq!(roles_of(json!({"roles": many(64)}), "roles").len(), 64);
        assert!(read(json!({"roles": many(65)}), "roles").unwrap_err().to_string().contains("64"));
    }

    #[test]
    fn a_subject_is_short_and_can_be_printed() {
        assert_eq!(read(json!({"sub": "x".repeat(200)}), "roles").unwrap().subject.len(), 200);
        for subject in [
            json!(""),
            json!("x".repeat(201)),
            json!("a\nb"),
            json!("a\u{7f}"),
            json!(7),
            json!(null),
        ] {
            let error = read(json!({"sub": subject}), "roles").unwrap_err();
            assert!(matches!(error, JwtError::Claim { claim: "sub", .. }), "{subject}: {error}");
        }
    }

    #[test]
    fn the_issuer_is_one_text() {
        for issuer in [json!("https://id.example/"), json!(["https://id.example"]), json!(7)] {
            assert_eq!(read(json!({"iss": issuer}), "roles"), Err(JwtError::IssuerWrong));
        }
    }

    #[test]
    fn the_end_is_what_the_token_says_and_the_leeway() {
        let end = |exp: Value| read(json!({"exp": exp}), "roles").unwrap().expires_at_ms;
        assert_eq!(end(json!(100)), 160_000);
        assert_eq!(end(json!(100.5)), 160_000);
        assert_eq!(end(json!(u64::MAX)), u64::MAX);
        assert_eq!(end(json!(1e300)), u64::MAX);
    }
}
