//! What `/`, `/leader` and `/status` say: one look at the view and the clock, then words.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::shared::About;
use super::version::{Boot, Version};
use crate::config::Compat;
use crate::election::{
    CandidateView, EndpointHealth, EndpointView, Instant, KnownLeader, NotLeading, Part, PublicState, Reading,
    RecentTerm, Term, Timings, View, WallTime,
};

/// What can be said at one moment. Everything an answer says of leading comes from here, so that status line,
/// headers and body cannot disagree.
#[derive(Debug)]
pub(super) struct Moment<'a> {
    view: &'a View,
    about: &'a About,
    now: Reading,
    version: Version,
    /// How long the answer holds; present only while this candidate leads.
    leading: Option<Leading>,
    /// The known leader. Never this candidate unless it leads right now.
    leader: Option<&'a KnownLeader>,
}

/// What an answer that says "I lead" commits to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leading {
    /// How long the answer may be relied on.
    pub(super) valid_for: Duration,
    /// When that ends.
    pub(super) promised: Instant,
    /// The term it speaks of: once this candidate does not lead it any more, the answer must not even leave.
    pub(super) term: Term,
}

impl<'a> Moment<'a> {
    pub(super) fn new(view: &'a View, about: &'a About, boot: Boot, now: Reading) -> Self {
        let leading = view.lead.filter(|_| view.leads(now)).map(|lead| {
            let valid_for = view.valid_for(now, about.timings.answer_validity());
            Leading { valid_for, promised: now.boot.after(valid_for), term: lead.term }
        });
        // The name is compared with one's own by users of `/`: it must not say what the status would deny.
        let names_itself = |leader: &&KnownLeader| leader.identity == about.identity;
        let leader = view.leader.as_ref().filter(|leader| leading.is_some() || !names_itself(leader));
        let version = Version::of(boot, view, now);
        Self { view, about, now, version, leading, leader }
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn leading(&self) -> Option<Leading> {
        self.leading
    }

    pub(super) fn wall(&self) -> WallTime {
        self.now.wall
    }

    pub(super) fn leader(&self) -> Option<&'a KnownLeader> {
        self.leader
    }

    /// Whether the answer names this candidate as the leader.
    fn names_itself(&self) -> bool {
        self.leader.is_some_and(|leader| leader.identity == self.about.identity)
    }

    /// What `/` commits to: who reads its own name there acts on it.
    pub(super) fn leading_by_name(&self) -> Option<Leading> {
        self.leading.filter(|_| self.names_itself())
    }

    /// Why this candidate does not lead, when it does not.
    pub(super) fn not_leading(&self) -> Option<&'a NotLeading> {
        if self.leading.is_some() {
            None
        } else if self.has_expired() {
            Some(&NotLeading::Jeopardy)
        } else {
            self.view.not_leading.as_ref()
        }
    }

    /// Whether the view still says that this candidate leads, and the clock says that it does not.
    fn has_expired(&self) -> bool {
        self.view.lead.is_some() && self.leading.is_none()
    }

    fn state(&self) -> PublicState {
        if self.has_expired() { PublicState::Jeopardy } else { self.view.state }
    }

    fn since(&self) -> WallTime {
        match self.view.lead {
            // There is no leader since `until` passed, which the candidate has not said yet.
            Some(lead) if self.leading.is_none() => ago(self.now, self.now.boot.since(lead.until.boot())),
            Some(_) | None => self.view.since,
        }
    }
}

fn ago(now: Reading, by: Duration) -> WallTime {
    let by = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
    WallTime::from_unix_nanos(now.wall.unix_nanos().saturating_sub(by))
}

/// The body of `/`.
#[derive(Debug, Serialize)]
pub(super) struct NameBody<'a> {
    name: &'a str,
    /// Only in the place of nais' elector.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update: Option<String>,
}

impl<'a> NameBody<'a> {
    pub(super) fn of(moment: &Moment<'a>) -> Self {
        let last_update = (moment.about.compat == Some(Compat::Nais)).then(|| seconds(moment.since()));
        Self { name: moment.leader().map_or("", |leader| leader.identity.as_str()), last_update }
    }
}

/// The body of `/leader`.
#[derive(Debug, Serialize)]
pub(super) struct LeaderBody<'a> {
    name: &'a str,
    identity: &'a str,
    election: &'a str,
    leading: bool,
    state: &'static str,
    epoch: u64,
    term: i64,
    valid_for_ms: u64,
    since: String,
    etcd: &'static str,
    version: String,
}

impl<'a> LeaderBody<'a> {
    /// `to_me` says whether the asker means this sidecar; to anybody else it does not lead.
    pub(super) fn of(moment: &Moment<'a>, to_me: bool) -> Self {
        let leading = moment.leading().filter(|_| to_me);
        let leader = moment.leader();
        Self {
            name: leader.map_or("", |leader| leader.identity.as_str()),
            identity: moment.about.identity.as_str(),
            election: &moment.about.election,
            leading: leading.is_some(),
            state: moment.state().as_str(),
            epoch: moment.view.epoch.0,
            term: leader.map_or(0, |leader| leader.term.token.0),
            valid_for_ms: millis(leading.map_or(Duration::ZERO, |leading| leading.valid_for)),
            since: seconds(moment.since()),
            etcd: moment.view.etcd.as_str(),
            version: moment.version.to_string(),
        }
    }

