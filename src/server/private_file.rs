//! Files that hold a key or a token: made whole or not at all, and for their owner only.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

const MODE: u32 = 0o600;

/// Makes a file that was not there, durably. One that exists is kept, whatever is in it. Tells whether it was made.
///
/// # Errors
/// What the system answered; half a file is taken away again, or the next start would take it for a whole one.
pub fn create(path: &Path, content: &[&[u8]]) -> io::Result<bool> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(MODE).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut write = || {
        // Whatever the mask of the process says.
        file.set_permissions(Permissions::from_mode(MODE))?;
        content.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_all()?;
        File::open(folder(path))?.sync_all()
    };
    if let Err(error) = write() {
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!(file = %path.display(), reason = %error, "half a file could not be deleted");
        }
        return Err(error);
    }
    Ok(true)
}

/// The folder that a file is in.
pub fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}
