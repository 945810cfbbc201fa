//! The command line: what is refused, in which words, and which of several sources wins.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::support::{finish, program, run};

const SERVE: [&str; 3] = ["serve", "--auth=off", "--print-config"];

fn serve(extra: &[&str]) -> (Option<i32>, String, String) {
    run(&[&SERVE, extra].concat())
}

fn config_file(folder: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("node.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

fn with_file(text: &str, extra: &[&str]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(&folder, text);
    finish(program().args(["serve", "--print-config"]).arg("--config").arg(path).args(extra))
}

#[test]
fn wrong_values_are_refused_with_the_flag_and_the_way_out() {
    for (flags, parts) in [
        (&[][..], &["--node-id is missing", "from 1 up"][..]),
        (&["--node-id=0"], &["--node-id", "0 is no node id"]),
        (&["--node-id=x"], &["--node-id", "whole number"]),
        (&["--node-id=1", "--http-addr=8080"], &["--http-addr", "HOST:PORT"]),
        (&["--node-id=1", "--grpc-addr=127.0.0.1:99999"], &["--grpc-addr", "65535"]),
        (&["--node-id=1", "--data-dir="], &["--data-dir", "is empty"]),
        (&["--node-id=1", "--initial-cluster=1=a:1,1=b:1"], &["--initial-cluster", "listed twice"]),
        (
            &["--node-id=1", "--initial-cluster=0=a:1,1=b:1"],
            &["--initial-cluster", "0 is no node id"],
        ),
        (
            &["--node-id=1", "--initial-cluster=2=a:1"],
            &["--initial-cluster", "node 1 is not in the list"],
        ),
        (&["--node-id=1", "--initial-cluster=1=a:1,2=a:1"], &["--initial-cluster", "same address"]),
        (&["--node-id=1", "--join=a"], &["--join", "http://HOST:PORT"]),
        (&["--node-id=1", "--join=ftp://a:1"], &["--join", "https://HOST:PORT"]),
        (&["--node-id=1", "--join=a:1,http://a:1"], &["--join", "listed twice"]),
        (
            &["--node-id=1", "--join=a:1", "--initial-cluster=1=b:1"],
            &["--join", "--initial-cluster", "exclude each other", "remove one"],
        ),
        (&["--node-id=1", "--history-limit=0"], &["--history-limit", "from 1 to"]),
        (&["--node-id=1", "--cache-bytes=lots"], &["--cache-bytes", "64MiB"]),
        (&["--node-id=1", "--request-timeout=5"], &["--request-timeout", "5s"]),
        (&["--node-id=1", "--backup-interval=daily"], &["--backup-interval", "0 for no backups"]),
        (&["--node-id=1", "--backup-interval=1ms"], &["--backup-interval", "1s"]),
        (&["--node-id=1", "--backup-keep=0"], &["--backup-keep", "from 1 to"]),
        (&["--node-id=1", "--storage-quota=full"], &["--storage-quota", "or 0 for no bound"]),
        (&["--node-id=1", "--storage-quota=1MiB"], &["--storage-quota", "from 67108864"]),
        (&["--node-id=1", "--disk-reserve=-1"], &["--disk-reserve", "64MiB"]),
        (&["--node-id=1", "--log-format=xml"], &["--log-format", "text or json"]),
        (&["--node-id=1", "--log-level=loud"], &["--log-level", "info"]),
        (&["--node-id=1", "--insecure=maybe"], &["--insecure", "on nor off"]),
        (&["--node-id=1", "--advertise-http=http://a:1"], &["--advertise-http", "HOST:PORT"]),
        (&["--node-id=1", "--advertise-grpc=0.0.0.0:1"], &["--advertise-grpc", "own name or IP"]),
        (&["--node-id=1", "--config=/nowhere.yaml"], &["--config /nowhere.yaml", "readable YAML"]),
    ] {
        let (code, _, stderr) = serve(flags);
        assert_eq!(code, Some(2), "{flags:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{flags:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{flags:?}: {part:?} is not in {stderr}");
        }
    }
}

#[test]
fn unknown_words_are_refused() {
    for args in [
        &["serve", "--no-such-flag"][..],
        &["no-such-command"],
        &["dev", "--nodes=0"],
        &["dev", "--nodes=99"],
        &["backup"],
        &["backup", "verify"],
        &["restore", "f.backup", "--data-dir=d", "--node-id=1"],
        &["restore", "f.backup", "--data-dir=d", "--node-id=0", "--initial-cluster=1=a:1"],
        &["restore", "f.backup", "--data-dir=d", "--node-id=1", "--initial-cluster=a:1"],
        &["recover"],
        &["recover", "--data-dir=d", "--yes"],
        &[],
    ] {
        let (code, _, stderr) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {stderr}");
    }
    assert_eq!(run(&["--version"]).0, Some(0));
    assert_eq!(run(&["--help"]).0, Some(0));
}

#[test]
fn authentication_is_on_unless_it_is_switched_off() {
    // With it a node may listen where others reach it.
    let everywhere = ["--http-addr=192.0.2.1:7000", "--grpc-addr=192.0.2.1:7001"];
    for (auth, shown) in [(&[][..], "auth: \"on\""), (&["--auth=on"], "auth: \"on\"")] {
        let args = [&["serve", "--print-config", "--node-id=1"][..], &everywhere, auth].concat();
        let (code, stdout, stderr) = run(&args);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stdout.lines().any(|line| line == shown), "{stdout}");
    }
}

