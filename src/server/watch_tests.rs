//! Tests of the watch hub on a change log in memory.

use std::collections::BTreeMap;

use llm_config_domain::{Address, Entry, JsonValue, Key};

use super::*;
use crate::access::{Access, Caller};

/// A change log that remembers the last `kept` revisions.
#[derive(Default)]
struct TestLog {
    batches: Mutex<BTreeMap<u64, WatchBatch>>,
    oldest: Mutex<u64>,
}

impl ChangeLog for TestLog {
    fn revision(&self) -> Result<u64, ServiceError> {
        Ok(self.batches.lock().last_key_value().map_or(0, |(revision, _)| *revision))
    }

    fn changes(&self, from: u64, limit: usize) -> Result<Vec<WatchBatch>, ServiceError> {
        let oldest_revision = *self.oldest.lock();
        if from < oldest_revision {
            return Err(ServiceError::RevisionCompacted { oldest_revision });
        }
        Ok(self.batches.lock().range(from..).take(limit).map(|(_, batch)| batch.clone()).collect())
    }
}

struct Fixture {
    log: Arc<TestLog>,
    hub: Arc<WatchHub>,
    access: Access,
}

fn limits() -> WatchLimits {
    WatchLimits {
        held_bytes: 1 << 20,
        ring_revisions: 8,
        ring_bytes: 1 << 20,
        watchers: 3,
        bookmark_interval: Duration::from_secs(3600),
    }
}

fn change(revision: u64, namespace: &str, key: &str) -> Change {
    let entry = Entry {
        address: Address {
            namespace: Namespace::parse(namespace).unwrap(),
            key: Key::parse(key).unwrap(),
            environment: Environment::Base,
        },
        version: revision,
        revision,
        value: Some(JsonValue::parse(revision.to_string().as_bytes()).unwrap().into()),
        created_at_ms: 0,
        created_by: String::new(),
        updated_at_ms: 0,
        updated_by: String::new(),
        description: String::new(),
        tags: Vec::new(),
        comment: String::new(),
    };
    Change::of(entry)
}

impl Fixture {
    fn new(limits: WatchLimits) -> Self {
        let metrics = Arc::new(Metrics::new());
        let access = Access::new(false, None, Arc::clone(&metrics));
        Fixture { log: Arc::default(), hub: WatchHub::new(limits, metrics), access }
    }

    fn apply(&self, revision: u64, changes: Vec<Change>) {
        self.store(revision, changes.clone());
        self.hub.publish(revision, &changes);
    }

    fn store(&self, revision: u64, changes: Vec<Change>) {
        self.log.batches.lock().insert(revision, WatchBatch { revision, changes });
    }

    fn apply_all(&self, revisions: std::ops::RangeInclusive<u64>) {
        for revision in revisions {
            self.apply(revision, vec![change(revision, "app", "k")]);
        }
    }

    async fn watch(&self, filter: Filter, from: WatchFrom) -> Result<Watcher, ServiceError> {
        self.watch_as(Caller::anyone(), filter, from).await
    }

    async fn watch_as(
        &self,
        caller: Caller,
        filter: Filter,
        from: WatchFrom,
    ) -> Result<Watcher, ServiceError> {
        let (namespace, environment) = (filter.namespace.clone(), filter.environment);
        let sight = Sight::new(self.access.clone(), caller, namespace, environment);
        self.hub.watch(self.log.clone(), filter, sight, from).await
    }
}

async fn next(watcher: &mut Watcher) -> WatchBatch {
    tokio::time::timeout(Duration::from_secs(10), watcher.next())
        .await
        .expect("nothing came")
        .expect("the watch ended")
}

/// The revisions of the next batches with changes.
async fn revisions(watcher: &mut Watcher, count: usize) -> Vec<u64> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = next(watcher).await;
        if !batch.changes.is_empty() {
            seen.push(batch.revision);
        }
    }
    seen
}

