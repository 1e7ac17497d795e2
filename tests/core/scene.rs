//! One candidate on a stage: a clock moved by hand, an etcd that answers when told to, and the effects
//! waiting in between.

use std::time::Duration;

use bellwether::election::{
    Call, CallErrorKind, Candidate, CandidateRecord, Effect, EndpointId, Epoch, Event, Identity, Inheritance, Instant,
    Lead, LeaseId, LockKey, Memory, Notice, OpId, Operation, PublicState, Publication, Reading, Reason, Request,
    Revision, Role, Settings, StreamId, Timings, TimingsRequest, View, WallTime, WatchId, WatchTarget,
};

use crate::etcd::{Etcd, error, nanos};

pub const ME: &str = "web-1";
pub const RIVAL: &str = "web-0";
pub const RIVAL_LEASE: LeaseId = LeaseId(4711);
/// The default timings.
pub const T: Duration = Duration::from_secs(15);
pub const K: Duration = Duration::from_secs(5);
pub const R: Duration = Duration::from_millis(2500);
pub const M: Duration = Duration::from_secs(3);
pub const HEDGE: Duration = Duration::from_millis(500);
/// The same for what lies between two leaders: releases and claims.
pub const HANDOVER_HEDGE: Duration = Duration::from_millis(100);
pub const NANO: Duration = Duration::from_nanos(1);
pub const MILLI: Duration = Duration::from_millis(1);

/// More answers than any story here needs: whoever asks for more is in a hot loop.
const ANSWERS_MOST: usize = 400;
/// More timeouts than an hour of any story here needs.
const TIMEOUTS_MOST: usize = 20_000;

/// Something sent and not answered yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Pending {
    Call(Request),
    KeepAlive { stream: StreamId, endpoint: EndpointId, lease: LeaseId },
}

impl Pending {
    pub fn operation(&self) -> Operation {
        match self {
            Self::Call(request) => request.call.operation(),
            Self::KeepAlive { .. } => Operation::KeepAlive,
        }
    }

    pub fn endpoint(&self) -> EndpointId {
        match self {
            Self::Call(request) => request.endpoint,
            Self::KeepAlive { endpoint, .. } => *endpoint,
        }
    }
}

/// A watch that is open.
#[derive(Clone, Debug)]
pub struct Watching {
    pub id: WatchId,
    pub endpoint: EndpointId,
    pub target: WatchTarget,
    pub from: Revision,
    created: bool,
}

pub struct Scene {
    pub etcd: Etcd,
    /// The second cluster of a list that names two: it answers for this endpoint.
    pub other_cluster: Option<(EndpointId, Etcd)>,
    candidate: Candidate,
    boot: u64,
    wall: i64,
    pending: Vec<Pending>,
    watches: Vec<Watching>,
    closed: Vec<StreamId>,
    settling: Vec<OpId>,
    publications: Vec<Publication>,
    /// What was ordered of the work and not looked at yet.
    pub orders: Vec<Effect>,
    /// What is kept for the next process.
    pub memory: Option<Memory>,
    pub redials: Vec<EndpointId>,
    notices: Vec<Notice>,
    exited: bool,
}

impl Scene {
    /// A candidate that has just started, with the default timings and one endpoint.
    pub fn new() -> Self {
        Self::with(TimingsRequest::default(), 1, 1)
    }

    /// The same, with somebody to show its role to.
    pub fn on_show() -> Self {
        Self::start(TimingsRequest::default(), 1, 1, true)
    }

    pub fn with_endpoints(count: usize) -> Self {
        Self::with(TimingsRequest::default(), count, 1)
    }

    pub fn with_timings(timings: TimingsRequest) -> Self {
        Self::with(timings, 1, 1)
    }

    pub fn with(timings: TimingsRequest, endpoints: usize, seed: u64) -> Self {
        Self::start(timings, endpoints, seed, false)
    }

    fn start(timings: TimingsRequest, endpoints: usize, seed: u64, publishes: bool) -> Self {
        let timings = Timings::new(timings).expect("the timings of a test hold together");
        Self::of(Settings { publishes, ..Settings::bare(Identity::new(ME), timings, endpoints, seed) })
    }

