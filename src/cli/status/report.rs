//! What is told of an election, whoever told it: as JSON for programs and as a table for people.

use std::fmt::Write;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::cli::output::printable;
use crate::config::Span;
use crate::election::WallTime;

/// The part of a sidecar that was started with `--never-lead`. It has states, but they say nothing of it.
const OBSERVER: &str = "observer";

/// An election at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// `<namespace>/<election>`
    pub election: String,
    /// Who leads; `None` when nobody does, or when it is not known.
    pub leader: Option<Leader>,
    /// Since when that is so, RFC 3339, as far as whoever told it knows.
    pub since: Option<String>,
    /// Who told it.
    pub told_by: ToldBy,
    /// What a person should know besides, one sentence each.
    pub notes: Vec<String>,
    /// In the order in which they would claim the lock.
    pub candidates: Vec<Candidate>,
    /// How many there are in all: `candidates` lists the oldest.
    pub candidates_total: u64,
}

/// The leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leader {
    /// Its identity.
    pub identity: String,
    /// Its epoch, where it is known.
    pub epoch: Option<u64>,
    /// Its term: the lock key's `create_revision`.
    pub term: i64,
    /// How long the lock would stay without another renewal, in seconds, where it is known.
    pub lease_remaining_s: Option<u64>,
}

/// Where a report comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ToldBy {
    /// A running sidecar.
    Sidecar {
        /// Where it answers.
        address: String,
        /// Who it is.
        identity: String,
        /// `candidate` or `observer`, where it is known.
        part: Option<String>,
        /// Its state.
        state: String,
        /// Whether etcd answers it.
        etcd: String,
        /// Why it does not lead; `None` while it does.
        not_leading: Option<String>,
    },
    /// etcd itself.
    Etcd {
        /// The lock key.
        lock_key: String,
        /// The store's revision.
        revision: i64,
    },
}

/// A candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its identity.
    pub identity: String,
    /// Its place.
    pub role: Role,
    /// When it registered, RFC 3339, where it is known.
    pub registered_at: Option<String>,
}

/// What a candidate is to the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Holds it.
    Leader,
    /// Claims it first when it is free.
    Heir,
    /// Waits behind the heir.
    Standby,
    /// It was registered when etcd was last heard of.
    Unknown,
    /// It was registered when the sidecar that tells it last looked, and has left: that very sidecar, which does not
    /// want to lead.
    Left,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Heir => "heir",
            Self::Standby => "standby",
            Self::Unknown => "unknown",
            Self::Left => "left",
        }
    }
}

/// Whether the order of candidates is that of etcd now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// It is, as far as is known.
    Current,
    /// It is, apart from this candidate, which is not in line any more.
    Without(&'a str),
    /// It was, when etcd was last heard of.
    Past,
}

/// Gives each candidate of the queue, oldest first, its role: identity and time of registration are given.
pub fn with_roles(
    queue: impl IntoIterator<Item = (String, Option<String>)>,
    leader: Option<&str>,
    line: Line<'_>,
) -> Vec<Candidate> {
    let mut heir_found = false;
    let role = |identity: &str, heir_found: &mut bool| {
        if leader == Some(identity) {
            Role::Leader
        } else if line == Line::Past {
            Role::Unknown
        } else if line == Line::Without(identity) {
            Role::Left
        } else if std::mem::replace(heir_found, true) {
            Role::Standby
        } else {
            Role::Heir
        }
    };
    queue
        .into_iter()
        .map(|(identity, registered_at)| Candidate { role: role(&identity, &mut heir_found), identity, registered_at })
        .collect()
}

/// RFC 3339 in UTC, to the second, as the local API writes it.
pub fn rfc3339(at: WallTime) -> Option<String> {
    Timestamp::from_second(at.unix_nanos().div_euclid(1_000_000_000)).ok().map(|at| at.to_string())
}