#[tokio::test]
async fn the_first_answer_is_a_bookmark_of_now() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=3);
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Now).await.unwrap();
    let first = next(&mut watcher).await;
    assert_eq!((first.revision, first.changes.len()), (3, 0));
    fixture.apply_all(4..=4);
    assert_eq!(revisions(&mut watcher, 1).await, [4]);
}

#[tokio::test]
async fn a_watch_that_starts_in_the_future_claims_nothing_that_does_not_exist() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=3);
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(6)).await.unwrap();
    assert_eq!(next(&mut watcher).await.revision, 3);
    fixture.apply_all(4..=7);
    assert_eq!(revisions(&mut watcher, 2).await, [6, 7]);
}

#[tokio::test]
async fn a_start_includes_its_revision_and_a_resumption_does_not() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=5);
    let mut from = fixture.watch(Filter::default(), WatchFrom::Revision(4)).await.unwrap();
    assert_eq!(revisions(&mut from, 2).await, [4, 5]);
    let mut after = fixture.watch(Filter::default(), WatchFrom::After(4)).await.unwrap();
    assert_eq!(revisions(&mut after, 1).await, [5]);
}

#[tokio::test]
async fn behind_the_ring_it_reads_the_log_and_goes_on_without_gap_or_duplicate() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=100);
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(1)).await.unwrap();
    let mut seen = revisions(&mut watcher, 50).await;
    fixture.apply_all(101..=120);
    seen.extend(revisions(&mut watcher, 70).await);
    assert_eq!(seen, (1..=120).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_stored_but_not_yet_published_is_delivered_once() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=20);
    // Storage runs ahead of the hub: the log read returns 21 before it is published.
    fixture.store(21, vec![change(21, "app", "k")]);
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(10)).await.unwrap();
    let mut seen = revisions(&mut watcher, 5).await;
    fixture.hub.publish(21, &[change(21, "app", "k")]);
    fixture.apply_all(22..=22);
    seen.extend(revisions(&mut watcher, 8).await);
    assert_eq!(seen, (10..=22).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_changes_of_a_revision_come_together_and_filtered() {
    let fixture = Fixture::new(limits());
    let filter = Filter {
        namespace_prefix: String::new(),
        namespace: Some(Namespace::parse("app").unwrap()),
        prefix: "a".into(),
        environment: None,
    };
    let mut watcher = fixture.watch(filter, WatchFrom::Now).await.unwrap();
    fixture.apply(
        1,
        vec![
            change(1, "app", "a1"),
            change(1, "other", "a2"),
            change(1, "app", "b"),
            change(1, "app", "a3"),
        ],
    );
    next(&mut watcher).await;
    let batch = next(&mut watcher).await;
    let keys: Vec<_> =
        batch.changes.iter().map(|change| change.entry.address.key.as_str().to_owned()).collect();
    assert_eq!(keys, ["a1", "a3"]);
}

#[tokio::test]
async fn an_environment_is_filtered() {
    let fixture = Fixture::new(limits());
    let filter = Filter { environment: Some(Environment::Production), ..Filter::default() };
    let mut watcher = fixture.watch(filter, WatchFrom::Now).await.unwrap();
    let mut production = change(2, "app", "k");
    Arc::make_mut(&mut production.entry).address.environment = Environment::Production;
    fixture.apply_all(1..=1);
    fixture.apply(2, vec![production]);
    assert_eq!(revisions(&mut watcher, 1).await, [2]);
}

#[tokio::test]
async fn bookmarks_move_past_what_the_filter_dropped() {
    let fixture =
        Fixture::new(WatchLimits { bookmark_interval: Duration::from_millis(20), ..limits() });
    let filter =
        Filter { namespace: Some(Namespace::parse("other").unwrap()), ..Filter::default() };
    let mut watcher = fixture.watch(filter, WatchFrom::Now).await.unwrap();
    fixture.apply_all(1..=40);
    loop {
        let batch = next(&mut watcher).await;
        assert!(batch.changes.is_empty());
        if batch.revision == 40 {
            break;
        }
    }
}

#[tokio::test]
async fn a_revision_in_the_future_is_waited_for() {
    let fixture = Fixture::new(limits());
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(3)).await.unwrap();
    fixture.apply_all(1..=4);
    assert_eq!(revisions(&mut watcher, 2).await, [3, 4]);
}

