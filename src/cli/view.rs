//! The shapes in which entries are printed: the field names of the HTTP API, values as stored.

use anyhow::Context as _;
use comfy_table::Table;
use llm_config_client::v1::Entry;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::output::{cell, table};

/// An entry as the HTTP API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct EntryView {
    pub(crate) namespace: String,
    pub(crate) key: String,
    pub(crate) environment: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<Box<RawValue>>,
    pub(crate) version: u64,
    pub(crate) revision: u64,
    pub(crate) deleted: bool,
    pub(crate) secret: bool,
    pub(crate) created_at: Option<String>,
    pub(crate) created_by: String,
    pub(crate) updated_at: Option<String>,
    pub(crate) updated_by: String,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) comment: String,
}

impl EntryView {
    pub(crate) fn new(entry: Entry) -> anyhow::Result<Self> {
        let value = if entry.deleted {
            None
        } else {
            Some(raw(&entry.value).with_context(|| format!("the value of {:?}", entry.key))?)
        };
        Ok(Self {
            namespace: entry.namespace,
            key: entry.key,
            environment: entry.environment,
            value,
            version: entry.version,
            revision: entry.revision,
            deleted: entry.deleted,
            secret: entry.secret,
            created_at: entry.created_at.map(|time| time.to_string()),
            created_by: entry.created_by,
            updated_at: entry.updated_at.map(|time| time.to_string()),
            updated_by: entry.updated_by,
            description: entry.description,
            tags: entry.tags,
            comment: entry.comment,
        })
    }

    /// The value's JSON text; nothing for a deleted version.
    pub(crate) fn value_text(&self) -> &str {
        self.value.as_deref().map_or("", RawValue::get)
    }

    pub(crate) fn all(entries: Vec<Entry>) -> anyhow::Result<Vec<Self>> {
        entries.into_iter().map(Self::new).collect()
    }
}

/// A value off the wire as JSON text.
pub(crate) fn raw(value: &[u8]) -> anyhow::Result<Box<RawValue>> {
    serde_json::from_slice(value).context("is not JSON as the node sent it")
}

/// One row per entry.
pub(crate) fn entries_table(entries: &[EntryView]) -> Table {
    let mut table = table(&["KEY", "VALUE", "VERSION", "REVISION", "UPDATED"]);
    for entry in entries {
        table.add_row([
            cell(&entry.key),
            cell(entry.value_text()),
            entry.version.to_string(),
            entry.revision.to_string(),
            entry.updated_at.clone().unwrap_or_default(),
        ]);
    }
    table
}

/// One row per version.
pub(crate) fn history_table(versions: &[EntryView]) -> Table {
    let mut table = table(&["VERSION", "REVISION", "VALUE", "UPDATED", "BY", "COMMENT"]);
    for entry in versions {
        let value = if entry.deleted { "(deleted)".to_owned() } else { cell(entry.value_text()) };
        table.add_row([
            entry.version.to_string(),
            entry.revision.to_string(),
            value,
            entry.updated_at.clone().unwrap_or_default(),
            cell(&entry.updated_by),
            cell(&entry.comment),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &str) -> Entry {
        Entry {
            key: "price".into(),
            value: value.to_owned().into(),
            version: 2,
            ..Default::default()
        }
    }

    #[test]
    fn json_keeps_a_value_as_stored() {
        let view = EntryView::new(entry("{\"usd\":0.10,\"big\":12345678901234567890123}")).unwrap();
        let text = serde_json::to_string(&view).unwrap();
        assert!(text.contains("{\"usd\":0.10,\"big\":12345678901234567890123}"), "{text}");
    }

    #[test]
    fn a_deleted_version_has_no_value() {
        let deleted = Entry { deleted: true, ..entry("") };
        let view = EntryView::new(deleted).unwrap();
        assert!(!serde_json::to_string(&view).unwrap().contains("\"value\""));
        assert!(history_table(&[view]).to_string().contains("(deleted)"));
    }

    #[test]
    fn a_value_that_is_not_json_is_an_error_that_names_the_key() {
        let error = EntryView::new(entry("{")).unwrap_err();
        assert!(format!("{error:#}").contains("price"));
    }
}
