//! The program itself, run as a process: what it writes, prints and exits with.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod cases;
mod store;

use std::process::{Output, Stdio};

use store::Store;
use store::security::{MADE, TOKEN};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

const ENTRIES: u64 = 350;

pub(crate) fn command(store: &Store, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llm-config"));
    command
        .args(line.split_whitespace())
        .env("LLM_CONFIG_ENDPOINTS", store.address.to_string())
        .env_remove("LLM_CONFIG_TOKEN")
        .env_remove("LLM_CONFIG_TOKEN_FILE")
        .env_remove("LLM_CONFIG_CONTEXT")
        // No contexts of whoever runs the tests.
        .env("LLM_CONFIG_FILE", "/nonexistent/config.yaml")
        .env_remove("NO_COLOR")
        .env_remove("VISUAL")
        .env("EDITOR", "false")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

pub(crate) async fn run(store: &Store, line: &str, stdin: &str) -> Output {
    let mut child = command(store, line).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).await.unwrap();
    drop(input);
    child.wait_with_output().await.unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// More than three pages, with names and numbers that are easily mangled.
pub(crate) fn document() -> String {
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
    assert!(
        text(&import.stderr)
            .contains("350 added, 0 changed, 0 deleted, 0 unchanged, at revision 1")
    );
    assert!(import.stdout.is_empty(), "words do not belong on stdout");

    let export = run(&store, "export --namespace models --env prod", "").await;
    assert_eq!(text(&export.stdout), document());
    assert!(text(&export.stderr).contains("350 entries of \"models\" (prod) at revision 1"));

    // As YAML and back: every number as it was written.
    let (yaml, _) = done(&store, "export --namespace models --env prod --output yaml", "").await;
    done(&store, "import - --namespace copy --env prod --format yaml", &yaml).await;
    let copy = run(&store, "export --namespace copy --env prod", "").await;
    let compact = document().replace(": {", ":{");
    assert_eq!(text(&copy.stdout).replace(": {", ":{"), compact);
}

#[tokio::test]
async fn an_import_that_loses_answers_writes_nothing_twice() {
    let store = Store::start().await;
    store.lose_every(2);
    for version in [1, 2] {
        let document = document().replace("2.50E-7", &format!("{version}E-7"));
        let import = run(&store, "import - --namespace models", &document).await;
        assert!(import.status.success(), "{}", text(&import.stderr));
        assert_eq!(store.revision(), version, "one change for all entries");
    }
    assert_eq!(store.entry("models", "bedrock/us.model-0007:0").unwrap().version, 2);
}

#[tokio::test]
async fn a_second_import_writes_only_what_differs() {
    let store = Store::start().await;
    run(&store, "import - --namespace models", &document()).await;
    let changed = document().replace("\"price\":7.10", "\"price\":7.1");
    let again = run(&store, "import - --namespace models", &changed).await;
    assert!(
        text(&again.stderr).contains("0 added, 1 changed, 0 deleted, 349 unchanged"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(store.revision(), 2);
}

#[tokio::test]
async fn an_entry_that_is_refused_fails_the_import_as_a_whole() {
    let store = Store::start().await;
    store.refuse("b");
    let import = run(&store, "import - --namespace n", "{\"a\":1,\"b\":2,\"c\":3}").await;
    assert_eq!(import.status.code(), Some(1));
    let words = text(&import.stderr);
    assert!(words.contains("were not written") && words.contains("INVALID_ARGUMENT"), "{words}");
    assert_eq!(store.revision(), 0);
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

/// The program ends well; what it printed, and its words.
pub(crate) async fn done(store: &Store, line: &str, stdin: &str) -> (String, String) {
    let output = run(store, line, stdin).await;
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

pub(crate) async fn json(store: &Store, line: &str) -> serde_json::Value {
    serde_json::from_str(&done(store, &format!("{line} --output json"), "").await.0).unwrap()
}

#[tokio::test]
async fn a_token_is_given_by_option_file_or_environment_and_never_printed() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let file = file.to_str().unwrap();
    for line in [format!("whoami --token {TOKEN}"), format!("whoami --token-file {file}")] {
        let (table, words) = done(&store, &line, "").await;
        assert!(table.contains("ann") && !format!("{table}{words}").contains(TOKEN), "{table}");
    }
    for (name, value) in [("LLM_CONFIG_TOKEN", TOKEN), ("LLM_CONFIG_TOKEN_FILE", file)] {
        let output = command(&store, "whoami").env(name, value).output().await.unwrap();
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    }
    for (line, code, words) in [
        ("whoami", 1, "UNAUTHENTICATED"),
        ("whoami --token lcm_wrong", 1, "UNAUTHENTICATED"),
        ("whoami --token-file /nowhere/token", 2, "/nowhere/token"),
        ("whoami --token a --token-file b", 2, "--token-file"),
    ] {
        let output = run(&store, line, "").await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(words) && !said.contains("lcm_wrong"), "{line}: {said}");
    }
}

#[tokio::test]
async fn a_token_is_printed_once_for_a_script_to_take() {
    let store = Store::start().await;
    let (made, words) =
        done(&store, "token create ci --role viewer --namespace team --env prod", "").await;
    assert_eq!(made, format!("{MADE}\n"));
    assert!(words.contains("token abc") && !words.contains(MADE), "{words}");
    let listed = json(&store, "token list").await;
    assert_eq!((&listed[0]["id"], &listed[0]["environments"][0]), (&"abc".into(), &"prod".into()));
    assert!(!listed.to_string().contains(MADE));
    done(&store, "token revoke abc", "").await;
    let again = run(&store, "token revoke abc", "").await;
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("NOT_FOUND"));

    let created = json(&store, "token create ci --role viewer").await;
    assert_eq!((&created["token"], &created["certificate"]), (&MADE.into(), &().into()));
    let by_certificate =
        json(&store, "token create ci --role viewer --certificate ci.example").await;
    assert!(by_certificate.get("token").is_none(), "{by_certificate}");
}

#[tokio::test]
async fn roles_are_put_by_options_or_from_what_was_shown() {
    let store = Store::start().await;
    done(&store, "role put ops --grant read,write@team:prod --grant read --description x", "")
        .await;
    let (shown, _) = done(&store, "role get ops --output json", "").await;
    done(&store, "role put copy --file -", &shown).await;
    let roles = json(&store, "role list").await;
    assert_eq!((&roles[1]["name"], &roles[0]["grants"]), (&"copy".into(), &roles[1]["grants"]));
    done(&store, "role delete ops", "").await;
    assert_eq!(run(&store, "role get ops", "").await.status.code(), Some(1));
    assert_eq!(run(&store, "role put x --grant read --env prod", "").await.status.code(), Some(2));
    assert_eq!(run(&store, "role put x --file -", "{").await.status.code(), Some(2));
}

#[tokio::test]
async fn bans_and_keys_are_shown_and_changed() {
    let store = Store::start().await;
    assert_eq!(json(&store, "ban list").await[0]["ip"], "192.0.2.1");
    done(&store, "ban lift 192.0.2.1", "").await;
    assert_eq!(store.security.lifted(), ["192.0.2.1"]);

    let keys = json(&store, "keys list").await;
    assert_eq!(
        (&keys["master_keys"][0], &keys["data_keys"][0]["version"]),
        (&"m-1".into(), &3.into())
    );
    done(&store, "keys rotate data --namespace team", "").await;
    done(&store, "keys rotate master", "").await;
    let asked: Vec<_> =
        store.security.rotated().into_iter().map(|r| (r.target, r.namespace)).collect();
    assert_eq!(asked, [(1, "team".to_owned()), (2, String::new())]);
}

#[tokio::test]
async fn the_audit_log_is_read_to_its_end() {
    let store = Store::start().await;
    let sequences = |records: &serde_json::Value| -> Vec<u64> {
        records.as_array().unwrap().iter().map(|r| r["sequence"].as_u64().unwrap()).collect()
    };
    assert_eq!(sequences(&json(&store, "audit list").await), [3, 2, 1]);
    assert_eq!(sequences(&json(&store, "audit list --limit 2").await), [3, 2]);
    assert!(sequences(&json(&store, "audit list --type none").await).is_empty());
    let (lines, _) = done(&store, "audit export --output json", "").await;
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((lines.lines().count(), &first["hash"]), (3, &"ab".repeat(32).into()));
    let wrong = run(&store, "audit list --from yesterday", "").await;
    assert_eq!(wrong.status.code(), Some(2));

    done(&store, "audit retention --max-age 400d --max-bytes 512MiB", "").await;
    let kept = json(&store, "audit retention --max-age 30d").await;
    assert_eq!(
        (&kept["max_age_ms"], &kept["max_bytes"]),
        (&2_592_000_000_u64.into(), &(512 << 20).into())
    );
}

#[tokio::test]
async fn a_broken_audit_log_is_a_failure_that_names_the_place() {
    let store = Store::start().await;
    let (table, _) = done(&store, "audit verify", "").await;
    assert!(table.contains("whole"), "{table}");
    store.security.break_chain();
    let output = run(&store, "audit verify --output json", "").await;
    assert_eq!(output.status.code(), Some(1));
    let words = text(&output.stderr);
    assert!(words.contains("broken at record 2: it was altered"), "{words}");
    let verdicts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&verdicts[0]["whole"], &verdicts[0]["broken"]["sequence"]),
        (&false.into(), &2.into())
    );
}

