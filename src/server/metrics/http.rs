//! HTTP answers by route, method and status.
//!
//! The routes are known when the node starts, and a status is a number, so counting takes no lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;

use super::family;

/// Anyone may send any word as a method; the label knows only these.
pub(super) const METHODS: [&str; 8] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", OTHER];
const OTHER: &str = "OTHER";
/// The statuses that there can be; see RFC 9110, section 15.
const STATUSES: std::ops::Range<u16> = 100..600;
/// Always shown, so that the first answer is an increase.
const SUCCESS: u16 = 200;

struct Statuses(Box<[AtomicU64]>);

/// One route: by method, those that it was shown or asked with.
#[derive(Default)]
struct Route([Option<Arc<Statuses>>; METHODS.len()]);

/// The routes, replaced as a whole when one is added: a few dozen times, at the start.
#[derive(Default)]
pub(super) struct HttpRequests {
    routes: ArcSwap<HashMap<Arc<str>, Route>>,
}

impl Clone for Route {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl Statuses {
    fn new() -> Self {
        Self(STATUSES.map(|_| AtomicU64::new(0)).collect())
    }

    fn of(&self, status: u16) -> Option<&AtomicU64> {
        self.0.get(usize::from(status.checked_sub(STATUSES.start)?))
    }
}

pub(super) fn known_method(method: &str) -> &'static str {
    METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER)
}

fn index(method: &str) -> usize {
    METHODS.iter().position(|known| *known == method).unwrap_or(METHODS.len() - 1)
}

impl HttpRequests {
    /// Shows a route and method before its first request.
    pub(super) fn show(&self, method: &str, route: &str) {
        let statuses = Arc::new(Statuses::new());
        self.routes.rcu(|routes| {
            let mut routes = HashMap::clone(routes);
            let known = routes.entry(route.into()).or_default();
            known.0[index(method)].get_or_insert_with(|| Arc::clone(&statuses));
            routes
        });
    }

    pub(super) fn count(&self, method: &str, route: &str, status: u16) {
        let routes = self.routes.load();
        let statuses = routes.get(route).and_then(|route| route.0[index(method)].as_ref());
        match statuses {
            Some(statuses) => {
                if let Some(count) = statuses.of(status) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => {
                self.show(method, route);
                // It is there now.
                let routes = self.routes.load();
                let shown = routes.get(route).and_then(|route| route.0[index(method)].as_ref());
                if let Some(count) = shown.and_then(|statuses| statuses.of(status)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    pub(super) fn family(&self) -> MetricFamily {
        let routes = self.routes.load();
        let mut samples = Vec::new();
        for (route, methods) in routes.iter() {
            for (method, statuses) in METHODS.iter().zip(&methods.0) {
                let Some(statuses) = statuses else { continue };
                for (status, count) in STATUSES.zip(&statuses.0) {
                    let count = count.load(Ordering::Relaxed);
                    if count > 0 || status == SUCCESS {
                        let labels = vec![
                            ("method", (*method).to_owned()),
                            ("route", route.as_ref().to_owned()),
                            ("status", status.to_string()),
                        ];
                        samples.push((labels, count as f64));
                    }
                }
            }
        }
        samples.sort_by(|(a, _), (b, _)| a.cmp(b));
        family::counters_of(
            "http_requests_total",
            "HTTP requests answered, by route template",
            samples,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_shown_is_counted_from_its_first_answer() {
        let requests = HttpRequests::default();
        requests.show("GET", "/a");
        requests.count("BREW", "/b", 405);
        requests.count("GET", "/a", 200);
        requests.count("GET", "/a", 999);
        let mut family = requests.family();
        let lines: Vec<String> = family
            .take_metric()
            .iter()
            .map(|metric| {
                let labels: Vec<&str> =
                    metric.get_label().iter().map(|pair| pair.value()).collect();
                format!("{} {}", labels.join(" "), metric.get_counter().get_value())
            })
            .collect();
        assert_eq!(lines, ["GET /a 200 1", "OTHER /b 200 0", "OTHER /b 405 1"]);
    }
}
