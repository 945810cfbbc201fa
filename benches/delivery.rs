//! How long a write takes to reach everybody who watches.
//!
//! Each write carries a number in its value. A slot for each counts who has seen it; the watcher that makes it all
//! records the time since the write was meant to begin.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::histogram::Histogram;
use crate::pace::Window;

/// All writes of a run.
#[derive(Debug)]
pub struct Deliveries {
    epoch: Instant,
    window: Window,
    slots: Vec<Slot>,
    last: Mutex<Histogram>,
}

#[derive(Debug)]
struct Slot {
    /// When it was meant to begin, in nanoseconds of the run.
    begun_ns: AtomicU64,
    /// Watchers that have not seen it.
    missing: AtomicU32,
    acknowledged: AtomicBool,
}

impl Deliveries {
    /// Room for so many writes from `epoch` on, each to be seen by so many; those that begin in the window count.
    #[must_use]
    pub fn new(epoch: Instant, window: Window, writes: usize, watchers: u32) -> Self {
        let slot = || Slot {
            begun_ns: AtomicU64::new(0),
            missing: AtomicU32::new(watchers),
            acknowledged: AtomicBool::new(false),
        };
        let slots = std::iter::repeat_with(slot).take(writes).collect();
        Self { epoch, window, slots, last: Mutex::default() }
    }

    /// A write is about to be sent.
    pub fn sent(&self, number: u64, begun: Instant) {
        if let Some(slot) = self.slot(number) {
            let nanos = begun.saturating_duration_since(self.epoch).as_nanos();
            slot.begun_ns.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// It was acknowledged, so everybody has to see it.
    pub fn acknowledged(&self, number: u64) {
        if let Some(slot) = self.slot(number) {
            slot.acknowledged.store(true, Ordering::Release);
        }
    }

    /// One watcher has seen it; when that was the last one, and the write counts, its time is recorded.
    pub fn seen(&self, number: u64, now: Instant) {
        let Some(slot) = self.slot(number) else { return };
        if slot.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let begun = self.begun(slot);
            if self.window.has(begun) {
                let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                last.record(now.saturating_duration_since(begun));
            }
        }
    }

    /// Acknowledged writes of the window that somebody has not seen.
    #[must_use]
    pub fn undelivered(&self) -> u64 {
        let waiting = |slot: &&Slot| {
            slot.acknowledged.load(Ordering::Acquire)
                && slot.missing.load(Ordering::Acquire) > 0
                && self.window.has(self.begun(slot))
        };
        self.slots.iter().filter(waiting).count() as u64
    }

    /// From the moment a write was meant to begin until the last watcher had it.
    #[must_use]
    pub fn last(&self) -> Histogram {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begun(&self, slot: &Slot) -> Instant {
        self.epoch + Duration::from_nanos(slot.begun_ns.load(Ordering::Acquire))
    }

    fn slot(&self, number: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(number).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_watcher_counts_and_what_nobody_waits_for_does_not() {
        let epoch = Instant::now();
        let at = |ms| epoch + Duration::from_millis(ms);
        let window = Window { from: at(100), to: at(200) };
        let deliveries = Deliveries::new(epoch, window, 4, 2);
        for (number, begun) in [(0, 50), (1, 110), (2, 120), (3, 130)] {
            deliveries.sent(number, at(begun));
        }
        deliveries.acknowledged(0);
        deliveries.acknowledged(1);
        deliveries.acknowledged(2);
        assert_eq!(deliveries.undelivered(), 2, "the first one is not of the window");
        for (number, seen) in [(0, 60), (0, 70), (1, 115), (1, 160), (2, 125), (3, 131)] {
            deliveries.seen(number, at(seen));
        }
        let last = deliveries.last();
        assert_eq!((last.total(), last.max()), (1, Some(Duration::from_millis(50))));
        assert_eq!(deliveries.undelivered(), 1, "the last one was not acknowledged");
        deliveries.seen(99, at(150));
        deliveries.acknowledged(99);
        assert_eq!(deliveries.last().total(), 1);
    }
}
