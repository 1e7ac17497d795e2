//! From flags and environment to a [`Config`], or to every fault in them at once.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::app_health::parse_app_health;
use super::compat::Adopted;
use super::credentials::{parse_auth, parse_tls};
use super::duration::Span;
use super::endpoints::{Endpoints, parse_endpoints};
use super::fault::{ConfigFault, FaultKind, timing_flags};
use super::faults::{Faults, OnTheList};
use super::labels::parse_pod_label;
use super::listen::{default_http, default_telemetry, parse_http_item, parse_telemetry};
use super::names::{check_election, check_identity, check_lock_key, check_namespace};
use super::part::parse_part;
use super::sources::{Sources, Surroundings};
use super::state_dir::parse_state_dir;
use super::work::{WorkFault, parse_work};
use super::{
    Config, ElectionConfig, EtcdConfig, HttpConfig, HttpListen, LockConfig, LockKeyName, LogConfig, LogFormat,
    LogLevel, PodLabelConfig,
};
use crate::cli::flags::{
    CandidateFlags, CommandFlags, EtcdFlags, HttpFlags, LockFlags, LogFlags, RunFlags, TimingFlags,
};
use crate::election::{Epoch, Identity, LEASE_TTL_RIDES_OUT_ELECTION, Part, StopTime, Timings, TimingsRequest};

impl Config {
    /// Parses everything `bellwether run` was given.
    ///
    /// # Errors
    /// Every fault there is, never only the first.
    pub fn parse(flags: &RunFlags, sources: &Sources, surroundings: &Surroundings) -> Result<Self, Vec<ConfigFault>> {
        Self::parse_with(flags, None, sources, surroundings)
    }

    /// Parses everything `bellwether exec` was given, or `bellwether run` without a command.
    ///
    /// # Errors
    /// Every fault there is, never only the first.
    pub fn parse_with(
        flags: &RunFlags,
        command: Option<&CommandFlags>,
        sources: &Sources,
        surroundings: &Surroundings,
    ) -> Result<Self, Vec<ConfigFault>> {
        let Adopted { flags, sources, compat, faults: found, warnings: told } =
            Adopted::of(flags, sources, surroundings);
        let mut faults = Faults::new(&sources);
        for fault in found {
            faults.push(fault);
        }
        let lock = parse_lock(&flags.lock, surroundings, &mut faults);
        let candidate = parse_candidate(&flags.candidate, surroundings, &mut faults);
        let etcd = parse_etcd(&flags.etcd, surroundings, &mut faults);
        let work = parse_work(&flags.work, command, &mut faults);
        let stop_time = work.as_ref().map_or(StopTime::NoWork, |(_, stop_time)| *stop_time);
        let timings = parse_timings(&flags.timings, stop_time, &mut faults);
        let part = parse_part(&flags.part, &flags.app_health, &flags.work, &mut faults);
        if command.is_some() && part == Some(Part::Observer) {
            faults.push(FaultKind::Work(WorkFault::NeverLeads));
        }
        let app_health = parse_app_health(&flags.app_health, &mut faults).ok();
        let listeners = parse_listeners(&flags.http, &mut faults);
        let election = lock.as_ref().map(|lock| lock.name.as_str());
        let identity = candidate.as_ref().map(|(identity, _)| identity.as_str());
        let pod_label = parse_pod_label(&flags.kubernetes, election, identity, surroundings, &mut faults);
        let log = parse_log(&flags.log, &mut faults);
        let timings = timings.zip(work);
        let state_dir = parse_state_dir(&flags.state, &mut faults);
        let all = match (lock, candidate, etcd, timings, listeners, pod_label, log) {
            (Some(lock), Some(candidate), Some(etcd), Some(timings), Some(listeners), Some(pod_label), Some(log)) => {
                Some((lock, candidate, etcd, timings, listeners, pod_label, log))
            }
            (Some(_) | None, _, _, _, _, _, _) => None,
        };
        let all = all.zip(part.zip(app_health)).zip(state_dir.ok());
        let (
            ((lock, (identity, epoch), etcd, timings, (http, telemetry), pod_label, log), (part, app_health)),
            state_dir,
        ) = faults.finish(all)?;
        let (timings, (work, _)) = timings;
        let mut config = Self {
            election: ElectionConfig {
                name: lock.name,
                namespace: lock.namespace,
                identity,
                lock_key: lock.lock_key,
                epoch,
            },
            etcd,
            timings,
            part,
            app_health,
            http,
            telemetry,
            work,
            compat,
            pod_label,
            state_dir,
            log,
            warnings: told,
        };
        config.warnings.extend(warnings(&config));
        Ok(config)
    }
}

