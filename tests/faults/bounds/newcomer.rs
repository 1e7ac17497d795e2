//! A member that joins a running cluster, and leaves it.

use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etcd_client::{Client, MemberAddOptions};
use support::etcd::{EtcdCluster, EtcdOptions, etcd_binary};
use support::ports::free_loopback_address;
use support::{Moment, Process};

use crate::flock::PATIENCE;

/// Between two tries of something that etcd refuses for a while.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What a member is to be at first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It gets the log and has no vote.
    Learner,
    Voter,
}

/// A member beside those that the cluster was started with. Dropping it kills it.
pub struct Newcomer {
    id: u64,
    client: SocketAddr,
    process: Process,
}

/// Asks until etcd does it: a cluster changes its members only when all have been connected for 5 s, and promotes
/// a learner only when that has caught up.
async fn until_done<T, F: Future<Output = Result<T>>>(what: &str, ask: impl Fn() -> F) -> Result<T> {
    let deadline = Moment::now().after(PATIENCE);
    loop {
        match ask().await {
            Ok(done) => return Ok(done),
            Err(error) if deadline.passed() => return Err(error.context(what.to_owned())),
            Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
        }
    }
}

impl Newcomer {
    /// Adds a member that will serve clients here, starts it with an empty disk, and waits until it answers.
    ///
    /// # Errors
    /// When etcd does not take it, or it does not come up.
    pub async fn join(etcd: &EtcdCluster, options: &EtcdOptions, client: SocketAddr, role: Role) -> Result<Self> {
        let peer = format!("http://{}", free_loopback_address()?);
        let added = until_done("adding a member", || async {
            let as_what = match role {
                Role::Learner => MemberAddOptions::new().with_is_learner(),
                Role::Voter => MemberAddOptions::new(),
            };
            Ok(etcd.any_client().await?.member_add([&peer], Some(as_what)).await?)
        });
        let added = added.await?;
        let id = added.member().context("a member that was added")?.id();
        let name = format!("newcomer-{id:x}");
        let named = |member: &etcd_client::Member| {
            let its_name = if member.id() == id { &name } else { member.name() };
            member.peer_urls().iter().map(|url| format!("{its_name}={url}")).collect::<Vec<_>>()
        };
        let cluster = added.member_list().iter().flat_map(named).collect::<Vec<_>>().join(",");
        let url = format!("http://{client}");
        let log = File::create(etcd.path(&format!("{name}.log")))?;
        let mut command = Command::new(etcd_binary()?);
        command
            .env_clear()
            .args(["--name", &name, "--initial-cluster-state", "existing", "--initial-cluster", &cluster])
            .args(["--data-dir", &etcd.path(&format!("{name}.data")).display().to_string()])
            .args(["--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--heartbeat-interval", &options.heartbeat_interval.as_millis().to_string()])
            .args(["--election-timeout", &options.election_timeout.as_millis().to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let newcomer = Self { id, client, process: Process::spawn(command)? };
        // A learner answers this one question.
        until_done("the status of a new member", || async { Ok(newcomer.client().await?.status().await?) }).await?;
        Ok(newcomer)
    }

    /// Its client URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    async fn client(&self) -> Result<Client> {
        Ok(Client::connect([self.url()], None).await?)
    }

    /// Gives a learner a vote, and waits until it answers linearizable reads.
    ///
    /// # Errors
    /// When etcd does not.
    pub async fn promote(&self, etcd: &EtcdCluster) -> Result<()> {
        let promote = || async { Ok(etcd.any_client().await?.member_promote(self.id).await?) };
        until_done("promoting a learner", promote).await?;
        let read = || async { Ok(self.client().await?.get("ready", None).await?) };
        until_done("a read from a new member", read).await?;
        Ok(())
    }

    /// Takes it out of the cluster; returns when its process has ended, which it does by itself.
    ///
    /// # Errors
    /// When etcd does not let it go.
    pub async fn remove(mut self, etcd: &EtcdCluster) -> Result<()> {
        remove(etcd, self.id).await?;
        let status = self.process.wait_exit(PATIENCE)?;
        ensure!(status.success(), "a removed member ends with {status}");
        Ok(())
    }
}

/// Takes a member out of the cluster.
///
/// # Errors
/// When etcd does not let it go.
pub async fn remove(etcd: &EtcdCluster, id: u64) -> Result<()> {
    until_done("removing a member", || async { Ok(etcd.any_client().await?.member_remove(id).await?) }).await?;
    Ok(())
}
