//! Who tries doors: failed authentications and refused requests of each address within the last minute.
//!
//! It only counts. A ban is proposed by whoever gets the order, and kept in the replicated state, which also knows how
//! often the address was banned before.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::bounded::Bounded;

/// Requests of one address that are refused within a minute for being too many before that counts as abuse.
const LIMITED_MAX: u32 = 1_000;
/// The minute is counted in slots: one that is over is forgotten as a whole, so what counts is 55 to 60 seconds old at
/// most.
const SLOTS: usize = 12;
const SLOT: Duration = Duration::from_secs(60 / SLOTS as u64);

/// An address has earned a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BanOrder {
    /// What to ban: an IPv4 address, or the first address of an IPv6 /64 (`ClientAddress::bucket_key`).
    pub address: IpAddr,
    /// What for.
    pub reason: BanReason,
}

/// What an address is banned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BanReason {
    /// Too many failed authentications within a minute.
    FailedAuthentication,
    /// It went on after a thousand of its requests were refused within a minute.
    TooManyRequests,
}

impl BanReason {
    /// The reason as a record and a list show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FailedAuthentication => "failed authentications",
            Self::TooManyRequests => "too many requests",
        }
    }
}

/// What is counted of each address.
#[derive(Default)]
struct Offender {
    failed: LastMinute,
    limited: LastMinute,
}

/// The offenders that are remembered.
pub(super) struct Offences {
    offenders: Bounded<IpAddr, Offender>,
    failures_max: u32,
    begun: Instant,
}

impl Offences {
    /// An order after `failures_max` failed authentications. `None` when nobody is to be banned.
    pub(super) fn new(failures_max: u32, addresses_max: usize) -> Option<Self> {
        (failures_max > 0).then(|| Self {
            offenders: Bounded::new(addresses_max),
            failures_max,
            begun: Instant::now(),
        })
    }

    pub(super) fn failed(&self, address: IpAddr, now: Instant) -> Option<BanOrder> {
        let slot = self.slot(now);
        let full = self.offenders.with(&address, Offender::default, |offender| {
            offender.failed.reaches(self.failures_max, slot)
        });
        full.then_some(BanOrder { address, reason: BanReason::FailedAuthentication })
    }

    pub(super) fn limited(&self, address: IpAddr, now: Instant) -> Option<BanOrder> {
        let slot = self.slot(now);
        let full = self.offenders.with(&address, Offender::default, |offender| {
            offender.limited.reaches(LIMITED_MAX, slot)
        });
        full.then_some(BanOrder { address, reason: BanReason::TooManyRequests })
    }

    fn slot(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.begun).as_secs() / SLOT.as_secs()
    }
}

/// How often something happened in the last minute.
#[derive(Default)]
struct LastMinute {
    counts: [u32; SLOTS],
    /// The slot that is counted into.
    newest: u64,
}

impl LastMinute {
    /// Counts once more. True when that makes `max`; the count starts anew then.
    fn reaches(&mut self, max: u32, slot: u64) -> bool {
        let passed = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for over in 0..passed {
            self.counts[index(slot - over)] = 0;
        }
        // A request that was read earlier and is counted later belongs to the newest slot.
        self.newest = self.newest.max(slot);
        let count = &mut self.counts[index(self.newest)];
        *count = count.saturating_add(1);
        let full = self.counts.iter().fold(0_u32, |sum, count| sum.saturating_add(*count)) >= max;
        if full {
            self.counts = [0; SLOTS];
        }
        full
    }
}

fn index(slot: u64) -> usize {
    // The remainder is below the number of slots, so it fits.
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn offences(failures_max: u32) -> Offences {
        Offences::new(failures_max, 1_000).unwrap()
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_last_failure_that_is_suffered_is_an_order_and_the_count_starts_anew() {
        let offences = offences(3);
        let now = offences.begun;
        for _ in 0..2 {
            assert_eq!(offences.failed(ADDRESS, now), None);
            assert_eq!(offences.failed(ADDRESS, now), None);
            let order = offences.failed(ADDRESS, now).unwrap();
            assert_eq!((order.address, order.reason), (ADDRESS, BanReason::FailedAuthentication));
        }
    }

    #[test]
    fn only_the_last_minute_counts() {
        let offences = offences(3);
        let begun = offences.begun;
        assert_eq!(offences.failed(ADDRESS, begun), None);
        assert_eq!(offences.failed(ADDRESS, begun + seconds(30)), None);
        // The first one is over, the second one not yet.
        assert_eq!(offences.failed(ADDRESS, begun + seconds(60)), None);
        assert!(offences.failed(ADDRESS, begun + seconds(84)).is_some());
        // After a long silence nothing is left, wherever the slots stood.
        for pause in 60..140 {
            let offences = self::offences(2);
            assert_eq!(offences.failed(ADDRESS, offences.begun), None, "{pause}");
            assert_eq!(offences.failed(ADDRESS, offences.begun + seconds(pause)), None, "{pause}");
        }
        for pause in 0..55 {
            let offences = self::offences(2);
            assert_eq!(offences.failed(ADDRESS, offences.begun), None, "{pause}");
            assert!(offences.failed(ADDRESS, offences.begun + seconds(pause)).is_some(), "{pause}");
        }
    }

    #[test]
    fn addresses_and_kinds_are_counted_apart() {
        let offences = offences(2);
        let (now, other) = (offences.begun, "2001:db8::".parse().unwrap());
        assert_eq!(offences.failed(ADDRESS, now), None);
        assert_eq!(offences.failed(other, now), None);
        assert_eq!(offences.limited(ADDRESS, now), None);
        assert!(offences.failed(other, now).is_some());
    }

    #[test]
    fn a_thousand_refused_requests_within_a_minute_are_abuse() {
        let offences = offences(10);
        let now = offences.begun;
        for _ in 0..LIMITED_MAX - 1 {
            assert_eq!(offences.limited(ADDRESS, now), None);
        }
        let order = offences.limited(ADDRESS, now + seconds(50)).unwrap();
        assert_eq!(order.reason, BanReason::TooManyRequests);
        assert_eq!(offences.limited(ADDRESS, now + seconds(50)), None);
    }

    #[test]
    fn a_count_that_comes_late_is_no_fault() {
        let offences = offences(2);
        assert_eq!(offences.failed(ADDRESS, offences.begun + seconds(20)), None);
        assert!(offences.failed(ADDRESS, offences.begun).is_some());
    }

    #[test]
    fn offenders_beyond_the_bound_push_out_the_oldest() {
        let offences = Offences::new(2, 32).unwrap();
        for last in 0..10_000_u32 {
            let _ = offences.failed(IpAddr::V4(last.into()), offences.begun);
        }
        assert_eq!(offences.offenders.len(), 32);
    }
}
