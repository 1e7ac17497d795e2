//! What must hold, each in a function of the name that DESIGN.md section 8 gives it, and the judge who keeps the books.
//!
//! Everything is judged from outside, on the true clock, right before and right after everything that happens. In
//! between nobody begins to answer 200: that takes an event. So what holds at these instants holds at every instant.
//! What candidates have beside their election is judged in `company.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bellwether::election::{Call, Change, LeaseId, LockKey, Revision, Term};

use crate::etcd::StaleRevoke;
use crate::node::Node;
use crate::scenario::{Violation, Weather};

mod company;
#[cfg(test)]
mod company_tests;
#[cfg(test)]
mod tests;
mod twins;

pub(crate) use company::{
    leader_works_at_rest, nobody_leads_when_all_are_ill, observers_name_the_leader, stops_within_the_stop_time,
    the_news_stops_the_work,
};

/// Whether an invariant holds.
pub(crate) type Verdict = Result<(), Violation>;

fn broken(invariant: &'static str, what: String) -> Verdict {
    Err(Violation { invariant, what })
}

/// A candidate that answers 200 at this instant, with the term it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answering {
    pub(crate) node: usize,
    pub(crate) term: Term,
}

/// An answer that was given out.
#[derive(Clone, Copy, Debug)]
struct Promise {
    term: Term,
    /// In true time.
    until: u64,
}

/// A term whose key somebody else than its leader, or etcd's expiry, took away.
#[derive(Clone, Copy, Debug)]
struct TakenAway {
    at: u64,
}

/// An operator's command has been carried out within this, in nanoseconds.
const OPERATION_TAKES_MOST: u64 = 200_000_000;

/// Keeps the books of a run.
#[derive(Debug)]
pub(crate) struct Judge {
    weather: Weather,
    /// The place of a second process of the first candidate.
    twin: Option<usize>,
    /// Since when another process goes on with a candidate's lease.
    superseded: Vec<Option<u64>>,
    promises: Vec<Option<Promise>>,
    lock: Option<LockKey>,
    /// Who chose which lease.
    leases: BTreeMap<LeaseId, usize>,
    /// Lock keys that their own leader has asked to be removed.
    let_go: BTreeSet<Revision>,
    /// Lock keys that an operator is about to take away, or has.
    touched: BTreeSet<Revision>,
    operator_until: u64,
    taken_away: BTreeMap<Revision, TakenAway>,
    /// The token that each candidate's watch has told it is gone.
    told: Vec<Option<Revision>>,
    highest: Option<Answering>,
    /// The highest of this history of the store.
    highest_since_wipe: Option<Answering>,
    /// When the store was wiped last.
    wiped_at: Option<u64>,
    led: BTreeSet<Term>,
    overlap_since: Option<u64>,
    pub(crate) longest_overlap: Duration,
    answering: Vec<Answering>,
}

impl Judge {
    pub(crate) fn new(candidates: usize, weather: Weather, twin: Option<usize>) -> Self {
        Self {
            weather,
            twin,
            superseded: vec![None; candidates],
            promises: vec![None; candidates],
            lock: None,
            leases: BTreeMap::new(),
            let_go: BTreeSet::new(),
            touched: BTreeSet::new(),
            operator_until: 0,
            taken_away: BTreeMap::new(),
            told: vec![None; candidates],
            highest: None,
            highest_since_wipe: None,
            wiped_at: None,
            led: BTreeSet::new(),
            overlap_since: None,
            longest_overlap: Duration::ZERO,
            answering: Vec::new(),
        }
    }

    pub(crate) fn terms(&self) -> u64 {
        self.led.len() as u64
    }

    /// Who answers 200 at the instant that was looked at last.
    pub(crate) fn answering(&self) -> &[Answering] {
        &self.answering
    }

