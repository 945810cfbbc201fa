//! `edit` with editors that are scripts.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;

use crate::store::Store;
use crate::{command, done, text};

/// An editor that does what the script says; `$1` is the file. What it leaves behind goes into the folder.
fn editor(folder: &Path, script: &str) -> String {
    let path = folder.join("editor");
    std::fs::write(&path, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

async fn edit(store: &Store, folder: &Path, line: &str, script: &str) -> Output {
    let mut command = command(store, line);
    command.env("EDITOR", editor(folder, script)).env("TMPDIR", folder);
    command.env("FOLDER", folder).env("LLM_CONFIG", env!("CARGO_BIN_EXE_llm-config"));
    command.output().await.unwrap()
}

/// What is left of the texts.
fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    entries
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.starts_with("llm-config"))
        .collect()
}

#[tokio::test]
async fn what_was_edited_is_shown_and_written_and_the_rest_of_the_entry_stays() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    done(&store, "set n k {\"a\":1.0,\"b\":[2]} --description what --tag t", "").await;
    let script = "cp \"$1\" \"$FOLDER/seen\"; stat -c %a \"$1\" > \"$FOLDER/mode\"; sed -i 's/1.0/1.00/' \"$1\"";
    let output = edit(&store, folder.path(), "edit n/k --comment why", script).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let seen = std::fs::read_to_string(folder.path().join("seen")).unwrap();
    assert_eq!(seen, "{\n  \"a\": 1.0,\n  \"b\": [\n    2\n  ]\n}\n");
    assert_eq!(std::fs::read_to_string(folder.path().join("mode")).unwrap(), "600\n");
    let words = text(&output.stderr);
    assert!(words.contains("-   \"a\": 1.0,\n+   \"a\": 1.00,"), "{words}");
    let entry = store.entry("n", "k").unwrap();
    assert_eq!(&entry.value[..], b"{\"a\":1.00,\"b\":[2]}");
    assert_eq!(
        (entry.version, entry.description.as_str(), entry.comment.as_str(), entry.tags.len()),
        (2, "what", "why", 1)
    );
    assert!(left(folder.path()).is_empty());
}

#[tokio::test]
async fn what_is_left_as_it_is_writes_nothing() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    done(&store, "set n k {\"a\":1,\"b\":2}", "").await;
    for (line, script, code, words) in [
        ("edit n k", "true", 0, "unchanged"),
        ("edit n k", "echo '{\"b\":2,\"a\":1}' > \"$1\"", 0, "unchanged"),
        ("edit n k", ": > \"$1\"", 1, "nothing was written"),
        ("edit n k", "exit 3", 1, "nothing was written"),
        ("edit n k --dry-run", "echo 7 > \"$1\"", 0, "nothing was written"),
        ("edit n k --text", "true", 2, "--text"),
        ("edit n", "true", 2, "key"),
        ("edit n/a/k", "true", 2, "more than one way"),
        ("edit n absent", "true", 1, "NOT_FOUND"),
    ] {
        let output = edit(&store, folder.path(), line, script).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line} {script}: {said}");
        assert!(said.contains(words), "{line} {script}: {said}");
    }
    assert_eq!(store.revision(), 1);
    assert!(left(folder.path()).is_empty());
}

#[tokio::test]
async fn a_text_that_is_no_value_comes_back_with_what_is_wrong() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    done(&store, "set n k 1", "").await;
    // The first time it breaks the text, the second time it mends what it was given.
    let script = "if [ -e \"$FOLDER/once\" ]; then cp \"$1\" \"$FOLDER/seen\"; sed -i 's/:}/:1}/' \"$1\"; else echo '{\"a\":}' > \"$1\"; touch \"$FOLDER/once\"; fi";
    let output = edit(&store, folder.path(), "edit n k", script).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let seen = std::fs::read_to_string(folder.path().join("seen")).unwrap();
    assert!(seen.starts_with("# this is not JSON") && seen.ends_with("{\"a\":}\n"), "{seen}");
    assert_eq!(&store.entry("n", "k").unwrap().value[..], b"{\"a\":1}");

    // Who leaves the mistake gives up, and keeps the text.
    let script = "[ -e \"$FOLDER/twice\" ] || echo '{\"a\":}' > \"$1\"; touch \"$FOLDER/twice\"";
    let output = edit(&store, folder.path(), "edit n k", script).await;
    assert_eq!(output.status.code(), Some(1));
    let kept = left(folder.path());
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert!(text(&output.stderr).contains(&kept[0]), "{}", text(&output.stderr));
    assert_eq!(store.revision(), 2);
}

#[tokio::test]
async fn who_comes_second_keeps_the_text_and_overwrites_nothing() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    done(&store, "set n k 1", "").await;
    let script = "\"$LLM_CONFIG\" set n k 2 > \"$FOLDER/out\"; echo 3 > \"$1\"";
    let output = edit(&store, folder.path(), "edit n k", script).await;
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    let kept = left(folder.path());
    assert_eq!(kept.len(), 1, "{words}");
    assert!(words.contains("VERSION_CONFLICT") && words.contains(&kept[0]), "{words}");
    assert!(words.contains("llm-config diff n k --env base --from 1 --to 2"), "{words}");
    let kept = folder.path().join(&kept[0]);
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "3\n");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(&store.entry("n", "k").unwrap().value[..], b"2");
}

#[tokio::test]
async fn a_secret_is_edited_on_request_and_leaves_nothing_behind() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    done(&store, "set n key - --string --secret", "hunter2").await;
    let refused = edit(&store, folder.path(), "edit n key", "true").await;
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--reveal"));

    let script = "echo \"$1\" > \"$FOLDER/path\"; sed -i s/hunter2/hunter3/ \"$1\"";
    let output = edit(&store, folder.path(), "edit n key --reveal --text", script).await;
    let shown = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success() && !shown.contains("hunter"), "{shown}");
    let entry = store.entry("n", "key").unwrap();
    assert_eq!((&entry.value[..], entry.secret), (&b"\"hunter3\""[..], true));

    // Also when it cannot be written.
    let script = "echo \"$1\" > \"$FOLDER/path\"; printf '\"hunter4\"' | \"$LLM_CONFIG\" set n key - > \"$FOLDER/out\"; echo '\"hunter5\"' > \"$1\"";
    let output = edit(&store, folder.path(), "edit n key --reveal", script).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(left(folder.path()).is_empty() && !text(&output.stderr).contains("hunter"));
    let path = std::fs::read_to_string(folder.path().join("path")).unwrap();
    assert!(!Path::new(path.trim()).exists(), "{path}");
    if Path::new("/dev/shm").is_dir() {
        assert!(path.starts_with("/dev/shm/"), "{path}");
    }
}

#[tokio::test]
async fn a_text_is_edited_as_it_is() {
    let store = Store::start().await;
    let folder = tempfile::tempdir().unwrap();
    done(&store, "set n prompt - --string", "You are \"kind\".\nBe brief.").await;
    let script = "cp \"$1\" \"$FOLDER/seen\"; sed -i s/brief/short/ \"$1\"";
    let output = edit(&store, folder.path(), "edit n prompt --text", script).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let seen = std::fs::read_to_string(folder.path().join("seen")).unwrap();
    assert_eq!(seen, "You are \"kind\".\nBe brief.\n");
    assert!(text(&output.stderr).contains("- Be brief.\n+ Be short."), "{}", text(&output.stderr));
    let value = store.entry("n", "prompt").unwrap().value;
    assert_eq!(&value[..], br#""You are \"kind\".\nBe short.""#);
}
