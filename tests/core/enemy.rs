//! What an enemy of the work, of the gate and of inherited terms has tried: late requests of lives that are over, answers
//! that never come, and things that happen at one instant.

use std::time::Duration;

use bellwether::election::{
    AppHealth, Application, Call, CallErrorKind, Effect, EndpointId, Event, Identity, Inheritance, Instant, Memory,
    Nonce, Notice, Operation, PublicState, Reason, Settings, StopTime, Timings, TimingsRequest,
};

use crate::scene::{K, M, ME, MILLI, R, RIVAL, RIVAL_LEASE, Scene, T};

/// How soon a restarted process is back.
const SOON: Duration = Duration::from_secs(2);
/// What K + 2R + M leaves of T.
const G: Duration = Duration::from_secs(2);
/// A lease that is of no use is given up after one of its lives, and has expired after another.
const GIVEN_UP_BY: Duration = Duration::from_secs(15 + 15 + 1);

fn life(nonce: u64, endpoints: usize) -> Settings {
    let timings = Timings::new(TimingsRequest::default()).expect("the defaults hold together");
    Settings { remembers: true, nonce: Nonce(nonce), ..Settings::bare(Identity::new(ME), timings, endpoints, nonce) }
}

fn next_life(nonce: u64, memory: Memory) -> Settings {
    Settings { inheritance: Inheritance::Resume(memory), ..life(nonce, 1) }
}

fn leader() -> (Scene, Memory) {
    let scene = Scene::of(life(1, 1)).leader();
    let memory = scene.memory.clone().expect("a leader remembers its term");
    (scene, memory)
}

fn working_leader() -> Scene {
    let request = TimingsRequest { stop_time: StopTime::Default, ..TimingsRequest::default() };
    let timings = Timings::new(request).expect("the defaults hold together");
    let mut scene = Scene::of(Settings { works: true, ..Settings::bare(Identity::new(ME), timings, 1, 1) }).leader();
    scene.orders.clear();
    scene
}

fn candidate_of_a_healthy_application() -> Settings {
    Settings { application: Application::Checked, remembers: false, ..life(1, 1) }
}

/// When what is left of the work is killed: the only order since the last look.
fn kill_at(scene: &mut Scene) -> Instant {
    let orders = std::mem::take(&mut scene.orders);
    let [Effect::StopWork { kill_at, .. }] = orders.as_slice() else { panic!("not a stop alone: {orders:?}") };
    *kill_at
}

/// Lives for so long while etcd answers everything but requests of these operations, which fail.
fn live_without(scene: &mut Scene, duration: Duration, refused: &[Operation]) {
    let end = scene.now().boot.after(duration);
    while scene.now().boot < end {
        for _ in 0..100 {
            scene.catch_up();
            for operation in refused {
                while scene.is_pending(*operation) {
                    scene.fail(*operation, CallErrorKind::Unavailable);
                }
            }
            let others = [
                Operation::Probe,
                Operation::Grant,
                Operation::Observe,
                Operation::Register,
                Operation::Unregister,
                Operation::Claim,
                Operation::Resume,
                Operation::Confirm,
                Operation::DeleteLock,
                Operation::Revoke,
                Operation::KeepAlive,
            ];
            let Some(next) = others.into_iter().find(|one| !refused.contains(one) && scene.is_pending(*one)) else {
                break;
            };
            scene.answer(next);
        }
        let next = scene.next_deadline().map_or(end, |at| at.min(end));
        scene.pass(next.since(scene.now().boot));
    }
}

// ---- inherited terms

#[test]
fn who_cannot_put_itself_in_the_place_of_the_life_before_does_not_hold_the_lock_for_ever() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, next_life(2, memory.clone()));
    live_without(&mut scene, GIVEN_UP_BY, &[Operation::Resume]);
    assert!(!scene.etcd.has_lease(memory.lease), "the lock is held and nobody leads: {:?}", scene.view().state);
}

#[test]
fn who_cannot_confirm_that_it_goes_on_with_a_term_does_not_hold_the_lock_for_ever() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, next_life(2, memory.clone()));
    live_without(&mut scene, GIVEN_UP_BY, &[Operation::Confirm]);
    assert!(!scene.etcd.has_lease(memory.lease), "the lock is held and nobody leads: {:?}", scene.view().state);
}

#[test]
fn a_standby_that_cannot_confirm_a_lock_of_its_own_gives_it_up_within_a_lease() {
    let mut scene = Scene::of(life(1, 1)).heir();
    scene.rival_dies();
    // An etcd leader is elected between its last keep-alive and its claim: it leads only by a confirmed renewal.
    scene.etcd.elects_a_leader(scene.now().boot.nanos());
    scene.answer(Operation::Claim);
    let lease = scene.my_lease();
    live_without(&mut scene, T + MILLI, &[Operation::Confirm]);
    assert!(!scene.etcd.has_lease(lease));
}

