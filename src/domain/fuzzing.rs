//! Bodies of the fuzz targets for what arrives as bytes: values, names, commands, answers.
//!
//! Each takes any bytes, and panics when a parser breaks its word: what is accepted keeps its bounds and survives being
//! written and read again. The targets are in `.ci/fuzz`; the tests below run the bodies over its inputs.

use bytes::Bytes;

use crate::command::Command;
use crate::limits;
use crate::names::{Environment, InvalidArgument, Key, Namespace};
use crate::outcome::Applied;
use crate::overlay::Overlay;
use crate::store::{MemoryStore, digest};
use crate::value::JsonValue;

/// Most bytes of a refusal: it is sent back, and logged.
const REFUSAL_BYTES_MAX: usize = 1024;

fn check_refusal(error: &dyn std::error::Error) {
    let text = error.to_string();
    assert!(text.len() <= REFUSAL_BYTES_MAX, "a refusal of {} bytes", text.len());
}

/// [`JsonValue::parse`]: compact, bounded, and the same value to every other reader of JSON.
pub fn json_value(data: &[u8]) {
    let value = match JsonValue::parse(data) {
        Ok(value) => value,
        Err(error) => return check_refusal(&error),
    };
    assert!(value.as_bytes().len() <= data.len().min(limits::VALUE_BYTES_MAX));
    assert_eq!(JsonValue::parse(value.as_bytes()).as_ref(), Ok(&value));
    let given: Option<serde_json::Value> = serde_json::from_slice(data).ok();
    assert_eq!(given, Some(value.to_json()));
}

fn check_name<T>(parsed: Result<T, InvalidArgument>, field: &str, accepted: impl FnOnce(T)) {
    match parsed {
        Ok(name) => accepted(name),
        Err(error) => {
            assert_eq!(error.field, field);
            check_refusal(&error);
        }
    }
}

/// Namespace, key and environment.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    check_name(Namespace::parse(text), "namespace", |name| {
        assert_eq!(name.as_str(), text);
        assert!((1..=limits::NAMESPACE_BYTES_MAX).contains(&text.len()) && text.is_ascii());
        assert!(Key::parse(text).is_ok(), "a namespace that is no key");
    });
    check_name(Key::parse(text), "key", |key| {
        assert_eq!(key.as_str(), text);
        assert!((1..=limits::KEY_BYTES_MAX).contains(&text.len()));
        assert!(!text.contains('\0'), "a zero byte separates names in storage");
    });
    check_name(Environment::parse(text), "env", |environment| {
        assert_eq!(Environment::parse(environment.as_str()), Ok(environment));
        assert_eq!(Environment::from_code(environment.code()), Some(environment));
    });
}

/// [`Command::decode`], and that what it accepts can be applied: the same twice, and with an answer that can be sent.
pub fn command(data: &[u8]) {
    let command = match Command::decode(Bytes::copy_from_slice(data)) {
        Ok(command) => command,
        Err(error) => return check_refusal(&error),
    };
    let encoded = command.encode();
    assert!(encoded.len() <= command.size() && command.size() <= limits::COMMAND_BYTES_MAX);
    assert_eq!(Command::decode(encoded).as_ref(), Ok(&command));
    assert_eq!(after_twice(&command), after_twice(&command), "two nodes would differ");
}

/// Applies a command to an empty store, and once more; the state that it leads to.
fn after_twice(command: &Command) -> Option<[u8; 32]> {
    let mut store = MemoryStore::default();
    for time_ms in [1_000, 2_000] {
        let mut overlay = Overlay::new(&store);
        let applied = crate::apply(&mut overlay, time_ms, command);
        let writes = overlay.into_writes();
        let Ok((applied, changes)) = applied else {
            panic!("applying to a store in memory failed: {applied:?}")
        };
        assert_eq!(Applied::decode(applied.encode()).as_ref(), Ok(&applied));
        if applied.result.is_err() {
            assert!(writes.is_empty() && changes.is_empty(), "a refusal changed something");
        }
        store.apply_writes(writes);
    }
    digest(&store).ok()
}

/// [`Applied::decode`]: what the leader answers to a command that was passed on to it.
pub fn applied(data: &[u8]) {
    match Applied::decode(Bytes::copy_from_slice(data)) {
        Ok(applied) => assert_eq!(Applied::decode(applied.encode()).as_ref(), Ok(&applied)),
        Err(error) => check_refusal(&error),
    }
}

#[cfg(test)]
mod tests {
    use crate::replay::run;

    #[test]
    fn the_inputs_of_each_target_pass() {
        run("json_value", super::json_value);
        run("names", super::names);
        run("command", super::command);
        run("applied", super::applied);
    }
}
