//! Keeping the lease alive, and knowing until when it may be relied on.
//!
//! A renewal is a keep-alive answered with TTL > 0 and, for a leader, *confirmed*: a linearizable read of
//! the lock key, sent after the answer had arrived, shows this lease and this term, under the raft term
//! of the keep-alive. Without it an etcd leader with a stalled disk, already deposed, could extend `until`
//! alone (etcd #15247).

use std::time::Duration;

use super::inheritance::Inherited;
use super::{Candidate, timeout_error};
use crate::election::effect::{Call, Effect, Operation, Request};
use crate::election::event::{Answer, Body, CallError, Header, LockKey};
use crate::election::ids::{EndpointId, LeaseId, OpId, StreamId, Term};
use crate::election::instant::{Instant, Reading};
use crate::election::lease::{Attempt, Kept, Lease, LeaseState, Stage, Stream};
use crate::election::notice::{Notice, Reason, RenewalFailure};
use crate::election::settings::Part;
use crate::election::sight::Registration;
use crate::election::state::{StandingDown, State, Step};
use crate::protections::Protections;

impl Candidate {
    pub(super) const fn held(&self) -> Option<&Lease> {
        match &self.lease {
            LeaseState::Held(lease) => Some(lease),
            LeaseState::None | LeaseState::Granting(_) | LeaseState::Revoking(_) => None,
        }
    }

    pub(super) const fn held_mut(&mut self) -> Option<&mut Lease> {
        match &mut self.lease {
            LeaseState::Held(lease) => Some(lease),
            LeaseState::None | LeaseState::Granting(_) | LeaseState::Revoking(_) => None,
        }
    }

    /// A leader whose right has ended is none, whatever else is going on.
    pub(super) fn expire_right(&mut self, now: Reading) {
        let State::Leading { .. } = self.state else { return };
        let lease = self.held().expect("a leader holds a lease: losing it stands it down");
        let right = lease.right().expect("a leader has a confirmed renewal");
        let until = lease.until.expect("a leader has a confirmed renewal");
        // Whatever comes of this turn, until now requests may have been answered from the view before it.
        let validity = self.settings.timings.answer_validity();
        self.answers_hold_until = Some(until.boot().min(now.boot.after(validity)));
        if !right.passed(now) {
            return;
        }
        let reason = if now.boot >= until.boot() {
            Reason::UntilPassed
        } else if until.clock_jumped(now) {
            Reason::ClockJumped
        } else {
            Reason::StreamEnded
        };
        self.fall_into_jeopardy(now, reason);
    }

    fn fall_into_jeopardy(&mut self, now: Reading, reason: Reason) {
        self.jeopardy_episodes += 1;
        self.transition(reason, State::fall_into_jeopardy);
        if let Some(lease) = self.held_mut() {
            lease.renew_at_once(now.boot);
        }
    }

    /// Grants, renews and hedges what is due.
    pub(super) fn advance_lease(&mut self, now: Reading) {
        match &self.lease {
            LeaseState::None => {
                if self.wants_lease() {
                    let lease = self.random.lease_id();
                    self.lease = LeaseState::Granting(lease);
                    self.ask(now, Call::Grant { lease, ttl: self.lease_ttl() });
                }
            }
            LeaseState::Granting(_) | LeaseState::Revoking(_) => {}
            LeaseState::Held(lease) => match lease.attempts.as_slice() {
                [] if now.boot >= lease.renew_at => self.renew(now),
                [first] if lease.hedge_at.is_some_and(|at| now.boot >= at) => {
                    // Hedges of hedges would go on for ever: they end like renewals when nothing is heard.
                    let other = self.endpoints.other_than(first.stream.endpoint).filter(|_| !self.is_unheard(now));
                    if let Some(other) = other {
                        self.start_attempt(now, other);
                    }
                    if let Some(lease) = self.held_mut() {
                        lease.hedge_at = None;
                    }
                }
                [] | [_] | [_, _, ..] => {}
            },
        }
    }

