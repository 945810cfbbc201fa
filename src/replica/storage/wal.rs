//! Where RocksDB's write-ahead log ends after a power cut.
//!
//! A file system may make the new length of a file durable before its bytes. After a power cut the record that was being
//! written then has its length, and zeros where a page was not written. RocksDB takes that for damage and refuses to open,
//! although nobody was told of that record. Its zeros tell it from damage, as in etcd (`isTornEntry` of its package `wal`):
//! a record is torn when its checksum is wrong, a sector of it is empty, and nothing whole begins after it.
//!
//! The form of the file: <https://github.com/facebook/rocksdb/wiki/Write-Ahead-Log-File-Format>.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use super::directory::named;
use crate::machine::fs::{self, File, OpenOptions};
use crate::machine::os::unix::fs::FileExt as _;

const BLOCK_BYTES: usize = 32 << 10;
/// Checksum (4 bytes), length (2), type (1).
const HEADER_BYTES: usize = 7;
/// What a disk writes as a whole.
const SECTOR_BYTES: u64 = 512;

// Types; a record that is in one piece has another one.
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Where a file of the log ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// After a whole record, or in the middle of one that the file is too short for: RocksDB knows what to do.
    Clean,
    /// What begins here was never written to its end.
    Torn(u64),
    /// Something is wrong that a power cut does not explain.
    Damaged,
}

/// What a power cut has torn at the end of a file.
#[derive(Debug)]
pub(crate) struct TornEnd {
    path: PathBuf,
    at: u64,
    bytes: u64,
}

impl TornEnd {
    /// Makes the file end where it did before that was written.
    pub(crate) fn cut(&self) -> io::Result<()> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        file.set_len(self.at)
            .and_then(|()| file.sync_all())
            .map_err(|error| named(&self.path, error))
    }
}

impl fmt::Display for TornEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, at, bytes } = self;
        write!(f, "{}: {bytes} bytes from {at} on, torn by a power cut", path.display())
    }
}

/// What a power cut has torn, the newest file first. None as well where more is wrong than a power cut explains.
pub(crate) fn torn_ends(folder: &Path) -> io::Result<Vec<TornEnd>> {
    let mut torn = Vec::new();
    let mut is_last = true;
    for path in newest_first(folder)? {
        let length = fs::metadata(&path)?.len();
        match end(&path)? {
            End::Torn(at) if is_last => {
                torn.push(TornEnd { path, at, bytes: length - at });
                is_last = at == 0;
            }
            End::Torn(_) | End::Damaged => return Ok(Vec::new()),
            // A write to a file follows the sync of the file before: what is older is torn only if nothing is newer.
            End::Clean => is_last &= length == 0,
        }
        if torn.is_empty() && !is_last {
            break;
        }
    }
    Ok(torn)
}