    /// A candidate with more to it, on a stage of its own.
    pub fn of(settings: Settings) -> Self {
        Self::among(Etcd::new(), nanos(Duration::from_hours(1)), settings, None)
    }

    /// The process dies, and after a while another one of the same candidate starts on the same machine.
    pub fn reborn(self, after: Duration, settings: Settings) -> Self {
        let boot = self.boot + nanos(after);
        let mut etcd = self.etcd;
        etcd.expire(boot);
        let kept = match &settings.inheritance {
            Inheritance::Resume(memory) | Inheritance::Release { memory, .. } => Some(memory.clone()),
            Inheritance::Nothing => None,
        };
        Self::among(etcd, boot, settings, kept)
    }

    fn among(etcd: Etcd, boot: u64, settings: Settings, memory: Option<Memory>) -> Self {
        let wall = 1_700_000_000_000_000_000;
        let now = Reading { boot: Instant::from_nanos(boot), wall: WallTime::from_unix_nanos(wall) };
        let mut scene = Self {
            etcd,
            other_cluster: None,
            candidate: Candidate::new(settings, now),
            boot,
            wall,
            pending: Vec::new(),
            watches: Vec::new(),
            closed: Vec::new(),
            settling: Vec::new(),
            publications: Vec::new(),
            orders: Vec::new(),
            memory,
            redials: Vec::new(),
            notices: Vec::new(),
            exited: false,
        };
        scene.take_effects();
        scene
    }

    /// A leader, first of its line.
    pub fn leader(mut self) -> Self {
        self.answer_all();
        assert!(self.leads(), "the only candidate leads: {:?}", self.view());
        self.notices.clear();
        self
    }

    /// A standby behind a rival that leads and is before it in the line: the heir.
    pub fn heir(mut self) -> Self {
        self.rival_registers(RIVAL, RIVAL_LEASE);
        self.rival_claims(RIVAL, RIVAL_LEASE);
        self.standing_by()
    }

    /// A standby behind a rival that leads and another that stands by.
    pub fn third(mut self) -> Self {
        self.rival_registers(RIVAL, RIVAL_LEASE);
        self.rival_claims(RIVAL, RIVAL_LEASE);
        self.rival_registers("web-0b", LeaseId(4712));
        self.standing_by()
    }

    fn standing_by(mut self) -> Self {
        self.answer_all();
        assert_eq!(self.state(), PublicState::Standby);
        self.notices.clear();
        self
    }

    // ---- the clock

    pub fn now(&self) -> Reading {
        Reading { boot: Instant::from_nanos(self.boot), wall: WallTime::from_unix_nanos(self.wall) }
    }

    /// Time passes; the candidate's timeouts are handled, nothing is answered.
    pub fn pass(&mut self, duration: Duration) {
        self.run(duration, false);
    }

    /// Time passes and etcd answers everything at once.
    pub fn live(&mut self, duration: Duration) {
        self.run(duration, true);
    }

    /// Time passes while the process is stopped: nothing of its is handled.
    pub fn freeze(&mut self, duration: Duration) {
        self.move_clock_to(self.boot + nanos(duration));
    }

    /// The wall clock is set, or the boot clock stood still: the wall runs ahead.
    pub fn wall_jumps(&mut self, duration: Duration) {
        self.wall += i64::try_from(duration.as_nanos()).expect("a jump of less than 292 years");
    }

    /// Hands the clock to the candidate although nothing is due.
    pub fn wake(&mut self) {
        self.candidate.handle_timeout(self.now());
        self.take_effects();
    }

    /// Time passes; etcd hears everything, and nothing of what it says arrives.
    pub fn unheard(&mut self, duration: Duration) {
        let end = self.boot + nanos(duration);
        for _ in 0..TIMEOUTS_MOST {
            for pending in std::mem::take(&mut self.pending) {
                self.apply(&pending);
            }
            let next = self.candidate.poll_timeout().map_or(end, Instant::nanos);
            self.move_clock_to(next.min(end));
            if next > end {
                return;
            }
            self.wake();
        }
        panic!("more than {TIMEOUTS_MOST} timeouts in {duration:?}");
    }

