//! The disk of a node: an ext4 file system in a file of its own, behind a loop device, whose power can be cut.
//!
//! `kill -9` loses nothing that was written, so it cannot tell whether a node syncs. Here the file system is shut down
//! after the process was killed, as the kernel's own tests do it: what was not synced is gone.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::io::Errno;
use rustix::ioctl::{self, Setter, opcode};

use super::command;
use super::run_file::{self, Made, RunFile};

/// `EXT4_IOC_SHUTDOWN`.
const SHUTDOWN: ioctl::Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: not even the journal is written.
const NO_LOG_FLUSH: u32 = 2;
const CANARY: &str = "lcjl-canary";
const FILLER: &str = "lcjl-filler";
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);
const CANARY_BYTES: usize = 64 * 1024;
/// What every access to a file system gives that was shut down.
const DEAD: i32 = Errno::IO.raw_os_error();

/// The disk of a node.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    device: String,
    mounted: bool,
}

/// What a power cut did to data that was written and not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// It is gone, as it should be.
    Lost,
    /// It is still there: that was no power cut.
    Kept,
    /// There was no room to write any.
    Untried,
}

/// The kernel lets go of a device a moment after its file system was unmounted: until then it is in use.
fn insist(mut work: impl FnMut() -> anyhow::Result<String>) -> anyhow::Result<()> {
    let deadline = Instant::now() + BUSY_TIMEOUT;
    loop {
        let done = work().map(drop);
        if done.is_ok() || Instant::now() > deadline {
            return done;
        }
        thread::sleep(POLL);
    }
}

impl Disk {
    /// Makes an empty disk in `folder`, and mounts it.
    ///
    /// # Errors
    /// When the machine does not let it.
    pub fn create(
        folder: &Path,
        name: &str,
        mebibytes: u64,
        list: &mut RunFile,
    ) -> anyhow::Result<Self> {
        let (image, mount) =
            (folder.join(format!("{name}.img")), folder.join(format!("{name}.disk")));
        File::create(&image)?.set_len(mebibytes * 1024 * 1024)?;
        fs::create_dir(&mount)?;
        list.add(Made::Loop(image.clone()))?;
        let attach = ["-f".as_ref(), "--show".as_ref(), image.as_os_str()];
        let device = command::run("losetup", attach)?.trim().to_owned();
        list.add(Made::Mount(mount.clone()))?;
        let mut disk = Self { image, mount, device, mounted: false };
        disk.format()?;
        disk.mount()?;
        Ok(disk)
    }

    fn format(&self) -> anyhow::Result<()> {
        insist(|| command::run("mkfs.ext4", ["-q", "-F", "-m", "0", &self.device]))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Major and minor number of its device, as the block controller wants them.
    ///
    /// # Errors
    /// When the device is gone.
    pub fn number(&self) -> anyhow::Result<String> {
        let name = self.device.trim_start_matches("/dev/");
        let number = fs::read_to_string(format!("/sys/block/{name}/dev"));
        Ok(number.with_context(|| format!("no device {}", self.device))?.trim().to_owned())
    }

    /// Mounts it; the file system repairs itself from its journal.
    ///
    /// # Errors
    /// When `mount` fails.
    pub fn mount(&mut self) -> anyhow::Result<()> {
        if !self.mounted {
            let mount = self.mount.to_string_lossy();
            insist(|| command::run("mount", ["-t", "ext4", &self.device, &mount]))?;
            self.mounted = true;
        }
        Ok(())
    }

    /// Unmounts it, with everything written.
    ///
    /// # Errors
    /// When a process still uses it.
    pub fn unmount(&mut self) -> anyhow::Result<()> {
        run_file::unmount(&self.mount)?;
        self.mounted = false;
        Ok(())
    }

    /// Cuts the power and turns it on again. The caller has killed the process before: the kernel may tell a running one
    /// that a sync in flight had succeeded.
    ///
    /// # Errors
    /// When the kernel does not let it.
    pub fn cut_power(&mut self) -> anyhow::Result<Unsynced> {
        let canary = self.mount.join(CANARY);
        let mut file = File::create(&canary).context("cannot write to the disk")?;
        // A disk that is full cuts no less.
        let written = file.write(&vec![b'c'; CANARY_BYTES]).unwrap_or(0);
        self.shut_down()?;
        drop(file);
        let deadline = Instant::now() + BUSY_TIMEOUT;
        let kept = loop {
            self.unmount()?;
            self.mount()?;
            let kept = fs::metadata(&canary).map_or(0, |found| found.len());
            match fs::remove_file(&canary) {
                // A program that starts in a name space of its own holds on to all mounts for a moment: what was mounted is
                // the dead file system again, then.
                Err(error) if error.raw_os_error() == Some(DEAD) && Instant::now() < deadline => {
                    thread::sleep(POLL)
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).context("cannot remove what should be gone");
                }
                Ok(()) | Err(_) => break kept,
            }
        };
        Ok(match (written, kept) {
            (0, _) => Unsynced::Untried,
            (_, 0) => Unsynced::Lost,
            _ => Unsynced::Kept,
        })
    }

