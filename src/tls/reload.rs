//! What is made of certificate files, and made anew when they change.
//!
//! The files are looked at, not watched: that works on every file system and mount. A change is taken up when it was seen
//! twice, because a certificate and its key are two files and no tool exchanges them in one step.

use std::fmt;
use std::hash::RandomState;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::time::MissedTickBehavior;

use crate::error::TlsError;
use crate::material::{Contents, Material, Set};

/// Time between two looks at the files: an exchanged certificate is served after two of them.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Makes `T` of what is in the files, or says why it cannot.
type Make<T> = Box<dyn Fn(Material) -> Result<T, TlsError> + Send + Sync>;

/// See the module.
pub struct Reloading<T> {
    set: Set,
    make: Make<T>,
    current: RwLock<Arc<Current<T>>>,
    looked: Mutex<Looked>,
    hasher: RandomState,
    taken: AtomicU64,
    refused: AtomicU64,
}

struct Current<T> {
    made: T,
    expires_at_s: i64,
}

/// Fingerprints of the files' contents.
struct Looked {
    /// What was tried last, whether or not it could be used.
    tried: u64,
    /// What the last look saw.
    last: u64,
}

/// How often changed files were taken up, and how often they could not be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reloads {
    /// Taken up.
    pub ok: u64,
    /// Not usable: what was there before stays.
    pub failed: u64,
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloading").field("files", &self.set.own).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Reloading<T> {
    pub(crate) fn load(
        set: Set,
        make: impl Fn(Material) -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Arc<Self>, TlsError> {
        let hasher = RandomState::new();
        let contents = set.read();
        let fingerprint = contents.fingerprint(&hasher);
        let current = made(&set, contents, &make)?;
        Ok(Arc::new(Self {
            set,
            make: Box::new(make),
            current: RwLock::new(Arc::new(current)),
            looked: Mutex::new(Looked { tried: fingerprint, last: fingerprint }),
            hasher,
            taken: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Looks at the files until `closing`, and takes up what has changed.
    pub async fn watch(self: Arc<Self>, closing: impl Future<Output = ()>) {
        self.watch_every(LOOK_INTERVAL, closing).await;
    }

    pub(crate) async fn watch_every(
        self: Arc<Self>,
        interval: Duration,
        closing: impl Future<Output = ()>,
    ) {
        tokio::pin!(closing);
        let mut looks = tokio::time::interval(interval);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut closing => return,
                _ = looks.tick() => {}
            }
            let this = Arc::clone(&self);
            // Files may lie on a disk that is slow to answer.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look()).await {
                tracing::error!(%error, "{}: the look at the files broke off", self.set.own.certificate);
            }
        }
    }

    /// One look.
    pub(crate) fn look(&self) {
        let contents = self.set.read();
        let seen = contents.fingerprint(&self.hasher);
        let mut looked = self.looked.lock();
        let settled = seen == looked.last;
        looked.last = seen;
        if !settled || seen == looked.tried {
            return;
        }
        looked.tried = seen;
        match made(&self.set, contents, &self.make) {
            Ok(current) => {
                *self.current.write() = Arc::new(current);
                self.taken.fetch_add(1, Ordering::Relaxed);
                tracing::info!("{}: the certificate was exchanged", self.set.own.certificate);
            }
            Err(error) => {
                self.refused.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "the certificate is not exchanged, the one before stays in use: {error}"
                );
            }
        }
    }

    /// When the certificate in use expires, in seconds since the Unix epoch.
    #[must_use]
    pub fn expires_at_s(&self) -> i64 {
        self.current.read().expires_at_s
    }

    /// What came of changes of the files.
    #[must_use]
    pub fn reloads(&self) -> Reloads {
        Reloads {
            ok: self.taken.load(Ordering::Relaxed),
            failed: self.refused.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn with<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        let current = Arc::clone(&self.current.read());
        read(&current.made)
    }
}

fn made<T>(
    set: &Set,
    contents: Contents,
    make: impl Fn(Material) -> Result<T, TlsError>,
) -> Result<Current<T>, TlsError> {
    let material = set.parse(contents)?;
    let facts = material.facts.clone();
    let made = make(material)?;
    if let Some(reason) = facts.out_of_date() {
        tracing::warn!(
            "{}: {reason}, so the other side of a connection refuses it; write a new certificate and key into the \
             files, they are read again by themselves",
            set.own.certificate
        );
    }
    Ok(Current { made, expires_at_s: facts.expires_at_s })
}
