//! Renewals: what counts, from when, and what is done while none comes.

use std::time::Duration;

use bellwether::election::{
    CallErrorKind, EndpointId, Event, LeaseId, Notice, Operation, PublicState, Reason, RenewalFailure, TimingsRequest,
};

use crate::etcd::error;
use crate::scene::{HEDGE, K, M, MILLI, NANO, Pending, R, RIVAL, RIVAL_LEASE, Scene, T};

fn failed(scene: &Scene, why: RenewalFailure) -> usize {
    scene.told(|notice| *notice == Notice::RenewalFailed(why))
}

#[test]
fn a_keep_alive_leaves_every_interval_from_send_to_send() {
    let mut scene = Scene::new().leader();
    for _ in 0..3 {
        scene.until_next_keep_alive();
        let sent = scene.now().boot;
        scene.pass(Duration::from_millis(300));
        scene.answer(Operation::KeepAlive);
        scene.pass(Duration::from_millis(100));
        scene.answer(Operation::Confirm);
        scene.pass(K - Duration::from_millis(400) - NANO);
        assert!(!scene.is_pending(Operation::KeepAlive));
        scene.pass(NANO);
        assert!(scene.is_pending(Operation::KeepAlive));
        assert_eq!(scene.now().boot, sent.after(K));
    }
}

#[test]
fn the_confirm_is_sent_only_after_the_keep_alive_was_answered() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    scene.pass(Duration::from_millis(100));
    assert!(!scene.is_pending(Operation::Confirm));
    scene.answer(Operation::KeepAlive);
    assert!(scene.is_pending(Operation::Confirm));
}

#[test]
fn an_answered_keep_alive_moves_until_only_once_it_is_confirmed() {
    let mut scene = Scene::new().leader();
    let before = scene.lead().until;
    scene.until_next_keep_alive();
    let sent = scene.now().boot;
    scene.pass(Duration::from_millis(200));
    scene.answer(Operation::KeepAlive);
    assert_eq!(scene.lead().until, before);
    scene.pass(Duration::from_millis(200));
    scene.answer(Operation::Confirm);
    assert_eq!(scene.lead().until.boot(), sent.after(T).before(M), "from the time it was sent");
}

#[test]
fn a_standby_needs_no_confirm() {
    let mut scene = Scene::new().heir();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    assert!(!scene.is_pending(Operation::Confirm));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::Renewed(_))), 1);
}

#[test]
fn a_confirm_under_another_raft_term_moves_nothing_and_is_tried_again_soon() {
    let mut scene = Scene::new().leader();
    let before = scene.lead().until;
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.etcd.raft_term += 1;
    scene.answer(Operation::Confirm);
    assert_eq!(scene.lead().until, before);
    assert_eq!(failed(&scene, RenewalFailure::RaftTermChanged), 1);
    scene.pass(Duration::from_millis(50));
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert!(scene.lead().until.boot() > before.boot());
}

#[test]
fn the_lifetime_in_the_answer_counts_not_the_one_asked_for() {
    let mut scene = Scene::new().leader();
    let stream = scene.until_next_keep_alive();
    scene.take(Operation::KeepAlive);
    let header = scene.etcd.header(EndpointId(0));
    scene.event(Event::KeepAliveAnswered { stream, header, ttl_seconds: 40 });
    scene.answer(Operation::Confirm);
    assert_eq!(scene.remaining(), Duration::from_secs(40) - M);
}

#[test]
fn a_leader_of_a_short_answer_validity_sleeps_as_long_as_any() {
    let validity = Some(Duration::from_millis(1));
    let mut scene =
        Scene::with_timings(TimingsRequest { answer_validity: validity, ..TimingsRequest::default() }).leader();
    scene.pass(MILLI * 100);
    let next = scene.next_deadline().expect("the next renewal, at the latest");
    assert!(next.since(scene.now().boot) > Duration::from_secs(1), "{next:?}");
}

#[test]
fn until_never_moves_back() {
    let mut scene = Scene::new().leader();
    let before = scene.lead().until;
    let stream = scene.until_next_keep_alive();
    scene.take(Operation::KeepAlive);
    let header = scene.etcd.header(EndpointId(0));
    scene.event(Event::KeepAliveAnswered { stream, header, ttl_seconds: 9 });
    scene.answer(Operation::Confirm);
    assert_eq!(scene.lead().until, before, "K + 9 s ends before the 15 s of the renewal before");
}

