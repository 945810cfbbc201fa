//! The master keys: a file with one key in each line, the current one first, read again when it changes.
//!
//! The file is brought by the operator and is the same on every node. Nothing of a key is ever shown, only its id.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::envelope::{Fault, KEY_BYTES, KeyBytes};
use crate::private_file;

/// Most keys in a file: the current one, and old ones until every data key is wrapped anew.
pub const KEYS_MAX: usize = 8;
/// Room for the keys and some words about each.
const FILE_BYTES_MAX: usize = 16 << 10;
/// Anybody but the owner.
const OTHERS: u32 = 0o077;
/// How soon a changed file is noticed.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
const ID_LABEL: &[u8] = b"llm-config master key id v1";
const ID_BYTES: usize = 8;
const MAKE_ONE: &str = "make a key with `head -c 32 /dev/urandom | base64`";

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING);

/// Tells master keys apart, and says nothing about what they are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MasterKeyId([u8; ID_BYTES]);

impl MasterKeyId {
    /// As it is stored.
    #[must_use]
    pub fn from_bytes(bytes: [u8; ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// To be stored.
    #[must_use]
    pub fn to_bytes(self) -> [u8; ID_BYTES] {
        self.0
    }
}

impl fmt::Display for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for MasterKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What data keys are wrapped with.
#[derive(Debug)]
pub struct MasterKey {
    id: MasterKeyId,
    bytes: KeyBytes,
}

impl MasterKey {
    fn new(bytes: KeyBytes) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(ID_LABEL);
        context.update(bytes.expose());
        let mut id = [0; ID_BYTES];
        for (byte, of_digest) in id.iter_mut().zip(context.finish().as_ref()) {
            *byte = *of_digest;
        }
        Self { id: MasterKeyId(id), bytes }
    }

    /// Its name in records and messages.
    #[must_use]
    pub fn id(&self) -> MasterKeyId {
        self.id
    }

    pub(super) fn bytes(&self) -> &KeyBytes {
        &self.bytes
    }
}

/// Why the file cannot be used. Nothing of what is in it is told.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Not there, or not for this user.
    #[error(
        "--master-key-file {}: cannot be read ({source}); give the path of a file that the node's user may read",
        .path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A folder, a pipe, or far too long.
    #[error("--master-key-file {}: {problem}", .path.display())]
    NoKeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A line that is no key.
    #[error("--master-key-file {}: line {line} {problem}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A file could not be made.
    #[error(
        "{}: the master key cannot be written ({source}); make the folder writable, or give another --data-dir",
        .path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// See [`Fault`].
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// The keys of a file, at one time.
#[derive(Debug)]
struct Keys {
    current: Arc<MasterKey>,
    older: Vec<Arc<MasterKey>>,
}

impl Keys {
    fn all(&self) -> impl Iterator<Item = &Arc<MasterKey>> {
        std::iter::once(&self.current).chain(&self.older)
    }

    fn ids(&self) -> Vec<MasterKeyId> {
        self.all().map(|key| key.id).collect()
    }
}

/// The master keys of this node.
pub struct MasterKeys {
    path: PathBuf,
    keys: RwLock<Keys>,
    /// Whether it was said that others may read the file.
    exposed: AtomicBool,
}

impl MasterKeys {
    /// Reads the file.
    ///
    /// # Errors
    /// [`MasterKeyError`], with the file, the line and what to do.
    pub fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let (keys, mode) = read(path)?;
        let keys = Self {
            path: path.to_owned(),
            keys: RwLock::new(keys),
            exposed: AtomicBool::new(false),
        };
        keys.warn_of(mode);
        Ok(keys)
    }

    /// The key that data keys are wrapped with.
    #[must_use]
    pub fn current(&self) -> Arc<MasterKey> {
        Arc::clone(&self.keys.read().current)
    }

    /// The key that something is wrapped with, if it is in the file.
    #[must_use]
    pub fn by_id(&self, id: MasterKeyId) -> Option<Arc<MasterKey>> {
        self.keys.read().all().find(|key| key.id == id).map(Arc::clone)
    }

    /// All of them, the current one first.
    #[must_use]
    pub fn ids(&self) -> Vec<MasterKeyId> {
        self.keys.read().ids()
    }

