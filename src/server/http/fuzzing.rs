//! Bodies of the fuzz targets for HTTP requests: path, query, headers, bodies.
//!
//! Each takes any bytes, and panics when a parser breaks its word: what is refused is refused in few words that name the
//! field, what is accepted means one thing only. The targets are in `.ci/fuzz`; the tests below run the bodies over its
//! inputs.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use llm_config_domain::JsonValue;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::body::{ENTRY_BODY_BYTES_MAX, JsonBody, TXN_BODY_BYTES_MAX, check_media_type};
use super::configs::{self, RollbackBody, SetBody};
use super::headers::Headers;
use super::members::{AddBody, ForceBody, ReplaceBody, TransferBody};
use super::params::{self, Allowed, Query, query_parameters};
use super::path::{self, Segments};
use super::security::{RoleBody, RotateBody, TokenBody};
use super::txn::{TxnBody, compare, ops};
use super::{audit, history, listings, watch};
use crate::error::ServiceError;
use crate::request_id::RequestId;
use crate::service::TxnOpRequest;

/// Most bytes of a refusal: it is sent back, and may be logged.
const REFUSAL_BYTES_MAX: usize = 2048;

/// What was accepted; a refusal is checked here.
fn accepted<T>(parsed: Result<T, ServiceError>) -> Option<T> {
    let error = match parsed {
        Ok(parsed) => return Some(parsed),
        Err(error) => error,
    };
    let text = error.to_string();
    assert!(text.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", text.len());
    assert!(error.status().is_client_error() && text.contains(": "), "names no field: {text}");
    None
}

/// The path: names and numbers in it.
pub fn http_path(data: &[u8]) {
    let Some(uri) = std::str::from_utf8(data).ok().and_then(|text| text.parse::<Uri>().ok()) else {
        return;
    };
    let segments = Segments(uri);
    accepted(segments.version());
    accepted(segments.member());
    let Some(target) = accepted(configs::target(&segments, String::new())) else { return };
    let Some(address) = accepted(target.parse()) else { return };
    let location = path::of_entry(address.namespace.as_str(), address.key.as_str(), "base");
    let again = location.parse().ok().map(|uri| configs::target(&Segments(uri), String::new()));
    let again = again.and_then(|target| accepted(target).and_then(|target| target.parse().ok()));
    assert_eq!(again, Some(address), "a location that does not lead back");
}

query_parameters! {
    /// What no single route takes together.
    Everything: [
        ENV, CONSISTENCY, MIN_REVISION, MAX_STALENESS, RESOLVE, VERSION, PREFIX, LIMIT, CURSOR, EXPECTED_VERSION, COMMENT,
        FROM, TO, ENV_FROM, ENV_TO, NAMESPACE, FROM_REVISION, FORCE,
    ]
}

/// The query string, as several routes read it.
pub fn http_query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    parameters::<configs::GetParameters>(text);
    parameters::<configs::DeleteParameters>(text);
    parameters::<listings::ListParameters>(text);
    parameters::<history::DiffParameters>(text);
    parameters::<watch::WatchParameters>(text);
    parameters::<audit::AuditParameters>(text);
    parameters::<params::Nothing>(text);
    let Some(query) = parameters::<Everything>(text) else { return };
    accepted(query.read_options());
    for param in Everything::PARAMS {
        let number = accepted(query.number(*param)).flatten();
        if let (Some(number), Some(text)) = (number, query.given(*param)) {
            assert_eq!(text.trim_start_matches('0').parse().unwrap_or(0), number);
        }
        accepted(query.flag(*param));
    }
}

fn parameters<A: Allowed>(text: &str) -> Option<Query<A>> {
    let query = accepted(Query::<A>::parse(text))?;
    let given = A::PARAMS.iter().filter(|param| query.given(**param).is_some()).count();
    let pairs = text.split('&').filter(|pair| !pair.is_empty()).count();
    assert_eq!(given, pairs, "a parameter was ignored");
    Some(query)
}

/// Lines of `Name: value`, as the headers of a request.
fn header_lines(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        let at = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(at.unwrap_or(line.len()));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    headers
}

/// The headers that change what a call does.
pub fn http_headers(data: &[u8]) {
    let map = header_lines(data);
    let id = RequestId::of(&map);
    assert!((1..=128).contains(&id.text().len()));
    assert_eq!(id.text().as_bytes(), id.clone().into_header().as_bytes());
    for method in [Method::PUT, Method::POST] {
        accepted(check_media_type(&method, &map));
    }
    let headers = Headers(map);
    headers.has_content("\"a\"");
    accepted(headers.last_event_id());
    if let Some(Some(key)) = accepted(headers.idempotency_key()) {
        assert!(!key.is_empty() && key.is_ascii());
    }
    if let Some(Some(version)) = accepted(headers.expected_version(None)) {
        assert_eq!(headers.expected_version(Some(version)), Ok(Some(version)));
        let other = version.wrapping_add(1);
        assert!(headers.expected_version(Some(other)).is_err(), "a precondition was ignored");
    }
}

/// The bodies of all routes.
pub fn http_body(data: &[u8]) {
    let body = JsonBody::<ENTRY_BODY_BYTES_MAX>(Bytes::copy_from_slice(data));
    if let Some(set) = accepted(body.required::<SetBody<'_>>())
        && let Some(value) = set.value
    {
        check_value(body.text(value), value);
    }
    decoded::<AddBody>(&body);
    decoded::<ReplaceBody>(&body);
    decoded::<TokenBody>(&body);
    decoded::<RoleBody>(&body);
    decoded::<RotateBody>(&body);
    accepted(body.optional::<RollbackBody>());
    accepted(body.optional::<ForceBody>());
    accepted(body.optional::<TransferBody>());
    let body = JsonBody::<TXN_BODY_BYTES_MAX>(Bytes::copy_from_slice(data));
    let Some(txn) = accepted(body.required::<TxnBody<'_>>()) else { return };
    for compared in txn.compare.into_iter().map(compare) {
        accepted(compared.target.parse());
    }
    let bodies = txn.success.len();
    let Some(ops) = accepted(ops("success", txn.success, &body)) else { return };
    assert_eq!(ops.len(), bodies);
    for op in ops {
        let (TxnOpRequest::Set { target, .. }
        | TxnOpRequest::Delete { target, .. }
        | TxnOpRequest::Get { target }) = op;
        accepted(target.parse());
    }
}

fn decoded<'a, T: Deserialize<'a>>(body: &'a JsonBody<ENTRY_BODY_BYTES_MAX>) {
    accepted(body.required::<T>());
}

/// A value is taken as its text in the body, and nothing of it is lost on the way into the domain.
fn check_value(text: Bytes, value: &RawValue) {
    assert_eq!(text, value.get());
    if let Ok(value) = JsonValue::parse(&text) {
        assert!(value.as_bytes().len() <= text.len());
    }
}

#[cfg(test)]
mod tests {
    use crate::replay::run;

    #[test]
    fn the_inputs_of_each_target_pass() {
        run("http_path", super::http_path);
        run("http_query", super::http_query);
        run("http_headers", super::http_headers);
        run("http_body", super::http_body);
    }
}
