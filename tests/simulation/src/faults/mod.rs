//! What can go wrong: every kind of fault, with all that there is to say about one.

mod execute;
mod last_renewal;
mod members;
mod operators;
mod plan;
mod restarts;
mod restores;
mod under_confirm;

use std::time::Duration;

use crate::network::Ways;
use crate::node::Place;

pub(crate) use last_renewal::LastRenewal;
pub(crate) use plan::{Planned, plan};
pub(crate) use under_confirm::UnderConfirm;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Whoever answers 200 at that moment, else the first.
    Leader,
    Candidate(usize),
    Everybody,
}

/// Which members a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that believes that it leads the others; of two, the later elected.
    EtcdLeader,
    Member(usize),
    All,
}

/// What happens to a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchTrouble {
    Compacted,
    Ends,
    LosesNext,
    Silent,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fault {
    // ---- the network
    Cut {
        who: Who,
        which: Which,
        ways: Ways,
        hold: bool,
        lasts: Duration,
    },
    Refuse {
        who: Who,
        which: Which,
        lasts: Duration,
    },
    Reset {
        who: Who,
        which: Which,
    },
    Slow {
        who: Who,
        which: Which,
        ways: Ways,
        most: Duration,
        lasts: Duration,
    },
    Lossy {
        who: Who,
        which: Which,
        one_in: u64,
        lasts: Duration,
    },
    Repeat {
        who: Who,
        which: Which,
        lasts: Duration,
    },
    /// The leader's network is slow at first, then there is none.
    Fade {
        ways: Ways,
        slow: Duration,
        gone: Duration,
    },
    Watch {
        who: Who,
        trouble: WatchTrouble,
        nth: usize,
    },
    // ---- processes and machines
    Pause {
        who: Who,
        lasts: Duration,
    },
    PauseInTurn {
        who: Who,
        place: Place,
        lasts: Duration,
    },
    StopGuest {
        who: Who,
        lasts: Duration,
    },
    /// In nanoseconds, forward or back.
    WallJump {
        who: Who,
        by: i64,
    },
    Starve {
        who: Who,
        most: Duration,
        lasts: Duration,
    },
    Kill {
        who: Who,
        rest: Duration,
    },
    Terminate {
        who: Who,
        rest: Duration,
    },
    Resign {
        who: Who,
        cooldown: Duration,
    },
    /// Of the leader, when its next confirm leaves, whose answer waits so long in a queue.
    ResignUnderConfirm {
        cooldown: Duration,
        late: Duration,
    },
    RenewCredentials {
        who: Who,
    },
    /// Killed when it has asked for the lock to be let go of, next time it does.
    DiesAtRelease {
        who: Who,
        rest: Duration,
    },
    /// SIGTERM, and SIGKILL so much later.
    StopsHard {
        who: Who,
        after: Duration,
        rest: Duration,
    },
    /// Killed, and so often again that long after each start.
    CrashLoop {
        who: Who,
        times: u32,
        lives: Duration,
    },
    /// A second process of the first candidate starts on a copy of what the first keeps, or the other way round.
    CopyFolder {
        back: bool,
    },
    // ---- applications and commands
    AppIll {
        who: Who,
        lasts: Duration,
    },
    /// The command ends by itself, or what has to be done before it fails.
    WorkEnds {
        who: Who,
        fails: bool,
    },
    // ---- etcd
    Member(MemberFault),
    // ---- operators
    Operator(OperatorFault),
    // ---- labels
    ApiServerAway {
        lasts: Duration,
    },
}

/// One fault of etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberFault {
    Kill {
        which: Which,
        rest: Duration,
    },
    Stop {
        which: Which,
        lasts: Duration,
    },
    StallDisk {
        which: Which,
        lasts: Duration,
    },
    /// From the other members; clients reach it.
    Isolate {
        which: Which,
        lasts: Duration,
    },
    /// One way, between two of them.
    CutOneWay {
        from: usize,
        to: usize,
        lasts: Duration,
    },
    /// It applies late what the others have agreed on.
    Lag {
        which: Which,
        lag: Duration,
        lasts: Duration,
    },
    /// It is taken out, and another put into its place.
    Replace {
        member: usize,
        rest: Duration,
    },
    /// The disk of etcd's leader stalls some way into a renewal of the leading candidate, whose network is slow, and
    /// which then hears nobody for so long.
    StallUnderLoad {
        ways: Ways,
        into: Duration,
        lasts: Duration,
    },
    Elect,
    Compact,
    NoSpace {
        lasts: Duration,
    },
    /// The store is restored, from nothing or from an early backup: nobody may lead until restarted with a higher epoch.
    Wipe {
        down: Duration,
        restart_after: Duration,
        to_backup: bool,
    },
    /// The same, in less time than a lease lives, from a backup of this age and of the reign that goes on: somebody leads
    /// when the store is back.
    Restore {
        age: Duration,
        down: Duration,
        restart_after: Duration,
    },
}

/// What a store comes back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    Nothing,
    EarlyBackup,
    /// A backup with the very lock key that was there last.
    BackupOfTheReign,
}

