//! LLM Config Manager by its generated stubs: one attempt a call, no idempotency key, no session.

use anyhow::Context as _;
use bytes::Bytes;
use llm_config_client::v1;
use tonic::Streaming;
use tonic::transport::Channel;
use v1::cluster_service_client::ClusterServiceClient;
use v1::config_service_client::ConfigServiceClient;

use super::{Reads, Status};
use crate::values::{NAMESPACE, key as name, stamp};

#[derive(Debug, Clone)]
pub(super) struct Link {
    config: ConfigServiceClient<Channel>,
    cluster: ClusterServiceClient<Channel>,
}

impl Link {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            config: ConfigServiceClient::new(channel.clone()),
            cluster: ClusterServiceClient::new(channel),
        }
    }

    pub(super) async fn put(&mut self, key: usize, value: Bytes) -> anyhow::Result<()> {
        self.config.set(set(key, value)).await?;
        Ok(())
    }

    pub(super) async fn get(&mut self, key: usize, reads: Reads) -> anyhow::Result<Bytes> {
        let answer = self.config.get(get(key, reads)).await?.into_inner();
        Ok(answer.entry.context("an answer without an entry")?.value)
    }

    pub(super) async fn status(mut self) -> anyhow::Result<Status> {
        let status = self.cluster.status(v1::StatusRequest {}).await?.into_inner();
        Ok(Status { leads: status.leader_id == Some(status.node_id), version: status.version })
    }

    pub(super) async fn watch(mut self) -> anyhow::Result<Watching> {
        Ok(Watching(self.config.watch(watch()).await?.into_inner()))
    }
}

#[derive(Debug)]
pub(super) struct Watching(Streaming<v1::WatchResponse>);

impl Watching {
    pub(super) async fn next(&mut self, stamps: &mut Vec<u64>) -> anyhow::Result<()> {
        let message = self.0.message().await?.context("the watch has ended")?;
        stamps.extend(stamps_of(&message));
        Ok(())
    }
}

pub(super) fn stamps_of(message: &v1::WatchResponse) -> impl Iterator<Item = u64> + '_ {
    message.events.iter().filter_map(|event| stamp(&event.entry.as_ref()?.value))
}

pub(super) fn set(key: usize, value: Bytes) -> v1::SetRequest {
    v1::SetRequest { namespace: NAMESPACE.to_owned(), key: name(key), value, ..Default::default() }
}

pub(super) fn get(key: usize, reads: Reads) -> v1::GetRequest {
    let consistency = match reads {
        Reads::Cached => v1::Consistency::Cached,
        Reads::Linearizable => v1::Consistency::Linearizable,
    };
    v1::GetRequest {
        namespace: NAMESPACE.to_owned(),
        key: name(key),
        read: Some(v1::ReadOptions { consistency: consistency.into(), ..Default::default() }),
        ..Default::default()
    }
}

pub(super) fn watch() -> v1::WatchRequest {
    v1::WatchRequest { namespace: NAMESPACE.to_owned(), ..Default::default() }
}

/// Many keys in one transaction: the fast way to a full store, and no load that is measured.
#[derive(Debug, Clone)]
pub struct Bulk(ConfigServiceClient<Channel>);

impl Bulk {
    /// Over a connection of its own to this node.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        Ok(Self(ConfigServiceClient::new(super::channel(address).await?)))
    }

    /// Writes these.
    ///
    /// # Errors
    /// When that is not acknowledged.
    pub async fn put(&mut self, entries: Vec<(usize, Bytes)>) -> anyhow::Result<()> {
        let success = entries.into_iter().map(|(key, value)| {
            let set = v1::txn_op::Set {
                namespace: NAMESPACE.to_owned(),
                key: name(key),
                value,
                ..Default::default()
            };
            v1::TxnOp { op: Some(v1::txn_op::Op::Set(set)) }
        });
        let request = v1::TxnRequest { success: success.collect(), ..Default::default() };
        self.0.txn(request).await?;
        Ok(())
    }
}

/// Changes of the members, asked of a node.
#[derive(Debug, Clone)]
pub struct Members(ClusterServiceClient<Channel>);

impl Members {
    /// Asks this node.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        Ok(Self(ClusterServiceClient::new(super::channel(address).await?)))
    }

    /// Removes a member for ever.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove(&mut self, id: u64) -> anyhow::Result<()> {
        self.0.member_remove(v1::MemberRemoveRequest { id, force: false }).await?;
        Ok(())
    }

    /// Adds a node that waits to join.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn add(&mut self, request: v1::MemberAddRequest) -> anyhow::Result<()> {
        self.0.member_add(request).await?;
        Ok(())
    }

    /// Gives it a vote.
    ///
    /// # Errors
    /// When the cluster refuses: also as long as it has not caught up.
    pub async fn promote(&mut self, id: u64) -> anyhow::Result<()> {
        self.0.member_promote(v1::MemberPromoteRequest { id, force: false }).await?;
        Ok(())
    }
}
