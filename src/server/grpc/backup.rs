//! `llmconfig.v1.BackupService`.

use futures::StreamExt;
use futures::stream::BoxStream;
use llm_config_proto::v1;
use llm_config_proto::v1::backup_service_server::BackupService;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};

use super::call::{self, Call};
use super::{REVISION, convert};
use crate::backups::Kept;
use crate::error::ServiceError;
use crate::service::{Consistency, Service};

pub(super) struct BackupGateway {
    service: Service,
}

impl BackupGateway {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    fn refuse(&self, error: ServiceError) -> Status {
        call::refuse(&self.service, error)
    }
}

#[tonic::async_trait]
impl BackupService for BackupGateway {
    type CreateStream = BoxStream<'static, Result<v1::CreateBackupResponse, Status>>;

    async fn create(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateStream>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let consistency = match v1::Consistency::try_from(message.consistency) {
            Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => {
                Consistency::Linearizable
            }
            Ok(v1::Consistency::Cached) => Consistency::Cached,
            Err(_) => {
                let reason = format!("{} is not one of 0, 1 and 2", message.consistency);
                return Err(self.refuse(ServiceError::invalid("consistency", reason)));
            }
        };
        let stream =
            self.service.backup(&context, consistency).await.map_err(|error| self.refuse(error))?;
        let gateway = Self::new(self.service.clone());
        let chunks = stream.chunks.into_stream().map(move |chunk| match chunk {
            Ok(chunk) => Ok(v1::CreateBackupResponse { chunk }),
            Err(error) => Err(gateway.refuse(error)),
        });
        let mut response: Response<Self::CreateStream> = Response::new(chunks.boxed());
        response.metadata_mut().insert(REVISION, MetadataValue::from(stream.manifest.revision));
        Ok(response)
    }

    async fn list(
        &self,
        request: Request<v1::ListBackupsRequest>,
    ) -> Result<Response<v1::ListBackupsResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let kept = self.service.kept_backups(&context).await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::ListBackupsResponse {
            node_id: self.service.replica().node_id(),
            items: kept.into_iter().map(message).collect(),
        }))
    }

    async fn keep(
        &self,
        request: Request<v1::KeepBackupRequest>,
    ) -> Result<Response<v1::KeepBackupResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let kept = self.service.keep_backup(&context).await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::KeepBackupResponse {
            node_id: self.service.replica().node_id(),
            backup: kept.map(message),
        }))
    }
}

fn message(kept: Kept) -> v1::KeptBackup {
    v1::KeptBackup {
        name: kept.name,
        bytes: kept.bytes,
        revision: kept.revision,
        created_at: Some(convert::timestamp(kept.created_at_s.saturating_mul(1000))),
    }
}
