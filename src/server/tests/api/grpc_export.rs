//! Exports over gRPC, watches of many namespaces, and what an error says about a value.

use llm_config_proto::v1;
use llm_config_proto::v1::schema_service_client::SchemaServiceClient;
use tonic_types::StatusExt as _;

use crate::grpc_support::{Alone, channel, get, reason, set};

async fn export(node: &Alone, namespace: &str) -> (Vec<u64>, Vec<v1::Entry>) {
    let request = v1::ExportRequest { namespace: namespace.into(), ..Default::default() };
    let mut stream = node.config().await.export(request).await.unwrap().into_inner();
    let (mut revisions, mut entries) = (Vec::new(), Vec::new());
    while let Some(part) = stream.message().await.unwrap() {
        revisions.push(part.revision);
        entries.extend(part.items);
    }
    (revisions, entries)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_is_one_revision_whatever_is_written_meanwhile() {
    let node = Alone::start().await;
    let mut config = node.config().await;
    let ops = (0..2_500).map(|at| {
        let set = v1::txn_op::Set {
            namespace: "ns".into(),
            key: format!("k{at:05}"),
            value: at.to_string().into(),
            ..Default::default()
        };
        v1::TxnOp { op: Some(v1::txn_op::Op::Set(set)) }
    });
    let txn = v1::TxnRequest { success: ops.collect(), ..Default::default() };
    let revision = config.txn(txn).await.unwrap().into_inner().revision;

    let request = v1::ExportRequest { namespace: "ns".into(), ..Default::default() };
    let mut stream = config.export(request).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.revision == revision && first.items.len() <= 1_000);
    // Written behind where the export is, and before the rest is read.
    config.set(set("k02000", "\"new\"")).await.unwrap();
    config.set(set("k99999", "1")).await.unwrap();
    let mut entries = first.items;
    while let Some(part) = stream.message().await.unwrap() {
        assert_eq!(part.revision, revision);
        entries.extend(part.items);
    }
    assert_eq!(entries.len(), 2_500);
    assert!(entries.iter().all(|entry| entry.revision == revision));
    assert!(entries.is_sorted_by(|one, next| one.key < next.key));
    let (revisions, entries) = export(&node, "ns").await;
    assert!(entries.len() == 2_501 && revisions.iter().all(|seen| *seen > revision));
    let (revisions, entries) = export(&node, "empty").await;
    assert_eq!((revisions.len(), entries.len()), (1, 0));
    node.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_a_prefix_sees_the_namespaces_that_begin_with_it() {
    let node = Alone::start().await;
    let mut config = node.config().await;
    let request = v1::WatchRequest {
        namespace_prefix: "team/".into(),
        from_revision: 1,
        ..Default::default()
    };
    let mut watch = config.watch(request.clone()).await.unwrap().into_inner();
    for namespace in ["team", "team/a", "other", "team/b", "teams"] {
        let request = v1::SetRequest { namespace: namespace.into(), ..set("k", "1") };
        config.set(request).await.unwrap();
    }
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let batch = watch.message().await.unwrap().unwrap();
        seen.extend(batch.events.into_iter().filter_map(|event| Some(event.entry?.namespace)));
    }
    assert_eq!(seen, ["team/a", "team/b"]);
    let both = v1::WatchRequest { namespace: "team".into(), ..request };
    let refused = config.watch(both).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    assert_eq!(
        refused.get_details_bad_request().unwrap().field_violations[0].field,
        "namespace_prefix"
    );
    node.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_violation_names_each_place() {
    let node = Alone::start().await;
    let mut schemas = SchemaServiceClient::new(channel(node.ports.grpc).await);
    let put = v1::PutSchemaRequest {
        namespace: "ns".into(),
        key: "k".into(),
        schema: r#"{"properties": {"a": {"type": "string"}, "b": {"type": "string"}}}"#.into(),
        expected_version: Some(0),
        ..Default::default()
    };
    let put_schema = schemas.put_schema(put).await.unwrap().into_inner();
    let schema = put_schema.schema.unwrap();
    assert!(put_schema.created && schema.version == 1);
    let mut config = node.config().await;
    let refused = config.set(set("k", r#"{"a": 1, "b": 2}"#)).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), refused.code()),
        ("SCHEMA_VIOLATION", tonic::Code::InvalidArgument)
    );
    let wrong = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(wrong.iter().map(|one| one.field.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
    assert_eq!(config.get(get("k")).await.unwrap_err().code(), tonic::Code::NotFound);
    config.set(set("k", r#"{"a": "1"}"#)).await.unwrap();

    let ask =
        v1::GetSchemaRequest { namespace: "ns".into(), key: "k".into(), ..Default::default() };
    assert_eq!(schemas.get_schema(ask).await.unwrap().into_inner().schema, Some(schema.clone()));
    let list = v1::ListSchemasRequest { namespace: "ns".into(), ..Default::default() };
    assert_eq!(schemas.list_schemas(list).await.unwrap().into_inner().items, [schema]);
    let delete = |version| v1::DeleteSchemaRequest {
        namespace: "ns".into(),
        key: "k".into(),
        expected_version: Some(version),
        ..Default::default()
    };
    let conflict = schemas.delete_schema(delete(7)).await.unwrap_err();
    assert_eq!(reason(&conflict), "VERSION_CONFLICT");
    assert_eq!(schemas.delete_schema(delete(1)).await.unwrap().into_inner().version, 1);
    node.node.stop().await;
}