/// What it takes to look at an election in etcd without taking part.
pub(crate) fn parse_lock_and_etcd(
    lock: &LockFlags,
    etcd: &EtcdFlags,
    surroundings: &Surroundings,
    faults: &mut Faults<'_>,
) -> Option<(LockConfig, EtcdConfig)> {
    let lock = parse_lock(lock, surroundings, faults);
    let etcd = parse_etcd(etcd, surroundings, faults);
    lock.zip(etcd)
}

fn parse_lock(flags: &LockFlags, surroundings: &Surroundings, faults: &mut Faults<'_>) -> Option<LockConfig> {
    let name = if let Some(name) = faults.value("--election", flags.election.as_ref()) {
        faults.name("--election", name, check_election)
    } else {
        faults.push(FaultKind::Missing {
            flag: "--election",
            hint: "name what the replicas contend for, for example --election web",
        });
        None
    };
    let namespace = match faults.value("--namespace", flags.namespace.as_ref()) {
        Some(namespace) => faults.name("--namespace", namespace, check_namespace),
        None => faults.keep(namespace_of_the_pod(&surroundings.namespace_file)),
    };
    let lock_key = match faults.value("--lock-key", flags.lock_key.as_ref()) {
        Some(key) => faults.name("--lock-key", key, check_lock_key),
        None => {
            name.as_ref().zip(namespace.as_ref()).map(|(name, namespace)| format!("/bellwether/{namespace}/{name}"))
        }
    };
    Some(LockConfig { name: name?, namespace: namespace?, lock_key: LockKeyName(lock_key?) })
}

/// A file that is there but cannot be read is a fault: guessing could put two replicas into two elections.
fn namespace_of_the_pod(file: &Path) -> Result<String, FaultKind> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok("default".into());
        }
        Err(error) => return Err(FaultKind::NamespaceFile { path: file.to_owned(), error: error.to_string() }),
    };
    let value = text.trim().to_owned();
    match check_namespace(&value) {
        Ok(()) => Ok(value),
        Err(fault) => Err(FaultKind::NamespaceDefault { value, fault }),
    }
}

fn parse_candidate(
    flags: &CandidateFlags,
    surroundings: &Surroundings,
    faults: &mut Faults<'_>,
) -> Option<(Identity, Epoch)> {
    let identity = match faults.value("--identity", flags.identity.as_ref()) {
        Some(identity) => faults.name("--identity", identity, check_identity),
        None => faults.keep(identity_of_the_host(&surroundings.host_name)),
    };
    let epoch = match faults.value("--epoch", flags.epoch.as_ref()) {
        Some(text) => {
            let number = text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
            faults.keep(number.ok_or_else(|| FaultKind::Epoch(text.to_owned())))
        }
        None => Some(0),
    };
    Some((Identity::new(&identity?), Epoch(epoch?)))
}

fn identity_of_the_host(name: &str) -> Result<String, FaultKind> {
    match check_identity(name) {
        Ok(()) => Ok(name.to_owned()),
        Err(fault) => Err(FaultKind::HostName { value: name.to_owned(), fault }),
    }
}

fn parse_etcd(flags: &EtcdFlags, surroundings: &Surroundings, faults: &mut Faults<'_>) -> Option<EtcdConfig> {
    let endpoints = parse_endpoint_flag(&flags.etcd_endpoints, faults);
    let tls = parse_tls(flags, endpoints.as_ref().map(|endpoints| endpoints.tls), faults);
    let auth = parse_auth(flags, surroundings, faults);
    Some(EtcdConfig { endpoints: endpoints?.urls, tls, auth })
}

fn parse_endpoint_flag(given: &[String], faults: &mut Faults<'_>) -> Option<Endpoints> {
    let lists = faults.values("--etcd-endpoints", given);
    if lists.is_empty() {
        faults.push(FaultKind::Missing {
            flag: "--etcd-endpoints",
            hint: "list etcd's URLs, for example --etcd-endpoints https://etcd-0:2379,https://etcd-1:2379",
        });
        return None;
    }
    match parse_endpoints(&lists) {
        Ok(endpoints) => Some(endpoints),
        Err(found) => {
            for fault in found {
                faults.push(FaultKind::Endpoints(fault));
            }
            None
        }
    }
}

