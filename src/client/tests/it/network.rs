//! Laws against networks: connections that are cut, that hang, that stutter, and hints that lead nowhere.

use std::time::{Duration, Instant};

use llm_config_client::{Client, Error, Options, Watch, v1};

use crate::fake::proxy::{Mode, Proxy};
use crate::fake::{End, Fake, Reply, change, until};

fn client(endpoints: &[String]) -> Client {
    let options = Options::default()
        .timeout(Duration::from_secs(15))
        .attempt_timeout(Duration::from_millis(400))
        .connect_timeout(Duration::from_millis(400));
    Client::with_options(endpoints, options).unwrap()
}

#[tokio::test]
async fn a_write_whose_answer_is_cut_off_is_made_once() {
    let node = Fake::start().await;
    let proxy = Proxy::before(node.address, Mode::Pass).await;
    let options = Options::default().attempt_timeout(Duration::from_secs(10));
    let app = Client::with_options([proxy.endpoint()], options).unwrap().namespace("n");
    app.get::<u8>("warm").await.unwrap();

    proxy.set(Mode::HoldAnswers);
    let write = tokio::spawn({
        let app = app.clone();
        async move { app.set("k", &1).await }
    });
    // It was done, and its answer is on the way.
    until("the node does the write", || node.extra(|extra| extra.effects.len()) == 1).await;
    proxy.set(Mode::Pass);
    proxy.cut();
    write.await.unwrap().unwrap();

    let keys: Vec<String> = node.sets().into_iter().map(|set| set.idempotency_key).collect();
    assert!(keys.len() >= 2, "sent again: {keys:?}");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert_eq!(node.extra(|extra| extra.effects.len()), 1);
}

#[tokio::test]
async fn a_connection_that_is_only_half_open_costs_an_attempt_not_the_call() {
    let node = Fake::start().await;
    let proxy = Proxy::before(node.address, Mode::HalfOpen).await;
    let only = client(&[proxy.endpoint()]);
    let quick = Options::default()
        .timeout(Duration::from_millis(900))
        .attempt_timeout(Duration::from_millis(300));
    let lone = Client::with_options([proxy.endpoint()], quick).unwrap();
    let started = Instant::now();
    let error = lone.namespace("n").set("k", &1).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "it may have got through: {error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(proxy.accepted() > 0);
    drop(only);

    let both = client(&[proxy.endpoint(), node.endpoint()]);
    for _ in 0..4 {
        both.namespace("n").get::<u8>("k").await.unwrap();
    }
    both.namespace("n").set("k", &1).await.unwrap();
}

#[tokio::test]
async fn hints_to_dead_and_hostile_addresses_do_not_stop_a_write() {
    // Something that is no node: it talks first, and nonsense.
    let stranger = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nonsense = stranger.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = stranger.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"220 smtp ready\r\n").await;
        }
    });
    let dead = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let long = format!("{}:1", "a".repeat(600));
    for hint in [
        &dead,
        &nonsense,
        &long,
        "user@127.0.0.1:1",
        "http://127.0.0.1:1",
        "127.0.0.1",
        "127.0.0.1:1/path",
        "no such host:1",
    ] {
        let node = Fake::start().await;
        node.says_leader_is(hint);
        let client = client(&[node.endpoint()]);
        for _ in 0..3 {
            client
                .namespace("n")
                .set("k", &1)
                .await
                .unwrap_or_else(|error| panic!("{hint}: {error}"));
        }
        assert_eq!(node.extra(|extra| extra.effects.len()), 3, "{hint}");
    }
}

#[tokio::test]
async fn a_write_finds_a_leader_that_moves() {
    let (a, b, c) = (Fake::start().await, Fake::start().await, Fake::start().await);
    a.says_leader_is(&b.endpoint()).reply([Reply::Refuse("NO_LEADER")]);
    b.says_leader_is(&c.endpoint()).reply([Reply::Refuse("NO_LEADER")]);
    c.says_leader_is(&c.endpoint());
    let client = client(&[a.endpoint()]);
    client.namespace("n").set("k", &1).await.unwrap();
    assert_eq!((a.sets().len(), b.sets().len(), c.sets().len()), (1, 1, 1));
    // It moves again, while the client believes in the old one.
    c.says_leader_is(&b.endpoint()).reply([Reply::Refuse("NO_LEADER")]);
    b.says_leader_is(&b.endpoint());
    client.namespace("n").set("k", &2).await.unwrap();
    assert_eq!((a.sets().len(), b.sets().len(), c.sets().len()), (1, 2, 2));
}

