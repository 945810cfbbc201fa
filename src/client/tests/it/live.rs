//! Laws of a live configuration: it follows, it keeps what is good, it tells what is not, and it starts without a node.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use llm_config_client::{Client, Config, Environment, Error, Live, Namespace, Source, v1};
use serde::Deserialize;

use crate::fake::proxy::{Mode, Proxy};
use crate::fake::{End, Fake, Reply, until};

const PATIENCE: Duration = Duration::from_secs(20);
const KEY: [u8; 32] = [9; 32];

#[derive(Debug, Deserialize)]
struct Settings {
    limit: u32,
    #[serde(default)]
    password: Option<String>,
}

fn app(endpoint: &str) -> Namespace {
    let client = Client::builder()
        .endpoint(endpoint)
        .timeout(Duration::from_secs(2))
        .attempt_timeout(Duration::from_millis(500))
        .follow_members(false)
        .build()
        .unwrap();
    client.namespace("n").environment(Environment::Production)
}

fn live(endpoint: &str) -> Live<Settings> {
    app(endpoint).live().start_timeout(Duration::from_secs(1))
}

async fn changed(config: &mut Config<Settings>) {
    tokio::time::timeout(PATIENCE, config.changed()).await.expect("nothing changes").unwrap();
}

/// Waits for this value.
async fn becomes(config: &mut Config<Settings>, limit: u32) {
    while config.get().limit != limit {
        changed(config).await;
    }
}

struct Cache {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn cache() -> Cache {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    Cache { _folder: folder, path }
}

/// An address where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

#[tokio::test]
async fn it_follows_what_its_environment_may_take_values_from() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut config = live(&node.endpoint()).await.unwrap();
    assert_eq!(config.get().limit, 1);
    let kept = config.get();
    for (revision, (source, limit)) in (6..).zip([("base", 2), ("production", 3), ("base", 4)]) {
        node.holds_from(source, revision, "limit", &limit.to_string()).tells(source, revision);
        becomes(&mut config, limit).await;
        let snapshot = config.snapshot();
        assert_eq!((snapshot.revision, snapshot.source), (revision, Source::Node));
        assert_eq!(snapshot.sources["limit"], source);
    }
    assert_eq!(kept.limit, 1, "what was taken stays");
    let asked = node.extra(|extra| extra.resolved.clone());
    let least = |asked: &v1::ResolveRequest| asked.read.and_then(|read| read.min_revision);
    assert_eq!(asked.iter().map(least).collect::<Vec<_>>(), [None, Some(6), Some(7), Some(8)]);

    // Nothing in production comes from staging or edge.
    node.tells("staging", 9).tells("edge", 10).changes(11, "limit", "5");
    becomes(&mut config, 5).await;
    assert_eq!(node.extra(|extra| extra.resolved.len()), asked.len() + 1);
    assert!(config.status().problem.is_none());
    assert!(config.status().last_contact_age < PATIENCE);
}

#[tokio::test]
async fn without_a_session_too_it_asks_for_the_revision_of_the_change() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let client = Client::builder().endpoint(node.endpoint()).session(false).build().unwrap();
    let mut config = client.namespace("n").live::<Settings>().await.unwrap();
    node.changes(6, "limit", "2");
    becomes(&mut config, 2).await;
    let asked = node.extra(|extra| extra.resolved.clone());
    assert_eq!(asked.last().unwrap().read.unwrap().min_revision, Some(6));
}

#[tokio::test]
async fn edge_follows_production_too() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let app = app(&node.endpoint()).environment(Environment::Edge);
    let mut config = app.live::<Settings>().await.unwrap();
    node.holds_from("production", 6, "limit", "2").tells("production", 6);
    becomes(&mut config, 2).await;
}

#[tokio::test]
async fn the_same_values_again_wake_nobody() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut config = live(&node.endpoint()).await.unwrap();
    node.tells("base", 6);
    until("it has looked", || config.snapshot().revision == 6).await;
    assert!(tokio::time::timeout(Duration::from_millis(50), config.changed()).await.is_err());
    node.changes(7, "limit", "2");
    changed(&mut config).await;
    assert_eq!(config.get().limit, 2);
}

