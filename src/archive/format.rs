//! The parts of the file that reader and writer share, and their bounds.

use sha2::{Digest as _, Sha256};

/// How a file begins.
pub(crate) const MAGIC: &[u8; 15] = b"LLMCONF-BACKUP\n";
/// The format that this release writes, and the only one that it reads.
pub const FORMAT: u32 = 1;
/// Most bytes of the manifest.
pub const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Bytes of pairs after which a block ends.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Longest key.
pub const KEY_BYTES_MAX: usize = 64 << 10;
/// Longest value.
pub const VALUE_BYTES_MAX: usize = 16 << 20;

/// Bytes before each key: its length, and that of its value.
pub(crate) const PAIR_HEAD_BYTES: usize = 8;
/// Most bytes of a block: one that was not full yet takes one pair more.
pub(crate) const BLOCK_BYTES_MAX: usize =
    BLOCK_BYTES + PAIR_HEAD_BYTES + KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// Opens a block.
pub(crate) const BLOCK: u8 = 1;
/// Opens the end.
pub(crate) const END: u8 = 2;

/// Both checksums of what passes by: the CRC since it was last taken, and the SHA-256 from the beginning.
pub(crate) struct Sums {
    crc: crc32fast::Hasher,
    sha: Sha256,
    pub(crate) bytes: u64,
}

impl Sums {
    pub(crate) fn new() -> Self {
        Self { crc: crc32fast::Hasher::new(), sha: Sha256::new(), bytes: 0 }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.crc.update(bytes);
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// The CRC of what came since the last call.
    pub(crate) fn take_crc(&mut self) -> u32 {
        std::mem::replace(&mut self.crc, crc32fast::Hasher::new()).finalize()
    }

    pub(crate) fn digest(&self) -> [u8; 32] {
        self.sha.clone().finalize().into()
    }
}
