//! The library that is loaded into servers to move their clocks and break their reads and syncs: compiled from `shim.c`, told what
//! to do through one page of shared memory for each node.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::command;

const SOURCE: &str = include_str!("shim.c");
const PAGE_BYTES: u64 = 4096;

/// The compiled library.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
}

/// The page of one node.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    file: File,
}

/// A number in the page, by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Word {
    /// Added to the wall clock, in nanoseconds.
    WallOffset = 0,
    /// Waited before each sync, in microseconds.
    SyncDelay = 1,
    /// The error of each sync.
    SyncError = 2,
    /// Syncs do nothing and succeed.
    SyncLies = 3,
    /// How often an offset was added.
    ClockAsked = 4,
    /// How often a sync was touched.
    SyncsTouched = 5,
    /// How many syncs still fail; negative: all.
    SyncsToFail = 6,
    /// Of the monotonic clock, in millionths of its true rate; 0: as it is.
    Rate = 7,
    /// How often a clock with another rate was asked.
    RateAsked = 8,
    /// How far it is ahead of the true one, in nanoseconds.
    Gained = 9,
    /// The error of reads of the node's files.
    ReadError = 10,
    /// Of so many reads one fails.
    ReadEvery = 11,
    /// Reads while reads fail.
    ReadsSeen = 12,
    /// How often one did.
    ReadsFailed = 13,
}

impl Shim {
    /// Compiles the library into `folder`.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn build(folder: &Path) -> anyhow::Result<Self> {
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        std::fs::write(&source, SOURCE)?;
        let flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"].map(AsRef::as_ref);
        let files = [library.as_os_str(), source.as_os_str(), "-ldl".as_ref()];
        command::run("cc", flags.into_iter().chain(files)).context("the shim")?;
        Ok(Self { library })
    }

    /// The library.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }
}

impl Page {
    /// Makes a page that changes nothing.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file =
            File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        file.set_len(PAGE_BYTES)?;
        Ok(Self { path, file })
    }

    /// The page that is there already.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self { path, file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells the server.
    ///
    /// # Errors
    /// When the page cannot be written.
    pub fn set(&self, word: Word, value: i64) -> anyhow::Result<()> {
        let written = self.file.write_all_at(&value.to_ne_bytes(), word as u64 * 8);
        written.context("cannot write to the page of the shim")
    }

    /// What the server told.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub fn get(&self, word: Word) -> anyhow::Result<i64> {
        let mut bytes = [0; 8];
        let read = self.file.read_exact_at(&mut bytes, word as u64 * 8);
        read.context("cannot read the page of the shim")?;
        Ok(i64::from_ne_bytes(bytes))
    }
}
