//! Reads a backup, one block of memory at a time, and believes nothing that is not checked.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use crate::error::ArchiveError;
use crate::format::{
    BLOCK, BLOCK_BYTES_MAX, END, FORMAT, KEY_BYTES_MAX, MAGIC, MANIFEST_BYTES_MAX, PAIR_HEAD_BYTES,
    Sums, VALUE_BYTES_MAX,
};
use crate::manifest::{Manifest, Summary};

/// Memory taken at once for what a length in the file announces; more comes with the bytes themselves.
const STEP_BYTES: usize = 64 << 10;

/// One pair of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair<'a> {
    /// The key.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// Reads one backup. Each block is checked before its first pair is given out, the file as a whole only with the last
/// one: use [`verify`] before anything is done with what is read here.
pub struct Reader<R: Read> {
    source: Source<R>,
    manifest: Manifest,
    block: Vec<u8>,
    /// Where in the block the next pair begins.
    position: usize,
    last_key: Option<Vec<u8>>,
    pairs: u64,
    pair_bytes: u64,
    summary: Option<Summary>,
}

impl<R: Read> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// Reads a file to its end and checks all of it.
///
/// # Errors
/// See [`ArchiveError`]; the text does not name the file.
pub fn verify(path: &Path) -> Result<Summary, ArchiveError> {
    let (_, mut reader) = Reader::open(BufReader::new(File::open(path)?))?;
    while reader.next_pair()?.is_some() {}
    reader.into_summary()
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a backup. `input` should be buffered.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn open(input: R) -> Result<(Manifest, Self), ArchiveError> {
        let mut source = Source { input, sums: Sums::new() };
        source.magic()?;
        match source.u32()? {
            FORMAT => {}
            0 => return Err(source.damaged("the format is 0")),
            format => return Err(ArchiveError::Newer { format }),
        }
        let length = source.u32()? as usize;
        if length > MANIFEST_BYTES_MAX {
            return Err(source.damaged("the manifest is too long"));
        }
        let mut text = Vec::new();
        source.append(&mut text, length)?;
        source.check_crc("the manifest")?;
        let manifest: Manifest = serde_json::from_slice(&text)
            .map_err(|error| source.damaged(&format!("the manifest: {error}")))?;
        let reader = Self {
            source,
            manifest: manifest.clone(),
            block: Vec::new(),
            position: 0,
            last_key: None,
            pairs: 0,
            pair_bytes: 0,
            summary: None,
        };
        Ok((manifest, reader))
    }

    /// The next pair, in the order of the keys; None when the end was reached and the whole file is right.
    ///
    /// # Errors
    /// See [`ArchiveError`].
    pub fn next_pair(&mut self) -> Result<Option<Pair<'_>>, ArchiveError> {
        if self.position == self.block.len() && !self.next_block()? {
            return Ok(None);
        }
        let rest = &self.block[self.position..];
        let Some((pair, length)) = split_pair(rest) else {
            return Err(self.source.damaged("a pair does not fit its block"));
        };
        if self.last_key.as_deref().is_some_and(|last| pair.key <= last) {
            return Err(self.source.damaged("the keys are out of order"));
        }
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(pair.key);
        self.position += length;
        self.pairs += 1;
        self.pair_bytes += (pair.key.len() + pair.value.len()) as u64;
        Ok(Some(pair))
    }

    /// What the whole file holds, once [`Self::next_pair`] has said that it is read.
    ///
    /// # Errors
    /// When it has not been read to its end.
    pub fn into_summary(self) -> Result<Summary, ArchiveError> {
        self.summary.ok_or(ArchiveError::Cut { bytes: self.source.sums.bytes })
    }

    /// Returns false at the end.
    fn next_block(&mut self) -> Result<bool, ArchiveError> {
        if self.summary.is_some() {
            return Ok(false);
        }
        let mut kind = [0];
        self.source.fill(&mut kind)?;
        match kind[0] {
            BLOCK => {}
            END => return self.end().map(|()| false),
            _ => return Err(self.source.damaged("neither a block nor the end begins here")),
        }
        let length = self.source.u32()? as usize;
        if length == 0 || length > BLOCK_BYTES_MAX {
            return Err(self.source.damaged("the length of a block is impossible"));
        }
        self.position = 0;
        self.block.clear();
        self.block.shrink_to(2 * crate::format::BLOCK_BYTES);
        self.source.append(&mut self.block, length)?;
        self.source.check_crc("a block")?;
        Ok(true)
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        let (pairs, pair_bytes) = (self.source.u64()?, self.source.u64()?);
        let digest = self.source.sums.digest();
        let mut stored = [0; 32];
        self.source.fill(&mut stored)?;
        if stored != digest {
            return Err(self.source.damaged("the checksum of the whole file does not fit"));
        }
        if (pairs, pair_bytes) != (self.pairs, self.pair_bytes) {
            return Err(self.source.damaged("pairs are missing"));
        }
        if !self.source.is_at_end()? {
            return Err(self.source.damaged("there is something behind the end"));
        }
        self.summary = Some(Summary {
            manifest: self.manifest.clone(),
            format: FORMAT,
            pairs,
            file_bytes: self.source.sums.bytes,
            digest,
        });
        Ok(())
    }
}

