//! What an import has to write: the entries whose value is not already there.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::parse::Entries;
use crate::json;

/// One entry to write; the value is compact JSON text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) key: String,
    pub(super) value: String,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) writes: Vec<Write>,
    pub(super) unchanged: usize,
}

pub(super) fn plan(wanted: Entries, existing: &BTreeMap<String, Box<RawValue>>) -> Plan {
    let count = wanted.len();
    let writes: Vec<Write> = wanted
        .into_iter()
        .filter(|(key, value)| existing.get(key).is_none_or(|current| !json::same(current, value)))
        .map(|(key, value)| Write { value: json::compact(&value), key })
        .collect();
    Plan { unchanged: count - writes.len(), writes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn only_what_differs_is_written() {
        let existing =
            [("same", "{\"a\":1,\"b\":2}"), ("other", "1"), ("not-in-file", "1"), ("text", "1.0")]
                .map(|(key, value)| (key.to_owned(), raw(value)))
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
}
