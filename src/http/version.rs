//! Which state of affairs `/leader` tells of: what a long poll has seen, what an event is numbered by.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use crate::election::{Reading, View};

/// A random number per process: a restarted sidecar counts its news from the beginning again, and must not take what
/// somebody saw of its predecessor for what it tells itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Boot(u64);

impl Boot {
    pub(super) fn draw() -> Self {
        // The keys of the hash are the system's random numbers; what it says of nothing is as random.
        Self(RandomState::new().build_hasher().finish())
    }
}

/// The same version, the same answer, but for how long it holds. Opaque to clients: only to be compared for equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    boot: Boot,
    news: u64,
    /// The view still has a lead and the clock says that it is over: told before the driver has turned.
    expired: bool,
}

impl Version {
    pub(super) fn of(boot: Boot, view: &View, now: Reading) -> Self {
        Self { boot, news: view.news, expired: view.lead.is_some() && !view.leads(now) }
    }

    /// Whether a client that shows this has seen this version. As an `ETag` it stands in quotes; they may be left on.
    pub(super) fn is_shown_by(self, text: &str) -> bool {
        let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
        text == self.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}-{}", self.boot.0, self.news, u8::from(self.expired))
    }
}
