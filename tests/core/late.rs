//! Answers that were true when etcd gave them, and arrive when the lock has been let go of since.

use std::time::Duration;

use bellwether::election::{Event, Operation, PublicState};

use crate::scene::{MILLI, RIVAL, RIVAL_LEASE, Scene};

/// A renewal is half done: the keep-alive is answered, its confirm has read the lock, and that answer is under way.
fn resigned_with_a_confirm_under_way(cooldown: Duration) -> (Scene, Event) {
    let mut scene = Scene::with_endpoints(2).leader();
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    let confirm = scene.take(Operation::Confirm);
    let late = scene.apply(&confirm);
    scene.event(Event::Resign { cooldown });
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    assert!(scene.etcd.lock().is_none(), "the lock is let go of");
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    (scene, late)
}

#[test]
fn a_confirm_from_before_a_release_does_not_make_a_leader_after_it() {
    let (mut scene, late) = resigned_with_a_confirm_under_way(Duration::ZERO);
    // Watch and read are slow as well: they go to the endpoint whose answers are late.
    scene.pass(MILLI);
    scene.event(late);
    assert_eq!(scene.my_lock(), None);
    assert!(!scene.leads(), "web-0 leads, and so does this one, for {:?}", scene.remaining());
}

#[test]
fn a_confirm_from_before_a_release_does_not_make_a_leader_when_a_short_cool_down_is_over() {
    let (mut scene, late) = resigned_with_a_confirm_under_way(Duration::from_secs(1));
    scene.pass(Duration::from_secs(1));
    scene.event(late);
    assert!(!scene.leads(), "web-0 leads, and so does this one, for {:?}", scene.remaining());
}

#[test]
fn a_claim_answered_late_does_not_make_a_leader_of_a_key_that_was_deleted_since() {
    let mut scene = Scene::with_endpoints(2);
    let before = [Operation::Grant, Operation::Probe, Operation::Observe, Operation::Register, Operation::KeepAlive];
    while let Some(next) = before.into_iter().find(|operation| scene.is_pending(*operation)) {
        scene.answer(next);
        scene.catch_up();
    }
    let claim = scene.take(Operation::Claim);
    let late = scene.apply(&claim);
    let lease = scene.my_lease();
    scene.etcd.somebody_puts_lock("operator", Some(lease));
    scene.catch_up();
    assert_eq!(scene.state(), PublicState::Standby);
    scene.answer(Operation::DeleteLock);
    assert!(scene.etcd.lock().is_none());
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.event(late);
    assert!(!scene.leads(), "web-0 leads, and so does this one, for {:?}", scene.remaining());
}
