//! The faults there are: what each is called, what it does, and how long it lasts.

use std::time::Duration;

/// A fault. Where it hits is decided when it strikes: the leader, in three of four cases, if it is for a sidecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    SidecarKilled,
    SidecarStopped,
    SidecarTerminated,
    SidecarResigned,
    SidecarCutOff,
    SidecarUnheard,
    SidecarDeaf,
    SidecarUnplugged,
    SidecarReset,
    SidecarStarved,
    ClockForward,
    ClockBack,
    ProxyReset,
    ProxySilent,
    ProxyUnheard,
    ProxyDeaf,
    SlowLink,
    VerySlowLink,
    WatchDead,
    MemberKilled,
    MemberStopped,
    MemberCutOff,
    MemberUnplugged,
    MemberWiped,
    MemberAdded,
    EtcdLeaderKilled,
    EtcdLeaderStopped,
    EtcdLeaderCutOff,
    EtcdLeaderUnheard,
    EtcdLeaderDeaf,
    EtcdLeaderReset,
    EtcdLeaderStalled,
    QuorumLost,
    Compacted,
    NoSpace,
    KeyDeleted,
    LeaseRevoked,
    ClientCertificateRotated,
    ServerCertificateRotated,
    TokensForgotten,
}

/// What a fault is for: two of one area can be in each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// One sidecar, its host, or the way between it and etcd.
    Sidecar,
    /// A member. Two at once are a lost quorum.
    Etcd,
    /// What an operator does to the cluster, which needs its quorum.
    Operator,
}

/// How long nobody may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaderless {
    /// Nobody should notice. What is left is for a busy machine.
    Unnoticed,
    /// A voluntary handover.
    Handover,
    /// etcd elects, and the leader rides it out, or falls into Jeopardy and resumes.
    EtcdElection,
    /// The lease has to expire.
    Expiry,
    /// As before, but keep-alives can arrive, unanswered, for as long as the candidate tries.
    LateExpiry,
    /// For as long as the fault lasts, and then as for expiry.
    WhileItLasts,
}

// How long a fault lasts, in milliseconds: at the least, at the most.

/// Over at once, or in its own time.
const OVER: (u64, u64) = (500, 1500);
/// Shorter than what is left of a lease, or longer than a whole one.
const SHORT_OR_LONG: (u64, u64) = (200, 7000);
/// The same of what takes a while to be noticed.
const OUTAGE: (u64, u64) = (1000, 9000);
/// Some renewals.
const RENEWALS: (u64, u64) = (4000, 8000);
/// Long enough for every sidecar to meet it.
const MET_BY_ALL: (u64, u64) = (2000, 4000);
/// Beyond what keep-alives that arrive, unanswered, may prolong.
const UNANSWERED: (u64, u64) = (5000, 16000);
/// Longer than the lease in any case.
const BEYOND_THE_LEASE: (u64, u64) = (7000, 10000);

impl Kind {
    /// Every kind, in the order of the report.
    pub const ALL: [Self; 40] = [
        Self::SidecarKilled,
        Self::SidecarStopped,
        Self::SidecarTerminated,
        Self::SidecarResigned,
        Self::SidecarCutOff,
        Self::SidecarUnheard,
        Self::SidecarDeaf,
        Self::SidecarUnplugged,
        Self::SidecarReset,
        Self::SidecarStarved,
        Self::ClockForward,
        Self::ClockBack,
        Self::ProxyReset,
        Self::ProxySilent,
        Self::ProxyUnheard,
        Self::ProxyDeaf,
        Self::SlowLink,
        Self::VerySlowLink,
        Self::WatchDead,
        Self::MemberKilled,
        Self::MemberStopped,
        Self::MemberCutOff,
        Self::MemberUnplugged,
        Self::MemberWiped,
        Self::MemberAdded,
        Self::EtcdLeaderKilled,
        Self::EtcdLeaderStopped,
        Self::EtcdLeaderCutOff,
        Self::EtcdLeaderUnheard,
        Self::EtcdLeaderDeaf,
        Self::EtcdLeaderReset,
        Self::EtcdLeaderStalled,
        Self::QuorumLost,
        Self::Compacted,
        Self::NoSpace,
        Self::KeyDeleted,
        Self::LeaseRevoked,
        Self::ClientCertificateRotated,
        Self::ServerCertificateRotated,
        Self::TokensForgotten,
    ];

