//! The issuer's key set (JWKS), and which of its keys may have signed a token.
//!
//! Keys that cannot be used here (other types, other purposes, too short) are passed over: issuers publish them too.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use serde::Deserialize;

use super::JwtError;

/// Keys of one set. Issuers have one or two in use, and a few that are on their way in or out.
const KEYS_MAX: usize = 64;
const RSA_BITS_MIN: usize = 2_048;

const RSA: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// The algorithm of this name, when tokens may be signed with it. Never one with a shared secret, never none.
pub(super) fn accepted(name: &str) -> Option<Algorithm> {
    Some(match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => return None,
    })
}

/// The keys of a set that can be used.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

/// The document, key by key: one that is not understood does not spoil the others.
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let document: Document = serde_json::from_slice(text).map_err(|_| {
            "is no key set; a key set (JWKS) is a JSON object with an array `keys`".to_owned()
        })?;
        if document.keys.len() > KEYS_MAX {
            return Err(format!(
                "holds {} keys, at most {KEYS_MAX} are accepted",
                document.keys.len()
            ));
        }
        let keys: Vec<Key> = document.keys.into_iter().filter_map(usable).collect();
        if keys.is_empty() {
            return Err(format!(
                "holds no key that can be used: for signatures, RSA of {RSA_BITS_MIN} bits or more, P-256, P-384 or Ed25519"
            ));
        }
        Ok(Self { keys })
    }

    /// Keys in the set.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that a token names, when it may be used with the token's algorithm.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<&DecodingKey, JwtError> {
        let named: Vec<&Key> = match (id, self.keys.as_slice()) {
            (_, []) => return Err(JwtError::NoKeys),
            (None, [only]) => vec![only],
            (None, _) => return Err(JwtError::KeyNotNamed),
            // One key without a name can only be the one that is meant.
            (Some(_), [only]) if only.id.is_none() => vec![only],
            (Some(id), keys) => keys.iter().filter(|key| key.id.as_deref() == Some(id)).collect(),
        };
        if named.is_empty() {
            return Err(JwtError::KeyUnknown);
        }
        let fits = named.into_iter().find(|key| key.algorithms.contains(&algorithm));
        fits.map(|key| &key.key).ok_or(JwtError::KeyUnfit)
    }
}

/// The key, when it is a public one for signatures that are accepted.
fn usable(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let verifies = |operations: &Vec<_>| operations.contains(&KeyOperations::Verify);
    let for_signatures =
        common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(verifies);
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        _ => return None,
    };
    if let Some(only) = common.key_algorithm {
        let only = Algorithm::try_from(only).ok()?;
        algorithms.retain(|algorithm| *algorithm == only);
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let fine = for_signatures && !algorithms.is_empty() && has_the_right_size(&key, &algorithms);
    fine.then(|| Key { id: jwk.common.key_id, algorithms, key })
}

/// A key of another size would make every signature wrong, which would be the harder fault to find.
fn has_the_right_size(key: &DecodingKey, algorithms: &[Algorithm]) -> bool {
    match key.kind() {
        DecodingKeyKind::RsaModulusExponent { n, .. } => {
            let leading_zeros = n.iter().take_while(|byte| **byte == 0).count();
            (n.len() - leading_zeros) * 8 >= RSA_BITS_MIN
        }
        DecodingKeyKind::SecretOrDer(bytes) => {
            let expected = match algorithms {
                [Algorithm::ES256] => 1 + 2 * 32,
                [Algorithm::ES384] => 1 + 2 * 48,
                _ => 32,
            };
            bytes.len() == expected
        }
    }
}
