//! Laws of single calls: where they go, what is tried again, and what a failure says.

use std::time::{Duration, Instant};

use crate::fake::{Fake, Reply};
use llm_config_client::{Client, Error, Options, v1};

fn set() -> v1::SetRequest {
    v1::SetRequest {
        namespace: "n".into(),
        key: "k".into(),
        value: "1".into(),
        ..Default::default()
    }
}

fn get() -> v1::GetRequest {
    v1::GetRequest { namespace: "n".into(), key: "k".into(), ..Default::default() }
}

fn client(endpoints: &[String], timeout_ms: u64) -> Client {
    let options = Options::default()
        .timeout(Duration::from_millis(timeout_ms))
        .attempt_timeout(Duration::from_millis(300));
    Client::with_options(endpoints, options).unwrap()
}

/// An address where nothing listens.
async fn closed_port() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_write_follows_the_leader_that_a_refusal_names() {
    let (follower, leader) = (Fake::start().await, Fake::start().await);
    follower.says_leader_is(&leader.endpoint()).reply([Reply::Refuse("NO_LEADER")]);
    leader.says_leader_is(&leader.endpoint()).reply([Reply::Done(5), Reply::Done(6)]);

    let client = client(&[follower.endpoint()], 10_000);
    client.set(set()).await.unwrap();
    client.set(set()).await.unwrap();

    assert_eq!(follower.sets().len(), 1, "only the first attempt asks the given endpoint");
    assert_eq!(leader.sets().len(), 2);
}

#[tokio::test]
async fn a_write_follows_the_leader_that_a_success_names() {
    let (follower, leader) = (Fake::start().await, Fake::start().await);
    follower.says_leader_is(&leader.endpoint());
    let client = client(&[follower.endpoint()], 10_000);
    client.set(set()).await.unwrap();
    client.set(set()).await.unwrap();
    assert_eq!((follower.sets().len(), leader.sets().len()), (1, 1));
}

#[tokio::test]
async fn without_following_writes_stay_on_the_given_endpoints() {
    let (follower, leader) = (Fake::start().await, Fake::start().await);
    follower.says_leader_is(&leader.endpoint());
    let options = Options::default().follow_leader(false);
    let client = Client::with_options([follower.endpoint()], options).unwrap();
    client.set(set()).await.unwrap();
    client.set(set()).await.unwrap();
    assert_eq!((follower.sets().len(), leader.sets().len()), (2, 0));
}

#[tokio::test]
async fn every_attempt_of_a_write_carries_the_same_key() {
    let node = Fake::start().await;
    node.reply([
        Reply::Refuse("OVERLOADED"),
        Reply::Refuse("OUTCOME_UNKNOWN"),
        Reply::Break,
        Reply::Hang,
        Reply::Done(9),
    ]);
    let client = client(&[node.endpoint()], 20_000);
    client.set(set()).await.unwrap();
    client.set(set()).await.unwrap();

    let keys: Vec<String> = node.sets().into_iter().map(|set| set.idempotency_key).collect();
    let (last, first) = keys.split_last().unwrap();
    assert_eq!(first.len(), 5);
    assert!(first.iter().all(|key| !key.is_empty() && *key == first[0]), "{keys:?}");
    assert_ne!(*last, first[0], "another write has another key");
}

#[tokio::test]
async fn the_callers_key_is_kept() {
    let node = Fake::start().await;
    let request = v1::SetRequest { idempotency_key: "mine".into(), ..set() };
    client(&[node.endpoint()], 5_000).set(request).await.unwrap();
    assert_eq!(node.sets()[0].idempotency_key, "mine");
}

#[tokio::test]
async fn a_limited_write_waits_as_long_as_it_is_told_and_stays_with_the_leader() {
    let (follower, leader) = (Fake::start().await, Fake::start().await);
    follower.says_leader_is(&leader.endpoint());
    let client = client(&[follower.endpoint()], 10_000);
    client.set(set()).await.unwrap();
    let delay = Duration::from_millis(300);
    leader.reply([Reply::Limit(delay)]);
    let started = Instant::now();
    client.set(set()).await.unwrap();
    assert!(started.elapsed() >= delay, "{:?}", started.elapsed());
    assert_eq!((follower.sets().len(), leader.sets().len()), (1, 2));
}

#[tokio::test]
async fn a_wait_beyond_the_deadline_is_not_begun() {
    let node = Fake::start().await;
    node.reply([Reply::Limit(Duration::from_secs(60))]);
    let started = Instant::now();
    let error = client(&[node.endpoint()], 10_000).set(set()).await.unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }), "{error}");
    assert!(error.to_string().contains("RATE_LIMITED"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_rejection_is_final_and_readable() {
    let node = Fake::start().await;
    node.reply([Reply::Refuse("VERSION_CONFLICT")]);
    let error = client(&[node.endpoint()], 5_000).set(set()).await.unwrap_err();
    let rejection = error.rejection().expect("rejected");
    assert_eq!(rejection.code, "VERSION_CONFLICT");
    assert_eq!(rejection.current_version(), Some(7));
    assert_eq!(node.sets().len(), 1);
}

#[tokio::test]
async fn a_rejection_after_a_lost_attempt_does_not_claim_that_nothing_happened() {
    let node = Fake::start().await;
    node.reply([Reply::Break, Reply::Refuse("VERSION_CONFLICT")]);
    let error = client(&[node.endpoint()], 10_000).set(set()).await.unwrap_err();
    let Error::OutcomeUnknown { idempotency_key, reason } = error else {
        panic!("{error}");
    };
    assert_eq!(idempotency_key, node.sets()[0].idempotency_key);
    assert!(reason.contains("VERSION_CONFLICT"), "{reason}");
}

#[tokio::test]
async fn a_write_that_no_node_took_was_not_sent() {
    let node = Fake::start().await;
    node.reply(std::iter::repeat_n(Reply::Refuse("NO_LEADER"), 10_000));
    let endpoints = [node.endpoint(), closed_port().await];
    let error = client(&endpoints, 500).set(set()).await.unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }), "{error}");
}

