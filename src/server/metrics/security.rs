//! Numbers of who was let in, who was not, and what left a trace: what an operator looks at when somebody tries doors.
//!
//! Labels come from the lists here. None of them holds what a caller sent: no name, no address, no token.

use std::sync::Arc;

use llm_config_replica::wall_clock_ms;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, Registry};

use super::family::{gauge, gauges_of};
use super::{counters, single_counter as counter};

/// Series of bans; each has an address in it.
const BANS_SHOWN_MAX: usize = 100;

/// A ban as the state has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BanSample {
    /// The network address.
    pub address: String,
    /// One of a few words.
    pub reason: String,
    /// Until when.
    pub until_ms: u64,
}

/// Why a request that should show who it is from was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthFailure {
    /// It carried neither a token nor a certificate.
    Missing,
    /// What it carried has not the form of a token.
    Malformed,
    /// No token of this store.
    Unknown,
    /// A token whose time is over.
    Expired,
    /// A token that was taken back.
    Revoked,
    /// A token of the issuer that was not accepted.
    Jwt,
    /// A client certificate that names nobody.
    Certificate,
    /// The address is banned; what it carried was not looked at.
    Banned,
}

impl AuthFailure {
    const ALL: [Self; 8] = [
        Self::Missing,
        Self::Malformed,
        Self::Unknown,
        Self::Expired,
        Self::Revoked,
        Self::Jwt,
        Self::Certificate,
        Self::Banned,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Jwt => "jwt",
            Self::Certificate => "certificate",
            Self::Banned => "banned",
        }
    }
}

/// Whose requests were too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// Those of one principal.
    Principal,
    /// Those from one address.
    Address,
}

impl LimitScope {
    const ALL: [Self; 2] = [Self::Principal, Self::Address];

    fn as_str(self) -> &'static str {
        match self {
            Self::Principal => "principal",
            Self::Address => "address",
        }
    }
}

/// What was done with a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretAccess {
    /// Its plaintext was sent to a caller.
    Reveal,
    /// A new one was stored.
    Write,
}

impl SecretAccess {
    const ALL: [Self; 2] = [Self::Reveal, Self::Write];

    fn as_str(self) -> &'static str {
        match self {
            Self::Reveal => "reveal",
            Self::Write => "write",
        }
    }
}

/// Types of audit records; one that is not listed counts as [`OTHER`], so that the label stays bounded.
const AUDIT_TYPES: [&str; 23] = [
    "access.denied",
    "admin.audit_retention",
    "admin.backup",
    "admin.compact",
    "admin.keys_rotate",
    "auth.bootstrap",
    "auth.role_delete",
    "auth.role_put",
    "auth.token_create",
    "auth.token_revoke",
    "cluster.member_add",
    "cluster.member_demote",
    "cluster.member_promote",
    "cluster.member_remove",
    "cluster.member_replace",
    "cluster.transfer_leader",
    "config.delete",
    "config.rollback",
    "config.set",
    "config.txn",
    "secret.reveal",
    "security.ban",
    "security.ban_lift",
];
const OTHER: &str = "other";

const REFRESH_RESULTS: [&str; 2] = ["ok", "failed"];

pub(super) struct SecurityNumbers {
    rate_limited: IntCounterVec,
    auth_failures: IntCounterVec,
    bans: IntCounter,
    bans_in_force: Mutex<Arc<[BanSample]>>,
    jwt_refreshes: IntCounterVec,
    denials: IntCounter,
    audit_events: IntCounterVec,
    audit_dropped: IntCounter,
    secret_access: IntCounterVec,
}

impl SecurityNumbers {
    pub(super) fn new(registry: &Registry) -> Self {
        let numbers = Self {
            rate_limited: counters(
                registry,
                "rate_limited_total",
                "Requests refused because one principal or address made too many",
                &["scope"],
            ),
            auth_failures: counters(
                registry,
                "auth_failures_total",
                "Requests that did not show who they are from",
                &["reason"],
            ),
            bans: counter(registry, "bans_total", "Bans of addresses that this node asked for"),
            bans_in_force: Mutex::new(Arc::new([])),
            jwt_refreshes: counters(
                registry,
                "jwt_keys_refresh_total",
                "Times that the key set of the token issuer was read",
                &["result"],
            ),
            denials: counter(
                registry,
                "rbac_permission_denials_total",
                "Requests refused because the caller's roles do not allow them",
            ),
            audit_events: counters(
                registry,
                "audit_events_total",
                "Audit records of requests that this node took",
                &["type"],
            ),
            audit_dropped: counter(
                registry,
                "audit_dropped_total",
                "Audit records of refusals that could not be written",
            ),
            secret_access: counters(
                registry,
                "secret_access_total",
                "Secrets revealed and written",
                &["operation"],
            ),
        };
        numbers.show_known_series();
        numbers
    }

    /// Bans end by themselves, so they are counted when the page is asked for.
    fn in_force(&self) -> Vec<BanSample> {
        let now_ms = wall_clock_ms();
        let known = Arc::clone(&self.bans_in_force.lock());
        known.iter().filter(|ban| ban.until_ms > now_ms).cloned().collect()
    }

    pub(super) fn bans(&self) -> MetricFamily {
        gauge("bans_active", "Addresses that are banned now", self.in_force().len() as f64)
    }

