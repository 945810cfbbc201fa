//! Laws of membership: reads go to all members that answer, to no other, and nothing is left running.

use std::time::Duration;

use llm_config_client::{Client, ClientBuilder};
use tonic::Code;

use crate::fake::proxy::{Mode, Proxy};
use crate::fake::{Fake, until};

fn builder(node: &Fake) -> ClientBuilder {
    Client::builder()
        .endpoint(node.endpoint())
        .members_interval(Duration::from_millis(20))
        .timeout(Duration::from_secs(10))
        .attempt_timeout(Duration::from_millis(500))
}

async fn read(client: &Client, count: usize) {
    for _ in 0..count {
        client.namespace("n").get::<u8>("k").await.unwrap();
    }
}

/// Reads until this node was asked `more` times.
async fn read_until_asked(client: &Client, node: &Fake, more: usize) {
    let wanted = node.gets().len() + more;
    tokio::time::timeout(Duration::from_secs(20), async {
        while node.gets().len() < wanted {
            read(client, 1).await;
        }
    })
    .await
    .expect("the node takes no reads");
}

#[tokio::test]
async fn reads_move_to_a_new_member_and_leave_a_removed_one() {
    let (one, two, three) = (Fake::start().await, Fake::start().await, Fake::start().await);
    let (a, b, c) = (one.endpoint(), two.endpoint(), three.endpoint());
    for (id, node) in [(1, &one), (2, &two), (3, &three)] {
        node.is_member(id, &[(1, &a), (2, &b)]);
    }
    let client = builder(&one).build().unwrap();
    read_until_asked(&client, &two, 3).await;
    assert!(three.gets().is_empty());

    for (id, node) in [(1, &one), (2, &two), (3, &three)] {
        node.is_member(id, &[(1, &a), (3, &c)]);
    }
    read_until_asked(&client, &three, 3).await;
    let left = two.gets().len();
    read(&client, 20).await;
    assert_eq!(two.gets().len(), left, "a removed member is asked no more");
    assert!(!one.gets().is_empty());

    // The endpoint that was given is removed too: it is left alone while others answer.
    for (id, node) in [(1, &one), (2, &two), (3, &three)] {
        node.is_member(id, &[(3, &c)]);
    }
    tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let before = one.gets().len();
            read(&client, 10).await;
            if one.gets().len() == before {
                break;
            }
        }
    })
    .await
    .expect("the removed endpoint still takes reads");
}

#[tokio::test]
async fn an_address_where_another_node_answers_takes_no_reads() {
    let (one, other) = (Fake::start().await, Fake::start().await);
    let (a, b) = (one.endpoint(), other.endpoint());
    one.is_member(1, &[(1, &a), (2, &b)]);
    // A node of another cluster has got the address.
    other.is_member(2, &[(2, &b)]);
    other.extra(|extra| extra.status.cluster_id = "another".into());
    let client = builder(&one).build().unwrap();
    read(&client, 1).await;
    let asked = || other.extra(|extra| extra.statuses);
    until("it is asked who it is", || asked() > 0).await;
    read(&client, 20).await;
    assert!(other.gets().is_empty());
}

#[tokio::test]
async fn members_that_cannot_be_reached_cost_the_calls_nothing() {
    let one = Fake::start().await;
    let proxy = Proxy::before(one.address, Mode::HalfOpen).await;
    let a = one.endpoint();
    one.is_member(1, &[(1, &a), (2, &proxy.endpoint()), (3, "127.0.0.1:1")]);
    let client = builder(&one).build().unwrap();
    read(&client, 1).await;
    until("the others are asked who they are", || proxy.accepted() > 0).await;
    let started = std::time::Instant::now();
    read(&client, 50).await;
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(one.gets().len(), 51, "each read is one attempt");
}

#[tokio::test]
async fn a_client_that_may_not_ask_for_members_goes_on_and_stops_asking() {
    let node = Fake::start().await;
    node.extra(|extra| {
        extra.status_refusal = Some((Code::PermissionDenied, "PERMISSION_DENIED"));
    });
    let client = builder(&node).build().unwrap();
    read(&client, 1).await;
    until("it asks", || node.extra(|extra| extra.statuses) > 0).await;
    for _ in 0..10 {
        read(&client, 5).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(node.extra(|extra| extra.statuses), 1);
}

#[tokio::test]
async fn a_pinned_client_asks_for_no_members() {
    let node = Fake::start().await;
    let (a, other) = (node.endpoint(), Fake::start().await);
    node.is_member(1, &[(1, &a), (2, &other.endpoint())]);
    for builder in [builder(&node).follow_members(false), builder(&node).follow_leader(false)] {
        let client = builder.build().unwrap();
        for _ in 0..10 {
            read(&client, 2).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(node.extra(|extra| extra.statuses), 0);
}

#[tokio::test]
async fn nothing_runs_on_when_the_client_is_dropped() {
    let node = Fake::start().await;
    let a = node.endpoint();
    node.is_member(1, &[(1, &a), (2, "127.0.0.1:1")]).holds(5, "k", "1");
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let client = builder(&node).build().unwrap();
    let config =
        client.namespace("n").live::<std::collections::BTreeMap<String, u8>>().await.unwrap();
    read(&client, 3).await;
    until("it asks for members", || node.extra(|extra| extra.statuses) > 0).await;
    until("it watches", || !node.watched().is_empty()).await;
    assert!(alive() > before);
    drop((client, config));
    until("every task has ended", || alive() <= before).await;
}

#[tokio::test]
async fn a_client_that_makes_one_call_and_ends_asks_for_no_members() {
    let node = Fake::start().await;
    let client = Client::builder().endpoint(node.endpoint()).build().unwrap();
    read(&client, 1).await;
    drop(client);
    // It would have asked by then, half a second after its call.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(node.extra(|extra| extra.statuses), 0);
}
