//! openraft's own conformance suite on the real log and state.

use std::io;
use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::open_state;
use crate::storage::log::LogStore;
use crate::storage::rocks::RocksEngine;
use crate::storage::state::StateMachine;
use crate::storage::watermark::Watermark;
use crate::types::Types;

struct Builder;

impl StoreBuilder<Types, LogStore, StateMachine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<Types>> {
        let root = tempfile::tempdir().unwrap();
        let (directory, state) = open_state(root.path());
        let open = || -> io::Result<LogStore> {
            let engine = RocksEngine::open(&directory.log(), None)?;
            LogStore::open(
                Arc::new(engine),
                Some(Watermark::open(&directory.watermark())?),
                1 << 20,
            )
        };
        Ok((root, open().unwrap(), state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openrafts_suite_passes() {
    Suite::test_all(Builder).await.unwrap();
}
