//! In line for the lock: registering, claiming, and what to do with a lock that carries this candidate's
//! lease while it does not lead.

use std::time::Duration;

use super::Candidate;
use crate::election::asks::Sent;
use crate::election::effect::{Call, CandidateRecord, Operation};
use crate::election::event::{CandidateKey, Header, LockKey};
use crate::election::ids::{LeaseId, Term};
use crate::election::instant::{Instant, Reading, WallTime};
use crate::election::lease::Lease;
use crate::election::notice::{ClaimResult, Notice, Reason};
use crate::election::sight::{Ahead, Registration};
use crate::election::state::State;

/// Who is not the heir lets it go first for a time between these two: longer than a claim takes on a
/// loaded etcd (p99 12 ms on three members), and spread so that the others do not come all at once.
const CLAIM_DELAY_LEAST: Duration = Duration::from_millis(100);
const CLAIM_DELAY_MOST: Duration = Duration::from_millis(200);
/// After the lock has been free this long, nobody else wants it: a cool-down ends.
const FREE_FOR_ANYONE: Duration = Duration::from_secs(1);

impl Candidate {
    pub(super) fn advance_registration(&mut self, now: Reading) {
        if let Registration::Taken { retry_at, .. } = self.registration
            && now.boot >= retry_at
        {
            self.registration = Registration::None;
        }
        match self.state {
            State::Starting | State::Standby | State::Leading { .. } | State::Jeopardy { .. } => {}
            State::StandingDown(_) | State::Stopped => return,
        }
        if let Some(lease) = self.held().map(|lease| lease.id) {
            self.take_place(now, lease);
        }
        if self.state == State::Starting && self.may_stand_by() {
            self.enter(now);
        }
    }

    fn take_place(&mut self, now: Reading, lease: LeaseId) {
        match self.registration {
            Registration::None if self.is_resuming() => {
                if let Some(call) = self.resume_call(now, lease).filter(|_| !self.asks.is_asking(Operation::Resume)) {
                    self.ask(now, call);
                }
            }
            Registration::None if self.is_in_line() && !self.asks.is_asking(Operation::Register) => {
                self.ask(now, Call::Register { lease, record: self.record(now, None) });
            }
            Registration::Leaving { create_revision } => {
                self.ask(now, Call::Unregister { create_revision });
            }
            Registration::None | Registration::Registered { .. } | Registration::Taken { .. } => {}
        }
    }

    /// Whether this candidate belongs in the line: it may lead, or does.
    pub(super) const fn is_in_line(&self) -> bool {
        match self.state {
            State::Starting | State::Standby => self.may_lead(),
            State::Leading { .. } | State::Jeopardy { .. } => true,
            State::StandingDown(_) | State::Stopped => false,
        }
    }

    /// Gives up the place in the line, to register anew at its end.
    pub(super) fn leave_place(&mut self) {
        if let Registration::Registered { create_revision } = self.registration {
            self.registration = Registration::Leaving { create_revision };
        }
    }

    /// In line if it belongs there, the lock read, and every endpoint heard of or given up on: a list that names two
    /// clusters is found out before it can elect two leaders.
    fn may_stand_by(&self) -> bool {
        let placed = match self.registration {
            Registration::Registered { .. } => true,
            Registration::None => !self.may_lead(),
            Registration::Taken { .. } | Registration::Leaving { .. } => false,
        };
        placed && !self.waits_for_inheritance() && self.sight.is_known() && self.unprobed == 0
    }

    pub(super) const fn record(&self, now: Reading, leading_since: Option<WallTime>) -> CandidateRecord {
        let nonce = Some(self.settings.nonce);
        CandidateRecord { epoch: self.settings.epoch, registered_at: now.wall, leading_since, nonce }
    }

