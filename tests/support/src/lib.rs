//! Starts, breaks and stops the real servers that the tests and the demo run against.
//!
//! Everything here blocks and works with threads of its own, so that it neither needs a runtime nor disturbs the
//! one of the test: a poller goes on polling whatever the test waits for.

pub mod audit;
pub mod certificates;
pub mod etcd;
pub mod http;
pub mod kubernetes;
pub mod lab;
pub mod moment;
pub mod poller;
pub mod ports;
pub mod process;
pub mod proxy;
pub mod sidecar;
pub mod stall;
pub mod starve;
mod tools;
pub mod wall_clock;

pub use audit::{Audit, audit};
pub use http::{HttpClient, HttpResponse};
pub use lab::{Host, Lab};
pub use moment::Moment;
pub use poller::{Answer, Outcome, Poller, PollerOptions, Sample, State};
pub use process::Process;
pub use proxy::{Direction, Flow, Proxy};
pub use sidecar::{Sidecar, SidecarOptions, without_election};
pub use stall::DiskStall;
pub use starve::Starvation;
pub use wall_clock::WallClock;
