//! Switches that take one protection away, so that a test can show that it bites.
//!
//! They exist only in builds with the `sabotage` feature, which no release has: without it every switch
//! is a constant `false` and the compiler removes the branch. With it, `BELLWETHER_SABOTAGE=<name>` at the
//! start of the process, or [`Protections::take_away`] in a test, chooses one.

#[cfg(feature = "sabotage")]
use std::cell::Cell;

/// One protection, by the name of its absence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protections {
    code: u8,
    name: &'static str,
}

// Per thread: the program runs on one, and tests that run side by side must not meet.
#[cfg(feature = "sabotage")]
thread_local! {
    static TAKEN: Cell<u8> = const { Cell::new(0) };
}

impl Protections {
    /// Answers are computed from the published view alone, without looking at the clock.
    pub const NO_REQUEST_CHECK: Self = Self { code: 1, name: "no-request-check" };
    /// The safety margin is not taken off.
    pub const NO_MARGIN: Self = Self { code: 2, name: "no-margin" };
    /// A keep-alive's answer counts without a confirm.
    pub const NO_CONFIRM: Self = Self { code: 3, name: "no-confirm" };
    /// `until` counts from the arrival of the answer instead of from the sending of its request.
    pub const LATEST_SEND: Self = Self { code: 4, name: "latest-send" };
    /// A keep-alive and what confirms it count together whatever their raft terms.
    pub const NO_RAFT_TERM_CHECK: Self = Self { code: 9, name: "no-raft-term-check" };

    /// What was read of the lock before it was let go of counts after that.
    pub const NO_RELEASE_FLOOR: Self = Self { code: 10, name: "no-release-floor" };

    /// Patches of a pod land on whatever version of it there is.
    pub const NO_RESOURCE_VERSION: Self = Self { code: 5, name: "no-resource-version" };
    /// A pod that has seen a higher term is labelled all the same.
    pub const NO_TERM_CHECK: Self = Self { code: 6, name: "no-term-check" };
    /// The lock is let go of without waiting for the label to be taken back.
    pub const NO_LABEL_WAIT: Self = Self { code: 7, name: "no-label-wait" };
    /// A new leader labels itself and leaves the other pods as they are.
    pub const NO_STRIPPING: Self = Self { code: 8, name: "no-stripping" };

    /// An event is written as it was composed, whatever has become of it while it waited for its socket.
    pub const STALE_EVENTS: Self = Self { code: 20, name: "stale-events" };
    /// The lock is let go of and claimed anew without waiting for the work to be gone.
    pub const NO_WORK_WAIT: Self = Self { code: 11, name: "no-work-wait" };
    /// A confirm counts although another process of the candidate has gone on with its lease.
    pub const NO_NONCE_CHECK: Self = Self { code: 12, name: "no-nonce-check" };
    /// A guardian waits for orders, whatever the time.
    pub const NO_GUARDIAN_DEADLINE: Self = Self { code: 13, name: "no-guardian-deadline" };
    /// Two processes may use one `--state-dir` at a time.
    pub const NO_STATE_LOCK: Self = Self { code: 31, name: "no-state-lock" };

    /// A sidecar leads however its application is.
    pub const NO_HEALTH_GATE: Self = Self { code: 21, name: "no-health-gate" };
    /// On the way out the application counts as gone at once.
    pub const NO_APP_WAIT: Self = Self { code: 22, name: "no-app-wait" };

    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::NO_REQUEST_CHECK,
        Self::NO_MARGIN,
        Self::NO_CONFIRM,
        Self::LATEST_SEND,
        Self::NO_RAFT_TERM_CHECK,
        Self::NO_RELEASE_FLOOR,
        Self::NO_RESOURCE_VERSION,
        Self::NO_TERM_CHECK,
        Self::NO_LABEL_WAIT,
        Self::NO_STRIPPING,
        Self::STALE_EVENTS,
        Self::NO_WORK_WAIT,
        Self::NO_NONCE_CHECK,
        Self::NO_GUARDIAN_DEADLINE,
        Self::NO_HEALTH_GATE,
        Self::NO_APP_WAIT,
        Self::NO_STATE_LOCK,
    ];

    /// The value of `BELLWETHER_SABOTAGE` that takes it away.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Whether this protection has been taken away. Constant `false` in a release.
    #[cfg(not(feature = "sabotage"))]
    #[must_use]
    pub const fn taken_away(self) -> bool {
        false
    }

    /// Whether this protection has been taken away.
    #[cfg(feature = "sabotage")]
    #[must_use]
    pub fn taken_away(self) -> bool {
        TAKEN.get() == self.code
    }

    /// Takes one protection away from this thread, or gives all back with `None`.
    #[cfg(feature = "sabotage")]
    pub fn take_away(which: Option<Self>) {
        TAKEN.set(which.map_or(0, |protection| protection.code));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Protections;

    #[test]
    fn every_protection_has_a_code_and_a_name_of_its_own() {
        let codes: BTreeSet<u8> = Protections::ALL.iter().map(|protection| protection.code).collect();
        let names: BTreeSet<&str> = Protections::ALL.iter().map(|protection| protection.name).collect();
        assert_eq!((codes.len(), names.len()), (Protections::ALL.len(), Protections::ALL.len()));
        assert!(!codes.contains(&0), "0 says that nothing is taken away");
    }
}
