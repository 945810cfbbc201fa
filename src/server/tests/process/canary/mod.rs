//! Looks for planted secrets in whatever a run leaves behind, in every spelling that they may have taken on the way.
//!
//! It finds what is written out whole: a secret that is encrypted, or cut into pieces, or compressed by something other
//! than RocksDB, it does not find.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use rocksdb::{ColumnFamilyDescriptor, DB, IteratorMode, Options};

/// Bytes read at once.
pub const PIECE_BYTES: usize = 1 << 20;
/// A shorter secret would be found where it is not.
const SECRET_BYTES_MIN: usize = 12;
/// Bytes by which the table of needles is entered.
const HEAD_BYTES: usize = 4;
/// Finds that are told; more say nothing new.
const FOUND_MAX: usize = 50;

/// Which bytes an encoder leaves as they are.
type Keep = fn(u8) -> bool;

/// One spelling of one secret.
struct Needle {
    secret: usize,
    form: String,
    bytes: Vec<u8>,
}

/// The secrets to look for.
pub struct Canaries {
    secrets: Vec<String>,
    needles: Vec<Needle>,
    by_head: HashMap<[u8; HEAD_BYTES], Vec<usize>>,
    /// Whether a needle begins with these two bytes: almost every place is passed by with one look.
    begins: Vec<bool>,
    longest: usize,
}

impl Canaries {
    pub fn new<S: AsRef<str>>(secrets: &[S]) -> Self {
        let secrets: Vec<String> = secrets.iter().map(|s| s.as_ref().to_owned()).collect();
        let mut needles = Vec::new();
        for (secret, text) in secrets.iter().enumerate() {
            assert!(text.len() >= SECRET_BYTES_MIN, "{text:?} is too short to look for");
            let mut seen = HashSet::new();
            for (form, bytes) in forms(text) {
                if seen.insert(bytes.clone()) {
                    needles.push(Needle { secret, form, bytes });
                }
            }
        }
        let mut by_head: HashMap<_, Vec<usize>> = HashMap::new();
        let mut begins = vec![false; 1 << 16];
        for (number, needle) in needles.iter().enumerate() {
            let head: [u8; HEAD_BYTES] = needle.bytes[..HEAD_BYTES].try_into().unwrap();
            by_head.entry(head).or_default().push(number);
            begins[pair(&needle.bytes)] = true;
        }
        let longest = needles.iter().map(|needle| needle.bytes.len()).max().unwrap_or_default();
        assert!(longest > 0, "there is nothing to look for");
        Self { secrets, needles, by_head, begins, longest }
    }

    /// A look at several things, to be ended with [`Scan::assert_clean`].
    pub fn scan(&self) -> Scan<'_> {
        Scan { canaries: self, files: 0, bytes: 0, records: 0, found: Vec::new() }
    }

    /// Where needles begin in these bytes, and which.
    fn matches(&self, bytes: &[u8], mut tell: impl FnMut(usize, &Needle)) {
        for (at, head) in bytes.windows(HEAD_BYTES).enumerate() {
            if !self.begins[pair(head)] {
                continue;
            }
            let Some(numbers) = self.by_head.get(head) else { continue };
            for needle in numbers.iter().map(|number| &self.needles[*number]) {
                if bytes[at..].starts_with(&needle.bytes) {
                    tell(at, needle);
                }
            }
        }
    }
}

fn pair(bytes: &[u8]) -> usize {
    usize::from(bytes[0]) << 8 | usize::from(bytes[1])
}

/// A secret that should not be where it is.
pub struct Found {
    pub secret: String,
    pub form: String,
    pub place: String,
    pub offset: u64,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { secret, form, place, offset } = self;
        write!(f, "{secret:?} as {form} in {place}, byte {offset}")
    }
}

/// What was looked at, and what was found.
pub struct Scan<'a> {
    canaries: &'a Canaries,
    pub files: usize,
    pub bytes: u64,
    /// Keys and values of databases.
    pub records: u64,
    pub found: Vec<Found>,
}

