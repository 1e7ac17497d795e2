//! A process that comes back before the lease of the one before it has ended goes on with its term, and two at once
//! never do.

use std::time::Duration;

use bellwether::election::{
    AppHealth, Application, Call, CallErrorKind, CandidateRecord, ClusterId, EndpointId, Epoch, Event, Identity,
    Inheritance, Memory, Nonce, Notice, Operation, PublicState, Reason, Settings, Timings, TimingsRequest,
};
#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;

use crate::scene::{K, M, ME, NANO, Pending, RIVAL, RIVAL_LEASE, Scene, T};

const SOON: Duration = Duration::from_secs(2);
/// The longest that an answer promises by default.
const V: Duration = Duration::from_secs(1);

fn life(nonce: u64) -> Settings {
    let timings = Timings::new(TimingsRequest::default()).expect("the defaults hold together");
    Settings { remembers: true, nonce: Nonce(nonce), ..Settings::bare(Identity::new(ME), timings, 1, nonce) }
}

fn second_life(memory: Memory) -> Settings {
    Settings { inheritance: Inheritance::Resume(memory), ..life(2) }
}

/// A leader, and what it keeps.
fn leader() -> (Scene, Memory) {
    let scene = Scene::of(life(1)).leader();
    let memory = scene.memory.clone().expect("a leader remembers its term");
    (scene, memory)
}

#[test]
fn a_leader_remembers_each_renewal_that_counts() {
    let (mut scene, memory) = leader();
    assert_eq!((memory.lease, memory.term.token), (scene.my_lease(), scene.token()));
    assert_eq!(memory.ttl, T);
    scene.live(K);
    let later = scene.memory.clone().expect("still");
    assert_eq!(later.sent.since(memory.sent), K);
}

#[test]
fn what_is_let_go_of_is_forgotten_and_what_only_stands_down_is_not() {
    let (mut scene, _) = leader();
    scene.event(Event::Stop);
    assert!(scene.memory.is_some(), "killed now, it would have to be gone on with");
    scene.settle_answers();
    assert_eq!(scene.memory, None, "before the release is answered");
    let (mut scene, _) = leader();
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    assert_eq!(scene.memory, None);
}

#[test]
fn a_process_that_is_back_in_time_goes_on_with_the_same_lease_and_term() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, second_life(memory.clone()));
    assert_eq!(scene.state(), PublicState::Starting);
    scene.answer_all();
    assert!(scene.leads(), "{:?}", scene.view());
    assert_eq!((scene.my_lease(), scene.lead().term), (memory.lease, memory.term));
    assert_eq!(scene.transitions(), [(PublicState::Leading, Reason::Inherited)]);
    assert_eq!(scene.remaining(), T - M);
    scene.live(T * 2);
    assert!(scene.leads());
}

#[test]
fn it_leads_only_by_a_renewal_that_was_confirmed_after_its_own_nonce_was_in_place() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, second_life(memory));
    scene.answer(Operation::Probe);
    let resume = scene.take(Operation::Resume);
    for operation in [Operation::KeepAlive, Operation::Observe] {
        scene.answer(operation);
    }
    scene.catch_up();
    assert!(!scene.is_pending(Operation::Confirm) && !scene.leads());
    scene.deliver(&resume);
    scene.answer(Operation::KeepAlive);
    assert!(!scene.leads());
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
}

#[test]
fn a_lease_that_has_ended_is_not_mourned() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(T + NANO, second_life(memory.clone()));
    scene.answer_all();
    assert!(scene.leads());
    assert!(scene.lead().term > memory.term && scene.my_lease() != memory.lease);
}

#[test]
fn a_lock_that_another_has_by_now_is_not_taken_from_it() {
    let (mut scene, memory) = leader();
    scene.etcd.operator_deletes_lock();
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    let mut scene = scene.reborn(SOON, second_life(memory.clone()));
    scene.answer_all();
    assert!(!scene.leads());
    assert_eq!(scene.told(|notice| matches!(notice, Notice::NotResumed { .. })), 1);
    assert!(!scene.etcd.has_lease(memory.lease), "nothing hangs on it, and nobody renews it");
    assert_eq!(scene.state(), PublicState::Standby);
    scene.rival_dies();
    scene.live(K);
    assert!(scene.leads());
}

