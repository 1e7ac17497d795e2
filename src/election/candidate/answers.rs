//! What comes back from etcd: admitted or not, then sorted to whoever asked.

use super::{Bar, Candidate, failure, timeout_error};
use crate::election::asks::Sent;
use crate::election::effect::{Call, Effect, Operation, Request};
use crate::election::endpoints::Membership;
use crate::election::event::{Answer, Body, CallError, CallErrorKind, Header};
use crate::election::ids::{EndpointId, LeaseId, OpId, Revision};
use crate::election::instant::{Instant, Reading};
use crate::election::notice::{ClaimResult, Notice, Reason};
use crate::election::sight::Registration;
use crate::election::state::{StandingDown, State, Step};

use std::time::Duration;

/// How often every endpoint is asked for its version, cluster and alarms: often enough for an operator
/// who watches `/status` during an upgrade, next to nothing for etcd.
const PROBE_INTERVAL: Duration = Duration::from_secs(30);

impl Candidate {
    pub(super) fn on_answered(&mut self, now: Reading, id: OpId, result: Result<Answer, CallError>) {
        if let Some(place) = self.probes.iter().position(|sent| sent.id == id) {
            let sent = self.probes.swap_remove(place);
            self.on_probed(now, &sent, result);
        } else if self.attempt_confirming(id) {
            self.on_confirm_answered(now, id, result);
        } else {
            match result {
                Ok(answer) => self.on_ask_answered(now, id, answer),
                Err(error) => match self.asks.attached_lease(id).filter(|_| error.kind == CallErrorKind::LeaseNotFound)
                {
                    Some(lease) => self.on_ask_lost_its_lease(now, id, lease, error),
                    None => self.on_ask_failed(now, id, error),
                },
            }
        }
    }

    fn on_ask_answered(&mut self, now: Reading, id: OpId, answer: Answer) {
        let Some((call, sent)) = self.asks.answered(id) else { return };
        if !self.admit(now, sent.endpoint, answer.header, linearizable_floor(&call, &sent)) {
            if self.bar.is_none() {
                self.ask(now, call);
            }
            return;
        }
        let header = answer.header;
        match (call, answer.body) {
            (Call::Grant { lease, .. }, Body::Granted { .. }) => self.on_granted(now, lease),
            (Call::Observe { before }, Body::Observed { lock, candidates, candidates_total, ahead }) => {
                let ahead = before.filter(|before| Some(*before) == self.place()).map(|_| ahead);
                self.on_observed(now, header, lock, ahead, candidates, candidates_total);
            }
            (Call::Register { lease, .. }, Body::Registered(key)) => self.on_registered(now, lease, &key),
            (Call::Unregister { .. }, Body::Gone) => self.registration = Registration::None,
            (Call::Resume { lease, .. }, Body::Resumed { candidate, lock }) => {
                self.on_resumed(now, lease, header, candidate, lock);
            }
            (Call::Claim { lease, .. }, Body::Claimed { won, lock }) => {
                self.on_claimed(now, lease, &sent, header, won, lock);
            }
            (Call::DeleteLock { create_revision, .. }, Body::Gone) => self.on_lock_deleted_by_me(now, create_revision),
            (Call::Revoke { lease }, Body::Gone) => self.on_revoked(now, lease),
            (call, body) => unreachable!("{:?} answered with {body:?}", call.operation()),
        }
    }

    fn on_ask_failed(&mut self, now: Reading, id: OpId, error: CallError) {
        if let Some((endpoint, operation)) = self.asks.failed(now, &mut self.random, id) {
            self.note_failure(now, endpoint, operation, error);
        }
    }

    /// etcd says that the lease this request would have attached a key to is not there: that is definite.
    fn on_ask_lost_its_lease(&mut self, now: Reading, id: OpId, lease: LeaseId, error: CallError) {
        let Some((call, sent)) = self.asks.answered(id) else { return };
        let operation = call.operation();
        self.tell(failure(sent.endpoint, operation, error));
        if operation == Operation::Claim {
            self.tell(Notice::ClaimAnswered(ClaimResult::LeaseGone));
        }
        self.on_lease_missing(now, lease);
    }

    pub(super) fn expire_asks(&mut self, now: Reading) {
        for id in self.asks.overdue(now.boot, self.attempt_timeout()) {
            self.on_ask_failed(now, id, timeout_error());
        }
    }

