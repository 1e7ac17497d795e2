//! `--compat`: the flags and variables of another sidecar, put where ours are before anything is parsed.

use thiserror::Error;

use super::default_telemetry;
use super::fault::FaultKind;
use super::sources::{Sources, Surroundings};
use crate::cli::flags::{CompatFlags, RunFlags};

/// The sidecar whose place this one takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat {
    /// `leader-elector` of kubernetes/contrib and its forks: `{"name":…}` on every path.
    LeaderElector,
    /// instana's fork: the same, and `/health`.
    Instana,
    /// nais' elector: the same, with `last_update`, and `/sse`, `/healthz` and `ELECTOR_…`.
    Nais,
}

/// What can be wrong with the flags of another sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CompatFault {
    /// It belongs to another sidecar than the one to stand in for.
    #[error("{flag}: is understood only with --compat {of}; {instead}")]
    Foreign {
        /// The flag.
        flag: &'static str,
        /// With which `--compat` it would be understood.
        of: &'static str,
        /// The way out.
        instead: &'static str,
    },
    /// Two addresses for what is on one.
    #[error(
        "--metrics-address: {metrics:?} is not {telemetry:?}, where the probes are; metrics and probes share one \
         address here: leave --metrics-address out and scrape {telemetry}"
    )]
    MetricsElsewhere {
        /// Where the metrics should be.
        metrics: String,
        /// Where the probes are.
        telemetry: String,
    },
}

impl CompatFault {
    pub(super) fn flags(&self) -> Vec<&'static str> {
        match self {
            Self::Foreign { flag, .. } => vec![flag],
            Self::MetricsElsewhere { .. } => vec!["--metrics-address", "--probe-address"],
        }
    }
}

/// The variables of nais' elector, and the flags they stand for. Those of the application beside it (`ELECTOR_PATH`,
/// `ELECTOR_GET_URL`, `ELECTOR_SSE_URL`) are not among them.
pub(super) const NAIS_VARIABLES: [(&str, &str); 7] = [
    ("ELECTOR_ELECTION", "--election"),
    ("ELECTOR_ELECTION_NAMESPACE", "--namespace"),
    ("ELECTOR_HTTP", "--http"),
    ("ELECTOR_PROBE_ADDRESS", "--probe-address"),
    ("ELECTOR_METRICS_ADDRESS", "--metrics-address"),
    ("ELECTOR_LOG_FORMAT", "--log-format"),
    ("ELECTOR_LOG_LEVEL", "--log-level"),
];

/// The levels of nais' elector that we have under another name: the nearest that leaves out nothing it would show.
const NAIS_LEVELS: [(&str, &str); 4] =
    [("panic", "error"), ("fatal", "error"), ("warning", "warn"), ("trace", "debug")];

/// What else is known about the flags that are another sidecar's.
struct Foreign {
    flag: &'static str,
    value: fn(&CompatFlags) -> Option<&String>,
    taken_with: &'static [Compat],
    of: &'static str,
    instead: &'static str,
}

const FOREIGN: [Foreign; 4] = [
    Foreign {
        flag: "--use-cluster-credentials",
        value: |flags| flags.use_cluster_credentials.as_ref(),
        taken_with: &[Compat::LeaderElector, Compat::Instana],
        of: "leader-elector or instana",
        instead: "leave it out: the election is in etcd, and the pod's label uses the service account anyway",
    },
    Foreign {
        flag: "--initial-wait",
        value: |flags| flags.initial_wait.as_ref(),
        taken_with: &[Compat::LeaderElector, Compat::Instana],
        of: "leader-elector or instana",
        instead: "leave it out: a lock that is held is never claimed",
    },
    Foreign {
        flag: "--probe-address",
        value: |flags| flags.probe_address.as_ref(),
        taken_with: &[Compat::Nais],
        of: "nais",
        instead: "write --telemetry",
    },
    Foreign {
        flag: "--metrics-address",
        value: |flags| flags.metrics_address.as_ref(),
        taken_with: &[Compat::Nais],
        of: "nais",
        instead: "write --telemetry",
    },
];

/// The settings as they are to be parsed.
pub(super) struct Adopted {
    pub(super) flags: RunFlags,
    pub(super) sources: Sources,
    pub(super) compat: Option<Compat>,
    pub(super) faults: Vec<FaultKind>,
    pub(super) warnings: Vec<String>,
}

