//! Knowing who holds the lock: a read, then a watch from there on, and a read again at least every TTL,
//! because deletes can be lost (old servers, compaction) and watches can fall silent.

use super::{Bar, Candidate, SeenLock, failure, timeout_error};
use crate::election::effect::{Call, Effect, Operation, WatchTarget};
use crate::election::event::{CallError, CandidateKey, Change, Header, LockKey};
use crate::election::ids::{EndpointId, Identity, Revision, WatchId};
use crate::election::instant::{Instant, Reading};
use crate::election::notice::{Notice, Reason};
use crate::election::sight::{Ahead, Registration, Watch};
use crate::election::state::State;
use crate::election::view::CandidateView;

impl Candidate {
    pub(super) fn advance_observation(&mut self, now: Reading) {
        let due = !self.sight.is_known() || self.must_find_place() || now.boot >= self.observe_at;
        if due && now.boot >= self.observe_not_before() && !self.asks.is_asking(Operation::Observe) {
            let before = self.place();
            self.ask(now, Call::Observe { before });
        }
        if self.fresh {
            self.start_watches(now);
        }
    }

    /// After trouble with a watch, reads are spaced by the backoff that `observe_at` was set with.
    fn observe_not_before(&self) -> Instant {
        if self.fresh { Instant::from_nanos(0) } else { self.observe_at }
    }

    /// My own place in the line, once registered.
    pub(super) const fn place(&self) -> Option<Revision> {
        match self.registration {
            Registration::Registered { create_revision } => Some(create_revision),
            Registration::None | Registration::Taken { .. } | Registration::Leaving { .. } => None,
        }
    }

    /// Whether this candidate is in line without knowing who is before it.
    fn must_find_place(&self) -> bool {
        matches!(self.state, State::Starting | State::Standby) && self.place().is_some() && self.ahead == Ahead::Unknown
    }

    pub(super) fn on_observed(
        &mut self,
        now: Reading,
        header: Header,
        lock: Option<LockKey>,
        ahead: Option<Vec<CandidateKey>>,
        candidates: Vec<CandidateKey>,
        total: u64,
    ) {
        self.observe_at = now.boot.after(self.lease_ttl());
        self.settle_watches(lock.as_ref());
        self.check_registration(header.revision, &candidates, total);
        self.candidates = candidates
            .into_iter()
            .map(|candidate| CandidateView { identity: candidate.identity, record: candidate.record })
            .collect();
        self.candidates_total = total;
        self.fresh = true;
        self.take_in_lock(now, header.revision, lock);
        if !self.sight.is_known() {
            // It was older than what is known to be over: again, but not at the pace of etcd.
            self.fresh = false;
            self.observe_at = now.boot.after(self.watch_backoff.next(&mut self.random));
        }
        // After the lock, whose news may say that the one ahead leads now: this is what to know instead.
        if let Some(newest_first) = ahead {
            self.set_ahead(Ahead::from_observation(&newest_first, self.sight.lock()), header.revision);
        }
    }

    /// A watch that agrees with a read of the same key works, if there has been one since the read before;
    /// one that does not is rebuilt from the read.
    fn settle_watches(&mut self, read: Option<&LockKey>) {
        if !self.sight.is_known() {
            return;
        }
        if self.sight.lock() != read {
            self.drop_lock_watch();
        } else if self.fresh {
            self.watch_backoff.reset();
        }
    }

    /// Finds out when this candidate's own key was deleted by somebody.
    fn check_registration(&mut self, at: Revision, listed: &[CandidateKey], total: u64) {
        if self.registration == Registration::None && !self.is_in_line() {
            self.take_ghost_off(listed);
        }
        let Registration::Registered { create_revision } = self.registration else { return };
        if at < create_revision {
            return;
        }
        let complete = u64::try_from(listed.len()).is_ok_and(|listed| listed == total);
        let mine = listed.iter().find(|candidate| candidate.identity == self.settings.identity);
        match mine {
            Some(key) if key.create_revision == create_revision => {}
            Some(_) => self.registration = Registration::None,
            None if complete => self.registration = Registration::None,
            None => {}
        }
    }

    /// A claim that was applied late has put the key of a candidate that is not in line any more.
    fn take_ghost_off(&mut self, listed: &[CandidateKey]) {
        let Some(lease) = self.held().map(|lease| lease.id) else { return };
        let mine = |key: &&CandidateKey| key.identity == self.settings.identity && key.lease == Some(lease);
        if let Some(create_revision) = listed.iter().find(mine).map(|key| key.create_revision) {
            self.registration = Registration::Leaving { create_revision };
        }
    }

    /// Who is before this candidate has to be found out anew.
    pub(super) fn forget_place(&mut self) {
        self.set_ahead(Ahead::Unknown, self.ahead_at);
    }

