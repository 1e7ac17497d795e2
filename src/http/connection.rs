//! One connection: its limits in time, and the way of an answer from being computed to being handed over.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant as TimerInstant;

use super::listener::Stream;
use super::promises::{AnswerGuard, Promises};
use super::stopped_write::StoppableWrite;
use super::{Limits, Shared};
use crate::election::{Instant, Term};

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Tcp(SocketAddr),
    Unix,
}

impl Peer {
    /// Whether it is on this machine (for a pod: in this pod).
    pub(super) fn is_local(self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix => true,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// The state of one connection, shared by its socket, its service, its watchdog and the accept loop.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer,
    shared: Arc<Shared>,
    limits: Limits,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    phase: Phase,
    /// When the last request was read whole, or the connection was accepted. Bytes do not count: a client that
    /// sends one now and then must not look busy.
    last_request: TimerInstant,
    /// Requests whose answer has not been given to hyper whole.
    open: usize,
    /// The guards of answers that hyper has whole and the socket may not have yet.
    unsent: Vec<AnswerGuard>,
    /// The term that the oldest answer on its way that says "I lead" speaks of.
    leading_term: Option<Term>,
}

/// What the connection waits for; each phase has its limit.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The first request since the connection was accepted, or the rest of a request.
    Head { since: TimerInstant },
    /// The answer being computed and taken by the client.
    Answer { since: TimerInstant },
    /// The next request.
    Idle { since: TimerInstant },
}

impl Connection {
    pub(super) fn new(peer: Peer, shared: Arc<Shared>, limits: Limits) -> Arc<Self> {
        let now = timer_now();
        let phase = Phase::Head { since: now };
        let progress = Progress { phase, last_request: now, open: 0, unsent: Vec::new(), leading_term: None };
        Arc::new(Self { peer, shared, limits, progress: Mutex::new(progress) })
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    /// When this connection last had a whole request: the oldest is closed when all places are taken.
    pub(super) fn last_request(&self) -> TimerInstant {
        self.progress().last_request
    }

    /// A request has been read whole. To be called before anything else is looked at for its answer. Answers
    /// that promise nothing have no `promises`.
    pub(super) fn begin(self: &Arc<Self>, promises: Option<&Arc<Promises>>) -> AnswerInProgress {
        let now = timer_now();
        let mut progress = self.progress();
        progress.phase = match progress.phase {
            // The time of a request counts from its first byte, that of several in a row from the first's.
            Phase::Head { since } | Phase::Answer { since } => Phase::Answer { since },
            Phase::Idle { .. } => Phase::Answer { since: now },
        };
        progress.last_request = now;
        progress.open += 1;
        drop(progress);
        AnswerInProgress { connection: Arc::clone(self), guard: promises.map(Promises::guard) }
    }

    /// Completes when the phase the connection is in has lasted too long.
    pub(super) async fn overdue(&self) {
        loop {
            let deadline = self.deadline();
            if deadline <= timer_now() {
                return;
            }
            // The phase changes while this sleeps, but never to an earlier deadline than a look per shortest
            // limit finds in time.
            tokio::time::sleep_until(deadline.min(timer_now() + self.limits.shortest())).await;
        }
    }

    fn deadline(&self) -> TimerInstant {
        match self.progress().phase {
            Phase::Head { since } => since + self.limits.head,
            Phase::Answer { since } => since + self.limits.request,
            Phase::Idle { since } => since + self.limits.idle,
        }
    }

    fn bytes_arrived(&self) {
        let mut progress = self.progress();
        if let Phase::Idle { .. } = progress.phase {
            progress.phase = Phase::Head { since: timer_now() };
        }
    }

    /// Whether an answer that says "I lead" waits to be written and must not leave any more. The process may have
    /// been stopped between the check and this write; or the client was slow to read, and what the answer says is
    /// over: the drain timeout does not wait for such a client, and the lock may be another's by now.
    fn is_too_late_to_write(&self) -> bool {
        let Some(term) = self.progress().leading_term else { return false };
        let view = self.shared.view();
        let leads_it = view.lead.is_some_and(|lead| lead.term == term) && view.leads((self.shared.clock())());
        !leads_it
    }

    /// The socket has taken everything hyper had.
    fn flushed(&self) {
        let mut progress = self.progress();
        let sent = std::mem::take(&mut progress.unsent);
        if progress.open == 0 {
            progress.leading_term = None;
            if let Phase::Answer { .. } = progress.phase {
                progress.phase = Phase::Idle { since: timer_now() };
            }
        }
        drop(progress);
        drop(sent);
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // Nothing in a critical section can fail half-way, so a poisoned state is as good as any.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer from the reading of its request until hyper has it whole.
#[derive(Debug)]
pub(super) struct AnswerInProgress {
    connection: Arc<Connection>,
    guard: Option<AnswerGuard>,
}

impl AnswerInProgress {
    /// The answer says that this candidate leads `term`: it may be relied on until `promised`, and must not leave
    /// once the term is led no more. To be called before the answer is handed to anybody.
    pub(super) fn says_leading(&self, promised: Instant, term: Term) {
        if let Some(guard) = &self.guard {
            guard.promise(promised);
        }
        // Of several answers on their way the first speaks of the oldest term.
        self.connection.progress().leading_term.get_or_insert(term);
    }
}

impl Drop for AnswerInProgress {
    fn drop(&mut self) {
        let mut progress = self.connection.progress();
        progress.open -= 1;
        progress.unsent.extend(self.guard.take());
    }
}

/// A body that ends its [`AnswerInProgress`] when hyper has taken all of it.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    _answer: Arc<AnswerInProgress>,
}

impl CountedBody {
    pub(super) fn new(body: Body, answer: Arc<AnswerInProgress>) -> Self {
        Self { body, _answer: answer }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket, seen from hyper: tells the connection what comes and what has gone.
#[derive(Debug)]
pub(super) struct WatchedStream {
    stream: Stream,
    connection: Arc<Connection>,
}

impl WatchedStream {
    pub(super) fn new(stream: Stream, connection: Arc<Connection>) -> Self {
        Self { stream, connection }
    }

    fn check_before_write(&self) -> io::Result<()> {
        if self.connection.is_too_late_to_write() {
            // A connection that closes without an answer says "not leader", as a refused one does.
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the answer expired before it was written"));
        }
        Ok(())
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.connection.bytes_arrived();
        }
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let _stoppable = StoppableWrite::to(self.stream.as_raw_fd());
        self.check_before_write()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let _stoppable = StoppableWrite::to(self.stream.as_raw_fd());
        self.check_before_write()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes its socket only once its own buffer is empty.
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if let Poll::Ready(Ok(())) = polled {
            self.connection.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for WatchedStream {
    fn drop(&mut self) {
        // What has not been written will not be.
        self.connection.flushed();
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the limits of a connection are about clients while this process runs; nothing that expires in etcd \
              hangs on them"
)]
fn timer_now() -> TimerInstant {
    TimerInstant::now()
}

impl Limits {
    fn shortest(&self) -> Duration {
        self.head.min(self.request).min(self.idle)
    }
}
