//! The judge of what candidates have beside their election is judged: the nearest history that passes, and that does not.

use bellwether::election::{AppHealth, Inheritance, Instant, OpId, PublicState, Reading, Until, WallTime};

use super::tests::{Court, SECOND, key, lease, refused, term};
use super::*;
use crate::company::Company;
use crate::guardian::{Guardian, Moment};
use crate::node::Pause;

const CHILD: &str = "child_runs_only_inside_a_term";
const NOW: u64 = 5 * SECOND;
const STOP_TIME: Duration = Duration::from_secs(2);

/// A command of this term, that runs.
fn running(term: Term) -> Guardian {
    let reading = Reading { boot: Instant::from_nanos(0), wall: WallTime::from_unix_nanos(0) };
    let until = Until::of_renewal(reading, Duration::from_hours(1), Duration::ZERO);
    let mut guardian = Guardian::new(0, (OpId(1), term, until), STOP_TIME, 0);
    guardian.look(Moment { now: 0, reading, takes: 0 });
    assert!(guardian.is_running());
    guardian
}

/// One leads term 10, and its command runs.
fn working() -> Court {
    let mut court = Court::with_a_leader(Weather::Operators);
    court.nodes[0].guardians.push(running(term(0, 10)));
    court.nodes[0].company.works = true;
    look(&court, NOW).expect("a command inside its term");
    court
}

fn look(court: &Court, now: u64) -> Verdict {
    court.judge.looks_at_company(now, &court.nodes, court.lock.as_ref())
}

#[test]
fn a_command_whose_lock_is_gone_or_another_s_runs_outside_its_term() {
    for lock in [None, Some(key(1, 20)), Some(key(0, 20))] {
        let mut court = working();
        court.lock = lock;
        assert_eq!(refused(&look(&court, NOW)), CHILD);
    }
}

#[test]
fn two_commands_at_once_are_refused_whosever_they_are() {
    for (node, token) in [(0, 10), (0, 20), (1, 20), (1, 10)] {
        let mut court = working();
        court.nodes[node].guardians.push(running(term(0, token)));
        assert_eq!(refused(&look(&court, NOW)), CHILD);
    }
}

#[test]
fn a_command_beside_another_leader_is_refused() {
    let mut court = working();
    court.passes_to(7 * SECOND, 1, term(0, 20)).expect("the answers have expired");
    // As if the key were still the first one's, so that only the answer tells.
    court.lock = Some(key(0, 10));
    assert_eq!(refused(&look(&court, 7 * SECOND)), CHILD);
}

#[test]
fn what_a_stopped_guest_holds_does_nothing_and_is_excused_for_a_moment_afterwards() {
    let mut court = working();
    court.lock = None;
    court.nodes[0].pause = Some(Pause { until: 9 * SECOND, guest: true });
    look(&court, NOW).unwrap();
    court.nodes[0].pause = Some(Pause { until: 9 * SECOND, guest: false });
    assert_eq!(refused(&look(&court, NOW)), CHILD, "a stopped process is not a stopped command");
    court.nodes[0].guest_excused_until = NOW;
    look(&court, NOW).unwrap();
    assert_eq!(refused(&look(&court, NOW + 1)), CHILD);
}

#[test]
fn the_command_of_who_was_robbed_may_run_as_long_as_its_lease_was_confirmed_and_not_longer() {
    let taken = NOW + 1;
    let mut court = Court::robbed(Weather::Operators, taken);
    court.nodes[0].guardians.push(running(term(0, 10)));
    // The TTL, less three quarters of the margin.
    let most = nanos_of(12_750);
    look(&court, taken + most).unwrap();
    assert_eq!(refused(&look(&court, taken + most + 1)), "work_ends_with_the_news_and_the_stop_time");
}

fn nanos_of(milliseconds: u64) -> u64 {
    milliseconds * 1_000_000
}

#[test]
fn nobody_lets_go_of_the_lock_while_its_command_is_there() {
    let calls = [Call::DeleteLock { create_revision: Revision(10), lease: lease(0) }, Call::Revoke { lease: lease(0) }];
    for call in calls {
        let mut court = working();
        assert_eq!(refused(&court.judge.calls_in_company(&court.nodes, 0, &call, NOW)), CHILD, "{call:?}");
        court.nodes[0].guardians.clear();
        court.judge.calls_in_company(&court.nodes, 0, &call, NOW).unwrap();
    }
    // Another lease, or an old key: nothing of this term hangs on it.
    let court = working();
    for call in [Call::Revoke { lease: lease(1) }, Call::DeleteLock { create_revision: Revision(9), lease: lease(0) }] {
        court.judge.calls_in_company(&court.nodes, 0, &call, NOW).unwrap();
    }
}

#[test]
fn who_is_told_that_its_term_is_over_stops_its_command_in_that_turn() {
    let name = "the_news_stops_the_work";
    the_news_stops_the_work(0, Some(term(0, 10)), Some(Revision(9))).unwrap();
    the_news_stops_the_work(0, None, Some(Revision(10))).unwrap();
    assert_eq!(refused(&the_news_stops_the_work(0, Some(term(0, 10)), Some(Revision(10)))), name);
}

