//! Nodes over TLS: they form a cluster, and nobody else gets a word in: not without a certificate, not with one of
//! another authority, and not in the name of another node.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says so by failing")]

#[path = "../../tls/tests/authority/mod.rs"]
mod authority;
mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authority::Authority;
use hyper_util::rt::TokioIo;
use llm_config_domain::query;
use llm_config_proto::internal as pb;
use llm_config_proto::internal::replication_client::ReplicationClient;
use llm_config_replica::{MemberError, Replica};
use llm_config_tls::pki_types::ServerName;
use llm_config_tls::{File, Files, NodeTls, node_name};
use support::{Cluster, address, eventually, in_time, set};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};

/// What a node with the certificate of `named` secures its connections with.
fn tls(authority: &Authority, named: u64, folder: &Path) -> Arc<NodeTls> {
    let written = authority.node(named).write(folder, &format!("node-{named}"));
    let ca = folder.join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let file = |option, path| File { option, path };
    let files = Files {
        certificate: file("--raft-tls-cert", written.certificate),
        key: file("--raft-tls-key", written.key),
    };
    NodeTls::for_nodes(named, files, file("--raft-tls-ca", ca)).unwrap()
}

/// A cluster that is not started, with a certificate for each node.
fn prepare(nodes: u64, authority: &Authority, folder: &Path) -> Cluster {
    let mut cluster = Cluster::prepare(nodes);
    for id in 1..=nodes {
        cluster.secure(id, tls(authority, id, folder));
    }
    cluster
}

async fn started(nodes: u64, authority: &Authority, folder: &Path) -> Cluster {
    let mut cluster = prepare(nodes, authority, folder);
    for id in 1..=nodes {
        cluster.start_node(id).await.unwrap();
    }
    cluster.all_ready().await;
    cluster
}

async fn write(replica: &Replica, key: &str, value: u64) {
    replica.propose(set(key, value), in_time()).await.unwrap().result.unwrap();
}

fn refused(replica: &Replica) -> u64 {
    replica.stats().tls_handshake_failures
}

