//! The program itself, run as a process: what it writes, prints and exits with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod store;

use std::process::{Output, Stdio};

use store::Store;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const ENTRIES: u64 = 350;

fn command(store: &Store, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-config"));
    command
        .args(line.split_whitespace())
        .env("LLM_CONFIG_ENDPOINTS", store.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn run(store: &Store, line: &str, stdin: &str) -> Output {
    let mut child = command(store, line).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).await.unwrap();
    drop(input);
    child.wait_with_output().await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// More than three pages, with names and numbers that are easily mangled.
fn document() -> String {
    let lines: Vec<String> = (0..ENTRIES)
        .map(|i| format!("  \"bedrock/us.model-{i:04}:0\": {{\"price\":{i}.10,\"big\":9007199254740993{i},\"e\":2.50E-7}}"))
        .collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

#[tokio::test]
async fn import_then_export_gives_the_same_text() {
    let store = Store::start().await;
    let import = run(&store, "import - --namespace models --env prod", &document()).await;
    assert!(import.status.success(), "{}", text(&import.stderr));
    assert!(text(&import.stderr).contains("350 written, 0 unchanged, 0 failed"));
    assert!(import.stdout.is_empty(), "words do not belong on stdout");

    let export = run(&store, "export --namespace models --env prod", "").await;
    assert_eq!(text(&export.stdout), document());
}

#[tokio::test]
async fn an_import_that_loses_answers_writes_nothing_twice() {
    let store = Store::start().await;
    store.lose_every(20);
    let import = run(&store, "import - --namespace models", &document()).await;
    assert!(import.status.success(), "{}", text(&import.stderr));
    assert_eq!(store.revision(), ENTRIES);
}

#[tokio::test]
async fn a_second_import_writes_only_what_differs() {
    let store = Store::start().await;
    run(&store, "import - --namespace models", &document()).await;
    let changed = document().replace("\"price\":7.10", "\"price\":7.1");
    let again = run(&store, "import - --namespace models", &changed).await;
    assert!(
        text(&again.stderr).contains("1 written, 349 unchanged, 0 failed"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(store.revision(), ENTRIES + 1);
}

#[tokio::test]
async fn an_entry_that_is_refused_fails_the_import_but_not_the_others() {
    let store = Store::start().await;
    store.refuse("b");
    let import = run(&store, "import - --namespace n", "{\"a\":1,\"b\":2,\"c\":3}").await;
    assert_eq!(import.status.code(), Some(1));
    let words = text(&import.stderr);
    assert!(words.contains("2 written, 0 unchanged, 1 failed"), "{words}");
    assert!(words.contains("\"b\": INVALID_ARGUMENT"), "{words}");
}

#[tokio::test]
async fn exit_codes_tell_absent_from_wrong_usage() {
    let store = Store::start().await;
    let set = run(&store, "set n k - --string", "say \"hi\"").await;
    assert!(set.status.success(), "{}", text(&set.stderr));
    let get = run(&store, "get n k", "").await;
    assert_eq!((get.status.code(), text(&get.stdout)), (Some(0), "\"say \\\"hi\\\"\"\n".into()));
    let json = run(&store, "get n k --output json", "").await;
    assert!(text(&json.stdout).contains("\"version\": 1"), "{}", text(&json.stdout));

    let absent = run(&store, "get n other", "").await;
    assert_eq!((absent.status.code(), text(&absent.stdout)), (Some(1), String::new()));
    assert!(text(&absent.stderr).contains("NOT_FOUND"));

    for usage in [
        "set n k hello",
        "get n",
        "get n k --endpoints nowhere",
        "import /no/such/file --namespace n",
    ] {
        let output = run(&store, usage, "").await;
        assert_eq!(output.status.code(), Some(2), "{usage}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn the_members_are_listed_and_changed() {
    let store = Store::start().await;
    let ids = |output: &Output| -> Vec<String> {
        let table = text(&output.stdout);
        let first = |line: &str| line.split_whitespace().next().unwrap().to_owned();
        table.lines().skip(1).map(first).collect()
    };
    let list = run(&store, "cluster list", "").await;
    assert_eq!(ids(&list), ["1", "2", "3"], "{}", text(&list.stderr));
    assert!(text(&list.stdout).trim_start().starts_with("ID"), "{}", text(&list.stdout));

    let added =
        run(&store, "cluster add --id 4 --raft h:1 --http h:2 --grpc h:3 --output json", "").await;
    let members: serde_json::Value = serde_json::from_slice(&added.stdout).unwrap();
    assert_eq!((&members[3]["id"], &members[3]["raft"]), (&4.into(), &"h:1".into()));
    let words = text(&added.stderr);
    assert!(words.contains("cluster promote 4") && words.contains("--with 4"), "{words}");

    for (line, words) in [
        ("cluster promote 4", "node 4 votes"),
        ("cluster demote 2", "cluster promote 2"),
        ("cluster transfer-leader --to 3", "node 3 leads"),
        ("cluster transfer-leader", "node 2 leads"),
        ("cluster replace 3 --with 2", "node 2 votes in the place of node 3"),
        ("cluster remove 4 --force", "never used again"),
    ] {
        let output = run(&store, line, "").await;
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{line}: {}", text(&output.stderr));
    }
    assert_eq!(ids(&run(&store, "cluster list", "").await), ["1", "2"]);
    let yaml = run(&store, "cluster list --output yaml", "").await;
    assert!(text(&yaml.stdout).contains("cluster_id: c-1"), "{}", text(&yaml.stdout));

    for (line, code, words) in [
        ("cluster remove 1", 1, "QUORUM_AT_RISK"),
        ("cluster promote 9", 1, "NOT_FOUND"),
        ("cluster promote 0", 2, "0"),
        ("cluster add --id 5", 2, "--raft"),
    ] {
        let output = run(&store, line, "").await;
        assert_eq!(output.status.code(), Some(code), "{line}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{line}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty(), "{line}");
    }
    let status = run(&store, "status", "").await;
    assert!(text(&status.stdout).contains("0.1.0"), "{}", text(&status.stdout));
}

#[tokio::test]
async fn a_reader_that_leaves_early_is_no_fault() {
    let store = Store::start().await;
    run(&store, "import - --namespace models", &document()).await;
    let mut child = command(&store, "list models --output json").spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().await.unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[tokio::test]
async fn completions_need_no_cluster() {
    let store = Store::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&store, &format!("completions {shell}"), "").await;
        assert!(output.status.success() && text(&output.stdout).contains("llm-config"), "{shell}");
    }
}
