//! The file of contexts, and what goes before what.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use crate::store::Store;
use crate::store::security::TOKEN;
use crate::{command, text};

/// Runs with a file of contexts and without an endpoint of its own.
async fn with(store: &Store, file: &std::path::Path, line: &str) -> Output {
    let mut command = command(store, line);
    command.env("LLM_CONFIG_FILE", file).env_remove("LLM_CONFIG_ENDPOINTS");
    command.output().await.unwrap()
}

#[tokio::test]
async fn a_context_is_made_used_shown_and_deleted() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("new/config.yaml");
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let set = format!(
        "context set here --endpoints {} --token-file {} --env production --output json",
        store.address,
        token.display()
    );
    for line in [set.as_str(), "context set dead --endpoints 127.0.0.1:1"] {
        let output = with(&store, &file, line).await;
        assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    }
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // The first one is current: its endpoint, token and output count.
    let who = with(&store, &file, "whoami").await;
    let who: serde_json::Value = serde_json::from_slice(&who.stdout).unwrap();
    assert_eq!(who["name"], "ann");
    let written = with(&store, &file, "set n k 1").await;
    assert!(text(&written.stdout).contains("\"environment\": \"production\""));
    let table = with(&store, &file, "list n --env base --output table").await;
    assert!(!text(&table.stdout).contains('k') && text(&table.stdout).contains("KEY"));

    let listed = with(&store, &file, "context list").await;
    assert!(text(&listed.stdout).contains("*") && text(&listed.stdout).contains("dead"));
    let shown = with(&store, &file, "context show here").await;
    assert!(text(&shown.stdout).contains("environment: production"), "{}", text(&shown.stdout));

    let elsewhere = with(&store, &file, "whoami --context dead --timeout 1").await;
    assert_eq!(elsewhere.status.code(), Some(1));
    assert!(with(&store, &file, "context use dead").await.status.success());
    assert_eq!(with(&store, &file, "whoami --timeout 1").await.status.code(), Some(1));
    let mut by_variable = command(&store, "whoami");
    by_variable.env("LLM_CONFIG_FILE", &file).env("LLM_CONFIG_CONTEXT", "here");
    assert!(by_variable.output().await.unwrap().status.success());

    assert!(with(&store, &file, "context delete dead").await.status.success());
    for (line, words) in [
        ("whoami --context dead", "dead"),
        ("context use dead", "dead"),
        ("context show", "no context is current"),
    ] {
        let output = with(&store, &file, line).await;
        assert_eq!(output.status.code(), Some(2), "{line}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{line}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_token_is_in_the_file_only_when_that_is_asked_for_and_never_shown() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    let line = format!("context set a --endpoints {} --token {TOKEN}", store.address);
    let refused = with(&store, &file, &line).await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--store-token") && !file.exists());
    assert!(with(&store, &file, &format!("{line} --store-token")).await.status.success());
    assert!(with(&store, &file, "whoami").await.status.success());
    for line in ["context show", "context list", "context show --output json"] {
        let output = with(&store, &file, line).await;
        assert!(output.status.success());
        assert!(!text(&output.stdout).contains(TOKEN), "{line}");
    }
}

#[tokio::test]
async fn an_unknown_field_is_named_and_stops_everything_that_needs_it() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, "contexts:\n  a:\n    endpoint: x\n").unwrap();
    for line in ["whoami", "context list"] {
        let output = with(&store, &file, line).await;
        assert_eq!(output.status.code(), Some(2), "{line}");
        let words = text(&output.stderr);
        assert!(words.contains("endpoint") && words.contains("config.yaml"), "{words}");
    }
    assert!(with(&store, &file, "completions bash").await.status.success());
}
