//! Laws of the typed calls: what is sent for them, and what their answers become.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use llm_config_client::{Client, Environment, Error, Namespace, OperationResult, v1};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::fake::{End, Fake, Reply, entry};

const DIGITS: &str = "12345678901234567890123456789.000000000000000001";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Model {
    name: String,
    max_tokens: u32,
}

async fn app() -> (Fake, Namespace) {
    let node = Fake::start().await;
    let client = Client::builder()
        .endpoint(node.endpoint())
        .timeout(Duration::from_secs(3))
        .follow_members(false)
        .build()
        .unwrap();
    (node, client.namespace("shop/assistant").environment(Environment::Production))
}

fn holds(node: &Fake, entry: v1::Entry) {
    node.extra(|extra| extra.entry = Some(entry));
}

fn model() -> v1::Entry {
    v1::Entry {
        namespace: "shop/assistant".into(),
        key: "model".into(),
        environment: "production".into(),
        value: r#"{"name":"claude","max_tokens":1024}"#.into(),
        version: 3,
        revision: 9,
        updated_at: Some(prost_types::Timestamp { seconds: 60, nanos: 0 }),
        updated_by: "ann".into(),
        tags: vec!["a".into()],
        comment: "why".into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_value_comes_with_what_the_store_knows_about_it() {
    let (node, app) = app().await;
    holds(&node, model());
    let found = app.get::<Model>("model").await.unwrap().unwrap();
    assert_eq!(found.value, Model { name: "claude".into(), max_tokens: 1024 });
    assert_eq!((found.version, found.revision, &*found.updated_by), (3, 9, "ann"));
    let at = std::time::UNIX_EPOCH + Duration::from_secs(60);
    assert_eq!((found.updated_at, found.created_at), (Some(at), None));
    let asked = &node.gets()[0];
    assert_eq!((&*asked.namespace, &*asked.environment), ("shop/assistant", "production"));
    assert!(!asked.reveal && !asked.resolve);
}

#[tokio::test]
async fn what_is_not_there_is_none_and_what_may_not_be_read_is_an_error() {
    let (node, app) = app().await;
    node.reply([Reply::Refuse("NOT_FOUND"), Reply::Refuse("PERMISSION_DENIED")]);
    assert!(app.get::<Model>("model").await.unwrap().is_none());
    let error = app.get::<Model>("model").await.unwrap_err();
    assert_eq!(error.rejection().unwrap().code, "PERMISSION_DENIED");
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_an_error_that_says_where() {
    let (node, app) = app().await;
    holds(&node, v1::Entry { value: r#"{"name":"x","max_tokens":-1}"#.into(), ..model() });
    let error = app.get::<Model>("model").await.unwrap_err();
    let Error::Deserialize { namespace, key, path, .. } = &error else { panic!("{error}") };
    assert_eq!((&**namespace, &**key, &**path), ("shop/assistant", "model", "max_tokens"));
    assert!(error.to_string().contains("max_tokens"), "{error}");
    assert!(!error.is_outage());
}

#[tokio::test]
async fn each_read_may_choose_how_fresh_it_is() {
    let (node, app) = app().await;
    holds(&node, model());
    app.get::<Model>("model").linearizable().await.unwrap();
    app.get::<Model>("model").cached().min_revision(77).await.unwrap();
    app.get::<Model>("model").max_staleness(Duration::from_secs(2)).await.unwrap();
    app.clone().linearizable().get::<Model>("model").with_fallback().version(2).await.unwrap();
    app.reveal::<Model>("model").await.unwrap();
    let gets = node.gets();
    let read = |index: usize| gets[index].read.unwrap();
    assert_eq!(read(0).consistency(), v1::Consistency::Linearizable);
    assert_eq!(read(0).min_revision, None);
    assert_eq!(read(1).consistency(), v1::Consistency::Cached);
    assert_eq!(read(1).min_revision, Some(77));
    assert_eq!(read(2).max_staleness_ms, Some(2000));
    assert_eq!(read(3).consistency(), v1::Consistency::Linearizable);
    assert!(gets[3].resolve && gets[3].version == Some(2));
    assert!(gets[4].reveal && !gets[3].reveal);
}

#[tokio::test]
async fn a_session_begins_where_another_ended() {
    let (node, _) = app().await;
    let client = Client::builder()
        .endpoint(node.endpoint())
        .starting_revision(50)
        .follow_members(false)
        .build()
        .unwrap();
    assert_eq!(client.revision(), 50);
    client.namespace("n").get::<u8>("k").await.unwrap();
    assert_eq!(node.gets()[0].read.unwrap().min_revision, Some(50));
}

#[tokio::test]
async fn a_set_sends_what_was_chosen() {
    let (node, app) = app().await;
    node.at_revision(5);
    let digits: Box<RawValue> = serde_json::from_str(DIGITS).unwrap();
    let written = app
        .set("limit", &digits)
        .comment("why")
        .description("what")
        .tags(["a", "b"])
        .secret(false)
        .expected_version(4)
        .idempotency_key("mine")
        .await
        .unwrap();
    assert_eq!((written.version, written.revision, written.created), (5, 5, true));
    let expected = v1::SetRequest {
        namespace: "shop/assistant".into(),
        key: "limit".into(),
        environment: "production".into(),
        value: DIGITS.into(),
        description: "what".into(),
        tags: vec!["a".into(), "b".into()],
        comment: "why".into(),
        expected_version: Some(4),
        idempotency_key: "mine".into(),
        secret: Some(false),
    };
    assert_eq!(node.sets(), [expected]);
    app.set("new", "text").if_absent().await.unwrap();
    assert_eq!(
        (node.sets()[1].expected_version, &node.sets()[1].value[..]),
        (Some(0), &b"\"text\""[..])
    );
}

#[tokio::test]
async fn numbers_come_back_with_all_their_digits() {
    let (node, app) = app().await;
    holds(&node, v1::Entry { value: DIGITS.into(), ..model() });
    let found = app.get::<Box<RawValue>>("limit").await.unwrap().unwrap();
    assert_eq!(found.value.get(), DIGITS);
    node.holds(1, "limit", DIGITS).holds(1, "other", "1");
    let all = app.resolve::<BTreeMap<String, Box<RawValue>>>().await.unwrap();
    assert_eq!(all.value["limit"].get(), DIGITS);
    assert_eq!(all.sources["limit"], "base");
}

#[tokio::test]
async fn what_cannot_be_written_as_json_is_not_sent() {
    let (node, app) = app().await;
    let error = app.set("k", &BTreeMap::from([((1, 2), 3)])).await.unwrap_err();
    assert!(matches!(error, Error::Serialize { .. }), "{error}");
    let transaction = app.key("k").set(&BTreeMap::from([((1, 2), 3)]));
    let client = Client::builder().endpoint(node.endpoint()).build().unwrap();
    assert!(client.transaction().then(transaction).await.is_err());
    let misplaced = client.transaction().then(app.key("k").get().comment("x")).await.unwrap_err();
    assert!(matches!(misplaced, Error::InvalidArgument { field: "comment", .. }), "{misplaced}");
    assert!(node.sets().is_empty() && node.extra(|extra| extra.txned.is_empty()));
}

#[tokio::test]
async fn a_conflict_is_told_with_the_version_that_is_there() {
    let (node, app) = app().await;
    node.reply([Reply::Refuse("VERSION_CONFLICT")]);
    let error = app.set("k", &1).expected_version(1).await.unwrap_err();
    assert!(error.is_version_conflict());
    assert_eq!(error.rejection().unwrap().current_version(), Some(7));
}

#[tokio::test]
async fn deletes_and_rollbacks_are_writes_with_a_key() {
    let (node, app) = app().await;
    node.at_revision(8).reply([Reply::Break]);
    let deleted = app.delete("k").expected_version(3).comment("old").await.unwrap();
    assert_eq!((deleted.version, deleted.revision), (4, 8));
    node.reply([Reply::Break]);
    app.rollback("k", 2).comment("back").await.unwrap();
    node.extra(|extra| {
        let keys = |list: Vec<&String>| list.windows(2).all(|two| two[0] == two[1]);
        assert_eq!((extra.deleted.len(), extra.rolled_back.len()), (2, 2));
        assert!(keys(extra.deleted.iter().map(|sent| &sent.idempotency_key).collect()));
        assert!(keys(extra.rolled_back.iter().map(|sent| &sent.idempotency_key).collect()));
        assert_eq!((extra.rolled_back[0].version, &*extra.deleted[0].comment), (2, "old"));
    });
}

fn page(keys: &[&str], next: &str) -> v1::ListResponse {
    let items = keys.iter().map(|key| v1::Entry { key: (*key).to_owned(), ..entry(1) });
    v1::ListResponse { items: items.collect(), next_cursor: next.into(), revision: 1 }
}

#[tokio::test]
async fn a_listing_is_a_stream_over_its_pages() {
    let (node, app) = app().await;
    let pages = [page(&["a", "b"], "1"), page(&[], "2"), page(&["c"], "")];
    node.extra(|extra| extra.lists.extend(pages.clone()));
    let stream = app.list::<u8>().key_prefix("x").page_size(2).stream();
    let keys: Vec<String> = stream.map(|entry| entry.unwrap().key).collect().await;
    assert_eq!(keys, ["a", "b", "c"]);
    node.extra(|extra| {
        let asked: Vec<_> =
            extra.listed.iter().map(|list| (list.cursor.as_str(), list.limit)).collect();
        assert_eq!(asked, [("", 2), ("1", 2), ("2", 2)]);
        extra.lists.extend(pages);
    });
    let error = app.list::<u8>().stream().collect_at_most(2).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
}

#[tokio::test]
async fn a_listing_ends_with_its_first_error_and_never_goes_round() {
    let (node, app) = app().await;
    node.extra(|extra| {
        extra.lists.extend([page(&["a"], "1"), page(&["b"], "1"), page(&["c"], "")])
    });
    let mut stream = app.list::<u8>().stream();
    assert_eq!(stream.next().await.unwrap().unwrap().key, "a");
    assert!(stream.next().await.unwrap().is_err(), "the same cursor again");
    assert!(stream.next().await.is_none());

    node.extra(|extra| extra.lists.clear());
    node.extra(|extra| extra.lists.extend([page(&["a", "b"], "1")]));
    let mut stream = app.list::<bool>().stream();
    assert!(matches!(stream.next().await, Some(Err(Error::Deserialize { .. }))));
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_history_has_deletes_without_a_value() {
    let (node, app) = app().await;
    let deleted = v1::Entry { deleted: true, value: "".into(), ..entry(2) };
    let items = vec![entry(3), deleted, entry(1)];
    let history = v1::HistoryResponse { items, next_cursor: String::new() };
    node.extra(|extra| extra.histories.push_back(history));
    let versions = app.history::<u8>("k").stream().collect_at_most(10).await.unwrap();
    let seen: Vec<_> = versions.iter().map(|found| (found.version, found.value)).collect();
    assert_eq!(seen, [(3, Some(1)), (2, None), (1, Some(1))]);
}

#[tokio::test]
async fn a_transaction_is_sent_as_written_and_answers_in_types() {
    let (node, app) = app().await;
    let got = v1::TxnResult { op: "get".into(), entry: Some(model()) };
    let absent = v1::TxnResult { op: "get".into(), entry: None };
    let set = v1::TxnResult { op: "set".into(), entry: Some(entry(1)) };
    let results = vec![got, absent, set];
    let answer = v1::TxnResponse { succeeded: true, revision: 12, results };
    node.extra(|extra| extra.txns.push_back(answer));
    node.reply([Reply::Break]);
    let client = Client::builder().endpoint(node.endpoint()).build().unwrap();
    let outcome = client
        .transaction()
        .when(app.key("model").version_is(3))
        .when(app.key("lock").is_absent())
        .then(app.key("lock").set("me").comment("mine").secret(true).tags(["t"]).description("d"))
        .then(app.key("draft").delete().comment("done"))
        .otherwise(app.key("model").get())
        .await
        .unwrap();
    assert!(outcome.succeeded && outcome.revision == 12);
    assert_eq!(client.revision(), 12);
    assert_eq!(outcome.value::<Model>(0).unwrap().unwrap().value.max_tokens, 1024);
    assert!(outcome.value::<Model>(1).unwrap().is_none());
    assert!(outcome.value::<Model>(2).is_err() && outcome.value::<Model>(9).is_err());
    assert!(outcome.written(2).unwrap().created);
    assert!(matches!(outcome.results[1], OperationResult::Got(None)));
    node.extra(|extra| {
        let [first, second] = &extra.txned[..] else { panic!("sent twice") };
        assert_eq!(first, second);
        assert!(!first.idempotency_key.is_empty());
        let compared: Vec<_> =
            first.compare.iter().map(|compare| (compare.key.as_str(), compare.version)).collect();
        assert_eq!(compared, [("model", 3), ("lock", 0)]);
        let Some(v1::txn_op::Op::Set(set)) = &first.success[0].op else { panic!("no set") };
        assert_eq!(
            (&set.value[..], set.secret, &*set.comment),
            (&b"\"me\""[..], Some(true), "mine")
        );
        assert_eq!((first.success.len(), first.failure.len()), (2, 1));
    });
}

#[tokio::test]
async fn a_watch_asks_for_what_was_chosen() {
    let (node, app) = app().await;
    for _ in 0..3 {
        node.stream(vec![crate::fake::bookmark(9)], End::Open);
    }
    app.watch().key_prefix("p").from_revision(9).start().next().await.unwrap().unwrap();
    app.watch().all_environments().from_revision(9).start().next().await.unwrap().unwrap();
    let client = Client::builder().endpoint(node.endpoint()).build().unwrap();
    let watch = client.watch_namespaces("shop/").environment(Environment::Edge).from_revision(9);
    watch.start().next().await.unwrap().unwrap();
    let asked = node.watched();
    let of = |index: usize| {
        let v1::WatchRequest { namespace, prefix, environment, namespace_prefix, .. } =
            asked[index].clone();
        [namespace, prefix, environment, namespace_prefix]
    };
    assert_eq!(of(0), ["shop/assistant", "p", "production", ""]);
    assert_eq!(of(1), ["shop/assistant", "", "", ""]);
    assert_eq!(of(2), ["", "", "edge", "shop/"]);
}

fn part(revision: u64, keys: &[&str]) -> v1::ExportResponse {
    let items = keys.iter().map(|key| v1::Entry { key: (*key).to_owned(), ..entry(1) });
    v1::ExportResponse { revision, items: items.collect() }
}

#[tokio::test]
async fn an_export_is_whole_or_an_error() {
    let (node, _) = app().await;
    let client = Client::builder().endpoint(node.endpoint()).build().unwrap();
    let export = async |parts: Vec<v1::ExportResponse>, end: End| {
        node.extra(|extra| extra.exports.push_back((parts, end)));
        client.export(v1::ExportRequest { namespace: "n".into(), ..Default::default() }).await
    };
    let whole = export(vec![part(7, &["a", "b"]), part(7, &["c"])], End::Close).await.unwrap();
    assert_eq!((whole.revision, whole.entries.len()), (7, 3));
    assert_eq!(client.revision(), 7);
    let broken = export(vec![part(7, &["a"])], End::Break).await.unwrap_err();
    assert!(matches!(broken, Error::BrokenOff { .. }), "{broken}");
    let refused = export(vec![part(7, &["a"])], End::Refuse("PERMISSION_DENIED")).await;
    assert!(matches!(refused.unwrap_err(), Error::Rejected(_)));
    let mixed = export(vec![part(7, &["a"]), part(8, &["b"])], End::Close).await.unwrap_err();
    assert!(matches!(mixed, Error::Malformed { .. }), "{mixed}");
    let twice = export(vec![part(7, &["a", "a"])], End::Close).await.unwrap_err();
    assert!(matches!(twice, Error::Malformed { .. }), "{twice}");
    assert!(export(Vec::new(), End::Close).await.unwrap().entries.is_empty());
    // Its read is in the session of what was seen before.
    let last = node.extra(|extra| extra.exported.last().cloned()).unwrap();
    assert_eq!(last.read.unwrap().min_revision, Some(7));
}

#[tokio::test]
async fn schemas_are_read_in_session_and_written_under_one_key() {
    let (node, _) = app().await;
    node.at_revision(3);
    let client = Client::builder().endpoint(node.endpoint()).build().unwrap();
    node.reply([Reply::Break]);
    let put = v1::PutSchemaRequest { schema: "true".into(), ..Default::default() };
    assert!(client.put_schema(put).await.unwrap().created);
    node.reply([Reply::Break]);
    client.delete_schema(v1::DeleteSchemaRequest::default()).await.unwrap();
    client.get_schema(v1::GetSchemaRequest::default()).await.unwrap();
    client.list_schemas(v1::ListSchemasRequest::default()).await.unwrap();
    node.extra(|extra| {
        let [first, second] = &extra.schemas_put[..] else { panic!("sent twice") };
        assert!(first == second && !first.idempotency_key.is_empty());
        let [first, second] = &extra.schemas_deleted[..] else { panic!("sent twice") };
        assert!(first == second && !first.idempotency_key.is_empty());
        // No revision says that a node has a schema.
        let linearizable = v1::Consistency::Linearizable;
        assert_eq!(extra.schemas_got[0].read.unwrap().consistency(), linearizable);
        assert_eq!(extra.schemas_listed[0].read.unwrap().consistency(), linearizable);
    });
    let read =
        v1::ReadOptions { consistency: v1::Consistency::Cached.into(), ..Default::default() };
    let cached = v1::GetSchemaRequest { read: Some(read), ..Default::default() };
    client.get_schema(cached).await.unwrap();
    node.extra(|extra| {
        let read = extra.schemas_got[1].read.unwrap();
        assert_eq!((read.consistency(), read.min_revision), (v1::Consistency::Cached, Some(3)));
    });
}
