//! Numbers of the certificates that this node shows, and of handshakes that failed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use prometheus::proto::MetricFamily;

use super::NodeSample;
use super::family::{counters, gauges};

/// What there is to know of a certificate in use.
#[derive(Debug, Clone, Copy, Default)]
pub struct CertificateSample {
    /// Seconds since the Unix epoch.
    pub expires_at_s: i64,
    /// Changes of its files that were taken up.
    pub reloads: u64,
    /// Changes that could not be.
    pub reloads_failed: u64,
}

type Read = Box<dyn Fn() -> CertificateSample + Send + Sync>;

#[derive(Default)]
pub(super) struct TlsNumbers {
    certificates: RwLock<BTreeMap<&'static str, Read>>,
    http_failures: AtomicU64,
    grpc_failures: AtomicU64,
}

impl TlsNumbers {
    pub(super) fn certificate(
        &self,
        name: &'static str,
        read: impl Fn() -> CertificateSample + Send + Sync + 'static,
    ) {
        self.certificates.write().insert(name, Box::new(read));
    }

    pub(super) fn handshake_failed(&self, listener: &str) {
        let failures = match listener {
            "http" => &self.http_failures,
            _ => &self.grpc_failures,
        };
        failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn families(&self, sample: Option<&NodeSample>) -> Vec<MetricFamily> {
        let certificates: Vec<_> =
            self.certificates.read().iter().map(|(name, read)| (*name, read())).collect();
        let sum = |count: fn(&CertificateSample) -> u64| {
            certificates.iter().map(|(_, sample)| count(sample)).sum::<u64>() as f64
        };
        let raft = sample.map_or(0, |sample| sample.stats.tls_handshake_failures);
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed) as f64;
        let families = [
            gauges(
                "tls_certificate_expiry_timestamp_seconds",
                "When the certificate that the node shows expires",
                "certificate",
                certificates
                    .iter()
                    .map(|(name, sample)| ((*name).to_owned(), sample.expires_at_s as f64)),
            ),
            counters(
                "tls_reloads_total",
                "Changes of certificate files that were taken up, or could not be",
                "result",
                [
                    ("failed".to_owned(), sum(|sample| sample.reloads_failed)),
                    ("ok".to_owned(), sum(|sample| sample.reloads)),
                ],
            ),
            counters(
                "tls_handshake_failures_total",
                "TLS handshakes of arriving connections that failed",
                "listener",
                [
                    ("grpc".to_owned(), load(&self.grpc_failures)),
                    ("http".to_owned(), load(&self.http_failures)),
                    ("raft".to_owned(), raft as f64),
                ],
            ),
        ];
        // The text format has no families without samples.
        families.into_iter().filter(|family| !family.get_metric().is_empty()).collect()
    }
}
