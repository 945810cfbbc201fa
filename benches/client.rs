//! One client: what it sends, and what it counts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::rngs::StdRng;

use crate::delivery::Deliveries;
use crate::histogram::Histogram;
use crate::pace::{Arrivals, Window};
use crate::system::{Caller, Reads};
use crate::values::Values;

/// What one client has counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) reads: Histogram,
    pub(crate) writes: Histogram,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Tally {
    pub(crate) fn operations(&self) -> u64 {
        self.reads.total() + self.writes.total()
    }

    fn count(&mut self, read: bool, latency: Duration, result: anyhow::Result<()>) {
        match result {
            Ok(()) if read => self.reads.record(latency),
            Ok(()) => self.writes.record(latency),
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// Looked at while the client runs, and when it hangs.
pub(crate) type Shared = Arc<Mutex<Tally>>;

pub(crate) fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request is under way at a time.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) caller: Caller,
    /// The same seed draws the same keys and the same order of reads and writes.
    pub(crate) rng: StdRng,
    pub(crate) keys: usize,
    pub(crate) reads_percent: u8,
    pub(crate) reads: Reads,
    pub(crate) values: Arc<Values>,
    pub(crate) deliveries: Option<Arc<Deliveries>>,
    pub(crate) window: Window,
    pub(crate) tally: Shared,
}

impl Client {
    /// The next request when the last one is answered. One counts when its answer arrives in the window.
    pub(crate) async fn closed(mut self, first: Instant) {
        tokio::time::sleep_until(first.into()).await;
        loop {
            let begun = Instant::now();
            if begun >= self.window.to {
                return;
            }
            let (read, result) = self.operate(None, begun).await;
            let now = Instant::now();
            if self.window.has(now) {
                lock(&self.tally).count(read, now - begun, result);
            }
        }
    }

    /// The next request when one has arrived. One counts when it was meant to begin in the window, whenever it is
    /// answered, and from that moment on.
    pub(crate) async fn open(mut self, arrivals: Arc<Arrivals>) {
        while let Some((number, meant)) = arrivals.next().await {
            let (read, result) = self.operate(Some(number), meant).await;
            if self.window.has(meant) {
                let latency = Instant::now().saturating_duration_since(meant);
                lock(&self.tally).count(read, latency, result);
            }
        }
    }

    /// Whether it read, and what came of it.
    async fn operate(&mut self, number: Option<u64>, begun: Instant) -> (bool, anyhow::Result<()>) {
        let key = self.rng.random_range(0..self.keys);
        if self.rng.random_range(0..100) < self.reads_percent {
            return (true, self.caller.get(key, self.reads).await.map(drop));
        }
        let watched = self.deliveries.as_ref().zip(number);
        let value = self.values.any(&mut self.rng, watched.map(|(_, number)| number));
        if let Some((deliveries, number)) = watched {
            deliveries.sent(number, begun);
        }
        let written = self.caller.put(key, value).await;
        if let (Some((deliveries, number)), Ok(())) = (watched, &written) {
            deliveries.acknowledged(number);
        }
        (false, written)
    }
}
