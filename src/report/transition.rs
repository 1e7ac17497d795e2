//! One line per transition: from where to where, why, and what comes next.

use tracing::{info, warn};

use crate::election::{PublicState, Reason, Term};

/// Says that the candidate changed its state, why, and what it does next.
pub(super) fn transition(from: PublicState, to: PublicState, reason: Reason, term: Option<Term>) {
    let held = term.is_some();
    let lost = matches!(from, PublicState::Leading | PublicState::Jeopardy);
    let next = match to {
        PublicState::Starting => "starting: registers in etcd next".to_owned(),
        PublicState::Standby if lost => {
            format!("no leader any more: {}; /leader answers 503; {}", why_lost(reason), next_of_standby(from, reason))
        }
        PublicState::Standby => format!("standby: {}", next_of_standby(from, reason)),
        PublicState::Leading if from == PublicState::Starting => {
            "leading: goes on with the term of the process before this \
                                                                  one; /leader answers 200 as long as renewals are \
                                                                  confirmed"
                .to_owned()
        }
        PublicState::Leading => "leading: /leader answers 200 as long as renewals are confirmed".to_owned(),
        PublicState::Jeopardy => "in jeopardy: /leader answers 503; the same term goes on if a renewal is confirmed \
                                  before etcd expires the lease"
            .to_owned(),
        PublicState::StandingDown if held => {
            format!(
                "standing down{}: /leader answers 503; the lock is let go of when nobody can act on the term any more",
                why_given_up(reason)
            )
        }
        PublicState::StandingDown => "standing down: leaves the election, in which it held no lock".to_owned(),
        PublicState::Stopped => "stopped".to_owned(),
    };
    let against_its_will = to == PublicState::Jeopardy || (lost && to == PublicState::Standby);
    let (from, to, reason) = (from.as_str(), to.as_str(), reason.as_str());
    let (term, epoch) = numbers_of(term);
    if against_its_will {
        warn!(from, to, reason, term, epoch, "{next}");
    } else {
        info!(from, to, reason, term, epoch, "{next}");
    }
}

/// How a leader, or one in jeopardy, came to lose its term, as a clause.
const fn why_lost(reason: Reason) -> &'static str {
    match reason {
        Reason::LockDeleted => "its lock key is gone, because it was deleted or its lease was revoked or expired",
        Reason::LockOverwritten => "somebody else wrote the lock key",
        Reason::LeaseLost => "etcd does not know its lease any more",
        Reason::StoreReset => "etcd was wiped or restored",
        Reason::SeveralClusters => "--etcd-endpoints names more than one cluster",
        Reason::Superseded => "another process of this candidate goes on with its lease",
        Reason::Registered
        | Reason::LooksOn
        | Reason::Inherited
        | Reason::Claimed
        | Reason::Adopted
        | Reason::Resumed
        | Reason::UntilPassed
        | Reason::ClockJumped
        | Reason::StreamEnded
        | Reason::Resigned
        | Reason::AppUnhealthy
        | Reason::WorkFailed
        | Reason::WorkFinished
        | Reason::Stopped => reason.as_str(),
    }
}

/// Why a leader gives its term up although etcd would let it lead on, as the end of a clause.
const fn why_given_up(reason: Reason) -> &'static str {
    match reason {
        Reason::AppUnhealthy => ", because the application is not healthy",
        Reason::WorkFailed => ", because a hook failed",
        Reason::WorkFinished => ", because the command has ended",
        Reason::Registered
        | Reason::LooksOn
        | Reason::Inherited
        | Reason::Claimed
        | Reason::Adopted
        | Reason::Resumed
        | Reason::UntilPassed
        | Reason::ClockJumped
        | Reason::StreamEnded
        | Reason::LeaseLost
        | Reason::LockDeleted
        | Reason::LockOverwritten
        | Reason::Resigned
        | Reason::Stopped
        | Reason::Superseded
        | Reason::StoreReset
        | Reason::SeveralClusters => "",
    }
}

/// What a candidate does that has become a standby, as a clause.
const fn next_of_standby(from: PublicState, reason: Reason) -> &'static str {
    const STAYS_AWAY: &str = "stays away from the lock for a while, unless nobody else takes it";
    match (from, reason) {
        (_, Reason::Resigned | Reason::WorkFailed)
        | (PublicState::Leading, Reason::LockDeleted | Reason::LockOverwritten) => STAYS_AWAY,
        (_, Reason::StoreReset | Reason::SeveralClusters) => "does not claim the lock until this is mended",
        (_, Reason::AppUnhealthy) => "not in line until its application is healthy",
        (_, Reason::LooksOn) => "looks on and does not claim the lock",
        (_, Reason::Superseded) => "registers anew when that process is gone",
        (
            _,
            Reason::Registered
            | Reason::Inherited
            | Reason::WorkFinished
            | Reason::Claimed
            | Reason::Adopted
            | Reason::Resumed
            | Reason::UntilPassed
            | Reason::ClockJumped
            | Reason::StreamEnded
            | Reason::LeaseLost
            | Reason::LockDeleted
            | Reason::LockOverwritten
            | Reason::Stopped,
        ) => "claims the lock when its turn comes",
    }
}

/// Term and epoch as the local API writes them, so that logs and answers can be searched for the same number.
pub(super) fn numbers_of(term: Option<Term>) -> (Option<i64>, Option<u64>) {
    (term.map(|term| term.token.0), term.map(|term| term.epoch.0))
}
