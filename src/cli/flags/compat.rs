//! The flags of those who come from another sidecar.

use clap::Args;

/// In place of another sidecar.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "In place of another sidecar")]
pub struct CompatFlags {
    /// Answer as that sidecar does, and take its flags: leader-elector, instana or nais; see docs/migration.md for what
    /// stays and what changes [default: none]
    #[arg(long, value_name = "SIDECAR", env = "BELLWETHER_COMPAT")]
    pub compat: Option<String>,

    /// Taken with --compat leader-elector and instana, without effect: the election is in etcd
    #[arg(
        long,
        value_name = "true|false",
        env = "BELLWETHER_USE_CLUSTER_CREDENTIALS",
        hide = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub use_cluster_credentials: Option<String>,

    /// Taken with --compat leader-elector and instana, without effect: nobody claims a lock that is still held
    #[arg(
        long,
        value_name = "true|false",
        env = "BELLWETHER_INITIAL_WAIT",
        hide = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub initial_wait: Option<String>,

    /// Taken with --compat nais: --telemetry
    #[arg(long, value_name = "ADDRESS", env = "BELLWETHER_PROBE_ADDRESS", hide = true)]
    pub probe_address: Option<String>,

    /// Taken with --compat nais, where it is the same as --probe-address
    #[arg(long, value_name = "ADDRESS", env = "BELLWETHER_METRICS_ADDRESS", hide = true)]
    pub metrics_address: Option<String>,
}
