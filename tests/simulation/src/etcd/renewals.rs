//! Keep-alives: answered by who leads, or believes to; passed on by the others. They are not in the log.

use bellwether::election::{CallError, CallErrorKind, Header, LeaseId};

use super::agenda::Step;
use super::lessor::Renewed;
use super::members::{Part, Renewal};
use super::{Behaviour, Cluster, MILLISECOND, Output, Ticket, error, nanos};

/// How long a server waits before it tries again to pass a keep-alive on, or to answer it.
const AGAIN: u64 = 50 * MILLISECOND;

impl Cluster {
    /// One in progress for each lease, which is what a stream does.
    pub(super) fn take_renewal(&mut self, member: usize, ticket: Ticket, lease: LeaseId) {
        // A new stream at a member without a leader is refused, one that is open is not, for a while.
        if self.members[member].lead.is_none() && self.dice.one_in(2) {
            self.end_stream(ticket, error(CallErrorKind::Unavailable, "etcdserver: no leader"));
            return;
        }
        let id = self.next_id();
        let line = self.members[member].renewals.entry(lease).or_default();
        line.push_back(Renewal { id, ticket, header: None });
        if line.len() == 1 {
            self.begin_renewal(member, lease);
        }
    }

    fn begin_renewal(&mut self, member: usize, lease: LeaseId) {
        let header = self.header(member);
        let line = self.members[member].renewals.get_mut(&lease);
        let Some(first) = line.and_then(|line| line.front_mut()) else {
            self.members[member].renewals.remove(&lease);
            return;
        };
        first.header = Some(header);
        let id = first.id;
        self.agenda.add(self.now + self.request_timeout(), Step::RenewalTimedOut { member, lease, id });
        self.try_renewal(member, lease, id);
    }

    fn in_progress(&self, member: usize, lease: LeaseId) -> Option<&Renewal> {
        self.members[member].renewals.get(&lease)?.front().filter(|first| first.header.is_some())
    }

    /// The lease is gone from here: who waits for that need not wait longer.
    pub(super) fn turn_to_renewal(&mut self, member: usize, lease: LeaseId) {
        if let Some(id) = self.in_progress(member, lease).map(|first| first.id)
            && self.members[member].lessor.primary
        {
            self.try_renewal(member, lease, id);
        }
    }

    /// Answers the keep-alive in progress, passes it on, or tries again later.
    pub(super) fn try_renewal(&mut self, member: usize, lease: LeaseId, id: u64) {
        if self.in_progress(member, lease).is_none_or(|first| first.id != id) {
            return;
        }
        let me = &self.members[member];
        if me.part == Part::Leader {
            self.renew_here(member, lease, id);
            return;
        }
        let again = Step::RenewalTried { member, lease, id };
        match me.lead {
            None => self.agenda.add(self.now + nanos(self.options.election_timeout), again),
            Some(to) if !self.members[to].is_running() => self.agenda.add(self.now + AGAIN, again),
            Some(to) => {
                // Through a cut it never arrives, and nobody says so.
                if self.gets_through(member, to) {
                    let at = self.now + self.hop();
                    self.agenda.add(at, Step::RenewalForwarded { to, asker: member, lease, id });
                }
            }
        }
    }

    fn renew_here(&mut self, member: usize, lease: LeaseId, id: u64) {
        if !self.is_sure_to_lead(member) {
            // It waits for the others, until its own timeout.
            self.agenda.add(self.now + AGAIN, Step::RenewalTried { member, lease, id });
            return;
        }
        match self.renew(member, lease) {
            Renewed::For(seconds) => self.finish_renewal(member, lease, seconds),
            Renewed::NotFound => self.finish_renewal(member, lease, 0),
            Renewed::Expired | Renewed::NotPrimary => {
                self.agenda.add(self.now + AGAIN, Step::RenewalTried { member, lease, id });
            }
        }
    }

    /// A current server whose raft does not move, or that has just been asleep, asks the majority first.
    fn is_sure_to_lead(&self, member: usize) -> bool {
        let me = &self.members[member];
        match self.options.behaviour {
            Behaviour::WithStaleLeases => true,
            Behaviour::Current => !me.is_stuck() && (!me.doubtful || self.leads_a_majority(member)),
        }
    }