#[tokio::test]
async fn the_last_revision_of_all_does_not_overflow() {
    let fixture = Fixture::new(limits());
    for from in [WatchFrom::Revision(u64::MAX), WatchFrom::After(u64::MAX)] {
        let mut watcher = fixture.watch(Filter::default(), from).await.unwrap();
        assert_eq!(next(&mut watcher).await.revision, 0, "nothing exists yet");
    }
}

#[tokio::test]
async fn a_forgotten_start_is_refused_with_the_oldest_revision() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=100);
    *fixture.log.oldest.lock() = 50;
    let refused = fixture.watch(Filter::default(), WatchFrom::Revision(49)).await.err().unwrap();
    assert_eq!(refused, ServiceError::RevisionCompacted { oldest_revision: 50 });
    assert!(fixture.watch(Filter::default(), WatchFrom::Revision(50)).await.is_ok());
    // The ring still has 98, but other nodes may not.
    *fixture.log.oldest.lock() = 99;
    assert!(fixture.watch(Filter::default(), WatchFrom::Revision(98)).await.is_err());
}

#[tokio::test]
async fn a_watcher_that_fell_behind_the_log_is_told() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=1);
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(1)).await.unwrap();
    assert_eq!(revisions(&mut watcher, 1).await, [1]);
    fixture.apply_all(2..=100);
    *fixture.log.oldest.lock() = 60;
    assert_eq!(watcher.next().await.err().unwrap().code(), "REVISION_COMPACTED");
}

#[tokio::test]
async fn after_a_reset_it_goes_on_from_the_log() {
    let fixture = Fixture::new(limits());
    fixture.apply_all(1..=3);
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(1)).await.unwrap();
    assert_eq!(revisions(&mut watcher, 3).await, [1, 2, 3]);
    for revision in 4..=9 {
        fixture.store(revision, vec![change(revision, "app", "k")]);
    }
    fixture.hub.reset(9);
    fixture.apply_all(10..=11);
    assert_eq!(revisions(&mut watcher, 8).await, (4..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn watchers_are_bounded_and_their_places_come_back() {
    let fixture = Fixture::new(limits());
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(fixture.watch(Filter::default(), WatchFrom::Now).await.unwrap());
    }
    assert_eq!(
        fixture.watch(Filter::default(), WatchFrom::Now).await.err().unwrap().code(),
        "OVERLOADED"
    );
    open.pop();
    assert!(fixture.watch(Filter::default(), WatchFrom::Now).await.is_ok());
}

#[tokio::test]
async fn a_stop_ends_open_and_later_watches() {
    let fixture = Fixture::new(limits());
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Now).await.unwrap();
    next(&mut watcher).await;
    let (ended, ()) = tokio::join!(watcher.next(), async { fixture.hub.stop() });
    assert_eq!(ended.err().unwrap().code(), "NOT_READY");
    let mut late = fixture.watch(Filter::default(), WatchFrom::Now).await.unwrap();
    assert_eq!(late.next().await.err().unwrap().code(), "NOT_READY");
}

#[tokio::test]
async fn the_ring_stays_within_its_bounds() {
    const BOUND: usize = 1_000;
    let fixture = Fixture::new(WatchLimits { ring_bytes: BOUND, ..limits() });
    fixture.apply_all(1..=50);
    let (length, bytes) = {
        let ring = fixture.hub.ring.lock();
        (ring.batches.len(), ring.bytes)
    };
    assert!(length <= 8 && bytes <= BOUND, "{length} revisions, {bytes} bytes");
    let mut watcher = fixture.watch(Filter::default(), WatchFrom::Revision(1)).await.unwrap();
    assert_eq!(revisions(&mut watcher, 50).await, (1..=50).collect::<Vec<_>>());
}
