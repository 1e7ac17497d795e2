//! Going on with the term of an earlier process of this candidate, and leaving one behind.
//!
//! A process that died leaves a lease that lives on for its TTL, and the lock with it. Whoever comes back in time puts
//! its own nonce into the candidate key, in a transaction that holds only if lock and candidate key still hang on that
//! lease; then a confirmed renewal makes it the leader of the same term. Every confirm reads the nonce, so a process
//! that was replaced finds out with its next one. That the earlier process is dead is for the shell to know: it says
//! [`Inheritance::Resume`] only then.

use super::Candidate;
use crate::election::effect::{Call, Effect, Operation};
use crate::election::event::{CandidateKey, Header, LockKey};
use crate::election::ids::{LeaseId, Nonce, Term};
use crate::election::instant::{Instant, Reading};
use crate::election::lease::{Lease, LeaseState};
use crate::election::notice::{Notice, Reason};
use crate::election::settings::{Inheritance, Memory};
use crate::election::sight::Registration;
use crate::election::state::{StandingDown, State, Step};
use crate::protections::Protections;

/// What is left of an earlier process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Inherited {
    /// Nothing, or nothing any more.
    Nothing,
    /// Which cluster answers is not known yet.
    Waiting(Inheritance),
    /// Its lease is this process's now; whether the lock still hangs on it is being found out.
    Resuming(Memory),
}

impl Inherited {
    pub(super) fn of(inheritance: Inheritance) -> Self {
        match inheritance {
            Inheritance::Nothing => Self::Nothing,
            Inheritance::Resume(_) | Inheritance::Release { .. } => Self::Waiting(inheritance),
        }
    }

    /// What the process before this one remembered, while it is of use.
    pub(super) const fn memory(&self) -> Option<&Memory> {
        match self {
            Self::Waiting(Inheritance::Resume(memory) | Inheritance::Release { memory, .. })
            | Self::Resuming(memory) => Some(memory),
            Self::Waiting(Inheritance::Nothing) | Self::Nothing => None,
        }
    }
}

impl Candidate {
    /// Takes the earlier process's lease over, or gives it back, once it is known whose cluster this is.
    pub(super) fn advance_inheritance(&mut self, now: Reading) {
        self.inherited_answers_until = self.inherited_answers_until.filter(|until| now.boot < *until);
        self.limit_resuming(now);
        let (Inherited::Waiting(inheritance), State::Starting) = (&self.inherited, &self.state) else { return };
        let Some(cluster) = self.endpoints.cluster() else { return };
        let (memory, not_before) = match inheritance {
            Inheritance::Nothing => unreachable!("nothing is not waited for"),
            Inheritance::Resume(memory) => (memory.clone(), None),
            Inheritance::Release { memory, not_before } => (memory.clone(), Some(*not_before)),
        };
        if memory.cluster != cluster || self.bar.is_some() {
            self.inherited = Inherited::Nothing;
            self.tell(Notice::NotResumed { term: memory.term });
        } else if let Some(not_before) = not_before {
            if now.boot >= not_before {
                self.inherited = Inherited::Nothing;
                self.lease = LeaseState::Revoking(memory.lease);
                self.ask(now, Call::Revoke { lease: memory.lease });
            }
        } else {
            let term = memory.term;
            // Without a validity there are none: a deadline of this very instant would be due for ever.
            self.inherited_answers_until = Some(now.boot.after(memory.validity)).filter(|until| now.boot < *until);
            self.answers_hold_until = self.inherited_answers_until;
            self.lease = LeaseState::Held(Lease::granted(memory.lease, now.boot));
            self.inherited = Inherited::Resuming(memory);
            self.tell(Notice::Resuming { term });
        }
    }

    /// Its keep-alives hold the lock for nobody until it leads: for a lease's life and no longer.
    fn limit_resuming(&mut self, now: Reading) {
        let Inherited::Resuming(Memory { term, .. }) = self.inherited else {
            self.resume_by = None;
            return;
        };
        if self.resume_by.is_none() && self.held().is_some_and(|lease| lease.kept.is_some()) {
            self.resume_by = Some(now.boot.after(self.lease_ttl()));
        }
        if self.state == State::Starting && self.resume_by.is_some_and(|by| now.boot >= by) {
            self.tell(Notice::NotResumed { term });
            self.resume_by = None;
            self.drop_lease();
        }
    }

    /// Whether what is left of an earlier process has still to be looked at: no lease of its own, no place in the line.
    pub(super) const fn waits_for_inheritance(&self) -> bool {
        matches!(self.inherited, Inherited::Waiting(_))
    }

    pub(super) const fn is_resuming(&self) -> bool {
        matches!(self.inherited, Inherited::Resuming(_))
    }

    /// The call that puts this process in the earlier one's place, while that has not been done.
    pub(super) fn resume_call(&self, now: Reading, lease: LeaseId) -> Option<Call> {
        let Inherited::Resuming(Memory { term, .. }) = self.inherited else { return None };
        Some(Call::Resume { lease, token: term.token, record: self.record(now, Some(now.wall)) })
    }

