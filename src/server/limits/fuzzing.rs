//! Body of the fuzz target for the header in which proxies name their clients.
//!
//! The target is in `.ci/fuzz`; the test below runs the body over its inputs.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderValue};
use ipnet::{IpNet, Ipv4Net};

use super::address::ClientAddress;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const PROXIES: IpNet = IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8));

/// `X-Forwarded-For`, a header line for each line: nobody is believed but trusted proxies, and what is counted is an address
/// in its one form.
pub fn forwarded_for(data: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(64) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append("x-forwarded-for", value);
        }
    }
    let of =
        |trusted: &[IpNet], exempt: &[IpNet]| ClientAddress::of(PEER, &headers, trusted, exempt);
    assert_eq!(of(&[], &[]).ip(), PEER, "a header was believed that anyone can write");
    let client = of(&[PROXIES], &[PROXIES]);
    assert_eq!(client.ip(), client.ip().to_canonical());
    assert_eq!(client.is_exempt(), PROXIES.contains(&client.ip()));
    let key = ClientAddress::of(client.bucket_key(), &HeaderMap::new(), &[], &[]);
    assert_eq!(key.bucket_key(), client.bucket_key());
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_inputs_of_the_target_pass() {
        crate::replay::run("forwarded_for", super::forwarded_for);
    }
}