fn parse_timings(flags: &TimingFlags, stop_time: StopTime, faults: &mut Faults<'_>) -> Option<Timings> {
    let mut unread: Vec<&'static str> = Vec::new();
    let mut duration = |flag: &'static str, given: &Option<String>| -> Option<Duration> {
        let read = faults.duration_if_set(flag, given.as_ref())?;
        read.inspect_err(|OnTheList| unread.push(flag)).ok()
    };
    let request = TimingsRequest {
        lease_ttl: duration("--lease-ttl", &flags.lease_ttl),
        keepalive_interval: duration("--keepalive-interval", &flags.keepalive_interval),
        attempt_timeout: duration("--attempt-timeout", &flags.attempt_timeout),
        safety_margin: duration("--safety-margin", &flags.safety_margin),
        reconnect_window: duration("--reconnect-window", &flags.reconnect_window),
        answer_validity: duration("--answer-validity", &flags.answer_validity),
        drain_timeout: duration("--drain-timeout", &flags.drain_timeout),
        stop_time,
    };
    match Timings::new(request) {
        Ok(timings) => unread.is_empty().then_some(timings),
        Err(found) => {
            // A relation with a side that could not be read says nothing about what the user meant.
            for fault in found {
                if !timing_flags(&fault).iter().any(|flag| unread.contains(flag)) {
                    faults.push(FaultKind::Timing(fault));
                }
            }
            None
        }
    }
}

fn parse_listeners(flags: &HttpFlags, faults: &mut Faults<'_>) -> Option<(HttpConfig, SocketAddr)> {
    let lists = faults.values("--http", &flags.http);
    let mut listen = if lists.is_empty() { default_http() } else { Vec::new() };
    for item in lists.iter().flat_map(|list| list.split(',')).map(str::trim) {
        let parsed =
            parse_http_item(item).map_err(|fault| FaultKind::Listen { flag: "--http", value: item.to_owned(), fault });
        listen.extend(faults.keep(parsed).unwrap_or_default());
    }
    let telemetry = match faults.value("--telemetry", flags.telemetry.as_ref()) {
        Some(text) => {
            let flag = "--telemetry";
            faults.keep(parse_telemetry(text).map_err(|fault| FaultKind::Listen {
                flag,
                value: text.to_owned(),
                fault,
            }))
        }
        None => Some(default_telemetry()),
    };
    find_collisions(&listen, telemetry, faults);
    let allow_remote_resign = match faults.value("--allow-remote-resign", flags.allow_remote_resign.as_ref()) {
        Some(text) => faults.choice("--allow-remote-resign", text, "true, false", &[("true", true), ("false", false)]),
        None => Some(false),
    };
    Some((HttpConfig { listen, allow_remote_resign: allow_remote_resign? }, telemetry?))
}

fn find_collisions(listen: &[HttpListen], telemetry: Option<SocketAddr>, faults: &mut Faults<'_>) {
    let mut seen: Vec<(&'static str, HttpListen)> = Vec::new();
    let http = listen.iter().cloned().map(|address| ("--http", address));
    let telemetry = telemetry.map(|address| ("--telemetry", HttpListen::Tcp(address)));
    for (flag, address) in http.chain(telemetry) {
        match seen.iter().find(|(_, other)| address.collides_with(other)) {
            Some((other_flag, other)) => faults.push(FaultKind::Collision {
                flag,
                address: address.to_string(),
                other_flag,
                other: other.to_string(),
            }),
            None => seen.push((flag, address)),
        }
    }
}

fn parse_log(flags: &LogFlags, faults: &mut Faults<'_>) -> Option<LogConfig> {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = match faults.value("--log-format", flags.log_format.as_ref()) {
        Some(text) => faults.choice("--log-format", text, "auto, text, json", &formats),
        None => Some(LogFormat::Auto),
    };
    let levels =
        [("error", LogLevel::Error), ("warn", LogLevel::Warn), ("info", LogLevel::Info), ("debug", LogLevel::Debug)];
    let level = match faults.value("--log-level", flags.log_level.as_ref()) {
        Some(text) => faults.choice("--log-level", text, "error, warn, info, debug", &levels),
        None => Some(LogLevel::Info),
    };
    Some(LogConfig { format: format?, level: level? })
}

