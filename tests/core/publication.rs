//! What the cluster is shown: the role follows the right to lead, never runs ahead of it, and is taken back
//! before the lock is let go.

use std::time::Duration;

use bellwether::election::{Event, Identity, Operation, Role};

use crate::scene::{MILLI, NANO, RIVAL, Scene};

/// How long a release waits for the role to be taken back.
const TAKING_BACK: Duration = Duration::from_millis(500);
const COOLDOWN: Duration = Duration::from_secs(30);

fn roles(scene: &Scene) -> Vec<Role> {
    scene.publications().iter().map(|publication| publication.role.clone()).collect()
}

fn leads_after(scene: &Scene, predecessor: Option<&str>) -> Role {
    Role::Leader { term: scene.lead().term, predecessor: predecessor.map(Identity::new) }
}

fn on_show_and_leading() -> Scene {
    let mut scene = Scene::on_show().leader();
    scene.role_is_seen();
    scene
}

#[test]
fn a_candidate_that_starts_takes_back_what_an_earlier_life_has_shown() {
    assert_eq!(roles(&Scene::on_show()), [Role::Unknown]);
}

#[test]
fn who_has_nobody_to_show_it_to_publishes_nothing() {
    assert_eq!(roles(&Scene::new().leader()), []);
}

#[test]
fn a_standby_is_a_follower() {
    assert_eq!(roles(&Scene::on_show().heir()), [Role::Unknown, Role::Follower]);
}

#[test]
fn a_leader_publishes_its_term_and_whom_it_follows() {
    let mut scene = Scene::on_show().heir();
    scene.rival_dies();
    scene.answer_all();
    assert_eq!(scene.role(), leads_after(&scene, Some(RIVAL)));
}

#[test]
fn the_first_leader_follows_nobody() {
    let scene = Scene::on_show().leader();
    assert_eq!(scene.role(), leads_after(&scene, None));
}

#[test]
fn renewals_publish_nothing() {
    let mut scene = on_show_and_leading();
    let before = scene.publications().len();
    scene.live(Duration::from_mins(5));
    assert_eq!(scene.publications().len(), before);
}

#[test]
fn jeopardy_takes_the_role_back_and_the_same_term_shows_it_again() {
    let mut scene = on_show_and_leading();
    let leading = scene.role();
    scene.lose_all();
    while scene.leads() {
        scene.pass(Duration::from_millis(100));
        scene.lose_all();
    }
    assert_eq!(scene.role(), Role::Unknown);
    scene.live(Duration::from_secs(3));
    assert_eq!(scene.role(), leading);
}

#[test]
fn who_loses_the_lock_is_a_follower() {
    let mut scene = on_show_and_leading();
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    assert_eq!(scene.role(), Role::Follower);
}

#[test]
fn the_lock_is_not_let_go_of_before_the_role_is_seen_to_be_taken_back() {
    let mut scene = on_show_and_leading();
    scene.event(Event::Stop);
    assert_eq!(scene.role(), Role::Unknown, "at once, while the answers given out settle");
    scene.settle_answers();
    assert!(!scene.is_pending(Operation::Revoke), "the pod may still say that it leads");
    scene.role_is_seen();
    assert!(scene.is_pending(Operation::Revoke));
}

#[test]
fn a_role_taken_back_while_the_answers_settled_holds_nothing_up() {
    let mut scene = on_show_and_leading();
    scene.event(Event::Stop);
    scene.role_is_seen();
    scene.settle_answers();
    assert!(scene.is_pending(Operation::Revoke));
}

#[test]
fn a_role_that_cannot_be_taken_back_holds_the_release_for_half_a_second_and_no_longer() {
    let mut scene = on_show_and_leading();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.live(TAKING_BACK - NANO);
    assert!(scene.my_lock().is_some() && !scene.leads());
    scene.live(NANO);
    assert!(scene.has_exited() && scene.etcd.lock().is_none());
}

#[test]
fn the_half_second_runs_while_the_answers_settle() {
    let mut scene = on_show_and_leading();
    scene.event(Event::Stop);
    scene.pass(TAKING_BACK);
    scene.settle_answers();
    assert!(scene.is_pending(Operation::Revoke));
}

#[test]
fn who_resigns_takes_the_role_back_before_it_deletes_the_lock_key() {
    let mut scene = on_show_and_leading();
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene.settle_answers();
    assert!(!scene.is_pending(Operation::DeleteLock));
    scene.role_is_seen();
    scene.answer(Operation::DeleteLock);
    scene.answer_all();
    assert_eq!(scene.role(), Role::Follower);
}

#[test]
fn a_stop_while_a_resignation_waits_for_the_role_waits_on() {
    let mut scene = on_show_and_leading();
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene.settle_answers();
    scene.event(Event::Stop);
    assert!(!scene.is_pending(Operation::Revoke) && !scene.is_pending(Operation::DeleteLock));
    scene.role_is_seen();
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited() && scene.etcd.lock().is_none());
}

#[test]
fn a_leader_that_fell_into_jeopardy_and_stops_waits_for_the_role_of_before() {
    let mut scene = on_show_and_leading();
    scene.lose_all();
    while scene.leads() {
        scene.pass(MILLI * 10);
        scene.lose_all();
    }
    scene.event(Event::Stop);
    scene.settle_answers();
    assert!(!scene.is_pending(Operation::Revoke), "nobody has seen yet that it does not lead");
    scene.role_is_seen();
    assert!(scene.is_pending(Operation::Revoke));
}

#[test]
fn what_was_published_earlier_and_is_seen_late_lets_nothing_go() {
    let mut scene = Scene::on_show().leader();
    let leading = scene.publications().last().expect("it published that it leads").id;
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.event(Event::Published { id: leading });
    assert!(!scene.is_pending(Operation::Revoke), "that is the role to be taken back, not the taking back");
}

#[test]
fn a_standby_that_stops_waits_for_nobody() {
    let mut scene = Scene::on_show().heir();
    scene.event(Event::Stop);
    assert!(scene.is_pending(Operation::Revoke));
}
