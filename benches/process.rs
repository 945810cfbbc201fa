//! A server process of this machine: started with its log in a file, stopped, killed, and gone when the handle is dropped.

use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rand::Rng as _;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Below what the system gives to outgoing connections: one of those could take the port of a server that is down, or
/// connect to itself while it looks for that server.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
const PORT_TRIES: usize = 1000;
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);
const LOG_TAIL_LINES: usize = 15;
/// In which `stat` counts what a file takes, whatever the file system's blocks are.
const DISK_BLOCK_BYTES: u64 = 512;

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it; what it prints is appended to `log`. It ends by itself when this program does, if it heeds the end of its
    /// standard input.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let program = Path::new(command.get_program()).display().to_string();
        let child = command.spawn().with_context(|| format!("cannot start {program}"))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Its id.
    ///
    /// # Errors
    /// Never, as long as ids are those of Linux.
    pub fn pid(&self) -> anyhow::Result<i32> {
        i32::try_from(self.child.id()).context("no process id")
    }

    /// That it has not ended.
    ///
    /// # Errors
    /// When it has, with the end of its log.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => {
                bail!("a server stopped ({status}); its log ends with:\n{}", self.tail())
            }
            None => Ok(()),
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not.
    pub async fn stop(&mut self) -> anyhow::Result<ExitStatus> {
        let pid = Pid::from_raw(self.pid()?).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "a server does not stop");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// When it was gone already.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// The end of its log.
    #[must_use]
    pub fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Its data goes too, so there is nothing to flush. Both calls fail only for a process that is already gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// So many ports that were free a moment ago. All are held until all are known, so that no two are the same.
///
/// # Errors
/// When there are not enough.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let mut held = Vec::with_capacity(count);
    let mut tried = HashSet::new();
    while held.len() < count {
        let port = rand::rng().random_range(PORTS);
        if !tried.insert(port) {
            continue;
        }
        anyhow::ensure!(tried.len() <= PORT_TRIES, "no free ports in {PORTS:?}");
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push(listener);
        }
    }
    held.iter().map(|listener| Ok(listener.local_addr()?)).collect()
}

/// Lets this process, and those that it starts, open as many files as the system allows; how many that is.
///
/// # Errors
/// When the system refuses.
pub fn raise_open_files() -> anyhow::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .context("cannot raise the number of open files")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The kind of file system below a path.
#[must_use]
pub fn file_system(path: &Path) -> Option<String> {
    let path = path.canonicalize().ok()?;
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.as_os_str().len())
        .map(|mount| mount.fs_type)
}

/// What the files below a folder take on its disk. One that has several names counts once; one that goes meanwhile, not
/// at all.
///
/// # Errors
/// When a folder cannot be read.
pub fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    let mut counted = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    let mut sum = 0;
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
        };
        for entry in entries {
            let path = entry?.path();
            let file = match std::fs::symlink_metadata(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                file => file.with_context(|| format!("cannot read {}", path.display()))?,
            };
            if file.is_dir() {
                folders.push(path);
            } else if counted.insert((file.dev(), file.ino())) {
                sum += file.blocks() * DISK_BLOCK_BYTES;
            }
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_two_names_takes_its_room_once() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(disk_bytes(dir.path()).unwrap(), 0);
        let below = dir.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let (one, two) = (dir.path().join("one"), below.join("two"));
        let mut file = File::create(&one).unwrap();
        std::io::Write::write_all(&mut file, &[7; 100_000]).unwrap();
        file.sync_all().unwrap();
        let size = disk_bytes(dir.path()).unwrap();
        assert!((100_000..200_000).contains(&size), "{size}");
        std::fs::hard_link(&one, &two).unwrap();
        assert_eq!(disk_bytes(dir.path()).unwrap(), size);
        assert_eq!(disk_bytes(&below).unwrap(), size);
        assert_eq!(disk_bytes(&dir.path().join("absent")).unwrap(), 0);
    }

    #[test]
    fn ports_are_distinct_and_never_those_of_outgoing_connections() {
        let ports = free_ports(20).unwrap();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 20);
        assert!(ports.iter().all(|address| PORTS.contains(&address.port())));
        assert!(free_ports(PORT_TRIES + 1).is_err());
    }

    #[test]
    fn the_file_system_of_proc_is_known() {
        assert_eq!(file_system(Path::new("/proc")).as_deref(), Some("proc"));
    }

    #[tokio::test]
    async fn a_process_is_asked_to_stop_or_killed_and_its_log_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let start =
            |script: &str| Process::start(Command::new("sh").args(["-c", script]), &log).unwrap();
        let mut process = start("trap 'exit 7' TERM; echo started; while :; do sleep 0.01; done");
        while !process.tail().contains("started") {
            process.alive().unwrap();
            tokio::time::sleep(POLL).await;
        }
        assert_eq!(process.stop().await.unwrap().code(), Some(7));
        let error = process.alive().unwrap_err().to_string();
        assert!(error.contains("started"), "{error}");
        let mut other = start("exec cat");
        other.kill().unwrap();
        assert!(other.alive().is_err());
        assert!(Process::start(&mut Command::new("/no/such/program"), &log).is_err());
    }
}
