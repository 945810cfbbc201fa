//! A token bucket for each name: so many requests a second, twice as many at once.

use std::borrow::Borrow;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::bounded::Bounded;
use crate::error::ServiceError;

const LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What a bucket holds beyond one second's requests.
const BURST_SECONDS: u32 = 2;

/// Whether a request may go on, and what is left after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// Requests that a full bucket holds.
    pub limit: u32,
    /// Requests that it holds now.
    pub remaining: u32,
    /// Seconds until it is full, when nothing is taken.
    pub reset_s: u64,
    /// Seconds until it holds one request again; `None`: this one may go on.
    pub retry_after_s: Option<u64>,
}

impl Decision {
    /// Whether the request may go on.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.retry_after_s.is_none()
    }

    /// The refusal of a request that was one too many.
    #[must_use]
    pub fn refusal(&self) -> Option<ServiceError> {
        self.retry_after_s.map(|retry_after_s| ServiceError::RateLimited { retry_after_s })
    }

    /// Of two that hold for one request, the one that its caller has to look at.
    #[must_use]
    pub fn tighter(self, other: Self) -> Self {
        let rank = |decision: &Self| (decision.is_allowed(), decision.remaining);
        if rank(&other) < rank(&self) { other } else { self }
    }

    /// Writes `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset`.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(LIMIT, HeaderValue::from(self.limit));
        headers.insert(REMAINING, HeaderValue::from(self.remaining));
        headers.insert(RESET, HeaderValue::from(self.reset_s));
    }
}

/// The clock of a bucket stands still until it is told the time of the next request.
#[derive(Debug)]
struct Told(AtomicU64);

impl Clock for Told {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

type Bucket = RateLimiter<NotKeyed, InMemoryState, Told, StateInformationMiddleware>;

/// The buckets of one kind of name.
pub(super) struct Buckets<K> {
    buckets: Bounded<K, Bucket>,
    quota: Quota,
    rate: NonZeroU32,
    begun: Instant,
}

impl<K: Hash + Eq> Buckets<K> {
    /// `rate` requests a second of each name. `None` when there is no limit.
    pub(super) fn new(rate: u32, names_max: usize) -> Option<Self> {
        let rate = NonZeroU32::new(rate)?;
        let burst = NonZeroU32::new(BURST_SECONDS).map_or(rate, |times| rate.saturating_mul(times));
        Some(Self {
            buckets: Bounded::new(names_max),
            quota: Quota::per_second(rate).allow_burst(burst),
            rate,
            begun: Instant::now(),
        })
    }

    /// Takes one request from the bucket of `name`.
    pub(super) fn take<Q>(&self, name: &Q, now: Instant) -> Decision
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Hash + Eq + ?Sized,
    {
        let now = Nanos::from(now.saturating_duration_since(self.begun));
        let new = || Bucket::new(self.quota, InMemoryState::default(), Told(now.as_u64().into()));
        self.buckets.with(name, new, |bucket| {
            bucket.clock().0.store(now.as_u64(), Ordering::Relaxed);
            match bucket.check() {
                Ok(left) => self.decision(left.remaining_burst_capacity(), None),
                Err(refusal) => self.decision(0, Some(refusal.wait_time_from(now))),
            }
        })
    }