    /// From now on every access fails, until it is mounted again.
    fn shut_down(&self) -> anyhow::Result<()> {
        let root = File::open(&self.mount)
            .with_context(|| format!("cannot open {}", self.mount.display()))?;
        // SAFETY: the kernel reads one u32 for this code and writes nothing back.
        #[expect(unsafe_code, reason = "rustix has no call of its own for this")]
        let done = unsafe { ioctl::ioctl(&root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        done.with_context(|| format!("cannot shut down {}", self.mount.display()))
    }

    /// Takes all space that is left but `bytes`, and tells how much that was.
    ///
    /// # Errors
    /// When there is less than that.
    pub fn fill(&self, leave: u64) -> anyhow::Result<u64> {
        let file = File::create(self.mount.join(FILLER))?;
        let free = self.free()?.saturating_sub(leave);
        ensure!(free > 0, "there is nothing to fill");
        // Blocks for the file's own map may not be left; what fits is what is taken.
        let mut size = free;
        let flags = rustix::fs::FallocateFlags::empty();
        while size > 0 && rustix::fs::fallocate(&file, flags, 0, size).is_err() {
            size = size.saturating_sub(64 * 1024);
        }
        file.sync_all()?;
        Ok(size)
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// When it cannot.
    pub fn free_filler(&self) -> anyhow::Result<()> {
        fs::remove_file(self.mount.join(FILLER)).context("cannot remove the filler")
    }

    /// Bytes that are free.
    ///
    /// # Errors
    /// When the file system does not tell.
    pub fn free(&self) -> anyhow::Result<u64> {
        let stat = rustix::fs::statvfs(&self.mount)?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    /// The file that it is, with everything in it that was written so far.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn written(&self) -> anyhow::Result<&Path> {
        if self.mounted {
            let root = File::open(&self.mount).context("cannot open the disk")?;
            rustix::fs::syncfs(root).context("cannot sync the disk")?;
        }
        Ok(&self.image)
    }

    /// A copy of the whole disk as it is now; it must be unmounted.
    ///
    /// # Errors
    /// When it is in use, or there is no room.
    pub fn save(&self) -> anyhow::Result<PathBuf> {
        ensure!(!self.mounted, "{} is mounted", self.mount.display());
        let copy = self.image.with_extension("saved");
        command::run("cp", ["--sparse=always".as_ref(), self.image.as_os_str(), copy.as_os_str()])?;
        Ok(copy)
    }

    /// Puts a copy back.
    ///
    /// # Errors
    /// When it is in use.
    pub fn restore(&self, copy: &Path) -> anyhow::Result<()> {
        ensure!(!self.mounted, "{} is mounted", self.mount.display());
        // Into the same file, because the loop device holds on to it.
        command::run(
            "dd",
            [
                &format!("if={}", copy.display()),
                &format!("of={}", self.device),
                &"bs=1M".to_owned(),
                &"conv=fsync".to_owned(),
                &"status=none".to_owned(),
            ],
        )
        .map(drop)
    }

    /// Empties it.
    ///
    /// # Errors
    /// When a process still uses it.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.format()?;
        self.mount()
    }
}
