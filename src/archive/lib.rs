//! The backup file: one state of the store, whole, in order, and checked to the last byte.
//!
//! ```text
//! magic         "LLMCONF-BACKUP\n"
//! format        u32
//! length        u32, then so many bytes of manifest, as JSON
//! checksum      u32, CRC-32 of everything before it
//! block         01, length u32, pairs (key length u32, value length u32, key, value), CRC-32 of the block up to here
//!  …
//! end           02, pairs u64, bytes of keys and values u64, SHA-256 of everything before it
//! ```
//!
//! Numbers are little-endian. Keys ascend and none comes twice. Nothing follows the end.
//!
//! Whoever uses a file reads it twice: [`verify`] first, so that nothing of a file that is cut or damaged is ever used,
//! then [`Reader`]. What the keys and values mean is not known here; neither is any storage engine or network.
#![forbid(unsafe_code)]
#![deny(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod error;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod manifest;
mod reader;
#[cfg(test)]
#[path = "../../.ci/fuzz/replay.rs"]
mod replay;
mod writer;

pub use error::ArchiveError;
pub use format::{BLOCK_BYTES, FORMAT, KEY_BYTES_MAX, MANIFEST_BYTES_MAX, VALUE_BYTES_MAX};
pub use manifest::{Manifest, Summary};
pub use reader::{Pair, Reader, verify};
pub use writer::Writer;
