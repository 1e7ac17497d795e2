//! What travels between candidates and members.

use std::time::Duration;

use bellwether::election::{
    Answer, Call, CallError, CallErrorKind, Event, LeaseId, OpId, Request, Revision, StreamId, WatchId, WatchTarget,
};

use super::{Happening, World};
use crate::etcd::{Asked, Output, Ticket};
use crate::network::{Direction, Fate};
use crate::node::{OpenCall, OpenStream, OpenWatch};
use crate::scenario::Control;

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
pub(super) enum Cargo {
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
    Beside(Result<Answer, CallError>),
}

/// What a link holds back.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) node: usize,
    pub(super) member: usize,
    pub(super) direction: Direction,
    pub(super) what: Happening,
}

pub(crate) fn unavailable(message: &str) -> CallError {
    CallError { kind: CallErrorKind::Unavailable, message: message.into() }
}

impl World {
    // ---- on the way to a member

    pub(super) fn sends_call(&mut self, node: usize, request: Request) {
        let Request { id, endpoint, timeout, call } = request;
        let verdict = self
            .judge
            .calls(node, &call)
            .and_then(|()| self.judge.calls_in_company(&self.nodes, node, &call, self.now));
        self.judged(verdict);
        let (member, life) = (endpoint.0, self.nodes[node].life);
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        process.calls.insert(id, OpenCall { member });
        let due = self.nodes[node].clock.reading(self.now).boot.after(timeout);
        let due = self.nodes[node].clock.true_time(due);
        self.at(due, Happening::CallTimesOut { node, life, op: id });
        if call == Call::Confirm {
            self.confirm_leaves(node, member);
        }
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
        self.keep_alive_leaves(node);
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

    pub(super) fn takes_off(&mut self, node: usize, member: usize, waiting: Waiting, cargo: Cargo) -> Ticket {
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

    pub(super) fn tells_soon(&mut self, node: usize, life: u64, event: Event) {
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
        if self.cluster.elections() != self.elections {
            self.elections = self.cluster.elections();
            if let Some(member) = self.cluster.leader() {
                self.note(format!("etcd: member {member} leads the others"));
            }
        }
        if self.cluster.lock() != self.known_lock.as_ref() {
            self.known_lock = self.cluster.lock().cloned();
            let verdict = self.judge.lock_changes(self.now, self.known_lock.as_ref(), self.cluster.stale_revokes());
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
}
