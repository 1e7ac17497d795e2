//! What many runs come to.

use std::collections::BTreeMap;
use std::time::Duration;

use super::edges::Key;
use crate::{Outcome, Scenario, Tally, Violation, Weather};

/// A run that broke something.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The place of the run in its batch.
    pub place: u64,
    /// What to play to see it again.
    pub scenario: Scenario,
    /// What broke.
    pub violation: Violation,
    /// The run's story.
    pub story: Vec<String>,
    /// How many faults the plan has.
    pub faults_planned: usize,
}

/// The runs of one weather.
#[derive(Clone, Debug, Default)]
pub struct Runs {
    /// How many.
    pub number: u64,
    /// For each edge of the state machine, the first run in which it was gone: its place and its seed.
    pub first: BTreeMap<Key, (u64, u64)>,
    /// Their tallies, added up; of times without a leader and of overlaps the longest.
    pub tally: Tally,
}

/// What many runs come to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// By weather.
    pub weathers: BTreeMap<Weather, Runs>,
    /// Those that broke something, the one that was begun first in front.
    pub failures: Vec<Failure>,
    /// Those that did not end in a time in which every run does; they may yet.
    pub endless: Vec<Scenario>,
    /// How many runs were asked for.
    pub planned: u64,
    /// How long it took.
    pub took: Duration,
}

impl Summary {
    pub(super) fn take_in(&mut self, place: u64, scenario: Scenario, outcome: Outcome) {
        let runs = self.weathers.entry(scenario.weather).or_default();
        runs.number += 1;
        add(&mut runs.tally, &outcome.tally);
        for edge in outcome.tally.transitions.keys() {
            let first = runs.first.entry(*edge).or_insert((place, scenario.seed));
            *first = (*first).min((place, scenario.seed));
        }
        if let Err(violation) = outcome.verdict {
            let (story, faults_planned) = (outcome.story, outcome.tally.faults_planned);
            let before = self.failures.partition_point(|failure| failure.place < place);
            self.failures.insert(before, Failure { place, scenario, violation, story, faults_planned });
        }
    }

    /// How many runs there have been.
    pub fn runs(&self) -> u64 {
        self.weathers.values().map(|runs| runs.number).sum()
    }

    /// How many changes of state.
    pub fn transitions(&self) -> u64 {
        self.weathers.values().flat_map(|runs| runs.tally.transitions.values()).sum()
    }

    /// All weathers together.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.weathers.values().for_each(|runs| add(&mut total, &runs.tally));
        total
    }
}

fn add(sum: &mut Tally, one: &Tally) {
    sum.simulated += one.simulated;
    sum.turns += one.turns;
    sum.faults_planned += one.faults_planned;
    sum.terms += one.terms;
    for (kind, number) in &one.faults {
        *sum.faults.entry(kind).or_default() += number;
    }
    for (edge, number) in &one.transitions {
        *sum.transitions.entry(*edge).or_default() += number;
    }
    sum.leaderless_after_heal = sum.leaderless_after_heal.max(one.leaderless_after_heal);
    sum.overlap = sum.overlap.max(one.overlap);
}
