//! What travels between candidates and members.

use std::time::Duration;

use bellwether::election::{
    Call, CallError, CallErrorKind, Event, LeaseId, OpId, Request, Revision, StreamId, WatchId, WatchTarget,
};

use super::{Happening, World};
use crate::etcd::{Asked, Output, Ticket};
use crate::network::{Direction, Fate};
use crate::node::{Beside, OpenCall, OpenStream, OpenWatch};
use crate::scenario::Control;

/// HTTP/2 pings leave every 6 s while something is open, and are waited for 2 s: a connection that carries nothing is
/// given up after this at most.
const PINGS_FAIL_MOST: Duration = Duration::from_secs(8);
const PINGS_FAIL_LEAST: Duration = Duration::from_secs(2);
/// What was held back comes this far apart.
const BURST_GAP: u64 = 20_000;
/// An application on the same machine hears of a broken connection within this.
const LOCALLY: Duration = Duration::from_micros(200);

/// Somebody at a candidate's machine who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    Call(OpId),
    Stream(StreamId),
    Watch(WatchId),
    /// The control's read, by its number.
    Beside(u64),
    /// A request that arrives twice: the second answer has no reader.
    Nobody,
}

/// What a request carries.
#[derive(Clone, Debug)]
enum Cargo {
    Asked(Asked),
    Watch(WatchTarget, Revision),
}

/// A request on its way, or being worked on; a watch as long as it is open.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    node: usize,
    life: u64,
    member: usize,
    waiting: Waiting,
    cargo: Option<Cargo>,
}

/// An answer on its way back.
#[derive(Clone, Debug)]
pub(crate) struct Homeward {
    node: usize,
    life: u64,
    member: usize,
    waiting: Waiting,
    what: What,
}

/// What an answer says.
#[derive(Clone, Debug)]
enum What {
    Event(Event),
    /// To the control's read.
    Beside(Result<bellwether::election::Answer, CallError>),
}

/// What a link holds back.
#[derive(Debug)]
pub(super) struct Held {
    node: usize,
    member: usize,
    direction: Direction,
    what: Happening,
}

pub(crate) fn unavailable(message: &str) -> CallError {
    CallError { kind: CallErrorKind::Unavailable, message: message.into() }
}

impl World {
    // ---- on the way to a member

    pub(super) fn sends_call(&mut self, node: usize, request: Request) {
        let Request { id, endpoint, timeout, call } = request;
        let verdict = self.judge.calls(node, &call);
        self.judged(verdict);
        let (member, life) = (endpoint.0, self.nodes[node].life);
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        process.calls.insert(id, OpenCall { member });
        let due = self.nodes[node].clock.reading(self.now).boot.after(timeout);
        let due = self.nodes[node].clock.true_time(due);
        self.at(due, Happening::CallTimesOut { node, life, op: id });
        if call == Call::Confirm
            && self.control == Some(Control::ConfirmBeside)
            && self.answers_from_beside(node, member, id)
        {
            return;
        }
        let identity = self.nodes[node].identity.clone();
        let asked = Asked::Call { identity, call };
        if let Some(later) = self.network.repeats(self.now, node, member, timeout) {
            let again = self.takes_off(node, member, Waiting::Nobody, Cargo::Asked(asked.clone()));
            self.after(later, Happening::Reaches(again));
        }
        let ticket = self.takes_off(node, member, Waiting::Call(id), Cargo::Asked(asked));
        let delay = self.network.delay(self.now, node, member, Direction::To);
        self.after(delay, Happening::Reaches(ticket));
    }

    pub(super) fn sends_keep_alive(&mut self, node: usize, stream: StreamId, member: usize, lease: LeaseId) {
        if self.control == Some(Control::ConfirmBeside) {
            self.confirms_beside(node, member);
        }
        let delay = self.network.delay(self.now, node, member, Direction::To);
        let at = self.now + delay;
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        let open = OpenStream { member, last_to: 0, last_back: 0, silent: false };
        let open = process.streams.entry(stream).or_insert(open);
        open.last_to = at.max(open.last_to + 1);
        let at = open.last_to;
        let cargo = Cargo::Asked(Asked::KeepAlive { lease });
        let ticket = self.takes_off(node, member, Waiting::Stream(stream), cargo);
        self.at(at, Happening::Reaches(ticket));
    }

