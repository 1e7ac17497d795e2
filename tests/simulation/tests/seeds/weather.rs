//! Every weather, over enough seeds to matter.

use std::sync::atomic::AtomicBool;

use simulation::runner::{Batch, Coverage, play_guarded, weather_name};
use simulation::{Scenario, Weather, run};

/// How many seeds `make test` has time for in each weather: a run takes some 20 ms of a core in the dev profile. It is also
/// how many it takes to go every edge of the state machine.
const SEEDS: u64 = 1000;

fn holds(weather: Weather) {
    let summary = Batch::of(weather, 0..SEEDS).play(&run, &AtomicBool::new(false), &mut |_| {});
    if let Some(failure) = summary.failures.first() {
        let (seed, name) = (failure.scenario.seed, weather_name(weather));
        let again = format!("make simulate SEED={seed} WEATHER={name}");
        panic!("seed {seed} broke {}\n{}\nAgain, and shrunk: {again}", failure.violation, failure.story.join("\n"));
    }
    let total = summary.total();
    assert_eq!(summary.runs(), SEEDS);
    assert!(total.terms >= SEEDS, "runs that nobody leads in prove nothing: {} terms", total.terms);
    let coverage = Coverage::of(&summary);
    assert!(coverage.unseen.is_empty(), "edges that nobody has gone: {:?}", coverage.unseen);
    assert!(coverage.unlisted.is_empty(), "edges that are not in the list: {:?}", coverage.unlisted);
    println!("{} transitions, {} terms, {:?}", summary.transitions(), total.terms, summary.took);
}

#[test]
fn no_storm_makes_two_leaders() {
    holds(Weather::Storm);
}

#[test]
fn no_operator_makes_two_leaders_for_longer_than_a_watch_event_takes() {
    holds(Weather::Operators);
}

#[test]
fn no_old_server_makes_two_leaders_for_longer_than_a_watch_event_takes() {
    holds(Weather::OldRevokes);
}

#[test]
fn no_fading_network_makes_two_leaders() {
    holds(Weather::Fading);
}

#[test]
fn no_late_answer_makes_two_leaders() {
    holds(Weather::Handovers);
}

#[test]
fn no_restart_makes_two_leaders() {
    holds(Weather::Restarts);
}

#[test]
fn no_second_process_on_a_copy_leads_beside_the_first_for_longer_than_until() {
    holds(Weather::Copies);
}

#[test]
fn the_same_seed_tells_the_same_story() {
    for weather in simulation::runner::WEATHERS {
        for seed in 0..5 {
            let scenario = Scenario::of_seed(seed, weather);
            let (first, again) = (play_guarded(&run, &scenario, None), play_guarded(&run, &scenario, None));
            assert!(!first.story.is_empty(), "a run that tells nothing cannot be compared");
            assert_eq!(first.story, again.story, "{scenario:?}");
            assert_eq!(first.tally, again.tally, "{scenario:?}");
        }
    }
}
