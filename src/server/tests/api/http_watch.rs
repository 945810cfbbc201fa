//! `GET /watch` of a real node: what arrives, in which order, and how it resumes and ends.

use crate::http_support::{Alone, Options, PATIENCE, alone, alone_with, request};
use axum::body::Body;
use axum::http::Method;
use http_body_util::BodyExt;
use llm_config_server::service::SharedLimits;
use serde_json::{Value, json};

/// One event of a stream.
#[derive(Debug, Clone)]
struct Event {
    id: u64,
    kind: String,
    data: Value,
}

/// An open stream, read chunk by chunk.
struct Stream(Body);

impl Stream {
    async fn open(node: &Alone, query: &str, headers: &[(&str, &str)]) -> Stream {
        let response =
            node.send(request(Method::GET, &format!("/api/v1/watch{query}"), headers, "")).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream(response.into_body())
    }

    /// The events of the next chunk, or nothing at the end.
    async fn chunk(&mut self) -> Option<Vec<Event>> {
        let frame =
            tokio::time::timeout(PATIENCE, self.0.frame()).await.expect("no event in time")?;
        let bytes = frame.unwrap().into_data().unwrap();
        let text = std::str::from_utf8(&bytes).unwrap();
        assert!(text.ends_with("\n\n"), "a chunk ends with an event: {text:?}");
        Some(text.trim_end().split("\n\n").map(parse).collect())
    }

    async fn bookmark(&mut self) -> u64 {
        let events = self.chunk().await.unwrap();
        assert_eq!((events.len(), events[0].kind.as_str()), (1, "bookmark"), "{events:?}");
        assert_eq!(events[0].data, json!({"revision": events[0].id}));
        events[0].id
    }

    /// The events of the next revision that has some.
    async fn changes(&mut self) -> Vec<Event> {
        loop {
            let events = self.chunk().await.expect("the stream ended");
            if events[0].kind != "bookmark" {
                return events;
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
    Event {
        id: field("id").map_or(0, |id| id.parse().unwrap()),
        kind: field("event").unwrap().to_owned(),
        data: serde_json::from_str(field("data").unwrap()).unwrap(),
    }
}

async fn set(node: &Alone, key: &str, value: u64) {
    node.put(&format!("/api/v1/configs/app/{key}"), &format!(r#"{{"value": {value}}}"#)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_arrive_in_order_with_the_entry() {
    let node = alone().await;
    set(&node, "before", 1).await;
    let mut stream = Stream::open(&node, "", &[]).await;
    assert_eq!(stream.bookmark().await, 1);
    set(&node, "a", 2).await;
    node.delete("/api/v1/configs/app/a").await.expect(204);
    let event = &stream.changes().await[0];
    assert_eq!((event.id, event.kind.as_str(), &event.data["value"]), (2, "set", &json!(2)));
    let event = &stream.changes().await[0];
    assert_eq!(
        (event.id, event.kind.as_str(), &event.data["deleted"]),
        (3, "delete", &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_comes_in_one_piece() {
    let node = alone().await;
    let mut stream = Stream::open(&node, "?prefix=a", &[]).await;
    stream.bookmark().await;
    let op = |key: &str| json!({"op": "set", "namespace": "app", "key": key, "value": 1});
    node.post("/api/v1/txn", &json!({"success": [op("a1"), op("b"), op("a2")]}).to_string())
        .await
        .expect(200);
    let events = stream.changes().await;
    let keys: Vec<_> =
        events.iter().map(|event| (event.id, event.data["key"].as_str().unwrap())).collect();
    assert_eq!(keys, [(1, "a1"), (1, "a2")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_without_gap_or_duplicate() {
    // A small ring: the start has to come from the change log.
    let shared = SharedLimits { ring_revisions: 4, ..SharedLimits::default() };
    let node = alone_with(&Options { shared, ..Options::default() }).await;
    for n in 1..=30 {
        set(&node, "k", n).await;
    }
    let mut stream = Stream::open(&node, "?from_revision=7&namespace=app&env=base", &[]).await;
    assert_eq!(stream.bookmark().await, 6);
    for revision in 7..=12 {
        assert_eq!(stream.changes().await[0].id, revision);
    }
    drop(stream);
    // The header of a reconnecting browser wins over the address that it began with.
    let mut stream = Stream::open(&node, "?from_revision=7", &[("last-event-id", "12")]).await;
    for n in 31..=35 {
        set(&node, "k", n).await;
    }
    for revision in 13..=35 {
        let event = &stream.changes().await[0];
        assert_eq!((event.id, &event.data["value"]), (revision, &json!(revision)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_namespace_and_environment() {
    let node = alone().await;
    let mut stream = Stream::open(&node, "?namespace=app&env=prod&from_revision=1", &[]).await;
    set(&node, "a", 1).await;
    node.put("/api/v1/configs/other/a", r#"{"value": 1, "env": "prod"}"#).await.expect(201);
    node.put("/api/v1/configs/app/a", r#"{"value": 1, "env": "prod"}"#).await.expect(201);
    let event = &stream.changes().await[0];
    assert_eq!(
        (event.id, &event.data["namespace"], &event.data["env"]),
        (3, &json!("app"), &json!("production"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_start_is_refused_with_the_oldest_revision() {
    let node = alone().await;
    for n in 1..=10 {
        set(&node, "k", n).await;
    }
    let done = node.post("/api/v1/admin/compact", r#"{"revision": 6}"#).await.expect(200);
    assert_eq!(
        (&done["oldest_revision"], &done["revision"], &done["storage"]),
        (&json!(6), &json!(10), &json!("compacted"))
    );
    let problem =
        node.get("/api/v1/watch?from_revision=5").await.problem(410, "REVISION_COMPACTED");
    assert_eq!(problem["oldest_revision"], 6);
    let mut stream = Stream::open(&node, "?from_revision=6", &[]).await;
    assert_eq!(stream.changes().await[0].id, 6);
    // History is not what a compaction forgets; without a revision it tidies this node only.
    assert_eq!(node.get("/api/v1/configs/app/k?version=1").await.expect(200)["value"], 1);
    node.post("/api/v1/admin/compact", "").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_are_bounded_and_end_when_the_node_stops() {
    let shared = SharedLimits { watchers: 1, ..SharedLimits::default() };
    let node = alone_with(&Options { shared, ..Options::default() }).await;
    let mut stream = Stream::open(&node, "", &[]).await;
    stream.bookmark().await;
    let refused = node.get("/api/v1/watch").await;
    refused.problem(503, "OVERLOADED");
    assert_eq!(refused.header("retry-after"), "1");

    node.service.stop_watches();
    let last = stream.chunk().await.unwrap();
    assert_eq!((last[0].kind.as_str(), &last[0].data["code"]), ("error", &json!("NOT_READY")));
    assert!(stream.chunk().await.is_none(), "the stream ends after the error");
}

#[tokio::test(flavor = "multi_thread")]
async fn bookmarks_come_at_least_every_ten_seconds() {
    let node = alone().await;
    let mut stream = Stream::open(&node, "?namespace=nothing", &[]).await;
    assert_eq!(stream.bookmark().await, 0);
    set(&node, "a", 1).await;
    // What the filter dropped is passed, too: the resumption point moves on.
    let begun = std::time::Instant::now();
    assert_eq!(stream.bookmark().await, 1);
    assert!(begun.elapsed().as_secs() < 10);
}