#[test]
fn the_resume_of_a_life_that_is_over_costs_the_one_after_it_a_failover_and_makes_no_second_leader() {
    let (scene, memory) = leader();
    let mut second = scene.reborn(SOON, next_life(2, memory.clone()));
    second.answer(Operation::Probe);
    // A stalled member has it in its queue; another one would have answered the hedge.
    let late = second.take(Operation::Resume);
    let mut third = second.reborn(SOON, next_life(3, memory.clone()));
    third.answer_all();
    assert!(third.leads());
    third.apply(&late);
    third.live(K);
    assert_eq!(third.transitions().last(), Some(&(PublicState::Standby, Reason::Superseded)));
    assert!(third.my_lock().is_some(), "it cannot know that nobody leads by it");
    third.live(T + K);
    assert!(third.leads() && third.lead().term > memory.term);
}

#[test]
fn what_was_inherited_and_is_let_go_of_is_forgotten_first() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, next_life(2, memory.clone()));
    scene.memory = Some(memory);
    scene.answer(Operation::Probe);
    scene.event(Event::Stop);
    scene.settle_answers();
    // The stage itself refuses a release of what is remembered.
    scene.live(K);
    assert!(scene.has_exited() && scene.memory.is_none());
}

#[test]
fn what_is_lost_at_the_instant_it_is_first_led_is_not_remembered() {
    let (scene, memory) = leader();
    let mut scene = scene.reborn(SOON, Settings { inheritance: Inheritance::Resume(memory.clone()), ..life(2, 2) });
    // One endpoint answers all; of the other nothing is heard, until its probe has had its time.
    let (first, second) = (scene.take(Operation::Probe), scene.take(Operation::Probe));
    scene.deliver(&first);
    for _ in 0..20 {
        scene.catch_up();
        for operation in [Operation::Resume, Operation::KeepAlive, Operation::Confirm, Operation::Observe] {
            if scene.is_pending(operation) {
                scene.answer(operation);
            }
        }
    }
    assert_eq!(scene.state(), PublicState::Starting, "it has not heard of {:?}", second.endpoint());
    // The process is stopped over the deadline; when it goes on, the deadline and a watch's news come in one turn of the
    // driver, and its effects after both.
    scene.etcd.operator_deletes_lock();
    scene.freeze(R);
    scene.catch_up();
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Standby, Reason::LockDeleted)));
    assert_eq!(scene.memory, None);
}

#[test]
fn whom_another_process_has_replaced_lets_go_of_nothing_that_is_the_others() {
    let (mut scene, memory) = leader();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.event(Event::Resign { cooldown: K });
    scene.settle_answers();
    // The delete is refused for now; meanwhile another process takes the lease over.
    scene.fail(Operation::DeleteLock, CallErrorKind::Unavailable);
    let record = bellwether::election::CandidateRecord {
        epoch: memory.term.epoch,
        registered_at: scene.now().wall,
        leading_since: None,
        nonce: Some(Nonce(2)),
    };
    let resume = Call::Resume { lease: memory.lease, token: memory.term.token, record };
    let boot = scene.now().boot.nanos();
    scene.etcd.call(boot, &Identity::new(ME), EndpointId(0), &resume).expect("the lease lives");
    scene.answer(Operation::Confirm);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::Superseded)), 1);
    scene.live(K);
    assert!(scene.my_lock().is_some(), "deleted under the process that leads by it");
}

#[test]
fn a_claim_of_a_dead_life_that_wins_late_blocks_the_lock_for_one_lease_at_most() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let late = scene.take(Operation::Claim);
    let mut scene = scene.reborn(SOON, life(2, 1));
    scene.apply(&late);
    scene.live(T * 2 + K);
    assert!(scene.leads(), "{:?}", scene.view());
}

#[test]
fn no_keep_alive_of_the_dead_life_lends_its_send_time_to_the_next() {
    let (mut scene, memory) = leader();
    scene.until_next_keep_alive();
    let late = scene.take(Operation::KeepAlive);
    let mut scene = scene.reborn(SOON, next_life(2, memory));
    scene.apply(&late);
    scene.answer_all();
    assert_eq!(scene.remaining(), T - M, "by its own renewal");
}

// ---- the application's health

