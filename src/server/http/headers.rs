//! Request headers that change what a call does: preconditions and the idempotency key.
//!
//! A precondition that is not understood is refused, never ignored.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderName, header};

use super::path::whole_number;
use crate::error::ServiceError;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The headers of a request.
pub(super) struct Headers(pub(super) HeaderMap);

impl<S: Sync> FromRequestParts<S> for Headers {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Headers(parts.headers.clone()))
    }
}

impl Headers {
    /// What the entry's version must be: `If-Match: "3"`, `If-None-Match: *` (must not exist) and `expected_version`
    /// say the same, so they must agree.
    pub(super) fn expected_version(&self, given: Option<u64>) -> Result<Option<u64>, ServiceError> {
        let mut expected = given;
        let from_headers =
            [(header::IF_MATCH, self.if_match()?), (header::IF_NONE_MATCH, self.must_not_exist()?)];
        for (name, version) in from_headers {
            match (expected, version) {
                (Some(expected), Some(version)) if expected != version => {
                    let reason =
                        format!("it says version {version}, another precondition says {expected}");
                    return Err(ServiceError::invalid(canonical(&name), reason));
                }
                (None, Some(version)) => expected = Some(version),
                _ => {}
            }
        }
        Ok(expected)
    }

    fn if_match(&self) -> Result<Option<u64>, ServiceError> {
        let Some(text) = self.single(header::IF_MATCH)? else { return Ok(None) };
        let version = text
            .trim()
            .strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .filter(|digits| !digits.is_empty())
            .and_then(whole_number);
        version.map(Some).ok_or_else(|| {
            ServiceError::invalid("If-Match", "must be one version in double quotes, as in \"3\"")
        })
    }

    fn must_not_exist(&self) -> Result<Option<u64>, ServiceError> {
        match self.single(header::IF_NONE_MATCH)? {
            None => Ok(None),
            Some(text) if text.trim() == "*" => Ok(Some(0)),
            Some(_) => Err(ServiceError::invalid(
                "If-None-Match",
                "only * is understood for a change: the entry must not exist",
            )),
        }
    }

    /// Whether the caller has this content already.
    pub(super) fn has_content(&self, tag: &str) -> bool {
        let given =
            self.0.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        given.flat_map(|list| list.split(',')).map(str::trim).any(|candidate| {
            candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
        })
    }

    pub(super) fn idempotency_key(&self) -> Result<Option<String>, ServiceError> {
        let key = self.single(IDEMPOTENCY_KEY)?;
        if key.as_ref().is_some_and(String::is_empty) {
            return Err(ServiceError::invalid(
                "Idempotency-Key",
                "is empty; send 1 to 64 characters or leave it out",
            ));
        }
        Ok(key)
    }

    /// The last revision that a resuming watcher has seen.
    pub(super) fn last_event_id(&self) -> Result<Option<u64>, ServiceError> {
        let Some(text) = self.single(LAST_EVENT_ID)?.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let id = whole_number(&text);
        id.map(Some).ok_or_else(|| {
            ServiceError::invalid("Last-Event-ID", "must be a revision, a whole number")
        })
    }

    fn single(&self, name: HeaderName) -> Result<Option<String>, ServiceError> {
        let mut values = self.0.get_all(&name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(ServiceError::invalid(canonical(&name), "is given twice"));
        }
        let text = value.to_str().map_err(|_| {
            ServiceError::invalid(canonical(&name), "must be visible ASCII characters")
        })?;
        Ok(Some(text.to_owned()))
    }
}

/// The name as people write it.
fn canonical(name: &HeaderName) -> &'static str {
    match name.as_str() {
        "if-match" => "If-Match",
        "if-none-match" => "If-None-Match",
        "idempotency-key" => "Idempotency-Key",
        _ => "Last-Event-ID",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Headers {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_static(value));
        }
        Headers(map)
    }

    #[test]
    fn preconditions_agree_or_are_refused() {
        let expected =
            |pairs: &[(&'static str, &'static str)], given| headers(pairs).expected_version(given);
        assert_eq!(expected(&[], None).unwrap(), None);
        assert_eq!(expected(&[], Some(2)).unwrap(), Some(2));
        assert_eq!(expected(&[("if-match", "\"3\"")], None).unwrap(), Some(3));
        assert_eq!(expected(&[("if-match", "\"3\"")], Some(3)).unwrap(), Some(3));
        assert_eq!(expected(&[("if-none-match", "*")], None).unwrap(), Some(0));
        for (pairs, given, field) in [
            (vec![("if-match", "\"3\"")], Some(2), "If-Match: "),
            (vec![("if-match", "3")], None, "If-Match: "),
            (vec![("if-match", "*")], None, "If-Match: "),
            (vec![("if-match", "W/\"3\"")], None, "If-Match: "),
            (vec![("if-match", "\"\"")], None, "If-Match: "),
            (vec![("if-match", "\"1\", \"2\"")], None, "If-Match: "),
            (vec![("if-match", "\"1\""), ("if-match", "\"2\"")], None, "If-Match: "),
            (vec![("if-none-match", "\"3\"")], None, "If-None-Match: "),
            (vec![("if-none-match", "*")], Some(1), "If-None-Match: "),
            (vec![("if-none-match", "*"), ("if-match", "\"1\"")], None, "If-None-Match: "),
        ] {
            let error = expected(&pairs, given).unwrap_err().to_string();
            assert!(error.starts_with(field), "{pairs:?}: {error}");
        }
    }

    #[test]
    fn content_is_recognised_by_its_tag() {
        for (given, known) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("*", true),
            ("\"b\"", false),
            ("a", false),
        ] {
            assert_eq!(headers(&[("if-none-match", given)]).has_content("\"a\""), known, "{given}");
        }
    }

    #[test]
    fn a_resumption_point_is_a_number() {
        assert_eq!(headers(&[("last-event-id", "7")]).last_event_id().unwrap(), Some(7));
        assert_eq!(headers(&[("last-event-id", "")]).last_event_id().unwrap(), None);
        assert!(headers(&[("last-event-id", "x")]).last_event_id().is_err());
    }
}
