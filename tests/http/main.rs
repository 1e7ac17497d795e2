//! The local API and the telemetry, served on real sockets to real clients.

#![expect(
    clippy::panic_in_result_fn,
    reason = "a test asserts what it is about, and returns the failures of what it only needs"
)]

mod check;
mod client;
mod compat;
mod events;
mod hostile;
mod leader;
mod openapi;
mod promises;
mod push;
mod resign;
mod sidecar;
mod sockets;
mod streams;
mod telemetry;
