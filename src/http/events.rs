//! Event streams (Server-Sent Events): the newest view first, then each change.
//!
//! **Newest only.** There is no queue. An event is composed when the socket takes bytes, not when the view changes: to
//! a client that does not read, the views it missed are never told, only the one that is newest when it reads again.
//!
//! **No release waits for a stream.** An event that says "I lead" is an answer like a 200, and the same two things
//! have to hold before the lock is let go of: what was computed from a view that leads has left, and its promise has
//! run out. Here the order guard → view → clock → promise, that of [`Promises`](super::Promises), is gone through
//! within one call of [`Events::poll_write`], write included: the socket takes bytes in that call or it does not, and
//! the guard is given back before the call returns. So a guard is never held while a client makes up its mind, and
//! `settled()` never waits for one longer than a system call takes. What the call leaves behind is one of three:
//! * the socket has the whole event. Its promise is booked, for as long as a 200 of that moment would hold;
//! * the socket has taken nothing. Nothing was promised; the event is thrown away and composed anew the next time;
//! * the socket has part of it. That is booked as well. The rest is written by later calls, each of which takes a guard
//!   of its own and looks first whether the term is still led. If it is not the connection is closed: half an event is
//!   none, by the rules of the format.
//!
//! Hence what says "I lead" leaves only while that is so, and a release that has waited for the guards of before and
//! for the promises has waited for the streams.
//!
//! **An event holds for no time.** `valid_for_ms` of a 200 counts from the sending of the request. An event has none:
//! it may lie unread in a client's socket for an hour, and the client cannot know. So it carries 0 and the docs say:
//! events are news; who wants to act asks `/leader` or `/check`. The promise is booked all the same, as that of `/`
//! is, for those who act on it at once.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;
use jiff::Timestamp;
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::Shared;
use super::answer::{LeaderBody, Leading, Moment};
use super::connection::AnswerInProgress;
use super::handover::Handover;
use super::local_api::Answer;
use super::query::is_meant;
use super::refusal::Refusal;
use super::version::Version;
use super::watched::WatchedStream;
use crate::election::Term;
use crate::metrics::{Path, Push};
use crate::protections::Protections;

/// What is asked of the kernel to hold for a client that does not read; it doubles it. Some ten events: more would only
/// be older news, and a client that has stopped reading would be noticed later.
const SEND_BUFFER: usize = 8192;
/// A line that clients skip. It shows a reader that the sidecar is there, and the sidecar that the reader is not.
const HEARTBEAT: &[u8] = b":\n\n";
/// By when a refused client may try again, in seconds: streams end when their clients do, not at once.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("text/event-stream");

/// What a stream tells of a moment.
#[derive(Debug)]
pub(super) struct Told {
    /// The type of the event; a client without one for it does not hear it. `None`: `message`.
    event: Option<&'static str>,
    /// One line.
    data: Vec<u8>,
    /// What it commits to; `None` when it does not say that this candidate leads.
    leading: Option<Leading>,
}

impl Told {
    /// `body` as JSON. Which commits to `leading`.
    pub(super) fn json<T: Serialize>(event: Option<&'static str>, body: &T, leading: Option<Leading>) -> Self {
        let data = serde_json::to_vec(body).expect("our bodies have string keys, and a Vec takes every write");
        Self { event, data, leading }
    }
}

/// Says what an event tells of a moment.
pub(super) type Tell = Box<dyn Fn(&Moment<'_>) -> Told + Send + Sync>;

/// `/events`
pub(super) async fn events(
    State(shared): State<Arc<Shared>>,
    Extension(answer): Answer,
    request: Request<Body>,
) -> Response<Body> {
    let (request, _no_body) = request.into_parts();
    let to_me = is_meant(&request.uri, shared.about().identity.as_str());
    let tell = move |moment: &Moment<'_>| {
        let leading = moment.leading().filter(|_| to_me);
        Told::json(Some("leader"), &LeaderBody::of(moment, to_me).into_news(), leading)
    };
    stream(&shared, &answer, &request, Path::Events, HEARTBEAT, Box::new(tell)).await
}

/// Answers `request` with a stream of what `tell` says of the newest view, at first and whenever the version is
/// another. Completes only with the answer to HEAD or a refusal; else the stream takes the connection.
pub(super) async fn stream(
    shared: &Arc<Shared>,
    answer: &Arc<AnswerInProgress>,
    request: &Parts,
    path: Path,
    heartbeat: &'static [u8],
    tell: Tell,
) -> Response<Body> {
    if request.method == Method::HEAD {
        return ([(header::CONTENT_TYPE, MEDIA_TYPE)], Body::empty()).into_response();
    }
    let Some(place) = shared.places().take(Push::Events) else {
        let refusal =
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "as many streams are open as may be; try again later");
        return refusal.with_header(header::RETRY_AFTER, RETRY_AFTER).into_response();
    };
    let present = shared.version();
    let seen = request.headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let told = seen.filter(|seen| present.is_shown_by(seen)).map(|_| present);
    shared.metrics().count_request(path, StatusCode::OK);
    let events =
        Events { shared: Arc::clone(shared), tell, told, heartbeat, heartbeat_due: true, begun: false, outgoing: None };
    match answer.hand_over(Handover::Events(Box::new(events), place)).await {}
}

/// A stream: what it has told, and what of that the socket has not taken yet.
pub(super) struct Events {
    shared: Arc<Shared>,
    tell: Tell,
    /// The version told last.
    told: Option<Version>,
    heartbeat: &'static [u8],
    /// Whether something is to be said even if nothing is new. So it is at first: the client shall have the head.
    heartbeat_due: bool,
    /// Whether the head has begun to leave.
    begun: bool,
    outgoing: Option<Outgoing>,
}

