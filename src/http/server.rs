//! The accept loop: our own, because the limits need it.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};
use tower::Service;

use super::connection::{AnswerInProgress, Connection, Ordinaries};
use super::handover::Handover;
use super::herald::ring_the_news;
use super::listener::{Listener, Stream};
use super::refusal::Refusal;
use super::watched::{CountedBody, WatchedStream};
use super::{HttpError, Shared};
use crate::election::Instant;
use crate::metrics::Path;

/// The most bytes of a request's line and headers, and of what is buffered for a connection each way: the
/// least that hyper accepts. Requests to these paths have a few hundred.
pub const HEAD_BYTES_MOST: usize = 8192;
/// The most headers of a request; browsers and proxies send twenty.
const HEADERS_MOST: usize = 64;
/// How long to wait when the process has no file descriptor left for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often that is said, per listener: each pause would be twenty lines a second.
const ACCEPT_WARN_EVERY: Duration = Duration::from_mins(1);

/// What one listener allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. One more closes the one whose last request is longest ago, so that clients that
    /// hold connections cannot lock out one that asks.
    pub connections: usize,
    /// From the first byte of a request (or the acceptance of the connection) to its last header.
    pub head: Duration,
    /// From the first byte of a request until its answer has been handed over.
    pub request: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
    /// On an event stream, between the last event and a line that says nothing.
    pub heartbeat: Duration,
    /// How long a client may take to read an event that its socket has no room for.
    pub stall: Duration,
}

/// Listeners that are bound and not served yet: clients can connect, and wait.
#[derive(Debug)]
pub struct Bound {
    listeners: Vec<Listener>,
    routes: fn(Arc<Shared>) -> Router,
    promising: bool,
    limits: Limits,
}

impl Bound {
    /// A server whose answers may say that this candidate leads.
    pub(super) fn promising(listeners: Vec<Listener>, routes: fn(Arc<Shared>) -> Router, limits: Limits) -> Self {
        Self { listeners, routes, promising: true, limits }
    }

    /// A server whose answers nobody may act on, so that a release need not wait for them.
    pub(super) fn not_promising(listeners: Vec<Listener>, routes: fn(Arc<Shared>) -> Router, limits: Limits) -> Self {
        Self { listeners, routes, promising: false, limits }
    }

    /// The TCP addresses, with the port the kernel chose where 0 was asked for.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::local_addr).collect()
    }

    /// Every address, as the user writes it.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.listeners.iter().map(ToString::to_string).collect()
    }

    /// Other limits than the usual.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Serves until it is dropped, and every connection with it. Completes only when a listener is no more.
    pub fn serve(self, shared: Arc<Shared>) -> impl Future<Output = HttpError> + Send + 'static {
        let Self { listeners, routes, promising, limits } = self;
        async move {
            let mut tasks = JoinSet::new();
            let mut names = Vec::with_capacity(listeners.len() + 1);
            if promising {
                let herald = tasks.spawn(ring_the_news(Arc::clone(&shared)));
                names.push((herald.id(), "the task that watches for news".to_owned()));
            }
            for listener in listeners {
                let name = format!("the listener on {listener}");
                let router = routes(Arc::clone(&shared));
                let server = Server { router, shared: Arc::clone(&shared), promising, limits };
                let task = tasks.spawn(server.accept_all(listener));
                names.push((task.id(), name));
            }
            let (id, reason) = match tasks.join_next_with_id().await {
                Some(Ok((_, never))) => match never {},
                Some(Err(error)) => (Some(error.id()), error.to_string()),
                None => (None, "there was nothing to listen on".to_owned()),
            };
            let ended = names.into_iter().find(|(task, _)| Some(*task) == id);
            HttpError::Ended { what: ended.map_or_else(|| "a server".to_owned(), |(_, name)| name), reason }
        }
    }
}

/// One listener's server.
struct Server {
    router: Router,
    shared: Arc<Shared>,
    promising: bool,
    limits: Limits,
}

/// A connection's task, with what decides which one has to go.
struct Place {
    connection: Arc<Connection>,
    task: AbortHandle,
}

impl Server {
    async fn accept_all(self, listener: Listener) -> Infallible {
        let mut tasks = JoinSet::new();
        let mut places: Vec<Place> = Vec::with_capacity(self.limits.connections);
        let ordinaries = Ordinaries::default();
        let mut warned_at: Option<Instant> = None;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        close_longest_silent(&mut places, self.limits.connections);
                        let shared = Arc::clone(&self.shared);
                        let connection = Connection::new(peer, shared, self.limits, ordinaries.take());
                        let front = self.front(Arc::clone(&connection));
                        let task = tasks.spawn(serve_connection(stream, front, ordinaries.clone()));
                        places.push(Place { connection, task });
                        // Lets every connection that has a request answer it before the next one is taken:
                        // a flood of connections must not push out requests that are here already.
                        tokio::task::yield_now().await;
                    }
                    Err(error) if is_the_peers(&error) => {}
                    Err(error) => {
                        let now = (self.shared.clock())().boot;
                        if warned_at.is_none_or(|at| now.since(at) >= ACCEPT_WARN_EVERY) {
                            warned_at = Some(now);
                            tracing::warn!(%listener, %error, "cannot accept a connection; closing the one silent for longest");
                        }
                        close_longest_silent(&mut places, 0);
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = tasks.join_next() => places.retain(|place| !place.task.is_finished()),
            }
        }
    }

    fn front(&self, connection: Arc<Connection>) -> Arc<Front> {
        let (router, shared) = (self.router.clone(), Arc::clone(&self.shared));
        Arc::new(Front { router, shared, promising: self.promising, connection })
    }
}

