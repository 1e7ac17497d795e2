//! Whether etcd is heard: it can hear the candidate and not be heard, and it can answer with a refusal.

use bellwether::election::{CallErrorKind, EtcdContact, NotLeading, Operation, PublicState, Reason, TimingsRequest};

use crate::scene::{K, MILLI, R, Scene, T};

#[test]
fn a_candidate_that_does_not_hear_etcd_does_not_keep_the_lock_for_ever() {
    let mut scene = Scene::new().leader();
    scene.unheard(2 * T + R);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    assert!(scene.my_lock().is_none(), "its keep-alives still arrive and keep its lease");
}

/// One attempt is hedged by another, and that by the next: none of them may go on when nothing is heard.
#[test]
fn a_candidate_of_several_endpoints_that_does_not_hear_them_does_not_keep_the_lock_for_ever() {
    for seed in 0..20 {
        let mut scene = Scene::with(TimingsRequest::default(), 3, seed).leader();
        scene.unheard(2 * T + R);
        assert_eq!(scene.state(), PublicState::Jeopardy, "seed {seed}");
        assert!(scene.my_lock().is_none(), "seed {seed}: its keep-alives still arrive and keep its lease");
    }
}

#[test]
fn while_it_is_not_heard_that_the_lease_is_alive_it_goes_on_asking_and_renews_when_it_is_answered() {
    let mut scene = Scene::new().leader();
    scene.etcd.stop_expiring();
    let token = scene.token();
    scene.pass(3 * T);
    scene.lose_all();
    scene.pass(R);
    assert!(!scene.is_pending(Operation::KeepAlive));
    scene.lose_all();
    scene.pass(T);
    scene.answer_all();
    assert!(scene.leads(), "etcd was away, and the lease was not: {:?}", scene.view());
    assert_eq!(scene.token(), token);
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Leading, Reason::Resumed)));
    scene.live(K + MILLI);
    assert!(scene.leads());
}

#[test]
fn a_standby_that_does_not_hear_etcd_does_not_say_who_holds_the_lock() {
    let mut scene = Scene::new().heir();
    assert!(matches!(scene.view().not_leading, Some(NotLeading::LockHeld(_))));
    scene.unheard(T + K);
    assert_eq!(scene.view().etcd, EtcdContact::Unreachable);
    assert_eq!(scene.view().not_leading, Some(NotLeading::EtcdUnreachable));
}

#[test]
fn an_etcd_that_is_out_of_space_answers() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let begin = scene.now().boot;
    while scene.now().boot < begin.after(R + MILLI) {
        if scene.is_pending(Operation::Claim) {
            scene.fail(Operation::Claim, CallErrorKind::NoSpace);
        }
        scene.pass(MILLI);
    }
    assert_eq!(scene.view().etcd, EtcdContact::Connected);
}
