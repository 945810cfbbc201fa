//! Agree, persist, apply: a Raft group over RocksDB.
//!
//! This is the only crate that names openraft or RocksDB; none of their types leave it. Reading order: [`Replica`] (the
//! face), `propose` and `read` (a write and a read), `storage` (what a crash may not take), `network` (what nodes say to
//! each other), `founding`, `membership` and `steward` (how a cluster begins, changes and looks after itself).

mod backup;
mod batch;
mod codec;
mod config;
mod error;
mod failpoint;
mod form;
mod founding;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod handover;
mod lifecycle;
mod local;
mod machine;
mod membership;
mod network;
mod node;
mod observer;
mod propose;
mod read;
mod reclaim;
mod recover;
#[cfg(test)]
#[path = "../../.ci/fuzz/replay.rs"]
mod replay;
mod replica;
mod restore;
#[cfg(feature = "simulation")]
pub mod simulation;
mod space;
mod status;
mod steward;
mod storage;
#[cfg(test)]
mod testing;
mod timings;
mod types;
mod vacancy;

pub use backup::BackupError;
pub use config::{Advertise, Config, Join, Tuning};
pub use error::{ProposeError, ReadError, StartError};
pub use membership::{MemberChange, MemberError};
pub use node::wall_clock_ms;
pub use observer::Observer;
pub use recover::{Recovery, recover};
pub use replica::Replica;
pub use restore::{RestoreTarget, Restored, restore};
pub use status::{EngineStats, Member, Readings, Role, SpaceStats, Stats, Status};
pub use storage::view::View;
pub use timings::{DurationSample, PeerSample, SnapshotSample};
