//! Which crate may use which, and which module inside a crate: the arrows of ARCHITECTURE.md.
//!
//! Adding a crate or a top-level module means adding its line here, and deciding where it stands.
#![allow(clippy::expect_used, reason = "a test stops at what it did not expect")]

use std::collections::BTreeSet;

use llm_config_policy::graph::{Graph, Kind};
use llm_config_policy::modules::{Allowed, Modules};
use llm_config_policy::root;

/// What a crate of ours may use of ours, in the program and in its tests.
struct Arrows {
    name: &'static str,
    dir: &'static str,
    uses: &'static [&'static str],
    tests_use: &'static [&'static str],
}

const CRATES: &[Arrows] = &[
    Arrows { name: "llm-config-proto", dir: "proto", uses: &[], tests_use: &[] },
    // Where the product would go wrong on purpose; nothing without its feature.
    Arrows { name: "llm-config-bugs", dir: "jepsen-lite/bugs", uses: &[], tests_use: &[] },
    Arrows {
        name: "llm-config-domain",
        dir: "src/domain",
        uses: &["llm-config-bugs"],
        tests_use: &[],
    },
    Arrows {
        name: "llm-config-cache",
        dir: "src/cache",
        uses: &["llm-config-bugs", "llm-config-domain"],
        tests_use: &[],
    },
    Arrows { name: "llm-config-archive", dir: "src/archive", uses: &[], tests_use: &[] },
    Arrows { name: "llm-config-tls", dir: "src/tls", uses: &[], tests_use: &[] },
    Arrows {
        name: "llm-config-replica",
        dir: "src/replica",
        uses: &[
            "llm-config-archive",
            "llm-config-bugs",
            "llm-config-domain",
            "llm-config-proto",
            "llm-config-tls",
        ],
        tests_use: &[],
    },
    Arrows {
        name: "llm-config-server",
        dir: "src/server",
        uses: &[
            "llm-config-archive",
            "llm-config-bugs",
            "llm-config-cache",
            "llm-config-domain",
            "llm-config-proto",
            "llm-config-replica",
            "llm-config-tls",
        ],
        tests_use: &["llm-config-client"],
    },
    Arrows {
        name: "llm-config-client",
        dir: "src/client",
        uses: &["llm-config-proto"],
        tests_use: &[],
    },
    Arrows {
        name: "llm-config-cli",
        dir: "src/cli",
        uses: &["llm-config-archive", "llm-config-client"],
        tests_use: &[],
    },
    Arrows {
        name: "llm-config-benches",
        dir: "benches",
        uses: &["llm-config-client"],
        tests_use: &[],
    },
    // What is hot, without a server around it.
    Arrows {
        name: "llm-config-hot",
        dir: "benches/hot",
        uses: &["llm-config-cache", "llm-config-domain"],
        tests_use: &[],
    },
    Arrows {
        name: "jepsen-lite",
        dir: "jepsen-lite",
        uses: &["llm-config-bugs", "llm-config-client"],
        tests_use: &[],
    },
    Arrows { name: "llm-config-policy", dir: ".ci/policy", uses: &[], tests_use: &[] },
    // The replica has it under its feature `simulation` only, so no line above names it.
    Arrows { name: "llm-config-simdisk", dir: "jepsen-lite/sim/disk", uses: &[], tests_use: &[] },
];

/// A crate from outside, and the only ones of ours that may name it.
const OWNED: &[(&str, &[&str])] = &[
    // An empty page of axum is the floor that the server's pages are measured against.
    ("axum", &["llm-config-server", "llm-config-benches"]),
    ("fail", &["llm-config-replica"]),
    ("openraft", &["llm-config-replica"]),
    ("openraft-macros", &["llm-config-replica"]),
    ("openraft-rt", &["llm-config-replica"]),
    ("openraft-rt-tokio", &["llm-config-replica"]),
    ("prometheus", &["llm-config-server"]),
    // The benches call etcd by stubs that are generated as our own are: the load has to cost the same for both.
    ("protox", &["llm-config-proto", "llm-config-benches"]),
    ("rocksdb", &["llm-config-replica"]),
    ("tokio-rustls", &["llm-config-tls"]),
    ("tonic-prost-build", &["llm-config-proto", "llm-config-benches"]),
    ("utoipa", &["llm-config-server"]),
    ("x509-parser", &["llm-config-tls"]),
];

