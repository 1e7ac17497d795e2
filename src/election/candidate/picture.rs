//! Drawing the view from the state.

use super::application::App;
use super::{Bar, Candidate, Settings};
use crate::election::endpoints::Endpoints;
use crate::election::ids::Term;
use crate::election::instant::Reading;
use crate::election::lease::Lease;
use crate::election::notice::Notice;
use crate::election::settings::Part;
use crate::election::sight::Registration;
use crate::election::state::State;
use crate::election::view::{EtcdContact, KnownLeader, Lead, NotLeading, PublicState, RECENT_TERMS, RecentTerm, View};

/// The view before anything is known.
pub(super) fn blank(settings: &Settings, endpoints: &Endpoints, now: Reading) -> View {
    View {
        version: 0,
        news: 0,
        state: PublicState::Starting,
        lead: None,
        leader: None,
        epoch: settings.epoch,
        since: now.wall,
        etcd: EtcdContact::Connecting,
        not_leading: Some(NotLeading::Starting),
        candidates: Vec::new(),
        candidates_total: 0,
        recent_terms: Vec::new(),
        endpoints: endpoints.views(),
        jeopardy_episodes: 0,
    }
}

impl Candidate {
    /// Draws the view anew and tells of a change of leader.
    pub(super) fn redraw(&mut self, now: Reading) {
        let leader = self.known_leader(now);
        let (mut since, mut recent_terms) = (self.view.since, self.view.recent_terms.clone());
        if leader != self.view.leader {
            since = now.wall;
            if let Some(leader) = &leader {
                remember(&mut recent_terms, leader, now);
            }
            let (identity, term) =
                leader.as_ref().map_or((None, None), |known| (Some(known.identity.clone()), Some(known.term)));
            self.tell(Notice::LeaderChanged { leader: identity, term });
        }
        let view = View {
            version: self.view.version,
            news: self.view.news,
            state: self.state.public(),
            lead: self.lead_right(),
            leader,
            epoch: self.settings.epoch,
            since,
            etcd: self.etcd_contact(),
            not_leading: self.not_leading(),
            candidates: self.candidates.clone(),
            candidates_total: self.candidates_total,
            recent_terms,
            endpoints: self.endpoints.views(),
            jeopardy_episodes: self.jeopardy_episodes,
        };
        if view != self.view {
            let news = view.news + u64::from(!view.tells_the_same(&self.view));
            self.view = View { version: view.version + 1, news, ..view };
        }
    }

    fn lead_right(&self) -> Option<Lead> {
        let State::Leading { term } = self.state else { return None };
        let until = self.held().and_then(Lease::right).expect("a leader has a confirmed renewal");
        Some(Lead { term, until })
    }

    /// The leader, as far as this candidate may name one. Never itself unless it leads: an application
    /// may compare the name with its own and act.
    fn known_leader(&self, now: Reading) -> Option<KnownLeader> {
        let me = &self.settings.identity;
        match self.state {
            State::Leading { term } => return Some(KnownLeader { identity: me.clone(), term }),
            State::Stopped => return None,
            State::Starting | State::Standby | State::Jeopardy { .. } | State::StandingDown(_) => {}
        }
        let heard_at = self.answered_at?;
        if self.unreachable && now.boot >= heard_at.after(self.lease_ttl()) {
            return None;
        }
        let lock = self.sight.lock().filter(|lock| lock.lease.is_some() && lock.holder != *me)?;
        let term = Term { epoch: self.settings.epoch, token: lock.create_revision };
        Some(KnownLeader { identity: lock.holder.clone(), term })
    }

    const fn etcd_contact(&self) -> EtcdContact {
        match (self.unreachable, self.answered_at) {
            (true, _) => EtcdContact::Unreachable,
            (false, None) => EtcdContact::Connecting,
            (false, Some(_)) => EtcdContact::Connected,
        }
    }

    fn not_leading(&self) -> Option<NotLeading> {
        match self.state {
            State::Leading { .. } => return None,
            State::Jeopardy { .. } => return Some(NotLeading::Jeopardy),
            State::StandingDown(_) | State::Stopped => return Some(NotLeading::StandingDown),
            State::Starting | State::Standby => {}
        }
        match self.bar {
            Some(Bar::StoreReset) => return Some(NotLeading::StoreReset),
            Some(Bar::SeveralClusters) => return Some(NotLeading::SeveralClusters),
            None => {}
        }
        Some(match (&self.registration, self.gated()) {
            (_, Some(gated)) => gated,
            (Registration::Taken { .. }, None) => NotLeading::IdentityTaken,
            (Registration::None | Registration::Registered { .. } | Registration::Leaving { .. }, None) => {
                self.not_leading_in_line()
            }
        })
    }

    /// Why this candidate would not lead whatever etcd says.
    fn gated(&self) -> Option<NotLeading> {
        match (self.settings.part, self.app) {
            (Part::Observer, _) => Some(NotLeading::NeverLeads),
            (Part::Candidate, App::Unhealthy) => Some(NotLeading::AppUnhealthy),
            (Part::Candidate, App::Starting) if !self.is_resuming() => Some(NotLeading::AppStarting),
            (Part::Candidate, App::NotChecked | App::Healthy | App::Starting) => None,
        }
    }

    fn not_leading_in_line(&self) -> NotLeading {
        if self.unreachable {
            return NotLeading::EtcdUnreachable;
        }
        if self.state == State::Starting {
            return NotLeading::Starting;
        }
        match self.sight.lock() {
            Some(lock) if lock.lease.is_none() => NotLeading::LockWithoutLease(lock.holder.clone()),
            Some(lock) if self.held().is_some_and(|lease| lock.lease == Some(lease.id)) => NotLeading::Unconfirmed,
            Some(lock) => NotLeading::LockHeld(lock.holder.clone()),
            None if self.work.is_there() => NotLeading::WorkStopping,
            None if self.stay_away_until.is_some() => NotLeading::CoolingDown,
            None => NotLeading::LockFree,
        }
    }
}

/// Puts a term in front of those seen before, unless it is the one already there.
fn remember(recent: &mut Vec<RecentTerm>, leader: &KnownLeader, now: Reading) {
    if recent.first().is_some_and(|last| last.leader == *leader) {
        return;
    }
    recent.insert(0, RecentTerm { leader: leader.clone(), seen_at: now.wall });
    recent.truncate(RECENT_TERMS);
}
