//! Connecting to the application, in a way that tells "nobody listens" from everything else.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;

use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;

use super::answer::Failure;
use crate::config::HostPort;

/// Looks names up, one at a time: a name server that is silent holds up a thread for longer than a probe lasts.
#[derive(Debug, Default)]
pub(super) struct Names {
    lookups: JoinSet<io::Result<Vec<SocketAddr>>>,
}

impl Names {
    async fn look_up(&mut self, host: &HostPort) -> Result<Vec<SocketAddr>, Failure> {
        while self.lookups.try_join_next().is_some() {}
        if !self.lookups.is_empty() {
            return Err(Failure::Hanging);
        }
        let HostPort { host, port } = host.clone();
        self.lookups.spawn(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) });
        let looked_up = self.lookups.join_next().await.expect("it was begun just now");
        let addresses = looked_up.map_err(|error| Failure::Unwell(format!("looking the name up failed: {error}")))?;
        addresses.map_err(|error| Failure::Unwell(format!("the name cannot be looked up: {error}")))
    }

    /// A connection to the first address that takes one.
    ///
    /// # Errors
    /// [`Failure::Absent`] only when nobody listens at any of them.
    pub(super) async fn connect(&mut self, host: &HostPort) -> Result<TcpStream, Failure> {
        let mut refused = None;
        let mut failed = None;
        for address in self.look_up(host).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = Some(error),
                // `localhost` has an IPv6 address also where the machine has none: nobody can listen there.
                Err(error) if address.ip() == Ipv6Addr::LOCALHOST && is_missing(&error) => {}
                Err(error) => failed = Some(error),
            }
        }
        Err(match (failed, refused) {
            (Some(error), _) => Failure::Unwell(format!("cannot connect to {host}: {error}")),
            (None, Some(error)) => Failure::Absent(format!("cannot connect to {host}: {error}")),
            (None, None) => Failure::Unwell(format!("{host} has no address")),
        })
    }
}

/// Of an address: that the machine does not have it.
fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::NetworkUnreachable)
}

/// A connection to a unix socket.
///
/// # Errors
/// [`Failure::Absent`] only when there is no socket, or nobody behind it.
pub(super) async fn connect_unix(socket: &Path) -> Result<UnixStream, Failure> {
    UnixStream::connect(socket).await.map_err(|error| {
        let text = format!("cannot connect to {}: {error}", socket.display());
        if nobody_is_there(&error) { Failure::Absent(text) } else { Failure::Unwell(text) }
    })
}

/// Of a path: that there is nothing, or a socket that nobody listens on.
pub(super) fn nobody_is_there(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::ConnectionRefused)
}
