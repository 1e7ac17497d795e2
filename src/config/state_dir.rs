//! `--state-dir`: where one life of the sidecar leaves its term to the next.

use std::path::PathBuf;

use thiserror::Error;

use super::fault::FaultKind;
use super::faults::{Faults, OnTheList};
use crate::cli::flags::StateFlags;

/// Why a path cannot be the folder's, worded to follow the path itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StateDirFault {
    /// It depends on where the process is started.
    #[error(
        "is relative, and the next life may be started elsewhere; write the whole path, for example /run/bellwether"
    )]
    Relative,
}

/// The folder, if there is to be one.
pub(super) fn parse_state_dir(flags: &StateFlags, faults: &mut Faults<'_>) -> Result<Option<PathBuf>, OnTheList> {
    let Some(path) = faults.path("--state-dir", flags.state_dir.as_ref()) else { return Ok(None) };
    if path.is_absolute() {
        return Ok(Some(path));
    }
    faults.push(FaultKind::StateDir { path, fault: StateDirFault::Relative });
    Err(OnTheList)
}
