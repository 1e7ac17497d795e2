//! Several endpoints, several clusters, and a store that was reset.

use std::time::Duration;

use bellwether::election::{
    Answer, Body, CallErrorKind, Change, ClusterId, EndpointHealth, EndpointId, Event, LeaseId, NotLeading, Notice,
    OpId, Operation, PublicState, Reason, WatchTarget,
};

use crate::etcd::Etcd;
use crate::scene::{K, MILLI, NANO, R, RIVAL_LEASE, Scene, T};

/// A refused endpoint is asked every 30 s which cluster it belongs to.
const PROBED_WITHIN: Duration = Duration::from_secs(31);

fn another_cluster() -> Etcd {
    let mut other = Etcd::new();
    other.cluster = ClusterId(13);
    other
}

#[test]
fn a_list_that_names_two_clusters_elects_nobody() {
    for foreign in 0..2 {
        let mut scene = Scene::with_endpoints(2);
        scene.other_cluster = Some((EndpointId(foreign), another_cluster()));
        scene.live(T * 3);
        assert_eq!(scene.state(), PublicState::Starting);
        assert_eq!(scene.view().not_leading, Some(NotLeading::SeveralClusters));
        assert_eq!(scene.told(|notice| matches!(notice, Notice::SeveralClusters { .. })), 1);
        assert!(scene.etcd.lock().is_none());
        assert!(scene.other_cluster.as_ref().is_some_and(|(_, other)| other.lock().is_none()));
    }
}

#[test]
fn nobody_stands_by_before_every_endpoint_was_heard_of_or_given_up() {
    let mut scene = Scene::with_endpoints(2);
    let late = scene.take(Operation::Probe);
    scene.answer_all();
    assert_eq!(scene.state(), PublicState::Starting);
    scene.deliver(&late);
    assert_eq!(scene.state(), PublicState::Standby);

    let mut scene = Scene::with_endpoints(2);
    scene.take(Operation::Probe);
    scene.answer_all();
    scene.pass(R - NANO);
    assert_eq!(scene.state(), PublicState::Starting);
    scene.live(NANO);
    assert!(scene.leads(), "an endpoint that is down from the start delays the first election by one attempt");
}

#[test]
fn an_endpoint_found_later_to_be_of_another_cluster_is_refused_and_the_leader_leads_on() {
    let mut scene = Scene::with_endpoints(2).leader();
    scene.other_cluster = Some((EndpointId(1), another_cluster()));
    scene.live(Duration::from_secs(40));
    assert!(scene.leads());
    assert_eq!(scene.view().endpoints[1].health, EndpointHealth::Refused);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::EndpointRefused { .. })), 1);
    assert_eq!(scene.transitions(), []);
    // And it is asked nothing more.
    scene.until_next_keep_alive();
    scene.pass(R - NANO);
    assert_eq!(scene.take(Operation::KeepAlive).endpoint(), EndpointId(0));
    assert!(!scene.is_pending(Operation::KeepAlive), "no hedge to a stranger");
}

/// One address with a balancer behind it, as a Service is, and a moment in which it leads to a stranger.
#[test]
fn an_endpoint_that_answered_for_another_cluster_once_is_asked_again() {
    let mut scene = Scene::new().leader();
    let ours = scene.etcd.cluster;
    scene.etcd.cluster = ClusterId(13);
    scene.live(K);
    assert_eq!(scene.view().endpoints[0].health, EndpointHealth::Refused);
    scene.live(T * 4);
    assert_eq!(scene.view().endpoints[0].health, EndpointHealth::Refused, "as long as it leads there");
    assert!(scene.redials.len() > 1, "by the connection that there is it may lead there for ever");
    scene.etcd.cluster = ours;
    scene.live(T * 3);
    assert!(scene.leads(), "{:?}, {:?}", scene.state(), scene.view().endpoints);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::EndpointRefused { .. })), 1);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::EndpointReadmitted { .. })), 1);
}

