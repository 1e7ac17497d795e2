//! The shipped candidates, unchanged, in a world of one seed: a modelled etcd, a network, clocks, operators.
//!
//! [`etcd`] is the model; `tests/honesty` holds it against a real one. [`Scenario`] is all that a seed decides, [`run`]
//! plays it, and what it broke, if anything, is a [`Violation`] with the story that led there.
//!
//! Inside: `setup` and `faults` draw what a seed decides, `world` lets it happen, with a `node` for each machine and the
//! `network` between them, and `invariants` judges.
#![expect(clippy::unchecked_time_subtraction, reason = "a world that subtracts too much should panic")]

mod clock;
mod company;
mod dice;
pub mod etcd;
mod faults;
mod guardian;
mod invariants;
mod labels;
mod network;
mod node;
pub mod runner;
mod scenario;
mod setup;
mod world;

pub use scenario::{Control, Outcome, Scenario, Tally, Violation, Weather, run};
