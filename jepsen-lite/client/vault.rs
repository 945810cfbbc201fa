//! What must not get out: the plaintexts of secrets, and the texts of tokens. A history knows both by their names.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jepsen_lite::history::{self, Answer, Entry, MASK, TxnResult, Value};
use rand::SeedableRng as _;
use rand::distr::{Alphanumeric, SampleString as _};
use rand::rngs::StdRng;

use crate::lab::ADMINISTRATOR;

const MARK_CHARS: usize = 24;
/// What other programs spell differently.
const TAIL: &str = "/\"<ü🦀>+\n";

/// A token, to be shown with every call.
#[derive(Clone)]
pub struct Badge {
    name: Option<String>,
    id: String,
    text: Arc<str>,
}

impl fmt::Debug for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Badge").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Badge {
    /// The token that the cluster was founded with.
    #[must_use]
    pub fn administrator() -> Self {
        Self { name: None, id: String::new(), text: ADMINISTRATOR.into() }
    }

    /// Its name in a history; the administrator has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its id in the store.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// The secrets of a run.
pub struct Vault {
    /// What every plaintext begins with, and nothing else in the world has.
    mark: String,
    badges: Mutex<HashMap<String, Badge>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault")
    }
}

impl Vault {
    /// The secrets of the run with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed ^ 0x005e_c4e7);
        let mark = Alphanumeric.sample_string(&mut chance, MARK_CHARS);
        Self { mark, badges: Mutex::default() }
    }

    /// What is sent for a value: its JSON, and whether it is a secret.
    #[must_use]
    pub fn sent(&self, value: &Value) -> (String, Option<bool>) {
        match history::secret_name(value) {
            Some(name) => {
                (Value::from(format!("{}:{name}{TAIL}", self.mark)).to_string(), Some(true))
            }
            None => (value.to_string(), None),
        }
    }

    /// Puts names in the place of plaintexts.
    pub fn hide(&self, answer: &mut Answer, reveal: bool) {
        let entry = |entry: &mut Entry| {
            if let Some(value) = &mut entry.value {
                self.hide_value(value, reveal);
            }
        };
        match answer {
            Answer::Entry { entry: Some(found) } => entry(found),
            Answer::Written { value: Some(value), .. } => self.hide_value(value, reveal),
            Answer::Txn { results, .. } => {
                for result in results {
                    if let TxnResult::Got { entry: Some(got) } = result {
                        entry(got);
                    }
                }
            }
            Answer::Entries { entries } | Answer::Events { events: entries, .. } => {
                entries.iter_mut().for_each(|keyed| entry(&mut keyed.entry));
            }
            Answer::Versions { versions } => versions.iter_mut().for_each(entry),
            Answer::Entry { entry: None }
            | Answer::Written { value: None, .. }
            | Answer::Conflict { .. }
            | Answer::Compacted { .. }
            | Answer::Audit { .. }
            | Answer::Chain { .. }
            | Answer::Members { .. } => {}
        }
    }

    fn hide_value(&self, value: &mut Value, reveal: bool) {
        let Some(text) = value.as_str() else { return };
        let Some(rest) = text.strip_prefix(&self.mark) else {
            // Something that is no secret of this run, in the place of one.
            if reveal && text != MASK {
                *value = history::secret(&format!("{} bytes that nobody sealed", text.len()));
            }
            return;
        };
        let name = rest.strip_prefix(':').and_then(|rest| rest.strip_suffix(TAIL));
        let name = name.unwrap_or("a damaged one");
        *value = if reveal { history::secret(name) } else { history::shown(name) };
    }

    /// Keeps a token that was made.
    pub fn keep(&self, name: &str, id: String, text: &str) {
        let badge = Badge { name: Some(name.to_owned()), id, text: text.into() };
        let mut badges = self.badges.lock().unwrap_or_else(PoisonError::into_inner);
        badges.insert(name.to_owned(), badge);
    }

    /// A token by its name.
    #[must_use]
    pub fn badge(&self, name: &str) -> Option<Badge> {
        self.badges.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What must be found nowhere: what every plaintext begins with, and each token.
    #[must_use]
    pub fn hidden(&self) -> Vec<String> {
        let badges = self.badges.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = badges.values().map(|badge| badge.text.to_string());
        tokens.chain([self.mark.clone(), ADMINISTRATOR.to_owned()]).collect()
    }
}
