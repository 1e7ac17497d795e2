//! An election with an old leader that is to be frozen and a new one that takes over.

use anyhow::Result;
use support::etcd::EtcdServer;
use support::{Sidecar, SidecarOptions};

use crate::script::PATIENCE;

/// The key that is the lock on this stage.
pub const LOCK: &str = "/bellwether/default/web";

pub struct Stage {
    pub etcd: EtcdServer,
    /// It leads.
    pub old: Sidecar,
    /// It stands by.
    pub new: Sidecar,
}

/// A sidecar of the election `default/web`.
pub fn options(identity: &str, etcd: &EtcdServer) -> SidecarOptions {
    let mut options = SidecarOptions::new(env!("CARGO_BIN_EXE_bellwether"), identity, &[etcd.endpoint()]);
    "web".clone_into(&mut options.election);
    options.with(&["--namespace", "default"])
}

/// With the shortest lease that etcd grants by default, so that it runs out soon.
pub fn short_options(identity: &str, etcd: &EtcdServer) -> SidecarOptions {
    options(identity, etcd).with(&["--lease-ttl", "2s"])
}

impl Stage {
    pub async fn start() -> Result<Self> {
        let etcd = EtcdServer::start().await?;
        let old = Sidecar::start(&short_options("web-0", &etcd))?;
        old.wait_until_leading(PATIENCE)?;
        let new = Sidecar::start(&short_options("web-1", &etcd))?;
        new.wait_for(PATIENCE, |_, body| body["state"] == "standby" && body["name"] == "web-0")?;
        Ok(Self { etcd, old, new })
    }

    /// The old leader's pod is paused, and the other leads.
    pub fn fail_over(&mut self) -> Result<()> {
        self.old.freeze()?;
        self.new.wait_until_leading(PATIENCE)?;
        Ok(())
    }

    /// What a script needs to ask a sidecar and etcd.
    pub fn environment(&self, sidecar: &Sidecar) -> Vec<(String, String)> {
        [
            ("BELLWETHER_API", format!("http://{}", sidecar.http())),
            ("ETCDCTL_ENDPOINTS", self.etcd.endpoint()),
            ("ETCDCTL_API", "3".to_owned()),
            ("LOCK", LOCK.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