    fn run(&mut self, duration: Duration, answering: bool) {
        let end = self.boot + nanos(duration);
        for _ in 0..TIMEOUTS_MOST {
            if answering {
                self.answer_all();
            }
            match self.candidate.poll_timeout() {
                Some(at) if at.nanos() <= end => {
                    self.move_clock_to(at.nanos());
                    self.wake();
                }
                Some(_) | None => {
                    self.move_clock_to(end);
                    if answering {
                        self.answer_all();
                    }
                    return;
                }
            }
        }
        panic!("more than {TIMEOUTS_MOST} timeouts in {duration:?}");
    }

    fn move_clock_to(&mut self, boot: u64) {
        self.wall += i64::try_from(boot - self.boot).expect("time moves forward, by less than 292 years");
        self.boot = boot;
        self.etcd.expire(boot);
    }

    // ---- what the candidate does

    /// Feeds one event as the driver does: what is due by the clock comes first.
    pub fn event(&mut self, event: Event) {
        if self.candidate.poll_timeout().is_some_and(|at| at <= self.now().boot) {
            self.candidate.handle_timeout(self.now());
        }
        self.candidate.handle_event(self.now(), event);
        self.take_effects();
    }

    fn take_effects(&mut self) {
        while let Some(effect) = self.candidate.poll_effect() {
            match effect {
                Effect::Request(request) => {
                    let lets_go = matches!(request.call, Call::DeleteLock { .. } | Call::Revoke { .. });
                    assert!(!lets_go || self.memory.is_none(), "{:?} while it is remembered", request.call);
                    self.pending.push(Pending::Call(request));
                }
                Effect::KeepAlive { stream, endpoint, lease } => {
                    assert!(!self.closed.contains(&stream), "a keep-alive on {stream:?}, which was closed");
                    self.pending.push(Pending::KeepAlive { stream, endpoint, lease });
                }
                Effect::CloseStream(stream) => self.closed.push(stream),
                Effect::Redial(endpoint) => self.redials.push(endpoint),
                Effect::Watch { watch, endpoint, target, from } => {
                    self.watches.push(Watching { id: watch, endpoint, target, from, created: false });
                }
                Effect::Unwatch(watch) => self.watches.retain(|open| open.id != watch),
                Effect::SettleAnswers(id) => self.settling.push(id),
                Effect::Publish(publication) => self.publications.push(publication),
                Effect::StartWork { .. } | Effect::ExtendWork { .. } | Effect::StopWork { .. } => {
                    self.orders.push(effect);
                }
                Effect::Remember(memory) => self.memory = Some(memory),
                Effect::Forget => self.memory = None,
                Effect::Tell(notice) => self.notices.push(notice),
                Effect::Exit => self.exited = true,
            }
        }
        if let Some(at) = self.candidate.poll_timeout() {
            assert!(at > self.now().boot, "a hot loop: due at {at:?}, now {:?}", self.now().boot);
        }
    }

    // ---- what etcd does

    /// The oldest unanswered request of this operation.
    pub fn take(&mut self, operation: Operation) -> Pending {
        let place = self.pending.iter().position(|pending| pending.operation() == operation);
        self.pending.remove(place.unwrap_or_else(|| panic!("no {operation:?} among {:?}", self.pending)))
    }

    pub fn is_pending(&self, operation: Operation) -> bool {
        self.count_pending(operation) > 0
    }

    pub fn count_pending(&self, operation: Operation) -> usize {
        self.pending.iter().filter(|pending| pending.operation() == operation).count()
    }

    /// What was sent and is not answered, oldest first.
    pub fn pending(&self) -> &[Pending] {
        &self.pending
    }

    /// The one at this place among them.
    pub fn take_at(&mut self, place: usize) -> Pending {
        self.pending.remove(place)
    }

    /// Drops every unanswered request on the floor: the network lost them before etcd saw them.
    pub fn lose_all(&mut self) {
        self.pending.clear();
    }

    /// etcd applies it now; the event is its answer, to be delivered whenever.
    pub fn apply(&mut self, pending: &Pending) -> Event {
        let etcd = match &mut self.other_cluster {
            Some((endpoint, other)) if *endpoint == pending.endpoint() => other,
            Some(_) | None => &mut self.etcd,
        };
        match pending {
            Pending::Call(request) => {
                let result = etcd.call(self.boot, &Identity::new(ME), request.endpoint, &request.call);
                Event::Answered { id: request.id, result }
            }
            Pending::KeepAlive { stream, endpoint, lease } => {
                let header = etcd.header(*endpoint);
                let ttl_seconds = etcd.keep_alive(self.boot, *lease);
                Event::KeepAliveAnswered { stream: *stream, header, ttl_seconds }
            }
        }
    }