impl Scan<'_> {
    /// Fails when something was found, and when nothing was looked at.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.bytes > 0, "nothing was looked at");
        assert!(self.found.is_empty(), "{:#?}", self.found);
    }

    /// Bytes such as an answer.
    pub fn bytes(&mut self, place: &str, bytes: &[u8]) {
        self.read(place, bytes).unwrap();
    }

    pub fn file(&mut self, path: &Path) {
        let place = path.display().to_string();
        let file = File::open(path).unwrap_or_else(|error| panic!("{place}: {error}"));
        self.read(&place, file).unwrap_or_else(|error| panic!("{place}: {error}"));
        self.files += 1;
    }

    /// All files below a folder, and their names. Links are not followed. What vanishes meanwhile is passed over, so that
    /// a node may be running.
    pub fn folder(&mut self, folder: &Path) {
        assert!(folder.is_dir(), "{} is no folder", folder.display());
        self.walk(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    }

    fn walk(&mut self, folder: &Path) -> io::Result<()> {
        let Some(entries) = unless_gone(fs::read_dir(folder))? else { return Ok(()) };
        for entry in entries {
            let Some(entry) = unless_gone(entry)? else { continue };
            let path = entry.path();
            let place = path.display().to_string();
            self.bytes(&format!("the name of {place}"), entry.file_name().as_bytes());
            let Some(kind) = unless_gone(entry.file_type())? else { continue };
            if kind.is_dir() {
                self.walk(&path)?;
            } else if kind.is_symlink() {
                if let Some(target) = unless_gone(fs::read_link(&path))? {
                    self.bytes(&format!("the link {place}"), target.as_os_str().as_bytes());
                }
            } else if kind.is_file()
                && let Some(file) = unless_gone(File::open(&path))?
            {
                self.read(&place, file)?;
                self.files += 1;
            }
        }
        Ok(())
    }

    /// Every RocksDB database below a folder, see [`Scan::database`]. Gives their number.
    pub fn databases(&mut self, folder: &Path) -> usize {
        let mut count = 0;
        if folder.join("CURRENT").is_file() {
            self.database(folder);
            count += 1;
        }
        let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries.map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                count += self.databases(&entry.path());
            }
        }
        count
    }

    /// All keys and values of a database that nobody has open, its write-ahead log included, because a compressed table
    /// need not show what is in it. Then every table by itself, which brings back what newer tables cover up. Works on
    /// a copy.
    pub fn database(&mut self, folder: &Path) {
        let place = folder.display().to_string();
        let copy = copy_of(folder, |_| true);
        self.records_of(&place, copy.path());
        let tables = fs::read_dir(copy.path()).unwrap().map(|entry| entry.unwrap().file_name());
        for table in tables.filter(|name| name.as_bytes().ends_with(b".sst")) {
            let alone = copy_of(copy.path(), |name| name == table);
            DB::repair(&Options::default(), alone.path())
                .unwrap_or_else(|error| panic!("{place}, {}: {error}", table.display()));
            self.records_of(&format!("{place}, {}", table.display()), alone.path());
        }
    }

    fn records_of(&mut self, place: &str, folder: &Path) {
        let failed = |error: rocksdb::Error| -> ! { panic!("{place}: {error}") };
        let options = Options::default();
        let names = DB::list_cf(&options, folder).unwrap_or_else(|error| failed(error));
        let families = names.iter().map(|n| ColumnFamilyDescriptor::new(n, Options::default()));
        let db = DB::open_cf_descriptors_read_only(&options, folder, families, false)
            .unwrap_or_else(|error| failed(error));
        for name in &names {
            let family = db.cf_handle(name).unwrap();
            for record in db.iterator_cf(family, IteratorMode::Start) {
                let (key, value) = record.unwrap_or_else(|error| failed(error));
                let place = format!("{place}, family {name}, ");
                self.bytes(&(place.clone() + "key"), &key);
                self.bytes(&format!("{place}value of {:?}", String::from_utf8_lossy(&key)), &value);
                self.records += 1;
            }
        }
    }

    /// Piece by piece, with as much of the last piece before each as a needle can have begun in.
    fn read(&mut self, place: &str, mut from: impl Read) -> io::Result<()> {
        let canaries = self.canaries;
        let overlap = canaries.longest - 1;
        let mut window = Vec::new();
        // Where the window begins, and how much of it was looked at before.
        let (mut begin, mut seen) = (0, 0);
        loop {
            let read = from.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut window)?;
            if read == 0 {
                return Ok(());
            }
            self.bytes += read as u64;
            canaries.matches(&window, |at, needle| {
                if at + needle.bytes.len() > seen && self.found.len() < FOUND_MAX {
                    self.found.push(Found {
                        secret: canaries.secrets[needle.secret].clone(),
                        form: needle.form.clone(),
                        place: place.to_owned(),
                        offset: begin + at as u64,
                    });
                }
            });
            let done = window.len() - overlap.min(window.len());
            window.drain(..done);
            begin += done as u64;
            seen = window.len();
        }
    }
}

fn unless_gone<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A copy of the files of a database that are wanted; locks are not.
fn copy_of(folder: &Path, wanted: impl Fn(&std::ffi::OsStr) -> bool) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name();
        if entry.file_type().unwrap().is_file() && name != "LOCK" && wanted(&name) {
            fs::copy(entry.path(), copy.path().join(name)).unwrap();
        }
    }
    copy
}

