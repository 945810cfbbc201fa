//! Every fuzz target is whole: it is in the manifest, has inputs, and is run by a test of the crate that its body is in.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeSet;
use std::path::Path;

use llm_config_policy::{root, rust_files};

/// The names in a folder, without `ending`.
fn names(dir: &str, ending: &str) -> BTreeSet<String> {
    let dir = root().join(dir);
    let entries = std::fs::read_dir(&dir).expect("readable folder");
    entries
        .map(|entry| entry.expect("readable folder").file_name().to_string_lossy().into_owned())
        .map(|name| name.trim_end_matches(ending).to_owned())
        .collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn every_target_is_built_has_inputs_and_is_tested() {
    let targets = names(".ci/fuzz/targets", ".rs");
    assert!(targets.len() > 20, "the targets are missing: {targets:?}");
    let manifest = text(&root().join(".ci/fuzz/Cargo.toml"));
    let built: BTreeSet<String> = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"targets/")?.strip_suffix(".rs\""))
        .map(str::to_owned)
        .collect();
    assert_eq!(targets, built, "targets and the [[bin]] sections of .ci/fuzz/Cargo.toml");
    assert_eq!(targets, names(".ci/fuzz/corpus", ""), "targets and folders of inputs");
    let sources = rust_files(&root().join("src")).expect("readable sources");
    let sources: Vec<String> = sources.iter().map(|path| text(path)).collect();
    for target in targets {
        let call = format!("run(\"{target}\", ");
        assert!(sources.iter().any(|source| source.contains(&call)), "no test runs `{target}`");
    }
}
