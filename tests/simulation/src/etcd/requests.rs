//! Unary calls: what goes through the log, what is read, what is answered on the spot.

use bellwether::election::{Answer, Body, Call, CallError, CallErrorKind, Header, Identity, RaftTerm};

use super::agenda::Step;
use super::log::{Origin, Proposal};
use super::members::{Part, Read, What};
use super::store::{Command, Refusal};
use super::{Asked, Behaviour, Cluster, Output, SECOND, Ticket, error, nanos};

/// An index to read at is asked for again after this long.
const READ_AGAIN: u64 = SECOND / 2;

impl Cluster {
    /// A request reaches a running process.
    pub(super) fn take(&mut self, member: usize, ticket: Ticket, asked: Asked) {
        match asked {
            Asked::KeepAlive { lease } => self.take_renewal(member, ticket, lease),
            Asked::Call { identity, call } => {
                if self.members[member].lead.is_none() {
                    // Every request says that it requires a leader.
                    self.answer(ticket, Err(error(CallErrorKind::Unavailable, "etcdserver: no leader")));
                } else {
                    self.take_call(member, ticket, &identity, call);
                }
            }
        }
    }

    fn take_call(&mut self, member: usize, ticket: Ticket, identity: &Identity, call: Call) {
        let identity = identity.clone();
        match call {
            Call::Probe => self.probe(member, ticket),
            Call::Observe { before } => self.read(member, ticket, What::Observation(before)),
            Call::Confirm => self.read(member, ticket, What::LockAndCandidate(identity)),
            Call::Resume { lease, token, record } => {
                self.write(member, ticket, Command::Resume { identity, lease, token, record });
            }
            Call::Grant { lease, ttl } => self.write(member, ticket, Command::Grant { lease, ttl }),
            Call::Register { lease, record } => {
                self.write(member, ticket, Command::Register { identity, lease, record });
            }
            Call::Unregister { create_revision } => {
                self.write(member, ticket, Command::Unregister { identity, create_revision });
            }
            Call::Claim { lease, record } => self.write(member, ticket, Command::Claim { identity, lease, record }),
            Call::DeleteLock { create_revision, lease } => {
                self.write(member, ticket, Command::DeleteLock { create_revision, lease });
            }
            Call::Revoke { lease } => self.write(member, ticket, Command::Revoke { lease, stale: false }),
        }
    }

    pub(super) fn header(&self, member: usize) -> Header {
        let me = &self.members[member];
        Header { cluster: self.id, member: me.id, revision: me.store.revision, raft_term: RaftTerm(me.applied_term) }
    }

    pub(super) fn answer(&mut self, ticket: Ticket, result: Result<Answer, CallError>) {
        self.outputs.push_back(Output::Answered { ticket, result });
    }

    fn answer_body(&mut self, member: usize, ticket: Ticket, body: Body) {
        let header = self.header(member);
        self.answer(ticket, Ok(Answer { header, body }));
    }

    /// How long a server waits for the others before it gives up.
    pub(super) fn request_timeout(&self) -> u64 {
        5 * SECOND + 2 * nanos(self.options.election_timeout)
    }

    /// From what this member knows, whether or not it is of the majority.
    fn probe(&mut self, member: usize, ticket: Ticket) {
        let version = match self.options.behaviour {
            Behaviour::WithStaleLeases => "3.4.23",
            Behaviour::Current => "3.6.8",
        };
        let no_space = self.members[member].store.no_space;
        self.answer_body(member, ticket, Body::Probed { version: version.to_owned(), no_space });
    }

    fn write(&mut self, member: usize, ticket: Ticket, command: Command) {
        let mut over_quota = false;
        if self.is_full && command.takes_space() {
            let alarm = Command::Alarm { raised: true };
            let knows = self.members[member].store.no_space;
            over_quota = !knows && self.dice.one_in(4);
            if !knows {
                self.propose(member, Proposal { command: alarm, origin: None, over_quota: false });
            }
            if !over_quota {
                self.answer(ticket, Err(no_space()));
                return;
            }
        }
        let id = self.next_id();
        self.members[member].waiting.insert(id, ticket);
        self.agenda.add(self.now + self.request_timeout(), Step::ProposalTimedOut { member, id });
        let proposal = Proposal { command, origin: Some(Origin { member, id }), over_quota };
        // Let in before the alarm: it stands before it in the log.
        self.propose(member, proposal);
    }

    /// What the member that was asked says, once it has applied the entry.
    pub(super) fn answer_applied(
        &mut self,
        member: usize,
        ticket: Ticket,
        command: &Command,
        result: Result<Body, Refusal>,
    ) {
        match (result, command) {
            (Ok(body), _) => self.answer_body(member, ticket, body),
            (Err(Refusal::LeaseExists), Command::Grant { lease, .. }) => {
                self.read(member, ticket, What::Lifetime(*lease));
            }
            (Err(Refusal::LeaseNotFound), Command::Revoke { .. }) => self.read(member, ticket, What::Nothing),
            (Err(Refusal::LeaseNotFound), _) => {
                self.answer(ticket, Err(error(CallErrorKind::LeaseNotFound, "etcdserver: requested lease not found")));
            }
            (Err(Refusal::NoSpace), _) => self.answer(ticket, Err(no_space())),
            (Err(Refusal::LeaseExists | Refusal::NotToCompact), _) => {
                self.answer(ticket, Err(error(CallErrorKind::Other, "refused")));
            }
        }
    }

