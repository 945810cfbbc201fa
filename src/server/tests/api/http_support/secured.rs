//! Nodes that ask who calls: the first token, and calls with one.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use llm_config_domain::query;
use llm_config_server::access::Bootstrap;
use llm_config_server::secrets::generate_file;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Alone, Answer, Api, Options, PATIENCE, alone_with, request, wait_for};

/// The first administrator's token.
pub const ROOT: &str = "an-administrator-who-was-there-first-0123456789";
const JSON: (&str, &str) = ("content-type", "application/json");

/// Options of a node with authentication and a master key, and the folder that the key is in.
pub fn options() -> (Options, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("master-key");
    generate_file(&key_file).unwrap();
    let mut options = Options { auth: true, ..Options::default() };
    options.security.master_key_file = Some(key_file);
    // Tests ask with a token until it is known; that is what a guess looks like.
    options.security.bans.failures = 0;
    (options, folder)
}

/// A cluster of one that knows the first token.
pub async fn secured(options: &Options) -> Alone {
    let node = alone_with(options).await;
    take_first_token(&node.api, node.folder.path());
    wait_for("the first token", || {
        query::meta(&node.service.replica().view())
            .is_ok_and(|meta| meta.bootstrapped)
            .then_some(())
    })
    .await;
    node
}

/// Has a node bring the first token about once it leads.
pub fn take_first_token(node: &Api, folder: &std::path::Path) {
    let token_file = folder.join("root-token");
    std::fs::write(&token_file, ROOT).unwrap();
    let bootstrap = Bootstrap::new(Some(token_file), folder).unwrap();
    tokio::spawn(bootstrap.run(node.service.replica().clone(), CancellationToken::new()));
}

/// A request with a token; none when that is empty.
pub fn with_token(method: Method, path: &str, token: &str, body: &str) -> Request<Body> {
    let bearer = format!("Bearer {token}");
    match token {
        "" => request(method, path, &[JSON], body),
        _ => request(method, path, &[JSON, ("authorization", &bearer)], body),
    }
}

impl Api {
    pub async fn ask(&self, method: Method, path: &str, token: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.call(with_token(method, path, token, &body)).await
    }

    pub async fn get_as(&self, token: &str, path: &str) -> Answer {
        self.ask(Method::GET, path, token, &Value::Null).await
    }

    pub async fn put_as(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.ask(Method::PUT, path, token, body).await
    }

    pub async fn post_as(&self, token: &str, path: &str, body: &Value) -> Answer {
        self.ask(Method::POST, path, token, body).await
    }

    pub async fn delete_as(&self, token: &str, path: &str) -> Answer {
        self.ask(Method::DELETE, path, token, &Value::Null).await
    }

    /// Waits until a token is known here.
    pub async fn until_known(&self, token: &str) {
        self.until_status(token, StatusCode::OK).await;
    }

    /// Waits until a token is asked for in vain here.
    pub async fn until_unknown(&self, token: &str) {
        self.until_status(token, StatusCode::UNAUTHORIZED).await;
    }

    async fn until_status(&self, token: &str, status: StatusCode) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.get_as(token, "/api/v1/auth/whoami").await.status != status {
            assert!(tokio::time::Instant::now() < deadline, "waited in vain for {status}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Makes a token: its id and its text.
    pub async fn make_token(&self, role: &str, restriction: Value) -> (String, String) {
        let mut body = json!({"name": format!("a {role}"), "roles": [role]});
        if let (Value::Object(body), Value::Object(more)) = (&mut body, restriction) {
            body.extend(more);
        }
        let made = self.post_as(ROOT, "/api/v1/auth/tokens", &body).await.expect(201);
        (made["id"].as_str().unwrap().to_owned(), made["token"].as_str().unwrap().to_owned())
    }
}
