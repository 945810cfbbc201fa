//! Schemas as a fake: they are kept and counted, and nothing is held against them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use llm_config_client::v1;
use llm_config_client::v1::schema_service_server::SchemaService;
use tonic::{Request, Response, Status};

use super::{expect, found, refusal};

type Kept = BTreeMap<(String, String), v1::Schema>;

#[derive(Debug, Clone, Default)]
pub(crate) struct Schemas {
    state: Arc<Mutex<(u64, Kept)>>,
}

fn not_found() -> Status {
    refusal(tonic::Code::NotFound, "NOT_FOUND")
}

#[tonic::async_trait]
impl SchemaService for Schemas {
    async fn put_schema(
        &self,
        request: Request<v1::PutSchemaRequest>,
    ) -> Result<Response<v1::PutSchemaResponse>, Status> {
        let put = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let id = (put.namespace.clone(), put.key.clone());
        let there = state.1.get(&id).map_or(0, |schema| schema.version);
        expect(put.expected_version, there)?;
        state.0 += 1;
        let schema = v1::Schema {
            namespace: put.namespace,
            key: put.key,
            schema: put.schema,
            version: state.0,
            comment: put.comment,
            ..Default::default()
        };
        state.1.insert(id, schema.clone());
        found(v1::PutSchemaResponse { schema: Some(schema), created: there == 0 })
    }

    async fn get_schema(
        &self,
        request: Request<v1::GetSchemaRequest>,
    ) -> Result<Response<v1::GetSchemaResponse>, Status> {
        let get = request.into_inner();
        let state = self.state.lock().unwrap();
        let schema = state.1.get(&(get.namespace, get.key)).cloned();
        found(v1::GetSchemaResponse { schema: Some(schema.ok_or_else(not_found)?) })
    }

    /// One schema a page.
    async fn list_schemas(
        &self,
        request: Request<v1::ListSchemasRequest>,
    ) -> Result<Response<v1::ListSchemasResponse>, Status> {
        let list = request.into_inner();
        let state = self.state.lock().unwrap();
        let mut left = state.1.values().filter(|schema| {
            schema.namespace == list.namespace
                && schema.key.starts_with(&list.prefix)
                && schema.key > list.cursor
        });
        let items: Vec<v1::Schema> = left.next().cloned().into_iter().collect();
        let more = left.next().is_some();
        let next_cursor = items.last().filter(|_| more).map(|schema| schema.key.clone());
        found(v1::ListSchemasResponse { items, next_cursor: next_cursor.unwrap_or_default() })
    }

    async fn delete_schema(
        &self,
        request: Request<v1::DeleteSchemaRequest>,
    ) -> Result<Response<v1::DeleteSchemaResponse>, Status> {
        let delete = request.into_inner();
        let mut state = self.state.lock().unwrap();
        let id = (delete.namespace, delete.key);
        let version = state.1.get(&id).map(|schema| schema.version).ok_or_else(not_found)?;
        expect(delete.expected_version, version)?;
        state.1.remove(&id);
        found(v1::DeleteSchemaResponse { version })
    }
}
