//! `llmconfig.v1.ClusterService`.

use llm_config_proto::v1;
use llm_config_proto::v1::cluster_service_server::ClusterService;
use llm_config_replica::{Member, Status as ReplicaStatus};
use tonic::{Request, Response, Status};

use super::call::{self, Call};
use crate::error::ServiceError;
use crate::service::{AddMemberRequest, Service};

pub(super) struct ClusterGateway {
    service: Service,
}

impl ClusterGateway {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    fn refuse(&self, error: ServiceError) -> Status {
        call::refuse(&self.service, error)
    }

    /// The members after a change, as this node sees them.
    fn members(&self) -> Vec<v1::Member> {
        self.service.replica().status().members.into_iter().map(member).collect()
    }
}

#[tonic::async_trait]
impl ClusterService for ClusterGateway {
    async fn status(
        &self,
        request: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        let Call { context, .. } = call::open(&self.service, request)?;
        let status = self.service.cluster(&context).await.map_err(|error| self.refuse(error))?;
        Ok(Response::new(response(status)))
    }

    async fn member_add(
        &self,
        request: Request<v1::MemberAddRequest>,
    ) -> Result<Response<v1::MemberAddResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let v1::MemberAddRequest { id, raft, http, grpc, force } = message;
        let request = AddMemberRequest { id, raft, http, grpc, force };
        let added = self.service.add_member(&context, request).await;
        added.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::MemberAddResponse { members: self.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<v1::MemberPromoteRequest>,
    ) -> Result<Response<v1::MemberPromoteResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let promoted = self.service.promote_member(&context, message.id, message.force).await;
        promoted.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::MemberPromoteResponse { members: self.members() }))
    }

    async fn member_demote(
        &self,
        request: Request<v1::MemberDemoteRequest>,
    ) -> Result<Response<v1::MemberDemoteResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let demoted = self.service.demote_member(&context, message.id, message.force).await;
        demoted.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::MemberDemoteResponse { members: self.members() }))
    }

    async fn member_remove(
        &self,
        request: Request<v1::MemberRemoveRequest>,
    ) -> Result<Response<v1::MemberRemoveResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let removed = self.service.remove_member(&context, message.id, message.force).await;
        removed.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::MemberRemoveResponse { members: self.members() }))
    }

    async fn member_replace(
        &self,
        request: Request<v1::MemberReplaceRequest>,
    ) -> Result<Response<v1::MemberReplaceResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let v1::MemberReplaceRequest { old_id, new_id, force } = message;
        let replaced = self.service.replace_member(&context, old_id, new_id, force).await;
        replaced.map_err(|error| self.refuse(error))?;
        Ok(Response::new(v1::MemberReplaceResponse { members: self.members() }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let Call { message, context } = call::open(&self.service, request)?;
        let transferred = self.service.transfer_leader(&context, message.to, message.force).await;
        let leader_id = Some(transferred.map_err(|error| self.refuse(error))?);
        Ok(Response::new(v1::TransferLeaderResponse { members: self.members(), leader_id }))
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
        version: member.version,
    }
}
