//! One machine: a candidate, its two clocks, and the driver's habits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether::election::{
    Candidate, Effect, EndpointId, Epoch, Event, Identity, Instant, OpId, PublicState, Reading, Revision, Settings,
    StreamId, Term, Timings, View, WallTime, WatchId, WatchTarget,
};

use crate::etcd::nanos;

/// More effects than one input may bring: the queue is bounded.
const EFFECTS_MOST: usize = 60;
const MILLION: i128 = 1_000_000;

pub struct Node {
    identity: Identity,
    timings: Timings,
    endpoints: usize,
    /// Counts restarts: what was meant for an earlier life reaches nobody.
    pub life: u64,
    candidate: Option<Candidate>,
    view: Option<View>,
    clock: Clock,
    /// Stopped until then; with its boot clock, or without.
    pub paused: Option<Pause>,
    pub inbox: Vec<Event>,
    pub open_calls: BTreeSet<OpId>,
    pub streams: BTreeMap<StreamId, EndpointId>,
    pub watches: BTreeMap<WatchId, OpenWatch>,
    pub timer: u64,
    pub exited: bool,
    pub requests: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    pub until: u64,
    /// The hypervisor stopped the guest, its boot clock included, since then.
    pub guest_since: Option<u64>,
}

pub struct OpenWatch {
    pub endpoint: EndpointId,
    pub target: WatchTarget,
    pub from: Revision,
    /// Everything before this place of etcd's log is on its way or delivered.
    pub log_place: Option<usize>,
    /// Changes arrive in order.
    pub last_delivery: u64,
    /// Loses its next change without a word.
    pub lossy: bool,
}

#[derive(Clone)]
struct Clock {
    /// Parts in a million by which it runs faster than the true clock.
    drift: i64,
    boot_at_start: i128,
    stood_still: i128,
    wall_lead: i128,
}

impl Clock {
    fn boot(&self, now: u64) -> u64 {
        let run = i128::from(now) * (MILLION + i128::from(self.drift)) / MILLION;
        u64::try_from(self.boot_at_start + run - self.stood_still).expect("boot clocks start at 0")
    }

    fn reading(&self, now: u64) -> Reading {
        let boot = self.boot(now);
        let wall = i64::try_from(i128::from(boot) + self.wall_lead).expect("this century");
        Reading { boot: Instant::from_nanos(boot), wall: WallTime::from_unix_nanos(wall) }
    }

    /// The true time from which the boot clock shows at least `boot`.
    fn true_time(&self, boot: u64) -> u64 {
        let run = i128::from(boot) - self.boot_at_start + self.stood_still;
        let speed = MILLION + i128::from(self.drift);
        u64::try_from((run * MILLION + speed - 1).div_euclid(speed).max(0)).expect("within the run") + 1
    }
}

impl Node {
    pub fn new(name: &str, timings: Timings, endpoints: usize, drift: i64) -> Self {
        let clock = Clock {
            drift,
            boot_at_start: i128::from(nanos(Duration::from_hours(1))),
            stood_still: 0,
            wall_lead: 1_700_000_000_000_000_000,
        };
        Self {
            identity: Identity::new(name),
            timings,
            endpoints,
            life: 0,
            candidate: None,
            view: None,
            clock,
            paused: None,
            inbox: Vec::new(),
            open_calls: BTreeSet::new(),
            streams: BTreeMap::new(),
            watches: BTreeMap::new(),
            timer: 0,
            exited: false,
            requests: 0,
        }
    }

    pub fn start(&mut self, now: u64, seed: u64) -> Vec<Effect> {
        let settings = Settings {
            identity: self.identity.clone(),
            epoch: Epoch(0),
            timings: self.timings,
            endpoints: self.endpoints,
            seed,
            publishes: true,
        };
        self.candidate = Some(Candidate::new(settings, self.clock.reading(now)));
        self.drain(now)
    }

    /// Gone without a word; its requests on the way may still arrive.
    pub fn crash(&mut self) {
        self.life += 1;
        self.candidate = None;
        self.view = None;
        self.paused = None;
        self.inbox.clear();
        self.open_calls.clear();
        self.streams.clear();
        self.watches.clear();
        self.exited = false;
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    pub fn is_running(&self) -> bool {
        self.candidate.is_some()
    }

    pub fn wakes(&mut self, now: u64) {
        if let Some(Pause { guest_since: Some(since), .. }) = self.paused.take() {
            let still = i128::from(self.clock.boot(now)) - i128::from(self.clock.boot(since));
            self.clock.stood_still += still;
            self.clock.wall_lead += still;
        }
    }

    pub fn wall_jumps(&mut self, forward: u64) {
        self.clock.wall_lead += i128::from(forward);
    }

    /// One turn of the driver: clock, timeout if due, event, view, effects.
    pub fn turn(&mut self, now: u64, event: Option<Event>) -> Vec<Effect> {
        let reading = self.clock.reading(now);
        let Some(candidate) = &mut self.candidate else { return Vec::new() };
        if candidate.poll_timeout().is_some_and(|at| at <= reading.boot) {
            candidate.handle_timeout(reading);
        }
        if let Some(event) = event {
            candidate.handle_event(reading, event);
        }
        self.drain(now)
    }

    fn drain(&mut self, now: u64) -> Vec<Effect> {
        let reading = self.clock.reading(now);
        let candidate = self.candidate.as_mut().expect("it runs");
        self.view = Some(candidate.view().clone());
        let effects: Vec<Effect> = std::iter::from_fn(|| candidate.poll_effect()).collect();
        assert!(effects.len() <= EFFECTS_MOST, "{} effects of one input", effects.len());
        let due = candidate.poll_timeout();
        assert!(due.is_none_or(|at| at > reading.boot), "a hot loop: due at {due:?}, now {:?}", reading.boot);
        effects
    }

    /// When its timer rings, in true time.
    pub fn next_timer(&self) -> Option<u64> {
        let at = self.candidate.as_ref()?.poll_timeout()?;
        Some(self.clock.true_time(at.nanos()))
    }

    pub fn answers_200(&self, now: u64) -> bool {
        let stopped_with_its_clock = self.paused.is_some_and(|pause| pause.guest_since.is_some());
        !stopped_with_its_clock && self.view.as_ref().is_some_and(|view| view.leads(self.clock.reading(now)))
    }

    pub fn term(&self) -> Term {
        self.view.as_ref().and_then(|view| view.lead).expect("it leads").term
    }

    pub fn state(&self) -> Option<PublicState> {
        self.view.as_ref().map(|view| view.state)
    }

    /// What an answer given out now promises, in true time; a stopped process gives none out.
    pub fn promise(&self, now: u64) -> u64 {
        let Some(view) = self.view.as_ref().filter(|_| self.paused.is_none()) else { return 0 };
        let valid = nanos(view.valid_for(self.clock.reading(now), self.timings.answer_validity()));
        let speed = MILLION + i128::from(self.clock.drift);
        u64::try_from(i128::from(valid) * MILLION / speed).expect("a duration")
    }
}
