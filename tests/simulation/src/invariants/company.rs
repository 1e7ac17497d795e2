//! What must hold of what candidates have beside their election: work, an application, an observer's part.

use std::time::Duration;

use bellwether::election::{AppHealth, Call, Instant, LockKey, Revision, Term};

use super::{Answering, Judge, Verdict, broken};
use crate::node::Node;

/// A command that is there at this instant, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alive {
    node: usize,
    life: u64,
    term: Term,
}

const CHILD: &str = "child_runs_only_inside_a_term";

impl Judge {
    /// Looks at everybody's commands and applications at one instant, after [`Judge::look`].
    pub(crate) fn looks_at_company(&self, now: u64, nodes: &[Node], lock: Option<&LockKey>) -> Verdict {
        for one in self.answering() {
            only_the_healthy_lead(*one, &nodes[one.node])?;
        }
        if nodes.iter().all(|node| node.guardians.is_empty()) {
            return Ok(());
        }
        let mut rightful = Vec::new();
        for one in alive(nodes) {
            let until = self.superseded[one.node].or_else(|| self.taken_away(one.term.token));
            if let Some(taken) = until {
                work_ends_with_the_news_and_the_stop_time(now, one, taken, &nodes[one.node])?;
            } else if now > nodes[one.node].guest_excused_until {
                rightful.push(one);
            }
        }
        self.child_runs_only_inside_a_term(&rightful, lock)
    }

    /// What a command does, it does in the name of a term: two of them write the same, and one beside a later leader writes
    /// what that one does not know of. So all of it must be gone when another may lead: it is told to end, and killed, so
    /// early that `until` and the time to stop are over before the lease is.
    fn child_runs_only_inside_a_term(&self, alive: &[Alive], lock: Option<&LockKey>) -> Verdict {
        if let [one, other, ..] = alive {
            return broken(CHILD, format!("{one:?} and {other:?} at once"));
        }
        let Some(one) = alive.first() else { return Ok(()) };
        let later = self.answering().iter().find(|other| {
            other.term != one.term && !self.is_excused(other.term) && self.superseded[other.node].is_none()
        });
        if let Some(later) = later {
            return broken(CHILD, format!("{one:?} beside {later:?}"));
        }
        if lock.is_none_or(|lock| lock.create_revision != one.term.token) {
            return broken(CHILD, format!("{one:?}, the key is {lock:?}"));
        }
        Ok(())
    }

    /// A candidate's call leaves.
    pub(crate) fn calls_in_company(&self, nodes: &[Node], node: usize, call: &Call, now: u64) -> Verdict {
        let it = &nodes[node];
        if it.company.observes {
            observers_only_look_on(node, call)?;
        }
        let lock = self.lock.as_ref();
        let token = match call {
            Call::DeleteLock { create_revision, .. } => Some(*create_revision),
            Call::Revoke { lease } => lock.filter(|lock| lock.lease == Some(*lease)).map(|lock| lock.create_revision),
            Call::Probe
            | Call::Grant { .. }
            | Call::Observe { .. }
            | Call::Register { .. }
            | Call::Unregister { .. }
            | Call::Claim { .. }
            | Call::Resume { .. }
            | Call::Confirm => None,
        };
        let Some(token) = token.filter(|token| lock.is_some_and(|lock| lock.create_revision == *token)) else {
            return Ok(());
        };
        work_is_gone_before_the_lock(nodes, node, token)?;
        lock_is_held_until_the_application_has_gone(it, node, now)
    }
}

fn alive(nodes: &[Node]) -> impl Iterator<Item = Alive> + '_ {
    // What a stopped guest holds does nothing.
    let moving = nodes.iter().enumerate().filter(|(_, it)| it.pause.is_none_or(|pause| !pause.guest));
    moving.flat_map(|(node, it)| {
        let there = it.guardians.iter().filter(|guardian| guardian.is_alive());
        there.map(move |guardian| Alive { node, life: guardian.life, term: guardian.term })
    })
}

/// The other half of the same promise: who lets go of the lock of its own will does so only when nothing of the work is left.
fn work_is_gone_before_the_lock(nodes: &[Node], node: usize, token: Revision) -> Verdict {
    match alive(nodes).find(|one| one.node == node && one.term.token == token) {
        Some(one) => broken(CHILD, format!("{node} lets go of {token}, and there is {one:?}")),
        None => Ok(()),
    }
}

