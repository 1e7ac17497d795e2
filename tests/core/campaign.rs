//! Claiming the lock: who may, when, and what a claim is worth.

use std::time::Duration;

use bellwether::election::{
    CallErrorKind, ClaimResult, Identity, LeaseId, NotLeading, Notice, Operation, PublicState, Reason, TimingsRequest,
    WatchTarget,
};

use crate::scene::{HANDOVER_HEDGE, K, M, ME, MILLI, NANO, R, RIVAL, RIVAL_LEASE, Scene, T};

const CLAIM_DELAY_LEAST: Duration = Duration::from_millis(100);
const CLAIM_DELAY_MOST: Duration = Duration::from_millis(200);

fn claimed(scene: &Scene, result: ClaimResult) -> usize {
    scene.told(|notice| *notice == Notice::ClaimAnswered(result))
}

#[test]
fn the_only_candidate_leads_after_its_first_claim() {
    let mut scene = Scene::new();
    scene.answer_all();
    assert!(scene.leads());
    assert_eq!(
        scene.transitions(),
        [(PublicState::Standby, Reason::Registered), (PublicState::Leading, Reason::Claimed)]
    );
    assert_eq!(scene.token(), scene.my_lock().expect("it holds the lock").create_revision);
    assert_eq!(scene.remaining(), T - M);
}

#[test]
fn nothing_is_claimed_before_the_candidate_is_registered() {
    let mut scene = Scene::new();
    for operation in [Operation::Probe, Operation::Observe, Operation::Grant, Operation::KeepAlive] {
        scene.answer(operation);
    }
    assert!(scene.is_pending(Operation::Register));
    scene.pass(R - NANO);
    assert!(!scene.is_pending(Operation::Claim));
    assert_eq!(scene.state(), PublicState::Starting);
}

#[test]
fn nothing_is_claimed_before_a_keep_alive_was_answered() {
    let mut scene = Scene::new();
    for operation in [Operation::Probe, Operation::Observe, Operation::Grant, Operation::Register] {
        scene.answer(operation);
    }
    scene.answer(Operation::Observe);
    assert_eq!(scene.state(), PublicState::Standby);
    assert!(!scene.is_pending(Operation::Claim));
    scene.answer(Operation::KeepAlive);
    assert!(scene.is_pending(Operation::Claim));
}

#[test]
fn the_heir_claims_the_moment_the_lock_is_free() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    assert!(scene.is_pending(Operation::Claim));
    scene.pass(MILLI);
    scene.answer(Operation::Claim);
    assert!(scene.leads());
    assert_eq!(scene.told(|notice| *notice == Notice::TookOver(MILLI)), 1);
}

#[test]
fn who_is_not_the_heir_claims_after_100_to_200_ms() {
    let mut delays = Vec::new();
    for seed in 0..50 {
        let mut scene = Scene::with(TimingsRequest::default(), 1, seed).third();
        scene.rival_dies();
        let mut delay = Duration::ZERO;
        while !scene.is_pending(Operation::Claim) {
            scene.pass(MILLI);
            delay += MILLI;
            assert!(delay <= CLAIM_DELAY_MOST + MILLI, "seed {seed}: nothing after {delay:?}");
        }
        assert!(delay >= CLAIM_DELAY_LEAST, "seed {seed}: claimed after {delay:?}");
        delays.push(delay);
    }
    delays.sort();
    delays.dedup();
    assert!(delays.len() > 20, "spread, so that they do not come all at once: {delays:?}");
}

#[test]
fn who_is_not_the_heir_claims_only_if_the_lock_is_still_free() {
    let mut scene = Scene::new().third();
    scene.rival_dies();
    scene.pass(Duration::from_millis(50));
    scene.rival_claims("web-0b", LeaseId(4712));
    scene.catch_up();
    scene.pass(Duration::from_secs(1));
    assert!(!scene.is_pending(Operation::Claim));
    assert_eq!(scene.view().not_leading, Some(NotLeading::LockHeld(Identity::new("web-0b"))));
}

