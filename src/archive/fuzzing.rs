//! Body of the fuzz target for backup files: they come from wherever somebody kept them.
//!
//! A file that is accepted must be one that [`Writer`] could have written. The target is in `.ci/fuzz`; the test below runs
//! the body over its inputs.

use crate::format::{BLOCK, END, FORMAT, MAGIC, Sums};
use crate::{ArchiveError, Manifest, Reader, Summary, Writer};

/// In an input, what stands between the manifest, the blocks and the counts.
const MARK: &[u8] = b"\n--\n";
/// Most bytes of a refusal: it is shown to whoever checks the file.
const REFUSAL_BYTES_MAX: usize = 1024;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// [`Reader`]: the bytes as they are, and as the content of a file whose checksums are right.
pub fn backup_file(data: &[u8]) {
    check(data);
    check(&sealed(data));
}

fn check(file: &[u8]) {
    let (summary, pairs) = match read(file) {
        Ok(read) => read,
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", text.len());
            return;
        }
    };
    assert_eq!(summary.file_bytes, file.len() as u64);
    assert_eq!(summary.pairs, pairs.len() as u64);
    assert!(pairs.is_sorted_by(|a, b| a.0 < b.0), "keys out of order");
    let again = written(&summary.manifest, &pairs).and_then(|file| read(&file));
    let same = again.is_ok_and(|(again, read)| again.manifest == summary.manifest && read == pairs);
    assert!(same, "a file was accepted that cannot be written");
}

fn read(file: &[u8]) -> Result<(Summary, Pairs), ArchiveError> {
    let (_, mut reader) = Reader::open(file)?;
    let mut pairs = Pairs::new();
    while let Some(pair) = reader.next_pair()? {
        pairs.push((pair.key.to_vec(), pair.value.to_vec()));
    }
    Ok((reader.into_summary()?, pairs))
}

fn written(manifest: &Manifest, pairs: &Pairs) -> Result<Vec<u8>, ArchiveError> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, manifest)?;
    for (key, value) in pairs {
        writer.pair(key, value)?;
    }
    writer.finish()?;
    Ok(file)
}

/// A file with right checksums: `data` is the manifest, the blocks and the 16 bytes of the two counts, with marks between.
/// Chance alone would never get past the first checksum.
fn sealed(data: &[u8]) -> Vec<u8> {
    let mut parts = split(data);
    let manifest = parts.next().unwrap_or_default();
    let rest: Vec<&[u8]> = parts.collect();
    let (counts, blocks) =
        rest.split_last().map_or((&[][..], &[][..]), |(last, rest)| (*last, rest));

    let mut sums = Sums::new();
    let mut file = Vec::new();
    let mut put = |file: &mut Vec<u8>, pieces: &[&[u8]], checked: bool| {
        for piece in pieces {
            file.extend_from_slice(piece);
            sums.update(piece);
        }
        if checked {
            let crc = sums.take_crc().to_le_bytes();
            file.extend_from_slice(&crc);
            sums.update(&crc);
            sums.take_crc();
        }
        sums.digest()
    };
    put(&mut file, &[MAGIC, &FORMAT.to_le_bytes(), &length(manifest), manifest], true);
    for block in blocks {
        put(&mut file, &[&[BLOCK], &length(block), block], true);
    }
    let digest = put(&mut file, &[&[END], counts], false);
    file.extend_from_slice(&digest);
    file
}

fn split(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let text = rest?;
        let at = text.windows(MARK.len()).position(|window| window == MARK);
        rest = at.map(|at| &text[at + MARK.len()..]);
        Some(&text[..at.unwrap_or(text.len())])
    })
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("backup_file", backup_file);
    }

    #[test]
    fn an_input_can_be_a_whole_file() {
        let manifest = Manifest {
            product_version: "1".into(),
            cluster_id: "c".into(),
            node_id: 1,
            revision: 2,
            applied_term: 3,
            applied_index: 4,
            created_at_ms: 5,
            history_limit: 6,
            voters: BTreeMap::from([(1, "a:1".into())]),
        };
        let pairs = vec![(b"k".to_vec(), b"value".to_vec())];
        let block = [&1_u32.to_le_bytes()[..], &5_u32.to_le_bytes(), b"k", b"value"].concat();
        let counts = [1_u64.to_le_bytes(), 6_u64.to_le_bytes()].concat();
        let text = serde_json::to_vec(&manifest).unwrap();
        let file = sealed(&[&text[..], &block, &counts].join(MARK));
        assert_eq!(file, written(&manifest, &pairs).unwrap());
        assert_eq!(read(&file).unwrap().1, pairs);
    }
}
