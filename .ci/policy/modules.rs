//! Which top-level module of a crate uses which other, and whether that is allowed.
//!
//! A module is the first folder or file below the crate's own: `http/watch.rs` belongs to `http`. The crate's root
//! (`lib.rs`, `main.rs`) may use everything, but a name that it re-exports counts as its module's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::source::{Source, TestModule, Used};

/// One module uses another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    pub from: String,
    pub to: String,
    /// File and line, for whoever has to change it.
    pub place: String,
}

/// The uses between the modules of one crate.
#[derive(Debug, Default)]
pub struct Modules {
    pub names: BTreeSet<String>,
    pub edges: Vec<Edge>,
}

/// A line of the table: a module, and the modules that it may use.
pub type Allowed<'a> = (&'a str, &'a [&'a str]);

impl Modules {
    /// Reads the crate whose files lie in `dir` (tests, benches and examples apart).
    pub fn read(dir: &Path) -> Result<Modules, String> {
        let mut files = Vec::new();
        for path in crate::rust_files(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
            let relative = path.strip_prefix(dir).unwrap_or(&path).to_path_buf();
            let first = relative.components().next().map(|c| c.as_os_str().to_string_lossy());
            if matches!(first.as_deref(), Some("tests" | "benches" | "examples" | "build.rs")) {
                continue;
            }
            let text = std::fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            files.push((relative.to_string_lossy().into_owned(), text));
        }
        Modules::parse(&files)
    }

    /// Reads a crate from `(path below the crate, text)`.
    pub fn parse(files: &[(String, String)]) -> Result<Modules, String> {
        let mut sources = Vec::new();
        for (path, text) in files {
            let source = Source::parse(text).map_err(|error| format!("{path}: {error}"))?;
            sources.push((path.as_str(), segments(path), source));
        }
        let tests: BTreeSet<Vec<String>> = sources
            .iter()
            .flat_map(|(path, module, source)| test_modules(path, module, source))
            .collect();
        sources.retain(|(_, module, _)| !tests.iter().any(|test| module.starts_with(test)));

        let names: BTreeSet<String> =
            sources.iter().filter_map(|(_, module, _)| module.first().cloned()).collect();
        let exports = exports(&sources, &names);
        let mut edges = Vec::new();
        for (path, module, source) in &sources {
            let Some(from) = module.first() else { continue };
            for used in &source.paths {
                let Some(to) = target(module, used, &names, &exports) else { continue };
                if to != *from {
                    let place = format!("{path}:{}", used.line);
                    edges.push(Edge { from: from.clone(), to, place });
                }
            }
        }
        edges.sort();
        edges.dedup();
        Ok(Modules { names, edges })
    }

