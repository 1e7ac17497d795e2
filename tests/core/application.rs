//! Who may lead: the application's health, and observers.

use std::time::Duration;

use bellwether::election::{
    AppHealth, Application, Event, Identity, Inheritance, Memory, NotLeading, Notice, Operation, Part, PublicState,
    Reason, Role, Settings, Timings, TimingsRequest,
};

use crate::scene::{K, ME, NANO, RIVAL, RIVAL_LEASE, Scene, T};

const DRAIN: Duration = Duration::from_secs(10);

fn bare() -> Settings {
    let timings = Timings::new(TimingsRequest::default()).expect("the defaults hold together");
    Settings::bare(Identity::new(ME), timings, 1, 1)
}

fn checked() -> Settings {
    Settings { application: Application::Checked, ..bare() }
}

fn is(scene: &mut Scene, health: AppHealth) {
    scene.event(Event::AppHealth(health));
}

fn healthy_leader() -> Scene {
    let mut scene = Scene::of(checked());
    is(&mut scene, AppHealth::Healthy);
    scene.leader()
}

fn is_registered(scene: &Scene) -> bool {
    scene.etcd.candidate(&Identity::new(ME)).is_some()
}

#[test]
fn a_candidate_whose_application_has_not_been_healthy_is_not_in_line() {
    let mut scene = Scene::of(checked());
    scene.live(T * 2);
    assert_eq!(scene.state(), PublicState::Standby);
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LooksOn)]);
    assert!(scene.etcd.lock().is_none() && !is_registered(&scene));
    assert_eq!(scene.view().not_leading, Some(NotLeading::AppStarting));
    is(&mut scene, AppHealth::Healthy);
    scene.answer_all();
    assert!(scene.leads(), "it had its lease all the while: {:?}", scene.view());
}

#[test]
fn an_unhealthy_leader_resigns_and_comes_back_into_the_line_when_it_is_healthy() {
    let mut scene = healthy_leader();
    is(&mut scene, AppHealth::Unhealthy);
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::StandingDown, Reason::AppUnhealthy)]);
    assert!(scene.my_lock().is_some(), "the answers given out are still good");
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.etcd.lock().is_none());
    scene.live(T * 3);
    assert!(scene.etcd.lock().is_none() && !is_registered(&scene), "nobody leads rather than an unhealthy one");
    assert_eq!(scene.view().not_leading, Some(NotLeading::AppUnhealthy));
    is(&mut scene, AppHealth::Healthy);
    scene.answer_all();
    assert!(scene.leads());
}

#[test]
fn an_unhealthy_standby_leaves_the_line_and_the_next_one_is_the_heir() {
    let mut scene = Scene::of(checked());
    is(&mut scene, AppHealth::Healthy);
    let mut scene = scene.heir();
    assert!(is_registered(&scene));
    is(&mut scene, AppHealth::Unhealthy);
    scene.answer_all();
    assert!(!is_registered(&scene));
    scene.rival_dies();
    scene.live(T);
    assert!(scene.etcd.lock().is_none() && !scene.leads());
}

#[test]
fn a_claim_that_was_under_way_when_the_application_failed_is_given_back() {
    let mut scene = Scene::of(checked());
    is(&mut scene, AppHealth::Healthy);
    let mut scene = scene.heir();
    scene.rival_dies();
    let claim = scene.take(Operation::Claim);
    let won = scene.apply(&claim);
    assert!(scene.my_lock().is_some());
    is(&mut scene, AppHealth::Unhealthy);
    scene.event(won);
    assert!(!scene.leads());
    scene.live(K);
    assert!(!scene.leads() && scene.etcd.lock().is_none(), "{:?}", scene.etcd.lock());
}

#[test]
fn jeopardy_does_not_end_in_leading_for_an_unhealthy_one() {
    let mut scene = healthy_leader();
    scene.pass(T);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    is(&mut scene, AppHealth::Unhealthy);
    scene.lose_all();
    scene.etcd.elects_a_leader(0);
    scene.live(K);
    assert!(!scene.leads());
}