    pub(super) fn opens_watch(
        &mut self,
        node: usize,
        watch: WatchId,
        member: usize,
        target: WatchTarget,
        from: Revision,
    ) {
        let on_lock = target == WatchTarget::Lock;
        let ticket = self.takes_off(node, member, Waiting::Watch(watch), Cargo::Watch(target, from));
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        let open = OpenWatch { member, ticket, on_lock, last_back: 0, silent: false, loses_next: false };
        process.watches.insert(watch, open);
        let delay = self.network.delay(self.now, node, member, Direction::To);
        self.after(delay, Happening::Reaches(ticket));
    }

    pub(super) fn closes_watch(&mut self, node: usize, watch: WatchId) {
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        if let Some(open) = process.watches.remove(&watch) {
            self.flights.remove(&open.ticket);
            self.cluster.forget(open.ticket);
        }
    }

    fn takes_off(&mut self, node: usize, member: usize, waiting: Waiting, cargo: Cargo) -> Ticket {
        self.nodes[node].requests += 1;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let life = self.nodes[node].life;
        self.flights.insert(ticket, Flight { node, life, member, waiting, cargo: Some(cargo) });
        ticket
    }

    pub(super) fn reaches(&mut self, ticket: Ticket) {
        let Some(Flight { node, member, waiting, .. }) = self.flights.get(&ticket).cloned() else { return };
        let unary = matches!(waiting, Waiting::Call(_) | Waiting::Nobody | Waiting::Beside(_));
        match self.network.fate(self.now, node, member, Direction::To, unary) {
            Fate::Through if self.cluster.is_running(member) => {}
            Fate::Through | Fate::Refused => return self.is_refused(ticket),
            Fate::Held => {
                self.held.push(Held { node, member, direction: Direction::To, what: Happening::Reaches(ticket) });
                return;
            }
            Fate::Lost => {
                self.flights.remove(&ticket);
                self.falls_silent(node, waiting);
                return;
            }
        }
        let flight = self.flights.get_mut(&ticket).expect("it was looked at");
        match flight.cargo.take().expect("a request arrives once") {
            Cargo::Asked(asked) => self.cluster.ask(self.now, member, ticket, asked),
            Cargo::Watch(target, from) => self.cluster.watch(self.now, member, ticket, target, from),
        }
    }

    /// No connection: whoever waits is told.
    fn is_refused(&mut self, ticket: Ticket) {
        let Some(flight) = self.flights.remove(&ticket) else { return };
        let error = unavailable("connection refused");
        match flight.waiting {
            Waiting::Call(id) => self.tells_soon(flight.node, flight.life, Event::Answered { id, result: Err(error) }),
            Waiting::Stream(stream) => {
                self.tells_soon(flight.node, flight.life, Event::StreamEnded { stream, error });
            }
            Waiting::Watch(watch) => self.tells_soon(flight.node, flight.life, Event::WatchEnded { watch, error }),
            Waiting::Beside(number) => self.beside_answers(flight.node, number, Err(error)),
            Waiting::Nobody => {}
        }
    }

    fn tells_soon(&mut self, node: usize, life: u64, event: Event) {
        let soon = self.dice.nanos(Duration::from_micros(10), LOCALLY);
        self.after(soon, Happening::Tells { node, life, event });
    }

    /// A byte of a connection is lost for good: on what it carried in order nothing arrives any more.
    fn falls_silent(&mut self, node: usize, waiting: Waiting) {
        let Some(process) = &mut self.nodes[node].process else { return };
        match waiting {
            Waiting::Stream(stream) => {
                if let Some(open) = process.streams.get_mut(&stream) {
                    open.silent = true;
                }
            }
            Waiting::Watch(watch) => {
                if let Some(open) = process.watches.get_mut(&watch) {
                    open.silent = true;
                }
            }
            Waiting::Call(_) | Waiting::Beside(_) | Waiting::Nobody => {}
        }
    }

    // ---- on the way back

    /// What the members have said since, and what became of the lock.
    pub(super) fn hear_the_cluster(&mut self) {
        while let Some(output) = self.cluster.poll_output() {
            self.member_says(output);
        }
        if self.cluster.lock() != self.known_lock.as_ref() {
            self.known_lock = self.cluster.lock().cloned();
            let verdict = self.judge.lock_changes(self.now, self.known_lock.as_ref(), &self.nodes);
            let told = match &self.known_lock {
                Some(lock) => {
                    let lease = lock.lease.map_or("no lease".to_owned(), |lease| format!("lease {:x}", lease.0));
                    let put = if lock.mod_revision == lock.create_revision { "" } else { ", put again" };
                    format!("etcd: the lock is {}'s, {}, {lease}{put}", lock.holder, lock.create_revision)
                }
                None => "etcd: the lock is free".to_owned(),
            };
            self.note(told);
            self.judged(verdict);
        }
    }

