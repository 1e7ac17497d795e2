//! Labels on pods, as a small labeller in each process keeps them through an API server that may be away.
//!
//! Each patch is made for the version of the pod that was read before and lands later, or not at all. A new leader
//! stamps its term on the pods that carry the leader's label before it labels its own.

use std::time::Duration;

use bellwether::election::{OpId, Publication, Role, Term};

use crate::dice::Dice;

/// How often a labeller looks whether all is as it should be.
pub(crate) const LOOKS_EVERY: Duration = Duration::from_secs(5);
/// How long it waits after the API server was away, or a conflict.
const TRIES_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// One publication in this many is never acknowledged.
const SILENT_ONE_IN: u64 = 8;

/// What a pod shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pod {
    version: u64,
    pub(crate) leads: bool,
    term: Option<Term>,
}

/// What one labeller is to show, for one life of its process.
#[derive(Clone, Debug)]
struct Wanted {
    life: u64,
    publication: Publication,
    acknowledged: bool,
}

/// A patch on its way.
#[derive(Clone, Debug)]
pub(crate) struct Patch {
    pub(crate) by: usize,
    pub(crate) life: u64,
    pod: usize,
    version: u64,
    leads: bool,
    term: Option<Term>,
}

/// What a labeller does next.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    /// This patch lands so much later.
    Lands(u64, Patch),
    /// It looks again so much later.
    Looks(u64),
    /// Its publication is seen, and its candidate told so much later; never, sometimes.
    Seen(Option<(u64, OpId)>),
}

/// All pods and labellers.
#[derive(Debug)]
pub(crate) struct Labels {
    pub(crate) pods: Vec<Pod>,
    wanted: Vec<Option<Wanted>>,
    /// The look that counts of each labeller.
    looks: Vec<u64>,
    away_until: u64,
    dice: Dice,
}

impl Labels {
    pub(crate) fn new(seed: u64, pods: usize) -> Self {
        Self {
            pods: vec![Pod::default(); pods],
            wanted: vec![None; pods],
            looks: vec![0; pods],
            away_until: 0,
            dice: Dice::of(seed, "labels"),
        }
    }

    pub(crate) fn api_server_goes_away(&mut self, until: u64) {
        self.away_until = self.away_until.max(until);
    }

    pub(crate) fn api_server_is_back(&mut self) {
        self.away_until = 0;
    }

    pub(crate) fn next_look(&mut self, node: usize) -> u64 {
        self.looks[node] += 1;
        self.looks[node]
    }

    pub(crate) fn is_last_look(&self, node: usize, number: u64) -> bool {
        self.looks[node] == number
    }

    /// A candidate publishes. Says when its labeller gets to it.
    pub(crate) fn publish(&mut self, node: usize, life: u64, publication: Publication) -> u64 {
        self.wanted[node] = Some(Wanted { life, publication, acknowledged: false });
        self.dice.nanos(Duration::from_micros(100), Duration::from_millis(20))
    }

    /// One round of a labeller: what it sends, and when it looks again.
    pub(crate) fn round(&mut self, now: u64, node: usize, life: u64) -> Vec<Next> {
        let again = self.dice.nanos(LOOKS_EVERY / 2, LOOKS_EVERY);
        let Some(wanted) = self.wanted[node].clone().filter(|wanted| wanted.life == life) else { return Vec::new() };
        if now < self.away_until {
            return vec![Next::Looks(self.dice.nanos(TRIES_AGAIN_AFTER, TRIES_AGAIN_AFTER * 2))];
        }
        let mut next = Vec::new();
        let mut patch = |labels: &mut Self, pod: usize, leads: bool, term: Option<Term>, most: Duration| {
            let version = labels.pods[pod].version;
            let lands = labels.dice.nanos(Duration::from_millis(1), most);
            next.push(Next::Lands(lands, Patch { by: node, life, pod, version, leads, term }));
        };
        let slow = if self.dice.once_in(10) { Duration::from_secs(2) } else { Duration::from_millis(40) };
        match wanted.publication.role {
            Role::Leader { term, .. } => {
                for other in (0..self.pods.len()).filter(|other| *other != node) {
                    if self.pods[other].leads && self.pods[other].term < Some(term) {
                        patch(self, other, false, Some(term), slow);
                    }
                }
                if !(self.pods[node].leads && self.pods[node].term == Some(term)) && self.pods[node].term <= Some(term)
                {
                    patch(self, node, true, Some(term), slow);
                }
            }
            Role::Follower | Role::Unknown if self.pods[node].leads => {
                let term = self.pods[node].term;
                patch(self, node, false, term, slow);
            }
            Role::Follower | Role::Unknown => {}
        }
        if next.is_empty() && !wanted.acknowledged {
            next.push(self.acknowledge(node));
        }
        // What lands looks again by itself.
        if !next.iter().any(|one| matches!(one, Next::Lands(..))) {
            next.push(Next::Looks(again));
        }
        next
    }

    fn acknowledge(&mut self, node: usize) -> Next {
        let wanted = self.wanted[node].as_mut().expect("a round is of something wanted");
        wanted.acknowledged = true;
        let id = wanted.publication.id;
        let most = if self.dice.once_in(10) { Duration::from_secs(1) } else { Duration::from_millis(10) };
        let told = self.dice.nanos(Duration::from_micros(100), most);
        Next::Seen((!self.dice.once_in(SILENT_ONE_IN)).then_some((told, id)))
    }

    /// A patch arrives at the API server, which refuses it when the pod has changed since.
    pub(crate) fn lands(&mut self, now: u64, patch: &Patch) {
        let pod = &mut self.pods[patch.pod];
        if now >= self.away_until && pod.version == patch.version {
            *pod = Pod { version: pod.version + 1, leads: patch.leads, term: patch.term };
        }
    }

    /// Which pods carry the leader's label.
    pub(crate) fn leaders(&self) -> Vec<usize> {
        (0..self.pods.len()).filter(|pod| self.pods[*pod].leads).collect()
    }
}
