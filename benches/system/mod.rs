//! The systems under load behind one face: connections to their nodes, and callers that put, get and watch over them.
//!
//! The load does the same work for each: stubs that were generated alike, over channels that were opened alike, with the
//! same keys. [`System::LlmConfig`] is called without the SDK for that reason; [`System::Sdk`] is what applications use, and
//! tells what the SDK's retries, sessions and idempotency keys cost on top.

mod etcd;
mod floor;
mod http;
mod llm_config;
mod sdk;

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;
use tonic::transport::{Channel, Endpoint};

pub use etcd::{Members as EtcdMembers, member_id as etcd_member_id};
pub use llm_config::{Bulk, Members};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// What is under load, and by which protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    /// LLM Config Manager over gRPC, by generated stubs.
    LlmConfig,
    /// The same through the SDK, as applications use it.
    #[value(name = "llm-config-sdk")]
    #[serde(rename = "llm-config-sdk")]
    Sdk,
    /// The same over HTTP.
    #[value(name = "llm-config-http")]
    #[serde(rename = "llm-config-http")]
    Http,
    /// etcd over gRPC (v3).
    Etcd,
    /// Nothing: an empty unary call of tonic.
    Echo,
    /// Nothing: an empty page of axum.
    EchoHttp,
}

impl System {
    /// As on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LlmConfig => "llm-config",
            Self::Sdk => "llm-config-sdk",
            Self::Http => "llm-config-http",
            Self::Etcd => "etcd",
            Self::Echo => "echo",
            Self::EchoHttp => "echo-http",
        }
    }

    /// Whether its nodes are asked at their HTTP addresses.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::EchoHttp)
    }

    /// Whether there is nothing behind the protocol.
    #[must_use]
    pub fn is_floor(self) -> bool {
        matches!(self, Self::Echo | Self::EchoHttp)
    }
}

/// How fresh the answer to a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reads {
    /// What the node that is asked has applied (etcd: serializable).
    Cached,
    /// Confirmed with the leader.
    Linearizable,
}

/// Which nodes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The leader only.
    Leader,
    /// Every node but the leader.
    Followers,
    /// All of them, evenly.
    All,
}

/// What a node says of itself.
#[derive(Debug, Clone)]
pub struct Status {
    /// It leads.
    pub leads: bool,
    /// The release it runs.
    pub version: String,
}

/// A connection to one node, shared by the callers that are made of it. Over HTTP/1.1, which carries one request at a
/// time, each caller opens its own.
#[derive(Debug, Clone)]
pub struct Link(Inner);

#[derive(Debug, Clone)]
enum Inner {
    LlmConfig(llm_config::Link),
    Sdk(sdk::Link),
    Http(http::Link),
    Etcd(etcd::Link),
    Echo(floor::Link),
}

impl Link {
    /// Opens a connection.
    ///
    /// # Errors
    /// When nothing listens there.
    pub async fn open(system: System, address: &str) -> anyhow::Result<Self> {
        let inner = match system {
            System::LlmConfig => Inner::LlmConfig(llm_config::Link::new(channel(address).await?)),
            System::Sdk => Inner::Sdk(sdk::Link::new(address)?),
            System::Http => Inner::Http(http::Link::new(address, http::Pages::LlmConfig)),
            System::Etcd => Inner::Etcd(etcd::Link::new(channel(address).await?)),
            System::Echo => Inner::Echo(floor::Link::new(channel(address).await?)),
            System::EchoHttp => Inner::Http(http::Link::new(address, http::Pages::Empty)),
        };
        Ok(Self(inner))
    }

    /// A caller over this connection.
    ///
    /// # Errors
    /// When it needs a connection of its own, and nothing listens there.
    pub async fn caller(&self) -> anyhow::Result<Caller> {
        Ok(match &self.0 {
            Inner::LlmConfig(link) => Caller(Calling::LlmConfig(link.clone())),
            Inner::Sdk(link) => Caller(Calling::Sdk(link.clone())),
            Inner::Http(link) => Caller(Calling::Http(link.caller().await?)),
            Inner::Etcd(link) => Caller(Calling::Etcd(link.clone())),
            Inner::Echo(link) => Caller(Calling::Echo(link.clone())),
        })
    }

    /// What the node says of itself.
    ///
    /// # Errors
    /// When it does not answer in time, or has nothing to say.
    pub async fn status(&self) -> anyhow::Result<Status> {
        let status = async {
            match &self.0 {
                Inner::LlmConfig(link) => link.clone().status().await,
                Inner::Sdk(link) => link.status().await,
                Inner::Http(link) => link.status().await,
                Inner::Etcd(link) => link.clone().status().await,
                Inner::Echo(_) => bail!("an empty server has no status"),
            }
        };
        tokio::time::timeout(STATUS_TIMEOUT, status).await.context("a node tells no status")?
    }

    /// Watches everything that is written.
    ///
    /// # Errors
    /// When the node refuses.
    pub async fn watch(&self) -> anyhow::Result<Watching> {
        Ok(Watching(match &self.0 {
            Inner::LlmConfig(link) => Stream::LlmConfig(link.clone().watch().await?),
            Inner::Sdk(link) => Stream::Sdk(link.watch()),
            Inner::Http(link) => Stream::Http(link.watch().await?),
            Inner::Etcd(link) => Stream::Etcd(link.clone().watch().await?),
            Inner::Echo(_) => bail!("an empty server has nothing to watch"),
        }))
    }
}