impl Adopted {
    pub(super) fn of(flags: &RunFlags, sources: &Sources, surroundings: &Surroundings) -> Self {
        let (flags, sources) = (flags.clone(), sources.clone());
        let mut adopted = Self { flags, sources, compat: None, faults: Vec::new(), warnings: Vec::new() };
        let given = adopted.flags.compat.compat.clone();
        adopted.compat = match adopted.sources.value("--compat", given.as_ref()) {
            None => None,
            Some("leader-elector") => Some(Compat::LeaderElector),
            Some("instana") => Some(Compat::Instana),
            Some("nais") => Some(Compat::Nais),
            Some(other) => {
                let (flag, choices) = ("--compat", "leader-elector, instana, nais");
                adopted.faults.push(FaultKind::Choice { flag, value: other.to_owned(), choices });
                // Whose flags the others are is not known then.
                return adopted;
            }
        };
        if adopted.compat == Some(Compat::Nais) {
            adopted.take_variables(surroundings);
        }
        adopted.look_at_foreign_flags();
        if adopted.compat == Some(Compat::Nais) {
            adopted.take_addresses();
            adopted.take_level();
        }
        if adopted.compat.is_some()
            && adopted.given("--answer-validity", |it| it.timings.answer_validity.as_ref()).is_none()
        {
            adopted.warnings.push(POLL_WARNING.to_owned());
        }
        adopted
    }

    /// What was set for a flag, if anything.
    fn given(&self, flag: &str, value: fn(&RunFlags) -> Option<&String>) -> Option<&str> {
        self.sources.value(flag, value(&self.flags))
    }

    /// Each variable of nais' elector, unless the flag or its own variable is there.
    fn take_variables(&mut self, surroundings: &Surroundings) {
        for (variable, value) in &surroundings.elector {
            let Some((_, flag)) = NAIS_VARIABLES.into_iter().find(|(name, _)| name == variable) else { continue };
            if flag == "--http" {
                if !self.sources.values(flag, &self.flags.http.http).is_empty() {
                    continue;
                }
                self.flags.http.http = vec![value.clone()];
            } else {
                let Some(place) = place_of(flag, &mut self.flags) else { continue };
                if self.sources.value(flag, place.as_ref()).is_some() {
                    continue;
                }
                *place = Some(value.clone());
            }
            self.sources.add(flag, variable);
        }
    }

    fn look_at_foreign_flags(&mut self) {
        for foreign in FOREIGN {
            if self.sources.value(foreign.flag, (foreign.value)(&self.flags.compat)).is_none() {
                continue;
            }
            match self.compat {
                Some(Compat::Nais) if foreign.taken_with.contains(&Compat::Nais) => {}
                Some(compat) if foreign.taken_with.contains(&compat) => {
                    self.warnings.push(format!("{} has no effect here; {}", foreign.flag, foreign.instead));
                }
                Some(_) | None => {
                    let Foreign { flag, of, instead, .. } = foreign;
                    self.faults.push(FaultKind::Compat(CompatFault::Foreign { flag, of, instead }));
                }
            }
        }
    }

    /// `--probe-address` and `--metrics-address` are both `--telemetry`.
    fn take_addresses(&mut self) {
        let probes = self.given("--probe-address", |it| it.compat.probe_address.as_ref()).map(str::to_owned);
        let metrics = self.given("--metrics-address", |it| it.compat.metrics_address.as_ref()).map(str::to_owned);
        let ours = self.given("--telemetry", |it| it.http.telemetry.as_ref()).map(str::to_owned);
        match (&probes, &ours) {
            (Some(_), Some(_)) => self.faults.push(FaultKind::Both { one: "--probe-address", other: "--telemetry" }),
            (Some(probes), None) => {
                self.sources.add("--telemetry", "--probe-address");
                self.flags.http.telemetry = Some(probes.clone());
            }
            (None, _) => {}
        }
        if let Some(metrics) = metrics {
            match probes.or(ours) {
                Some(telemetry) if telemetry != metrics => {
                    self.faults.push(FaultKind::Compat(CompatFault::MetricsElsewhere { metrics, telemetry }));
                }
                Some(_) => {}
                None if metrics == default_telemetry().to_string() => {}
                None => {
                    self.sources.add("--telemetry", "--metrics-address");
                    self.flags.http.telemetry = Some(metrics);
                }
            }
        }
    }

    fn take_level(&mut self) {
        if let Some(level) = &mut self.flags.log.log_level
            && let Some((_, ours)) = NAIS_LEVELS.into_iter().find(|(theirs, _)| theirs == level)
        {
            ours.clone_into(level);
        }
    }
}

/// Where a flag that one of nais' variables stands for is kept; `--http`, which takes several values, is not among them.
fn place_of<'a>(flag: &str, flags: &'a mut RunFlags) -> Option<&'a mut Option<String>> {
    match flag {
        "--election" => Some(&mut flags.lock.election),
        "--namespace" => Some(&mut flags.lock.namespace),
        "--probe-address" => Some(&mut flags.compat.probe_address),
        "--metrics-address" => Some(&mut flags.compat.metrics_address),
        "--log-format" => Some(&mut flags.log.log_format),
        "--log-level" => Some(&mut flags.log.log_level),
        _ => None,
    }
}

/// Said at the start: clients of those sidecars ask every few seconds and act on the last answer until the next.
const POLL_WARNING: &str = "--compat: a client that asks every P seconds and acts on the last answer in between needs \
    --answer-validity and --safety-margin of at least P, or must ask before it acts; see docs/migration.md";
