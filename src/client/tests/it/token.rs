//! Laws of tokens: what is shown, and what a refusal of it leads to.

use std::path::PathBuf;

use crate::fake::{End, Fake, Reply, bookmark, change};
use llm_config_client::{Client, Error, Options, v1};

fn get() -> v1::GetRequest {
    v1::GetRequest { namespace: "n".into(), key: "k".into(), ..Default::default() }
}

fn client(node: &Fake, options: Options) -> Client {
    Client::with_options([node.endpoint()], options).unwrap()
}

fn code(error: &Error) -> &str {
    &error.rejection().unwrap_or_else(|| panic!("{error}")).code
}

fn bearers(tokens: &[&str]) -> Vec<Option<String>> {
    tokens.iter().map(|token| Some(format!("Bearer {token}"))).collect()
}

struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, text).unwrap();
        Self { _folder: folder, path }
    }
}

#[tokio::test]
async fn every_call_shows_the_token_and_none_without_one() {
    let node = Fake::start().await;
    node.stream(vec![bookmark(1)], End::Open);
    let known = client(&node, Options::default().token("abc"));
    known.get(get()).await.unwrap();
    known.set(v1::SetRequest::default()).await.unwrap();
    known.watch(v1::WatchRequest { from_revision: 1, ..Default::default() }).next().await;
    client(&node, Options::default()).get(get()).await.unwrap();
    let mut expected = bearers(&["abc", "abc", "abc"]);
    expected.push(None);
    assert_eq!(node.shown(), expected);
}

#[tokio::test]
async fn a_refused_token_is_shown_once_more_in_its_life() {
    let node = Fake::start().await;
    node.reply([Reply::Refuse("UNAUTHENTICATED"), Reply::Refuse("UNAUTHENTICATED")]);
    let client = client(&node, Options::default().token("abc"));
    assert_eq!(code(&client.get(get()).await.unwrap_err()), "UNAUTHENTICATED");
    assert_eq!(node.gets().len(), 2, "the node may not have heard of it");
    node.reply([Reply::Refuse("UNAUTHENTICATED")]);
    assert_eq!(code(&client.get(get()).await.unwrap_err()), "UNAUTHENTICATED");
    assert_eq!(node.gets().len(), 3, "it has had its second chance");
}

#[tokio::test]
async fn a_new_token_that_a_node_hears_of_late_is_let_in() {
    let node = Fake::start().await;
    node.reply([Reply::Refuse("UNAUTHENTICATED"), Reply::Done(1)]);
    client(&node, Options::default().token("abc")).get(get()).await.unwrap();
}

#[tokio::test]
async fn a_revoked_token_and_a_missing_right_are_final() {
    let node = Fake::start().await;
    node.reply([Reply::Done(1), Reply::Refuse("UNAUTHENTICATED")]);
    let client = client(&node, Options::default().token("abc"));
    client.get(get()).await.unwrap();
    assert_eq!(code(&client.get(get()).await.unwrap_err()), "UNAUTHENTICATED");
    node.reply([Reply::Refuse("PERMISSION_DENIED")]);
    assert_eq!(code(&client.get(get()).await.unwrap_err()), "PERMISSION_DENIED");
    assert_eq!(node.gets().len(), 3);
}

#[tokio::test]
async fn a_token_is_exchanged_while_the_client_runs() {
    let node = Fake::start().await;
    let file = File::with("one\n");
    let client = client(&node, Options::default().token_file(&file.path));
    client.get(get()).await.unwrap();
    std::fs::write(&file.path, "two\n").unwrap();
    node.reply([Reply::Refuse("UNAUTHENTICATED")]);
    client.get(get()).await.unwrap();
    let shown = node.shown();
    assert_eq!(shown.first(), bearers(&["one"]).first());
    assert_eq!(shown.last(), bearers(&["two"]).last());
    assert!(shown.len() <= 3, "{shown:?}");
}

#[tokio::test]
async fn a_watch_goes_on_with_the_next_token() {
    let node = Fake::start().await;
    let file = File::with("one");
    node.stream(vec![change(5)], End::Refuse("UNAUTHENTICATED"));
    node.stream(vec![change(6)], End::Refuse("UNAUTHENTICATED"));
    let client = client(&node, Options::default().token_file(&file.path));
    let mut watch = client.watch(v1::WatchRequest { from_revision: 5, ..Default::default() });
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 5);
    std::fs::write(&file.path, "another").unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap().revision, 6);
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(code(&error), "UNAUTHENTICATED", "there is no third one");
    assert!(watch.next().await.is_none());
    assert_eq!(node.shown(), bearers(&["one", "another"]));
}

#[tokio::test]
async fn a_token_that_cannot_be_one_is_refused_before_anything_is_sent() {
    for options in
        [Options::default().token("two words"), Options::default().token_file("/nowhere/token")]
    {
        let error = Client::with_options(["127.0.0.1:1"], options).unwrap_err();
        assert!(matches!(error, Error::InvalidToken { .. }), "{error}");
        assert!(!error.to_string().contains("two words"), "{error}");
    }
}