    /// Its name in the report and in the picture.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SidecarKilled => "sidecar killed",
            Self::SidecarStopped => "sidecar stopped",
            Self::SidecarTerminated => "sidecar terminated",
            Self::SidecarResigned => "sidecar resigned",
            Self::SidecarCutOff => "sidecar cut off",
            Self::SidecarUnheard => "sidecar unheard",
            Self::SidecarDeaf => "sidecar deaf",
            Self::SidecarUnplugged => "sidecar unplugged",
            Self::SidecarReset => "sidecar reset",
            Self::SidecarStarved => "sidecar starved",
            Self::ClockForward => "wall clock forward",
            Self::ClockBack => "wall clock back",
            Self::ProxyReset => "connections reset",
            Self::ProxySilent => "proxy silent",
            Self::ProxyUnheard => "proxy silent to etcd",
            Self::ProxyDeaf => "proxy silent from etcd",
            Self::SlowLink => "slow link",
            Self::VerySlowLink => "link too slow",
            Self::WatchDead => "watch silently dead",
            Self::MemberKilled => "member killed",
            Self::MemberStopped => "member stopped",
            Self::MemberCutOff => "member cut off",
            Self::MemberUnplugged => "member unplugged",
            Self::MemberWiped => "member wiped",
            Self::MemberAdded => "member added",
            Self::EtcdLeaderKilled => "etcd leader killed",
            Self::EtcdLeaderStopped => "etcd leader stopped",
            Self::EtcdLeaderCutOff => "etcd leader cut off",
            Self::EtcdLeaderUnheard => "etcd leader unheard",
            Self::EtcdLeaderDeaf => "etcd leader deaf",
            Self::EtcdLeaderReset => "etcd leader reset",
            Self::EtcdLeaderStalled => "etcd leader's disk stalled",
            Self::QuorumLost => "quorum lost",
            Self::Compacted => "compacted, defragmented",
            Self::NoSpace => "no space",
            Self::KeyDeleted => "key deleted",
            Self::LeaseRevoked => "lease revoked",
            Self::ClientCertificateRotated => "client certificate rotated",
            Self::ServerCertificateRotated => "server certificate rotated",
            Self::TokensForgotten => "tokens forgotten",
        }
    }

    /// What is done and undone, for the report.
    pub const fn means(self) -> &'static str {
        match self {
            Self::SidecarKilled => "SIGKILL; started again",
            Self::SidecarStopped => "SIGSTOP, SIGCONT",
            Self::SidecarTerminated => "SIGTERM; started again",
            Self::SidecarResigned => "`POST /resign`",
            Self::SidecarCutOff => "firewall on its host drops everything both ways",
            Self::SidecarUnheard => "firewall drops what it sends",
            Self::SidecarDeaf => "firewall drops what is sent to it",
            Self::SidecarUnplugged => "the link of its host is taken down",
            Self::SidecarReset => "firewall answers everything with a reset",
            Self::SidecarStarved => "5 % of a processor, by cgroup",
            Self::ClockForward => "its wall clock jumps ahead (preloaded), by seconds to an hour, and back",
            Self::ClockBack => "its wall clock jumps back (preloaded), by seconds to an hour, and forth",
            Self::ProxyReset => "its proxies reset every connection, three times",
            Self::ProxySilent => "its proxies hold everything back",
            Self::ProxyUnheard => "its proxies hold back what it sends",
            Self::ProxyDeaf => "its proxies hold back what is sent to it",
            Self::SlowLink => "its proxies delay by 20 to 80 ms each way",
            Self::VerySlowLink => "its proxies delay by 400 to 900 ms each way, longer than an attempt may take",
            Self::WatchDead => "the heir hears nothing any more, and the leader is terminated",
            Self::MemberKilled => "SIGKILL of a follower; started again, in one of three cases at once",
            Self::MemberStopped => "SIGSTOP of a follower, SIGCONT",
            Self::MemberCutOff => "a follower is cut off by firewall, from the other members or from everybody",
            Self::MemberUnplugged => "the link of a member's host is taken down",
            Self::MemberWiped => "a member loses its data, is taken out of the cluster and added anew",
            Self::MemberAdded => "a fourth member joins, and is taken out again",
            Self::EtcdLeaderKilled => "SIGKILL of the etcd leader; started again",
            Self::EtcdLeaderStopped => "SIGSTOP of the etcd leader, SIGCONT",
            Self::EtcdLeaderCutOff => {
                "the etcd leader is cut off by firewall, from the other members or from everybody"
            }
            Self::EtcdLeaderUnheard => "firewall drops what the etcd leader sends to the other members",
            Self::EtcdLeaderDeaf => "firewall drops what the other members send to the etcd leader",
            Self::EtcdLeaderReset => "firewall answers everything at the etcd leader with a reset",
            Self::EtcdLeaderStalled => "its fdatasync takes longer than the lease (strace)",
            Self::QuorumLost => "two members are killed; started again",
            Self::Compacted => "compaction to the newest revision, defragmentation of each member",
            Self::NoSpace => "the quota is filled up; room is made and the alarm disarmed",
            Self::KeyDeleted => "an operator deletes the lock key",
            Self::LeaseRevoked => "an operator revokes the leader's lease",
            Self::ClientCertificateRotated => "a new client certificate, SIGHUP to every sidecar",
            Self::ServerCertificateRotated => {
                "a new server certificate, and the members are restarted one after the other"
            }
            Self::TokensForgotten => {
                "an operator sets the sidecars' password, to what it was: all their tokens are void"
            }
        }
    }

    /// What it is for, how long it lasts, and how long nobody may lead when it strikes alone.
    const fn traits(self) -> (Area, (u64, u64), Leaderless) {
        use Area::{Etcd, Operator, Sidecar};
        use Leaderless::{EtcdElection, Expiry, Handover, LateExpiry, Unnoticed, WhileItLasts};
        match self {
            Self::SidecarKilled => (Sidecar, SHORT_OR_LONG, Expiry),
            Self::SidecarStopped => (Sidecar, OUTAGE, Expiry),
            Self::SidecarTerminated => (Sidecar, OVER, Handover),
            Self::SidecarResigned => (Sidecar, OVER, Handover),
            Self::SidecarCutOff => (Sidecar, OUTAGE, Expiry),
            Self::SidecarUnheard => (Sidecar, OUTAGE, Expiry),
            Self::SidecarDeaf => (Sidecar, UNANSWERED, LateExpiry),
            Self::SidecarUnplugged => (Sidecar, OUTAGE, Expiry),
            Self::SidecarReset => (Sidecar, OUTAGE, Expiry),
            Self::SidecarStarved => (Sidecar, RENEWALS, Expiry),
            Self::ClockForward => (Sidecar, MET_BY_ALL, EtcdElection),
            // It is set right again: a jump ahead.
            Self::ClockBack => (Sidecar, MET_BY_ALL, EtcdElection),
            Self::ProxyReset => (Sidecar, OVER, Unnoticed),
            Self::ProxySilent => (Sidecar, OUTAGE, Expiry),
            Self::ProxyUnheard => (Sidecar, OUTAGE, Expiry),
            Self::ProxyDeaf => (Sidecar, UNANSWERED, LateExpiry),
            Self::SlowLink => (Sidecar, RENEWALS, Unnoticed),
            Self::VerySlowLink => (Sidecar, RENEWALS, LateExpiry),
            Self::WatchDead => (Sidecar, OVER, EtcdElection),
            Self::MemberKilled => (Etcd, SHORT_OR_LONG, EtcdElection),
            Self::MemberStopped => (Etcd, OUTAGE, EtcdElection),
            Self::MemberCutOff => (Etcd, OUTAGE, EtcdElection),
            Self::MemberUnplugged => (Etcd, OUTAGE, EtcdElection),
            Self::MemberWiped => (Operator, OVER, EtcdElection),
            Self::MemberAdded => (Operator, MET_BY_ALL, EtcdElection),
            Self::EtcdLeaderKilled => (Etcd, SHORT_OR_LONG, EtcdElection),
            Self::EtcdLeaderStopped => (Etcd, OUTAGE, EtcdElection),
            Self::EtcdLeaderCutOff => (Etcd, OUTAGE, EtcdElection),
            Self::EtcdLeaderUnheard => (Etcd, OUTAGE, EtcdElection),
            Self::EtcdLeaderDeaf => (Etcd, OUTAGE, EtcdElection),
            Self::EtcdLeaderReset => (Etcd, OUTAGE, EtcdElection),
            Self::EtcdLeaderStalled => (Etcd, BEYOND_THE_LEASE, EtcdElection),
            Self::QuorumLost => (Etcd, RENEWALS, WhileItLasts),
            Self::Compacted => (Operator, OVER, Unnoticed),
            Self::NoSpace => (Operator, MET_BY_ALL, Unnoticed),
            Self::KeyDeleted => (Operator, OVER, EtcdElection),
            Self::LeaseRevoked => (Operator, OVER, EtcdElection),
            Self::ClientCertificateRotated => (Sidecar, OVER, Unnoticed),
            Self::ServerCertificateRotated => (Operator, OVER, EtcdElection),
            Self::TokensForgotten => (Operator, MET_BY_ALL, Unnoticed),
        }
    }

    /// What it is for.
    pub const fn area(self) -> Area {
        self.traits().0
    }

    /// How long nobody may lead when it strikes alone.
    pub const fn leaderless(self) -> Leaderless {
        self.traits().2
    }

    /// Whether it needs the proxies between a sidecar and etcd.
    pub const fn is_for_proxies(self) -> bool {
        matches!(
            self,
            Self::ProxyReset
                | Self::ProxySilent
                | Self::ProxyUnheard
                | Self::ProxyDeaf
                | Self::SlowLink
                | Self::VerySlowLink
        )
    }

    /// Whether it needs members that ask who comes.
    pub const fn is_for_secured(self) -> bool {
        matches!(self, Self::ClientCertificateRotated | Self::ServerCertificateRotated | Self::TokensForgotten)
    }

    /// How long it lasts: at the least, at the most.
    pub const fn lasts(self) -> (Duration, Duration) {
        let (least, most) = self.traits().1;
        (Duration::from_millis(least), Duration::from_millis(most))
    }
}

