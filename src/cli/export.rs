//! `export`: a namespace's entries in one environment as one JSON object, values exactly as stored.
//!
//! Also how `import` learns what is already there.

use std::collections::BTreeMap;

use llm_config_client::{Client, v1};
use serde_json::value::RawValue;

use crate::output;
use crate::pages::{self, PAGE_LIMIT};
use crate::view::raw;

pub(crate) async fn run(client: &Client, namespace: &str, environment: &str) -> anyhow::Result<()> {
    let values = current(client, namespace, environment).await?;
    output::line(&document(&values)?)
}

/// All current values, by key. The first page is linearizable; the client's session keeps the later ones from being
/// older.
pub(crate) async fn current(
    client: &Client,
    namespace: &str,
    environment: &str,
) -> anyhow::Result<BTreeMap<String, Box<RawValue>>> {
    let entries = pages::all(async |cursor: String| {
        let consistency =
            if cursor.is_empty() { v1::Consistency::Linearizable } else { v1::Consistency::Cached };
        let request = v1::ListRequest {
            namespace: namespace.to_owned(),
            environment: environment.to_owned(),
            limit: PAGE_LIMIT,
            cursor,
            read: Some(v1::ReadOptions { consistency: consistency.into(), ..Default::default() }),
            ..Default::default()
        };
        let page = client.list(request).await?;
        Ok((page.items, page.next_cursor))
    })
    .await?;
    entries.into_iter().map(|entry| Ok((entry.key, raw(&entry.value)?))).collect()
}

/// One line per key, sorted; the values keep their text.
fn document(values: &BTreeMap<String, Box<RawValue>>) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(values)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_sorted_and_keeps_values_as_stored() {
        let values = [("b", "{\"x\":[1.10,2e5]}"), ("a", "\"s\"")]
            .map(|(key, value)| (key.to_owned(), raw(value.as_bytes()).unwrap()))
            .into();
        let text = document(&values).unwrap();
        assert_eq!(text, "{\n  \"a\": \"s\",\n  \"b\": {\"x\":[1.10,2e5]}\n}");
    }
}
