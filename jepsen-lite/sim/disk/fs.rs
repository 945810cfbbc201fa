//! By the names of `std::fs`.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::disk::Entry;
use crate::on;
use crate::os::unix::fs::{FileExt, MetadataExt};

/// An open file or folder.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    entry: Entry,
    position: usize,
    holds_lock: std::sync::atomic::AtomicBool,
}

/// Why a file could not be locked.
#[derive(Debug)]
pub enum TryLockError {
    /// It could not be asked.
    Error(io::Error),
    /// Another holds it.
    WouldBlock,
}

fn offset(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(io::Error::other)
}

impl File {
    /// Opens to read; a folder, too.
    ///
    /// # Errors
    /// When it is not there, or the machine is off.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let entry = on(path.as_ref(), |disk, path, _, _| disk.entry(path))?;
        Ok(Self::of(path.as_ref(), entry))
    }

    /// Opens an empty file to write.
    ///
    /// # Errors
    /// When there is no such folder, or the machine is off.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Opens a file that was not there to write.
    ///
    /// # Errors
    /// When it was there, there is no such folder, or the machine is off.
    pub fn create_new(path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create_new(true).open(path)
    }

    fn of(path: &Path, entry: Entry) -> Self {
        Self { path: path.to_owned(), entry, position: 0, holds_lock: false.into() }
    }

    fn id(&self) -> io::Result<u64> {
        match self.entry {
            Entry::File(id) => Ok(id),
            Entry::Folder => Err(ErrorKind::IsADirectory.into()),
        }
    }

    /// Makes it durable: of a folder, its entries.
    ///
    /// # Errors
    /// When it was told to fail, or the machine is off.
    pub fn sync_all(&self) -> io::Result<()> {
        on(&self.path, |disk, path, chance, defect| match self.entry {
            Entry::File(id) => disk.sync(id, chance, defect),
            Entry::Folder => disk.sync_folder(path, defect),
        })
    }

    /// As [`Self::sync_all`].
    ///
    /// # Errors
    /// As [`Self::sync_all`].
    pub fn sync_data(&self) -> io::Result<()> {
        self.sync_all()
    }

    /// Cuts it, or makes it longer with zeros.
    ///
    /// # Errors
    /// When it is a folder, or the machine is off.
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        let length = offset(length)?;
        on(&self.path, |disk, _, _, _| disk.set_length(self.id()?, length))
    }

    /// Whether a power cut would leave it as it is.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        on(&self.path, |disk, _, _, _| Ok(disk.is_synced(self.id()?))).unwrap_or(false)
    }

    /// Locks it for this program.
    ///
    /// # Errors
    /// See [`TryLockError`].
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        match on(&self.path, |disk, _, _, _| disk.lock(self.id()?)) {
            Ok(true) => {
                self.holds_lock.store(true, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
            Ok(false) => Err(TryLockError::WouldBlock),
            Err(error) => Err(TryLockError::Error(error)),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if *self.holds_lock.get_mut()
            && let Entry::File(id) = self.entry
        {
            let unlocked = on(&self.path, |disk, _, _, _| {
                disk.unlock(id);
                Ok(())
            });
            drop(unlocked);
        }
    }
}

impl FileExt for File {
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let at = offset(at)?;
        on(&self.path, |disk, _, _, _| {
            let rest = disk.content(self.id()?)?.get(at..).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    }

    fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let at = offset(at)?;
        on(&self.path, |disk, _, _, _| disk.write(self.id()?, at, bytes))
    }
}

impl Read for File {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(buffer, self.position as u64)?;
        self.position += read;
        Ok(read)
    }
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all_at(bytes, self.position as u64)?;
        self.position += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How a file is opened.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    create: bool,
    create_new: bool,
    truncate: bool,
}

impl OpenOptions {
    /// To read only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Every file may be read here.
    pub fn read(&mut self, _read: bool) -> &mut Self {
        self
    }

    /// Every file may be written here.
    pub fn write(&mut self, _write: bool) -> &mut Self {
        self
    }

    /// Makes a file that is not there.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Makes a file that must not be there.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// Empties a file that is there.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is not there or must not be, there is no such folder, or the machine is off.
    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let id = on(path, |disk, path, _, _| {
            disk.open(path, self.create, self.create_new, self.truncate)
        })?;
        Ok(File::of(path, Entry::File(id)))
    }
}

