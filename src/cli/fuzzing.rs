//! Body of the fuzz target for imported files.
//!
//! Whatever the form of the file, every value must arrive in the store as it was written. The target is in `.ci/fuzz`; the
//! test below runs the body over its inputs.

use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::FileFormat;
use crate::import::parse::parse;
use crate::json;

/// A file of `import`; the first byte says of which form it is.
pub fn import(data: &[u8]) {
    let Some((form, text)) = data.split_first() else { return };
    let (format, name) = match form {
        b'j' => (Some(FileFormat::Json), "-"),
        b'y' => (Some(FileFormat::Yaml), "-"),
        _ => (None, "file"),
    };
    let Ok(entries) = parse(text, format, name) else { return };
    let keys: BTreeSet<&String> = entries.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), entries.len(), "a key comes twice");
    for (_, value) in &entries {
        check(value);
    }
}

/// The compact text is the same value, and is found to be the same.
fn check(value: &RawValue) {
    let compact = json::compact(value);
    assert!(compact.len() <= value.get().len());
    let Ok(again) = serde_json::from_str::<Box<RawValue>>(&compact) else {
        panic!("compact text that is no JSON: {compact}")
    };
    // What is nested deeper is refused by every node; it is compared with nothing.
    let Ok(tree) = serde_json::from_str::<Value>(value.get()) else { return };
    assert!(json::same(value, &again), "{value} became {compact}");
    assert_eq!(serde_json::from_str(&compact).ok(), Some(tree));
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("import", super::import);
    }
}
