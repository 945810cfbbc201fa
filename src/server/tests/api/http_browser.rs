//! What browsers are told: security headers on every answer, whose pages may call, and no tokens in addresses.

use crate::http_support::{Alone, Answer, Options, alone, alone_with, request};
use axum::http::Method;
use llm_config_server::http::Browser;

const PAGE: &str = "https://console.example";
const ENTRY: &str = "/api/v1/configs/app/key";

async fn with(browser: Browser) -> Alone {
    alone_with(&Options { browser, ..Options::default() }).await
}

async fn with_page() -> Alone {
    with(Browser::new(&["http://localhost:3000".to_owned(), PAGE.to_owned()], false)).await
}

fn cors_headers(answer: &Answer) -> Vec<&str> {
    let names = answer.headers.keys().map(|name| name.as_str());
    names.filter(|name| name.starts_with("access-control-")).collect()
}

fn listed(answer: &Answer, name: &str) -> Vec<String> {
    answer.header(name).split(',').map(|item| item.trim().to_ascii_lowercase()).collect()
}

fn preflight(path: &str, origin: &str) -> axum::http::Request<axum::body::Body> {
    let headers = [
        ("origin", origin),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    request(Method::OPTIONS, path, &headers, "")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_the_security_headers() {
    let node = alone().await;
    node.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    for (method, path, status) in [
        (Method::GET, ENTRY, 200),
        (Method::GET, "/api/v1/configs/app/none", 404),
        (Method::GET, "/nowhere", 404),
        (Method::DELETE, "/api/v1/cluster", 405),
        (Method::PUT, ENTRY, 400),
        (Method::GET, "/api/v1/configs/app/key?env=nowhere", 400),
        (Method::GET, "/health", 200),
        (Method::GET, "/health/live", 200),
        (Method::GET, "/openapi.json", 200),
        (Method::GET, "/docs/", 200),
        (Method::GET, "/docs", 303),
    ] {
        let answer = node.call(request(method, path, &[], "{}")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {}", answer.text());
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{path}: {policy}");
        assert_eq!(policy.contains("script-src"), path.starts_with("/docs"), "{path}: {policy}");
        assert!(!answer.headers.contains_key("strict-transport-security"), "{path}");
        assert!(cors_headers(&answer).is_empty(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_insisted_on_where_it_is_spoken() {
    let node = with(Browser::new(&[], true)).await;
    for path in ["/health", "/nowhere", "/docs/"] {
        let answer = node.get(path).await;
        assert_eq!(answer.header("strict-transport-security"), "max-age=31536000", "{path}");
    }
}

/// The page, its scripts and its styles come from here, and no script or style stands in the page itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_page_lives_with_its_policy() {
    let node = alone().await;
    let page = node.get("/docs/").await.text();
    for tag in page.split('<').filter(|tag| tag.starts_with("script") || tag.starts_with("link")) {
        let (attributes, content) = tag.split_once('>').unwrap();
        assert!(attributes.contains("src=\"./") || attributes.contains("href=\""), "{tag}");
        assert!(!attributes.contains("//"), "from elsewhere: {tag}");
        assert!(content.trim().is_empty(), "a script in the page: {tag}");
    }
    assert!(!page.contains("<style") && !page.contains(" style="), "{page}");
    let start = node.get("/docs/swagger-initializer.js").await.text();
    assert!(start.contains("\"validatorUrl\": \"none\""), "{start}");
    assert!(start.contains("\"url\": \"/openapi.json\""), "{start}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_option_no_page_may_call() {
    let node = alone().await;
    let simple = request(Method::GET, "/health", &[("origin", PAGE)], "");
    assert!(cors_headers(&node.call(simple).await).is_empty());
    let refused = node.call(preflight(ENTRY, PAGE)).await;
    refused.problem(405, "INVALID_ARGUMENT");
    assert!(cors_headers(&refused).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listed_page_may_call() {
    let node = with_page().await;
    let asked = node.call(preflight(ENTRY, PAGE)).await;
    assert_eq!(asked.status.as_u16(), 200);
    assert_eq!(asked.header("access-control-allow-origin"), PAGE);
    let methods = listed(&asked, "access-control-allow-methods");
    assert_eq!(methods, ["get", "head", "put", "post", "delete"]);
    let headers = listed(&asked, "access-control-allow-headers");
    for name in [
        "authorization",
        "content-type",
        "idempotency-key",
        "if-match",
        "if-none-match",
        "last-event-id",
        "x-request-id",
    ] {
        assert!(headers.iter().any(|header| header == name), "{name} in {headers:?}");
    }
    assert!(!asked.headers.contains_key("access-control-allow-credentials"));
    assert_eq!(asked.header("x-content-type-options"), "nosniff");

    // Also what goes wrong, so that the page can tell why.
    for (path, status) in [("/health", 200), ("/nowhere", 404), ("/api/v1/cluster?x=1", 400)] {
        let answer = node.call(request(Method::GET, path, &[("origin", PAGE)], "")).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), PAGE, "{path}");
        assert!(answer.header("vary").to_ascii_lowercase().contains("origin"), "{path}");
        let exposed = listed(&answer, "access-control-expose-headers");
        for name in ["etag", "ratelimit-remaining", "x-request-id", "x-config-revision"] {
            assert!(exposed.iter().any(|header| header == name), "{name} in {exposed:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_may_not_call() {
    let node = with_page().await;
    for origin in [
        "https://evil.example",
        "https://console.example.evil",
        "http://console.example",
        "null",
        "",
    ] {
        let asked = node.call(preflight(ENTRY, origin)).await;
        assert!(cors_headers(&asked).is_empty(), "{origin}: {:?}", asked.headers);
        let simple = request(Method::GET, "/health", &[("origin", origin)], "");
        let answer = node.call(simple).await;
        assert!(cors_headers(&answer).is_empty(), "{origin}: {:?}", answer.headers);
    }
    let no_page = node.get("/health").await;
    assert!(cors_headers(&no_page).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_an_address_is_refused_and_not_repeated() {
    let node = alone().await;
    for name in ["token", "access_token", "id_token", "api_key", "tok%65n", "Authorization"] {
        for path in [ENTRY, "/api/v1/watch", "/health", "/openapi.json", "/nowhere"] {
            let answer = node.get(&format!("{path}?env=base&{name}=c0ffee-c0ffee")).await;
            let problem = answer.problem(400, "INVALID_ARGUMENT");
            assert!(problem["detail"].as_str().unwrap().contains("Authorization"), "{problem}");
            assert!(!answer.text().contains("c0ffee"), "{}", answer.text());
            let repeated = |value: &axum::http::HeaderValue| {
                value.to_str().is_ok_and(|value| value.contains("c0ffee"))
            };
            assert!(!answer.headers.values().any(repeated), "{:?}", answer.headers);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_changes_nothing() {
    let node = with_page().await;
    node.put(ENTRY, r#"{"value": 1}"#).await.expect(201);
    node.put(ENTRY, r#"{"value": 2}"#).await.expect(200);
    let rollback = format!("{ENTRY}/rollback/1");
    let send = |origin: &'static str| {
        node.call(request(
            Method::POST,
            &rollback,
            &[("host", "node:8080"), ("origin", origin)],
            "",
        ))
    };
    let refused = send("https://evil.example").await;
    let problem = refused.problem(403, "PERMISSION_DENIED");
    assert!(problem["detail"].as_str().unwrap().contains("--cors-origins"), "{problem}");
    assert_eq!(node.get(ENTRY).await.expect(200)["version"], 2);

    send(PAGE).await.expect(200);
    send("http://node:8080").await.expect(200);
}
