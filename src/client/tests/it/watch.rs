//! Laws of a watch: every change once, in order, whatever happens to the stream it comes through.

use std::time::Duration;

use crate::fake::{End, Fake, bookmark, change};
use llm_config_client::{Client, Error, Options, Watch, v1};

const PATIENCE: Duration = Duration::from_secs(20);

fn watch(fake: &Fake, from_revision: u64) -> Watch {
    let options = Options::default().timeout(Duration::from_secs(5));
    let request = v1::WatchRequest { namespace: "n".into(), from_revision, ..Default::default() };
    Client::with_options([fake.endpoint()], options).unwrap().watch(request)
}

async fn next(watch: &mut Watch) -> Option<Result<v1::WatchResponse, Error>> {
    tokio::time::timeout(PATIENCE, watch.next()).await.expect("the watch is stuck")
}

async fn revisions(watch: &mut Watch, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let response = next(watch).await.expect("the watch ended").expect("the watch failed");
        if !response.events.is_empty() {
            seen.push(response.revision);
        }
    }
    seen
}

#[tokio::test]
async fn resumes_after_the_last_delivered_revision_without_gap_or_duplicate() {
    let fake = Fake::start().await;
    fake.stream(vec![change(5), change(6)], End::Break)
        // A node that repeats itself.
        .stream(vec![change(6), change(7)], End::Close)
        .stream(vec![change(8), change(10)], End::Open);
    let mut watch = watch(&fake, 5);
    assert_eq!(revisions(&mut watch, 5).await, [5, 6, 7, 8, 10]);
    let from: Vec<u64> = fake.watched().iter().map(|request| request.from_revision).collect();
    assert_eq!(from, [5, 7, 8]);
}

#[tokio::test]
async fn a_bookmark_moves_the_resume_point() {
    let fake = Fake::start().await;
    fake.stream(vec![change(5), bookmark(20)], End::Break)
        .stream(vec![bookmark(11), change(21)], End::Open);
    let mut watch = watch(&fake, 5);
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(next(&mut watch).await.unwrap().unwrap().revision);
    }
    assert_eq!(seen, [5, 20, 21], "the older bookmark of a node that is behind is dropped");
    assert_eq!(fake.watched()[1].from_revision, 21);
}

#[tokio::test]
async fn from_now_is_pinned_before_the_first_stream_can_break() {
    let fake = Fake::start().await;
    fake.at_revision(30).stream(Vec::new(), End::Break).stream(vec![change(31)], End::Open);
    let mut watch = watch(&fake, 0);
    assert_eq!(revisions(&mut watch, 1).await, [31]);
    let from: Vec<u64> = fake.watched().iter().map(|request| request.from_revision).collect();
    assert_eq!(from, [31, 31]);
}

#[tokio::test]
async fn an_overloaded_stream_is_resumed() {
    let fake = Fake::start().await;
    fake.stream(vec![change(2)], End::Refuse("OVERLOADED")).stream(vec![change(3)], End::Open);
    assert_eq!(revisions(&mut watch(&fake, 1), 2).await, [2, 3]);
}

#[tokio::test]
async fn a_compacted_start_ends_the_watch_with_the_reason() {
    let fake = Fake::start().await;
    fake.stream(Vec::new(), End::Refuse("REVISION_COMPACTED"));
    let mut watch = watch(&fake, 1);
    let error = next(&mut watch).await.unwrap().unwrap_err();
    assert_eq!(error.rejection().unwrap().code, "REVISION_COMPACTED");
    assert!(next(&mut watch).await.is_none());
}

#[tokio::test]
async fn a_cluster_that_never_answers_is_an_error_not_a_wait() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    drop(listener);
    let options = Options::default().timeout(Duration::from_millis(300));
    let client = Client::with_options([endpoint], options).unwrap();
    let mut watch = client.watch(v1::WatchRequest::default());
    assert!(matches!(next(&mut watch).await, Some(Err(Error::NotSent { .. }))));
    assert!(next(&mut watch).await.is_none());
}
