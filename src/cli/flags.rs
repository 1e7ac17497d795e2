//! The flags that more than one subcommand or part of the configuration needs, grouped as `--help` shows them.
//!
//! Every value arrives here as text: the configuration parses it, so that all faults are told at once.

#![expect(clippy::doc_markdown, reason = "these comments are shown on a terminal, where backticks are noise")]

use std::ffi::OsString;

use clap::Args;

mod application;
mod compat;

pub use application::{AppHealthFlags, PartFlags};
pub use compat::CompatFlags;

/// All flags of `bellwether run`.
#[derive(Args, Clone, Debug, Default)]
pub struct RunFlags {
    /// Which lock.
    #[command(flatten)]
    pub lock: LockFlags,
    /// Who contends.
    #[command(flatten)]
    pub candidate: CandidateFlags,
    /// Which part it takes.
    #[command(flatten)]
    pub part: PartFlags,
    /// How to reach etcd.
    #[command(flatten)]
    pub etcd: EtcdFlags,
    /// How long things may take.
    #[command(flatten)]
    pub timings: TimingFlags,
    /// How the application is asked for its health.
    #[command(flatten)]
    pub app_health: AppHealthFlags,
    /// Where it listens.
    #[command(flatten)]
    pub http: HttpFlags,
    /// What runs only while it leads.
    #[command(flatten)]
    pub work: WorkFlags,
    /// In place of another sidecar.
    #[command(flatten)]
    pub compat: CompatFlags,
    /// What the cluster is shown.
    #[command(flatten)]
    pub kubernetes: KubernetesFlags,
    /// What outlives it.
    #[command(flatten)]
    pub state: StateFlags,
    /// How it logs.
    #[command(flatten)]
    pub log: LogFlags,
}

/// Which lock.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Election")]
pub struct LockFlags {
    /// What the replicas contend for: a Kubernetes label value, up to 63 letters, digits, '-', '_' and '.' [required]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_ELECTION")]
    pub election: Option<String>,

    /// The election's namespace [default: the pod's, from its service account; else "default"]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_NAMESPACE", visible_alias = "election-namespace")]
    pub namespace: Option<String>,

    /// The etcd key that is the lock; candidates register below <KEY>/candidates/
    /// [default: /bellwether/<namespace>/<election>]
    #[arg(long, value_name = "KEY", env = "BELLWETHER_LOCK_KEY")]
    pub lock_key: Option<String>,
}

/// Who contends.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Election")]
pub struct CandidateFlags {
    /// The name this replica leads under, unique in the election [default: the host name, which is the pod's name]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_IDENTITY", visible_alias = "id")]
    pub identity: Option<String>,

    /// Raise it on every sidecar after etcd was restored or wiped, so that (epoch, term) still only grows [default: 0]
    #[arg(long, value_name = "NUMBER", env = "BELLWETHER_EPOCH")]
    pub epoch: Option<String>,
}

/// How to reach etcd.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "etcd")]
pub struct EtcdFlags {
    /// URLs of the members of one cluster, all http or all https, at most 16; separated by commas, or give the flag
    /// several times [required]
    #[arg(long, value_name = "URL,…", env = "BELLWETHER_ETCD_ENDPOINTS")]
    pub etcd_endpoints: Vec<String>,

    /// PEM file with the authority that signed etcd's certificates; required with https
    #[arg(long, value_name = "FILE", env = "BELLWETHER_ETCD_CA_FILE")]
    pub etcd_ca_file: Option<String>,

    /// PEM file with the client certificate, for mutual TLS; together with --etcd-key-file
    #[arg(long, value_name = "FILE", env = "BELLWETHER_ETCD_CERT_FILE")]
    pub etcd_cert_file: Option<String>,

    /// PEM file with the client certificate's key
    #[arg(long, value_name = "FILE", env = "BELLWETHER_ETCD_KEY_FILE")]
    pub etcd_key_file: Option<String>,

    /// Name that etcd's certificate must carry [default: the host in the URL]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_ETCD_SERVER_NAME")]
    pub etcd_server_name: Option<String>,

