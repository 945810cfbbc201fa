//! The cache file: the last known values of one namespace in one environment, for a start when no node answers.
//!
//! ```text
//! magic 8 | format u32 | flags u8 | saved at, ms since 1970 u64 | revision u64
//! | namespace: length u16, bytes | environment: length u16, bytes
//! | body: length u64, bytes | SHA-256 of all that is before it 32
//! ```
//!
//! Numbers are big-endian. The body is the `ResolveResponse`; with the flag *sealed* it is a nonce of 12 bytes, its
//! AES-256-GCM ciphertext and the tag of 16 bytes, with all that stands before the body's length as associated data. The
//! flag *revealed* tells that secrets are in it in plaintext, which is never so without *sealed*. The digest tells damage;
//! that nobody made the file up, only *sealed* does.
//!
//! A file is replaced as a whole, by renaming a new one, which only its owner may read.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use prost::Message as _;

use crate::client::ANSWER_BYTES_MAX;
use crate::v1::ResolveResponse;

const MAGIC: &[u8; 8] = b"LCMCACHE";
/// The one form that is written and read.
const FORMAT: u32 = 1;
const SEALED: u8 = 1;
const REVEALED: u8 = 2;
/// The largest answer, and what stands around it.
const FILE_BYTES_MAX: u64 = ANSWER_BYTES_MAX as u64 + (1 << 20);

/// What a file is for: only one that was written for the same is taken.
#[derive(Debug, Clone)]
pub(super) struct CacheFile {
    pub(super) path: PathBuf,
    pub(super) namespace: String,
    pub(super) environment: &'static str,
    /// Secrets are in it in plaintext.
    pub(super) revealed: bool,
    pub(super) key: Option<CacheKey>,
}

/// Encrypts the file.
#[derive(Clone)]
pub(super) struct CacheKey(pub(super) [u8; 32]);

/// Without the key.
impl std::fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

/// What was found in a file.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) values: ResolveResponse,
    pub(super) saved_at: SystemTime,
}

/// Why a file is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// There is none.
    Absent,
    /// It is or was a cache file for this, and is replaced by the next one.
    Damaged(String),
    /// It is something else, and is left as it is.
    Foreign(String),
}