/// What is known of a name.
#[derive(Debug, Clone)]
pub struct Metadata {
    file: Option<(u64, u64)>,
}

impl Metadata {
    /// Whether it is a folder.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.file.is_none()
    }

    /// Bytes of a file.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "as in std")]
    pub fn len(&self) -> u64 {
        self.file.map_or(0, |(_, length)| length)
    }
}

impl MetadataExt for Metadata {
    fn dev(&self) -> u64 {
        1
    }

    fn ino(&self) -> u64 {
        self.file.map_or(0, |(id, _)| id)
    }
}

/// One name of a folder.
#[derive(Debug)]
pub struct DirEntry(PathBuf);

impl DirEntry {
    /// The whole path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.clone()
    }

    /// Its last part.
    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.0.file_name().unwrap_or_default().to_owned()
    }

    /// What is known of it.
    ///
    /// # Errors
    /// As [`metadata`].
    pub fn metadata(&self) -> io::Result<Metadata> {
        metadata(&self.0)
    }
}

/// The names of a folder.
///
/// # Errors
/// When it is no folder, or the machine is off.
pub fn read_dir(path: impl AsRef<Path>) -> io::Result<impl Iterator<Item = io::Result<DirEntry>>> {
    let names = on(path.as_ref(), |disk, path, _, _| disk.children(path))?;
    Ok(names.into_iter().map(|name| Ok(DirEntry(name.into()))))
}

/// What is known of a name.
///
/// # Errors
/// When it is not there, or the machine is off.
pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    on(path.as_ref(), |disk, path, _, _| {
        Ok(match disk.entry(path)? {
            Entry::Folder => Metadata { file: None },
            Entry::File(id) => Metadata { file: Some((id, disk.content(id)?.len() as u64)) },
        })
    })
}

/// Whether a name is there.
///
/// # Errors
/// When the machine is off.
pub fn exists(path: impl AsRef<Path>) -> io::Result<bool> {
    match metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes a folder.
///
/// # Errors
/// When the name is taken, there is no such folder, or the machine is off.
pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    on(path.as_ref(), |disk, path, _, _| disk.create_folder(path))
}

/// Makes a folder and those that it is in.
///
/// # Errors
/// When a name is that of a file, or the machine is off.
pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    if metadata(path).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    create_dir(path)
}

/// All of a file.
///
/// # Errors
/// When it is not there, or the machine is off.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.read_to_end(&mut content)?;
    Ok(content)
}

/// All of a file, which must be text.
///
/// # Errors
/// When it is not there or no text, or the machine is off.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Replaces all of a file.
///
/// # Errors
/// As [`File::create`].
pub fn write(path: impl AsRef<Path>, content: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(content.as_ref())
}

/// Copies a file.
///
/// # Errors
/// As [`read()`] and [`write()`].
pub fn copy(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<u64> {
    let content = read(from)?;
    write(to, &content)?;
    Ok(content.len() as u64)
}

/// Gives a file another name beside its own.
///
/// # Errors
/// When the name is taken, the file is not there, or the machine is off.
pub fn hard_link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    two(from.as_ref(), to.as_ref(), |disk, from, to| disk.link(from, to))
}

/// Gives a file or folder another name, in the place of what has it.
///
/// # Errors
/// When it is not there, or the machine is off.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    two(from.as_ref(), to.as_ref(), |disk, from, to| disk.rename(from, to))
}

fn two(
    from: &Path,
    to: &Path,
    act: impl FnOnce(&mut crate::disk::Disk, &str, &str) -> io::Result<()>,
) -> io::Result<()> {
    let target = to.to_str().ok_or_else(|| io::Error::from(ErrorKind::InvalidFilename))?;
    if crate::disk_of(from) != crate::disk_of(to) {
        return Err(ErrorKind::CrossesDevices.into());
    }
    on(from, |disk, from, _, _| act(disk, from, target))
}

/// Deletes a file.
///
/// # Errors
/// When it is not there, or the machine is off.
pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    on(path.as_ref(), |disk, path, _, _| disk.remove(path))
}

/// Deletes a folder and what is in it.
///
/// # Errors
/// When it is not there, or the machine is off.
pub fn remove_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    on(path.as_ref(), |disk, path, _, _| disk.remove(path))
}
