//! One backup as a file of the data directory: written aside, read back, renamed, and then the oldest goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::files::{self, Kept, TEMPORARY};
use super::{Backups, failed, internal};
use crate::error::ServiceError;

/// Bytes written between two looks at the free space and at whether the node stops.
const LOOK_BYTES: u64 = 8 << 20;
const BUFFER_BYTES: usize = 256 << 10;
/// Backups hold everything: nobody else's to read.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

impl Backups {
    /// Makes a backup in the data directory, and deletes the oldest ones beyond the bound. Goes on when the caller
    /// stops waiting.
    ///
    /// # Errors
    /// [`ServiceError::Overloaded`] while another one is being made, [`ServiceError::StorageFull`] for want of space,
    /// [`ServiceError::NotReady`], [`ServiceError::Internal`].
    pub async fn keep(&self) -> Result<Kept, ServiceError> {
        let Ok(permit) = self.inner.keeping.clone().try_acquire_owned() else {
            self.inner.metrics.overloaded("backups");
            return Err(ServiceError::Overloaded {
                reason: "a backup into the data directory is being made".into(),
            });
        };
        let this = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let begun = Instant::now();
            let outcome = this.write();
            match &outcome {
                Ok(kept) => {
                    this.inner.metrics.backup_made(kept.created_at_s, kept.bytes, begun.elapsed());
                    tracing::info!(name = kept.name, bytes = kept.bytes, "backup made");
                }
                Err(_) => this.inner.metrics.backup_failed(),
            }
            drop(permit);
            outcome
        });
        match task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(internal(format!("the backup broke off: {error}"))),
        }
    }

    fn write(&self) -> Result<Kept, ServiceError> {
        let folder = self.inner.folder.as_path();
        let at_folder = |error: io::Error| internal(format!("{}: {error}", folder.display()));
        if !folder.is_dir() {
            DirBuilder::new().mode(FOLDER_MODE).create(folder).map_err(at_folder)?;
            files::sync_dir(self.inner.replica.data_dir()).map_err(at_folder)?;
        }
        let newest = files::list(folder).map_err(at_folder)?.into_iter().next();
        self.check_space(newest.as_ref().map_or(0, |kept| kept.bytes)).map_err(at_folder)??;

        let temporary = Temporary(folder.join(format!("{TEMPORARY}{}", Uuid::new_v4().simple())));
        let summary = self.write_file(&temporary.0)?;
        // Two of one second, or a clock that was set back, must not put the new one behind the old.
        let created_at_s = now_s().max(newest.map_or(0, |kept| kept.created_at_s + 1));
        let kept = Kept {
            name: files::name(created_at_s, summary.manifest.revision),
            bytes: summary.file_bytes,
            revision: summary.manifest.revision,
            created_at_s,
        };
        fs::rename(&temporary.0, folder.join(&kept.name)).map_err(at_folder)?;
        files::sync_dir(folder).map_err(at_folder)?;
        if let Err(error) = files::retain(folder, self.inner.limits.keep) {
            tracing::warn!(folder = %folder.display(), reason = %error, "an old backup could not be deleted");
        }
        Ok(kept)
    }

    /// Refuses what would not fit, going by the last backup and by what is stored.
    fn check_space(&self, last_bytes: u64) -> io::Result<Result<(), ServiceError>> {
        let expected = last_bytes.max(self.inner.replica.backup_bytes_estimate());
        let free = free_bytes(&self.inner.folder)?;
        let reserve = self.inner.limits.disk_reserve_bytes;
        if free >= reserve.saturating_add(expected) {
            return Ok(Ok(()));
        }
        tracing::warn!(
            free,
            expected,
            reserve,
            "the backup is skipped: the disk has no room for it"
        );
        Ok(Err(ServiceError::StorageFull {
            reason: format!(
                "{free} bytes of the disk are free, a backup may need {expected} and leaves {reserve} (--disk-reserve)"
            ),
        }))
    }

    /// Writes the file, makes it durable, and reads it again as a restore would.
    fn write_file(&self, path: &Path) -> Result<llm_config_archive::Summary, ServiceError> {
        let at_file = |error: io::Error| internal(format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)
            .map_err(at_file)?;
        let guarded = Guarded { file, backups: self, path, until_look: 0 };
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, guarded);
        let written = self.inner.replica.backup(&mut out).map_err(failed)?;
        out.flush().map_err(at_file)?;
        out.get_ref().file.sync_all().map_err(at_file)?;
        let read = llm_config_archive::verify(path)
            .map_err(|error| internal(format!("{}: {error}", path.display())))?;
        if read.digest != written.digest {
            return Err(internal(format!(
                "{}: what was read is not what was written",
                path.display()
            )));
        }
        Ok(read)
    }
}

/// A file that never eats the node's own reserve, and that ends when the node stops.
struct Guarded<'a> {
    file: File,
    backups: &'a Backups,
    path: &'a Path,
    until_look: u64,
}

impl Guarded<'_> {
    fn look(&mut self, bytes: u64) -> io::Result<()> {
        if self.until_look >= bytes {
            self.until_look -= bytes;
            return Ok(());
        }
        if self.backups.stopping() {
            // Not `Interrupted`: that one is tried again by whoever writes.
            return Err(io::Error::other("the node is stopping"));
        }
        if free_bytes(self.path)? < self.backups.inner.limits.disk_reserve_bytes {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the disk is nearly full; free space, or keep fewer backups",
            ));
        }
        self.until_look = LOOK_BYTES;
        Ok(())
    }
}

impl Write for Guarded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.look(bytes.len() as u64)?;
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Deleted unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), reason = %error, "a half-written backup could not be deleted");
        }
    }
}

fn free_bytes(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}