    fn set_ahead(&mut self, ahead: Ahead, at: Revision) {
        if self.ahead != ahead {
            self.drop_ahead_watch();
        }
        self.ahead = ahead;
        self.ahead_at = at;
    }

    /// Takes in what the lock key was at a revision, and what follows from it for a candidate that holds it.
    pub(super) fn take_in_lock(&mut self, now: Reading, at: Revision, lock: Option<LockKey>) {
        if !self.sight.take_in(now.boot, at, lock) || self.is_lock_of_another_history(now, at) {
            return;
        }
        if let Some(holder) = self.sight.lock().filter(|lock| lock.lease.is_none()).map(|lock| lock.holder.clone()) {
            self.tell(Notice::LockWithoutLease { holder });
        }
        if let Some(lock) = self.sight.lock() {
            let mine = self.held().is_some_and(|lease| lock.lease == Some(lease.id));
            if self.ahead.is(&lock.holder) {
                self.set_ahead(Ahead::Unknown, at);
            }
            self.claim_delay = None;
            // The watch may tell of my own claim before its answer, which can spare a renewal, does.
            if !mine {
                self.asks.give_up(Operation::Claim);
            }
        }
        self.react_as_holder(now);
        self.note_unled(now);
    }

    /// Lock keys that follow each other have growing tokens. One that does not was restored, and since then the store has
    /// grown past every revision that this candidate knew: nothing else tells.
    fn is_lock_of_another_history(&mut self, now: Reading, at: Revision) -> bool {
        let Some(token) = self.sight.lock().map(|lock| lock.create_revision) else { return false };
        let newest = self.newest_lock;
        // A late answer tells of an earlier time.
        if at < newest.at {
            return false;
        }
        self.newest_lock = SeenLock { at, token };
        if token >= newest.token || self.bar.is_some() {
            return false;
        }
        self.tell(Notice::StoreReset { seen: newest.token, now: token });
        self.bar(now, Bar::StoreReset);
        true
    }

    /// A leader whose key is gone, or was put by somebody else, is none any more: at once.
    fn react_as_holder(&mut self, now: Reading) {
        let (State::Leading { term } | State::Jeopardy { term }) = self.state else { return };
        let lease = self.held().map(|lease| lease.id);
        let reason = match self.sight.lock() {
            None => Reason::LockDeleted,
            Some(lock) if lock.create_revision != term.token => Reason::LockDeleted,
            Some(lock) if lock.lease == lease && lock.is_untouched() => return,
            Some(_) => Reason::LockOverwritten,
        };
        // Whoever removed a leader's key wants another leader: let the others go first, and do not stand in
        // their way as an heir that does not claim. In Jeopardy it has most likely expired.
        if let State::Leading { .. } = self.state {
            self.stay_away_until = Some(now.boot.after(self.lease_ttl()));
            self.leave_place();
        }
        self.forget_place();
        self.transition(reason, State::lose);
    }

    /// Notes since when the lock has carried this lease unled. At every turn: it may be keep-alives alone that
    /// are answered, and then no read ever tells of it.
    pub(super) fn note_unled(&mut self, now: Reading) {
        if !self.is_on_lock() || !matches!(self.state, State::Standby | State::Jeopardy { .. }) {
            self.unled_since = None;
        } else if self.unled_since.is_none() && !self.unreachable {
            self.unled_since = Some(now.boot);
            if let Some(lease) = self.held_mut() {
                lease.renew_at_once(now.boot);
            }
        }
    }

    fn start_watches(&mut self, now: Reading) {
        let Some(endpoint) = self.endpoints.preferred() else { return };
        if self.lock_watch.is_none()
            && let Some(at) = self.sight.at()
        {
            self.lock_watch = Some(self.start_watch(now, endpoint, WatchTarget::Lock, at));
        }
        let standing_by = matches!(self.state, State::Standby | State::Starting);
        if !standing_by {
            self.drop_ahead_watch();
        } else if self.ahead_watch.is_none()
            && let Ahead::Candidate { identity, .. } = &self.ahead
        {
            let identity = identity.clone();
            let watch = self.start_watch(now, endpoint, WatchTarget::Candidate(identity.clone()), self.ahead_at);
            self.ahead_watch = Some((watch, identity));
        }
    }

    fn start_watch(&mut self, now: Reading, endpoint: EndpointId, target: WatchTarget, known: Revision) -> Watch {
        let id = self.fresh_watch();
        let from = Revision(known.0 + 1);
        self.effects.push_back(Effect::Watch { watch: id, endpoint, target, from });
        Watch { id, endpoint, created_by: Some(now.boot.after(self.attempt_timeout())) }
    }

    pub(super) fn on_watch_created(&mut self, now: Reading, watch: WatchId, header: Header) {
        let Some(endpoint) = self.watch_mut(watch).map(|watch| watch.endpoint) else { return };
        if !self.admit(now, endpoint, header, None) {
            self.give_up_watch(now, watch);
            return;
        }
        if let Some(watch) = self.watch_mut(watch) {
            watch.created_by = None;
        }
    }

