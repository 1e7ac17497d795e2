//! What one probe has found.

use std::time::Duration;

use thiserror::Error;

use crate::config::Span;

/// Why a probe did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum Failure {
    /// Nobody is there: nothing listens, the socket or the file is not there, the command did not exit with 0.
    #[error("{0}")]
    Absent(String),
    /// Somebody may be there, who is not well or cannot be asked.
    #[error("{0}")]
    Unwell(String),
    /// No answer in time.
    #[error("no answer within {}", Span(*.0))]
    Slow(Duration),
    /// The probe before is still not over: it hangs in the kernel, which nothing can end.
    #[error("the probe before has not ended yet")]
    Hanging,
}

impl Failure {
    /// Whether it shows that nobody is left to act.
    pub(super) const fn is_absence(&self) -> bool {
        match self {
            Self::Absent(_) => true,
            Self::Unwell(_) | Self::Slow(_) | Self::Hanging => false,
        }
    }
}