    fn renew(&mut self, now: Reading) {
        let timeout = self.attempt_timeout();
        if let Some(endpoint) = self.endpoints.preferred().filter(|_| !self.is_unheard(now)) {
            self.start_attempt(now, endpoint);
        } else if let Some(lease) = self.held_mut() {
            // Every endpoint was refused, or none is heard: nothing to do but to look again.
            lease.renew_at = now.boot.after(timeout);
        }
    }

    /// Whether nothing has come from etcd for as long as a lease lasts. Either etcd is away, and keeps the
    /// lease for when it is back; or it has expired the lease; or it hears this candidate and is not heard,
    /// and each keep-alive would hold the lock for nobody. So none is sent until a read is answered.
    pub(super) fn is_unheard(&self, now: Reading) -> bool {
        self.answered_at.is_none_or(|at| now.boot >= at.after(self.lease_ttl()))
    }

    const fn wants_lease(&self) -> bool {
        let staying = match self.state {
            State::Starting | State::Standby | State::Leading { .. } | State::Jeopardy { .. } => true,
            State::StandingDown(_) | State::Stopped => false,
        };
        let candidate = match self.settings.part {
            Part::Candidate => true,
            Part::Observer => false,
        };
        staying && candidate && self.bar.is_none() && !self.waits_for_inheritance()
    }

    pub(super) fn on_granted(&mut self, now: Reading, granted: LeaseId) {
        if matches!(self.lease, LeaseState::Granting(id) if id == granted) {
            self.lease = LeaseState::Held(Lease::granted(granted, now.boot));
        }
    }

    fn start_attempt(&mut self, now: Reading, endpoint: EndpointId) {
        let fresh = self.fresh_stream();
        let hedge_delay = self.settings.timings.hedge_delay();
        let Some(lease) = self.held_mut() else { return };
        let stream = match lease.stream {
            Some(stream) if stream.endpoint == endpoint && stream.id >= lease.oldest_stream => stream,
            Some(_) | None => Stream { id: fresh, endpoint },
        };
        lease.attempts.push(Attempt { stream, sent: now, stage: Stage::KeepAlive });
        lease.hedge_at = (lease.attempts.len() == 1).then(|| now.boot.after(hedge_delay));
        let id = lease.id;
        self.effects.push_back(Effect::KeepAlive { stream: stream.id, endpoint, lease: id });
    }

    pub(super) fn on_keep_alive_answered(&mut self, now: Reading, stream: StreamId, header: Header, ttl_seconds: i64) {
        let Some(lease) = self.held_mut() else { return };
        let Some(attempt) = lease.take_awaiting_keep_alive(stream) else { return };
        if !self.admit(now, attempt.stream.endpoint, header, None) {
            self.fail_attempt(now, &attempt, RenewalFailure::Error);
            return;
        }
        let Some(ttl) = u64::try_from(ttl_seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs) else {
            self.tell(Notice::RenewalFailed(RenewalFailure::LeaseGone));
            self.on_lease_gone(now, &attempt);
            return;
        };
        let sent = if Protections::LATEST_SEND.taken_away() { now } else { attempt.sent };
        let kept = Kept { sent, arrived: now.boot, ttl, raft_term: header.raft_term };
        if let Some(lease) = self.held_mut() {
            lease.keep(kept);
        }
        if !self.must_confirm() {
            self.finish_attempt(now, &attempt);
        } else if Protections::NO_CONFIRM.taken_away() {
            self.count_renewal(now, &attempt, kept);
        } else {
            self.send_confirm(now, &attempt, kept);
        }
    }

    /// A keep-alive says that the lease is gone.
    fn on_lease_gone(&mut self, now: Reading, attempt: &Attempt) {
        let Some((kept, in_use)) = self.held().map(|lease| (lease.kept, lease.stream)) else { return };
        if kept.is_none() {
            // Granted, and never seen by this server: one that was deposed and does not know it yet. It would say the
            // same of the next lease.
            self.endpoints.leave(attempt.stream.endpoint);
        }
        if in_use != Some(attempt.stream) {
            self.close_streams(vec![attempt.stream]);
        }
        self.lose_lease(now);
    }

