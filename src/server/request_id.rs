//! The id that a request goes by: in its answer, in problem documents, in the audit log.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// Where a caller may name its request, and where every answer names it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const BYTES_MAX: usize = 128;

/// The id of one request, as text and as the header that its answer carries.
#[derive(Clone, Debug)]
pub struct RequestId {
    text: Arc<str>,
    header: HeaderValue,
}

impl RequestId {
    /// The caller's own id when it is one, else a new one that sorts by time.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let given = headers.get(REQUEST_ID).filter(|value| sane(value.as_bytes()));
        match given.and_then(|value| value.to_str().ok().map(|text| (text, value))) {
            Some((text, value)) => Self { text: text.into(), header: value.clone() },
            None => Self::new(),
        }
    }

    /// One that sorts by time.
    #[must_use]
    pub fn new() -> Self {
        let mut buffer = Uuid::encode_buffer();
        let text: &str = Uuid::now_v7().as_hyphenated().encode_lower(&mut buffer);
        // Digits and hyphens, which every header can carry.
        let mut header = HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        // No two are alike: a place in the connection's table of headers (RFC 7541) would only push others out.
        header.set_sensitive(true);
        Self { text: text.into(), header }
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// The header of the answer.
    #[must_use]
    pub fn into_header(self) -> HeaderValue {
        self.header
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

fn sane(id: &[u8]) -> bool {
    let allowed = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
    };
    (1..=BYTES_MAX).contains(&id.len()) && id.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            let id = RequestId::of(&headers);
            assert_eq!(id.text().as_bytes(), id.clone().into_header().as_bytes());
            id.text().to_string()
        };
        assert_eq!(id("abc-1:2"), "abc-1:2");
        for bad in ["", "a b", "a\"b", "ü", &"x".repeat(129)] {
            assert_eq!(Uuid::parse_str(&id(bad)).unwrap().get_version_num(), 7, "{bad}");
        }
        assert!(Uuid::parse_str(RequestId::of(&HeaderMap::new()).text()).is_ok());
    }
}