    pub(super) fn on_watch_changed(&mut self, now: Reading, watch: WatchId, header: Header, change: Change) {
        let Some(endpoint) = self.watch_mut(watch).map(|watch| watch.endpoint) else { return };
        if !self.admit(now, endpoint, header, None) {
            self.give_up_watch(now, watch);
            return;
        }
        if self.lock_watch.as_ref().is_some_and(|lock_watch| lock_watch.id == watch) {
            let lock = match change {
                Change::LockPut(lock) => return self.take_in_lock(now, lock.mod_revision, Some(lock)),
                Change::Deleted(revision) => revision,
                Change::CandidatePut(_) => unreachable!("the lock watch is on the lock key"),
            };
            self.take_in_lock(now, lock, None);
        } else {
            self.on_ahead_changed(&change);
        }
    }

    /// The candidate before this one is gone, or has registered anew: find the place again.
    fn on_ahead_changed(&mut self, change: &Change) {
        let still_ahead = match (change, &self.ahead) {
            (Change::CandidatePut(key), Ahead::Candidate { create_revision, .. }) => {
                key.create_revision == *create_revision
            }
            (Change::CandidatePut(_) | Change::Deleted(_) | Change::LockPut(_), _) => false,
        };
        if !still_ahead {
            self.forget_place();
        }
    }

    pub(super) fn on_watch_ended(&mut self, now: Reading, watch: WatchId, error: CallError) {
        if let Some(endpoint) = self.watch_mut(watch).map(|watch| watch.endpoint) {
            self.tell(failure(endpoint, Operation::Watch, error));
            self.on_watch_gone(now, watch);
        }
    }

    /// A watch that is not to be believed.
    fn give_up_watch(&mut self, now: Reading, watch: WatchId) {
        self.effects.push_back(Effect::Unwatch(watch));
        self.on_watch_gone(now, watch);
    }

    /// A watch is not there any more: read afresh, then watch from there.
    fn on_watch_gone(&mut self, now: Reading, gone: WatchId) {
        if self.lock_watch.as_ref().is_some_and(|watch| watch.id == gone) {
            self.lock_watch = None;
        }
        if self.ahead_watch.as_ref().is_some_and(|(watch, _)| watch.id == gone) {
            self.ahead_watch = None;
            self.ahead = Ahead::Unknown;
        }
        if self.fresh {
            self.fresh = false;
            self.observe_at = now.boot.after(self.watch_backoff.next(&mut self.random));
        }
    }

    pub(super) fn expire_watches(&mut self, now: Reading) {
        let late = |watch: &Watch| watch.created_by.is_some_and(|by| now.boot >= by);
        let watches = self.lock_watch.iter().chain(self.ahead_watch.iter().map(|(watch, _)| watch));
        let overdue: Vec<(WatchId, EndpointId)> =
            watches.filter(|watch| late(watch)).map(|watch| (watch.id, watch.endpoint)).collect();
        for (watch, endpoint) in overdue {
            self.note_failure(now, endpoint, Operation::Watch, timeout_error());
            self.give_up_watch(now, watch);
        }
    }

    /// An endpoint that does not answer in time may be silent on its watches too.
    pub(super) fn distrust_watches_on(&mut self, endpoint: EndpointId) {
        if self.lock_watch.as_ref().is_some_and(|watch| watch.endpoint == endpoint) {
            self.drop_lock_watch();
        }
        if self.ahead_watch.as_ref().is_some_and(|(watch, _)| watch.endpoint == endpoint) {
            self.drop_ahead_watch();
        }
    }

    pub(super) fn drop_watches(&mut self) {
        self.drop_lock_watch();
        self.drop_ahead_watch();
    }

    fn drop_lock_watch(&mut self) {
        if let Some(watch) = self.lock_watch.take() {
            self.effects.push_back(Effect::Unwatch(watch.id));
        }
    }

    fn drop_ahead_watch(&mut self) {
        if let Some((watch, _)) = self.ahead_watch.take() {
            self.effects.push_back(Effect::Unwatch(watch.id));
        }
    }

    fn watch_mut(&mut self, id: WatchId) -> Option<&mut Watch> {
        let ahead = self.ahead_watch.as_mut().map(|(watch, _): &mut (Watch, Identity)| watch);
        self.lock_watch.as_mut().into_iter().chain(ahead).find(|watch| watch.id == id)
    }

    pub(super) fn observation_deadline(&self) -> Option<Instant> {
        let watches = self.lock_watch.iter().chain(self.ahead_watch.iter().map(|(watch, _)| watch));
        let created_by = watches.filter_map(|watch| watch.created_by);
        let observe = (!self.asks.is_asking(Operation::Observe)).then_some(self.observe_at);
        created_by.chain(observe).min()
    }
}