#[tokio::test]
async fn a_bad_value_keeps_the_last_good_one_and_is_told() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut config = live(&node.endpoint()).await.unwrap();
    node.changes(6, "limit", "\"much\"");
    changed(&mut config).await;
    assert_eq!((config.get().limit, config.snapshot().revision), (1, 5));
    let problem = config.status().problem.unwrap();
    assert_eq!(problem.revision, 6);
    let Error::Deserialize { namespace, key, .. } = &problem.error else { panic!("{problem:?}") };
    assert_eq!((&**namespace, &**key), ("n", "limit"));

    node.changes(7, "limit", "2");
    changed(&mut config).await;
    assert_eq!((config.get().limit, config.snapshot().revision), (2, 7));
    assert!(config.status().problem.is_none());

    // Taken back: the old value is good again.
    node.changes(8, "limit", "null");
    changed(&mut config).await;
    assert!(config.status().problem.is_some());
    node.changes(9, "limit", "2");
    changed(&mut config).await;
    assert!(config.status().problem.is_none());
}

#[tokio::test]
async fn a_bad_value_at_the_start_is_an_error() {
    let node = Fake::start().await;
    node.holds(5, "limit", "-1");
    let error = live(&node.endpoint()).await.unwrap_err();
    assert!(matches!(error, Error::Deserialize { .. }), "{error}");
    assert!(error.to_string().contains("limit"), "{error}");
}

#[tokio::test]
async fn what_a_watch_no_longer_knows_is_read_anew() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1").stream(Vec::new(), End::Refuse("REVISION_COMPACTED"));
    node.reply([Reply::Done(5)]);
    // Changed while nobody watched.
    let mut config = live(&node.endpoint()).await.unwrap();
    node.holds(50, "limit", "2");
    becomes(&mut config, 2).await;
    assert!(config.status().problem.is_none());
    node.changes(51, "limit", "3");
    becomes(&mut config, 3).await;
}

#[tokio::test]
async fn a_watch_that_breaks_misses_nothing() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut config = live(&node.endpoint()).await.unwrap();
    for revision in 6..12_u32 {
        until("it watches", || node.watched().len() as u32 >= revision - 5).await;
        node.breaks_watches();
        node.changes(revision.into(), "limit", &revision.to_string());
        becomes(&mut config, revision).await;
    }
}

#[tokio::test]
async fn a_refused_watch_is_told_and_tried_again() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1").stream(Vec::new(), End::Refuse("PERMISSION_DENIED"));
    let mut config = live(&node.endpoint()).await.unwrap();
    changed(&mut config).await;
    // It may be over by the time that one looks.
    if let Some(problem) = config.status().problem {
        assert_eq!(problem.error.rejection().unwrap().code, "PERMISSION_DENIED");
        changed(&mut config).await;
    }
    assert_eq!(config.get().limit, 1);
    node.changes(6, "limit", "2");
    becomes(&mut config, 2).await;
    assert!(config.status().problem.is_none());
}

#[tokio::test]
async fn it_starts_from_its_file_and_goes_live_when_a_node_comes() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1");
    let first = live(&node.endpoint()).cache_file(&cache.path).await.unwrap();
    assert!(first.status().cache_problem.is_none());
    drop(first);

    let proxy = Proxy::before(node.address, Mode::Dead).await;
    let started = Instant::now();
    let mut config = live(&proxy.endpoint()).cache_file(&cache.path).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(config.get().limit, 1);
    let status = config.status();
    assert_eq!((status.source, status.revision), (Source::File, 5));
    assert!(status.problem.unwrap().error.is_outage());

    node.holds(6, "limit", "2");
    proxy.set(Mode::Pass);
    becomes(&mut config, 2).await;
    let status = config.status();
    assert_eq!((status.source, status.revision), (Source::Node, 6));
    assert!(status.problem.is_none());
    // The file has followed.
    let again = live(NOWHERE).cache_file(&cache.path).await.unwrap();
    assert_eq!(again.get().limit, 2);
}