    fn member_says(&mut self, output: Output) {
        let (ticket, over) = match &output {
            Output::Answered { ticket, .. } | Output::KeptAlive { ticket, .. } | Output::StreamEnded { ticket, .. } => {
                (*ticket, true)
            }
            Output::WatchEnded { ticket, .. } => (*ticket, true),
            Output::WatchCreated { ticket, .. } | Output::WatchChanged { ticket, .. } => (*ticket, false),
        };
        let Some(flight) = self.flights.get(&ticket).cloned() else { return };
        if over {
            self.flights.remove(&ticket);
        }
        let what = match (flight.waiting, output) {
            (Waiting::Call(id), Output::Answered { result, .. }) => What::Event(Event::Answered { id, result }),
            (Waiting::Beside(_), Output::Answered { result, .. }) => What::Beside(result),
            (Waiting::Stream(stream), Output::KeptAlive { header, ttl_seconds, .. }) => {
                What::Event(Event::KeepAliveAnswered { stream, header, ttl_seconds })
            }
            (Waiting::Stream(stream), Output::StreamEnded { error, .. }) => {
                What::Event(Event::StreamEnded { stream, error })
            }
            (Waiting::Watch(watch), Output::WatchCreated { header, .. }) => {
                What::Event(Event::WatchCreated { watch, header })
            }
            (Waiting::Watch(watch), Output::WatchChanged { header, change, .. }) => {
                What::Event(Event::WatchChanged { watch, header, change })
            }
            (Waiting::Watch(watch), Output::WatchEnded { error, .. }) => {
                What::Event(Event::WatchEnded { watch, error })
            }
            (Waiting::Nobody, _) => return,
            (waiting, output) => unreachable!("{waiting:?} is answered with {output:?}"),
        };
        let Flight { node, life, member, waiting, .. } = flight;
        if matches!(waiting, Waiting::Call(_)) && self.network.breaks() {
            self.resets(node, member);
        }
        self.travels_back(Homeward { node, life, member, waiting, what });
    }

    fn travels_back(&mut self, homeward: Homeward) {
        let Homeward { node, member, waiting, .. } = homeward;
        let mut at = self.now + self.network.delay(self.now, node, member, Direction::Back);
        let same_life = self.nodes[node].life == homeward.life;
        if let Some(process) = self.nodes[node].process.as_mut().filter(|_| same_life) {
            let last_back = match waiting {
                Waiting::Stream(stream) => process.streams.get_mut(&stream).map(|open| &mut open.last_back),
                Waiting::Watch(watch) => process.watches.get_mut(&watch).map(|open| &mut open.last_back),
                Waiting::Call(_) | Waiting::Beside(_) | Waiting::Nobody => None,
            };
            if let Some(last_back) = last_back {
                at = at.max(*last_back + 1);
                *last_back = at;
            }
        }
        self.at(at, Happening::Returns(homeward));
    }

    pub(super) fn returns(&mut self, homeward: Homeward) {
        let Homeward { node, life, member, waiting, .. } = homeward;
        if self.nodes[node].life != life {
            return;
        }
        let unary = matches!(waiting, Waiting::Call(_) | Waiting::Beside(_));
        match self.network.fate(self.now, node, member, Direction::Back, unary) {
            Fate::Through => {}
            Fate::Held => {
                let what = Happening::Returns(homeward);
                self.held.push(Held { node, member, direction: Direction::Back, what });
                return;
            }
            // Whoever waits was told when connections began to be refused, or hears nothing.
            Fate::Refused | Fate::Lost => return self.falls_silent(node, waiting),
        }
        if self.swallows(node, waiting, &homeward.what) {
            return;
        }
        match homeward.what {
            What::Event(event) => self.tells(node, life, event),
            What::Beside(result) => {
                if let Waiting::Beside(number) = waiting {
                    self.beside_answers(node, number, result);
                }
            }
        }
    }

    /// Whether what it is for is silently dead, or loses just this.
    fn swallows(&mut self, node: usize, waiting: Waiting, what: &What) -> bool {
        let Some(process) = &mut self.nodes[node].process else { return true };
        match waiting {
            Waiting::Stream(stream) => process.streams.get(&stream).is_some_and(|open| open.silent),
            Waiting::Watch(watch) => process.watches.get_mut(&watch).is_some_and(|open| {
                let change = matches!(what, What::Event(Event::WatchChanged { .. }));
                open.silent || change && std::mem::take(&mut open.loses_next)
            }),
            Waiting::Call(_) | Waiting::Beside(_) | Waiting::Nobody => false,
        }
    }