#[tokio::test]
async fn two_nodes_that_name_each_other_do_not_make_an_endless_chase() {
    let (a, b) = (Fake::start().await, Fake::start().await);
    a.says_leader_is(&b.endpoint()).reply(std::iter::repeat_n(Reply::Refuse("NO_LEADER"), 10_000));
    b.says_leader_is(&a.endpoint()).reply(std::iter::repeat_n(Reply::Refuse("NO_LEADER"), 10_000));
    let options = Options::default().timeout(Duration::from_millis(700));
    let client = Client::with_options([a.endpoint()], options).unwrap();
    let error = client.namespace("n").set("k", &1).await.unwrap_err();
    // An attempt that the deadline cut off may have got through.
    assert!(error.is_outage(), "{error}");
    let attempts = a.sets().len() + b.sets().len();
    assert!((2..=60).contains(&attempts), "the pauses grow: {attempts}");
}

async fn next(watch: &mut Watch) -> v1::WatchResponse {
    let next = tokio::time::timeout(Duration::from_secs(30), watch.next()).await;
    next.expect("the watch is stuck").expect("the watch ended").expect("the watch failed")
}

/// A change that does not fit into one packet.
fn large(revision: u64) -> v1::WatchResponse {
    let mut response = change(revision);
    for entry in response.events.iter_mut().filter_map(|event| event.entry.as_mut()) {
        entry.value = format!("\"{}\"", "x".repeat(400_000)).into();
    }
    response
}

#[tokio::test]
async fn a_stream_that_stutters_brings_everything() {
    let node = Fake::start().await;
    node.stream(vec![change(1), large(2), change(3)], End::Open);
    let proxy = Proxy::before(node.address, Mode::Stutter).await;
    let mut watch = client(&[proxy.endpoint()]).watch_namespaces("").from_revision(1).start();
    for revision in 1..=3 {
        let next = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap();
        let response = next.unwrap().unwrap();
        assert_eq!(response, if revision == 2 { large(2) } else { change(revision) });
    }
}

#[tokio::test]
async fn a_watch_cut_in_the_middle_of_a_revision_delivers_it_once_and_whole() {
    let node = Fake::start().await;
    node.tell(change(1)).tell(large(2)).tell(change(3));
    let proxy = Proxy::before(node.address, Mode::Stutter).await;
    let mut watch = client(&[proxy.endpoint()]).watch_namespaces("").from_revision(1).start();
    assert_eq!(next(&mut watch).await.revision, 1);
    let cutter = async {
        until("revision 2 is half there", || proxy.answered_bytes() > 50_000).await;
        assert!(proxy.answered_bytes() < 390_000, "too late to cut it");
        proxy.set(Mode::Pass);
        proxy.cut();
    };
    let ((), response) = tokio::join!(cutter, next(&mut watch));
    assert_eq!(response, large(2));
    assert_eq!(next(&mut watch).await, change(3));
    let from: Vec<u64> = node.watched().iter().map(|watched| watched.from_revision).collect();
    assert_eq!(from, [1, 2]);
}

#[tokio::test]
async fn a_watch_notices_a_peer_that_vanished_and_goes_on() {
    let node = Fake::start().await;
    node.tell(change(1));
    let proxy = Proxy::before(node.address, Mode::Pass).await;
    let mut watch = client(&[proxy.endpoint()]).watch_namespaces("").from_revision(1).start();
    assert_eq!(next(&mut watch).await.revision, 1);
    // No packet says so: only the pings stay unanswered.
    proxy.set(Mode::HalfOpen);
    let before = proxy.accepted();
    node.tell(change(2));
    let heal = async {
        until("it connects anew", || proxy.accepted() > before).await;
        proxy.set(Mode::Pass);
        // Connections from the time when nothing went through stay as they are.
        proxy.cut();
    };
    let ((), next) =
        tokio::join!(heal, tokio::time::timeout(Duration::from_secs(30), watch.next()));
    assert_eq!(next.expect("the watch is stuck").unwrap().unwrap().revision, 2);
}

#[tokio::test]
async fn a_dropped_wait_for_a_watch_loses_nothing() {
    let node = Fake::start().await;
    node.tell(change(1));
    let mut watch = client(&[node.endpoint()]).watch_namespaces("").from_revision(1).start();
    assert_eq!(next(&mut watch).await.revision, 1);
    for revision in 2..20 {
        assert!(tokio::time::timeout(Duration::from_micros(50), watch.next()).await.is_err());
        node.tell(change(revision));
        // As the stream that it is.
        let next = futures::StreamExt::next(&mut watch).await;
        assert_eq!(next.unwrap().unwrap().revision, revision);
    }
    assert_eq!(node.watched().len(), 1);
}