    /// Whether a renewal must show that the lock key is still this candidate's.
    fn must_confirm(&self) -> bool {
        match self.state {
            State::Leading { .. } | State::Jeopardy { .. } => true,
            State::Standby => self.adoptable().is_some(),
            // Not before the earlier process's confirms would show that it was replaced.
            State::Starting => self.is_resuming() && self.place().is_some() && self.adoptable().is_some(),
            State::StandingDown(_) | State::Stopped => false,
        }
    }

    fn send_confirm(&mut self, now: Reading, attempt: &Attempt, kept: Kept) {
        let id = self.fresh_op();
        let endpoint = attempt.stream.endpoint;
        let timeout = self.attempt_timeout();
        self.effects.push_back(Effect::Request(Request { id, endpoint, timeout, call: Call::Confirm }));
        let floor = self.revision_seen;
        let Some(lease) = self.held_mut() else { return };
        debug_assert!(kept.arrived <= now.boot, "the confirm leaves after the keep-alive's answer");
        let stage = Stage::Confirm { id, kept, floor };
        lease.attempts.push(Attempt { stream: attempt.stream, sent: attempt.sent, stage });
    }

    pub(super) fn attempt_confirming(&self, op: OpId) -> bool {
        let confirms = |attempt: &Attempt| matches!(attempt.stage, Stage::Confirm { id, .. } if id == op);
        self.held().is_some_and(|lease| lease.attempts.iter().any(confirms))
    }

    pub(super) fn on_confirm_answered(&mut self, now: Reading, op: OpId, result: Result<Answer, CallError>) {
        let Some(lease) = self.held_mut() else { return };
        let Some((attempt, kept, floor)) = lease.take_awaiting_confirm(op) else { return };
        let endpoint = attempt.stream.endpoint;
        match result {
            Err(error) => {
                self.note_failure(now, endpoint, Operation::Confirm, error);
                self.fail_attempt(now, &attempt, RenewalFailure::Error);
            }
            Ok(answer) if !self.admit(now, endpoint, answer.header, Some(floor)) => {
                self.fail_attempt(now, &attempt, RenewalFailure::Error);
            }
            Ok(answer) => {
                let Body::Confirmed { lock, writer } = answer.body else {
                    unreachable!("a confirm answered with {:?}", answer.body)
                };
                if self.is_superseded(writer) {
                    self.give_way(now);
                } else {
                    self.on_confirmed(now, &attempt, kept, answer.header, lock);
                }
            }
        }
    }

    fn on_confirmed(&mut self, now: Reading, attempt: &Attempt, kept: Kept, header: Header, lock: Option<LockKey>) {
        let mine = self.is_my_untouched_lock(lock.as_ref());
        self.take_in_lock(now, header.revision, lock);
        if !mine {
            self.finish_attempt(now, attempt);
        } else if kept.is_of_raft_term(header.raft_term) {
            self.count_renewal(now, attempt, kept);
        } else {
            self.fail_attempt(now, attempt, RenewalFailure::RaftTermChanged);
        }
    }

    /// Whether this is the lock key as this candidate's own claim made it.
    fn is_my_untouched_lock(&self, lock: Option<&LockKey>) -> bool {
        let (Some(lease), Some(lock)) = (self.held(), lock) else { return false };
        let same_term = self.state.term().is_none_or(|term| term.token == lock.create_revision);
        lock.lease == Some(lease.id) && lock.is_untouched() && same_term
    }

    /// A confirmed renewal: moves `until`, and leads if there is something to lead.
    fn count_renewal(&mut self, now: Reading, attempt: &Attempt, kept: Kept) {
        self.extend_until(kept);
        self.finish_attempt(now, attempt);
        let usable = self.held().and_then(Lease::right).is_some_and(|right| !right.passed(now));
        if !usable {
            // The clock jumped after it was sent, or it took its whole time: soon, but not at the pace of etcd.
            if let LeaseState::Held(lease) = &mut self.lease {
                lease.renew_at = now.boot.after(lease.backoff.next(&mut self.random));
            }
            return;
        }
        match self.state {
            State::Jeopardy { .. } => {
                self.unled_since = None;
                self.transition(Reason::Resumed, State::resume);
            }
            State::Standby => {
                if let Some(token) = self.adoptable().map(|lock| lock.create_revision) {
                    self.lead(now, Term { epoch: self.settings.epoch, token }, Reason::Adopted);
                }
            }
            State::Starting | State::Leading { .. } | State::StandingDown(_) | State::Stopped => {}
        }
    }

