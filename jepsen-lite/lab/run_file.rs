//! What a run makes, written down before it is made, so that whatever ends the run, nothing of it stays behind, and
//! nothing else is ever taken away.
//!
//! A run file has one JSON object a line. It lies in [`DIR`], which survives the process but not the machine, as do the
//! things that it lists.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::command;

/// Where run files lie.
pub const DIR: &str = "/run/jepsen-lite";
/// How long killed processes get to disappear.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);
/// A mount is busy for as long as the kernel still cleans up behind a process.
const UNMOUNT_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// One thing that a run made or is about to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Made {
    /// The process of the harness itself.
    Owner(Process),
    /// A server that was started.
    Process(Process),
    /// A network namespace; every process in it is the run's.
    Namespace(String),
    /// A control group of this controller, by its path.
    Group(PathBuf),
    /// A file system that is mounted here.
    Mount(PathBuf),
    /// A loop device that shows this file.
    Loop(PathBuf),
    /// A folder with all that is in it.
    Folder(PathBuf),
}

/// A process that no other can be taken for: numbers are used again, together with the start time they are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

impl Process {
    /// The process with this number, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let (process, state) = Self::look(pid)?;
        (state != 'Z' && state != 'X').then_some(process)
    }

    /// A child that nobody has waited for yet: it may have ended, but its number is its own until then.
    #[must_use]
    pub fn of_child(pid: u32) -> Option<Self> {
        Self::look(pid).map(|(process, _)| process)
    }

    fn look(pid: u32) -> Option<(Self, char)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may have blanks and parentheses in it; field 22 counts from before it.
        let (_, fields) = stat.rsplit_once(") ")?;
        let state = fields.chars().next()?;
        let started = fields.split(' ').nth(19)?.parse().ok()?;
        Some((Self { pid, started }, state))
    }

    /// Whether it still runs.
    #[must_use]
    pub fn runs(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    fn kill(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.runs()) {
            // It may have ended by itself in between.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// The list of one run.
#[derive(Debug)]
pub struct RunFile {
    path: PathBuf,
    file: File,
    made: Vec<Made>,
}

impl RunFile {
    /// Begins the list of a run.
    ///
    /// # Errors
    /// When it cannot be written, or there is a run of that name.
    pub fn create(run: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(DIR).with_context(|| format!("cannot make {DIR}"))?;
        let path = Path::new(DIR).join(format!("{run}.run"));
        // Under its name only when it has an owner: whoever cleans up beside takes one without for one that is left.
        let draft = path.with_extension("draft");
        let file = OpenOptions::new().create_new(true).append(true).open(&draft);
        let file = file.with_context(|| format!("cannot write {}", draft.display()))?;
        let mut list = Self { path, file, made: Vec::new() };
        let owner = Process::of(std::process::id()).context("/proc does not know this process");
        let named = owner.and_then(|owner| {
            list.add(Made::Owner(owner))?;
            fs::hard_link(&draft, &list.path)
                .with_context(|| format!("cannot write {}", list.path.display()))
        });
        fs::remove_file(&draft)?;
        named.map(|()| list)
    }

    /// Writes down what is about to be made.
    ///
    /// # Errors
    /// When it cannot be written: then it must not be made.
    pub fn add(&mut self, made: Made) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(&made)?;
        line.push('\n');
        // Not synced: what it lists does not survive the machine either.
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.display()))?;
        self.made.push(made);
        Ok(())
    }

    /// Takes everything away, in the reverse order; what is gone already is no error.
    ///
    /// # Errors
    /// What could not be taken away; the run file stays then.
    pub fn undo(&mut self) -> anyhow::Result<()> {
        undo(&self.made)?;
        fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

/// What is left of runs whose harness is gone: their names, and what came of taking them away.
///
/// # Errors
/// When the folder of run files cannot be read.
pub fn clean() -> anyhow::Result<Vec<(String, anyhow::Result<()>)>> {
    let mut cleaned = Vec::new();
    if !Path::new(DIR).exists() {
        return Ok(cleaned);
    }
    // Held until the end: two that take away the same would meet what the other has half done.
    let turn = File::create(Path::new(DIR).join("clean.lock")).and_then(|file| {
        file.lock()?;
        Ok(file)
    });
    let _turn = turn.with_context(|| format!("cannot lock {DIR}"))?;
    for file in fs::read_dir(DIR).with_context(|| format!("cannot read {DIR}"))? {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "run") {
            continue;
        }
        let made = match read(&path) {
            // It has just ended, and taken its list with it.
            Err(_) if !path.exists() => continue,
            made => made?,
        };
        let alive = made.iter().any(|made| matches!(made, Made::Owner(owner) if owner.runs()));
        if alive {
            continue;
        }
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let undone = undo(&made).and_then(|()| Ok(fs::remove_file(&path)?));
        cleaned.push((name, undone));
    }
    Ok(cleaned)
}

