//! Rules for single files: each says what it is for, nothing is unbounded, only `main` ends the process, and the
//! rules of the store ask neither the clock nor chance.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::path::{Path, PathBuf};

use llm_config_policy::source::{Source, opens_with_docs};
use llm_config_policy::{root, rust_files};

const DIRS: &[&str] = &["proto", "src", "jepsen-lite", "benches", ".ci/fuzz", ".ci/policy"];

/// Names, and ends of paths, that make a queue without a bound.
const UNBOUNDED: &[&str] = &[
    "UnboundedReceiver",
    "UnboundedSender",
    "channel::unbounded",
    "mpsc::unbounded",
    "unbounded_channel",
];

/// What the same command on the same state must not depend on.
const IMPURE: &[&str] = &[
    "HashMap",
    "HashSet",
    "Instant",
    "SystemTime",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "RandomState",
];

/// The files of the workspace below `dir`, by their path from the root.
fn files(dir: &str) -> Vec<(PathBuf, String)> {
    let dir = root().join(dir);
    if !dir.exists() {
        return Vec::new();
    }
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).expect("readable source");
        (path.strip_prefix(root()).unwrap_or(&path).to_path_buf(), text)
    };
    rust_files(&dir).expect("readable folder").into_iter().map(read).collect()
}

/// Where `text` uses one of `banned`: a name, or the beginning, middle or end of a path.
fn uses(path: &Path, text: &str, banned: &[&str]) -> Vec<String> {
    let source = Source::parse(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let names = source.names.iter().map(|name| (name.what.clone(), name.line));
    let paths = source.paths.iter().map(|path| (path.what.join("::"), path.line));
    let wrapped = |what: &str| format!("::{what}::");
    let mut found: Vec<String> = names
        .chain(paths)
        .filter(|(what, _)| banned.iter().any(|banned| wrapped(what).contains(&wrapped(banned))))
        .map(|(what, line)| format!("{}:{line}: {what}", path.display()))
        .collect();
    found.dedup();
    found
}

fn violations(dirs: &[&str], banned: &[&str], exempt: impl Fn(&Path) -> bool) -> Vec<String> {
    let files = dirs.iter().flat_map(|dir| files(dir)).filter(|(path, _)| !exempt(path));
    files.flat_map(|(path, text)| uses(&path, &text, banned)).collect()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests")
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<_> = DIRS
        .iter()
        .flat_map(|dir| files(dir))
        .filter(|(_, text)| !opens_with_docs(text))
        .map(|(path, _)| path)
        .collect();
    assert!(silent.is_empty(), "files that do not open with `//! …`: {silent:#?}");
}

#[test]
fn every_queue_is_bounded() {
    let found = violations(DIRS, UNBOUNDED, is_test);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn only_main_ends_the_process() {
    let found = violations(DIRS, &["process::exit", "process::abort"], |path| {
        // A crash point dies without a word when a test has armed it.
        path.ends_with("main.rs") || path.ends_with("replica/failpoint.rs") || is_test(path)
    });
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_domain_asks_neither_clock_nor_chance_nor_the_system() {
    let found = violations(&["src/domain"], IMPURE, is_test);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_checks_above_find_what_they_look_for() {
    let find = |text: &str, banned: &[&str]| uses(Path::new("x.rs"), text, banned);
    assert_eq!(find("use tokio::sync::mpsc::{self, unbounded_channel};", UNBOUNDED).len(), 2);
    assert!(!find("fn f() { futures::channel::mpsc::unbounded(); }", UNBOUNDED).is_empty());
    assert!(!find("use std::process; fn f() { process::exit(1) }", &["process::exit"]).is_empty());
    assert!(!find("use std::{env, fmt};", IMPURE).is_empty());
    assert!(!find("fn f() { let _ = std::time::SystemTime::now(); }", IMPURE).is_empty());
    assert!(find("// SystemTime\nfn f(map: BTreeMap<u8, u8>) {}", IMPURE).is_empty());
}

/// Events below the level of an error in `text` that have a field of the name `error`.
fn called_error(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for level in ["warn", "info", "debug", "trace"] {
        for event in text.split(&format!("tracing::{level}!(")).skip(1) {
            let event = event.split(");").next().unwrap_or(event);
            let shorthand = event.split("%error").next().is_some_and(|before| {
                before.len() < event.len() && !before.trim_end().ends_with('=')
            });
            if shorthand || event.contains("error = ") {
                found.push(event);
            }
        }
    }
    found
}

#[test]
fn only_error_lines_say_error() {
    // Operators count the lines of a night with `grep -i error`.
    for dir in ["src/server", "src/replica", "src/tls"] {
        for (path, text) in files(dir) {
            let found = called_error(&text);
            assert!(found.is_empty(), "{}: name the field `reason`: {found:?}", path.display());
        }
    }
    assert_eq!(called_error("tracing::warn!(%error, \"x\");").len(), 1);
    assert_eq!(called_error("tracing::info!(n,\n error = %e, \"x\");").len(), 1);
    assert!(called_error("tracing::error!(%error); tracing::warn!(reason = %error);").is_empty());
}
