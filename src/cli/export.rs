//! `export`: a namespace's entries in one environment as one object, values exactly as stored, all as they were at one
//! revision. Secrets are left out: a file is no place for them.
//!
//! Also how `import` learns what is already there.

use std::collections::BTreeMap;

use anyhow::Context as _;
use llm_config_client::{Client, v1};
use serde_json::value::RawValue;

use crate::args::Format;
use crate::output::{self, Output};
use crate::view::raw;
use crate::yaml;

/// A namespace in one environment, at one revision.
#[derive(Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) entries: BTreeMap<String, Current>,
}

/// What an entry holds.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) entry: v1::Entry,
    /// Of a secret, its mask.
    pub(crate) value: Box<RawValue>,
}

pub(crate) async fn run(
    client: &Client,
    namespace: &str,
    environment: &str,
    output: Output,
) -> anyhow::Result<()> {
    let snapshot = snapshot(client, namespace, environment).await?;
    let revision = snapshot.revision;
    let (values, secrets) = shown(snapshot);
    output::write(&document(&values, output.format)?)?;
    let entries = output::entries(values.len());
    output::say(&format!("{entries} of {namespace:?} ({environment}) at revision {revision}"));
    match secrets {
        0 => {}
        1 => output::say("1 secret was left out; `get --reveal` shows it to who may see it"),
        n => output::say(&format!(
            "{n} secrets were left out; `get --reveal` shows one to who may see it"
        )),
    }
    Ok(())
}

/// The values that are no secrets, and how many are.
fn shown(snapshot: Snapshot) -> (BTreeMap<String, Box<RawValue>>, usize) {
    let count = snapshot.entries.len();
    let values: BTreeMap<_, _> = snapshot
        .entries
        .into_iter()
        .filter(|(_, current)| !current.entry.secret)
        .map(|(key, current)| (key, current.value))
        .collect();
    let secrets = count - values.len();
    (values, secrets)
}

/// All entries at one revision, which has everything that was acknowledged before.
pub(crate) async fn snapshot(
    client: &Client,
    namespace: &str,
    environment: &str,
) -> anyhow::Result<Snapshot> {
    let linearizable =
        v1::ReadOptions { consistency: v1::Consistency::Linearizable.into(), ..Default::default() };
    let request = v1::ExportRequest {
        namespace: namespace.to_owned(),
        environment: environment.to_owned(),
        read: Some(linearizable),
    };
    let export = client.export(request).await?;
    let mut snapshot = Snapshot { revision: export.revision, ..Snapshot::default() };
    for entry in export.entries {
        let value = raw(&entry.value).with_context(|| format!("the value of {:?}", entry.key))?;
        snapshot.entries.insert(entry.key.clone(), Current { entry, value });
    }
    Ok(snapshot)
}

/// One line per key, sorted; the values keep their text. As YAML, they are laid out.
fn document(values: &BTreeMap<String, Box<RawValue>>, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table | Format::Json => format!("{}\n", serde_json::to_string_pretty(values)?),
        Format::Yaml => yaml::write(&serde_json::value::to_raw_value(values)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_and_counted() {
        let entries =
            [("a", "1", false), ("b", "\"********\"", true)].map(|(key, value, secret)| {
                let entry = v1::Entry { secret, ..Default::default() };
                (key.to_owned(), Current { entry, value: raw(value.as_bytes()).unwrap() })
            });
        let (values, secrets) = shown(Snapshot { revision: 1, entries: entries.into() });
        let text = document(&values, Format::Table).unwrap();
        assert_eq!((text.as_str(), secrets), ("{\n  \"a\": 1\n}\n", 1));
    }

    #[test]
    fn the_document_is_sorted_and_keeps_values_as_stored() {
        let values = [("b", "{\"x\":[1.10,2e5]}"), ("a", "\"s\"")]
            .map(|(key, value)| (key.to_owned(), raw(value.as_bytes()).unwrap()))
            .into();
        let text = document(&values, Format::Json).unwrap();
        assert_eq!(text, "{\n  \"a\": \"s\",\n  \"b\": {\"x\":[1.10,2e5]}\n}\n");
        let text = document(&values, Format::Yaml).unwrap();
        assert_eq!(text, "a: s\nb:\n  x:\n    - 1.10\n    - 2e5\n");
    }
}
