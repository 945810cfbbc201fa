//! Bodies of the fuzz targets for files: imported ones, transactions, those of contexts and baselines, logs, what comes
//! from an editor; and for what Prometheus, Alertmanager and the metrics pages of nodes answer.
//!
//! Whatever the form of a file, every value must arrive in the store as it was written. The targets are in `.ci/fuzz`; the
//! tests below run the bodies over their inputs.

use std::collections::BTreeSet;

use llm_config_client::v1::txn_op::Op;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::args::FileFormat;
use crate::baseline::file::Baselines;
use crate::contexts::file::File;
use crate::document::parse;
use crate::exposition::Page;
use crate::json::{self, Tree};
use crate::ops;
use crate::prometheus;
use crate::txn::{self, Defaults};
use crate::yaml;

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

/// A document of `txn`, and a schema: the first byte says of which form.
pub fn transaction(data: &[u8]) {
    let Some((form, text)) = data.split_first() else { return };
    let format = match form {
        b'j' => Some(FileFormat::Json),
        b'y' => Some(FileFormat::Yaml),
        _ => None,
    };
    let defaults = Defaults { environment: "base", comment: "why" };
    let Ok(request) = txn::read(text, format, "-", defaults) else { return };
    for op in request.success.iter().chain(&request.failure) {
        if let Some(Op::Set(set)) = &op.op {
            let value = serde_json::from_slice::<&RawValue>(&set.value);
            assert!(value.is_ok(), "a value that is no JSON: {:?}", set.value);
        }
    }
}

/// The file of contexts: what is accepted is written so that it reads back the same.
pub fn contexts(data: &[u8]) {
    let Ok(file) = File::parse(data) else { return };
    let written = serde_json::value::to_raw_value(&file).map(|raw| yaml::write(&raw));
    let Ok(written) = written else { panic!("what was read cannot be written: {file:?}") };
    match File::parse(written.as_bytes()) {
        Ok(again) => assert_eq!(again, file, "{written}"),
        Err(error) => panic!("what was written cannot be read: {error:#}: {written}"),
    }
}

/// A JSON value as YAML and back, with every number as it was written; or a YAML document to JSON.
pub fn yaml_value(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(value) = serde_json::from_str::<&RawValue>(text)
        && let Some(tree) = Tree::of(value)
    {
        let written = yaml::write(value);
        match yaml::read(&written) {
            Ok(again) => assert_eq!(again.compact(), tree.compact(), "{written}"),
            // A parser's bound on nesting, and objects that have a member twice.
            Err(_) if has_twice(&tree) || depth(&tree) > 60 => {}
            Err(error) => panic!("{error:#}: {written}"),
        }
    }
    if let Ok(tree) = yaml::read(text) {
        let compact = tree.compact();
        assert!(serde_json::from_str::<&RawValue>(&compact).is_ok(), "no JSON: {compact}");
    }
}

fn has_twice(tree: &Tree) -> bool {
    match tree {
        Tree::Object(members) => {
            let names: BTreeSet<&String> = members.iter().map(|(name, _)| name).collect();
            names.len() < members.len() || members.iter().any(|(_, value)| has_twice(value))
        }
        Tree::Array(items) => items.iter().any(has_twice),
        Tree::Plain(_) | Tree::String(_) => false,
    }
}

fn depth(tree: &Tree) -> usize {
    1 + match tree {
        Tree::Object(members) => members.iter().map(|(_, value)| depth(value)).max().unwrap_or(0),
        Tree::Array(items) => items.iter().map(depth).max().unwrap_or(0),
        Tree::Plain(_) | Tree::String(_) => 0,
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
    let pretty = json::pretty(value);
    assert_eq!(serde_json::from_str(&pretty).ok(), Some(tree.clone()), "{pretty}");
    assert_eq!(serde_json::from_str(&compact).ok(), Some(tree));
}

/// An answer of Prometheus.
pub fn prometheus_answer(data: &[u8]) {
    drop(prometheus::read(data));
}

/// An answer of Alertmanager.
pub fn alertmanager_answer(data: &[u8]) {
    drop(ops::read_alertmanager(data));
}

/// A metrics page: what is read can be found again under its name.
pub fn metrics_page(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(page) = Page::read(text) else { return };
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let name = line.split(['{', ' ', '\t']).next().unwrap_or_default();
        assert!(page.of(name).next().is_some(), "{line:?} was read, and is not there");
    }
}

/// A file of baselines: what is accepted is written so that it reads back the same.
pub fn baseline_file(data: &[u8]) {
    let Ok(file) = Baselines::parse(data) else { return };
    let written = file.yaml();
    match Baselines::parse(written.as_bytes()) {
        Ok(again) => assert_eq!(again, file, "{written}"),
        Err(error) => panic!("what was written cannot be read: {error:#}: {written}"),
    }
}

/// A log: no more errors than lines, and none of what is older.
pub fn log_lines(data: &[u8]) {
    let Ok(counted) = ops::count_log_lines(data, 0) else { return };
    let lines = data.split(|byte| *byte == b'\n').count() as u64;
    assert!(counted.errors <= counted.recent && counted.recent <= counted.lines);
    assert!(counted.lines <= lines, "{counted:?} of {lines} lines");
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_targets_pass() {
        crate::replay::run("import", super::import);
        crate::replay::run("transaction", super::transaction);
        crate::replay::run("contexts", super::contexts);
        crate::replay::run("yaml_value", super::yaml_value);
        crate::replay::run("prometheus_answer", super::prometheus_answer);
        crate::replay::run("alertmanager_answer", super::alertmanager_answer);
        crate::replay::run("metrics_page", super::metrics_page);
        crate::replay::run("baseline_file", super::baseline_file);
        crate::replay::run("log_lines", super::log_lines);
    }
}