impl Report {
    /// One object over several lines.
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a report has string keys only");
        text.push('\n');
        text
    }

    /// For people; `now` is what ages are counted to.
    pub fn table(&self, now: WallTime) -> String {
        let mut lines = vec![("Election", printable(&self.election)), ("Leader", self.leader_line())];
        lines.extend(self.since.as_deref().map(|since| ("Since", with_age(since, now))));
        let lease = self.leader.as_ref().and_then(|leader| leader.lease_remaining_s);
        lines.extend(lease.map(|left| {
            let left = Span(Duration::from_secs(left));
            ("Lease", format!("ends in {left} unless renewed"))
        }));
        lines.push(("Told by", self.told_by_line()));
        lines.extend(self.not_leading_line().map(|line| ("", line)));
        lines.extend(self.notes.iter().map(|note| ("Note", printable(note))));
        let mut text = String::new();
        for (label, value) in lines {
            let _infallible = writeln!(text, "{label:<8}  {value}");
        }
        text.push_str(&self.candidates_table(now));
        text
    }

    fn leader_line(&self) -> String {
        let Some(leader) = &self.leader else {
            return "none".into();
        };
        let epoch = leader.epoch.map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
        format!("{}, term {}{epoch}", printable(&leader.identity), leader.term)
    }

    fn told_by_line(&self) -> String {
        match &self.told_by {
            ToldBy::Sidecar { address, identity, part: Some(part), etcd, .. } if part == OBSERVER => {
                format!("observer {} at {address} (etcd {})", printable(identity), printable(etcd))
            }
            ToldBy::Sidecar { address, identity, state, etcd, .. } => {
                let [identity, state, etcd] = [identity, state, etcd].map(|text| printable(text));
                format!("sidecar {identity} at {address} ({}, etcd {etcd})", state.replace('_', " "))
            }
            ToldBy::Etcd { lock_key, revision } => {
                format!("etcd, key {} at revision {revision}", printable(lock_key))
            }
        }
    }

    fn not_leading_line(&self) -> Option<String> {
        match &self.told_by {
            ToldBy::Sidecar { identity, not_leading, .. } => {
                not_leading.as_ref().map(|why| format!("{} does not lead: {}", printable(identity), printable(why)))
            }
            ToldBy::Etcd { .. } => None,
        }
    }

    fn candidates_table(&self, now: WallTime) -> String {
        if self.candidates.is_empty() {
            // Who leads is watched; the line is read now and then, once in a lease's life at least.
            let when = if self.leader.is_some() { "were registered when it last looked" } else { "are registered" };
            return format!("\nNo candidates {when}.\n");
        }
        let mut rows = vec![["CANDIDATE".to_owned(), "ROLE".to_owned(), "REGISTERED".to_owned()]];
        rows.extend(self.candidates.iter().map(|candidate| {
            let registered = candidate.registered_at.as_deref().map_or_else(|| "-".into(), |at| with_age(at, now));
            [printable(&candidate.identity), candidate.role.as_str().to_owned(), registered]
        }));
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        let mut text = "\n".to_owned();
        for [identity, role, registered] in &rows {
            let _infallible = writeln!(text, "{identity:<first$}  {role:<second$}  {registered}");
        }
        let listed = u64::try_from(self.candidates.len()).unwrap_or(u64::MAX);
        if self.candidates_total > listed {
            let _infallible = writeln!(text, "and {} more", self.candidates_total - listed);
        }
        text
    }
}

