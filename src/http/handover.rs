//! Connections that leave HTTP for a while: waiting polls, which come back, and event streams, which do not.
//!
//! Their places are bounded in number and are not those of the ordinary connections, so that a thousand of them never
//! push out a poll. While away a connection has no buffers of hyper's, no limit on the time of its request, and holds
//! no [`AnswerGuard`](super::AnswerGuard): a release does not wait for what may take minutes.
//!
//! A poll that has waited is not answered here. Its request is read again, as if it had arrived at this moment: it
//! takes guard, view and clock anew and has the limits of any other, because it *is* any other.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Request, Version as Http, header};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use prometheus::IntGauge;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use super::events::Events;
use super::version::Version;
use super::watched::WatchedStream;
use super::{HEAD_BYTES_MOST, Shared};
use crate::metrics::{Metrics, Push};

/// Event streams and waiting polls at a time. A pod has a handful of processes with a handful of workers each; a
/// thousand cost 2 MiB here.
pub const PLACES_MOST: usize = 1024;
/// Open files for all the rest: three listeners' ordinary connections, telemetry, etcd, the API server, and some to
/// spare.
const FILES_BESIDE: u64 = 512;
/// However few files the process may open, as many places as a pod needs.
const PLACES_LEAST: usize = 16;

/// What takes a connection.
#[derive(Debug)]
pub(super) enum Handover {
    Wait(Wait, Place),
    Events(Box<Events>, Place),
}

/// The places for event streams and waiting polls. One per process.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// One place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    open: IntGauge,
}

impl Places {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { free: Arc::new(Semaphore::new(places_affordable())), metrics }
    }

    /// A place, if there is one.
    pub(super) fn take(&self, push: Push) -> Option<Place> {
        match Arc::clone(&self.free).try_acquire_owned() {
            Ok(permit) => {
                let open = self.metrics.open_pushes(push);
                open.inc();
                Some(Place { _permit: permit, open })
            }
            Err(TryAcquireError::NoPermits | TryAcquireError::Closed) => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// As many as the process may open files for: were they to use these up, etcd could not be reached any more.
fn places_affordable() -> usize {
    let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let places = usize::try_from(files.saturating_sub(FILES_BESIDE)).unwrap_or(PLACES_MOST);
    places.clamp(PLACES_LEAST, PLACES_MOST)
}

/// Lets the process open as many files as all places need, where it may: 1,024 are usual for programs that are not
/// asked. To be called before [`Shared::new`], which counts. More than needed is not taken: children inherit it.
///
/// # Errors
/// What the system says when it refuses. There are fewer places then.
pub fn allow_for_open_streams() -> io::Result<()> {
    let wanted = FILES_BESIDE + u64::try_from(PLACES_MOST).unwrap_or(u64::MAX);
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted.min(hard) {
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)?;
    }
    Ok(())
}

/// What a request is told that has waited and is read again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    /// Whether it meant this sidecar.
    pub(super) to_me: bool,
}

/// A poll that waits for the version to be another.
#[derive(Debug)]
pub(super) struct Wait {
    shared: Arc<Shared>,
    seen: Version,
    patience: Duration,
    method: Method,
    /// Whether the client uses its connection for another request.
    keeps_alive: bool,
    waited: Waited,
}

/// A poll whose wait is over.
#[derive(Debug)]
pub(super) struct WaitOver {
    pub(super) waited: Waited,
    method: Method,
    keeps_alive: bool,
    /// What the client has sent since.
    later: Vec<u8>,
}

impl Wait {
    /// What `request`, which is one of `/leader`, has to wait for.
    pub(super) fn new(
        shared: &Arc<Shared>,
        request: &Request<Body>,
        waited: Waited,
        seen: Version,
        patience: Duration,
    ) -> Self {
        let keeps_alive = request.version() == Http::HTTP_11 && !says_close(request.headers());
        Self { shared: Arc::clone(shared), seen, patience, method: request.method().clone(), keeps_alive, waited }
    }

    /// Waits until the version is another or the time is over; `None` when the client has gone. `read` are the bytes
    /// after the request that have been read already.
    pub(super) async fn run(self, io: &mut WatchedStream, read: Bytes) -> Option<WaitOver> {
        let Self { shared, seen, patience, method, keeps_alive, waited } = self;
        let mut later = read.to_vec();
        let mut bell = shared.bell();
        let mut over = std::pin::pin!(tokio::time::sleep(patience));
        // Asked anew after the bell was taken in hand: what changed before does not ring any more.
        while shared.version() == seen {
            tokio::select! {
                _ = bell.changed() => {}
                () = &mut over => break,
                reading = poll_fn(|cx| poll_read_on(io, cx, &mut later)) => match reading {
                    Reading::Gone => return None,
                    // It is answered at once: somebody who sends that much does not wait.
                    Reading::Full => break,
                },
            }
        }
        Some(WaitOver { waited, method, keeps_alive, later })
    }
}

impl WaitOver {
    /// The request, to be read again before what the client has sent since. It closes the connection after its answer
    /// if the client said so, or if the connection has no place to come back to.
    pub(super) fn into_bytes(self, has_room: bool) -> Bytes {
        let connection = if self.keeps_alive && has_room { "" } else { "connection: close\r\n" };
        let mut bytes = format!("{} /leader HTTP/1.1\r\n{connection}\r\n", self.method).into_bytes();
        bytes.extend_from_slice(&self.later);
        bytes.into()
    }
}

/// What comes of reading on while a poll waits, other than going on.
enum Reading {
    Gone,
    Full,
}

/// Reads what a client sends before it has its answer: otherwise it could not be seen to have gone.
fn poll_read_on(io: &mut WatchedStream, cx: &mut Context<'_>, later: &mut Vec<u8>) -> Poll<Reading> {
    let mut bytes = [0; 512];
    loop {
        let mut read = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *io).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if !read.filled().is_empty() => later.extend_from_slice(read.filled()),
            Poll::Ready(Ok(()) | Err(_)) => return Poll::Ready(Reading::Gone),
        }
        if later.len() > HEAD_BYTES_MOST {
            return Poll::Ready(Reading::Full);
        }
    }
}

fn says_close(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        value.to_str().is_ok_and(|value| value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close")))
    })
}
