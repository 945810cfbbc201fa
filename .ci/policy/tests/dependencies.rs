//! Which crates may be in the build: licences, sources, bans, duplicates and pins.
//!
//! Known security advisories are not checked here: that takes a database from the network. `make deny` looks for them, with
//! the rules of `deny.toml`, which are held to these.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};

use llm_config_policy::graph::Graph;
use llm_config_policy::{licence, root};

const ACCEPTED_LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that must not come in, directly or through another, and what to use.
const BANNED: &[(&str, &str)] = &[
    ("backoff", "unmaintained: a loop with rand's jitter is ten lines"),
    ("bincode", "unmaintained, and no format for bytes that outlive a release: use prost"),
    ("failure", "unmaintained: use thiserror"),
    ("native-tls", "one TLS stack without system libraries: use rustls"),
    ("openssl", "one TLS stack without system libraries: use rustls"),
    ("openssl-sys", "one TLS stack without system libraries: use rustls"),
    (
        "protobuf",
        "one protobuf library: use prost; prometheus without its default features needs none",
    ),
    ("ring", "one library for cryptography: aws-lc-rs"),
    ("serde_yaml", "unmaintained: use serde-saphyr"),
    ("sled", "one storage engine: RocksDB"),
    ("structopt", "superseded: use clap"),
    ("zstd-sys", "LZ4 is the one compression that is compiled in"),
];

/// Crates of which a second version would mean two types by one name, or two copies of the longest compile.
const ONE_VERSION: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "axum",
    "bytes",
    "clap",
    "http",
    "http-body",
    "hyper",
    "hyper-rustls",
    "librocksdb-sys",
    "openraft",
    "openraft-macros",
    "openraft-rt",
    "openraft-rt-tokio",
    "prometheus",
    "prost",
    "rocksdb",
    "rustls",
    "rustls-pki-types",
    "rustls-webpki",
    "serde",
    "serde_json",
    "tokio",
    "tokio-rustls",
    "tonic",
    "tower",
    "tracing",
    "utoipa",
];

fn graph() -> Graph {
    Graph::of_workspace(&root()).expect("cargo metadata --locked")
}

#[test]
fn every_licence_is_accepted() {
    let graph = graph();
    let refused = graph.packages.values().filter(|package| {
        !package
            .licence
            .as_deref()
            .is_some_and(|text| licence::is_accepted(text, ACCEPTED_LICENCES))
    });
    let refused: Vec<_> =
        refused.map(|p| format!("{} {}: {:?}", p.name, p.version, p.licence)).collect();
    assert!(refused.is_empty(), "licences outside the list: {refused:#?}");
}

#[test]
fn every_crate_comes_from_the_registry_or_from_here() {
    let graph = graph();
    let elsewhere: Vec<_> = graph
        .packages
        .values()
        .filter(|package| package.source.as_deref().is_some_and(|source| source != REGISTRY))
        .map(|package| (&package.name, &package.source))
        .collect();
    assert!(elsewhere.is_empty(), "git or foreign registries: {elsewhere:?}");
}

#[test]
fn no_banned_crate_is_in_the_build() {
    let graph = graph();
    let present: Vec<_> =
        BANNED.iter().filter(|(name, _)| !graph.versions(name).is_empty()).collect();
    assert!(present.is_empty(), "banned: {present:?}");
}

#[test]
fn the_crates_that_types_are_shared_with_have_one_version() {
    let graph = graph();
    for name in ONE_VERSION {
        let versions = graph.versions(name);
        assert!(versions.len() == 1, "`{name}` should have one version, has {versions:?}");
    }
}

#[test]
fn every_openraft_crate_is_pinned_exactly() {
    let graph = graph();
    let mut pinned = BTreeSet::new();
    for (member, package) in graph.members() {
        for (name, requirement) in &package.requirements {
            if name.starts_with("openraft") {
                assert!(requirement.starts_with('='), "{member}: {name} {requirement}");
                pinned.insert(name.as_str());
            }
        }
    }
    let built = graph.packages.values().map(|package| package.name.as_str());
    let built: BTreeSet<&str> = built.filter(|name| name.starts_with("openraft")).collect();
    assert_eq!(
        pinned, built,
        "openraft asks for its siblings with a caret, so each needs a pin of ours"
    );
}

#[test]
fn all_crates_of_ours_ask_for_the_same_version() {
    let graph = graph();
    let mut asked: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in graph.members().values() {
        for (name, requirement) in &package.requirements {
            asked.entry(name).or_default().insert(requirement);
        }
    }
    asked.retain(|_, requirements| requirements.len() > 1);
    assert!(asked.is_empty(), "name it once, in [workspace.dependencies]: {asked:?}");
}

/// The quoted words of a list in `deny.toml`, one entry a line: of each line the first, and the rest.
fn listed(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml");
    let start = format!("{name} = [");
    let lines = text.lines().skip_while(|line| *line != start).skip(1);
    let quoted = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect();
    lines.take_while(|line| *line != "]").map(quoted).collect()
}

#[test]
fn cargo_deny_is_told_the_same() {
    assert_eq!(listed("allow").concat(), ACCEPTED_LICENCES);
    let banned: Vec<_> =
        BANNED.iter().map(|(name, reason)| vec![name.to_string(), reason.to_string()]).collect();
    assert_eq!(listed("deny"), banned);
}