    /// Reads the file again; tells whether the keys are others now. Blocks on the disk.
    ///
    /// # Errors
    /// As [`MasterKeys::load`]; the keys are then those from before.
    pub fn reload(&self) -> Result<bool, MasterKeyError> {
        let (keys, mode) = read(&self.path)?;
        self.warn_of(mode);
        if keys.ids() == self.ids() {
            return Ok(false);
        }
        *self.keys.write() = keys;
        Ok(true)
    }

    /// Takes over what changes in the file, until closing. What cannot be used is logged once, and the old keys stay.
    pub async fn watch(self: Arc<Self>, closing: CancellationToken) {
        self.watch_every(LOOK_INTERVAL, closing).await;
    }

    async fn watch_every(self: Arc<Self>, interval: Duration, closing: CancellationToken) {
        let mut said = None;
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            said = self.look(said).await;
        }
    }

    /// Takes what it said before and gives what there is to say, so that a problem is logged once. The file is small:
    /// reading it is surer than what file systems tell of changes.
    async fn look(self: &Arc<Self>, said: Option<String>) -> Option<String> {
        let keys = Arc::clone(self);
        let problem = match tokio::task::spawn_blocking(move || keys.reload()).await {
            Ok(Ok(changed)) => {
                if changed {
                    let ids = self.ids();
                    tracing::info!(file = %self.path.display(), ?ids, "the master keys were replaced");
                }
                return None;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("reading the master keys broke off: {error}"),
        };
        if said.as_ref() != Some(&problem) {
            tracing::error!("{problem}; the node goes on with the keys that it has");
        }
        Some(problem)
    }

    fn warn_of(&self, mode: u32) {
        let exposed = mode & OTHERS != 0;
        if exposed && !self.exposed.load(Ordering::Relaxed) {
            tracing::warn!(
                file = %self.path.display(),
                mode = format!("{:03o}", mode & 0o777),
                "others than its owner may use the master key file; take that away with chmod 600"
            );
        }
        self.exposed.store(exposed, Ordering::Relaxed);
    }
}

/// Ids only.
impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKeys").field("path", &self.path).field("ids", &self.ids()).finish()
    }
}

/// The keys and the mode of the file.
fn read(path: &Path) -> Result<(Keys, u32), MasterKeyError> {
    let unreadable = |source| MasterKeyError::Unreadable { path: path.to_owned(), source };
    let no_key_file =
        |problem: String| MasterKeyError::NoKeyFile { path: path.to_owned(), problem };
    // Asked before it is opened: opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        let problem = "is no regular file, and could not be read again; give a file with the keys";
        return Err(no_key_file(problem.to_owned()));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode();
    // Of a size that is never outgrown, because what is left behind by growing is not overwritten.
    let mut text = Zeroizing::new(Vec::with_capacity(2 * FILE_BYTES_MAX));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > FILE_BYTES_MAX {
        return Err(no_key_file(format!(
            "is longer than {FILE_BYTES_MAX} bytes; give a file with keys only, at most {KEYS_MAX}"
        )));
    }
    let keys = parse(&text).map_err(|problem| match problem {
        Problem::Line(line, problem) => {
            MasterKeyError::Line { path: path.to_owned(), line, problem }
        }
        Problem::NoKey => no_key_file(format!("has no key in it; {MAKE_ONE}")),
    })?;
    Ok((keys, mode))
}

#[derive(Debug)]
enum Problem {
    Line(usize, String),
    NoKey,
}

fn parse(text: &[u8]) -> Result<Keys, Problem> {
    let mut found: Vec<(usize, Arc<MasterKey>)> = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let (number, line) = (index + 1, line.trim_ascii());
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let key = decode(line).map_err(|problem| Problem::Line(number, problem))?;
        let key = MasterKey::new(key);
        if let Some((first, _)) = found.iter().find(|(_, other)| other.id == key.id) {
            let problem = format!("has the same key as line {first}; take one of them away");
            return Err(Problem::Line(number, problem));
        }
        if found.len() == KEYS_MAX {
            let problem = format!(
                "is key {}, and at most {KEYS_MAX} are allowed; take away those that nothing is wrapped with any more",
                KEYS_MAX + 1
            );
            return Err(Problem::Line(number, problem));
        }
        found.push((number, Arc::new(key)));
    }
    let mut keys = found.into_iter().map(|(_, key)| key);
    let current = keys.next().ok_or(Problem::NoKey)?;
    Ok(Keys { current, older: keys.collect() })
}

