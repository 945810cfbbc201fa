//! `schema`: the JSON Schemas that later values have to meet. Whether one is a good schema is the cluster's to judge.

use anyhow::Context as _;
use llm_config_client::{Client, v1};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::Usage;
use crate::args::{DeleteSchema, Format, ListSchemas, PutSchema, SchemaTarget, Schemas};
use crate::document;
use crate::json;
use crate::output::{self, Output, cell, table};
use crate::pages::{self, PAGE_LIMIT};
use crate::view::raw;

/// Far more than a node takes, so that it is the one to say its limit.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A schema as the HTTP API shows it.
#[derive(Debug, Serialize)]
struct SchemaView {
    namespace: String,
    key: String,
    schema: Box<RawValue>,
    version: u64,
    created_at: Option<String>,
    created_by: String,
    updated_at: Option<String>,
    updated_by: String,
    comment: String,
}

impl SchemaView {
    fn new(schema: v1::Schema) -> anyhow::Result<Self> {
        Ok(Self {
            schema: raw(&schema.schema)
                .with_context(|| format!("the schema of {:?}", schema.key))?,
            namespace: schema.namespace,
            key: schema.key,
            version: schema.version,
            created_at: schema.created_at.map(|time| time.to_string()),
            created_by: schema.created_by,
            updated_at: schema.updated_at.map(|time| time.to_string()),
            updated_by: schema.updated_by,
            comment: schema.comment,
        })
    }
}

pub(crate) async fn run(client: &Client, command: Schemas, output: Output) -> anyhow::Result<()> {
    match command {
        Schemas::Put(args) => put(client, args, output).await,
        Schemas::Get(args) => get(client, args, output).await,
        Schemas::List(args) => list(client, args, output).await,
        Schemas::Delete(args) => delete(client, args).await,
    }
}

async fn put(client: &Client, args: PutSchema, output: Output) -> anyhow::Result<()> {
    let text = output::read_file(&args.file, FILE_BYTES_MAX)?;
    let wrong = |error: anyhow::Error| Usage(format!("{}: {error:#}", args.file));
    let text = document::json(&text, args.format, &args.file).map_err(wrong)?;
    let schema: &RawValue =
        serde_json::from_str(&text).map_err(|error| wrong(anyhow::anyhow!("not JSON: {error}")))?;
    let response = client
        .put_schema(v1::PutSchemaRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            schema: schema.get().to_owned().into(),
            comment: args.write.comment,
            expected_version: args.write.expected_version,
            idempotency_key: args.write.idempotency_key,
        })
        .await?;
    let schema = SchemaView::new(response.schema.context("the node's answer has no schema")?)?;
    let what = if response.created { "new" } else { "replaced" };
    output.print(&schema, |schema| schemas_table(std::slice::from_ref(schema)))?;
    output::remark(&format!("the schema is {what}; values that are there already stay"));
    Ok(())
}

async fn get(client: &Client, args: SchemaTarget, output: Output) -> anyhow::Result<()> {
    let response = client
        .get_schema(v1::GetSchemaRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            read: Some(args.read.options()),
        })
        .await?;
    let schema = SchemaView::new(response.schema.context("the node's answer has no schema")?)?;
    if output.format == Format::Table {
        output::line(&json::pretty(&schema.schema))?;
        output::remark(&format!(
            "version {}, updated {} by {}",
            schema.version,
            schema.updated_at.as_deref().unwrap_or("-"),
            cell(&schema.updated_by)
        ));
        return Ok(());
    }
    output.print(&schema, |_| table(&[]))
}

async fn list(client: &Client, args: ListSchemas, output: Output) -> anyhow::Result<()> {
    let read = args.read.options();
    let schemas = pages::all(async |cursor| {
        let page = client
            .list_schemas(v1::ListSchemasRequest {
                namespace: args.namespace.clone(),
                prefix: args.prefix.clone(),
                limit: PAGE_LIMIT,
                cursor,
                read: Some(read),
            })
            .await?;
        Ok((page.items, page.next_cursor))
    })
    .await?;
    let schemas: Vec<SchemaView> =
        schemas.into_iter().map(SchemaView::new).collect::<anyhow::Result<_>>()?;
    output.print(&schemas, |schemas| schemas_table(schemas))
}

async fn delete(client: &Client, args: DeleteSchema) -> anyhow::Result<()> {
    let (namespace, key) = (args.target.namespace, args.target.key);
    client
        .delete_schema(v1::DeleteSchemaRequest {
            namespace: namespace.clone(),
            key: key.clone(),
            comment: args.write.comment,
            expected_version: args.write.expected_version,
            idempotency_key: args.write.idempotency_key,
        })
        .await?;
    output::say(&format!("{} {} has no schema any more", cell(&namespace), cell(&key)));
    Ok(())
}

fn schemas_table(schemas: &[SchemaView]) -> comfy_table::Table {
    let mut table = table(&["KEY", "VERSION", "UPDATED", "BY", "SCHEMA"]);
    for schema in schemas {
        table.add_row([
            cell(&schema.key),
            schema.version.to_string(),
            schema.updated_at.clone().unwrap_or_default(),
            cell(&schema.updated_by),
            cell(&json::compact(&schema.schema)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_a_row_and_keeps_its_text() {
        let schema = v1::Schema {
            key: "k".into(),
            schema: "{\"maximum\": 2.0}".into(),
            version: 7,
            ..Default::default()
        };
        let view = SchemaView::new(schema).unwrap();
        assert!(serde_json::to_string(&view).unwrap().contains("{\"maximum\": 2.0}"));
        let text = schemas_table(&[view]).to_string();
        assert!(text.contains("{\"maximum\":2.0}") && text.contains('7'), "{text}");
    }
}
