//! What runs only while this candidate leads: started after the view says so, told to stop in time, and gone before the
//! lock is let go of or claimed anew.

use std::time::Duration;

use bellwether::election::{
    Effect, Event, Identity, Instant, NotLeading, Notice, OpId, Operation, PublicState, Reason, Settings, StopTime,
    Timings, TimingsRequest,
};
#[cfg(feature = "sabotage")]
use bellwether::protections::Protections;

use crate::scene::{K, M, ME, MILLI, NANO, RIVAL, RIVAL_LEASE, Scene, T};

/// What K + 2R + M leaves of T.
const G: Duration = Duration::from_secs(2);
const DRAIN: Duration = Duration::from_secs(10);
const COOLDOWN: Duration = Duration::from_secs(30);

fn settings() -> Settings {
    settings_with(TimingsRequest::default())
}

fn settings_with(timings: TimingsRequest) -> Settings {
    let timings =
        Timings::new(TimingsRequest { stop_time: StopTime::Default, ..timings }).expect("the defaults hold together");
    assert_eq!(timings.stop_time(), G);
    Settings { works: true, ..Settings::bare(Identity::new(ME), timings, 1, 1) }
}

fn leader() -> Scene {
    Scene::of(settings()).leader()
}

/// The id of the work that was started, which must be the only order so far.
fn started(scene: &mut Scene) -> OpId {
    let orders = std::mem::take(&mut scene.orders);
    let [Effect::StartWork { id, term, until }] = orders.as_slice() else { panic!("not a start alone: {orders:?}") };
    assert_eq!((*term, *until), (scene.lead().term, scene.lead().until));
    *id
}

/// When what is left of this work is killed, told by the only order since the last look.
fn stopped(scene: &mut Scene, work: OpId) -> Instant {
    let orders = std::mem::take(&mut scene.orders);
    let [Effect::StopWork { id, kill_at }] = orders.as_slice() else { panic!("not a stop alone: {orders:?}") };
    assert_eq!(*id, work);
    *kill_at
}

#[test]
fn work_starts_with_the_term_and_the_right_to_act_ends_early_enough_to_stop_it() {
    let mut scene = leader();
    started(&mut scene);
    assert_eq!(scene.remaining(), T - M - G);
}

#[test]
fn every_renewal_moves_the_end_of_the_work() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.live(K);
    let until = scene.lead().until;
    assert_eq!(scene.orders, [Effect::ExtendWork { id: work, until }]);
    assert_eq!(scene.remaining(), T - M - G);
}

#[test]
fn a_broken_stream_brings_the_end_of_the_work_forward() {
    let window = Duration::from_secs(1);
    let timings = TimingsRequest { reconnect_window: Some(window), ..TimingsRequest::default() };
    let mut scene = Scene::of(settings_with(timings)).leader();
    let work = started(&mut scene);
    let stream = scene.until_next_keep_alive();
    scene.end_stream(stream);
    let until = scene.lead().until;
    assert_eq!(until.boot(), scene.now().boot.after(window));
    assert_eq!(scene.orders, [Effect::ExtendWork { id: work, until }]);
}

#[test]
fn without_a_renewal_the_work_is_stopped_at_until_and_dead_before_others_may_lead() {
    let mut scene = leader();
    let work = started(&mut scene);
    let until = scene.lead().until.boot();
    scene.pass(T - M - G - NANO);
    assert_eq!(scene.orders, []);
    scene.pass(NANO);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    assert_eq!(stopped(&mut scene, work), until.after(G));
}

#[test]
fn work_of_a_leader_that_was_stopped_too_long_is_killed_at_once() {
    let mut scene = leader();
    let work = started(&mut scene);
    let until = scene.lead().until.boot();
    scene.freeze(T - MILLI);
    scene.wake();
    assert!(stopped(&mut scene, work) == until.after(G) && until.after(G) < scene.now().boot);
}

#[test]
fn the_same_term_goes_on_only_with_new_work_after_the_old_is_gone() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.pass(T - M - G);
    stopped(&mut scene, work);
    scene.lose_all();
    scene.live(M);
    assert!(scene.leads(), "the lease had survived: {:?}", scene.view());
    assert_eq!(scene.orders, [], "the old work is still there");
    scene.event(Event::WorkStopped { id: work });
    assert_ne!(started(&mut scene), work);
}

#[test]
fn a_leader_whose_lock_is_deleted_stops_its_work_and_claims_only_when_it_is_gone() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    assert_eq!(stopped(&mut scene, work), scene.now().boot.after(G));
    scene.live(T * 2);
    assert!(scene.my_lock().is_none() && !scene.leads());
    assert_eq!(scene.view().not_leading, Some(NotLeading::WorkStopping));
    scene.event(Event::WorkStopped { id: work });
    scene.live(T);
    assert!(scene.leads());
}

