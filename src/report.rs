//! Turns notices into log lines: one per transition with its reason, its term and what comes next, and what an
//! operator has to know; quiet otherwise. On every change of leader, one line on stdout.

mod label;
mod transition;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::config::Config;
use crate::election::{
    CallErrorKind, ClaimResult, ClusterId, EndpointId, Identity, Instant, LeaseId, Notice, Operation, Reading,
    RenewalFailure, Term,
};
use crate::kubernetes::Report;
use label::LabelReporter;
use transition::{numbers_of, transition};

/// A standing fault that needs a person is said again after this long: often enough for whoever looks at the
/// last minutes of a log, rare enough to leave other lines in it.
const SAY_AGAIN: Duration = Duration::from_mins(1);
/// An outage is said again after this long, without which a log's last hour could look healthy.
const SAY_OUTAGE_AGAIN: Duration = Duration::from_mins(10);
/// A failure that has not been met for this long is over, and its return is news: longer than the candidate waits
/// before it tries an endpoint again.
const FORGET_FAILURE: Duration = Duration::from_mins(1);

/// Writes the log lines of one process.
pub struct Reporter {
    identity: Identity,
    lock_key: String,
    epoch: u64,
    lease_ttl: Duration,
    endpoints: Vec<String>,
    stdout: Box<dyn Write + Send>,
    /// Whether the leader that was last told is this candidate: its transitions tell the rest.
    led: bool,
    /// Whether a leader's keep-alive stream was said to have ended, and not yet what came of it.
    stream_ended: bool,
    /// What fails where: the first of a series is said, and then one once in a while; the rest is noise. At most
    /// one entry per endpoint and kind.
    failing: HashMap<(EndpointId, CallErrorKind), Series>,
    /// When each standing fault was last said.
    said: HashMap<Standing, Instant>,
    /// The version each endpoint last told.
    versions: HashMap<EndpointId, String>,
    label: LabelReporter,
}

/// One kind of failure of one endpoint, again and again.
#[derive(Clone, Copy, Debug)]
struct Series {
    last: Instant,
    said: Instant,
}

/// Faults that last until a person acts, and that are met again at every retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    IdentityTaken,
    LockWithoutLease,
    NoSpace(EndpointId),
    EndpointRefused(EndpointId),
    SeveralClusters(EndpointId),
}

/// Each line written is a line of the log.
struct ToLog;