/// The pair at the beginning of `rest`, and the bytes that it takes.
fn split_pair(rest: &[u8]) -> Option<(Pair<'_>, usize)> {
    let (head, rest) = rest.split_first_chunk::<PAIR_HEAD_BYTES>()?;
    let number = |at: usize| -> Option<usize> {
        usize::try_from(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?)).ok()
    };
    let (key_length, value_length) = (number(0)?, number(4)?);
    if key_length > KEY_BYTES_MAX || value_length > VALUE_BYTES_MAX {
        return None;
    }
    let (key, rest) = rest.split_at_checked(key_length)?;
    let (value, _) = rest.split_at_checked(value_length)?;
    Some((Pair { key, value }, PAIR_HEAD_BYTES + key_length + value_length))
}

/// The input, summed up as it is read.
struct Source<R: Read> {
    input: R,
    sums: Sums,
}

impl<R: Read> Source<R> {
    fn magic(&mut self) -> Result<(), ArchiveError> {
        let mut found = [0; MAGIC.len()];
        let read = self.read_up_to(&mut found)?;
        if found[..read] != MAGIC[..read] || read == 0 {
            return Err(ArchiveError::Foreign);
        }
        self.sums.update(&found[..read]);
        if read < MAGIC.len() { Err(self.cut()) } else { Ok(()) }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), ArchiveError> {
        let read = self.read_up_to(buffer)?;
        self.sums.update(&buffer[..read]);
        if read < buffer.len() { Err(self.cut()) } else { Ok(()) }
    }

    fn append(&mut self, target: &mut Vec<u8>, length: usize) -> Result<(), ArchiveError> {
        let mut missing = length;
        while missing > 0 {
            let from = target.len();
            let step = missing.min(STEP_BYTES);
            target.resize(from + step, 0);
            self.fill(&mut target[from..])?;
            missing -= step;
        }
        Ok(())
    }

    fn u32(&mut self) -> Result<u32, ArchiveError> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn u64(&mut self) -> Result<u64, ArchiveError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn check_crc(&mut self, what: &str) -> Result<(), ArchiveError> {
        let computed = self.sums.take_crc();
        let stored = self.u32()?;
        // The checksum itself is not part of the next one.
        self.sums.take_crc();
        if stored == computed {
            Ok(())
        } else {
            Err(self.damaged(&format!("the checksum of {what} does not fit")))
        }
    }

    fn is_at_end(&mut self) -> Result<bool, ArchiveError> {
        Ok(self.read_up_to(&mut [0])? == 0)
    }

    fn read_up_to(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn cut(&self) -> ArchiveError {
        ArchiveError::Cut { bytes: self.sums.bytes }
    }

    fn damaged(&self, what: &str) -> ArchiveError {
        ArchiveError::Damaged { offset: self.sums.bytes, what: what.to_owned() }
    }
}
