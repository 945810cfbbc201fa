//! Writes a backup, one block of memory at a time.

use std::io::Write;

use crate::error::ArchiveError;
use crate::format::{
    BLOCK, BLOCK_BYTES, END, FORMAT, KEY_BYTES_MAX, MAGIC, MANIFEST_BYTES_MAX, PAIR_HEAD_BYTES,
    Sums, VALUE_BYTES_MAX,
};
use crate::manifest::{Manifest, Summary};

/// Writes one backup. What was written without [`Writer::finish`] is no backup: every reader refuses it.
pub struct Writer<W: Write> {
    out: W,
    sums: Sums,
    manifest: Manifest,
    block: Vec<u8>,
    last_key: Option<Vec<u8>>,
    pairs: u64,
    pair_bytes: u64,
}

impl<W: Write> std::fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("pairs", &self.pairs).finish_non_exhaustive()
    }
}

impl<W: Write> Writer<W> {
    /// Begins a backup. `out` gets large pieces: it needs no buffer of its own.
    ///
    /// # Errors
    /// When `out` fails, or the manifest is too large.
    pub fn new(out: W, manifest: &Manifest) -> Result<Self, ArchiveError> {
        let text = serde_json::to_vec(manifest).map_err(|error| {
            ArchiveError::Refused(format!("the manifest cannot be encoded: {error}"))
        })?;
        let length = bounded("the manifest", text.len(), MANIFEST_BYTES_MAX)?;
        let mut writer = Self {
            out,
            sums: Sums::new(),
            manifest: manifest.clone(),
            block: Vec::with_capacity(BLOCK_BYTES + 1024),
            last_key: None,
            pairs: 0,
            pair_bytes: 0,
        };
        let mut head = Vec::with_capacity(MAGIC.len() + 12 + text.len());
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&text);
        writer.put(&head)?;
        writer.put_crc()?;
        Ok(writer)
    }

    /// Adds a pair. Its key must come after the one before.
    ///
    /// # Errors
    /// When `out` fails, or the pair is out of order or too large.
    pub fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), ArchiveError> {
        let key_length = bounded("a key", key.len(), KEY_BYTES_MAX)?;
        let value_length = bounded("a value", value.len(), VALUE_BYTES_MAX)?;
        if self.last_key.as_deref().is_some_and(|last| key <= last) {
            return Err(ArchiveError::Refused(format!("key {key:02x?} comes out of order")));
        }
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key);
        self.block.extend_from_slice(&key_length.to_le_bytes());
        self.block.extend_from_slice(&value_length.to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.pairs += 1;
        self.pair_bytes += (key.len() + value.len()) as u64;
        if self.block.len() >= BLOCK_BYTES { self.end_block() } else { Ok(()) }
    }

    /// Ends the backup and flushes `out`. Making it durable is left to whoever owns the file.
    ///
    /// # Errors
    /// When `out` fails.
    pub fn finish(mut self) -> Result<Summary, ArchiveError> {
        self.end_block()?;
        let mut end = vec![END];
        end.extend_from_slice(&self.pairs.to_le_bytes());
        end.extend_from_slice(&self.pair_bytes.to_le_bytes());
        self.put(&end)?;
        let digest = self.sums.digest();
        self.put(&digest)?;
        self.out.flush()?;
        Ok(Summary {
            manifest: self.manifest,
            format: FORMAT,
            pairs: self.pairs,
            file_bytes: self.sums.bytes,
            digest,
        })
    }

    fn end_block(&mut self) -> Result<(), ArchiveError> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        let length = u32::try_from(block.len())
            .map_err(|_| ArchiveError::Refused("a block is too large".into()))?;
        self.put(&[BLOCK])?;
        self.put(&length.to_le_bytes())?;
        self.put(&block)?;
        self.put_crc()?;
        self.block = block;
        self.block.clear();
        // One very large pair must not keep its memory until the end.
        self.block.shrink_to(BLOCK_BYTES + PAIR_HEAD_BYTES + KEY_BYTES_MAX);
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        self.out.write_all(bytes)?;
        self.sums.update(bytes);
        Ok(())
    }

    fn put_crc(&mut self) -> Result<(), ArchiveError> {
        let crc = self.sums.take_crc();
        self.put(&crc.to_le_bytes())?;
        // The checksum itself is not part of the next one.
        self.sums.take_crc();
        Ok(())
    }
}

fn bounded(what: &str, length: usize, max: usize) -> Result<u32, ArchiveError> {
    let fits = u32::try_from(length).ok().filter(|_| length <= max);
    fits.ok_or_else(|| {
        ArchiveError::Refused(format!("{what} has {length} bytes, at most {max} are allowed"))
    })
}