impl Write for ToLog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        info!("{}", String::from_utf8_lossy(line).trim_end());
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reporter").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl Reporter {
    /// Logs through `tracing`; names of leaders go to `stdout`.
    #[must_use]
    pub fn new(config: &Config, stdout: Box<dyn Write + Send>) -> Self {
        Self {
            identity: config.election.identity.clone(),
            lock_key: config.election.lock_key.as_str().to_owned(),
            epoch: config.election.epoch.0,
            lease_ttl: config.timings.lease_ttl(),
            endpoints: config.etcd.endpoints.clone(),
            stdout,
            led: false,
            stream_ended: false,
            failing: HashMap::new(),
            said: HashMap::new(),
            versions: HashMap::new(),
            label: LabelReporter::new(&config.pod_label),
        }
    }

    /// The same on the process's own stdout, unless that is the command's: then names of leaders go to the log, too.
    #[must_use]
    pub fn to_stdout(config: &Config) -> Self {
        if config.runs_a_command() {
            Self::new(config, Box::new(ToLog))
        } else {
            Self::new(config, Box::new(io::stdout()))
        }
    }

    /// Says at the start whether the pod is labelled.
    pub fn announce_label(config: &Config) {
        label::announce(&config.pod_label);
    }

    /// Writes what happened to the pod's label, if a person should know.
    pub fn report_label(&mut self, report: &Report) {
        self.label.report(report);
    }

    /// Writes what `notice`, which happened at `now`, has to say.
    pub fn report(&mut self, notice: &Notice, now: Reading) {
        match notice {
            Notice::Transition { from, to, reason, term } => {
                self.stream_ended = false;
                transition(*from, *to, *reason, *term);
            }
            Notice::LeaderChanged { leader, term } => self.leader_changed(leader.as_ref(), *term),
            Notice::Renewed(took) => self.renewed(*took),
            Notice::RenewalFailed(failure) => renewal_failed(*failure),
            Notice::ClaimAnswered(result) => claim_answered(*result),
            Notice::TookOver(took) => {
                info!(took_ms = millis(*took), "claimed the lock, this long after seeing it free");
            }
            Notice::EtcdFailed { endpoint, operation, kind, message } => {
                self.etcd_failed(*endpoint, *operation, *kind, message, now.boot);
            }
            Notice::EtcdSilent => warn!("etcd gives no answer that can be used, at any endpoint"),
            Notice::EtcdBack => self.etcd_back(),
            Notice::ServerVersion { endpoint, version } => self.server_version(*endpoint, version),
            Notice::IdentityTaken { lease } => self.identity_taken(*lease, now.boot),
            Notice::LockWithoutLease { holder } => self.lock_without_lease(holder, now.boot),
            Notice::NoSpace { endpoint } => self.no_space(*endpoint, now.boot),
            Notice::EndpointRefused { endpoint, pinned, found } => {
                self.endpoint_refused(*endpoint, *pinned, *found, now.boot);
            }
            Notice::EndpointReadmitted { endpoint } => {
                info!(
                    endpoint = self.url(*endpoint),
                    "this endpoint answers for our cluster again, and is asked again"
                );
            }
            Notice::SeveralClusters { endpoint, pinned, found } => {
                self.several_clusters(*endpoint, *pinned, *found, now.boot);
            }
            Notice::StoreReset { seen, now } => error!(
                %seen, %now, epoch = self.epoch,
                "etcd's history went back: revision {now} came after {seen}. The store was wiped or restored, and terms \
                 would no longer grow; this sidecar leads no more: stop all sidecars of the election, then start them \
                 with --epoch {}", self.epoch.saturating_add(1),
            ),
            Notice::StreamEnded { window } => {
                self.stream_ended = true;
                warn!("the keep-alive stream ended; standing down unless a renewal is confirmed within {window:.1?}");
            }
            Notice::Resuming { term } => {
                info!(
                    term = term.token.0,
                    epoch = term.epoch.0,
                    "an earlier process led this term; going on with it if it still holds"
                );
            }
            Notice::NotResumed { term } => info!(
                term = term.token.0,
                epoch = term.epoch.0,
                "the term that an earlier process led is over, or is of another etcd cluster; starting anew"
            ),
            Notice::Superseded => error!(
                "another process with this identity has taken this one's lease over, so it runs on a copy of this one's \
                 --state-dir; stop one of the two, and give each candidate an identity and a folder of its own"
            ),
            Notice::Released { confirmed: true } => info!("let go of the lock; another candidate can claim it now"),
            Notice::Released { confirmed: false } => {
                warn!(
                    "could not let go of the lock; it is free when the lease expires in etcd, within {:?}",
                    self.lease_ttl
                );
            }
        }
    }

    fn renewed(&mut self, took: Duration) {
        debug!(took_ms = millis(took), "lease renewed");
        if std::mem::take(&mut self.stream_ended) {
            info!("a renewal is confirmed in time: the same term goes on without a break");
        }
    }

    fn leader_changed(&mut self, leader: Option<&Identity>, term: Option<Term>) {
        let led = std::mem::replace(&mut self.led, leader == Some(&self.identity));
        let Some(leader) = leader else {
            if led {
                debug!("no leader is known");
            } else {
                info!("no leader is known");
            }
            return;
        };
        let name = printable(leader);
        let (term, epoch) = numbers_of(term);
        if self.led {
            debug!(leader = %name, term, epoch, "this candidate leads");
        } else {
            info!(leader = %name, term, epoch, "another leads");
        }
        // An election does not end because nobody listens on stdout.
        let line = format!("{name} is the leader\n");
        if let Err(error) = self.stdout.write_all(line.as_bytes()).and_then(|()| self.stdout.flush()) {
            debug!(%error, "stdout does not take the leader's name");
        }
    }

    fn etcd_failed(
        &mut self,
        endpoint: EndpointId,
        operation: Operation,
        kind: CallErrorKind,
        message: &str,
        now: Instant,
    ) {
        let is_news = self.is_news(endpoint, kind, now);
        let (url, operation, code) = (self.url(endpoint), operation.as_str(), kind.as_str());
        if !is_news {
            debug!(endpoint = url, operation, code, error = message, "etcd failed again");
            return;
        }
        let next = match kind {
            CallErrorKind::Unavailable | CallErrorKind::Timeout | CallErrorKind::Other => {
                if self.endpoints.len() > 1 {
                    "trying again, and the other endpoints as well"
                } else {
                    "trying again; it is the only endpoint"
                }
            }
            CallErrorKind::LeaseNotFound => "the lease is gone; getting a new one",
            CallErrorKind::Compacted => "reading the key afresh",
            CallErrorKind::Unauthenticated => {
                "authenticating again; if this goes on, check --etcd-user and its password"
            }
            CallErrorKind::PermissionDenied => {
                "trying again; the user needs read and write on the lock key and on <lock key>/candidates/"
            }
            CallErrorKind::NoSpace => "trying again; nobody can claim until an operator makes space",
            CallErrorKind::Tls => "trying again; check --etcd-ca-file, --etcd-cert-file and --etcd-server-name",
        };
        warn!(endpoint = url, operation, code, error = message, "etcd failed: {next}");
    }

    /// Whether a failure begins a series, or is the one of a long series that is to be said again.
    fn is_news(&mut self, endpoint: EndpointId, kind: CallErrorKind, now: Instant) -> bool {
        let say_again = if needs_a_person(kind) { SAY_AGAIN } else { SAY_OUTAGE_AGAIN };
        let key = (endpoint, kind);
        let known = self.failing.get(&key).filter(|series| now.since(series.last) < FORGET_FAILURE);
        let said = known.map(|series| series.said).filter(|said| now.since(*said) < say_again);
        self.failing.insert(key, Series { last: now, said: said.unwrap_or(now) });
        said.is_none()
    }

    fn etcd_back(&mut self) {
        self.failing.clear();
        info!("etcd answers again");
    }

    fn server_version(&mut self, endpoint: EndpointId, version: &str) {
        if self.versions.insert(endpoint, version.to_owned()).as_deref() == Some(version) {
            return;
        }
        let url = self.url(endpoint);
        match Advice::on(version) {
            Advice::Fine => debug!(endpoint = url, version, "etcd's version"),
            Advice::EndOfLife => info!(
                endpoint = url,
                version, "etcd 3.4 is at the end of its life; 3.5.28, 3.6.9 or later are recommended"
            ),
            Advice::RevokesLiveLeases => warn!(
                endpoint = url,
                version,
                "this etcd can revoke a lease that is alive (etcd issue 15247), and two sidecars can then lead for the \
                 delay of one watch event; upgrade to 3.5.28, 3.6.9 or later"
            ),
            Advice::Unknown => info!(endpoint = url, version, "etcd's version cannot be judged"),
        }
    }

    fn identity_taken(&mut self, lease: Option<LeaseId>, now: Instant) {
        if self.is_time_for(Standing::IdentityTaken, now) {
            error!(
                identity = %self.identity,
                lease = lease.map(|lease| format!("{:x}", lease.0)),
                "another live candidate has this identity; this sidecar stays out of the election and keeps trying: \
                 give each its own --identity, or wait for the lease of the one before a restart to expire"
            );
        }
    }

    fn lock_without_lease(&mut self, holder: &Identity, now: Instant) {
        if self.is_time_for(Standing::LockWithoutLease, now) {
            error!(
                key = self.lock_key,
                value = printable(holder),
                "the lock key has no lease, so it never expires and nobody can lead; if nothing relies on it, clear \
                 it: etcdctl del {}",
                shell_word(&self.lock_key)
            );
        }
    }

    fn no_space(&mut self, endpoint: EndpointId, now: Instant) {
        if self.is_time_for(Standing::NoSpace(endpoint), now) {
            error!(
                endpoint = self.url(endpoint),
                "etcd is out of space: the leader stays, but nobody can claim; compact, defragment, then etcdctl alarm \
                 disarm"
            );
        }
    }

    fn endpoint_refused(&mut self, endpoint: EndpointId, pinned: ClusterId, found: ClusterId, now: Instant) {
        if self.is_time_for(Standing::EndpointRefused(endpoint), now) {
            error!(
                endpoint = self.url(endpoint),
                pinned = hex(pinned),
                found = hex(found),
                "this endpoint answers for another cluster and is not asked until it answers for ours; correct \
                 --etcd-endpoints"
            );
        }
    }

    fn several_clusters(&mut self, endpoint: EndpointId, pinned: ClusterId, found: ClusterId, now: Instant) {
        if self.is_time_for(Standing::SeveralClusters(endpoint), now) {
            error!(
                endpoint = self.url(endpoint),
                others = hex(pinned),
                found = hex(found),
                "--etcd-endpoints names more than one cluster; this sidecar does not lead until it is corrected"
            );
        }
    }

    /// Whether a standing fault is to be said now: first, and then once in a while.
    fn is_time_for(&mut self, fault: Standing, now: Instant) -> bool {
        let due = self.said.get(&fault).is_none_or(|last| now.since(*last) >= SAY_AGAIN);
        if due {
            self.said.insert(fault, now);
        }
        due
    }

    fn url(&self, endpoint: EndpointId) -> &str {
        self.endpoints.get(endpoint.0).map_or("?", String::as_str)
    }
}