    pub(super) fn proposal_timed_out(&mut self, member: usize, id: u64) {
        let me = &mut self.members[member];
        if !me.is_stuck() {
            me.blocked.retain(|proposal| proposal.origin.is_none_or(|origin| origin.id != id));
        }
        if let Some(ticket) = me.waiting.remove(&id) {
            self.answer(ticket, Err(timed_out()));
        }
    }

    fn read(&mut self, member: usize, ticket: Ticket, what: What) {
        let id = self.next_id();
        self.members[member].reads.insert(id, Read { ticket, what, index: None });
        self.agenda.add(self.now + self.request_timeout(), Step::ReadTimedOut { member, read: id });
        self.agenda.add(self.now + READ_AGAIN, Step::ReadRetried { member, read: id });
        self.ask_index(member, id);
    }

    /// Asks the leader up to where the log was committed when it was asked.
    fn ask_index(&mut self, asker: usize, read: u64) {
        let me = &self.members[asker];
        if me.part == Part::Leader {
            self.read_asked(asker, asker, read);
        } else if let Some(leader) = me.lead
            && self.reaches(asker, leader)
        {
            let at = self.now + self.hop();
            self.agenda.add(at, Step::ReadAsked { leader, asker, read });
        }
    }

    /// A leader knows what is committed once its own first entry is.
    pub(super) fn read_asked(&mut self, leader: usize, asker: usize, read: u64) {
        let me = &self.members[leader];
        let knows = me.part == Part::Leader && me.applied_term == me.term && me.is_moving();
        if knows && self.gets_through(asker, leader) {
            let (term, index) = (me.term, me.applied);
            let at = self.now + self.hop();
            self.agenda.add(at, Step::ReadConfirmed { leader, term, index, asker, read });
        }
    }

    pub(super) fn read_confirmed(&mut self, (leader, term): (usize, u64), asker: usize, read: u64, index: u64) {
        if self.members[leader].term != term || !self.leads_a_majority(leader) {
            return;
        }
        if asker == leader {
            self.read_indexed(asker, read, index);
        } else {
            let at = self.now + self.hop();
            self.agenda.add(at, Step::ReadIndexed { asker, read, index });
        }
    }

    pub(super) fn read_indexed(&mut self, asker: usize, read: u64, index: u64) {
        if !self.members[asker].is_moving() {
            return;
        }
        if let Some(read) = self.members[asker].reads.get_mut(&read) {
            read.index = Some(index);
        }
        self.answer_reads(asker);
    }

    pub(super) fn read_retried(&mut self, member: usize, read: u64) {
        if self.members[member].reads.get(&read).is_some_and(|read| read.index.is_none()) {
            self.agenda.add(self.now + READ_AGAIN, Step::ReadRetried { member, read });
            self.ask_index(member, read);
        }
    }

    pub(super) fn read_timed_out(&mut self, member: usize, read: u64) {
        if let Some(read) = self.members[member].reads.remove(&read) {
            self.answer(read.ticket, Err(timed_out()));
        }
    }

    /// Answers the reads whose index this member has applied.
    pub(super) fn answer_reads(&mut self, member: usize) {
        let me = &mut self.members[member];
        let applied = me.applied;
        let ready: Vec<u64> =
            me.reads.iter().filter(|(_, it)| it.index.is_some_and(|at| at <= applied)).map(|(id, _)| *id).collect();
        for id in ready {
            if let Some(read) = self.members[member].reads.remove(&id) {
                self.answer_read(member, &read);
            }
        }
    }

    fn answer_read(&mut self, member: usize, read: &Read) {
        let store = &self.members[member].store;
        let body = match &read.what {
            What::LockAndCandidate(identity) => Ok(store.lock_and_writer(identity)),
            What::Observation(before) => Ok(store.observe(*before)),
            What::Nothing => Ok(Body::Gone),
            What::Lifetime(lease) => match store.leases.get(lease) {
                Some(ttl) => Ok(Body::Granted { ttl: *ttl }),
                None => Err(error(CallErrorKind::LeaseNotFound, "the lease expired while it was granted again")),
            },
        };
        match body {
            Ok(body) => self.answer_body(member, read.ticket, body),
            Err(error) => self.answer(read.ticket, Err(error)),
        }
    }
}

fn no_space() -> CallError {
    error(CallErrorKind::NoSpace, "etcdserver: mvcc: database space exceeded")
}

fn timed_out() -> CallError {
    error(CallErrorKind::Unavailable, "etcdserver: request timed out")
}
