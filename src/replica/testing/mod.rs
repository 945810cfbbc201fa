//! Tests that need the inside of this crate. Those of its face are in `tests/`.

mod ahead;
mod conformance;
mod crash;
mod damage;
mod log;
mod restore;

use std::path::Path;
use std::sync::Arc;

use llm_config_domain::{Address, Change, Command, JsonValue, Operation, Reader, Set};
use rocksdb::Cache;

use crate::observer::Observer;
use crate::storage::directory::Directory;
use crate::storage::state::StateMachine;

/// An observer that keeps nothing.
pub(crate) struct Silent;

impl Observer for Silent {
    fn applied(&self, _revision: u64, _changes: &[Change]) {}
    fn rules(&self, _: &dyn Reader) {}

    fn reset(&self, _revision: u64) {}
}

pub(crate) fn open_state(root: &Path) -> (Arc<Directory>, StateMachine) {
    let (directory, _) = Directory::open(root, 1).unwrap();
    let directory = Arc::new(directory);
    let state =
        StateMachine::open(Arc::clone(&directory), Cache::new_lru_cache(1 << 20), Arc::new(Silent))
            .unwrap();
    (directory, state)
}

pub(crate) fn set(key: &str, value: u64) -> Command {
    Command::new(
        "test",
        Operation::Set(Set {
            address: Address::parse("ns", key, "base").unwrap(),
            value: JsonValue::parse(value.to_string().as_bytes()).unwrap().into(),
            description: String::new(),
            tags: Vec::new(),
            comment: String::new(),
            expected_version: None,
            declassify: false,
        }),
    )
}
