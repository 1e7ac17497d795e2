//! Listen addresses: `127.0.0.1:4040`, `[::1]:4040`, `localhost:4040`, `:4040`, `unix:/run/bellwether.sock`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use thiserror::Error;

use super::HttpListen;

/// The port of the local API.
pub const HTTP_PORT: u16 = 4040;
/// The port of telemetry.
pub const TELEMETRY_PORT: u16 = 4041;
/// `sockaddr_un` has 108 bytes, the last of which is the terminating zero.
const UNIX_PATH_BYTES_MAX: usize = 107;

/// Why a text is not a listen address, worded to follow the text itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListenFault {
    /// Nothing there.
    #[error("is empty; write for example 127.0.0.1:4040 or unix:/run/bellwether.sock")]
    Empty,
    /// `127.0.0.1`
    #[error("has no port; write for example {0}:4040")]
    NoPort(String),
    /// `127.0.0.1:http`
    #[error("has no valid port; a port is a number from 0 to 65535")]
    BadPort,
    /// `::1:4040`
    #[error("is an IPv6 address without brackets; write for example [::1]:4040")]
    NoBrackets,
    /// `web:4040`
    #[error("does not start with an IP address; write for example 127.0.0.1:4040, [::1]:4040 or localhost:4040")]
    NotAnAddress,
    /// `unix:`
    #[error("has no path; write for example unix:/run/bellwether.sock")]
    UnixPathEmpty,
    /// The kernel's limit.
    #[error("has a path of {0} bytes; a unix socket's path has at most {UNIX_PATH_BYTES_MAX}")]
    UnixPathTooLong(usize),
    /// Prometheus and the kubelet cannot come in by a file.
    #[error("is a unix socket; telemetry listens on TCP, for example 0.0.0.0:4041")]
    UnixTelemetry,
}

/// The local API's default: both loopback addresses, as far as the machine has them.
#[must_use]
pub fn default_http() -> Vec<HttpListen> {
    loopbacks(HTTP_PORT).to_vec()
}

/// Telemetry's default: every address, because kubelet and Prometheus come in by the pod's.
#[must_use]
pub fn default_telemetry() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, TELEMETRY_PORT).into()
}

/// One item of `--http`; `localhost` becomes both loopback addresses.
pub fn parse_http_item(text: &str) -> Result<Vec<HttpListen>, ListenFault> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.len() {
            0 => Err(ListenFault::UnixPathEmpty),
            length if length > UNIX_PATH_BYTES_MAX => Err(ListenFault::UnixPathTooLong(length)),
            _ => Ok(vec![HttpListen::Unix(PathBuf::from(path))]),
        };
    }
    Ok(match parse_tcp(text)? {
        Tcp::Localhost(port) => loopbacks(port).to_vec(),
        Tcp::Address(address) => vec![HttpListen::Tcp(address)],
    })
}

/// `--telemetry`: one TCP address.
pub fn parse_telemetry(text: &str) -> Result<SocketAddr, ListenFault> {
    if text.starts_with("unix:") {
        return Err(ListenFault::UnixTelemetry);
    }
    Ok(match parse_tcp(text)? {
        Tcp::Localhost(port) => (Ipv4Addr::LOCALHOST, port).into(),
        Tcp::Address(address) => address,
    })
}

enum Tcp {
    Localhost(u16),
    Address(SocketAddr),
}

fn parse_tcp(text: &str) -> Result<Tcp, ListenFault> {
    if text.is_empty() {
        return Err(ListenFault::Empty);
    }
    if text.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4()) || text == "localhost" {
        return Err(ListenFault::NoPort(text.to_owned()));
    }
    let (host, port) = text.rsplit_once(':').ok_or(ListenFault::NotAnAddress)?;
    if text.starts_with('[') && text.ends_with(']') {
        return Err(ListenFault::NoPort(text.to_owned()));
    }
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| digits).ok_or(ListenFault::BadPort)?;
    if host.is_empty() {
        return Ok(Tcp::Address((Ipv4Addr::UNSPECIFIED, port).into()));
    }
    if host == "localhost" {
        return Ok(Tcp::Localhost(port));
    }
    if let Some(inside) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        let ip: Ipv6Addr = inside.parse().map_err(|_why| ListenFault::NotAnAddress)?;
        return Ok(Tcp::Address((ip, port).into()));
    }
    if host.contains(':') {
        return Err(ListenFault::NoBrackets);
    }
    let ip: Ipv4Addr = host.parse().map_err(|_why| ListenFault::NotAnAddress)?;
    Ok(Tcp::Address((ip, port).into()))
}

fn loopbacks(port: u16) -> [HttpListen; 2] {
    [
        HttpListen::Tcp((Ipv4Addr::LOCALHOST, port).into()),
        HttpListen::TcpIfAvailable((Ipv6Addr::LOCALHOST, port).into()),
    ]
}

