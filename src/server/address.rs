//! Addresses that nodes tell each other, as text: `HOST:PORT`.
//!
//! The form is checked; nothing is resolved or connected to.

use std::net::SocketAddr;

const HOST_BYTES_MAX: usize = 253;

/// An address that others connect to: a host that means the same on every machine, and a real port.
pub(crate) fn advertised(text: &str) -> Result<String, String> {
    if text.contains("://") {
        return Err(format!("{text:?} is a URL; give HOST:PORT alone"));
    }
    if let Ok(address) = text.parse::<SocketAddr>()
        && address.ip().is_unspecified()
    {
        return Err(format!(
            "{text:?} is no address that others can connect to; give this machine's own name or IP address"
        ));
    }
    host_port(text, 1)?;
    Ok(text.to_owned())
}

/// Whether a text has the form of a host and a port.
pub(crate) fn host_port(text: &str, port_min: u16) -> Result<(), String> {
    let explain = || format!("{text:?} is not HOST:PORT, such as node1.example:8080 or [::1]:8080");
    let (host, port) = text.rsplit_once(':').ok_or_else(explain)?;
    let port: u16 = port
        .parse()
        .map_err(|_| format!("{text:?}: the port must be a number from {port_min} to 65535"))?;
    if port < port_min {
        return Err(format!("{text:?}: the port must be a number from {port_min} to 65535"));
    }
    let bracketed =
        host.starts_with('[') && host.ends_with(']') && text.parse::<SocketAddr>().is_ok();
    let named = !host.is_empty()
        && host.len() <= HOST_BYTES_MAX
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if bracketed || named { Ok(()) } else { Err(explain()) }
}
