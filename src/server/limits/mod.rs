//! How much one caller may ask for, and who is to be shut out: what a node counts of each principal and each address.
//!
//! Nothing here refuses, bans or forgets a ban: a `Decision` says whether a request is one too many, a `BanOrder` that
//! an address has earned a ban. Bans themselves are replicated state. Every table has a bound, every count is this
//! node's own, and the time comes with each call.

mod address;
mod bounded;
mod failures;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod rate;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use ipnet::IpNet;

use crate::metrics::{LimitScope, Metrics};
use crate::settings::SecuritySettings;
use failures::Offences;
use rate::Buckets;

pub use address::ClientAddress;
pub use failures::{BanOrder, BanReason};
pub use rate::Decision;

/// Principals, and addresses, that are counted at a time. Who was silent longest is forgotten first, and would have a
/// full bucket again by then.
const TRACKED_MAX: usize = 16_384;

/// What a node counts. See the module.
pub struct Limits {
    principals: Option<Buckets<String>>,
    addresses: Option<Buckets<IpAddr>>,
    offences: Option<Offences>,
    first_ban: Duration,
    exempt: Vec<IpNet>,
    trusted_proxies: Vec<IpNet>,
    metrics: Arc<Metrics>,
}

impl Limits {
    /// Nothing was counted yet. What the settings turn off is not counted at all.
    #[must_use]
    pub fn new(settings: &SecuritySettings, metrics: Arc<Metrics>) -> Self {
        Self {
            principals: Buckets::new(settings.limits.principal, TRACKED_MAX),
            addresses: Buckets::new(settings.limits.address, TRACKED_MAX),
            offences: Offences::new(settings.bans.failures, TRACKED_MAX),
            first_ban: settings.bans.duration,
            exempt: settings.limit_exempt.clone(),
            trusted_proxies: settings.trusted_proxies.clone(),
            metrics,
        }
    }

    /// Whom a request comes from: `peer` is the other end of the connection.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddress {
        ClientAddress::of(peer, headers, &self.trusted_proxies, &self.exempt)
    }

    /// Takes one request from what the address may send. `None`: it is not limited.
    #[must_use]
    pub fn take_of_address(&self, client: ClientAddress, now: Instant) -> Option<Decision> {
        let buckets = self.addresses.as_ref().filter(|_| !client.is_exempt())?;
        Some(self.counted(buckets.take(&client.bucket_key(), now), LimitScope::Address))
    }

    /// Takes one request from what the principal may send. `None`: it is not limited.
    #[must_use]
    pub fn take_of_principal(
        &self,
        principal: &str,
        client: ClientAddress,
        now: Instant,
    ) -> Option<Decision> {
        let buckets = self.principals.as_ref().filter(|_| !client.is_exempt())?;
        Some(self.counted(buckets.take(principal, now), LimitScope::Principal))
    }

    /// Counts an authentication that failed. An order when it was the last one that is suffered.
    #[must_use]
    pub fn note_failure(&self, client: ClientAddress, now: Instant) -> Option<BanOrder> {
        let offences = self.offences.as_ref().filter(|_| !client.is_exempt())?;
        self.ordered(offences.failed(client.bucket_key(), now))
    }

    /// Counts a request that was refused for being one too many. An order when the address goes on and on.
    #[must_use]
    pub fn note_limited(&self, client: ClientAddress, now: Instant) -> Option<BanOrder> {
        let offences = self.offences.as_ref().filter(|_| !client.is_exempt())?;
        self.ordered(offences.limited(client.bucket_key(), now))
    }

    /// How long the first ban of an address lasts. How they grow is the replicated state's to know.
    #[must_use]
    pub fn first_ban(&self) -> Duration {
        self.first_ban
    }

    fn counted(&self, decision: Decision, scope: LimitScope) -> Decision {
        if !decision.is_allowed() {
            self.metrics.rate_limited(scope);
        }
        decision
    }

    fn ordered(&self, order: Option<BanOrder>) -> Option<BanOrder> {
        if order.is_some() {
            self.metrics.ban();
        }
        order
    }
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{BanSettings, LimitSettings};

    fn limits(change: impl FnOnce(&mut SecuritySettings)) -> (Limits, Arc<Metrics>) {
        let mut settings = SecuritySettings::of_dev("unused".into());
        settings.limits = LimitSettings { principal: 1, address: 1 };
        settings.bans = BanSettings { failures: 3, duration: Duration::from_secs(60) };
        change(&mut settings);
        let metrics = Arc::new(Metrics::new());
        (Limits::new(&settings, Arc::clone(&metrics)), metrics)
    }

    fn client(limits: &Limits, ip: &str) -> ClientAddress {
        limits.client(ip.parse().unwrap(), &HeaderMap::new())
    }

    fn page(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn principals_and_addresses_are_counted_apart_and_shown() {
        let (limits, metrics) = limits(|_| {});
        let (here, now) = (client(&limits, "192.0.2.1"), Instant::now());
        for _ in 0..2 {
            assert!(limits.take_of_address(here, now).unwrap().is_allowed());
            assert!(limits.take_of_principal("ann", here, now).unwrap().is_allowed());
        }
        assert!(!limits.take_of_address(here, now).unwrap().is_allowed());
        assert!(!limits.take_of_principal("ann", here, now).unwrap().is_allowed());
        assert!(limits.take_of_principal("bob", here, now).unwrap().is_allowed());
        let elsewhere = client(&limits, "192.0.2.2");
        assert!(limits.take_of_address(elsewhere, now).unwrap().is_allowed());
        let page = page(&metrics);
        for line in
            ["rate_limited_total{scope=\"address\"} 1", "rate_limited_total{scope=\"principal\"} 1"]
        {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn what_is_turned_off_is_not_counted() {
        let (limits, metrics) = limits(|settings| {
            settings.limits = LimitSettings { principal: 0, address: 0 };
            settings.bans.failures = 0;
        });
        let (here, now) = (client(&limits, "192.0.2.1"), Instant::now());
        for _ in 0..2_000 {
            assert_eq!(limits.take_of_address(here, now), None);
            assert_eq!(limits.take_of_principal("ann", here, now), None);
            assert_eq!(limits.note_failure(here, now), None);
            assert_eq!(limits.note_limited(here, now), None);
        }
        assert!(page(&metrics).contains("bans_total 0"));
    }

    #[test]
    fn an_exempt_address_is_neither_limited_nor_banned() {
        let (limits, _) = limits(|settings| {
            settings.limit_exempt = vec!["192.0.2.0/24".parse().unwrap()];
        });
        let (here, now) = (client(&limits, "192.0.2.1"), Instant::now());
        for _ in 0..10 {
            assert_eq!(limits.take_of_address(here, now), None);
            assert_eq!(limits.take_of_principal("ann", here, now), None);
            assert_eq!(limits.note_failure(here, now), None);
        }
        assert!(limits.take_of_address(client(&limits, "198.51.100.1"), now).is_some());
    }

    #[test]
    fn failures_lead_to_an_order_that_is_counted() {
        let (limits, metrics) = limits(|_| {});
        let (here, now) = (client(&limits, "192.0.2.1"), Instant::now());
        assert_eq!(limits.note_failure(here, now), None);
        assert_eq!(limits.note_failure(here, now), None);
        let order = limits.note_failure(here, now).unwrap();
        assert_eq!(order.address, "192.0.2.1".parse::<IpAddr>().unwrap());
        assert!(page(&metrics).contains("bans_total 1"));
        assert_eq!(limits.first_ban(), Duration::from_secs(60));
    }
}
