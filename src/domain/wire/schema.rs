//! Schemas, and which of them a command was checked by. A schema is stored in the same form.

use bytes::Bytes;
use prost::Message;

use super::json_value;
use crate::command::{self, DecodeError};
use crate::names::{InvalidArgument, Key, Namespace};

#[derive(Clone, PartialEq, Message)]
pub(crate) struct CheckedSchema {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint64, tag = "3")]
    version: u64,
}

fn name(namespace: &str, key: &str) -> Result<(Namespace, Key), InvalidArgument> {
    Ok((Namespace::parse(namespace)?, Key::parse(key)?))
}

impl From<&command::CheckedSchema> for CheckedSchema {
    fn from(checked: &command::CheckedSchema) -> Self {
        Self {
            namespace: checked.namespace.as_str().into(),
            key: checked.key.as_str().into(),
            version: checked.version,
        }
    }
}

impl TryFrom<CheckedSchema> for command::CheckedSchema {
    type Error = DecodeError;

    fn try_from(checked: CheckedSchema) -> Result<Self, DecodeError> {
        let (namespace, key) = name(&checked.namespace, &checked.key)?;
        Ok(Self { namespace, key, version: checked.version })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PutSchema {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(bytes = "bytes", tag = "3")]
    schema: Bytes,
    #[prost(uint64, optional, tag = "4")]
    expected_version: Option<u64>,
    #[prost(string, tag = "5")]
    comment: String,
}

impl From<&command::PutSchema> for PutSchema {
    fn from(put: &command::PutSchema) -> Self {
        Self {
            namespace: put.namespace.as_str().into(),
            key: put.key.as_str().into(),
            schema: put.schema.bytes(),
            expected_version: put.expected_version,
            comment: put.comment.clone(),
        }
    }
}

impl TryFrom<PutSchema> for command::PutSchema {
    type Error = DecodeError;

    fn try_from(put: PutSchema) -> Result<Self, DecodeError> {
        let (namespace, key) = name(&put.namespace, &put.key)?;
        let schema = json_value(&put.schema)?;
        let PutSchema { expected_version, comment, .. } = put;
        Ok(Self { namespace, key, schema, expected_version, comment })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct DeleteSchema {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint64, optional, tag = "3")]
    expected_version: Option<u64>,
    #[prost(string, tag = "4")]
    comment: String,
}

impl From<&command::DeleteSchema> for DeleteSchema {
    fn from(delete: &command::DeleteSchema) -> Self {
        Self {
            namespace: delete.namespace.as_str().into(),
            key: delete.key.as_str().into(),
            expected_version: delete.expected_version,
            comment: delete.comment.clone(),
        }
    }
}

impl TryFrom<DeleteSchema> for command::DeleteSchema {
    type Error = DecodeError;

    fn try_from(delete: DeleteSchema) -> Result<Self, DecodeError> {
        let (namespace, key) = name(&delete.namespace, &delete.key)?;
        let DeleteSchema { expected_version, comment, .. } = delete;
        Ok(Self { namespace, key, expected_version, comment })
    }
}

/// Stored only.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Schema {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(bytes = "bytes", tag = "3")]
    schema: Bytes,
    #[prost(uint64, tag = "4")]
    version: u64,
    #[prost(uint64, tag = "5")]
    created_at_ms: u64,
    #[prost(string, tag = "6")]
    created_by: String,
    #[prost(uint64, tag = "7")]
    updated_at_ms: u64,
    #[prost(string, tag = "8")]
    updated_by: String,
    #[prost(string, tag = "9")]
    comment: String,
}

impl From<&command::Schema> for Schema {
    fn from(schema: &command::Schema) -> Self {
        Self {
            namespace: schema.namespace.as_str().into(),
            key: schema.key.as_str().into(),
            schema: schema.schema.bytes(),
            version: schema.version,
            created_at_ms: schema.created_at_ms,
            created_by: schema.created_by.clone(),
            updated_at_ms: schema.updated_at_ms,
            updated_by: schema.updated_by.clone(),
            comment: schema.comment.clone(),
        }
    }
}

impl TryFrom<Schema> for command::Schema {
    type Error = DecodeError;

    fn try_from(schema: Schema) -> Result<Self, DecodeError> {
        let (namespace, key) = name(&schema.namespace, &schema.key)?;
        Ok(Self {
            namespace,
            key,
            schema: json_value(&schema.schema)?,
            version: schema.version,
            created_at_ms: schema.created_at_ms,
            created_by: schema.created_by,
            updated_at_ms: schema.updated_at_ms,
            updated_by: schema.updated_by,
            comment: schema.comment,
        })
    }
}