    /// The same as news: nobody knows when it will be read, so it holds for no time at all.
    pub(super) fn into_news(self) -> Self {
        Self { valid_for_ms: 0, ..self }
    }
}

/// The body of `/status`.
#[derive(Debug, Serialize)]
pub(super) struct StatusBody<'a> {
    #[serde(flatten)]
    leader: LeaderBody<'a>,
    part: &'static str,
    not_leading: Option<String>,
    not_leading_reason: Option<&'static str>,
    candidates: Vec<CandidateBody<'a>>,
    candidates_total: u64,
    recent_terms: Vec<TermBody<'a>>,
    jeopardy_episodes: u64,
    timings: TimingsBody,
    endpoints: Vec<EndpointBody<'a>>,
}

impl<'a> StatusBody<'a> {
    pub(super) fn of(moment: &Moment<'a>) -> Self {
        let Moment { view, about, .. } = moment;
        Self {
            leader: LeaderBody::of(moment, true),
            part: match about.part {
                Part::Candidate => "candidate",
                Part::Observer => "observer",
            },
            not_leading: moment.not_leading().map(NotLeading::sentence),
            not_leading_reason: moment.not_leading().map(NotLeading::as_str),
            candidates: view.candidates.iter().map(CandidateBody::of).collect(),
            candidates_total: view.candidates_total,
            recent_terms: view.recent_terms.iter().map(TermBody::of).collect(),
            jeopardy_episodes: view.jeopardy_episodes,
            timings: TimingsBody::of(&about.timings),
            endpoints: about
                .endpoints
                .iter()
                .enumerate()
                .map(|(place, url)| EndpointBody::of(url, view.endpoints.get(place)))
                .collect(),
        }
    }
}

/// A candidate that is registered. What it registered is unknown when another version wrote it.
#[derive(Debug, Serialize)]
struct CandidateBody<'a> {
    identity: &'a str,
    epoch: Option<u64>,
    registered_at: Option<String>,
    leading_since: Option<String>,
}

impl<'a> CandidateBody<'a> {
    fn of(candidate: &'a CandidateView) -> Self {
        let record = candidate.record.as_ref();
        Self {
            identity: candidate.identity.as_str(),
            epoch: record.map(|record| record.epoch.0),
            registered_at: record.map(|record| seconds(record.registered_at)),
            leading_since: record.and_then(|record| record.leading_since).map(seconds),
        }
    }
}

/// A term this sidecar saw.
#[derive(Debug, Serialize)]
struct TermBody<'a> {
    name: &'a str,
    epoch: u64,
    term: i64,
    seen_at: String,
}

impl<'a> TermBody<'a> {
    fn of(recent: &'a RecentTerm) -> Self {
        Self {
            name: recent.leader.identity.as_str(),
            epoch: recent.leader.term.epoch.0,
            term: recent.leader.term.token.0,
            seen_at: seconds(recent.seen_at),
        }
    }
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "every name in the JSON carries its unit")]
struct TimingsBody {
    lease_ttl_ms: u64,
    keepalive_interval_ms: u64,
    attempt_timeout_ms: u64,
    safety_margin_ms: u64,
    reconnect_window_ms: u64,
    answer_validity_ms: u64,
    drain_timeout_ms: u64,
}

impl TimingsBody {
    fn of(timings: &Timings) -> Self {
        Self {
            lease_ttl_ms: millis(timings.lease_ttl()),
            keepalive_interval_ms: millis(timings.keepalive_interval()),
            attempt_timeout_ms: millis(timings.attempt_timeout()),
            safety_margin_ms: millis(timings.safety_margin()),
            reconnect_window_ms: millis(timings.reconnect_window()),
            answer_validity_ms: millis(timings.answer_validity()),
            drain_timeout_ms: millis(timings.drain_timeout()),
        }
    }
}

/// An etcd endpoint, with what it last failed at.
#[derive(Debug, Serialize)]
struct EndpointBody<'a> {
    url: &'a str,
    health: &'static str,
    failed_operation: Option<&'static str>,
    failure: Option<&'static str>,
    version: Option<&'a str>,
}

impl<'a> EndpointBody<'a> {
    fn of(url: &'a str, endpoint: Option<&'a EndpointView>) -> Self {
        let (health, failed_operation, failure) = match endpoint.map_or(&EndpointHealth::Unknown, |it| &it.health) {
            EndpointHealth::Unknown => ("unknown", None, None),
            EndpointHealth::Answering => ("answering", None, None),
            EndpointHealth::Failing { operation, kind } => ("failing", Some(operation.as_str()), Some(kind.as_str())),
            EndpointHealth::Refused => ("refused", None, None),
        };
        let version = endpoint.and_then(|endpoint| endpoint.version.as_deref());
        Self { url, health, failed_operation, failure, version }
    }
}

/// Whole milliseconds, never more than there are.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// RFC 3339 in UTC, to the second.
fn seconds(at: WallTime) -> String {
    let whole = at.unix_nanos().div_euclid(1_000_000_000);
    // An i64 of nanoseconds reaches from 1677 to 2262, well inside what a timestamp can hold.
    Timestamp::from_second(whole).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
