//! What a node stores: the log, the applied state, the last snapshot, and who it all belongs to.

pub(crate) mod directory;
pub(crate) mod engine;
pub(crate) mod log;
mod recall;
pub(crate) mod rocks;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod usage;
pub(crate) mod view;
pub(crate) mod wal;
pub(crate) mod watermark;
pub(crate) mod writer;
