//! What a candidate has beside its election: work, a memory, an application that is looked at; or that it never leads.
//!
//! Drawn with dice of their own: without a company ([`Scenario::bare`]) a seed is what it would be if there were none.

use std::time::Duration;

use bellwether::election::{Application, Part, StopTime, TimingsRequest};

use crate::dice::Dice;
use crate::scenario::{Scenario, Weather};

/// One seed in so many has candidates with nothing beside their election.
const NOTHING_ONE_IN: u64 = 5;
/// The shortest time that work is given to end.
const STOP_TIME_LEAST: Duration = Duration::from_millis(100);

/// What one candidate has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that is there or not")]
pub(crate) struct Company {
    /// A command runs while it leads.
    pub(crate) works: bool,
    /// It keeps its term for its next process.
    pub(crate) remembers: bool,
    /// Its application's health is looked at.
    pub(crate) is_checked: bool,
    /// It only looks on.
    pub(crate) observes: bool,
}

impl Company {
    pub(crate) const fn application(self) -> Application {
        if self.is_checked { Application::Checked } else { Application::NotChecked }
    }

    pub(crate) const fn part(self) -> Part {
        if self.observes { Part::Observer } else { Part::Candidate }
    }

    /// For the story.
    pub(crate) fn describe(self) -> String {
        let Self { works, remembers, is_checked, observes } = self;
        let has = [(works, 'w'), (remembers, 'r'), (is_checked, 'a'), (observes, 'o')];
        let letters: String = has.into_iter().filter(|(has, _)| *has).map(|(_, letter)| letter).collect();
        if letters.is_empty() { "-".into() } else { letters }
    }
}

/// Of all candidates of a run.
#[derive(Clone, Debug)]
pub(crate) struct Companies {
    pub(crate) each: Vec<Company>,
    /// How long the work of those who have some may take to end.
    pub(crate) stop_time: StopTime,
}

/// What each candidate of a run has, and how long work may take to end, which `timings` must have room for.
pub(crate) fn companies(scenario: &Scenario, candidates: usize, timings: &TimingsRequest, room: Duration) -> Companies {
    let mut dice = Dice::of(scenario.seed, "company");
    let restarts = matches!(scenario.weather, Weather::Restarts | Weather::Copies);
    let nothing = dice.once_in(NOTHING_ONE_IN) && !restarts;
    if scenario.bare || nothing {
        return Companies { each: vec![Company::default(); candidates], stop_time: timings.stop_time };
    }
    // How many of four have it.
    let (works, checked) = ([0, 2, 4, 4][dice.below(4)], [0, 0, 2, 4][dice.below(4)]);
    let remembers = if restarts { 4 } else { [0, 2, 4][dice.below(3)] };
    let observer = (candidates > 3 && dice.once_in(3)).then_some(candidates - 1);
    let each = (0..candidates).map(|place| {
        let mut has = |of_four: usize| dice.below(4) < of_four;
        let (works, remembers, is_checked) = (has(works), has(remembers), has(checked));
        if observer == Some(place) {
            Company { observes: true, ..Company::default() }
        } else {
            Company { works, remembers, is_checked, observes: false }
        }
    });
    let each = each.collect();
    let given = dice.between(STOP_TIME_LEAST.min(room), room);
    let stop_time = if dice.once_in(3) { StopTime::Default } else { StopTime::Given(given) };
    Companies { each, stop_time }
}
