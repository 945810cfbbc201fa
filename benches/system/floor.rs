//! An empty call: what the transport costs.

use tonic::transport::Channel;

use crate::wire::floor::Nothing;
use crate::wire::floor::floor_client::FloorClient;

#[derive(Debug, Clone)]
pub(super) struct Link(FloorClient<Channel>);

impl Link {
    pub(super) fn new(channel: Channel) -> Self {
        Self(FloorClient::new(channel))
    }

    pub(super) async fn call(&mut self) -> anyhow::Result<()> {
        self.0.echo(Nothing {}).await?;
        Ok(())
    }
}