    /// etcd user; the password comes from --etcd-password-file or from the environment variable
    /// BELLWETHER_ETCD_PASSWORD, never from a flag, which everyone on the machine could read
    #[arg(long, value_name = "NAME", env = "BELLWETHER_ETCD_USER")]
    pub etcd_user: Option<String>,

    /// File with the password; one newline at its end is ignored
    #[arg(long, value_name = "FILE", env = "BELLWETHER_ETCD_PASSWORD_FILE")]
    pub etcd_password_file: Option<String>,
}

/// How long things may take.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Timings (written as 15s, 500ms, 1m30s)")]
pub struct TimingFlags {
    /// How long etcd keeps the lock after the last renewal: whole seconds, 2s to 1h. Below 8s an election inside etcd
    /// costs the leader its lease [default: 15s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_LEASE_TTL", visible_alias = "ttl")]
    pub lease_ttl: Option<String>,

    /// From one renewal to the next. Two attempts must fit before the lease ends: interval + 2 × attempt timeout +
    /// margin ≤ TTL [default: a third of the TTL, 5s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_KEEPALIVE_INTERVAL")]
    pub keepalive_interval: Option<String>,

    /// How long one attempt at a renewal may take [default: a sixth of the TTL, at most 3s: 2s500ms]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_ATTEMPT_TIMEOUT")]
    pub attempt_timeout: Option<String>,

    /// How long before the lease's end a leader stops, for clocks that differ in rate [default: a fifth of the TTL, at
    /// least 500ms: 3s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_SAFETY_MARGIN")]
    pub safety_margin: Option<String>,

    /// How long a leader leads on while its connection to etcd is cut, never beyond its lease; 0s: not at all
    /// [default: 5s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_RECONNECT_WINDOW")]
    pub reconnect_window: Option<String>,

    /// How long an application may rely on a 200, at most; a release waits for it [default: 1s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_ANSWER_VALIDITY")]
    pub answer_validity: Option<String>,

    /// How long a release may wait for answers given out and for the application [default: 10s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_DRAIN_TIMEOUT")]
    pub drain_timeout: Option<String>,
}

/// Where it listens.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Local API and telemetry")]
pub struct HttpFlags {
    /// Where the application asks who leads: <ip>:<port>, localhost:<port>, unix:<path>; separated by commas, or give
    /// the flag several times [default: localhost:4040, IPv4 and, where there is one, IPv6]
    #[arg(long, value_name = "ADDRESS,…", env = "BELLWETHER_HTTP")]
    pub http: Vec<String>,

    /// Take POST /resign from other machines too [default: only from loopback and unix sockets]
    #[arg(
        long,
        value_name = "true|false",
        env = "BELLWETHER_ALLOW_REMOTE_RESIGN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub allow_remote_resign: Option<String>,

    /// Where /livez, /readyz and /metrics are [default: 0.0.0.0:4041]
    #[arg(long, value_name = "ADDRESS", env = "BELLWETHER_TELEMETRY")]
    pub telemetry: Option<String>,
}

/// What runs only while it leads.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Work: what runs only while this candidate leads")]
pub struct WorkFlags {
    /// Run by /bin/sh when this candidate comes to lead, before the command; unless it exits with 0 in time, the
    /// leadership is given back
    #[arg(long, value_name = "COMMAND LINE", env = "BELLWETHER_ON_LEAD")]
    pub on_lead: Option<String>,

    /// Run by /bin/sh when this candidate has ceased to lead, after the command is gone, before the lock is let go of
    #[arg(long, value_name = "COMMAND LINE", env = "BELLWETHER_ON_STAND_DOWN")]
    pub on_stand_down: Option<String>,

    /// How long each hook may take before it is stopped [default: 10s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_HOOK_TIMEOUT")]
    pub hook_timeout: Option<String>,

    /// How long what runs may take to end after SIGTERM, before SIGKILL: taken off every lease, so that all is dead
    /// before another can lead. Interval + 2 × attempt timeout + stop timeout + margin ≤ TTL [default: what the others
    /// leave of the TTL, at most 10s: 2s]
    #[arg(long, value_name = "DURATION", env = "BELLWETHER_STOP_TIMEOUT")]
    pub stop_timeout: Option<String>,
}

