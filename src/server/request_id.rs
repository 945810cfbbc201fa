//! The id that a request goes by: in its answer, in problem documents, in the audit log.

use http::{HeaderMap, HeaderName};
use uuid::Uuid;

/// Where a caller may name its request, and where every answer names it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const BYTES_MAX: usize = 128;

/// The caller's own id when it is one, else a new one that sorts by time.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| {
        let allowed = |byte: u8| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=')
        };
        (1..=BYTES_MAX).contains(&id.len()) && id.bytes().all(allowed)
    };
    given.filter(sane).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_replaced() {
        let id = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text.as_bytes()).unwrap());
            request_id(&headers)
        };
        assert_eq!(id("abc-1:2"), "abc-1:2");
        for bad in ["", "a b", "a\"b", "ü", &"x".repeat(129)] {
            assert_eq!(Uuid::parse_str(&id(bad)).unwrap().get_version_num(), 7, "{bad}");
        }
        assert!(Uuid::parse_str(&request_id(&HeaderMap::new())).is_ok());
    }
}
