//! The edges of the candidate's state machine, and which of them have been gone.
//!
//! The list is written down from `src/election/candidate/`: every call of `Candidate::transition`, with every state
//! it can be called in and every reason it can be given. `Reason::SeveralClusters` is given to none: that bar falls only
//! before the candidate has registered, and then it stays where it is. An edge that is not in it fails a run, whatever its size; one
//! that nobody goes fails a run of [`SEEDS_FOR_ALL`] seeds or more.

use bellwether::election::{PublicState, Reason};

use super::Summary;
use crate::Weather;

use PublicState::{Jeopardy, Leading, Standby, StandingDown, Starting, Stopped};
use Weather::{Copies, Fading, Handovers, OldRevokes, Operators, Restarts, Storm};

/// From which number of seeds on every edge must have been gone in its weathers.
pub(super) const SEEDS_FOR_ALL: u64 = 1000;

/// From, to, why.
pub type Key = (PublicState, PublicState, Reason);

/// One way from a state to another.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// From, to, why.
    pub key: Key,
    /// The weathers that lead there often enough to be held to it; rarely, others may.
    pub weathers: &'static [Weather],
    /// The function that makes the transition, and when.
    pub origin: &'static str,
}

const EVERY: &[Weather] = &[Storm, Operators, OldRevokes, Fading, Handovers, Restarts, Copies];
/// Nobody stops or resigns while the network fades, no clock jumps, and no store is wiped.
const ROUGH: &[Weather] = &[Storm, Operators, OldRevokes];
/// Where the lock is let go of on purpose.
const LETTING_GO: &[Weather] = &[Storm, Operators, OldRevokes, Handovers, Restarts, Copies];

/// All of them.
pub const EDGES: [Edge; 33] = [
    edge(Starting, Standby, Reason::Registered, EVERY, "advance_registration: registered, lock read, endpoints heard"),
    edge(Starting, Standby, Reason::LooksOn, EVERY, "enter: an observer, or its application has not been healthy yet"),
    edge(Starting, Leading, Reason::Inherited, EVERY, "enter: on with the term of an earlier process"),
    edge(Starting, StandingDown, Reason::Stopped, &[Storm, Operators], "on_stop, before it was registered"),
    edge(Standby, Leading, Reason::Claimed, EVERY, "on_claimed: the keep-alive before the claim counts"),
    edge(Standby, Leading, Reason::Adopted, EVERY, "count_renewal: a claim of ours whose keep-alive did not count"),
    edge(Standby, StandingDown, Reason::Stopped, LETTING_GO, "on_stop"),
    edge(Leading, Jeopardy, Reason::UntilPassed, EVERY, "expire_right: not renewed in time"),
    edge(Leading, Jeopardy, Reason::ClockJumped, ROUGH, "expire_right: the wall clock ran ahead"),
    edge(Leading, Jeopardy, Reason::StreamEnded, EVERY, "expire_right: the reconnect window has passed"),
    edge(Leading, Standby, Reason::LeaseLost, &[Operators, OldRevokes], "lose_lease: a keep-alive says TTL 0"),
    edge(Leading, Standby, Reason::LockDeleted, &[Operators, OldRevokes], "react_as_holder: the key is gone"),
    edge(Leading, Standby, Reason::LockOverwritten, &[Operators], "react_as_holder: somebody put the key again"),
    edge(Leading, Standby, Reason::StoreReset, ROUGH, "bar: restored with the leader's own lock and lease"),
    edge(Leading, StandingDown, Reason::Stopped, LETTING_GO, "on_stop"),
    edge(Leading, StandingDown, Reason::Resigned, LETTING_GO, "on_resign"),
    edge(Leading, StandingDown, Reason::AppUnhealthy, EVERY, "advance_gate"),
    edge(Leading, StandingDown, Reason::WorkFailed, EVERY, "on_work_failed"),
    edge(Leading, StandingDown, Reason::WorkFinished, EVERY, "on_work_finished"),
    edge(Leading, Standby, Reason::Superseded, &[Copies], "give_way: another process goes on with the lease"),
    edge(Jeopardy, Leading, Reason::Resumed, EVERY, "count_renewal: lease and key have survived"),
    edge(Jeopardy, Standby, Reason::LeaseLost, EVERY, "lose_lease: TTL 0; settle_unled: given up after a TTL"),
    edge(Jeopardy, Standby, Reason::LockDeleted, EVERY, "react_as_holder: the key has expired"),
    edge(Jeopardy, Standby, Reason::LockOverwritten, &[Operators], "react_as_holder: somebody put the key again"),
    edge(Jeopardy, Standby, Reason::StoreReset, ROUGH, "bar: a linearizable revision went back"),
    edge(Jeopardy, StandingDown, Reason::Stopped, &[Storm, Operators, OldRevokes, Handovers], "on_stop"),
    edge(Jeopardy, StandingDown, Reason::WorkFinished, &[], "on_work_finished, in the turn in which until passes"),
    edge(Jeopardy, Standby, Reason::Superseded, &[Copies], "give_way: another process goes on with the lease"),
    edge(StandingDown, StandingDown, Reason::Stopped, &[Storm, Handovers], "on_stop, while it resigns"),
    edge(StandingDown, Standby, Reason::AppUnhealthy, EVERY, "finish_release, as its application is not healthy"),
    edge(StandingDown, Standby, Reason::WorkFailed, EVERY, "finish_release, as its work has failed"),
    edge(StandingDown, Standby, Reason::Resigned, LETTING_GO, "finish_release of a resignation"),
    edge(StandingDown, Stopped, Reason::Stopped, LETTING_GO, "finish_release on the way out"),
];

const fn edge(
    from: PublicState,
    to: PublicState,
    reason: Reason,
    weathers: &'static [Weather],
    origin: &'static str,
) -> Edge {
    Edge { key: (from, to, reason), weathers, origin }
}

/// Which edges were gone.
#[derive(Debug)]
pub struct Coverage {
    /// In a weather that was played and is held to it, nobody went.
    pub unseen: Vec<(Weather, &'static Edge)>,
    /// Gone, and not in the list; with the first seed.
    pub unlisted: Vec<(Weather, Key, u64)>,
}

impl Coverage {
    /// Of these runs.
    pub fn of(summary: &Summary) -> Self {
        let (mut unseen, mut unlisted) = (Vec::new(), Vec::new());
        for (weather, runs) in &summary.weathers {
            let required = || EDGES.iter().filter(|edge| edge.weathers.contains(weather));
            unseen.extend(
                required().filter(|edge| !runs.tally.transitions.contains_key(&edge.key)).map(|edge| (*weather, edge)),
            );
            let unknown = runs.first.iter().filter(|(key, _)| EDGES.iter().all(|edge| edge.key != **key));
            unlisted.extend(unknown.map(|(key, (_, seed))| (*weather, *key, *seed)));
        }
        Self { unseen, unlisted }
    }
}

/// An edge for a reader.
pub(super) fn edge_name((from, to, reason): Key) -> String {
    format!("{} → {} ({})", from.as_str(), to.as_str(), reason.as_str())
}
