//! Schemas: put, read, deleted; and what is refused because of one, wherever a value comes from.

use axum::http::Method;
use serde_json::{Value, json};

use crate::http_support::secured::{ROOT, options, secured};
use crate::http_support::{Alone, Answer, alone, request};

const SCHEMA: &str = "/api/v1/schemas/app/limits";
const ENTRY: &str = "/api/v1/configs/app/limits";

fn limits() -> Value {
    json!({
        "type": "object",
        "required": ["max_tokens"],
        "properties": {"max_tokens": {"type": "integer", "minimum": 1}},
    })
}

async fn put(node: &Alone, path: &str, body: &Value) -> Answer {
    node.put(path, &body.to_string()).await
}

async fn with_key(node: &Alone, path: &str, key: &str, body: &Value) -> Answer {
    let headers = [("idempotency-key", key)];
    node.call(request(Method::PUT, path, &headers, &body.to_string())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_is_put_read_listed_changed_and_deleted() {
    let node = alone().await;
    node.get(SCHEMA).await.problem(404, "NOT_FOUND");
    let created = put(&node, SCHEMA, &json!({"schema": limits(), "comment": "no zeros"})).await;
    let schema = created.expect(201);
    assert_eq!((&schema["schema"], &schema["comment"]), (&limits(), &json!("no zeros")));
    assert_eq!(created.header("etag"), format!("\"{}\"", schema["version"]));
    assert_eq!(node.get(SCHEMA).await.expect(200), schema);

    let stale = json!({"schema": true, "expected_version": 0});
    put(&node, SCHEMA, &stale).await.problem(409, "VERSION_CONFLICT");
    let changed = put(&node, SCHEMA, &json!({"schema": true})).await.expect(200);
    assert!(changed["version"].as_u64() > schema["version"].as_u64());
    assert_eq!(changed["created_at"], schema["created_at"]);

    put(&node, "/api/v1/schemas/app/other", &json!({"schema": {}})).await.expect(201);
    let page = node.get("/api/v1/schemas/app?limit=1").await.expect(200);
    assert_eq!(
        (&page["items"][0]["key"], page["items"].as_array().map(Vec::len)),
        (&json!("limits"), Some(1))
    );
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = node.get(&format!("/api/v1/schemas/app?limit=1&cursor={cursor}")).await.expect(200);
    assert_eq!((&rest["items"][0]["key"], &rest["next_cursor"]), (&json!("other"), &Value::Null));

    node.delete(SCHEMA).await.expect(204);
    node.delete(SCHEMA).await.problem(404, "NOT_FOUND");
    node.get(SCHEMA).await.problem(404, "NOT_FOUND");
    let audit = node.get("/api/v1/audit?type=schema.put").await.expect(200);
    assert_eq!(audit["items"].as_array().map(Vec::len), Some(3), "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_schema_is_refused_and_names_the_place() {
    let node = alone().await;
    for (schema, part) in [
        (json!({"type": "text"}), "/type"),
        (json!({"$ref": "https://example.org/schema"}), "leads out"),
        (json!({"$ref": "#"}), "refers to itself"),
        (json!([]), "must be an object"),
        (json!({"pattern": "("}), "pattern"),
    ] {
        let problem =
            put(&node, SCHEMA, &json!({"schema": schema})).await.problem(400, "INVALID_ARGUMENT");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("schema: ") && detail.contains(part), "{detail}");
    }
    let large = json!({"schema": {"description": "x".repeat(65 << 10)}});
    put(&node, SCHEMA, &large).await.problem(413, "PAYLOAD_TOO_LARGE");
    node.put(SCHEMA, "{}").await.problem(400, "INVALID_ARGUMENT");
    node.get(SCHEMA).await.problem(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_meet_its_schema_changes_nothing_in_any_environment() {
    let node = alone().await;
    put(&node, ENTRY, &json!({"value": "there before"})).await.expect(201);
    put(&node, SCHEMA, &json!({"schema": limits()})).await.expect(201);
    for env in ["base", "production"] {
        let body = json!({"value": {"max_tokens": 0}, "env": env});
        let problem = put(&node, ENTRY, &body).await.problem(422, "SCHEMA_VIOLATION");
        assert_eq!(problem["violations"][0]["path"], "/max_tokens", "{problem}");
        assert!(
            problem["violations"][0]["message"]
                .as_str()
                .is_some_and(|text| text.contains("minimum"))
        );
        assert_eq!((&problem["retryable"], &problem["applied"]), (&json!(false), &json!("no")));
    }
    // What was there before stays, and can be read.
    assert_eq!(node.get(ENTRY).await.expect(200)["version"], 1);
    put(&node, ENTRY, &json!({"value": {"max_tokens": 5}})).await.expect(200);
    // Nor does it come back.
    let back = node.post(&format!("{ENTRY}/rollback/1"), "").await;
    back.problem(422, "SCHEMA_VIOLATION");
    node.post(&format!("{ENTRY}/rollback/2"), "").await.expect(200);
    // A deletion has no value.
    node.delete(ENTRY).await.expect(204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_with_one_wrong_value_changes_nothing() {
    let node = alone().await;
    put(&node, SCHEMA, &json!({"schema": limits()})).await.expect(201);
    let set = |key: &str, value: Value| json!({"op": "set", "namespace": "app", "key": key, "value": value});
    let wrong = json!({"success": [set("free", json!(1)), set("limits", json!({}))]});
    let problem =
        node.post("/api/v1/txn", &wrong.to_string()).await.problem(422, "SCHEMA_VIOLATION");
    assert_eq!(problem["violations"][0]["path"], "/success/1/value", "{problem}");
    node.get("/api/v1/configs/app/free").await.problem(404, "NOT_FOUND");
    let right =
        json!({"success": [set("free", json!(1)), set("limits", json!({"max_tokens": 1}))]});
    assert_eq!(node.post("/api/v1/txn", &right.to_string()).await.expect(200)["succeeded"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_of_what_was_carried_out_before_the_schema_came_gets_its_answer() {
    let node = alone().await;
    let body = json!({"value": "free"});
    let first = with_key(&node, ENTRY, "k-1", &body).await.expect(201);
    put(&node, SCHEMA, &json!({"schema": limits()})).await.expect(201);
    let again = with_key(&node, ENTRY, "k-1", &body).await;
    assert_eq!((again.expect(201), again.header("idempotency-replayed")), (first, "true"));
    with_key(&node, ENTRY, "k-2", &body).await.problem(422, "SCHEMA_VIOLATION");
    // The refused key is free: a refusal changes nothing.
    node.delete(SCHEMA).await.expect(204);
    assert_eq!(with_key(&node, ENTRY, "k-2", &body).await.expect(200)["version"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_would_take_too_long_to_check_is_refused_quickly() {
    let node = alone().await;
    let doubling = json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}});
    put(&node, SCHEMA, &json!({"schema": doubling})).await.expect(201);
    let nested = (0..60).fold(json!(1), |inner, _| json!({"a": inner}));
    let problem =
        put(&node, ENTRY, &json!({"value": nested})).await.problem(422, "SCHEMA_VIOLATION");
    assert!(
        problem["violations"][0]["message"].as_str().is_some_and(|text| text.contains("steps"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_checked_before_it_is_sealed_and_never_repeated() {
    let (options, _keys) = options();
    let node = secured(&options).await;
    let schema = json!({"schema": {"type": "string", "pattern": "^sk-[a-z0-9]{8,}$"}});
    node.put_as(ROOT, "/api/v1/schemas/app/key", &schema).await.expect(201);
    let entry = "/api/v1/configs/app/key";
    let wrong = json!({"value": "hunter2-hunter2", "secret": true});
    let refused = node.put_as(ROOT, entry, &wrong).await;
    refused.problem(422, "SCHEMA_VIOLATION");
    assert!(!refused.text().contains("hunter2"), "{}", refused.text());
    let right = json!({"value": "sk-0123456789", "secret": true});
    node.put_as(ROOT, entry, &right).await.expect(201);
    // A secret that comes back is looked at as well.
    let stricter = json!({"schema": {"type": "string", "pattern": "^pk-"}});
    node.put_as(ROOT, "/api/v1/schemas/app/key", &stricter).await.expect(200);
    let back = node.post_as(ROOT, &format!("{entry}/rollback/1"), &Value::Null).await;
    back.problem(422, "SCHEMA_VIOLATION");
    assert!(!back.text().contains("0123456789"), "{}", back.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_and_a_schema_that_changes_leave_no_value_that_was_not_checked() {
    let node = std::sync::Arc::new(alone().await);
    let kinds = ["integer", "string"];
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let node = std::sync::Arc::clone(&node);
            tokio::spawn(async move {
                for round in 0..25 {
                    let value =
                        if (writer + round) % 2 == 0 { json!(round) } else { json!("text") };
                    let answer = put(&node, ENTRY, &json!({"value": value})).await;
                    assert!([200, 201, 422].contains(&answer.status.as_u16()), "{}", answer.text());
                }
            })
        })
        .collect();
    let mut versions = Vec::new();
    for round in 0..20 {
        let kind = kinds[round % 2];
        let put = put(&node, SCHEMA, &json!({"schema": {"type": kind}})).await;
        assert!([200, 201].contains(&put.status.as_u16()), "{}", put.text());
        // Between two schemas nothing but what meets the first one is written: what is there now may be older.
        versions.push(node.get(ENTRY).await.json()["version"].as_u64().unwrap_or(0));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    // From the last schema on only its kind was written.
    let history = node.get(&format!("{ENTRY}/history?limit=1000")).await.expect(200);
    let last = versions.last().copied().unwrap_or(0);
    for item in history["items"].as_array().unwrap() {
        if item["version"].as_u64().unwrap() > last {
            assert!(item["value"].is_string(), "{item} after version {last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_file_of_entries_changes_at_once() {
    let node = alone().await;
    let ops: Vec<Value> = (0..4_600)
        .map(|at| json!({"op": "set", "namespace": "models", "key": format!("m/{at}"), "value": {"at": at}}))
        .collect();
    let txn = json!({"success": ops}).to_string();
    let answer = node.post("/api/v1/txn", &txn).await.expect(200);
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(4_600));
    let page = node.get("/api/v1/configs/models?limit=1000").await.expect(200);
    let items = page["items"].as_array().unwrap();
    assert!(items.len() == 1000 && items.iter().all(|item| item["revision"] == answer["revision"]));
    let record = &node.get("/api/v1/audit?type=config.txn").await.expect(200)["items"][0];
    assert_eq!(record["detail"], "4600 set, 0 deleted", "{record}");
    let ops = vec![json!({"op": "get", "namespace": "models", "key": "m/0"}); 10_001];
    let refused = node.post("/api/v1/txn", &json!({"success": ops}).to_string()).await;
    refused.problem(400, "INVALID_ARGUMENT");
}