#[test]
fn a_lock_that_was_claimed_anew_with_the_same_lease_is_another_term() {
    let (mut scene, memory) = leader();
    scene.etcd.operator_deletes_lock();
    let mut again = scene.reborn(SOON, second_life(Memory { sent: memory.sent, ..memory.clone() }));
    again.answer_all();
    assert!(again.leads() && again.lead().term > memory.term);
}

#[test]
fn a_memory_of_another_cluster_is_left_alone() {
    let (scene, memory) = leader();
    let foreign = Memory { cluster: ClusterId(memory.cluster.0 + 1), ..memory.clone() };
    let mut scene = scene.reborn(SOON, second_life(foreign));
    scene.answer_all();
    assert!(!scene.leads() && scene.etcd.has_lease(memory.lease), "the twin's lease is not its to revoke");
    assert_eq!(scene.told(|notice| matches!(notice, Notice::NotResumed { .. })), 1);
}

/// A second process, with a nonce of its own, goes on with the lease while the first one lives.
fn another_process_goes_on(scene: &mut Scene, memory: &Memory) {
    let registered_at = scene.now().wall;
    let record = CandidateRecord { epoch: Epoch(0), registered_at, leading_since: None, nonce: Some(Nonce(2)) };
    let resume = Call::Resume { lease: memory.lease, token: memory.term.token, record };
    let (boot, me) = (scene.now().boot.nanos(), Identity::new(ME));
    scene.etcd.call(boot, &me, EndpointId(0), &resume).expect("the lease lives");
}

#[test]
fn whom_another_process_has_replaced_gives_way_at_its_next_confirm() {
    let (mut scene, memory) = leader();
    another_process_goes_on(&mut scene, &memory);
    scene.live(K);
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::Superseded)]);
    assert!(scene.etcd.has_lease(memory.lease) && scene.my_lock().is_some(), "they are the other's now");
    scene.live(K);
    assert!(!scene.leads());
}

/// Both stand by with one lease, which neither confirms.
#[test]
fn a_claim_that_finds_the_key_of_another_process_with_the_same_lease_makes_no_leader() {
    let mut scene = Scene::of(life(1)).heir();
    scene.rival_dies();
    let claim = scene.take(Operation::Claim);
    let record = bellwether::election::CandidateRecord {
        epoch: Epoch(0),
        registered_at: scene.now().wall,
        leading_since: Some(scene.now().wall),
        nonce: Some(Nonce(2)),
    };
    let others = Call::Claim { lease: scene.my_lease(), record };
    let (boot, me) = (scene.now().boot.nanos(), Identity::new(ME));
    scene.etcd.call(boot, &me, bellwether::election::EndpointId(0), &others).expect("the lease lives");
    scene.deliver(&claim);
    assert!(!scene.leads());
    scene.answer_all();
    assert!(!scene.leads());
    assert_eq!(scene.told(|notice| matches!(notice, Notice::Superseded)), 1);
}

#[test]
fn who_goes_on_where_answers_promise_nothing_is_not_due_for_ever() {
    let request = TimingsRequest { answer_validity: Some(Duration::ZERO), ..TimingsRequest::default() };
    let timings = Timings::new(request).expect("the timings hold together");
    let scene = Scene::of(Settings { timings, ..life(1) }).leader();
    let memory = scene.memory.clone().expect("a leader remembers its term");
    let mut scene = scene.reborn(SOON, Settings { timings, ..second_life(memory) });
    scene.answer(Operation::Probe);
    assert!(scene.next_deadline().is_some_and(|at| at > scene.now().boot));
}

#[cfg(feature = "sabotage")]
#[test]
fn without_the_nonce_two_processes_would_lead_by_one_lease() {
    let (mut scene, memory) = leader();
    another_process_goes_on(&mut scene, &memory);
    Protections::take_away(Some(Protections::NO_NONCE_CHECK));
    scene.live(K * 2);
    Protections::take_away(None);
    assert!(scene.leads());
}

