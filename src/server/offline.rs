//! What is done with files while no node runs on them: check a backup, restore one, save what a lost cluster left.
//!
//! The work is the archive's and the replica's; here are the command lines and the words. Exit codes as for a node: 2
//! wrong usage, 3 a file or directory that must not be used, 1 a fault of the machine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use llm_config_archive::{ArchiveError, Summary};
use llm_config_replica::{Recovery, RestoreTarget, Restored, StartError};

use crate::settings;

/// `backup …`
#[derive(Debug, Subcommand)]
pub enum Backup {
    /// Reads a backup to its end, checks all of it, and says what is in it
    Verify {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `restore …`
#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Directory of the new node; empty or not there yet
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Number of the new node
    #[arg(long, value_name = "N", value_parser = settings::node_id)]
    node_id: u64,
    /// The founding nodes of the new cluster, the same list for each of them
    #[arg(long, value_name = "ID=HOST:RAFTPORT,…", value_parser = settings::members)]
    initial_cluster: BTreeMap<u64, String>,
    /// Any text, the same for each founding node: tells apart two clusters from one backup with the same list
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    cluster_token: String,
}

/// `recover …`
#[derive(Debug, Args)]
pub struct Recover {
    /// Directory of a stopped node of the cluster that lost its majority
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Refuse the directory of another node than this one
    #[arg(long, value_name = "N", value_parser = settings::node_id)]
    node_id: Option<u64>,
    /// Where the backup is written; must not exist yet
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write it: whoever says so has read what may be lost
    #[arg(long, requires = "output")]
    yes: bool,
}

/// Does what the command line says, and answers with what is printed. Blocks.
///
/// # Errors
/// See [`StartError`].
pub fn backup(command: &Backup) -> Result<String, StartError> {
    let Backup::Verify { file } = command;
    let summary = llm_config_archive::verify(file).map_err(|error| unusable(file, &error))?;
    Ok(described(&summary))
}

/// Makes the data directory of a founding node out of a backup. Blocks.
///
/// # Errors
/// See [`StartError`]; a refused restore has touched nothing.
pub fn restore(command: &Restore) -> Result<String, StartError> {
    let target = RestoreTarget {
        data_dir: command.data_dir.clone(),
        node_id: command.node_id,
        initial_cluster: command.initial_cluster.clone(),
        token: command.cluster_token.clone(),
    };
    let Restored { cluster_id, node_id, revision, source } =
        llm_config_replica::restore(&command.file, &target)?;
    Ok(format!(
        "restored {} into {}\n\
         new cluster   {cluster_id} (the backup is of {})\n\
         node          {node_id}\n\
         revision      {revision}\n\
         Restore the same file with the same list for every node of it, then start them with that --initial-cluster.\n",
        command.file.display(),
        command.data_dir.display(),
        source.manifest.cluster_id,
    ))
}

/// Says what a stopped node holds, and writes it as a backup when that was asked for. Blocks.
///
/// # Errors
/// See [`StartError`].
pub fn recover(command: &Recover) -> Result<String, StartError> {
    let output = command.output.as_deref().filter(|_| command.yes);
    let recovery = llm_config_replica::recover(&command.data_dir, command.node_id, output)?;
    Ok(report(&recovery, command.output.as_deref(), command.yes))
}

fn unusable(file: &Path, error: &ArchiveError) -> StartError {
    let text = format!("{}: {error}", file.display());
    match error {
        ArchiveError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            StartError::Usage(format!("{text}; give the path of a backup"))
        }
        ArchiveError::Io(_) => StartError::Runtime(text),
        _ => StartError::DataDir(text),
    }
}

fn described(summary: &Summary) -> String {
    let manifest = &summary.manifest;
    let voters: Vec<_> =
        manifest.voters.iter().map(|(id, address)| format!("{id}={address}")).collect();
    let created = i64::try_from(manifest.created_at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX);
    let lines = [
        ("cluster", manifest.cluster_id.clone()),
        ("node", manifest.node_id.to_string()),
        ("voters", voters.join(",")),
        ("revision", manifest.revision.to_string()),
        ("created", format!("{created:.3}")),
        ("history-limit", manifest.history_limit.to_string()),
        ("version", manifest.product_version.clone()),
        ("format", summary.format.to_string()),
        ("records", summary.pairs.to_string()),
        ("bytes", summary.file_bytes.to_string()),
        ("sha256", summary.digest_hex()),
    ];
    let mut text = "the backup is complete and undamaged\n".to_owned();
    for (name, value) in lines {
        // Writing to a string does not fail.
        let _written = writeln!(text, "{name:<13} {value}");
    }
    text
}

/// What the node holds, what that may mean, and what to do next.
fn report(recovery: &Recovery, output: Option<&Path>, yes: bool) -> String {
    let mut text = String::new();
    for warning in &recovery.warnings {
        let _written = writeln!(text, "warning: {warning}");
    }
    let voters: Vec<_> =
        recovery.voters.iter().map(|(id, address)| format!("{id}={address}")).collect();
    for (name, value) in [
        ("cluster", recovery.cluster_id.clone()),
        ("node", recovery.node_id.to_string()),
        ("voters", voters.join(",")),
        ("term", recovery.term.to_string()),
        ("applied", format!("index {}, revision {}", recovery.applied_index, recovery.revision)),
        ("committed", format!("index {}, as far as this node knew", recovery.committed_index)),
        ("last", format!("index {}, of term {}", recovery.last_index, recovery.last_term)),
    ] {
        let _written = writeln!(text, "{name:<10} {value}");
    }
    let _written = writeln!(
        text,
        "\nMAY BE LOST: changes that the lost nodes acknowledged and this node never received. Of several surviving \
         nodes, use the one with the highest last term and, among those, the highest last index: it knows most.\n\
         MAY APPEAR: {} entries at the end of the log were not known to be committed. They are taken over: a change \
         whose caller was told that its outcome is unknown may turn out to have happened.",
        recovery.uncommitted,
    );
    text.push_str(&match (&recovery.archive, output) {
        (Some(summary), Some(output)) => format!(
            "\nwrote {}: revision {}, {} bytes. Restore it for every founding node of a NEW cluster, with the same \
             list on each:\n  llm-config-manager restore {} --data-dir DIR --node-id N --initial-cluster \
             1=HOST:RAFTPORT,2=HOST:RAFTPORT,3=HOST:RAFTPORT\nNever start a node of the old cluster again beside it.\n",
            output.display(),
            summary.manifest.revision,
            summary.file_bytes,
            output.display(),
        ),
        _ if yes => String::new(),
        _ => "\nNothing was written. Repeat with --output FILE --yes to save this as a backup.\n".to_owned(),
    });
    text
}
