//! `--app-health`: where the application is asked for its health, and how answers become a judgement.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use thiserror::Error;

use super::duration::{DurationFault, Span, parse_duration};
use super::fault::FaultKind;
use super::faults::{Faults, OnTheList};
use crate::cli::flags::AppHealthFlags;

/// What runs the command of `exec:`.
pub(crate) const SHELL: &str = "/bin/sh";
/// Every other probe is cheaper than a shell, which takes some milliseconds: more often only costs.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);
/// A leader whose application failed so long ago has been useless for longer than any lease.
const INTERVAL_MOST: Duration = Duration::from_hours(1);
/// Under this a loaded machine fails the probes of a healthy application.
const TIMEOUT_LEAST: Duration = Duration::from_millis(10);
/// As the longest lease: an application that takes longer to start is not waited for by anybody.
const START_GRACE_MOST: Duration = Duration::from_hours(1);
/// More in a row than anybody waits for.
const COUNT_MOST: u32 = 100;
/// `sockaddr_un` has 108 bytes, the last of which is the terminating zero.
const UNIX_PATH_BYTES_MAX: usize = 107;
/// The port of http, as in every browser.
const HTTP_PORT: u16 = 80;

/// How the application's health is looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppHealthConfig {
    /// `--app-health`
    pub target: Target,
    /// `--app-health-interval`: from the start of one probe to the start of the next.
    pub interval: Duration,
    /// `--app-health-timeout`: at most the interval, so that two probes never overlap.
    pub timeout: Duration,
    /// What the answers mean.
    pub thresholds: Thresholds,
}

/// How answers become a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// `--app-health-failures`: so many in a row make it unhealthy. At least 1.
    pub failures: u32,
    /// `--app-health-successes`: so many in a row make it healthy. At least 1.
    pub successes: u32,
    /// `--app-health-start-grace`: until it was healthy once, failures do not count for so long.
    pub start_grace: Duration,
}

/// Whom to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `http://host:port/path`
    Http {
        /// Where.
        host: HostPort,
        /// Path and query.
        path: String,
    },
    /// `unix:socket?path=/path`: http over a unix socket.
    Unix {
        /// The socket.
        socket: PathBuf,
        /// Path and query.
        path: String,
    },
    /// `tcp://host:port`
    Tcp(HostPort),
    /// `exec:command`
    Exec(String),
    /// `file:path?max-age=10s`
    File {
        /// The file.
        path: PathBuf,
        /// How long ago it may have been written.
        max_age: Option<Duration>,
    },
}

/// A host and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, path } => write!(f, "http://{host}{path}"),
            Self::Unix { socket, path } => write!(f, "unix:{}?path={path}", socket.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
            Self::Exec(command) => write!(f, "exec:{command}"),
            Self::File { path, max_age: None } => write!(f, "file:{}", path.display()),
            Self::File { path, max_age: Some(age) } => write!(f, "file:{}?max-age={}", path.display(), Span(*age)),
        }
    }
}

/// What is wrong with the flags.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AppHealthFault {
    /// The target.
    #[error("--app-health: {value:?} {fault}")]
    Target {
        /// What was set, without credentials.
        value: String,
        /// What is wrong with it.
        fault: TargetFault,
    },
    /// How to ask, and nobody to be asked.
    #[error("{flag}: is set without --app-health; say with --app-health how the application is asked")]
    NobodyToAsk {
        /// The flag.
        flag: &'static str,
    },
    /// A duration out of range.
    #[error("{flag}: {} is out of range; choose {} to {}", Span(*.value), Span(*.least), Span(*.most))]
    Range {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: Duration,
        /// The shortest.
        least: Duration,
        /// The longest.
        most: Duration,
    },
    /// Not a number, or out of range.
    #[error("{flag}: {value:?} is not a whole number from 1 to {COUNT_MOST}; write for example 3")]
    Count {
        /// The flag.
        flag: &'static str,
        /// What was set.
        value: String,
    },
    /// Two probes would overlap.
    #[error(
        "--app-health-timeout: {} > --app-health-interval {}: a probe must end before the next begins; lower \
         --app-health-timeout or raise --app-health-interval",
        Span(*.timeout),
        Span(*.interval)
    )]
    TimeoutOutlastsInterval {
        /// The timeout.
        timeout: Duration,
        /// The interval.
        interval: Duration,
    },
}