    /// Passed on to whoever its sender believes to lead. Servers of every age take it from there without a question
    /// to the majority.
    pub(super) fn renewal_forwarded(&mut self, to: usize, asker: usize, lease: LeaseId, id: u64) {
        let seconds = match self.renew(to, lease) {
            Renewed::For(seconds) => Some(seconds),
            Renewed::NotFound => Some(0),
            Renewed::Expired | Renewed::NotPrimary => None,
        };
        if self.gets_through(to, asker) {
            let at = self.now + self.hop();
            self.agenda.add(at, Step::RenewalReturned { asker, from: to, lease, id, seconds });
        }
    }

    pub(super) fn renewal_returned(
        &mut self,
        (asker, from): (usize, usize),
        lease: LeaseId,
        id: u64,
        seconds: Option<i64>,
    ) {
        if self.in_progress(asker, lease).is_none_or(|first| first.id != id) || !self.gets_through(from, asker) {
            return;
        }
        match seconds {
            Some(seconds) => self.finish_renewal(asker, lease, seconds),
            None => self.agenda.add(self.now + AGAIN, Step::RenewalTried { member: asker, lease, id }),
        }
    }

    pub(super) fn renewal_timed_out(&mut self, member: usize, lease: LeaseId, id: u64) {
        if self.in_progress(member, lease).is_none_or(|first| first.id != id) {
            return;
        }
        let me = &self.members[member];
        let why = match (me.part, me.lead) {
            (Part::Leader, _) => not_primary(),
            (Part::Follower, None) => error(CallErrorKind::Unavailable, "etcdserver: no leader"),
            (Part::Follower, Some(_)) => error(CallErrorKind::Unavailable, "etcdserver: request timed out"),
        };
        self.give_up_renewal(member, lease, &why);
    }

    fn take_first(&mut self, member: usize, lease: LeaseId) -> Option<(Ticket, Header)> {
        let first = self.members[member].renewals.get_mut(&lease)?.pop_front()?;
        Some((first.ticket, first.header.expect("filled when it came first")))
    }

    fn finish_renewal(&mut self, member: usize, lease: LeaseId, ttl_seconds: i64) {
        if let Some((ticket, header)) = self.take_first(member, lease) {
            self.outputs.push_back(Output::KeptAlive { ticket, header, ttl_seconds });
        }
        self.begin_renewal(member, lease);
    }

    /// The stream ends, and with it who is next in line.
    fn give_up_renewal(&mut self, member: usize, lease: LeaseId, why: &CallError) {
        for renewal in self.members[member].renewals.remove(&lease).unwrap_or_default() {
            self.end_stream(renewal.ticket, why.clone());
        }
    }

    pub(super) fn end_stream(&mut self, ticket: Ticket, error: CallError) {
        self.outputs.push_back(Output::StreamEnded { ticket, error });
    }

    /// Takes a keep-alive whose stream is gone out of the line.
    pub(super) fn forget_renewal(&mut self, member: usize, ticket: Ticket) {
        let lines = self.members[member].renewals.iter_mut();
        let mut headless = None;
        for (lease, line) in lines {
            let first = line.front().is_some_and(|first| first.ticket == ticket);
            line.retain(|renewal| renewal.ticket != ticket);
            if first {
                headless = Some(*lease);
            }
        }
        if let Some(lease) = headless {
            self.begin_renewal(member, lease);
        }
    }

    /// The member has been without a leader for too long.
    pub(super) fn end_streams(&mut self, member: usize) {
        let no_leader = error(CallErrorKind::Unavailable, "etcdserver: no leader");
        for ticket in std::mem::take(&mut self.members[member].watches).into_keys() {
            self.outputs.push_back(Output::WatchEnded { ticket, error: no_leader.clone() });
        }
        let leases: Vec<LeaseId> = self.members[member].renewals.keys().copied().collect();
        for lease in leases {
            self.give_up_renewal(member, lease, &no_leader);
        }
    }
}

/// What a server that leads no more says once its timeout is over.
fn not_primary() -> CallError {
    error(CallErrorKind::Unavailable, "not a primary lessor")
}
