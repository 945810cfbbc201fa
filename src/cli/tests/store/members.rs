//! The members of the fake cluster: a list that changes as it is told to, with node 1 as its leader.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use llm_config_client::v1;
use llm_config_client::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::{found, refusal};

#[derive(Debug, Clone)]
pub(crate) struct Members {
    list: Arc<Mutex<Vec<v1::Member>>>,
}

/// Nobody listens where the others are said to be.
const NOBODY: &str = "127.0.0.1:1";

fn member(id: u64, role: &str, address: &str) -> v1::Member {
    v1::Member {
        id,
        role: role.to_owned(),
        http: address.to_owned(),
        grpc: address.to_owned(),
        raft: format!("10.0.0.{id}:50061"),
        reachable: true,
        matched_index: Some(7),
        version: "0.1.0".to_owned(),
    }
}

impl Members {
    /// Node 1 is at this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        let list = vec![
            member(1, "leader", &address.to_string()),
            member(2, "follower", NOBODY),
            member(3, "follower", NOBODY),
        ];
        Self { list: Arc::new(Mutex::new(list)) }
    }

    fn all(&self) -> Vec<v1::Member> {
        self.list.lock().unwrap().clone()
    }

    fn role(&self, id: u64, role: &str) -> Result<Vec<v1::Member>, Status> {
        let mut list = self.list.lock().unwrap();
        let known = list.iter_mut().find(|member| member.id == id);
        let known = known.ok_or_else(|| refusal(tonic::Code::NotFound, "NOT_FOUND"))?;
        known.role = role.to_owned();
        Ok(list.clone())
    }
}

#[tonic::async_trait]
impl ClusterService for Members {
    async fn status(
        &self,
        _: Request<v1::StatusRequest>,
    ) -> Result<Response<v1::StatusResponse>, Status> {
        found(v1::StatusResponse {
            cluster_id: "c-1".to_owned(),
            node_id: 1,
            role: "leader".to_owned(),
            leader_id: Some(1),
            members: self.all(),
            version: "0.1.0".to_owned(),
            ..Default::default()
        })
    }

    async fn member_add(
        &self,
        request: Request<v1::MemberAddRequest>,
    ) -> Result<Response<v1::MemberAddResponse>, Status> {
        let add = request.into_inner();
        self.list.lock().unwrap().push(v1::Member {
            http: add.http,
            grpc: add.grpc,
            raft: add.raft,
            ..member(add.id, "learner", "")
        });
        found(v1::MemberAddResponse { members: self.all() })
    }

    async fn member_promote(
        &self,
        request: Request<v1::MemberPromoteRequest>,
    ) -> Result<Response<v1::MemberPromoteResponse>, Status> {
        let members = self.role(request.into_inner().id, "follower")?;
        found(v1::MemberPromoteResponse { members })
    }

    async fn member_demote(
        &self,
        request: Request<v1::MemberDemoteRequest>,
    ) -> Result<Response<v1::MemberDemoteResponse>, Status> {
        let members = self.role(request.into_inner().id, "learner")?;
        found(v1::MemberDemoteResponse { members })
    }

    /// Refuses unless forced, so that both ways are seen.
    async fn member_remove(
        &self,
        request: Request<v1::MemberRemoveRequest>,
    ) -> Result<Response<v1::MemberRemoveResponse>, Status> {
        let remove = request.into_inner();
        if !remove.force {
            return Err(refusal(tonic::Code::FailedPrecondition, "QUORUM_AT_RISK"));
        }
        self.list.lock().unwrap().retain(|member| member.id != remove.id);
        found(v1::MemberRemoveResponse { members: self.all() })
    }

    async fn member_replace(
        &self,
        request: Request<v1::MemberReplaceRequest>,
    ) -> Result<Response<v1::MemberReplaceResponse>, Status> {
        let replace = request.into_inner();
        self.role(replace.new_id, "follower")?;
        self.list.lock().unwrap().retain(|member| member.id != replace.old_id);
        found(v1::MemberReplaceResponse { members: self.all() })
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let to = request.into_inner().to.unwrap_or(2);
        self.role(1, "follower")?;
        let members = self.role(to, "leader")?;
        found(v1::TransferLeaderResponse { members, leader_id: Some(to) })
    }
}
