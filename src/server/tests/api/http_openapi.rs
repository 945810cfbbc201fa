//! The OpenAPI document against the routes and the answers that it describes.

use std::collections::BTreeSet;

use crate::http_support::{alone, request};
use axum::http::Method;
use serde_json::Value;

/// The contract's operations.
const OPERATIONS: [(&str, &str); 48] = [
    ("get", "/api/v1/configs/{ns}/{key}"),
    ("put", "/api/v1/configs/{ns}/{key}"),
    ("post", "/api/v1/configs/{ns}/{key}"),
    ("delete", "/api/v1/configs/{ns}/{key}"),
    ("get", "/api/v1/configs/{ns}"),
    ("get", "/api/v1/namespaces"),
    ("get", "/api/v1/configs/{ns}/{key}/history"),
    ("get", "/api/v1/configs/{ns}/{key}/diff"),
    ("post", "/api/v1/configs/{ns}/{key}/rollback/{version}"),
    ("get", "/api/v1/resolve/{ns}"),
    ("post", "/api/v1/txn"),
    ("get", "/api/v1/watch"),
    ("get", "/api/v1/cluster"),
    ("post", "/api/v1/cluster/members"),
    ("post", "/api/v1/cluster/members/{id}/promote"),
    ("post", "/api/v1/cluster/members/{id}/demote"),
    ("post", "/api/v1/cluster/members/{id}/replace"),
    ("delete", "/api/v1/cluster/members/{id}"),
    ("post", "/api/v1/cluster/transfer-leader"),
    ("post", "/api/v1/admin/cache/clear"),
    ("post", "/api/v1/admin/compact"),
    ("post", "/api/v1/admin/backup"),
    ("get", "/api/v1/admin/backups"),
    ("post", "/api/v1/admin/backups"),
    ("get", "/api/v1/auth/tokens"),
    ("post", "/api/v1/auth/tokens"),
    ("delete", "/api/v1/auth/tokens/{id}"),
    ("get", "/api/v1/auth/roles"),
    ("get", "/api/v1/auth/roles/{name}"),
    ("put", "/api/v1/auth/roles/{name}"),
    ("delete", "/api/v1/auth/roles/{name}"),
    ("get", "/api/v1/auth/whoami"),
    ("get", "/api/v1/schemas/{ns}"),
    ("get", "/api/v1/schemas/{ns}/{key}"),
    ("put", "/api/v1/schemas/{ns}/{key}"),
    ("delete", "/api/v1/schemas/{ns}/{key}"),
    ("get", "/api/v1/security/bans"),
    ("delete", "/api/v1/security/bans/{ip}"),
    ("get", "/api/v1/admin/keys"),
    ("post", "/api/v1/admin/keys/rotate"),
    ("get", "/api/v1/audit"),
    ("get", "/api/v1/audit/verify"),
    ("get", "/api/v1/audit/retention"),
    ("put", "/api/v1/audit/retention"),
    ("get", "/health"),
    ("get", "/health/live"),
    ("get", "/health/ready"),
    ("get", "/health/leader"),
];

