//! Backups: the bytes of one as a stream, and those that nodes keep themselves.
//!
//! A backup that broke off is not resumed: the next one would be another revision. Whoever stores the bytes checks the
//! checksums in them before trusting them.

use std::time::Duration;

use bytes::Bytes;
use tonic::Streaming;

use crate::client::{Client, Effect};
use crate::error::Error;
use crate::retry::{Failure, classify};
use crate::v1;
use crate::v1::backup_service_client::BackupServiceClient;

/// Silence after which a backup counts as broken: a node that reads its disk sends all the time.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// A backup in arrival; see [`Client::backup`].
#[derive(Debug)]
pub struct Backup {
    stream: Streaming<v1::CreateBackupResponse>,
    ended: bool,
}

impl Client {
    /// Begins a backup of the whole store, from any one node. [`v1::Consistency::Unspecified`] is linearizable.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node began one before the deadline.
    pub async fn backup(&self, consistency: v1::Consistency) -> Result<Backup, Error> {
        let request = v1::CreateBackupRequest { consistency: consistency.into() };
        let response = self
            .call(&Effect::Stream, request, |channel, request| async move {
                BackupServiceClient::new(channel).create(request).await
            })
            .await?;
        Ok(Backup { stream: response.into_inner(), ended: false })
    }

    /// The backups that the answering node keeps in its data directory, newest first.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn list_backups(&self) -> Result<v1::ListBackupsResponse, Error> {
        let response = self
            .call(&Effect::Read, v1::ListBackupsRequest {}, |channel, request| async move {
                BackupServiceClient::new(channel).list(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Makes a backup in the data directory of the answering node.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn keep_backup(&self) -> Result<v1::KeepBackupResponse, Error> {
        let response = self
            .call(&Effect::Read, v1::KeepBackupRequest {}, |channel, request| async move {
                BackupServiceClient::new(channel).keep(request).await
            })
            .await?;
        Ok(response.into_inner())
    }
}

impl Backup {
    /// The next bytes of the file; `None` when all have come. After an error what came before is worth nothing.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the node gave up, [`Error::BrokenOff`] when the connection did.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.ended {
            return Ok(None);
        }
        let broken = |reason: String| Error::BrokenOff { reason };
        let next = match tokio::time::timeout(SILENCE_MAX, self.stream.message()).await {
            Ok(Ok(Some(response))) => return Ok(Some(response.chunk)),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(match classify(&status) {
                Failure::Rejected(rejection) => rejection.into(),
                failure => broken(failure.reason()),
            }),
            Err(_) => Err(broken(format!("nothing came for {SILENCE_MAX:?}"))),
        };
        self.ended = true;
        next
    }
}