/// Where somebody else has taken the lock away, the work is stopped with the news, and should that never come, by itself
/// before the lease that had been confirmed would have ended: the bound of the answers and the time to stop, which is what
/// the answers end earlier by.
fn work_ends_with_the_news_and_the_stop_time(now: u64, one: Alive, taken_at: u64, node: &Node) -> Verdict {
    let timings = node.timings;
    let most = node.clock.true_span(timings.lease_ttl() - timings.safety_margin() * 3 / 4);
    if now <= (taken_at + most).max(node.guest_excused_until) {
        return Ok(());
    }
    let since = Duration::from_nanos(now - taken_at);
    broken("work_ends_with_the_news_and_the_stop_time", format!("{one:?}, taken away {since:?} ago"))
}

/// And with the news it is stopped at once: in the same turn.
pub(crate) fn the_news_stops_the_work(node: usize, running: Option<Term>, told: Option<Revision>) -> Verdict {
    match running {
        Some(term) if told == Some(term.token) => {
            broken("the_news_stops_the_work", format!("{node} has been told that {term} is over, and its command runs"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Who is told to stop is killed after the time to stop: later would be too late, and for ever would be no stop.
pub(crate) fn stops_within_the_stop_time(node: usize, now: Instant, kill_at: Instant, stop_time: Duration) -> Verdict {
    if kill_at <= now.after(stop_time) {
        return Ok(());
    }
    broken("stops_within_the_stop_time", format!("{node} kills at {kill_at:?}, told at {now:?}, G {stop_time:?}"))
}

/// Who leads is sent all the traffic: an application that cannot serve it must not be, nor one that nobody has asked yet,
/// unless its candidate goes on with what it led a moment ago.
fn only_the_healthy_lead(one: Answering, node: &Node) -> Verdict {
    let Some(process) = node.process.as_ref().filter(|_| node.company.is_checked) else { return Ok(()) };
    match process.shown {
        Some(AppHealth::Healthy) => Ok(()),
        None if process.resumes => Ok(()),
        shown @ (Some(AppHealth::Unhealthy) | None) => {
            broken("only_the_healthy_lead", format!("{} leads {}, its application: {shown:?}", one.node, one.term))
        }
    }
}

/// Acting on a 200 is the application's: who is told to stop keeps the lock until it has gone, or has had its time.
fn lock_is_held_until_the_application_has_gone(it: &Node, node: usize, now: u64) -> Verdict {
    let Some(process) = it.process.as_ref().filter(|_| it.company.is_checked) else { return Ok(()) };
    let Some(told) = process.stop_told.filter(|_| !process.app_gone) else { return Ok(()) };
    let reading = it.clock.reading(now).boot;
    if reading >= told.after(it.timings.drain_timeout()) {
        return Ok(());
    }
    let what = format!("{node} lets go at {reading:?}, told to stop at {told:?}, and its application is there");
    broken("lock_is_held_until_the_application_has_gone", what)
}

/// An observer costs etcd nothing but reads, and nobody waits for it.
fn observers_only_look_on(node: usize, call: &Call) -> Verdict {
    match call {
        Call::Probe | Call::Observe { .. } => Ok(()),
        Call::Grant { .. }
        | Call::Register { .. }
        | Call::Unregister { .. }
        | Call::Claim { .. }
        | Call::Resume { .. }
        | Call::Confirm
        | Call::DeleteLock { .. }
        | Call::Revoke { .. } => broken("observers_only_look_on", format!("{node} sends {call:?}")),
    }
}

/// It is there to know who leads.
pub(crate) fn observers_name_the_leader(nodes: &[Node], leader: usize) -> Verdict {
    for (place, node) in nodes.iter().enumerate().filter(|(_, node)| node.company.observes) {
        let named = node.process.as_ref().and_then(|process| process.published.leader.as_ref());
        if named.is_none_or(|named| named.identity != nodes[leader].identity) {
            let named = named.map(|named| &named.identity);
            return broken("observers_name_the_leader", format!("{leader} leads, {place} names {named:?}"));
        }
    }
    Ok(())
}

/// A leader whose command does not run leads for nothing.
pub(crate) fn leader_works_at_rest(node: &Node, leader: usize) -> Verdict {
    let runs = node.guardians.iter().any(|guardian| guardian.life == node.life && guardian.is_running());
    if runs || !node.company.works {
        return Ok(());
    }
    broken("leader_works_at_rest", format!("{leader} leads, and its command does not run: {:?}", node.guardians))
}

/// Who cannot serve does not lead, though nobody else can either.
pub(crate) fn nobody_leads_when_all_are_ill(leads: bool, nodes: &[Node]) -> Verdict {
    if !leads {
        return Ok(());
    }
    let states: Vec<String> = nodes.iter().map(Node::describe).collect();
    broken("nobody_leads_when_all_are_ill", states.join(", "))
}
