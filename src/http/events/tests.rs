//! Events that a socket takes in part.

use std::io::Read as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::task::noop_waker;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::*;
use crate::clock;
use crate::election::{
    Epoch, EtcdContact, Identity, Lead, Part, PublicState, Revision, Timings, TimingsRequest, Until, View,
};
use crate::http::connection::{Connection, Ordinaries, Peer};
use crate::http::listener::Stream;
use crate::http::{About, LocalApi};
use crate::metrics::Metrics;

/// A stream whose socket has part of an event that says "I lead", and no room for the rest.
struct Half {
    events: Events,
    io: WatchedStream,
    client: StdUnixStream,
    view: watch::Sender<Arc<View>>,
}

fn drawn(leads: bool) -> Arc<View> {
    let now = clock::now();
    let term = Term { epoch: Epoch(0), token: Revision(7) };
    let until = Until::of_renewal(now, Duration::from_mins(1), Duration::from_secs(3));
    Arc::new(View {
        version: 0,
        news: u64::from(!leads),
        state: if leads { PublicState::Leading } else { PublicState::Standby },
        lead: leads.then_some(Lead { term, until }),
        leader: None,
        epoch: Epoch(0),
        since: now.wall,
        etcd: EtcdContact::Connected,
        not_leading: None,
        candidates: Vec::new(),
        candidates_total: 0,
        recent_terms: Vec::new(),
        endpoints: Vec::new(),
        jeopardy_episodes: 0,
    })
}

impl Half {
    async fn new() -> Self {
        let validity = TimingsRequest { answer_validity: Some(Duration::ZERO), ..TimingsRequest::default() };
        let about = About {
            identity: Identity::new("web-1"),
            election: "default/web".into(),
            part: Part::Candidate,
            timings: Timings::new(validity).expect("the defaults go together"),
            endpoints: Vec::new(),
            allow_remote_resign: false,
            compat: None,
        };
        let (view, views) = watch::channel(drawn(true));
        let (commands, _) = mpsc::channel(1);
        let metrics = Arc::new(Metrics::new("web", &about.timings, false).expect("each has a name of its own"));
        let shared = Shared::new(about, clock::now, views, commands, metrics);
        let (client, socket) = StdUnixStream::pair().expect("a pair of sockets");
        for each in [&client, &socket] {
            each.set_nonblocking(true).expect("a socket can be made not to block");
        }
        let socket = UnixStream::from_std(socket).expect("a runtime");
        socket.writable().await.expect("an empty socket has room");
        let stream = Stream::Unix(socket);
        let place = Ordinaries::default().take();
        let connection = Connection::new(Peer::Unix, Arc::clone(&shared), LocalApi::LIMITS, place);
        let events = Events {
            shared,
            // More than any socket takes at a time.
            tell: Box::new(|moment| Told::json(None, &"x".repeat(1 << 20), moment.leading())),
            told: None,
            heartbeat: HEARTBEAT,
            heartbeat_due: true,
            begun: false,
            outgoing: None,
        };
        let mut half = Self { events, io: WatchedStream::new(stream, connection), client, view };
        assert!(half.write().is_pending());
        assert!(half.events.outgoing.as_ref().is_some_and(|outgoing| outgoing.sent > 0), "part of it has left");
        half
    }

    fn write(&mut self) -> Poll<io::Result<Progress>> {
        self.events.poll_write(&mut Context::from_waker(&noop_waker()), &mut self.io)
    }

    /// The client reads what has left.
    async fn read(&mut self) {
        let mut bytes = Vec::new();
        let ended = self.client.read_to_end(&mut bytes).expect_err("the stream goes on");
        assert_eq!(ended.kind(), io::ErrorKind::WouldBlock);
        // So that the runtime hears of the room there is now.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_rest_of_half_an_event_is_written_while_its_term_is_led() {
    let mut half = Half::new().await;
    for _ in 0..1000 {
        half.read().await;
        match half.write() {
            Poll::Pending => {}
            Poll::Ready(Ok(Progress::Wrote)) => return,
            Poll::Ready(_) => break,
        }
    }
    panic!("it was never written");
}

#[tokio::test]
async fn half_an_event_holds_up_no_release() {
    let half = Half::new().await;
    half.view.send_replace(drawn(false));
    assert!(half.events.shared.promises().settled().now_or_never().is_some());
}

#[tokio::test]
async fn the_rest_of_half_an_event_does_not_leave_once_its_term_is_over() {
    let mut half = Half::new().await;
    half.view.send_replace(drawn(false));
    half.read().await;
    assert!(matches!(half.write(), Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut));
}

/// The control of the test above.
#[cfg(feature = "sabotage")]
#[tokio::test]
async fn control_without_the_look_the_rest_would_leave() {
    let mut half = Half::new().await;
    half.view.send_replace(drawn(false));
    half.read().await;
    Protections::take_away(Some(Protections::STALE_EVENTS));
    let written = half.write();
    Protections::take_away(None);
    assert!(!matches!(written, Poll::Ready(Err(_))), "it goes on");
}
