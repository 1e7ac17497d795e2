//! One machine: a candidate, its clocks, and the habits of the driver that runs it.
//!
//! A turn is: read the clock; when the deadline has passed, let the candidate handle that first; hand it the event;
//! publish the view; carry out the effects. The process can be stopped between any two of these.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bellwether::election::{
    Answer, AppHealth, CallError, Candidate, Epoch, Event, Identity, Inheritance, Instant, Memory, Nonce, OpId,
    PublicState, Revision, Settings, StreamId, Term, Timings, View, WatchId,
};

use crate::clock::{Clock, nanos};
use crate::company::Company;
use crate::etcd::Ticket;
use crate::guardian::Guardian;

/// The driver's loop turns at least this often.
const TURN_AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// A machine, whether its process runs or not.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) timings: Timings,
    endpoints: usize,
    /// What its next process is started with.
    pub(crate) epoch: Epoch,
    /// Counts restarts: what was meant for an earlier life reaches nobody.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    pub(crate) clock: Clock,
    pub(crate) pause: Option<Pause>,
    /// To be stopped in its next turn, there, for so long.
    pub(crate) pause_in_turn: Option<(Place, u64)>,
    /// Timers and turns come late by up to this, until then.
    pub(crate) starved: Option<(u64, Duration)>,
    /// Until when its clocks are left alone: two of their faults at once are more than the margin allows for.
    pub(crate) clock_trouble_until: u64,
    /// How long after its process has ended the next one starts.
    pub(crate) rest: u64,
    /// How many calls and keep-alives it has sent.
    pub(crate) requests: u64,
    /// What it has beside its election.
    pub(crate) company: Company,
    /// What its process has kept for the next one.
    pub(crate) kept: Option<Kept>,
    /// Of this life's command, and of those of earlier lives that are not quite gone.
    pub(crate) guardians: Vec<Guardian>,
    /// Until when a command may be there that the guest's stop has kept from ending in time.
    pub(crate) guest_excused_until: u64,
    /// For how many reasons its application is not healthy at this time.
    pub(crate) ills: u32,
    /// Its process dies when it has asked for the lock to be let go of; how long after that the next one starts.
    pub(crate) dies_at_release: Option<u64>,
}

/// What is left in a candidate's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) memory: Memory,
    /// When the life that wrote it began.
    pub(crate) began: Instant,
    pub(crate) epoch: Epoch,
}

/// A stopped process, or a stopped guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pause {
    pub(crate) until: u64,
    /// The whole guest, its boot clock included.
    pub(crate) guest: bool,
}

/// Where in a turn a process is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The candidate has handled its input, and nobody has seen anything of it.
    BeforeAnything,
    /// Between the view and the effects.
    InBetween,
}

