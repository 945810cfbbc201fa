//! What keeps browsers safe from other people's pages: security headers, whose pages may call, no tokens in addresses.
//!
//! None of it knows who is asking, and none of it replaces asking: programs that are no browser ignore all this.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use http::header::{
    self, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_SECURITY_POLICY, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::path::decode;
use crate::error::ServiceError;

/// Answers of the API are data: a browser that is tricked into showing one as a page runs nothing of it.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
/// The documentation page loads its own scripts and styles, sets styles on elements, has small images in its style
/// sheet, and calls this node.
const DOCUMENTATION_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// A year of TLS only.
const TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// How long a browser may remember that a page may call.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);
/// Query parameters that people put tokens into.
const TOKEN_PARAMETERS: [&str; 5] =
    ["token", "access_token", "id_token", "api_key", "authorization"];

const METHODS: [Method; 5] = [Method::GET, Method::HEAD, Method::PUT, Method::POST, Method::DELETE];
/// What pages may send.
const REQUEST_HEADERS: [HeaderName; 7] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    HeaderName::from_static("last-event-id"),
    HeaderName::from_static("x-request-id"),
];
/// What pages may read, besides the few that they always may.
const ANSWER_HEADERS: [HeaderName; 11] = [
    header::ETAG,
    header::LOCATION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("ratelimit-limit"),
    HeaderName::from_static("ratelimit-remaining"),
    HeaderName::from_static("ratelimit-reset"),
    HeaderName::from_static("x-config-leader"),
    HeaderName::from_static("x-config-node"),
    HeaderName::from_static("x-config-revision"),
    HeaderName::from_static("x-request-id"),
];

/// What a node tells browsers.
#[derive(Debug, Clone, Default)]
pub struct Browser {
    /// Whose pages may call, as browsers send it.
    origins: Arc<[HeaderValue]>,
    tls: bool,
}

impl Browser {
    /// `cors_origins`: whose pages may call, checked by the settings. `tls`: whether the listener speaks TLS.
    #[must_use]
    pub fn new(cors_origins: &[String], tls: bool) -> Self {
        let origins = cors_origins.iter().map(|origin| as_sent(origin));
        // What is no header value is no origin either.
        let origins = origins.filter_map(|origin| HeaderValue::try_from(origin).ok()).collect();
        Self { origins, tls }
    }

    /// Whether a page of another site makes a browser change something here. Its user would not know.
    ///
    /// Browsers say where a request comes from (`Sec-Fetch-Site`; older ones, and those without TLS, `Origin` alone).
    /// Programs that are no browser say neither.
    fn is_foreign_change(&self, request: &Request) -> bool {
        if request.method().is_safe() {
            return false;
        }
        let headers = request.headers();
        let origin = headers.get(ORIGIN);
        if origin.is_some_and(|origin| self.origins.contains(origin)) {
            return false;
        }
        match (headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes), origin) {
            (Some(b"same-origin" | b"none"), _) | (None, None) => false,
            (Some(_), _) => true,
            (None, Some(origin)) => !is_own(origin, request),
        }
    }

    /// Why a request is not carried out, whoever makes it: changes that another site's page makes a browser send (some need
    /// no preflight, and with `--auth off` no token either), and tokens where proxies, histories and logs keep them.
    pub(super) fn refusal(&self, request: &Request) -> Option<ServiceError> {
        if self.is_foreign_change(request) {
            return Some(ServiceError::PermissionDenied {
                reason: "origin: a page of another site may not change anything here; --cors-origins lists those that may"
                    .to_owned(),
            });
        }
        let name = request.uri().query().and_then(token_parameter)?;
        Some(ServiceError::invalid(
            name,
            "a token does not belong into an address, where it is written down on the way; send it as \
             `Authorization: Bearer …`, and replace the one that was sent",
        ))
    }

    /// Puts this around everything that a listener answers, also what it refuses.
    ///
    /// Preflight requests are answered here: a browser sends them without a token.
    pub fn protect(&self, router: Router) -> Router {
        let router = match self.origins.is_empty() {
            true => router,
            false => router.layer(self.cors()),
        };
        router.layer(from_fn_with_state(self.tls, headers))
    }

    fn cors(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(self.origins.iter().cloned()))
            .allow_methods(METHODS)
            .allow_headers(REQUEST_HEADERS)
            .expose_headers(ANSWER_HEADERS)
            .max_age(PREFLIGHT_MAX_AGE)
    }
}