/// One deed of an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperatorFault {
    DeleteLock,
    /// Over the lock key, with its own lease or another one that expires soon.
    PutOverLock {
        keep_lease: bool,
    },
    /// A lock key without a lease blocks everybody, until it is deleted.
    PutWithoutLease {
        clear_after: Duration,
    },
    RevokeLease,
    DeleteCandidate {
        who: Who,
    },
}

impl Fault {
    /// The name of its kind, in the tally.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Cut { ways: Ways::Both, hold: true, .. } => "link cut, held back",
            Self::Cut { ways: Ways::Both, hold: false, .. } => "link cut, lost",
            Self::Cut { ways: Ways::OnlyTo, .. } => "requests cut",
            Self::Cut { ways: Ways::OnlyBack, .. } => "answers cut",
            Self::Refuse { .. } => "refused",
            Self::Reset { .. } => "reset",
            Self::Slow { ways: Ways::Both, .. } => "slow link",
            Self::Slow { ways: Ways::OnlyTo, .. } => "slow requests",
            Self::Slow { ways: Ways::OnlyBack, .. } => "slow answers",
            Self::Lossy { .. } => "calls lost",
            Self::Repeat { .. } => "requests repeated",
            Self::Fade { .. } => "network fades",
            Self::Watch { trouble: WatchTrouble::Compacted, .. } => "watch compacted",
            Self::Watch { trouble: WatchTrouble::Ends, .. } => "watch ended",
            Self::Watch { trouble: WatchTrouble::LosesNext, .. } => "watch loses a change",
            Self::Watch { trouble: WatchTrouble::Silent, .. } => "watch silently dead",
            Self::Pause { .. } => "process stopped",
            Self::PauseInTurn { place: Place::BeforeAnything, .. } => "process stopped before its view",
            Self::PauseInTurn { place: Place::InBetween, .. } => "process stopped between view and effects",
            Self::StopGuest { .. } => "guest stopped with its clock",
            Self::WallJump { by, .. } if *by < 0 => "wall clock set back",
            Self::WallJump { .. } => "wall clock set forward",
            Self::Starve { .. } => "processor starved",
            Self::Kill { .. } => "process killed",
            Self::Terminate { .. } => "SIGTERM",
            Self::Resign { .. } => "resign",
            Self::ResignUnderConfirm { .. } => "resign under a confirm",
            Self::RenewCredentials { .. } => "credentials renewed",
            Self::DiesAtRelease { .. } => "process killed at its release",
            Self::StopsHard { .. } => "SIGTERM, then SIGKILL",
            Self::CrashLoop { .. } => "crash loop",
            Self::CopyFolder { .. } => "second process on a copy",
            Self::AppIll { who: Who::Everybody, .. } => "all applications unhealthy",
            Self::AppIll { .. } => "application unhealthy",
            Self::WorkEnds { fails: true, .. } => "work fails",
            Self::WorkEnds { fails: false, .. } => "work finishes",
            Self::Member(fault) => fault.kind(),
            Self::Operator(fault) => fault.kind(),
            Self::ApiServerAway { .. } => "API server away",
        }
    }
}

impl MemberFault {
    /// How long after it strikes a store is back that was restored, if that is what it does.
    fn store_is_back_after(self) -> Option<Duration> {
        match self {
            Self::Wipe { down, .. } => Some(down),
            Self::Restore { age, down, .. } => Some(age + down),
            Self::Kill { .. }
            | Self::Stop { .. }
            | Self::StallDisk { .. }
            | Self::Isolate { .. }
            | Self::CutOneWay { .. }
            | Self::Lag { .. }
            | Self::Replace { .. }
            | Self::StallUnderLoad { .. }
            | Self::Elect
            | Self::Compact
            | Self::NoSpace { .. } => None,
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Self::Kill { .. } => "member killed",
            Self::Stop { .. } => "member stopped",
            Self::StallDisk { .. } => "member's disk stalled",
            Self::Isolate { .. } => "member cut from the others",
            Self::CutOneWay { .. } => "members cut one way",
            Self::Lag { .. } => "member lags",
            Self::Replace { .. } => "member replaced",
            Self::StallUnderLoad { .. } => "etcd leader's disk stalled in a slow renewal",
            Self::Elect => "etcd leader changed",
            Self::Compact => "store compacted",
            Self::NoSpace { .. } => "out of space",
            Self::Wipe { to_backup: false, .. } => "store wiped",
            Self::Wipe { to_backup: true, .. } => "store restored",
            Self::Restore { .. } => "store restored under a leader",
        }
    }
}

impl OperatorFault {
    const fn kind(self) -> &'static str {
        match self {
            Self::DeleteLock => "operator deletes the lock",
            Self::PutOverLock { .. } => "operator puts over the lock",
            Self::PutWithoutLease { .. } => "operator puts a lock without a lease",
            Self::RevokeLease => "operator revokes the lease",
            Self::DeleteCandidate { .. } => "operator deletes a candidate",
        }
    }
}
