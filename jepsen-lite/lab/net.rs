//! The network of a run: a bridge in a namespace of its own, and one namespace for each node, for the clients, and for
//! the harness. Nothing is added to the namespace of the machine, and there is no way out.
//!
//! Packets are dropped where they cross the bridge, by rules that count.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread;

use anyhow::{Context as _, bail};
use rustix::thread::LinkNameSpaceType;

use super::command;
use super::run_file::{Made, RunFile};
use super::wire::{self, Counts, Weather, Wire};

/// Where every address is.
pub const SUBNET: &str = "10.77.0.0/24";

/// A place on the bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// A node's, by the number of its place.
    Node(u8),
    /// That of everything that records a history.
    Clients,
    /// That of the harness, which no fault cuts off.
    Control,
}

impl Port {
    /// The name of its cable on the bridge.
    #[must_use]
    pub fn cable(self) -> String {
        match self {
            Self::Node(place) => format!("v{place}"),
            Self::Clients => "vc".to_owned(),
            Self::Control => "vk".to_owned(),
        }
    }

    fn suffix(self) -> String {
        match self {
            Self::Node(place) => format!("n{place}"),
            Self::Clients => "c".to_owned(),
            Self::Control => "k".to_owned(),
        }
    }

    /// Its address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        let last = match self {
            Self::Node(place) => place,
            Self::Clients => 100,
            Self::Control => 101,
        };
        Ipv4Addr::new(10, 77, 0, last)
    }
}

/// The network of a run.
#[derive(Debug)]
pub struct Network {
    run: String,
    chains: u32,
}

/// Rules that are in force; give it to [`Network::open`].
#[derive(Debug)]
#[must_use]
pub struct Cut {
    chain: String,
}

impl Network {
    /// Makes the bridge and a namespace for each of `ports`.
    ///
    /// # Errors
    /// When the machine does not let it.
    pub fn create(run: &str, ports: &[Port], list: &mut RunFile) -> anyhow::Result<Self> {
        let network = Self { run: run.to_owned(), chains: 0 };
        let bridge = network.bridge();
        list.add(Made::Namespace(bridge.clone()))?;
        command::line(&format!("ip netns add {bridge}"))?;
        command::line(&format!("ip -n {bridge} link add br0 type bridge"))?;
        command::line(&format!("ip -n {bridge} link set br0 up"))?;
        for port in ports {
            network.plug(*port, list)?;
        }
        network.nft("add table bridge lcjl")?;
        Ok(network)
    }

    fn plug(&self, port: Port, list: &mut RunFile) -> anyhow::Result<()> {
        let (bridge, name, cable) = (self.bridge(), self.namespace(port), port.cable());
        list.add(Made::Namespace(name.clone()))?;
        command::line(&format!("ip netns add {name}"))?;
        command::line(&format!(
            "ip -n {bridge} link add {cable} type veth peer name eth0 netns {name}"
        ))?;
        command::line(&format!("ip -n {bridge} link set {cable} master br0 up"))?;
        command::line(&format!("ip -n {name} addr add {}/24 dev eth0", port.address()))?;
        command::line(&format!("ip -n {name} link set lo up"))?;
        command::line(&format!("ip -n {name} link set eth0 up")).map(drop)
    }

    fn bridge(&self) -> String {
        format!("{}-sw", self.run)
    }

    /// The name of a namespace.
    #[must_use]
    pub fn namespace(&self, port: Port) -> String {
        format!("{}-{}", self.run, port.suffix())
    }

    fn nft(&self, rules: &str) -> anyhow::Result<String> {
        command::run("ip", ["netns", "exec", &self.bridge(), "nft", rules])
    }

    /// Puts rules into force, all at once: each an nft condition, on whose packets `verdict` falls.
    ///
    /// # Errors
    /// When nft refuses them.
    pub fn cut(&mut self, conditions: &[String]) -> anyhow::Result<Cut> {
        self.chains += 1;
        let chain = format!("f{}", self.chains);
        let mut rules = format!(
            "add chain bridge lcjl {chain} {{ type filter hook forward priority 0; policy accept; }}"
        );
        for condition in conditions {
            rules += &format!("; add rule bridge lcjl {chain} {condition} counter drop");
        }
        self.nft(&rules)?;
        Ok(Cut { chain })
    }

    /// How many packets the rules have dropped.
    ///
    /// # Errors
    /// When nft does not tell.
    pub fn dropped(&self, cut: &Cut) -> anyhow::Result<u64> {
        let text = self.nft(&format!("list chain bridge lcjl {}", cut.chain))?;
        counted(&text)
    }

    /// Takes the rules back.
    ///
    /// # Errors
    /// When nft refuses.
    pub fn open(&mut self, cut: Cut) -> anyhow::Result<()> {
        self.nft(&format!("delete chain bridge lcjl {}", cut.chain)).map(drop)
    }

