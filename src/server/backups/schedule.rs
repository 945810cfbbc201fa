//! Backups by themselves: one when the newest is old enough, whoever made that one and however often the node started.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keep::now_s;
use super::{Backups, files};

/// Longest time between two looks: wall clocks jump, machines sleep, and somebody may delete the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How soon a node that is not ready yet, or a backup that failed, is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(300);
const READY_INTERVAL: Duration = Duration::from_millis(500);

impl Backups {
    /// Clears the folder of what a crash left, then makes a backup whenever one is due, until closing. Without an
    /// interval it only clears.
    pub async fn run(self, interval: Option<Duration>, closing: CancellationToken) {
        self.clear().await;
        let Some(interval) = interval else { return };
        let mut wait = Duration::ZERO;
        let mut made = None;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep_until(Instant::now() + wait) => {}
            }
            wait = self.tick(interval, &mut made).await;
        }
    }

    /// Makes a backup if one is due. The time until it is worth to look again.
    async fn tick(&self, interval: Duration, made: &mut Option<Instant>) -> Duration {
        if !self.inner.replica.recovered() {
            return READY_INTERVAL;
        }
        let newest = match self.list().await {
            Ok(kept) => kept.first().map(|kept| kept.created_at_s),
            Err(error) => {
                tracing::warn!(reason = %error, "the backups could not be listed");
                return RETRY_INTERVAL.min(interval);
            }
        };
        let since_made = made.map(|made| made.elapsed());
        let due = due_in(newest, now_s(), since_made, interval);
        if !due.is_zero() {
            return due.min(LOOK_INTERVAL);
        }
        match self.keep().await {
            Ok(_) => {
                *made = Some(Instant::now());
                Duration::ZERO
            }
            // Somebody asked for one at this moment.
            Err(error) if error.code() == "OVERLOADED" => READY_INTERVAL,
            Err(error) => {
                if !self.stopping() {
                    tracing::warn!(reason = %error, "the scheduled backup failed");
                }
                RETRY_INTERVAL.min(interval)
            }
        }
    }

    async fn clear(&self) {
        let this = self.clone();
        let cleared = tokio::task::spawn_blocking(move || files::sweep(&this.inner.folder)).await;
        if let Ok(Err(error)) = cleared {
            tracing::warn!(folder = %self.inner.folder.display(), reason = %error, "half-written backups could not be deleted");
        }
        if let Ok(kept) = self.list().await
            && let Some(newest) = kept.first()
        {
            self.inner.metrics.backup_found(newest.created_at_s, newest.bytes);
        }
    }
}

/// How long until a backup is due. A newest one from the future, by a clock that was wrong, says nothing: then the time
/// since this process made one counts, by another clock.
fn due_in(
    newest_s: Option<u64>,
    now_s: u64,
    since_made: Option<Duration>,
    interval: Duration,
) -> Duration {
    let Some(newest_s) = newest_s else { return Duration::ZERO };
    let age = match now_s.checked_sub(newest_s) {
        Some(age) => Duration::from_secs(age),
        None => since_made.unwrap_or(interval),
    };
    interval.saturating_sub(age)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_due_when_the_newest_is_an_interval_old() {
        let day = Duration::from_secs(86_400);
        let due = |newest, now| due_in(newest, now, None, day);
        assert_eq!(due(None, 1_000_000), Duration::ZERO);
        assert_eq!(due(Some(1_000_000), 1_000_000), day);
        assert_eq!(due(Some(1_000_000), 1_086_399), Duration::from_secs(1));
        assert_eq!(due(Some(1_000_000), 1_086_400), Duration::ZERO);
    }

    #[test]
    fn a_file_from_the_future_holds_nothing_up() {
        let day = Duration::from_secs(86_400);
        let due = |since_made| due_in(Some(9_000_000), 1_000_000, since_made, day);
        assert_eq!(due(None), Duration::ZERO);
        assert_eq!(due(Some(Duration::from_secs(1))), day - Duration::from_secs(1));
        assert_eq!(due(Some(day)), Duration::ZERO);
    }
}
