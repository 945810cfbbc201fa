//! Answers as JSON. Values go out as the text they were stored as: nothing is parsed again.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use jiff::Timestamp;
use llm_config_domain::{Entry, MASK, Value};
use serde::Serialize;

use crate::secrets::Plaintext;

/// The revision that an answer reflects, for the header `X-Config-Revision`.
#[derive(Debug, Clone, Copy)]
pub(super) struct AnswerRevision(pub(super) u64);

/// Writes a JSON object member by member.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Object { out, empty: true }
    }

    /// A member whose value is JSON already, written by the caller.
    pub(super) fn raw(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        json(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub(super) fn member<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        json(self.raw(name), value);
    }

    pub(super) fn close(self) {
        self.out.push(b'}');
    }
}

/// Appends texts, numbers and lists of them, which always serialise.
fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // Writing to memory does not fail either.
    serde_json::to_writer(out, value).unwrap_or_default();
}

/// Appends a JSON array.
pub(super) fn array<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Appends a value; a secret as the mask, or as its plaintext where that was revealed.
pub(super) fn value(out: &mut Vec<u8>, value: &Value, plaintext: Option<&Plaintext>) {
    match (value, plaintext) {
        (Value::Json(value), _) => out.extend_from_slice(value.as_bytes()),
        (Value::Sealed(_), Some(plaintext)) => out.extend_from_slice(plaintext.expose()),
        (Value::Sealed(_), None) => json(out, MASK),
    }
}

/// Appends an entry, or a deleted version of one, with its secret masked.
pub(super) fn entry(out: &mut Vec<u8>, entry: &Entry) {
    revealed(out, entry, None);
}

/// The same, with its secret as it was revealed.
fn revealed(out: &mut Vec<u8>, entry: &Entry, plaintext: Option<&Plaintext>) {
    let mut object = Object::open(out);
    object.member("namespace", entry.address.namespace.as_str());
    object.member("key", entry.address.key.as_str());
    object.member("env", entry.address.environment.as_str());
    match &entry.value {
        Some(stored) => value(object.raw("value"), stored, plaintext),
        None => object.member("deleted", &true),
    }
    object.member("secret", &entry.is_secret());
    object.member("version", &entry.version);
    object.member("revision", &entry.revision);
    object.member("created_at", &timestamp(entry.created_at_ms));
    object.member("created_by", &entry.created_by);
    object.member("updated_at", &timestamp(entry.updated_at_ms));
    object.member("updated_by", &entry.updated_by);
    object.member("description", &entry.description);
    object.member("tags", &entry.tags);
    object.member("comment", &entry.comment);
    object.close();
}

/// RFC 3339 in UTC with milliseconds. Times beyond the calendar are shown as its end.
pub(super) fn timestamp(milliseconds: u64) -> String {
    let time = i64::try_from(milliseconds).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", time.unwrap_or(Timestamp::MAX))
}

/// A JSON answer that reflects `revision`.
pub(super) fn answer(status: StatusCode, revision: u64, body: Vec<u8>) -> Response {
    let mut response = (status, body).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.extensions_mut().insert(AnswerRevision(revision));
    response
}

/// An answer that is one object.
pub(super) fn object(
    status: StatusCode,
    revision: u64,
    write: impl FnOnce(&mut Object<'_>),
) -> Response {
    let mut body = Vec::new();
    let mut object = Object::open(&mut body);
    write(&mut object);
    object.close();
    answer(status, revision, body)
}

/// An answer of names and numbers, which always serialise.
pub(super) fn serialized<T: Serialize>(status: StatusCode, revision: u64, value: &T) -> Response {
    let mut body = Vec::new();
    json(&mut body, value);
    answer(status, revision, body)
}

/// An answer that is one entry, with its version as the entity tag that `If-Match` takes.
pub(super) fn entry_answer(
    status: StatusCode,
    revision: u64,
    value: &Entry,
    plaintext: Option<&Plaintext>,
) -> Response {
    let mut body = Vec::with_capacity(value.size());
    revealed(&mut body, value, plaintext);
    let mut response = answer(status, revision, body);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", value.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

#[cfg(test)]
mod tests {
    use llm_config_domain::{Address, JsonValue};

    use super::*;

    fn sample(value: Option<&str>) -> Entry {
        Entry {
            address: Address::parse("llm/models", "a\"b", "production").unwrap(),
            version: 3,
            revision: 9,
            value: value.map(|text| JsonValue::parse(text.as_bytes()).unwrap().into()),
            created_at_ms: 1_700_000_000_000,
            created_by: "anonymous".into(),
            updated_at_ms: 1_700_000_000_001,
            updated_by: "anonymous".into(),
            description: "line\nbreak".into(),
            tags: vec!["x".into()],
            comment: String::new(),
        }
    }

    fn rendered(value: Option<&str>) -> String {
        let mut out = Vec::new();
        entry(&mut out, &sample(value));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_value_goes_out_as_it_was_written() {
        let text = rendered(Some("{\"n\": 1.10, \"big\": 123456789012345678901234567890}"));
        assert!(
            text.contains(r#""value":{"n":1.10,"big":123456789012345678901234567890},"#),
            "{text}"
        );
        assert!(text.contains(r#""created_at":"2023-11-14T22:13:20.000Z""#), "{text}");
        assert!(text.contains(r#""updated_at":"2023-11-14T22:13:20.001Z""#), "{text}");
        let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&parsed["key"], &parsed["description"]),
            (&"a\"b".into(), &"line\nbreak".into())
        );
        assert!(parsed.get("deleted").is_none());
    }

    #[test]
    fn a_deleted_version_says_so_and_has_no_value() {
        let parsed: serde_json::Value = serde_json::from_str(&rendered(None)).unwrap();
        assert_eq!(parsed["deleted"], true);
        assert!(parsed.get("value").is_none());
    }

    #[test]
    fn a_null_value_is_a_value() {
        let parsed: serde_json::Value = serde_json::from_str(&rendered(Some("null"))).unwrap();
        assert_eq!(parsed.get("value"), Some(&serde_json::Value::Null));
    }

    #[test]
    fn times_beyond_the_calendar_do_not_fail() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert!(timestamp(u64::MAX).starts_with("9999-12-"));
    }
}
