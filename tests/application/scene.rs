//! Sidecars with an application each, and what etcd has of them.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use etcd_client::GetOptions;
use serde_json::Value;
use support::Moment;
use support::etcd::{EtcdServer, KeyTimeline};

use crate::flock::{Flock, LOCK_KEY, NEVER_EXPIRES, PATIENCE, quick};

/// Asked five times a second, given up on after three failures: a machine that is busy for half a second fails nobody.
const OFTEN: [&str; 6] =
    ["--app-health-interval", "200ms", "--app-health-timeout", "200ms", "--app-health-failures", "3"];
/// Answers promise little, so that a release does not wait for them.
const SHORT_ANSWERS: [&str; 2] = ["--answer-validity", "100ms"];
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// An etcd and a flock whose leases never expire: whatever happens, somebody did.
pub struct Scene {
    pub etcd: EtcdServer,
    pub flock: Flock,
}

impl Scene {
    pub async fn new() -> Result<Self> {
        let etcd = EtcdServer::start_with(quick()).await?;
        let flock = Flock::new(etcd.endpoints(), &[&NEVER_EXPIRES, &SHORT_ANSWERS]);
        Ok(Self { etcd, flock })
    }

    /// Starts a sidecar with these arguments besides; does not wait for anything.
    pub fn join_as(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let options = self.flock.options(name).with(arguments);
        self.flock.join_as(name, &options)
    }

    /// Starts a sidecar that looks after the health of its application; does not wait for anything.
    pub fn join(&mut self, name: &str, target: &str, more: &[&str]) -> Result<()> {
        self.join_as(name, &[&["--app-health", target], &OFTEN[..], more].concat())
    }

    /// As [`join`](Self::join), with this protection taken away.
    pub fn join_without(&mut self, protection: &str, name: &str, target: &str, more: &[&str]) -> Result<()> {
        let options = self.flock.options(name).with(&["--app-health", target]).with(&OFTEN).with(more);
        self.flock.join_as(name, &options.with_env("BELLWETHER_SABOTAGE", protection))
    }

    /// Waits until the `/status` of this sidecar says why it does not lead.
    pub fn wait_for_reason(&mut self, name: &str, why: &str) -> Result<Value> {
        let deadline = Moment::now().after(PATIENCE);
        loop {
            let status = self.flock.sidecar(name)?.status()?;
            if status["not_leading"].as_str().is_some_and(|reason| reason.contains(why)) {
                return Ok(status);
            }
            ensure!(!deadline.passed(), "{name} does not say {why:?} within {PATIENCE:?}: {status:#}");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Every change of the lock key.
    pub fn lock_timeline(&self) -> Result<KeyTimeline> {
        KeyTimeline::start(self.etcd.endpoint(), LOCK_KEY.to_owned())
    }

    /// Whether the lock key is there.
    pub async fn holder(&self) -> Result<Option<String>> {
        self.etcd.get(LOCK_KEY).await
    }

    /// Who is in line.
    pub async fn in_line(&self) -> Result<Vec<String>> {
        let prefix = format!("{LOCK_KEY}/candidates/");
        let mut client = self.etcd.any_client().await?;
        let kvs = client.get(prefix.as_str(), Some(GetOptions::new().with_prefix())).await?.take_kvs();
        let name = |key: &[u8]| String::from_utf8_lossy(key).replacen(&prefix, "", 1);
        Ok(kvs.iter().map(|kv| name(kv.key())).collect())
    }

    /// Every key of the election, and how many leases there are at all.
    pub async fn traces(&self) -> Result<(usize, usize)> {
        let mut client = self.etcd.any_client().await?;
        let keys = client.get(LOCK_KEY, Some(GetOptions::new().with_prefix().with_keys_only())).await?;
        let leases = client.leases().await?;
        Ok((keys.kvs().len(), leases.leases().len()))
    }

    /// Waits until those in line are these.
    pub async fn wait_for_line(&self, names: &[&str]) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        loop {
            let mut line = self.in_line().await?;
            line.sort();
            if line == names {
                return Ok(());
            }
            ensure!(!deadline.passed(), "in line after {PATIENCE:?}: {line:?}, and not {names:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