/// A last line that was cut off announces something that was never made.
fn read(path: &Path) -> anyhow::Result<Vec<Made>> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut made = Vec::new();
    for line in BufReader::new(file).lines() {
        match serde_json::from_str(&line?) {
            Ok(one) => made.push(one),
            Err(_) => break,
        }
    }
    Ok(made)
}

fn undo(made: &[Made]) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for one in made.iter().rev() {
        let undone = match one {
            Made::Owner(_) => Ok(()),
            Made::Process(process) => end(&[*process]),
            Made::Namespace(name) => remove_namespace(name),
            Made::Group(path) => remove_group(path),
            Made::Mount(path) => unmount(path),
            Made::Loop(image) => detach(image),
            Made::Folder(path) => remove_folder(path),
        };
        if let Err(error) = undone {
            failed.push(format!("{one:?}: {error:#}"));
        }
    }
    if failed.is_empty() { Ok(()) } else { anyhow::bail!("{}", failed.join("; ")) }
}

fn end(processes: &[Process]) -> anyhow::Result<()> {
    let deadline = Instant::now() + EXIT_TIMEOUT;
    loop {
        let alive: Vec<_> = processes.iter().filter(|process| process.runs()).collect();
        if alive.is_empty() {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{alive:?} cannot be killed");
        alive.iter().for_each(|process| process.kill());
        thread::sleep(POLL);
    }
}

fn remove_namespace(name: &str) -> anyhow::Result<()> {
    if !Path::new("/run/netns").join(name).exists() {
        return Ok(());
    }
    let own = std::process::id();
    let pids = command::run("ip", ["netns", "pids", name])?;
    let pids = pids.lines().filter_map(|pid| pid.trim().parse().ok()).filter(|pid| *pid != own);
    end(&pids.filter_map(Process::of).collect::<Vec<_>>())?;
    command::run("ip", ["netns", "del", name]).map(drop)
}

fn remove_group(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + EXIT_TIMEOUT;
    loop {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(POLL),
        }
    }
}

fn is_mounted(path: &Path) -> anyhow::Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    let is = |line: &str| line.split(' ').nth(1).is_some_and(|target| Path::new(target) == path);
    Ok(mounts.lines().any(is))
}

/// Unmounts what is mounted at `path`, once or more often.
///
/// # Errors
/// When it stays busy.
pub fn unmount(path: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + UNMOUNT_TIMEOUT;
    while is_mounted(path)? {
        let done = command::run("umount", [path]);
        if done.is_err() && Instant::now() > deadline {
            return done.map(drop);
        }
        if done.is_err() {
            thread::sleep(POLL);
        }
    }
    Ok(())
}

fn detach(image: &Path) -> anyhow::Result<()> {
    if !image.exists() {
        return Ok(());
    }
    let listed = command::run("losetup", ["-j".as_ref(), image.as_os_str()])?;
    for device in listed.lines().filter_map(|line| line.split(':').next()) {
        command::run("losetup", ["-d", device])?;
    }
    Ok(())
}

fn remove_folder(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