    /// Takes in a header. False when the answer must not be used: it is of another cluster, or shows that
    /// the store was reset. `floor` is set for linearizable answers only.
    pub(super) fn admit(
        &mut self,
        now: Reading,
        endpoint: EndpointId,
        header: Header,
        floor: Option<Revision>,
    ) -> bool {
        if self.endpoints.is_refused(endpoint) {
            return false;
        }
        match self.endpoints.answered(endpoint, header.cluster) {
            Membership::Ours => {}
            Membership::Foreign { pinned } => {
                let found = header.cluster;
                if self.state == State::Starting {
                    self.tell(Notice::SeveralClusters { endpoint, pinned, found });
                    self.bar(now, Bar::SeveralClusters);
                } else {
                    self.tell(Notice::EndpointRefused { endpoint, pinned, found });
                    self.distrust_watches_on(endpoint);
                    self.effects.push_back(Effect::Redial(endpoint));
                    if self.endpoints.preferred().is_none() {
                        // Nobody is asked any more, so no failure will ever tell that etcd is away.
                        self.failing_since.get_or_insert(now.boot);
                    }
                }
                return false;
            }
        }
        if self.is_unheard(now)
            && let Some(lease) = self.held_mut()
        {
            lease.renew_at_once(now.boot);
        }
        self.answered_at = Some(now.boot);
        self.failing_since = None;
        match floor {
            Some(floor) if header.revision < floor => self.on_store_reset(now, floor, header.revision),
            Some(_) | None => true,
        }
    }

    /// A linearizable answer shows less than had been heard of before it was asked for. Whether it may be used: by who is
    /// barred already, and only looks on.
    fn on_store_reset(&mut self, now: Reading, seen: Revision, shows: Revision) -> bool {
        self.revision_seen = shows;
        if self.bar.is_some() {
            self.sight.forget(Revision(0));
            return true;
        }
        self.tell(Notice::StoreReset { seen, now: shows });
        self.bar(now, Bar::StoreReset);
        false
    }

    /// What etcd has told is known, also when nobody waits for the answer any more: a store that shows less later
    /// was reset, and who has heard of more must not lead in it.
    pub(super) fn note_revision(&mut self, header: Header) {
        if self.endpoints.are_of(header.cluster) {
            self.revision_seen = self.revision_seen.max(header.revision);
        }
    }

    /// May not lead until restarted: lets go of everything and only looks on. While answers given out may
    /// still be relied on, it lets the lease expire instead of revoking it.
    pub(super) fn bar(&mut self, now: Reading, bar: Bar) {
        self.bar = Some(bar);
        let answers_are_out = match self.state {
            State::Leading { .. }
            | State::Jeopardy { .. }
            | State::StandingDown(StandingDown { step: Step::Settling { .. } | Step::Unpublishing { .. }, .. }) => true,
            State::Starting | State::Standby => self.holds_for_answers() || self.is_resuming(),
            State::StandingDown(_) | State::Stopped => false,
        };
        let reason = match bar {
            Bar::StoreReset => Reason::StoreReset,
            Bar::SeveralClusters => Reason::SeveralClusters,
        };
        if matches!(self.state, State::Leading { .. } | State::Jeopardy { .. }) {
            self.transition(reason, State::lose);
        }
        self.asks.give_up_all();
        self.drop_watches();
        // Its revisions are counted anew.
        self.sight.forget(Revision(0));
        self.forget_place();
        self.registration = Registration::None;
        if answers_are_out {
            self.drop_lease();
        } else {
            self.revoke_lease(now);
        }
        self.observe_at = now.boot;
    }

    /// A failure of something that is tried again until it works: the measure of whether etcd answers.
    pub(super) fn note_failure(&mut self, now: Reading, endpoint: EndpointId, operation: Operation, error: CallError) {
        // That it is out of space is an answer: reads and renewals go on.
        if error.kind != CallErrorKind::NoSpace {
            self.failing_since.get_or_insert(now.boot);
        }
        self.endpoints.failed(endpoint, operation, error.kind);
        if error.kind == CallErrorKind::Timeout {
            self.distrust_watches_on(endpoint);
        }
        self.tell(failure(endpoint, operation, error));
    }