    /// Limits what a port is sent to `rate`, in tc's words.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn throttle(&self, port: Port, rate: &str) -> anyhow::Result<()> {
        let (bridge, cable) = (self.bridge(), port.cable());
        let qdisc = format!("tbf rate {rate} burst 4kb latency 400ms");
        command::line(&format!("tc -n {bridge} qdisc replace dev {cable} root {qdisc}")).map(drop)
    }

    /// How many packets waited for the limit or were dropped by it.
    ///
    /// # Errors
    /// When tc does not tell.
    pub fn throttled(&self, port: Port) -> anyhow::Result<u64> {
        let (bridge, cable) = (self.bridge(), port.cable());
        let text = command::line(&format!("tc -n {bridge} -s qdisc show dev {cable}"))?;
        let after = |name: &str| -> u64 {
            let mut words = text.split([' ', ',', '(', ')', '\n']).filter(|word| !word.is_empty());
            words.find(|word| *word == name);
            words.next().and_then(|count| count.parse().ok()).unwrap_or(0)
        };
        Ok(after("overlimits") + after("dropped"))
    }

    /// Takes the limit back.
    ///
    /// # Errors
    /// When tc refuses.
    pub fn unthrottle(&self, port: Port) -> anyhow::Result<()> {
        let (bridge, cable) = (self.bridge(), port.cable());
        command::line(&format!("tc -n {bridge} qdisc del dev {cable} root")).map(drop)
    }

    /// Puts a wire that delays between a port and the bridge. Rules go on to apply to the port; its limit of what it is
    /// sent, if there is one, does not.
    ///
    /// # Errors
    /// When the machine does not let it.
    pub fn lay_wire(&self, port: Port, weather: Weather, seed: u64) -> anyhow::Result<Wire> {
        let (bridge, cable) = (self.bridge(), port.cable());
        let line = |words: &str| command::line(&format!("ip -n {bridge} link {words}")).map(drop);
        line(&format!("add b{cable} type bridge"))?;
        line(&format!("set b{cable} up"))?;
        let name = format!("t{cable}");
        let near = inside(&bridge, move || wire::device(&name))?;
        line(&format!("set t{cable} master b{cable} up"))?;
        // Whoever drops packets does so by the name that the cable has on the bridge.
        line(&format!("set {cable} down"))?;
        line(&format!("set {cable} name c{cable}"))?;
        let name = cable.clone();
        let far = inside(&bridge, move || wire::device(&name))?;
        line(&format!("set {cable} master br0 up"))?;
        line(&format!("set c{cable} master b{cable} up"))?;
        Ok(Wire::begin([near, far], weather, seed))
    }

    /// Takes the wire away, and tells what it did.
    ///
    /// # Errors
    /// When it had broken, or the machine does not let it.
    pub fn take_wire(&self, port: Port, wire: Wire) -> anyhow::Result<Counts> {
        let (bridge, cable) = (self.bridge(), port.cable());
        let line = |words: &str| command::line(&format!("ip -n {bridge} link {words}")).map(drop);
        line(&format!("set c{cable} down"))?;
        // Its devices go with it.
        let counts = wire.end();
        line(&format!("set c{cable} name {cable}"))?;
        line(&format!("set {cable} master br0 up"))?;
        line(&format!("del b{cable}"))?;
        counts
    }

    /// Ends the connections of a node to `peer` with a reset, and tells how many there were.
    ///
    /// # Errors
    /// When `ss` fails.
    pub fn reset(&self, port: Port, peer: Port) -> anyhow::Result<usize> {
        let (name, peer) = (self.namespace(port), peer.address().to_string());
        let ended = command::run("ip", ["netns", "exec", &name, "ss", "-HKtn", "dst", &peer])?;
        Ok(ended.lines().count())
    }
}

/// The sum of nft's counters.
fn counted(text: &str) -> anyhow::Result<u64> {
    let counters = text.split("counter packets ").skip(1);
    let number =
        |rest: &str| rest.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    let numbers = counters.map(|rest| number(rest).context("nft counts without a number"));
    numbers.sum()
}

/// Moves the calling thread, and what it starts from now on, into a namespace.
///
/// # Errors
/// When there is none of that name, or the kernel refuses.
pub fn enter(namespace: &str) -> anyhow::Result<()> {
    let path = Path::new("/run/netns").join(namespace);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter the network namespace {namespace}"))
}

/// Does something on a thread of its own that is in a namespace.
///
/// # Errors
/// When it cannot get there, or what was done fails.
pub fn inside<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let namespace = namespace.to_owned();
    let thread = thread::spawn(move || enter(&namespace).and_then(|()| work()));
    let Ok(done) = thread.join() else { bail!("what was done in a namespace panicked") };
    done
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn only_counters_are_counted() {
        let text = "chain f1 {\n limit rate over 40/second burst 10 packets counter packets 7 bytes 90 drop\n\
                    iifname \"v1\" counter packets 5 bytes 1 drop\n}";
        assert_eq!(counted(text).ok(), Some(12));
        assert_eq!(counted("chain f1 { }").ok(), Some(0));
        assert!(counted("counter packets none").is_err());
    }
}