    pub(super) fn call_times_out(&mut self, node: usize, life: u64, op: OpId) {
        let message = "no answer within the timeout".into();
        let error = CallError { kind: CallErrorKind::Timeout, message };
        self.tells(node, life, Event::Answered { id: op, result: Err(error) });
    }

    // ---- connections

    /// The connection breaks, and both ends are told: what is open on it ends. Requests on their way may still arrive.
    pub(crate) fn resets(&mut self, node: usize, member: usize) {
        self.held.retain(|held| held.node != node || held.member != member || held.direction == Direction::To);
        let life = self.nodes[node].life;
        let Some(process) = &self.nodes[node].process else { return };
        let error = || unavailable("connection reset");
        let streams = process.streams.iter().filter(|(_, open)| open.member == member);
        let calls = process.calls.iter().filter(|(_, open)| open.member == member);
        let watches = process.watches.iter().filter(|(_, open)| open.member == member);
        let tickets: Vec<Ticket> = watches.clone().map(|(_, open)| open.ticket).collect();
        let ends: Vec<Event> = streams
            .map(|(stream, _)| Event::StreamEnded { stream: *stream, error: error() })
            .chain(calls.map(|(id, _)| Event::Answered { id: *id, result: Err(error()) }))
            .chain(watches.map(|(watch, _)| Event::WatchEnded { watch: *watch, error: error() }))
            .collect();
        for ticket in tickets {
            self.flights.remove(&ticket);
            self.cluster.forget(ticket);
        }
        ends.into_iter().for_each(|event| self.tells_soon(node, life, event));
    }

    /// A cut begins: if it is still there when pings should have come back, the connection is given up.
    pub(crate) fn pings_begin_to_fail(&mut self, node: usize, member: usize) {
        let later = self.dice.nanos(PINGS_FAIL_LEAST, PINGS_FAIL_MOST);
        self.after(later, Happening::PingsFail { node, member, cut_at: self.now });
    }

    pub(super) fn pings_fail(&mut self, node: usize, member: usize, cut_at: u64) {
        let cut = |direction| self.network.was_cut_since(self.now, cut_at, node, member, direction);
        if cut(Direction::To) || cut(Direction::Back) || self.cluster.is_stopped(member) {
            self.resets(node, member);
        }
    }

    /// A condition of a link has ended: what nothing holds back any more comes in a burst.
    pub(super) fn link_turns(&mut self, node: usize, member: usize) {
        self.network.tidy(self.now, node, member);
        let free = |direction| !self.network.is_cut(self.now, node, member, direction);
        let (to, back) = (free(Direction::To), free(Direction::Back));
        let mut burst = Vec::new();
        for held in std::mem::take(&mut self.held) {
            let free = if held.direction == Direction::To { to } else { back };
            if held.node == node && held.member == member && free {
                burst.push(held.what)
            } else {
                self.held.push(held)
            }
        }
        for (place, what) in burst.into_iter().enumerate() {
            self.after(BURST_GAP * (1 + place as u64), what);
        }
    }

    // ---- the control that confirms beside the keep-alive

    fn confirms_beside(&mut self, node: usize, member: usize) {
        self.tickets += 1;
        let number = self.tickets;
        let identity = self.nodes[node].identity.clone();
        let cargo = Cargo::Asked(Asked::Call { identity, call: Call::Confirm });
        let ticket = self.takes_off(node, member, Waiting::Beside(number), cargo);
        let delay = self.network.delay(self.now, node, member, Direction::To);
        self.after(delay, Happening::Reaches(ticket));
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        process.beside.insert(member, Beside { number, answer: None, wanted_as: None });
    }

    /// The core asks for the confirm that has left already.
    fn answers_from_beside(&mut self, node: usize, member: usize, op: OpId) -> bool {
        let life = self.nodes[node].life;
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        let Some(beside) = process.beside.get_mut(&member) else { return false };
        match beside.answer.take() {
            Some(result) => self.tells_soon(node, life, Event::Answered { id: op, result }),
            None => beside.wanted_as = Some(op),
        }
        true
    }

    fn beside_answers(&mut self, node: usize, number: u64, result: Result<bellwether::election::Answer, CallError>) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(beside) = process.beside.values_mut().find(|beside| beside.number == number) else { return };
        match beside.wanted_as.take() {
            Some(id) => self.tells_soon(node, life, Event::Answered { id, result }),
            None => beside.answer = Some(result),
        }
    }
}