#[test]
fn a_leader_leads_until_until_and_not_one_nanosecond_longer() {
    let mut scene = Scene::new().leader();
    scene.pass(T - M - NANO);
    assert!(scene.leads());
    assert_eq!(scene.remaining(), NANO);
    scene.freeze(NANO);
    assert!(!scene.leads(), "by the view it published before, without another turn");
    scene.wake();
    assert_eq!(scene.transitions(), [(PublicState::Jeopardy, Reason::UntilPassed)]);
}

#[test]
fn a_process_stopped_beyond_until_does_not_lead_when_it_wakes() {
    let mut scene = Scene::new().leader();
    scene.freeze(T * 2);
    assert!(!scene.leads());
    let header = scene.etcd.header(EndpointId(0));
    scene.event(Event::WatchCreated { watch: bellwether::election::WatchId(1), header });
    assert_eq!(scene.state(), PublicState::Jeopardy, "whatever comes first");
}

#[test]
fn a_confirm_that_arrives_at_until_resumes_with_its_own_until() {
    let mut scene = Scene::new().leader();
    scene.pass(T - M - MILLI);
    scene.lose_all();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.freeze(scene.remaining());
    scene.answer(Operation::Confirm);
    assert!(scene.leads(), "the lease was good all the time");
    assert_eq!(
        scene.transitions(),
        [(PublicState::Jeopardy, Reason::UntilPassed), (PublicState::Leading, Reason::Resumed)]
    );
}

#[test]
fn an_answer_without_a_lifetime_stands_the_leader_down_at_once() {
    for ttl_seconds in [0, -1] {
        let mut scene = Scene::new().leader();
        let lease = scene.my_lease();
        let stream = scene.until_next_keep_alive();
        scene.take(Operation::KeepAlive);
        let header = scene.etcd.header(EndpointId(0));
        scene.event(Event::KeepAliveAnswered { stream, header, ttl_seconds });
        assert!(!scene.leads());
        assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LeaseLost)]);
        assert_eq!(failed(&scene, RenewalFailure::LeaseGone), 1);
        assert!(scene.is_closed(stream));
        scene.etcd.revoke(lease);
        scene.live(Duration::from_secs(1));
        assert!(scene.leads(), "with a new lease, in a new term");
        assert_ne!(scene.my_lease(), lease);
    }
}

/// A deposed etcd leader with a stalled disk knows nothing of a lease that the others have granted, and says so at once.
#[test]
fn a_server_that_does_not_know_a_new_lease_is_left_and_its_stream_closed() {
    let mut scene = Scene::with_endpoints(2);
    scene.answer(Operation::Grant);
    let Pending::KeepAlive { stream, endpoint, lease } = scene.take(Operation::KeepAlive) else {
        unreachable!("a keep-alive")
    };
    let header = scene.etcd.header(endpoint);
    scene.event(Event::KeepAliveAnswered { stream, header, ttl_seconds: 0 });
    assert!(scene.is_closed(stream), "nothing else would ever close it");
    scene.answer(Operation::Grant);
    let Pending::KeepAlive { endpoint: next, lease: another, .. } = scene.take(Operation::KeepAlive) else {
        unreachable!("a keep-alive")
    };
    assert_ne!(another, lease);
    assert_ne!(next, endpoint, "it would grant leases for as long as that server is stale");
}

#[test]
fn a_new_lease_starts_without_until() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    let lease = scene.my_lease();
    scene.etcd.revoke(lease);
    scene.answer(Operation::KeepAlive);
    assert_eq!(scene.state(), PublicState::Standby);
    scene.answer(Operation::Grant);
    scene.answer(Operation::Register);
    scene.answer_all();
    let claimed_at = scene.now().boot;
    assert_eq!(scene.lead().until.boot(), claimed_at.after(T).before(M));
}

#[test]
fn an_attempt_has_its_time_and_then_its_stream_is_dropped() {
    let mut scene = Scene::new().leader();
    let stream = scene.until_next_keep_alive();
    let slow = scene.take(Operation::KeepAlive);
    let late = scene.apply(&slow);
    scene.pass(R - NANO);
    assert!(!scene.is_closed(stream));
    scene.pass(NANO);
    assert!(scene.is_closed(stream));
    assert_eq!(failed(&scene, RenewalFailure::Timeout), 1);
    let before = scene.lead().until;
    scene.event(late);
    assert!(!scene.is_pending(Operation::Confirm), "a late answer belongs to no keep-alive");
    assert_eq!(scene.lead().until, before);
    assert_ne!(scene.until_next_keep_alive(), stream);
}