/// The secret as a text, in every way that texts are written, and each of those in every way that bytes are.
fn forms(secret: &str) -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for (name, text) in texts(secret) {
        let mut add = |form: &str, bytes: Vec<u8>| {
            let form = if form.is_empty() { name.to_owned() } else { format!("{form} of {name}") };
            // A piece of base64 from which the ends are cut may be shorter than the rest.
            assert!(bytes.len() >= HEAD_BYTES, "{form} is too short to look for");
            forms.push((form, bytes));
        };
        let bytes = text.as_bytes();
        add("", bytes.to_vec());
        for lead in 0..3 {
            add(&format!("base64 {lead}"), base64_inside(&STANDARD_NO_PAD, bytes, lead));
            add(&format!("url-safe base64 {lead}"), base64_inside(&URL_SAFE_NO_PAD, bytes, lead));
        }
        add("hex", each(bytes, "", |byte| format!("{byte:02x}")));
        add("upper-case hex", each(bytes, "", |byte| format!("{byte:02X}")));
        add("list of bytes", each(bytes, ", ", |byte| byte.to_string()));
        add("tight list of bytes", each(bytes, ",", |byte| byte.to_string()));
        add("UTF-16 LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect());
        add("UTF-16 BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect());
    }
    forms
}

fn each(bytes: &[u8], between: &str, write: impl Fn(u8) -> String) -> Vec<u8> {
    bytes.iter().map(|byte| write(*byte)).collect::<Vec<_>>().join(between).into_bytes()
}

/// The symbols that depend on the secret alone when that many bytes (or three more, or six) stand before it.
fn base64_inside(engine: &GeneralPurpose, bytes: &[u8], lead: usize) -> Vec<u8> {
    let led = [&[0; 2][..lead], bytes].concat();
    let from = (lead * 8).div_ceil(6);
    let to = led.len() * 8 / 6;
    engine.encode(&led).as_bytes()[from..to].to_vec()
}

fn texts(secret: &str) -> Vec<(&'static str, String)> {
    let json = json(secret);
    let ascii = |upper| escape(&json, |c| !c.is_ascii(), upper);
    // As some libraries do it, so that JSON can stand in HTML.
    let html = |c: char| matches!(c, '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    let mut texts = vec![
        ("the text", secret.to_owned()),
        ("JSON", json.clone()),
        ("JSON in JSON", self::json(&json)),
        ("JSON with escaped slashes", json.replace('/', "\\/")),
        ("ASCII JSON", ascii(false)),
        ("upper-case ASCII JSON", ascii(true)),
        ("JSON for HTML", escape(&json, html, false)),
        ("upper-case JSON for HTML", escape(&json, html, true)),
        ("escaped JSON", escape(secret, |_| true, false)),
        ("upper-case escaped JSON", escape(secret, |_| true, true)),
        ("Rust's Debug", secret.escape_debug().to_string()),
        ("Rust's escape_ascii", secret.as_bytes().escape_ascii().to_string()),
    ];
    let keep: [(&str, &str, Keep); 3] = [
        ("percent-encoding", "upper-case percent-encoding", |byte| {
            byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
        }),
        ("strict percent-encoding", "upper-case strict percent-encoding", |byte| {
            byte.is_ascii_alphanumeric()
        }),
        ("whole percent-encoding", "upper-case whole percent-encoding", |_| false),
    ];
    for (lower, upper, keep) in keep {
        texts.push((lower, percent(secret, keep, false)));
        texts.push((upper, percent(secret, keep, true)));
    }
    let form = |byte: u8| byte.is_ascii_alphanumeric() || b"*-._ ".contains(&byte);
    texts.push(("form encoding", percent(secret, form, true).replace(' ', "+")));
    // Lenient encoders leave what may stand in a path or a query.
    let path = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?".contains(&byte);
    texts.push(("lenient percent-encoding", percent(secret, path, true)));
    texts
}

/// What stands between the quotes.
fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    quoted[1..quoted.len() - 1].to_owned()
}

/// `\uXXXX` for some of the characters, in pairs where one is not enough.
fn escape(text: &str, escaped: impl Fn(char) -> bool, upper: bool) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !escaped(c) {
            out.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            let hex = if upper { format!("{unit:04X}") } else { format!("{unit:04x}") };
            out.push_str("\\u");
            out.push_str(&hex);
        }
    }
    out
}

fn percent(text: &str, keep: impl Fn(u8) -> bool, upper: bool) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if keep(byte) {
            out.push(char::from(byte));
            continue;
        }
        let hex = if upper { format!("{byte:02X}") } else { format!("{byte:02x}") };
        out.push('%');
        out.push_str(&hex);
    }
    out
}
