//! How much a node takes on at once: requests in flight, and bytes of them and of their answers.
//!
//! What does not fit is refused at once with `OVERLOADED`, before it costs anything; nothing waits in a queue here.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::ServiceError;
use crate::metrics::Metrics;

/// The bounds and what is in flight. Clones share both.
#[derive(Clone)]
pub struct Admission {
    inner: Arc<Inner>,
}

struct Inner {
    requests: AtomicUsize,
    requests_max: usize,
    bytes: AtomicUsize,
    bytes_max: usize,
    metrics: Arc<Metrics>,
}

/// Room taken by one request; given back when dropped.
pub struct Permit {
    inner: Arc<Inner>,
    bytes: usize,
}

impl Admission {
    pub fn new(requests_max: usize, bytes_max: usize, metrics: Arc<Metrics>) -> Self {
        Admission {
            inner: Arc::new(Inner {
                requests: AtomicUsize::new(0),
                requests_max,
                bytes: AtomicUsize::new(0),
                bytes_max,
                metrics,
            }),
        }
    }

    /// Takes room for one request with a body of this size; hold the permit until it is answered.
    pub fn enter(&self, body_bytes: usize) -> Result<Permit, ServiceError> {
        let inner = &self.inner;
        if !take(&inner.requests, 1, inner.requests_max) {
            inner.metrics.overloaded("requests");
            return Err(ServiceError::Overloaded {
                reason: format!("{} requests are in flight", inner.requests_max),
            });
        }
        if !take(&inner.bytes, body_bytes, inner.bytes_max) {
            inner.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(inner.no_bytes());
        }
        Ok(Permit { inner: inner.clone(), bytes: body_bytes })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// What is in flight, and what may be: requests, then bytes.
    pub fn usage(&self) -> [(usize, usize); 2] {
        let inner = &self.inner;
        [
            (self.in_flight(), inner.requests_max),
            (inner.bytes.load(Ordering::Relaxed), inner.bytes_max),
        ]
    }
}

impl Permit {
    /// Takes room for more bytes of the same request.
    pub fn grow(&mut self, bytes: usize) -> Result<(), ServiceError> {
        if !take(&self.inner.bytes, bytes, self.inner.bytes_max) {
            return Err(self.inner.no_bytes());
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Counts bytes that are there already, even above the bound: who comes next is refused for it.
    pub fn charge(&mut self, bytes: usize) {
        self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Inner {
    fn no_bytes(&self) -> ServiceError {
        self.metrics.overloaded("request_bytes");
        ServiceError::Overloaded {
            reason: format!("messages in flight would exceed {} bytes", self.bytes_max),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inner.requests.fetch_sub(1, Ordering::Relaxed);
        self.inner.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Adds unless the sum would pass the bound. The counters guard no other data, so relaxed ordering is enough.
fn take(counter: &AtomicUsize, amount: usize, bound: usize) -> bool {
    counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| {
            now.checked_add(amount).filter(|sum| *sum <= bound)
        })
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(requests: usize, bytes: usize) -> Admission {
        Admission::new(requests, bytes, Arc::new(Metrics::new()))
    }

    #[test]
    fn requests_beyond_the_bound_are_refused_until_one_ends() {
        let admission = admission(2, 100);
        let first = admission.enter(0).unwrap();
        let _second = admission.enter(0).unwrap();
        assert_eq!(admission.enter(0).err().unwrap().code(), "OVERLOADED");
        drop(first);
        assert!(admission.enter(0).is_ok());
    }

    #[test]
    fn bytes_beyond_the_bound_are_refused_and_leave_no_trace() {
        let admission = admission(10, 100);
        let held = admission.enter(60).unwrap();
        assert_eq!(admission.enter(41).err().unwrap().code(), "OVERLOADED");
        assert_eq!(admission.in_flight(), 1);
        assert!(admission.enter(40).is_ok());
        drop(held);
        assert!(admission.enter(100).is_ok());
    }

    #[test]
    fn what_is_there_counts_above_the_bound_and_refuses_what_comes() {
        let admission = admission(10, 100);
        let mut held = admission.enter(10).unwrap();
        assert!(held.grow(91).is_err());
        held.grow(40).unwrap();
        held.charge(100);
        assert_eq!(admission.enter(1).err().unwrap().code(), "OVERLOADED");
        drop(held);
        assert!(admission.enter(100).is_ok());
    }

    #[test]
    fn an_absurd_size_does_not_overflow() {
        let admission = admission(10, 100);
        let _held = admission.enter(60).unwrap();
        assert!(admission.enter(usize::MAX).is_err());
    }
}
