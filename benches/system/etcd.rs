//! etcd by stubs that are generated from the part of its API that is needed.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::{Reads, Status};
use crate::values::{NAMESPACE, key as name, stamp};
use crate::wire::etcd as pb;
use pb::cluster_client::ClusterClient;
use pb::kv_client::KvClient;
use pb::maintenance_client::MaintenanceClient;
use pb::watch_client::WatchClient;
use pb::watch_request::RequestUnion;

#[derive(Debug, Clone)]
pub(super) struct Link {
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Link {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()),
            watch: WatchClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
    }

    pub(super) async fn put(&mut self, key: usize, value: Bytes) -> anyhow::Result<()> {
        self.kv.put(pb::PutRequest { key: path(key), value }).await?;
        Ok(())
    }

    pub(super) async fn get(&mut self, key: usize, reads: Reads) -> anyhow::Result<Bytes> {
        let request = pb::RangeRequest { key: path(key), serializable: reads == Reads::Cached };
        let answer = self.kv.range(request).await?.into_inner();
        Ok(answer.kvs.into_iter().next().context("no such key")?.value)
    }

    pub(super) async fn status(mut self) -> anyhow::Result<Status> {
        let status = self.maintenance.status(pb::StatusRequest {}).await?.into_inner();
        let member = status.header.context("an answer without a header")?.member_id;
        Ok(Status { leads: status.leader == member, version: status.version })
    }

    /// One stream for one watch: those who watch are separate programs.
    pub(super) async fn watch(mut self) -> anyhow::Result<Watching> {
        let (requests, sent) = mpsc::channel(1);
        let create = pb::WatchCreateRequest { key: prefix(b'/'), range_end: prefix(b'/' + 1) };
        let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        requests.send(create).await.context("the watch has ended")?;
        let stream = self.watch.watch(ReceiverStream::new(sent)).await?.into_inner();
        Ok(Watching { stream, _requests: requests })
    }
}

#[derive(Debug)]
pub(super) struct Watching {
    stream: Streaming<pb::WatchResponse>,
    /// The watch ends with its requests.
    _requests: mpsc::Sender<pb::WatchRequest>,
}

impl Watching {
    pub(super) async fn next(&mut self, stamps: &mut Vec<u64>) -> anyhow::Result<()> {
        let message = self.stream.message().await?.context("the watch has ended")?;
        if message.canceled {
            bail!("the watch was cancelled: {}", message.cancel_reason);
        }
        stamps.extend(message.events.iter().filter_map(|event| stamp(&event.kv.as_ref()?.value)));
        Ok(())
    }
}

fn path(key: usize) -> Bytes {
    format!("{NAMESPACE}/{}", name(key)).into()
}

/// The namespace and one byte: all keys lie from `/` on, and before what comes after `/`.
fn prefix(last: u8) -> Bytes {
    [NAMESPACE.as_bytes(), &[last]].concat().into()
}

/// Changes of the members, asked of a node.
#[derive(Debug, Clone)]
pub struct Members(ClusterClient<Channel>);

impl Members {
    /// Asks this node.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(address: &str) -> anyhow::Result<Self> {
        Ok(Self(ClusterClient::new(super::channel(address).await?)))
    }

    /// Removes a member.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn remove(&mut self, id: u64) -> anyhow::Result<()> {
        self.0.member_remove(pb::MemberRemoveRequest { id }).await?;
        Ok(())
    }

    /// Adds one with a vote, which is started afterwards.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn add(&mut self, peer_url: String) -> anyhow::Result<()> {
        self.0.member_add(pb::MemberAddRequest { peer_urls: vec![peer_url] }).await?;
        Ok(())
    }
}

/// The number by which a node is known to the others.
///
/// # Errors
/// When it does not answer.
pub async fn member_id(address: &str) -> anyhow::Result<u64> {
    let mut maintenance = MaintenanceClient::new(super::channel(address).await?);
    let status = maintenance.status(pb::StatusRequest {}).await?.into_inner();
    Ok(status.header.context("an answer without a header")?.member_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_covers_all_keys_and_nothing_else() {
        let range = prefix(b'/')..prefix(b'/' + 1);
        assert!(range.contains(&path(0)) && range.contains(&path(usize::MAX)));
        assert!(!range.contains(&Bytes::from_static(b"bench/load")));
        assert!(!range.contains(&Bytes::from_static(b"bench/load0")));
        assert_eq!(path(7), "bench/load/key-7");
    }
}
