//! The `llm-config-load` program: load on a running cluster or on one that it starts, and the comparison with etcd.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use llm_config_benches::floor;

mod options;
mod runs;

use options::{Compare, Curves, Draw, Floor, Rolling, Run, Table};

/// Puts load on a cluster and tells what clients got and what it cost the servers
///
/// On stdout come a line of JSON for each run and tables in Markdown, on stderr the progress.
#[derive(Debug, Parser)]
#[command(name = "llm-config-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the usual kinds of work on clusters of three nodes that are started for it
    Table(Table),
    /// Make one run, of any kind of work, on a running cluster or one that is started for it
    Run(Run),
    /// Do the same with this system and with etcd, in turn, and tell the ratios and whether the targets are met
    Compare(Compare),
    /// Measure how cost grows: with clients, the size of values, keys, nodes, watchers
    Curves(Curves),
    /// Draw what was measured along the axes
    Draw(Draw),
    /// Restart every node in turn under a constant load of writes, and tell how long a write waited at most
    Rolling(Rolling),
    /// Serve empty answers: started by the others
    #[command(hide = true)]
    Floor(Floor),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let work = async {
        match cli.command {
            Command::Table(table) => runs::table(&table).await,
            Command::Run(run) => runs::run(&run).await,
            Command::Compare(compare) => runs::compare(&compare).await,
            Command::Curves(curves) => runs::curves(&curves).await,
            Command::Draw(draw) => runs::draw(&draw),
            Command::Rolling(rolling) => runs::rolling(&rolling).await,
            Command::Floor(floor) => floor::serve(floor.grpc, floor.http).await,
        }
    };
    // What is dropped ends its servers and removes their data.
    let result = tokio::select! {
        result = work => result,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(Into::into).and_then(|()| Err(anyhow::anyhow!("interrupted")))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
