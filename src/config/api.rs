//! Where a sidecar can be asked: `http://127.0.0.1:4040`, `127.0.0.1:4040` or `unix:<path>`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;

use super::HttpListen;

/// The address of a sidecar's listener, to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiAddress {
    /// Over TCP.
    Tcp {
        /// A name or an IP address, without brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// Over a unix socket.
    Unix(PathBuf),
}

/// Why a text is not such an address, worded to follow the text itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApiFault {
    /// The local API stays on the machine.
    #[error("is https, which the local API does not speak; write http://")]
    Https,
    /// `http://127.0.0.1`
    #[error("has no valid port; write for example http://127.0.0.1:4040")]
    NoPort,
    /// Anything else.
    #[error("is not an address; write for example http://127.0.0.1:4040 or unix:/run/bellwether.sock")]
    Malformed,
}

impl ApiAddress {
    /// Parses an address given to `--api`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, ApiFault> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(ApiFault::Malformed) } else { Ok(Self::Unix(path.into())) };
        }
        if text.starts_with("https:") {
            return Err(ApiFault::Https);
        }
        let authority = text.strip_prefix("http://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = authority.rsplit_once(':').ok_or(ApiFault::NoPort)?;
        let port: u16 = port.parse().ok().filter(|port| *port != 0).ok_or(ApiFault::NoPort)?;
        let host = match host.strip_prefix('[') {
            Some(inside) => {
                let inside = inside.strip_suffix(']').ok_or(ApiFault::Malformed)?;
                return Ok(Self::of(
                    (inside.parse::<Ipv6Addr>().map_err(|_not_one| ApiFault::Malformed)?, port).into(),
                ));
            }
            None => host,
        };
        if host.is_empty() {
            return Ok(Self::of((Ipv4Addr::UNSPECIFIED, port).into()));
        }
        if let Ok(ip) = host.parse::<Ipv4Addr>() {
            return Ok(Self::of((ip, port).into()));
        }
        let in_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.chars().all(in_a_name) { Ok(Self::Tcp { host: host.into(), port }) } else { Err(ApiFault::Malformed) }
    }

    /// Where a listener of this address can be reached from its own machine: "every address" is also loopback.
    #[must_use]
    pub fn of(listener: SocketAddr) -> Self {
        let host = match listener.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        Self::Tcp { host: host.to_string(), port: listener.port() }
    }

    /// As [`ApiAddress::of`], for a listener of the local API.
    #[must_use]
    pub fn of_http(listener: &HttpListen) -> Self {
        match listener {
            HttpListen::Tcp(address) | HttpListen::TcpIfAvailable(address) => Self::of(*address),
            HttpListen::Unix(path) => Self::Unix(path.clone()),
        }
    }

    /// What belongs into the `Host` header.
    #[must_use]
    pub fn host_header(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".into(),
        }
    }
}

impl fmt::Display for ApiAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => write!(f, "http://{}", self.host_header()),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_every_address_becomes_loopback() {
        for (text, shown) in [
            ("http://127.0.0.1:4040", "http://127.0.0.1:4040"),
            ("http://localhost:4040/", "http://localhost:4040"),
            ("web-0.web:4040", "http://web-0.web:4040"),
            ("[::1]:4040", "http://[::1]:4040"),
            (":4040", "http://127.0.0.1:4040"),
            ("0.0.0.0:4041", "http://127.0.0.1:4041"),
            ("[::]:4041", "http://[::1]:4041"),
            ("unix:/run/b.sock", "unix:/run/b.sock"),
        ] {
            assert_eq!(ApiAddress::parse(text).map(|address| address.to_string()), Ok(shown.into()), "{text}");
        }
    }

    #[test]
    fn every_other_form_is_refused_for_its_reason() {
        for (text, fault) in [
            ("https://127.0.0.1:4040", ApiFault::Https),
            ("", ApiFault::NoPort),
            ("localhost", ApiFault::NoPort),
            ("http://localhost:0", ApiFault::NoPort),
            ("http://localhost:4040/leader", ApiFault::NoPort),
            ("unix:", ApiFault::Malformed),
            ("http://user:secret@localhost:4040", ApiFault::Malformed),
            ("[::1:4040", ApiFault::Malformed),
            ("::1:4040", ApiFault::Malformed),
        ] {
            assert_eq!(ApiAddress::parse(text), Err(fault), "{text}");
        }
    }
}
