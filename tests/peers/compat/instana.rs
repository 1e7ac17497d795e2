//! In the place of instana's fork: `/health`.

use anyhow::Result;
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::ports::free_loopback_address;

use crate::script::PATIENCE;
use crate::sidecar::{Peer, Pod};

const GLOG: [(&str, &str); 2] = [("GLOG_v", "4"), ("GLOG_vmodule", "leaderelection=3")];

const AGENT_0: Pod<'_> = Pod {
    compat: "instana",
    args: &["--election=instana", "--http=localhost:{http}", "--id=agent-0", "--election-namespace=default"],
    env: &GLOG,
};
const AGENT_1: Pod<'_> = Pod {
    compat: "instana",
    args: &["--election=instana", "--http=localhost:{http}", "--id=agent-1", "--election-namespace=default"],
    env: &GLOG,
};

fn health(peer: &Peer) -> Result<(u16, String)> {
    let response = peer.request("GET", "/health")?;
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(peer.request("HEAD", "/health")?.status, response.status);
    Ok((response.status, response.text()))
}

#[tokio::test]
async fn health_is_200_at_every_replica_while_a_leader_is_known() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let leader = Peer::start(&AGENT_0, &etcd)?;
    leader.wait_for_name("agent-0")?;
    let mut standby = Peer::start(&AGENT_1, &etcd)?;
    standby.wait_for_name("agent-0")?;
    let known = (200, "Valid leader set: &{agent-0}".to_owned());
    assert_eq!((health(&leader)?, health(&standby)?), (known.clone(), known));
    assert_eq!(leader.request("POST", "/health")?.status, 405);
    assert_eq!(leader.name_at("/any/path")?, "agent-0");
    standby.signal(Signal::SIGTERM)?;
    assert_eq!(standby.process.wait_exit(PATIENCE)?.code(), Some(0));
    Ok(())
}

#[test]
fn health_is_500_while_no_leader_is_known() -> Result<()> {
    let nobody = format!("http://{}", free_loopback_address()?);
    let peer = Peer::start_with_endpoint(&AGENT_0, &nobody)?;
    assert_eq!(health(&peer)?, (500, "Invalid leader".to_owned()));
    assert_eq!(peer.name_at("/")?, "", "`/` is 200 whatever happens");
    Ok(())
}
