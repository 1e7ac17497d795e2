//! The commands that ask, in an election on a real etcd.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;
use support::etcd::EtcdServer;
use support::{Sidecar, SidecarOptions};

use crate::program::{Said, say};

/// A first election takes milliseconds; this is for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(20);

fn sidecar(identity: &str, etcd: &EtcdServer) -> Result<Sidecar> {
    let binary = env!("CARGO_BIN_EXE_bellwether");
    Sidecar::start(&SidecarOptions::new(binary, identity, &[etcd.endpoint()]).with(&["--namespace", "default"]))
}

fn api(sidecar: &Sidecar) -> String {
    let address: SocketAddr = sidecar.http();
    format!("http://{address}")
}

fn status(arguments: &[&str]) -> Result<Value> {
    let Said { code, out, err } = say(&[&["status", "--output", "json"], arguments].concat());
    assert_eq!((code, err.as_str()), (Some(0), ""));
    Ok(serde_json::from_str(&out)?)
}

#[tokio::test]
async fn sidecar_and_etcd_tell_the_same_of_an_election() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let leader = sidecar("web-0", &etcd)?;
    let term = leader.wait_until_leading(PATIENCE)?;
    let standby = sidecar("web-1", &etcd)?;
    standby.wait_for(PATIENCE, |_, body| body["state"] == "standby" && body["name"] == "web-0")?;

    let endpoint = etcd.endpoint();
    let of_etcd =
        status(&["--etcd-endpoints", &endpoint, "--election", "test", "--namespace", "default", "--timeout", "10s"])?;
    let of_standby = status(&["--api", &api(&standby), "--timeout", "10s"])?;
    for told in [&of_etcd, &of_standby] {
        assert_eq!(told["election"], "default/test", "{told}");
        assert_eq!(told["leader"]["identity"], "web-0", "{told}");
        assert_eq!(told["leader"]["term"], term, "{told}");
        assert_eq!(told["leader"]["epoch"], 0, "{told}");
        assert_eq!(told["candidates"][0]["identity"], "web-0", "{told}");
        assert_eq!(told["candidates"][0]["role"], "leader", "{told}");
        assert_eq!(told["candidates"][1]["identity"], "web-1", "{told}");
        assert_eq!(told["candidates"][1]["role"], "heir", "{told}");
        assert_eq!(told["candidates_total"], 2, "{told}");
    }
    let left = of_etcd["leader"]["lease_remaining_s"].as_u64();
    assert!(left.is_some_and(|left| left <= 15), "{of_etcd}");
    assert_eq!(of_etcd["notes"], Value::Array(Vec::new()));
    Ok(())
}

#[tokio::test]
async fn a_leader_that_resigns_is_replaced_and_probes_tell() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    let first = sidecar("web-0", &etcd)?;
    first.wait_until_leading(PATIENCE)?;
    let second = sidecar("web-1", &etcd)?;
    second.wait_for(PATIENCE, |_, body| body["state"] == "standby")?;
    let probe = |of: &Sidecar| say(&["probe", "leader", "--timeout", "10s", "--api", &api(of)]);
    assert_eq!((probe(&first).code, probe(&second).code), (Some(0), Some(1)));

    let Said { code, out, .. } = say(&["resign", "--cooldown", "1m30s", "--timeout", "10s", "--api", &api(&first)]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("web-0 stands down: "), "{out}");
    second.wait_until_leading(PATIENCE)?;
    assert_eq!((probe(&first).code, probe(&second).code), (Some(1), Some(0)));

    let telemetry = second.telemetry().to_string();
    for question in ["livez", "readyz"] {
        let Said { code, out, .. } = say(&["probe", question, "--timeout", "10s", "--telemetry", &telemetry]);
        assert_eq!(code, Some(0), "{out}");
    }
    Ok(())
}

#[tokio::test]
async fn a_lock_that_never_expires_is_pointed_out() -> Result<()> {
    let etcd = EtcdServer::start().await?;
    etcd.put("/bellwether/default/test", "somebody", 0).await?;
    let endpoint = etcd.endpoint();
    let told =
        status(&["--etcd-endpoints", &endpoint, "--election", "test", "--namespace", "default", "--timeout", "10s"])?;
    assert_eq!(told["leader"]["identity"], "somebody");
    assert!(told["notes"].to_string().contains("etcdctl del /bellwether/default/test"), "{told}");
    Ok(())
}
