//! The room that all watchers of a node share for what they have pulled and not yet sent.
//!
//! A watcher whose client does not read keeps its share. When another one needs it, the connection of the watcher that
//! has held its share the longest is cut: its client resumes where it was.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// What one permit stands for.
const UNIT_BYTES: usize = 1024;
/// A watcher that holds its share for less than this is busy, not stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How often somebody who waits looks for a stuck one.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Who holds a share since when, in the order of taking.
type Holders = BTreeMap<u64, (Instant, Option<CancellationToken>)>;

pub(super) struct Room {
    units: Arc<Semaphore>,
    units_max: u32,
    holders: Mutex<(u64, Holders)>,
}

/// A share of the room; given back when dropped.
pub(super) struct Held {
    room: Arc<Room>,
    number: u64,
    _units: OwnedSemaphorePermit,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.room.holders.lock().1.remove(&self.number);
    }
}

impl Room {
    pub(super) fn new(bytes: usize) -> Arc<Self> {
        let units_max = u32::try_from(bytes / UNIT_BYTES).unwrap_or(u32::MAX);
        let units = Arc::new(Semaphore::new(usize::try_from(units_max).unwrap_or(usize::MAX)));
        Arc::new(Self { units, units_max, holders: Mutex::default() })
    }

    /// Takes room, cutting off who is stuck where there is none; nothing after a while in which none came free.
    pub(super) async fn take(
        self: Arc<Self>,
        bytes: usize,
        connection: Option<CancellationToken>,
    ) -> Option<Held> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        let units = units.min(self.units_max);
        let waiting = Arc::clone(&self.units).acquire_many_owned(units);
        tokio::pin!(waiting);
        let deadline = Instant::now() + WAIT_MAX;
        let permit = loop {
            match timeout(LOOK_INTERVAL, waiting.as_mut()).await {
                // Nobody closes the semaphore.
                Ok(permit) => break permit.ok()?,
                Err(_) if Instant::now() >= deadline => return None,
                Err(_) => self.cut_oldest(),
            }
        };
        let mut holders = self.holders.lock();
        holders.0 += 1;
        let number = holders.0;
        holders.1.insert(number, (Instant::now(), connection));
        drop(holders);
        Some(Held { room: self, number, _units: permit })
    }

    fn cut_oldest(&self) {
        let holders = self.holders.lock();
        let stuck = holders.1.values().find(|(since, connection)| {
            since.elapsed() >= STUCK_AFTER
                && connection.as_ref().is_some_and(|connection| !connection.is_cancelled())
        });
        if let Some((since, Some(connection))) = stuck {
            tracing::info!(stuck_for = ?since.elapsed(), "a watch that is not read is cut off");
            connection.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_stuck_the_longest_makes_room() {
        let room = Room::new(100 * UNIT_BYTES);
        let (stuck, busy) = (CancellationToken::new(), CancellationToken::new());
        let first = Arc::clone(&room).take(60 * UNIT_BYTES, Some(stuck.clone())).await.unwrap();
        let _second = Arc::clone(&room).take(40 * UNIT_BYTES, Some(busy.clone())).await.unwrap();
        let waiting = tokio::spawn(Arc::clone(&room).take(50 * UNIT_BYTES, None));
        stuck.cancelled().await;
        drop(first);
        assert!(waiting.await.unwrap().is_some());
        assert!(!busy.is_cancelled());
    }

    #[tokio::test]
    async fn one_larger_than_the_room_gets_all_of_it() {
        let room = Room::new(10 * UNIT_BYTES);
        assert!(Arc::clone(&room).take(usize::MAX, None).await.is_some());
        assert!(room.take(UNIT_BYTES, None).await.is_some(), "it was given back");
    }
}
