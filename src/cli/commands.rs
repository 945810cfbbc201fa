//! One function per command: ask the SDK, print the answer. The larger commands have files of their own.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use comfy_table::Table;
use llm_config_client::{Client, Options, v1};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::{self, Cli, Command, Format};
use crate::output::{self, Output, cell, table};
use crate::pages::{self, PAGE_LIMIT};
use crate::view::{EntryView, entries_table, history_table, raw};
use crate::{
    Usage, audit, backup, bans, cluster, credentials, export, import, keys, roles, status, tls,
    tokens, watch,
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a change of leader on a busy machine: an import outlives it, and changes of the members bring it about.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than a node takes over a change of the members: its answer says more than the loss of it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const NAMESPACES_PAGE_LIMIT: u32 = 1000;

pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    if let Command::Completions { shell } = command {
        return completions(shell);
    }
    let default = match command {
        Command::Import(_) | Command::Cluster(_) => LONG_TIMEOUT,
        _ => TIMEOUT,
    };
    let mut options = Options::default().timeout(global.timeout.unwrap_or(default));
    if matches!(command, Command::Cluster(_)) {
        options = options.attempt_timeout(CHANGE_TIMEOUT);
    }
    if let Some(tls) = tls::options(&global.tls)? {
        options = options.tls(tls);
    }
    options = credentials::add(options, &global.credentials)?;
    let client = Client::with_options(&global.endpoints, options.clone())?;
    let output = Output { format: global.output };
    let env = global.environment();
    match command {
        Command::Get(args) => get(&client, args, env, output).await,
        Command::Set(args) => set(&client, args, env, output).await,
        Command::Delete(args) => delete(&client, args, env, output).await,
        Command::List(args) => list(&client, args, env, output).await,
        Command::Namespaces(args) => namespaces(&client, args, output).await,
        Command::History(args) => history(&client, args, env, output).await,
        Command::Rollback(args) => rollback(&client, args, env, output).await,
        Command::Diff(args) => diff(&client, args, env, output).await,
        Command::Resolve(args) => resolve(&client, args, env, output).await,
        Command::Watch(args) => watch::run(&client, args, global.env, output).await,
        Command::Import(args) => import::run(&client, &args, &env).await,
        Command::Export(args) => export::run(&client, &args.namespace, &env).await,
        Command::Cluster(command) => cluster::run(&client, command, output).await,
        Command::Backup(args) => backup::run(&global, &options, args, output).await,
        Command::Status => status::run(&global, &options, output).await,
        Command::Whoami => tokens::who_am_i(&client, output).await,
        Command::Token(command) => tokens::run(&client, command, global.env, output).await,
        Command::Role(command) => roles::run(&client, command, global.env, output).await,
        Command::Ban(command) => bans::run(&client, command, output).await,
        Command::Audit(command) => audit::run(&global, &options, command, output).await,
        Command::Keys(command) => keys::run(&client, command, output).await,
        Command::Completions { shell } => completions(shell),
    }
}

async fn get(
    client: &Client,
    args: args::Get,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    let entry = client
        .get(v1::GetRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            environment,
            read: Some(args.read.options()),
            resolve: args.resolve,
            version: args.version,
            reveal: args.reveal,
        })
        .await?;
    let entry = EntryView::new(entry)?;
    if output.format == Format::Table {
        output::line(entry.value_text())?;
        output::remark(&format!(
            "version {}, revision {}, {}, updated {} by {}",
            entry.version,
            entry.revision,
            entry.environment,
            entry.updated_at.as_deref().unwrap_or("-"),
            cell(&entry.updated_by),
        ));
        return Ok(());
    }
    print_entry(entry, output)
}

async fn set(
    client: &Client,
    args: args::Set,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    let value = value(&args.value, args.string)?;
    let response = client
        .set(v1::SetRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            environment,
            value: value.into(),
            description: args.description,
            tags: args.tags,
            comment: args.write.comment,
            expected_version: args.write.expected_version,
            idempotency_key: args.write.idempotency_key,
            secret: args.secret,
        })
        .await?;
    let entry = response.entry.context("the node's answer has no entry")?;
    print_entry(EntryView::new(entry)?, output)
}

async fn delete(
    client: &Client,
    args: args::Delete,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Deleted {
        version: u64,
        revision: u64,
    }
    let response = client
        .delete(v1::DeleteRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            environment,
            expected_version: args.write.expected_version,
            comment: args.write.comment,
            idempotency_key: args.write.idempotency_key,
        })
        .await?;
    let deleted = Deleted { version: response.version, revision: response.revision };
    output.print(&deleted, |deleted| {
        let mut table = table(&["DELETED AS VERSION", "REVISION"]);
        table.add_row([deleted.version.to_string(), deleted.revision.to_string()]);
        table
    })
}

async fn list(
    client: &Client,
    args: args::List,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    let read = args.read.options();
    let entries = pages::all(async |cursor| {
        let page = client
            .list(v1::ListRequest {
                namespace: args.namespace.clone(),
                environment: environment.clone(),
                prefix: args.prefix.clone(),
                limit: PAGE_LIMIT,
                cursor,
                read: Some(read),
            })
            .await?;
        Ok((page.items, page.next_cursor))
    })
    .await?;
    output.print(&EntryView::all(entries)?, |entries| entries_table(entries))
}

async fn namespaces(client: &Client, args: args::Namespaces, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Namespace {
        namespace: String,
        entries: u64,
    }
    let read = args.read.options();
    let found = pages::all(async |cursor| {
        let page = client
            .list_namespaces(v1::ListNamespacesRequest {
                prefix: args.prefix.clone(),
                limit: NAMESPACES_PAGE_LIMIT,
                cursor,
                read: Some(read),
            })
            .await?;
        Ok((page.items, page.next_cursor))
    })
    .await?;
    let found: Vec<Namespace> = found
        .into_iter()
        .map(|summary| Namespace { namespace: summary.namespace, entries: summary.entries })
        .collect();
    output.print(&found, |found| {
        let mut table = table(&["NAMESPACE", "ENTRIES"]);
        for row in found {
            table.add_row([cell(&row.namespace), row.entries.to_string()]);
        }
        table
    })
}