    /// Looks at everybody at one instant.
    pub(crate) fn look(
        &mut self,
        now: u64,
        nodes: &mut [Node],
        lock: Option<&LockKey>,
        has_lease: impl Fn(LeaseId) -> bool,
        revision: Revision,
    ) -> Verdict {
        self.answering.clear();
        for (place, node) in nodes.iter().enumerate().filter(|(_, node)| node.answers_200(now)) {
            let term = node.term().expect("who answers 200 names its term");
            self.answering.push(Answering { node: place, term });
        }
        if self.answering.is_empty() && self.overlap_since.is_none() {
            return Ok(());
        }
        self.note_overlap(now);
        let answering = std::mem::take(&mut self.answering);
        let rightful: Vec<Answering> = answering
            .iter()
            .copied()
            .filter(|one| !self.is_excused(one.term) && self.superseded[one.node].is_none())
            .collect();
        at_most_one_leader_answers(&rightful)?;
        for one in &answering {
            let node = &mut nodes[one.node];
            if let Some(since) = self.superseded[one.node] {
                twins::superseded_ends_by_until(now, *one, since, node)?;
                continue;
            } else if self.is_excused(one.term) {
                self.overlap_ends_with_the_news_and_by_until(now, *one, node)?;
            } else {
                no_leader_without_lease_and_key(*one, node, lock, &has_lease)?;
                self.terms_only_grow(*one, node, revision)?;
                self.answers_hold_for_their_validity(now, *one)?;
            }
            let until = node.promise(now);
            let before =
                self.promises[one.node].filter(|before| before.term == one.term).map_or(0, |before| before.until);
            self.promises[one.node] = Some(Promise { term: one.term, until: until.max(before) });
            self.led.insert(one.term);
        }
        self.answering = answering;
        Ok(())
    }

    fn is_excused(&self, term: Term) -> bool {
        self.taken_away.contains_key(&term.token)
    }