/// All that the rules may use: no runtime, no storage, no clock, no randomness. (`serde_json` parses values.)
const DOMAIN_USES: &[&str] =
    &["bytes", "json-patch", "llm-config-bugs", "prost", "serde_json", "sha2", "thiserror"];

/// What must not be found anywhere below a crate, however deep.
const NEVER_BELOW: &[(&str, &[&str])] = &[
    (
        "llm-config-domain",
        &["getrandom", "hyper", "jiff", "mio", "openraft", "rand", "rocksdb", "tokio", "tonic"],
    ),
    // It is measured by itself, without a node around it.
    (
        "llm-config-cache",
        &["librocksdb-sys", "openraft", "prometheus", "rand", "rocksdb", "tokio", "tonic"],
    ),
    // Built optimised in each run of CI, so it has to be built soon.
    ("llm-config-hot", &["clap", "criterion", "librocksdb-sys", "rocksdb", "tokio", "tonic"]),
    // A backup can be checked by whoever holds the file: no storage engine, no network.
    (
        "llm-config-archive",
        &["librocksdb-sys", "llm-config-domain", "openraft", "rocksdb", "tokio", "tonic"],
    ),
    (
        "llm-config-client",
        &[
            "librocksdb-sys",
            "llm-config-domain",
            "llm-config-replica",
            "llm-config-server",
            "openraft",
            "prometheus",
            "rocksdb",
        ],
    ),
    ("llm-config-cli", &["librocksdb-sys", "llm-config-domain", "openraft", "rocksdb"]),
    // Files that forget are for the simulation.
    ("llm-config-server", &["llm-config-simdisk"]),
];