/// Serves a connection to its end, in HTTP or out of it.
async fn serve_connection(stream: Stream, front: Arc<Front>, ordinaries: Ordinaries) {
    let connection = Arc::clone(&front.connection);
    let mut io = WatchedStream::new(stream, Arc::clone(&connection));
    loop {
        // In a box: while it is away, a connection does not need the room that HTTP takes.
        let Some(left) = Box::pin(serve_http(io, Arc::clone(&front))).await else { return };
        match left.handover {
            Handover::Events(events, place) => {
                connection.handed_over(place);
                let end = events.run(left.io).await;
                tracing::debug!(peer = %connection.peer(), %end, "an event stream ended");
                return;
            }
            Handover::Wait(wait, place) => {
                connection.handed_over(place);
                io = left.io;
                let Some(over) = wait.run(&mut io, left.read).await else { return };
                let has_room = connection.resume(over.waited, &ordinaries);
                io.read_first(over.into_bytes(has_room));
            }
        }
    }
}

/// A connection that has left HTTP.
struct Left {
    handover: Handover,
    io: WatchedStream,
    /// What was read of it after the request.
    read: Bytes,
}

/// Serves HTTP on a connection, until it ends or is handed over.
async fn serve_http(io: WatchedStream, front: Arc<Front>) -> Option<Left> {
    let connection = Arc::clone(&front.connection);
    let mut http = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MOST)
        .max_headers(HEADERS_MOST)
        // hyper counts the idle time between requests as reading; the watchdog tells them apart.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), service_fn(move |request| front.answer(request)));
    let served = poll_fn(|cx| match Pin::new(&mut http).poll(cx) {
        Poll::Ready(ended) => Poll::Ready(Err(ended)),
        Poll::Pending => connection.take_handover().map_or(Poll::Pending, |handover| Poll::Ready(Ok(handover))),
    });
    tokio::select! {
        served = served => match served {
            Ok(handover) => {
                let parts = http.into_parts();
                Some(Left { handover, io: parts.io.into_inner(), read: parts.read_buf })
            }
            Err(Ok(())) => None,
            Err(Err(error)) => {
                tracing::debug!(peer = %connection.peer(), %error, "a connection failed");
                None
            }
        },
        () = connection.overdue() => {
            tracing::debug!(peer = %connection.peer(), "a connection took too long and was closed");
            None
        }
    }
}

/// Closes the ordinary connections whose last request is longest ago, until there are fewer than `limit`; one if
/// `limit` is 0.
fn close_longest_silent(places: &mut Vec<Place>, limit: usize) {
    loop {
        let silent = |(index, place): (usize, &Place)| place.connection.last_request().map(|at| (at, index));
        let mut ordinary: usize = 0;
        let longest = places.iter().enumerate().filter_map(silent).inspect(|_| ordinary += 1).min();
        let Some((_, index)) = longest.filter(|_| ordinary >= limit) else { return };
        places.swap_remove(index).task.abort();
        if limit == 0 {
            return;
        }
    }
}

/// Whether the failure is that of the connection that was to be accepted, and not of accepting.
fn is_the_peers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

/// What stands before the routes, for every request of a connection.
struct Front {
    router: Router,
    shared: Arc<Shared>,
    promising: bool,
    connection: Arc<Connection>,
}

impl Front {
    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<CountedBody>, Infallible>> + use<> {
        // First of all: whoever looks at the view must be counted.
        let answer = Arc::new(self.connection.begin(self.promising.then(|| self.shared.promises())));
        let path = Path::of(request.uri().path());
        let has_body = !request.body().is_end_stream();
        request.extensions_mut().insert(Arc::clone(&answer));
        request.extensions_mut().insert(self.connection.peer());
        if let Some(waited) = self.connection.take_waited() {
            request.extensions_mut().insert(waited);
        }
        let routed = (!has_body).then(|| self.router.clone().call(request));
        let shared = Arc::clone(&self.shared);
        async move {
            let response = match routed {
                Some(routed) => routed.await.unwrap_or_else(|never| match never {}),
                None => Refusal::body_not_wanted(),
            };
            Ok(finish(response, path, &shared, answer))
        }
    }
}

fn finish(
    mut response: Response<Body>,
    path: Path,
    shared: &Shared,
    answer: Arc<AnswerInProgress>,
) -> Response<CountedBody> {
    shared.metrics().count_request(path, response.status());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response.map(|body| CountedBody::new(body, answer))
}
