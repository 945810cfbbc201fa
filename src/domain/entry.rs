//! An entry as readers see it, and a change as watchers see it. Plain data, no rules.

use std::sync::Arc;

use crate::names::Address;
use crate::sealed::Value;

/// One version of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub address: Address,
    /// Counts 1, 2, 3… per address and goes on after a delete.
    pub version: u64,
    /// The cluster-wide number of the change that made this version.
    pub revision: u64,
    /// None: this version is a deletion.
    pub value: Option<Value>,
    /// When the entry came to be: its first version since it last did not exist.
    pub created_at_ms: u64,
    /// Who made that first version.
    pub created_by: String,
    /// When this version was made.
    pub updated_at_ms: u64,
    /// Who made this version.
    pub updated_by: String,
    /// What the entry is for.
    pub description: String,
    /// Free labels.
    pub tags: Vec<String>,
    /// Why this change was made.
    pub comment: String,
}

impl Entry {
    /// Whether this version is a deletion.
    pub fn deleted(&self) -> bool {
        self.value.is_none()
    }

    /// Whether this version is a secret.
    pub fn is_secret(&self) -> bool {
        self.value.as_ref().is_some_and(Value::is_secret)
    }

    /// Bytes this entry takes up, roughly: what page sizes and caches count.
    pub fn size(&self) -> usize {
        let value = self.value.as_ref().map_or(0, Value::size);
        let names = self.address.namespace.as_str().len() + self.address.key.as_str().len();
        let people = self.created_by.len() + self.updated_by.len();
        let words = self.description.len()
            + self.comment.len()
            + self.tags.iter().map(String::len).sum::<usize>();
        size_of::<Self>() + value + names + people + words
    }
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The entry has a value now.
    Set,
    /// The entry is gone.
    Delete,
}

/// One change of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The version it made. Shared: answers, caches and watchers all want it.
    pub entry: Arc<Entry>,
}

impl Change {
    /// The change that made this version.
    pub fn of(entry: impl Into<Arc<Entry>>) -> Self {
        let entry = entry.into();
        let kind = if entry.deleted() { ChangeKind::Delete } else { ChangeKind::Set };
        Self { kind, entry }
    }
}
