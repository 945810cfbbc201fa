//! One function per command: ask the SDK, print the answer. The larger commands have files of their own.

use std::time::Duration;

use anyhow::Context as _;
use clap::CommandFactory as _;
use llm_config_client::{Client, Options, v1};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::args::{self, Cli, Command, Format};
use crate::output::{self, Output, Paint, cell, table};
use crate::pages::{self, PAGE_LIMIT};
use crate::view::{EntryView, entries_table, history_table, raw};
use crate::{
    Usage, audit, backup, bans, baseline, cluster, contexts, credentials, diff, edit, export,
    import, keys, man, ops, roles, schema, settings, status, tls, tokens, txn, watch,
};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a change of leader on a busy machine: an import outlives it, and changes of the members bring it about.
const LONG_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than a node takes over a change of the members: its answer says more than the loss of it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);
const NAMESPACES_PAGE_LIMIT: u32 = 1000;
/// More than a node takes, so that it is the one to say its limit.
const VALUE_BYTES_MAX: u64 = 16 << 20;

pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    let Cli { global, command } = cli;
    let paint = Paint::stdout(global.color);
    // These need no cluster, and must work whatever the file of contexts says.
    let command = match command {
        Command::Completions { shell } => return completions(shell),
        Command::Man { folder } => return man::run(folder.as_deref()),
        Command::Context(command) => {
            let output = Output { format: global.output.unwrap_or(Format::Table), paint };
            let path = contexts::file::path(settings::variable);
            return contexts::run(&global, command, path, output);
        }
        command => command,
    };
    let global = settings::complete(global, settings::variable)?;
    let default = match command {
        Command::Import(_)
        | Command::Txn(_)
        | Command::Cluster(_)
        | Command::Baseline(_)
        | Command::Ops(_) => LONG_TIMEOUT,
        _ => TIMEOUT,
    };
    let mut options = Options::default().timeout(global.timeout.unwrap_or(default));
    if matches!(command, Command::Cluster(_) | Command::Import(_) | Command::Txn(_)) {
        options = options.attempt_timeout(CHANGE_TIMEOUT);
    }
    if let Some(tls) = tls::options(&global.tls)? {
        options = options.tls(tls);
    }
    options = credentials::add(options, &global.credentials);
    let client = Client::with_options(&global.endpoints, options.clone())?;
    let output = Output { format: global.output.unwrap_or(Format::Table), paint };
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
        Command::Edit(args) => {
            edit::run(&client, args, env, output, Paint::stderr(global.color)).await
        }
        Command::Txn(args) => txn::run(&client, args, &env, output).await,
        Command::Import(args) => import::run(&client, &args, &env, output).await,
        Command::Export(args) => export::run(&client, &args.namespace, &env, output).await,
        Command::Schema(command) => schema::run(&client, command, output).await,
        Command::Cluster(command) => cluster::run(&client, command, output).await,
        Command::Backup(args) => backup::run(&global, &options, args, output).await,
        Command::Status(args) => status::run(&global, &options, args, output).await,
        Command::Whoami => tokens::who_am_i(&client, output).await,
        Command::Token(command) => tokens::run(&client, command, global.env, output).await,
        Command::Role(command) => roles::run(&client, command, global.env, output).await,
        Command::Ban(command) => bans::run(&client, command, output).await,
        Command::Audit(command) => audit::run(&global, &options, command, output).await,
        Command::Baseline(command) => baseline::run(&options, command, output).await,
        Command::Ops(command) => ops::run(&global, &options, command, output).await,
        Command::Keys(command) => keys::run(&client, command, output).await,
        Command::Completions { shell } => completions(shell),
        Command::Man { folder } => man::run(folder.as_deref()),
        Command::Context(command) => contexts::run(&global, command, None, output),
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
    if args.dry_run {
        return rollback_preview(client, args, environment, output).await;
    }
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

async fn rollback_preview(
    client: &Client,
    args: args::Rollback,
    environment: String,
    output: Output,
) -> anyhow::Result<()> {
    let args::Target { namespace, key } = args.target;
    let place = (namespace, key, environment);
    let now = txn::current(client, &place).await?;
    let (namespace, key, environment) = place;
    let version = now.as_ref().map_or(0, |now| now.version);
    if let Some(expected) = args.write.expected_version
        && expected != version
    {
        anyhow::bail!("it would be refused: the entry is at version {version}, not {expected}");
    }
    let old = client
        .get(v1::GetRequest {
            namespace: namespace.clone(),
            key: key.clone(),
            environment: environment.clone(),
            version: Some(args.version),
            ..Default::default()
        })
        .await?;
    anyhow::ensure!(!old.deleted, "it would be refused: version {} is a delete", args.version);
    let value = raw(&old.value)?;
    let mut preview = diff::Preview::default();
    preview.add((&namespace, &key, &environment), now.as_ref(), Some((&value, old.secret)));
    preview.print(output)
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
    if output.format != Format::Table {
        return output.print(&difference, |_| table(&[]));
    }
    output::write(&difference_text(difference.from.as_ref(), difference.to.as_ref(), output.paint))
}

/// Two versions of an entry by the lines that differ, for people.
fn difference_text(from: Option<&EntryView>, to: Option<&EntryView>, paint: Paint) -> String {
    let head = |entry: Option<&EntryView>| match entry {
        None => "nothing".to_owned(),
        Some(entry) => {
            let gone = if entry.deleted { ", deleted" } else { "" };
            let when = entry.updated_at.as_deref().unwrap_or("-");
            format!("{} version {}{gone}, {when}", entry.environment, entry.version)
        }
    };
    let mut text = paint.bad(&format!("--- {}", head(from))) + "\n";
    text.push_str(&(paint.good(&format!("+++ {}", head(to))) + "\n"));
    if [from, to].into_iter().flatten().any(|entry| entry.secret) {
        text.push_str("(a secret: not shown)\n");
        return text;
    }
    let value = |entry: Option<&EntryView>| entry.and_then(|entry| entry.value.clone());
    let lines = diff::values(value(from).as_deref(), value(to).as_deref(), paint);
    text.push_str(if lines.is_empty() { "(the values are the same)\n" } else { &lines });
    text
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
        text = String::from_utf8(output::read_file("-", VALUE_BYTES_MAX)?)
            .map_err(|_| Usage("stdin is not UTF-8 text".to_owned()))?;
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
    fn a_difference_is_shown_by_lines_and_never_a_secret() {
        let entry = |version, value: &str, secret| {
            EntryView::new(v1::Entry {
                environment: "base".into(),
                version,
                value: value.to_owned().into(),
                secret,
                ..Default::default()
            })
            .unwrap()
        };
        let (a, b) = (entry(1, "1.0", false), entry(2, "1.00", false));
        let text = difference_text(Some(&a), Some(&b), Paint(false));
        assert_eq!(text, "--- base version 1, -\n+++ base version 2, -\n- 1.0\n+ 1.00\n");
        assert!(difference_text(Some(&a), Some(&a), Paint(false)).contains("the same"));
        let secret = entry(3, "\"********\"", true);
        let text = difference_text(Some(&a), Some(&secret), Paint(false));
        assert!(text.contains("not shown") && !text.contains("1.0"), "{text}");
    }
}
