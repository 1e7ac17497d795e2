//! Standing down of one's own will: 503 first, then the answers given out, then the lock.

use std::time::Duration;

use bellwether::election::{
    CallErrorKind, EndpointId, Event, Identity, LeaseId, NotLeading, Notice, Operation, PublicState, Reason,
    TimingsRequest,
};

use crate::scene::{K, ME, MILLI, NANO, R, RIVAL, RIVAL_LEASE, Scene, T};

const DRAIN: Duration = Duration::from_secs(10);
const COOLDOWN: Duration = Duration::from_secs(30);

fn released(scene: &Scene, confirmed: bool) -> usize {
    scene.told(|notice| *notice == Notice::Released { confirmed })
}

fn resigned() -> Scene {
    let mut scene = Scene::new().leader();
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene
}

#[test]
fn a_leader_told_to_stop_answers_503_before_anything_else() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    assert!(!scene.leads());
    assert_eq!(scene.view().leader, None);
    assert_eq!(scene.view().not_leading, Some(NotLeading::StandingDown));
    assert!(scene.is_settling());
    assert!(!scene.is_pending(Operation::Revoke), "the answers given out are still good");
    assert_eq!(scene.transitions(), [(PublicState::StandingDown, Reason::Stopped)]);
}

#[test]
fn once_the_answers_have_settled_the_lease_is_revoked_and_the_process_ends() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.settle_answers();
    assert!(!scene.has_exited());
    scene.answer(Operation::Revoke);
    assert!(scene.etcd.lock().is_none());
    assert!(scene.has_exited());
    assert_eq!(scene.state(), PublicState::Stopped);
    assert_eq!(released(&scene, true), 1);
}

#[test]
fn a_leader_renews_while_its_answers_settle() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.live(K * 2 - MILLI);
    assert!(scene.my_lock().is_some());
    assert!(scene.told(|notice| matches!(notice, Notice::Renewed(_))) >= 1);
    assert!(!scene.leads());
}

#[test]
fn answers_that_do_not_settle_hold_the_release_for_the_drain_timeout_and_no_longer() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.live(DRAIN - NANO);
    assert!(scene.my_lock().is_some());
    scene.live(NANO);
    assert!(scene.etcd.lock().is_none() && scene.has_exited());
}

#[test]
fn stopping_is_bounded_when_etcd_is_gone() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.lose_all();
    scene.pass(R * 2 - NANO);
    assert!(!scene.has_exited());
    scene.lose_all();
    scene.pass(NANO);
    assert!(scene.has_exited());
    assert_eq!(released(&scene, false), 1);
}

#[test]
fn a_revoke_that_fails_is_tried_again_on_the_way_out() {
    let mut scene = Scene::with_endpoints(2).leader();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.fail(Operation::Revoke, CallErrorKind::Unavailable);
    scene.pass(Duration::from_millis(50));
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited() && scene.etcd.lock().is_none());
}

#[test]
fn a_standby_stops_at_once_and_leaves_no_lease_behind() {
    let mut scene = Scene::new().heir();
    let lease = scene.my_lease();
    scene.event(Event::Stop);
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited() && !scene.etcd.has_lease(lease));
    assert_eq!(released(&scene, true), 0, "it held no lock");
}

#[test]
fn a_candidate_that_has_not_even_a_lease_stops() {
    let mut scene = Scene::new();
    scene.event(Event::Stop);
    assert!(scene.has_exited(), "a grant on its way expires by itself, with nothing attached");
}

#[test]
fn a_leader_in_jeopardy_stops_after_its_answers() {
    let timings = TimingsRequest { reconnect_window: Some(Duration::ZERO), ..TimingsRequest::default() };
    let mut scene = Scene::with_timings(timings).leader();
    let stream = scene.until_next_keep_alive();
    scene.end_stream(stream);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    scene.event(Event::Stop);
    assert!(!scene.is_pending(Operation::Revoke), "an answer of a moment ago is good for a second");
    scene.settle_answers();
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited());
}