/// A connection that shows the certificate of `shown` to node `target`.
fn connection(shown: Arc<NodeTls>, target: u64, address: &str) -> ReplicationClient<Channel> {
    let to = address.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let (shown, to) = (Arc::clone(&shown), to.clone());
        async move {
            let stream = TcpStream::connect(to).await?;
            let name = ServerName::try_from(node_name(target)).unwrap();
            shown.connector().connect(name, stream).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    ReplicationClient::new(endpoint.connect_with_connector_lazy(connector))
}

/// A request of one node to another, as far as its words go.
fn from_to<T>(message: T, source: u64, target: u64, cluster_id: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-source-node", source.into());
    metadata.insert("x-target-node", target.into());
    metadata.insert("x-cluster-id", cluster_id.parse().unwrap());
    request
}

/// A vote that anybody would get who may ask for one: the highest term.
fn vote(node_id: u64) -> pb::VoteRequest {
    let vote = pb::Vote { term: 1_000_000, node_id, ..pb::Vote::default() };
    pb::VoteRequest { vote: Some(vote), ..pb::VoteRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_elect_write_and_survive_one_another() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let mut cluster = started(3, &authority, folder.path()).await;
    for id in 1..=3 {
        write(cluster.node(id), &format!("by-{id}"), id).await;
    }
    for id in 1..=3 {
        let replica = cluster.node(id);
        replica.linearizable(in_time()).await.unwrap();
        for writer in 1..=3 {
            let found = query::get(&replica.view(), &address(&format!("by-{writer}"))).unwrap();
            assert!(found.is_some(), "node {id} lacks the write of node {writer}");
        }
        assert_eq!(refused(replica), 0);
    }
    let leader = cluster.leader().await;
    cluster.stop_node(leader).await;
    let other = leader % 3 + 1;
    write(cluster.node(other), "after", 1).await;
    cluster.start_node(leader).await.unwrap();
    cluster.all_ready().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_founder_with_a_foreign_certificate_neither_votes_nor_counts() {
    let (authority, foreign) = (Authority::new("a"), Authority::new("a"));
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut cluster = prepare(3, &authority, folder.path());
    cluster.secure(3, tls(&foreign, 3, elsewhere.path()));
    for id in 1..=3 {
        cluster.start_node(id).await.unwrap();
    }
    let leader = cluster.leader().await;
    assert_ne!(leader, 3);
    write(cluster.node(leader), "with-two", 1).await;
    eventually("both sides turn each other away", || {
        refused(cluster.node(leader)) > 0 && refused(cluster.node(3)) > 0
    })
    .await;
    assert!(!cluster.node(3).ready());
    assert_eq!(cluster.node(3).status().cluster_id, None, "it heard nothing");

    // Without the other one there is no majority, whatever the third says.
    let other = 3 - leader;
    cluster.stop_node(other).await;
    eventually("the majority is lost", || !cluster.node(leader).status().has_quorum).await;
    let turned_away = refused(cluster.node(leader));
    eventually("the third keeps trying", || refused(cluster.node(leader)) > turned_away + 3).await;
    let status = cluster.node(leader).status();
    assert!(!status.has_quorum && !cluster.node(3).ready(), "{status:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_joins_with_a_certificate_of_the_cluster_and_with_no_other() {
    let (authority, foreign) = (Authority::new("a"), Authority::new("a"));
    let (folder, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut cluster = started(1, &authority, folder.path()).await;
    cluster.prepare_joiner(2, None);
    let add = cluster.add(2);

    // Of another authority; then in clear text.
    for wrong in [Some(tls(&foreign, 2, elsewhere.path())), None] {
        let secured = wrong.is_some();
        if let Some(wrong) = wrong {
            cluster.secure(2, wrong);
        } else {
            cluster.forget(2).await;
            cluster.prepare_joiner(2, None);
        }
        cluster.start_node(2).await.unwrap();
        let refusal = cluster.node(1).change_members(add.clone(), false, "test", in_time()).await;
        let Err(MemberError::Invalid(reason) | MemberError::Conflict(reason)) = refusal else {
            panic!("secured: {secured}: {refusal:?}");
        };
        assert!(reason.contains("no node answers"), "{reason}");
        assert!(cluster.node(2).awaits_cluster());
        cluster.stop_node(2).await;
    }

    cluster.secure(2, tls(&authority, 2, folder.path()));
    cluster.start_node(2).await.unwrap();
    cluster.node(1).change_members(add, false, "test", in_time()).await.unwrap();
    cluster.all_ready().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_in_the_name_of_another_node_is_refused() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let cluster = started(3, &authority, folder.path()).await;
    let target = cluster.leader().await;
    let (own, other) = (target % 3 + 1, (target + 1) % 3 + 1);
    let cluster_id = cluster.node(target).status().cluster_id.unwrap();
    let term = cluster.node(target).status().term;
    let shown = tls(&authority, own, folder.path());
    let mut peer = connection(shown, target, cluster.raft_address(target));

    let expect = |refusal: Result<(), Status>| {
        let status = refusal.expect_err("another node's name");
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        let reason = status.message();
        assert!(reason.contains(&format!("from node {other}")), "{reason}");
        assert!(reason.contains(&format!("that of node {own}")), "{reason}");
    };
    let as_other = |message| from_to(message, other, target, &cluster_id);
    expect(peer.vote(as_other(vote(other))).await.map(drop));
    expect(peer.pre_vote(as_other(vote(other))).await.map(drop));
    let append = || pb::AppendRequest { vote: vote(other).vote, ..pb::AppendRequest::default() };
    expect(peer.heartbeat(from_to(append(), other, target, &cluster_id)).await.map(drop));
    let stream = futures::stream::iter([append()]);
    expect(peer.append(from_to(stream, other, target, &cluster_id)).await.map(drop));
    let nothing = futures::stream::empty::<pb::SnapshotChunk>();
    expect(peer.install_snapshot(from_to(nothing, other, target, &cluster_id)).await.map(drop));
    let command = llm_config_domain::Command::encode(&set("pretended", 1));
    let propose = pb::ProposeRequest { command, timeout_ms: 1_000 };
    expect(peer.propose(from_to(propose, other, target, &cluster_id)).await.map(drop));
    let change = pb::ChangeMembersRequest::default();
    expect(peer.change_members(from_to(change, other, target, &cluster_id)).await.map(drop));
    let read = pb::ReadIndexRequest {};
    expect(peer.read_index(from_to(read, other, target, &cluster_id)).await.map(drop));
    let transfer = pb::TransferLeaderRequest::default();
    expect(peer.transfer_leader(from_to(transfer, other, target, &cluster_id)).await.map(drop));
    let identify = pb::IdentifyRequest {};
    expect(peer.identify(from_to(identify, other, target, &cluster_id)).await.map(drop));
    assert_eq!(cluster.node(target).status().term, term, "nothing of it was heard");

    // In its own name the same connection is heard.
    let identify = from_to(pb::IdentifyRequest {}, own, target, &cluster_id);
    assert_eq!(peer.identify(identify).await.unwrap().into_inner().node_id, target);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_never_finishes_a_handshake_keeps_nobody_out() {
    let (authority, folder) = (Authority::new("a"), tempfile::tempdir().unwrap());
    let mut cluster = prepare(3, &authority, folder.path());
    cluster.start_node(1).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(cluster.raft_address(1)).await.unwrap());
    }
    let before = std::time::Instant::now();
    for id in [2, 3] {
        cluster.start_node(id).await.unwrap();
    }
    cluster.all_ready().await;
    write(cluster.node(1), "beside-them", 1).await;
    assert!(before.elapsed() < Duration::from_secs(30), "took {:?}", before.elapsed());
    eventually("they are sent away", || refused(cluster.node(1)) >= 50).await;
    drop(silent);
    cluster.stop().await;
}
