//! Whom a request comes from: the other end of the connection, or the client that a trusted proxy names.
//!
//! Anyone can write a header, so `X-Forwarded-For` is believed only as far as trusted proxies vouch for it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Proxies in a row that are believed; real chains have a few.
const HOPS_MAX: usize = 32;
/// Bits of an IPv6 address that name a network; the rest is its owner's to choose.
const IPV6_NETWORK_BITS: u32 = 64;

/// The address that a request is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    ip: IpAddr,
    exempt: bool,
}

impl ClientAddress {
    /// `peer` is the other end of the connection.
    pub(super) fn of(
        peer: IpAddr,
        headers: &HeaderMap,
        trusted_proxies: &[IpNet],
        exempt: &[IpNet],
    ) -> Self {
        let ip = client(peer.to_canonical(), headers, trusted_proxies);
        Self { ip, exempt: is_in(ip, exempt) }
    }

    /// The address itself; an IPv4 address that came mapped into IPv6 is an IPv4 address here.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// What is counted and banned: an IPv4 address, or the first address of an IPv6 /64.
    #[must_use]
    pub fn bucket_key(&self) -> IpAddr {
        match self.ip {
            IpAddr::V4(_) => self.ip,
            IpAddr::V6(address) => {
                let network = address.to_bits() & (u128::MAX << (128 - IPV6_NETWORK_BITS));
                IpAddr::V6(Ipv6Addr::from_bits(network))
            }
        }
    }

    /// Whether the address is neither limited nor banned.
    #[must_use]
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }
}

/// Walks from the nearest proxy outwards: each one vouches for the address before it, so the first that is not trusted
/// is the client. Something that is no address ends the walk where it is.
fn client(peer: IpAddr, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> IpAddr {
    let mut nearest = peer;
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for _ in 0..HOPS_MAX {
        if !is_in(nearest, trusted_proxies) {
            break;
        }
        match hops.next().and_then(address) {
            Some(before) => nearest = before,
            None => break,
        }
    }
    nearest
}

/// An address as proxies write it: alone, or with the port that the client spoke from.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let alone = || text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets =
        || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    alone().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

fn is_in(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn client_of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let trusted = networks(trusted);
        ClientAddress::of(peer.parse().unwrap(), &headers, &trusted, &[]).ip().to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client_of("192.0.2.1", &["198.51.100.1"], &[]), "192.0.2.1");
        assert_eq!(client_of("192.0.2.1", &["198.51.100.1"], &["10.0.0.0/8"]), "192.0.2.1");
    }

    #[test]
    fn the_first_that_no_trusted_proxy_vouches_for_is_the_client() {
        let trusted = ["10.0.0.0/8"];
        for (forwarded, expected) in [
            (vec![], "10.0.0.1"),
            (vec!["198.51.100.1"], "198.51.100.1"),
            // What a client writes itself stands left of what the proxy saw.
            (vec!["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            (vec!["203.0.113.9", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
            (vec!["203.0.113.9, 198.51.100.1", "10.0.0.3", "10.0.0.2"], "198.51.100.1"),
            (vec!["10.0.0.4,10.0.0.3"], "10.0.0.4"),
            (vec!["198.51.100.1:4711"], "198.51.100.1"),
            (vec!["[2001:db8::1]:4711"], "2001:db8::1"),
            (vec!["[2001:db8::1]"], "2001:db8::1"),
            (vec![" 2001:db8::1 "], "2001:db8::1"),
        ] {
            assert_eq!(client_of("10.0.0.1", &forwarded, &trusted), expected, "{forwarded:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_good_one() {
        let trusted = ["10.0.0.0/8"];
        for (forwarded, expected) in [
            ("unknown", "10.0.0.1"),
            ("198.51.100.1, unknown", "10.0.0.1"),
            ("198.51.100.1, _hidden, 10.0.0.2", "10.0.0.2"),
            ("198.51.100.1,", "10.0.0.1"),
            ("", "10.0.0.1"),
            ("198.51.100.300", "10.0.0.1"),
            ("198.51.100.1:99999", "10.0.0.1"),
            ("for=198.51.100.1", "10.0.0.1"),
            ("\u{fc}", "10.0.0.1"),
        ] {
            assert_eq!(client_of("10.0.0.1", &[forwarded], &trusted), expected, "{forwarded:?}");
        }
    }

    #[test]
    fn a_chain_without_end_is_not_followed() {
        let mut hops = vec!["198.51.100.1"];
        hops.extend(std::iter::repeat_n("10.0.0.2", 1_000));
        assert_eq!(client_of("10.0.0.1", &[&hops.join(",")], &["10.0.0.0/8"]), "10.0.0.2");
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address_that_it_maps() {
        assert_eq!(client_of("::ffff:192.0.2.1", &[], &[]), "192.0.2.1");
        let mapped = client_of("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], &["10.0.0.0/8"]);
        assert_eq!(mapped, "198.51.100.1");
        let exempt = networks(&["192.0.2.0/24"]);
        let peer = "::ffff:192.0.2.1".parse().unwrap();
        assert!(ClientAddress::of(peer, &HeaderMap::new(), &[], &exempt).is_exempt());
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let key = |ip: &str| {
            ClientAddress::of(ip.parse().unwrap(), &HeaderMap::new(), &[], &[]).bucket_key()
        };
        assert_eq!(key("2001:db8:1:2:3:4:5:6"), key("2001:db8:1:2::"));
        assert_eq!(key("2001:db8:1:2:3:4:5:6").to_string(), "2001:db8:1:2::");
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }

    #[test]
    fn exempt_is_the_client_not_the_proxy() {
        let headers =
            HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static("198.51.100.1"))]);
        let of = |exempt: &[&str]| {
            let (trusted, exempt) = (networks(&["10.0.0.1/32"]), networks(exempt));
            ClientAddress::of("10.0.0.1".parse().unwrap(), &headers, &trusted, &exempt)
        };
        assert!(!of(&["10.0.0.0/8"]).is_exempt());
        assert!(of(&["198.51.100.0/24"]).is_exempt());
    }
}