    pub(super) fn extend_until(&mut self, kept: Kept) {
        let margin =
            if Protections::NO_MARGIN.taken_away() { Duration::ZERO } else { self.settings.timings.safety_margin() };
        let stop_time = self.settings.timings.stop_time();
        if let Some(lease) = self.held_mut() {
            lease.extend(kept, kept.until(margin, stop_time));
        }
    }

    /// An attempt that did what it was for: its stream is the one in use from now on.
    fn finish_attempt(&mut self, now: Reading, attempt: &Attempt) {
        let next = attempt.sent.boot.after(self.settings.timings.keepalive_interval());
        let Some(lease) = self.held_mut() else { return };
        let superfluous: Vec<Stream> = lease.streams().into_iter().filter(|one| *one != attempt.stream).collect();
        lease.attempts.clear();
        lease.stream = Some(attempt.stream);
        lease.renew_at = next.max(now.boot);
        lease.hedge_at = None;
        lease.reconnect_by = None;
        lease.backoff.reset();
        self.close_streams(superfluous);
        self.endpoints.prefer(attempt.stream.endpoint);
        self.tell(Notice::Renewed(now.boot.since(attempt.sent.boot)));
    }

    /// An attempt that failed, already taken out: the next one goes elsewhere, soon.
    fn fail_attempt(&mut self, now: Reading, attempt: &Attempt, why: RenewalFailure) {
        self.tell(Notice::RenewalFailed(why));
        let LeaseState::Held(lease) = &mut self.lease else { return };
        let wait = lease.backoff.next(&mut self.random);
        lease.renew_at = now.boot.after(wait);
        if lease.attempts.len() == 1 {
            // The other attempt is alone now: let it be hedged anew, after the same wait.
            lease.hedge_at = Some(lease.renew_at);
        }
        if lease.stream != Some(attempt.stream) {
            self.close_streams(vec![attempt.stream]);
        }
    }

    /// Attempts that have had their time: their streams are dropped, so that no late answer is matched.
    pub(super) fn expire_attempts(&mut self, now: Reading) {
        let timeout = self.attempt_timeout();
        let Some(lease) = self.held_mut() else { return };
        for attempt in lease.take_overdue(now.boot, timeout) {
            let operation = match attempt.stage {
                Stage::KeepAlive => Operation::KeepAlive,
                Stage::Confirm { .. } => Operation::Confirm,
            };
            if let Some(lease) = self.held_mut()
                && lease.stream == Some(attempt.stream)
            {
                lease.stream = None;
            }
            self.note_failure(now, attempt.stream.endpoint, operation, timeout_error());
            self.fail_attempt(now, &attempt, RenewalFailure::Timeout);
        }
    }

    pub(super) fn on_stream_ended(&mut self, now: Reading, ended: StreamId, error: CallError) {
        let Some(lease) = self.held_mut() else { return };
        let Some(stream) = lease.streams().into_iter().find(|stream| stream.id == ended) else { return };
        let was_in_use = lease.stream == Some(stream);
        if was_in_use {
            lease.stream = None;
        }
        let (failed, under_way): (Vec<_>, Vec<_>) =
            lease.attempts.drain(..).partition(|attempt| attempt.stream == stream);
        lease.attempts = under_way;
        let none_left = lease.stream.is_none() && lease.attempts.is_empty();
        if failed.is_empty() {
            lease.renew_at_once(now.boot);
        }
        self.note_failure(now, stream.endpoint, Operation::KeepAlive, error);
        for attempt in failed {
            self.fail_attempt(now, &attempt, RenewalFailure::Error);
        }
        if was_in_use || none_left {
            self.open_reconnect_window(now);
        }
    }