impl CacheFile {
    /// Reads the file, or tells why it is not to be used.
    pub(super) fn load(&self) -> Result<Saved, Unusable> {
        let damaged = |error: io::Error| Unusable::Damaged(error.to_string());
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Absent),
            Err(error) => return Err(damaged(error)),
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(damaged)?;
        self.decode(&bytes)
    }

    /// Replaces the file: whole or not at all, and for its owner only.
    pub(super) fn save(&self, values: &ResolveResponse) -> Result<(), String> {
        let bytes = self.encode(values, SystemTime::now())?;
        let mut name = self.path.file_name().ok_or("it has no name")?.to_owned();
        name.push(format!(".{}.tmp", uuid::Uuid::new_v4().simple()));
        let temporary = self.path.with_file_name(name);
        let written = write_new(&temporary, &bytes)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .and_then(|()| File::open(folder(&self.path))?.sync_all());
        written.map_err(|error| {
            if let Err(error) = fs::remove_file(&temporary)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(file = %temporary.display(), reason = %error, "half a file was left behind");
            }
            error.to_string()
        })
    }

    fn flags(&self) -> u8 {
        let sealed = if self.key.is_some() { SEALED } else { 0 };
        let revealed = if self.revealed { REVEALED } else { 0 };
        sealed | revealed
    }

    fn encode(&self, values: &ResolveResponse, now: SystemTime) -> Result<Vec<u8>, String> {
        if self.revealed && self.key.is_none() {
            return Err("secrets are not written in plaintext".to_owned());
        }
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let mut bytes = MAGIC.to_vec();
        bytes.extend(FORMAT.to_be_bytes());
        bytes.push(self.flags());
        bytes.extend(u64::try_from(since).unwrap_or(u64::MAX).to_be_bytes());
        bytes.extend(values.revision.to_be_bytes());
        for text in [self.namespace.as_str(), self.environment] {
            let length = u16::try_from(text.len()).map_err(|_| "a name is too long")?;
            bytes.extend(length.to_be_bytes());
            bytes.extend(text.as_bytes());
        }
        let mut body = values.encode_to_vec();
        if let Some(key) = &self.key {
            let failed = |_| "the values could not be encrypted".to_owned();
            let key = RandomizedNonceKey::new(&AES_256_GCM, &key.0).map_err(failed)?;
            let nonce =
                key.seal_in_place_append_tag(Aad::from(&bytes), &mut body).map_err(failed)?;
            body.splice(0..0, *nonce.as_ref());
        }
        bytes.extend(u64::try_from(body.len()).unwrap_or(u64::MAX).to_be_bytes());
        bytes.append(&mut body);
        let checksum = digest(&SHA256, &bytes);
        bytes.extend(checksum.as_ref());
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("more than {FILE_BYTES_MAX} bytes would be in it"));
        }
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Saved, Unusable> {
        let damaged = |reason: &str| Unusable::Damaged(reason.to_owned());
        let foreign = |reason: String| Unusable::Foreign(reason);
        if !bytes.starts_with(MAGIC) {
            return Err(foreign("it is no cache file, and is left as it is".to_owned()));
        }
        let checked = bytes.len().checked_sub(SHA256_OUTPUT_LEN);
        let (content, checksum) = checked
            .and_then(|at| bytes.split_at_checked(at))
            .ok_or_else(|| damaged("it is cut off"))?;
        if digest(&SHA256, content).as_ref() != checksum {
            return Err(damaged("it is damaged: its checksum is another one"));
        }
        let mut rest = Reader(content);
        let header = rest.header().ok_or_else(|| damaged("it is cut off"))?;
        if header.format != FORMAT {
            let format = header.format;
            return Err(Unusable::Damaged(format!(
                "it has format {format}, and this release reads {FORMAT}"
            )));
        }
        if header.namespace != self.namespace || header.environment != self.environment {
            return Err(foreign(format!(
                "it is for {} in {}, and is left as it is; give each its own file",
                header.namespace, header.environment
            )));
        }
        if header.flags & REVEALED != self.flags() & REVEALED {
            return Err(damaged("it was written with another choice about secrets"));
        }
        if header.flags & SEALED != self.flags() & SEALED {
            return Err(damaged("it was written with another choice about encryption"));
        }
        let associated = content.split_at(content.len() - rest.0.len()).0;
        let body = rest.number().and_then(|length| rest.take(usize::try_from(length).ok()?));
        let body = body.filter(|_| rest.0.is_empty()).ok_or_else(|| damaged("it is cut off"))?;
        let opened;
        let body = match &self.key {
            Some(key) => {
                opened = open(key, associated, body)
                    .ok_or_else(|| damaged("it cannot be decrypted with this key"))?;
                &opened[..]
            }
            None => body,
        };
        let values =
            ResolveResponse::decode(body).map_err(|_| damaged("its values are damaged"))?;
        if values.namespace != self.namespace || values.environment != self.environment {
            return Err(damaged("its values are of another namespace"));
        }
        let saved_at = UNIX_EPOCH.checked_add(Duration::from_millis(header.saved_at_ms));
        Ok(Saved { values, saved_at: saved_at.unwrap_or(UNIX_EPOCH) })
    }
}

fn open(key: &CacheKey, associated: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = body.split_at_checked(NONCE_LEN)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &key.0).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut sealed = sealed.to_vec();
    let length = key.open_in_place(nonce, Aad::from(associated), &mut sealed).ok()?.len();
    sealed.truncate(length);
    Some(sealed)
}

struct Header {
    format: u32,
    flags: u8,
    saved_at_ms: u64,
    namespace: String,
    environment: String,
}

