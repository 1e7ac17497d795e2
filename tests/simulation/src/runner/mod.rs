//! Many runs: on all cores, added up, judged, and the one that breaks something made small.
//!
//! Everything takes what plays a scenario as an argument, so that the runner can be tested with runs that break on
//! purpose. [`Batch`] plays many and comes to a [`Summary`]; [`Coverage`] says which edges of the state machine it has
//! gone; [`shrink`] leaves faults out of a failing run as long as it fails the same way; [`kept`] reads the seeds that
//! have found something once; [`TRIALS`] are the controls. [`command`] is `make simulate`.

mod batch;
mod command;
mod controls;
mod edges;
pub mod kept;
mod names;
mod numbers;
mod panics;
mod progress;
mod report;
mod shrink;
mod summary;

pub use batch::Batch;
pub use command::command;
pub use controls::{SAFETY, TRIALS, Trial};
pub use edges::{Coverage, EDGES, Edge, Key};
pub use names::{WEATHERS, weather_name, weather_named};
pub use numbers::{left_out_list, parse_left_out};
pub use panics::play_guarded;
pub use shrink::{Shrunk, shrink};
pub use summary::{Failure, Summary};

use crate::{Control, Outcome, Scenario};

/// What plays one scenario: [`crate::run`], or a test's own. The same arguments must give the same outcome.
pub type Play<'a> = &'a (dyn Fn(&Scenario, Option<Control>) -> Outcome + Sync);
