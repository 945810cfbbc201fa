//! The cluster itself: its members, and changes of them.
//!
//! A change goes to the leader like a write. It needs no idempotency key: the cluster recognises one that is done, or half
//! done, so every attempt may be repeated.

use tonic::transport::Channel;

use crate::client::{Client, Effect};
use crate::error::Error;
use crate::v1;
use crate::v1::cluster_service_client::ClusterServiceClient;

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident($request:ident) -> $response:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        /// [`Error::Rejected`] (`MEMBERSHIP_CONFLICT`, `QUORUM_AT_RISK`, …), [`Error::NotSent`] or
        /// [`Error::OutcomeUnknown`].
        pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, Error> {
            let response = self
                .call(&Effect::Change, request, |channel, request| async move {
                    cluster(channel).$name(request).await
                })
                .await?;
            Ok(response.into_inner())
        }
    )*};
}

impl Client {
    /// What the cluster looks like from the node that answers.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn status(&self) -> Result<v1::StatusResponse, Error> {
        self.status_of(&Effect::Read).await
    }

    /// What the cluster looks like from the leader, which knows most: how far each member is. Without a leader, from
    /// the node that answers.
    ///
    /// # Errors
    /// [`Error::Rejected`], or [`Error::NotSent`] when no node answered before the deadline.
    pub async fn cluster(&self) -> Result<v1::StatusResponse, Error> {
        let first = self.status().await?;
        // The first answer has told who leads.
        match first.leader_id {
            Some(leader) if leader != first.node_id => {
                Ok(self.status_of(&Effect::ReadOfLeader).await.unwrap_or(first))
            }
            _ => Ok(first),
        }
    }

    async fn status_of(&self, effect: &Effect) -> Result<v1::StatusResponse, Error> {
        let response = self
            .call(effect, v1::StatusRequest {}, |channel, request| async move {
                cluster(channel).status(request).await
            })
            .await?;
        Ok(response.into_inner())
    }

    changes! {
        /// Adds a node that waits to join, as a learner.
        member_add(MemberAddRequest) -> MemberAddResponse;
        /// Gives a learner that has caught up its vote.
        member_promote(MemberPromoteRequest) -> MemberPromoteResponse;
        /// Takes a voter's vote; it goes on as a learner.
        member_demote(MemberDemoteRequest) -> MemberDemoteResponse;
        /// Removes a member for ever.
        member_remove(MemberRemoveRequest) -> MemberRemoveResponse;
        /// Lets a learner that has caught up take a member's place, and removes that member.
        member_replace(MemberReplaceRequest) -> MemberReplaceResponse;
        /// Makes another voter the leader.
        transfer_leader(TransferLeaderRequest) -> TransferLeaderResponse;
    }
}

fn cluster(channel: Channel) -> ClusterServiceClient<Channel> {
    ClusterServiceClient::new(channel)
}