#[tokio::test]
async fn from_its_file_it_goes_live_with_the_same_values_too() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1");
    drop(live(&node.endpoint()).cache_file(&cache.path).await.unwrap());
    let proxy = Proxy::before(node.address, Mode::Dead).await;
    let mut config = live(&proxy.endpoint()).cache_file(&cache.path).await.unwrap();
    proxy.set(Mode::Pass);
    while config.snapshot().source == Source::File {
        changed(&mut config).await;
    }
    assert_eq!((config.get().limit, config.status().problem.is_none()), (1, true));
}

#[tokio::test]
async fn an_older_node_does_not_take_it_back() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1");
    drop(live(&node.endpoint()).cache_file(&cache.path).await.unwrap());

    // It has no leader to confirm with, and is behind.
    let behind = Fake::start().await;
    behind.holds(3, "limit", "0");
    let proxy = Proxy::before(behind.address, Mode::Dead).await;
    let config = live(&proxy.endpoint()).cache_file(&cache.path).await.unwrap();
    behind.extra(|extra| extra.no_leader = true);
    proxy.set(Mode::Pass);
    let cached = |asked: &v1::ResolveRequest| {
        asked.read.is_some_and(|read| read.consistency() != v1::Consistency::Linearizable)
    };
    let asked_for_less =
        || behind.extra(|extra| extra.resolved.iter().filter(|r| cached(r)).count());
    until("it asks for what the file had", || asked_for_less() > 1).await;
    assert_eq!((config.get().limit, config.snapshot().source), (1, Source::File));
    let asked = behind.extra(|extra| extra.resolved.clone());
    let newest = asked.iter().filter(|asked| {
        asked.read.is_some_and(|read| read.consistency() == v1::Consistency::Linearizable)
    });
    assert!(newest.count() > 0, "what is newest is asked for first");
    assert!(config.status().problem.is_some(), "that it is behind is told");
}

#[tokio::test]
async fn without_node_and_file_the_start_fails_in_time() {
    let cache = cache();
    for live in [live(NOWHERE), live(NOWHERE).cache_file(&cache.path)] {
        let started = Instant::now();
        let error = live.await.unwrap_err();
        assert!(error.is_outage(), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_refusal_is_an_answer_and_no_reason_for_the_file() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1");
    drop(live(&node.endpoint()).cache_file(&cache.path).await.unwrap());
    node.reply([Reply::Refuse("PERMISSION_DENIED")]);
    let error = live(&node.endpoint()).cache_file(&cache.path).await.unwrap_err();
    assert_eq!(error.rejection().unwrap().code, "PERMISSION_DENIED");
}

#[tokio::test]
async fn a_damaged_file_is_told_and_never_served() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1");
    drop(live(&node.endpoint()).cache_file(&cache.path).await.unwrap());
    let mut bytes = std::fs::read(&cache.path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&cache.path, &bytes).unwrap();

    let error = live(NOWHERE).cache_file(&cache.path).await.unwrap_err();
    assert!(error.is_outage() && error.to_string().contains("damaged"), "{error}");
    // With a node it is replaced.
    let config = live(&node.endpoint()).cache_file(&cache.path).await.unwrap();
    assert_eq!(config.get().limit, 1);
    assert!(matches!(config.status().cache_problem, Some(Error::CacheFile { .. })), "told");
    assert!(live(NOWHERE).cache_file(&cache.path).await.is_ok());
}

#[tokio::test]
async fn a_file_of_something_else_is_told_and_left_as_it_is() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1");
    let other = app(&node.endpoint()).environment(Environment::Staging);
    drop(other.live::<Settings>().cache_file(&cache.path).await.unwrap());
    let before = std::fs::read(&cache.path).unwrap();
    let error = live(NOWHERE).cache_file(&cache.path).await.unwrap_err();
    assert!(error.to_string().contains("staging"), "{error}");
    let mut config = live(&node.endpoint()).cache_file(&cache.path).await.unwrap();
    assert!(matches!(config.status().cache_problem, Some(Error::CacheFile { .. })));
    node.changes(6, "limit", "2");
    becomes(&mut config, 2).await;
    assert!(config.status().cache_problem.is_some(), "still without a file");
    assert_eq!(std::fs::read(&cache.path).unwrap(), before);

    std::fs::write(&cache.path, "my notes").unwrap();
    drop(live(&node.endpoint()).cache_file(&cache.path).await.unwrap());
    assert_eq!(std::fs::read(&cache.path).unwrap(), b"my notes");
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_told_and_costs_nothing_else() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut config = live(&node.endpoint()).cache_file("/nowhere/at/all").await.unwrap();
    assert!(matches!(config.status().cache_problem, Some(Error::CacheFile { .. })));
    node.changes(6, "limit", "2");
    becomes(&mut config, 2).await;
}

