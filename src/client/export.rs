//! All entries of a namespace in one environment, as they are at one revision.
//!
//! An export that broke off is not resumed: the rest would be of another revision.

use std::time::Duration;

use crate::client::{Client, Effect, config};
use crate::error::Error;
use crate::retry::{Failure, classify};
use crate::v1;

/// Silence after which an export counts as broken: a node that reads its disk sends all the time.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// The most that is collected: keys and values, in bytes.
const EXPORT_BYTES_MAX: usize = 1 << 30;

/// What [`Client::export`] collected.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Export {
    /// The revision that all entries were read at; 0 when there are none and the node did not say.
    pub revision: u64,
    /// Sorted by key; without deleted ones, and secrets are masked.
    pub entries: Vec<v1::Entry>,
}

impl Client {
    /// Reads all entries of a namespace in one environment, as they are at one revision. A transaction that compares the
    /// versions found here changes what was seen, or nothing. At most 1 GiB is collected.
    ///
    /// # Errors
    /// [`Error::Rejected`]; [`Error::NotSent`] when no node began before the deadline; [`Error::BrokenOff`] when the
    /// connection broke, or there is more than fits; [`Error::Malformed`] when the parts do not belong together.
    pub async fn export(&self, mut request: v1::ExportRequest) -> Result<Export, Error> {
        request.read = self.in_session(request.read);
        let response = self
            .call(&Effect::Stream, request, |channel, request| async move {
                config(channel).export(request).await
            })
            .await?;
        let mut stream = response.into_inner();
        let broken = |reason: String| Error::BrokenOff { reason };
        let mut revision = None;
        let mut entries: Vec<v1::Entry> = Vec::new();
        let mut bytes: usize = 0;
        loop {
            let part = match tokio::time::timeout(SILENCE_MAX, stream.message()).await {
                Ok(Ok(Some(part))) => part,
                Ok(Ok(None)) => break,
                Ok(Err(status)) => {
                    return Err(match classify(&status) {
                        Failure::Rejected(rejection) => rejection.into(),
                        failure => broken(failure.reason()),
                    });
                }
                Err(_) => return Err(broken(format!("nothing came for {SILENCE_MAX:?}"))),
            };
            if *revision.get_or_insert(part.revision) != part.revision {
                return Err(Error::Malformed { missing: "single revision" });
            }
            for entry in part.items {
                if entries.last().is_some_and(|last| last.key >= entry.key) {
                    return Err(Error::Malformed { missing: "order by key" });
                }
                bytes = bytes.saturating_add(entry.key.len()).saturating_add(entry.value.len());
                if bytes > EXPORT_BYTES_MAX {
                    return Err(broken(format!("there is more than {EXPORT_BYTES_MAX} bytes")));
                }
                entries.push(entry);
            }
        }
        let revision = revision.unwrap_or_default();
        self.seen(revision);
        Ok(Export { revision, entries })
    }
}
