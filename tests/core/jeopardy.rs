//! The stream's end, the reconnect window, Jeopardy, and the clocks.

use std::time::Duration;

use bellwether::election::{
    Call, EndpointId, Event, Identity, NotLeading, Notice, OpId, Operation, PublicState, Reason, Request,
    TimingsRequest,
};

use crate::scene::{K, M, ME, MILLI, NANO, Pending, R, RIVAL, RIVAL_LEASE, Scene, T};

const WINDOW: Duration = Duration::from_secs(5);

fn with_window(window: Duration) -> Scene {
    Scene::with_timings(TimingsRequest { reconnect_window: Some(window), ..TimingsRequest::default() }).leader()
}

/// A leader whose stream ends half a second after a confirmed renewal.
fn stream_ends(scene: &mut Scene) {
    let stream = scene.until_next_keep_alive();
    scene.answer_all();
    scene.pass(Duration::from_millis(500));
    scene.end_stream(stream);
}

/// Keeps the process alone with itself: whatever it sends fails.
fn without_etcd(scene: &mut Scene, duration: Duration) {
    let end = scene.now().boot.after(duration);
    while scene.now().boot < end {
        scene.lose_all();
        scene.pass(Duration::from_millis(10).min(end.since(scene.now().boot)));
    }
    scene.lose_all();
}

/// Every confirm comes under another raft term than its keep-alive, until the candidate gives up.
fn unconfirmed_until_revoked(scene: &mut Scene) {
    let seen = scene.now().boot;
    while !scene.is_pending(Operation::Revoke) {
        if scene.is_pending(Operation::KeepAlive) {
            scene.answer(Operation::KeepAlive);
        }
        if scene.is_pending(Operation::Confirm) {
            scene.etcd.raft_term += 1;
            scene.answer(Operation::Confirm);
        }
        scene.pass(MILLI * 10);
        assert!(scene.now().boot < seen.after(T + K), "it holds the lock for ever");
    }
    assert!(scene.now().boot >= seen.after(T));
}

#[test]
fn the_end_of_the_stream_leaves_the_reconnect_window() {
    let mut scene = Scene::new().leader();
    stream_ends(&mut scene);
    assert_eq!(scene.told(|notice| *notice == Notice::StreamEnded { window: WINDOW }), 1);
    assert_eq!(scene.remaining(), WINDOW);
    without_etcd(&mut scene, WINDOW - NANO);
    assert!(scene.leads());
    without_etcd(&mut scene, NANO);
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::Jeopardy, Reason::StreamEnded)]);
}

#[test]
fn the_window_never_reaches_beyond_until() {
    let mut scene = with_window(Duration::from_hours(1));
    stream_ends(&mut scene);
    assert_eq!(scene.remaining(), T - M - Duration::from_millis(500));
    without_etcd(&mut scene, T - M - Duration::from_millis(500));
    assert_eq!(scene.transitions(), [(PublicState::Jeopardy, Reason::UntilPassed)]);
}

#[test]
fn a_stream_reopened_in_time_changes_nothing() {
    let mut scene = Scene::new().leader();
    stream_ends(&mut scene);
    scene.until_next_keep_alive();
    scene.pass(R - MILLI);
    scene.answer(Operation::KeepAlive);
    assert!(scene.remaining() < WINDOW - R + MILLI * 50, "the window closes on a confirmed renewal only");
    scene.answer(Operation::Confirm);
    assert_eq!(scene.transitions(), []);
    scene.live(T);
    assert!(scene.leads());
}

#[test]
fn without_a_window_the_end_of_the_stream_stands_down_at_once() {
    let mut scene = with_window(Duration::ZERO);
    stream_ends(&mut scene);
    assert!(!scene.leads());
    assert_eq!(scene.state(), PublicState::Jeopardy);
}

#[test]
fn a_window_does_not_start_anew_with_every_stream_that_ends() {
    let mut scene = Scene::new().leader();
    stream_ends(&mut scene);
    for _ in 0..4 {
        scene.pass(Duration::from_secs(1));
        let stream = scene.until_next_keep_alive();
        scene.end_stream(stream);
    }
    scene.lose_all();
    without_etcd(&mut scene, Duration::from_secs(1));
    assert_eq!(scene.state(), PublicState::Jeopardy);
}

