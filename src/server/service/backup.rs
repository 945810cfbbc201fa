//! Backups: how fresh the state must be, and how long a caller waits.

use llm_config_domain::{Action, AuditKind, Need};

use super::{Consistency, Context, ReadOptions, Service};
use crate::backups::{BackupStream, Kept};
use crate::error::ServiceError;

const NEED: Need = Need::Everywhere(Action::Backup);

impl Service {
    /// Begins a backup of this node's state. Linearizable, it holds everything that was acknowledged before.
    pub async fn backup(
        &self,
        context: &Context,
        consistency: Consistency,
    ) -> Result<BackupStream, ServiceError> {
        let result = self.begin_backup(context, consistency).await;
        self.counted(context, "backup", result)
    }

    async fn begin_backup(
        &self,
        context: &Context,
        consistency: Consistency,
    ) -> Result<BackupStream, ServiceError> {
        let read = ReadOptions { consistency, ..ReadOptions::default() };
        self.fresh(context, &read, &[NEED]).await?;
        self.note(context, AuditKind::AdminBackup, "streamed".into()).await;
        self.backups().stream(context.deadline).await
    }

    /// The backups in this node's data directory, newest first.
    pub async fn kept_backups(&self, context: &Context) -> Result<Vec<Kept>, ServiceError> {
        let result = match self.authorize(context, &[NEED]).await {
            Ok(()) => self.backups().list().await,
            Err(error) => Err(error),
        };
        self.counted(context, "backups", result)
    }

    /// Makes one there. `None`: it was not complete in time, and goes on.
    pub async fn keep_backup(&self, context: &Context) -> Result<Option<Kept>, ServiceError> {
        let result = self.make_backup(context).await;
        self.counted(context, "backup", result)
    }

    async fn make_backup(&self, context: &Context) -> Result<Option<Kept>, ServiceError> {
        self.authorize(context, &[NEED]).await?;
        let detail = format!("kept on node {}", self.replica().node_id());
        self.note(context, AuditKind::AdminBackup, detail).await;
        match tokio::time::timeout_at(context.deadline.into(), self.backups().keep()).await {
            Ok(kept) => kept.map(Some),
            Err(_) => Ok(None),
        }
    }
}
