//! The simulation without one protection: it must find a violation, or it proves nothing.

use bellwether::protections::Protections;

use crate::{Control, Weather};

/// A control, and what it is held to.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// On the command line.
    pub name: &'static str,
    /// What is taken away.
    pub control: Control,
    /// In which weather it must be caught.
    pub weather: Weather,
    /// Within so many seeds, from 0 on: several times what it takes today, since every change of the world deals anew.
    pub seeds: u64,
}

/// Every protection of DESIGN.md section 8, and those that the protocol leans on beside them.
pub const TRIALS: [Trial; 11] = [
    trial("no-request-check", Control::Candidate(Protections::NO_REQUEST_CHECK), Weather::Storm, 200),
    trial("no-margin", Control::Candidate(Protections::NO_MARGIN), Weather::Storm, 200),
    trial("no-confirm", Control::Candidate(Protections::NO_CONFIRM), Weather::Storm, 200),
    trial("latest-send", Control::Candidate(Protections::LATEST_SEND), Weather::Fading, 200),
    trial("no-raft-term-check", Control::Candidate(Protections::NO_RAFT_TERM_CHECK), Weather::Storm, 200),
    trial("no-release-floor", Control::Candidate(Protections::NO_RELEASE_FLOOR), Weather::Handovers, 200),
    trial("view-after-effects", Control::ViewAfterEffects, Weather::Storm, 200),
    trial("confirm-beside", Control::ConfirmBeside, Weather::Fading, 200),
    trial("no-work-wait", Control::Candidate(Protections::NO_WORK_WAIT), Weather::Storm, 200),
    trial("stop-time-kept", Control::StopTimeKept, Weather::Fading, 400),
    trial("no-nonce-check", Control::Candidate(Protections::NO_NONCE_CHECK), Weather::Copies, 200),
];

const fn trial(name: &'static str, control: Control, weather: Weather, seeds: u64) -> Trial {
    Trial { name, control, weather, seeds }
}

/// The invariants that say that two leaders, or a wrong one, were believed: what a control must break. A run in which
/// merely nobody leads, or something panics, is no proof that the protection was missed.
pub const SAFETY: [&str; 7] = [
    "at_most_one_leader_answers",
    "answers_hold_for_their_validity",
    "no_leader_without_lease_and_key",
    "terms_only_grow",
    "resign_deletes_only_own_key",
    "child_runs_only_inside_a_term",
    "superseded_ends_by_until",
];

impl Trial {
    /// Whether this build can take it away: switches inside the candidate are only in builds with `sabotage`.
    pub const fn is_possible(&self) -> bool {
        match self.control {
            Control::Candidate(_) => cfg!(feature = "sabotage"),
            Control::ViewAfterEffects | Control::ConfirmBeside | Control::StopTimeKept => true,
        }
    }
}
