//! The nodes this client may talk to, who of them leads, and who is better left alone for a while.
//!
//! Endpoints given by the caller stay for good. Beside them there is room for a bounded number of addresses that the nodes
//! name: leaders, and members. A member takes reads once it has said itself which member of the cluster it is; until then
//! its address is hearsay. Connections are opened on first use and kept. A node that does not answer is passed over for a
//! while that grows with its failures: a leader's address that only the nodes can reach must not cost every call.
//!
//! Nothing is asked here: that is done by `discovery`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::Error;
use crate::options::Options;
use crate::tls::TlsOptions;

/// Addresses remembered beside the given endpoints.
pub(crate) const LEARNED_MAX: usize = 16;
const ADDRESS_BYTES_MAX: usize = 512;
const SUSPECT_FIRST: Duration = Duration::from_millis(500);
const SUSPECT_MAX: Duration = Duration::from_secs(30);
/// A connection whose peer does not answer pings for this long is closed, so that a vanished machine is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A node chosen for one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) address: Arc<str>,
    pub(crate) channel: Channel,
}

/// A member of the cluster, as a node names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) address: String,
    /// Without a vote it may be far behind, and takes no reads.
    pub(crate) votes: bool,
}

#[derive(Debug)]
struct Node {
    address: Arc<str>,
    channel: Channel,
    learned: bool,
    /// Which member it is, by its own word.
    id: Option<u64>,
    /// Takes reads: a given endpoint until it turns out to be no member, a learned one once it has said who it is.
    serves: bool,
    failures: u32,
    suspect_until: Option<Instant>,
}

impl Node {
    fn suspect(&self, now: Instant) -> bool {
        self.suspect_until.is_some_and(|until| now < until)
    }

    fn pick(&self) -> Picked {
        Picked { address: self.address.clone(), channel: self.channel.clone() }
    }
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    leader: Option<Arc<str>>,
    cursor: usize,
    /// Those with a vote, by id, as last heard.
    members: BTreeMap<u64, String>,
}

#[derive(Debug)]
pub(crate) struct Nodes {
    state: Mutex<State>,
    opening: Opening,
}

/// How connections are opened, all in one way.
#[derive(Debug)]
struct Opening {
    connect_timeout: Duration,
    /// In clear text without.
    tls: Option<TlsOptions>,
}