#[test]
fn until_of_a_claim_counts_from_the_sending_of_the_keep_alive_before_it() {
    let mut scene = Scene::new().heir();
    scene.until_next_keep_alive();
    scene.pass(Duration::from_millis(400));
    scene.answer(Operation::KeepAlive);
    scene.pass(Duration::from_secs(1));
    scene.rival_dies();
    scene.pass(Duration::from_millis(300));
    scene.answer(Operation::Claim);
    assert_eq!(scene.remaining(), T - M - Duration::from_millis(1700));
}

#[test]
fn a_keep_alive_unanswered_when_the_claim_left_does_not_count_for_it() {
    let mut scene = Scene::new().heir();
    scene.until_next_keep_alive();
    scene.rival_dies();
    scene.pass(MILLI);
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Claim);
    assert!(!scene.leads(), "neither the old one, which is due, nor this one, which came after the claim had left");
    assert_eq!(scene.view().not_leading, Some(NotLeading::Unconfirmed));
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::Leading, Reason::Adopted)]);
}

#[test]
fn a_claim_under_another_raft_term_than_the_keep_alive_waits_for_a_confirmed_renewal() {
    let mut scene = Scene::new().heir();
    scene.etcd.raft_term += 1;
    scene.rival_dies();
    scene.answer(Operation::Claim);
    assert_eq!(claimed(&scene, ClaimResult::Won), 1);
    assert!(!scene.leads());
    scene.answer(Operation::KeepAlive);
    assert!(!scene.leads());
    scene.answer(Operation::Confirm);
    assert!(scene.leads());
    assert_eq!(scene.remaining(), T - M);
}

#[test]
fn a_claim_answered_when_its_keep_alive_has_run_out_waits_for_a_confirmed_renewal() {
    let timings = TimingsRequest {
        keepalive_interval: Some(Duration::from_secs(1)),
        safety_margin: Some(Duration::from_secs(9)),
        ..TimingsRequest::default()
    };
    let mut scene = Scene::with_timings(timings).heir();
    // A keep-alive is good for 6 s; etcd is silent for that long, and then answers the claim first.
    scene.until_next_keep_alive();
    scene.lose_all();
    scene.pass(Duration::from_secs(4));
    scene.rival_dies();
    let claim = scene.take(Operation::Claim);
    let answer = scene.apply(&claim);
    scene.freeze(Duration::from_secs(1));
    scene.event(answer);
    assert!(!scene.leads());
    scene.answer_all();
    assert!(scene.leads());
}

#[test]
fn an_ambiguous_claim_is_settled_by_claiming_again() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    scene.apply_and_fail(Operation::Claim, CallErrorKind::Unavailable);
    assert!(!scene.leads());
    let token = scene.my_lock().expect("etcd had applied it").create_revision;
    scene.etcd.is_busy();
    scene.pass(Duration::from_millis(50));
    scene.answer(Operation::Claim);
    assert_eq!(claimed(&scene, ClaimResult::HeldAlready), 1);
    assert!(!scene.leads(), "another process with the same lease may have made the key");
    scene.answer_all();
    assert!(scene.leads());
    assert_eq!(scene.token(), token, "the term is that of the key, not of the second transaction");
}

#[test]
fn a_claim_that_times_out_is_claimed_again_and_its_late_answer_ignored() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let first = scene.take(Operation::Claim);
    let late = scene.apply(&first);
    scene.pass(R);
    scene.event(late);
    assert!(!scene.leads(), "nobody waits for that answer any more");
    scene.live(Duration::from_secs(1));
    assert!(scene.leads());
}