/// Browsers write origins in small letters, and leave out the port that the scheme has anyway.
fn as_sent(origin: &str) -> String {
    let origin = origin.to_ascii_lowercase();
    let shorter = match origin.split_once("://") {
        Some(("https", _)) => origin.strip_suffix(":443"),
        Some(("http", _)) => origin.strip_suffix(":80"),
        _ => None,
    };
    shorter.map_or(origin.clone(), str::to_owned)
}

/// Whether a page comes from the host and port that it calls.
fn is_own(origin: &HeaderValue, request: &Request) -> bool {
    let asked = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()),
    };
    let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    match (page, asked) {
        (Some((_, page)), Some(asked)) => page.eq_ignore_ascii_case(asked),
        _ => false,
    }
}

async fn headers(State(tls): State<bool>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let documentation = path == "/docs" || path.starts_with("/docs/");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let policy = if documentation { DOCUMENTATION_POLICY } else { POLICY };
    headers.insert(CONTENT_SECURITY_POLICY, policy);
    if tls {
        headers.insert(STRICT_TRANSPORT_SECURITY, TRANSPORT);
    }
    if !headers.contains_key(ACCESS_CONTROL_ALLOW_ORIGIN) {
        forget_cors(headers);
    }
    response
}

/// A page that may not call is not told what it could send if it might.
fn forget_cors(headers: &mut HeaderMap) {
    for name in [
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        header::ACCESS_CONTROL_MAX_AGE,
    ] {
        headers.remove(name);
    }
}

fn token_parameter(query: &str) -> Option<&'static str> {
    query.split('&').find_map(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = decode(name, "query").ok()?;
        TOKEN_PARAMETERS.into_iter().find(|known| name.eq_ignore_ascii_case(known))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_browsers_send_them() {
        for (given, sent) in [
            ("https://a.example", "https://a.example"),
            ("https://A.Example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(as_sent(given), sent);
        }
    }

    #[test]
    fn a_token_is_seen_under_every_name_and_spelling() {
        for query in ["token=x", "a=b&access_token=x", "tok%65n=x", "TOKEN=x", "token", "api_key"] {
            assert!(token_parameter(query).is_some(), "{query}");
        }
        for query in ["", "tokens=x", "key=token", "prefix=access_token", "%ff=token"] {
            assert!(token_parameter(query).is_none(), "{query}");
        }
    }

    #[test]
    fn a_change_is_foreign_when_another_sites_page_asks_for_it() {
        let browser = Browser::new(&["https://console.example".to_owned()], false);
        let foreign = |method: &str, headers: &[(&str, &str)]| {
            let mut request = http::Request::builder().method(method).uri("/x");
            request = request.header("host", "127.0.0.1:8080");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            browser.is_foreign_change(&request.body(axum::body::Body::empty()).unwrap())
        };
        for headers in [
            vec![],
            vec![("origin", "http://127.0.0.1:8080")],
            vec![("origin", "https://console.example")],
            vec![("origin", "https://console.example"), ("sec-fetch-site", "cross-site")],
            // A proxy in between may have changed the host.
            vec![("origin", "https://public.example"), ("sec-fetch-site", "same-origin")],
            vec![("sec-fetch-site", "none")],
        ] {
            assert!(!foreign("POST", &headers), "{headers:?}");
        }
        for headers in [
            vec![("origin", "https://evil.example")],
            vec![("origin", "null")],
            vec![("origin", "http://127.0.0.1:8081")],
            vec![("origin", "http://127.0.0.1:8080"), ("sec-fetch-site", "same-site")],
            vec![("sec-fetch-site", "cross-site")],
        ] {
            for method in ["POST", "PUT", "DELETE", "PATCH", "BREW"] {
                assert!(foreign(method, &headers), "{method} {headers:?}");
            }
            for method in ["GET", "HEAD", "OPTIONS"] {
                assert!(!foreign(method, &headers), "{method} {headers:?}");
            }
        }
    }
}