    pub fn deliver(&mut self, pending: &Pending) {
        let event = self.apply(pending);
        self.event(event);
    }

    /// etcd applies and answers the oldest request of this operation.
    pub fn answer(&mut self, operation: Operation) {
        let pending = self.take(operation);
        self.deliver(&pending);
    }

    /// The oldest request of this operation fails; etcd never saw it.
    pub fn fail(&mut self, operation: Operation, kind: CallErrorKind) {
        let event = failed(&self.take(operation), kind);
        self.event(event);
    }

    /// etcd applies the oldest request of this operation, and the answer is lost.
    pub fn apply_and_fail(&mut self, operation: Operation, kind: CallErrorKind) {
        let pending = self.take(operation);
        self.apply(&pending);
        self.event(failed(&pending, kind));
    }

    /// etcd answers everything and every watch catches up, until there is nothing left to do.
    pub fn answer_all(&mut self) {
        for _ in 0..ANSWERS_MOST {
            self.catch_up();
            if self.pending.is_empty() {
                return;
            }
            let pending = self.pending.remove(0);
            if !self.is_closed_stream(&pending) {
                self.deliver(&pending);
            }
        }
        panic!("more than {ANSWERS_MOST} answers at one instant: {:?}", self.pending);
    }

    fn is_closed_stream(&self, pending: &Pending) -> bool {
        matches!(pending, Pending::KeepAlive { stream, .. } if self.closed.contains(stream))
    }

    /// Every watch is acknowledged and reports what it has to.
    pub fn catch_up(&mut self) {
        while let Some(event) = self.next_watch_event() {
            self.event(event);
        }
    }

    fn next_watch_event(&mut self) -> Option<Event> {
        let Self { watches, etcd, other_cluster, .. } = self;
        for open in watches {
            let etcd = match &other_cluster {
                Some((endpoint, other)) if *endpoint == open.endpoint => other,
                Some(_) | None => &*etcd,
            };
            let header = etcd.header(open.endpoint);
            if !open.created {
                open.created = true;
                return Some(Event::WatchCreated { watch: open.id, header });
            }
            if let Some(change) = etcd.changes(&open.target, open.from).into_iter().next() {
                open.from = Revision(change.revision().0 + 1);
                return Some(Event::WatchChanged { watch: open.id, header, change });
            }
        }
        None
    }

    /// Watches lose whatever has happened up to now, and what happens at this instant, without a word.
    pub fn go_deaf(&mut self) {
        for open in &mut self.watches {
            open.from = Revision(i64::MAX);
        }
    }

    /// The open watch on this key.
    pub fn watch_on(&self, target: &WatchTarget) -> Option<Watching> {
        self.watches.iter().find(|open| open.target == *target).cloned()
    }

    pub fn watches(&self) -> &[Watching] {
        &self.watches
    }

    /// The watch on this key ends by itself.
    pub fn end_watch(&mut self, target: &WatchTarget, kind: CallErrorKind) {
        let watch = self.watch_on(target).unwrap_or_else(|| panic!("no watch on {target:?}")).id;
        self.watches.retain(|open| open.id != watch);
        self.event(Event::WatchEnded { watch, error: error(kind) });
    }

    /// The stream ends, with whatever was sent on it.
    pub fn end_stream(&mut self, stream: StreamId) {
        self.pending.retain(|one| !matches!(one, Pending::KeepAlive { stream: on, .. } if *on == stream));
        self.event(Event::StreamEnded { stream, error: error(CallErrorKind::Unavailable) });
    }

    pub fn settle_answers(&mut self) {
        let id = self.settling.pop().expect("the candidate waits for answers to settle");
        self.event(Event::AnswersSettled { id });
    }

    pub fn is_settling(&self) -> bool {
        !self.settling.is_empty()
    }

    pub fn settling(&self) -> &[OpId] {
        &self.settling
    }

    // ---- what the cluster is shown