#[test]
fn an_endpoint_that_leads_to_a_stranger_again_and_again_leaves_no_watch_behind() {
    let mut scene = Scene::new().leader();
    let (ours, watches) = (scene.etcd.cluster, scene.watches().len());
    for _ in 0..3 {
        scene.etcd.cluster = ClusterId(13);
        scene.event(Event::CredentialsRenewed);
        scene.live(R);
        scene.etcd.cluster = ours;
        scene.live(PROBED_WITHIN);
    }
    assert_eq!(scene.told(|notice| matches!(notice, Notice::EndpointReadmitted { .. })), 3);
    assert_eq!(scene.watches().len(), watches);
}

#[test]
fn with_every_endpoint_refused_a_leader_runs_out_quietly() {
    let mut scene = Scene::new().leader();
    scene.etcd.cluster = ClusterId(13);
    scene.live(T * 4);
    assert!(!scene.leads());
    assert_eq!(scene.state(), PublicState::Jeopardy);
    scene.event(Event::Stop);
    scene.live(T * 2);
    assert!(scene.has_exited());
}

#[test]
fn servers_tell_their_version_once() {
    let mut scene = Scene::with_endpoints(3);
    scene.live(Duration::from_secs(100));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::ServerVersion { .. })), 3);
    assert!(scene.view().endpoints.iter().all(|endpoint| endpoint.version.as_deref() == Some("3.5.28")));
}

#[test]
fn a_dead_endpoint_is_seen_and_left_alone() {
    let mut scene = Scene::with_endpoints(3);
    let dead = scene.take(Operation::Probe);
    let event = crate::scene::failed(&dead, CallErrorKind::Unavailable);
    scene.event(event);
    scene.answer_all();
    assert!(scene.leads());
    let health = &scene.view().endpoints[dead.endpoint().0].health;
    assert_eq!(*health, EndpointHealth::Failing { operation: Operation::Probe, kind: CallErrorKind::Unavailable });
}

#[test]
fn a_store_whose_revision_went_back_bars_a_leader_until_it_is_restarted() {
    let mut scene = Scene::new().leader();
    scene.etcd.is_wiped();
    let before = scene.now().boot;
    scene.until_next_keep_alive();
    // The lease may have come back with a backup; then the keep-alive is answered as if nothing were.
    let lease = Event::KeepAliveAnswered {
        stream: scene.until_next_keep_alive(),
        header: scene.etcd.header(EndpointId(0)),
        ttl_seconds: 15,
    };
    scene.take(Operation::KeepAlive);
    scene.event(lease);
    scene.answer(Operation::Confirm);
    assert!(!scene.leads());
    assert_eq!(scene.transitions(), [(PublicState::Standby, Reason::StoreReset)]);
    assert_eq!(scene.view().not_leading, Some(NotLeading::StoreReset));
    assert!(!scene.is_pending(Operation::Revoke), "answers given out are still good: the lease may expire by itself");
    scene.live(T * 5);
    assert!(!scene.leads() && scene.etcd.lock().is_none());
    assert!(scene.now().boot > before);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StoreReset { .. })), 1);
}

#[test]
fn a_standby_barred_by_a_store_reset_looks_on_and_names_the_leader() {
    let mut scene = Scene::new().heir();
    scene.etcd.is_wiped();
    scene.live(T * 2);
    assert_eq!(scene.view().not_leading, Some(NotLeading::StoreReset));
    scene.rival_claims("web-7", LeaseId(70));
    scene.live(T);
    assert_eq!(scene.view().leader.as_ref().map(|leader| leader.identity.as_str()), Some("web-7"));
    scene.event(Event::Stop);
    scene.live(MILLI);
    assert!(scene.has_exited());
}

#[test]
fn a_store_reset_while_answers_settle_does_not_cut_them_short() {
    let mut scene = Scene::new().leader();
    scene.event(Event::Stop);
    scene.etcd.is_wiped();
    scene.live(T);
    assert!(scene.has_exited(), "at the end of the drain");
    let mut scene = Scene::new().leader();
    scene.event(Event::Resign { cooldown: Duration::ZERO });
    scene.etcd.is_wiped();
    scene.live(Duration::from_secs(9));
    assert_eq!(scene.state(), PublicState::StandingDown);
    scene.settle_answers();
    assert_eq!(scene.state(), PublicState::Standby);
    assert_eq!(scene.view().leader, None);
    scene.live(K);
}