#[test]
fn a_kill_is_due_after_the_stop_time_and_not_a_nanosecond_later() {
    let now = Instant::from_nanos(NOW);
    stops_within_the_stop_time(0, now, now.after(STOP_TIME), STOP_TIME).unwrap();
    let late = now.after(STOP_TIME + Duration::from_nanos(1));
    assert_eq!(refused(&stops_within_the_stop_time(0, now, late, STOP_TIME)), "stops_within_the_stop_time");
}

#[test]
fn only_the_healthy_answer_200_and_who_goes_on_before_anybody_has_asked() {
    for (shown, resumes, holds) in [
        (Some(AppHealth::Healthy), false, true),
        (Some(AppHealth::Unhealthy), true, false),
        (None, true, true),
        (None, false, false),
    ] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.nodes[0].company.is_checked = true;
        let process = court.process(0);
        (process.shown, process.resumes) = (shown, resumes);
        let verdict = look(&court, NOW);
        assert_eq!(verdict.is_ok(), holds, "{shown:?}, resumes {resumes}");
        assert!(holds || refused(&verdict) == "only_the_healthy_lead");
    }
}

#[test]
fn the_lock_is_let_go_of_when_the_application_has_gone_or_the_drain_is_over() {
    let release = Call::Revoke { lease: lease(0) };
    // The default drain is 10 s.
    for (gone, after, holds) in [(false, 10 * SECOND, true), (false, 10 * SECOND - 1, false), (true, 0, true)] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.nodes[0].company.is_checked = true;
        let told = court.nodes[0].clock.reading(NOW).boot;
        let process = court.process(0);
        (process.stop_told, process.app_gone) = (Some(told), gone);
        let verdict = court.judge.calls_in_company(&court.nodes, 0, &release, NOW + after);
        assert_eq!(verdict.is_ok(), holds, "gone {gone}, {after} later");
        assert!(holds || refused(&verdict) == "lock_is_held_until_the_application_has_gone");
    }
}

#[test]
fn an_observer_reads_and_does_nothing_else() {
    let mut court = Court::sits(Weather::Storm);
    court.nodes[2].company = Company { observes: true, ..Company::default() };
    let judge = |call: &Call| court.judge.calls_in_company(&court.nodes, 2, call, NOW);
    judge(&Call::Observe { before: None }).unwrap();
    judge(&Call::Probe).unwrap();
    for call in [Call::Confirm, Call::Revoke { lease: lease(2) }, Call::Grant { lease: lease(2), ttl: STOP_TIME }] {
        assert_eq!(refused(&judge(&call)), "observers_only_look_on", "{call:?}");
    }
}

#[test]
fn at_rest_a_leader_works_and_observers_name_it() {
    let mut court = working();
    leader_works_at_rest(&court.nodes[0], 0).unwrap();
    court.nodes[0].life = 1;
    assert_eq!(refused(&leader_works_at_rest(&court.nodes[0], 0)), "leader_works_at_rest", "an earlier life's");
    court.nodes[0].company.works = false;
    leader_works_at_rest(&court.nodes[0], 0).unwrap();

    observers_name_the_leader(&court.nodes, 0).unwrap();
    court.nodes[2].company.observes = true;
    assert_eq!(refused(&observers_name_the_leader(&court.nodes, 0)), "observers_name_the_leader");

    nobody_leads_when_all_are_ill(false, &court.nodes).unwrap();
    assert_eq!(refused(&nobody_leads_when_all_are_ill(true, &court.nodes)), "nobody_leads_when_all_are_ill");
}

// ---- superseded_ends_by_until

/// The second process of the first candidate is the third in the court; both lead term 10 from the same lease.
fn superseded(at: u64) -> Court {
    let mut court = Court::sits(Weather::Copies);
    court.judge.twin = Some(2);
    court.nodes[2].identity = court.nodes[0].identity.clone();
    court.lock_becomes(0, Some(key(0, 10))).expect("it was free");
    court.judge.is_written_by(0, 0);
    court.leads(0, term(0, 10), 1000 * SECOND);
    court.look(at - 1).expect("one leads");
    court.judge.is_written_by(at, 2);
    court.leads(2, term(0, 10), 1000 * SECOND);
    court
}

#[test]
fn who_was_superseded_answers_no_longer_than_its_last_renewal_gave_it() {
    let most = nanos_of(12_750);
    superseded(NOW).look(NOW + most).unwrap();
    assert_eq!(refused(&superseded(NOW).look(NOW + most + 1)), "superseded_ends_by_until");
}

#[test]
fn besides_who_was_superseded_only_one_answers() {
    let mut court = superseded(NOW);
    court.leads(1, term(0, 20), 1000 * SECOND);
    assert_eq!(refused(&court.look(NOW + 1)), "at_most_one_leader_answers");
}

#[test]
fn a_process_is_told_to_stop_as_a_leader_only_if_it_led() {
    let mut court = Court::sits(Weather::Storm);
    let timings = court.nodes[0].timings;
    court.nodes[0].start(0, 2, timings, Inheritance::Nothing);
    assert_ne!(court.process(0).candidate.view().state, PublicState::Leading);
    court.nodes[0].handle(NOW, Some(bellwether::election::Event::Stop)).expect("no loop");
    assert_eq!(court.process(0).stop_told, None);
}
