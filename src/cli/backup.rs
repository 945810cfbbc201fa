//! `backup`: what comes over the network is checked before it gets its name, so that a file with a name is a backup.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use anyhow::Context as _;
use futures::future::join_all;
use llm_config_archive::{ArchiveError, Reader, Summary};
use llm_config_client::{Client, Options, v1};
use serde::Serialize;

use crate::Usage;
use crate::args::{Backup, Consistency, CreateBackup, Global, RestoreBackup};
use crate::endpoints;
use crate::output::{self, Output, cell, table};
use crate::place::quoted;

/// Chunks between the network and the thread that checks them.
const CHUNKS_MAX: usize = 4;
const STDOUT: &str = "-";
const STDIN: &str = "-";

pub(crate) async fn run(
    global: &Global,
    options: &Options,
    command: Backup,
    output: Output,
) -> anyhow::Result<()> {
    let client = || Client::with_options(&global.endpoints, options.clone());
    match command {
        Backup::Create(args) => create(&client()?, &args).await,
        Backup::List => list(global, options, output).await,
        Backup::Keep => keep(&client()?, output).await,
        Backup::Verify { file } => {
            let checked = if file == Path::new(STDIN) {
                check(io::stdin().lock())
            } else {
                llm_config_archive::verify(&file)
            };
            show(&checked.map_err(|e| unusable(&file, e))?, output)
        }
        Backup::Restore(args) => restore(&args),
    }
}

async fn create(client: &Client, args: &CreateBackup) -> anyhow::Result<()> {
    let consistency = match args.consistency {
        Consistency::Cached => v1::Consistency::Cached,
        Consistency::Linearizable => v1::Consistency::Linearizable,
    };
    let to_stdout = args.file == Path::new(STDOUT);
    if to_stdout && io::stdout().is_terminal() {
        let reason = "a backup is not text: send stdout to a file or a program, or name a FILE";
        return Err(Usage(reason.to_owned()).into());
    }
    let summary = if to_stdout {
        receive(client, consistency, BufWriter::new(io::stdout())).await?.1
    } else {
        into_file(client, consistency, &args.file).await?
    };
    output::remark(&format!(
        "backup of cluster {} at revision {}, {} bytes",
        cell(&summary.manifest.cluster_id),
        summary.manifest.revision,
        summary.file_bytes,
    ));
    Ok(())
}

/// Writes beside the name, makes it durable, and only then gives it the name.
async fn into_file(
    client: &Client,
    consistency: v1::Consistency,
    file: &Path,
) -> anyhow::Result<Summary> {
    let shown = file.display();
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    if file.is_dir() || file.file_name().is_none() {
        return Err(Usage(format!("{shown} is a directory; name a file in it")).into());
    }
    let temporary = tempfile::Builder::new()
        .prefix(".llm-config-backup-")
        .tempfile_in(&folder)
        .map_err(|error| Usage(format!("cannot write into {}: {error}", folder.display())))?;
    let (temporary, summary) = receive(client, consistency, temporary).await?;
    temporary.as_file().sync_all().with_context(|| format!("cannot write {shown}"))?;
    // What is on the disk, not what was sent to it.
    let read = llm_config_archive::verify(temporary.path()).map_err(|e| unusable(file, e))?;
    anyhow::ensure!(read == summary, "{shown}: what was read is not what was received");
    temporary.persist(file).with_context(|| format!("cannot write {shown}"))?;
    let synced = File::open(&folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("cannot write {shown}"))?;
    Ok(summary)
}

