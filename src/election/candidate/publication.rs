//! What the cluster is shown of this candidate: its role, for those who route by it.

use std::time::Duration;

use super::Candidate;
use crate::election::effect::{Effect, Publication, Role};
use crate::election::ids::{Identity, OpId};
use crate::election::instant::{Instant, Reading};
use crate::election::settings::Part;
use crate::election::state::{StandingDown, State, Step};
use crate::protections::Protections;

/// How long a release waits until the leader's role is seen to be taken back. The place where it is shown may
/// be away, and the next leader takes it back as well.
const TAKING_BACK_MOST: Duration = Duration::from_millis(500);

/// The role that was published last.
#[derive(Debug, Default)]
pub(super) struct Published {
    role: Option<Role>,
    /// A leader's role being taken back, until when that may hold a release up.
    taking_back: Option<(OpId, Instant)>,
}

impl Candidate {
    /// Publishes the role if it is another than before. The view of this turn is published first, and what lets
    /// go of the lock is asked for in a later turn: 503 first, label next, lock last.
    pub(super) fn publish(&mut self, now: Reading) {
        let role = self.role();
        if !self.settings.publishes || self.published.role.as_ref().is_some_and(|shown| shown.looks_like(&role)) {
            return;
        }
        let led = matches!(self.published.role, Some(Role::Leader { .. }));
        let id = self.fresh_op();
        self.published.taking_back = match role {
            Role::Leader { .. } => None,
            Role::Unknown | Role::Follower if led => Some((id, now.boot.after(TAKING_BACK_MOST))),
            // Taken back by this one too, when the one before was not yet seen.
            Role::Unknown | Role::Follower => self.published.taking_back.map(|(_, deadline)| (id, deadline)),
        };
        self.published.role = Some(role.clone());
        self.effects.push_back(Effect::Publish(Publication { id, role }));
    }

    fn role(&self) -> Role {
        match self.state {
            State::Leading { term } => Role::Leader { term, predecessor: self.predecessor() },
            State::Standby => match self.settings.part {
                Part::Candidate => Role::Follower,
                Part::Observer => Role::Unknown,
            },
            State::Starting | State::Jeopardy { .. } | State::StandingDown(_) | State::Stopped => Role::Unknown,
        }
    }

    /// Who was seen to lead last. The view still shows the turn before.
    fn predecessor(&self) -> Option<Identity> {
        let last = &self.view.recent_terms.first()?.leader.identity;
        (*last != self.settings.identity).then(|| last.clone())
    }

    /// Until when a release may wait for the leader's role to be taken back; `None` when that is done.
    pub(super) fn taking_back_until(&self) -> Option<Instant> {
        let deadline = self.published.taking_back.map(|(_, deadline)| deadline);
        deadline.filter(|_| !Protections::NO_LABEL_WAIT.taken_away())
    }

    pub(super) fn on_published(&mut self, now: Reading, seen: OpId) {
        if self.published.taking_back.is_none_or(|(id, _)| id != seen) {
            return;
        }
        self.published.taking_back = None;
        if let State::StandingDown(StandingDown { step: Step::Unpublishing { .. }, .. }) = self.state {
            self.release(now);
        }
    }
}
