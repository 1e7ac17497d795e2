//! In the place of the old `leader-elector`.

use anyhow::Result;
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;

use super::client::is_leader;
use crate::script::{PATIENCE, Script};
use crate::sidecar::{Peer, Pod};

/// The arguments of the blog post that everybody has copied, with those that forks and charts add.
fn pod<'a>(args: &'a [&'a str]) -> Pod<'a> {
    Pod { compat: "leader-elector", args, env: &[] }
}

const WEB_0: Pod<'_> = Pod {
    compat: "leader-elector",
    args: &[
        "--election=example",
        "--http=localhost:{http}",
        "--election-namespace=default",
        "--id=web-0",
        "--ttl=2s",
        "--use-cluster-credentials=true",
    ],
    env: &[],
};
const WEB_1: Pod<'_> = Pod {
    compat: "leader-elector",
    args: &[
        "--election",
        "example",
        "--http",
        "0.0.0.0:{http}",
        "--election-namespace",
        "default",
        "--id",
        "web-1",
        "--ttl",
        "2s",
    ],
    env: &[],
};

#[tokio::test]
async fn every_path_of_the_old_sidecar_names_the_leader_at_leader_and_standby() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let leader = Peer::start(&WEB_0, &etcd)?;
    leader.wait_for_name("web-0")?;
    let standby = Peer::start(&WEB_1, &etcd)?;
    standby.wait_for_name("web-0")?;
    for peer in [&leader, &standby] {
        for path in ["/", "/anything", "/deep/er?x=y", "/health", "/leader/"] {
            let response = peer.request("GET", path)?;
            assert_eq!((response.status, response.text().trim()), (200, r#"{"name":"web-0"}"#), "{path}");
            assert_eq!(response.header("content-type"), Some("application/json"), "{path}");
            assert_eq!(peer.request("HEAD", path)?.status, 200, "{path}");
            let refused = peer.request("DELETE", path)?;
            assert_eq!(refused.status, 405, "{path}");
            assert_eq!(refused.header("allow").map(|it| it.replace(' ', "")).as_deref(), Some("GET,HEAD"), "{path}");
        }
    }
    // Our own paths keep their meaning.
    assert_eq!((leader.request("GET", "/leader")?.status, standby.request("GET", "/leader")?.status), (200, 503));
    assert_eq!(leader.out()?, "web-0 is the leader\n");
    Ok(())
}

#[tokio::test]
async fn the_client_that_polls_and_compares_its_host_name_finds_one_leader_at_a_time() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let mut first = Peer::start(&WEB_0, &etcd)?;
    first.wait_for_name("web-0")?;
    let second = Peer::start(&WEB_1, &etcd)?;
    second.wait_until_standby()?;
    let url = |peer: &Peer| format!("http://localhost:{}/", peer.http.port());
    assert!(is_leader("web-0", &url(&first))?);
    assert!(!is_leader("web-1", &url(&second))?);
    first.signal(Signal::SIGKILL)?;
    // The old sidecar's standby went on naming who was gone.
    second.wait_for_name("web-1")?;
    assert!(is_leader("web-1", &url(&second))?);
    assert!(!is_leader("web-0", &url(&first))?, "nobody answers any more");
    Ok(())
}

#[tokio::test]
async fn a_shell_that_asks_with_curl_reads_what_it_always_read() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let peer = Peer::start(&WEB_0, &etcd)?;
    peer.wait_for_name("web-0")?;
    let ended = Script::start(&format!("curl -s http://localhost:{}", peer.http.port()), &[], &[])?.wait()?;
    assert_eq!(ended.out.trim(), r#"{"name":"web-0"}"#);
    Ok(())
}

#[tokio::test]
async fn without_compat_nothing_of_it_is_there() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let args = ["run", "--election=example", "--http=localhost:{http}", "--namespace=default", "--id=web-0"];
    let peer = Peer::start(&Pod { compat: "", ..pod(&args) }, &etcd)?;
    peer.wait_for_name("web-0")?;
    for path in ["/anything", "/health", "/sse"] {
        assert_eq!(peer.request("GET", path)?.status, 404, "{path}");
    }
    assert!(peer.request("GET", "/")?.json().get("last_update").is_none());
    Ok(())
}

#[tokio::test]
async fn the_old_sidecars_lock_is_released_on_sigterm() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let args =
        ["--election=example", "--http=localhost:{http}", "--election-namespace=default", "--id=web-0", "--ttl=1m"];
    let mut peer = Peer::start(&pod(&args), &etcd)?;
    peer.wait_for_name("web-0")?;
    let standby = Peer::start(&WEB_1, &etcd)?;
    standby.wait_for_name("web-0")?;
    peer.signal(Signal::SIGTERM)?;
    assert_eq!(peer.process.wait_exit(PATIENCE)?.code(), Some(0));
    // Well within the minute that the lease would have lasted.
    standby.wait_for_name("web-1")?;
    Ok(())
}