/// What the decoder says is not passed on: it names symbols of the key.
fn decode(line: &[u8]) -> Result<KeyBytes, String> {
    let url_safe = line.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if url_safe { URL_SAFE } else { STANDARD };
    let bytes = engine
        .decode(line)
        .map(Zeroizing::new)
        .map_err(|_| format!("is not base64; {MAKE_ONE}, and put # before words"))?;
    KeyBytes::copy_of(&bytes).ok_or_else(|| {
        format!("is base64 of {} bytes, and a key has {KEY_BYTES}; {MAKE_ONE}", bytes.len())
    })
}

/// Makes a file with one random key, for who has none, together with its folder. One that exists is kept, whatever is in
/// it: it may be what secrets are wrapped with. Tells whether it was made.
///
/// # Errors
/// [`MasterKeyError::Unwritable`], [`MasterKeyError::Fault`].
pub fn generate_file(path: &Path) -> Result<bool, MasterKeyError> {
    let unwritable = |source| MasterKeyError::Unwritable { path: path.to_owned(), source };
    fs::create_dir_all(private_file::folder(path)).map_err(unwritable)?;
    let key = KeyBytes::random()?;
    let encoded = Zeroizing::new(STANDARD.encode(key.expose()));
    private_file::create(
        path,
        &[
            b"# The key that wraps the keys of secrets. Whoever loses it loses them.\n",
            encoded.as_bytes(),
            b"\n",
        ],
    )
    .map_err(unwritable)
}

#[cfg(test)]
pub(super) mod testing {
    //! Files with known master keys.

    use super::*;

    pub(crate) fn master(byte: u8) -> MasterKey {
        MasterKey::new(KeyBytes::copy_of(&[byte; KEY_BYTES]).unwrap())
    }

    /// A folder with a file of keys whose bytes are all the same.
    pub(crate) struct Folder(tempfile::TempDir);

    impl Folder {
        pub(crate) fn new(keys: &[u8]) -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            folder.write(keys);
            folder
        }

        pub(crate) fn path(&self) -> PathBuf {
            self.0.path().join("keys")
        }

        pub(crate) fn write(&self, keys: &[u8]) {
            let lines = keys.iter().map(|byte| STANDARD.encode([*byte; KEY_BYTES]) + "\n");
            self.write_text(&lines.collect::<String>());
        }

        /// Replaces the file at once, as the documentation says.
        pub(crate) fn write_text(&self, text: &str) {
            let next = self.0.path().join("next");
            fs::write(&next, text).unwrap();
            fs::rename(next, self.path()).unwrap();
        }

