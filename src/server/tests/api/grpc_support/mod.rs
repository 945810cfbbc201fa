//! A cluster of one in this process, asked over gRPC.

use std::net::SocketAddr;
use std::time::Duration;

use llm_config_proto::v1;
use llm_config_proto::v1::config_service_client::ConfigServiceClient;
use llm_config_server::logging::Format;
use llm_config_server::node::{Node, Sockets};
use llm_config_server::settings::{SecuritySettings, Settings};
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt;
use tracing::level_filters::LevelFilter;

use crate::support::Ports;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster of one in this process.
pub struct Alone {
    pub node: Node,
    pub ports: Ports,
    pub folder: tempfile::TempDir,
}

impl Alone {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), Ports::free(crate::support::own_ip()), |_| {})
            .await
    }

    /// With settings that `change` makes out of those of an open node, given the folder.
    pub async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let ports = Ports::free(crate::support::own_ip());
        Self::start_in(tempfile::tempdir().unwrap(), ports, change).await
    }

    pub async fn start_in(
        folder: tempfile::TempDir,
        ports: Ports,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings {
            node_id: 1,
            data_dir: folder.path().join("data"),
            http_addr: ports.http,
            metrics_addr: ports.metrics,
            grpc_addr: ports.grpc,
            raft_addr: ports.raft,
            advertise_http: None,
            advertise_grpc: None,
            advertise_raft: None,
            initial_cluster: [(1, ports.raft.to_string())].into(),
            join: Vec::new(),
            history_limit: 100,
            auth: false,
            insecure: false,
            log_format: Format::Text,
            log_level: LevelFilter::WARN,
            cache_bytes: 1 << 20,
            request_timeout: Duration::from_secs(5),
            backup_interval: None,
            backup_keep: 7,
            storage_quota: 0,
            disk_reserve: 0,
            security: SecuritySettings::nothing(),
        };
        change(&mut settings);
        let node = Node::start(&settings, Sockets::bind(&settings).unwrap()).await.unwrap();
        let ready = async {
            while !node.service().replica().ready() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, ready).await.expect("the node becomes ready");
        Self { node, ports, folder }
    }

    pub async fn config(&self) -> ConfigServiceClient<Channel> {
        ConfigServiceClient::new(channel(self.ports.grpc).await)
    }
}

pub async fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap()
}

pub fn set(key: &str, value: &str) -> v1::SetRequest {
    v1::SetRequest {
        namespace: "ns".to_owned(),
        key: key.to_owned(),
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub fn get(key: &str) -> v1::GetRequest {
    let read =
        v1::ReadOptions { consistency: v1::Consistency::Linearizable.into(), ..Default::default() };
    v1::GetRequest {
        namespace: "ns".to_owned(),
        key: key.to_owned(),
        read: Some(read),
        ..Default::default()
    }
}

/// The stable code and a number or word that came with it.
pub fn reason(status: &Status) -> String {
    let info =
        status.get_details_error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "llm-config");
    assert!(
        info.metadata.contains_key("retryable") && info.metadata.contains_key("applied"),
        "{info:?}"
    );
    info.reason
}

pub fn revision(metadata: &MetadataMap) -> u64 {
    metadata.get("x-config-revision").unwrap().to_str().unwrap().parse().unwrap()
}

/// The bytes of a `GetRequest` whose namespace need not be UTF-8.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RawGet {
    #[prost(bytes = "vec", tag = "1")]
    pub namespace: Vec<u8>,
}

/// Calls a method by its path.
pub async fn raw(channel: Channel, path: &str, request: Request<RawGet>) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<RawGet, RawGet>::default();
    let path = http::uri::PathAndQuery::try_from(path).unwrap();
    grpc.server_streaming(request, path, codec).await.map(drop)
}