/// Whether these can strike together: no two wait for a quorum that another takes away, and what an operator does is
/// done to a cluster that can do it.
pub fn go_together(kinds: &[Kind]) -> bool {
    let count = |area: Area| kinds.iter().filter(|kind| kind.area() == area).count();
    let proxied = kinds.iter().filter(|kind| kind.is_for_proxies()).count();
    let all_different = kinds.iter().enumerate().all(|(place, kind)| !kinds[..place].contains(kind));
    // Of three members one is left at least.
    let most_for_members = if kinds.contains(&Kind::QuorumLost) { 1 } else { 2 };
    all_different
        && proxied <= 1
        && count(Area::Etcd) <= most_for_members
        && (count(Area::Operator) == 0 || (count(Area::Operator) == 1 && count(Area::Etcd) == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_there_once_with_a_name_of_its_own() {
        let mut names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }

    #[test]
    fn what_needs_a_quorum_does_not_meet_what_takes_it_away() {
        assert!(!go_together(&[Kind::MemberWiped, Kind::MemberKilled]));
        assert!(go_together(&[Kind::MemberWiped, Kind::SidecarKilled]));
        assert!(go_together(&[Kind::MemberKilled, Kind::EtcdLeaderStopped, Kind::SidecarKilled]));
        assert!(!go_together(&[Kind::SidecarKilled, Kind::SidecarKilled]));
    }
}
