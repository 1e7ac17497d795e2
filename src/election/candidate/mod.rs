//! The candidate: this process in an election.
//!
//! Every input ends in one *turn*: first what the clock decides, then whatever the new state lacks is
//! started. The turn is level-triggered: it looks at what is, not at what has just happened, so a lost
//! event costs time and never the outcome.

mod answers;
mod application;
mod campaign;
mod inheritance;
mod observation;
mod picture;
mod publication;
mod renewal;
mod standing_down;
mod work;

use std::collections::VecDeque;
use std::time::Duration;

use super::asks::{Asks, Sender, Sent};
use super::backoff::Backoff;
use super::effect::{Call, Effect, Operation};
use super::endpoints::Endpoints;
use super::event::{CallError, CallErrorKind, Event};
use super::ids::{EndpointId, Identity, OpId, Revision, StreamId, WatchId};
use super::instant::{Instant, Reading};
use super::lease::LeaseState;
use super::notice::{Notice, Reason};
use super::random::Random;
use super::settings::{Memory, Settings};
use super::sight::{Ahead, Registration, Sight, Watch};
use super::state::State;
use super::view::{CandidateView, View};
use application::App;
use inheritance::Inherited;
use publication::Published;
use work::Work;

/// The state machine. Feed it with [`handle_event`](Self::handle_event) and
/// [`handle_timeout`](Self::handle_timeout); after each, publish [`view`](Self::view), then drain
/// [`poll_effect`](Self::poll_effect), then wait no longer than [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Candidate {
    settings: Settings,
    random: Random,
    next_id: u64,
    effects: VecDeque<Effect>,

    state: State,
    bar: Option<Bar>,
    lease: LeaseState,
    registration: Registration,
    sight: Sight,
    ahead: Ahead,
    /// The revision as of which `ahead` is known.
    ahead_at: Revision,

    endpoints: Endpoints,
    asks: Asks,
    probes: Vec<Sent>,
    probe_at: Instant,
    /// Endpoints that have not been heard of, for good or ill, since the start.
    unprobed: usize,
    no_space: bool,

    lock_watch: Option<Watch>,
    ahead_watch: Option<(Watch, Identity)>,
    /// Whether the lock was read after the last trouble with a watch.
    fresh: bool,
    observe_at: Instant,
    watch_backoff: Backoff,

    /// The highest revision received, in any header.
    revision_seen: Revision,
    newest_lock: SeenLock,
    answered_at: Option<Instant>,
    failing_since: Option<Instant>,
    unreachable: bool,

    /// Resigned or removed: not to claim before this instant, unless the lock has been free for a while.
    stay_away_until: Option<Instant>,
    /// Until when the answers given out while it led may be relied on, at most; `None` once that is over.
    answers_hold_until: Option<Instant>,
    /// How long this candidate lets the heir go first while the lock is free.
    claim_delay: Option<Duration>,
    /// Since when the lock key has been seen to carry this lease while this candidate does not lead.
    unled_since: Option<Instant>,

    candidates: Vec<CandidateView>,
    candidates_total: u64,
    jeopardy_episodes: u64,
    view: View,
    published: Published,
    app: App,
    /// When it last could not lead for reasons of its own.
    gated_at: Option<Instant>,
    work: Work,
    inherited: Inherited,
    /// Until when the answers of the process before this one may be relied on, if it goes on with its term.
    inherited_answers_until: Option<Instant>,
    /// By when it must have come to lead by the inherited lease, which its keep-alives hold meanwhile.
    resume_by: Option<Instant>,
    /// What was remembered last, by the process before this one if not by this, until it was forgotten.
    remembered: Option<Memory>,
}

/// The lock key seen last, whoever made it.
#[derive(Clone, Copy, Debug)]
struct SeenLock {
    /// The revision of which this is known.
    at: Revision,
    token: Revision,
}

/// Why this candidate may not lead until it is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bar {
    StoreReset,
    SeveralClusters,
}

impl Candidate {
    /// A candidate that knows nothing yet. The first effects are there at once.
    #[must_use]
    pub fn new(settings: Settings, now: Reading) -> Self {
        let mut random = Random::from_seed(settings.seed);
        let endpoints = Endpoints::new(settings.endpoints, &mut random);
        let view = picture::blank(&settings, &endpoints, now);
        let (app, work) = (App::of(settings.application), Work::of(settings.works));
        let inherited = Inherited::of(settings.inheritance.clone());
        let remembered = inherited.memory().cloned();
        let mut candidate = Self {
            unprobed: settings.endpoints,
            settings,
            random,
            next_id: 0,
            effects: VecDeque::new(),
            state: State::Starting,
            bar: None,
            lease: LeaseState::None,
            registration: Registration::None,
            sight: Sight::nothing(),
            ahead: Ahead::Unknown,
            ahead_at: Revision(0),
            endpoints,
            asks: Asks::default(),
            probes: Vec::new(),
            probe_at: now.boot,
            no_space: false,
            lock_watch: None,
            ahead_watch: None,
            fresh: true,
            observe_at: now.boot,
            watch_backoff: Backoff::default(),
            revision_seen: Revision(0),
            newest_lock: SeenLock { at: Revision(0), token: Revision(0) },
            answered_at: None,
            failing_since: None,
            unreachable: false,
            stay_away_until: None,
            answers_hold_until: None,
            claim_delay: None,
            unled_since: None,
            candidates: Vec::new(),
            candidates_total: 0,
            jeopardy_episodes: 0,
            view,
            published: Published::default(),
            app,
            gated_at: None,
            work,
            inherited,
            inherited_answers_until: None,
            resume_by: None,
            remembered,
        };
        candidate.handle_timeout(now);
        candidate
    }