#[test]
fn on_the_way_out_the_lock_is_held_until_the_application_is_gone() {
    let mut scene = healthy_leader();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.live(K);
    assert!(scene.my_lock().is_some() && !scene.leads());
    scene.event(Event::AppGone);
    scene.answer_all();
    assert!(scene.etcd.lock().is_none() && scene.has_exited());
}

#[test]
fn an_application_that_does_not_go_holds_the_lock_for_the_drain_timeout_and_no_longer() {
    let mut scene = healthy_leader();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.live(DRAIN - NANO);
    assert!(scene.my_lock().is_some());
    scene.live(NANO);
    assert!(scene.etcd.lock().is_none() && scene.has_exited());
}

#[test]
fn an_application_that_is_gone_does_not_take_the_answers_back() {
    let mut scene = healthy_leader();
    scene.event(Event::Stop);
    scene.event(Event::AppGone);
    scene.live(K);
    assert!(scene.my_lock().is_some(), "somebody else may have asked");
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.has_exited());
}

#[test]
fn a_resignation_does_not_wait_for_the_application() {
    let mut scene = healthy_leader();
    scene.event(Event::Resign { cooldown: K });
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    assert!(scene.etcd.lock().is_none());
}

#[test]
fn a_standby_leaves_at_once_whatever_its_application_does() {
    let mut scene = Scene::of(checked());
    is(&mut scene, AppHealth::Healthy);
    let mut scene = scene.heir();
    scene.event(Event::Stop);
    scene.answer_all();
    assert!(scene.has_exited());
}

#[test]
fn an_observer_names_the_leader_and_leaves_nothing_in_etcd() {
    let mut scene = Scene::of(Settings { part: Part::Observer, publishes: true, ..bare() });
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(T);
    assert_eq!(scene.view().leader.as_ref().map(|leader| leader.identity.as_str()), Some(RIVAL));
    assert_eq!(scene.view().not_leading, Some(NotLeading::NeverLeads));
    assert_eq!(scene.role(), Role::Unknown, "nothing is routed to it");
    scene.rival_dies();
    assert_eq!(scene.view().leader, None);
    scene.live(T * 2);
    assert!(scene.etcd.lock().is_none() && !is_registered(&scene));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::Renewed(_))), 0);
    scene.event(Event::Stop);
    assert!(scene.has_exited());
}

#[test]
fn an_observer_that_led_in_an_earlier_life_gives_the_lock_back_when_the_answers_of_then_have_expired() {
    let mut led = Scene::of(Settings { remembers: true, ..bare() }).leader();
    let memory: Memory = led.memory.take().expect("a leader remembers");
    let not_before = led.now().boot.after(K);
    let inheritance = Inheritance::Release { memory, not_before };
    let mut scene = led.reborn(NANO, Settings { part: Part::Observer, remembers: true, inheritance, ..bare() });
    scene.answer_all();
    scene.live(K - NANO * 2);
    assert!(scene.etcd.lock().is_some());
    scene.live(NANO);
    assert!(scene.etcd.lock().is_none());
    assert_eq!(scene.state(), PublicState::Standby);
}

#[test]
fn the_time_of_an_illness_is_no_failover_and_its_end_has_its_own_reason() {
    let mut scene = healthy_leader();
    is(&mut scene, AppHealth::Unhealthy);
    scene.settle_answers();
    scene.live(T);
    let down = (PublicState::StandingDown, Reason::AppUnhealthy);
    assert_eq!(scene.transitions(), [down, (PublicState::Standby, Reason::AppUnhealthy)]);
    is(&mut scene, AppHealth::Healthy);
    scene.answer_all();
    assert!(scene.leads());
    assert_eq!(scene.told(|notice| matches!(notice, Notice::TookOver(_))), 0);
}