impl fmt::Display for HttpListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) | Self::TcpIfAvailable(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl HttpListen {
    /// The TCP address, if it is one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) | Self::TcpIfAvailable(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether the kernel would refuse to have both at once.
    #[must_use]
    pub fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unix(one), Self::Unix(two)) => one == two,
            (Self::Unix(_), Self::Tcp(_) | Self::TcpIfAvailable(_))
            | (Self::Tcp(_) | Self::TcpIfAvailable(_), Self::Unix(_)) => false,
            (Self::Tcp(one) | Self::TcpIfAvailable(one), Self::Tcp(two) | Self::TcpIfAvailable(two)) => {
                tcp_collide(*one, *two)
            }
        }
    }
}

/// Port 0 is a different free port each time. `[::]` takes the IPv4 addresses as well, `0.0.0.0` only those.
fn tcp_collide(one: SocketAddr, two: SocketAddr) -> bool {
    let covers = |wide: IpAddr, narrow: IpAddr| match wide {
        IpAddr::V4(wide) => wide.is_unspecified() && narrow.is_ipv4(),
        IpAddr::V6(wide) => wide.is_unspecified(),
    };
    let (ip_one, ip_two) = (one.ip().to_canonical(), two.ip().to_canonical());
    one.port() == two.port()
        && one.port() != 0
        && (ip_one == ip_two || covers(ip_one, ip_two) || covers(ip_two, ip_one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> HttpListen {
        HttpListen::Tcp(text.parse().expect("an address in a test"))
    }

    #[test]
    fn every_form_of_an_address_is_understood() {
        assert_eq!(parse_http_item("127.0.0.1:4040"), Ok(vec![tcp("127.0.0.1:4040")]));
        assert_eq!(parse_http_item("[::1]:4040"), Ok(vec![tcp("[::1]:4040")]));
        assert_eq!(parse_http_item(":4040"), Ok(vec![tcp("0.0.0.0:4040")]));
        assert_eq!(parse_http_item("127.0.0.1:0"), Ok(vec![tcp("127.0.0.1:0")]));
        assert_eq!(parse_http_item("localhost:4040"), Ok(default_http()));
        assert_eq!(parse_http_item("unix:/run/b.sock"), Ok(vec![HttpListen::Unix("/run/b.sock".into())]));
        assert_eq!(parse_telemetry(":4041"), Ok(default_telemetry()));
        assert_eq!(parse_telemetry("localhost:9"), Ok("127.0.0.1:9".parse().expect("an address")));
    }

    #[test]
    fn every_other_form_is_refused_for_its_reason() {
        for (text, fault) in [
            ("", ListenFault::Empty),
            ("127.0.0.1", ListenFault::NoPort("127.0.0.1".into())),
            ("localhost", ListenFault::NoPort("localhost".into())),
            ("[::1]", ListenFault::NoPort("[::1]".into())),
            ("::1:4040", ListenFault::NoBrackets),
            ("127.0.0.1:70000", ListenFault::BadPort),
            ("127.0.0.1:+80", ListenFault::BadPort),
            ("127.0.0.1:", ListenFault::BadPort),
            ("web:4040", ListenFault::NotAnAddress),
            ("4040", ListenFault::NotAnAddress),
            ("[web]:4040", ListenFault::NotAnAddress),
            ("unix:", ListenFault::UnixPathEmpty),
        ] {
            assert_eq!(parse_http_item(text), Err(fault), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        assert_eq!(parse_http_item(&long), Err(ListenFault::UnixPathTooLong(108)));
        assert_eq!(parse_telemetry("unix:/x"), Err(ListenFault::UnixTelemetry));
    }

    #[test]
    fn addresses_collide_when_the_kernel_says_so() {
        for (one, two) in [
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("127.0.0.1:1", "0.0.0.0:1"),
            ("[::]:1", "127.0.0.1:1"),
            ("[::]:1", "0.0.0.0:1"),
            ("[::]:1", "[::1]:1"),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1:1"),
        ] {
            assert!(tcp(one).collides_with(&tcp(two)), "{one} {two}");
        }
        for (one, two) in [
            ("127.0.0.1:1", "127.0.0.1:2"),
            ("127.0.0.1:1", "127.0.0.2:1"),
            ("0.0.0.0:1", "[::1]:1"),
            ("127.0.0.1:0", "127.0.0.1:0"),
        ] {
            assert!(!tcp(one).collides_with(&tcp(two)), "{one} {two}");
        }
        let socket = HttpListen::Unix("/a".into());
        assert!(socket.collides_with(&socket.clone()));
        assert!(!socket.collides_with(&HttpListen::Unix("/b".into())));
        assert!(!socket.collides_with(&tcp("127.0.0.1:1")));
    }
}