        pub(crate) fn load(&self) -> MasterKeys {
            MasterKeys::load(&self.path()).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Instant;

    use proptest::prelude::*;

    use super::testing::{Folder, master};
    use super::*;

    fn ids(keys: &[u8]) -> Vec<MasterKeyId> {
        keys.iter().map(|byte| master(*byte).id()).collect()
    }

    /// 43 symbols and one of padding; with symbols in which the alphabets differ.
    fn text(byte: u8) -> String {
        STANDARD.encode([byte; KEY_BYTES])
    }

    #[test]
    fn an_id_is_the_one_that_records_name() {
        assert_eq!(master(0x11).id().to_string(), "9b6e206f4c108f95");
        assert_eq!(MasterKeyId::from_bytes(master(1).id().to_bytes()), master(1).id());
        assert_eq!(
            format!("{:?}", master(0x11)),
            "MasterKey { id: 9b6e206f4c108f95, bytes: KeyBytes(..) }"
        );
    }

    #[test]
    fn files_are_read_as_people_write_them() {
        let url_safe = |byte| text(byte).replace('+', "-").replace('/', "_");
        let bare = |byte| text(byte).trim_end_matches('=').to_owned();
        assert!(text(0xfb).contains('+') && text(0xff).contains('/'), "the alphabets differ here");
        for (file, keys) in [
            (text(1), vec![1]),
            (format!("{}\n", text(1)), vec![1]),
            (format!("{}\r\n{}\r\n", text(1), text(2)), vec![1, 2]),
            (format!("# words\n\n  {}\t\n  # more\n{}\n\n", text(2), text(1)), vec![2, 1]),
            (format!("{}\n{}", bare(3), bare(0xff)), vec![3, 0xff]),
            (format!("{}\n{}", url_safe(0xfb), url_safe(0xff)), vec![0xfb, 0xff]),
            (format!("{}\n{}", text(0xfb), text(0xff)), vec![0xfb, 0xff]),
            (url_safe(0xff).trim_end_matches('=').to_owned(), vec![0xff]),
            ((1..=8).map(|byte| text(byte) + "\n").collect(), (1..=8).collect()),
        ] {
            let parsed = parse(file.as_bytes()).unwrap_or_else(|error| panic!("{file}: {error:?}"));
            assert_eq!(parsed.ids(), ids(&keys), "{file}");
            assert_eq!(parsed.current.id(), ids(&keys)[0]);
        }
    }

    #[test]
    fn what_is_no_key_is_refused_with_file_line_and_remedy() {
        let folder = Folder::new(&[1]);
        let hex = "0123456789abcdef".repeat(4);
        for (file, line, part) in [
            (String::new(), None, "no key"),
            ("# nothing\n\n".to_owned(), None, "no key"),
            (format!("{}\nhunter2!\n", text(1)), Some(2), "is not base64"),
            (format!("# one\n\n{}x\n", text(1)), Some(3), "is not base64"),
            (format!("{} # current\n", text(1)), Some(1), "is not base64"),
            (format!("key: {}\n", text(1)), Some(1), "is not base64"),
            (text(1).replace('A', "+_"), Some(1), "is not base64"),
            ("c2hvcnQ=".to_owned(), Some(1), "base64 of 5 bytes"),
            (hex, Some(1), "base64 of 48 bytes"),
            (STANDARD.encode([1; 33]), Some(1), "base64 of 33 bytes"),
            (format!("{}\n#\n{}\n", text(1), text(1)), Some(3), "same key as line 1"),
            ((1..=9).map(|byte| text(byte) + "\n").collect(), Some(9), "at most 8"),
            ("#".repeat(FILE_BYTES_MAX + 1), None, "longer than"),
        ] {
            folder.write_text(&file);
            let error = MasterKeys::load(&folder.path()).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(part), "{file}: {said}");
            let path = folder.path();
            assert!(said.starts_with(&format!("--master-key-file {}: ", path.display())), "{said}");
            let found = match error {
                MasterKeyError::Line { line, .. } => Some(line),
                _ => None,
            };
            assert_eq!(found, line, "{file}: {said}");
            assert!(said.contains(';'), "there is a remedy: {said}");
            let words = file.split_whitespace().filter(|word| word.len() > 5);
            for word in words.filter(|word| *word != "nothing" && *word != "current") {
                assert!(!said.contains(word), "{word} is told: {said}");
            }
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let absent = MasterKeys::load(&folder.path().join("absent")).unwrap_err();
        assert!(matches!(absent, MasterKeyError::Unreadable { .. }), "{absent}");
        let error = MasterKeys::load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("is no regular file"), "{error}");
    }

    #[test]
    fn a_changed_file_is_taken_over_and_an_invalid_one_is_not() {
        let folder = Folder::new(&[1]);
        let keys = folder.load();
        assert!(!keys.reload().unwrap());
        folder.write(&[2, 1]);
        assert!(keys.reload().unwrap());
        assert_eq!(keys.ids(), ids(&[2, 1]));
        assert_eq!(keys.current().id(), master(2).id());
        folder.write(&[1, 2]);
        assert!(keys.reload().unwrap(), "another one is the current one");
        for bad in ["", "hunter2\n"] {
            folder.write_text(bad);
            assert!(keys.reload().is_err());
            assert_eq!(keys.ids(), ids(&[1, 2]));
        }
        fs::remove_file(folder.path()).unwrap();
        assert!(keys.reload().is_err());
        assert_eq!(keys.current().id(), master(1).id());
        assert!(keys.by_id(master(2).id()).is_some());
        assert!(keys.by_id(master(3).id()).is_none());
    }