    fn on_probed(&mut self, now: Reading, sent: &Sent, result: Result<Answer, CallError>) {
        self.unprobed = self.unprobed.saturating_sub(1);
        let endpoint = sent.endpoint;
        match result {
            Ok(answer) => {
                if self.endpoints.readmit(endpoint, answer.header.cluster) {
                    self.tell(Notice::EndpointReadmitted { endpoint });
                } else if self.endpoints.is_refused(endpoint) {
                    self.effects.push_back(Effect::Redial(endpoint));
                }
                if !self.admit(now, endpoint, answer.header, None) {
                    return;
                }
                let Body::Probed { version, no_space } = answer.body else {
                    unreachable!("a probe answered with {:?}", answer.body)
                };
                if self.endpoints.set_version(endpoint, &version) {
                    self.tell(Notice::ServerVersion { endpoint, version });
                }
                if no_space && !self.no_space {
                    self.tell(Notice::NoSpace { endpoint });
                }
                self.no_space = no_space;
            }
            Err(error) => {
                self.endpoints.failed(endpoint, Operation::Probe, error.kind);
                self.tell(failure(endpoint, Operation::Probe, error));
            }
        }
    }

    pub(super) fn expire_probes(&mut self, now: Reading) {
        let timeout = self.attempt_timeout();
        let (overdue, waiting): (Vec<_>, Vec<_>) =
            self.probes.drain(..).partition(|sent| now.boot >= sent.at.boot.after(timeout));
        self.probes = waiting;
        for sent in overdue {
            self.on_probed(now, &sent, Err(timeout_error()));
        }
    }

    pub(super) fn advance_probes(&mut self, now: Reading) {
        if now.boot < self.probe_at || !self.probes.is_empty() {
            return;
        }
        self.probe_at = now.boot.after(PROBE_INTERVAL);
        for endpoint in self.endpoints.ids() {
            let id = self.fresh_op();
            let timeout = self.attempt_timeout();
            self.effects.push_back(Effect::Request(Request { id, endpoint, timeout, call: Call::Probe }));
            self.probes.push(Sent { id, endpoint, at: now, floor: self.revision_seen });
        }
    }

    pub(super) fn probe_deadline(&self) -> Option<Instant> {
        let timeout = self.attempt_timeout();
        self.probes.iter().map(|sent| sent.at.boot.after(timeout)).min().or(Some(self.probe_at))
    }

    /// Notes whether etcd answers, for the view, and what no answer means for what is known.
    pub(super) fn advance_contact(&mut self, now: Reading) {
        let silent = self.failing_since.is_some_and(|since| now.boot >= since.after(self.attempt_timeout()));
        if silent && self.is_unanswered(now) {
            // How long the lock has carried this lease unled counts only while etcd can be asked: one operation that is
            // refused again and again, between keep-alives that are answered, does not stop the count.
            self.unled_since = None;
        }
        match (self.unreachable, silent) {
            (false, true) => self.tell(Notice::EtcdSilent),
            (true, false) => self.tell(Notice::EtcdBack),
            (false, false) | (true, true) => {}
        }
        self.unreachable = silent;
    }

    /// Whether not even a keep-alive has been answered in the time of one.
    fn is_unanswered(&self, now: Reading) -> bool {
        let renewal = self.settings.timings.keepalive_interval() + self.attempt_timeout();
        self.answered_at.is_none_or(|at| now.boot >= at.after(renewal))
    }

    pub(super) fn contact_deadline(&self) -> Option<Instant> {
        let failing = self.failing_since?;
        if !self.unreachable {
            return Some(failing.after(self.attempt_timeout()));
        }
        let forgotten = self.answered_at?.after(self.lease_ttl());
        // A leader is not forgotten but runs out: `until` is its deadline.
        (self.view.leader.is_some() && self.view.lead.is_none()).then_some(forgotten)
    }
}

/// The revision a linearizable answer to this call cannot be below.
fn linearizable_floor(call: &Call, sent: &Sent) -> Option<Revision> {
    match call {
        Call::Observe { .. }
        | Call::Register { .. }
        | Call::Unregister { .. }
        | Call::Claim { .. }
        | Call::Resume { .. }
        | Call::Confirm
        | Call::DeleteLock { .. } => Some(sent.floor),
        Call::Probe | Call::Grant { .. } | Call::Revoke { .. } => None,
    }
}