#[test]
fn a_claim_that_wins_late_does_not_put_an_unhealthy_candidate_back_into_the_line() {
    let mut scene = Scene::of(candidate_of_a_healthy_application());
    scene.event(Event::AppHealth(AppHealth::Healthy));
    let mut scene = scene.heir();
    scene.rival_dies();
    let late = scene.take(Operation::Claim);
    scene.event(Event::AppHealth(AppHealth::Unhealthy));
    scene.answer(Operation::Unregister);
    scene.apply(&late);
    scene.live(T);
    assert!(!scene.leads() && scene.etcd.lock().is_none(), "it blocks nobody's claim");
    scene.live(T);
    let place = scene.etcd.candidate(&Identity::new(ME));
    assert!(
        place.is_none(),
        "a ghost that each of the others lets go first, for as long as it is unhealthy: {place:?}"
    );
}

#[test]
fn an_unhealthy_candidate_whose_claim_wins_late_lets_go_of_it_at_once() {
    let mut scene = Scene::of(candidate_of_a_healthy_application());
    scene.event(Event::AppHealth(AppHealth::Healthy));
    let mut scene = scene.heir();
    scene.rival_dies();
    let late = scene.take(Operation::Claim);
    scene.event(Event::AppHealth(AppHealth::Unhealthy));
    let answer = scene.apply(&late);
    scene.event(answer);
    scene.answer_all();
    assert!(!scene.leads() && scene.etcd.lock().is_none());
    assert_eq!(scene.transitions(), []);
}

#[test]
fn who_may_not_lead_and_cannot_delete_a_lock_of_its_own_gives_the_lease_up() {
    let mut scene = Scene::of(candidate_of_a_healthy_application());
    scene.event(Event::AppHealth(AppHealth::Healthy));
    let mut scene = scene.heir();
    scene.rival_dies();
    let late = scene.take(Operation::Claim);
    let lease = scene.my_lease();
    scene.event(Event::AppHealth(AppHealth::Unhealthy));
    scene.apply(&late);
    assert_eq!(scene.my_lock().and_then(|lock| lock.lease), Some(lease));
    live_without(&mut scene, GIVEN_UP_BY, &[Operation::DeleteLock]);
    assert!(!scene.etcd.has_lease(lease), "the lock is held and nobody leads: {:?}", scene.view());
}

#[test]
fn health_that_flaps_leaves_a_candidate_in_line_once_and_at_its_end() {
    let mut scene = Scene::of(candidate_of_a_healthy_application());
    scene.event(Event::AppHealth(AppHealth::Healthy));
    let mut scene = scene.heir();
    let place = |scene: &Scene| scene.etcd.candidate(&Identity::new(ME)).map(|key| key.create_revision);
    let first = place(&scene).expect("registered");
    for round in 0..50 {
        let health = if round % 2 == 0 { AppHealth::Unhealthy } else { AppHealth::Healthy };
        scene.event(Event::AppHealth(health));
        scene.pass(MILLI);
    }
    assert!(scene.count_pending(Operation::Unregister) + scene.count_pending(Operation::Register) <= 2);
    scene.live(K);
    assert!(place(&scene).expect("registered again") > first);
    scene.rival_dies();
    scene.live(K);
    assert!(scene.leads());
}

// ---- work

#[test]
fn a_clock_that_jumped_over_the_end_of_the_lease_leaves_the_work_no_time() {
    let mut scene = working_leader();
    let until = scene.lead().until;
    // The machine was stopped with its boot clock: so much has passed for everybody else.
    let jump = T * 2;
    scene.wall_jumps(jump);
    scene.wake();
    assert!(!scene.leads());
    let end = until.boot().after(G).before(jump);
    let kill_at = kill_at(&mut scene);
    assert!(
        kill_at <= end.max(scene.now().boot),
        "the lease has been over for long: {kill_at:?}, now {:?}",
        scene.now()
    );
}

#[test]
fn a_clock_that_jumped_within_the_lease_leaves_the_work_its_time_to_stop() {
    let mut scene = working_leader();
    scene.wall_jumps(M + MILLI);
    scene.wake();
    assert!(!scene.leads());
    assert_eq!(kill_at(&mut scene), scene.now().boot.after(G));
}

#[test]
fn work_that_a_new_term_finds_still_stopping_is_started_for_it_only_afterwards() {
    let mut scene = working_leader();
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    kill_at(&mut scene);
    scene.live(T * 3);
    assert!(!scene.leads() && scene.orders.is_empty() && !scene.is_pending(Operation::Claim));
}

#[test]
fn a_rival_takes_over_while_the_work_of_a_lost_term_does_not_end() {
    let mut scene = working_leader();
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(T * 3);
    assert_eq!(scene.etcd.lock().map(|lock| lock.holder.as_str().to_owned()), Some(RIVAL.to_owned()));
    assert!(!scene.leads() && scene.orders.len() == 1);
}