#[test]
fn a_lost_claim_leaves_a_standby_that_knows_the_winner() {
    let mut scene = Scene::new().heir();
    scene.etcd.revoke(RIVAL_LEASE);
    scene.rival_claims("web-9", LeaseId(99));
    let watch = scene.watch_on(&WatchTarget::Lock).expect("a standby watches the lock");
    let free = scene.etcd.changes(&WatchTarget::Lock, watch.from).remove(0);
    let header = scene.etcd.header(watch.endpoint);
    scene.event(bellwether::election::Event::WatchChanged { watch: watch.id, header, change: free });
    scene.answer(Operation::Claim);
    assert_eq!(claimed(&scene, ClaimResult::Lost), 1);
    assert_eq!(scene.state(), PublicState::Standby);
    assert_eq!(scene.view().leader.as_ref().map(|leader| leader.identity.as_str()), Some("web-9"));
    scene.live(T);
    assert_eq!(claimed(&scene, ClaimResult::Lost), 1, "it waits instead of claiming again");
}

#[test]
fn a_claim_whose_lease_is_gone_starts_over_with_a_new_lease() {
    let mut scene = Scene::new().heir();
    let lease = scene.my_lease();
    scene.etcd.revoke(lease);
    scene.rival_dies();
    scene.answer(Operation::Claim);
    assert_eq!(claimed(&scene, ClaimResult::LeaseGone), 1);
    assert_eq!(scene.state(), PublicState::Standby);
    scene.live(Duration::from_secs(1));
    assert!(scene.leads());
    assert_ne!(scene.my_lease(), lease);
}

#[test]
fn a_claim_seen_by_the_watch_before_its_answer_is_the_same_claim() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let claim = scene.take(Operation::Claim);
    let answer = scene.apply(&claim);
    scene.pass(MILLI);
    scene.catch_up();
    assert!(!scene.leads(), "the watch says that the lock is mine, not that the lease is good");
    scene.event(answer);
    assert!(scene.leads(), "no further round trip");
    assert_eq!(scene.transitions(), [(PublicState::Leading, Reason::Claimed)]);
    assert_eq!(scene.told(|notice| *notice == Notice::TookOver(MILLI)), 1);
}

#[test]
fn claims_are_hedged_to_another_endpoint_soon_and_both_answers_mean_one_term() {
    let mut scene = Scene::with_endpoints(2).heir();
    scene.rival_dies();
    scene.pass(HANDOVER_HEDGE - NANO);
    assert_eq!(scene.count_pending(Operation::Claim), 1);
    scene.pass(NANO);
    assert_eq!(scene.count_pending(Operation::Claim), 2);
    let (slow, hedge) = (scene.take(Operation::Claim), scene.take(Operation::Claim));
    assert_ne!(slow.endpoint(), hedge.endpoint());
    scene.deliver(&hedge);
    let token = scene.token();
    scene.deliver(&slow);
    assert_eq!(scene.token(), token);
    assert_eq!(scene.transitions(), [(PublicState::Leading, Reason::Claimed)]);
}

#[test]
fn a_second_live_candidate_of_the_same_identity_is_refused_loudly_and_keeps_trying() {
    let mut scene = Scene::new();
    scene.rival_registers(ME, LeaseId(5));
    scene.live(K * 3);
    assert_eq!(scene.state(), PublicState::Starting);
    assert_eq!(scene.view().not_leading, Some(NotLeading::IdentityTaken));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::IdentityTaken { lease: Some(LeaseId(5)) })), 4);
    assert!(scene.etcd.lock().is_none(), "it never claimed");
    scene.etcd.revoke(LeaseId(5));
    scene.live(K);
    assert!(scene.leads());
}

#[test]
fn the_death_of_the_predecessor_makes_one_new_look() {
    let mut scene = Scene::new().third();
    scene.etcd.revoke(LeaseId(4712));
    scene.catch_up();
    assert_eq!(scene.count_pending(Operation::Observe), 1);
    scene.answer(Operation::Observe);
    assert!(!scene.is_pending(Operation::Observe));
    scene.catch_up();
    scene.rival_dies();
    assert!(scene.is_pending(Operation::Claim), "it is the heir now");
}

