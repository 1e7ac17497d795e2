//! The local API and the telemetry, served on real sockets to real clients.

mod client;
mod hostile;
mod leader;
mod openapi;
mod promises;
mod resign;
mod sidecar;
mod sockets;
mod telemetry;