/// The files of the log. None: the database is new.
fn newest_first(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(named(folder, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let (Some(number), Some("log")) = (number, path.extension().and_then(|end| end.to_str()))
        {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files.into_iter().rev().map(|(_, path)| path).collect())
}

fn end(path: &Path) -> io::Result<End> {
    File::open(path).and_then(|file| end_of(&file)).map_err(|error| named(path, error))
}

/// What the reader has met so far.
#[derive(Default)]
struct Met {
    /// Where the record began that is not complete yet.
    open: Option<u64>,
    torn: Option<u64>,
}

fn end_of(file: &File) -> io::Result<End> {
    let mut met = Met::default();
    let mut block = vec![0; BLOCK_BYTES];
    let mut offset = 0;
    loop {
        let length = fill(file, &mut block, offset)?;
        let is_last = length < BLOCK_BYTES;
        if !met.block(&block[..length], offset, is_last) {
            return Ok(End::Damaged);
        }
        if is_last {
            return Ok(met.torn.map_or(End::Clean, End::Torn));
        }
        offset += length as u64;
    }
}

fn fill(file: &File, block: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < block.len() {
        match file.read_at(&mut block[length..], offset + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

impl Met {
    /// Reads the fragments of a block. False: damage.
    fn block(&mut self, block: &[u8], offset: u64, is_last: bool) -> bool {
        let mut at = 0;
        // Less than a header is padding, or the header of what the file is too short for.
        while let Some(header) = block.get(at..at + HEADER_BYTES) {
            let start = offset + at as u64;
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            if kind == 0 && length == 0 {
                // Never written, or not whole: RocksDB passes over the rest of the block without a word.
                return is_empty(&block[at..]) && self.tear(start);
            }
            let Some(fragment) = block.get(at..at + HEADER_BYTES + length) else {
                // As long as this only where the file ends. That is what RocksDB expects of a power cut.
                return is_last;
            };
            if is_whole(fragment) {
                // Of a torn record, a later page may have been written and an earlier one not.
                if self.torn.is_some() && !matches!(kind, MIDDLE | LAST) {
                    return false;
                }
                self.open = match kind {
                    FIRST => Some(start),
                    MIDDLE => self.open,
                    _ => None,
                };
            } else if !(has_empty_sector(fragment, start) && self.tear(start)) {
                return false;
            }
            at += fragment.len();
        }
        true
    }

    fn tear(&mut self, start: u64) -> bool {
        self.torn.get_or_insert(self.open.unwrap_or(start));
        true
    }
}

/// Whether a fragment is what its checksum says: CRC-32C of type and content, masked as in LevelDB.
fn is_whole(fragment: &[u8]) -> bool {
    let stored = u32::from_le_bytes([fragment[0], fragment[1], fragment[2], fragment[3]]);
    let crc = crc32c::crc32c(&fragment[6..]);
    stored == crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn is_empty(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn has_empty_sector(fragment: &[u8], start: u64) -> bool {
    let end = start + fragment.len() as u64;
    let sectors = start / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES);
    sectors.into_iter().any(|sector| {
        let part: Range<u64> =
            (sector * SECTOR_BYTES).max(start)..((sector + 1) * SECTOR_BYTES).min(end);
        // Both lie within a block.
        is_empty(&fragment[(part.start - start) as usize..(part.end - start) as usize])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u8 = 1;

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let checked = [&[kind], content].concat();
        let crc = crc32c::crc32c(&checked).rotate_right(15).wrapping_add(0xa282_ead8);
        let length = u16::try_from(content.len()).unwrap();
        [&crc.to_le_bytes()[..], &length.to_le_bytes(), &checked].concat()
    }

    /// Records one after another, as long ones are cut at the ends of blocks.
    fn log(lengths: &[usize]) -> (Vec<u8>, Vec<u64>) {
        let (mut file, mut begins) = (Vec::new(), Vec::new());
        for length in lengths {
            let (mut rest, mut first) = (vec![0xab; *length], true);
            loop {
                let left = BLOCK_BYTES - file.len() % BLOCK_BYTES;
                if left < HEADER_BYTES {
                    file.resize(file.len() + left, 0);
                    continue;
                }
                if first {
                    begins.push(file.len() as u64);
                }
                let tail = rest.split_off(rest.len().min(left - HEADER_BYTES));
                let kind = match (first, tail.is_empty()) {
                    (true, true) => FULL,
                    (true, false) => FIRST,
                    (false, true) => LAST,
                    (false, false) => MIDDLE,
                };
                file.extend(record(kind, &rest));
                (rest, first) = (tail, false);
                if rest.is_empty() {
                    break;
                }
            }
        }
        (file, begins)
    }

    fn end_of(content: &[u8]) -> End {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        end(file.path()).unwrap()
    }

    const LENGTHS: [usize; 6] = [300, 5000, 70_000, 20, 9000, 40_000];

    #[test]
    fn a_whole_or_shortened_log_is_left_alone() {
        let (file, begins) = log(&LENGTHS);
        assert_eq!(end_of(&file), End::Clean);
        assert_eq!(end_of(&[]), End::Clean);
        for begin in &begins {
            for more in [0, 3, 7, 19] {
                assert_eq!(end_of(&file[..*begin as usize + more]), End::Clean, "{begin}+{more}");
            }
        }
    }

    #[test]
    fn a_last_record_without_its_end_is_torn_wherever_the_zeros_begin() {
        for records in 1..=LENGTHS.len() {
            let (file, begins) = log(&LENGTHS[..records]);
            let begin = *begins.last().unwrap();
            // At the beginning of the record, or of a sector in it.
            let sectors = (begin / SECTOR_BYTES + 1..).map(|sector| sector * SECTOR_BYTES);
            let zeros = std::iter::once(begin).chain(sectors);
            for from in zeros.take_while(|from| *from < file.len() as u64) {
                let mut torn = file.clone();
                torn[from as usize..].fill(0);
                assert_eq!(end_of(&torn), End::Torn(begin), "{records} records, from {from}");
                torn.resize(torn.len() + 100_000, 0);
                assert_eq!(end_of(&torn), End::Torn(begin), "and zeros behind it");
            }
        }
    }

    #[test]
    fn a_page_in_the_middle_of_the_last_record_is_enough() {
        let (mut file, begins) = log(&LENGTHS);
        let begin = *begins.last().unwrap();
        for sector in [begin / SECTOR_BYTES + 2, file.len() as u64 / SECTOR_BYTES - 3] {
            let from = (sector * SECTOR_BYTES) as usize;
            file[from..from + SECTOR_BYTES as usize].fill(0);
            assert_eq!(end_of(&file), End::Torn(begin));
        }
    }

    #[test]
    fn damage_is_not_taken_for_a_torn_end() {
        let (file, begins) = log(&LENGTHS);
        let flipped = |at: u64| {
            let mut file = file.clone();
            file[at as usize] ^= 1;
            end_of(&file)
        };
        for begin in &begins {
            assert_eq!(flipped(begin + 10), End::Damaged, "a bit of the record at {begin}");
            assert_eq!(flipped(begin + 1), End::Damaged, "of the checksum of that at {begin}");
        }
        for (begin, next) in begins.iter().zip(&begins[1..]) {
            let mut file = file.clone();
            file[*begin as usize..*next as usize].fill(0);
            assert_eq!(end_of(&file), End::Damaged, "zeros from {begin} to the next record");
        }
    }

    #[test]
    fn the_file_before_is_looked_at_when_the_newest_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (whole, begins) = log(&[300, 5000]);
        let mut torn = whole.clone();
        torn[1024..].fill(0);
        let write = |number: u64, content: &[u8]| {
            std::fs::write(folder.path().join(format!("{number:06}.log")), content).unwrap();
        };
        let found = || -> Vec<(String, u64)> {
            let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
            let torn = torn_ends(folder.path()).unwrap();
            torn.iter().map(|torn| (name(&torn.path), torn.at)).collect()
        };
        write(7, &torn);
        assert_eq!(found(), [("000007.log".to_owned(), begins[1])]);
        write(12, &[]);
        assert_eq!(found(), [("000007.log".to_owned(), begins[1])]);
        write(12, &[0; 40]);
        assert_eq!(found(), [("000012.log".to_owned(), 0), ("000007.log".to_owned(), begins[1])]);
        for torn in torn_ends(folder.path()).unwrap() {
            torn.cut().unwrap();
        }
        assert_eq!(found(), []);
        assert_eq!(std::fs::read(folder.path().join("000007.log")).unwrap(), whole[..307]);
        write(12, &whole);
        write(7, &torn);
        assert_eq!(found(), [], "a torn file with a newer one after it is damage");
        write(13, &torn);
        assert_eq!(found(), [], "and so is the log, whatever its end is like");
    }
}
