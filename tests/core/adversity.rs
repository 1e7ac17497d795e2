//! What an operator, a foreign program or a half-working etcd can do to a candidate.

use std::time::Duration;

use bellwether::election::{CallErrorKind, ClusterId, EtcdContact, Operation, PublicState, Reason, WatchTarget};

use crate::scene::{MILLI, R, Scene, T};

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
