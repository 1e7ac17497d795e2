//! What a seed decides before anything goes wrong: how many there are, their timings, clocks and servers.

use std::time::Duration;

use bellwether::election::{Timings, TimingsRequest};

use crate::company::{Company, companies};
use crate::dice::Dice;
use crate::etcd::{Behaviour, ClusterOptions, Extension};
use crate::scenario::{Scenario, Weather};

/// etcd's default.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// Faults go on for this many leases: enough to lose and win the lock many times over…
const STORM_LEASES: u32 = 12;
/// …within a time that thousands of runs can afford.
const STORM_LEAST: Duration = Duration::from_secs(60);
const STORM_MOST: Duration = Duration::from_secs(180);

/// The frame of a run.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) candidates: usize,
    /// Of those who have no work.
    pub(crate) timings: Timings,
    /// Of those who have: the same, and a time to stop it in.
    pub(crate) working_timings: Timings,
    /// The place of a second process of the first candidate, if there is to be one.
    pub(crate) twin: Option<usize>,
    /// What each has beside its election.
    pub(crate) companies: Vec<Company>,
    /// By how many parts in a million each candidate's boot clock runs fast.
    pub(crate) drifts: Vec<i64>,
    pub(crate) cluster: ClusterOptions,
    /// How long faults go on.
    pub(crate) storm: Duration,
}

impl Setup {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let mut dice = Dice::of(scenario.seed, "setup");
        let request = timings_request(&mut dice, scenario.weather);
        let timings = holding_together(request);
        let candidates = 3 + dice.below(5);
        // Clocks differ from the true time by up to a third of what the margin allows for. The server's is the true
        // one, so this and an unnoticed stop of the guest (a quarter) leave a part of the margin unused, and no more.
        let allowed = timings.safety_margin().as_nanos() * 1_000_000 / timings.lease_ttl().as_nanos() / 3;
        let allowed = i64::try_from(allowed).expect("less than a million");
        let drifts: Vec<i64> =
            (0..candidates).map(|_| [-allowed, -allowed / 3, 0, allowed / 2, allowed][dice.below(5)]).collect();
        let members = [1, 3, 3, 3, 3, 5][dice.below(6)];
        let behaviour = match scenario.weather {
            Weather::OldRevokes => Behaviour::WithStaleLeases,
            Weather::Storm
            | Weather::Operators
            | Weather::Fading
            | Weather::Handovers
            | Weather::Restarts
            | Weather::Copies => [Behaviour::WithStaleLeases, Behaviour::Current][dice.below(2)],
        };
        let extension = [Extension::Full, Extension::Checkpointed][dice.below(2)];
        let seed = dice.roll();
        let renewals = timings.keepalive_interval() + timings.attempt_timeout() * 2 + timings.safety_margin();
        let mut companies = companies(scenario, candidates, &request, timings.lease_ttl() - renewals);
        let twin = (scenario.weather == Weather::Copies).then_some(candidates);
        let (mut drifts, mut candidates) = (drifts, candidates);
        if twin.is_some() {
            // On the same machine.
            candidates += 1;
            drifts.push(drifts[0]);
            companies.each.push(companies.each[0]);
        }
        let working_timings = holding_together(TimingsRequest { stop_time: companies.stop_time, ..request });
        Self {
            candidates,
            timings,
            working_timings,
            twin,
            companies: companies.each,
            drifts,
            cluster: ClusterOptions { members, behaviour, extension, election_timeout: ELECTION_TIMEOUT, seed },
            storm: (timings.lease_ttl() * STORM_LEASES).clamp(STORM_LEAST, STORM_MOST),
        }
    }
}

/// Timings that people use, and some that leave little room.
fn timings_request(dice: &mut Dice, weather: Weather) -> TimingsRequest {
    let seconds = |seconds: u64| Some(Duration::from_secs(seconds));
    let drain_timeout = seconds(2);
    // Attempts that may take longer than the margin: only the sending time keeps `until` honest.
    let slow_attempts = TimingsRequest {
        lease_ttl: seconds(6),
        keepalive_interval: seconds(1),
        attempt_timeout: seconds(2),
        safety_margin: Some(Duration::from_millis(500)),
        drain_timeout,
        ..TimingsRequest::default()
    };
    let kind = match weather {
        Weather::Storm | Weather::Operators | Weather::OldRevokes | Weather::Restarts | Weather::Copies => {
            dice.below(6)
        }
        // More often those that a slow renewal can hurt.
        Weather::Fading => [0, 0, 1, 2, 3, 3, 4, 4, 4, 5, 5, 5][dice.below(12)],
        // More often those that let go at once.
        Weather::Handovers => [0, 1, 2, 2, 2, 4][dice.below(6)],
    };
    match kind {
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
        4 => TimingsRequest {
            lease_ttl: seconds(10),
            safety_margin: Some(Duration::from_secs(1)),
            drain_timeout: seconds(10),
            ..TimingsRequest::default()
        },
        5.. => slow_attempts,
    }
}

fn holding_together(request: TimingsRequest) -> Timings {
    Timings::new(request).expect("the timings of a run hold together")
}
