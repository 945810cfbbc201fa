//! What a client shows to be let in: a token, as a text or in a file that may change while the client runs.
//!
//! The text goes into the metadata of each call and nowhere else: no error, no `Debug`, no log has it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tonic::metadata::{Ascii, MetadataValue};

use crate::error::Error;

/// How often the file is looked at, at most.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a node that does not know a token yet gets to hear of it.
const NEWS_TIME: Duration = Duration::from_millis(500);
/// Longer than any token that a node looks at.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// A token; see [`Options::token`](crate::Options::token) and [`Options::token_file`](crate::Options::token_file).
#[derive(Clone)]
pub struct Token(Source);

#[derive(Clone)]
enum Source {
    Text(String),
    File(PathBuf),
}

impl Token {
    pub(crate) fn text(text: String) -> Self {
        Self(Source::Text(text))
    }

    pub(crate) fn file(path: PathBuf) -> Self {
        Self(Source::File(path))
    }
}

/// Without the text.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Text(_) => f.write_str("Token(..)"),
            Source::File(path) => write!(f, "Token(in {})", path.display()),
        }
    }
}

/// The value of `authorization`, which does not show itself, and the how-manieth it is.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) value: MetadataValue<Ascii>,
    generation: u64,
}

/// What becomes of a call that was refused as not authenticated.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// There is nothing else to show.
    No,
    /// There is another token by now, or the node may hear of this one: after this time.
    After(Duration),
}

/// Shows the token, and keeps up with its file.
pub(crate) struct Bearer {
    source: Source,
    state: Mutex<State>,
}

struct State {
    shown: Shown,
    /// Of the file, by when it was read.
    stamp: Option<Stamp>,
    looked: Instant,
    /// The token was accepted once, or has had its second chance.
    settled: bool,
}

/// Tells that a file was written, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
}

impl Bearer {
    pub(crate) fn new(token: &Token) -> Result<Self, Error> {
        let (value, stamp) = match &token.0 {
            Source::Text(text) => (header(text).map_err(invalid)?, None),
            Source::File(path) => {
                let (value, stamp) = read(path).map_err(invalid)?;
                (value, Some(stamp))
            }
        };
        let state = State {
            shown: Shown { value, generation: 0 },
            stamp,
            looked: Instant::now(),
            settled: false,
        };
        Ok(Self { source: token.0.clone(), state: Mutex::new(state) })
    }

    /// What to show now.
    pub(crate) fn shown(&self) -> Shown {
        let mut state = self.lock();
        // A look at a small local file, once a second at most: not worth a thread.
        if let Source::File(path) = &self.source
            && state.looked.elapsed() >= LOOK_INTERVAL
        {
            state.looked = Instant::now();
            if stamp(path).ok() != state.stamp {
                state.reread(path);
            }
        }
        state.shown.clone()
    }

    /// The token was accepted.
    pub(crate) fn accepted(&self, shown: &Shown) {
        let mut state = self.lock();
        if state.shown.generation == shown.generation {
            state.settled = true;
        }
    }

    /// The token was refused. It is tried again when the file has another one by now; and once in its life when no node
    /// has accepted it yet, because the one that was asked may not have heard of it. More would look like guessing.
    pub(crate) fn refused(&self, shown: &Shown) -> Again {
        let mut state = self.lock();
        if let Source::File(path) = &self.source {
            state.reread(path);
        }
        if state.shown.generation != shown.generation {
            return Again::After(Duration::ZERO);
        }
        if std::mem::replace(&mut state.settled, true) {
            return Again::No;
        }
        Again::After(NEWS_TIME)
    }

