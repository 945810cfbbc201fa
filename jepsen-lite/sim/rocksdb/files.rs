//! What a database looks like on the disk.
//!
//! ```text
//! CURRENT            names the manifest
//! MANIFEST-<n>       names the table and the write-ahead log
//! <n>.sst            everything that was there at a flush
//! <n>.wal            what came after it, one record for a batch
//! ```
//!
//! Records, and whole tables and manifests, carry their length and a checksum.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use llm_config_simdisk::fs::{self, File};

use crate::{Error, Map, Op};

pub(crate) const CURRENT: &str = "CURRENT";

pub(crate) fn manifest_name(number: u64) -> String {
    format!("MANIFEST-{number:06}")
}

pub(crate) fn table_name(number: u64) -> String {
    format!("{number:06}.sst")
}

pub(crate) fn log_name(number: u64) -> String {
    format!("{number:06}.wal")
}

/// What a manifest names; 0 is no file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) number: u64,
    pub(crate) table: u64,
    pub(crate) log: u64,
}

/// FNV-1a: the damage of a simulated disk is not clever.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

/// `bytes` behind their length and checksum.
fn framed(bytes: &[u8]) -> Vec<u8> {
    [&length(bytes)[..], &checksum(bytes).to_le_bytes()[..], bytes].concat()
}

fn number(bytes: &mut &[u8]) -> Option<u32> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*first))
}

fn take<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(number(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// The next frame: `None` when it is not all there or damaged.
fn unframed<'b>(bytes: &mut &'b [u8]) -> Option<&'b [u8]> {
    let (header, mut rest) = bytes.split_at_checked(8)?;
    let length = usize::try_from(number(&mut &header[..4])?).ok()?;
    let expected = number(&mut &header[4..])?;
    let (body, behind) = rest.split_at_checked(length)?;
    rest = behind;
    (checksum(body) == expected).then_some(())?;
    *bytes = rest;
    Some(body)
}

/// A whole file of one frame.
fn whole(path: &Path) -> Result<Vec<u8>, Error> {
    let content = fs::read(path)?;
    let mut rest = content.as_slice();
    match unframed(&mut rest) {
        Some(body) if rest.is_empty() => Ok(body.to_vec()),
        _ => Err(Error::corruption(format!("{}: checksum mismatch", path.display()))),
    }
}

/// Makes a file of one frame, durably.
fn make(path: &Path, body: &[u8]) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(&framed(body))?;
    file.sync_all()?;
    Ok(file)
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(crate) fn write_table(path: &Path, map: &Map) -> io::Result<File> {
    let mut body = Vec::new();
    for (key, value) in map {
        for part in [key, value] {
            body.extend(length(part));
            body.extend_from_slice(part);
        }
    }
    make(path, &body)
}

pub(crate) fn read_table(path: &Path) -> Result<Map, Error> {
    let body = whole(path)?;
    let mut rest = body.as_slice();
    let mut map = Map::new();
    while !rest.is_empty() {
        let (Some(key), Some(value)) = (take(&mut rest), take(&mut rest)) else {
            return Err(Error::corruption(format!("{}: malformed", path.display())));
        };
        map.insert(key.into(), value.into());
    }
    Ok(map)
}

/// Makes `manifest` the current one.
pub(crate) fn point(folder: &Path, manifest: Manifest) -> io::Result<()> {
    let name = manifest_name(manifest.number);
    make(&folder.join(&name), format!("{} {}", manifest.table, manifest.log).as_bytes())?;
    let temporary = folder.join(format!("{CURRENT}.tmp"));
    make(&temporary, name.as_bytes())?;
    fs::rename(&temporary, folder.join(CURRENT))?;
    sync_folder(folder)
}

/// The current manifest; `None` when there is no database.
pub(crate) fn current(folder: &Path) -> Result<Option<Manifest>, Error> {
    let path = folder.join(CURRENT);
    if !fs::exists(&path)? {
        return Ok(None);
    }
    let malformed =
        || Error::corruption(format!("{}: the manifest is malformed", folder.display()));
    let name = String::from_utf8(whole(&path)?).map_err(|_| malformed())?;
    let number = name.strip_prefix("MANIFEST-").and_then(|number| number.parse().ok());
    let body = String::from_utf8(whole(&folder.join(&name))?).map_err(|_| malformed())?;
    let numbers = body.split_once(' ');
    let table = numbers.and_then(|(table, _)| table.parse().ok());
    let log = numbers.and_then(|(_, log)| log.parse().ok());
    match (number, table, log) {
        (Some(number), Some(table), Some(log)) => Ok(Some(Manifest { number, table, log })),
        _ => Err(malformed()),
    }
}

/// Deletes what the current manifest does not name.
pub(crate) fn sweep(folder: &Path, manifest: Manifest) -> io::Result<()> {
    let live = [
        CURRENT.to_owned(),
        manifest_name(manifest.number),
        table_name(manifest.table),
        log_name(manifest.log),
    ];
    let names: Vec<PathBuf> =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    for path in names {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !live.iter().any(|live| live == name) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// A batch as one record of the write-ahead log.
pub(crate) fn record(ops: &[Op]) -> Vec<u8> {
    let mut body = Vec::new();
    for op in ops {
        let (kind, key, value): (u8, &[u8], &[u8]) = match op {
            Op::Put(key, value) => (0, key, value),
            Op::Delete(key) => (1, key, &[]),
            Op::DeleteRange(from, to) => (2, from, to),
        };
        body.push(kind);
        for part in [key, value] {
            body.extend(length(part));
            body.extend_from_slice(part);
        }
    }
    framed(&body)
}

fn ops(body: &[u8]) -> Option<Vec<Op>> {
    let mut rest = body;
    let mut ops = Vec::new();
    while let Some((kind, behind)) = rest.split_first() {
        rest = behind;
        let (key, value): (Arc<[u8]>, Arc<[u8]>) =
            (take(&mut rest)?.into(), take(&mut rest)?.into());
        ops.push(match kind {
            0 => Op::Put(key, value),
            1 => Op::Delete(key),
            2 => Op::DeleteRange(key, value),
            _ => return None,
        });
    }
    Some(ops)
}

/// Applies the records of a write-ahead log up to a torn end. Whether there was any is returned.
pub(crate) fn replay(path: &Path, lacks_last: bool, map: &mut Map) -> Result<bool, Error> {
    let content = fs::read(path)?;
    let mut rest = content.as_slice();
    let mut batches = Vec::new();
    while let Some(body) = unframed(&mut rest) {
        let Some(ops) = ops(body) else {
            return Err(Error::corruption(format!("{}: malformed record", path.display())));
        };
        batches.push(ops);
    }
    let logged = !content.is_empty();
    if lacks_last {
        batches.pop();
    }
    for op in batches.iter().flatten() {
        op.apply(map);
    }
    Ok(logged)
}

/// Makes an empty write-ahead log.
pub(crate) fn make_log(path: &Path) -> io::Result<File> {
    let file = File::create(path)?;
    file.sync_all()?;
    Ok(file)
}

/// Opens an empty write-ahead log to write.
pub(crate) fn open_log(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).open(path)
}