#[test]
fn whoever_has_stopped_does_nothing_more() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.has_exited());
    scene.lose_all();
    scene.event(Event::Stop);
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene.event(Event::CredentialsRenewed);
    scene.pass(T);
    assert_eq!(scene.state(), PublicState::Stopped);
    scene.answer_all();
}

#[test]
fn a_second_stop_changes_nothing() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.event(Event::Stop);
    assert_eq!(scene.transitions().len(), 1);
    scene.settle_answers();
    scene.event(Event::Stop);
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited());
}

#[test]
fn who_resigns_deletes_its_own_key_and_keeps_its_lease() {
    let mut scene = resigned();
    let lease = scene.my_lease();
    assert_eq!(scene.transitions(), [(PublicState::StandingDown, Reason::Resigned)]);
    assert!(!scene.is_pending(Operation::DeleteLock));
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    assert!(scene.etcd.lock().is_none() && scene.etcd.has_lease(lease));
    assert_eq!(released(&scene, true), 1);
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Standby, Reason::Resigned)));
}

/// A wiped store counts its revisions from one again, and somebody else's key may get the one that mine had.
#[test]
fn a_delete_that_arrives_after_a_wipe_spares_a_key_of_the_same_revision() {
    let mut scene = Scene::new().leader();
    let token = scene.token();
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene.settle_answers();
    let late = scene.take(Operation::DeleteLock);
    scene.etcd.is_wiped();
    while scene.etcd.header(EndpointId(0)).revision.0 < token.0 - 1 {
        scene.etcd.is_busy();
    }
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    assert_eq!(scene.etcd.lock().map(|lock| lock.create_revision), Some(token));
    scene.apply(&late);
    assert_eq!(scene.etcd.lock().and_then(|lock| lock.lease), Some(RIVAL_LEASE));
}

#[test]
fn who_resigns_registers_anew_at_the_end() {
    let mut scene = Scene::new().leader();
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    let rival = scene.etcd.candidate(&Identity::new(RIVAL)).expect("registered").create_revision;
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.etcd.candidate(&Identity::new(ME)).expect("registered").create_revision > rival);
}

#[test]
fn who_resigned_stays_away_while_others_lead() {
    let mut scene = resigned();
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(Duration::from_secs(10));
    assert_eq!(scene.view().not_leading, Some(NotLeading::LockHeld(Identity::new(RIVAL))));
    scene.rival_dies();
    scene.live(Duration::from_secs(1) - MILLI);
    assert!(scene.etcd.lock().is_none());
    assert_eq!(scene.view().not_leading, Some(NotLeading::CoolingDown));
    scene.live(MILLI);
    assert!(scene.leads(), "free for a second: nobody else wants it");
}

#[test]
fn a_claim_lost_in_the_cool_down_does_not_end_it() {
    let mut scene = resigned();
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    scene.live(Duration::from_secs(1) - MILLI);
    scene.pass(MILLI);
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.answer(Operation::Claim);
    scene.answer_all();
    assert_eq!(scene.view().not_leading, Some(NotLeading::LockHeld(Identity::new(RIVAL))));
    scene.rival_dies();
    scene.live(Duration::from_secs(1) - MILLI);
    assert!(scene.etcd.lock().is_none(), "20 s of the cool-down are left");
    scene.live(MILLI);
    assert!(scene.leads());
}

#[test]
fn the_claim_that_ends_a_cool_down_is_kept_when_the_watch_reports_it_first() {
    let mut scene = resigned();
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    scene.live(Duration::from_secs(1) - MILLI);
    scene.pass(MILLI);
    let claim = scene.take(Operation::Claim);
    let answer = scene.apply(&claim);
    scene.catch_up();
    assert!(!scene.is_pending(Operation::DeleteLock));
    scene.event(answer);
    assert!(scene.leads());
}

