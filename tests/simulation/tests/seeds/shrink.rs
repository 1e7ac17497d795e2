//! Leaving faults out of runs that break on purpose.

use std::sync::atomic::AtomicBool;

use simulation::runner::{Failure, Shrunk, play_guarded, shrink};
use simulation::{Control, Outcome, Scenario, Tally, Weather};

use crate::batch::violation;

const PLANNED: usize = 40;

/// A run that broke.
pub fn broken(invariant: &'static str, faults_planned: usize) -> Outcome {
    let tally = Tally { faults_planned, ..Tally::default() };
    Outcome { verdict: Err(violation(invariant)), story: vec!["it broke".into()], tally }
}

fn shrunk(run: impl Fn(&Scenario, Option<Control>) -> Outcome + Sync, left_out: Vec<usize>) -> Shrunk {
    let scenario = Scenario { left_out, ..Scenario::of_seed(1, Weather::Storm) };
    let outcome = play_guarded(&run, &scenario, None);
    let violation = outcome.verdict.expect_err("it breaks at first");
    let failure = Failure { place: 0, scenario, violation, story: outcome.story, faults_planned: PLANNED };
    shrink(&run, &failure, None, &AtomicBool::new(false))
}

fn fine() -> Outcome {
    Outcome { verdict: Ok(()), ..broken("nothing", PLANNED) }
}

/// Breaks while these faults are there.
fn needs(faults: &'static [usize]) -> impl Fn(&Scenario, Option<Control>) -> Outcome + Sync {
    move |scenario, _| {
        let all_there = faults.iter().all(|fault| !scenario.left_out.contains(fault));
        if all_there { broken("this_one", PLANNED) } else { fine() }
    }
}

#[test]
fn the_faults_that_matter_are_left() {
    let shrunk = shrunk(needs(&[0, 17, 31]), vec![]);
    assert_eq!(shrunk.faults_left, [0, 17, 31]);
    assert!(shrunk.is_minimal);
    assert!(shrunk.runs < 60, "{} runs", shrunk.runs);
    let left_out = &shrunk.failure.scenario.left_out;
    assert_eq!(left_out.len(), PLANNED - 3);
    assert!(left_out.is_sorted());
}

#[test]
fn what_was_left_out_already_stays_out() {
    let shrunk = shrunk(needs(&[0, 17]), vec![1, 2, 39]);
    assert_eq!(shrunk.faults_left, [0, 17]);
    assert_eq!(shrunk.failure.scenario.left_out.len(), PLANNED - 2);
}

#[test]
fn a_run_that_needs_no_fault_shrinks_to_none() {
    let shrunk = shrunk(|_, _| broken("this_one", PLANNED), vec![]);
    assert!(shrunk.faults_left.is_empty() && shrunk.is_minimal);
    assert_eq!(shrunk.runs, 1);
}

#[test]
fn a_run_that_breaks_something_else_is_not_the_same() {
    // Without fault 0 another invariant breaks: it has to stay.
    let run = |scenario: &Scenario, control: Option<Control>| {
        if scenario.left_out.contains(&0) { broken("another", PLANNED) } else { needs(&[17])(scenario, control) }
    };
    assert_eq!(shrunk(run, vec![]).faults_left, [0, 17]);
}

#[test]
fn a_fault_that_becomes_superfluous_is_tried_again() {
    // 5 may go only once 9 has gone.
    let run = |scenario: &Scenario, _: Option<Control>| {
        let gone = |fault: usize| scenario.left_out.contains(&fault);
        let breaks = !gone(30) && (!gone(5) || gone(9));
        if breaks { broken("this_one", PLANNED) } else { fine() }
    };
    let shrunk = shrunk(run, vec![]);
    assert_eq!(shrunk.faults_left, [30]);
    assert!(shrunk.is_minimal);
}

#[test]
fn shrinking_ends_when_it_has_had_its_runs_or_is_told_to() {
    let breaks_whole = |scenario: &Scenario, _: Option<Control>| {
        if scenario.left_out.is_empty() { broken("this_one", 1000) } else { fine() }
    };
    let scenario = Scenario::of_seed(1, Weather::Storm);
    let violation = violation("this_one");
    let failure = Failure { place: 0, scenario, violation, story: Vec::new(), faults_planned: 1000 };
    let told = shrink(&breaks_whole, &failure, None, &AtomicBool::new(true));
    assert_eq!((told.runs, told.is_minimal), (0, false));
    let bounded = shrink(&breaks_whole, &failure, None, &AtomicBool::new(false));
    assert_eq!((bounded.runs, bounded.is_minimal), (400, false));
    assert_eq!(bounded.faults_left.len(), 1000);
}