    /// Takes in one thing that happened.
    pub fn handle_event(&mut self, now: Reading, event: Event) {
        if self.state == State::Stopped {
            return;
        }
        self.expire_right(now);
        if let Some(header) = event.header() {
            self.note_revision(header);
        }
        match event {
            Event::Answered { id, result } => self.on_answered(now, id, result),
            Event::KeepAliveAnswered { stream, header, ttl_seconds } => {
                self.on_keep_alive_answered(now, stream, header, ttl_seconds);
            }
            Event::StreamEnded { stream, error } => self.on_stream_ended(now, stream, error),
            Event::WatchCreated { watch, header } => self.on_watch_created(now, watch, header),
            Event::WatchChanged { watch, header, change } => self.on_watch_changed(now, watch, header, change),
            Event::WatchEnded { watch, error } => self.on_watch_ended(now, watch, error),
            Event::AnswersSettled { id } => self.on_answers_settled(id),
            Event::Published { id } => self.on_published(now, id),
            Event::Stop => self.on_stop(now, Reason::Stopped),
            Event::Resign { cooldown } => self.on_resign(now, cooldown, Reason::Resigned),
            Event::WorkFailed { id } => self.on_work_failed(now, id),
            Event::WorkFinished { id } => self.on_work_finished(now, id),
            Event::WorkStopped { id } => self.on_work_stopped(id),
            Event::AppHealth(health) => self.on_app_health(health),
            Event::AppGone => self.on_app_gone(),
            Event::CredentialsRenewed => self.on_credentials_renewed(now),
        }
        self.turn(now);
    }

    /// Lets the clock decide what is due.
    pub fn handle_timeout(&mut self, now: Reading) {
        if self.state != State::Stopped {
            self.turn(now);
        }
    }

    /// The instant at which [`handle_timeout`](Self::handle_timeout) is due next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.state == State::Stopped {
            return None;
        }
        [
            self.renewal_deadline(),
            self.asks.deadline(self.attempt_timeout()),
            self.probe_deadline(),
            self.observation_deadline(),
            self.campaign_deadline(),
            self.standing_down_deadline(),
            self.contact_deadline(),
            self.inheritance_deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next thing to do, in order; `None` once everything has been handed out.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// What the world may see.
    #[must_use]
    pub const fn view(&self) -> &View {
        &self.view
    }

    fn turn(&mut self, now: Reading) {
        self.expire_right(now);
        self.expire_asks(now);
        self.expire_probes(now);
        self.expire_attempts(now);
        self.expire_watches(now);
        self.advance_inheritance(now);
        self.advance_gate(now);
        self.advance_standing_down(now);
        self.note_unled(now);
        self.advance_lease(now);
        self.advance_registration(now);
        self.advance_observation(now);
        self.advance_campaign(now);
        self.advance_probes(now);
        self.send_due(now);
        self.advance_contact(now);
        self.advance_work(now);
        self.advance_memory();
        self.publish(now);
        self.redraw(now);
    }

    const fn attempt_timeout(&self) -> Duration {
        self.settings.timings.attempt_timeout()
    }

    const fn lease_ttl(&self) -> Duration {
        self.settings.timings.lease_ttl()
    }

    fn tell(&mut self, notice: Notice) {
        self.effects.push_back(Effect::Tell(notice));
    }

    const fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    const fn fresh_op(&mut self) -> OpId {
        OpId(self.fresh_id())
    }

    const fn fresh_stream(&mut self) -> StreamId {
        StreamId(self.fresh_id())
    }

    const fn fresh_watch(&mut self) -> WatchId {
        WatchId(self.fresh_id())
    }

    fn ask(&mut self, now: Reading, call: Call) {
        let (asks, mut sender) = self.sender(now);
        asks.ask(&mut sender, call);
    }

    fn send_due(&mut self, now: Reading) {
        let (asks, mut sender) = self.sender(now);
        asks.send_due(&mut sender);
    }

    fn sender(&mut self, now: Reading) -> (&mut Asks, Sender<'_>) {
        let sender = Sender {
            now,
            floor: self.revision_seen,
            attempt_timeout: self.settings.timings.attempt_timeout(),
            hedge_delay: self.settings.timings.hedge_delay(),
            endpoints: &self.endpoints,
            next_id: &mut self.next_id,
            effects: &mut self.effects,
        };
        (&mut self.asks, sender)
    }

    /// Makes a transition and tells of it.
    fn transition(&mut self, reason: Reason, change: impl FnOnce(&mut State)) {
        let (from, term) = (self.state.public(), self.state.term());
        change(&mut self.state);
        let (to, term) = (self.state.public(), self.state.term().or(term));
        self.tell(Notice::Transition { from, to, reason, term });
    }
}

/// The error the core reports for a request that has had its time.
fn timeout_error() -> CallError {
    CallError { kind: CallErrorKind::Timeout, message: "no answer within the attempt timeout".into() }
}

/// What a failure is told as.
fn failure(endpoint: EndpointId, operation: Operation, error: CallError) -> Notice {
    Notice::EtcdFailed { endpoint, operation, kind: error.kind, message: error.message }
}