#[test]
fn a_delete_of_the_dead_process_that_arrives_late_ends_the_term_it_was_meant_for() {
    let (mut scene, memory) = leader();
    scene.event(Event::Resign { cooldown: K });
    scene.settle_answers();
    let late: Pending = scene.take(Operation::DeleteLock);
    let mut scene = scene.reborn(SOON, second_life(memory));
    scene.answer_all();
    assert!(scene.leads());
    scene.apply(&late);
    scene.catch_up();
    assert!(!scene.leads(), "the watch tells, as of an operator's delete");
}

#[test]
fn an_answer_that_is_lost_while_resuming_is_asked_for_again() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, second_life(memory.clone()));
    scene.answer(Operation::Probe);
    scene.apply_and_fail(Operation::Resume, CallErrorKind::Unavailable);
    scene.live(K);
    assert!(scene.leads());
    assert_eq!(scene.lead().term, memory.term);
}

#[test]
fn a_dead_lease_found_by_the_resume_itself_means_starting_anew() {
    let (mut scene, memory) = leader();
    scene.etcd.revoke(memory.lease);
    let mut scene = scene.reborn(SOON, second_life(memory.clone()));
    scene.answer_all();
    assert!(scene.leads() && scene.lead().term > memory.term);
}

#[test]
fn a_short_life_gives_the_lock_to_others_when_its_answers_have_expired() {
    let (mut scene, memory) = leader();
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    let not_before = scene.now().boot.after(SOON);
    let inheritance = Inheritance::Release { memory: memory.clone(), not_before };
    let mut scene = scene.reborn(NANO, Settings { inheritance, ..life(2) });
    scene.answer_all();
    assert!(scene.etcd.has_lease(memory.lease));
    scene.live(SOON);
    assert!(!scene.etcd.has_lease(memory.lease) && !scene.leads());
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(K);
    assert_eq!(scene.state(), PublicState::Standby);
}

#[test]
fn a_resumed_leader_leads_while_its_application_has_not_been_asked_and_not_when_it_is_unhealthy() {
    let (scene, memory) = leader();
    let checked = |memory| Settings { application: Application::Checked, ..second_life(memory) };
    let mut scene = scene.reborn(SOON, checked(memory));
    scene.answer_all();
    assert!(scene.leads(), "{:?}", scene.view());
    scene.event(Event::AppHealth(AppHealth::Unhealthy));
    assert!(!scene.leads());
}

#[test]
fn an_unhealthy_application_found_while_resuming_gives_the_lock_back() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, Settings { application: Application::Checked, ..second_life(memory) });
    scene.answer(Operation::Probe);
    scene.event(Event::AppHealth(AppHealth::Unhealthy));
    scene.live(V - NANO);
    assert!(scene.my_lock().is_some(), "the answers of the earlier life are still good");
    scene.live(NANO);
    assert!(!scene.leads() && scene.etcd.lock().is_none(), "{:?}", scene.etcd.lock());
}

#[test]
fn who_is_told_to_stop_while_resuming_lets_go_of_the_lock_when_the_answers_of_the_earlier_life_have_expired() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(NANO, second_life(memory));
    scene.answer(Operation::Probe);
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.live(V - NANO);
    assert!(!scene.has_exited() && scene.etcd.lock().is_some());
    scene.live(NANO);
    assert!(scene.has_exited() && scene.etcd.lock().is_none());
}

#[test]
fn a_resumed_leader_that_resigns_at_once_waits_for_the_answers_of_the_earlier_life() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(NANO, second_life(memory));
    scene.answer_all();
    assert!(scene.leads());
    scene.event(Event::Resign { cooldown: K });
    scene.settle_answers();
    scene.live(V - NANO);
    assert!(scene.my_lock().is_some());
    scene.live(NANO);
    assert!(scene.etcd.lock().is_none());
}

#[test]
fn news_are_what_leader_tells_and_no_renewal_is_news() {
    let (mut scene, _) = leader();
    let (version, news) = (scene.view().version, scene.view().news);
    scene.live(T * 2);
    assert!(scene.view().version > version);
    assert_eq!(scene.view().news, news);
    scene.event(Event::Resign { cooldown: K });
    assert_eq!(scene.view().news, news + 1);
}
