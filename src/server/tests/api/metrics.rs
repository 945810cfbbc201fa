//! Holds `monitoring/METRICS.md` to what a node exports, in both directions: names, types and labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use llm_config_replica::{
    Advertise, DurationSample, EngineStats, Member, PeerSample, Readings, Role, SnapshotSample,
    Stats, Status,
};
use llm_config_server::metrics::{
    BanSample, CertificateSample, HealthSample, Metrics, NodeSample, UsageSample,
};

/// Name → type and labels.
type Catalogue = BTreeMap<String, (String, BTreeSet<String>)>;

fn readings() -> Readings {
    let durations = || DurationSample { bounds: &[0.1, 0.5], counts: vec![2, 1, 0], seconds: 0.4 };
    let snapshots = ["build", "send", "install"].map(|op| SnapshotSample {
        op,
        durations: durations(),
        failures: 0,
    });
    let peer = PeerSample {
        id: 2,
        answered: ["append", "heartbeat", "vote"].map(|rpc| (rpc, durations())),
        failed: ["append", "heartbeat", "vote", "snapshot"].map(|rpc| (rpc, 1)),
    };
    Readings {
        voters: 3,
        learners: 0,
        snapshot_index: 4,
        log_bytes: 4096,
        quorum_ack_age: Some(Duration::from_millis(30)),
        contact_ages: vec![(2, Duration::from_millis(40))],
        log_fsync: durations(),
        apply: durations(),
        proposal: durations(),
        read_index: durations(),
        snapshots,
        peers: vec![peer],
        engines: ["log", "state"]
            .map(|name| (name, EngineStats { level0_files: 3, ..Default::default() })),
    }
}

fn sample(role: Role) -> NodeSample {
    let member = |id| Member {
        id,
        role: Role::Follower,
        addresses: Advertise::default(),
        reachable: true,
        matched_index: Some(7),
        version: "0.1.0".to_owned(),
    };
    NodeSample {
        status: Status {
            cluster_id: Some("c".to_owned()),
            node_id: 1,
            role,
            leader_id: Some(1),
            leader: None,
            term: 3,
            last_log_index: 9,
            purged_index: 0,
            committed_index: 9,
            applied_index: 8,
            revision: 5,
            has_quorum: true,
            members: vec![member(1), member(2), member(3)],
        },
        stats: Stats {
            block_cache_hits: 11,
            proposals_failed: [
                ("no_leader", 0),
                ("overloaded", 0),
                ("storage_full", 0),
                ("unknown", 2),
            ],
            ..Stats::default()
        },
        readings: readings(),
        ready: true,
        leader_contact_age: Some(Duration::from_millis(150)),
        active: Some([1, 2, 3, 4, 5]),
        health: Some(HealthSample {
            whole: 1,
            parts: [("raft", 1), ("storage", 2), ("cache", 2), ("disk", 2)],
        }),
        usage: UsageSample { requests: 3, requests_max: 10, ..UsageSample::default() },
    }
}

fn page(role: Role) -> String {
    let metrics = Metrics::new();
    metrics.sample_with(move || sample(role));
    metrics.known_listener("http", 100);
    metrics.bans(vec![BanSample {
        address: "192.0.2.7".to_owned(),
        reason: "failed_authentication".to_owned(),
        until_ms: u64::MAX,
    }]);
    metrics.certificate("client", || CertificateSample { reloads: 3, ..Default::default() });
    metrics.certificate("node", || CertificateSample {
        expires_at_s: 4_000_000_000,
        reloads: 1,
        reloads_failed: 2,
    });
    metrics.grpc_known(&["/llmconfig.v1.ConfigService/Get"], &["OK"]);
    // What the runtime says of itself is there only where one runs.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _inside = runtime.enter();
    String::from_utf8(metrics.render().unwrap()).unwrap()
}

fn exported(page: &str) -> Catalogue {
    let types: BTreeMap<_, _> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .collect();
    let mut catalogue = Catalogue::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|b| types.contains_key(*b));
        let name = base.unwrap_or(name);
        let found = catalogue
            .entry(name.to_owned())
            .or_insert_with(|| (types[name].clone(), BTreeSet::new()));
        let labels = labels
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        found.1.extend(labels.filter(|label| label != "le"));
    }
    catalogue
}

fn documented() -> Catalogue {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../monitoring/METRICS.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut catalogue = Catalogue::new();
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, unit, meaning] = cells[..] else { panic!("five cells: {line}") };
        assert!(!unit.is_empty() && !meaning.is_empty(), "{line}");
        let labels = labels
            .split(',')
            .map(|l| l.trim().trim_matches('`').to_owned())
            .filter(|l| !l.is_empty() && l != "–");
        let known = catalogue
            .insert(name.trim_matches('`').to_owned(), (kind.to_owned(), labels.collect()));
        assert!(known.is_none(), "listed twice: {line}");
    }
    catalogue
}

