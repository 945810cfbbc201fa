//! The resolved dependency graph, as `cargo metadata --locked` prints it for the platform we build on.
//!
//! It answers who depends on whom, directly and at all. It does not judge: `tests/` do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Every package of the build.
#[derive(Debug, Default)]
pub struct Graph {
    pub packages: BTreeMap<Id, Package>,
}

/// Cargo's own name for a package: unique in a build.
pub type Id = String;

#[derive(Debug)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub licence: Option<String>,
    /// Where it comes from; none for a package of this workspace.
    pub source: Option<String>,
    pub dependencies: Vec<Dependency>,
    /// What the manifest asks for, by name: the version requirement as cargo normalised it.
    pub requirements: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
pub struct Dependency {
    pub id: Id,
    pub kinds: BTreeSet<Kind>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Normal,
    Build,
    Development,
}

impl Graph {
    /// Asks cargo about the workspace in `root`. The lock file is taken as it is.
    pub fn of_workspace(root: &Path) -> Result<Graph, String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .current_dir(root)
            .args(["metadata", "--locked", "--format-version", "1"])
            .args(["--filter-platform", &host()?])
            .output()
            .map_err(|error| format!("cargo metadata: {error}"))?;
        if !output.status.success() {
            return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let json = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
        Graph::parse(&json)
    }

    pub fn parse(metadata: &Value) -> Result<Graph, String> {
        let mut graph = Graph::default();
        let mut manifests = BTreeMap::new();
        for package in array(&metadata["packages"])? {
            manifests.insert(text(&package["id"])?, package);
            let requirements = array(&package["dependencies"])?
                .iter()
                .map(|dependency| Ok((text(&dependency["name"])?, text(&dependency["req"])?)))
                .collect::<Result<_, String>>()?;
            let described = Package {
                name: text(&package["name"])?,
                version: text(&package["version"])?,
                licence: package["license"].as_str().map(str::to_owned),
                source: package["source"].as_str().map(str::to_owned),
                dependencies: Vec::new(),
                requirements,
            };
            graph.packages.insert(text(&package["id"])?, described);
        }
        for node in array(&metadata["resolve"]["nodes"])? {
            let id = text(&node["id"])?;
            let mut dependencies = Vec::new();
            for value in array(&node["deps"])? {
                let dependency = dependency(value)?;
                let named = graph.packages.get(&dependency.id).map(|package| package.name.as_str());
                let manifest = manifests.get(&id).copied().unwrap_or(&Value::Null);
                if named.is_none_or(|name| is_asked_for(manifest, &node["features"], name)) {
                    dependencies.push(dependency);
                }
            }
            let package =
                graph.packages.get_mut(&id).ok_or_else(|| format!("{id} is not listed"))?;
            package.dependencies = dependencies;
        }
        // Listed, and part of no build: for other platforms, or for features that are off.
        let built = graph.built();
        graph.packages.retain(|id, _| built.contains(id));
        Ok(graph)
    }

    /// Everything that some package of this workspace needs, for whatever.
    fn built(&self) -> BTreeSet<Id> {
        let ours = self.packages.iter().filter(|(_, package)| package.source.is_none());
        let mut pending: Vec<&Id> = ours.map(|(id, _)| id).collect();
        let mut built = BTreeSet::new();
        while let Some(id) = pending.pop() {
            if built.insert(id.clone())
                && let Some(package) = self.packages.get(id)
            {
                pending.extend(package.dependencies.iter().map(|dependency| &dependency.id));
            }
        }
        built
    }

    /// The packages of this workspace, by name.
    pub fn members(&self) -> BTreeMap<&str, &Package> {
        let ours = self.packages.values().filter(|package| package.source.is_none());
        ours.map(|package| (package.name.as_str(), package)).collect()
    }

    pub fn versions(&self, name: &str) -> Vec<&str> {
        let named = self.packages.values().filter(|package| package.name == name);
        named.map(|package| package.version.as_str()).collect()
    }

    /// The names of `package`'s direct dependencies of any of these kinds.
    pub fn direct(&self, package: &Package, kinds: &[Kind]) -> BTreeSet<&str> {
        let wanted = |dependency: &&Dependency| kinds.iter().any(|k| dependency.kinds.contains(k));
        let ids = package.dependencies.iter().filter(wanted).map(|dependency| &dependency.id);
        ids.filter_map(|id| self.packages.get(id)).map(|package| package.name.as_str()).collect()
    }