/// One client's way to a node.
#[derive(Debug)]
pub struct Caller(Calling);

#[derive(Debug)]
enum Calling {
    LlmConfig(llm_config::Link),
    Sdk(sdk::Link),
    Http(http::Caller),
    Etcd(etcd::Link),
    Echo(floor::Link),
}

impl Caller {
    /// Writes a key.
    ///
    /// # Errors
    /// When that is not acknowledged.
    pub async fn put(&mut self, key: usize, value: Bytes) -> anyhow::Result<()> {
        match &mut self.0 {
            Calling::LlmConfig(link) => link.put(key, value).await,
            Calling::Sdk(link) => link.put(key, value).await,
            Calling::Http(caller) => caller.put(key, &value).await,
            Calling::Etcd(link) => link.put(key, value).await,
            Calling::Echo(link) => link.call().await,
        }
    }

    /// Reads a key.
    ///
    /// # Errors
    /// When there is no answer, or no such key.
    pub async fn get(&mut self, key: usize, reads: Reads) -> anyhow::Result<Bytes> {
        match &mut self.0 {
            Calling::LlmConfig(link) => link.get(key, reads).await,
            Calling::Sdk(link) => link.get(key, reads).await,
            Calling::Http(caller) => caller.get(key, reads).await,
            Calling::Etcd(link) => link.get(key, reads).await,
            Calling::Echo(link) => link.call().await.map(|()| Bytes::new()),
        }
    }
}

/// A running watch.
#[derive(Debug)]
pub struct Watching(Stream);

#[derive(Debug)]
enum Stream {
    LlmConfig(llm_config::Watching),
    Sdk(sdk::Watching),
    Http(http::Watching),
    Etcd(etcd::Watching),
}

impl Watching {
    /// Waits for the next message and adds the stamps of the values in it.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn next(&mut self, stamps: &mut Vec<u64>) -> anyhow::Result<()> {
        match &mut self.0 {
            Stream::LlmConfig(watching) => watching.next(stamps).await,
            Stream::Sdk(watching) => watching.next(stamps).await,
            Stream::Http(watching) => watching.next(stamps).await,
            Stream::Etcd(watching) => watching.next(stamps).await,
        }
    }
}

/// Those of the nodes that are meant.
///
/// # Errors
/// When the leader is not among them, or nobody else is.
pub async fn choose(
    system: System,
    nodes: &[String],
    target: Target,
) -> anyhow::Result<Vec<String>> {
    if target == Target::All {
        return Ok(nodes.to_vec());
    }
    let mut leads = Vec::with_capacity(nodes.len());
    for (index, node) in nodes.iter().enumerate() {
        // Of empty servers the first plays the leader, so that they are asked as many at a time.
        let leader = if system.is_floor() {
            index == 0
        } else {
            Link::open(system, node).await?.status().await?.leads
        };
        leads.push(leader);
    }
    let chosen = select(nodes, &leads, target);
    anyhow::ensure!(!chosen.is_empty(), "none of {nodes:?} is what {target:?} means");
    Ok(chosen)
}

fn select(nodes: &[String], leads: &[bool], target: Target) -> Vec<String> {
    let meant = |leads: bool| match target {
        Target::Leader => leads,
        Target::Followers => !leads,
        Target::All => true,
    };
    nodes
        .iter()
        .zip(leads)
        .filter(|(_, leads)| meant(**leads))
        .map(|(node, _)| node.clone())
        .collect()
}

/// Opened the same for every system.
async fn channel(address: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))
        .with_context(|| format!("{address} is no address"))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT)
        .connect()
        .await
        .with_context(|| format!("cannot connect to {address}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_command_line() {
        for system in System::value_variants() {
            let value = system.to_possible_value().unwrap();
            assert_eq!(value.get_name(), system.name());
            assert_eq!(serde_json::to_value(system).unwrap(), system.name());
        }
    }

    #[test]
    fn the_leader_the_others_or_all_are_chosen() {
        let nodes: Vec<String> = ["a", "b", "c"].map(Into::into).into();
        let leads = [false, true, false];
        assert_eq!(select(&nodes, &leads, Target::Leader), ["b"]);
        assert_eq!(select(&nodes, &leads, Target::Followers), ["a", "c"]);
        assert_eq!(select(&nodes, &leads, Target::All), ["a", "b", "c"]);
        assert!(select(&nodes, &[false; 3], Target::Leader).is_empty());
    }

    #[tokio::test]
    async fn an_address_where_nothing_listens_is_named() {
        let address = crate::process::free_ports(1).unwrap()[0].to_string();
        for system in [System::LlmConfig, System::Etcd, System::Echo] {
            let error = Link::open(system, &address).await.unwrap_err().to_string();
            assert!(error.contains(&address), "{error}");
        }
        let link = Link::open(System::Http, &address).await.unwrap();
        assert!(link.caller().await.is_err());
    }
}