fn document() -> Value {
    serde_json::to_value(llm_config_server::http::document()).unwrap()
}

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&String, &Value)| {
        let path = path.clone();
        let methods = item.as_object().unwrap().clone();
        methods
            .into_iter()
            .map(move |(method, operation)| (method, path.clone(), operation))
            .collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn the_document_lists_the_contracts_operations_and_no_others() {
    let documented: BTreeSet<_> =
        operations(&document()).into_iter().map(|(method, path, _)| (method, path)).collect();
    let contract: BTreeSet<_> = OPERATIONS
        .iter()
        .map(|(method, path)| ((*method).to_owned(), (*path).to_owned()))
        .collect();
    assert_eq!(documented, contract);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_operation_has_a_route_and_takes_its_parameters_only() {
    let node = alone().await;
    let served = node.get("/openapi.json").await.expect(200);
    assert_eq!(served, document());
    for (method, path, operation) in operations(&served) {
        let method: Method = method.to_uppercase().parse().unwrap();
        let path = path.replace("{ns}", "app").replace("{key}", "k").replace("{version}", "1");
        let path = path.replace("{id}", "9");
        let answer = node.send(request(method.clone(), &path, &[], "")).await;
        let status = answer.status().as_u16();
        assert_ne!(status, 405, "{method} {path}");
        if status == 404 {
            let answer = node.call(request(method.clone(), &path, &[], "")).await;
            assert!(
                !answer.json()["detail"].as_str().unwrap().starts_with("there is no path"),
                "{method} {path}"
            );
        }
        if !path.starts_with("/api/") {
            continue;
        }
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap();
            let answer =
                node.send(request(method.clone(), &format!("{path}?{name}=%00"), &[], "")).await;
            let text = format!("{:?}", answer.status());
            let detail = match answer.status().as_u16() {
                200 => text,
                _ => {
                    let answer = node
                        .call(request(method.clone(), &format!("{path}?{name}=%00"), &[], ""))
                        .await;
                    answer.json()["detail"].as_str().unwrap_or_default().to_owned()
                }
            };
            assert!(
                !detail.contains("is not a query parameter"),
                "{method} {path} {name}: {detail}"
            );
        }
        let answer =
            node.call(request(method.clone(), &format!("{path}?undocumented=1"), &[], "")).await;
        assert!(
            answer.json()["detail"].as_str().unwrap().starts_with("undocumented: "),
            "{method} {path}"
        );
    }
}

#[test]
fn every_operation_documents_its_errors() {
    let document = document();
    for (method, path, operation) in operations(&document) {
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| status.starts_with('2')), "{method} {path}");
        let expected: &[&str] = match (method.as_str(), path.starts_with("/api/")) {
            (_, false) => &["503"],
            ("get", true) => &["400", "404", "410", "500", "503"],
            _ => &["400", "404", "409", "413", "500", "503", "504", "507"],
        };
        for status in expected {
            assert!(responses.contains_key(*status), "{method} {path} does not document {status}");
        }
        if path.starts_with("/api/") {
            let schema = &responses["400"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(schema, "#/components/schemas/Problem", "{method} {path}");
        }
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(
                parameter["description"].as_str().is_some_and(|text| !text.is_empty()),
                "{method} {path} {parameter}"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    match member.as_str() {
                        Some(target) if name == "$ref" => drop(found.insert(target.to_owned())),
                        _ => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    assert!(found.contains("#/components/schemas/Entry"), "{found:?}");
    for reference in found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
}

/// The members that an answer has are those that its schema describes.
#[track_caller]
fn matches(schemas: &Value, name: &str, answer: &Value) {
    let schema = &schemas[name];
    let described: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
    let present: BTreeSet<_> = answer.as_object().unwrap().keys().collect();
    assert!(present.is_subset(&described), "{name}: {present:?} are not all in {described:?}");
    for required in schema["required"].as_array().into_iter().flatten() {
        assert!(
            present.contains(&required.as_str().unwrap().to_owned()),
            "{name}: {required} is missing in {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_members_that_the_document_describes() {
    let node = alone().await;
    let schemas = document()["components"]["schemas"].clone();
    let path = "/api/v1/configs/app/k";
    let entry = node.put(path, r#"{"value": {"a": 1}}"#).await.expect(201);
    matches(&schemas, "Entry", &entry);
    node.put(path, r#"{"value": {"a": 2}}"#).await.expect(200);
    node.delete(path).await.expect(204);
    let history = node.get(&format!("{path}/history")).await.expect(200);
    matches(&schemas, "VersionList", &history);
    matches(&schemas, "Entry", &history["items"][0]);
    matches(&schemas, "Diff", &node.get(&format!("{path}/diff?from=1&to=2")).await.expect(200));
    matches(&schemas, "EntryList", &node.get("/api/v1/configs/app").await.expect(200));
    matches(&schemas, "Resolved", &node.get("/api/v1/resolve/app").await.expect(200));
    let cluster = node.get("/api/v1/cluster").await.expect(200);
    matches(&schemas, "ClusterView", &cluster);
    let version = &cluster["members"][0]["version"];
    assert!(version.as_str().is_some_and(|version| !version.is_empty()), "{cluster}");
    matches(
        &schemas,
        "CacheClearedView",
        &node.post("/api/v1/admin/cache/clear", "").await.expect(200),
    );
    matches(&schemas, "CompactView", &node.post("/api/v1/admin/compact", "{}").await.expect(200));
    let made = node.post("/api/v1/admin/backups", "").await.expect(201);
    matches(&schemas, "BackupMade", &made);
    let list = node.get("/api/v1/admin/backups").await.expect(200);
    matches(&schemas, "BackupList", &list);
    matches(&schemas, "BackupView", &list["items"][0]);
    let txn = node
        .post("/api/v1/txn", r#"{"success": [{"op": "get", "namespace": "app", "key": "k"}]}"#)
        .await
        .expect(200);
    matches(&schemas, "TxnAnswer", &txn);
    matches(&schemas, "TxnResult", &txn["results"][0]);
    node.put(path, r#"{"value": 1}"#).await.expect(201);
    let namespaces = node.get("/api/v1/namespaces").await.expect(200);
    matches(&schemas, "NamespaceList", &namespaces);
    matches(&schemas, "NamespaceItem", &namespaces["items"][0]);
    matches(&schemas, "Problem", &node.get("/api/v1/configs/app/absent").await.expect(404));
    matches(
        &schemas,
        "Problem",
        &node.put(path, r#"{"value": 1, "expected_version": 7}"#).await.expect(409),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_is_served_without_the_network() {
    let node = alone().await;
    let page = node.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.text().contains("swagger-ui"));
    assert!(!page.text().contains("https://"), "nothing is loaded from elsewhere");
    assert_eq!(node.get("/docs").await.status.as_u16() / 100, 3);
}
