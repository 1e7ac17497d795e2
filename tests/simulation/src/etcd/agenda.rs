//! What is on its way inside the cluster.

use std::collections::BTreeMap;

use bellwether::election::{LeaseId, Revision, WatchTarget};

use super::log::Proposal;
use super::{Asked, Ticket};

/// A message between servers, or a server's own next step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A client's request. On the agenda only when it reached a stopped server.
    Ask { member: usize, ticket: Ticket, asked: Asked },
    /// A client's watch. On the agenda only when it reached a stopped server.
    Watch { member: usize, ticket: Ticket, target: WatchTarget, from: Revision },
    /// A proposal reaches whom its sender believes to lead.
    Forwarded { to: usize, proposal: Proposal },
    /// A member has written the log up to here.
    Stored { member: usize, term: u64, upto: u64 },
    /// A member hears that the log is committed up to here.
    Learn { member: usize, upto: u64 },
    /// A member asks whom it believes to lead for an index to read at.
    ReadAsked { leader: usize, asker: usize, read: u64 },
    /// The leader hears from a majority that it leads.
    ReadConfirmed { leader: usize, term: u64, index: u64, asker: usize, read: u64 },
    /// The asker hears at which index it may read.
    ReadIndexed { asker: usize, read: u64, index: u64 },
    /// Asks again.
    ReadRetried { member: usize, read: u64 },
    /// The server gives up.
    ReadTimedOut { member: usize, read: u64 },
    /// The server gives up.
    ProposalTimedOut { member: usize, id: u64 },
    /// A server turns to the keep-alive in progress, again.
    RenewalTried { member: usize, lease: LeaseId, id: u64 },
    /// A keep-alive reaches whom its sender believes to lead.
    RenewalForwarded { to: usize, asker: usize, lease: LeaseId, id: u64 },
    /// What came of it.
    RenewalReturned { asker: usize, from: usize, lease: LeaseId, id: u64, seconds: Option<i64> },
    /// The server gives up.
    RenewalTimedOut { member: usize, lease: LeaseId, id: u64 },
    /// A watch from the past catches up.
    WatchSynced { member: usize, ticket: Ticket },
}

impl Step {
    /// Whose process it needs.
    pub(super) const fn member(&self) -> usize {
        match self {
            Self::Ask { member, .. }
            | Self::Watch { member, .. }
            | Self::Stored { member, .. }
            | Self::Learn { member, .. }
            | Self::ReadRetried { member, .. }
            | Self::ReadTimedOut { member, .. }
            | Self::ProposalTimedOut { member, .. }
            | Self::RenewalTried { member, .. }
            | Self::RenewalTimedOut { member, .. }
            | Self::WatchSynced { member, .. } => *member,
            Self::Forwarded { to, .. } | Self::RenewalForwarded { to, .. } => *to,
            Self::ReadAsked { leader, .. } | Self::ReadConfirmed { leader, .. } => *leader,
            Self::ReadIndexed { asker, .. } | Self::RenewalReturned { asker, .. } => *asker,
        }
    }

    /// Whose request it is, where that can be seen.
    pub(super) const fn ticket(&self) -> Option<Ticket> {
        match self {
            Self::Ask { ticket, .. } | Self::Watch { ticket, .. } | Self::WatchSynced { ticket, .. } => Some(*ticket),
            Self::Forwarded { .. }
            | Self::Stored { .. }
            | Self::Learn { .. }
            | Self::ReadAsked { .. }
            | Self::ReadConfirmed { .. }
            | Self::ReadIndexed { .. }
            | Self::ReadRetried { .. }
            | Self::ReadTimedOut { .. }
            | Self::ProposalTimedOut { .. }
            | Self::RenewalTried { .. }
            | Self::RenewalForwarded { .. }
            | Self::RenewalReturned { .. }
            | Self::RenewalTimedOut { .. } => None,
        }
    }
}

/// Steps by their time; those of one instant in the order in which they were put in.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    steps: BTreeMap<(u64, u64), Step>,
    count: u64,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, step: Step) {
        self.count += 1;
        self.steps.insert((at, self.count), step);
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.steps.first_key_value().map(|((at, _), _)| *at)
    }

    pub(super) fn take_first(&mut self) -> Option<Step> {
        self.steps.pop_first().map(|(_, step)| step)
    }

    pub(super) fn clear(&mut self) {
        self.steps.clear();
    }
}
