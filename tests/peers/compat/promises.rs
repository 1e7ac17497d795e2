//! An answer in another sidecar's words that names this replica is a promise like a 200 of `/leader`: with the real
//! binary, whose next leader comes late enough. All paths, and the controls, are in `tests/http/compat.rs`.

use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{Moment, Sidecar};

use crate::script::PATIENCE;
use crate::stage::{options, short_options};

/// How long the answers hold, on this stage.
const VALIDITY: Duration = Duration::from_secs(3);

/// From SIGTERM until the next leads, when `ask` has been done right before.
async fn handover(ask: impl Fn(&Sidecar) -> Result<()>) -> Result<Duration> {
    let etcd = EtcdServer::start().await?;
    // The usual lease, so that it is the validity that ends an answer.
    let settings = ["--answer-validity", "3s"];
    let mut old = Sidecar::start(&options("web-0", &etcd).with_env("BELLWETHER_COMPAT", "instana").with(&settings))?;
    // Not by asking it: that would be an answer to wait for.
    old.wait_for_log("leading: /leader answers 200", PATIENCE)?;
    let new = Sidecar::start(&short_options("web-1", &etcd))?;
    new.wait_for(PATIENCE, |_, body| body["state"] == "standby" && body["name"] == "web-0")?;
    let asked = Moment::now();
    ask(&old)?;
    old.signal(Signal::SIGTERM)?;
    new.wait_until_leading(PATIENCE)?;
    Ok(Moment::now().since(asked))
}

#[tokio::test]
async fn a_release_waits_for_a_health_that_named_this_replica() -> Result<()> {
    let took = handover(|old| {
        assert!(old.request("GET", "/health", &[])?.text().contains("web-0"));
        Ok(())
    });
    assert!(took.await? >= VALIDITY);
    Ok(())
}

/// The control: nobody has an answer, so nobody is waited for.
#[tokio::test]
async fn a_release_that_nobody_has_an_answer_of_does_not_wait() -> Result<()> {
    let took = handover(|_| Ok(())).await?;
    assert!(took < VALIDITY, "{took:?}");
    Ok(())
}
