//! Free ports.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// The lowest port handed out: below are ports of well-known services.
const LOWEST: u16 = 15_000;
/// Where the kernel's own range begins when it does not say: Linux's default.
const KERNEL_RANGE_BEGINS: u16 = 32_768;
/// How many ports to try: with a hundred tests side by side a few hundred of the seventeen thousand are taken.
const ATTEMPTS: usize = 200;

/// A loopback address whose port was free a moment ago.
///
/// From outside the range the kernel gives to outgoing connections, so that it is still free when a server is
/// stopped and started again on it. Another process can still take it first: whoever binds must be ready to
/// ask again.
///
/// # Errors
/// When no free port is found.
pub fn free_loopback_address() -> Result<SocketAddr> {
    let end = kernel_range_begins().max(LOWEST + 1000);
    for _ in 0..ATTEMPTS {
        let offset = RandomState::new().build_hasher().finish() % u64::from(end - LOWEST);
        let port = LOWEST + u16::try_from(offset).expect("a remainder of a u16");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port between {LOWEST} and {end} on loopback in {ATTEMPTS} attempts")
}

fn kernel_range_begins() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(KERNEL_RANGE_BEGINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handed_out_port_can_be_bound_and_is_not_one_for_outgoing_connections() {
        let address = free_loopback_address().unwrap();
        assert!(address.port() >= LOWEST);
        assert!(address.port() < kernel_range_begins());
        TcpListener::bind(address).unwrap();
    }
}