/// What is left of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Publish,
    Effects,
}

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) candidate: Candidate,
    /// What the listeners see.
    pub(crate) published: View,
    /// What waits for the loop.
    pub(crate) inbox: VecDeque<Event>,
    /// The rest of the turn under way.
    pub(crate) turn: VecDeque<Step>,
    pub(crate) calls: BTreeMap<OpId, OpenCall>,
    pub(crate) streams: BTreeMap<StreamId, OpenStream>,
    pub(crate) watches: BTreeMap<WatchId, OpenWatch>,
    /// The timer that counts.
    pub(crate) timer: u64,
    /// When, on its own boot clock, the last promise given out runs out.
    pub(crate) promised: Option<Instant>,
    /// Of the control that confirms beside: reads that left with a keep-alive, by member.
    pub(crate) beside: BTreeMap<usize, Beside>,
    /// The highest revision it has heard of.
    pub(crate) heard: Revision,
    /// Tells it from every other.
    pub(crate) nonce: Nonce,
    /// When it began.
    pub(crate) began: Instant,
    /// It tries to go on with a term.
    pub(crate) resumes: bool,
    /// What it was told of its application's health, and has handled.
    handled: Option<AppHealth>,
    /// The same, as its listeners show it.
    pub(crate) shown: Option<AppHealth>,
    /// Its application's health is looked at from now on.
    pub(crate) looks_at_app: bool,
    /// It led when it was told to stop, then.
    pub(crate) stop_told: Option<Instant>,
    /// It was told that its application has gone.
    pub(crate) app_gone: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenCall {
    pub(crate) member: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenStream {
    pub(crate) member: usize,
    /// Messages of a stream arrive in order: when the last one does, in each direction.
    pub(crate) last_to: u64,
    pub(crate) last_back: u64,
    /// A message was lost: nothing will ever come of it.
    pub(crate) silent: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenWatch {
    pub(crate) member: usize,
    pub(crate) ticket: Ticket,
    pub(crate) on_lock: bool,
    pub(crate) last_back: u64,
    pub(crate) silent: bool,
    /// Loses its next change without a word.
    pub(crate) loses_next: bool,
}

/// A confirming read that left beside its keep-alive.
#[derive(Debug)]
pub(crate) struct Beside {
    pub(crate) number: u64,
    pub(crate) answer: Option<Result<Answer, CallError>>,
    pub(crate) wanted_as: Option<OpId>,
}

impl Node {
    pub(crate) fn new(name: &str, timings: Timings, endpoints: usize, drift: i64) -> Self {
        Self {
            identity: Identity::new(name),
            timings,
            endpoints,
            epoch: Epoch(0),
            life: 0,
            process: None,
            clock: Clock::new(drift),
            pause: None,
            pause_in_turn: None,
            starved: None,
            clock_trouble_until: 0,
            rest: 0,
            requests: 0,
            company: Company::default(),
            kept: None,
            guardians: Vec::new(),
            guest_excused_until: 0,
            ills: 0,
            dies_at_release: None,
        }
    }

    /// Starts a process. Its first effects are there at once.
    pub(crate) fn start(&mut self, now: u64, seed: u64, timings: Timings, inheritance: Inheritance) {
        let bare = Settings::bare(self.identity.clone(), timings, self.endpoints, seed);
        let resumes = matches!(inheritance, Inheritance::Resume(_));
        let settings = Settings {
            epoch: self.epoch,
            publishes: true,
            works: self.company.works,
            remembers: self.company.remembers,
            part: self.company.part(),
            application: self.company.application(),
            inheritance,
            ..bare
        };
        let (reading, nonce) = (self.clock.reading(now), settings.nonce);
        let candidate = Candidate::new(settings, reading);
        self.process = Some(Process {
            published: candidate.view().clone(),
            candidate,
            inbox: VecDeque::new(),
            turn: VecDeque::new(),
            calls: BTreeMap::new(),
            streams: BTreeMap::new(),
            watches: BTreeMap::new(),
            timer: 0,
            promised: None,
            beside: BTreeMap::new(),
            heard: Revision(0),
            nonce,
            began: reading.boot,
            resumes,
            handled: None,
            shown: None,
            looks_at_app: false,
            stop_told: None,
            app_gone: false,
        });
    }

    /// The process is gone, in order or not.
    pub(crate) fn end(&mut self) -> Option<Process> {
        self.life += 1;
        self.pause_in_turn = None;
        self.dies_at_release = None;
        self.process.take()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.pause.is_some()
    }

    /// Whether the loop can take the next input.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_stopped() && self.process.as_ref().is_some_and(|process| process.turn.is_empty())
    }

    /// Whether the candidate's deadline has passed.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        let due = self.process.as_ref().and_then(|process| process.candidate.poll_timeout());
        due.is_some_and(|at| at <= self.clock.reading(now).boot)
    }

    /// Whether the adapter hands this to the candidate, which it does at the very moment it takes it from its queue:
    /// completions of calls once, news of streams and watches as long as they are open.
    pub(crate) fn takes(&mut self, event: &Event, read_before: bool) -> bool {
        let process = self.process.as_mut().expect("its loop takes events");
        match event {
            Event::Answered { id, .. } => process.calls.remove(id).is_some(),
            Event::KeepAliveAnswered { stream, .. } => process.streams.contains_key(stream) || read_before,
            Event::StreamEnded { stream, .. } => process.streams.remove(stream).is_some(),
            Event::WatchCreated { watch, .. } | Event::WatchChanged { watch, .. } => {
                process.watches.contains_key(watch) || read_before
            }
            Event::WatchEnded { watch, .. } => process.watches.remove(watch).is_some(),
            Event::AnswersSettled { .. }
            | Event::Published { .. }
            | Event::WorkFailed { .. }
            | Event::WorkFinished { .. }
            | Event::WorkStopped { .. }
            | Event::AppHealth(_)
            | Event::AppGone
            | Event::Stop
            | Event::Resign { .. }
            | Event::CredentialsRenewed => true,
        }
    }

    /// Lets the candidate handle one input, or the deadline alone. Says for how long its loop would not have waited
    /// after that: a deadline that has passed already is a loop that spins.
    pub(crate) fn handle(&mut self, now: u64, event: Option<Event>) -> Result<(), String> {
        let (reading, due) = (self.clock.reading(now), self.is_due(now));
        let process = self.process.as_mut().expect("somebody handles the input");
        if due || event.is_none() {
            process.candidate.handle_timeout(reading);
        }
        if let Some(event) = event {
            process.note(reading.boot, &event);
            process.candidate.handle_event(reading, event);
        }
        match process.candidate.poll_timeout() {
            Some(at) if at <= reading.boot => Err(format!("due at {at:?}, handled at {:?}", reading.boot)),
            Some(_) | None => Ok(()),
        }
    }

    /// Lets the listeners see what the candidate has come to.
    pub(crate) fn publish(&mut self) {
        let process = self.process.as_mut().expect("it is in a turn");
        process.shown = process.handled;
        if process.published.version != process.candidate.view().version {
            process.published = process.candidate.view().clone();
        }
    }

    /// When the loop wakes by itself, in true time.
    pub(crate) fn wakes_at(&self, now: u64) -> Option<u64> {
        let process = self.process.as_ref()?;
        let latest = self.clock.reading(now).boot.after(TURN_AT_LEAST_EVERY);
        let due = process.candidate.poll_timeout().map_or(latest, |due| due.min(latest));
        Some(self.clock.true_time(due).max(now))
    }

    /// Whether `/leader` says 200 to a request at this instant.
    pub(crate) fn answers_200(&self, now: u64) -> bool {
        let Some(process) = &self.process else { return false };
        process.published.lead.is_some() && !self.is_stopped() && process.published.leads(self.clock.reading(now))
    }

    /// The term that its answers name.
    pub(crate) fn term(&self) -> Option<Term> {
        self.process.as_ref()?.published.lead.map(|lead| lead.term)
    }

    /// What it is and whether it hears etcd, for the story.
    pub(crate) fn describe(&self) -> String {
        let Some(process) = &self.process else { return "not running".into() };
        format!("{} ({})", process.published.state.as_str(), process.published.etcd.as_str())
    }

    /// Gives an answer 200 at this instant: until when, in true time, it may be relied on.
    pub(crate) fn promise(&mut self, now: u64) -> u64 {
        let reading = self.clock.reading(now);
        let Some(process) = &mut self.process else { return now };
        let valid_for = process.published.valid_for(reading, self.timings.answer_validity());
        process.promised = process.promised.max(Some(reading.boot.after(valid_for)));
        now + self.clock.true_span(valid_for)
    }

    /// When the right to answer ends by itself, in true time.
    pub(crate) fn until(&self) -> Option<u64> {
        let lead = self.process.as_ref()?.published.lead?;
        Some(self.clock.true_time(lead.until.boot()))
    }

    /// By how much a timer or a turn is late at most.
    pub(crate) fn lateness(&self, now: u64) -> Option<Duration> {
        self.starved.filter(|(until, _)| *until > now).map(|(_, most)| most)
    }

    /// How long a lease may go on after its last keep-alive, as this machine's clock counts it.
    pub(crate) fn lease_life(&self) -> u64 {
        self.clock.true_span(self.timings.lease_ttl()).max(nanos(self.timings.lease_ttl()))
    }
}

impl Process {
    /// What the judge has to know of what it is told.
    fn note(&mut self, now: Instant, event: &Event) {
        match event {
            Event::AppHealth(health) => self.handled = Some(*health),
            Event::AppGone => self.app_gone = true,
            Event::Stop | Event::WorkFinished { .. } if self.stop_told.is_none() => {
                let leads = matches!(self.candidate.view().state, PublicState::Leading | PublicState::Jeopardy);
                self.stop_told = leads.then_some(now);
            }
            Event::Stop
            | Event::WorkFinished { .. }
            | Event::Answered { .. }
            | Event::KeepAliveAnswered { .. }
            | Event::StreamEnded { .. }
            | Event::WatchCreated { .. }
            | Event::WatchChanged { .. }
            | Event::WatchEnded { .. }
            | Event::AnswersSettled { .. }
            | Event::Published { .. }
            | Event::WorkFailed { .. }
            | Event::WorkStopped { .. }
            | Event::Resign { .. }
            | Event::CredentialsRenewed => {}
        }
    }
}