impl AppHealthFault {
    /// The flags whose values took part.
    pub(super) fn flags(&self) -> Vec<&'static str> {
        match self {
            Self::Target { .. } => vec!["--app-health"],
            Self::NobodyToAsk { flag } | Self::Range { flag, .. } | Self::Count { flag, .. } => vec![flag],
            Self::TimeoutOutlastsInterval { .. } => vec!["--app-health-timeout", "--app-health-interval"],
        }
    }
}

/// Why a text is not a target, worded to follow the text itself.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TargetFault {
    /// Another kind.
    #[error("is none of http://, tcp://, unix:, exec: and file:; write for example http://localhost:8080/healthz")]
    UnknownKind,
    /// A probe that does not check certificates would be no better than http.
    #[error(
        "is https, which is not spoken here; give the application's health a port without TLS on loopback, or use \
         tcp://"
    )]
    Https,
    /// `http://user:password@…`
    #[error("carries credentials, which would end up in logs; let the application answer health without any")]
    Credentials,
    /// Not a URL.
    #[error("is not a URL; write for example http://localhost:8080/healthz or tcp://localhost:5432")]
    Malformed,
    /// `tcp://localhost`
    #[error("has no valid port; write for example tcp://localhost:5432")]
    NoPort,
    /// `tcp://localhost:5432/db`
    #[error("has a path, and a connection has none; end it with the port")]
    PathOfTcp,
    /// `exec:`
    #[error("has no command; write for example exec:pg_isready")]
    NoCommand,
    /// The image of Bellwether has no shell.
    #[error(
        "needs {SHELL}, which is not here: the command runs where bellwether runs, not in the application's container; \
         use http://, tcp://, unix: or file:"
    )]
    NoShell,
    /// `file:alive`
    #[error("has no absolute path; write for example {0}")]
    NotAbsolute(&'static str),
    /// The kernel's limit.
    #[error("has a path of {0} bytes; a unix socket's path has at most {UNIX_PATH_BYTES_MAX}")]
    UnixPathTooLong(usize),
    /// `file:/alive?age=1s`
    #[error("has the unknown option {0:?}; the only one is {1}")]
    UnknownOption(String, &'static str),
    /// `unix:/socket?path=healthz`
    #[error("has a path that does not start with '/', or that http cannot carry; write for example ?path=/healthz")]
    HttpPath,
    /// `file:/alive?max-age=10`
    #[error("has a max-age that {0}")]
    MaxAge(DurationFault),
    /// `file:/alive?max-age=0s`
    #[error("has a max-age of 0s, which no file can keep to; write for example ?max-age=10s")]
    NoAge,
}

/// `None`: the application is not asked.
pub(super) fn parse_app_health(
    flags: &AppHealthFlags,
    faults: &mut Faults<'_>,
) -> Result<Option<AppHealthConfig>, OnTheList> {
    match faults.value("--app-health", flags.app_health.as_ref()) {
        Some(text) => parse_asked(text, flags, faults).map(Some).ok_or(OnTheList),
        None => nobody_to_ask(flags, faults).map(|()| None),
    }
}

fn parse_asked(text: &str, flags: &AppHealthFlags, faults: &mut Faults<'_>) -> Option<AppHealthConfig> {
    let target = parse_target(text, Path::new(SHELL).exists());
    let target = faults.keep(target.map_err(|fault| of(AppHealthFault::Target { value: shown(text), fault })));
    let mut duration = |flag: &'static str, given: &Option<String>, default, least, most| -> Option<Duration> {
        match faults.duration_if_set(flag, given.as_ref()) {
            None => Some(default),
            Some(Err(OnTheList)) => None,
            Some(Ok(value)) if (least..=most).contains(&value) => Some(value),
            Some(Ok(value)) => faults.keep(Err(of(AppHealthFault::Range { flag, value, least, most }))),
        }
    };
    let second = Duration::from_secs(1);
    let interval = &flags.app_health_interval;
    let interval = duration("--app-health-interval", interval, 2 * second, INTERVAL_LEAST, INTERVAL_MOST);
    let timeout = &flags.app_health_timeout;
    let timeout = duration("--app-health-timeout", timeout, second, TIMEOUT_LEAST, INTERVAL_MOST);
    let grace = &flags.app_health_start_grace;
    let start_grace = duration("--app-health-start-grace", grace, 30 * second, Duration::ZERO, START_GRACE_MOST);
    let failures = parse_count("--app-health-failures", flags.app_health_failures.as_ref(), 3, faults);
    let successes = parse_count("--app-health-successes", flags.app_health_successes.as_ref(), 1, faults);
    let (interval, timeout) = (interval?, timeout?);
    if timeout > interval {
        faults.push(of(AppHealthFault::TimeoutOutlastsInterval { timeout, interval }));
    }
    let thresholds = Thresholds { failures: failures?, successes: successes?, start_grace: start_grace? };
    Some(AppHealthConfig { target: target?, interval, timeout, thresholds })
}