#[test]
fn keep_alive_and_confirm_share_one_attempts_time() {
    let mut scene = Scene::new().leader();
    let stream = scene.until_next_keep_alive();
    scene.pass(R - MILLI);
    scene.answer(Operation::KeepAlive);
    let confirm = scene.take(Operation::Confirm);
    let late = scene.apply(&confirm);
    scene.pass(MILLI);
    assert_eq!(failed(&scene, RenewalFailure::Timeout), 1);
    assert!(scene.is_closed(stream));
    let before = scene.lead().until;
    scene.event(late);
    assert_eq!(scene.lead().until, before);
}

#[test]
fn a_confirm_that_fails_is_tried_again_with_a_keep_alive_of_its_own() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.fail(Operation::Confirm, CallErrorKind::Unavailable);
    assert_eq!(failed(&scene, RenewalFailure::Error), 1);
    scene.pass(Duration::from_millis(50));
    assert!(scene.is_pending(Operation::KeepAlive) && !scene.is_pending(Operation::Confirm));
}

#[test]
fn two_attempts_fit_between_a_renewal_and_until() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    scene.lose_all();
    scene.pass(R);
    scene.until_next_keep_alive();
    scene.pass(R - MILLI * 100);
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
    assert_eq!(scene.transitions(), []);
}

#[test]
fn another_endpoint_is_asked_as_well_after_the_hedge_delay() {
    let mut scene = Scene::with_endpoints(3).leader();
    let stream = scene.until_next_keep_alive();
    scene.pass(HEDGE - NANO);
    assert_eq!(scene.count_pending(Operation::KeepAlive), 1);
    scene.pass(NANO);
    let (slow, hedge) = (scene.take(Operation::KeepAlive), scene.take(Operation::KeepAlive));
    assert_ne!(slow.endpoint(), hedge.endpoint());
    assert!(!scene.is_closed(stream), "the new stream is opened before the old one is closed");
    scene.deliver(&hedge);
    scene.answer(Operation::Confirm);
    assert!(scene.is_closed(stream));
    assert!(scene.leads());
    let late = scene.apply(&slow);
    scene.event(late);
    assert!(!scene.is_pending(Operation::Confirm), "the loser's answer is nobody's");
    scene.until_next_keep_alive();
    assert_eq!(scene.take(Operation::KeepAlive).endpoint(), hedge.endpoint(), "the winner is asked next");
}

#[test]
fn a_slow_confirm_is_hedged_too() {
    let mut scene = Scene::with_endpoints(2).leader();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.pass(HEDGE);
    assert!(scene.is_pending(Operation::KeepAlive), "on the other endpoint");
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
}

#[test]
fn a_single_endpoint_is_not_hedged() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    scene.pass(R - NANO);
    assert_eq!(scene.count_pending(Operation::KeepAlive), 1);
}

#[test]
fn the_hedge_of_short_attempts_comes_at_half_their_time() {
    let timings = TimingsRequest { attempt_timeout: Some(Duration::from_millis(400)), ..TimingsRequest::default() };
    let mut scene = Scene::with(timings, 2, 1).leader();
    scene.until_next_keep_alive();
    scene.pass(Duration::from_millis(200) - NANO);
    assert_eq!(scene.count_pending(Operation::KeepAlive), 1);
    scene.pass(NANO);
    assert_eq!(scene.count_pending(Operation::KeepAlive), 2);
}

#[test]
fn after_a_failure_the_next_attempt_goes_to_another_endpoint() {
    let mut scene = Scene::with_endpoints(3).leader();
    let stream = scene.until_next_keep_alive();
    let Pending::KeepAlive { endpoint, .. } = scene.take(Operation::KeepAlive) else { unreachable!("a keep-alive") };
    scene.end_stream(stream);
    scene.until_next_keep_alive();
    assert_ne!(scene.take(Operation::KeepAlive).endpoint(), endpoint);
}

#[test]
fn renewed_credentials_open_a_new_stream_before_the_old_one_is_closed() {
    let mut scene = Scene::new().leader();
    let old = scene.until_next_keep_alive();
    scene.answer_all();
    scene.event(Event::CredentialsRenewed);
    let new = scene.until_next_keep_alive();
    assert_ne!(new, old);
    assert!(!scene.is_closed(old));
    scene.answer_all();
    assert!(scene.is_closed(old) && !scene.is_closed(new));
    assert!(scene.leads());
    assert_eq!(scene.transitions(), []);
    assert_eq!(scene.until_next_keep_alive(), new);
}