#[test]
fn the_list_and_the_node_agree() {
    let (exported, documented) = (exported(&page(Role::Leader)), documented());
    let missing: Vec<_> = exported.keys().filter(|name| !documented.contains_key(*name)).collect();
    assert!(missing.is_empty(), "exported, not in METRICS.md: {missing:?}");
    let stale: Vec<_> = documented.keys().filter(|name| !exported.contains_key(*name)).collect();
    assert!(stale.is_empty(), "in METRICS.md, not exported: {stale:?}");
    assert_eq!(exported, documented);
}

#[test]
fn names_follow_the_rules_of_their_types() {
    for (name, (kind, _)) in exported(&page(Role::Leader)) {
        // The one documented exception: a gauge with the name of a counter.
        if name != "config_active_total" {
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        }
    }
}

#[test]
fn replicated_numbers_are_shown_once_by_the_leader_and_as_zero_elsewhere() {
    let production = "config_active_total{environment=\"production\"}";
    assert!(page(Role::Leader).contains(&format!("{production} 4")));
    assert!(page(Role::Follower).contains(&format!("{production} 0")));
}

#[test]
fn block_cache_and_followers_show() {
    let page = page(Role::Leader);
    assert!(page.contains("cache_hits_total{tier=\"l2\"} 11"), "{page}");
    assert!(page.contains("llm_config_raft_peer_lag_entries{peer=\"2\"} 2"), "{page}");
    assert!(!page.contains("llm_config_raft_peer_lag_entries{peer=\"1\"}"), "{page}");
}

#[test]
fn both_certificates_show_and_their_reloads_add_up() {
    let page = page(Role::Leader);
    for line in [
        "tls_certificate_expiry_timestamp_seconds{certificate=\"node\"} 4000000000",
        "tls_reloads_total{result=\"ok\"} 4",
        "tls_reloads_total{result=\"failed\"} 2",
        "tls_handshake_failures_total{listener=\"raft\"} 0",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
}

#[test]
fn histograms_of_the_replica_add_up() {
    let page = page(Role::Leader);
    for line in [
        "llm_config_raft_log_fsync_duration_seconds_bucket{le=\"0.1\"} 2",
        "llm_config_raft_log_fsync_duration_seconds_bucket{le=\"0.5\"} 3",
        "llm_config_raft_log_fsync_duration_seconds_bucket{le=\"+Inf\"} 3",
        "llm_config_raft_log_fsync_duration_seconds_sum 0.4",
        "llm_config_raft_rpc_duration_seconds_count{peer=\"2\",rpc=\"vote\"} 3",
        "llm_config_raft_proposals_failed_total{reason=\"unknown\"} 2",
        "rocksdb_level0_files{database=\"log\"} 3",
        "health_check_status{component=\"raft\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in:\n{page}");
    }
}

/// A page of a node on which everything has happened once: every operation has failed in every way, every route and method
/// has given every answer that it can give.
#[test]
#[ignore = "measures; run it with --ignored --nocapture"]
fn what_the_fullest_page_costs() {
    let metrics = Metrics::new();
    metrics.sample_with(move || sample(Role::Leader));
    let names = |count: usize, word: &str| -> &'static [&'static str] {
        (0..count)
            .map(|n| &*Box::leak(format!("/llmconfig.v1.ConfigService/{word}{n}").into_boxed_str()))
            .collect::<Vec<&'static str>>()
            .leak()
    };
    let (methods, codes) = (names(46, "Method"), names(17, "CODE"));
    metrics.grpc_known(methods, codes);
    for method in methods {
        for code in codes {
            metrics.grpc(method, code, Duration::from_millis(2));
        }
    }
    for route in names(60, "route") {
        for status in [200, 201, 204, 304, 400, 401, 403, 404, 409, 429, 500, 503] {
            metrics.http("GET", route, status, Duration::from_millis(2));
        }
    }
    for operation in llm_config_server::service::OPERATIONS {
        metrics.operation(operation, Duration::from_millis(2));
        for code in ["INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "NO_LEADER", "OVERLOADED"]
            .into_iter()
            .chain([
                "PERMISSION_DENIED",
                "RATE_LIMITED",
                "STALE",
                "STORAGE_FULL",
                "UNAUTHENTICATED",
            ])
        {
            metrics.error(operation, code);
        }
    }
    for _ in 0..20 {
        metrics.render().unwrap();
    }
    let page = String::from_utf8(metrics.render().unwrap()).unwrap();
    let series = page.lines().filter(|line| !line.starts_with('#')).count();
    let cost = page.lines().find(|line| line.starts_with("metrics_render_duration_seconds "));
    println!("{series} series, {} bytes: {}", page.len(), cost.unwrap());
}