    /// Every use that the table does not allow, and every difference between the table and the tree.
    pub fn violations(&self, table: &[Allowed<'_>]) -> Vec<String> {
        let table: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
        let mut found = Vec::new();
        for name in &self.names {
            if !table.contains_key(name.as_str()) {
                found.push(format!("module `{name}` has no line in the table of allowed imports"));
            }
        }
        for name in table.keys().filter(|name| !self.names.contains(**name)) {
            found.push(format!("the table names `{name}`, which is not a module any more"));
        }
        for Edge { from, to, place } in &self.edges {
            let allowed = table.get(from.as_str()).copied().unwrap_or_default();
            if table.contains_key(from.as_str()) && !allowed.contains(&to.as_str()) {
                found.push(format!("{place}: `{from}` must not use `{to}`"));
            }
        }
        found
    }

    /// Leaves out the uses of `to` by `from`; tells whether there were any.
    pub fn forget(&mut self, from: &str, to: &str) -> bool {
        let before = self.edges.len();
        self.edges.retain(|edge| edge.from != from || edge.to != to);
        self.edges.len() < before
    }

    /// A way round from a module back to itself, if there is one.
    pub fn cycle(&self) -> Option<Vec<String>> {
        let mut done = BTreeSet::new();
        self.names.iter().find_map(|name| self.cycle_from(name, &mut Vec::new(), &mut done))
    }

    fn cycle_from(
        &self,
        name: &str,
        path: &mut Vec<String>,
        done: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        if let Some(start) = path.iter().position(|seen| seen == name) {
            return Some(path[start..].to_vec());
        }
        if done.contains(name) {
            return None;
        }
        path.push(name.to_owned());
        let next = self.edges.iter().filter(|edge| edge.from == name).map(|edge| edge.to.as_str());
        let found = next.collect::<BTreeSet<_>>().into_iter().find_map(|to| {
            self.cycle_from(to, path, done) //
        });
        path.pop();
        done.insert(name.to_owned());
        found
    }
}

/// `http/watch.rs` is `[http, watch]`, `http/mod.rs` is `[http]`, and the root is `[]`.
fn segments(path: &str) -> Vec<String> {
    let path = path.trim_end_matches(".rs");
    let mut segments: Vec<String> = path.split(['/', '\\']).map(str::to_owned).collect();
    if matches!(segments.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        segments.pop();
    }
    segments
}

fn test_modules(path: &str, module: &[String], source: &Source) -> Vec<Vec<String>> {
    let resolve = |test: &TestModule| match &test.file {
        Some(file) => segments(&Path::new(path).with_file_name(file).to_string_lossy()),
        None => module.iter().chain([&test.name]).cloned().collect(),
    };
    source.test_modules.iter().map(resolve).collect()
}

/// What the root re-exports: the outer name, and the module that it comes from.
fn exports(
    sources: &[(&str, Vec<String>, Source)],
    modules: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let roots = sources.iter().filter(|(_, module, _)| module.is_empty());
    let mut exports = BTreeMap::new();
    for path in roots.flat_map(|(_, _, source)| &source.paths) {
        let path = match path.what.first().map(String::as_str) {
            Some("crate" | "self") => &path.what[1..],
            _ => &path.what[..],
        };
        if let [module, .., name] = path
            && modules.contains(module)
        {
            exports.insert(name.clone(), module.clone());
        }
    }
    exports
}

/// The module that a path leads to, seen from `module`; none for a path that leaves the crate.
fn target(
    module: &[String],
    used: &Used<Vec<String>>,
    modules: &BTreeSet<String>,
    exports: &BTreeMap<String, String>,
) -> Option<String> {
    let path = &used.what;
    let supers = path.iter().take_while(|segment| *segment == "super").count();
    let name = match path.first().map(String::as_str) {
        Some("crate") => path.get(1)?,
        // Each `super` leaves one inline module first, then one file's.
        Some("super") if supers == module.len() + used.nesting => path.get(supers)?,
        _ => return None,
    };
    if modules.contains(name) { Some(name.clone()) } else { exports.get(name).cloned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[Allowed<'_>] =
        &[("http", &["service"]), ("service", &["error"]), ("error", &[])];

    fn modules(files: &[(&str, &str)]) -> Modules {
        let owned = |(path, text): &(&str, &str)| ((*path).to_owned(), (*text).to_owned());
        Modules::parse(&files.iter().map(owned).collect::<Vec<_>>()).unwrap()
    }

    fn three(service: &str) -> Modules {
        modules(&[
            ("lib.rs", "mod http; mod service; mod error; pub use http::Router;"),
            ("http/mod.rs", "use crate::service::Service;"),
            ("http/watch.rs", "use super::super::service::Events;"),
            ("service.rs", service),
            ("error.rs", ""),
        ])
    }

    #[test]
    fn what_the_table_allows_passes() {
        let found = three("use crate::error::Error;");
        assert_eq!(found.violations(TABLE), [""; 0]);
        assert_eq!(found.cycle(), None);
    }

    #[test]
    fn an_import_against_the_arrow_is_found() {
        let found = three("\nuse crate::{error::Error, http::render};");
        assert_eq!(found.violations(TABLE), ["service.rs:2: `service` must not use `http`"]);
        assert_eq!(found.cycle().unwrap(), ["http", "service"]);
    }

    #[test]
    fn neither_super_nor_a_root_export_hides_an_import() {
        for text in
            ["use super::http::x;", "use crate::Router;", "mod m { use super::super::http::x; }"]
        {
            assert_eq!(
                three(text).violations(TABLE),
                ["service.rs:1: `service` must not use `http`"],
                "{text}"
            );
        }
    }

    #[test]
    fn tests_of_a_module_may_use_what_they_like() {
        let found = modules(&[
            ("http.rs", ""),
            ("service.rs", "#[cfg(test)] mod tests { use crate::http; } #[cfg(test)] mod cases;"),
            ("service/cases.rs", "use crate::http;"),
            ("watch.rs", "#[cfg(test)] #[path = \"watch_tests.rs\"] mod tests;"),
            ("watch_tests.rs", "use crate::http;"),
        ]);
        assert_eq!(found.edges, []);
        assert!(!found.names.contains("watch_tests"));
    }

    #[test]
    fn the_table_and_the_tree_must_agree() {
        let found = modules(&[("http.rs", ""), ("service.rs", ""), ("extra.rs", "")]);
        assert_eq!(
            found.violations(TABLE),
            [
                "module `extra` has no line in the table of allowed imports",
                "the table names `error`, which is not a module any more",
            ]
        );
    }

    #[test]
    fn a_longer_way_round_is_a_cycle_too() {
        let found = modules(&[
            ("a.rs", "use crate::b;"),
            ("b.rs", "use crate::c;"),
            ("c.rs", "use crate::a;"),
        ]);
        assert_eq!(found.cycle().unwrap(), ["a", "b", "c"]);

        let mut found = found;
        assert!(!found.forget("a", "c"));
        assert!(found.forget("c", "a"));
        assert_eq!(found.cycle(), None);
    }
}
