//! Handshakes that fail: what went wrong in words, counted, and logged at a bounded rate.
//!
//! Whoever reaches a listener can make one fail as often as they like, so no line of the log is promised to each.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::{AlertDescription, CertificateError, Error};

/// Time between two lines about failed handshakes of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Failed handshakes of one listener, or of the connections to others.
pub struct Failures {
    /// Beginning of each line.
    what: String,
    count: AtomicU64,
    logged: Mutex<Logged>,
}

#[derive(Default)]
struct Logged {
    at: Option<Instant>,
    unsaid: u64,
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failures").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Failures {
    /// `what` begins each line, such as "http listener: a TLS handshake failed".
    #[must_use]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), count: AtomicU64::new(0), logged: Mutex::default() }
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Counts one, and says so unless that was done a moment ago.
    pub fn note(&self, peer: impl fmt::Display, reason: &str) {
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(unsaid) = self.logged.lock().turn(Instant::now()) {
            tracing::warn!(%peer, not_logged_before = unsaid, "{}: {reason}", self.what);
        }
    }
}

impl Logged {
    /// Whether a line may be written now, and how many were not since the last one.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < LOG_INTERVAL) {
            self.unsaid += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Why a handshake failed, and what to look at. `None` when the other side went away without a word: whoever checks that
/// a port is open does that.
#[must_use]
pub fn refusal(error: &io::Error) -> Option<String> {
    let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe => None,
            _ => Some(error.to_string()),
        };
    };
    Some(match cause {
        Error::InvalidMessage(_) => {
            "the other side does not speak TLS on this connection; both sides need it, or \
             neither"
                .to_owned()
        }
        Error::NoCertificatesPresented => {
            "the other side showed no certificate, and this needs one".to_owned()
        }
        // A signature is wrong when two authorities have the same name.
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => {
            "the certificate of the other side is of no authority that this side trusts".to_owned()
        }
        Error::InvalidCertificate(reason) => {
            format!("the certificate of the other side cannot be accepted: {reason}")
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError),
        ) => format!("the other side does not accept this side's certificate ({alert:?})"),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_counted_and_logged_now_and_then() {
        let mut logged = Logged::default();
        let start = Instant::now();
        assert_eq!(logged.turn(start), Some(0));
        for _ in 0..5 {
            assert_eq!(logged.turn(start + LOG_INTERVAL / 2), None);
        }
        assert_eq!(logged.turn(start + LOG_INTERVAL), Some(5));
        let failures = Failures::new("a test");
        failures.note("peer", "reason");
        failures.note("peer", "reason");
        assert_eq!(failures.count(), 2);
    }

    #[test]
    fn who_only_looks_whether_the_port_is_open_is_no_failure() {
        assert_eq!(refusal(&io::ErrorKind::UnexpectedEof.into()), None);
        assert!(refusal(&io::Error::other("x")).is_some());
        let plain =
            io::Error::other(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        assert!(refusal(&plain).unwrap().contains("does not speak TLS"));
    }
}