/// Takes a file apart; `None` when it ends too early.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn header(&mut self) -> Option<Header> {
        self.take(MAGIC.len())?;
        let format = u32::from_be_bytes(*self.0.split_off(..4)?.first_chunk()?);
        let flags = *self.take(1)?.first()?;
        let saved_at_ms = self.number()?;
        self.number()?;
        Some(Header {
            format,
            flags,
            saved_at_ms,
            namespace: self.text()?,
            environment: self.text()?,
        })
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        self.0.split_off(..length)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(*self.take(8)?.first_chunk()?))
    }

    fn text(&mut self) -> Option<String> {
        let length = u16::from_be_bytes(*self.take(2)?.first_chunk()?);
        Some(std::str::from_utf8(self.take(length.into())?).ok()?.to_owned())
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// What is read from a file that anybody may have written: for the fuzz target.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz(bytes: &[u8]) {
    for key in [None, Some(CacheKey([7; 32]))] {
        let file = CacheFile {
            path: PathBuf::new(),
            namespace: "n".to_owned(),
            environment: "base",
            revealed: false,
            key,
        };
        if let Ok(saved) = file.decode(bytes) {
            assert_eq!(saved.values.namespace, "n");
        }
        // Most inputs fail at the checksum: with the right one they get further.
        let mut checked = bytes.to_vec();
        checked.extend(digest(&SHA256, bytes).as_ref());
        if let Ok(saved) = file.decode(&checked) {
            assert_eq!(saved.values.namespace, "n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::ResolvedValue;

    fn file(folder: &tempfile::TempDir, key: Option<[u8; 32]>) -> CacheFile {
        CacheFile {
            path: folder.path().join("cache"),
            namespace: "shop/assistant".to_owned(),
            environment: "production",
            revealed: key.is_some(),
            key: key.map(CacheKey),
        }
    }

    fn values() -> ResolveResponse {
        ResolveResponse {
            namespace: "shop/assistant".into(),
            environment: "production".into(),
            values: vec![ResolvedValue {
                key: "password".into(),
                value: r#""hunter2""#.into(),
                source: "base".into(),
                secret: true,
            }],
            revision: 42,
        }
    }

    #[test]
    fn what_was_saved_is_loaded_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        for key in [None, Some([7; 32])] {
            let file = file(&folder, key);
            file.save(&values()).unwrap();
            let saved = file.load().unwrap();
            assert_eq!(saved.values, values());
            assert!(saved.saved_at.elapsed().unwrap() < Duration::from_secs(60));
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&file.path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left behind");
        }
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let folder = tempfile::tempdir().unwrap();
        for key in [None, Some([7; 32])] {
            let file = file(&folder, key);
            let good = file.encode(&values(), SystemTime::now()).unwrap();
            assert!(file.decode(&good).is_ok());
            for index in 0..good.len() {
                for bit in 0..8 {
                    let mut bad = good.clone();
                    bad[index] ^= 1 << bit;
                    assert!(file.decode(&bad).is_err(), "byte {index}, bit {bit}");
                }
                assert!(file.decode(&good[..index]).is_err(), "cut to {index}");
            }
            assert!(file.decode(&[&good[..], b"x"].concat()).is_err());
        }
    }

    #[test]
    fn plaintext_of_secrets_never_lands_in_the_clear() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = file(&folder, Some([7; 32]));
        let bytes = sealed.encode(&values(), SystemTime::now()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        let clear = CacheFile { key: None, ..sealed.clone() };
        assert!(clear.encode(&values(), SystemTime::now()).is_err());
        // Sealed twice, nothing is the same: the nonce is another one.
        let again = sealed.encode(&values(), SystemTime::now()).unwrap();
        assert_ne!(bytes[bytes.len() - 64..], again[again.len() - 64..]);
    }

    #[test]
    fn a_file_for_something_else_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = file(&folder, Some([7; 32]));
        let bytes = sealed.encode(&values(), SystemTime::now()).unwrap();
        let refused = |file: CacheFile| file.decode(&bytes).unwrap_err();
        assert!(matches!(
            refused(CacheFile { namespace: "shop".into(), ..sealed.clone() }),
            Unusable::Foreign(_)
        ));
        assert!(matches!(
            refused(CacheFile { environment: "staging", ..sealed.clone() }),
            Unusable::Foreign(_)
        ));
        let damaged = [
            CacheFile { key: Some(CacheKey([8; 32])), ..sealed.clone() },
            CacheFile { key: None, ..sealed.clone() },
            CacheFile { revealed: false, ..sealed.clone() },
        ];
        for file in damaged {
            assert!(matches!(refused(file), Unusable::Damaged(_)));
        }
        assert!(matches!(sealed.decode(b"#!/bin/sh\n"), Err(Unusable::Foreign(_))));
        assert_eq!(sealed.load().unwrap_err(), Unusable::Absent);
    }

    #[test]
    fn a_newer_format_is_told_by_its_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(&folder, None);
        let mut bytes = file.encode(&values(), SystemTime::now()).unwrap();
        bytes.truncate(bytes.len() - SHA256_OUTPUT_LEN);
        bytes[11] = 2;
        bytes.extend(digest(&SHA256, &bytes.clone()).as_ref());
        let Err(Unusable::Damaged(reason)) = file.decode(&bytes) else { panic!("it was taken") };
        assert!(reason.contains("format 2"), "{reason}");
    }
}