#[tokio::test]
async fn secrets_are_shown_on_request_and_neither_exported_nor_overwritten_by_their_mask() {
    let store = Store::start().await;
    done(&store, "set n key - --string --secret", "hunter2").await;
    done(&store, "set n plain 1", "").await;
    assert_eq!(done(&store, "get n key", "").await.0, "\"********\"\n");
    assert_eq!(done(&store, "get n key --reveal", "").await.0, "\"hunter2\"\n");

    let (exported, words) = done(&store, "export --namespace n", "").await;
    assert_eq!(exported, "{\n  \"plain\": 1\n}\n");
    assert!(words.contains("1 secret was left out"), "{words}");

    let masked = "{\"key\":\"********\",\"plain\":2}";
    let (_, words) = done(&store, "import - --namespace n", masked).await;
    assert!(words.contains("1 changed") && words.contains("1 masked"), "{words}");
    assert_eq!(done(&store, "get n key --reveal", "").await.0, "\"hunter2\"\n");
    let unknown = run(&store, "import - --namespace other", masked).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(text(&unknown.stderr).contains("the mask of a secret and not its value for \"key\""));

    done(&store, "import - --namespace n", "{\"key\":\"hunter3\"}").await;
    assert_eq!(done(&store, "get n key", "").await.0, "\"********\"\n", "it stays a secret");
    done(&store, "set n key 5 --secret=false", "").await;
    assert_eq!(done(&store, "get n key", "").await.0, "5\n");
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
async fn a_backup_is_checked_from_stdin_too() {
    let store = Store::start().await;
    let broken = run(&store, "backup verify -", "no backup").await;
    assert_eq!(broken.status.code(), Some(1), "{}", text(&broken.stderr));
    assert!(text(&broken.stderr).starts_with("error: -: "), "{}", text(&broken.stderr));
    assert!(broken.stdout.is_empty());
}

#[tokio::test]
async fn completions_need_no_cluster() {
    let store = Store::start().await;
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&store, &format!("completions {shell}"), "").await;
        assert!(output.status.success() && text(&output.stdout).contains("llm-config"), "{shell}");
    }
}
