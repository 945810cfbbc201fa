//! The search for planted secrets finds each spelling of one, wherever it stands, and nothing else.

use std::fs;
use std::path::Path;

use crate::canary::{Canaries, PIECE_BYTES, Scan};
use rocksdb::{DB, DBCompressionType, Options, WriteOptions};

/// Something of everything that is written differently somewhere.
const SECRET: &str = "sk-Canary 7/?\"<ü🦀>\n+end";
/// As other programs write it.
#[rustfmt::skip]
const SPELLINGS: &[(&str, &str)] = &[
    ("as it is", "sk-Canary 7/?\"<ü🦀>\n+end"),
    ("base64 behind 0 bytes, before 0", "c2stQ2FuYXJ5IDcvPyI8w7zwn6aAPgorZW5k"),
    ("base64 behind 0 bytes, before 1", "c2stQ2FuYXJ5IDcvPyI8w7zwn6aAPgorZW5keg=="),
    ("base64 behind 0 bytes, before 2", "c2stQ2FuYXJ5IDcvPyI8w7zwn6aAPgorZW5keno="),
    ("base64 behind 1 bytes, before 0", "eHNrLUNhbmFyeSA3Lz8iPMO88J+mgD4KK2VuZA=="),
    ("base64 behind 1 bytes, before 1", "eHNrLUNhbmFyeSA3Lz8iPMO88J+mgD4KK2VuZHo="),
    ("base64 behind 1 bytes, before 2", "eHNrLUNhbmFyeSA3Lz8iPMO88J+mgD4KK2VuZHp6"),
    ("base64 behind 2 bytes, before 0", "eHlzay1DYW5hcnkgNy8/IjzDvPCfpoA+CitlbmQ="),
    ("base64 behind 2 bytes, before 1", "eHlzay1DYW5hcnkgNy8/IjzDvPCfpoA+CitlbmR6"),
    ("base64 behind 2 bytes, before 2", "eHlzay1DYW5hcnkgNy8/IjzDvPCfpoA+CitlbmR6eg=="),
    ("url-safe base64 behind 0 bytes", "c2stQ2FuYXJ5IDcvPyI8w7zwn6aAPgorZW5k"),
    ("url-safe base64 behind 1 bytes", "eHNrLUNhbmFyeSA3Lz8iPMO88J-mgD4KK2VuZA=="),
    ("url-safe base64 behind 2 bytes", "eHlzay1DYW5hcnkgNy8_IjzDvPCfpoA-CitlbmQ="),
    ("base64 of JSON", "eyJ2YWx1ZSI6ICJzay1DYW5hcnkgNy8/XCI8w7zwn6aAPlxuK2VuZCJ9"),
    ("hex", "736b2d43616e61727920372f3f223cc3bcf09fa6803e0a2b656e64"),
    ("upper-case hex", "736B2D43616E61727920372F3F223CC3BCF09FA6803E0A2B656E64"),
    ("JSON", r#""sk-Canary 7/?\"<ü🦀>\n+end""#),
    ("ASCII JSON", r#""sk-Canary 7/?\"<\u00fc\ud83e\udd80>\n+end""#),
    ("upper-case ASCII JSON", r#""sk-Canary 7/?\"<\u00FC\uD83E\uDD80>\n+end""#),
    ("JSON in JSON", r#""\"sk-Canary 7/?\\\"<ü🦀>\\n+end\"""#),
    ("JSON with escaped slashes", r#""sk-Canary 7\/?\"<ü🦀>\n+end""#),
    ("JSON for HTML", r#""sk-Canary 7/?\"\u003cü🦀\u003e\n+end""#),
    ("escaped JSON", r"\u0073\u006b\u002d\u0043\u0061\u006e\u0061\u0072\u0079\u0020\u0037\u002f\u003f\u0022\u003c\u00fc\ud83e\udd80\u003e\u000a\u002b\u0065\u006e\u0064"),
    ("upper-case escaped JSON", r"\u0073\u006B\u002D\u0043\u0061\u006E\u0061\u0072\u0079\u0020\u0037\u002F\u003F\u0022\u003C\u00FC\uD83E\uDD80\u003E\u000A\u002B\u0065\u006E\u0064"),
    ("percent-encoding", "sk-Canary%207%2F%3F%22%3C%C3%BC%F0%9F%A6%80%3E%0A%2Bend"),
    ("lower-case percent-encoding", "sk-Canary%207%2f%3f%22%3c%c3%bc%f0%9f%a6%80%3e%0a%2bend"),
    ("form encoding", "sk-Canary+7%2F%3F%22%3C%C3%BC%F0%9F%A6%80%3E%0A%2Bend"),
    ("whole percent-encoding", "%73%6B%2D%43%61%6E%61%72%79%20%37%2F%3F%22%3C%C3%BC%F0%9F%A6%80%3E%0A%2B%65%6E%64"),
    ("lower-case whole percent-encoding", "%73%6b%2d%43%61%6e%61%72%79%20%37%2f%3f%22%3c%c3%bc%f0%9f%a6%80%3e%0a%2b%65%6e%64"),
    ("lenient percent-encoding", "sk-Canary%207/?%22%3C%C3%BC%F0%9F%A6%80%3E%0A+end"),
    ("list of bytes", "[115, 107, 45, 67, 97, 110, 97, 114, 121, 32, 55, 47, 63, 34, 60, 195, 188, 240, 159, 166, 128, 62, 10, 43, 101, 110, 100]"),
    ("tight list of bytes", "[115,107,45,67,97,110,97,114,121,32,55,47,63,34,60,195,188,240,159,166,128,62,10,43,101,110,100]"),
];

fn canaries() -> Canaries {
    Canaries::new(&["another-secret-0001", SECRET])
}

#[track_caller]
fn only_the_secret_is_found(scan: &Scan<'_>, what: &str) {
    let secrets: Vec<_> = scan.found.iter().map(|found| found.secret.as_str()).collect();
    assert!(!secrets.is_empty(), "{what} is not found");
    assert!(secrets.iter().all(|secret| *secret == SECRET), "{what}: {:?}", scan.found);
}

#[test]
fn every_spelling_is_found_in_bytes_and_in_files() {
    let canaries = canaries();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("below")).unwrap();
    let path = folder.path().join("below/file");
    for (name, text) in SPELLINGS {
        let around = format!("before {text} behind");
        let mut scan = canaries.scan();
        scan.bytes("an answer", around.as_bytes());
        only_the_secret_is_found(&scan, name);
        assert!(scan.found[0].offset >= 7, "{name}: {:?}", scan.found);
        fs::write(&path, around).unwrap();
        let mut scan = canaries.scan();
        scan.folder(folder.path());
        only_the_secret_is_found(&scan, name);
        assert!(scan.found[0].place.ends_with("below/file"), "{:?}", scan.found);
    }
}

#[test]
fn utf_16_and_debug_are_found() {
    let little: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = SECRET.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let debug = format!("Set {{ value: {SECRET:?} }}").into_bytes();
    let bytes = format!("{:?}", bytes::Bytes::from(SECRET)).into_bytes();
    let list = format!("{:?}", SECRET.as_bytes()).into_bytes();
    for planted in [little, big, debug, bytes, list] {
        let canaries = canaries();
        let mut scan = canaries.scan();
        scan.bytes("memory", &[b"\0", planted.as_slice(), b"\0"].concat());
        only_the_secret_is_found(&scan, &String::from_utf8_lossy(&planted));
    }
}

#[test]
fn a_plain_secret_is_found_once_for_each_time_that_it_is_there() {
    let canaries = Canaries::new(&["another-secret-0001"]);
    let mut scan = canaries.scan();
    scan.bytes("twice", b"another-secret-0001 another-secret-0001");
    let offsets: Vec<_> = scan.found.iter().map(|found| found.offset).collect();
    assert_eq!(offsets, [0, 20]);
}

#[test]
fn what_lies_across_two_pieces_is_found_once() {
    let canaries = Canaries::new(&["another-secret-0001"]);
    let secret = b"another-secret-0001";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    for before in (0..=secret.len()).chain([200, 2_000]) {
        let at = 2 * PIECE_BYTES - before;
        let mut content = vec![b'.'; 3 * PIECE_BYTES];
        content[at..at + secret.len()].copy_from_slice(secret);
        fs::write(&path, content).unwrap();
        let mut scan = canaries.scan();
        scan.file(&path);
        let offsets: Vec<_> = scan.found.iter().map(|found| found.offset).collect();
        assert_eq!(offsets, [at as u64], "{before} bytes before the edge");
        assert_eq!((scan.files, scan.bytes), (1, 3 * PIECE_BYTES as u64));
    }
}

#[test]
fn a_clean_folder_is_clean() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    let almost = SECRET.replace("end", "enD");
    fs::write(folder.path().join("a/b/almost"), &almost).unwrap();
    fs::write(folder.path().join("a/half"), &SECRET[..15]).unwrap();
    fs::write(folder.path().join("masked"), "another-secret-****").unwrap();
    fs::write(folder.path().join("empty"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
    let canaries = canaries();
    let mut scan = canaries.scan();
    scan.folder(folder.path());
    scan.bytes("an answer", almost.as_bytes());
    scan.assert_clean();
    assert_eq!(scan.files, 4);
}

#[test]
fn names_and_links_are_looked_at() {
    for link in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("another-secret-0001");
        if link {
            std::os::unix::fs::symlink(&name, folder.path().join("link")).unwrap();
        } else {
            fs::write(name, "").unwrap();
        }
        let canaries = canaries();
        let mut scan = canaries.scan();
        scan.folder(folder.path());
        assert_eq!(scan.found.len(), 1, "{:?}", scan.found);
    }
}

#[test]
#[should_panic(expected = "nothing was looked at")]
fn a_look_at_nothing_proves_nothing() {
    canaries().scan().assert_clean();
}

#[test]
#[should_panic(expected = "is no folder")]
fn a_folder_that_is_not_there_proves_nothing() {
    canaries().scan().folder(Path::new("no-such-folder"));
}

#[test]
#[should_panic(expected = "sk-Canary")]
fn what_is_found_fails_the_test() {
    let canaries = canaries();
    let mut scan = canaries.scan();
    scan.bytes("an answer", SECRET.as_bytes());
    scan.assert_clean();
}

/// As the state is stored: compressed, and without a write-ahead log.
fn state_options() -> (Options, WriteOptions) {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_compression_type(DBCompressionType::Lz4);
    let mut write = WriteOptions::default();
    write.disable_wal(true);
    (options, write)
}

/// Repeats what came before, so that LZ4 writes the secret as references to its parts.
fn hidden(secret: &str) -> String {
    let cut = secret.len() / 2;
    let (one, two) = (&secret[..cut], &secret[cut..]);
    format!("{one}||||||||{two}||||||||{one}{two}||||||||")
}

const PLAIN: &str = "another-secret-0001-of-the-database";

fn database(write: impl Fn(&DB, &WriteOptions)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (options, write_options) = state_options();
    let path = folder.path().join("db");
    let db = DB::open_cf(&options, &path, ["default", "other"]).unwrap();
    write(&db, &write_options);
    drop(db);
    folder
}

#[test]
fn what_compression_hides_is_found_in_the_database() {
    let folder = database(|db, write| {
        db.put_opt("k", hidden(PLAIN), write).unwrap();
        db.flush().unwrap();
    });
    let canaries = Canaries::new(&[PLAIN]);
    let mut scan = canaries.scan();
    scan.folder(folder.path());
    assert!(scan.files > 3);
    scan.assert_clean();
    let before = fs::read_dir(folder.path().join("db")).unwrap().count();
    assert_eq!(scan.databases(folder.path()), 1);
    assert_eq!(fs::read_dir(folder.path().join("db")).unwrap().count(), before, "it is a copy");
    assert!(scan.records > 0);
    let places: Vec<_> = scan.found.iter().map(|found| found.place.as_str()).collect();
    assert!(places[0].ends_with("family default, value of \"k\""), "{places:?}");
}

#[test]
fn every_column_family_is_looked_at_and_keys_too() {
    let folder = database(|db, write| {
        let other = db.cf_handle("other").unwrap();
        db.put_cf_opt(other, PLAIN, "", write).unwrap();
        db.flush_cf(other).unwrap();
    });
    let canaries = Canaries::new(&[PLAIN]);
    let mut scan = canaries.scan();
    scan.database(&folder.path().join("db"));
    assert!(scan.found[0].place.ends_with("family other, key"), "{:?}", scan.found);
}

#[test]
fn what_newer_tables_cover_up_is_found() {
    let folder = database(|db, write| {
        db.put_opt("k", hidden(PLAIN), write).unwrap();
        db.flush().unwrap();
        db.delete_opt("k", write).unwrap();
        db.put_opt("other", "clean", write).unwrap();
        db.flush().unwrap();
    });
    let canaries = Canaries::new(&[PLAIN]);
    let mut scan = canaries.scan();
    scan.database(&folder.path().join("db"));
    assert!(!scan.found.is_empty());
    let in_a_table = |found: &crate::canary::Found| found.place.contains(".sst, family");
    assert!(scan.found.iter().all(in_a_table), "{:?}", scan.found);
}

#[test]
fn what_is_only_in_the_write_ahead_log_is_found() {
    let folder = database(|db, _| {
        let mut write = WriteOptions::default();
        write.set_sync(true);
        db.put_opt("k", PLAIN, &write).unwrap();
    });
    let canaries = Canaries::new(&[PLAIN]);
    let mut scan = canaries.scan();
    scan.database(&folder.path().join("db"));
    assert!(!scan.found.is_empty());
    let mut scan = canaries.scan();
    scan.folder(folder.path());
    assert!(scan.found.iter().all(|found| found.place.ends_with(".log")), "{:?}", scan.found);
    assert!(!scan.found.is_empty());
}

#[test]
fn a_clean_database_is_clean() {
    let folder = database(|db, write| {
        for number in 0..1_000 {
            db.put_opt(format!("key {number}"), "another-secret-****", write).unwrap();
        }
        db.flush().unwrap();
    });
    let canaries = canaries();
    let mut scan = canaries.scan();
    scan.folder(folder.path());
    assert_eq!(scan.databases(folder.path()), 1);
    scan.assert_clean();
    assert!(scan.records >= 2_000, "once in the database, once in its table");
}
