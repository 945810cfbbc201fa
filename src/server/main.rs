//! The program `llm-config-manager`: reads the command line, runs a node or a local cluster, and ends with a code that
//! says why.
//!
//! Exit codes: 0 a clean stop, 1 a fault at run time, 2 bad usage or configuration, 3 an unusable data directory.

use std::future::Future;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use llm_config_replica::StartError;
use llm_config_server::dev::{self, Cluster};
use llm_config_server::logging::{self, Format};
use llm_config_server::node::{Node, NodeError, Sockets};
use llm_config_server::offline;
use llm_config_server::settings::{self, Flags, Settings, SettingsError};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::level_filters::LevelFilter;

/// RocksDB's memory comes from it too. A write makes many small pieces that other threads let go of, which is dear with the C
/// library's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAULT: u8 = 1;
pub(crate) const USAGE: u8 = 2;
/// How long threads that wait for the disk may hold up the end of the process. The log is safe either way.
const RUNTIME_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A replicated store for configuration, for the programs that use language models.
#[derive(Debug, Parser)]
#[command(
    name = "llm-config-manager",
    version,
    max_term_width = 120,
    arg_required_else_help = true
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one node of a cluster
    ///
    /// Each option may be a flag, an environment variable or a field of the configuration file, in that order of
    /// precedence.
    Serve(Box<Serve>),
    /// Runs a whole cluster on this machine, in one process, for trying things out
    Dev(Dev),
    /// Checks backup files
    #[command(subcommand)]
    Backup(offline::Backup),
    /// Makes the data directory of a node of a new cluster out of a backup; run it for each founding node
    Restore(offline::Restore),
    /// Saves what a stopped node holds, when the majority of its cluster is lost for ever
    ///
    /// Without --yes it changes nothing, writes nothing, and says what would be saved and what may be lost.
    Recover(offline::Recover),
}

#[derive(Debug, clap::Args)]
struct Serve {
    #[command(flatten)]
    flags: Flags,
    /// YAML file with the same options: the names of the flags, without the dashes in front
    #[arg(long, env = "LLM_CONFIG_CONFIG", value_name = "FILE", hide_env_values = true)]
    config: Option<PathBuf>,
    /// Show the effective options as a configuration file, and stop
    #[arg(long)]
    print_config: bool,
}

#[derive(Debug, clap::Args)]
struct Dev {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=7))]
    nodes: u16,
    /// Where the nodes keep their data
    #[arg(long, value_name = "DIR", default_value = dev::DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// Least severe level that is logged: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "error", value_parser = settings::log_level)]
    log_level: LevelFilter,
}

/// Why the program ends with something other than 0.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Node(#[from] NodeError),
    #[error("{0}")]
    Fault(String),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => USAGE,
            Self::Node(error) => error.exit_code(),
            Self::Fault(_) => FAULT,
        }
    }
}

pub(crate) fn main() -> ExitCode {
    let matches = CommandLine::command().get_matches();
    let outcome = CommandLine::from_arg_matches(&matches)
        .map_err(|error| Failure::Settings(SettingsError::new(error.to_string())))
        .and_then(|line| match (line.command, matches.subcommand_matches("serve")) {
            (Command::Serve(serve), Some(matches)) => run_serve(*serve, matches),
            (Command::Serve(_), None) => {
                unreachable!("the matches are those of the command that was parsed")
            }
            (Command::Dev(dev), _) => run_dev(&dev),
            (Command::Backup(command), _) => print(offline::backup(&command)),
            (Command::Restore(command), _) => print(offline::restore(&command)),
            (Command::Recover(command), _) => print(offline::recover(&command)),
        });
    let code = match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            logging::say(&format!("error: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    };
    logging::flush();
    code
}

fn run_serve(serve: Serve, matches: &clap::ArgMatches) -> Result<(), Failure> {
    let settings = Settings::load(serve.flags, matches, serve.config.as_deref())?;
    if serve.print_config {
        let yaml = settings.to_yaml()?;
        return write_out(&yaml);
    }
    start_logging(settings.log_format, settings.log_level)?;
    on_runtime(async {
        let mut signals = Signals::catch()?;
        let sockets = Sockets::bind(&settings)?;
        let node = tokio::select! {
            node = Node::start(&settings, sockets) => node?,
            name = signals.next() => {
                tracing::info!("{name} while starting: stopping");
                return Ok(());
            }
        };
        let ended = signals.or_failure(node.failure()).await;
        signals.stop_or_second(node.stop()).await?;
        ended
    })
}

/// Shows what a command without a node came to.
fn print(outcome: Result<String, StartError>) -> Result<(), Failure> {
    write_out(&outcome.map_err(NodeError::from)?)
}

fn write_out(text: &str) -> Result<(), Failure> {
    io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::Fault(format!("stdout cannot be written: {error}")))
}

fn run_dev(dev: &Dev) -> Result<(), Failure> {
    start_logging(Format::Text, dev.log_level)?;
    on_runtime(async {
        let mut signals = Signals::catch()?;
        let cluster = tokio::select! {
            cluster = Cluster::start(dev.nodes, &dev.data_dir) => cluster?,
            _ = signals.next() => return Ok(()),
        };
        dev::greet(&cluster, shown(&dev.data_dir).as_path());
        let ended = signals.or_failure(cluster.failure()).await;
        signals.stop_or_second(cluster.stop()).await?;
        ended
    })
}

/// The absolute path, so that the message stays true in another terminal.
fn shown(data_dir: &Path) -> PathBuf {
    std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned())
}

fn start_logging(format: Format, level: LevelFilter) -> Result<(), Failure> {
    logging::init(format, level)
        .map_err(|error| Failure::Fault(format!("logging cannot start: {error}")))?;
    logging::log_panics();
    Ok(())
}

fn on_runtime(run: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("node")
        .build()
        .map_err(|error| Failure::Fault(format!("the runtime cannot start: {error}")))?;
    let outcome = runtime.block_on(run);
    // Ends every task and waits for the threads, so that nothing of the storage engine runs while the process ends.
    runtime.shutdown_timeout(RUNTIME_STOP_TIMEOUT);
    outcome
}

/// SIGTERM and SIGINT, caught for as long as this lives.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> Result<Self, Failure> {
        let caught = |kind| {
            signal(kind)
                .map_err(|error| Failure::Fault(format!("signals cannot be caught: {error}")))
        };
        Ok(Self {
            terminate: caught(SignalKind::terminate())?,
            interrupt: caught(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Waits for a signal, or for the reason why the node cannot go on.
    async fn or_failure(
        &mut self,
        failure: impl Future<Output = NodeError>,
    ) -> Result<(), Failure> {
        tokio::select! {
            name = self.next() => {
                tracing::info!("{name}: finishing what is in flight");
                Ok(())
            }
            error = failure => {
                tracing::error!(%error, "the node cannot go on");
                Err(error.into())
            }
        }
    }

    /// An impatient second signal ends the program at once; the log is safe on disk either way.
    async fn stop_or_second(&mut self, stop: impl Future<Output = ()>) -> Result<(), Failure> {
        tokio::select! {
            () = stop => Ok(()),
            name = self.next() => Err(Failure::Fault(format!("{name} again: stopped without finishing"))),
        }
    }
}
