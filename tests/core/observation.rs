//! Knowing who holds the lock: looks, watches, and what is done when they fail.

use std::time::Duration;

use bellwether::election::{
    CallErrorKind, Change, EtcdContact, Event, Identity, LeaseId, Notice, Operation, PublicState, RECENT_TERMS,
    WatchId, WatchTarget,
};

use crate::scene::{ME, MILLI, NANO, Pending, R, RIVAL, RIVAL_LEASE, Scene, T};

fn leader_named_by(scene: &Scene) -> Option<&str> {
    scene.view().leader.as_ref().map(|leader| leader.identity.as_str())
}

#[test]
fn a_watch_starts_right_after_the_look_it_rests_on() {
    let mut scene = Scene::new();
    let look = scene.take(Operation::Observe);
    let answer = scene.apply(&look);
    let seen = scene.etcd.header(look.endpoint()).revision;
    scene.event(answer);
    let watch = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    assert_eq!(watch.from.0, seen.0 + 1);
}

#[test]
fn the_lock_is_looked_at_again_every_ttl() {
    let mut scene = Scene::new().heir();
    let looked = scene.now().boot;
    while !scene.is_pending(Operation::Observe) {
        scene.pass(MILLI * 10);
        for operation in [Operation::KeepAlive, Operation::Probe] {
            if scene.is_pending(operation) {
                scene.answer(operation);
            }
        }
    }
    assert!(scene.now().boot.since(looked) >= T - MILLI * 10 && scene.now().boot.since(looked) <= T + MILLI * 10);
}

#[test]
fn a_deletion_the_watch_has_lost_is_found_by_the_next_look() {
    let mut scene = Scene::new().heir();
    let watch = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    scene.go_deaf();
    scene.etcd.revoke(RIVAL_LEASE);
    scene.live(T);
    assert!(scene.leads());
    let rebuilt = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    assert_ne!(rebuilt.id, watch.id, "a watch that disagrees with a look is rebuilt from it");
}

#[test]
fn a_watch_that_ends_is_rebuilt_from_a_fresh_look() {
    for kind in [CallErrorKind::Compacted, CallErrorKind::Unavailable, CallErrorKind::Unauthenticated] {
        let mut scene = Scene::new().heir();
        let old = scene.watch_on(&WatchTarget::Lock).expect("a watch");
        scene.end_watch(&WatchTarget::Lock, kind);
        scene.etcd.revoke(RIVAL_LEASE);
        assert!(!scene.is_pending(Operation::Observe), "after a short wait");
        scene.pass(Duration::from_millis(50));
        assert!(scene.watch_on(&WatchTarget::Lock).is_none(), "not before the look");
        scene.answer(Operation::Observe);
        assert!(scene.is_pending(Operation::Claim));
        assert!(scene.watch_on(&WatchTarget::Lock).expect("a watch").from > old.from);
    }
}

#[test]
fn a_watch_that_ends_at_once_every_time_is_tried_ever_more_slowly() {
    let mut scene = Scene::new().heir();
    let end = scene.now().boot.after(Duration::from_secs(10));
    let mut ends = 0;
    while scene.now().boot < end {
        if scene.watch_on(&WatchTarget::Lock).is_some() {
            scene.end_watch(&WatchTarget::Lock, CallErrorKind::PermissionDenied);
            ends += 1;
        }
        scene.live(MILLI * 5);
    }
    assert!((20..=45).contains(&ends), "twice to four times a second, once it has backed off: {ends} in 10 s");
}

#[test]
fn a_watch_that_etcd_does_not_acknowledge_is_rebuilt() {
    let mut scene = Scene::new();
    scene.answer(Operation::Observe);
    let silent = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    scene.pass(R - NANO);
    assert!(scene.watch_on(&WatchTarget::Lock).is_some_and(|watch| watch.id == silent.id));
    scene.pass(NANO);
    assert!(scene.watch_on(&WatchTarget::Lock).is_none_or(|watch| watch.id != silent.id));
    scene.live(Duration::from_secs(1));
    assert!(scene.leads());
}

#[test]
fn an_endpoint_that_times_out_is_not_trusted_with_a_watch() {
    let mut scene = Scene::with_endpoints(2).heir();
    let old = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    scene.until_next_keep_alive();
    let slow = scene.take(Operation::KeepAlive);
    assert_eq!(slow.endpoint(), old.endpoint);
    scene.pass(Duration::from_millis(500));
    scene.take(Operation::KeepAlive);
    scene.pass(R);
    let new = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    assert!(new.id != old.id && new.from >= old.from);
}

#[test]
fn what_ended_watches_report_is_ignored() {
    let mut scene = Scene::new().heir();
    let old = scene.watch_on(&WatchTarget::Lock).expect("a watch");
    scene.event(Event::CredentialsRenewed);
    let new = scene.watch_on(&WatchTarget::Lock).expect("a new watch");
    assert_ne!(new.id, old.id);
    let header = scene.etcd.header(old.endpoint);
    for watch in [old.id, WatchId(0), WatchId(u64::MAX)] {
        scene.event(Event::WatchChanged { watch, header, change: Change::Deleted(header.revision) });
        scene.event(Event::WatchEnded { watch, error: crate::etcd::error(CallErrorKind::Other) });
    }
    assert!(!scene.is_pending(Operation::Claim));
    assert_eq!(scene.watch_on(&WatchTarget::Lock).map(|watch| watch.id), Some(new.id));
}

