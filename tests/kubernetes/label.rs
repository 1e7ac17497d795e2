//! The label follows the lock: in order, in time, and never back.

use anyhow::{Result, ensure};

use crate::stage::{ELECTION, NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, ROLE, Stage};

#[tokio::test]
async fn the_leaders_pod_is_labelled_with_its_term_and_the_others_are_followers() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    for pod in ["web-0", "web-1", "web-2"] {
        stage.join(pod)?;
    }
    let rest = stage.at_rest()?;
    ensure!(rest.leader == "web-0", "{rest:?}");
    for pod in ["web-1", "web-2"] {
        ensure!(stage.pod(pod)?.label(ROLE) == Some("follower"));
    }
    stage.stop("web-0")?;
    let next = stage.at_rest()?;
    ensure!(next.leader == "web-1" && next.term > rest.term, "{next:?} after {rest:?}");
    stage.timeline.catch_up(PATIENCE)?;
    let together: Vec<_> =
        stage.timeline.carriers(ROLE, "leader").into_iter().filter(|(_, pods)| pods.len() > 1).collect();
    ensure!(together.is_empty(), "{together:?}");
    Ok(())
}

#[tokio::test]
async fn in_the_cluster_the_service_account_and_the_environment_suffice() -> Result<()> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES]).await?;
    for pod in ["web-0", "web-1"] {
        stage.create(&crate::stage::pod_options(pod))?;
        let options = stage.options_in_cluster(pod)?;
        stage.start_with(pod, |_| options)?;
        stage.wait_for(pod, |_, body| body["state"] != "starting")?;
    }
    let rest = stage.at_rest()?;
    ensure!(rest.leader == "web-0", "{rest:?}");
    ensure!(stage.pod("web-0")?.label(ELECTION) == Some("test"));
    // The lock is that of the service account's namespace.
    ensure!(stage.etcd.get(&stage.lock_key()).await?.as_deref() == Some("web-0"));
    Ok(())
}
