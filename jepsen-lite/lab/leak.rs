//! Looks for what must not get out, in every spelling that it may have taken on the way: on whole disks, deleted files
//! included, and in logs.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom as Position};
use std::path::Path;

use anyhow::Context as _;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

const PIECE_BYTES: usize = 1 << 20;
/// Finds that are told of one place; more say nothing new.
const FOUND_MAX: usize = 5;
/// What a needle is looked up by.
const HEAD_BYTES: usize = 4;

/// What is looked for.
#[derive(Debug)]
pub struct Needles {
    all: Vec<Needle>,
    by_head: HashMap<[u8; HEAD_BYTES], Vec<usize>>,
    /// Whether one begins with these two bytes: almost every place is passed by with one look.
    begins: Vec<bool>,
    longest: usize,
}

#[derive(Debug)]
struct Needle {
    spelling: &'static str,
    secret: String,
    bytes: Vec<u8>,
}

impl Needles {
    /// These texts, which have neither blanks nor anything that is rare in a text.
    #[must_use]
    pub fn of(secrets: &[String]) -> Self {
        let mut all = Vec::new();
        for secret in secrets {
            let needle = |(spelling, bytes): (&'static str, Vec<u8>)| Needle {
                spelling,
                secret: secret.clone(),
                bytes,
            };
            all.extend(spellings(secret.as_bytes()).into_iter().map(needle));
        }
        let mut by_head: HashMap<_, Vec<usize>> = HashMap::new();
        let mut begins = vec![false; 1 << 16];
        for (place, needle) in all.iter().enumerate() {
            if let Some(head) = needle.bytes.first_chunk() {
                by_head.entry(*head).or_default().push(place);
                begins[pair(head[0], head[1])] = true;
            }
        }
        let longest = all.iter().map(|needle| needle.bytes.len()).max().unwrap_or_default();
        Self { all, by_head, begins, longest }
    }

    /// What is found in a file; holes are passed by.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file(&self, path: &Path) -> anyhow::Result<Vec<String>> {
        self.search(path).with_context(|| format!("cannot look into {}", path.display()))
    }

    fn search(&self, path: &Path) -> anyhow::Result<Vec<String>> {
        let mut file = File::open(path)?;
        let mut found = Vec::new();
        let mut at = 0;
        loop {
            match rustix::fs::seek(&file, SeekFrom::Data(at)) {
                Ok(data) => at = data,
                Err(Errno::NXIO) => return Ok(found),
                Err(error) => return Err(error.into()),
            }
            let end = rustix::fs::seek(&file, SeekFrom::Hole(at))?;
            file.seek(Position::Start(at))?;
            let mut tail: Vec<u8> = Vec::new();
            while at < end {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX).min(PIECE_BYTES);
                let mut bytes = tail;
                let kept = bytes.len();
                bytes.resize(kept + left, 0);
                match file.read_exact(&mut bytes[kept..]) {
                    Ok(()) => {}
                    // It became shorter meanwhile.
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(found),
                    Err(error) => return Err(error.into()),
                }
                for (offset, needle) in self.bytes(&bytes) {
                    if offset + needle.bytes.len() <= kept {
                        // It was found before.
                        continue;
                    }
                    if found.len() == FOUND_MAX {
                        return Ok(found);
                    }
                    let offset = at + offset as u64 - kept as u64;
                    found.push(format!(
                        "{} at byte {offset} of {}, as {}",
                        needle.secret,
                        path.display(),
                        needle.spelling
                    ));
                }
                at += left as u64;
                // A needle may lie across two pieces.
                let rest = self.longest.saturating_sub(1).min(bytes.len());
                tail = bytes.split_off(bytes.len() - rest);
            }
        }
    }

    /// Where needles begin.
    fn bytes<'n>(&'n self, bytes: &'n [u8]) -> impl Iterator<Item = (usize, &'n Needle)> + 'n {
        let places = bytes.windows(HEAD_BYTES).enumerate();
        let begins = places.filter(|(_, head)| self.begins[pair(head[0], head[1])]);
        begins.flat_map(move |(at, head)| {
            let known = head.first_chunk().and_then(|head| self.by_head.get(head));
            let here = known.into_iter().flatten().map(|place| &self.all[*place]);
            here.filter(move |needle| bytes[at..].starts_with(&needle.bytes))
                .map(move |needle| (at, needle))
        })
    }
}