    /// Whether there is another token than this one by now.
    pub(crate) fn has_other_than(&self, shown: &Shown) -> bool {
        let mut state = self.lock();
        if let Source::File(path) = &self.source {
            state.reread(path);
        }
        state.shown.generation != shown.generation
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; a poisoned state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A file that cannot be used, as while it is being replaced, leaves the token that was in it before.
    fn reread(&mut self, path: &Path) {
        let Ok((value, stamp)) = read(path) else { return };
        self.stamp = Some(stamp);
        if self.shown.value != value {
            self.shown = Shown { value, generation: self.shown.generation.wrapping_add(1) };
            self.settled = false;
        }
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bearer").field(&Token(self.source.clone())).finish()
    }
}

fn invalid(reason: String) -> Error {
    Error::InvalidToken { reason }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = std::fs::metadata(path)?;
    Ok(Stamp { modified: metadata.modified().ok(), bytes: metadata.len() })
}

/// Stamped before it is read: what is written in between is read again.
fn read(path: &Path) -> Result<(MetadataValue<Ascii>, Stamp), String> {
    let shown = path.display();
    let unreadable = |error: std::io::Error| format!("{shown}: {error}");
    let stamp = stamp(path).map_err(unreadable)?;
    if stamp.bytes > FILE_BYTES_MAX {
        return Err(format!("{shown} has {} bytes, which no token has", stamp.bytes));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let value = header(text.trim()).map_err(|reason| format!("{shown}: {reason}"))?;
    Ok((value, stamp))
}

fn header(text: &str) -> Result<MetadataValue<Ascii>, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("it is not one word of printable characters".to_owned());
    }
    let value = MetadataValue::try_from(format!("Bearer {text}"));
    let mut value = value.map_err(|_| "it does not fit into a header".to_owned())?;
    // Kept out of the tables that compress headers, and out of every `Debug`.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shown: &Shown) -> String {
        shown.value.to_str().unwrap().to_owned()
    }

    #[test]
    fn nothing_shows_the_text() {
        let token = Token::text("lcm_secret".to_owned());
        let bearer = Bearer::new(&token).unwrap();
        let shown = format!("{token:?} {bearer:?} {:?}", bearer.shown().value);
        assert!(!shown.contains("secret"), "{shown}");
        let options = format!("{:?}", crate::Options::default().token("lcm_secret"));
        assert!(!options.contains("secret"), "{options}");
    }

    #[test]
    fn a_token_is_one_word() {
        for bad in ["", " ", "a b", "a\nb", "ü", "a\u{7}"] {
            let error = Bearer::new(&Token::text(bad.to_owned())).unwrap_err();
            assert!(matches!(error, Error::InvalidToken { .. }), "{bad:?}: {error}");
            assert!(bad.trim().is_empty() || !error.to_string().contains(bad), "{error}");
        }
        let bearer = Bearer::new(&Token::text("abc".to_owned())).unwrap();
        assert_eq!(text(&bearer.shown()), "Bearer abc");
    }

    #[test]
    fn a_new_token_gets_one_more_chance_and_an_accepted_one_none() {
        let bearer = Bearer::new(&Token::text("abc".to_owned())).unwrap();
        let shown = bearer.shown();
        assert_eq!(bearer.refused(&shown), Again::After(NEWS_TIME));
        assert_eq!(bearer.refused(&shown), Again::No);

        let bearer = Bearer::new(&Token::text("abc".to_owned())).unwrap();
        bearer.accepted(&shown);
        assert_eq!(bearer.refused(&shown), Again::No);
    }

    #[test]
    fn a_file_that_changed_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").unwrap();
        let bearer = Bearer::new(&Token::file(path.clone())).unwrap();
        let first = bearer.shown();
        assert_eq!(text(&first), "Bearer one");
        bearer.accepted(&first);
        assert_eq!(bearer.refused(&first), Again::No);

        std::fs::write(&path, "two").unwrap();
        assert!(bearer.has_other_than(&first));
        assert_eq!(bearer.refused(&first), Again::After(Duration::ZERO));
        let second = bearer.shown();
        assert_eq!(text(&second), "Bearer two");
        assert_eq!(bearer.refused(&second), Again::After(NEWS_TIME), "it is a new one");

        for unusable in ["", "not a token"] {
            std::fs::write(&path, unusable).unwrap();
            assert!(!bearer.has_other_than(&second));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(text(&bearer.shown()), "Bearer two");
    }

    #[test]
    fn a_file_that_changed_is_seen_without_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "one").unwrap();
        let bearer = Bearer::new(&Token::file(path.clone())).unwrap();
        std::fs::write(&path, "another").unwrap();
        bearer.lock().looked -= LOOK_INTERVAL;
        assert_eq!(text(&bearer.shown()), "Bearer another");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let error = Bearer::new(&Token::file("/nowhere/token".into())).unwrap_err().to_string();
        assert!(error.contains("/nowhere/token"), "{error}");
    }
}
