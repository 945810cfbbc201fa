//! A run in a process of its own, so that one that fails or hangs takes no other with it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};

use crate::lab::run_file;
use crate::report::Report;

/// How long a run that was told to stop may take to clean up.
const STOP_TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(200);

/// The command `run` of this program, without its options.
///
/// # Errors
/// When this program does not know where it is.
pub fn command() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program has no path")?;
    let mut command = Command::new(program);
    command.arg("run").stdin(Stdio::null());
    Ok(command)
}

/// Makes the run, with its folder in `out`. Nothing comes back when the harness failed.
///
/// # Errors
/// When it cannot be started or cleaned up after.
pub fn run(mut command: Command, timeout: Duration, out: &Path) -> anyhow::Result<Option<Report>> {
    let before = reports(out)?;
    let child = command.arg("--out").arg(out).spawn().context("cannot start a run")?;
    wait(child, timeout)?;
    // What a run that was killed left; those of others that still run are not touched.
    for (run, done) in run_file::clean()? {
        if let Err(error) = done {
            println!("cannot clean up after {run}: {error:#}");
        }
    }
    reports(out)?.difference(&before).next().map(|path| Report::load(path)).transpose()
}

/// The reports that there are.
fn reports(out: &Path) -> anyhow::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for folder in fs::read_dir(out).into_iter().flatten() {
        let path = folder?.path().join("report.json");
        if path.is_file() {
            found.insert(path);
        }
    }
    Ok(found)
}

fn wait(mut child: Child, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut told = false;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline + STOP_TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(());
        }
        if Instant::now() > deadline && !told {
            told = true;
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let pid = pid.context("a process number out of range")?;
            rustix::process::kill_process(pid, Signal::TERM)?;
        }
        thread::sleep(POLL);
    }
    Ok(())
}
