//! Backups: how fresh the state must be, and how long a caller waits.

use super::{Consistency, Context, ReadOptions, Service};
use crate::backups::{BackupStream, Kept};
use crate::error::ServiceError;

impl Service {
    /// Begins a backup of this node's state. Linearizable, it holds everything that was acknowledged before.
    pub async fn backup(
        &self,
        context: &Context,
        consistency: Consistency,
    ) -> Result<BackupStream, ServiceError> {
        let read = ReadOptions { consistency, ..ReadOptions::default() };
        let result = match self.await_freshness(context, &read).await {
            Ok(()) => self.backups().stream(context.deadline).await,
            Err(error) => Err(error),
        };
        self.counted("backup", result)
    }

    /// The backups in this node's data directory, newest first.
    pub async fn kept_backups(&self) -> Result<Vec<Kept>, ServiceError> {
        let result = self.backups().list().await;
        self.counted("backups", result)
    }

    /// Makes one there. `None`: it was not complete in time, and goes on.
    pub async fn keep_backup(&self, context: &Context) -> Result<Option<Kept>, ServiceError> {
        let result =
            match tokio::time::timeout_at(context.deadline.into(), self.backups().keep()).await {
                Ok(kept) => kept.map(Some),
                Err(_) => Ok(None),
            };
        self.counted("backup", result)
    }
}
