//! Many runs, with runs that break on purpose.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bellwether::election::{PublicState, Reason};
use simulation::runner::{Batch, Coverage, EDGES, Summary, WEATHERS, play_guarded};
use simulation::{Control, Outcome, Scenario, Tally, Violation, Weather};

use crate::shrink::broken;

fn held(_: &Scenario, _: Option<Control>) -> Outcome {
    Outcome { verdict: Ok(()), story: vec!["nothing happened".into()], tally: Tally { turns: 3, ..Tally::default() } }
}

fn breaks_at_17(scenario: &Scenario, control: Option<Control>) -> Outcome {
    if scenario.seed >= 17 { broken("somebody_breaks", 0) } else { held(scenario, control) }
}

fn play(batch: &Batch, run: &(dyn Fn(&Scenario, Option<Control>) -> Outcome + Sync)) -> Summary {
    batch.play(run, &AtomicBool::new(false), &mut |_| {})
}

#[test]
fn every_seed_is_played_once_in_every_weather() {
    let seeds = AtomicU64::new(0);
    let run = |scenario: &Scenario, control: Option<Control>| {
        seeds.fetch_add(scenario.seed, Ordering::Relaxed);
        held(scenario, control)
    };
    let batch = Batch { weathers: WEATHERS.to_vec(), ..Batch::of(Weather::Storm, 100..200) };
    let summary = play(&batch, &run);
    assert_eq!((summary.runs(), summary.planned), (700, 700));
    assert_eq!(summary.total().turns, 2100);
    assert!(summary.weathers.values().all(|runs| runs.number == 100), "{summary:?}");
    assert_eq!(seeds.into_inner(), 7 * (100..200).sum::<u64>());
}

#[test]
fn the_first_seed_that_breaks_is_the_first_whatever_the_number_of_cores() {
    for jobs in [1, 2, 7] {
        let jobs = NonZeroUsize::new(jobs).expect("not 0");
        let summary = play(&Batch { jobs, ..Batch::of(Weather::Storm, 0..1_000_000) }, &breaks_at_17);
        let [failure] = summary.failures.as_slice() else { panic!("{:?}", summary.failures) };
        assert_eq!(failure.scenario, Scenario::of_seed(17, Weather::Storm));
        assert!(summary.runs() < 1_000_000, "it went on");
    }
}

#[test]
fn a_batch_that_is_stopped_says_how_far_it_came() {
    let stop = AtomicBool::new(false);
    let run = |scenario: &Scenario, control: Option<Control>| {
        stop.fetch_or(scenario.seed == 50, Ordering::Relaxed);
        held(scenario, control)
    };
    let summary = Batch::of(Weather::Storm, 0..u64::MAX).play(&run, &stop, &mut |_| {});
    assert!(summary.runs() > 50 && summary.runs() < summary.planned, "{} runs", summary.runs());
    assert!(summary.failures.is_empty());
}

#[test]
fn a_panic_is_a_violation_of_its_seed_and_no_end_of_the_others() {
    let run = |scenario: &Scenario, control: Option<Control>| {
        assert!(scenario.seed != 5, "illegal transition: standby → jeopardy");
        held(scenario, control)
    };
    let summary = play(&Batch { failures_most: 2, ..Batch::of(Weather::Fading, 0..20) }, &run);
    assert_eq!(summary.runs(), 20);
    let [failure] = summary.failures.as_slice() else { panic!("{:?}", summary.failures) };
    assert_eq!(failure.scenario.seed, 5);
    assert_eq!(failure.violation.invariant, "panic");
    let what = &failure.violation.what;
    assert!(what.starts_with("illegal transition: standby → jeopardy at ") && what.contains("batch.rs"), "{what}");
}

#[test]
fn a_panic_elsewhere_is_still_a_panic() {
    play_guarded(&held, &Scenario::of_seed(1, Weather::Storm), None);
    let caught = std::panic::catch_unwind(|| panic!("not in a run"));
    assert_eq!(caught.expect_err("it panics").downcast_ref::<&str>(), Some(&"not in a run"));
}

type Gone = (PublicState, PublicState, Reason);

fn coverage_of(gone: &[Gone]) -> Coverage {
    let run = |_: &Scenario, _: Option<Control>| {
        let transitions = gone.iter().map(|edge| (*edge, 1)).collect();
        Outcome { verdict: Ok(()), story: Vec::new(), tally: Tally { transitions, ..Tally::default() } }
    };
    Coverage::of(&play(&Batch::of(Weather::Operators, 0..1), &run))
}

fn edges_of_operators() -> Vec<Gone> {
    EDGES.iter().filter(|edge| edge.weathers.contains(&Weather::Operators)).map(|edge| edge.key).collect()
}

#[test]
fn an_edge_that_nobody_goes_is_missed() {
    let mut gone = edges_of_operators();
    let left = gone.pop().expect("there are some");
    let coverage = coverage_of(&gone);
    assert_eq!(coverage.unseen.iter().map(|(_, edge)| edge.key).collect::<Vec<_>>(), [left]);
    assert!(coverage.unlisted.is_empty());
}

#[test]
fn an_edge_that_nobody_listed_is_seen() {
    let mut gone = edges_of_operators();
    let odd = (PublicState::Stopped, PublicState::Leading, Reason::Claimed);
    gone.push(odd);
    let coverage = coverage_of(&gone);
    assert_eq!(coverage.unlisted, [(Weather::Operators, odd, 0)]);
    assert!(coverage.unseen.is_empty());
}

#[test]
fn no_edge_is_listed_twice() {
    let mut keys: Vec<Gone> = EDGES.iter().map(|edge| edge.key).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), EDGES.len());
}

/// What an invariant would say.
pub fn violation(invariant: &'static str) -> Violation {
    Violation { invariant, what: "on purpose".into() }
}
