//! The flags by which the application has a say in who leads.

use clap::Args;

/// The part this sidecar takes.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Election")]
pub struct PartFlags {
    /// Only look on: tell who leads, never lead, take no lease and no place in line [default: false]
    #[arg(
        long,
        value_name = "true|false",
        env = "BELLWETHER_NEVER_LEAD",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub never_lead: Option<String>,
}

/// How the application is asked for its health.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Health of the application")]
pub struct AppHealthFlags {
    /// Lead only while the application is healthy: http://<host>:<port>/<path> (2xx and 3xx), tcp://<host>:<port>
    /// (connects), unix:<socket>?path=/<path> (http over a unix socket), exec:<command> (/bin/sh -c, exits with 0),
    /// file:<path>?max-age=10s (is there, and not older) [default: not asked]
    #[arg(long, value_name = "TARGET", env = "BELLWETHER_APP_HEALTH")]
    pub app_health: Option<String>,

    /// From one probe to the next [default: 2s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_APP_HEALTH_INTERVAL")]
    pub app_health_interval: Option<String>,

    /// How long a probe may take, at most the interval [default: 1s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_APP_HEALTH_TIMEOUT")]
    pub app_health_timeout: Option<String>,

    /// So many probes must fail in a row before the application counts as unhealthy [default: 3]
    #[arg(long, value_name = "NUMBER", env = "BELLWETHER_APP_HEALTH_FAILURES")]
    pub app_health_failures: Option<String>,

    /// So many must succeed in a row before it counts as healthy [default: 1]
    #[arg(long, value_name = "NUMBER", env = "BELLWETHER_APP_HEALTH_SUCCESSES")]
    pub app_health_successes: Option<String>,

    /// How long an application that has just been started may take to become healthy; failures in that time do not
    /// count [default: 30s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_APP_HEALTH_START_GRACE")]
    pub app_health_start_grace: Option<String>,
}