#[test]
fn a_standby_watches_the_lock_and_its_predecessor_only() {
    let mut scene = Scene::new().third();
    let targets: Vec<_> = scene.watches().iter().map(|watch| watch.target.clone()).collect();
    assert_eq!(targets, [WatchTarget::Lock, WatchTarget::Candidate(Identity::new("web-0b"))]);
    scene.etcd.operator_deletes_candidate(&Identity::new("web-0b"));
    scene.answer_all();
    let targets: Vec<_> = scene.watches().iter().map(|watch| watch.target.clone()).collect();
    assert_eq!(targets, [WatchTarget::Lock], "before it there is the leader only, whom the lock tells of");
}

#[test]
fn when_the_predecessor_becomes_leader_its_successor_is_the_heir() {
    let mut scene = Scene::new().third();
    scene.rival_dies();
    scene.rival_claims("web-0b", LeaseId(4712));
    scene.answer_all();
    scene.etcd.revoke(LeaseId(4712));
    scene.catch_up();
    assert!(scene.is_pending(Operation::Claim));
}

#[test]
fn a_foreign_program_that_holds_the_lock_is_waited_for() {
    let mut scene = Scene::new();
    scene.rival_claims("cron-job", LeaseId(99));
    scene.etcd.operator_deletes_candidate(&Identity::new("cron-job"));
    scene.live(T * 3);
    assert_eq!(scene.view().not_leading, Some(NotLeading::LockHeld(Identity::new("cron-job"))));
    scene.etcd.revoke(LeaseId(99));
    scene.catch_up();
    scene.answer(Operation::Claim);
    assert!(scene.leads());
}

#[test]
fn a_holder_named_like_the_predecessor_but_with_another_lease_makes_no_hot_loop() {
    let mut scene = Scene::new();
    // A program on web-0 that takes the same lock key the same way, under the same host name.
    scene.rival_registers(RIVAL, RIVAL_LEASE);
    scene.etcd.grant(0, LeaseId(99), Duration::from_hours(9000));
    scene.etcd.somebody_puts_lock(RIVAL, Some(LeaseId(99)));
    scene.live(T);
    assert_eq!(scene.state(), PublicState::Standby);
}

#[test]
fn a_lock_without_a_lease_is_told_of_loudly_and_waited_for() {
    let mut scene = Scene::new();
    scene.etcd.somebody_puts_lock("operator", None);
    scene.live(T * 2);
    assert_eq!(scene.state(), PublicState::Standby);
    assert_eq!(scene.view().not_leading, Some(NotLeading::LockWithoutLease(Identity::new("operator"))));
    assert_eq!(scene.view().leader, None, "a key that nobody keeps alive names no leader");
    assert!(scene.told(|notice| matches!(notice, Notice::LockWithoutLease { .. })) >= 2);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    scene.answer(Operation::Claim);
    assert!(scene.leads());
}

#[test]
fn who_lost_its_registration_registers_anew() {
    let mut scene = Scene::new().heir();
    scene.etcd.operator_deletes_candidate(&Identity::new(ME));
    scene.live(T);
    assert!(scene.etcd.candidate(&Identity::new(ME)).is_some());
}

#[test]
fn a_registration_that_an_older_look_does_not_list_is_kept() {
    let mut scene = Scene::new();
    let early = scene.take(Operation::Observe);
    let stale = scene.apply(&early);
    for operation in [Operation::Probe, Operation::Grant, Operation::Register] {
        scene.answer(operation);
    }
    let place = scene.etcd.candidate(&Identity::new(ME)).expect("registered").create_revision;
    scene.event(stale);
    assert!(!scene.is_pending(Operation::Register));
    scene.answer_all();
    assert_eq!(scene.etcd.candidate(&Identity::new(ME)).expect("registered").create_revision, place);
}

#[test]
fn a_claim_whose_key_the_watch_has_already_seen_deleted_does_not_lead() {
    let mut scene = Scene::new().heir();
    scene.rival_dies();
    let claim = scene.take(Operation::Claim);
    let answer = scene.apply(&claim);
    scene.etcd.operator_deletes_lock();
    scene.catch_up();
    scene.event(answer);
    assert!(!scene.leads());
    scene.answer_all();
    assert!(scene.leads(), "by another claim");
    assert_eq!(scene.token(), scene.my_lock().expect("it holds the lock").create_revision);
}
