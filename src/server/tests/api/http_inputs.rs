//! A catalogue of bad requests: each is refused with the right code and a detail that names the field, none is a fault.

use crate::http_support::{Alone, alone, request};
use axum::body::Body;
use axum::http::{Method, Request};

const ENTRY: &str = "/api/v1/configs/app/k";

/// Method, path, headers, body, status, and how the detail begins.
struct Case {
    method: Method,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
    status: u16,
    field: &'static str,
}

fn case(
    method: Method,
    path: impl Into<String>,
    body: impl Into<String>,
    field: &'static str,
) -> Case {
    Case { method, path: path.into(), headers: Vec::new(), body: body.into(), status: 400, field }
}

fn get(path: impl Into<String>, field: &'static str) -> Case {
    case(Method::GET, path, "", field)
}

/// A `PUT` of one entry with this body.
fn put(body: impl Into<String>, field: &'static str) -> Case {
    case(Method::PUT, ENTRY, body, field)
}

fn txn(body: impl Into<String>, field: &'static str) -> Case {
    case(Method::POST, "/api/v1/txn", body, field)
}

fn with(case: Case, headers: &[(&'static str, &'static str)]) -> Case {
    Case { headers: headers.to_vec(), ..case }
}

fn status(status: u16, case: Case) -> Case {
    Case { status, ..case }
}