impl Nodes {
    pub(crate) fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: &Options,
    ) -> Result<Self, Error> {
        let endpoints = endpoints
            .into_iter()
            .map(|endpoint| parse(endpoint.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        let opening = Opening {
            connect_timeout: options.connect_timeout,
            tls: choose_tls(&endpoints, options)?,
        };
        let mut nodes: Vec<Node> = Vec::new();
        for Parsed { address, .. } in endpoints {
            if nodes.iter().all(|node| *node.address != *address) {
                nodes.push(opening.open(&address, false)?);
            }
        }
        if nodes.is_empty() {
            return Err(Error::InvalidEndpoint {
                endpoint: String::new(),
                reason: "give at least one endpoint, like 127.0.0.1:50051".to_owned(),
            });
        }
        Ok(Self {
            // A random start, so that many clients with one list do not all begin at its first node.
            state: Mutex::new(State {
                cursor: rand::random_range(0..nodes.len()),
                nodes,
                leader: None,
                members: BTreeMap::new(),
            }),
            opening,
        })
    }

    /// The leader if wanted, known and answering; else the next that takes reads and answers; else any that answers; else
    /// the next to be tried again.
    pub(crate) fn pick(&self, prefer_leader: bool) -> Option<Picked> {
        let now = Instant::now();
        let mut state = self.lock();
        if prefer_leader && let Some(leader) = state.answering_leader(now) {
            return Some(leader.pick());
        }
        let count = state.nodes.len();
        state.cursor = state.cursor.wrapping_add(1);
        let rotated =
            || (0..count).filter_map(|i| state.nodes.get((state.cursor.wrapping_add(i)) % count));
        rotated()
            .find(|node| node.serves && !node.suspect(now))
            .or_else(|| rotated().find(|node| !node.suspect(now)))
            .or_else(|| rotated().min_by_key(|node| node.suspect_until))
            .map(Node::pick)
    }

    pub(crate) fn answered(&self, address: &str) {
        if let Some(node) = self.lock().node(address)
            && node.failures > 0
        {
            node.failures = 0;
            node.suspect_until = None;
        }
    }

    /// The node did not answer: pass it over for a while, and forget it as the leader.
    pub(crate) fn silent(&self, address: &str) {
        let mut state = self.lock();
        if let Some(node) = state.node(address) {
            let pause = SUSPECT_FIRST.saturating_mul(1 << node.failures.min(16)).min(SUSPECT_MAX);
            node.failures = node.failures.saturating_add(1);
            node.suspect_until = Some(Instant::now() + pause);
            tracing::debug!(node = %address, failures = node.failures, "passed over for a while");
        }
        state.forget_leader(address);
    }

    /// The node answered that it cannot lead or serve now.
    pub(crate) fn not_leading(&self, address: &str) {
        self.lock().forget_leader(address);
    }

    /// Remembers who leads. The address is input from the network: one that cannot be used is ignored.
    pub(crate) fn learn_leader(&self, address: &str) {
        let mut state = self.lock();
        if state.leader.as_deref() == Some(address) {
            return;
        }
        if address.len() > ADDRESS_BYTES_MAX {
            return;
        }
        let Ok(Parsed { scheme: None, address }) = parse(address) else { return };
        if state.node(&address).is_none() {
            let Ok(node) = self.opening.open(&address, true) else {
                return;
            };
            state.make_room();
            state.nodes.push(node);
        }
        tracing::info!(leader = %address, "another node leads");
        state.leader = Some(address.into());
    }

    /// Takes over who is a member by the word of one of them, and names the nodes that have to be asked who they are.
    ///
    /// What is learned and no member is forgotten, unless it leads; given endpoints stay. An answer without members says
    /// nothing.
    pub(crate) fn learn_members(&self, members: &[Member]) -> Vec<Picked> {
        let usable = |member: &&Member| member.votes && member.id != 0;
        let members: BTreeMap<u64, String> = members
            .iter()
            .filter(usable)
            .filter(|member| member.address.len() <= ADDRESS_BYTES_MAX)
            .filter_map(|member| match parse(&member.address) {
                Ok(Parsed { scheme: None, address }) => Some((member.id, address)),
                _ => None,
            })
            .take(LEARNED_MAX)
            .collect();
        if members.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        let mut state = self.lock();
        let leader = state.leader.clone();
        state.nodes.retain(|node| {
            let keep = !node.learned
                || leader.as_deref() == Some(&*node.address)
                || members.values().any(|address| **address == *node.address);
            if !keep {
                tracing::info!(node = %node.address, "no member any more, forgotten");
            }
            keep
        });
        for (id, address) in &members {
            let known = state.nodes.iter().any(|node| {
                *node.address == **address
                    || (!node.learned && node.id == Some(*id) && node.failures == 0)
            });
            if known {
                continue;
            }
            if let Ok(node) = self.opening.open(address, true) {
                state.make_room();
                state.nodes.push(node);
            }
        }
        state.members = members;
        let State { nodes, members, .. } = &mut *state;
        let unsure = |node: &&mut Node| node.id.is_none_or(|id| !members.contains_key(&id));
        nodes
            .iter_mut()
            .filter(unsure)
            .filter_map(|node| {
                if node.id.take().is_some() {
                    // It was another member, which is none any more.
                    node.serves = false;
                }
                (!node.suspect(now)).then(|| node.pick())
            })
            .collect()
    }

    /// A node said which member it is.
    pub(crate) fn is_member(&self, address: &str, id: u64) {
        let mut state = self.lock();
        let expected = state.members.get(&id).cloned();
        let twice = state
            .nodes
            .iter()
            .any(|node| !node.learned && *node.address != *address && node.id == Some(id));
        let Some(node) = state.node(address) else { return };
        node.id = Some(id);
        let was = node.serves;
        // Under a learned address there has to be the very member that was named, and no given endpoint that is it too.
        node.serves = match expected {
            Some(_) if !node.learned => true,
            Some(expected) => expected == address && !twice,
            None => false,
        };
        if node.serves != was {
            let reads = node.serves;
            tracing::info!(node = %address, id, reads, "a node said which member it is");
        }
        if !node.learned && node.serves {
            // One member under two addresses would get twice its share.
            for other in &mut state.nodes {
                if other.learned && other.id == Some(id) {
                    other.serves = false;
                }
            }
        }
    }

    /// What was learned about an address was wrong: another cluster is there.
    pub(crate) fn is_stranger(&self, address: &str) {
        let mut state = self.lock();
        state.nodes.retain(|node| !node.learned || *node.address != *address);
        if let Some(node) = state.node(address) {
            node.serves = false;
        }
        state.forget_leader(address);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; a poisoned state would still be whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn node(&mut self, address: &str) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| *node.address == *address)
    }

    fn answering_leader(&self, now: Instant) -> Option<&Node> {
        let leader = self.leader.as_deref()?;
        self.nodes.iter().find(|node| *node.address == *leader && !node.suspect(now))
    }

    fn forget_leader(&mut self, address: &str) {
        if self.leader.as_deref() == Some(address) {
            self.leader = None;
        }
    }

    /// Drops the oldest learned address when there are too many.
    fn make_room(&mut self) {
        if self.nodes.iter().filter(|node| node.learned).count() >= LEARNED_MAX
            && let Some(oldest) = self
                .nodes
                .iter()
                .position(|node| node.learned && !node.serves)
                .or_else(|| self.nodes.iter().position(|node| node.learned))
        {
            self.nodes.remove(oldest);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// An endpoint as given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    scheme: Option<Scheme>,
    /// `host:port`.
    pub(crate) address: String,
}

/// `host:port` out of an endpoint with or without `http://` or `https://`.
pub(crate) fn parse(endpoint: &str) -> Result<Parsed, Error> {
    let invalid = |reason: &str| Error::InvalidEndpoint {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
    };
    let trimmed = endpoint.trim();
    let (scheme, rest) = match trimmed.split_once("://") {
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        _ => (None, trimmed),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let uri: Uri = format!("http://{rest}/")
        .parse()
        .map_err(|_| invalid("is not HOST:PORT, like 127.0.0.1:50051"))?;
    // A fragment is no part of what was read; what is left must be all that was given.
    let whole = uri.authority().is_some_and(|authority| authority.as_str() == rest);
    if !whole || uri.path() != "/" || uri.query().is_some() || rest.contains('@') {
        return Err(invalid("must be HOST:PORT only, without path, query, fragment or user"));
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(invalid("has no host; write HOST:PORT, like 127.0.0.1:50051"));
    }
    if uri.port_u16().is_none_or(|port| port == 0) {
        return Err(invalid("has no port; write HOST:PORT, like 127.0.0.1:50051"));
    }
    Ok(Parsed { scheme, address: rest.to_owned() })
}

/// One way for all connections: what may be sent to one node must not go to another in clear text.
fn choose_tls(endpoints: &[Parsed], options: &Options) -> Result<Option<TlsOptions>, Error> {
    let with = |scheme| endpoints.iter().find(move |endpoint| endpoint.scheme == Some(scheme));
    let secure = options.tls.is_some() || with(Scheme::Https).is_some();
    match with(Scheme::Http) {
        Some(plain) if secure => Err(Error::InvalidEndpoint {
            endpoint: format!("http://{}", plain.address),
            reason: "is without TLS, and TLS is asked for; write https:// for all endpoints"
                .to_owned(),
        }),
        _ if secure => Ok(Some(options.tls.clone().unwrap_or_default())),
        _ => Ok(None),
    }
}

impl Opening {
    fn open(&self, address: &str, learned: bool) -> Result<Node, Error> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(|error| {
            Error::InvalidEndpoint { endpoint: address.to_owned(), reason: error.to_string() }
        })?;
        let endpoint = match &self.tls {
            Some(tls) => tls.secure(endpoint)?,
            None => endpoint,
        };
        let channel = endpoint
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .connect_lazy();
        Ok(Node {
            address: address.into(),
            channel,
            learned,
            id: None,
            serves: !learned,
            failures: 0,
            suspect_until: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(endpoints: &[&str]) -> Nodes {
        Nodes::new(endpoints, &Options::default()).unwrap()
    }

    fn picked(nodes: &Nodes, prefer_leader: bool) -> String {
        nodes.pick(prefer_leader).unwrap().address.to_string()
    }

    #[test]
    fn endpoints_are_host_and_port() {
        for good in [
            "127.0.0.1:1",
            "http://node-1:50051",
            "http://node-1:50051/",
            "https://node-1:50051/",
            "[::1]:80",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "node",
            "http://node",
            "https://node",
            "ftp://node:1",
            "node:x",
            "node:1/path",
            "node:1#part",
            "node:1#part/",
            "a@node:1",
            ":5",
            "node:0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse("http://n:1/").unwrap().address, parse("n:1").unwrap().address);
    }

    #[test]
    fn all_connections_have_tls_or_none_has() {
        let chosen = |endpoints: &[&str], options: &Options| {
            let parsed: Vec<_> = endpoints.iter().map(|text| parse(text).unwrap()).collect();
            choose_tls(&parsed, options).map(|tls| tls.is_some())
        };
        let (plain, tls) = (Options::default(), Options::default().tls(TlsOptions::default()));
        assert!(!chosen(&["http://a:1", "b:1"], &plain).unwrap());
        assert!(chosen(&["https://a:1", "b:1"], &plain).unwrap());
        assert!(chosen(&["a:1"], &tls).unwrap());
        for (endpoints, options) in
            [(&["https://a:1", "http://b:1"][..], &plain), (&["http://b:1"][..], &tls)]
        {
            let error = chosen(endpoints, options).unwrap_err().to_string();
            assert!(error.contains("\"http://b:1\"") && error.contains("https://"), "{error}");
        }
    }

    #[test]
    fn tls_that_cannot_work_is_refused_before_anything_is_tried() {
        let refused = |tls: TlsOptions| {
            let error = Nodes::new(["a:1"], &Options::default().tls(tls)).unwrap_err();
            assert!(matches!(error, Error::InvalidTls { .. }), "{error}");
            error.to_string()
        };
        assert!(refused(TlsOptions::default().ca_pem("x")).contains("authorities"));
        assert!(refused(TlsOptions::default().identity("x", "y")).contains("own certificate"));
        let shown = format!("{:?}", TlsOptions::default().identity("c", "secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }

    #[test]
    fn no_endpoint_is_an_error() {
        assert!(Nodes::new(Vec::<String>::new(), &Options::default()).is_err());
    }

    #[tokio::test]
    async fn reads_rotate_and_writes_follow_the_leader() {
        let nodes = nodes(&["a:1", "b:1"]);
        let (first, second) = (picked(&nodes, false), picked(&nodes, false));
        assert_ne!(first, second);
        nodes.learn_leader("c:1");
        assert_eq!(picked(&nodes, true), "c:1");
        assert_ne!(picked(&nodes, false), "c:1", "reads stay on the given endpoints");
    }

    #[tokio::test]
    async fn a_silent_leader_is_passed_over_even_when_named_again() {
        let nodes = nodes(&["a:1"]);
        nodes.learn_leader("c:1");
        nodes.silent("c:1");
        nodes.learn_leader("c:1");
        assert_eq!(picked(&nodes, true), "a:1");
        nodes.answered("c:1");
        assert_eq!(picked(&nodes, true), "c:1");
    }

    #[tokio::test]
    async fn when_all_are_silent_the_one_silent_longest_is_tried() {
        let nodes = nodes(&["a:1", "b:1"]);
        nodes.silent("b:1");
        nodes.silent("b:1");
        nodes.silent("a:1");
        assert_eq!(picked(&nodes, false), "a:1");
    }

    #[tokio::test]
    async fn learned_addresses_are_bounded_and_checked() {
        let nodes = nodes(&["a:1"]);
        for port in 1..100 {
            nodes.learn_leader(&format!("leader:{port}"));
        }
        assert_eq!(nodes.lock().nodes.len(), 1 + LEARNED_MAX);
        assert_eq!(picked(&nodes, true), "leader:99");
        nodes.learn_leader("not an address");
        assert_eq!(picked(&nodes, true), "leader:99");
    }

    fn members(list: &[(u64, &str)]) -> Vec<Member> {
        let member = |(id, address): &(u64, &str)| Member {
            id: *id,
            address: (*address).to_owned(),
            votes: true,
        };
        list.iter().map(member).collect()
    }

    fn reads(nodes: &Nodes) -> std::collections::BTreeSet<String> {
        (0..20).map(|_| picked(nodes, false)).collect()
    }

    fn set(list: &[&str]) -> std::collections::BTreeSet<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[tokio::test]
    async fn a_member_takes_reads_once_it_has_said_who_it_is() {
        let nodes = nodes(&["a:1"]);
        let asked = nodes.learn_members(&members(&[(1, "a:1"), (2, "b:1")]));
        assert_eq!(asked.len(), 2);
        assert_eq!(reads(&nodes), set(&["a:1"]), "hearsay takes no reads");
        nodes.is_member("a:1", 1);
        nodes.is_member("b:1", 3);
        assert_eq!(reads(&nodes), set(&["a:1"]), "it is another one than was said");
        nodes.is_member("b:1", 1);
        assert_eq!(reads(&nodes), set(&["a:1"]), "it is another member than was said");
        nodes.is_member("b:1", 2);
        assert_eq!(reads(&nodes), set(&["a:1", "b:1"]));
        assert!(nodes.learn_members(&members(&[(1, "a:1"), (2, "b:1")])).is_empty());
    }

    #[tokio::test]
    async fn a_removed_member_is_forgotten_and_a_removed_endpoint_only_left_alone() {
        let nodes = nodes(&["a:1"]);
        nodes.learn_members(&members(&[(1, "a:1"), (2, "b:1")]));
        nodes.is_member("a:1", 1);
        nodes.is_member("b:1", 2);
        nodes.learn_members(&members(&[(1, "a:1"), (3, "c:1")]));
        nodes.is_member("c:1", 3);
        assert_eq!(reads(&nodes), set(&["a:1", "c:1"]));
        nodes.learn_members(&members(&[(3, "c:1")]));
        assert_eq!(reads(&nodes), set(&["c:1"]));
        nodes.silent("c:1");
        assert_eq!(reads(&nodes), set(&["a:1"]), "what was given is tried when all else fails");
        // A disk of another member was put into the machine.
        let asked = nodes.learn_members(&members(&[(3, "c:1"), (4, "a:1")]));
        assert_eq!(asked.len(), 1);
        nodes.is_member("a:1", 4);
        nodes.answered("c:1");
        assert_eq!(reads(&nodes), set(&["a:1", "c:1"]));
    }

    #[tokio::test]
    async fn one_member_under_two_addresses_takes_one_share() {
        let nodes = nodes(&["name:1"]);
        nodes.learn_members(&members(&[(1, "10.0.0.1:1")]));
        nodes.is_member("10.0.0.1:1", 1);
        nodes.is_member("name:1", 1);
        assert_eq!(reads(&nodes), set(&["name:1"]));
        // In the other order, too.
        nodes.is_member("10.0.0.1:1", 1);
        assert_eq!(reads(&nodes), set(&["name:1"]));
    }

    #[tokio::test]
    async fn hostile_lists_of_members_are_bounded_and_checked() {
        let nodes = nodes(&["a:1"]);
        let many: Vec<Member> =
            (1..1000).map(|id| Member { id, address: format!("m{id}:1"), votes: true }).collect();
        nodes.learn_members(&many);
        assert!(nodes.lock().nodes.len() <= 1 + LEARNED_MAX);
        nodes.learn_members(&members(&[(1, "u@x:1"), (2, "http://x:1"), (3, "x"), (0, "y:1")]));
        assert!(nodes.lock().nodes.iter().all(|node| !node.address.contains('x')));
        assert_eq!(reads(&nodes), set(&["a:1"]));
    }
}