/// All flags of `bellwether exec`.
#[derive(Args, Clone, Debug)]
pub struct ExecFlags {
    /// All of `bellwether run`.
    #[command(flatten)]
    pub run: RunFlags,
    /// The command.
    #[command(flatten)]
    pub command: CommandFlags,
}

/// The command of `bellwether exec`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Work: what runs only while this candidate leads")]
pub struct CommandFlags {
    /// What becomes of a command that ends by itself. never: bellwether stands down and ends with its exit code.
    /// on-failure: so for exit code 0, else it runs again. always: it runs again [default: never]
    #[arg(long, value_name = "POLICY", env = "BELLWETHER_RESTART")]
    pub restart: Option<String>,

    /// What runs only while this candidate leads, with its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", help_heading = "Arguments")]
    pub command: Vec<OsString>,
}

/// What the cluster is shown.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Kubernetes: the pod's label and events")]
pub struct KubernetesFlags {
    /// Label the pod with the role of this candidate: auto, on or off; auto is on in a pod that has a service account
    /// token mounted, or with --kubeconfig [default: auto]
    #[arg(long, value_name = "MODE", env = "BELLWETHER_POD_LABEL")]
    pub pod_label: Option<String>,

    /// How to reach the API server [default: the pod's service account]
    #[arg(long, value_name = "FILE", env = "BELLWETHER_KUBECONFIG")]
    pub kubeconfig: Option<String>,

    /// The pod to label [default: the identity if it can be a pod's name, else the host name]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_POD_NAME")]
    pub pod_name: Option<String>,

    /// The pod's namespace [default: the service account's, or that of the kubeconfig's context]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_POD_NAMESPACE")]
    pub pod_namespace: Option<String>,

    /// Use the label of another tool: bellwether, leader-labeler (is-leader: true|false), leader-elector (role:
    /// leader|follower), patroni (role: primary|replica), spilo (spilo-role: master|replica), vault (vault-active:
    /// true|false) [default: bellwether (bellwether.dev/role: leader|follower)]
    #[arg(long, value_name = "NAME", env = "BELLWETHER_LABEL_PRESET")]
    pub label_preset: Option<String>,

    /// The label that carries the role [default: the preset's]
    #[arg(long, value_name = "KEY", env = "BELLWETHER_LABEL_KEY")]
    pub label_key: Option<String>,

    /// Its value on the leader [default: the preset's]
    #[arg(long, value_name = "VALUE", env = "BELLWETHER_LABEL_LEADER")]
    pub label_leader: Option<String>,

    /// Its value on the others; --label-follower= (empty): they carry no such label [default: the preset's]
    #[arg(long, value_name = "VALUE", env = "BELLWETHER_LABEL_FOLLOWER")]
    pub label_follower: Option<String>,

    /// The label that carries the election's name [default: bellwether.dev/election]
    #[arg(long, value_name = "KEY", env = "BELLWETHER_ELECTION_LABEL_KEY")]
    pub election_label_key: Option<String>,

    /// The annotation that carries the last term as <epoch>/<term> [default: bellwether.dev/term]
    #[arg(long, value_name = "KEY", env = "BELLWETHER_TERM_ANNOTATION_KEY")]
    pub term_annotation_key: Option<String>,
}

/// What outlives it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Restart without a failover")]
pub struct StateFlags {
    /// Folder in which lease and term are kept: a sidecar that died and is back before its lease has expired goes on with
    /// the same term. For one sidecar at a time, on this machine: an emptyDir, or a folder in /run [default: none]
    #[arg(long, value_name = "DIR", env = "BELLWETHER_STATE_DIR")]
    pub state_dir: Option<String>,
}

/// How it logs.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logs")]
pub struct LogFlags {
    /// auto, text or json; auto is text on a terminal and JSON elsewhere [default: auto]
    #[arg(long, value_name = "FORMAT", env = "BELLWETHER_LOG_FORMAT")]
    pub log_format: Option<String>,

    /// error, warn, info (one line per change of state) or debug (every call to etcd) [default: info]
    #[arg(long, value_name = "LEVEL", env = "BELLWETHER_LOG_LEVEL")]
    pub log_level: Option<String>,
}
