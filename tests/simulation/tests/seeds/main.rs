//! The simulation over many seeds, its controls, its runner.

mod batch;
mod command;
#[cfg(feature = "sabotage")]
mod controls;
mod kept;
mod shrink;
mod weather;
