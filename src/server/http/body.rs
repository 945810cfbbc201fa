//! Request bodies: bounded, JSON, and decoded with errors that name the field.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, header};
use http_body_util::BodyExt;
use llm_config_domain::limits;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::AppState;
use super::problem::Failure;
use crate::error::ServiceError;

/// A value, and room for its envelope and some white space.
pub(super) const ENTRY_BODY_BYTES_MAX: usize =
    limits::VALUE_BYTES_MAX + limits::VALUE_BYTES_MAX / 4;

/// A transaction: what one command may take.
pub(super) const TXN_BODY_BYTES_MAX: usize = limits::COMMAND_BYTES_MAX;

/// What is read and thrown away of a body that is too large, so that a client that writes before it reads sees the
/// answer instead of a broken connection.
const DISCARDED_BYTES_MAX: usize = 16 << 20;

/// Characters that a refusal repeats of what was sent: enough to find it, and not the whole body again.
const REPEATED_MAX: usize = 200;

/// A JSON body of at most `MAX` bytes; empty when there was none.
pub(super) struct JsonBody<const MAX: usize>(pub(super) Bytes);

impl<const MAX: usize> FromRequest<AppState> for JsonBody<MAX> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, Failure> {
        let deadline = state.service.deadline(None);
        let (parts, body) = request.into_parts();
        let bytes = read(body, MAX, deadline).await?;
        // Without a body its type says nothing: many clients send one with every POST.
        if !bytes.is_empty() {
            check_media_type(&parts.method, &parts.headers)?;
        }
        Ok(JsonBody(bytes))
    }
}

impl<const MAX: usize> JsonBody<MAX> {
    /// Decodes a body that must be there.
    pub(super) fn required<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ServiceError> {
        if self.0.is_empty() {
            return Err(ServiceError::invalid("body", "is empty; send a JSON object"));
        }
        decode(&self.0)
    }

    /// Decodes a body that may be left out.
    pub(super) fn optional<'a, T: Deserialize<'a> + Default>(&'a self) -> Result<T, ServiceError> {
        if self.0.is_empty() { Ok(T::default()) } else { decode(&self.0) }
    }

    /// The text of a raw value in this body, without copying it.
    pub(super) fn text(&self, value: &RawValue) -> Bytes {
        self.0.slice_ref(value.get().as_bytes())
    }
}

async fn read(mut body: Body, limit: usize, deadline: Instant) -> Result<Bytes, ServiceError> {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    let reading = async {
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|_| ServiceError::invalid("body", "broke off before its end"))?;
            let Ok(data) = frame.into_data() else { continue };
            seen += data.len();
            if seen <= limit {
                kept.extend_from_slice(&data);
            } else if seen > limit + DISCARDED_BYTES_MAX {
                break;
            }
        }
        Ok::<(), ServiceError>(())
    };
    match tokio::time::timeout_at(deadline.into(), reading).await {
        Ok(result) => result?,
        Err(_) if seen <= limit => {
            return Err(ServiceError::invalid("body", "did not arrive in time"));
        }
        Err(_) => {}
    }
    if seen > limit {
        return Err(ServiceError::PayloadTooLarge { what: "body".into(), limit: limit as u64 });
    }
    Ok(kept.freeze())
}

/// A web page may send a form to any address without asking, but only with POST: with PUT the type says nothing about
/// who sends, and `curl -X PUT -d` names a form whatever it sends.
pub(super) fn check_media_type(method: &Method, headers: &HeaderMap) -> Result<(), ServiceError> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let given = String::from_utf8_lossy(given.as_bytes());
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
        || (method == Method::PUT && essence == "application/x-www-form-urlencoded")
    {
        return Ok(());
    }
    Err(ServiceError::UnsupportedMediaType { found: essence.chars().take(64).collect() })
}

fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ServiceError> {
    let text = std::str::from_utf8(body).map_err(|error| {
        ServiceError::invalid("body", format!("is not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    let mut json = serde_json::Deserializer::from_str(text);
    let JsonObject(decoded) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        explain(&path, error.inner())
    })?;
    json.end().map_err(|error| explain(".", &error))?;
    Ok(decoded)
}

fn repeated(text: &str) -> String {
    match text.char_indices().nth(REPEATED_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Names the field that an error of the JSON reader is about.
fn explain(path: &str, error: &serde_json::Error) -> ServiceError {
    let (path, message) = (repeated(path), repeated(&error.to_string()));
    let path = path.as_str();
    if error.classify() != serde_json::error::Category::Data {
        return ServiceError::invalid("body", format!("is not JSON: {message}"));
    }
    let root = path == ".";
    // The reader finds these two at the end of an object, so the path stops at the object.
    for (prefix, reason) in
        [("missing field `", "is required"), ("duplicate field `", "is given twice")]
    {
        if let Some(name) = message.strip_prefix(prefix).and_then(|rest| rest.split('`').next()) {
            let inside = root || path == name || path.ends_with(&format!(".{name}"));
            let field = match (root, inside) {
                (true, _) => name.to_owned(),
                (false, true) => path.to_owned(),
                (false, false) => format!("{path}.{name}"),
            };
            return ServiceError::invalid(field, reason);
        }
    }
    let field = if root { Cow::Borrowed("body") } else { Cow::Owned(path.to_owned()) };
    ServiceError::InvalidArgument { field, reason: message }
}

/// A structure that is written as a JSON object. Derived decoders would also take an array of the fields in their order,
/// where a wrong one is taken for its neighbour.
pub(super) struct JsonObject<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }

        deserializer.deserialize_map(Members(PhantomData)).map(JsonObject)
    }
}

/// Keeps `null` apart from "not given": it is a value like any other.
pub(super) fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "of most fields only the decoding is tested")]
    struct Sample<'a> {
        #[serde(borrow, default, deserialize_with = "present")]
        value: Option<&'a RawValue>,
        tags: Option<Vec<String>>,
        inner: Option<JsonObject<Inner>>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its decoding is tested")]
    struct Inner {
        name: String,
    }

    #[test]
    fn a_null_value_is_given_and_numbers_keep_their_text() {
        let sample: Sample<'_> = decode(br#"{"value": null}"#).unwrap();
        assert_eq!(sample.value.unwrap().get(), "null");
        let sample: Sample<'_> = decode(br#"{"value": 1.10}"#).unwrap();
        assert_eq!(sample.value.unwrap().get(), "1.10");
        let sample: Sample<'_> = decode(b"{}").unwrap();
        assert!(sample.value.is_none());
    }

    #[test]
    fn errors_name_the_field() {
        let table: [(&[u8], &str); 14] = [
            (br#"{"valeu": 1}"#, "valeu: unknown field"),
            (br#"{"tags": 5}"#, "tags: invalid type"),
            (br#"{"tags": ["a", 5]}"#, "tags[1]: invalid type"),
            (br#"{"tags": [], "tags": []}"#, "tags: is given twice"),
            (br#"{"inner": {}}"#, "inner.name: is required"),
            (br#"{"inner": {"name": "a", "name": "b"}}"#, "inner.name: is given twice"),
            (br#"{"inner": {"nam": "a"}}"#, "inner.nam: unknown field"),
            (br#"[1]"#, "body: invalid type: sequence, expected a JSON object"),
            (br#"{"inner": ["a"]}"#, "inner: invalid type: sequence, expected a JSON object"),
            (br#"1"#, "body: invalid type: integer"),
            (br#"{"value": 1"#, "body: is not JSON"),
            (br#"{"value": 1} x"#, "body: is not JSON"),
            (br#"{"value": nul}"#, "body: is not JSON"),
            (b"{\"value\": \"\xff\"}", "body: is not UTF-8 at byte 11"),
        ];
        for (body, expected) in table {
            let error = decode::<Sample<'_>>(body).err().unwrap();
            assert!(
                error.to_string().starts_with(expected),
                "{}: {error}",
                String::from_utf8_lossy(body)
            );
        }
    }

    #[test]
    fn a_refusal_does_not_repeat_the_body() {
        let long = "x".repeat(1 << 20);
        for body in [
            format!("{{\"{long}\": 1}}"),
            format!("{{\"tags\": \"{long}\"}}"),
            format!("{{\"inner\": {{\"{long}\": 1}}}}"),
        ] {
            let error = decode::<Sample<'_>>(body.as_bytes()).err().unwrap().to_string();
            assert!(error.len() < 1000 && error.contains('…'), "{error}");
        }
    }

    #[test]
    fn depth_does_not_exhaust_the_stack() {
        let deep = "[".repeat(500_000);
        for body in [format!("{{\"value\": {deep}"), format!("{{\"tags\": {deep}"), deep.clone()] {
            assert!(decode::<Sample<'_>>(body.as_bytes()).is_err());
        }
    }

    #[test]
    fn only_json_is_taken() {
        let check = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
            check_media_type(&Method::POST, &headers).is_ok()
        };
        assert!(check_media_type(&Method::POST, &HeaderMap::new()).is_ok());
        let mut form = HeaderMap::new();
        let of_curl = "application/x-www-form-urlencoded".parse().unwrap();
        form.insert(header::CONTENT_TYPE, of_curl);
        assert!(check_media_type(&Method::PUT, &form).is_ok());
        assert!(check_media_type(&Method::POST, &form).is_err());
        for good in
            ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
        {
            assert!(check(good), "{good}");
        }
        for bad in ["text/plain", "application/x-www-form-urlencoded", "application/jsonl", ""] {
            assert!(!check(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_body_is_bounded_in_size_and_time() {
        let soon = Instant::now() + Duration::from_secs(5);
        assert_eq!(read(Body::from("12345"), 5, soon).await.unwrap(), "12345");
        assert_eq!(
            read(Body::from("123456"), 5, soon).await.unwrap_err().code(),
            "PAYLOAD_TOO_LARGE"
        );
        let stuck = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(stuck, 5, Instant::now() + Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.to_string(), "body: did not arrive in time");
    }
}