fn of(fault: AppHealthFault) -> FaultKind {
    FaultKind::AppHealth(fault)
}

/// Nothing may say how to ask where nobody is to be asked.
fn nobody_to_ask(flags: &AppHealthFlags, faults: &mut Faults<'_>) -> Result<(), OnTheList> {
    let mut nothing = Ok(());
    for (flag, given) in [
        ("--app-health-interval", &flags.app_health_interval),
        ("--app-health-timeout", &flags.app_health_timeout),
        ("--app-health-failures", &flags.app_health_failures),
        ("--app-health-successes", &flags.app_health_successes),
        ("--app-health-start-grace", &flags.app_health_start_grace),
    ] {
        if faults.value(flag, given.as_ref()).is_some() {
            faults.push(of(AppHealthFault::NobodyToAsk { flag }));
            nothing = Err(OnTheList);
        }
    }
    nothing
}

fn parse_count(flag: &'static str, given: Option<&String>, default: u32, faults: &mut Faults<'_>) -> Option<u32> {
    let Some(text) = faults.value(flag, given) else { return Some(default) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let count = text.parse().ok().filter(|count| digits && (1..=COUNT_MOST).contains(count));
    faults.keep(count.ok_or_else(|| of(AppHealthFault::Count { flag, value: text.to_owned() })))
}

/// The value without what may be a password.
fn shown(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme @ ("http" | "https" | "tcp"), rest)), Some((_, host))) if rest.contains('@') => {
            format!("{scheme}://…@{host}")
        }
        (Some(_) | None, Some(_) | None) => text.to_owned(),
    }
}

fn parse_target(text: &str, shell: bool) -> Result<Target, TargetFault> {
    if let Some(command) = text.strip_prefix("exec:") {
        return match command.trim() {
            "" => Err(TargetFault::NoCommand),
            _ if !shell => Err(TargetFault::NoShell),
            _ => Ok(Target::Exec(command.to_owned())),
        };
    }
    if let Some(rest) = text.strip_prefix("file:") {
        return parse_file(rest);
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        return parse_unix(rest);
    }
    match text.split_once("://") {
        Some(("http", rest)) => {
            let (host, uri) = parse_url(text, rest)?;
            let port = host.1.unwrap_or(HTTP_PORT);
            let path = uri.path_and_query().map_or("/", hyper::http::uri::PathAndQuery::as_str).to_owned();
            Ok(Target::Http { host: HostPort { host: host.0, port }, path })
        }
        Some(("tcp", rest)) => {
            let (host, uri) = parse_url(text, rest)?;
            if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
                return Err(TargetFault::PathOfTcp);
            }
            Ok(Target::Tcp(HostPort { host: host.0, port: host.1.ok_or(TargetFault::NoPort)? }))
        }
        Some(("https", _)) => Err(TargetFault::Https),
        Some(_) | None => Err(TargetFault::UnknownKind),
    }
}