    /// The keep-alive stream has ended: from now on the right to act lasts at most the reconnect window.
    fn open_reconnect_window(&mut self, now: Reading) {
        let State::Leading { .. } = self.state else { return };
        let window = self.settings.timings.reconnect_window();
        let Some(lease) = self.held_mut() else { return };
        if lease.reconnect_by.is_none() {
            lease.reconnect_by = Some(now.boot.after(window));
            let left = lease.right().map_or(Duration::ZERO, |right| right.remaining(now));
            self.tell(Notice::StreamEnded { window: left });
        }
        self.expire_right(now);
    }

    /// etcd says that the lease is gone, or a call found it missing.
    pub(super) fn on_lease_missing(&mut self, now: Reading, missing: LeaseId) {
        if self.held().is_some_and(|lease| lease.id == missing) {
            self.lose_lease(now);
        }
    }

    pub(super) fn lose_lease(&mut self, now: Reading) {
        self.drop_lease();
        match self.state {
            State::Leading { .. } | State::Jeopardy { .. } => {
                self.forget_place();
                self.transition(Reason::LeaseLost, State::lose);
            }
            State::StandingDown(StandingDown { goal, step: Step::Releasing { .. }, .. }) => {
                self.finish_release(now, goal, true);
            }
            State::Starting | State::Standby | State::StandingDown(_) | State::Stopped => {}
        }
    }

    /// Forgets the lease and what hung on it.
    pub(super) fn drop_lease(&mut self) {
        if let Some(lease) = self.held() {
            let streams = lease.streams();
            self.close_streams(streams);
        }
        self.lease = LeaseState::None;
        self.registration = Registration::None;
        self.unled_since = None;
        if self.is_resuming() {
            self.inherited = Inherited::Nothing;
        }
        let attaching =
            [Operation::Grant, Operation::Register, Operation::Unregister, Operation::Claim, Operation::Resume];
        for operation in attaching {
            self.asks.give_up(operation);
        }
    }

    /// Gives the lease up for good, and with it every key attached to it.
    pub(super) fn revoke_lease(&mut self, now: Reading) {
        let id = match &self.lease {
            LeaseState::None => return,
            LeaseState::Granting(id) | LeaseState::Revoking(id) => *id,
            LeaseState::Held(lease) => lease.id,
        };
        self.drop_lease();
        self.asks.give_up(Operation::DeleteLock);
        self.lease = LeaseState::Revoking(id);
        self.ask(now, Call::Revoke { lease: id });
    }

    pub(super) fn on_revoked(&mut self, now: Reading, revoked: LeaseId) {
        if !matches!(self.lease, LeaseState::Revoking(id) if id == revoked) {
            return;
        }
        self.lease = LeaseState::None;
        if let State::StandingDown(StandingDown { goal, .. }) = self.state {
            self.finish_release(now, goal, true);
        }
    }

    /// Certificates or password changed: the next keep-alive goes on a new stream, and the old one is
    /// closed once that is answered.
    pub(super) fn on_credentials_renewed(&mut self, now: Reading) {
        let oldest_stream = self.fresh_stream();
        if let Some(lease) = self.held_mut() {
            lease.oldest_stream = oldest_stream;
            lease.renew_at_once(now.boot);
        }
        self.drop_watches();
    }

    fn close_streams(&mut self, streams: Vec<Stream>) {
        self.effects.extend(streams.into_iter().map(|stream| Effect::CloseStream(stream.id)));
    }

    pub(super) fn renewal_deadline(&self) -> Option<Instant> {
        let lease = self.held()?;
        let right = match self.state {
            State::Leading { .. } => lease.right().map(|right| right.boot()),
            State::Starting | State::Standby | State::Jeopardy { .. } | State::StandingDown(_) | State::Stopped => None,
        };
        lease.deadline(self.attempt_timeout()).into_iter().chain(right).min()
    }
}