#[test]
fn a_lease_that_is_gone_stands_down_whatever_the_window() {
    let mut scene = with_window(Duration::from_hours(1));
    stream_ends(&mut scene);
    let lease = scene.my_lease();
    scene.etcd.revoke(lease);
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LeaseLost)]);
}

#[test]
fn the_end_of_a_stream_that_was_replaced_is_not_the_streams_end() {
    let mut scene = with_window(Duration::ZERO);
    let old = scene.until_next_keep_alive();
    scene.answer_all();
    scene.event(Event::CredentialsRenewed);
    scene.answer_all();
    scene.end_stream(old);
    assert!(scene.leads());
}

#[test]
fn the_end_of_a_hedge_is_not_the_streams_end() {
    let timings = TimingsRequest { reconnect_window: Some(Duration::ZERO), ..TimingsRequest::default() };
    let mut scene = Scene::with(timings, 2, 1).leader();
    scene.until_next_keep_alive();
    let slow = scene.take(Operation::KeepAlive);
    scene.pass(Duration::from_millis(500));
    let Pending::KeepAlive { stream: hedge, .. } = scene.take(Operation::KeepAlive) else {
        unreachable!("a keep-alive")
    };
    scene.end_stream(hedge);
    assert!(scene.leads());
    scene.deliver(&slow);
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
}

#[test]
fn a_confirmed_renewal_in_jeopardy_resumes_the_same_term() {
    let mut scene = Scene::new().leader();
    let term = scene.lead().term;
    let lease = scene.my_lease();
    // etcd is cut off from this candidate, and elects another leader, which extends every lease.
    without_etcd(&mut scene, T - M);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    assert_eq!(scene.view().not_leading, Some(NotLeading::Jeopardy));
    assert_eq!(scene.view().jeopardy_episodes, 1);
    scene.etcd.elects_a_leader(scene.now().boot.nanos());
    without_etcd(&mut scene, MILLI);
    assert!(scene.my_lock().is_some() && scene.etcd.has_lease(lease), "in Jeopardy the lock is not let go");
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    assert!(!scene.leads());
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
    assert_eq!(scene.lead().term, term);
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Leading, Reason::Resumed)));
}

#[test]
fn jeopardy_does_not_resume_under_another_raft_term() {
    let mut scene = Scene::new().leader();
    without_etcd(&mut scene, T - M);
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.etcd.raft_term += 1;
    scene.answer(Operation::Confirm);
    assert_eq!(scene.state(), PublicState::Jeopardy);
}

#[test]
fn a_lease_gone_in_jeopardy_means_to_campaign_again() {
    let mut scene = Scene::new().leader();
    let token = scene.token();
    without_etcd(&mut scene, T - M);
    let lease = scene.my_lease();
    scene.etcd.revoke(lease);
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    assert_eq!(scene.state(), PublicState::Standby);
    scene.live(Duration::from_secs(1));
    assert!(scene.leads());
    assert!(scene.token() > token);
    assert!(scene.transitions().contains(&(PublicState::Standby, Reason::LeaseLost)));
}

#[test]
fn a_key_gone_in_jeopardy_means_to_campaign_again_without_staying_away() {
    let mut scene = Scene::new().leader();
    without_etcd(&mut scene, T - M);
    scene.etcd.operator_deletes_lock();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Standby, Reason::LockDeleted)));
    scene.live(Duration::from_millis(300));
    assert!(scene.leads());
}

#[test]
fn jeopardy_that_cannot_be_confirmed_revokes_the_lease_after_one_ttl() {
    let mut scene = Scene::new().leader();
    without_etcd(&mut scene, T - M);
    // etcd is back, but every confirm comes under another raft term: whatever goes on there, it must end.
    unconfirmed_until_revoked(&mut scene);
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Standby, Reason::LeaseLost)));
    scene.answer(Operation::Revoke);
    assert!(scene.etcd.lock().is_none());
}

#[test]
fn jeopardy_without_etcd_waits_for_it() {
    let mut scene = Scene::new().leader();
    without_etcd(&mut scene, T * 10);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    assert!(!scene.is_pending(Operation::Revoke));
}

