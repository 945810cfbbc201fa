//! What the text of each kind of option means: addresses, sizes, times, member lists.
//!
//! Each function answers with the reason alone; who wrote the text is added by the caller.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use crate::address::{advertised, host_port};

/// An address to listen on: `IP:PORT`, or a name that this machine resolves.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    host_port(text, 0)?;
    let mut addresses = text
        .to_socket_addrs()
        .map_err(|error| format!("{text:?} does not resolve ({error}); give an IP address and a port such as 127.0.0.1:8080"))?;
    addresses
        .next()
        .ok_or_else(|| format!("{text:?} resolves to no address; give an IP address and a port"))
}

/// `URL,URL,…`: where nodes of a running cluster serve HTTP. Without a scheme it is http.
pub(super) fn join(text: &str) -> Result<Vec<String>, String> {
    let mut urls = Vec::new();
    for part in text.split(',').map(str::trim) {
        let (scheme, rest) = match part.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => (scheme, rest),
            _ => ("http", part),
        };
        let address = advertised(rest.strip_suffix('/').unwrap_or(rest)).map_err(|_| {
            format!("{part:?} is not the HTTP address of a node; write http://HOST:PORT or https://HOST:PORT")
        })?;
        let url = format!("{scheme}://{address}");
        if urls.contains(&url) {
            return Err(format!("{url} is listed twice; list each node once"));
        }
        urls.push(url);
    }
    Ok(urls)
}

/// `1=HOST:PORT,2=HOST:PORT,…`, in any order.
pub(super) fn members(text: &str) -> Result<BTreeMap<u64, String>, String> {
    let mut members: BTreeMap<u64, String> = BTreeMap::new();
    for part in text.split(',').map(str::trim) {
        let (id, address) = part.split_once('=').ok_or_else(|| {
            format!("{part:?} is not ID=HOST:PORT; write 1=HOST:PORT,2=HOST:PORT,…")
        })?;
        let id = node_id(id.trim())?;
        let address = advertised(address.trim())?;
        if let Some((other, _)) = members.iter().find(|(_, known)| **known == address) {
            return Err(format!(
                "nodes {other} and {id} have the same address {address}; each node needs its own"
            ));
        }
        if members.insert(id, address).is_some() {
            return Err(format!("node {id} is listed twice; list each node once"));
        }
    }
    Ok(members)
}

pub(super) fn node_id(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) => Err("0 is no node id; number the nodes from 1".to_owned()),
        Ok(id) => Ok(id),
        Err(_) => Err(format!("{text:?} is no node id; give a whole number from 1 up")),
    }
}

pub(super) fn number(text: &str, min: u64, max: u64) -> Result<u64, String> {
    text.parse()
        .ok()
        .filter(|n| (min..=max).contains(n))
        .ok_or_else(|| format!("{text:?} is not a whole number from {min} to {max}"))
}

/// `on` and `off`, and what YAML and shells write for them.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither on nor off")),
    }
}

/// Bytes, with the units of 1024.
pub(super) fn bytes(text: &str, min: u64, max: u64) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("G", 1 << 30),
        ("", 1),
    ];
    let explain =
        || format!("{text:?} is not a size from {min} to {max} bytes; write such as 64MiB");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(explain)?;
    let number: u64 = number.parse().map_err(|_| explain())?;
    number.checked_mul(*factor).filter(|n| (min..=max).contains(n)).ok_or_else(explain)
}

/// A time with its unit.
pub(super) fn duration(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let explain =
        || format!("{text:?} is not a time from {min:?} to {max:?}; write such as 5s or 500ms");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| explain())?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs).ok_or_else(explain);
    let duration = match unit.trim() {
        "ms" => Duration::from_millis(number),
        "s" => seconds(1)?,
        "m" => seconds(60)?,
        "h" => seconds(3600)?,
        "d" => seconds(24 * 3600)?,
        _ => return Err(explain()),
    };
    if (min..=max).contains(&duration) { Ok(duration) } else { Err(explain()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn member_lists_are_order_free_and_checked() {
        let list = members("2=b:2, 1=a:1").unwrap();
        assert_eq!(list, BTreeMap::from([(1, "a:1".to_owned()), (2, "b:2".to_owned())]));
        for (bad, part) in [
            ("", "ID=HOST:PORT"),
            ("1=a:1,", "ID=HOST:PORT"),
            ("a:1", "ID=HOST:PORT"),
            ("0=a:1", "0 is no node id"),
            ("x=a:1", "whole number"),
            ("1=a:1,1=b:1", "listed twice"),
            ("1=a:1,2=a:1", "same address"),
            ("1=a", "HOST:PORT"),
            ("1=a:0", "port"),
            ("1=a:99999", "port"),
            ("1=http://a:1", "URL"),
            ("1=0.0.0.0:1", "no address that others"),
            ("1=:1", "HOST:PORT"),
            ("1=a b:1", "HOST:PORT"),
        ] {
            let reason = members(bad).unwrap_err();
            assert!(reason.contains(part), "{bad:?}: {reason}");
        }
    }

    #[test]
    fn join_lists_are_urls_of_nodes() {
        assert_eq!(join("http://a:1/, b:2").unwrap(), ["http://a:1", "http://b:2"]);
        assert_eq!(join("https://a:1/").unwrap(), ["https://a:1"]);
        for (bad, part) in [
            ("", "HOST:PORT"),
            ("http://a:1,", "HOST:PORT"),
            ("a", "HOST:PORT"),
            ("http://a:1/api", "HOST:PORT"),
            ("http://0.0.0.0:1", "HOST:PORT"),
            ("https://a", "HOST:PORT"),
            ("ftp://a:1", "HOST:PORT"),
            ("a:1,http://a:1", "listed twice"),
        ] {
            let reason = join(bad).unwrap_err();
            assert!(reason.contains(part), "{bad:?}: {reason}");
        }
    }

    #[test]
    fn addresses_to_listen_on() {
        assert_eq!(listen("[::1]:80").unwrap().to_string(), "[::1]:80");
        assert_eq!(listen("127.0.0.1:0").unwrap().port(), 0);
        assert!(listen("localhost:8080").unwrap().ip().is_loopback());
        for bad in ["", "8080", ":8080", "127.0.0.1", "127.0.0.1:port", "::1:80:x", "a/b:1"] {
            assert!(listen(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_and_times_have_units_and_bounds() {
        assert_eq!(bytes("64MiB", 0, u64::MAX), Ok(64 << 20));
        assert_eq!(bytes("2 GiB", 0, u64::MAX), Ok(2 << 30));
        assert_eq!(bytes("1024", 0, u64::MAX), Ok(1024));
        for bad in ["", "MiB", "1.5GiB", "-1", "1TB", "99999999999999999999", "99999999999GiB"] {
            assert!(bytes(bad, 0, u64::MAX).is_err(), "{bad:?}");
        }
        assert!(bytes("1", 2, 3).is_err());
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(300));
        assert_eq!(duration("1500ms", min, max), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("5m", min, max), Ok(max));
        assert_eq!(duration("2h", min, 25 * max), Ok(Duration::from_secs(7200)));
        assert_eq!(duration("7d", min, 3000 * max), Ok(Duration::from_secs(7 * 86_400)));
        for bad in
            ["", "5", "s", "1ms", "6m", "5h", "-1s", "99999999999999999999s", "999999999999999999m"]
        {
            assert!(duration(bad, min, max).is_err(), "{bad:?}");
        }
    }
}