    pub(super) fn on_resumed(
        &mut self,
        now: Reading,
        lease: LeaseId,
        header: Header,
        candidate: Option<CandidateKey>,
        lock: Option<LockKey>,
    ) {
        let Inherited::Resuming(Memory { term, .. }) = self.inherited else { return };
        if self.held().is_none_or(|held| held.id != lease) {
            return;
        }
        if let Some(key) = candidate {
            self.registration = Registration::Registered { create_revision: key.create_revision };
            self.take_in_lock(now, header.revision, lock);
            if let Some(lease) = self.held_mut() {
                lease.renew_at_once(now.boot);
            }
            return;
        }
        self.tell(Notice::NotResumed { term });
        if lock.as_ref().is_some_and(|lock| lock.lease == Some(lease)) {
            // The earlier process's answers may still be relied on: it expires.
            self.drop_lease();
        } else {
            self.revoke_lease(now);
        }
        self.take_in_lock(now, header.revision, lock);
    }

    /// Once everything is known that a newcomer must know: on with the earlier process's term as soon as a renewal is
    /// confirmed, or into the line if that term is over.
    pub(super) fn enter(&mut self, now: Reading) {
        if !self.is_resuming() {
            let reason = if self.may_lead() { Reason::Registered } else { Reason::LooksOn };
            self.transition(reason, State::register);
            return;
        }
        let Some(token) = self.adoptable().map(|lock| lock.create_revision) else {
            self.inherited = Inherited::Nothing;
            self.transition(Reason::Registered, State::register);
            return;
        };
        if self.held().and_then(Lease::right).is_some_and(|right| !right.passed(now)) {
            let term = Term { epoch: self.settings.epoch, token };
            self.lead(now, term, Reason::Inherited);
            self.inherited = Inherited::Nothing;
        }
    }

    /// Whether another process of this candidate goes on with its lease: then that one leads, from its own confirmed
    /// renewal on, and this one has no right to anything that hangs on the lease, nor to let go of it.
    pub(super) fn is_superseded(&self, writer: Option<Nonce>) -> bool {
        writer.is_some_and(|writer| writer != self.settings.nonce) && !Protections::NO_NONCE_CHECK.taken_away()
    }

    pub(super) fn give_way(&mut self, now: Reading) {
        self.tell(Notice::Superseded);
        self.drop_lease();
        self.asks.give_up(Operation::DeleteLock);
        self.forget_place();
        match self.state {
            State::Leading { .. } | State::Jeopardy { .. } => self.transition(Reason::Superseded, State::lose),
            State::StandingDown(StandingDown { goal, step: Step::Releasing { .. }, .. }) => {
                self.finish_release(now, goal, true);
            }
            State::Starting | State::Standby | State::StandingDown(_) | State::Stopped => {}
        }
    }

    /// Keeps what the next process needs, from the first renewal that counts until the lock is let go of or lost.
    pub(super) fn advance_memory(&mut self) {
        if !self.settings.remembers {
            return;
        }
        let memory = self.memory();
        if memory == self.remembered {
            return;
        }
        if let Some(memory) = memory.clone() {
            self.effects.push_back(Effect::Remember(memory));
        } else {
            // Before any request of the same turn: a delete or revoke that reaches etcd late, after a process that
            // remembered went on with the term, would take the lock from a leader. Nor is anything remembered after it
            // that an earlier turn has asked for: two may go before the effects are carried out.
            self.effects.retain(|effect| !matches!(effect, Effect::Remember(_)));
            self.effects.push_front(Effect::Forget);
        }
        self.remembered = memory;
    }

    fn memory(&self) -> Option<Memory> {
        let term = match self.state {
            State::Leading { term } | State::Jeopardy { term } => term,
            State::StandingDown(StandingDown { step, term, .. }) => match step {
                Step::Settling { .. } | Step::Unpublishing { .. } => term?,
                Step::Releasing { .. } => return None,
            },
            // Its own memory is as good as this one's would be, until it leads.
            State::Starting => return self.inherited.memory().cloned(),
            State::Standby | State::Stopped => return None,
        };
        let lease = self.held()?;
        let counted = lease.counted?;
        let cluster = self.endpoints.cluster()?;
        let (sent, validity) = (counted.sent.boot, self.settings.timings.answer_validity());
        Some(Memory { cluster, lease: lease.id, ttl: counted.ttl, term, sent, validity })
    }

    pub(super) fn inheritance_deadline(&self) -> Option<Instant> {
        let release_at = match &self.inherited {
            Inherited::Waiting(Inheritance::Release { not_before, .. }) => {
                // Before it is known whose cluster this is, an answer is what is waited for, not the clock.
                self.endpoints.cluster().map(|_| *not_before)
            }
            Inherited::Waiting(Inheritance::Nothing | Inheritance::Resume(_))
            | Inherited::Nothing
            | Inherited::Resuming(_) => None,
        };
        let resume_by = self.resume_by.filter(|_| self.state == State::Starting && self.is_resuming());
        release_at.into_iter().chain(self.inherited_answers_until).chain(resume_by).min()
    }
}