#[test]
fn after_the_cool_down_the_candidate_claims_in_its_turn() {
    let mut scene = resigned();
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(COOLDOWN);
    scene.rival_dies();
    scene.answer(Operation::Claim);
    assert!(scene.leads());
}

#[test]
fn an_ambiguous_delete_is_repeated_until_it_is_definite() {
    let mut scene = resigned();
    scene.settle_answers();
    scene.apply_and_fail(Operation::DeleteLock, CallErrorKind::Unavailable);
    assert_eq!(scene.state(), PublicState::StandingDown);
    // A rival takes the lock in the meantime: the repeated delete must not touch it.
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(Duration::from_millis(100));
    assert_eq!(scene.state(), PublicState::Standby);
    assert_eq!(scene.etcd.lock().map(|lock| lock.lease), Some(Some(RIVAL_LEASE)));
}

#[test]
fn a_delete_that_cannot_be_settled_for_a_ttl_becomes_a_revoke() {
    let mut scene = resigned();
    scene.settle_answers();
    let end = scene.now().boot.after(T);
    while !scene.is_pending(Operation::Revoke) {
        scene.lose_all();
        scene.pass(MILLI * 10);
        assert!(scene.now().boot <= end.after(MILLI * 10), "it stands down for ever");
    }
    scene.answer_all();
    assert!(scene.etcd.lock().is_none());
    assert_eq!(scene.state(), PublicState::Standby);
}

#[test]
fn a_resignation_without_etcd_ends_all_the_same() {
    let mut scene = resigned();
    scene.settle_answers();
    for _ in 0..400 {
        scene.lose_all();
        scene.pass(MILLI * 100);
    }
    assert_eq!(scene.state(), PublicState::Standby);
    assert_eq!(released(&scene, false), 1);
    scene.lose_all();
    scene.live(T * 3);
    assert!(scene.leads());
}

#[test]
fn a_lease_lost_while_standing_down_has_let_go_of_the_lock() {
    let mut scene = resigned();
    let lease = scene.my_lease();
    scene.settle_answers();
    scene.take(Operation::DeleteLock);
    scene.etcd.revoke(lease);
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    assert_eq!(scene.state(), PublicState::Standby);
    scene.live(T);
    assert!(scene.leads());
}

#[test]
fn a_stop_while_resigning_goes_on_to_stop() {
    let mut scene = resigned();
    scene.event(Event::Stop);
    assert!(!scene.is_pending(Operation::Revoke), "the answers have not settled yet");
    scene.settle_answers();
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited());

    let mut scene = resigned();
    scene.settle_answers();
    scene.event(Event::Stop);
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited(), "they had settled");
}

#[test]
fn the_settling_of_an_earlier_request_is_not_taken_for_the_present_one() {
    let mut scene = resigned();
    let stale = scene.settling()[0];
    scene.event(Event::Stop);
    scene.event(Event::AnswersSettled { id: stale });
    assert!(!scene.is_pending(Operation::Revoke));
}

#[test]
fn only_a_leader_resigns() {
    let mut scene = Scene::new().heir();
    scene.event(Event::Resign { cooldown: COOLDOWN });
    assert_eq!(scene.state(), PublicState::Standby);
    assert!(!scene.is_settling());
    let mut scene = Scene::new();
    scene.event(Event::Resign { cooldown: COOLDOWN });
    assert_eq!(scene.state(), PublicState::Starting);
    scene.rival_claims(RIVAL, LeaseId(1));
    let mut scene = resigned();
    scene.event(Event::Resign { cooldown: Duration::ZERO });
    assert_eq!(scene.transitions().len(), 1);
}

#[test]
fn until_passing_while_standing_down_is_no_jeopardy() {
    let mut scene = resigned();
    scene.lose_all();
    scene.freeze(T * 2);
    scene.wake();
    assert_eq!(scene.view().jeopardy_episodes, 0);
    assert_eq!(scene.state(), PublicState::StandingDown);
}
