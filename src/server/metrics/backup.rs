//! Numbers of the backups that this node keeps in its data directory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::family::{counter, gauge};

/// Plain atomics: written a few times a day, read when the page is asked for.
#[derive(Default)]
pub(super) struct BackupNumbers {
    last_success_s: AtomicU64,
    duration_ms: AtomicU64,
    size_bytes: AtomicU64,
    failures: AtomicU64,
}

impl BackupNumbers {
    pub(super) fn found(&self, made_at_s: u64, bytes: u64) {
        self.last_success_s.store(made_at_s, Ordering::Relaxed);
        self.size_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn made(&self, made_at_s: u64, bytes: u64, took: Duration) {
        self.found(made_at_s, bytes);
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.duration_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
        vec![
            gauge(
                "backup_last_success_timestamp_seconds",
                "When the newest backup in the data directory was made; 0: there is none",
                load(&self.last_success_s),
            ),
            gauge(
                "backup_duration_seconds",
                "Time that the last backup into the data directory took",
                load(&self.duration_ms) / 1e3,
            ),
            gauge(
                "backup_size_bytes",
                "Size of the newest backup in the data directory",
                load(&self.size_bytes),
            ),
            counter(
                "backup_failures_total",
                "Backups into the data directory that failed or were skipped",
                load(&self.failures),
            ),
        ]
    }
}