    /// The names of everything that ends up in a program that uses `package`.
    pub fn reachable<'a>(&'a self, package: &'a Package) -> BTreeSet<&'a str> {
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut pending = vec![package];
        while let Some(package) = pending.pop() {
            for dependency in &package.dependencies {
                if dependency.kinds.contains(&Kind::Normal)
                    && seen.insert(dependency.id.as_str())
                    && let Some(next) = self.packages.get(&dependency.id)
                {
                    found.insert(next.name.as_str());
                    pending.push(next);
                }
            }
        }
        found
    }
}

/// Whether a package with these features really needs `dependency`. Cargo also lists an optional one of which a feature only
/// says what it would ask of it (`ring?/alloc`).
fn is_asked_for(manifest: &Value, features: &Value, dependency: &str) -> bool {
    let of = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let declared: Vec<Value> =
        of(&manifest["dependencies"]).into_iter().filter(|d| d["name"] == dependency).collect();
    let active = of(features);
    let asks = |declared: &Value| {
        let name = declared["rename"].as_str().unwrap_or(dependency);
        let whole = format!("dep:{name}");
        let part = format!("{name}/");
        declared["optional"] != true
            || active.iter().any(|feature| {
                let lists = of(&manifest["features"][feature.as_str().unwrap_or_default()]);
                feature == name
                    || lists
                        .iter()
                        .filter_map(Value::as_str)
                        .any(|listed| listed == whole || listed.starts_with(&part))
            })
    };
    declared.is_empty() || declared.iter().any(asks)
}

fn dependency(value: &Value) -> Result<Dependency, String> {
    let kinds = array(&value["dep_kinds"])?.iter().map(|kind| match kind["kind"].as_str() {
        None => Kind::Normal,
        Some("build") => Kind::Build,
        Some(_) => Kind::Development,
    });
    Ok(Dependency { id: text(&value["pkg"])?, kinds: kinds.collect() })
}

/// The platform of the compiler in use, as `rustc -vV` names it.
fn host() -> Result<String, String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output =
        Command::new(rustc).arg("-vV").output().map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

fn array(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("expected a list, found {value}"))
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("expected a text, found {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn graph() -> Graph {
        let package = |name: &str, source: Value| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT", "source": source,
                   "dependencies": [{"name": "tokio", "req": "^1"}]})
        };
        let dependency =
            |name: &str, kind: Value| json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let parsed = Graph::parse(&json!({
            "packages": [
                package("ours", Value::Null), package("tokio", json!("registry")), package("mio", json!("registry")),
                package("tempfile", json!("registry")), package("windows", json!("registry")),
            ],
            "resolve": {"nodes": [
                {"id": "ours", "deps": [dependency("tokio", Value::Null), dependency("tempfile", json!("dev"))]},
                {"id": "tokio", "deps": [dependency("mio", Value::Null)]},
                {"id": "mio", "deps": []},
                {"id": "tempfile", "deps": []},
            ]},
        }));
        parsed.unwrap()
    }

    #[test]
    fn what_a_dependency_brings_is_reachable_and_what_tests_use_is_not() {
        let graph = graph();
        let ours = graph.members()["ours"];
        assert_eq!(graph.reachable(ours), BTreeSet::from(["tokio", "mio"]));
        assert_eq!(graph.direct(ours, &[Kind::Normal]), BTreeSet::from(["tokio"]));
        assert_eq!(graph.direct(ours, &[Kind::Development]), BTreeSet::from(["tempfile"]));
        assert_eq!(ours.requirements["tokio"], "^1");
    }

    #[test]
    fn an_optional_dependency_counts_when_a_feature_asks_for_it() {
        let manifest = json!({
            "dependencies": [{"name": "ring", "optional": true}, {"name": "std", "optional": false}],
            "features": {"alloc": ["ring?/alloc"], "crypto": ["dep:ring"], "fast": ["ring/fast"], "ring": ["dep:ring"]},
        });
        let asked = |features: Value, name| is_asked_for(&manifest, &features, name);
        assert!(!asked(json!([]), "ring"));
        assert!(!asked(json!(["alloc"]), "ring"));
        for feature in ["crypto", "fast", "ring"] {
            assert!(asked(json!(["alloc", feature]), "ring"), "{feature}");
        }
        assert!(asked(json!([]), "std"));
    }

    #[test]
    fn packages_of_other_platforms_are_left_out() {
        assert_eq!(graph().versions("windows"), [""; 0]);
        assert_eq!(graph().versions("mio"), ["1.0.0"]);
    }
}
