//! `--never-lead`: whether this sidecar takes part in the election, or only looks on.

use thiserror::Error;

use super::fault::FaultKind;
use super::faults::Faults;
use crate::cli::flags::{AppHealthFlags, PartFlags, WorkFlags};
use crate::election::Part;

/// A flag that says something about leading, of a sidecar that never leads.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{flag}: is set, and so is --never-lead, whose sidecar never leads; leave one of them out")]
pub struct PartFault {
    /// The flag.
    pub flag: &'static str,
}

impl PartFault {
    /// The flags whose values took part.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        vec![self.flag, "--never-lead"]
    }
}

pub(super) fn parse_part(
    flags: &PartFlags,
    app_health: &AppHealthFlags,
    work: &WorkFlags,
    faults: &mut Faults<'_>,
) -> Option<Part> {
    let part = match faults.value("--never-lead", flags.never_lead.as_ref()) {
        Some(text) => {
            let parts = [("true", Part::Observer), ("false", Part::Candidate)];
            faults.choice("--never-lead", text, "true, false", &parts)?
        }
        None => Part::Candidate,
    };
    let of_leaders_only = [
        ("--app-health", app_health.app_health.as_ref()),
        ("--on-lead", work.on_lead.as_ref()),
        ("--on-stand-down", work.on_stand_down.as_ref()),
    ];
    for (flag, given) in of_leaders_only {
        if part == Part::Observer && faults.value(flag, given).is_some() {
            faults.push(FaultKind::Part(PartFault { flag }));
        }
    }
    Some(part)
}