/// Host and port, and the whole.
fn parse_url(text: &str, rest: &str) -> Result<((String, Option<u16>), Uri), TargetFault> {
    if rest.split('/').next().is_some_and(|authority| authority.contains('@')) {
        return Err(TargetFault::Credentials);
    }
    if text.contains('#') {
        return Err(TargetFault::Malformed);
    }
    let uri: Uri = text.parse().map_err(|_why| TargetFault::Malformed)?;
    let host = uri.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
    let authority = uri.authority().map_or("", hyper::http::uri::Authority::as_str);
    // What the authority has behind the host, a port or an empty one.
    let named = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
    match uri.port_u16() {
        _ if host.is_empty() => Err(TargetFault::Malformed),
        Some(0) => Err(TargetFault::NoPort),
        None if named => Err(TargetFault::NoPort),
        port @ (Some(_) | None) => Ok(((host, port), uri)),
    }
}

/// What stands before and after the first `?`, whose only option is called `name`.
fn parse_option<'a>(rest: &'a str, name: &'static str) -> Result<(&'a str, Option<&'a str>), TargetFault> {
    let Some((path, option)) = rest.split_once('?') else { return Ok((rest, None)) };
    match option.split_once('=') {
        Some((given, value)) if given == name => Ok((path, Some(value))),
        Some((given, _)) => Err(TargetFault::UnknownOption(given.to_owned(), name)),
        None => Err(TargetFault::UnknownOption(option.to_owned(), name)),
    }
}

fn parse_file(rest: &str) -> Result<Target, TargetFault> {
    let (path, max_age) = parse_option(rest, "max-age")?;
    if !path.starts_with('/') {
        return Err(TargetFault::NotAbsolute("file:/run/app/alive"));
    }
    let max_age = max_age.map(parse_duration).transpose().map_err(TargetFault::MaxAge)?;
    if max_age == Some(Duration::ZERO) {
        return Err(TargetFault::NoAge);
    }
    Ok(Target::File { path: path.into(), max_age })
}

