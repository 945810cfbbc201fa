//! Changes as Server-Sent Events.
//!
//! All events of a revision go out in one chunk. When the stream cannot go on (the node stops, the watcher fell behind
//! what is kept), it says why in an `error` event and ends; a client resumes with `Last-Event-ID`.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::Stream;
use futures::stream::unfold;
use http::{HeaderValue, header};
use llm_config_domain::{Change, ChangeKind};
use tokio_util::sync::CancellationToken;

use super::caller::Asking;
use super::envelope::WATCH_ROUTE;
use super::headers::Headers;
use super::openapi::ReadErrors;
use super::params::{
    FROM_REVISION, NAMESPACE, NAMESPACE_PREFIX, PREFIX, Query, WATCHED_ENV, query_parameters,
};
use super::problem;
use super::render::entry;
use super::{Answer, AppState};
use crate::service::{WatchFrom, WatchRequest};
use crate::watch::{WatchBatch, Watcher};

query_parameters! {
    WatchParameters: [NAMESPACE, NAMESPACE_PREFIX, PREFIX, WATCHED_ENV, FROM_REVISION]
}

/// Changes as they happen
///
/// Server-Sent Events: `id` is the revision, `event` is `set`, `delete` or `bookmark`, `data` the entry. Ordered, no
/// gap, no duplicate; all events of a revision together. A bookmark (`data: {"revision": N}`) at the start and at
/// least every 10 s says that everything up to its id was delivered. An `error` event with a problem document ends the
/// stream. `Last-Event-ID: R` continues after R and takes precedence over `from_revision`.
#[utoipa::path(
    get, path = "/api/v1/watch", tag = "configs", operation_id = "watch",
    params(("Last-Event-ID" = Option<u64>, Header, description = "Continue after this revision"), WatchParameters),
    responses((status = 200, description = "The stream", content_type = "text/event-stream", body = String), ReadErrors)
)]
pub(super) async fn watch(
    State(state): State<AppState>,
    Asking(caller): Asking,
    query: Query<WatchParameters>,
    headers: Headers,
    connection: Option<Extension<CancellationToken>>,
) -> Answer {
    let from = match (headers.last_event_id()?, query.number(FROM_REVISION)?) {
        (Some(seen), _) => WatchFrom::After(seen),
        (None, Some(revision)) => WatchFrom::Revision(revision),
        (None, None) => WatchFrom::Now,
    };
    let request = WatchRequest {
        namespace: query.given(NAMESPACE).map(str::to_owned),
        namespace_prefix: query.text(NAMESPACE_PREFIX),
        prefix: query.text(PREFIX),
        environment: query.given(WATCHED_ENV).map(str::to_owned),
        from,
    };
    let mut watcher = state.service.watch(&state.service.context(caller, None), request).await?;
    watcher.cut_with(connection.map(|Extension(connection)| connection));
    Ok(stream(watcher))
}

fn stream(watcher: Watcher) -> Response {
    let mut response = Body::from_stream(chunks(watcher)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // Proxies that buffer would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// One chunk for each batch, and a last one that says why it ended.
fn chunks(watcher: Watcher) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> {
    unfold(Some(watcher), |watcher| async move {
        let mut watcher = watcher?;
        Some(match watcher.next().await {
            Ok(batch) => (Ok(events(&batch)), Some(watcher)),
            Err(error) => {
                let mut chunk = b"event: error\ndata: ".to_vec();
                chunk.extend(problem::body(&error, "", WATCH_ROUTE));
                chunk.extend(b"\n\n");
                (Ok(Bytes::from(chunk)), None)
            }
        })
    })
}

fn events(batch: &WatchBatch) -> Bytes {
    let mut chunk = Vec::new();
    if batch.changes.is_empty() {
        let revision = batch.revision;
        let bookmark =
            format!("id: {revision}\nevent: bookmark\ndata: {{\"revision\":{revision}}}\n\n");
        chunk.extend(bookmark.into_bytes());
    }
    for change in &batch.changes {
        event(&mut chunk, batch.revision, change);
    }
    chunk.into()
}

/// Entries are rendered without line breaks, so one `data` line is enough.
fn event(chunk: &mut Vec<u8>, revision: u64, change: &Change) {
    let kind = match change.kind {
        ChangeKind::Set => "set",
        ChangeKind::Delete => "delete",
    };
    chunk.extend(format!("id: {revision}\nevent: {kind}\ndata: ").into_bytes());
    entry(chunk, &change.entry);
    chunk.extend(b"\n\n");
}

#[cfg(test)]
mod tests {
    use llm_config_domain::{Address, Entry, JsonValue};

    use super::*;

    fn change(key: &str, value: Option<&str>) -> Change {
        Change::of(Entry {
            address: Address::parse("app", key, "base").unwrap(),
            version: 1,
            revision: 7,
            value: value.map(|text| JsonValue::parse(text.as_bytes()).unwrap().into()),
            created_at_ms: 0,
            created_by: String::new(),
            updated_at_ms: 0,
            updated_by: String::new(),
            description: "two\nlines".into(),
            tags: Vec::new(),
            comment: String::new(),
        })
    }

    #[test]
    fn a_revision_is_one_chunk_of_events() {
        let changes = vec![change("a", Some("{\n\"x\": 1\n}")), change("b", None)];
        let text =
            String::from_utf8(events(&WatchBatch { revision: 7, changes }).to_vec()).unwrap();
        let blocks: Vec<_> = text.trim_end().split("\n\n").collect();
        assert_eq!(blocks.len(), 2, "{text}");
        for (block, kind) in blocks.iter().zip(["set", "delete"]) {
            let lines: Vec<_> = block.lines().collect();
            assert_eq!(
                (lines[0], lines[1], lines.len()),
                ("id: 7", format!("event: {kind}").as_str(), 3)
            );
            let data: serde_json::Value =
                serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
            assert_eq!(data["revision"], 7);
        }
    }

    #[test]
    fn a_bookmark_has_the_revision() {
        let text = events(&WatchBatch { revision: 9, changes: Vec::new() });
        assert_eq!(text, "id: 9\nevent: bookmark\ndata: {\"revision\":9}\n\n");
    }
}