#[test]
fn a_leader_in_jeopardy_is_not_named_by_itself() {
    let mut scene = Scene::new().leader();
    without_etcd(&mut scene, T - M);
    assert_eq!(scene.view().leader, None);
}

#[test]
fn a_wall_clock_that_runs_ahead_by_more_than_the_margin_ends_the_lead() {
    let mut scene = Scene::new().leader();
    scene.wall_jumps(M);
    assert!(scene.leads(), "exactly the margin is what it allows for");
    scene.wall_jumps(NANO);
    assert!(!scene.leads(), "at once, before the loop wakes");
    assert_eq!(scene.remaining(), Duration::ZERO);
    scene.wake();
    assert_eq!(scene.transitions(), [(PublicState::Jeopardy, Reason::ClockJumped)]);
    scene.answer_all();
    assert!(scene.leads(), "the next confirmed renewal measures from the new wall time");
    assert_eq!(scene.transitions().last(), Some(&(PublicState::Leading, Reason::Resumed)));
}

#[test]
fn a_keep_alive_sent_before_the_clock_jumped_does_not_count() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    scene.wall_jumps(M + NANO);
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert_eq!(scene.state(), PublicState::Jeopardy);
    assert!(!scene.is_pending(Operation::KeepAlive), "not at etcd's pace");
    scene.live(Duration::from_millis(50));
    assert!(scene.leads());
}

#[test]
fn a_leader_whose_key_is_deleted_stands_down_at_once_and_lets_others_go_first() {
    let mut scene = Scene::new().leader();
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LockDeleted)]);
    assert_eq!(scene.view().not_leading, Some(NotLeading::CoolingDown));
    scene.live(Duration::from_secs(1) - MILLI);
    assert!(scene.etcd.lock().is_none());
    scene.live(MILLI * 2);
    assert!(scene.leads(), "nobody else wanted it");
}

#[test]
fn a_leader_whose_key_is_deleted_goes_to_the_end_of_the_line() {
    let mut scene = Scene::new().leader();
    let me = Identity::new(ME);
    let place = scene.etcd.candidate(&me).expect("registered").create_revision;
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    let rival = scene.etcd.candidate(&Identity::new(RIVAL)).expect("registered").create_revision;
    assert!(place < rival);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    scene.answer_all();
    let place = scene.etcd.candidate(&me).expect("registered anew").create_revision;
    assert!(place > rival, "an heir that stays away would only delay the next handover");
}

#[test]
fn a_leader_whose_key_is_overwritten_stands_down_at_once() {
    for keeps_the_lease in [false, true] {
        let mut scene = Scene::new().leader();
        let lease = keeps_the_lease.then(|| scene.my_lease());
        scene.etcd.somebody_puts_lock("operator", lease);
        scene.catch_up();
        assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LockOverwritten)]);
        scene.pass(Duration::from_secs(1));
        let deletes = scene.is_pending(Operation::DeleteLock);
        assert_eq!(deletes, keeps_the_lease, "what its own lease keeps alive would block everyone for ever");
    }
}

#[test]
fn a_deletion_the_watch_has_lost_is_found_by_the_next_confirm() {
    let mut scene = Scene::new().leader();
    scene.etcd.operator_deletes_lock();
    scene.pass(K);
    scene.answer(Operation::KeepAlive);
    assert!(scene.leads(), "nobody has told it yet");
    scene.answer(Operation::Confirm);
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LockDeleted)]);
}

#[test]
fn my_lease_on_the_lock_is_adopted_after_a_confirmed_renewal() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let claim = scene.take(Operation::Claim);
    scene.apply(&claim);
    // The answer never comes; the watch tells that the key is there, under my lease.
    scene.catch_up();
    assert_eq!(scene.view().not_leading, Some(NotLeading::Unconfirmed));
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert_eq!(scene.transitions(), [(PublicState::Leading, Reason::Adopted)]);
    assert!(!scene.is_pending(Operation::Claim));
}

#[test]
fn my_lease_on_the_lock_that_cannot_be_confirmed_is_revoked_after_one_ttl() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    scene.etcd.raft_term += 1;
    scene.answer(Operation::Claim);
    unconfirmed_until_revoked(&mut scene);
    scene.answer(Operation::Revoke);
    scene.answer_all();
    assert!(scene.leads(), "with a new lease");
}

