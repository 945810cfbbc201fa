//! When requests begin, and which of them count.
//!
//! In a closed loop a client sends its next request when the last one is answered: a server that stalls stops the clock of
//! all that would have come meanwhile. In an open loop requests arrive at a fixed rate, whatever the server does. One that
//! finds no client free waits, and its latency runs from the moment at which it was meant to begin, so that a stall costs
//! everything that arrived during it (no coordinated omission).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

const NANOS: u128 = 1_000_000_000;

/// The measured part of a run.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Its first moment.
    pub from: Instant,
    /// The first moment after it.
    pub to: Instant,
}

impl Window {
    /// Whether a moment lies in it.
    #[must_use]
    pub fn has(&self, moment: Instant) -> bool {
        self.from <= moment && moment < self.to
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to - self.from
    }
}

/// Arrivals at equal distances.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    first: Instant,
    per_second: u64,
    total: u64,
}

impl Schedule {
    /// So many a second from `first` until before `end`.
    #[must_use]
    pub fn new(first: Instant, end: Instant, per_second: u64) -> Self {
        let mut schedule = Self { first, per_second: per_second.max(1), total: u64::MAX };
        schedule.total = schedule.before(end);
        schedule
    }

    /// How many there are.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When one of them is meant to begin: whole nanoseconds, rounded down.
    #[must_use]
    pub fn at(&self, index: u64) -> Instant {
        let (seconds, rest) = (index / self.per_second, index % self.per_second);
        let nanos = u128::from(rest) * NANOS / u128::from(self.per_second);
        let nanos = u64::try_from(nanos).unwrap_or_default();
        self.first + Duration::from_secs(seconds) + Duration::from_nanos(nanos)
    }

    /// How many have arrived by then, at that moment itself too.
    #[must_use]
    pub fn due(&self, now: Instant) -> u64 {
        self.before(now + Duration::from_nanos(1))
    }

    /// How many are meant to begin in a window.
    #[must_use]
    pub fn within(&self, window: Window) -> u64 {
        self.before(window.to) - self.before(window.from)
    }

    fn before(&self, moment: Instant) -> u64 {
        let passed = moment.saturating_duration_since(self.first).as_nanos();
        let begun = (passed * u128::from(self.per_second)).div_ceil(NANOS);
        u64::try_from(begun).unwrap_or(u64::MAX).min(self.total)
    }
}

/// Hands arrivals to whichever client is free.
#[derive(Debug)]
pub struct Arrivals {
    schedule: Schedule,
    due: Semaphore,
    taken: AtomicU64,
}

impl Arrivals {
    /// Nothing arrives before [`Arrivals::start`].
    #[must_use]
    pub fn new(schedule: Schedule) -> Arc<Self> {
        Arc::new(Self { schedule, due: Semaphore::new(0), taken: AtomicU64::new(0) })
    }

    /// Lets them arrive, from a thread of its own: the runtime's timers are a millisecond coarse. It ends after the last
    /// arrival, when every one of `clients` has been told that there are no more.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(self: &Arc<Self>, clients: usize) -> anyhow::Result<JoinHandle<()>> {
        let arrivals = Arc::clone(self);
        let pace = move || {
            let mut released = 0;
            while released < arrivals.schedule.total {
                let due = arrivals.schedule.due(Instant::now());
                arrivals.release(due - released);
                released = due;
                let next = arrivals.schedule.at(released);
                std::thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            arrivals.release(clients as u64);
        };
        Ok(std::thread::Builder::new().name("arrivals".into()).spawn(pace)?)
    }

    fn release(&self, count: u64) {
        self.due.add_permits(usize::try_from(count).unwrap_or_default());
    }

    /// The next arrival, by its number and the moment at which it is meant to begin; nothing when there are no more.
    pub async fn next(&self) -> Option<(u64, Instant)> {
        self.due.acquire().await.ok()?.forget();
        let index = self.taken.fetch_add(1, Ordering::Relaxed);
        (index < self.schedule.total).then(|| (index, self.schedule.at(index)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Histogram;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn arrivals_are_evenly_spread_and_end() {
        let first = Instant::now();
        let schedule = Schedule::new(first, first + Duration::from_secs(10), 300);
        assert_eq!(schedule.total, 3000);
        assert_eq!((schedule.at(0), schedule.at(300)), (first, first + Duration::from_secs(1)));
        assert_eq!(schedule.due(first - MS), 0);
        assert_eq!(schedule.due(first), 1);
        assert_eq!(schedule.due(first + 4 * MS), 2);
        assert_eq!(schedule.due(first + Duration::from_secs(60)), 3000);
        for index in [0, 1, 7, 299, 300, 2999] {
            assert!(schedule.due(schedule.at(index) + MS) > index, "{index}");
        }
        let window = Window { from: first + 2000 * MS, to: first + 7000 * MS };
        assert_eq!(schedule.within(window), 1500);
        assert!(window.has(window.from) && !window.has(window.to));
        assert_eq!(window.length(), Duration::from_secs(5));
    }

    /// A server that answers in 1 ms but stalls once for half a second, under 500 arrivals a second: what was meant to
    /// begin during the stall waits, and the quantiles say so.
    #[test]
    fn a_stall_costs_all_that_arrived_during_it() {
        let first = Instant::now();
        let schedule = Schedule::new(first, first + Duration::from_secs(10), 500);
        let (mut intended, mut sent) = (Histogram::default(), Histogram::default());
        let mut free = first;
        for index in 0..schedule.total {
            let begun = schedule.at(index).max(free);
            free = begun + if index == 1000 { 500 * MS } else { MS };
            intended.record(free - schedule.at(index));
            sent.record(free - begun);
        }
        let over = |histogram: &Histogram| {
            histogram.quantile(0.95).is_some_and(|latency| latency > Duration::from_millis(100))
        };
        assert!(over(&intended), "{:?}", intended.quantiles());
        assert!(!over(&sent), "what a closed loop would tell: {:?}", sent.quantiles());
        assert_eq!(intended.max(), Some(500 * MS));
    }

    #[tokio::test]
    async fn every_arrival_is_taken_once_and_every_client_hears_of_the_end() {
        let first = Instant::now();
        let arrivals = Arrivals::new(Schedule::new(first, first + 50 * MS, 2000));
        let thread = arrivals.start(3).unwrap();
        let client = |arrivals: Arc<Arrivals>| async move {
            let mut taken = Vec::new();
            while let Some((index, begun)) = arrivals.next().await {
                assert!(begun <= Instant::now(), "{index} came early");
                taken.push(index);
            }
            taken
        };
        let tasks = [0; 3].map(|_| tokio::spawn(client(Arc::clone(&arrivals))));
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.unwrap());
        }
        all.sort_unstable();
        assert_eq!(all, (0..100).collect::<Vec<_>>());
        thread.join().unwrap();
    }
}