#[test]
fn the_lock_is_let_go_of_only_when_the_work_is_gone_however_long_that_takes() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.event(Event::Stop);
    assert_eq!(stopped(&mut scene, work), scene.now().boot.after(G));
    scene.settle_answers();
    scene.live(DRAIN * 3);
    assert!(scene.my_lock().is_some() && !scene.has_exited(), "renewing all the while");
    scene.event(Event::WorkStopped { id: work });
    scene.answer_all();
    assert!(scene.etcd.lock().is_none() && scene.has_exited());
}

#[cfg(feature = "sabotage")]
#[test]
fn without_waiting_for_the_work_the_lock_would_be_free_while_it_runs() {
    let mut scene = leader();
    started(&mut scene);
    Protections::take_away(Some(Protections::NO_WORK_WAIT));
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.answer_all();
    Protections::take_away(None);
    assert!(scene.etcd.lock().is_none() && scene.has_exited());
}

#[test]
fn a_resignation_waits_for_the_work_and_for_the_answers() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.event(Event::Resign { cooldown: COOLDOWN });
    stopped(&mut scene, work);
    scene.event(Event::WorkStopped { id: work });
    scene.answer_all();
    assert!(scene.my_lock().is_some(), "the answers given out are still good");
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.etcd.lock().is_none());
}

#[test]
fn who_lost_the_lock_does_not_leave_before_its_work() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.live(K);
    assert!(!scene.has_exited());
    scene.event(Event::WorkStopped { id: work });
    scene.answer_all();
    assert!(scene.has_exited());
}

#[test]
fn work_that_fails_gives_the_leadership_back() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.event(Event::WorkFailed { id: work });
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::StandingDown, Reason::WorkFailed)]);
    stopped(&mut scene, work);
    scene.event(Event::WorkStopped { id: work });
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.etcd.lock().is_none());
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.live(COOLDOWN * 2);
    assert_eq!(scene.orders, [], "it stands by");
}

#[test]
fn work_that_has_done_its_part_ends_the_process_in_order() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.event(Event::WorkFinished { id: work });
    assert_eq!(scene.transitions(), [(PublicState::StandingDown, Reason::WorkFinished)]);
    stopped(&mut scene, work);
    scene.event(Event::WorkStopped { id: work });
    scene.settle_answers();
    scene.answer_all();
    assert!(scene.has_exited() && scene.etcd.lock().is_none());
}

#[test]
fn news_of_work_that_is_over_changes_nothing() {
    let mut scene = leader();
    let work = started(&mut scene);
    for stale in
        [Event::WorkStopped { id: work }, Event::WorkFailed { id: OpId(0) }, Event::WorkFinished { id: OpId(0) }]
    {
        scene.event(stale);
    }
    assert!(scene.leads());
    assert_eq!(scene.orders, []);
}

#[test]
fn a_lease_that_is_lost_while_standing_down_does_not_cut_the_wait_for_the_work_short() {
    let mut scene = leader();
    let work = started(&mut scene);
    scene.event(Event::Stop);
    scene.settle_answers();
    scene.etcd.revoke(scene.my_lease());
    scene.live(K * 2);
    assert!(!scene.has_exited());
    scene.event(Event::WorkStopped { id: work });
    scene.answer_all();
    assert!(scene.has_exited());
    assert_eq!(scene.told(|notice| matches!(notice, Notice::Released { confirmed: true })), 1);
}

#[test]
fn a_stop_time_that_does_not_fit_into_the_lease_is_refused_with_both_sides() {
    let stop_time = StopTime::Given(G + NANO);
    let found =
        Timings::new(TimingsRequest { stop_time, ..TimingsRequest::default() }).expect_err("a nanosecond too long");
    let text = found.iter().map(ToString::to_string).collect::<String>();
    assert!(
        text.contains("--stop-timeout: 2.000000001s") && text.contains("15.000000001s > --lease-ttl 15s"),
        "{text}"
    );
    for ttl in 2..=3600 {
        let lease_ttl = Some(Duration::from_secs(ttl));
        let timings =
            Timings::new(TimingsRequest { lease_ttl, stop_time: StopTime::Default, ..TimingsRequest::default() });
        let stop_time = timings.unwrap_or_else(|faults| panic!("{ttl} s: {faults:?}")).stop_time();
        assert!(
            stop_time >= Duration::from_millis(100) && stop_time <= Duration::from_secs(10),
            "{ttl} s: {stop_time:?}"
        );
    }
}

#[test]
fn without_work_nothing_is_ordered_and_nothing_is_taken_off() {
    let mut scene = Scene::new().leader();
    assert_eq!(scene.remaining(), T - M);
    scene.event(Event::Resign { cooldown: COOLDOWN });
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    assert_eq!(scene.orders, []);
}
