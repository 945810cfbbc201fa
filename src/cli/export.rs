//! `export`: a namespace's entries in one environment as one JSON object, values exactly as stored. Secrets are left out:
//! a file is no place for them.
//!
//! Also how `import` learns what is already there.

use std::collections::BTreeMap;

use llm_config_client::{Client, v1};
use serde_json::value::RawValue;

use crate::output;
use crate::pages::{self, PAGE_LIMIT};
use crate::view::raw;

/// What an entry holds now.
pub(crate) struct Current {
    /// Of a secret, its mask.
    pub(crate) value: Box<RawValue>,
    pub(crate) secret: bool,
}

pub(crate) async fn run(client: &Client, namespace: &str, environment: &str) -> anyhow::Result<()> {
    let (values, secrets) = shown(current(client, namespace, environment).await?);
    output::line(&document(&values)?)?;
    match secrets {
        0 => {}
        1 => eprintln!("1 secret was left out; `get --reveal` shows it to who may see it"),
        n => eprintln!("{n} secrets were left out; `get --reveal` shows one to who may see it"),
    }
    Ok(())
}

/// The values that are no secrets, and how many are.
fn shown(entries: BTreeMap<String, Current>) -> (BTreeMap<String, Box<RawValue>>, usize) {
    let count = entries.len();
    let values: BTreeMap<_, _> = entries
        .into_iter()
        .filter(|(_, current)| !current.secret)
        .map(|(key, current)| (key, current.value))
        .collect();
    let secrets = count - values.len();
    (values, secrets)
}

/// All current values, by key. The first page is linearizable; the client's session keeps the later ones from being
/// older.
pub(crate) async fn current(
    client: &Client,
    namespace: &str,
    environment: &str,
) -> anyhow::Result<BTreeMap<String, Current>> {
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
    entries
        .into_iter()
        .map(|entry| {
            let current = Current { value: raw(&entry.value)?, secret: entry.secret };
            Ok((entry.key, current))
        })
        .collect()
}

/// One line per key, sorted; the values keep their text.
fn document(values: &BTreeMap<String, Box<RawValue>>) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(values)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_and_counted() {
        let entries =
            [("a", "1", false), ("b", "\"********\"", true)].map(|(key, value, secret)| {
                (key.to_owned(), Current { value: raw(value.as_bytes()).unwrap(), secret })
            });
        let (values, secrets) = shown(entries.into());
        assert_eq!((document(&values).unwrap().as_str(), secrets), ("{\n  \"a\": 1\n}", 1));
    }

    #[test]
    fn the_document_is_sorted_and_keeps_values_as_stored() {
        let values = [("b", "{\"x\":[1.10,2e5]}"), ("a", "\"s\"")]
            .map(|(key, value)| (key.to_owned(), raw(value.as_bytes()).unwrap()))
            .into();
        let text = document(&values).unwrap();
        assert_eq!(text, "{\n  \"a\": \"s\",\n  \"b\": {\"x\":[1.10,2e5]}\n}");
    }
}