fn pair(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// Letters and digits look the same in JSON, in a URL, and in what Rust shows of a text.
fn spellings(secret: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let hex = |upper: bool, before: &str| {
        let digits = secret.iter().map(|byte| {
            if upper { format!("{before}{byte:02X}") } else { format!("{before}{byte:02x}") }
        });
        digits.collect::<String>().into_bytes()
    };
    let units = |to: fn(u16) -> [u8; 2]| -> Vec<u8> {
        secret.iter().flat_map(|byte| to(u16::from(*byte))).collect()
    };
    let list: Vec<String> = secret.iter().map(u8::to_string).collect();
    let mut spellings = vec![
        ("it is", secret.to_vec()),
        ("hex", hex(false, "")),
        ("upper-case hex", hex(true, "")),
        ("escaped JSON", hex(false, "\\u00")),
        ("upper-case escaped JSON", hex(true, "\\u00")),
        ("percent-encoding", hex(true, "%")),
        ("UTF-16", units(u16::to_le_bytes)),
        ("big-endian UTF-16", units(u16::to_be_bytes)),
        ("a list of bytes", list.join(", ").into_bytes()),
    ];
    for before in 0..3 {
        spellings.push(("base64", base64(secret, before)));
    }
    spellings
}

/// Its base64 behind so many other bytes, without what its neighbours have a part in.
fn base64(secret: &[u8], before: usize) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits: Vec<u8> = std::iter::repeat_n(&0u8, before)
        .chain(secret)
        .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
        .collect();
    let digits = bits.chunks_exact(6).map(|six| {
        let value = six.iter().fold(0usize, |value, bit| value << 1 | usize::from(*bit));
        DIGITS[value]
    });
    digits.skip((before * 8).div_ceil(6)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const SECRET: &str = "q7Gm2ZxVb0Kd8LtR5wYs1NcP";

    fn found(bytes: &[u8]) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        Needles::of(&["another-0123456789".to_owned(), SECRET.to_owned()])
            .file(file.path())
            .unwrap()
    }

    #[test]
    fn every_spelling_is_found() {
        assert!(found(format!("\"{SECRET}:1.1\"").as_bytes())[0].ends_with("as it is"));
        // A part of it is not it.
        assert_eq!(found(&SECRET.as_bytes()[1..]), Vec::<String>::new());
        for (text, spelling) in [
            ("x7137476d325a785662304b64384c745235775973314e6350".to_owned(), "hex"),
            ("7137476D325A785662304B64384C745235775973314E6350x".to_owned(), "upper-case hex"),
            (SECRET.bytes().map(|byte| format!("\\u{byte:04x}")).collect(), "escaped JSON"),
            (SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect(), "percent-encoding"),
            // printf 'q7Gm…' | base64, behind nothing, one and two bytes.
            ("cTdHbTJaeFZiMEtkOEx0UjV3WXMxTmNQ".to_owned(), "base64"),
            ("eHE3R20yWnhWYjBLZDhMdFI1d1lzMU5jUA==".to_owned(), "base64"),
            ("eHhxN0dtMlp4VmIwS2Q4THRSNXdZczFOY1A=".to_owned(), "base64"),
            (
                "[113, 55, 71, 109, 50, 90, 120, 86, 98, 48, 75, 100, 56, 76, 116, 82, 53, 119, 89, 115, 49, 78, 99, 80]"
                    .to_owned(),
                "a list of bytes",
            ),
        ] {
            let found = found(text.as_bytes());
            assert!(found[0].ends_with(&format!("as {spelling}")), "{text}: {found:?}");
        }
        let little: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert!(found(&little)[0].ends_with("UTF-16"));
        let big: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_be_bytes).collect();
        assert!(found(&big)[0].ends_with("big-endian UTF-16"));
    }

    #[test]
    fn what_lies_across_two_pieces_is_found_once_and_what_is_behind_a_hole_too() {
        for before in [0, 1, 5, SECRET.len(), 300] {
            let mut bytes = vec![b'.'; PIECE_BYTES - before];
            bytes.extend(SECRET.as_bytes());
            bytes.resize(2 * PIECE_BYTES, b'.');
            assert_eq!(found(&bytes).len(), 1, "{before}");
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file_mut().set_len(1 << 30).unwrap();
        file.seek(Position::Start(1 << 29)).unwrap();
        file.write_all(SECRET.as_bytes()).unwrap();
        let found = Needles::of(&[SECRET.to_owned()]).file(file.path()).unwrap();
        assert!(found[0].contains(&format!("byte {} of", 1u64 << 29)), "{found:?}");
    }

    #[test]
    fn nothing_else_is_found() {
        assert_eq!(found(b""), Vec::<String>::new());
        assert_eq!(found(SECRET.to_lowercase().as_bytes()), Vec::<String>::new());
    }
}