#[test]
fn a_replacement_that_fails_is_tried_again() {
    let mut scene = Scene::new().leader();
    let old = scene.until_next_keep_alive();
    scene.answer_all();
    scene.event(Event::CredentialsRenewed);
    let failed = scene.until_next_keep_alive();
    scene.end_stream(failed);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StreamEnded { .. })), 0, "the old one still runs");
    let again = scene.until_next_keep_alive();
    assert!(again != old && again != failed);
    scene.answer_all();
    assert!(scene.is_closed(old));
}

#[test]
fn answers_of_strangers_and_of_closed_streams_are_ignored() {
    let mut scene = Scene::new().leader();
    let before = scene.lead().until;
    let header = scene.etcd.header(EndpointId(0));
    for stream in [0, 1, 77, u64::MAX].map(bellwether::election::StreamId) {
        scene.event(Event::KeepAliveAnswered { stream, header, ttl_seconds: 0 });
        scene
            .event(Event::StreamEnded { stream: bellwether::election::StreamId(99), error: error(CallErrorKind::Tls) });
    }
    for id in [0, 1, 77, u64::MAX].map(bellwether::election::OpId) {
        scene.event(Event::Answered { id, result: Err(error(CallErrorKind::LeaseNotFound)) });
        scene.event(Event::AnswersSettled { id });
    }
    assert!(scene.leads());
    assert_eq!(scene.lead().until, before);
}

#[test]
fn a_leader_without_etcd_runs_out_without_a_hot_loop_however_long_its_lease() {
    // etcd's least TTL follows from its election timeout and may be longer than the one asked for.
    let timings = TimingsRequest { lease_ttl: Some(Duration::from_secs(2)), ..TimingsRequest::default() };
    let mut scene = Scene::with_timings(timings).leader();
    let stream = scene.until_next_keep_alive();
    scene.take(Operation::KeepAlive);
    let header = scene.etcd.header(EndpointId(0));
    scene.event(Event::KeepAliveAnswered { stream, header, ttl_seconds: 15 });
    scene.answer(Operation::Confirm);
    scene.pass(Duration::from_secs(14));
    assert!(scene.leads());
    scene.pass(Duration::from_secs(1));
    assert!(!scene.leads());
}

#[test]
fn a_grant_is_repeated_with_the_same_lease_until_it_is_definite() {
    let mut scene = Scene::new();
    let (Pending::Call(first), ..) = (scene.take(Operation::Grant), ()) else { unreachable!("a call") };
    scene.deliver(&Pending::Call(first.clone()));
    let mut scene = Scene::new();
    scene.apply_and_fail(Operation::Grant, CallErrorKind::Unavailable);
    scene.pass(Duration::from_millis(50));
    let Pending::Call(second) = scene.take(Operation::Grant) else { unreachable!("a call") };
    assert_eq!(first.call, second.call, "the same seed chooses the same lease, and a retry keeps it");
    scene.deliver(&Pending::Call(second));
    scene.answer_all();
    assert!(scene.leads());
}

#[test]
fn a_registration_whose_lease_is_gone_starts_over() {
    let mut scene = Scene::new();
    scene.answer(Operation::Grant);
    let Pending::KeepAlive { lease, .. } = scene.take(Operation::KeepAlive) else { unreachable!("a keep-alive") };
    scene.etcd.revoke(lease);
    scene.answer(Operation::Register);
    assert!(scene.is_pending(Operation::Grant));
    scene.answer_all();
    assert!(scene.leads());
    assert_ne!(scene.my_lease(), lease);
}

#[test]
fn a_confirm_that_shows_another_holder_stands_the_leader_down() {
    let mut scene = Scene::new().leader();
    scene.until_next_keep_alive();
    scene.answer(Operation::KeepAlive);
    scene.etcd.operator_deletes_lock();
    scene.rival_claims(RIVAL, RIVAL_LEASE);
    scene.answer(Operation::Confirm);
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::LockDeleted)]);
    assert_eq!(scene.view().leader.as_ref().map(|leader| leader.identity.as_str()), Some(RIVAL));
    assert!(scene.etcd.has_lease(LeaseId(RIVAL_LEASE.0)));
}