    pub(super) fn on_registered(&mut self, now: Reading, lease: LeaseId, key: &CandidateKey) {
        if self.held().is_none_or(|held| held.id != lease) {
            return;
        }
        if key.lease == Some(lease) {
            self.registration = Registration::Registered { create_revision: key.create_revision };
            self.forget_place();
        } else {
            // An earlier life of this candidate is gone when its lease expires; another pod is not.
            let retry_at = now.boot.after(self.settings.timings.keepalive_interval());
            self.registration = Registration::Taken { lease: key.lease, retry_at };
            self.tell(Notice::IdentityTaken { lease: key.lease });
        }
    }

    pub(super) fn advance_campaign(&mut self, now: Reading) {
        self.settle_unled(now);
        if self.claim_at().is_some_and(|at| now.boot >= at) && !self.asks.is_asking(Operation::Claim) {
            let lease = self.held().expect("only a holder of a lease may claim").id;
            self.ask(now, Call::Claim { lease, record: self.record(now, Some(now.wall)) });
        } else if self.sight.free_since().is_some() && self.claim_delay.is_none() {
            self.claim_delay = Some(self.random.between(CLAIM_DELAY_LEAST, CLAIM_DELAY_MOST));
        }
    }

    /// When to claim the lock; `None` when this candidate may not.
    fn claim_at(&self) -> Option<Instant> {
        let may = self.state == State::Standby
            && self.bar.is_none()
            && self.may_lead()
            && !self.work.is_there()
            && matches!(self.registration, Registration::Registered { .. })
            && self.held().is_some_and(|lease| lease.kept.is_some());
        let free_since = self.sight.free_since().filter(|_| may)?;
        let in_turn = match self.ahead {
            Ahead::Nobody => free_since,
            Ahead::Unknown | Ahead::Candidate { .. } => free_since.after(self.claim_delay?),
        };
        let back = self.stay_away_until.map(|until| until.min(free_since.after(FREE_FOR_ANYONE)));
        Some(back.map_or(in_turn, |back| back.max(in_turn)))
    }

    pub(super) fn on_claimed(
        &mut self,
        now: Reading,
        lease: LeaseId,
        sent: &Sent,
        header: Header,
        won: bool,
        lock: LockKey,
    ) {
        let holds = lock.lease == Some(lease) && self.held().is_some_and(|held| held.id == lease);
        self.tell(Notice::ClaimAnswered(match (won, holds) {
            (true, _) => ClaimResult::Won,
            (false, true) => ClaimResult::HeldAlready,
            (false, false) => ClaimResult::Lost,
        }));
        let token = lock.create_revision;
        self.take_in_lock(now, header.revision, Some(lock));
        if self.state != State::Standby || !holds {
            return;
        }
        self.stay_away_until = None;
        // An earlier claim of this process has made the key, or that of another one that holds the same lease: the next
        // confirmed renewal, which reads whose it is, decides.
        if !won {
            return;
        }
        // The watch may already have told what became of the key since.
        if self.adoptable().is_none_or(|lock| lock.create_revision != token) {
            return;
        }
        // The keep-alive before the claim counts if its answer had arrived before the claim left, and no
        // etcd leader was elected in between. Otherwise the next confirmed renewal decides.
        let kept = self.held().and_then(|lease| lease.kept);
        if let Some(kept) = kept
            && kept.arrived <= sent.at.boot
            && kept.is_of_raft_term(header.raft_term)
        {
            self.extend_until(kept);
        }
        if self.held().and_then(Lease::right).is_some_and(|right| !right.passed(now)) {
            self.lead(now, Term { epoch: self.settings.epoch, token }, Reason::Claimed);
        }
    }

    pub(super) fn lead(&mut self, now: Reading, term: Term, reason: Reason) {
        // How long it could not take a lock that was free is no measure of a failover.
        let freed_at =
            self.sight.freed_at().filter(|freed_at| self.gated_at.is_none_or(|gated_at| *freed_at > gated_at));
        if let Some(freed_at) = freed_at {
            self.tell(Notice::TookOver(now.boot.since(freed_at)));
        }
        self.asks.give_up(Operation::Claim);
        self.stay_away_until = None;
        self.unled_since = None;
        match self.state {
            State::Starting => self.transition(reason, |state| state.inherit(term)),
            State::Standby
            | State::Leading { .. }
            | State::Jeopardy { .. }
            | State::StandingDown(_)
            | State::Stopped => {
                self.transition(reason, |state| state.lead(term));
            }
        }
    }