#[test]
fn without_authentication_every_listener_is_on_loopback_or_the_operator_says_so() {
    for listener in ["http", "metrics", "grpc", "raft"] {
        let flag = format!("--{listener}-addr=192.0.2.1:7000");
        let (code, _, stderr) = serve(&["--node-id=1", &flag]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(
            stderr.contains(&format!("--{listener}-addr")) && stderr.contains("--insecure"),
            "{stderr}"
        );
        assert_eq!(serve(&["--node-id=1", &flag, "--insecure"]).0, Some(0));
    }
}

#[test]
fn a_wildcard_needs_an_address_to_tell_others() {
    for listener in ["http", "grpc", "raft"] {
        let bind = format!("--{listener}-addr=0.0.0.0:7000");
        let (code, _, stderr) = serve(&["--node-id=1", "--insecure", &bind]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(&format!("--advertise-{listener} HOST:7000")), "{stderr}");
        let tell = format!("--advertise-{listener}=node1:7000");
        assert_eq!(serve(&["--node-id=1", "--insecure", &bind, &tell]).0, Some(0));
    }
    // The founding list says what others use for the node-to-node address.
    let (code, shown, stderr) = serve(&[
        "--node-id=1",
        "--insecure",
        "--raft-addr=0.0.0.0:7000",
        "--initial-cluster=1=node1:7000,2=node2:7000",
    ]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(shown.contains("advertise-raft: node1:7000"), "{shown}");
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let path = config_file(
        &folder,
        "node-id: 1\nhistory-limit: 11\nlog-format: json\nauth: off\ncache-bytes: 32MiB\n",
    );
    let (code, shown, stderr) = finish(
        program()
            .args(["serve", "--print-config", "--history-limit=33"])
            .env("LLM_CONFIG_CONFIG", &path)
            .env("LLM_CONFIG_HISTORY_LIMIT", "22")
            .env("LLM_CONFIG_LOG_FORMAT", "text")
            .env("LLM_CONFIG_LOG_LEVEL", ""),
    );
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "history-limit: 33",
        "log-format: text",
        "cache-bytes: 33554432",
        "log-level: info",
        "node-id: 1",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn a_wrong_environment_variable_is_named() {
    let (code, _, stderr) = finish(
        program()
            .args(["serve", "--auth=off", "--node-id=1"])
            .env("LLM_CONFIG_CACHE_BYTES", "lots"),
    );
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("LLM_CONFIG_CACHE_BYTES"), "{stderr}");
}

#[test]
fn a_wrong_file_is_named_with_line_and_field() {
    for (text, parts) in [
        (
            "node-id: 1\nauth: off\n\nhttp-addr: nonsense\n",
            &["node.yaml line 4", "field http-addr"][..],
        ),
        ("node-id: 1\nno-such-field: 1\n", &["node.yaml: line 2", "no-such-field"]),
        ("node-id: 1\nnode-id: 2\n", &["node.yaml: line 2, field node-id", "twice"]),
        ("node-id: [1\n", &["node.yaml: line"]),
        ("node-id: {a: b}\n", &["node.yaml: line 1, field node-id", "single text"]),
        ("- a\n", &["node.yaml: line 1"]),
    ] {
        let (code, _, stderr) = with_file(text, &["--auth=off"]);
        assert_eq!(code, Some(2), "{text:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{text:?}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{text:?}: {part:?} is not in {stderr}");
        }
    }
    let (code, _, stderr) = with_file("# nothing is set\n", &["--auth=off", "--node-id=1"]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn what_is_printed_is_a_file_that_means_the_same() {
    let flags = [
        "--node-id=7",
        "--data-dir=/tmp/with space",
        "--initial-cluster=7=a:1,8=[::1]:2",
        "--request-timeout=1500ms",
        "--backup-interval=0",
        "--backup-keep=3",
        "--cache-bytes=2MiB",
        "--storage-quota=0",
        "--disk-reserve=1GiB",
        "--advertise-http=node7:80",
        "--metrics-addr=[::1]:9",
    ];
    let (code, first, stderr) = serve(&flags);
    assert_eq!(code, Some(0), "{stderr}");
    let (code, second, stderr) = with_file(&first, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(first, second);
}

#[test]
fn a_node_that_joins_is_printed_as_a_file_that_means_the_same() {
    let (code, first, stderr) = serve(&["--node-id=4", "--join=a:1, http://b:2/"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(first.contains("http://a:1,http://b:2"), "{first}");
    let (code, second, stderr) = with_file(&first, &[]);
    assert_eq!((code, second), (Some(0), first), "{stderr}");
    // The list of founders in the file and the flag on the command line: both are named.
    let (code, _, stderr) =
        with_file("node-id: 4\nauth: off\ninitial-cluster: 4=a:1\n", &["--join=b:1"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(
        stderr.contains("--join") && stderr.contains("line 3, field initial-cluster"),
        "{stderr}"
    );
}

/// Names of the fields of a file, set or commented out as `#name: …`.
fn fields(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let line = line.strip_prefix('#').unwrap_or(line);
        let (name, _) = line.split_once(':')?;
        let plain = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        plain.then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn the_example_file_explains_every_option_and_works() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cluster/llm-config.example.yaml");
    let example = std::fs::read_to_string(&path).unwrap();
    let options: BTreeSet<String> =
        llm_config_server::settings::OPTION_NAMES.iter().map(|&n| n.to_owned()).collect();
    assert_eq!(fields(&example), options);

    let (code, shown, stderr) =
        finish(program().args(["serve", "--print-config", "--config"]).arg(&path));
    assert_eq!(code, Some(0), "{stderr}");
    // Values that the example only shows, commented out, are the defaults.
    let all_set: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if !fields(rest).is_empty() => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let (code, shown_all, stderr) = with_file(&all_set, &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(shown_all, shown);
    assert_eq!(fields(&shown), options);
}