/// In milliseconds to the microsecond, as a number, so that logs can be sorted by it.
fn millis(took: Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}

/// Whether no waiting will mend it.
const fn needs_a_person(kind: CallErrorKind) -> bool {
    match kind {
        CallErrorKind::Unauthenticated | CallErrorKind::PermissionDenied | CallErrorKind::Tls => true,
        // It needs one, and has a notice of its own that says so.
        CallErrorKind::NoSpace => false,
        CallErrorKind::Unavailable
        | CallErrorKind::Timeout
        | CallErrorKind::LeaseNotFound
        | CallErrorKind::Compacted
        | CallErrorKind::Other => false,
    }
}

fn renewal_failed(failure: RenewalFailure) {
    // One that fails is retried well before `until`; what it leads to has lines of its own.
    debug!(result = failure.as_str(), "a renewal failed");
}

fn claim_answered(result: ClaimResult) {
    debug!(result = result.as_str(), "a claim was answered");
}

/// What a server's version asks of its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advice {
    Fine,
    EndOfLife,
    RevokesLiveLeases,
    Unknown,
}

impl Advice {
    fn on(version: &str) -> Self {
        let Some(version) = numbers(version) else { return Self::Unknown };
        match version {
            (3, 5, patch) if patch < 13 => Self::RevokesLiveLeases,
            (3, 4, patch) if patch >= 31 => Self::EndOfLife,
            (3, minor, _) if minor <= 4 => Self::RevokesLiveLeases,
            (major, ..) if major < 3 => Self::RevokesLiveLeases,
            _ => Self::Fine,
        }
    }
}

/// `3.5.28`, also with what pre-releases and builds append.
fn numbers(version: &str) -> Option<(u64, u64, u64)> {
    let core = version.trim_start_matches('v').split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    let numbers = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(numbers)
}

fn hex(cluster: ClusterId) -> String {
    format!("{:x}", cluster.0)
}

/// A name as one line: the lock key can hold anything, and must not forge lines or move a cursor.
fn printable(name: &Identity) -> String {
    let mut line = String::with_capacity(name.as_str().len());
    for c in name.as_str().chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The text as one word of a shell.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '.' | ':' | ',' | '@' | '%' | '+');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests;