    fn decision(&self, remaining: u32, wait: Option<Duration>) -> Decision {
        let limit = self.quota.burst_size().get();
        let missing = limit.saturating_sub(remaining);
        Decision {
            limit,
            remaining,
            reset_s: u64::from(missing.div_ceil(self.rate.get())),
            retry_after_s: wait.map(|wait| whole_seconds(wait).max(1)),
        }
    }
}

/// Rounded up: who comes back after it is not too early.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(rate: u32) -> Buckets<String> {
        Buckets::new(rate, 1_000).unwrap()
    }

    #[test]
    fn twice_the_rate_may_come_at_once_and_the_rate_after_that() {
        let buckets = buckets(10);
        let now = buckets.begun;
        for left in (0..20).rev() {
            let decision = buckets.take("a", now);
            assert_eq!((decision.limit, decision.remaining), (20, left));
            assert!(decision.is_allowed());
        }
        let refused = buckets.take("a", now);
        assert_eq!(
            refused,
            Decision { limit: 20, remaining: 0, reset_s: 2, retry_after_s: Some(1) }
        );
        assert!(!buckets.take("a", now + Duration::from_millis(99)).is_allowed());
        assert!(buckets.take("a", now + Duration::from_millis(100)).is_allowed());
        let second = now + Duration::from_millis(1_100);
        let allowed = (0..100).filter(|_| buckets.take("a", second).is_allowed()).count();
        assert_eq!(allowed, 10, "what a second gives back");
    }

    #[test]
    fn a_bucket_is_full_again_when_it_says() {
        let buckets = buckets(10);
        let now = buckets.begun;
        for _ in 0..15 {
            let _ = buckets.take("a", now);
        }
        let decision = buckets.take("a", now);
        assert_eq!((decision.remaining, decision.reset_s), (4, 2));
        let later = buckets.take("a", now + Duration::from_secs(decision.reset_s));
        assert_eq!((later.remaining, later.reset_s), (19, 1));
    }

    #[test]
    fn names_do_not_share_a_bucket() {
        let buckets = buckets(1);
        let now = buckets.begun;
        for _ in 0..3 {
            let _ = buckets.take("a", now);
        }
        assert!(!buckets.take("a", now).is_allowed());
        assert!(buckets.take("b", now).is_allowed());
    }

    #[test]
    fn a_request_that_was_read_earlier_and_counted_later_is_no_fault() {
        let buckets = buckets(1);
        let now = buckets.begun + Duration::from_secs(10);
        assert!(buckets.take("a", now).is_allowed());
        assert!(buckets.take("a", buckets.begun).is_allowed());
        assert!(!buckets.take("a", buckets.begun).is_allowed());
        assert!(buckets.take("a", now + Duration::from_secs(1)).is_allowed());
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let buckets = buckets(1);
        let now = buckets.begun;
        for _ in 0..2 {
            assert_eq!(buckets.take("a", now).refusal(), None);
        }
        let refused = buckets.take("a", now + Duration::from_millis(1));
        assert_eq!(refused.refusal(), Some(ServiceError::RateLimited { retry_after_s: 1 }));
    }

    #[test]
    fn no_limit_has_no_buckets_and_the_largest_works() {
        assert!(Buckets::<String>::new(0, 10).is_none());
        let buckets = buckets(100_000_000);
        let decision = buckets.take("a", buckets.begun);
        assert_eq!((decision.limit, decision.remaining), (200_000_000, 199_999_999));
        assert!(Buckets::<String>::new(u32::MAX, 10).is_some());
    }

    #[test]
    fn names_beyond_the_bound_push_out_the_oldest() {
        let buckets = Buckets::<String>::new(1, 32).unwrap();
        for name in 0..10_000 {
            let _ = buckets.take(format!("{name}").as_str(), buckets.begun);
        }
        assert_eq!(buckets.buckets.len(), 32);
    }

    #[test]
    fn of_two_the_tighter_is_told() {
        let decision =
            |remaining, retry_after_s| Decision { limit: 20, remaining, reset_s: 1, retry_after_s };
        let (wide, narrow) = (decision(9, None), decision(3, None));
        assert_eq!(wide.tighter(narrow), narrow);
        assert_eq!(narrow.tighter(wide), narrow);
        let refused = decision(0, Some(1));
        assert_eq!(decision(0, None).tighter(refused), refused);
        let mut headers = HeaderMap::new();
        narrow.write(&mut headers);
        assert_eq!(headers["ratelimit-limit"], "20");
        assert_eq!(headers["ratelimit-remaining"], "3");
        assert_eq!(headers["ratelimit-reset"], "1");
    }
}
