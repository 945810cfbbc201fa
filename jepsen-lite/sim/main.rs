//! Deterministic simulation of replicas: `llm-config-sim run`, `sweep`, `replay-check`, `prove`.
//!
//! One process is one seed: what decides chance and time is the process's own. Reading order: `plan` (what a seed decides),
//! `run` (the phases), `node` (what runs on a simulated machine), `cluster` and `nemesis` (what is done to it),
//! `invariants` (what must hold in each tick), `clients` and `history` (what was promised to whoever asked).

#[cfg(not(tokio_unstable))]
compile_error!(
    "build in this folder: .cargo/config.toml sets a flag without which a seed is not replayed"
);

mod clients;
mod cluster;
mod history;
mod invariants;
mod nemesis;
mod node;
mod plan;
mod run;
mod sweep;
mod trace;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::plan::Mistake;

/// Deterministic simulation of replicas.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Runs one seed and says what it decided, what came of it, and the hash of all that happened.
    Run {
        /// Decides everything.
        #[arg(long)]
        seed: u64,
        /// A deliberate mistake, which has to be found.
        #[arg(long, value_enum)]
        mistake: Option<Mistake>,
        /// Writes everything that happened to this file.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Shows what the nodes log, from this level on.
        #[arg(long)]
        log: Option<tracing::Level>,
    },
    /// Runs many seeds, each in a process of its own.
    Sweep {
        /// The first.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many.
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// How many at once.
        #[arg(long, default_value_t = 1)]
        jobs: usize,
    },
    /// Runs a seed twice and compares everything that happened, byte by byte.
    ReplayCheck {
        /// Decides everything.
        #[arg(long)]
        seed: u64,
    },
    /// Makes each deliberate mistake, and sees that a few seeds find it.
    Prove {
        /// How many seeds each mistake gets.
        #[arg(long, default_value_t = 20)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().action {
        Action::Run { seed, mistake, trace, log } => run::run(seed, mistake, trace, log),
        Action::Sweep { from, seeds, jobs } => sweep::sweep(from, seeds, jobs),
        Action::ReplayCheck { seed } => sweep::replay_check(seed),
        Action::Prove { seeds } => sweep::prove(seeds),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
