//! LLM Config Manager through the SDK. Sessions and leader following are off: the run decides who is asked, not the SDK.

use anyhow::Context as _;
use bytes::Bytes;
use llm_config_client::{Client, Options, Watch};

use super::llm_config::{get, set, stamps_of, watch};
use super::{Reads, Status};

#[derive(Debug, Clone)]
pub(super) struct Link(Client);

impl Link {
    pub(super) fn new(address: &str) -> anyhow::Result<Self> {
        let options = Options::default().session(false).follow_leader(false);
        Ok(Self(Client::with_options([address], options)?))
    }

    pub(super) async fn put(&self, key: usize, value: Bytes) -> anyhow::Result<()> {
        self.0.set(set(key, value)).await?;
        Ok(())
    }

    pub(super) async fn get(&self, key: usize, reads: Reads) -> anyhow::Result<Bytes> {
        Ok(self.0.get(get(key, reads)).await?.value)
    }

    pub(super) async fn status(&self) -> anyhow::Result<Status> {
        let status = self.0.status().await?;
        Ok(Status { leads: status.leader_id == Some(status.node_id), version: status.version })
    }

    pub(super) fn watch(&self) -> Watching {
        Watching(self.0.watch(watch()))
    }
}

#[derive(Debug)]
pub(super) struct Watching(Watch);

impl Watching {
    pub(super) async fn next(&mut self, stamps: &mut Vec<u64>) -> anyhow::Result<()> {
        let message = self.0.next().await.context("the watch has ended")??;
        stamps.extend(stamps_of(&message));
        Ok(())
    }
}