    #[tokio::test]
    async fn the_file_is_watched() {
        let folder = Folder::new(&[1]);
        let keys = Arc::new(folder.load());
        let closing = CancellationToken::new();
        let interval = Duration::from_millis(5);
        let watch = tokio::spawn(Arc::clone(&keys).watch_every(interval, closing.clone()));
        let wait = async |expected: &[u8]| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while keys.ids() != ids(expected) {
                assert!(Instant::now() < deadline, "{:?}, not {expected:?}", keys.ids());
                tokio::time::sleep(interval).await;
            }
        };
        folder.write(&[2, 1]);
        wait(&[2, 1]).await;
        folder.write_text("hunter2\n");
        folder.write(&[3]);
        wait(&[3]).await;
        closing.cancel();
        watch.await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_told_once() {
        let folder = Folder::new(&[1]);
        let keys = Arc::new(folder.load());
        let log = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(log.reopen().unwrap());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(writer).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        assert_eq!(keys.look(None).await, None);
        folder.write_text("hunter2\n");
        let said = keys.look(None).await;
        assert_eq!(keys.look(said.clone()).await, said);
        assert_eq!(keys.ids(), ids(&[1]));
        folder.write(&[2, 1]);
        assert_eq!(keys.look(said).await, None);
        assert_eq!(keys.ids(), ids(&[2, 1]));
        let log = fs::read_to_string(log.path()).unwrap();
        assert_eq!(log.matches("line 1 is not base64").count(), 1, "{log}");
        assert!(log.contains("ERROR") && log.contains("the master keys were replaced"), "{log}");
        assert!(log.contains(&master(2).id().to_string()) && !log.contains("hunter2"), "{log}");
    }

    #[test]
    fn a_file_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/master-key");
        assert!(generate_file(&path).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let keys = MasterKeys::load(&path).unwrap();
        assert_eq!(keys.ids().len(), 1);
        assert!(!keys.exposed.load(Ordering::Relaxed));
        assert!(!generate_file(&path).unwrap());
        assert!(!keys.reload().unwrap(), "it was kept");

        let other = folder.path().join("other");
        assert!(generate_file(&other).unwrap());
        assert_ne!(MasterKeys::load(&other).unwrap().ids(), keys.ids(), "it is random");

        fs::write(&other, "").unwrap();
        assert!(!generate_file(&other).unwrap());
        assert_eq!(fs::read(&other).unwrap(), b"", "whatever is in it");
        let below_a_file = generate_file(&other.join("key")).unwrap_err();
        assert!(matches!(below_a_file, MasterKeyError::Unwritable { .. }), "{below_a_file}");
    }

    #[test]
    fn a_file_that_others_may_read_is_noticed() {
        let folder = Folder::new(&[1]);
        for (mode, exposed) in [(0o600, false), (0o640, true), (0o604, true), (0o400, false)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
            let keys = folder.load();
            assert_eq!(keys.exposed.load(Ordering::Relaxed), exposed, "{mode:o}");
        }
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic_or_tell_what_is_in_it(
            lines in proptest::collection::vec("[!-~]{0,60}", 0..6),
        ) {
            let text = lines.join("\n");
            if let Err(Problem::Line(line, problem)) = parse(text.as_bytes()) {
                prop_assert!(line <= lines.len());
                let word = lines[line - 1].trim();
                prop_assert!(word.len() < 8 || !problem.contains(word), "{}", problem);
            }
        }

        #[test]
        fn every_key_is_read_in_every_spelling(bytes: [u8; 32]) {
            let expected = MasterKey::new(KeyBytes::copy_of(&bytes).unwrap()).id();
            let standard = STANDARD.encode(bytes);
            let url_safe = URL_SAFE.encode(bytes);
            for text in [&standard, &url_safe] {
                for text in [text.as_str(), text.trim_end_matches('=')] {
                    prop_assert_eq!(parse(text.as_bytes()).unwrap().ids(), [expected]);
                }
            }
        }
    }
}