#[test]
fn an_older_answer_does_not_undo_newer_knowledge() {
    let mut scene = Scene::new().heir();
    scene.live(T - MILLI);
    scene.pass(MILLI);
    let look = scene.take(Operation::Observe);
    let stale = scene.apply(&look);
    // While its answer is on the way, the watch tells that the rival died.
    scene.rival_dies();
    scene.answer(Operation::Claim);
    assert!(scene.leads());
    scene.event(stale);
    assert!(scene.leads(), "the rival's key is what was there before");
}

#[test]
fn a_standby_names_the_leader_and_forgets_it_when_it_is_gone() {
    let mut scene = Scene::new().heir();
    assert_eq!(leader_named_by(&scene), Some(RIVAL));
    scene.rival_dies();
    assert_eq!(leader_named_by(&scene), None);
    scene.answer(Operation::Claim);
    assert_eq!(leader_named_by(&scene), Some(ME));
}

#[test]
fn nobody_is_named_once_etcd_has_been_silent_for_a_ttl() {
    let mut scene = Scene::new().heir();
    scene.until_next_keep_alive();
    let heard = scene.now().boot;
    scene.answer_all();
    while scene.now().boot < heard.after(T - MILLI) {
        scene.lose_all();
        scene.pass(MILLI * 100);
    }
    assert_eq!(scene.view().etcd, EtcdContact::Unreachable);
    scene.pass(MILLI * 200);
    assert_eq!(leader_named_by(&scene), None, "its lease would have expired by now");
    scene.lose_all();
    scene.live(T);
    assert_eq!(leader_named_by(&scene), Some(RIVAL));
    assert_eq!(scene.told(|notice| *notice == Notice::EtcdSilent), 1);
    assert_eq!(scene.told(|notice| *notice == Notice::EtcdBack), 1);
}

#[test]
fn a_candidate_never_names_itself_unless_it_leads() {
    let mut scene = Scene::new().heir();
    scene.etcd.raft_term += 1;
    scene.rival_dies();
    scene.answer(Operation::Claim);
    assert!(scene.my_lock().is_some() && !scene.leads());
    assert_eq!(leader_named_by(&scene), None, "the key names it, but no renewal is confirmed");
    scene.answer(Operation::KeepAlive);
    scene.answer(Operation::Confirm);
    assert_eq!(leader_named_by(&scene), Some(ME));
}

#[test]
fn recent_terms_are_kept_newest_first_and_bounded() {
    let mut scene = Scene::new().heir();
    for round in 0..40 {
        scene.etcd.operator_deletes_lock();
        scene.rival_claims(&format!("web-{round}"), LeaseId(1000 + round));
        scene.catch_up();
        scene.answer_all();
    }
    let recent = &scene.view().recent_terms;
    assert_eq!(recent.len(), RECENT_TERMS);
    assert!(recent.windows(2).all(|pair| pair[0].leader.term > pair[1].leader.term));
}

#[test]
fn the_view_changes_its_version_only_when_it_changes() {
    let mut scene = Scene::new().heir();
    let version = scene.view().version;
    scene.wake();
    assert_eq!(scene.view().version, version);
    scene.rival_dies();
    assert!(scene.view().version > version);
}

#[test]
fn many_candidates_cost_no_more_calls_than_few() {
    let mut calls = Vec::new();
    for others in [1, 200] {
        let mut scene = Scene::new();
        for other in 0..others {
            scene.rival_registers(&format!("web-{other}b"), LeaseId(100 + other));
        }
        scene.rival_claims(RIVAL, RIVAL_LEASE);
        scene.answer_all();
        scene.rival_dies();
        scene.pass(Duration::from_millis(200));
        let mut count = 0;
        while scene.is_pending(Operation::Claim) || scene.is_pending(Operation::Observe) {
            let next = if scene.is_pending(Operation::Claim) { Operation::Claim } else { Operation::Observe };
            scene.answer(next);
            count += 1;
        }
        assert!(scene.leads());
        assert!(scene.view().candidates.len() <= bellwether::election::CANDIDATES_LISTED);
        calls.push(count);
    }
    assert_eq!(calls[0], calls[1]);
}

#[test]
fn a_hedged_look_is_answered_once() {
    let mut scene = Scene::with_endpoints(2);
    scene.pass(Duration::from_millis(500));
    assert_eq!(scene.count_pending(Operation::Observe), 2);
    let (first, second) = (scene.take(Operation::Observe), scene.take(Operation::Observe));
    assert_ne!(first.endpoint(), second.endpoint());
    scene.deliver(&second);
    scene.deliver(&first);
    assert_eq!(scene.watches().len(), 1);
    assert!(matches!(first, Pending::Call(_)));
    assert_eq!(scene.state(), PublicState::Starting);
    assert_eq!(scene.etcd.candidate(&Identity::new(ME)), None);
}
