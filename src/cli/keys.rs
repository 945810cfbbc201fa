//! `keys`: which keys secrets are encrypted with, and exchanging them. The keys themselves never leave the nodes.

use comfy_table::Table;
use llm_config_client::{Client, v1};
use serde::Serialize;

use crate::args::{Keys, RotateKeys, RotationTarget};
use crate::output::{Output, cell, table};

#[derive(Debug, Serialize)]
struct KeysView {
    node_id: u64,
    master_keys: Vec<String>,
    data_keys: Vec<KeyView>,
}

/// A data key as the HTTP API shows it.
#[derive(Debug, Serialize)]
struct KeyView {
    namespace: String,
    version: u32,
    master_key: String,
    created_at: Option<String>,
    newest: bool,
    usable: bool,
}

impl From<v1::DataKey> for KeyView {
    fn from(key: v1::DataKey) -> Self {
        Self {
            namespace: key.namespace,
            version: key.version,
            master_key: key.master_key,
            created_at: key.created_at.map(|time| time.to_string()),
            newest: key.newest,
            usable: key.usable,
        }
    }
}

pub(crate) async fn run(client: &Client, command: Keys, output: Output) -> anyhow::Result<()> {
    match command {
        Keys::List => list(client, output).await,
        Keys::Rotate(args) => rotate(client, args, output).await,
    }
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let listed = client.list_keys(v1::ListKeysRequest {}).await?;
    let view = KeysView {
        node_id: listed.node_id,
        master_keys: listed.master_keys,
        data_keys: listed.data_keys.into_iter().map(KeyView::from).collect(),
    };
    output.print(&view, |view| keys_table(&view.data_keys))?;
    match view.master_keys.split_first() {
        None => {
            say!("node {} has no master key: it cannot take or show secrets", view.node_id)
        }
        Some((current, others)) => say!(
            "node {} wraps keys with master key {}, and has {} others",
            view.node_id,
            cell(current),
            others.len()
        ),
    }
    Ok(())
}

async fn rotate(client: &Client, args: RotateKeys, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Rotated {
        keys: u64,
    }
    let (target, words) = match args.target {
        RotationTarget::Data => (
            v1::RotationTarget::Data,
            "new secrets are under new keys; older ones are put under them in the background",
        ),
        RotationTarget::Master => (
            v1::RotationTarget::Master,
            "once `keys list` shows no key under another master key, the old one can leave the files of the nodes",
        ),
    };
    let request = v1::RotateKeysRequest { target: target.into(), namespace: args.namespace };
    let rotated = Rotated { keys: client.rotate_keys(request).await?.keys };
    output.print(&rotated, |rotated| {
        let mut rows = table(&["KEYS CHANGED"]);
        rows.add_row([rotated.keys.to_string()]);
        rows
    })?;
    say!("{words}");
    Ok(())
}

fn keys_table(keys: &[KeyView]) -> Table {
    let mut rows = table(&["NAMESPACE", "VERSION", "MASTER KEY", "CREATED", "NEWEST", "USABLE"]);
    let yes = |is: bool| if is { "yes" } else { "no" }.to_owned();
    for key in keys {
        let of = if key.namespace.is_empty() { "(digests)" } else { &key.namespace };
        rows.add_row([
            cell(of),
            key.version.to_string(),
            cell(&key.master_key),
            key.created_at.clone().unwrap_or_default(),
            yes(key.newest),
            yes(key.usable),
        ]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row() {
        let key = |namespace: &str| {
            let namespace = namespace.to_owned();
            KeyView::from(v1::DataKey { namespace, version: 3, usable: true, ..Default::default() })
        };
        let text = keys_table(&[key(""), key("team")]).to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(text.contains("(digests)") && text.contains("team"), "{text}");
    }
}