/// The news of the old history comes when the new one is known already, and then what was held is let go of.
#[test]
fn who_is_barred_looks_on_at_its_pace_whatever_it_still_hears_of_before() {
    let mut scene = Scene::new().leader();
    (0..50).for_each(|_| scene.etcd.is_busy());
    let header = scene.etcd.header(EndpointId(0));
    let late = Event::Answered { id: OpId(u64::MAX), result: Ok(Answer { header, body: Body::Gone }) };
    scene.event(Event::Resign { cooldown: Duration::from_secs(1) });
    scene.etcd.is_wiped();
    scene.end_watch(&WatchTarget::Lock, CallErrorKind::Unavailable);
    scene.live(Duration::from_secs(1));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StoreReset { .. })), 1);
    scene.event(late);
    scene.settle_answers();
    let mut looks = 0;
    while scene.is_pending(Operation::Observe) {
        scene.answer(Operation::Observe);
        looks += 1;
        assert!(looks < 3, "it asks again and again, as fast as it is answered");
    }
    scene.rival_claims("web-7", LeaseId(70));
    scene.live(T);
    assert_eq!(scene.view().leader.as_ref().map(|leader| leader.identity.as_str()), Some("web-7"));
}

#[test]
fn a_revision_from_before_a_request_was_sent_is_no_reset() {
    let mut scene = Scene::with_endpoints(2).heir();
    scene.until_next_keep_alive();
    scene.end_watch(&WatchTarget::Lock, CallErrorKind::Compacted);
    scene.pass(Duration::from_millis(50));
    let look = scene.take(Operation::Observe);
    let answer = scene.apply(&look);
    // A keep-alive's header shows a later revision while the look's answer is on its way.
    scene.etcd.is_busy();
    scene.answer(Operation::KeepAlive);
    scene.event(answer);
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StoreReset { .. })), 0);
}

/// The news of a term was in the queue when the watch that brought it was given up. It is known all the same.
#[test]
fn a_revision_heard_of_too_late_to_be_used_bars_from_a_store_that_shows_less() {
    for hears in [true, false] {
        let mut scene = Scene::new().heir();
        let backup = scene.etcd.clone();
        let watch = scene.watch_on(&WatchTarget::Lock).expect("it looks on").id;
        scene.etcd.operator_deletes_lock();
        scene.etcd.is_busy();
        scene.rival_claims("web-7", LeaseId(70));
        let lock = scene.etcd.lock().expect("it was claimed").clone();
        let news =
            Event::WatchChanged { watch, header: scene.etcd.header(EndpointId(0)), change: Change::LockPut(lock) };
        scene.end_watch(&WatchTarget::Lock, CallErrorKind::Unavailable);
        if hears {
            scene.event(news);
        }
        scene.etcd = backup;
        scene.etcd.revoke(RIVAL_LEASE);
        scene.live(T);
        assert_eq!(scene.leads(), !hears, "who has not heard of it cannot know");
        assert_eq!(scene.view().not_leading == Some(NotLeading::StoreReset), hears);
    }
}

/// While this candidate heard nothing, a backup was restored and the store grew past every revision it knew.
#[test]
fn a_lock_key_older_than_the_one_before_it_bars_a_candidate_though_no_revision_went_back() {
    let mut scene = Scene::new();
    scene.etcd.somebody_puts_lock("old", Some(LeaseId(7)));
    let backup = scene.etcd.lock().expect("it was put").clone();
    scene.etcd.operator_deletes_lock();
    scene.etcd.somebody_puts_lock("new", Some(LeaseId(8)));
    scene.live(R);
    assert_eq!(scene.view().leader.as_ref().map(|leader| leader.identity.as_str()), Some("new"));
    scene.etcd.is_busy();
    scene.etcd.restores_lock(backup);
    scene.live(T + R);
    assert_eq!(scene.view().not_leading, Some(NotLeading::StoreReset));
    assert_eq!(scene.told(|notice| matches!(notice, Notice::StoreReset { .. })), 1);
}