    pub fn publications(&self) -> &[Publication] {
        &self.publications
    }

    /// The role published last.
    pub fn role(&self) -> Role {
        self.publications.last().expect("a candidate publishes a role when it starts").role.clone()
    }

    /// What was published last is seen by everybody.
    pub fn role_is_seen(&mut self) {
        let id = self.publications.last().expect("a candidate publishes a role when it starts").id;
        self.event(Event::Published { id });
    }

    // ---- the rival

    pub fn rival_registers(&mut self, name: &str, lease: LeaseId) {
        // A lease without end: a rival here lives as long as its test says.
        self.etcd.grant(self.boot, lease, Duration::from_hours(10_000));
        let record =
            CandidateRecord { epoch: Epoch(0), registered_at: self.now().wall, leading_since: None, nonce: None };
        self.rival_calls(name, &Call::Register { lease, record });
    }

    pub fn rival_claims(&mut self, name: &str, lease: LeaseId) {
        self.etcd.grant(self.boot, lease, Duration::from_hours(10_000));
        let record =
            CandidateRecord { epoch: Epoch(0), registered_at: self.now().wall, leading_since: None, nonce: None };
        self.rival_calls(name, &Call::Claim { lease, record });
    }

    fn rival_calls(&mut self, name: &str, call: &Call) {
        self.etcd.call(self.boot, &Identity::new(name), EndpointId(0), call).expect("the rival's lease lives");
    }

    /// The rival dies, its lease expires, and the watches say so.
    pub fn rival_dies(&mut self) {
        self.etcd.revoke(RIVAL_LEASE);
        self.catch_up();
    }

    // ---- what can be seen

    pub fn view(&self) -> &View {
        self.candidate.view()
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        self.candidate.poll_timeout()
    }

    pub fn state(&self) -> PublicState {
        self.view().state
    }

    pub fn leads(&self) -> bool {
        self.view().leads(self.now())
    }

    pub fn lead(&self) -> Lead {
        self.view().lead.expect("it leads")
    }

    pub fn token(&self) -> Revision {
        self.lead().term.token
    }

    /// How long it may go on leading without hearing of etcd.
    pub fn remaining(&self) -> Duration {
        self.view().lead.map_or(Duration::ZERO, |lead| lead.until.remaining(self.now()))
    }

    pub fn my_lock(&self) -> Option<&LockKey> {
        self.etcd.lock().filter(|lock| lock.holder.as_str() == ME)
    }

    pub fn my_lease(&self) -> LeaseId {
        self.etcd.candidate(&Identity::new(ME)).and_then(|key| key.lease).expect("it is registered with a lease")
    }

    pub fn is_closed(&self, stream: StreamId) -> bool {
        self.closed.contains(&stream)
    }

    pub fn has_exited(&self) -> bool {
        self.exited
    }

    pub fn told(&self, wanted: impl Fn(&Notice) -> bool) -> usize {
        self.notices.iter().filter(|notice| wanted(notice)).count()
    }

    /// The transitions told of, as `(to, reason)`.
    pub fn transitions(&self) -> Vec<(PublicState, Reason)> {
        let transition = |notice: &Notice| {
            if let Notice::Transition { to, reason, .. } = notice { Some((*to, *reason)) } else { None }
        };
        self.notices.iter().filter_map(transition).collect()
    }

    /// The next keep-alive goes out, after at most an interval, and its stream is named.
    pub fn until_next_keep_alive(&mut self) -> StreamId {
        for _ in 0..TIMEOUTS_MOST {
            if let Some(Pending::KeepAlive { stream, .. }) =
                self.pending.iter().find(|pending| pending.operation() == Operation::KeepAlive)
            {
                return *stream;
            }
            let at = self.candidate.poll_timeout().expect("a held lease is renewed");
            self.move_clock_to(at.nanos());
            self.wake();
        }
        panic!("no keep-alive after {TIMEOUTS_MOST} timeouts");
    }
}

/// The event that says that it failed.
pub fn failed(pending: &Pending, kind: CallErrorKind) -> Event {
    match pending {
        Pending::Call(request) => Event::Answered { id: request.id, result: Err(error(kind)) },
        Pending::KeepAlive { stream, .. } => Event::StreamEnded { stream: *stream, error: error(kind) },
    }
}
