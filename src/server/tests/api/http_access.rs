//! Tokens, roles, secrets, the audit log, limits and bans as callers meet them.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::http_support::secured::{ROOT, options, secured, take_first_token, with_token};
use crate::http_support::{Alone, Answer, Api, Options, PATIENCE, wait_for};
use axum::http::Method;
use http_body_util::BodyExt as _;
use llm_config_replica::Role;
use llm_config_server::peer::{ClientCertificate, PeerAddress};
use llm_config_server::settings::{BanSettings, LimitSettings};
use llm_config_tls::Names;
use serde_json::{Value, json};

const ENTRY: &str = "/api/v1/configs/app/key";
const SECRET: &str = "sk-live-4f0c1a9e-do-not-show";
const AUDIT: &str = "/api/v1/audit";

/// The types of the audit log's records, oldest first.
async fn audited(node: &Api, query: &str) -> Vec<Value> {
    let list = node.get_as(ROOT, &format!("{AUDIT}?order=oldest&limit=1000{query}")).await;
    list.expect(200)["items"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_shown_once_and_void_at_once_when_it_is_revoked() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let refused = node.get_as("", ENTRY).await;
    refused.problem(401, "UNAUTHENTICATED");
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    node.get_as("nobody-knows-this", ENTRY).await.problem(401, "UNAUTHENTICATED");

    let (id, text) = node.make_token("editor", json!({"namespaces": ["app"]})).await;
    node.put_as(&text, ENTRY, &json!({"value": 1})).await.expect(201);
    let listed = node.get_as(ROOT, "/api/v1/auth/tokens").await;
    assert!(!listed.text().contains(&text), "the text is shown once");
    let listed = listed.expect(200);
    let listed = listed["items"].as_array().unwrap();
    let shown = listed.iter().find(|token| token["id"] == id.as_str()).unwrap();
    assert!(text.starts_with(shown["prefix"].as_str().unwrap()), "{shown}");
    assert_eq!((&shown["roles"], &shown["namespaces"]), (&json!(["editor"]), &json!(["app"])));

    let entry = node.get_as(&text, ENTRY).await.expect(200);
    assert_eq!(entry["updated_by"], "a editor");
    node.delete_as(ROOT, &format!("/api/v1/auth/tokens/{id}")).await.expect(204);
    node.get_as(&text, ENTRY).await.problem(401, "UNAUTHENTICATED");
    node.put_as(&text, ENTRY, &json!({"value": 2})).await.problem(401, "UNAUTHENTICATED");
    node.delete_as(ROOT, &format!("/api/v1/auth/tokens/{id}")).await.problem(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_ends_when_it_was_said_to() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let (_, text) = node.make_token("viewer", json!({"expires_in_seconds": 1})).await;
    node.until_unknown(&text).await;
    for bad in [json!(0), json!(-1), json!("soon")] {
        let body = json!({"name": "x", "roles": ["viewer"], "expires_in_seconds": bad});
        node.post_as(ROOT, "/api/v1/auth/tokens", &body).await.problem(400, "INVALID_ARGUMENT");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_hands_out_what_they_may_not_do() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let clerk = json!({"grants": [{"actions": ["auth", "read"]}]});
    node.put_as(ROOT, "/api/v1/auth/roles/clerk", &clerk).await.expect(200);
    let (_, clerk) = node.make_token("clerk", json!({})).await;
    let token = |role: &str| json!({"name": "x", "roles": [role]});
    node.post_as(&clerk, "/api/v1/auth/tokens", &token("viewer")).await.expect(201);
    for role in ["editor", "admin"] {
        let refused = node.post_as(&clerk, "/api/v1/auth/tokens", &token(role)).await;
        refused.problem(403, "PERMISSION_DENIED");
    }
    let more = json!({"grants": [{"actions": ["reveal"]}]});
    node.put_as(&clerk, "/api/v1/auth/roles/clerk", &more).await.problem(403, "PERMISSION_DENIED");
    node.put_as(ROOT, "/api/v1/auth/roles/admin", &more).await.problem(400, "INVALID_ARGUMENT");
    let unknown = node.post_as(ROOT, "/api/v1/auth/tokens", &token("nobody")).await;
    assert!(unknown.problem(400, "INVALID_ARGUMENT")["detail"].to_string().contains("editor"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_changes_changes_what_its_tokens_may_do() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let role = |actions: &[&str]| json!({"grants": [{"actions": actions, "namespaces": ["app"]}]});
    let path = "/api/v1/auth/roles/writer";
    node.put_as(ROOT, path, &role(&["write"])).await.expect(200);
    let (_, text) = node.make_token("writer", json!({})).await;
    node.put_as(&text, ENTRY, &json!({"value": 1})).await.expect(201);
    node.get_as(&text, ENTRY).await.problem(403, "PERMISSION_DENIED");
    node.put_as(ROOT, path, &role(&["read"])).await.expect(200);
    node.put_as(&text, ENTRY, &json!({"value": 2})).await.problem(403, "PERMISSION_DENIED");
    node.get_as(&text, ENTRY).await.expect(200);
    node.delete_as(ROOT, path).await.expect(204);
    node.get_as(&text, ENTRY).await.problem(403, "PERMISSION_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_what_the_caller_may_read() {
    let (options, _key) = options();
    let node = secured(&options).await;
    for namespace in ["team", "team%2Fapp", "teams", "zoo"] {
        let path = format!("/api/v1/configs/{namespace}/key");
        node.put_as(ROOT, &path, &json!({"value": 1})).await.expect(201);
    }
    let (_, text) = node.make_token("viewer", json!({"namespaces": ["team"]})).await;
    let list = node.get_as(&text, "/api/v1/namespaces").await.expect(200);
    let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|n| &n["namespace"]).collect();
    assert_eq!(names, ["team", "team/app"]);
    // A page of one has to look past what is hidden.
    let first = node.get_as(ROOT, "/api/v1/namespaces?limit=1").await.expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
}

/// What a stream has sent up to a text.
async fn read_until(body: &mut axum::body::Body, wanted: &str) -> String {
    let mut seen = String::new();
    let reading = async {
        while !seen.contains(wanted) {
            let frame = body.frame().await.unwrap_or_else(|| panic!("ended after {seen}")).unwrap();
            seen.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("nothing came in time");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_may_be_read_and_ends_with_the_token() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let (id, text) = node.make_token("viewer", json!({"namespaces": ["app"]})).await;
    let watch = node.send(with_token(Method::GET, "/api/v1/watch", &text, "")).await;
    assert_eq!(watch.status(), 200);
    let mut body = watch.into_body();
    read_until(&mut body, "bookmark").await;
    node.put_as(ROOT, "/api/v1/configs/other/key", &json!({"value": "hidden"})).await.expect(201);
    node.put_as(ROOT, ENTRY, &json!({"value": "shown"})).await.expect(201);
    let seen = read_until(&mut body, "shown").await;
    assert!(!seen.contains("hidden"), "{seen}");
    node.delete_as(ROOT, &format!("/api/v1/auth/tokens/{id}")).await.expect(204);
    let end = read_until(&mut body, "UNAUTHENTICATED").await;
    assert!(end.contains("event: error"), "{end}");
    assert!(tokio::time::timeout(PATIENCE, body.frame()).await.expect("it goes on").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_proves_the_token_that_is_made_for_its_name() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let body = json!({"name": "robot", "roles": ["viewer"], "certificate": "robot.example.com"});
    let made = node.post_as(ROOT, "/api/v1/auth/tokens", &body).await.expect(201);
    assert!(made.get("token").is_none(), "{made}");
    node.post_as(ROOT, "/api/v1/auth/tokens", &body).await.problem(400, "INVALID_ARGUMENT");
    let shown = async |method: Method, name: &str, token: &str| {
        let mut request = with_token(method, "/api/v1/auth/whoami", token, "");
        let names = Names { dns: vec!["other".into(), name.into()], ..Names::default() };
        request.extensions_mut().insert(ClientCertificate::new(names));
        node.call(request).await
    };
    let known = shown(Method::GET, "robot.example.com", "").await.expect(200);
    assert_eq!((&known["name"], &known["principal"]), (&json!("robot"), &made["id"]));
    shown(Method::GET, "stranger.example.com", "").await.problem(401, "UNAUTHENTICATED");
    // A token that is sent says who it is, whatever the connection shows.
    assert_eq!(
        shown(Method::GET, "robot.example.com", ROOT).await.expect(200)["name"],
        "bootstrap"
    );
    let id = made["id"].as_str().unwrap();
    node.delete_as(ROOT, &format!("/api/v1/auth/tokens/{id}")).await.expect(204);
    shown(Method::GET, "robot.example.com", "").await.problem(401, "UNAUTHENTICATED");
}

async fn secret(node: &Alone) {
    let set = json!({"value": SECRET, "secret": true, "comment": "the live key"});
    let made = node.put_as(ROOT, ENTRY, &set).await;
    assert!(!made.text().contains(SECRET));
    let made = made.expect(201);
    assert_eq!((&made["value"], &made["secret"]), (&json!("********"), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_masked_everywhere_but_where_it_is_revealed() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let watch = node.send(with_token(Method::GET, "/api/v1/watch", ROOT, "")).await;
    let mut watched = watch.into_body();
    secret(&node).await;
    node.put_as(ROOT, ENTRY, &json!({"value": "another-secret-value", "secret": true}))
        .await
        .expect(200);
    for path in [
        ENTRY.to_owned(),
        format!("{ENTRY}?version=1"),
        format!("{ENTRY}?env=production&resolve=true"),
        format!("{ENTRY}/history"),
        format!("{ENTRY}/diff?from=1&to=2"),
        "/api/v1/configs/app".to_owned(),
        "/api/v1/resolve/app".to_owned(),
        AUDIT.to_owned(),
    ] {
        let answer = node.get_as(ROOT, &path).await;
        answer.expect(200);
        assert!(!answer.text().contains(SECRET), "{path}");
        assert!(!answer.text().contains("another-secret-value"), "{path}");
        assert!(path == AUDIT || answer.text().contains("********"), "{path}: {}", answer.text());
    }
    let txn = json!({"success": [{"op": "get", "namespace": "app", "key": "key"}]});
    assert!(!node.post_as(ROOT, "/api/v1/txn", &txn).await.text().contains("another-secret"));
    let seen = read_until(&mut watched, "\"version\":2").await;
    assert!(seen.contains("********") && !seen.contains(SECRET), "{seen}");

    let before = audited(&node, "&type=secret.reveal").await.len();
    let shown = node.get_as(ROOT, &format!("{ENTRY}?reveal=true&version=1")).await.expect(200);
    assert_eq!(shown["value"], SECRET);
    let shown = node.get_as(ROOT, "/api/v1/resolve/app?reveal=true").await.expect(200);
    assert_eq!(shown["values"]["key"], "another-secret-value");
    let records = audited(&node, "&type=secret.reveal").await;
    assert_eq!(records.len(), before + 2);
    assert_eq!(records[before]["targets"][0]["key"], "key");
    assert_eq!(records[before]["targets"][0]["version"], 1);
    assert_eq!(records[before]["actor"], "bootstrap");

    let (_, editor) = node.make_token("editor", json!({})).await;
    node.get_as(&editor, ENTRY).await.expect(200);
    node.get_as(&editor, &format!("{ENTRY}?reveal=true")).await.problem(403, "PERMISSION_DENIED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_stays_one_until_it_is_said_otherwise() {
    let (options, _key) = options();
    let node = secured(&options).await;
    secret(&node).await;
    let changed = node.put_as(ROOT, ENTRY, &json!({"value": "changed-quietly"})).await.expect(200);
    assert_eq!((&changed["value"], &changed["secret"]), (&json!("********"), &json!(true)));
    for no_secret in [json!(7), json!("********")] {
        let refused = node.put_as(ROOT, ENTRY, &json!({"value": no_secret})).await;
        refused.problem(400, "INVALID_ARGUMENT");
    }
    let back = node.post_as(ROOT, &format!("{ENTRY}/rollback/1"), &Value::Null).await.expect(200);
    assert_eq!((&back["value"], &back["version"]), (&json!("********"), &json!(3)));
    let shown = node.get_as(ROOT, &format!("{ENTRY}?reveal=true")).await.expect(200);
    assert_eq!(shown["value"], SECRET);
    let plain = json!({"value": {"plain": true}, "secret": false});
    let plain = node.put_as(ROOT, ENTRY, &plain).await.expect(200);
    assert_eq!((&plain["value"], &plain["secret"]), (&json!({"plain": true}), &json!(false)));
    let op = |key: &str, value: &str| json!({"op": "set", "namespace": "app", "key": key, "value": value, "secret": true});
    let txn = json!({"success": [op("a", "first-of-two"), op("a", "second-of-two"), op("b", "other-one")]});
    node.post_as(ROOT, "/api/v1/txn", &txn).await.expect(200);
    let shown = node.get_as(ROOT, "/api/v1/configs/app/a?reveal=true").await.expect(200);
    assert_eq!((&shown["value"], &shown["version"]), (&json!("second-of-two"), &json!(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_secret_is_recognised_and_another_one_is_not() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let put = async |value: &str| {
        let body = json!({"value": value, "secret": true}).to_string();
        let mut request = with_token(Method::PUT, ENTRY, ROOT, &body);
        request.headers_mut().insert("idempotency-key", "once".parse().unwrap());
        node.call(request).await
    };
    put(SECRET).await.expect(201);
    let again = put(SECRET).await;
    assert_eq!(again.header("idempotency-replayed"), "true");
    assert_eq!(again.expect(201)["version"], 1);
    put("quite-another").await.problem(409, "IDEMPOTENCY_KEY_REUSED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_key_serves_everything_but_secrets() {
    let options = Options { auth: true, ..Options::default() };
    let node = secured(&options).await;
    let refused = node.put_as(ROOT, ENTRY, &json!({"value": SECRET, "secret": true})).await;
    let problem = refused.problem(503, "SECRETS_UNAVAILABLE");
    assert!(problem["detail"].to_string().contains("master-key-file"), "{problem}");
    node.put_as(ROOT, ENTRY, &json!({"value": "plain"})).await.expect(201);
    node.get_as(ROOT, &format!("{ENTRY}?reveal=true")).await.expect(200);
    node.post_as(ROOT, "/api/v1/admin/keys/rotate", &json!({"target": "data"}))
        .await
        .problem(503, "SECRETS_UNAVAILABLE");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_exchanged_while_secrets_are_read() {
    let (options, key) = options();
    let node = secured(&options).await;
    tokio::spawn(node.service.clone().run_rotation(tokio_util::sync::CancellationToken::new()));
    secret(&node).await;
    node.put_as(ROOT, ENTRY, &json!({"value": "the-second", "secret": true})).await.expect(200);
    let versions = async || {
        let keys = node.get_as(ROOT, "/api/v1/admin/keys").await.expect(200);
        let keys = keys["data_keys"].as_array().unwrap().clone();
        let of_app = keys.into_iter().filter(|key| key["namespace"] == "app");
        of_app.map(|key| key["version"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(versions().await, [1]);
    let rotate = json!({"target": "data", "namespace": "app"});
    node.post_as(ROOT, "/api/v1/admin/keys/rotate", &rotate).await.expect(200);
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while versions().await != [2] {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the old key stays: {:?}",
            versions().await
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (version, value) in [(1, SECRET), (2, "the-second")] {
        let path = format!("{ENTRY}?reveal=true&version={version}");
        assert_eq!(node.get_as(ROOT, &path).await.expect(200)["value"], value);
    }
    // A new master key, in front of the old one.
    let file = key.path().join("master-key");
    let old = std::fs::read_to_string(&file).unwrap();
    let fresh = key.path().join("fresh");
    llm_config_server::secrets::generate_file(&fresh).unwrap();
    std::fs::write(&file, format!("{}{old}", std::fs::read_to_string(&fresh).unwrap())).unwrap();
    node.master_keys().reload().unwrap();
    let rotated =
        node.post_as(ROOT, "/api/v1/admin/keys/rotate", &json!({"target": "master"})).await;
    assert_eq!(rotated.expect(200)["keys"].as_u64(), Some(1));
    std::fs::copy(&fresh, &file).unwrap();
    node.master_keys().reload().unwrap();
    let shown = node.get_as(ROOT, &format!("{ENTRY}?reveal=true")).await.expect(200);
    assert_eq!(shown["value"], "the-second");
    let keys = node.get_as(ROOT, "/api/v1/admin/keys").await.expect(200);
    let current = &keys["master_keys"][0];
    assert!(keys["data_keys"].as_array().unwrap().iter().all(|key| key["master_key"] == *current));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_happens_without_a_record() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let (id, text) = node.make_token("viewer", json!({})).await;
    let set = node.put_as(ROOT, ENTRY, &json!({"value": 1, "comment": "why not"})).await;
    let request_id = set.header("x-request-id").to_owned();
    let revision = set.expect(201)["revision"].clone();
    node.put_as(&text, ENTRY, &json!({"value": 2})).await.problem(403, "PERMISSION_DENIED");
    node.get_as("wrong", ENTRY).await.problem(401, "UNAUTHENTICATED");
    node.get_as("", ENTRY).await.problem(401, "UNAUTHENTICATED");
    node.post_as(ROOT, &format!("{ENTRY}/rollback/1"), &Value::Null).await.expect(200);
    node.delete_as(ROOT, ENTRY).await.expect(204);
    node.post_as(ROOT, "/api/v1/admin/backups", &Value::Null).await.expect(201);
    node.post_as(ROOT, "/api/v1/cluster/transfer-leader", &json!({"to": 9}))
        .await
        .problem(404, "NOT_FOUND");
    node.delete_as(ROOT, &format!("/api/v1/auth/tokens/{id}")).await.expect(204);

    let records = audited(&node, "").await;
    let kinds: Vec<&str> = records.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        [
            "auth.bootstrap",
            "auth.token_create",
            "config.set",
            "access.denied",
            "access.denied",
            "access.denied",
            "config.rollback",
            "config.delete",
            "admin.backup",
            "cluster.transfer_leader",
            "auth.token_revoke",
        ]
    );
    let set = &records[2];
    assert_eq!(set["actor"], "bootstrap");
    assert_eq!((&set["comment"], &set["revision"]), (&json!("why not"), &revision));
    assert_eq!((&set["source"], &set["request_id"]), (&json!("127.0.0.1"), &json!(request_id)));
    let target = json!({"namespace": "app", "key": "key", "env": "base", "version": 1});
    assert_eq!(set["targets"], json!([target]));
    assert!(records[3]["detail"].as_str().unwrap().starts_with("403"), "{}", records[3]);
    assert_eq!(records[3]["principal"], id.as_str());
    assert!(records[4]["detail"].as_str().unwrap().starts_with("401"), "{}", records[4]);
    for (record, next) in records.iter().zip(&records[1..]) {
        assert_eq!(record["hash"], next["previous_hash"]);
    }

    let only = audited(&node, "&type=config.set&actor=bootstrap&namespace=app&key=key").await;
    assert_eq!(only.len(), 1);
    assert!(audited(&node, "&namespace=elsewhere").await.is_empty());
    assert!(audited(&node, "&to=2020-01-01T00:00:00Z").await.is_empty());
    node.get_as(ROOT, &format!("{AUDIT}?from=yesterday")).await.problem(400, "INVALID_ARGUMENT");
    let first = node.get_as(ROOT, &format!("{AUDIT}?limit=2")).await.expect(200);
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = node.get_as(ROOT, &format!("{AUDIT}?limit=2&cursor={cursor}")).await.expect(200);
    let sequence = |page: &Value, index: usize| page["items"][index]["sequence"].as_u64().unwrap();
    assert_eq!(sequence(&second, 0) + 1, sequence(&first, 1));
    let verdict = node.get_as(ROOT, "/api/v1/audit/verify").await.expect(200);
    assert_eq!((&verdict["whole"], &verdict["records"]), (&json!(true), &json!(records.len())));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_keeps_within_its_bounds_and_stays_checkable() {
    let (options, _key) = options();
    let node = secured(&options).await;
    let path = "/api/v1/audit/retention";
    let bounds = node.get_as(ROOT, path).await.expect(200);
    let narrow = json!({"max_age_ms": bounds["max_age_ms"], "max_bytes": 1_048_576});
    node.put_as(ROOT, path, &narrow).await.expect(200);
    assert_eq!(node.get_as(ROOT, path).await.expect(200)["max_bytes"], 1_048_576);
    node.put_as(ROOT, path, &json!({"max_age_ms": 1, "max_bytes": 1}))
        .await
        .problem(400, "INVALID_ARGUMENT");
    let comment = "x".repeat(1_000);
    for _ in 0..1_100 {
        node.put_as(ROOT, ENTRY, &json!({"value": 1, "comment": comment})).await;
    }
    let verdict = node.get_as(ROOT, "/api/v1/audit/verify").await.expect(200);
    assert!(verdict["first_sequence"].as_u64().unwrap() > 1, "{verdict}");
}

fn from(address: &str, token: &str) -> axum::extract::Request {
    let mut request = with_token(Method::GET, ENTRY, token, "");
    let peer: SocketAddr = format!("{address}:4000").parse().unwrap();
    request.extensions_mut().insert(PeerAddress::new(peer));
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_guesses_is_shut_out_until_it_is_let_in() {
    let (mut options, _key) = options();
    options.security.bans = BanSettings { failures: 3, duration: Duration::from_secs(600) };
    options.security.limit_exempt = vec!["198.51.100.0/24".parse().unwrap()];
    let node = secured(&options).await;
    node.put_as(ROOT, ENTRY, &json!({"value": 1})).await.expect(201);
    let banned = async |address: &str| -> Answer { node.call(from(address, ROOT)).await };
    for _ in 0..3 {
        node.call(from("192.0.2.1", "guessed")).await.problem(401, "UNAUTHENTICATED");
        node.call(from("198.51.100.1", "guessed")).await.problem(401, "UNAUTHENTICATED");
        // No credentials, no guess.
        node.call(from("192.0.2.3", "")).await.problem(401, "UNAUTHENTICATED");
    }
    let refused = banned("192.0.2.1").await;
    refused.problem(403, "BANNED");
    assert!(refused.header("retry-after").parse::<u64>().unwrap() > 500);
    for other in ["192.0.2.2", "192.0.2.3", "198.51.100.1"] {
        banned(other).await.expect(200);
    }
    let bans = node.get_as(ROOT, "/api/v1/security/bans").await.expect(200);
    assert_eq!(bans["items"].as_array().unwrap().len(), 1);
    assert_eq!(bans["items"][0]["ip"], "192.0.2.1");
    assert_eq!(audited(&node, "&type=security.ban").await.len(), 1);
    node.delete_as(ROOT, "/api/v1/security/bans/192.0.2.1").await.expect(204);
    banned("192.0.2.1").await.expect(200);
    node.delete_as(ROOT, "/api/v1/security/bans/192.0.2.1").await.problem(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_too_much_hears_when_to_come_back() {
    let (mut options, _key) = options();
    options.security.limits = LimitSettings { principal: 2, address: 0 };
    let node = secured(&options).await;
    let (_, text) = node.make_token("viewer", json!({})).await;
    let limited = async {
        loop {
            let answer = node.get_as(&text, "/api/v1/auth/whoami").await;
            for header in ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"] {
                assert!(answer.header(header).parse::<u64>().is_ok(), "{header}");
            }
            if answer.status != 200 {
                return answer;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, limited).await.expect("never limited");
    assert_eq!(refused.problem(429, "RATE_LIMITED")["retryable"], true);
    assert!(refused.header("retry-after").parse::<u64>().unwrap() >= 1);
    // Somebody else is not in the way, and health never is.
    for _ in 0..20 {
        let health = node.get("/health/live").await;
        health.expect(200);
        assert!(!health.headers.contains_key("ratelimit-limit"));
    }
}

struct Cluster {
    nodes: Vec<Api>,
    _folder: tempfile::TempDir,
    _key: tempfile::TempDir,
}

async fn cluster() -> Cluster {
    let (options, key) = options();
    let folder = tempfile::tempdir().unwrap();
    let listeners: Vec<_> = (0..3).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let members: BTreeMap<_, _> = (1..)
        .zip(&listeners)
        .map(|(id, listener)| (id, listener.local_addr().unwrap().to_string()))
        .collect();
    let mut nodes = Vec::new();
    for (id, listener) in (1..).zip(listeners) {
        let node = Api::start(id, listener, members.clone(), folder.path(), &options).await;
        take_first_token(&node, folder.path());
        nodes.push(node);
    }
    for node in &nodes {
        node.until_known(ROOT).await;
    }
    Cluster { nodes, _folder: folder, _key: key }
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_is_revoked_on_every_node_and_after_a_failover() {
    let cluster = cluster().await;
    let [one, two, three] = &cluster.nodes[..] else { panic!("three nodes") };
    one.put_as(ROOT, ENTRY, &json!({"value": 1})).await.expect(201);
    let (kept_id, kept) = one.make_token("editor", json!({})).await;
    let (id, text) = one.make_token("editor", json!({})).await;
    for node in [one, two, three] {
        node.until_known(&text).await;
        node.until_known(&kept).await;
    }
    // A linearizable request on any node knows of a revocation that was answered before.
    three.delete_as(ROOT, &format!("/api/v1/auth/tokens/{id}")).await.expect(204);
    for node in [two, one, three] {
        let read = format!("{ENTRY}?consistency=linearizable");
        node.get_as(&text, &read).await.problem(401, "UNAUTHENTICATED");
    }
    // And a write that a node let in before it heard of it is stopped where it is applied, or at the door.
    for node in [two, one, three] {
        node.put_as(&text, ENTRY, &json!({"value": 2})).await.problem(401, "UNAUTHENTICATED");
        node.until_unknown(&text).await;
    }
    let leader = cluster
        .nodes
        .iter()
        .find(|node| node.service.replica().status().role == Role::Leader)
        .expect("somebody leads");
    leader.stop().await;
    let rest: Vec<&Api> = cluster
        .nodes
        .iter()
        .filter(|node| node.service.replica().node_id() != leader.service.replica().node_id())
        .collect();
    wait_for("a new leader", || {
        rest.iter().any(|node| node.service.replica().status().role == Role::Leader).then_some(())
    })
    .await;
    for node in &rest {
        wait_for("ready", || node.service.replica().ready().then_some(())).await;
        node.put_as(&text, ENTRY, &json!({"value": 3})).await.problem(401, "UNAUTHENTICATED");
        node.put_as(&kept, ENTRY, &json!({"value": 3})).await.expect(200);
    }
    rest[0].delete_as(ROOT, &format!("/api/v1/auth/tokens/{kept_id}")).await.expect(204);
    for node in &rest {
        let read = format!("{ENTRY}?consistency=linearizable");
        node.get_as(&kept, &read).await.problem(401, "UNAUTHENTICATED");
    }
}
