//! Schemas: what values of a key have to meet. Message by message; what a schema says is the node's to judge.

use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, Client, Effect, write_effect};
use crate::error::Error;
use crate::v1::schema_service_client::SchemaServiceClient;
use crate::v1::{self, Consistency, ReadOptions};

impl Client {
    /// Puts a schema for a key of a namespace, or replaces it. An empty idempotency key is replaced by a fresh one.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`] or [`Error::OutcomeUnknown`].
    pub async fn put_schema(
        &self,
        mut request: v1::PutSchemaRequest,
    ) -> Result<v1::PutSchemaResponse, Error> {
        let effect = write_effect(&mut request.idempotency_key);
        let response = self
            .call(&effect, request, |channel, request| async move {
                schemas(channel).put_schema(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Reads the schema of a key; `NOT_FOUND` when there is none (see [`Error::is_not_found`]). Within a session it is
    /// linearizable unless a consistency is named: a schema makes no revision that a node could wait for.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn get_schema(
        &self,
        mut request: v1::GetSchemaRequest,
    ) -> Result<v1::GetSchemaResponse, Error> {
        request.read = self.newest_in_session(request.read);
        let response = self
            .call(&Effect::Read, request, |channel, request| async move {
                schemas(channel).get_schema(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Reads one page of the schemas of a namespace, sorted by key; as fresh as [`Client::get_schema`].
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn list_schemas(
        &self,
        mut request: v1::ListSchemasRequest,
    ) -> Result<v1::ListSchemasResponse, Error> {
        request.read = self.newest_in_session(request.read);
        let response = self
            .call(&Effect::Read, request, |channel, request| async move {
                schemas(channel).list_schemas(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Deletes the schema of a key. An empty idempotency key is replaced by a fresh one.
    ///
    /// # Errors
    /// [`Error::Rejected`], [`Error::NotSent`] or [`Error::OutcomeUnknown`].
    pub async fn delete_schema(
        &self,
        mut request: v1::DeleteSchemaRequest,
    ) -> Result<v1::DeleteSchemaResponse, Error> {
        let effect = write_effect(&mut request.idempotency_key);
        let response = self
            .call(&effect, request, |channel, request| async move {
                schemas(channel).delete_schema(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    fn newest_in_session(&self, read: Option<ReadOptions>) -> Option<ReadOptions> {
        let read = read.unwrap_or_default();
        if !self.has_session() || read.consistency() != Consistency::Unspecified {
            return self.in_session(Some(read));
        }
        Some(ReadOptions { consistency: Consistency::Linearizable.into(), ..read })
    }
}

fn schemas(channel: Channel) -> SchemaServiceClient<Channel> {
    SchemaServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