    /// The lock key, if it carries this candidate's lease, as its own claim made it, and it may lead: who
    /// stays away may take what its own claim brings, which it sends only when nobody else wanted the lock.
    /// A key that it has begun to delete it must not lead by: the delete may be applied at any time.
    pub(super) fn adoptable(&self) -> Option<&LockKey> {
        let lease = self.held()?;
        let lock = self.sight.carrying(lease.id)?;
        if self.asks.is_asking(Operation::DeleteLock) {
            return None;
        }
        let staying_away = self.stay_away_until.is_some() && !self.asks.is_asking(Operation::Claim);
        (self.bar.is_none() && self.may_lead() && !staying_away && lock.is_untouched()).then_some(lock)
    }

    /// My lease on the lock while I do not lead (a claim that was thought lost, a release that was):
    /// adopted by the next confirmed renewal if I may lead, else deleted; after T of neither the lease is
    /// revoked. Otherwise nobody would ever lead again. Not before the answers given out have expired: a key that
    /// somebody has overwritten still protects them.
    fn settle_unled(&mut self, now: Reading) {
        if self.stay_away_until.is_some_and(|until| now.boot >= until) {
            self.stay_away_until = None;
        }
        if self.answers_hold_until.is_some_and(|until| now.boot >= until) {
            self.answers_hold_until = None;
        }
        let Some(since) = self.unled_since else { return };
        if now.boot >= since.after(self.lease_ttl()) {
            match self.state {
                State::Jeopardy { .. } => {
                    self.give_lease_up(now);
                    self.transition(Reason::LeaseLost, State::lose);
                }
                State::Standby => self.give_lease_up(now),
                State::Starting | State::Leading { .. } | State::StandingDown(_) | State::Stopped => {}
            }
            return;
        }
        if self.state == State::Standby
            && self.adoptable().is_none()
            && !self.holds_for_answers()
            && let Some(lease) = self.held().map(|lease| lease.id)
            && let Some(lock) = self.sight.carrying(lease)
        {
            let create_revision = lock.create_revision;
            self.ask(now, Call::DeleteLock { create_revision, lease });
        }
    }

    /// Revokes it, or lets it expire while something still runs in the name of the term.
    fn give_lease_up(&mut self, now: Reading) {
        if self.work.is_there() { self.drop_lease() } else { self.revoke_lease(now) }
    }

    /// Whether the lock still carries the lease of a lead that has ended, and answers given out then may still be
    /// relied on, or something that ran in its name is still there: it must not be let go before.
    pub(super) fn holds_for_answers(&self) -> bool {
        self.is_on_lock() && (self.answers_hold_until.is_some() || self.work.is_there())
    }

    /// Whether the lock key hangs on this candidate's lease, as far as it is known.
    pub(super) fn is_on_lock(&self) -> bool {
        self.held().is_some_and(|lease| self.sight.carrying(lease.id).is_some())
    }

    pub(super) fn campaign_deadline(&self) -> Option<Instant> {
        let claim = self.claim_at().filter(|_| !self.asks.is_asking(Operation::Claim));
        let retry = match self.registration {
            Registration::Taken { retry_at, .. } => Some(retry_at),
            Registration::None | Registration::Registered { .. } | Registration::Leaving { .. } => None,
        };
        let unled = self.unled_since.map(|since| since.after(self.lease_ttl()));
        // A leader's moves on with every turn.
        let over = !matches!(self.state, State::Leading { .. });
        let answers = self.answers_hold_until.filter(|_| over && self.is_on_lock());
        claim.into_iter().chain(retry).chain(unled).chain(answers).chain(self.stay_away_until).min()
    }
}
