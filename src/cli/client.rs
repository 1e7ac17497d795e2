//! What the commands that ask a running sidecar have in common.

#![expect(clippy::doc_markdown, reason = "these comments are shown on a terminal, where backticks are noise")]

use std::time::Duration;

use clap::Args;

use crate::config::{ApiAddress, Faults, HTTP_PORT, default_telemetry, parse_http_item, variable};

/// Where the local API is.
#[derive(Args, Clone, Debug, Default)]
pub struct ApiFlags {
    /// The sidecar's local API: http://<host>:<port> or unix:<path> [default: the first address in BELLWETHER_HTTP,
    /// which the sidecar's own container may have; else http://127.0.0.1:4040]
    #[arg(long, value_name = "ADDRESS", env = "BELLWETHER_API")]
    pub api: Option<String>,
}

/// How long to wait for an answer.
#[derive(Args, Clone, Debug, Default)]
pub struct TimeoutFlags {
    /// How long to wait for an answer [default: 1s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_TIMEOUT")]
    pub timeout: Option<String>,
}

/// On loopback an answer takes a millisecond; a second is what Kubernetes gives a probe by default.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(1);

impl ApiFlags {
    /// The address to ask.
    pub fn parse(&self, faults: &mut Faults<'_>) -> Option<ApiAddress> {
        if let Some(text) = faults.value("--api", self.api.as_ref()) {
            return faults.api("--api", text);
        }
        // What `run` listens on, when this runs in the same container. `run` itself complains about a faulty value.
        let listeners = std::env::var(variable("--http")).unwrap_or_default();
        let first = listeners.split(',').next().and_then(|item| parse_http_item(item.trim()).ok());
        Some(match first.as_deref() {
            Some([first, ..]) => ApiAddress::of_http(first),
            Some([]) | None => ApiAddress::Tcp { host: "127.0.0.1".into(), port: HTTP_PORT },
        })
    }
}

impl TimeoutFlags {
    /// The time to wait.
    pub fn parse(&self, faults: &mut Faults<'_>) -> Option<Duration> {
        faults.duration("--timeout", self.timeout.as_ref(), TIMEOUT_DEFAULT)
    }
}

/// Where telemetry can be asked: the flag, or what `run` listens on by default.
pub fn telemetry_address(given: Option<&String>, faults: &mut Faults<'_>) -> Option<ApiAddress> {
    match faults.value("--telemetry", given) {
        Some(text) => faults.api("--telemetry", text),
        None => Some(ApiAddress::of(default_telemetry())),
    }
}
