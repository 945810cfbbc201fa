//! The HTTP API of a real node against its contract: answers, headers, statuses and codes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::http_support::{Alone, Options, alone, alone_with, request};
use axum::http::Method;
use llm_config_server::service::ServiceLimits;
use serde_json::{Value, json};

const ENTRY: &str = "/api/v1/configs/llm%2Fmodels/bedrock%2Fus.anthropic.claude-3:0";

async fn send(
    node: &Alone,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> crate::http_support::Answer {
    node.call(request(method, path, headers, body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_is_created_read_changed_deleted_and_created_again() {
    let node = alone().await;
    node.get(ENTRY).await.problem(404, "NOT_FOUND");

    let created = node.put(ENTRY, r#"{"value": {"n": 1.10, "big": 123456789012345678901234567890}, "tags": ["a"], "comment": "why"}"#).await;
    let entry = created.expect(201);
    assert_eq!(created.header("etag"), "\"1\"");
    assert!(created.text().contains(r#""value":{"n":1.10,"big":123456789012345678901234567890}"#));
    assert_eq!(
        (&entry["namespace"], &entry["key"]),
        (&json!("llm/models"), &json!("bedrock/us.anthropic.claude-3:0"))
    );
    assert_eq!(
        (&entry["env"], &entry["version"], &entry["secret"]),
        (&json!("base"), &json!(1), &json!(false))
    );
    assert_eq!((&entry["tags"], &entry["comment"]), (&json!(["a"]), &json!("why")));
    for field in ["created_at", "updated_at"] {
        let time = entry[field].as_str().unwrap();
        assert!(time.ends_with('Z') && time.len() == "2026-01-01T00:00:00.000Z".len(), "{time}");
    }

    // The location leads to the same entry, and a cached read on the node that took the write sees it.
    let found = node.get(created.header("location")).await;
    assert_eq!(found.expect(200), entry);
    assert_eq!(found.header("x-config-revision"), entry["revision"].to_string());

    // POST is PUT; null is a value.
    let changed = node.post(ENTRY, r#"{"value": null}"#).await.expect(200);
    assert_eq!((&changed["version"], changed.get("value")), (&json!(2), Some(&Value::Null)));
    assert_eq!(changed["created_at"], entry["created_at"]);
    assert!(changed["revision"].as_u64() > entry["revision"].as_u64());
    assert_eq!(node.get(&format!("{ENTRY}?version=1")).await.expect(200), entry);

    let deleted = node.delete(ENTRY).await;
    assert_eq!((deleted.status.as_u16(), deleted.body.len()), (204, 0));
    node.get(ENTRY).await.problem(404, "NOT_FOUND");
    node.delete(ENTRY).await.problem(404, "NOT_FOUND");

    // No version is ever used again.
    let again = node.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    assert_eq!(again["version"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_common_headers() {
    let node = alone().await;
    node.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    let cases = [
        (Method::GET, ENTRY, 200),
        (Method::GET, "/api/v1/configs/a/absent", 404),
        (Method::GET, "/api/v1/nowhere", 404),
        (Method::GET, "/", 404),
        (Method::PATCH, ENTRY, 405),
        (Method::PUT, ENTRY, 400),
        (Method::GET, "/api/v1/cluster", 200),
        (Method::GET, "/health", 200),
        (Method::GET, "/health/live", 200),
        (Method::GET, "/health/ready", 200),
        (Method::GET, "/health/leader", 200),
        (Method::GET, "/openapi.json", 200),
        (Method::GET, "/docs/", 200),
    ];
    for (method, path, status) in cases {
        let answer = send(&node, method.clone(), path, &[("x-request-id", "mine-1")], "").await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        assert_eq!(answer.header("x-request-id"), "mine-1", "{method} {path}");
        assert_eq!(
            (answer.header("x-config-node"), answer.header("x-config-leader")),
            ("1", "1"),
            "{method} {path}"
        );
        assert!(answer.header("x-config-revision").parse::<u64>().unwrap() >= 1, "{method} {path}");
    }
    let own = node.get(ENTRY).await;
    assert_eq!(own.header("x-request-id").len(), 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_lists_the_right_ones() {
    let node = alone().await;
    let answer = send(&node, Method::PATCH, ENTRY, &[], "").await;
    let problem = answer.problem(405, "INVALID_ARGUMENT");
    assert!(problem["detail"].as_str().unwrap().starts_with("method: "));
    let allowed: BTreeSet<_> = answer.header("allow").split(',').map(str::trim).collect();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "POST", "PUT"].into());
    send(&node, Method::POST, "/health", &[], "").await.problem(405, "INVALID_ARGUMENT");
}

#[tokio::test(flavor = "multi_thread")]
async fn preconditions_protect_against_lost_updates() {
    let node = alone().await;
    let conflict = node
        .put(ENTRY, r#"{"value": 1, "expected_version": 1}"#)
        .await
        .problem(409, "VERSION_CONFLICT");
    assert_eq!((&conflict["current_version"], &conflict["applied"]), (&json!(0), &json!("no")));
    node.put(ENTRY, r#"{"value": 1, "expected_version": 0}"#).await.expect(201);
    let conflict = node
        .put(ENTRY, r#"{"value": 2, "expected_version": 0}"#)
        .await
        .problem(409, "VERSION_CONFLICT");
    assert_eq!(conflict["current_version"], 1);

    send(&node, Method::PUT, ENTRY, &[("if-match", "\"1\"")], r#"{"value": 2}"#).await.expect(200);
    send(&node, Method::PUT, ENTRY, &[("if-match", "\"1\"")], r#"{"value": 3}"#)
        .await
        .problem(409, "VERSION_CONFLICT");
    send(&node, Method::PUT, ENTRY, &[("if-none-match", "*")], r#"{"value": 3}"#)
        .await
        .problem(409, "VERSION_CONFLICT");
    send(&node, Method::POST, &format!("{ENTRY}/rollback/1"), &[("if-match", "\"1\"")], "")
        .await
        .problem(409, "VERSION_CONFLICT");
    node.delete(&format!("{ENTRY}?expected_version=1")).await.problem(409, "VERSION_CONFLICT");
    send(&node, Method::DELETE, ENTRY, &[("if-match", "\"2\"")], "").await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_gives_the_first_answer_again() {
    let node = alone().await;
    let key = [("idempotency-key", "k-1")];
    let first = send(&node, Method::PUT, ENTRY, &key, r#"{"value": 1}"#).await;
    let entry = first.expect(201);
    assert!(!first.headers.contains_key("idempotency-replayed"));
    // The same request in other words: white space and the order of members do not make it another one.
    let again = send(&node, Method::PUT, ENTRY, &key, r#"{ "env": "base", "value":  1 }"#).await;
    assert_eq!((again.expect(201), again.header("idempotency-replayed")), (entry, "true"));
    let problem = send(&node, Method::PUT, ENTRY, &key, r#"{"value": 2}"#)
        .await
        .problem(409, "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(problem["applied"], "no");
    assert_eq!(node.get(ENTRY).await.expect(200)["version"], 1);

    let key = [("idempotency-key", "k-2")];
    assert_eq!(send(&node, Method::DELETE, ENTRY, &key, "").await.status, 204);
    assert_eq!(send(&node, Method::DELETE, ENTRY, &key, "").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages() {
    let node = alone().await;
    for n in 0..25 {
        node.put(&format!("/api/v1/configs/app/k{n:02}"), &format!(r#"{{"value": {n}}}"#))
            .await
            .expect(201);
    }
    node.put("/api/v1/configs/app/other", r#"{"value": 0, "env": "prod"}"#).await.expect(201);
    let mut keys = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = node
            .get(&format!("/api/v1/configs/app?prefix=k&limit=10&cursor={cursor}"))
            .await
            .expect(200);
        assert_eq!(page["revision"], 26);
        keys.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|item| item["key"].as_str().unwrap().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(keys, (0..25).map(|n| format!("k{n:02}")).collect::<Vec<_>>());
    for listing in ["app?prefix=k1", "app?env=prod&prefix=k", "other?prefix=k", "app/k00/history?x"]
    {
        let path = format!("/api/v1/configs/{}&cursor={cursor}", listing.replace("?x", "?limit=1"));
        let problem = node.get(&path).await.problem(400, "INVALID_ARGUMENT");
        assert!(problem["detail"].as_str().unwrap().starts_with("cursor: "), "{listing}");
    }
    let empty = node.get("/api/v1/configs/nothing").await.expect(200);
    assert_eq!((&empty["items"], &empty["next_cursor"]), (&json!([]), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_have_entry_counts() {
    let node = alone().await;
    for (path, env) in [("a/x", "base"), ("a/x", "prod"), ("b%2Fc/x", "base"), ("b%2Fd/x", "base")]
    {
        node.put(&format!("/api/v1/configs/{path}"), &format!(r#"{{"value": 1, "env": "{env}"}}"#))
            .await
            .expect(201);
    }
    let all = node.get("/api/v1/namespaces").await.expect(200);
    assert_eq!(
        all["items"],
        json!([{"namespace": "a", "entries": 2}, {"namespace": "b/c", "entries": 1}, {"namespace": "b/d", "entries": 1}])
    );
    let first = node.get("/api/v1/namespaces?prefix=b&limit=1").await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second =
        node.get(&format!("/api/v1/namespaces?prefix=b&limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!(
        (&second["items"][0]["namespace"], &second["next_cursor"]),
        (&json!("b/d"), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_can_be_read_compared_and_brought_back() {
    let node = alone_with(&Options { history_limit: 4, ..Options::default() }).await;
    node.put(ENTRY, r#"{"value": {"a": 1}}"#).await.expect(201);
    node.put(ENTRY, r#"{"value": {"a": 2, "b": true}}"#).await.expect(200);
    node.delete(ENTRY).await.expect(204);
    node.put(ENTRY, r#"{"value": {"a": 3}, "comment": "back"}"#).await.expect(201);

    let page = node.get(&format!("{ENTRY}/history?limit=3")).await.expect(200);
    let versions: Vec<_> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [4, 3, 2]);
    assert_eq!((&page["items"][1]["deleted"], page["items"][1].get("value")), (&json!(true), None));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = node.get(&format!("{ENTRY}/history?limit=3&cursor={cursor}")).await.expect(200);
    assert_eq!((&rest["items"][0]["version"], &rest["next_cursor"]), (&json!(1), &Value::Null));
    node.get("/api/v1/configs/app/never/history").await.problem(404, "NOT_FOUND");

    let diff = node.get(&format!("{ENTRY}/diff?from=1&to=2")).await.expect(200);
    let patch = json!([{"op": "replace", "path": "/a", "value": 2}, {"op": "add", "path": "/b", "value": true}]);
    assert_eq!(
        (&diff["from"]["version"], &diff["to"]["version"], &diff["patch"]),
        (&json!(1), &json!(2), &patch)
    );
    assert_eq!(node.get(&format!("{ENTRY}/diff?from=1")).await.expect(200)["to"]["version"], 4);
    node.get(&format!("{ENTRY}/diff?from=1&to=9")).await.problem(404, "NOT_FOUND");
    node.get(&format!("{ENTRY}/diff?env_from=base&env_to=prod")).await.problem(404, "NOT_FOUND");
    node.put(ENTRY, r#"{"value": {"a": 9}, "env": "prod"}"#).await.expect(201);
    let diff = node.get(&format!("{ENTRY}/diff?env_from=base&env_to=prod")).await.expect(200);
    assert_eq!(diff["patch"], json!([{"op": "replace", "path": "/a", "value": 9}]));

    let back =
        node.post(&format!("{ENTRY}/rollback/2"), r#"{"comment": "undo"}"#).await.expect(200);
    assert_eq!(
        (&back["version"], &back["value"], &back["comment"]),
        (&json!(5), &json!({"a": 2, "b": true}), &json!("undo"))
    );
    node.post(&format!("{ENTRY}/rollback/77"), "").await.problem(404, "NOT_FOUND");

    // Version 1 has left the last four.
    let problem = node.get(&format!("{ENTRY}?version=1")).await.problem(410, "REVISION_COMPACTED");
    assert!(problem["oldest_revision"].is_u64(), "{problem}");
    node.post(&format!("{ENTRY}/rollback/1"), "").await.problem(410, "REVISION_COMPACTED");
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_fall_back_as_documented() {
    let node = alone().await;
    for (key, env, value) in [
        ("a", "base", 1),
        ("a", "prod", 2),
        ("b", "base", 3),
        ("c", "prod", 4),
        ("d", "staging", 5),
        ("e", "edge", 6),
    ] {
        node.put(
            &format!("/api/v1/configs/app/{key}"),
            &format!(r#"{{"value": {value}, "env": "{env}"}}"#),
        )
        .await
        .expect(201);
    }
    let seen = |key: &str, env: &str| {
        let path = format!("/api/v1/configs/app/{key}?env={env}&resolve=true");
        let node = &node;
        // Twice: from storage, then from the cache.
        async move {
            let first = node.get(&path).await;
            let second = node.get(&path).await;
            assert_eq!(
                (first.status, &first.json()["value"]),
                (second.status, &second.json()["value"]),
                "{path}"
            );
            let entry = first.json();
            (first.status == 200).then(|| {
                (entry["value"].as_u64().unwrap(), entry["env"].as_str().unwrap().to_owned())
            })
        }
    };
    assert_eq!(seen("a", "edge").await, Some((2, "production".into())));
    assert_eq!(seen("b", "edge").await, Some((3, "base".into())));
    assert_eq!(seen("a", "dev").await, Some((1, "base".into())));
    assert_eq!(seen("d", "prod").await, None);
    node.get("/api/v1/configs/app/b?env=prod").await.problem(404, "NOT_FOUND");

    let resolved = node.get("/api/v1/resolve/app?env=edge").await;
    let body = resolved.expect(200);
    assert_eq!(body["values"], json!({"a": 2, "b": 3, "c": 4, "e": 6}));
    assert_eq!(
        body["sources"],
        json!({"a": "production", "b": "base", "c": "production", "e": "edge"})
    );
    assert_eq!(
        (&body["namespace"], &body["environment"], &body["revision"]),
        (&json!("app"), &json!("edge"), &json!(6))
    );

    // The tag follows the content of this namespace and environment, nothing else.
    let tag = resolved.header("etag").to_owned();
    let again = |tag: String| {
        let node = &node;
        async move {
            send(node, Method::GET, "/api/v1/resolve/app?env=edge", &[("if-none-match", &tag)], "")
                .await
        }
    };
    node.put("/api/v1/configs/other/a", r#"{"value": 1}"#).await.expect(201);
    node.put("/api/v1/configs/app/d", r#"{"value": 7, "env": "staging"}"#).await.expect(200);
    let unchanged = again(tag.clone()).await;
    assert_eq!(
        (unchanged.status.as_u16(), unchanged.body.len(), unchanged.header("etag")),
        (304, 0, tag.as_str())
    );
    node.delete("/api/v1/configs/app/e?env=edge").await.expect(204);
    let changed = again(tag.clone()).await;
    assert_ne!(changed.header("etag"), tag);
    assert_eq!(changed.expect(200)["values"], json!({"a": 2, "b": 3, "c": 4}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_all_or_nothing_under_one_revision() {
    let node = alone().await;
    let txn = json!({
        "compare": [{"namespace": "app", "key": "a", "version": 0}],
        "success": [
            {"op": "set", "namespace": "app", "key": "a", "value": 1},
            {"op": "set", "namespace": "app", "key": "b", "env": "prod", "value": null, "comment": "with a"},
            {"op": "get", "namespace": "app", "key": "c"},
        ],
        "failure": [{"op": "get", "namespace": "app", "key": "a"}],
    })
    .to_string();
    let done = node.post("/api/v1/txn", &txn).await.expect(200);
    assert_eq!((&done["succeeded"], &done["revision"]), (&json!(true), &json!(1)));
    let ops: Vec<_> = done["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| result["op"].as_str().unwrap())
        .collect();
    assert_eq!(ops, ["set", "set", "get"]);
    assert_eq!(
        (&done["results"][0]["entry"]["revision"], &done["results"][1]["entry"]["revision"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(done["results"][2].get("entry"), Some(&Value::Null));

    let second = node.post("/api/v1/txn", &txn).await.expect(200);
    assert_eq!(
        (&second["succeeded"], &second["results"][0]["entry"]["value"]),
        (&json!(false), &json!(1))
    );

    let refused = json!({"success": [
        {"op": "set", "namespace": "app", "key": "x", "value": 1},
        {"op": "delete", "namespace": "app", "key": "a", "expected_version": 9},
    ]});
    node.post("/api/v1/txn", &refused.to_string()).await.problem(409, "VERSION_CONFLICT");
    let refused = json!({"success": [
        {"op": "set", "namespace": "app", "key": "x", "value": 1},
        {"op": "delete", "namespace": "app", "key": "absent"},
    ]});
    node.post("/api/v1/txn", &refused.to_string()).await.problem(404, "NOT_FOUND");
    node.get("/api/v1/configs/app/x").await.problem(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_as_fresh_as_asked() {
    let limits =
        ServiceLimits { request_timeout: Duration::from_secs(3), ..ServiceLimits::default() };
    let node = alone_with(&Options { service: limits, ..Options::default() }).await;
    let revision =
        node.put(ENTRY, r#"{"value": 1}"#).await.expect(201)["revision"].as_u64().unwrap();
    for query in [
        "consistency=cached".to_owned(),
        "consistency=linearizable".into(),
        format!("min_revision={revision}"),
        "max_staleness_ms=60000".into(),
    ] {
        let answer = node.get(&format!("{ENTRY}?{query}")).await;
        assert_eq!(answer.expect(200)["value"], 1, "{query}");
        assert!(answer.header("x-config-revision").parse::<u64>().unwrap() >= revision);
    }
    let behind = node.get(&format!("{ENTRY}?min_revision={}", revision + 1)).await;
    let problem = behind.problem(503, "STALE");
    assert_eq!(
        (&problem["retryable"], &problem["applied"], behind.header("retry-after")),
        (&json!(true), &json!("no"), "1")
    );

    // A read that waits for a revision is answered as soon as it is there.
    let path = format!("{ENTRY}?min_revision={}", revision + 1);
    let (waited, written) = tokio::join!(node.get(&path), node.put(ENTRY, r#"{"value": 2}"#));
    written.expect(200);
    assert_eq!(waited.expect(200)["value"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_at_once() {
    let limits = ServiceLimits { requests: 0, ..ServiceLimits::default() };
    let node = alone_with(&Options { service: limits, ..Options::default() }).await;
    let refused = node.put(ENTRY, r#"{"value": 1}"#).await;
    let problem = refused.problem(503, "OVERLOADED");
    assert_eq!(
        (&problem["applied"], &problem["retryable"], refused.header("retry-after")),
        (&json!("no"), &json!(true), "1")
    );
    // Somebody has to be able to see what is going on.
    node.get("/health").await.expect(200);

    let limits = ServiceLimits { request_bytes: 100, ..ServiceLimits::default() };
    let node = alone_with(&Options { service: limits, ..Options::default() }).await;
    node.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    node.put(ENTRY, &format!(r#"{{"value": "{}"}}"#, "x".repeat(100)))
        .await
        .problem(503, "OVERLOADED");
}

#[tokio::test(flavor = "multi_thread")]
async fn values_up_to_a_mebibyte_are_taken() {
    let node = alone().await;
    let body = |bytes: usize| format!(r#"{{"value": "{}"}}"#, "x".repeat(bytes - 2));
    node.put(ENTRY, &body(1 << 20)).await.expect(201);
    assert_eq!(node.get(ENTRY).await.expect(200)["value"].as_str().unwrap().len(), (1 << 20) - 2);
    for bytes in [(1 << 20) + 1, 2 << 20, 30 << 20] {
        let problem = node.put(ENTRY, &body(bytes)).await.problem(413, "PAYLOAD_TOO_LARGE");
        assert_eq!(problem["applied"], "no", "{bytes}");
    }
    // Each value is allowed, together they are more than one command may carry.
    let op = |key: usize| json!({"op": "set", "namespace": "a", "key": key.to_string(), "value": "x".repeat(1_040_000)});
    let txn = json!({"success": (0..4).map(op).collect::<Vec<_>>()}).to_string();
    node.post("/api/v1/txn", &txn).await.expect(200);
    let txn = json!({"success": (0..5).map(op).collect::<Vec<_>>()}).to_string();
    node.post("/api/v1/txn", &txn).await.problem(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_shows_itself() {
    let node = alone().await;
    let cluster = node.get("/api/v1/cluster").await.expect(200);
    assert_eq!(
        (&cluster["node_id"], &cluster["role"], &cluster["leader_id"]),
        (&json!(1), &json!("leader"), &json!(1))
    );
    assert!(cluster["cluster_id"].as_str().is_some_and(|id| !id.is_empty()), "{cluster}");
    assert_eq!(cluster["leader"]["http"], "127.0.0.1:8080");
    let members = cluster["members"].as_array().unwrap();
    assert_eq!(members.len(), 1);
    for member in ["id", "role", "http", "grpc", "raft", "reachable", "matched_index"] {
        assert!(members[0].get(member).is_some(), "{member} in {cluster}");
    }
    for number in ["term", "last_log_index", "committed_index", "applied_index"] {
        assert!(cluster[number].is_u64(), "{number} in {cluster}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_writes_only() {
    let Alone { api, folder } = alone().await;
    api.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    drop(api);

    let mut options = Options::default();
    options.tuning.disk_reserve_bytes = u64::MAX;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api =
        crate::http_support::Api::start(1, listener, BTreeMap::new(), folder.path(), &options)
            .await;
    api.until_ready().await;
    let problem = api.put(ENTRY, r#"{"value": 2}"#).await.problem(507, "STORAGE_FULL");
    assert_eq!(problem["applied"], "no");
    // What was stored before the restart is read without a change to feed the cache.
    for query in ["", "?consistency=linearizable", "?min_revision=1"] {
        assert_eq!(api.get(&format!("{ENTRY}{query}")).await.expect(200)["value"], 1, "{query}");
    }
    // Deletes pass: they are how a full store is emptied.
    api.delete(ENTRY).await.expect(204);
}
