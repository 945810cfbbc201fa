//! Schemas that values have to meet, and a namespace as it is at one revision.
//!
//! What a schema means is the nodes' to judge; nothing is checked here.

use std::time::Duration;

use tonic::Streaming;
use tonic::transport::Channel;

use crate::client::{ANSWER_BYTES_MAX, Client, Effect, write_effect};
use crate::error::Error;
use crate::retry::{Failure, classify};
use crate::v1;
use crate::v1::config_service_client::ConfigServiceClient;
use crate::v1::schema_service_client::SchemaServiceClient;

/// A node that sends nothing for this long while it exports is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The entries of a namespace at one revision, as they come in; worth something only once [`Export::next`] has said
/// `None`.
#[derive(Debug)]
pub struct Export {
    stream: Streaming<v1::ExportResponse>,
    ended: bool,
}

impl Client {
    /// Puts the schema that later values of a key have to meet. An empty idempotency key is replaced by a fresh one.
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

    /// Reads the schema of a key; `NOT_FOUND` when there is none (see [`Error::is_not_found`]).
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn get_schema(
        &self,
        mut request: v1::GetSchemaRequest,
    ) -> Result<v1::GetSchemaResponse, Error> {
        request.read = self.in_session(request.read);
        let response = self
            .call(&Effect::Read, request, |channel, request| async move {
                schemas(channel).get_schema(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Reads one page of a namespace's schemas, sorted by key.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn list_schemas(
        &self,
        mut request: v1::ListSchemasRequest,
    ) -> Result<v1::ListSchemasResponse, Error> {
        request.read = self.in_session(request.read);
        let response = self
            .call(&Effect::Read, request, |channel, request| async move {
                schemas(channel).list_schemas(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    /// Deletes the schema of a key: its later values may be anything. An empty idempotency key is replaced by a fresh
    /// one.
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

    /// Begins to read all entries of a namespace in one environment, as they are at one revision.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node began before the deadline.
    pub async fn export(&self, mut request: v1::ExportRequest) -> Result<Export, Error> {
        request.read = self.in_session(request.read);
        let response = self
            .call(&Effect::Stream, request, |channel, request| async move {
                let client = ConfigServiceClient::new(channel);
                client.max_decoding_message_size(ANSWER_BYTES_MAX).export(request).await
            })
            .await?;
        Ok(Export { stream: response.into_inner(), ended: false })
    }
}

impl Export {
    /// The next entries; `None` when all have come. After an error what came before is not complete.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the node gave up, [`Error::BrokenOff`] when the connection did.
    pub async fn next(&mut self) -> Result<Option<v1::ExportResponse>, Error> {
        if self.ended {
            return Ok(None);
        }
        let broken = |reason: String| Error::BrokenOff { reason };
        let next = match tokio::time::timeout(SILENCE_MAX, self.stream.message()).await {
            Ok(Ok(Some(response))) => return Ok(Some(response)),
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

fn schemas(channel: Channel) -> SchemaServiceClient<Channel> {
    SchemaServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}
