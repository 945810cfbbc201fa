//! The gRPC API of a real node: answers, errors and what every answer carries, on both ports that take it.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::grpc_support::{Alone, PATIENCE, RawGet, channel, get, raw, reason, revision, set};
use crate::http_support::wait_for;
use llm_config_proto::v1;
use llm_config_proto::v1::cluster_service_client::ClusterServiceClient;
use llm_config_proto::v1::config_service_client::ConfigServiceClient;
use tokio::time::timeout;
use tonic::{Code, Request};
use tonic_types::StatusExt;

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_lives_through_every_method_on_both_ports() {
    let alone = Alone::start().await;
    for (n, address) in [alone.ports.grpc, alone.ports.http].into_iter().enumerate() {
        let mut client = ConfigServiceClient::new(channel(address).await);
        let key = &format!("model-{n}");
        let created = client.set(set(key, r#"{"name": "a"}"#)).await.unwrap();
        let (metadata, created) = (created.metadata().clone(), created.into_inner());
        let first = created.entry.unwrap();
        assert!(created.created);
        assert_eq!(
            (first.version, &first.value[..], first.environment.as_str()),
            (1, &br#"{"name":"a"}"#[..], "base")
        );
        assert!(revision(&metadata) >= first.revision);

        let second = client.set(set(key, r#"{"name":"b"}"#)).await.unwrap().into_inner();
        assert!(!second.created);
        let got = client.get(get(key)).await.unwrap();
        assert!(revision(got.metadata()) >= second.entry.as_ref().unwrap().revision);
        assert_eq!(got.into_inner().entry, second.entry);

        let target = v1::HistoryRequest {
            namespace: "ns".to_owned(),
            key: key.clone(),
            ..Default::default()
        };
        let history = client.history(target).await.unwrap().into_inner().items;
        assert_eq!(history.iter().map(|entry| entry.version).collect::<Vec<_>>(), [2, 1]);

        let diff = v1::DiffRequest {
            namespace: "ns".to_owned(),
            key: key.clone(),
            from: Some(1),
            to: Some(2),
            ..Default::default()
        };
        let patch: serde_json::Value =
            serde_json::from_slice(&client.diff(diff).await.unwrap().into_inner().patch).unwrap();
        assert_eq!(patch, serde_json::json!([{"op": "replace", "path": "/name", "value": "b"}]));

        let rollback = v1::RollbackRequest {
            namespace: "ns".to_owned(),
            key: key.clone(),
            version: 1,
            ..Default::default()
        };
        let back = client.rollback(rollback).await.unwrap().into_inner().entry.unwrap();
        assert_eq!((back.version, back.value), (3, first.value));

        let list = v1::ListRequest {
            namespace: "ns".to_owned(),
            prefix: key.clone(),
            ..Default::default()
        };
        assert_eq!(client.list(list).await.unwrap().into_inner().items.len(), 1);
        let spaces = client
            .list_namespaces(v1::ListNamespacesRequest::default())
            .await
            .unwrap()
            .into_inner()
            .items;
        assert_eq!((spaces[0].namespace.as_str(), spaces[0].entries), ("ns", 1));
        let resolve = v1::ResolveRequest {
            namespace: "ns".to_owned(),
            environment: "production".to_owned(),
            ..Default::default()
        };
        let resolved = client.resolve(resolve).await.unwrap().into_inner();
        assert_eq!(
            (resolved.values[0].key.as_str(), resolved.values[0].source.as_str()),
            (key.as_str(), "base")
        );

        let txn = v1::TxnRequest {
            compare: vec![v1::Compare {
                namespace: "ns".to_owned(),
                key: key.clone(),
                version: 3,
                ..Default::default()
            }],
            success: vec![v1::TxnOp {
                op: Some(v1::txn_op::Op::Get(v1::txn_op::Get {
                    namespace: "ns".to_owned(),
                    key: key.clone(),
                    ..Default::default()
                })),
            }],
            ..Default::default()
        };
        let txn = client.txn(txn).await.unwrap().into_inner();
        assert!(txn.succeeded);
        assert_eq!(
            (txn.results[0].op.as_str(), txn.results[0].entry.as_ref().unwrap().version),
            ("get", 3)
        );

        let delete = v1::DeleteRequest {
            namespace: "ns".to_owned(),
            key: key.clone(),
            ..Default::default()
        };
        assert_eq!(client.delete(delete).await.unwrap().into_inner().version, 4);
        assert_eq!(reason(&client.get(get(key)).await.unwrap_err()), "NOT_FOUND");
    }
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_their_stable_code_and_every_answer_says_who_leads() {
    let alone = Alone::start().await;
    let mut client = alone.config().await;
    client.set(set("k", "1")).await.unwrap();

    let conflict = client
        .set(v1::SetRequest { expected_version: Some(0), ..set("k", "2") })
        .await
        .unwrap_err();
    assert_eq!((conflict.code(), reason(&conflict).as_str()), (Code::Aborted, "VERSION_CONFLICT"));
    assert_eq!(conflict.get_details_error_info().unwrap().metadata["current_version"], "1");

    let cases = [
        (client.set(set("k", "{")).await.unwrap_err(), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (client.set(set("", "1")).await.unwrap_err(), Code::InvalidArgument, "INVALID_ARGUMENT"),
        (
            client
                .set(v1::SetRequest { secret: Some(true), ..set("k", "\"x\"") })
                .await
                .unwrap_err(),
            Code::FailedPrecondition,
            "SECRETS_UNAVAILABLE",
        ),
        (client.get(get("absent")).await.unwrap_err(), Code::NotFound, "NOT_FOUND"),
        (
            client
                .get(v1::GetRequest { environment: "moon".to_owned(), ..get("k") })
                .await
                .unwrap_err(),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            client
                .get(v1::GetRequest {
                    read: Some(v1::ReadOptions { consistency: 9, ..Default::default() }),
                    ..get("k")
                })
                .await
                .unwrap_err(),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            client
                .txn(v1::TxnRequest { success: vec![v1::TxnOp { op: None }], ..Default::default() })
                .await
                .unwrap_err(),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            client.set(set("k", &format!("\"{}\"", "x".repeat(2 << 20)))).await.unwrap_err(),
            Code::InvalidArgument,
            "PAYLOAD_TOO_LARGE",
        ),
        (
            client.set(set("k", &format!("\"{}\"", "x".repeat(6 << 20)))).await.unwrap_err(),
            Code::InvalidArgument,
            "PAYLOAD_TOO_LARGE",
        ),
    ];
    let leader = alone.ports.grpc.to_string();
    for (status, code, expected) in &cases {
        assert_eq!((status.code(), reason(status).as_str()), (*code, *expected), "{status:?}");
        assert_eq!(
            status.metadata().get("x-config-leader").unwrap().to_str().unwrap(),
            leader,
            "{status:?}"
        );
        assert!(revision(status.metadata()) >= 1);
    }
    let good = client.get(get("k")).await.unwrap();
    assert_eq!(good.metadata().get("x-config-leader").unwrap().to_str().unwrap(), leader);
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_none_is_the_callers_mistake() {
    let alone = Alone::start().await;
    let channel = channel(alone.ports.grpc).await;
    let broken = || Request::new(RawGet { namespace: b"\xff\xfe".to_vec() });
    let status = raw(channel.clone(), "/llmconfig.v1.ConfigService/Get", broken()).await;
    let status = status.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::InvalidArgument, "INVALID_ARGUMENT")
    );
    let unknown = raw(channel, "/llmconfig.v1.ConfigService/NoSuchMethod", broken()).await;
    let unknown = unknown.unwrap_err();
    assert_eq!(unknown.code(), Code::Unimplemented);
    assert!(unknown.metadata().contains_key("x-config-revision"));
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_delivers_in_order_and_says_why_it_ends() {
    let alone = Alone::start().await;
    let mut client = alone.config().await;
    let first = client.set(set("k", "1")).await.unwrap().into_inner().entry.unwrap().revision;
    let request =
        v1::WatchRequest { namespace: "ns".to_owned(), from_revision: first, ..Default::default() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    client.set(set("k", "2")).await.unwrap();
    client
        .delete(v1::DeleteRequest {
            namespace: "ns".to_owned(),
            key: "k".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch =
            timeout(PATIENCE, watch.message()).await.expect("an event in time").unwrap().unwrap();
        seen.extend(
            batch.events.into_iter().map(|event| (event.kind(), event.entry.unwrap().version)),
        );
    }
    use v1::watch_event::Kind;
    assert_eq!(seen, [(Kind::Set, 1), (Kind::Set, 2), (Kind::Delete, 3)]);

    alone.node.stop().await;
    let ended = async {
        loop {
            match watch.message().await {
                Ok(Some(bookmark)) => assert!(bookmark.events.is_empty()),
                Ok(None) => panic!("a watch never ends without an error"),
                Err(status) => return status,
            }
        }
    };
    assert_eq!(
        reason(&timeout(PATIENCE, ended).await.expect("the watch ends with the node")),
        "NOT_READY"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_ends_at_the_callers_deadline() {
    let alone = Alone::start().await;
    let mut client = alone.config().await;
    let mut request = Request::new(v1::WatchRequest::default());
    request.metadata_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let ended = async {
        loop {
            if let Err(status) = watch.message().await {
                return status;
            }
        }
    };
    assert_eq!(
        timeout(PATIENCE, ended).await.expect("the deadline is kept").code(),
        Code::DeadlineExceeded
    );
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_health_and_reflection_answer() {
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_check_response::ServingStatus;
    use tonic_health::pb::health_client::HealthClient;
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let alone = Alone::start().await;
    let channel = channel(alone.ports.grpc).await;
    let status = ClusterServiceClient::new(channel.clone())
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((status.node_id, status.role.as_str(), status.leader_id), (1, "leader", Some(1)));
    assert_eq!(status.members[0].grpc, alone.ports.grpc.to_string());
    assert!(!status.cluster_id.is_empty());

    let mut health = HealthClient::new(channel.clone());
    for service in [
        "",
        "llmconfig.v1.ConfigService",
        "llmconfig.v1.ClusterService",
        "llmconfig.v1.BackupService",
        "llmconfig.v1.SecurityService",
        "llmconfig.v1.SchemaService",
    ] {
        let serving = async {
            loop {
                let request = HealthCheckRequest { service: service.to_owned() };
                if health.check(request).await.unwrap().into_inner().status()
                    == ServingStatus::Serving
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, serving).await.expect("the service is reported as serving");
    }

    let question = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(channel)
        .server_reflection_info(tokio_stream::once(question))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services");
    };
    let names: BTreeSet<_> = list.service.iter().map(|service| service.name.as_str()).collect();
    let public = [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "llmconfig.v1.BackupService",
        "llmconfig.v1.ClusterService",
        "llmconfig.v1.ConfigService",
        "llmconfig.v1.SecurityService",
        "llmconfig.v1.SchemaService",
    ];
    assert_eq!(names, public.into());
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_the_members_have_the_codes_of_the_http_api() {
    let alone = Alone::start().await;
    let mut cluster = ClusterServiceClient::new(channel(alone.ports.grpc).await);
    let node = v1::MemberAddRequest {
        id: 2,
        raft: "127.0.0.1:1".to_owned(),
        http: "h:1".to_owned(),
        grpc: "h:1".to_owned(),
        force: false,
    };
    let nameless = v1::MemberAddRequest { raft: "h".to_owned(), ..node.clone() };
    let unknown = v1::MemberPromoteRequest { id: 9, force: false };
    let cases = [
        (
            cluster.member_add(nameless).await.unwrap_err(),
            Code::InvalidArgument,
            "INVALID_ARGUMENT",
        ),
        (
            cluster.member_add(node).await.unwrap_err(),
            Code::FailedPrecondition,
            "MEMBERSHIP_CONFLICT",
        ),
        (cluster.member_promote(unknown).await.unwrap_err(), Code::NotFound, "NOT_FOUND"),
        (
            cluster
                .member_demote(v1::MemberDemoteRequest { id: 1, force: true })
                .await
                .unwrap_err(),
            Code::FailedPrecondition,
            "MEMBERSHIP_CONFLICT",
        ),
        (
            cluster
                .member_remove(v1::MemberRemoveRequest { id: 1, force: true })
                .await
                .unwrap_err(),
            Code::FailedPrecondition,
            "MEMBERSHIP_CONFLICT",
        ),
        (
            cluster
                .member_replace(v1::MemberReplaceRequest { old_id: 1, new_id: 9, force: false })
                .await
                .unwrap_err(),
            Code::NotFound,
            "NOT_FOUND",
        ),
    ];
    for (status, code, expected) in &cases {
        assert_eq!((status.code(), reason(status).as_str()), (*code, *expected), "{status:?}");
    }
    let promoted = cluster.member_promote(v1::MemberPromoteRequest { id: 1, force: false }).await;
    let members = promoted.unwrap().into_inner().members;
    assert_eq!((members.len(), members[0].version.as_str()), (1, env!("CARGO_PKG_VERSION")));
    let moved =
        cluster.transfer_leader(v1::TransferLeaderRequest { to: Some(1), force: false }).await;
    assert_eq!(moved.unwrap().into_inner().leader_id, Some(1));
    let page = String::from_utf8(alone.node.service().metrics().render().unwrap()).unwrap();
    for line in [
        "grpc_requests_total{code=\"NOT_FOUND\",method=\"/llmconfig.v1.ClusterService/MemberPromote\"} 1",
        "config_operations_total{operation=\"member_add\"} 2",
        "config_errors_total{code=\"MEMBERSHIP_CONFLICT\",operation=\"member_remove\"} 1",
        "config_operations_total{operation=\"transfer_leader\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_by_method_and_code() {
    let alone = Alone::start().await;
    let mut client = alone.config().await;
    client.set(set("k", "1")).await.unwrap();
    client.get(get("absent")).await.unwrap_err();
    let page = String::from_utf8(alone.node.service().metrics().render().unwrap()).unwrap();
    for line in [
        "grpc_requests_total{code=\"OK\",method=\"/llmconfig.v1.ConfigService/Set\"} 1",
        "grpc_requests_total{code=\"NOT_FOUND\",method=\"/llmconfig.v1.ConfigService/Get\"} 1",
        "config_operations_total{operation=\"set\"} 1",
        "config_errors_total{code=\"NOT_FOUND\",operation=\"get\"} 1",
        "config_changes_total{environment=\"base\"} 1",
        "config_reads_total{consistency=\"linearizable\"} 1",
        "config_operation_duration_seconds_count{operation=\"get\"} 1",
        "llm_config_raft_proposal_duration_seconds_count 1",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    // Counted in the background, so that a scrape reads nothing from storage.
    wait_for("the entry is counted and the node finds itself healthy", || {
        let page = String::from_utf8(alone.node.service().metrics().render().unwrap()).unwrap();
        let lines = ["config_active_total{environment=\"base\"} 1", "health_status 2"];
        lines.iter().all(|line| page.contains(line)).then_some(())
    })
    .await;
    alone.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stopped_lets_go_of_its_addresses_and_data() {
    let alone = Alone::start().await;
    alone.config().await.set(set("k", "1")).await.unwrap();
    let Alone { node, ports, folder } = alone;
    node.stop().await;
    let again = Alone::start_in(folder, ports, |_| {}).await;
    let entry = again.config().await.get(get("k")).await.unwrap().into_inner().entry.unwrap();
    assert_eq!(&entry.value[..], b"1");
    again.node.stop().await;
}
