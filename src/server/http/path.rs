//! Names in the path: each is one segment, percent-encoded, so that `llm/models` is written `llm%2Fmodels`.
//!
//! Decoding is strict: what is not a percent-encoded UTF-8 text is refused instead of taken literally.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::Uri;
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::error::ServiceError;

/// Everything but the characters that never need encoding in a segment.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where the segments are in `/api/v1/configs/{ns}/{key}/rollback/{version}` and its shorter kin.
const NAMESPACE: usize = 4;
const KEY: usize = 5;
const VERSION: usize = 7;
/// Where it is in `/api/v1/cluster/members/{id}` and below.
const MEMBER: usize = 5;
/// Where it is in `/api/v1/auth/tokens/{id}` and its kin.
const NAME: usize = 5;

/// The request's path, split but not yet decoded.
pub(super) struct Segments(pub(super) Uri);

impl<S: Sync> FromRequestParts<S> for Segments {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Segments(parts.uri.clone()))
    }
}

impl Segments {
    /// Of `/configs/{ns}…` and `/resolve/{ns}`.
    pub(super) fn namespace(&self) -> Result<String, ServiceError> {
        self.decoded(NAMESPACE, "namespace")
    }

    pub(super) fn key(&self) -> Result<String, ServiceError> {
        self.decoded(KEY, "key")
    }

    /// Of `/rollback/{version}`.
    pub(super) fn version(&self) -> Result<u64, ServiceError> {
        let text = self.decoded(VERSION, "version")?;
        whole_number(&text)
            .ok_or_else(|| ServiceError::invalid("version", "must be a whole number from 1"))
    }

    /// Of `/cluster/members/{id}…`.
    pub(super) fn member(&self) -> Result<u64, ServiceError> {
        let text = self.decoded(MEMBER, "id")?;
        whole_number(&text)
            .ok_or_else(|| ServiceError::invalid("id", "must be a node's number, from 1"))
    }

    /// Of `/auth/tokens/{id}`, `/auth/roles/{name}` and `/security/bans/{ip}`.
    pub(super) fn name(&self, field: &'static str) -> Result<String, ServiceError> {
        self.decoded(NAME, field)
    }

    fn decoded(&self, index: usize, field: &'static str) -> Result<String, ServiceError> {
        decode(self.0.path().split('/').nth(index).unwrap_or_default(), field)
    }
}

/// The path of an entry, for `Location`.
pub(super) fn of_entry(namespace: &str, key: &str, environment: &str) -> String {
    let (namespace, key) =
        (utf8_percent_encode(namespace, ENCODED), utf8_percent_encode(key, ENCODED));
    format!("/api/v1/configs/{namespace}/{key}?env={environment}")
}

/// Undoes percent-encoding, and refuses what is none.
pub(super) fn decode(text: &str, field: &str) -> Result<String, ServiceError> {
    let escaped = |rest: &str| {
        let mut digits = rest.bytes();
        (0..2).all(|_| digits.next().is_some_and(|digit| digit.is_ascii_hexdigit()))
    };
    if !text.split('%').skip(1).all(escaped) {
        return Err(ServiceError::invalid(
            field.to_owned(),
            "a '%' is not followed by two hexadecimal digits; write it as %25",
        ));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_| ServiceError::invalid(field.to_owned(), "is not UTF-8 after percent-decoding"))
}

/// Digits only: no sign, no space, no fraction.
pub(super) fn whole_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_decoded_once() {
        let uri = "/api/v1/configs/llm%2Fmodels/bedrock%2Fus.anthropic.claude-3:0%2525/rollback/7"
            .parse()
            .unwrap();
        let segments = Segments(uri);
        assert_eq!(segments.namespace().unwrap(), "llm/models");
        assert_eq!(segments.key().unwrap(), "bedrock/us.anthropic.claude-3:0%25");
        assert_eq!(segments.version().unwrap(), 7);
    }

    #[test]
    fn a_member_is_a_number() {
        let member = |path: &str| Segments(path.parse().unwrap()).member();
        assert_eq!(member("/api/v1/cluster/members/7/promote").unwrap(), 7);
        for bad in
            ["/api/v1/cluster/members/x", "/api/v1/cluster/members/-1", "/api/v1/cluster/members/"]
        {
            assert!(member(bad).unwrap_err().to_string().starts_with("id: "), "{bad}");
        }
    }

    #[test]
    fn what_is_not_percent_encoded_utf8_is_refused() {
        for bad in ["%", "%4", "a%zz", "%ff", "%c3%28", "%%41"] {
            assert!(decode(bad, "key").unwrap_err().to_string().starts_with("key: "), "{bad}");
        }
    }

    #[test]
    fn a_location_leads_back_to_the_entry() {
        for (namespace, key) in
            [("llm/models", "bedrock/us.anthropic.claude-3:0"), ("a", "ü %?#&\"/")]
        {
            let segments = Segments(of_entry(namespace, key, "base").parse().unwrap());
            assert_eq!(
                (segments.namespace().unwrap(), segments.key().unwrap()),
                (namespace.into(), key.into())
            );
        }
    }

    #[test]
    fn numbers_are_digits_only() {
        assert_eq!(whole_number("18446744073709551615"), Some(u64::MAX));
        for bad in ["", "+1", "-1", " 1", "1.0", "1e3", "18446744073709551616", "0x1"] {
            assert_eq!(whole_number(bad), None, "{bad}");
        }
    }
}
