//! After the storm: everything is repaired, somebody must lead soon, and all must come to rest.

use std::time::Duration;

use super::{Happening, World};
use crate::clock::nanos;
use crate::invariants::{
    label_follows_lock, leader_works_at_rest, nobody_leads_when_all_are_ill, nothing_changes_at_rest,
    observers_name_the_leader, quiet_at_rest, someone_leads_after_heal,
};

/// Beside a lease's life and a drain: an etcd leader is elected within 3 s and prolongs every lease by another election
/// timeout; expiry is looked for every 500 ms; then a claim, and the renewal that confirms it, an attempt or two each.
const HEALED_WITHIN: Duration = Duration::from_secs(6);
/// At rest a candidate renews and confirms, every K and hedged now and then; more than this many calls a second is a
/// storm of its own.
const CALLS_PER_SECOND: u64 = 6;
/// And it looks once every T, and probes up to five members every 30 s.
const CALLS_BESIDE: u64 = 12;
/// Long enough for labels, which are right within 5 s.
const REST_LEAST: Duration = Duration::from_secs(8);

impl World {
    pub(super) fn heal_and_rest(&mut self) {
        self.heals();
        let timings = self.setup.timings;
        // The last lease that nobody renews has its whole life before it; who stands down drains; and an attempt that
        // began before the heal has to fail first.
        let stopping = self.setup.working_timings.stop_time();
        let within =
            timings.lease_ttl() + timings.drain_timeout() + stopping + timings.attempt_timeout() * 2 + HEALED_WITHIN;
        self.run_until(self.now + nanos(within));
        self.someone_leads();
        let transitions = self.transitions();
        let before: Vec<u64> = self.nodes.iter().map(|node| node.requests).collect();
        let span = timings.lease_ttl().max(REST_LEAST);
        self.run_until(self.now + nanos(span));
        self.someone_leads();
        if self.broken.is_some() {
            return;
        }
        self.judged(nothing_changes_at_rest(transitions, self.transitions(), &self.nodes));
        let most = CALLS_PER_SECOND * span.as_secs() + CALLS_BESIDE;
        for (node, before) in before.into_iter().enumerate() {
            self.judged(quiet_at_rest(node, self.nodes[node].requests - before, most, span));
        }
        if let [leader] = self.judge.answering() {
            let leader = leader.node;
            let verdict = label_follows_lock(&self.labels.leaders(), leader)
                .and_then(|()| observers_name_the_leader(&self.nodes, leader))
                .and_then(|()| leader_works_at_rest(&self.nodes[leader], leader));
            self.judged(verdict);
        }
    }

    /// How many there have been, of all candidates.
    fn transitions(&self) -> u64 {
        self.tally.transitions.values().sum()
    }

    fn someone_leads(&mut self) {
        if self.broken.is_some() {
            return;
        }
        let leads = !self.judge.answering().is_empty();
        if self.all_stay_ill {
            return self.judged(nobody_leads_when_all_are_ill(leads, &self.nodes));
        }
        let verdict = someone_leads_after_heal(leads, &self.nodes, self.cluster.lock());
        self.judged(verdict);
        if let Some(since) = self.leaderless_since {
            self.note_leaderless(since);
        }
    }

    fn heals(&mut self) {
        self.note("everything is repaired");
        self.healed = true;
        self.leaderless_since = self.leaderless_since.map(|_| self.now);
        self.network.heal();
        self.labels.api_server_is_back();
        self.cluster_heals();
        self.applications_settle();
        for node in 0..self.nodes.len() {
            self.nodes[node].starved = None;
            self.nodes[node].pause_in_turn = None;
            self.nodes[node].dies_at_release = None;
            self.nodes[node].rest = 0;
            if let Some(pause) = &mut self.nodes[node].pause {
                pause.until = self.now;
                self.after(0, Happening::Wakes { node });
            }
            if self.setup.twin != Some(node) {
                self.after(0, Happening::Starts { node });
            }
            for member in 0..self.setup.cluster.members {
                self.after(1, Happening::LinkTurns { node, member });
            }
        }
    }
}
