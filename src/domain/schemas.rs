//! Schemas as replicated state: which contract the values of a key have to meet.
//!
//! Checking a value against one takes long and depends on a library, so it is done once, where the value comes in, and the
//! command names the schema that it was checked by. Here it is only seen to that this is the one in place, which every node
//! does alike. What a schema says is not looked at.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::command::{DeleteSchema, PutSchema, Schema};
use crate::keys;
use crate::limits;
use crate::names::{Key, Namespace};
use crate::outcome::{Outcome, Rejection};
use crate::overlay::Overlay;
use crate::query::{Meta, Page, QueryResult};
use crate::record::Record as _;
use crate::store::{self, Order, Reader, StoreError};
use crate::wire;

pub(crate) fn put<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    actor: &str,
    put: &PutSchema,
) -> QueryResult<Outcome> {
    let known = get(store, &put.namespace, &put.key)?;
    let current_version = known.as_ref().map_or(0, |schema| schema.version);
    Rejection::unless_at(current_version, put.expected_version)?;
    let created = known.is_none();
    if created {
        if meta.schemas >= limits::SCHEMAS_MAX {
            let (size, limit) = (meta.schemas + 1, limits::SCHEMAS_MAX);
            let what = "the table of schemas".into();
            return Err(Rejection::TooLarge { what, size, limit }.into());
        }
        meta.schemas += 1;
    }
    meta.schemas_version += 1;
    let version = meta.schemas_version;
    let (now_ms, actor) = (meta.last_time_ms, actor.to_owned());
    let (created_at_ms, created_by) = match known {
        Some(known) => (known.created_at_ms, known.created_by),
        None => (now_ms, actor.clone()),
    };
    let schema = Schema {
        namespace: put.namespace.clone(),
        key: put.key.clone(),
        schema: put.schema.clone(),
        version,
        created_at_ms,
        created_by,
        updated_at_ms: now_ms,
        updated_by: actor,
        comment: put.comment.clone(),
    };
    let key = keys::schema(&put.namespace, put.key.as_str());
    store.put(key, wire::Schema::from(&schema).to_bytes());
    Ok(Outcome::SchemaPut { version, created })
}

pub(crate) fn delete<R: Reader + ?Sized>(
    store: &mut Overlay<'_, R>,
    meta: &mut Meta,
    delete: &DeleteSchema,
) -> QueryResult<Outcome> {
    let known = get(store, &delete.namespace, &delete.key)?.ok_or(Rejection::NotFound)?;
    Rejection::unless_at(known.version, delete.expected_version)?;
    store.delete(keys::schema(&delete.namespace, delete.key.as_str()));
    meta.schemas = meta.schemas.saturating_sub(1);
    // A number is never used again, whatever comes next.
    meta.schemas_version += 1;
    Ok(Outcome::SchemaDeleted { version: known.version })
}

fn stored(bytes: Bytes) -> Result<Schema, StoreError> {
    let schema = wire::Schema::from_bytes(bytes)?;
    schema
        .try_into()
        .map_err(|error| StoreError::Corrupt(format!("a record of the schemas table: {error}")))
}

/// The schema of a key.
pub fn get<R: Reader + ?Sized>(
    reader: &R,
    namespace: &Namespace,
    key: &Key,
) -> Result<Option<Schema>, StoreError> {
    reader.get(&keys::schema(namespace, key.as_str()))?.map(stored).transpose()
}

/// One page of a namespace's schemas, sorted by key.
pub fn list<R: Reader + ?Sized>(
    reader: &R,
    namespace: &Namespace,
    prefix: &str,
    after: Option<&Key>,
    limit: usize,
) -> Result<Page<Schema>, StoreError> {
    let limit = limit.clamp(1, limits::PAGE_LIMIT_MAX);
    let (from, to) = keys::schema_range(namespace, prefix, after);
    let mut page = Page { items: Vec::new(), more: false };
    reader.scan(&from, &to, Order::Ascending, &mut |_, value| {
        if page.items.len() == limit {
            page.more = true;
            return Ok(ControlFlow::Break(()));
        }
        page.items.push(stored(Bytes::copy_from_slice(value))?);
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(page)
}

/// The version of every schema, bounded by [`limits::SCHEMAS_MAX`], by namespace and key. Their texts are let go of one by
/// one: all together could be many.
pub fn versions<R: Reader + ?Sized>(reader: &R) -> Result<Vec<(Namespace, Key, u64)>, StoreError> {
    store::all(reader, keys::schemas(), |bytes| {
        let schema = stored(bytes)?;
        Ok((schema.namespace, schema.key, schema.version))
    })
}
