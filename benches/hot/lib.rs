//! What every request or every log entry goes through, each function by itself: ready to be called, timed (`benches/hot.rs`)
//! and counted (`count.rs`, under `.ci/instructions`).
//!
//! A call does the same as the one before and keeps nothing, on inputs like those of users: models (`models`) with values of
//! about 256 B in a state of 256 entries (`state`). Nothing is drawn by lot, and no clock is read. Storage is memory
//! here: what RocksDB, the network and the disk cost is told by `llm-config-load`.
#![forbid(unsafe_code)]

mod codec;
mod lookups;
mod models;
mod reads;
mod reference;
mod rules;
mod state;
mod turns;

use thiserror::Error;

/// Why a function could not be made ready.
pub type Error = Box<dyn std::error::Error>;

/// One call; true when it did what it is for. A call that is refused would be a cheap one.
pub type Call = Box<dyn FnMut() -> bool>;

/// A function, and how it is made ready to be called.
#[derive(Debug)]
pub struct Hot {
    /// As it is asked for and recorded.
    pub name: &'static str,
    prepare: fn() -> Result<Call, Error>,
}

impl Hot {
    const fn new(name: &'static str, prepare: fn() -> Result<Call, Error>) -> Self {
        Self { name, prepare }
    }

    /// Makes the inputs, once for any number of calls.
    ///
    /// # Errors
    /// When the rules refuse the inputs.
    pub fn prepare(&self) -> Result<Call, Error> {
        (self.prepare)()
    }
}

/// All of them.
pub const ALL: &[Hot] = &[
    Hot::new("apply-set", rules::set),
    Hot::new("apply-set-retryable", rules::set_retryable),
    Hot::new("apply-set-unrecorded", rules::set_unrecorded),
    Hot::new("apply-create", rules::create),
    Hot::new("apply-txn", rules::txn),
    Hot::new("apply-replay", rules::replay),
    Hot::new("apply-conflict", rules::conflict),
    Hot::new("command-encode", codec::command_encode),
    Hot::new("command-decode", codec::command_decode),
    Hot::new("command-validate", codec::command_validate),
    Hot::new("answer-encode", codec::answer_encode),
    Hot::new("answer-decode", codec::answer_decode),
    Hot::new("stored-entry-read", reads::entry),
    Hot::new("stored-changes-read", reads::changes),
    Hot::new("value-parse", reads::value),
    Hot::new("document-parse", reads::document),
    Hot::new("cache-hit", lookups::hit),
    Hot::new("cache-miss", lookups::miss),
    Hot::new("cache-applied", lookups::applied),
    Hot::new("reference", reference::work),
];

/// No function has this name.
#[derive(Debug, Error)]
#[error("there is no function `{0}`; there are: {names}", names = names().join(", "))]
pub struct Unknown(String);

/// The names of all of them.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|function| function.name).collect()
}

/// The function of this name.
///
/// # Errors
/// When there is none.
pub fn find(name: &str) -> Result<&'static Hot, Unknown> {
    ALL.iter().find(|function| function.name == name).ok_or_else(|| Unknown(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_call_does_what_it_is_for_again_and_again() {
        for function in ALL {
            let mut call = function.prepare().unwrap();
            // Once round all inputs, and on.
            for n in 0..=2 * models::ENTRIES {
                assert!(call(), "{}: call {n}", function.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_lead_back() {
        assert_eq!(names().into_iter().collect::<BTreeSet<_>>().len(), ALL.len());
        for name in names() {
            assert_eq!(find(name).unwrap().name, name);
        }
        let said = find("apply-nothing").unwrap_err().to_string();
        assert!(said.starts_with("there is no function `apply-nothing`; there are: apply-set, "));
    }
}
