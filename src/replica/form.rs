//! The versions of what this crate stores and sends, and what happens when a newer release wrote it.
//!
//! A form that is newer than this release is never guessed at: the node stops, with a text that says which form it met
//! and which program can read it. ARCHITECTURE.md lists all forms.

use std::io;

use llm_config_domain::StoreError;
use thiserror::Error;

/// Every sealed record: log entries, vote, positions, the applied record, the watermark (see `codec`).
pub(crate) const RECORD_FORMAT: u8 = 1;
/// The identity file, and with it the layout of the data directory.
pub(crate) const DIRECTORY_FORMAT: u32 = 1;
/// A file that names a folder.
pub(crate) const POINTER_FORMAT: u32 = 1;
/// Log entries as a leader sends them.
pub(crate) const ENTRIES_FORMAT: u32 = 1;
/// A snapshot as a leader sends it.
pub(crate) const SNAPSHOT_FORMAT: u32 = 1;

/// A newer release wrote this.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{form} has format {found}, and this release reads up to format {known}; use the release that wrote it or a newer one"
)]
pub(crate) struct NewerForm {
    pub(crate) form: String,
    pub(crate) found: u32,
    pub(crate) known: u32,
}

impl NewerForm {
    /// Refuses what is newer than `known`. 0 is what a release wrote that had no field for it yet.
    pub(crate) fn refuse(form: &str, found: u32, known: u32) -> Result<(), Self> {
        if found <= known {
            return Ok(());
        }
        Err(Self { form: form.to_owned(), found, known })
    }

    /// What made an operation fail, when it was this: `io::Error` is what the storage traits carry.
    pub(crate) fn within(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<NewerForm> for io::Error {
    fn from(newer: NewerForm) -> Self {
        Self::new(io::ErrorKind::InvalidData, newer)
    }
}

/// A fault of the state as the storage traits carry it.
pub(crate) fn state_error(error: StoreError) -> io::Error {
    match error {
        StoreError::Newer { table, found, known } => NewerForm {
            form: format!("a record of the {table} table"),
            found: found.into(),
            known: known.into(),
        }
        .into(),
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_newer_is_refused_and_found_again_in_an_io_error() {
        for known in [0, 1, 2] {
            assert_eq!(NewerForm::refuse("the thing", known, 2), Ok(()));
        }
        let newer = NewerForm::refuse("the thing", 3, 2).unwrap_err();
        let text = newer.to_string();
        assert!(text.contains("the thing has format 3") && text.contains("or a newer one"));
        assert_eq!(NewerForm::within(&io::Error::from(newer.clone())), Some(&newer));
        assert_eq!(NewerForm::within(&io::Error::other("x")), None);
        let record = StoreError::Newer { table: "heads", found: 2, known: 1 };
        assert!(NewerForm::within(&state_error(record)).is_some());
        assert!(NewerForm::within(&state_error(StoreError::Read("x".into()))).is_none());
    }
}
