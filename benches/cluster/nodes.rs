//! One node: its listeners, and the command line of its server. All options but those that say who and where it is are
//! the servers' own defaults.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

use super::Kind;
use crate::process::{Process, free_ports};
use crate::system::System;

/// A node, running or not.
#[derive(Debug)]
pub struct Node {
    /// Its number: that of LLM Config Manager, and part of etcd's name and of the data directory's.
    pub(super) id: u64,
    pub(super) ports: Ports,
    pub(super) how: How,
    pub(super) process: Option<Process>,
}

impl Node {
    pub(super) fn pid(&self) -> anyhow::Result<i32> {
        self.process.as_ref().context("a node does not run")?.pid()
    }
}

/// The listeners of a node; not every kind has all of them.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub(super) http: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) grpc: SocketAddr,
    pub(super) raft: SocketAddr,
}

impl Ports {
    /// Where a system is asked.
    pub(super) fn of(&self, system: System) -> SocketAddr {
        if system.is_http() { self.http } else { self.grpc }
    }
}

/// How a node finds the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum How {
    /// It is one of these from the beginning.
    Founder(String),
    /// It is added to a running cluster: who is in it, or who can be asked.
    Joining(String),
}

/// Ports of so many nodes.
pub(super) fn ports(nodes: usize) -> anyhow::Result<Vec<Ports>> {
    let mut free = free_ports(nodes * 4)?.into_iter();
    let mut next = || free.next().context("too few ports");
    (0..nodes)
        .map(|_| Ok(Ports { http: next()?, metrics: next()?, grpc: next()?, raft: next()? }))
        .collect()
}

/// `1=…,2=…,3=…`, in the form of the kind.
pub(super) fn peers(kind: Kind, nodes: impl Iterator<Item = (u64, Ports)>) -> String {
    let peer = |(id, ports): (u64, Ports)| match kind {
        Kind::Etcd => format!("{}={}", name(id), url(ports.raft)),
        Kind::LlmConfig | Kind::Floor => format!("{id}={}", ports.raft),
    };
    nodes.map(peer).collect::<Vec<_>>().join(",")
}

pub(super) fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

fn name(id: u64) -> String {
    format!("node-{id}")
}

/// What follows the program.
pub(super) fn arguments(command: &mut Command, kind: Kind, node: &Node, dir: &Path) {
    let Ports { http, metrics, grpc, raft } = node.ports;
    let data = dir.join(name(node.id));
    match kind {
        Kind::LlmConfig => {
            command.args(["serve", "--auth", "off", "--node-id", &node.id.to_string()]);
            command.arg("--data-dir").arg(data);
            command.args(["--http-addr", &http.to_string()]);
            command.args(["--metrics-addr", &metrics.to_string()]);
            command.args(["--grpc-addr", &grpc.to_string()]);
            command.args(["--raft-addr", &raft.to_string()]);
            match &node.how {
                How::Founder(peers) => command.args(["--initial-cluster", peers]),
                How::Joining(others) => command.args(["--join", others]),
            };
        }
        Kind::Etcd => {
            command.args(["--name", &name(node.id)]).arg("--data-dir").arg(data);
            command.args(["--listen-client-urls", &url(grpc)]);
            command.args(["--advertise-client-urls", &url(grpc)]);
            command.args(["--listen-peer-urls", &url(raft)]);
            command.args(["--initial-advertise-peer-urls", &url(raft)]);
            command.args(["--listen-metrics-urls", &url(metrics)]);
            let (state, peers) = match &node.how {
                How::Founder(peers) => ("new", peers),
                How::Joining(peers) => ("existing", peers),
            };
            command.args(["--initial-cluster-state", state, "--initial-cluster", peers]);
        }
        Kind::Floor => {
            command.args(["floor", "--grpc", &grpc.to_string(), "--http", &http.to_string()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn line(kind: Kind, how: How) -> String {
        let port = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let ports = Ports { http: port(1), metrics: port(2), grpc: port(3), raft: port(4) };
        let node = Node { id: 7, ports, how, process: None };
        let mut command = Command::new("server");
        arguments(&mut command, kind, &node, Path::new("/data"));
        let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn ports_are_distinct() {
        let ports = ports(3).unwrap();
        let all: HashSet<SocketAddr> =
            ports.iter().flat_map(|p| [p.http, p.metrics, p.grpc, p.raft]).collect();
        assert_eq!((ports.len(), all.len()), (3, 12));
        assert_eq!(ports[0].of(System::Http), ports[0].http);
        assert_eq!(ports[0].of(System::Etcd), ports[0].grpc);
    }

    #[test]
    fn each_server_is_told_who_and_where_it_is() {
        let founder = || How::Founder("peers".to_owned());
        assert_eq!(
            line(Kind::LlmConfig, founder()),
            "serve --auth off --node-id 7 --data-dir /data/node-7 --http-addr 127.0.0.1:1 --metrics-addr 127.0.0.1:2 \
             --grpc-addr 127.0.0.1:3 --raft-addr 127.0.0.1:4 --initial-cluster peers"
        );
        let line = |kind, how| line(kind, how);
        assert!(line(Kind::LlmConfig, How::Joining("urls".into())).ends_with("--join urls"));
        let etcd = line(Kind::Etcd, founder());
        assert!(etcd.starts_with("--name node-7 --data-dir /data/node-7 "), "{etcd}");
        assert!(etcd.ends_with("--initial-cluster-state new --initial-cluster peers"), "{etcd}");
        let etcd = line(Kind::Etcd, How::Joining("peers".into()));
        assert!(etcd.ends_with("--initial-cluster-state existing --initial-cluster peers"));
        let floor = line(Kind::Floor, founder());
        assert_eq!(floor, "floor --grpc 127.0.0.1:3 --http 127.0.0.1:1");
    }

    #[test]
    fn peers_have_the_form_of_their_kind() {
        let ports = ports(2).unwrap();
        let peers = |kind| peers(kind, (1..).zip(ports.iter().copied()));
        let [a, b] = [ports[0].raft, ports[1].raft];
        assert_eq!(peers(Kind::LlmConfig), format!("1={a},2={b}"));
        assert_eq!(peers(Kind::Etcd), format!("node-1=http://{a},node-2=http://{b}"));
    }
}
