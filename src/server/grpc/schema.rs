//! `llmconfig.v1.SchemaService`.

use llm_config_domain as domain;
use llm_config_proto::v1;
use llm_config_proto::v1::schema_service_server::SchemaService;
use tonic::{Request, Response, Status};

use super::call::{self, Call, read};
use super::convert;
use crate::error::ServiceError;
use crate::service::{
    DeleteSchemaRequest, GetSchemaRequest, ListSchemasRequest, PutSchemaRequest, Service,
};

pub(super) struct SchemaGateway {
    service: Service,
}

impl SchemaGateway {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    fn refuse(&self, error: ServiceError) -> Status {
        call::refuse(&self.service, error)
    }
}

#[tonic::async_trait]
impl SchemaService for SchemaGateway {
    async fn put_schema(
        &self,
        request: Request<v1::PutSchemaRequest>,
    ) -> Result<Response<v1::PutSchemaResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = PutSchemaRequest {
            namespace: message.namespace,
            key: message.key,
            schema: message.schema,
            comment: message.comment,
            expected_version: message.expected_version,
            idempotency_key: convert::given(message.idempotency_key),
        };
        let answer =
            self.service.put_schema(&context, request).await.map_err(|error| self.refuse(error))?;
        let (schema, created) = (Some(schema(answer.schema)), answer.created);
        Ok(Response::new(v1::PutSchemaResponse { schema, created }))
    }

    async fn get_schema(
        &self,
        request: Request<v1::GetSchemaRequest>,
    ) -> Result<Response<v1::GetSchemaResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = GetSchemaRequest {
            namespace: message.namespace,
            key: message.key,
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.schema(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::GetSchemaResponse { schema: Some(schema(answer.schema)) };
        Ok(read(message, answer.revision))
    }

    async fn list_schemas(
        &self,
        request: Request<v1::ListSchemasRequest>,
    ) -> Result<Response<v1::ListSchemasResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = ListSchemasRequest {
            namespace: message.namespace,
            prefix: message.prefix,
            limit: convert::limit(message.limit),
            cursor: convert::given(message.cursor),
            read: convert::read_options(message.read).map_err(|error| self.refuse(error))?,
        };
        let answer =
            self.service.schemas(&context, request).await.map_err(|error| self.refuse(error))?;
        let message = v1::ListSchemasResponse {
            items: answer.items.into_iter().map(schema).collect(),
            next_cursor: answer.next_cursor.unwrap_or_default(),
        };
        Ok(read(message, answer.revision))
    }

    async fn delete_schema(
        &self,
        request: Request<v1::DeleteSchemaRequest>,
    ) -> Result<Response<v1::DeleteSchemaResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let request = DeleteSchemaRequest {
            namespace: message.namespace,
            key: message.key,
            comment: message.comment,
            expected_version: message.expected_version,
            idempotency_key: convert::given(message.idempotency_key),
        };
        let answer = self.service.delete_schema(&context, request).await;
        let answer = answer.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::DeleteSchemaResponse { version: answer.version }))
    }
}

fn schema(schema: domain::Schema) -> v1::Schema {
    v1::Schema {
        namespace: schema.namespace.as_str().to_owned(),
        key: schema.key.as_str().to_owned(),
        schema: schema.schema.bytes(),
        version: schema.version,
        created_at: Some(convert::timestamp(schema.created_at_ms)),
        created_by: schema.created_by,
        updated_at: Some(convert::timestamp(schema.updated_at_ms)),
        updated_by: schema.updated_by,
        comment: schema.comment,
    }
}
