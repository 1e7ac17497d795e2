//! One connection: its limits in time, and the way of an answer from being computed to being handed over.

use std::convert::Infallible;
use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant as TimerInstant;

use super::handover::{Handover, Place, Waited};
use super::promises::{AnswerGuard, Promises};
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
    /// Whom the connection is to be handed over to.
    handover: Option<Handover>,
    /// Whether the socket has every answer from before the handover.
    handover_ready: bool,
    budget: Budget,
    /// What the next request is told that has been read before.
    waited: Option<Waited>,
}

/// Out of which budget a connection is.
#[derive(Debug)]
enum Budget {
    /// Of the listener's.
    Ordinary { _place: OrdinaryPlace },
    /// Of the process's for event streams and waiting polls.
    Push { _place: Place },
}

/// How many ordinary connections a listener has.
#[derive(Clone, Debug, Default)]
pub(super) struct Ordinaries(Arc<AtomicUsize>);

/// One of them, as long as this is not dropped.
#[derive(Debug)]
pub(super) struct OrdinaryPlace(Ordinaries);

impl Ordinaries {
    pub(super) fn take(&self) -> OrdinaryPlace {
        self.0.fetch_add(1, Ordering::Relaxed);
        OrdinaryPlace(self.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OrdinaryPlace {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
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
    pub(super) fn new(peer: Peer, shared: Arc<Shared>, limits: Limits, place: OrdinaryPlace) -> Arc<Self> {
        let now = timer_now();
        let progress = Progress {
            phase: Phase::Head { since: now },
            last_request: now,
            open: 0,
            unsent: Vec::new(),
            leading_term: None,
            handover: None,
            handover_ready: false,
            budget: Budget::Ordinary { _place: place },
            waited: None,
        };
        Arc::new(Self { peer, shared, limits, progress: Mutex::new(progress) })
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// When this connection last had a whole request: of the ordinary ones the oldest is closed when all their places
    /// are taken. `None` for one that is not ordinary.
    pub(super) fn last_request(&self) -> Option<TimerInstant> {
        let progress = self.progress();
        match progress.budget {
            Budget::Ordinary { .. } => Some(progress.last_request),
            Budget::Push { .. } => None,
        }
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

    /// Whom to hand the connection over to, once nothing is left to write from before.
    pub(super) fn take_handover(&self) -> Option<Handover> {
        let mut progress = self.progress();
        if !std::mem::take(&mut progress.handover_ready) {
            return None;
        }
        progress.handover.take()
    }

    /// The connection has been taken out of HTTP.
    pub(super) fn handed_over(&self, place: Place) {
        self.flushed();
        self.progress().budget = Budget::Push { _place: place };
    }

    /// The connection goes back to HTTP, where the request it left with is read again. It comes back among the
    /// ordinary connections if there is room; says whether. If there is none it pushes nobody out: it keeps its
    /// place, and must close after its answer.
    pub(super) fn resume(&self, waited: Waited, ordinaries: &Ordinaries) -> bool {
        let mut progress = self.progress();
        progress.phase = Phase::Head { since: timer_now() };
        progress.waited = Some(waited);
        let has_room = ordinaries.count() < self.limits.connections;
        if has_room {
            progress.budget = Budget::Ordinary { _place: ordinaries.take() };
        }
        has_room
    }

    /// What the request that has just begun is told, if it has been read before.
    pub(super) fn take_waited(&self) -> Option<Waited> {
        self.progress().waited.take()
    }

    pub(super) fn bytes_arrived(&self) {
        let mut progress = self.progress();
        if let Phase::Idle { .. } = progress.phase {
            progress.phase = Phase::Head { since: timer_now() };
        }
    }

    /// Whether an answer that says "I lead" waits to be written and must not leave any more. The process may have
    /// been stopped between the check and this write; or the client was slow to read, and what the answer says is
    /// over: the drain timeout does not wait for such a client, and the lock may be another's by now.
    pub(super) fn is_too_late_to_write(&self) -> bool {
        let Some(term) = self.progress().leading_term else { return false };
        let view = self.shared.view();
        let leads_it = view.lead.is_some_and(|lead| lead.term == term) && view.leads((self.shared.clock())());
        !leads_it
    }

    /// What is about to be written says that this candidate leads `term`, or nothing of the kind.
    pub(super) fn writes_leading(&self, term: Option<Term>) {
        self.progress().leading_term = term;
    }

    /// The socket has taken everything hyper had.
    pub(super) fn flushed(&self) {
        let mut progress = self.progress();
        let sent = std::mem::take(&mut progress.unsent);
        progress.handover_ready = progress.handover.is_some();
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

    /// Who is asked for it takes the connection, as soon as the socket has every answer from before. Never completes:
    /// what awaits it goes with the rest of HTTP, and the guard with it.
    pub(super) async fn hand_over(&self, handover: Handover) -> Infallible {
        self.connection.progress().handover = Some(handover);
        pending().await
    }
}

impl Drop for AnswerInProgress {
    fn drop(&mut self) {
        let mut progress = self.connection.progress();
        progress.open -= 1;
        progress.unsent.extend(self.guard.take());
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
