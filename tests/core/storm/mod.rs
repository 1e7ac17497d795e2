//! Three candidates in a storm: a small model of etcd and of everything around it that goes wrong, under one
//! seed, with the invariants looked at before and after everything that happens.
//!
//! `BELLWETHER_STORM_SEED=<n>` runs one seed, `BELLWETHER_STORM_SEEDS=<n>` more of them.

#[cfg(feature = "sabotage")]
mod controls;
mod dice;
mod faults;
mod judge;
mod node;
mod world;

use std::time::Duration;

use bellwether::election::{Timings, TimingsRequest};

use crate::etcd::nanos;
use judge::Verdict;
use world::{Happening, Weather, World};

/// How many seeds `make test` has time for.
const SEEDS: u64 = 100;
/// How many leases long faults go on.
const STORM_LEASES: u32 = 12;

/// How many kinds of timings there are; a seed's remainder chooses.
const TIMINGS: u64 = 5;
/// The kind whose attempts may take longer than the margin: only the sending time keeps `until` honest.
const SLOW_ATTEMPTS: u64 = 4;

/// Timings that people use, and some that leave little room.
fn timings(which: u64) -> Timings {
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    let drain_timeout = seconds(2);
    let request = match which % TIMINGS {
        0 => TimingsRequest { drain_timeout, ..TimingsRequest::default() },
        1 => TimingsRequest { lease_ttl: seconds(2), drain_timeout, ..TimingsRequest::default() },
        2 => TimingsRequest {
            lease_ttl: seconds(8),
            reconnect_window: Some(Duration::ZERO),
            answer_validity: Some(Duration::ZERO),
            drain_timeout: Some(Duration::ZERO),
            ..TimingsRequest::default()
        },
        3 => TimingsRequest { answer_validity: seconds(5), drain_timeout: seconds(5), ..TimingsRequest::default() },
        SLOW_ATTEMPTS.. => TimingsRequest {
            lease_ttl: seconds(6),
            keepalive_interval: seconds(1),
            attempt_timeout: seconds(2),
            safety_margin: Some(Duration::from_millis(500)),
            drain_timeout,
            ..TimingsRequest::default()
        },
    };
    Timings::new(request).expect("the timings of a test hold together")
}

/// One run: its number of terms, or the invariant that broke and the story until then.
fn run(seed: u64, weather: Weather) -> Result<u64, String> {
    let timings = timings(seed);
    let endpoints = 1 + usize::try_from(seed / TIMINGS % 3).expect("0, 1 or 2");
    let mut world = World::new(seed, timings, endpoints, weather);
    world.after(nanos(timings.lease_ttl()), Happening::Fault);
    let storm = nanos(timings.lease_ttl() * STORM_LEASES);
    let told = |world: &World, broken: String| format!("seed {seed}: {broken}\n{}", world.story.join("\n"));
    let mut verdict: Verdict = world.run_until(storm);
    if verdict.is_ok() {
        verdict = world.heals();
    }
    verdict.map(|()| world.judge.terms).map_err(|broken| told(&world, broken))
}

/// Says which seed it was when the core panics.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the seed was {}: run it alone with BELLWETHER_STORM_SEED={}", self.0, self.0);
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number of seeds, or a seed"))
}

fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = from_environment("BELLWETHER_STORM_SEED") {
        return seed..seed + 1;
    }
    0..from_environment("BELLWETHER_STORM_SEEDS").unwrap_or(SEEDS)
}

fn survives(weather: Weather) {
    let mut terms = 0;
    for seed in seeds() {
        let named = Named(seed);
        terms += run(seed, weather).unwrap_or_else(|broken| panic!("{broken}"));
        drop(named);
    }
    assert!(terms >= seeds().count() as u64, "storms that nobody leads in prove nothing: {terms} terms");
}

#[test]
fn no_storm_makes_two_leaders() {
    survives(Weather::Storm);
}

#[test]
fn no_operator_leaves_the_lock_without_a_leader() {
    survives(Weather::StormWithOperators);
}

#[test]
fn no_fading_network_makes_two_leaders() {
    survives(Weather::Fading);
}
