//! The checkers behind the tests in `tests/`: who may import whom, and which dependencies are welcome.
//!
//! A checker is a function from text to findings, so each is shown a made-up violation in its own unit tests; the
//! files in `tests/` run the same functions over the real tree. It is not a linter for style: rustfmt and clippy are.

pub mod commands;
pub mod graph;
pub mod licence;
pub mod markdown;
pub mod modules;
pub mod queries;
pub mod source;

use std::path::{Path, PathBuf};

/// The root of the workspace that the tests were started in. Asked at run time: a target folder that two clones share may
/// hold a test that was built in the other one.
pub fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    here.ancestors().nth(2).unwrap_or(&here).to_path_buf()
}

/// Every Rust file below `dir`, sorted, so that findings come in a stable order.
pub fn rust_files(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut pending = vec![dir.to_path_buf()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
