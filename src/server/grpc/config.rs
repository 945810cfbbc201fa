//! `llmconfig.v1.ConfigService`.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use llm_config_proto::v1;
use llm_config_proto::v1::config_service_server::ConfigService;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::answer::leader_address;
use super::call::{self, Call, read};
use super::{convert, error};
use crate::error::ServiceError;
use crate::service::{
    DeleteRequest, DiffRequest, Export, ExportRequest, GetRequest, HistoryRequest, ListRequest,
    NamespacesRequest, ResolveRequest, RollbackRequest, Service, SetRequest, TxnRequest,
};
use crate::watch::Watcher;

pub(super) struct ConfigGateway {
    service: Service,
}

impl ConfigGateway {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    fn refuse(&self, error: ServiceError) -> Status {
        call::refuse(&self.service, error)
    }
}

#[tonic::async_trait]
impl ConfigService for ConfigGateway {
    async fn get(
        &self,
        request: Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = GetRequest {
            target: convert::target(message.namespace, message.key, message.environment),
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
            resolve: message.resolve,
            version: message.version,
            reveal: message.reveal,
        };
        let answer =
            self.service.get(&context, request).await.map_err(|error| self.refuse(error))?;
        let entry = convert::shown(Arc::unwrap_or_clone(answer.entry), answer.revealed.as_ref());
        Ok(read(v1::GetResponse { entry: Some(entry) }, answer.revision))
    }

    async fn set(
        &self,
        request: Request<v1::SetRequest>,
    ) -> Result<Response<v1::SetResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = SetRequest {
            target: convert::target(message.namespace, message.key, message.environment),
            value: message.value,
            secret: message.secret,
            description: message.description,
            tags: message.tags,
            comment: message.comment,
            expected_version: message.expected_version,
            idempotency_key: convert::given(message.idempotency_key),
        };
        let answer =
            self.service.set(&context, request).await.map_err(|error| self.refuse(error))?;
        let message =
            v1::SetResponse { entry: Some(convert::shared(answer.entry)), created: answer.created };
        Ok(Response::new(message))
    }

    async fn delete(
        &self,
        request: Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = DeleteRequest {
            target: convert::target(message.namespace, message.key, message.environment),
            expected_version: message.expected_version,
            comment: message.comment,
            idempotency_key: convert::given(message.idempotency_key),
        };
        let answer =
            self.service.delete(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::DeleteResponse { version: answer.version, revision: answer.revision };
        Ok(Response::new(message))
    }

    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = ListRequest {
            namespace: message.namespace,
            environment: message.environment,
            prefix: message.prefix,
            limit: convert::limit(message.limit),
            cursor: convert::given(message.cursor),
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.list(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::ListResponse {
            items: answer.items.into_iter().map(convert::entry).collect(),
            next_cursor: answer.next_cursor.unwrap_or_default(),
            revision: answer.revision,
        };
        Ok(read(message, answer.revision))
    }

    async fn list_namespaces(
        &self,
        request: Request<v1::ListNamespacesRequest>,
    ) -> Result<Response<v1::ListNamespacesResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = NamespacesRequest {
            prefix: message.prefix,
            limit: convert::limit(message.limit),
            cursor: convert::given(message.cursor),
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.namespaces(&context, request).await.map_err(|error| self.refuse(error))?;
        let item = |summary: llm_config_domain::NamespaceSummary| v1::NamespaceSummary {
            namespace: summary.namespace.as_str().to_owned(),
            entries: summary.entries,
        };
        let message = v1::ListNamespacesResponse {
            items: answer.items.into_iter().map(item).collect(),
            next_cursor: answer.next_cursor.unwrap_or_default(),
            revision: answer.revision,
        };
        Ok(read(message, answer.revision))
    }

    async fn history(
        &self,
        request: Request<v1::HistoryRequest>,
    ) -> Result<Response<v1::HistoryResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = HistoryRequest {
            target: convert::target(message.namespace, message.key, message.environment),
            limit: convert::limit(message.limit),
            cursor: convert::given(message.cursor),
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.history(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::HistoryResponse {
            items: answer.items.into_iter().map(convert::entry).collect(),
            next_cursor: answer.next_cursor.unwrap_or_default(),
        };
        Ok(read(message, answer.revision))
    }

    async fn diff(
        &self,
        request: Request<v1::DiffRequest>,
    ) -> Result<Response<v1::DiffResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = DiffRequest {
            target: convert::target(message.namespace, message.key, message.environment),
            from: message.from,
            to: message.to,
            environment_from: message.environment_from,
            environment_to: message.environment_to,
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.diff(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::DiffResponse {
            from: Some(convert::entry(answer.from)),
            to: Some(convert::entry(answer.to)),
            patch: answer.patch.into(),
        };
        Ok(read(message, answer.revision))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = RollbackRequest {
            target: convert::target(message.namespace, message.key, message.environment),
            version: message.version,
            expected_version: message.expected_version,
            comment: message.comment,
            idempotency_key: convert::given(message.idempotency_key),
        };
        let answer =
            self.service.rollback(&context, request).await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::RollbackResponse { entry: Some(convert::shared(answer.entry)) }))
    }

    async fn resolve(
        &self,
        request: Request<v1::ResolveRequest>,
    ) -> Result<Response<v1::ResolveResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = ResolveRequest {
            namespace: message.namespace,
            environment: message.environment,
            reveal: message.reveal,
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.resolve(&context, request).await.map_err(|error| self.refuse(error))?;
        let revealed = &answer.revealed;
        let values = answer.values.iter().map(|(key, value, source)| v1::ResolvedValue {
            key: key.as_str().to_owned(),
            value: convert::value(value, revealed.get(key)),
            source: source.as_str().to_owned(),
            secret: value.is_secret(),
        });
        let message = v1::ResolveResponse {
            namespace: answer.namespace.as_str().to_owned(),
            environment: answer.environment.as_str().to_owned(),
            values: values.collect(),
            revision: answer.revision,
        };
        Ok(read(message, answer.revision))
    }

    async fn txn(
        &self,
        request: Request<v1::TxnRequest>,
    ) -> Result<Response<v1::TxnResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let ops = |ops: Vec<v1::TxnOp>| {
            ops.into_iter()
                .map(convert::txn_op)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|error| self.refuse(error))
        };
        let request = TxnRequest {
            compare: message.compare.into_iter().map(convert::compare).collect(),
            success: ops(message.success)?,
            failure: ops(message.failure)?,
            idempotency_key: convert::given(message.idempotency_key),
        };
        let answer =
            self.service.txn(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::TxnResponse {
            succeeded: answer.succeeded,
            revision: answer.revision,
            results: answer.results.into_iter().map(convert::txn_result).collect(),
        };
        Ok(Response::new(message))
    }

    type ExportStream = BoxStream<'static, Result<v1::ExportResponse, Status>>;

    async fn export(
        &self,
        request: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = ExportRequest {
            namespace: message.namespace,
            environment: message.environment,
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let export =
            self.service.export(&context, request).await.map_err(|error| self.refuse(error))?;
        let revision = export.revision;
        let parts: Self::ExportStream = Box::pin(parts(export, self.service.clone()));
        Ok(read(parts, revision))
    }

    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let timeout = convert::timeout(request.metadata());
        let context = call::context(&self.service, &request)?;
        let connection = request.extensions().get::<CancellationToken>().cloned();
        let mut watcher = self
            .service
            .watch(&context, convert::watch(request.into_inner()))
            .await
            .map_err(|error| self.refuse(error))?;
        watcher.cut_with(connection);
        Ok(Response::new(Box::pin(stream(watcher, self.service.clone(), timeout))))
    }
}

