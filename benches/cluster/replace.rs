//! An emptied node: the disk is gone, the member with it, and a new one takes its place. Both systems refuse a member that
//! has forgotten what it acknowledged, so this is what an operator has to do.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use llm_config_client::v1;

use super::nodes::{How, peers, ports, url};
use super::{Cluster, Kind, Node, POLL, START_TIMEOUT};
use crate::system::{EtcdMembers, Members, Reads, System, etcd_member_id};

impl Cluster {
    /// Stops a node, removes it and its data, and puts an empty one in its place. How long it takes from the start of
    /// the new one until it has a vote and answers from its own state with `key`, which is the last one written. etcd wants it
    /// as a member before it starts; that is not counted.
    ///
    /// # Errors
    /// When the cluster refuses, or the node does not catch up in time.
    pub async fn replace(
        &mut self,
        node: usize,
        key: usize,
        patience: Duration,
    ) -> anyhow::Result<Duration> {
        let other = (node + 1) % self.size();
        let asked = self.node(other)?.ports.of(self.kind.system()).to_string();
        let old = self.node(node)?.id;
        let old_data = self.dir.path().join(format!("node-{old}"));
        self.places += 1;
        let id = u64::try_from(self.places)?;
        let [new] = ports(1)?[..] else { anyhow::bail!("no ports") };

        let begun;
        match self.kind {
            Kind::LlmConfig => {
                self.stop(node).await?;
                let members = Members::open(&asked).await?;
                retried(async || members.clone().remove(old).await).await?;
                std::fs::remove_dir_all(old_data)?;
                begun = Instant::now();
                let others = self.nodes.iter().enumerate().filter(|(place, _)| *place != node);
                let others: Vec<_> = others.map(|(_, other)| url(other.ports.http)).collect();
                let how = How::Joining(others.join(","));
                *self.node_mut(node)? = Node { id, ports: new, how, process: None };
                self.spawn(node)?;
                let request = v1::MemberAddRequest {
                    id,
                    raft: new.raft.to_string(),
                    http: new.http.to_string(),
                    grpc: new.grpc.to_string(),
                    force: false,
                };
                retried(async || members.clone().add(request.clone()).await).await?;
                self.read(node, key, Reads::Cached, begun + patience).await?;
                retried(async || members.clone().promote(id).await).await?;
            }
            Kind::Etcd => {
                let member = self.node(node)?.ports.of(System::Etcd).to_string();
                let member = etcd_member_id(&member).await?;
                self.stop(node).await?;
                let members = EtcdMembers::open(&asked).await?;
                retried(async || members.clone().remove(member).await).await?;
                std::fs::remove_dir_all(old_data)?;
                // It refuses while a node has been back for less than 5 s, which is no part of catching up.
                retried(async || members.clone().add(url(new.raft)).await).await?;
                begun = Instant::now();
                *self.node_mut(node)? =
                    Node { id, ports: new, how: How::Founder(String::new()), process: None };
                let all = self.nodes.iter().map(|node| (node.id, node.ports));
                self.node_mut(node)?.how = How::Joining(peers(Kind::Etcd, all));
                self.spawn(node)?;
                self.read(node, key, Reads::Cached, begun + patience).await?;
            }
            Kind::Floor => anyhow::bail!("an empty server has no members"),
        }
        Ok(begun.elapsed())
    }
}

/// Until it is accepted: others have to hear of the last change first.
async fn retried(attempt: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        match attempt().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error).context("a change of the members is refused");
            }
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}