#[test]
fn a_late_claim_after_a_resignation_is_deleted_and_nothing_else_is() {
    let mut scene = Scene::with_endpoints(2).heir();
    scene.rival_dies();
    // Both copies of the claim leave; one wins, the other is on its way for a long time.
    scene.pass(Duration::from_millis(500));
    scene.answer(Operation::Claim);
    let late = scene.take(Operation::Claim);
    scene.event(Event::Resign { cooldown: Duration::from_secs(30) });
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    assert!(scene.etcd.lock().is_none());
    scene.apply(&late);
    let ghost = scene.my_lock().expect("etcd has applied it now").create_revision;
    scene.answer_all();
    assert!(scene.etcd.lock().is_none(), "deleted");
    assert!(!scene.leads());
    let again = Pending::Call(Request {
        id: OpId(0),
        endpoint: EndpointId(0),
        timeout: R,
        call: Call::DeleteLock { create_revision: ghost, lease: scene.my_lease() },
    });
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.apply(&again);
    assert!(scene.etcd.lock().is_some(), "a copy of that delete, later still, is guarded by the revision");
}

#[test]
fn a_key_whose_deletion_is_under_way_is_not_adopted_when_the_cool_down_ends() {
    let mut scene = Scene::with_endpoints(2).heir();
    scene.rival_dies();
    scene.pass(Duration::from_millis(500));
    scene.answer(Operation::Claim);
    let late = scene.take(Operation::Claim);
    scene.event(Event::Resign { cooldown: Duration::from_millis(50) });
    scene.settle_answers();
    scene.answer(Operation::DeleteLock);
    scene.apply(&late);
    scene.answer(Operation::Observe);
    let delete = scene.take(Operation::DeleteLock);
    scene.pass(Duration::from_millis(50));
    for _ in 0..100 {
        for operation in [Operation::KeepAlive, Operation::Confirm, Operation::Unregister, Operation::Register] {
            if scene.is_pending(operation) {
                scene.answer(operation);
            }
        }
        assert!(!scene.leads(), "a term that its own delete is about to end");
        scene.pass(MILLI);
    }
    scene.deliver(&delete);
    scene.answer_all();
    scene.live(Duration::from_millis(200));
    assert!(scene.leads(), "by a claim of its own");
}

#[test]
fn a_claim_given_up_for_a_rival_and_applied_late_leads_all_the_same() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let late = scene.take(Operation::Claim);
    scene.rival_claims("web-9", RIVAL_LEASE);
    scene.catch_up();
    scene.etcd.revoke(RIVAL_LEASE);
    scene.apply(&late);
    scene.answer_all();
    assert!(scene.leads());
}

#[test]
fn a_stream_dropped_after_a_timeout_opens_no_window_but_its_successors_end_does() {
    let mut scene = Scene::new().leader();
    let slow = scene.until_next_keep_alive();
    scene.take(Operation::KeepAlive);
    scene.pass(R);
    assert!(scene.is_closed(slow));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StreamEnded { .. })), 0);
    let refused = scene.until_next_keep_alive();
    scene.end_stream(refused);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StreamEnded { .. })), 1);
}

#[test]
fn the_end_of_the_stream_in_use_opens_the_window_although_a_hedge_is_under_way() {
    let mut scene = Scene::with_endpoints(2).leader();
    let stream = scene.until_next_keep_alive();
    scene.take(Operation::KeepAlive);
    scene.pass(Duration::from_millis(500));
    scene.end_stream(stream);
    assert!(scene.remaining() <= WINDOW);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StreamEnded { .. })), 1);
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert!(scene.remaining() > WINDOW, "the hedge came in time");
}

#[test]
fn a_lead_that_a_clock_jump_ended_is_no_lead_for_whatever_comes_next() {
    let mut scene = Scene::new().leader();
    scene.wall_jumps(M + NANO);
    scene.event(Event::Resign { cooldown: Duration::ZERO });
    assert_eq!(scene.transitions(), [(PublicState::Jeopardy, Reason::ClockJumped)]);
}
