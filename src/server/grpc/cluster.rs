//! `llmconfig.v1.ClusterService`.

use llm_config_proto::v1;
use llm_config_proto::v1::cluster_service_server::ClusterService;
use llm_config_replica::{Member, Status as ReplicaStatus};
use tonic::{Request, Response, Status};

use crate::service::Service;

pub(super) struct ClusterGateway {
    service: Service,
}

impl ClusterGateway {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterGateway {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        Ok(Response::new(response(self.service.cluster())))
    }
}

fn response(status: ReplicaStatus) -> v1::StatusResponse {
    v1::StatusResponse {
        cluster_id: status.cluster_id.unwrap_or_default(),
        node_id: status.node_id,
        role: status.role.as_str().to_owned(),
        leader_id: status.leader_id,
        term: status.term,
        last_log_index: status.last_log_index,
        committed_index: status.committed_index,
        applied_index: status.applied_index,
        revision: status.revision,
        members: status.members.into_iter().map(member).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

fn member(member: Member) -> v1::Member {
    v1::Member {
        id: member.id,
        role: member.role.as_str().to_owned(),
        http: member.addresses.http,
        grpc: member.addresses.grpc,
        raft: member.addresses.raft,
        reachable: member.reachable,
        matched_index: member.matched_index,
    }
}