fn parse_unix(rest: &str) -> Result<Target, TargetFault> {
    let (socket, path) = parse_option(rest, "path")?;
    if !socket.starts_with('/') {
        return Err(TargetFault::NotAbsolute("unix:/run/app.sock?path=/healthz"));
    }
    if socket.len() > UNIX_PATH_BYTES_MAX {
        return Err(TargetFault::UnixPathTooLong(socket.len()));
    }
    let path = path.unwrap_or("/");
    if !path.starts_with('/') || path.contains('#') || path.parse::<Uri>().is_err() {
        return Err(TargetFault::HttpPath);
    }
    Ok(Target::Unix { socket: socket.into(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[test]
    fn every_kind_of_target_is_understood_and_shown_as_it_is_meant() {
        for (text, as_shown) in [
            ("http://localhost:8080/healthz?full=1", "http://localhost:8080/healthz?full=1"),
            ("http://localhost:8080", "http://localhost:8080/"),
            ("http://app/healthz", "http://app:80/healthz"),
            ("http://[::1]:8080/", "http://[::1]:8080/"),
            ("http://[::1]/", "http://[::1]:80/"),
            ("tcp://127.0.0.1:5432", "tcp://127.0.0.1:5432"),
            ("tcp://[::1]:5432/", "tcp://[::1]:5432"),
            ("exec:test -e /tmp/a && true", "exec:test -e /tmp/a && true"),
            ("file:/run/alive", "file:/run/alive"),
            ("file:/run/alive?max-age=1m30s", "file:/run/alive?max-age=1m30s"),
            ("unix:/run/app.sock", "unix:/run/app.sock?path=/"),
            ("unix:/run/app.sock?path=/healthz?a=b", "unix:/run/app.sock?path=/healthz?a=b"),
        ] {
            let parsed = parse_target(text, true).map(|target| target.to_string());
            assert_eq!(parsed, Ok(as_shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn every_other_target_is_refused_for_its_reason() {
        for (text, fault) in [
            ("", TargetFault::UnknownKind),
            ("localhost:8080", TargetFault::UnknownKind),
            ("ftp://localhost:21", TargetFault::UnknownKind),
            ("https://localhost:8443/healthz", TargetFault::Https),
            ("http://root:secret@localhost:8080/", TargetFault::Credentials),
            ("http://", TargetFault::Malformed),
            ("http://a b/", TargetFault::Malformed),
            ("http://localhost:8080/#top", TargetFault::Malformed),
            ("http://localhost:0/", TargetFault::NoPort),
            ("http://localhost:/", TargetFault::NoPort),
            ("http://localhost:65536/", TargetFault::NoPort),
            ("tcp://localhost", TargetFault::NoPort),
            ("tcp://localhost:5432/db", TargetFault::PathOfTcp),
            ("exec:  ", TargetFault::NoCommand),
            ("file:alive", TargetFault::NotAbsolute("file:/run/app/alive")),
            ("file:/alive?age=1s", TargetFault::UnknownOption("age".into(), "max-age")),
            ("file:/alive?max-age=10", TargetFault::MaxAge(DurationFault::NoUnit(10))),
            ("file:/alive?max-age=0s", TargetFault::NoAge),
            ("unix:app.sock", TargetFault::NotAbsolute("unix:/run/app.sock?path=/healthz")),
            ("unix:/run/app.sock?path=healthz", TargetFault::HttpPath),
            ("unix:/run/app.sock?path=/a b", TargetFault::HttpPath),
        ] {
            assert_eq!(parse_target(text, true), Err(fault), "{text}");
        }
        assert_eq!(parse_target("exec:true", false), Err(TargetFault::NoShell));
        let long = format!("unix:/{}", "x".repeat(107));
        assert_eq!(parse_target(&long, true), Err(TargetFault::UnixPathTooLong(108)));
    }

    #[test]
    fn a_password_is_not_repeated() {
        assert_eq!(shown("http://root:p@ss/w@localhost/"), "http://…@localhost/");
        assert_eq!(shown("exec:mail a@b"), "exec:mail a@b");
    }

    fn parsed(flags: &AppHealthFlags) -> Result<Option<AppHealthConfig>, Vec<String>> {
        let sources = Sources::default();
        let mut faults = Faults::new(&sources);
        let parsed = parse_app_health(flags, &mut faults);
        faults.finish(parsed.ok()).map_err(|faults| faults.iter().map(ToString::to_string).collect())
    }

    fn asked() -> AppHealthFlags {
        AppHealthFlags { app_health: Some("tcp://localhost:1".into()), ..AppHealthFlags::default() }
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        assert_eq!(parsed(&AppHealthFlags::default()), Ok(None));
        let config = parsed(&asked()).expect("in order").expect("asked for");
        assert_eq!((config.interval, config.timeout), (Duration::from_secs(2), Duration::from_secs(1)));
        let thresholds = Thresholds { failures: 3, successes: 1, start_grace: Duration::from_secs(30) };
        assert_eq!(config.thresholds, thresholds);
    }

    #[test]
    fn a_probe_may_take_as_long_as_the_interval_and_no_longer() {
        let with = |timeout: &str| {
            parsed(&AppHealthFlags {
                app_health_interval: Some("500ms".into()),
                app_health_timeout: Some(timeout.into()),
                ..asked()
            })
        };
        assert!(with("500ms").is_ok());
        assert_eq!(
            with("501ms"),
            Err(vec![
                "--app-health-timeout: 501ms > --app-health-interval 500ms: a probe must end before the next begins; \
                 lower --app-health-timeout or raise --app-health-interval"
                    .to_owned()
            ])
        );
    }
}
