//! What a candidate is given at its start.

use std::time::Duration;

use super::ids::{ClusterId, Epoch, Identity, LeaseId, Nonce, Term};
use super::instant::Instant;
use super::timings::Timings;

/// What a candidate is given at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its name: the value of the lock key when it leads.
    pub identity: Identity,
    /// `--epoch`
    pub epoch: Epoch,
    /// The timings.
    pub timings: Timings,
    /// How many endpoints there are; at least one.
    pub endpoints: usize,
    /// Where its pseudo-random numbers start. Two candidates must not share it: lease ids come from it.
    pub seed: u64,
    /// Tells this process from every other, one that goes by the same identity and holds the same lease included.
    pub nonce: Nonce,
    /// Whether anybody carries out `Effect::Publish`. If not, there is none.
    pub publishes: bool,
    /// Whether anybody carries out `Effect::StartWork`. If not, there is none.
    pub works: bool,
    /// Whether anybody carries out `Effect::Remember`. If not, there is none.
    pub remembers: bool,
    /// What it is there for.
    pub part: Part,
    /// Whether the application's health is looked at.
    pub application: Application,
    /// What an earlier process of the same candidate left behind.
    pub inheritance: Inheritance,
}

impl Settings {
    /// A candidate with nothing to it but an election: no label, no work, no memory.
    #[must_use]
    pub const fn bare(identity: Identity, timings: Timings, endpoints: usize, seed: u64) -> Self {
        Self {
            identity,
            epoch: Epoch(0),
            timings,
            endpoints,
            seed,
            nonce: Nonce(seed),
            publishes: false,
            works: false,
            remembers: false,
            part: Part::Candidate,
            application: Application::NotChecked,
            inheritance: Inheritance::Nothing,
        }
    }
}

/// What a sidecar is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// To lead, when it is its turn.
    Candidate,
    /// To know who leads (`--never-lead`): no lease, no registration.
    Observer,
}

/// Whether the application's health is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Nobody tells: it counts as healthy.
    NotChecked,
    /// `Event::AppHealth` tells. Until it does, the application is starting.
    Checked,
}

/// What an earlier process of the same candidate left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inheritance {
    /// Nothing that can be used.
    Nothing,
    /// A term to go on with. That no other process goes on with it is for whoever says so to know.
    Resume(Memory),
    /// A lease to revoke, so that the next leader need not wait for its end.
    Release {
        /// Which.
        memory: Memory,
        /// When the last answer that the earlier process can have given has expired.
        not_before: Instant,
    },
}

/// What it takes to go on with a term after the process has died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The cluster that the lease is in.
    pub cluster: ClusterId,
    /// The lease that the lock hangs on.
    pub lease: LeaseId,
    /// The lifetime that etcd gave it: whole seconds.
    pub ttl: Duration,
    /// The term.
    pub term: Term,
    /// When the last renewal that counted was sent: the lease ends no later than `ttl` after the last keep-alive, of which
    /// this is the last that is known.
    pub sent: Instant,
    /// The longest that an answer of that process promised: `--answer-validity`.
    pub validity: Duration,
}
