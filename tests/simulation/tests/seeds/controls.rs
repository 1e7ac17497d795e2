//! The simulation without one of the protections: it must find a violation, or it proves nothing.

use std::sync::atomic::AtomicBool;

use simulation::runner::{Batch, SAFETY, TRIALS, weather_name};
use simulation::{Weather, run};

/// There a lock is lost in a fault's course less often than in a storm.
const AMONG_OLD_SERVERS: u64 = 400;

/// Some seed must break an invariant about safety; the first that breaks anything must.
fn is_found_out(name: &str) {
    let trial = TRIALS.into_iter().find(|trial| trial.name == name).expect("it is in the list");
    let batch = Batch { control: Some(trial.control), ..Batch::of(trial.weather, 0..trial.seeds) };
    let summary = batch.play(&run, &AtomicBool::new(false), &mut |_| {});
    let Some(first) = summary.failures.first() else {
        panic!("{} seeds in {} with {name}: nothing broke", trial.seeds, weather_name(trial.weather));
    };
    let broke = &first.violation;
    assert!(SAFETY.contains(&broke.invariant), "{name} broke something else than {SAFETY:?}: {broke}");
    println!("{name}: {} seeds in {}: {broke}", first.place + 1, weather_name(trial.weather));
}

#[test]
fn without_the_check_at_every_request_two_answer_200() {
    is_found_out("no-request-check");
}

#[test]
fn without_the_margin_two_answer_200() {
    is_found_out("no-margin");
}

#[test]
fn without_the_confirm_two_answer_200() {
    is_found_out("no-confirm");
}

#[test]
fn with_the_time_of_the_answer_instead_of_the_sending_two_answer_200() {
    is_found_out("latest-send");
}

#[test]
fn with_a_keep_alive_and_a_confirm_of_two_raft_terms_two_answer_200() {
    is_found_out("no-raft-term-check");
}

#[test]
fn with_what_was_read_before_a_release_believed_after_it_two_answer_200() {
    is_found_out("no-release-floor");
}

#[test]
fn with_the_view_published_after_the_effects_two_answer_200() {
    is_found_out("view-after-effects");
}

#[test]
fn with_the_confirm_beside_the_keep_alive_two_answer_200() {
    is_found_out("confirm-beside");
}

#[test]
fn with_the_lock_let_go_of_before_the_work_is_gone_a_child_runs_outside_its_term() {
    is_found_out("no-work-wait");
}

#[test]
fn with_the_time_to_stop_not_taken_off_a_child_runs_outside_its_term() {
    is_found_out("stop-time-kept");
}

#[test]
fn without_the_nonce_two_processes_of_one_candidate_go_on_with_its_term() {
    is_found_out("no-nonce-check");
}

/// What old servers revoke of their own is excused there, and nothing else: whatever a storm finds must be found.
#[test]
fn among_old_servers_a_missing_protection_is_found_too() {
    for name in ["no-request-check", "no-margin", "no-confirm", "no-raft-term-check"] {
        let trial = TRIALS.into_iter().find(|trial| trial.name == name).expect("it is in the list");
        let batch = Batch { control: Some(trial.control), ..Batch::of(Weather::OldRevokes, 0..AMONG_OLD_SERVERS) };
        let summary = batch.play(&run, &AtomicBool::new(false), &mut |_| {});
        let Some(first) = summary.failures.first() else {
            panic!("{AMONG_OLD_SERVERS} seeds among old servers without {name}: nothing broke");
        };
        println!("{name}: {} seeds among old servers: {}", first.place + 1, first.violation);
    }
}

#[test]
fn every_control_has_its_test() {
    let text = include_str!("controls.rs");
    for trial in TRIALS {
        assert!(text.contains(&format!("is_found_out(\"{}\")", trial.name)), "{} has none", trial.name);
    }
}
