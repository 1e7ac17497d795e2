//! The local API (`/leader`, `/events`, `/check`, `/status`, `/`, `/resign`) and the telemetry (`/livez`, `/readyz`,
//! `/metrics`), each on its own listeners.
//!
//! Every answer is computed when it is asked for, from the view the driver has published and the clock of that
//! moment. What an answer promises is written down in [`Promises`] before it leaves. Connections are bounded in
//! number, and each in time and memory; see [`Limits`].

mod answer;
mod check;
mod compat;
mod connection;
mod events;
mod handover;
mod herald;
mod leader;
mod listener;
mod local_api;
mod probes;
mod promises;
mod query;
mod refusal;
mod resign;
mod server;
mod shared;
mod stopped_write;
mod version;
mod watched;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

pub use self::handover::{PLACES_MOST, allow_for_open_streams};
use self::listener::Listener;
pub use self::promises::{AnswerGuard, Promises};
pub use self::server::{Bound, HEAD_BYTES_MOST, Limits};
pub use self::shared::{About, Shared};
pub use self::stopped_write::{cut_writes_that_were_stopped, leave_continue_to_the_serving_thread};
use crate::config::HttpConfig;
use crate::election::Reading;

/// Reads both clocks: [`crate::clock::now`] outside of tests.
pub type Clock = fn() -> Reading;

/// The local API: for the application beside this sidecar. `docs/openapi.yaml` describes it.
#[derive(Debug)]
pub struct LocalApi;

impl LocalApi {
    /// An application has a handful of connections; a pod with this many polling clients is still served.
    pub const LIMITS: Limits = Limits { connections: 128, ..Limits::TIMES };

    /// Binds every address of `--http`.
    ///
    /// # Errors
    /// The first address that cannot be had, except one that may be missing; or that none is left.
    pub async fn bind(config: &HttpConfig) -> Result<Bound, HttpError> {
        let mut listeners = Vec::with_capacity(config.listen.len());
        for listen in &config.listen {
            listeners.extend(Listener::bind(listen).await?);
        }
        if listeners.is_empty() {
            return Err(HttpError::NoAddress);
        }
        Ok(Bound::promising(listeners, local_api::routes, Self::LIMITS))
    }
}

/// What kubelet and Prometheus ask, from outside of the pod.
#[derive(Debug)]
pub struct Telemetry;

impl Telemetry {
    /// Kubelet opens a connection per probe, a scraper keeps one.
    pub const LIMITS: Limits = Limits { connections: 32, ..Limits::TIMES };

    /// Binds `--telemetry`.
    ///
    /// # Errors
    /// The address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Bound, HttpError> {
        let listener = Listener::tcp(address, "--telemetry").await?;
        Ok(Bound::not_promising(vec![listener], probes::routes, Self::LIMITS))
    }
}

/// Why the listeners are not up (any more).
#[derive(Debug, Error)]
pub enum HttpError {
    /// An address cannot be had.
    #[error("{flag}: cannot listen on {address}: {source}; {way_out}")]
    Bind {
        /// The flag that asks for it.
        flag: &'static str,
        /// The address, as the user writes it.
        address: String,
        /// What the operator can do.
        way_out: &'static str,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another process answers on the socket.
    #[error("--http: cannot listen on unix:{0}: another process answers there; stop it or choose another path")]
    SocketInUse(PathBuf),
    /// There is something else at the path of the socket.
    #[error(
        "--http: cannot listen on unix:{0}: there is a file that is not a socket; remove it or choose another path"
    )]
    NotASocket(PathBuf),
    /// All addresses may be missing, and all are.
    #[error("--http: this machine has none of the addresses; choose one that it has")]
    NoAddress,
    /// A task ended, which only a bug can make it do.
    #[error("{what} ended: {reason}")]
    Ended {
        /// What it was for.
        what: String,
        /// The panic, as far as it can be told.
        reason: String,
    },
}

/// The limits in time that both servers have.
impl Limits {
    const TIMES: Self = Self {
        connections: 0,
        // Loopback and pod networks need milliseconds; a retransmitted packet a second or three.
        head: Duration::from_secs(5),
        // Below half of the default --drain-timeout, so that a client that does not read its answer cannot
        // use it up.
        request: Duration::from_secs(5),
        // Longer than the keep-alive of usual clients (Go 90 s), so that it is the client who closes and no
        // request meets a closing connection.
        idle: Duration::from_mins(2),
        // What the standard of event streams recommends: shorter than the minute or half of one after which things in
        // between give up on a silent connection.
        heartbeat: Duration::from_secs(15),
        // An application that collects garbage or is looked at in a debugger comes back within that; and its kernel has
        // taken dozens of events for it before the first is refused.
        stall: Duration::from_secs(30),
    };
}
