//! Where the listeners listen: TCP addresses and unix sockets.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::HttpError;
use super::connection::Peer;
use crate::config::HttpListen;

/// Everybody who reaches the socket's directory may ask, as everybody in the pod may ask on loopback: the
/// application's container often runs as another user. Restrict the directory to restrict the socket.
const SOCKET_MODE: u32 = 0o666;

/// A listener that is bound.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Binds one address of the local API; `None` when it may be missing and is.
    pub(super) async fn bind(listen: &HttpListen) -> Result<Option<Self>, HttpError> {
        match listen {
            HttpListen::Tcp(address) => Self::tcp(*address, "--http").await.map(Some),
            HttpListen::TcpIfAvailable(address) => match Self::tcp(*address, "--http").await {
                Ok(listener) => Ok(Some(listener)),
                Err(HttpError::Bind { source, .. }) if is_missing_address(&source) => {
                    tracing::info!(%address, "this machine does not have the address; the local API does without");
                    Ok(None)
                }
                Err(error) => Err(error),
            },
            HttpListen::Unix(path) => Self::unix(path).map(Some),
        }
    }

    /// Binds a TCP address; `flag` is where the user wrote it.
    pub(super) async fn tcp(address: SocketAddr, flag: &'static str) -> Result<Self, HttpError> {
        let listener = TcpListener::bind(address).await.map_err(|source| HttpError::Bind {
            flag,
            address: address.to_string(),
            way_out: way_out(&source),
            source,
        })?;
        Ok(Self::Tcp(listener))
    }

    fn unix(path: &Path) -> Result<Self, HttpError> {
        remove_stale(path)?;
        let failed = |source: io::Error| HttpError::Bind {
            flag: "--http",
            address: format!("unix:{}", path.display()),
            way_out: way_out(&source),
            source,
        };
        let listener = UnixListener::bind(path).map_err(failed)?;
        let file = SocketFile::created(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE)).map_err(failed)?;
        Ok(Self::Unix(listener, file))
    }

    /// The address, when it is a TCP one.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Stream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are single small writes; waiting to merge them only delays them.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "a connection's answers may be delayed");
                }
                Ok((Stream::Tcp(stream), Peer::Tcp(address)))
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(stream), Peer::Unix))
            }
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => write!(f, "an address that cannot be read ({error})"),
            },
            Self::Unix(_, file) => write!(f, "unix:{}", file.path.display()),
        }
    }
}

/// The socket file of this process, removed when it is dropped, unless another process has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn created(path: &Path) -> io::Result<Self> {
        let file = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: file.dev(), inode: file.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let own =
            fs::symlink_metadata(&self.path).is_ok_and(|file| file.dev() == self.device && file.ino() == self.inode);
        if own {
            // A file that stays behind is found to be stale at the next start.
            if let Err(error) = fs::remove_file(&self.path) {
                tracing::debug!(path = %self.path.display(), %error, "a socket file stays behind");
            }
        }
    }
}

/// Makes room for a socket: removes one that nobody listens on, refuses to touch anything else.
fn remove_stale(path: &Path) -> Result<(), HttpError> {
    let failed = |source: io::Error| HttpError::Bind {
        flag: "--http",
        address: format!("unix:{}", path.display()),
        way_out: way_out(&source),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(file) if !file.file_type().is_socket() => return Err(HttpError::NotASocket(path.to_owned())),
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(HttpError::SocketInUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing a socket file that nobody listens on");
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

fn is_missing_address(error: &io::Error) -> bool {
    // EAFNOSUPPORT has no kind of its own: the kernel has no IPv6 at all.
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

/// What an operator can do about a failure to bind.
const WAYS_OUT: [(io::ErrorKind, &str); 4] = [
    (
        io::ErrorKind::AddrInUse,
        "another process listens there (with host networking it may be a neighbour's sidecar): stop it or choose another \
         address",
    ),
    (io::ErrorKind::AddrNotAvailable, "this machine does not have that address: choose one that it has"),
    (
        io::ErrorKind::PermissionDenied,
        "this user may not: choose a port above 1023, or a directory this user may write to",
    ),
    (io::ErrorKind::NotFound, "create the directory, or choose another path"),
];

fn way_out(error: &io::Error) -> &'static str {
    let known = WAYS_OUT.iter().find(|(kind, _)| *kind == error.kind());
    known.map_or("choose another address", |(_, way_out)| way_out)
}

/// A connection that was accepted, whatever it came through.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