/// The parts of an export, until the last or an error.
fn parts(
    export: Export,
    service: Service,
) -> impl futures::Stream<Item = Result<v1::ExportResponse, Status>> + Send + 'static {
    futures::stream::unfold(Some((export, service)), move |open| async move {
        let (mut export, service) = open?;
        match export.next().await {
            Ok(Some(entries)) => {
                let items = entries.into_iter().map(convert::entry).collect();
                let part = v1::ExportResponse { revision: export.revision, items };
                Some((Ok(part), Some((export, service))))
            }
            Ok(None) => None,
            Err(error) => Some((Err(call::refuse(&service, error)), None)),
        }
    })
}

/// The batches of a watch, until an error, the caller's deadline, or the caller's end.
fn stream(
    watcher: Watcher,
    service: Service,
    timeout: Option<Duration>,
) -> impl futures::Stream<Item = Result<v1::WatchResponse, Status>> + Send + 'static {
    let ends = timeout.and_then(|timeout| tokio::time::Instant::now().checked_add(timeout));
    futures::stream::unfold(Some((watcher, service)), move |open| async move {
        let (mut watcher, service) = open?;
        let next = match ends {
            Some(ends) => tokio::time::timeout_at(ends, watcher.next()).await,
            None => Ok(watcher.next().await),
        };
        match next {
            Ok(Ok(batch)) => Some((Ok(convert::watch_batch(batch)), Some((watcher, service)))),
            Ok(Err(error)) => Some((
                Err(error::status(&error, leader_address(service.replica()).as_deref())),
                None,
            )),
            Err(_) => Some((
                Err(Status::deadline_exceeded("the deadline of the call has passed; watch again")),
                None,
            )),
        }
    })
}
