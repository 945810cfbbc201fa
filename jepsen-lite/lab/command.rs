//! Programs of the system, each with a deadline: `ip`, `nft`, `mount`, `losetup` and what else a lab is made of.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

/// Longest time one of them may take; `mkfs` on a busy machine is the slowest.
const TIMEOUT_SECONDS: &str = "60";

/// Runs a program to its end and gives back what it wrote to its standard output.
///
/// # Errors
/// When it cannot be started, fails or takes too long, with what it wrote to its standard error.
pub fn run<I, S>(program: &str, args: I) -> anyhow::Result<String>
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", TIMEOUT_SECONDS, program]).args(args).stdin(Stdio::null());
    let words = || {
        let words = command.get_args().skip(2).map(OsStr::to_string_lossy);
        words.collect::<Vec<_>>().join(" ")
    };
    let words = words();
    let output = command.output().with_context(|| format!("cannot start `{words}`"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("`{words}`: {}: {}", output.status, why.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Words separated by blanks, for commands whose arguments have none.
///
/// # Errors
/// As [`run`].
pub fn line(line: &str) -> anyhow::Result<String> {
    let mut words = line.split_whitespace();
    let program = words.next().context("an empty command")?;
    run(program, words)
}
