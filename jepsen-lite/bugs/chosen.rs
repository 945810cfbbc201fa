//! Which bug this process has: named by the environment, read once.

use std::env::{self, VarError};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

use crate::{Bug, VARIABLE};

fn read() -> Result<Option<Bug>, String> {
    match env::var(VARIABLE) {
        Ok(name) => match Bug::named(&name) {
            Some(bug) => Ok(Some(bug)),
            None => Err(format!("{VARIABLE}: there is no bug `{name}`")),
        },
        Err(VarError::NotPresent) => Ok(None),
        Err(error) => Err(format!("{VARIABLE}: {error}")),
    }
}

/// The bug that this process has. The program asks before anything else and does not start on an error.
///
/// # Errors
/// When the environment names none of them.
pub fn choose() -> Result<Option<Bug>, String> {
    read()
}

/// Whether this process has the bug.
#[must_use]
pub fn active(bug: Bug) -> bool {
    static CHOSEN: OnceLock<Option<Bug>> = OnceLock::new();
    *CHOSEN.get_or_init(|| read().ok().flatten()) == Some(bug)
}

/// True once in so many calls, at random, if this process has the bug.
#[must_use]
pub fn chance(bug: Bug, of: u64) -> bool {
    active(bug) && RandomState::new().hash_one(bug as u64).is_multiple_of(of)
}
