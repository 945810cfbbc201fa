//! What comes out is what went in, and nothing comes out of a file that was cut or altered.
#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};

use llm_config_archive::{
    ArchiveError, BLOCK_BYTES, KEY_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest, Reader, Summary,
    VALUE_BYTES_MAX, Writer, verify,
};
use proptest::prelude::*;

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

fn manifest() -> Manifest {
    Manifest {
        product_version: "1.2.3".into(),
        cluster_id: "c".into(),
        node_id: 7,
        revision: 42,
        applied_term: 3,
        applied_index: 99,
        created_at_ms: 1_700_000_000_000,
        history_limit: 100,
        voters: BTreeMap::from([(1, "a:1".into()), (2, "b:1".into())]),
    }
}

fn write(pairs: &Pairs) -> (Vec<u8>, Summary) {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &manifest()).unwrap();
    for (key, value) in pairs {
        writer.pair(key, value).unwrap();
    }
    let summary = writer.finish().unwrap();
    (file, summary)
}

fn read(file: &[u8]) -> Result<(Manifest, Pairs, Summary), ArchiveError> {
    let (manifest, mut reader) = Reader::open(Cursor::new(file))?;
    let mut pairs = Pairs::new();
    while let Some(pair) = reader.next_pair()? {
        pairs.insert(pair.key.to_vec(), pair.value.to_vec());
    }
    Ok((manifest, pairs, reader.into_summary()?))
}

fn small() -> (Vec<u8>, Summary) {
    write(&Pairs::from([
        (b"\x10a".to_vec(), b"one".to_vec()),
        (b"\x11b".to_vec(), Vec::new()),
        (b"\x17".to_vec(), vec![0xff; 40]),
    ]))
}

proptest! {
    #[test]
    fn pairs_survive(pairs: Pairs) {
        let (file, summary) = write(&pairs);
        let (found, back, verified) = read(&file).unwrap();
        prop_assert_eq!(found, manifest());
        prop_assert_eq!(summary.pairs, pairs.len() as u64);
        prop_assert_eq!(summary.file_bytes, file.len() as u64);
        prop_assert_eq!(back, pairs);
        prop_assert_eq!(verified, summary);
    }

    #[test]
    fn any_bytes_are_refused_and_never_panic(bytes: Vec<u8>) {
        prop_assert!(read(&bytes).is_err());
        let mut begun = small().0;
        begun.truncate(60);
        begun.extend_from_slice(&bytes);
        prop_assert!(read(&begun).is_err());
    }
}

#[test]
fn several_blocks_and_the_largest_pair_survive() {
    let value = |length: usize| (0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>();
    let pairs = Pairs::from([
        (b"\x10".to_vec(), value(BLOCK_BYTES - 9)),
        (b"\x11".to_vec(), value(VALUE_BYTES_MAX)),
        (vec![0x12; KEY_BYTES_MAX], value(BLOCK_BYTES)),
        (b"\x13".to_vec(), value(3)),
    ]);
    let (file, summary) = write(&pairs);
    let (_, back, verified) = read(&file).unwrap();
    assert!(back == pairs, "the pairs differ");
    assert_eq!(verified, summary);
}

#[test]
fn a_cut_file_is_refused_at_every_length() {
    let (file, _) = small();
    assert!(matches!(read(&[]), Err(ArchiveError::Foreign)));
    for length in 1..file.len() {
        match read(&file[..length]) {
            Err(ArchiveError::Cut { bytes }) => assert_eq!(bytes, length as u64),
            other => panic!("cut to {length}: {other:?}"),
        }
    }
}

#[test]
fn a_file_with_any_byte_altered_is_refused() {
    let (file, _) = small();
    for at in 0..file.len() {
        for mask in [1, 0x80, 0xff] {
            let mut altered = file.clone();
            altered[at] ^= mask;
            assert!(read(&altered).is_err(), "byte {at}, mask {mask:#x}");
        }
    }
    for more in [&b"\0"[..], &file] {
        let longer = [&file[..], more].concat();
        assert!(matches!(read(&longer), Err(ArchiveError::Damaged { .. })));
    }
}

#[test]
fn whole_blocks_that_are_taken_out_or_swapped_are_noticed() {
    let value = vec![b'x'; BLOCK_BYTES - 9];
    let pairs: Pairs = (0x10_u8..0x13).map(|table| (vec![table], value.clone())).collect();
    let (file, _) = write(&pairs);
    let block = 1 + 4 + BLOCK_BYTES + 4;
    let end = file.len() - (1 + 16 + 32);
    let begin = end - 3 * block;
    let part = |number: usize| &file[begin + number * block..begin + (number + 1) * block];
    for order in [&[0, 2][..], &[1, 0, 2], &[0, 0, 1, 2], &[]] {
        let mut other = file[..begin].to_vec();
        for number in order {
            other.extend_from_slice(part(*number));
        }
        other.extend_from_slice(&file[end..]);
        assert!(matches!(read(&other), Err(ArchiveError::Damaged { .. })), "{order:?}");
    }
}

#[test]
fn a_foreign_and_a_newer_file_say_what_to_do() {
    let foreign = read(b"PK\x03\x04 a zip file, or anything").unwrap_err();
    assert!(matches!(foreign, ArchiveError::Foreign), "{foreign}");
    let (mut file, _) = small();
    file[15] = 2;
    let newer = read(&file).unwrap_err();
    assert!(matches!(newer, ArchiveError::Newer { format: 2 }), "{newer}");
    assert!(newer.to_string().contains("use the release that wrote it"), "{newer}");
}

#[test]
fn what_does_not_fit_is_not_written() {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &manifest()).unwrap();
    writer.pair(b"b", b"").unwrap();
    for key in [&b"a"[..], b"b", &vec![b'c'; KEY_BYTES_MAX + 1]] {
        assert!(matches!(writer.pair(key, b""), Err(ArchiveError::Refused(_))));
    }
    let long = vec![0; VALUE_BYTES_MAX + 1];
    assert!(matches!(writer.pair(b"c", &long), Err(ArchiveError::Refused(_))));
    let summary = writer.finish().unwrap();
    assert_eq!(read(&file).unwrap().2, summary);

    let huge = Manifest { cluster_id: "x".repeat(MANIFEST_BYTES_MAX), ..manifest() };
    assert!(matches!(Writer::new(Vec::new(), &huge), Err(ArchiveError::Refused(_))));
}

/// A disk that is full after some bytes.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_happens() {
    let (file, _) = small();
    for room in 0..file.len() {
        let written = Writer::new(Full(room), &manifest()).and_then(|mut writer| {
            writer.pair(b"\x10a", b"one")?;
            writer.pair(b"\x11b", b"")?;
            writer.pair(b"\x17", &[0xff; 40])?;
            writer.finish()
        });
        assert!(matches!(written, Err(ArchiveError::Io(_))), "room for {room} bytes");
    }
}

#[test]
fn a_file_is_verified_by_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup");
    assert!(matches!(verify(&path), Err(ArchiveError::Io(_))));
    let (file, summary) = small();
    std::fs::write(&path, &file).unwrap();
    assert_eq!(verify(&path).unwrap(), summary);
    assert_eq!(summary.digest_hex().len(), 64);
    assert!(file.ends_with(&summary.digest));
    std::fs::write(&path, &file[..file.len() - 1]).unwrap();
    assert!(matches!(verify(&path), Err(ArchiveError::Cut { .. })));
}
