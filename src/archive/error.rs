//! Why a file cannot be read or written, and what to do about it.

use std::io;

use thiserror::Error;

use crate::format::FORMAT;

/// What is wrong with a backup file. The texts do not name the file: who opened it does.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The disk or the connection failed; the file may be sound.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else than a backup.
    #[error(
        "this is not a backup of LLM Config Manager (it does not begin like one); check the name of the file"
    )]
    Foreign,
    /// Written by a later release.
    #[error(
        "the backup has format {format}, this release reads format {FORMAT}; use the release that wrote it or a newer one"
    )]
    Newer {
        /// The format of the file.
        format: u32,
    },
    /// The file ends too early.
    #[error(
        "the backup is cut off after {bytes} bytes: making or copying it was interrupted; copy it again, or use another \
         backup"
    )]
    Cut {
        /// How long the file is.
        bytes: u64,
    },
    /// The file was altered.
    #[error(
        "the backup is damaged near byte {offset} ({what}); copy it again from where it was made, or use another backup"
    )]
    Damaged {
        /// Where the damage was noticed.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// What was to be written does not fit the format; nothing is wrong with the disk.
    #[error("the backup cannot be written: {0}")]
    Refused(String),
}