fn names() -> Vec<Case> {
    let long_namespace = "n".repeat(257);
    let long_key = "k".repeat(513);
    vec![
        get("/api/v1/configs/a%20b/k", "namespace: "),
        get("/api/v1/configs/%C3%A4/k", "namespace: "),
        get("/api/v1/configs/a%2F/k", "namespace: "),
        get("/api/v1/configs/%2Fa/k", "namespace: "),
        get("/api/v1/configs/a%2F%2Fb/k", "namespace: "),
        get("/api/v1/configs/%2E%2E/k", "namespace: "),
        get("/api/v1/configs/a%00/k", "namespace: "),
        get(format!("/api/v1/configs/{long_namespace}/k"), "namespace: "),
        get("/api/v1/configs/a%ff/k", "namespace: "),
        get("/api/v1/configs/a%zz/k", "namespace: "),
        get("/api/v1/configs/a%2520b", "namespace: "),
        get("/api/v1/resolve/a%20b", "namespace: "),
        get("/api/v1/configs/app/%2E", "key: "),
        get("/api/v1/configs/app/%2e%2e", "key: "),
        get("/api/v1/configs/app/a%0Ab", "key: "),
        get("/api/v1/configs/app/a%00b", "key: "),
        get("/api/v1/configs/app/%7F", "key: "),
        get("/api/v1/configs/app/%C2%85", "key: "),
        get(format!("/api/v1/configs/app/{long_key}"), "key: "),
        get("/api/v1/configs/app/%ff", "key: "),
        get("/api/v1/configs/app/%C3%28", "key: "),
        get("/api/v1/configs/app/100%", "key: "),
        get("/api/v1/configs/app/%E0%80%80/history", "key: "),
        case(Method::DELETE, "/api/v1/configs/app/%ff", "", "key: "),
        case(Method::PUT, "/api/v1/configs/a%20b/k", r#"{"value": 1}"#, "namespace: "),
        status(404, get("/api/v1/configs/app/", "there is no path")),
        get("/api/v1/configs//k", "namespace: "),
        status(404, get("/api/v1/configs/llm/models/k", "there is no path")),
        status(404, get("/api/v1/configs", "there is no path")),
        status(404, get("/api/v2/configs/app/k", "there is no path")),
        status(404, get("/metrics", "there is no path")),
        status(405, case(Method::PUT, "/api/v1/namespaces", "", "method: ")),
        status(405, case(Method::GET, "/api/v1/txn", "", "method: ")),
        status(405, case(Method::OPTIONS, ENTRY, "", "method: ")),
    ]
}

fn members() -> Vec<Case> {
    let node = |id: &str, raft: &str| {
        format!(r#"{{"id": {id}, "raft": "{raft}", "http": "h:2", "grpc": "h:3"}}"#)
    };
    let members = "/api/v1/cluster/members";
    let post = |path: &str, body: &str, field| {
        case(Method::POST, format!("/api/v1/cluster/{path}"), body, field)
    };
    vec![
        post("members", "", "body: "),
        post("members", r#"{"id": 4, "raft": "h:1", "http": "h:2"}"#, "grpc: is required"),
        post("members", &node("0", "h:1"), "id: "),
        post("members", &node("-1", "h:1"), "id: "),
        post("members", &node("4", "h"), "raft: "),
        post("members", &node("4", "http://h:1"), "raft: "),
        post("members", &node("4", "0.0.0.0:1"), "raft: "),
        post("members", &node("4", "h:0"), "raft: "),
        post("members", r#"{"id": 4, "forced": true}"#, "forced: "),
        post("members/x/promote", "", "id: "),
        post("members/0/promote", "", "id: "),
        post("members/1/demote", r#"{"force": 1}"#, "force: "),
        post("members/1/replace", "", "body: "),
        post("members/1/replace", r#"{"with": 0}"#, "with: "),
        post("members/1/replace", r#"{"with": 1}"#, "with: "),
        case(Method::DELETE, format!("{members}/0"), "", "id: "),
        case(Method::DELETE, format!("{members}/1?force=yes"), "", "force: "),
        post("transfer-leader", r#"{"to": 0}"#, "to: "),
        status(404, post("members/9/promote", "", "node 9 is no member")),
        status(404, case(Method::DELETE, format!("{members}/9"), "", "node 9 is no member")),
        status(405, get(members, "method: ")),
    ]
}

fn parameters() -> Vec<Case> {
    vec![
        get(format!("{ENTRY}?env=moon"), "env: "),
        get(format!("{ENTRY}?env=Production"), "env: "),
        get(format!("{ENTRY}?env=prod&env=prod"), "env: "),
        get(format!("{ENTRY}?environment=prod"), "environment: "),
        get(format!("{ENTRY}?reveal=yes"), "reveal: "),
        get(format!("{ENTRY}?env=%ff"), "env: "),
        get(format!("{ENTRY}?%ff=1"), "query: "),
        get(format!("{ENTRY}?resolve=yes"), "resolve: "),
        get(format!("{ENTRY}?resolve"), "resolve: "),
        get(format!("{ENTRY}?version=0"), "version: "),
        get(format!("{ENTRY}?version=-1"), "version: "),
        get(format!("{ENTRY}?version=1.0"), "version: "),
        get(format!("{ENTRY}?version="), "version: "),
        get(format!("{ENTRY}?version=18446744073709551616"), "version: "),
        get(format!("{ENTRY}?version=1&resolve=true"), "version: "),
        get(
            format!("{ENTRY}?consistency=strong"),
            "consistency: allowed are cached and linearizable",
        ),
        get(format!("{ENTRY}?consistency="), "consistency: "),
        get(format!("{ENTRY}?min_revision=x"), "min_revision: "),
        get(format!("{ENTRY}?max_staleness_ms=1s"), "max_staleness_ms: "),
        get("/api/v1/configs/app?limit=0", "limit: "),
        get("/api/v1/configs/app?limit=1001", "limit: "),
        get("/api/v1/configs/app?limit=ten", "limit: "),
        get("/api/v1/configs/app?cursor=zz", "cursor: "),
        get("/api/v1/configs/app?cursor=0", "cursor: "),
        get(format!("/api/v1/configs/app?cursor={}", "ab".repeat(5_000)), "cursor: "),
        get(format!("/api/v1/configs/app?prefix={}", "p".repeat(513)), "prefix: "),
        get("/api/v1/configs/app?prefix=a%00", "prefix: "),
        get("/api/v1/configs/app?resolve=true", "resolve: "),
        get("/api/v1/namespaces?env=prod", "env: "),
        get("/api/v1/namespaces?limit=1001", "limit: "),
        get(format!("/api/v1/namespaces?prefix={}", "p".repeat(257)), "prefix: "),
        get("/api/v1/namespaces?cursor=01", "cursor: "),
        get(format!("{ENTRY}/history?limit=0"), "limit: "),
        get(format!("{ENTRY}/history?cursor=00"), "cursor: "),
        get(format!("{ENTRY}/diff"), "from: "),
        get(format!("{ENTRY}/diff?to=1"), "from: "),
        get(format!("{ENTRY}/diff?from=0"), "from: "),
        get(format!("{ENTRY}/diff?from=1&to=0"), "to: "),
        get(format!("{ENTRY}/diff?from=1&env_to=prod"), "from: "),
        get(format!("{ENTRY}/diff?env_from=prod"), "env_to: "),
        get(format!("{ENTRY}/diff?env_from=moon&env_to=prod"), "env_from: "),
        get("/api/v1/resolve/app?env=moon", "env: "),
        get("/api/v1/resolve/app?reveal=1", "reveal: "),
        get("/api/v1/cluster?verbose", "verbose: "),
        get("/api/v1/watch?env=moon", "env: "),
        get("/api/v1/watch?namespace=a%20b", "namespace: "),
        get("/api/v1/watch?from_revision=x", "from_revision: "),
        get("/api/v1/watch?key=a", "key: "),
        get(format!("/api/v1/watch?prefix={}", "p".repeat(513)), "prefix: "),
        with(get("/api/v1/watch", "Last-Event-ID: "), &[("last-event-id", "x")]),
        case(Method::DELETE, format!("{ENTRY}?expected_version=x"), "", "expected_version: "),
        case(Method::DELETE, format!("{ENTRY}?env=moon"), "", "env: "),
        case(Method::DELETE, format!("{ENTRY}?force=true"), "", "force: "),
        case(Method::DELETE, format!("{ENTRY}?comment={}", "c".repeat(4_097)), "", "comment: "),
        case(Method::POST, format!("{ENTRY}/rollback/x"), "", "version: "),
        case(Method::POST, format!("{ENTRY}/rollback/0"), "", "version: "),
        case(Method::POST, format!("{ENTRY}/rollback/-1"), "", "version: "),
        case(Method::POST, format!("{ENTRY}/rollback/1?version=2"), "", "version: "),
        case(Method::PUT, format!("{ENTRY}?env=prod"), r#"{"value": 1}"#, "env: "),
        case(Method::POST, "/api/v1/txn?dry_run=true", "{}", "dry_run: "),
    ]
}

fn bodies() -> Vec<Case> {
    let text = |bytes: usize| "x".repeat(bytes);
    vec![
        put("", "body: "),
        put("{}", "value: "),
        put("{", "body: "),
        put("[]", "body: "),
        put(r#"[1, "prod"]"#, "body: "),
        put("1", "body: "),
        put("null", "body: "),
        put("\u{feff}{\"value\": 1}", "body: "),
        put(r#"{"value": }"#, "body: "),
        put(r#"{"value": nul}"#, "body: "),
        put(r#"{"value": 1} {"value": 2}"#, "body: "),
        put(r#"{'value': 1}"#, "body: "),
        put(r#"{"value": 1,}"#, "body: "),
        put(r#"{"value": 1, "value": 2}"#, "value: "),
        put(r#"{"value": {"a": 1, "a": 2}}"#, "value: "),
        put(r#"{"value": 1e400}"#, "value: "),
        put(r#"{"value": "\ud800"}"#, "value: "),
        put(format!(r#"{{"value": {}{}}}"#, "[".repeat(65), "]".repeat(65)), "value: "),
        put(format!(r#"{{"value": {}{}}}"#, "[".repeat(300_000), "]".repeat(300_000)), "value: "),
        put("{\"value\": ".repeat(50_000), "body: "),
        put("[".repeat(500_000), "body: "),
        put(format!(r#"{{"env": {}"#, "[".repeat(500_000)), "env: "),
        put(r#"{"value": 1, "env": "moon"}"#, "env: "),
        put(r#"{"value": 1, "env": 5}"#, "env: "),
        put(r#"{"value": 1, "environment": "prod"}"#, "environment: "),
        put(r#"{"valeu": 1}"#, "valeu: "),
        put(r#"{"value": 1, "secret": true}"#, "value: "),
        put(r#"{"value": 1, "secret": "no"}"#, "secret: "),
        put(r#"{"value": 1, "tags": "a"}"#, "tags: "),
        put(r#"{"value": 1, "tags": ["a", 5]}"#, "tags[1]: "),
        put(r#"{"value": 1, "tags": [""]}"#, "tags: "),
        put(format!(r#"{{"value": 1, "tags": ["{}"]}}"#, text(129)), "tags: "),
        put(format!(r#"{{"value": 1, "tags": [{}]}}"#, vec!["\"t\""; 33].join(",")), "tags: "),
        put(format!(r#"{{"value": 1, "description": "{}"}}"#, text(4_097)), "description: "),
        put(format!(r#"{{"value": 1, "comment": "{}"}}"#, text(4_097)), "comment: "),
        put(r#"{"value": 1, "comment": {}}"#, "comment: "),
        put(r#"{"value": 1, "expected_version": -1}"#, "expected_version: "),
        put(r#"{"value": 1, "expected_version": 1.5}"#, "expected_version: "),
        put(r#"{"value": 1, "expected_version": "1"}"#, "expected_version: "),
        put(r#"{"value": 1, "expected_version": 18446744073709551616}"#, "expected_version: "),
        with(put(r#"{"value": 1, "expected_version": 2}"#, "If-Match: "), &[("if-match", "\"1\"")]),
        with(put(r#"{"value": 1}"#, "If-Match: "), &[("if-match", "1")]),
        with(put(r#"{"value": 1}"#, "If-Match: "), &[("if-match", "*")]),
        with(put(r#"{"value": 1}"#, "If-Match: "), &[("if-match", "\"x\"")]),
        with(put(r#"{"value": 1}"#, "If-Match: "), &[("if-match", "\"99999999999999999999\"")]),
        with(put(r#"{"value": 1}"#, "If-None-Match: "), &[("if-none-match", "\"1\"")]),
        with(put(r#"{"value": 1}"#, "Idempotency-Key: "), &[("idempotency-key", "")]),
        with(
            put(r#"{"value": 1}"#, "Idempotency-Key: "),
            &[("idempotency-key", "a"), ("idempotency-key", "b")],
        ),
        with(
            put(r#"{"value": 1}"#, "idempotency_key: "),
            &[("idempotency-key", LONG_IDEMPOTENCY_KEY)],
        ),
        status(
            415,
            with(put(r#"{"value": 1}"#, "content-type: "), &[("content-type", "text/plain")]),
        ),
        status(
            415,
            with(put("value: 1", "content-type: "), &[("content-type", "application/yaml")]),
        ),
        case(Method::POST, format!("{ENTRY}/rollback/1"), r#"{"version": 1}"#, "version: "),
        case(Method::POST, format!("{ENTRY}/rollback/1"), r#"{"comment": 1}"#, "comment: "),
        case(Method::POST, "/api/v1/admin/compact", r#"{"revision": -1}"#, "revision: "),
        case(Method::POST, "/api/v1/admin/compact", r#"{"revision": 999999}"#, "revision: "),
        case(Method::POST, "/api/v1/admin/compact", r#"{"before": 1}"#, "before: "),
    ]
}

const LONG_IDEMPOTENCY_KEY: &str =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0";

fn transactions() -> Vec<Case> {
    let many = |op: &str| vec![op; 10_001].join(",");
    let get = r#"{"op": "get", "namespace": "a", "key": "b"}"#;
    vec![
        txn("", "body: "),
        txn("[]", "body: "),
        txn(r#"[[], []]"#, "body: "),
        txn(r#"{"success": [["get", "a", "b"]]}"#, "success[0]: "),
        txn(r#"{"compare": [["a", "b", null, 1]]}"#, "compare[0]: "),
        txn(r#"{"then": []}"#, "then: "),
        txn(r#"{"success": {}}"#, "success: "),
        txn(r#"{"success": [5]}"#, "success[0]: "),
        txn(r#"{"success": [{"op": "move", "namespace": "a", "key": "b"}]}"#, "success[0].op: "),
        txn(r#"{"success": [{"namespace": "a", "key": "b"}]}"#, "success[0].op: "),
        txn(r#"{"success": [{"op": "get", "key": "b"}]}"#, "success[0].namespace: "),
        txn(r#"{"success": [{"op": "set", "namespace": "a", "key": "b"}]}"#, "success[0].value: "),
        txn(
            r#"{"success": [{"op": "get", "namespace": "a", "key": "b", "value": 1}]}"#,
            "success[0].value: ",
        ),
        txn(
            r#"{"success": [{"op": "delete", "namespace": "a", "key": "b", "tags": []}]}"#,
            "success[0].tags: ",
        ),
        txn(
            r#"{"success": [{"op": "get", "namespace": "a", "key": "b", "expected_version": 1}]}"#,
            "success[0].expected_version: ",
        ),
        txn(
            r#"{"success": [{"op": "set", "namespace": "a b", "key": "b", "value": 1}]}"#,
            "success[0].namespace: ",
        ),
        txn(
            r#"{"failure": [{"op": "set", "namespace": "a", "key": "..", "value": 1}]}"#,
            "failure[0].key: ",
        ),
        txn(
            r#"{"failure": [{"op": "set", "namespace": "a", "key": "b", "value": 1e999}]}"#,
            "failure[0].value: ",
        ),
        txn(
            r#"{"failure": [{"op": "set", "namespace": "a", "key": "b", "value": 1, "secret": true}]}"#,
            "failure[0].value: ",
        ),
        txn(r#"{"compare": [{"namespace": "a", "key": "b"}]}"#, "compare[0].version: "),
        txn(
            r#"{"compare": [{"namespace": "a", "key": "b", "version": "1"}]}"#,
            "compare[0].version: ",
        ),
        txn(
            r#"{"compare": [{"namespace": "a", "key": "b", "version": 1, "env": "moon"}]}"#,
            "compare[0].env: ",
        ),
        txn(
            r#"{"compare": [{"namespace": "a", "key": "b", "version": 1, "value": 1}]}"#,
            "compare[0].value: ",
        ),
        txn(format!(r#"{{"success": [{}]}}"#, many(get)), "success: "),
        txn(
            format!(
                r#"{{"compare": [{}]}}"#,
                many(r#"{"namespace": "a", "key": "b", "version": 1}"#)
            ),
            "compare: ",
        ),
    ]
}

async fn check(node: &Alone, case: &Case) {
    let context = format!(
        "{} {} {:?} {}",
        case.method,
        case.path,
        case.headers,
        case.body.chars().take(120).collect::<String>()
    );
    let answer =
        node.call(request(case.method.clone(), &case.path, &case.headers, &case.body)).await;
    assert_eq!(answer.status.as_u16(), case.status, "{context}: {}", answer.text());
    let code = if case.status == 404 { "NOT_FOUND" } else { "INVALID_ARGUMENT" };
    let problem = answer.problem(case.status, code);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with(case.field), "{context}: {detail}");
    assert_eq!(problem["applied"], "no", "{context}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_by_name_and_change_nothing() {
    let node = alone().await;
    let catalogue: Vec<_> = [names(), members(), parameters(), bodies(), transactions()]
        .into_iter()
        .flatten()
        .collect();
    assert!(catalogue.len() >= 100, "{} cases", catalogue.len());
    for case in &catalogue {
        check(&node, case).await;
    }
    assert_eq!(node.service.replica().applied_revision(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_refused() {
    let node = alone().await;
    for body in [
        &b"{\"value\": \"\xff\"}"[..],
        b"\xff\xfe{\0}\0",
        b"{\"value\": \"\xed\xa0\x80\"}",
        b"\0",
        b"\x1f\x8b\x08\0",
    ] {
        let request =
            Request::builder().method("PUT").uri(ENTRY).body(Body::from(body.to_vec())).unwrap();
        let problem = node.call(request).await.problem(400, "INVALID_ARGUMENT");
        assert!(problem["detail"].as_str().unwrap().starts_with("body: "), "{body:?}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_refused() {
    let node = alone().await;
    let chunks: [Result<&[u8], std::io::Error>; 2] =
        [Ok(b"{\"value\": "), Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset))];
    let body = Body::from_stream(futures::stream::iter(chunks));
    let request = Request::builder().method("PUT").uri(ENTRY).body(body).unwrap();
    let problem = node.call(request).await.problem(400, "INVALID_ARGUMENT");
    assert_eq!(problem["detail"], "body: broke off before its end");
}

#[tokio::test(flavor = "multi_thread")]
async fn unusual_names_work_everywhere() {
    let node = alone().await;
    let keys = [
        "bedrock%2Fus.anthropic.claude-3:0",
        "%25",
        "a%3Fb%23c%26d=e+f",
        "%C3%BC%20%F0%9F%A6%80",
        "...",
        "~!$'()*,;@",
        "history",
        "%2F",
    ];
    for key in keys {
        let path = format!("/api/v1/configs/a.b_c-9%2Fd/{key}");
        let created = node.put(&path, r#"{"value": 1}"#).await;
        let entry = created.expect(201);
        assert_eq!(node.get(&path).await.expect(200), entry, "{key}");
        assert_eq!(node.get(created.header("location")).await.expect(200), entry, "{key}");
        assert_eq!(
            node.get(&format!("{path}/history")).await.expect(200)["items"][0],
            entry,
            "{key}"
        );
    }
    let list = node.get("/api/v1/configs/a.b_c-9%2Fd").await.expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), keys.len());
}
