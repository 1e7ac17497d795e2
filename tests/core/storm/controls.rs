//! The storm without one of the candidate's protections: it must find a violation, or it proves nothing.

use bellwether::protections::Protections;

use super::run;
use super::world::Weather;

/// How many seeds a control may need.
const SEEDS: u64 = 200;

/// Takes one protection away: some seed must break one of these invariants, or the test above proves nothing.
fn must_break(protection: Protections, weather: Weather) {
    Protections::take_away(Some(protection));
    let broken = (0..SEEDS).find_map(|seed| run(seed, weather).err());
    Protections::take_away(None);
    let name = protection.name();
    let broken = broken.unwrap_or_else(|| panic!("{SEEDS} seeds with {name}: nothing broke"));
    let first = broken.lines().next().unwrap_or_default();
    assert!(UNSAFE.iter().any(|invariant| first.contains(invariant)), "another invariant than {UNSAFE:?}: {first}");
    println!("{name}: {first}");
}

const UNSAFE: [&str; 3] =
    ["at_most_one_leader_answers", "no_leader_without_lease_and_key", "answers_hold_for_their_validity"];

#[test]
fn without_the_margin_the_storm_finds_it() {
    must_break(Protections::NO_MARGIN, Weather::Storm);
}

#[test]
fn without_the_confirm_the_storm_finds_it() {
    must_break(Protections::NO_CONFIRM, Weather::Storm);
}

#[test]
fn with_the_time_of_the_answer_instead_of_the_sending_the_storm_finds_it() {
    must_break(Protections::LATEST_SEND, Weather::Fading);
}

#[test]
fn without_the_check_at_every_request_the_storm_finds_it() {
    must_break(Protections::NO_REQUEST_CHECK, Weather::Storm);
}