async fn history(
    client: &Client,
    args: args::History,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    let read = args.read.options();
    let versions = pages::all(async |cursor| {
        let page = client
            .history(v1::HistoryRequest {
                namespace: args.target.namespace.clone(),
                key: args.target.key.clone(),
                environment: environment.clone(),
                limit: PAGE_LIMIT,
                cursor,
                read: Some(read),
            })
            .await?;
        Ok((page.items, page.next_cursor))
    })
    .await?;
    output.print(&EntryView::all(versions)?, |versions| history_table(versions))
}

async fn rollback(
    client: &Client,
    args: args::Rollback,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    let entry = client
        .rollback(v1::RollbackRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            environment,
            version: args.version,
            comment: args.write.comment,
            expected_version: args.write.expected_version,
            idempotency_key: args.write.idempotency_key,
        })
        .await?;
    print_entry(EntryView::new(entry)?, output)
}

async fn diff(
    client: &Client,
    args: args::Diff,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Difference {
        from: Option<EntryView>,
        to: Option<EntryView>,
        patch: Box<RawValue>,
    }
    let response = client
        .diff(v1::DiffRequest {
            namespace: args.target.namespace,
            key: args.target.key,
            environment,
            from: args.from,
            to: args.to,
            environment_from: args.env_from.unwrap_or_default(),
            environment_to: args.env_to.unwrap_or_default(),
            read: Some(args.read.options()),
        })
        .await?;
    let difference = Difference {
        from: response.from.map(EntryView::new).transpose()?,
        to: response.to.map(EntryView::new).transpose()?,
        patch: raw(&response.patch).context("the patch")?,
    };
    let table = patch_table(&difference.patch)?;
    output.print(&difference, |_| table)
}

/// One operation of the patch per line, for people.
fn patch_table(patch: &RawValue) -> anyhow::Result<Table> {
    #[derive(serde::Deserialize)]
    struct Operation<'a> {
        op: String,
        path: String,
        #[serde(default)]
        from: Option<String>,
        #[serde(borrow, default)]
        value: Option<&'a RawValue>,
    }
    let operations: Vec<Operation<'_>> =
        serde_json::from_str(patch.get()).context("the patch is not a JSON Patch")?;
    let mut table = table(&["OP", "PATH", "VALUE"]);
    for operation in operations {
        let value = operation.value.map(RawValue::get).or(operation.from.as_deref());
        table.add_row([
            cell(&operation.op),
            cell(&operation.path),
            cell(value.unwrap_or_default()),
        ]);
    }
    Ok(table)
}

async fn resolve(
    client: &Client,
    args: args::Resolve,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    use std::collections::BTreeMap;
    #[derive(Serialize)]
    struct Resolved {
        namespace: String,
        environment: String,
        values: BTreeMap<String, Box<RawValue>>,
        sources: BTreeMap<String, String>,
        revision: u64,
    }
    let response = client
        .resolve(v1::ResolveRequest {
            namespace: args.namespace,
            environment,
            read: Some(args.read.options()),
            reveal: args.reveal,
        })
        .await?;
    let mut resolved = Resolved {
        namespace: response.namespace,
        environment: response.environment,
        values: BTreeMap::new(),
        sources: BTreeMap::new(),
        revision: response.revision,
    };
    for value in response.values {
        resolved.values.insert(value.key.clone(), raw(&value.value)?);
        resolved.sources.insert(value.key, value.source);
    }
    output.print(&resolved, |resolved| {
        let mut table = table(&["KEY", "VALUE", "SOURCE"]);
        for ((key, value), source) in resolved.values.iter().zip(resolved.sources.values()) {
            table.add_row([cell(key), cell(value.get()), cell(source)]);
        }
        table
    })
}

fn print_entry(entry: EntryView, output: Output) -> anyhow::Result<()> {
    output.print(&entry, |entry| entries_table(std::slice::from_ref(entry)))
}

/// The JSON text of a value given on the command line.
fn value(argument: &str, string: bool) -> anyhow::Result<String> {
    let mut text = argument.to_owned();
    if argument == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("cannot read the value from stdin")?;
    }
    if string {
        return Ok(serde_json::to_string(&text)?);
    }
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(value) => Ok(value.get().to_owned()),
        Err(error) => Err(Usage(format!(
            "VALUE is not JSON ({error}); to store it as a string, add --string"
        ))
        .into()),
    }
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "llm-config", &mut script);
    output::write(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_or_a_string_on_request() {
        assert_eq!(value("0.20", false).unwrap(), "0.20");
        assert_eq!(value(" {\"a\": 1} ", false).unwrap(), "{\"a\": 1}");
        assert_eq!(value("say \"hi\"", true).unwrap(), "\"say \\\"hi\\\"\"");
        for bad in ["hello", "", "1 2", "{a: 1}"] {
            let error = value(bad, false).unwrap_err();
            assert!(error.is::<Usage>() && error.to_string().contains("--string"), "{bad}");
        }
    }

    #[test]
    fn a_patch_is_shown_line_by_line() {
        let patch = raw(
            br#"[{"op":"replace","path":"/a","value":1.10},{"op":"move","path":"/b","from":"/c"}]"#,
        )
        .unwrap();
        let text = patch_table(&patch).unwrap().to_string();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("1.10") && text.contains("/c"), "{text}");
    }
}
