//! Identifiers and counters, one type each, so that none can stand in for another.

use std::fmt;
use std::sync::Arc;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A revision of etcd's store: one number per write, for the whole store.
    Revision(i64)
);
number!(
    /// The raft term in a response header: that of the last entry the answering member has applied.
    RaftTerm(u64)
);
number!(
    /// etcd's cluster id. A list of endpoints must name one cluster.
    ClusterId(u64)
);
number!(
    /// etcd's id of the member that answered.
    MemberId(u64)
);
number!(
    /// An etcd lease id: random, positive, chosen by the candidate so that a retried grant is the same grant.
    LeaseId(i64)
);
number!(
    /// One request to etcd or to the local API's side, matched with its completion; never used twice.
    OpId(u64)
);
number!(
    /// One keep-alive stream; never used twice.
    StreamId(u64)
);
number!(
    /// One watch; never used twice.
    WatchId(u64)
);
number!(
    /// An etcd endpoint: its place in `--etcd-endpoints`, counted from 0.
    EndpointId(usize)
);
number!(
    /// A process of a candidate: random, so that no two that ever run have the same.
    Nonce(u64)
);
number!(
    /// `--epoch`: raised by the operator after the store was restored, so that terms still only grow.
    Epoch(u64)
);

/// Who a candidate is: what it writes as the value of the lock key, and the last part of its candidate key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Arc<str>);

impl Identity {
    /// Any text: the lock may be held by a program with other ideas of a name. Our own identity is
    /// checked in `config.rs`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One reign, as a number that only grows from leader to leader: compare epoch first, then token.
///
/// The token is the lock key's `create_revision`. Terms grow within one history of the store; after a
/// restore the operator raises the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term {
    /// `--epoch` of the sidecar that says this term.
    pub epoch: Epoch,
    /// The lock key's `create_revision`.
    pub token: Revision,
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.token)
    }
}
