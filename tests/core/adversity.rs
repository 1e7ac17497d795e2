//! What an operator, a foreign program or a half-working etcd can do to a candidate.

use std::time::Duration;

use bellwether::election::{CallErrorKind, ClusterId, EtcdContact, Event, Operation, PublicState, Reason, WatchTarget};

use crate::scene::{MILLI, NANO, R, Scene, T};

/// The default: how long an answer may be relied on.
const V: Duration = Duration::from_secs(1);

#[test]
fn a_lease_that_expires_while_it_is_granted_again_is_granted_once_more() {
    let mut scene = Scene::new();
    // The first grant was applied and its answer lost; the second finds the lease there, and then gone.
    scene.fail(Operation::Grant, CallErrorKind::LeaseNotFound);
    scene.live(Duration::from_secs(1));
    assert!(scene.leads());
}

#[test]
fn an_etcd_rebuilt_under_another_cluster_id_is_not_called_connected_and_its_old_leader_is_forgotten() {
    let mut scene = Scene::new().heir();
    assert!(scene.view().leader.is_some());
    scene.etcd.is_wiped();
    scene.etcd.cluster = ClusterId(13);
    scene.end_watch(&WatchTarget::Lock, CallErrorKind::Unavailable);
    scene.live(T * 2 + R);
    assert_eq!(scene.view().etcd, EtcdContact::Unreachable);
    assert_eq!(scene.view().leader, None, "a leader that nobody has heard of for a lease's life");
}

/// A role that lost its right to read: before 3.5.28 keep-alives need no permission at all.
#[test]
fn who_may_renew_but_not_read_does_not_keep_the_lock_for_ever() {
    let mut scene = Scene::new().leader();
    let end = scene.now().boot.after(T * 3);
    while scene.now().boot < end && scene.my_lock().is_some() {
        for operation in [Operation::KeepAlive, Operation::Revoke, Operation::Probe] {
            if scene.is_pending(operation) {
                scene.answer(operation);
            }
        }
        for operation in [Operation::Confirm, Operation::Observe] {
            if scene.is_pending(operation) {
                scene.fail(operation, CallErrorKind::PermissionDenied);
            }
        }
        scene.pass(MILLI * 10);
    }
    assert!(!scene.leads());
    assert!(scene.my_lock().is_none(), "it keeps alive a lock that it cannot lead by: {:?}", scene.state());
    assert!(scene.transitions().contains(&(PublicState::Standby, Reason::LeaseLost)));
}

#[test]
fn a_key_that_was_overwritten_is_not_deleted_while_answers_may_be_relied_on() {
    let mut scene = Scene::new().leader();
    scene.etcd.somebody_puts_lock("operator", Some(scene.my_lease()));
    assert!(scene.leads(), "and so it has answered, for a second, just now");
    scene.catch_up();
    assert!(!scene.leads());
    scene.live(V - NANO);
    assert!(scene.etcd.lock().is_some(), "whoever was told 200 still relies on it");
    scene.live(NANO);
    assert!(scene.etcd.lock().is_none(), "kept alive by a lease of who does not lead it would block everyone");
    scene.live(V * 2);
    assert!(scene.leads());
}

#[test]
fn a_stop_after_the_key_was_overwritten_waits_for_the_answers_too() {
    let mut scene = Scene::new().leader();
    scene.etcd.somebody_puts_lock("operator", Some(scene.my_lease()));
    scene.catch_up();
    scene.event(Event::Stop);
    assert!(!scene.is_pending(Operation::Revoke));
    scene.settle_answers();
    scene.answer(Operation::Revoke);
    assert!(scene.has_exited());
}