#[tokio::test]
async fn a_connection_that_cannot_be_opened_is_not_sent() {
    let endpoint = closed_port().await;
    let error = client(std::slice::from_ref(&endpoint), 300).set(set()).await.unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }), "{error}");
    assert!(error.to_string().contains(&endpoint), "names the endpoint: {error}");
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_unknown_until_answered() {
    let node = Fake::start().await;
    node.reply([Reply::Break]).reply(std::iter::repeat_n(Reply::Refuse("NO_LEADER"), 10_000));
    let error = client(&[node.endpoint()], 800).set(set()).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_under_a_write_is_unknown() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        // Accepts and hangs up.
        while let Ok((socket, _)) = listener.accept().await {
            let _ = socket.readable().await;
            drop(socket);
        }
    });
    let error = client(&[endpoint], 500).set(set()).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
}

#[tokio::test]
async fn the_deadline_holds_against_a_node_that_hangs() {
    let node = Fake::start().await;
    node.reply(std::iter::repeat_n(Reply::Hang, 100));
    let started = Instant::now();
    let error = client(&[node.endpoint()], 700).set(set()).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_hanging_node_costs_one_attempt_not_the_call() {
    let (hanging, healthy) = (Fake::start().await, Fake::start().await);
    hanging.reply(std::iter::repeat_n(Reply::Hang, 100));
    let client = client(&[hanging.endpoint(), healthy.endpoint()], 10_000);
    for _ in 0..4 {
        client.get(get()).await.unwrap();
    }
    assert_eq!(healthy.gets().len(), 4);
}

#[tokio::test]
async fn reads_rotate_and_never_ask_for_less_than_was_seen() {
    let (a, b) = (Fake::start().await, Fake::start().await);
    a.reply([Reply::Done(40), Reply::Done(41)]);
    b.reply([Reply::Done(40), Reply::Done(41)]);
    let client = client(&[a.endpoint(), b.endpoint()], 5_000);
    for _ in 0..4 {
        client.get(get()).await.unwrap();
    }
    assert_eq!((a.gets().len(), b.gets().len()), (2, 2));
    let asked = |fake: &Fake| -> Vec<Option<u64>> {
        fake.gets().iter().map(|get| get.read.and_then(|read| read.min_revision)).collect()
    };
    let mut all = [asked(&a), asked(&b)].concat();
    all.sort_unstable();
    assert_eq!(all, [None, Some(40), Some(40), Some(41)]);
}

#[tokio::test]
async fn a_read_after_a_write_waits_for_the_write() {
    let node = Fake::start().await;
    node.reply([Reply::Done(12)]);
    let client = client(&[node.endpoint()], 5_000);
    client.set(set()).await.unwrap();
    client.get(get()).await.unwrap();
    assert_eq!(node.gets()[0].read.unwrap().min_revision, Some(12));
}

#[tokio::test]
async fn a_linearizable_read_and_one_without_session_carry_no_revision() {
    let node = Fake::start().await;
    node.at_revision(3);
    let options = Options::default().session(false);
    let plain = Client::with_options([node.endpoint()], options).unwrap();
    plain.get(get()).await.unwrap();
    plain.get(get()).await.unwrap();

    let session = client(&[node.endpoint()], 5_000);
    session.get(get()).await.unwrap();
    let linearizable = v1::GetRequest {
        read: Some(v1::ReadOptions {
            consistency: v1::Consistency::Linearizable.into(),
            ..Default::default()
        }),
        ..get()
    };
    session.get(linearizable).await.unwrap();
    assert!(node.gets().iter().all(|get| get.read.is_none_or(|read| read.min_revision.is_none())));
}

fn promote() -> v1::MemberPromoteRequest {
    v1::MemberPromoteRequest { id: 4, force: false }
}

#[tokio::test]
async fn a_change_of_the_members_follows_the_leader_and_is_repeated_without_a_key() {
    let (follower, leader) = (Fake::start().await, Fake::start().await);
    follower.says_leader_is(&leader.endpoint()).reply([Reply::Refuse("NO_LEADER")]);
    leader.reply([Reply::Break, Reply::Done(1)]);
    let client = client(&[follower.endpoint()], 10_000);
    client.member_promote(promote()).await.unwrap();
    let asked = follower.promoted().len() + leader.promoted().len();
    assert_eq!(asked, 3, "refused, lost, done");
    assert!(!leader.promoted().is_empty(), "the leader is asked once it is known");
}

#[tokio::test]
async fn a_change_of_the_members_that_was_refused_is_told_from_one_that_was_lost() {
    let node = Fake::start().await;
    let client = client(&[node.endpoint()], 1_000);
    node.reply([Reply::Refuse("MEMBERSHIP_CONFLICT")]);
    let refused = client.member_promote(promote()).await.unwrap_err();
    assert_eq!(refused.rejection().unwrap().code, "MEMBERSHIP_CONFLICT");

    // Refused after an answer was lost: the lost attempt may have done it.
    node.reply([Reply::Break, Reply::Refuse("MEMBERSHIP_CONFLICT")]);
    let unknown = client.member_promote(promote()).await.unwrap_err();
    assert!(matches!(unknown, Error::OutcomeUnknown { .. }), "{unknown}");
    assert!(unknown.to_string().contains("send it again"), "{unknown}");
}