#[tokio::test]
async fn secrets_are_masked_unless_asked_for_and_cached_encrypted_only() {
    let node = Fake::start().await;
    let cache = cache();
    node.holds(5, "limit", "1").holds(5, "password", "\"hunter2\"");
    let masked = live(&node.endpoint()).cache_file(&cache.path).await.unwrap();
    assert_eq!(masked.get().password.as_deref(), Some("********"));
    drop(masked);

    let asked = node.extra(|extra| extra.resolved.len());
    for live in [
        live(&node.endpoint()).reveal().cache_file(&cache.path),
        live(&node.endpoint()).reveal().cache_key(KEY),
    ] {
        let error = live.await.unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { field: "cache_key", .. }), "{error}");
    }
    assert_eq!(node.extra(|extra| extra.resolved.len()), asked, "nothing was sent");

    // What was written masked is never served to who asked for plaintext.
    let revealing = |endpoint: &str| live(endpoint).reveal().cache_file(&cache.path).cache_key(KEY);
    let error = revealing(NOWHERE).await.unwrap_err();
    assert!(error.to_string().contains("choice"), "{error}");

    let config = revealing(&node.endpoint()).await.unwrap();
    assert_eq!(config.get().password.as_deref(), Some("hunter2"));
    drop(config);
    let bytes = std::fs::read(&cache.path).unwrap();
    assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
    assert_eq!(revealing(NOWHERE).await.unwrap().get().password.as_deref(), Some("hunter2"));
    let other = live(NOWHERE).reveal().cache_file(&cache.path).cache_key([1; 32]);
    assert!(other.await.unwrap_err().to_string().contains("decrypted"));
    assert!(live(NOWHERE).cache_file(&cache.path).await.is_err(), "nor without asking");
}

#[tokio::test]
async fn a_problem_with_a_secret_does_not_show_it() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1").holds(5, "password", "{\"is\":\"hunter2\"}");
    let error = live(&node.endpoint()).reveal().await.unwrap_err();
    assert!(matches!(error, Error::Deserialize { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn each_handle_has_its_own_view_of_what_is_new() {
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut one = live(&node.endpoint()).await.unwrap();
    let mut two = one.clone();
    node.changes(6, "limit", "2");
    changed(&mut one).await;
    changed(&mut two).await;
    drop(one);
    node.changes(7, "limit", "3");
    becomes(&mut two, 3).await;
}

#[tokio::test]
async fn a_panic_of_the_application_is_told_and_not_waited_for() {
    #[derive(Debug)]
    struct Fussy(u32);
    impl<'de> Deserialize<'de> for Fussy {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let settings = Settings::deserialize(deserializer)?;
            assert!(settings.limit < 10, "too much");
            Ok(Self(settings.limit))
        }
    }
    let node = Fake::start().await;
    node.holds(5, "limit", "1");
    let mut config = app(&node.endpoint()).live::<Fussy>().await.unwrap();
    node.changes(6, "limit", "10");
    let error = tokio::time::timeout(PATIENCE, config.changed()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Stopped { .. }), "{error}");
    assert_eq!(config.get().0, 1);
}
