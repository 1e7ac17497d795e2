//! Whether this candidate may lead at all: what it is there for, and the application's health.

use std::time::Duration;

use super::Candidate;
use super::inheritance::Inherited;
use crate::election::effect::Operation;
use crate::election::event::AppHealth;
use crate::election::instant::Reading;
use crate::election::notice::Reason;
use crate::election::settings::{Application, Part};
use crate::election::state::State;

/// What is known of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum App {
    /// Nobody looks.
    NotChecked,
    /// Nothing has been heard of it.
    Starting,
    Healthy,
    Unhealthy,
}

impl App {
    pub(super) const fn of(application: Application) -> Self {
        match application {
            Application::NotChecked => Self::NotChecked,
            Application::Checked => Self::Starting,
        }
    }
}

impl Candidate {
    pub(super) fn on_app_health(&mut self, health: AppHealth) {
        self.app = match health {
            AppHealth::Healthy => App::Healthy,
            AppHealth::Unhealthy => App::Unhealthy,
        };
    }

    /// Takes the candidacy from who may not lead. The health gates it from now on, so there is no cool-down.
    pub(super) fn advance_gate(&mut self, now: Reading) {
        if self.app == App::Unhealthy {
            self.on_resign(now, Duration::ZERO, Reason::AppUnhealthy);
        }
        if matches!(self.state, State::Starting | State::Standby) && !self.may_lead() {
            self.gated_at = Some(now.boot);
            self.asks.give_up(Operation::Claim);
            self.leave_place();
        }
    }

    /// Whether there is any point in this candidate's being in line. Who goes on with an earlier process's term does
    /// so while the application, which never knew, has not been asked yet.
    pub(super) const fn may_lead(&self) -> bool {
        let in_health = match self.app {
            App::NotChecked | App::Healthy => true,
            App::Starting => matches!(self.inherited, Inherited::Resuming(_)),
            App::Unhealthy => false,
        };
        let plays = match self.settings.part {
            Part::Candidate => true,
            Part::Observer => false,
        };
        in_health && plays
    }
}