/// An event on its way into the socket.
#[derive(Debug)]
struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    version: Version,
    /// The term it says that this candidate leads.
    term: Option<Term>,
}

/// Why a stream has ended.
#[derive(Debug, Error)]
pub(super) enum StreamEnd {
    /// The client has closed it.
    #[error("its client has gone")]
    Gone,
    /// The client has not read for too long.
    #[error("its client does not read")]
    Stalled,
    /// The socket failed, or the term ended of which an event had left in part.
    #[error("{0}")]
    Failed(#[from] io::Error),
}

/// What a stream has come to.
enum Progress {
    /// The socket has one event more.
    Wrote,
    /// There is nothing to say.
    Silent,
}

impl Events {
    /// Tells until the client is gone or has stopped reading.
    pub(super) async fn run(mut self, mut io: WatchedStream) -> StreamEnd {
        let limits = io.connection().limits();
        if let Err(error) = setsockopt(io.socket(), sockopt::SndBuf, &SEND_BUFFER) {
            tracing::debug!(%error, "a stream's client is noticed later when it does not read");
        }
        let mut bell = self.shared.bell();
        loop {
            // Before the look: what changes after it rings.
            bell.borrow_and_update();
            let telling = poll_fn(|cx| match poll_gone(&mut io, cx) {
                Poll::Ready(end) => Poll::Ready(Err(end)),
                Poll::Pending => self.poll_write(cx, &mut io).map_err(StreamEnd::Failed),
            });
            match timeout(limits.stall, telling).await {
                Ok(Ok(Progress::Wrote)) => continue,
                Ok(Ok(Progress::Silent)) => {}
                Ok(Err(end)) => return end,
                Err(_elapsed) => return StreamEnd::Stalled,
            }
            tokio::select! {
                news = timeout(limits.heartbeat, bell.changed()) => self.heartbeat_due |= news.is_err(),
                end = poll_fn(|cx| poll_gone(&mut io, cx)) => return end,
            }
        }
    }

    /// Writes one event, the newest there is, or the rest of one that the socket has in part. The module says why the
    /// guard is taken and given back here.
    fn poll_write(&mut self, cx: &mut Context<'_>, io: &mut WatchedStream) -> Poll<io::Result<Progress>> {
        let shared = Arc::clone(&self.shared);
        let guard = shared.promises().guard();
        loop {
            let view = shared.view();
            let moment = shared.moment(&view);
            let Some(outgoing) = self.outgoing.take().or_else(|| self.compose(&moment)) else {
                return Poll::Ready(Ok(Progress::Silent));
            };
            let Outgoing { bytes, sent, version, term } = outgoing;
            io.connection().writes_leading(term.filter(|_| !Protections::STALE_EVENTS.taken_away()));
            let left = match Pin::new(&mut *io).poll_write(cx, &bytes[sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(left)) => left,
                // The term has ended since the look, and nothing has left: there is newer news.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut && sent == 0 && term.is_some() => {
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    if sent > 0 || Protections::STALE_EVENTS.taken_away() {
                        self.outgoing = Some(Outgoing { bytes, sent, version, term });
                    }
                    return Poll::Pending;
                }
            };
            if let Some(leading) = moment.leading().filter(|leading| Some(leading.term) == term) {
                guard.promise(leading.promised);
            }
            self.begun = true;
            if sent + left == bytes.len() {
                io.connection().writes_leading(None);
                (self.told, self.heartbeat_due) = (Some(version), false);
                return Poll::Ready(Ok(Progress::Wrote));
            }
            self.outgoing = Some(Outgoing { bytes, sent: sent + left, version, term });
        }
    }

    /// What is to be said at this moment.
    fn compose(&self, moment: &Moment<'_>) -> Option<Outgoing> {
        let version = moment.version();
        let is_news = self.told != Some(version);
        if !is_news && !self.heartbeat_due {
            return None;
        }
        let mut bytes = if self.begun { Vec::new() } else { head(moment) };
        if !is_news {
            bytes.extend_from_slice(self.heartbeat);
            return Some(Outgoing { bytes, sent: 0, version, term: None });
        }
        let told = (self.tell)(moment);
        if let Some(event) = told.event {
            bytes.extend_from_slice(format!("event: {event}\n").as_bytes());
        }
        bytes.extend_from_slice(format!("id: {version}\ndata: ").as_bytes());
        bytes.extend_from_slice(&told.data);
        bytes.extend_from_slice(b"\n\n");
        Some(Outgoing { bytes, sent: 0, version, term: told.leading.map(|leading| leading.term) })
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("told", &self.told).field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

/// Status line and headers. The body has no length: it ends with the connection.
fn head(moment: &Moment<'_>) -> Vec<u8> {
    let date = Timestamp::from_nanosecond(moment.wall().unix_nanos().into()).unwrap_or(Timestamp::UNIX_EPOCH);
    let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT");
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\nconnection: close\r\n\
         date: {date}\r\n\r\n"
    )
    .into_bytes()
}

/// Reads what a client says, which is nothing, until it closes.
fn poll_gone(io: &mut WatchedStream, cx: &mut Context<'_>) -> Poll<StreamEnd> {
    let mut bytes = [0; 64];
    loop {
        let mut read = ReadBuf::new(&mut bytes);
        match Pin::new(&mut *io).poll_read(cx, &mut read) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(())) if read.filled().is_empty() => return Poll::Ready(StreamEnd::Gone),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(StreamEnd::Failed(error)),
        }
    }
}

#[cfg(test)]
mod tests;