/// Takes a whole backup from the network, and checks it on its way.
async fn receive<W: Write>(
    client: &Client,
    consistency: v1::Consistency,
    mut out: W,
) -> anyhow::Result<(W, Summary)> {
    let mut backup = client.backup(consistency).await?;
    let (sender, chunks) = sync_channel(CHUNKS_MAX);
    let checking = thread::spawn(move || check(Chunks::new(chunks)));
    while let Some(chunk) = backup.next().await? {
        out.write_all(&chunk).context("cannot write the backup")?;
        // The thread ends early when something is wrong, and says below what.
        if sender.send(chunk.to_vec()).is_err() {
            break;
        }
    }
    drop::<SyncSender<_>>(sender);
    out.flush().context("cannot write the backup")?;
    let Ok(checked) = checking.join() else { anyhow::bail!("the check of the backup broke off") };
    Ok((out, checked.context("the backup that came over the network")?))
}

fn check(input: impl Read) -> Result<Summary, ArchiveError> {
    let (_, mut reader) = Reader::open(input)?;
    while reader.next_pair()?.is_some() {}
    reader.into_summary()
}

/// The chunks as one file.
struct Chunks {
    chunks: Receiver<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl Chunks {
    fn new(chunks: Receiver<Vec<u8>>) -> Self {
        Self { chunks, current: Vec::new(), position: 0 }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position == self.current.len() {
            let Ok(next) = self.chunks.recv() else { return Ok(0) };
            self.current = next;
            self.position = 0;
        }
        let read = (&self.current[self.position..]).read(buffer)?;
        self.position += read;
        Ok(read)
    }
}

#[derive(Debug, Serialize)]
struct KeptView {
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    node_id: u64,
    name: String,
    bytes: u64,
    revision: u64,
    created_at: Option<String>,
}

impl KeptView {
    fn new(endpoint: Option<String>, node_id: u64, kept: v1::KeptBackup) -> Self {
        Self {
            endpoint,
            node_id,
            name: kept.name,
            bytes: kept.bytes,
            revision: kept.revision,
            created_at: kept.created_at.map(|time| time.to_string()),
        }
    }
}

/// Asks every endpoint: each node has its own files. Fails when none answers.
async fn list(global: &Global, options: &Options, output: Output) -> anyhow::Result<()> {
    let clients = endpoints::each(global, options)?;
    let asked = clients
        .iter()
        .map(|(endpoint, client)| async move { (*endpoint, client.list_backups().await) });
    let mut found = Vec::new();
    let mut silent = true;
    for (endpoint, answer) in join_all(asked).await {
        match answer {
            Ok(answer) => {
                silent = false;
                let node = answer.node_id;
                let views = answer.items.into_iter();
                found.extend(views.map(|kept| KeptView::new(Some(endpoint.clone()), node, kept)));
            }
            Err(error) => say!("{endpoint}: {error}"),
        }
    }
    found.sort_by(|a, b| (&a.name, a.node_id).cmp(&(&b.name, b.node_id)));
    output.print(&found, |found| kept_table(found))?;
    anyhow::ensure!(!silent, "no endpoint answers");
    Ok(())
}

async fn keep(client: &Client, output: Output) -> anyhow::Result<()> {
    let answer = client.keep_backup().await?;
    let Some(kept) = answer.backup else {
        say!("node {} goes on with it; `backup list` shows it when it is complete", answer.node_id);
        return Ok(());
    };
    let kept = [KeptView::new(None, answer.node_id, kept)];
    output.print(&kept, |kept| kept_table(kept))
}

fn kept_table(kept: &[KeptView]) -> comfy_table::Table {
    let mut rows = table(&["NODE", "NAME", "BYTES", "REVISION", "CREATED"]);
    for kept in kept {
        rows.add_row([
            kept.node_id.to_string(),
            cell(&kept.name),
            kept.bytes.to_string(),
            kept.revision.to_string(),
            kept.created_at.clone().unwrap_or_default(),
        ]);
    }
    rows
}

fn unusable(file: &Path, error: ArchiveError) -> anyhow::Error {
    let text = format!("{}: {error}", file.display());
    match error {
        ArchiveError::Io(error) if error.kind() == io::ErrorKind::NotFound => Usage(text).into(),
        _ => anyhow::Error::msg(text),
    }
}

fn show(summary: &Summary, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct View {
        cluster_id: String,
        node_id: u64,
        voters: std::collections::BTreeMap<u64, String>,
        revision: u64,
        created_at_ms: u64,
        history_limit: u64,
        version: String,
        format: u32,
        records: u64,
        bytes: u64,
        sha256: String,
    }
    let manifest = summary.manifest.clone();
    let view = View {
        cluster_id: manifest.cluster_id,
        node_id: manifest.node_id,
        voters: manifest.voters,
        revision: manifest.revision,
        created_at_ms: manifest.created_at_ms,
        history_limit: manifest.history_limit,
        version: manifest.product_version,
        format: summary.format,
        records: summary.pairs,
        bytes: summary.file_bytes,
        sha256: summary.digest_hex(),
    };
    output.print(&view, |view| {
        let mut rows = table(&["CLUSTER", "NODE", "REVISION", "RECORDS", "BYTES", "SHA256"]);
        rows.add_row([
            cell(&view.cluster_id),
            view.node_id.to_string(),
            view.revision.to_string(),
            view.records.to_string(),
            view.bytes.to_string(),
            view.sha256.clone(),
        ]);
        rows
    })
}

/// Nothing is restored from here: the commands belong on the machines of the new nodes.
fn restore(args: &RestoreBackup) -> anyhow::Result<()> {
    let summary = llm_config_archive::verify(&args.file).map_err(|e| unusable(&args.file, e))?;
    let ids = founders(&args.initial_cluster)?;
    output::remark(&format!(
        "the backup is whole: revision {} of cluster {}. On the machine of each new node, with the file copied there:",
        summary.manifest.revision,
        cell(&summary.manifest.cluster_id),
    ));
    for id in ids {
        let mut command = format!(
            "llm-config-manager restore {} --data-dir {} --node-id {id} --initial-cluster {}",
            quoted(&args.file.to_string_lossy()),
            quoted(&args.data_dir.to_string_lossy()),
            quoted(&args.initial_cluster),
        );
        if !args.cluster_token.is_empty() {
            command.push_str(&format!(" --cluster-token {}", quoted(&args.cluster_token)));
        }
        output::line(&command)?;
    }
    Ok(())
}

/// The node ids of a founding list. The addresses are checked where they are used.
fn founders(list: &str) -> anyhow::Result<Vec<u64>> {
    let id = |part: &str| part.split_once('=').and_then(|(id, _)| id.trim().parse().ok());
    let ids: Option<Vec<u64>> = list.split(',').map(id).collect();
    ids.filter(|ids| !ids.contains(&0)).ok_or_else(|| {
        Usage(format!("--initial-cluster: {list:?} is not 1=HOST:RAFTPORT,2=HOST:RAFTPORT,…"))
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_founding_list_names_its_nodes() {
        assert_eq!(founders("1=a:1, 3=b:1").unwrap(), [1, 3]);
        for bad in ["", "a:1", "1=a:1,", "0=a:1", "x=a:1"] {
            assert!(founders(bad).unwrap_err().is::<Usage>(), "{bad}");
        }
    }

    #[test]
    fn a_printed_command_is_safe_to_paste() {
        assert_eq!(quoted("1=a:1,2=[::1]:2"), "1=a:1,2=[::1]:2");
        assert_eq!(quoted("my file"), "'my file'");
        assert_eq!(quoted("it's; rm"), "'it'\\''s; rm'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn what_is_cut_on_the_way_is_refused() {
        let (sender, chunks) = sync_channel(CHUNKS_MAX);
        sender.send(b"LLMCONF-BACKUP\n\x01\0\0".to_vec()).unwrap();
        drop(sender);
        assert!(matches!(check(Chunks::new(chunks)), Err(ArchiveError::Cut { .. })));
        let (sender, chunks) = sync_channel(CHUNKS_MAX);
        sender.send(b"<html>".to_vec()).unwrap();
        drop(sender);
        assert!(matches!(check(Chunks::new(chunks)), Err(ArchiveError::Foreign)));
    }
}
