//! The applications beside the candidates: whether they are healthy, and that they end.

use std::time::Duration;

use bellwether::election::{AppHealth, Event};

use super::{Happening, World};

/// From the start of a process until the first check of its application says something.
const FIRST_CHECK_LEAST: Duration = Duration::from_millis(20);
const FIRST_CHECK_MOST: Duration = Duration::from_secs(1);
/// One application in so many does not end when it is told to.
const STAYS_ONE_IN: u64 = 4;

impl World {
    pub(super) fn begins_to_look_at_application(&mut self, node: usize) {
        if !self.nodes[node].company.is_checked {
            return;
        }
        let life = self.nodes[node].life;
        let soon = self.company_dice.nanos(FIRST_CHECK_LEAST, FIRST_CHECK_MOST);
        self.after(soon, Happening::AppChecked { node, life });
    }

    pub(super) fn application_is_checked(&mut self, node: usize, life: u64) {
        let it = &mut self.nodes[node];
        let Some(process) = it.process.as_mut().filter(|_| it.life == life) else { return };
        process.looks_at_app = true;
        self.tells_health(node);
    }

    /// Its application is not healthy, for one more reason, for so long. Whether anybody looks.
    pub(crate) fn application_falls_ill(&mut self, node: usize, lasts: u64) -> bool {
        if !self.nodes[node].company.is_checked {
            return false;
        }
        self.nodes[node].ills += 1;
        self.after(lasts, Happening::AppRecovers { node });
        self.tells_health(node);
        true
    }

    pub(super) fn application_recovers(&mut self, node: usize) {
        if !self.healed {
            self.nodes[node].ills = self.nodes[node].ills.saturating_sub(1);
            self.tells_health(node);
        }
    }

    pub(super) fn tells_health(&mut self, node: usize) {
        let it = &self.nodes[node];
        let health = if it.ills == 0 { AppHealth::Healthy } else { AppHealth::Unhealthy };
        if it.process.as_ref().is_some_and(|process| process.looks_at_app) {
            self.tells_soon(node, it.life, Event::AppHealth(health));
        }
    }

    /// The candidate is told to stop, and so is its application, which does, at some time or never.
    pub(crate) fn application_goes(&mut self, node: usize) {
        if !self.nodes[node].company.is_checked || self.company_dice.once_in(STAYS_ONE_IN) {
            return;
        }
        let life = self.nodes[node].life;
        let drain = self.setup.timings.drain_timeout().max(Duration::from_millis(100));
        let later = self.company_dice.nanos(Duration::from_millis(1), drain * 3 / 2);
        self.after(later, Happening::Tells { node, life, event: Event::AppGone });
    }

    /// From now on nobody falls ill or recovers. In one run of some, where everybody's application is looked at, all stay
    /// ill; else at least one who may lead is well.
    pub(super) fn applications_settle(&mut self) {
        let may_lead: Vec<usize> = (0..self.nodes.len()).filter(|node| !self.nodes[*node].company.observes).collect();
        let all_are_looked_at = may_lead.iter().all(|node| self.nodes[*node].company.is_checked);
        let nobody = all_are_looked_at && self.company_dice.once_in(4);
        let spared = may_lead[self.company_dice.below(may_lead.len())];
        for node in may_lead {
            let ill = nobody || (node != spared && self.company_dice.once_in(3));
            if self.nodes[node].company.is_checked {
                self.nodes[node].ills = u32::from(ill);
                self.tells_health(node);
            }
        }
        self.all_stay_ill = nobody;
    }
}