    fn note_overlap(&mut self, now: u64) {
        match (self.answering.len() > 1, self.overlap_since) {
            (true, None) => self.overlap_since = Some(now),
            (false, Some(since)) => {
                self.longest_overlap = self.longest_overlap.max(Duration::from_nanos(now - since));
                self.overlap_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A 200 says "no other candidate is elected for `valid_for_ms`": so while the answer of one may be relied on, no
    /// other gives one. An application that has read 200 acts on it for that long without asking again.
    fn answers_hold_for_their_validity(&self, now: u64, one: Answering) -> Verdict {
        for (other, promise) in self.promises.iter().enumerate() {
            let Some(promise) = promise.filter(|promise| other != one.node && promise.until > now) else { continue };
            if !self.is_excused(promise.term) {
                let left = Duration::from_nanos(promise.until - now);
                let what = format!(
                    "{} leads {} while an answer of {other} for {} is good for {left:?}",
                    one.node, one.term, promise.term
                );
                return broken("answers_hold_for_their_validity", what);
            }
        }
        Ok(())
    }

    /// The term fences what the answer cannot: a resource that has seen one refuses every lower one, which works only
    /// if each leader's is higher than all before. Terms grow within one history of the store, and from one to the next
    /// with the epoch; where the store has been wiped, who has heard of a later revision than it has must not lead.
    fn terms_only_grow(&mut self, one: Answering, node: &Node, revision: Revision) -> Verdict {
        let one = Answering { node: self.sidecar(one.node), ..one };
        let before = self.highest_since_wipe.replace(one);
        if before == Some(one) {
            return Ok(());
        }
        let refuse = |other: Answering| {
            let what = format!("{} leads {} after {} led {}", one.node, one.term, other.node, other.term);
            broken("terms_only_grow", what)
        };
        if let Some(before) = before.filter(|before| one.term.token <= before.term.token) {
            return refuse(before);
        }
        match self.highest {
            Some(highest) if one.term <= highest.term => {
                // Led before the wipe; who has heard of nothing that the store has not got again cannot know better.
                let knew = node.process.as_ref().is_some_and(|process| process.heard > revision);
                if self.wiped_at.is_none() || knew { refuse(highest) } else { Ok(()) }
            }
            Some(_) | None => {
                self.highest = Some(one);
                Ok(())
            }
        }
    }

    /// Where somebody else has taken the lock away, the leader cannot know before its watch tells it: two may answer for
    /// that long, and, should the news never come, no longer than the lease it had confirmed before, less the margin.
    fn overlap_ends_with_the_news_and_by_until(&self, now: u64, one: Answering, node: &Node) -> Verdict {
        const NAME: &str = "overlap_ends_with_the_news_and_by_until";
        let at = self.taken_away[&one.term.token].at;
        if self.told[one.node] == Some(one.term.token) {
            return broken(NAME, format!("{} leads {}, and has been told that it is gone", one.node, one.term));
        }
        let timings = node.timings;
        // An unnoticed stop of the guest may take a quarter of the margin.
        let most = node.clock.true_span(timings.lease_ttl() - timings.safety_margin() * 3 / 4);
        if now > at + most {
            let since = Duration::from_nanos(now - at);
            return broken(NAME, format!("{} leads {}, taken away {since:?} ago", one.node, one.term));
        }
        Ok(())
    }

    /// When somebody else took the lock of this term away, if that is so.
    fn taken_away(&self, token: Revision) -> Option<u64> {
        self.taken_away.get(&token).map(|taken| taken.at)
    }

    /// The token of which a candidate's watch has told that it is gone.
    pub(crate) fn told(&self, node: usize) -> Option<Revision> {
        self.told[node]
    }

    // ---- what is written down

    /// A watch on the lock tells a candidate something. What it leads by then is what it may have to stop leading.
    pub(crate) fn is_told(&mut self, node: usize, leads: Option<Term>, change: &Change) {
        let Some(token) = leads.map(|term| term.token) else { return };
        let gone = match change {
            Change::Deleted(revision) => *revision > token,
            Change::LockPut(lock) => lock.mod_revision > token,
            Change::CandidatePut(_) => false,
        };
        if gone {
            self.told[node] = Some(token);
        }
    }

    /// A candidate is new: nobody has told it anything.
    pub(crate) fn is_born(&mut self, node: usize) {
        self.told[node] = None;
        self.superseded[node] = None;
    }

    /// A candidate's call leaves.
    pub(crate) fn calls(&mut self, node: usize, call: &Call) -> Verdict {
        let node = self.sidecar(node);
        match call {
            Call::Grant { lease, .. } => {
                self.leases.insert(*lease, node);
            }
            Call::DeleteLock { create_revision, lease } => {
                resign_deletes_only_own_key(node, self.leases.get(lease).copied(), call)?;
                self.let_go.insert(*create_revision);
                self.may_rob_its_twin(node, Some(*create_revision));
            }
            Call::Revoke { lease } => {
                resign_deletes_only_own_key(node, self.leases.get(lease).copied(), call)?;
                let lock = self.lock.as_ref().filter(|lock| lock.lease == Some(*lease));
                let token = lock.map(|lock| lock.create_revision);
                self.let_go.extend(token);
                self.may_rob_its_twin(node, token);
            }
            Call::Probe
            | Call::Observe { .. }
            | Call::Register { .. }
            | Call::Unregister { .. }
            | Call::Claim { .. }
            | Call::Resume { .. }
            | Call::Confirm => {}
        }
        Ok(())
    }

    /// An operator takes the lock away from whoever holds it, or will in a moment.
    pub(crate) fn operator_touches_lock(&mut self, now: u64) {
        self.operator_until = now + OPERATION_TAKES_MOST;
        self.touched.extend(self.lock.as_ref().map(|lock| lock.create_revision));
    }

    /// The store begins a new history, and nobody knows the old one's keys.
    pub(crate) fn store_is_wiped(&mut self, now: u64) {
        self.wiped_at = Some(now);
        self.highest_since_wipe = None;
        self.let_go.clear();
        self.touched.clear();
        self.taken_away.clear();
        self.told.fill(None);
    }

    /// The lock key is another one, or none, or has been put again.
    pub(crate) fn lock_changes(&mut self, now: u64, lock: Option<&LockKey>, old_revokes: &[StaleRevoke]) -> Verdict {
        let old = std::mem::replace(&mut self.lock, lock.cloned());
        let Some(old) = old.filter(|_| self.wiped_at != Some(now)) else { return Ok(()) };
        let token = old.create_revision;
        // What has merely expired, an old server has not taken.
        let revoked = || old_revokes.iter().any(|revoke| old.lease == Some(revoke.lease));
        let by_old_server = self.weather == Weather::OldRevokes && !self.let_go.contains(&token) && revoked();
        if self.touched.contains(&token) || now <= self.operator_until || by_old_server {
            self.taken_away.entry(token).or_insert(TakenAway { at: now });
            return Ok(());
        }
        let gone = lock.is_none_or(|lock| lock.create_revision != token);
        let promise = self.promises.iter().flatten().find(|promise| promise.term.token == token && promise.until > now);
        match promise {
            Some(promise) if gone => {
                let left = Duration::from_nanos(promise.until - now);
                let what = format!("the lock of {} is gone while an answer is good for {left:?}", promise.term);
                broken("answers_hold_for_their_validity", what)
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Two applications that both hear 200 both write. It must hold because a candidate answers only before `until`, which
/// the margin keeps short of the end of the lease that holds the lock, and nobody else can take the lock before that.
fn at_most_one_leader_answers(rightful: &[Answering]) -> Verdict {
    match rightful {
        [] | [_] => Ok(()),
        [one, other, ..] => {
            let what = format!("{} leads {}, {} leads {}", one.node, one.term, other.node, other.term);
            broken("at_most_one_leader_answers", what)
        }
    }
}

/// Nobody else can be elected only as long as etcd holds the key, and holds it for a lease that lives: a leader without
/// is one by luck.
fn no_leader_without_lease_and_key(
    one: Answering,
    node: &Node,
    lock: Option<&LockKey>,
    has_lease: &impl Fn(LeaseId) -> bool,
) -> Verdict {
    let holds = lock.is_some_and(|lock| {
        lock.create_revision == one.term.token && lock.holder == node.identity && lock.lease.is_some_and(has_lease)
    });
    if holds {
        return Ok(());
    }
    broken("no_leader_without_lease_and_key", format!("{} leads {}, the key is {lock:?}", one.node, one.term))
}

/// Who lets go of somebody else's lock deposes a leader who knows nothing of it. Every delete and every revoke names a
/// lease that its sender chose, and nobody else chooses the same: applied late or twice, or after the store was wiped and
/// has given out the same revisions anew, it can hit nothing else.
fn resign_deletes_only_own_key(node: usize, owner: Option<usize>, call: &Call) -> Verdict {
    if owner == Some(node) {
        return Ok(());
    }
    broken("resign_deletes_only_own_key", format!("{node} sends {call:?}, which is of {owner:?}"))
}

/// Traffic is routed by the label. In a storm it lags; once all is at rest, and the API server answers, exactly the pod
/// of the one who leads must carry it, or traffic goes to a replica that does not lead, or to two.
pub(crate) fn label_follows_lock(labelled: &[usize], leader: usize) -> Verdict {
    if labelled == [leader] {
        return Ok(());
    }
    broken("label_follows_lock", format!("{leader} leads, the leader's label is on {labelled:?}"))
}

/// A lock that nobody takes is as bad as an outage that does not end: whatever state the storm has left behind must
/// dissolve by itself, at the latest when the last lease that nobody renews has expired.
pub(crate) fn someone_leads_after_heal(leads: bool, nodes: &[Node], lock: Option<&LockKey>) -> Verdict {
    if leads {
        return Ok(());
    }
    let states: Vec<String> = nodes.iter().map(Node::describe).collect();
    broken("someone_leads_after_heal", format!("{}; the key is {lock:?}", states.join(", ")))
}

/// A lead that ends and begins anew every few seconds is an outage too: when nothing disturbs it any more, whoever leads
/// goes on, and everybody else stays where it is.
pub(crate) fn nothing_changes_at_rest(before: u64, after: u64, nodes: &[Node]) -> Verdict {
    if before == after {
        return Ok(());
    }
    let states: Vec<String> = nodes.iter().map(Node::describe).collect();
    broken("nothing_changes_at_rest", format!("{} transitions at rest; {}", after - before, states.join(", ")))
}

/// Hundreds of sidecars share one etcd: at rest each may only renew, confirm, and look now and then.
pub(crate) fn quiet_at_rest(node: usize, calls: u64, most: u64, span: Duration) -> Verdict {
    if calls <= most {
        return Ok(());
    }
    broken("quiet_at_rest", format!("{node} made {calls} calls in {span:?}, {most} at most are due"))
}

/// A deadline that has passed when its turn ends makes the loop spin: it takes the processor from the application.
pub(crate) fn no_hot_loop(node: usize, handled: Result<(), String>) -> Verdict {
    handled.or_else(|what| broken("no_hot_loop", format!("{node}: {what}")))
}

/// More effects than this of one input are a loop inside the candidate: its calls, streams and watches are a handful.
const EFFECTS_MOST: usize = 60;

/// One input may only bring a handful of effects: the queue of them has no other bound.
pub(crate) fn effects_per_input_are_bounded(node: usize, effects: usize) -> Verdict {
    if effects <= EFFECTS_MOST {
        return Ok(());
    }
    broken("effects_per_input_are_bounded", format!("{node}: {effects} effects of one input"))
}

/// The adapter refuses more than 256 calls, streams or watches at once: a candidate that comes anywhere near has lost
/// track of what it waits for.
const OPEN_MOST: usize = 64;

/// What a process has open must not pile up, however long etcd is silent.
pub(crate) fn queues_are_bounded(node: usize, open: [usize; 3]) -> Verdict {
    if open.iter().all(|count| *count <= OPEN_MOST) {
        return Ok(());
    }
    broken("queues_are_bounded", format!("{node}: {open:?} calls, streams and watches are open"))
}