/// `2026-11-22T07:00:00Z (3m12s ago)`. What cannot be read as a time is shown as it is.
fn with_age(at: &str, now: WallTime) -> String {
    let shown = printable(at);
    let Ok(since) = at.parse::<Timestamp>() else {
        return shown;
    };
    let seconds = now.unix_nanos().div_euclid(1_000_000_000).saturating_sub(since.as_second());
    match u64::try_from(seconds) {
        Ok(seconds) => format!("{shown} ({} ago)", Span(Duration::from_secs(seconds))),
        // Its clock is ahead of this one.
        Err(_) => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let queue = ["web-0", "web-1", "web-22"].map(|name| (name.into(), Some("2026-11-22T07:00:00Z".into())));
        Report {
            election: "default/web".into(),
            leader: Some(Leader {
                identity: "web-0".into(),
                epoch: Some(0),
                term: 48_213,
                lease_remaining_s: Some(12),
            }),
            since: Some("2026-11-22T07:00:05Z".into()),
            told_by: ToldBy::Sidecar {
                address: "http://127.0.0.1:4040".into(),
                identity: "web-1".into(),
                part: Some("candidate".into()),
                state: "standby".into(),
                etcd: "connected".into(),
                not_leading: Some("web-0 holds the lock".into()),
            },
            notes: Vec::new(),
            candidates: with_roles(queue, Some("web-0"), Line::Current),
            candidates_total: 3,
        }
    }

    /// 2026-11-22T07:01:05Z
    const NOW: WallTime = WallTime::from_unix_nanos(1_795_330_865_999_000_000);

    #[test]
    fn a_table_is_aligned_and_tells_ages() {
        assert_eq!(
            report().table(NOW),
            "Election  default/web\n\
             Leader    web-0, term 48213, epoch 0\n\
             Since     2026-11-22T07:00:05Z (1m ago)\n\
             Lease     ends in 12s unless renewed\n\
             Told by   sidecar web-1 at http://127.0.0.1:4040 (standby, etcd connected)\n          \
                       web-1 does not lead: web-0 holds the lock\n\
             \n\
             CANDIDATE  ROLE     REGISTERED\n\
             web-0      leader   2026-11-22T07:00:00Z (1m5s ago)\n\
             web-1      heir     2026-11-22T07:00:00Z (1m5s ago)\n\
             web-22     standby  2026-11-22T07:00:00Z (1m5s ago)\n"
        );
    }

    #[test]
    fn without_a_leader_the_first_in_line_is_the_heir() {
        assert_eq!(roles(None, Line::Current), [Role::Heir, Role::Standby]);
        let nobody = Report { leader: None, since: None, candidates: Vec::new(), ..report() };
        let table = nobody.table(NOW);
        assert!(table.contains("Leader    none\n") && table.ends_with("\nNo candidates are registered.\n"), "{table}");
    }

    fn roles(leader: Option<&str>, line: Line<'_>) -> Vec<Role> {
        let queue = [("a".into(), None), ("b".into(), None)];
        with_roles(queue, leader, line).iter().map(|candidate| candidate.role).collect()
    }

    #[test]
    fn nobody_is_called_the_heir_of_a_line_that_may_have_changed() {
        assert_eq!(roles(None, Line::Past), [Role::Unknown, Role::Unknown]);
        assert_eq!(roles(Some("a"), Line::Past), [Role::Leader, Role::Unknown], "a leader knows itself");
    }

    #[test]
    fn who_has_left_the_line_is_not_the_heir() {
        assert_eq!(roles(None, Line::Without("a")), [Role::Left, Role::Heir]);
    }

    #[test]
    fn a_list_that_is_cut_says_so() {
        let cut = Report { candidates_total: 40, ..report() };
        assert!(cut.table(NOW).ends_with("and 37 more\n"));
    }

    #[test]
    fn an_observer_is_called_one() {
        let mut told = report();
        let ToldBy::Sidecar { part, .. } = &mut told.told_by else { unreachable!("it is told by a sidecar") };
        *part = Some("observer".into());
        let table = told.table(NOW);
        assert!(table.contains("Told by   observer web-1 at http://127.0.0.1:4040 (etcd connected)\n"), "{table}");
    }

    #[test]
    fn names_cannot_draw_on_the_terminal() {
        let mut hostile = report();
        hostile.candidates[2].identity = "\u{1b}[2Jweb".into();
        assert!(!hostile.table(NOW).contains('\u{1b}'));
        assert!(!hostile.json().contains('\u{1b}'));
    }

    #[test]
    fn a_time_ahead_of_this_clock_has_no_age() {
        assert_eq!(with_age("2030-01-01T00:00:00Z", NOW), "2030-01-01T00:00:00Z");
        assert_eq!(with_age("soon", NOW), "soon");
    }
}