/// What is allowed but should be known, one sentence each.
fn warnings(config: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if !config.timings.rides_out_an_etcd_election() {
        warnings.push(format!(
            "--lease-ttl {}: below {} a leader cannot keep its lease through an election inside etcd, which takes 2 to 3 s",
            Span(config.timings.lease_ttl()),
            Span(LEASE_TTL_RIDES_OUT_ELECTION),
        ));
    }
    if config.etcd.auth.is_some() && config.etcd.tls.is_none() {
        warnings
            .push("--etcd-user: the password goes to etcd in clear text, because --etcd-endpoints is not https".into());
    }
    if let PodLabelConfig::On(label) = &config.pod_label
        && label.pod != config.election.identity.as_str()
    {
        warnings.push(format!(
            "--identity {} is not the name of the pod, {}: a new leader finds the pod of the one before by its label only",
            config.election.identity, label.pod,
        ));
    }
    for address in config.http.listen.iter().filter_map(HttpListen::tcp) {
        if !address.ip().to_canonical().is_loopback() {
            warnings.push(format!("--http {address}: other machines can ask this sidecar who leads"));
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(given: &[&str]) -> Vec<String> {
        given.iter().map(|text| (*text).to_owned()).collect()
    }

    fn minimal() -> RunFlags {
        let mut flags = RunFlags::default();
        flags.lock.election = Some("web".into());
        flags.etcd.etcd_endpoints = strings(&["http://localhost:2379"]);
        flags
    }

    fn surroundings() -> Surroundings {
        Surroundings {
            password: None,
            host_name: "web-0".into(),
            namespace_file: "/nonexistent/namespace".into(),
            token_file: "/nonexistent/token".into(),
            in_cluster: false,
            elector: Vec::new(),
        }
    }

    fn parsed(flags: &RunFlags) -> Config {
        Config::parse(flags, &Sources::default(), &surroundings()).expect("a configuration in order")
    }

    fn refused(flags: &RunFlags, surroundings: &Surroundings) -> Vec<String> {
        let faults = Config::parse(flags, &Sources::default(), surroundings).expect_err("a faulty configuration");
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn two_flags_are_enough_and_everything_else_has_its_documented_default() {
        let config = parsed(&minimal());
        assert_eq!(config.election.name, "web");
        assert_eq!(config.election.namespace, "default");
        assert_eq!(config.election.identity, Identity::new("web-0"));
        assert_eq!(config.election.lock_key.as_str(), "/bellwether/default/web");
        assert_eq!(config.election.epoch, Epoch(0));
        assert_eq!(config.etcd.endpoints, ["http://localhost:2379"]);
        assert!(config.etcd.tls.is_none() && config.etcd.auth.is_none());
        assert_eq!(Ok(config.timings), Timings::new(TimingsRequest::default()));
        assert_eq!(config.http.listen, default_http());
        assert!(!config.http.allow_remote_resign);
        assert_eq!(config.telemetry, default_telemetry());
        assert_eq!(config.log, LogConfig { format: LogFormat::Auto, level: LogLevel::Info });
        assert_eq!(config.warnings, Vec::<String>::new());
    }

    #[test]
    fn each_flag_arrives_where_it_belongs() {
        let mut flags = minimal();
        flags.lock.namespace = Some("shop".into());
        flags.lock.lock_key = Some("/locks/web".into());
        flags.candidate.identity = Some("blue".into());
        flags.candidate.epoch = Some("3".into());
        flags.timings.lease_ttl = Some("20s".into());
        flags.timings.keepalive_interval = Some("4s".into());
        flags.timings.attempt_timeout = Some("2s".into());
        flags.timings.safety_margin = Some("1s".into());
        flags.timings.reconnect_window = Some("0s".into());
        flags.timings.answer_validity = Some("200ms".into());
        flags.timings.drain_timeout = Some("1m".into());
        flags.http.http = strings(&["127.0.0.1:1, unix:/run/b.sock", "[::1]:2"]);
        flags.http.allow_remote_resign = Some("true".into());
        flags.http.telemetry = Some("127.0.0.1:3".into());
        flags.log.log_format = Some("json".into());
        flags.log.log_level = Some("debug".into());
        let config = parsed(&flags);
        assert_eq!(config.election.namespace, "shop");
        assert_eq!(config.election.lock_key.as_str(), "/locks/web");
        assert_eq!(config.election.identity, Identity::new("blue"));
        assert_eq!(config.election.epoch, Epoch(3));
        let seconds = Duration::from_secs;
        assert_eq!(config.timings.lease_ttl(), seconds(20));
        assert_eq!(config.timings.keepalive_interval(), seconds(4));
        assert_eq!(config.timings.attempt_timeout(), seconds(2));
        assert_eq!(config.timings.safety_margin(), seconds(1));
        assert_eq!(config.timings.reconnect_window(), seconds(0));
        assert_eq!(config.timings.answer_validity(), Duration::from_millis(200));
        assert_eq!(config.timings.drain_timeout(), seconds(60));
        let listen: Vec<String> = config.http.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["127.0.0.1:1", "unix:/run/b.sock", "[::1]:2"]);
        assert!(config.http.allow_remote_resign);
        assert_eq!(config.telemetry.to_string(), "127.0.0.1:3");
        assert_eq!(config.log, LogConfig { format: LogFormat::Json, level: LogLevel::Debug });
    }

    #[test]
    fn in_a_pod_the_namespace_is_the_pods() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), "shop\n").expect("the file can be written");
        let in_a_pod = Surroundings { namespace_file: file.path().to_owned(), ..surroundings() };
        let config = Config::parse(&minimal(), &Sources::default(), &in_a_pod).expect("a configuration in order");
        assert_eq!(config.election.lock_key.as_str(), "/bellwether/shop/web");

        let mut explicit = minimal();
        explicit.lock.namespace = Some("other".into());
        let config = Config::parse(&explicit, &Sources::default(), &in_a_pod).expect("a configuration in order");
        assert_eq!(config.election.namespace, "other");
    }

    #[test]
    fn a_namespace_file_that_is_there_but_of_no_use_is_never_guessed_around() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let unreadable = Surroundings { namespace_file: folder.path().to_owned(), ..surroundings() };
        let fault = &refused(&minimal(), &unreadable)[0];
        assert!(fault.contains("cannot be read") && fault.ends_with("set --namespace"), "{fault}");

        let file = folder.path().join("namespace");
        std::fs::write(&file, "").expect("the file can be written");
        let fault = &refused(&minimal(), &Surroundings { namespace_file: file, ..surroundings() })[0];
        assert_eq!(
            fault,
            "--namespace: is missing, and \"\", its default from the service account, is empty; set --namespace"
        );
    }

    #[test]
    fn a_host_without_a_name_needs_an_identity() {
        let nameless = Surroundings { host_name: String::new(), ..surroundings() };
        assert_eq!(
            refused(&minimal(), &nameless),
            ["--identity: is missing, and the host name \"\", its default, is empty; set --identity"]
        );
    }

    #[test]
    fn what_is_allowed_but_dangerous_is_warned_about() {
        let mut flags = minimal();
        flags.timings.lease_ttl = Some("5s".into());
        flags.etcd.etcd_user = Some("web".into());
        flags.http.http = strings(&[":4040"]);
        let with_password = Surroundings { password: Some("secret".into()), ..surroundings() };
        let config = Config::parse(&flags, &Sources::default(), &with_password).expect("a configuration in order");
        assert_eq!(
            config.warnings,
            [
                "--lease-ttl 5s: below 8s a leader cannot keep its lease through an election inside etcd, which takes 2 to 3 s",
                "--etcd-user: the password goes to etcd in clear text, because --etcd-endpoints is not https",
                "--http 0.0.0.0:4040: other machines can ask this sidecar who leads",
            ]
        );
        assert!(
            !format!("{config:?}").contains("secret"),
            "a configuration that is printed keeps the password to itself"
        );
    }

    #[test]
    fn a_relation_is_not_judged_by_a_side_that_could_not_be_read() {
        let mut flags = minimal();
        flags.timings.lease_ttl = Some("4".into());
        flags.timings.safety_margin = Some("14s".into());
        let faults = refused(&flags, &surroundings());
        assert_eq!(faults, ["--lease-ttl: \"4\" has no unit; write 4s for seconds or 4ms for milliseconds"]);
    }
}
