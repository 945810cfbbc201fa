//! What an import has to write: the entries whose value is not already there.
//!
//! Whether a secret has a value already cannot be told, so it is written each time. Where the file has the mask that is
//! shown instead of a secret, nothing is: that is no value that anybody wanted.

use std::collections::BTreeMap;

use super::parse::Entries;
use crate::export::Current;
use crate::json;

/// What is shown instead of a secret.
const MASK: &str = "\"********\"";

/// One entry to write; the value is compact JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) writes: Vec<Write>,
    pub(super) unchanged: usize,
    /// Secrets that are masked in the file, and stay what they are.
    pub(super) masked: usize,
    /// Keys that are masked in the file, and are no secrets here: what belongs there is not known.
    pub(super) unknown: Vec<String>,
}

pub(super) fn plan(wanted: Entries, existing: &BTreeMap<String, Current>) -> Plan {
    let mut plan = Plan::default();
    for (key, value) in wanted {
        let current = existing.get(&key);
        if value.get() == MASK {
            match current {
                Some(Current { secret: true, .. }) => plan.masked += 1,
                _ => plan.unknown.push(key),
            }
            continue;
        }
        let there =
            current.is_some_and(|current| !current.secret && json::same(&current.value, &value));
        if there {
            plan.unchanged += 1;
        } else {
            plan.writes.push(Write { value: json::compact(&value), key });
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    fn there(text: &str, secret: bool) -> Current {
        Current { value: raw(text), secret }
    }

    #[test]
    fn only_what_differs_is_written() {
        let existing =
            [("same", "{\"a\":1,\"b\":2}"), ("other", "1"), ("not-in-file", "1"), ("text", "1.0")]
                .map(|(key, value)| (key.to_owned(), there(value, false)))
                .into();
        let wanted = [
            ("same", "{ \"b\": 2, \"a\": 1 }"),
            ("other", "2"),
            ("new", "[ 1 ]"),
            ("text", "1.00"),
        ]
        .map(|(key, value)| (key.to_owned(), raw(value)))
        .into();
        let plan = plan(wanted, &existing);
        let written: Vec<(&str, &str)> =
            plan.writes.iter().map(|w| (w.key.as_str(), w.value.as_str())).collect();
        assert_eq!(written, [("other", "2"), ("new", "[1]"), ("text", "1.00")]);
        assert_eq!(plan.unchanged, 1);
    }

    #[test]
    fn a_mask_is_never_written() {
        let existing = [("secret", there(MASK, true)), ("plain", there("1", false))]
            .map(|(key, current)| (key.to_owned(), current))
            .into();
        let wanted = ["secret", "plain", "absent"].map(|key| (key.to_owned(), raw(MASK))).into();
        let plan = plan(wanted, &existing);
        assert!(plan.writes.is_empty(), "{plan:?}");
        assert_eq!((plan.masked, plan.unchanged), (1, 0));
        assert_eq!(plan.unknown, ["plain", "absent"]);
    }

    #[test]
    fn a_secret_is_always_written() {
        let existing = [("secret".to_owned(), there(MASK, true))].into();
        let plan = plan(vec![("secret".to_owned(), raw("\"new\""))], &existing);
        assert_eq!(plan.writes.len(), 1);
    }
}