/// What each module of a crate may use: everything not listed is forbidden, and every module is listed.
const MODULES: &[(&str, &[Allowed<'_>])] = &[("src/server", SERVER), ("src/replica", REPLICA)];

/// `http, grpc → service → {admission, backups, watch} → error`; nothing but the node's wiring uses a gateway.
const SERVER: &[Allowed<'_>] = &[
    ("dev", &["logging", "node", "secrets", "settings"]),
    ("offline", &["settings"]),
    // The program again, with bugs.
    ("seeded", &[]),
    // Not in a program: what the fuzz targets call.
    (
        "fuzzing",
        &["access", "grpc", "http", "join", "jwt", "limits", "schemas", "service", "settings"],
    ),
    (
        "node",
        &[
            "access", "backups", "grpc", "health", "holding", "http", "join", "jwt", "limits",
            "metrics", "peer", "schemas", "secrets", "service", "settings",
        ],
    ),
    (
        "grpc",
        &[
            "access",
            "admission",
            "backups",
            "error",
            "holding",
            "limits",
            "peer",
            "request_id",
            "secrets",
            "service",
            "watch",
        ],
    ),
    (
        "http",
        &[
            "access",
            "admission",
            "backups",
            "error",
            "health",
            "hex",
            "holding",
            "limits",
            "peer",
            "request_id",
            "secrets",
            "service",
            "watch",
        ],
    ),
    ("health", &["http", "metrics", "service"]),
    (
        "service",
        &[
            "access",
            "address",
            "admission",
            "backups",
            "error",
            "hex",
            "limits",
            "metrics",
            "peer",
            "schemas",
            "secrets",
            "settings",
            "watch",
        ],
    ),
    ("access", &["error", "jwt", "metrics", "peer", "private_file"]),
    ("backups", &["error", "metrics"]),
    ("admission", &["error", "metrics"]),
    ("limits", &["error", "metrics", "settings"]),
    ("jwt", &["metrics", "outbound", "settings"]),
    ("watch", &["access", "error", "metrics"]),
    ("metrics", &["logging", "service"]),
    ("settings", &["address", "logging"]),
    ("schemas", &["error"]),
    // Bytes and keys: what a request, a right or a record is, they do not know.
    ("secrets", &["hex", "private_file"]),
    ("address", &[]),
    ("hex", &[]),
    ("outbound", &[]),
    ("private_file", &[]),
    ("join", &["outbound"]),
    ("peer", &[]),
    ("request_id", &[]),
    ("logging", &[]),
    ("error", &[]),
    ("holding", &[]),
];

/// The face on top, what a crash may not take (`storage`) below everything that talks.
const REPLICA: &[Allowed<'_>] = &[
    (
        "replica",
        &[
            "backup",
            "config",
            "error",
            "founding",
            "handover",
            "lifecycle",
            "local",
            "membership",
            "network",
            "node",
            "observer",
            "propose",
            "read",
            "reclaim",
            "status",
            "steward",
            "storage",
        ],
    ),
    // Not in a program: what the fuzz targets call.
    ("fuzzing", &["codec", "membership", "network"]),
    // Not in a program: what the simulation looks at.
    ("simulation", &["codec", "machine", "node", "replica", "storage", "types"]),
    (
        "lifecycle",
        &["config", "error", "form", "local", "machine", "network", "node", "observer", "storage"],
    ),
    ("handover", &["node"]),
    // Offline: a directory that no node runs on.
    ("restore", &["backup", "error", "failpoint", "founding", "storage", "types"]),
    ("recover", &["backup", "codec", "error", "storage", "types"]),
    ("backup", &["codec", "node", "storage", "types"]),
    ("steward", &["founding", "local", "node", "propose", "reclaim", "storage"]),
    ("reclaim", &["machine", "node", "propose", "space", "storage", "types"]),
    ("founding", &["error", "local", "network", "node", "storage"]),
    ("membership", &["config", "error", "failpoint", "handover", "node", "propose", "types"]),
    (
        "network",
        &[
            "codec",
            "config",
            "failpoint",
            "form",
            "local",
            "machine",
            "membership",
            "node",
            "propose",
            "read",
            "storage",
            "timings",
            "types",
            "vacancy",
        ],
    ),
    ("vacancy", &["machine", "node", "types"]),
    ("propose", &["batch", "error", "node", "read", "types"]),
    ("batch", &["node", "types"]),
    ("read", &["error", "node", "storage"]),
    (
        "node",
        &[
            "batch", "error", "local", "machine", "network", "read", "space", "status", "storage",
            "timings", "types",
        ],
    ),
    ("space", &["config", "status"]),
    ("local", &["config", "error", "form", "storage", "timings", "types"]),
    (
        "storage",
        &[
            "codec",
            "error",
            "failpoint",
            "form",
            "machine",
            "observer",
            "status",
            "timings",
            "types",
        ],
    ),
    ("codec", &["form", "types"]),
    ("status", &["config", "timings"]),
    ("config", &["machine"]),
    ("error", &[]),
    ("failpoint", &[]),
    // The system's, or that of a simulation.
    ("machine", &[]),
    ("form", &[]),
    ("observer", &[]),
    ("timings", &[]),
    ("types", &[]),
];

/// Uses that close a circle and are meant: in a crate's folder, of one module by another. No other circle may exist.
const MEANT: &[(&str, &str, &str)] = &[
    // A client hands out watches, and a watch goes on with its client.
    ("src/client", "client", "watch"),
    // A type offers its own encoding, which knows the type.
    ("src/domain", "command", "wire"),
    ("src/domain", "outcome", "wire"),
    // What the store says about itself is both a record and an answer.
    ("src/domain", "record", "query"),
    // A node owns its connections, and what comes in over one is handed to the node.
    ("src/replica", "network", "node"),
    ("src/replica", "network", "membership"),
    ("src/replica", "network", "propose"),
    ("src/replica", "network", "read"),
    ("src/replica", "network", "vacancy"),
    // A node owns the queues that its proposals and its reads share.
    ("src/replica", "node", "batch"),
    ("src/replica", "node", "read"),
    // The router mounts the health pages, which need what every page needs.
    ("src/server", "http", "health"),
    // The names of the operations that are counted are the service's.
    ("src/server", "metrics", "service"),
];

fn graph() -> Graph {
    Graph::of_workspace(&root()).expect("cargo metadata --locked")
}

fn modules(dir: &str) -> Modules {
    Modules::read(&root().join(dir)).expect("readable sources")
}

#[test]
fn crates_of_ours_depend_along_the_arrows_only() {
    let graph = graph();
    let members = graph.members();
    for (name, package) in &members {
        let arrows = CRATES.iter().find(|arrows| arrows.name == *name);
        let arrows =
            arrows.unwrap_or_else(|| panic!("`{name}` has no line in the table of crates"));
        let check = |kinds: &[Kind], allowed: &[&str]| {
            for used in graph.direct(package, kinds) {
                let fine = !members.contains_key(used) || allowed.contains(&used);
                assert!(fine, "`{name}` must not depend on `{used}`");
            }
        };
        check(&[Kind::Normal, Kind::Build], arrows.uses);
        check(&[Kind::Development], &[arrows.uses, arrows.tests_use].concat());
    }
}

#[test]
fn what_has_one_owner_is_named_by_nobody_else() {
    let graph = graph();
    for (name, package) in graph.members() {
        for used in graph.direct(package, &[Kind::Normal, Kind::Build]) {
            let owners = OWNED.iter().find(|(owned, _)| *owned == used).map(|(_, owners)| *owners);
            let fine = owners.is_none_or(|owners| owners.contains(&name));
            assert!(fine, "`{name}` must not use `{used}`: only {owners:?} may");
        }
    }
}

#[test]
fn the_domain_uses_nothing_but_pure_crates() {
    let graph = graph();
    let members = graph.members();
    let used = graph.direct(members["llm-config-domain"], &[Kind::Normal, Kind::Build]);
    let allowed: BTreeSet<&str> = DOMAIN_USES.iter().copied().collect();
    let extra: Vec<_> = used.difference(&allowed).collect();
    assert!(extra.is_empty(), "not in the list of pure crates: {extra:?}");
}

#[test]
fn nothing_heavy_hides_below_the_rules_or_the_sdk() {
    let graph = graph();
    let members = graph.members();
    for (name, never) in NEVER_BELOW {
        let below = graph.reachable(members[name]);
        let found: Vec<_> = never.iter().filter(|never| below.contains(**never)).collect();
        assert!(found.is_empty(), "`{name}` brings {found:?} with it");
    }
}

#[test]
fn modules_are_used_along_the_arrows_only() {
    for (dir, table) in MODULES {
        let violations = modules(dir).violations(table);
        assert!(violations.is_empty(), "{dir}: {violations:#?}");
    }
}

#[test]
fn no_modules_use_each_other_in_a_circle() {
    let graph = graph();
    for arrows in CRATES.iter().filter(|arrows| graph.members().contains_key(arrows.name)) {
        let mut modules = modules(arrows.dir);
        for (_, from, to) in MEANT.iter().filter(|(dir, ..)| *dir == arrows.dir) {
            assert!(modules.forget(from, to), "`{from}` uses `{to}` no more: take the line away");
        }
        if let Some(circle) = modules.cycle() {
            let inside = |name| circle.contains(name);
            let edges = modules.edges.iter().filter(|edge| inside(&edge.from) && inside(&edge.to));
            let edges: Vec<_> = edges.collect();
            panic!("{}: {} and back again: {edges:#?}", arrows.name, circle.join(" → "));
        }
    }
}
