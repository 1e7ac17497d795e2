//! What an operator, a foreign program or a half-working etcd can do to a candidate.

use std::time::Duration;

use bellwether::election::{CallErrorKind, Operation};

use crate::scene::Scene;

#[test]
fn a_lease_that_expires_while_it_is_granted_again_is_granted_once_more() {
    let mut scene = Scene::new();
    // The first grant was applied and its answer lost; the second finds the lease there, and then gone.
    scene.fail(Operation::Grant, CallErrorKind::LeaseNotFound);
    scene.live(Duration::from_secs(1));
    assert!(scene.leads());
}