    /// The longest ones, so that an attack from everywhere does not make series without a bound.
    pub(super) fn ban_expiries(&self) -> Option<MetricFamily> {
        let bans = self.in_force().into_iter().take(BANS_SHOWN_MAX);
        let family = gauges_of(
            "ban_expiry_timestamp_seconds",
            "When a ban ends; the 100 that end last",
            bans.map(|ban| {
                let labels = vec![("address", ban.address), ("reason", ban.reason)];
                (labels, ban.until_ms as f64 / 1e3)
            }),
        );
        // The text format has no families without samples.
        (!family.get_metric().is_empty()).then_some(family)
    }

    fn show_known_series(&self) {
        for scope in LimitScope::ALL {
            self.rate_limited.with_label_values(&[scope.as_str()]);
        }
        for reason in AuthFailure::ALL {
            self.auth_failures.with_label_values(&[reason.as_str()]);
        }
        for result in REFRESH_RESULTS {
            self.jwt_refreshes.with_label_values(&[result]);
        }
        for kind in AUDIT_TYPES.into_iter().chain([OTHER]) {
            self.audit_events.with_label_values(&[kind]);
        }
        for operation in SecretAccess::ALL {
            self.secret_access.with_label_values(&[operation.as_str()]);
        }
    }
}

impl super::Metrics {
    /// Counts a request that was one too many.
    pub fn rate_limited(&self, scope: LimitScope) {
        self.security.rate_limited.with_label_values(&[scope.as_str()]).inc();
    }

    /// Counts a request that did not show who it is from.
    pub fn auth_failure(&self, reason: AuthFailure) {
        self.security.auth_failures.with_label_values(&[reason.as_str()]).inc();
    }

    /// Counts a ban, on the node that asked for it.
    pub fn ban(&self) {
        self.security.bans.inc();
    }

    /// The bans that the state knows of, those that have ended included.
    pub fn bans(&self, mut bans: Vec<BanSample>) {
        bans.sort_by(|a, b| b.until_ms.cmp(&a.until_ms).then_with(|| a.address.cmp(&b.address)));
        *self.security.bans_in_force.lock() = bans.into();
    }

    /// Counts a reading of the issuer's key set.
    pub fn jwt_keys_refresh(&self, succeeded: bool) {
        let [ok, failed] = REFRESH_RESULTS;
        let result = if succeeded { ok } else { failed };
        self.security.jwt_refreshes.with_label_values(&[result]).inc();
    }

    /// Counts a request that the caller's roles do not allow.
    pub fn permission_denied(&self) {
        self.security.denials.inc();
    }

    /// Counts an audit record, on the node that took the request.
    pub fn audit_event(&self, kind: &str) {
        let known = AUDIT_TYPES.into_iter().find(|known| *known == kind).unwrap_or(OTHER);
        self.security.audit_events.with_label_values(&[known]).inc();
    }

    /// Counts an audit record of a refusal that could not be written.
    pub fn audit_dropped(&self) {
        self.security.audit_dropped.inc();
    }

    /// Counts a secret that was revealed or written.
    pub fn secret_access(&self, operation: SecretAccess) {
        self.security.secret_access.with_label_values(&[operation.as_str()]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn every_series_exists_before_its_first_event() {
        let page = page(&Metrics::new());
        for line in [
            "rate_limited_total{scope=\"principal\"} 0",
            "rate_limited_total{scope=\"address\"} 0",
            "auth_failures_total{reason=\"missing\"} 0",
            "auth_failures_total{reason=\"banned\"} 0",
            "bans_total 0",
            "bans_active 0",
            "jwt_keys_refresh_total{result=\"failed\"} 0",
            "rbac_permission_denials_total 0",
            "audit_events_total{type=\"config.set\"} 0",
            "audit_events_total{type=\"security.ban_lift\"} 0",
            "audit_dropped_total 0",
            "secret_access_total{operation=\"reveal\"} 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn bans_end_by_themselves_and_only_the_longest_have_series() {
        let metrics = Metrics::new();
        let now_ms = llm_config_replica::wall_clock_ms();
        let ban = |n: u64, until_ms| super::BanSample {
            address: format!("10.0.0.{n}"),
            reason: "failed_authentication".to_owned(),
            until_ms,
        };
        let mut bans: Vec<_> = (0..120).map(|n| ban(n, now_ms + 600_000 + n)).collect();
        bans.push(ban(200, now_ms - 1));
        metrics.bans(bans);
        let page = page(&metrics);
        assert!(page.contains("bans_active 120"), "{page}");
        let series = |address: &str| {
            page.contains(&format!("ban_expiry_timestamp_seconds{{address=\"{address}\""))
        };
        assert!(series("10.0.0.119") && series("10.0.0.20"));
        assert!(!series("10.0.0.19") && !series("10.0.0.200"));
    }

    #[test]
    fn a_type_of_record_that_is_not_listed_makes_no_series_of_its_own() {
        let metrics = Metrics::new();
        metrics.audit_event("config.set");
        metrics.audit_event("made.up");
        let page = page(&metrics);
        assert!(page.contains("audit_events_total{type=\"config.set\"} 1"), "{page}");
        assert!(page.contains("audit_events_total{type=\"other\"} 1"), "{page}");
        assert!(!page.contains("made.up"), "{page}");
    }
}
