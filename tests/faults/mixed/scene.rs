//! The scene: three etcd members and five sidecars, each on a host of its own; an application and an observer beside
//! each sidecar.
//!
//! Three sidecars reach the members over the network alone, two through a [`Proxy`] each for every member, on their own
//! host: what a firewall does and what a proxy does are different faults.
//!
//! Why these timings. The lease is 5 s (renewed every 1.67 s, attempts of 0.83 s, margin 1 s): a failover by expiry takes
//! 5 to 5.5 s, so ten minutes have room for some fifty. etcd elects within 0.5 to 1 s (its default is 1 to 2 s), a second
//! more when votes are split. A leader whose stream has broken has 2.3 s left at the least: so an etcd election is ridden
//! out as it is with the defaults, 15 s and 1 s. The answers' validity is the default, 1 s: what users have.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use support::audit::Reign;
use support::etcd::{EtcdCluster, EtcdOptions};
use support::{Host, Lab, Moment, Proxy, Sidecar, SidecarOptions, WallClock};

use super::access::Security;
use super::counter::{Application, Count, Guard, Place, count};
use super::lane::Look;
use super::observers::{Lead, Observers, polling};
use super::witness::{KeyEnd, Witness, end_of};
use crate::flock::LOCK_KEY;

/// T
pub const LEASE_TTL: Duration = Duration::from_secs(5);
/// From the last keep-alive that can have been answered to `until`: T less the default margin, T/5.
pub const LEADS_ON: Duration = Duration::from_secs(4);
/// V, the default.
pub const ANSWER_VALIDITY: Duration = Duration::from_secs(1);
/// etcd's election timeout.
pub const ETCD_ELECTION: Duration = Duration::from_millis(500);
/// The sidecars. The last two reach etcd through proxies.
pub const SIDECARS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// From this one on they have proxies.
pub const FIRST_WITH_PROXIES: usize = 3;
/// The etcd members.
pub const MEMBERS: usize = 3;
/// Small, so that filling it takes seconds; several times what the counters write between two compactions.
pub const QUOTA_BYTES: i64 = 32 << 20;
/// How long everybody has to be well before a trial begins.
const WELL_FOR: Duration = Duration::from_millis(600);
/// For what must come true: far above what a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many lines of a sidecar's earlier lives are kept: the last few trials.
const LOG_MOST: usize = 400;

/// A sidecar, its host, and what is between it and etcd.
pub struct Station {
    /// Its identity.
    pub name: &'static str,
    /// Where it runs.
    pub host: Host,
    /// The process.
    pub sidecar: Sidecar,
    /// One for each member; none for those that reach the members directly.
    pub proxies: Vec<Proxy>,
    /// Its wall clock.
    pub clock: WallClock,
    /// What can be known on its host of the lock key.
    pub witness: Witness,
    /// The log of its lives before this one.
    past: Vec<String>,
}

impl Station {
    /// Starts it again. Its log so far is kept.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart(&mut self) -> Result<()> {
        self.past.extend(self.sidecar.log());
        let first = self.past.len().saturating_sub(LOG_MOST);
        self.past.drain(..first);
        self.past.push(format!("--- {} is started again, at {:?}", self.name, Moment::now()));
        self.sidecar.restart()
    }

    /// The last lines of its log, of this life and of those before.
    pub fn log(&self) -> Vec<String> {
        let mut lines = self.past.clone();
        lines.extend(self.sidecar.log());
        let first = lines.len().saturating_sub(LOG_MOST);
        lines.split_off(first)
    }
}

/// The hosts, on which one scene after another can be set up.
pub struct Ground {
    members: Vec<Host>,
    spare: Host,
    stations: Vec<Host>,
    _lab: Lab,
}

impl Ground {
    /// The network, with nothing on it yet.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new() -> Result<Self> {
        let mut lab = Lab::new()?;
        let members = (0..MEMBERS).map(|it| lab.host(&format!("etcd-{it}"))).collect::<Result<_>>()?;
        let spare = lab.host("etcd-spare")?;
        let stations = SIDECARS.iter().map(|name| lab.host(&format!("host-{name}"))).collect::<Result<_>>()?;
        Ok(Self { members, spare, stations, _lab: lab })
    }
}

/// All of it.
pub struct Scene {
    /// Ends first, so that nobody asks what is being torn down.
    pub observers: Observers,
    /// Two beside each sidecar, one of each kind.
    applications: Vec<Application>,
    /// The sidecars, in the order of [`SIDECARS`].
    pub stations: Vec<Station>,
    /// The cluster.
    pub etcd: EtcdCluster,
    /// A host for a fourth member.
    pub spare: Host,
}

impl Scene {
    /// Sets it up: everybody is well. `sabotage` goes to every sidecar.
    ///
    /// # Errors
    /// When a part of it does not start.
    pub async fn begin(ground: &Ground, security: Security, sabotage: Option<&str>) -> Result<Self> {
        let mut etcd = EtcdCluster::start(
            security.apply(EtcdOptions {
                members: MEMBERS,
                heartbeat_interval: ETCD_ELECTION / 10,
                election_timeout: ETCD_ELECTION,
                quota_bytes: Some(QUOTA_BYTES.unsigned_abs()),
                // The store is flushed with each write, not up to 100 ms later: a member whose disk stalls while the store
                // is locked for that acknowledges nothing, and then the fault is a milder one.
                // And compacted every minute, as clusters are: an hour of counting would fill any quota.
                arguments: [
                    "--backend-batch-limit=1",
                    "--auto-compaction-mode=periodic",
                    "--auto-compaction-retention=1m",
                ]
                .map(str::to_owned)
                .to_vec(),
                hosts: ground.members.clone(),
                ..EtcdOptions::default()
            }),
        )
        .await?;
        security.enable(&mut etcd).await?;
        let access = security.access(&etcd)?;
        let mut stations = Vec::new();
        for place in 0..SIDECARS.len() {
            stations.push(station(place, ground.stations[place].clone(), &etcd, security, sabotage)?);
        }
        let mut pollers = Vec::new();
        let mut applications = Vec::new();
        for station in &stations {
            pollers.push((station.name.to_owned(), station.sidecar.poll(polling())?));
            for guard in [Guard::Term, Guard::None] {
                let place = Place {
                    sidecar: station.sidecar.http(),
                    endpoints: endpoints(&etcd, &station.proxies, security),
                    access: access.clone(),
                    lock_key: LOCK_KEY.to_owned(),
                    life_key: format!("{}/life-of-{}", guard.key(), station.name),
                };
                applications.push(station.host.within(|| Application::start(place, guard))??);
            }
        }
        let observers = Observers::start(pollers)?;
        let spare = ground.spare.clone();
        let scene = Self { observers, applications, stations, etcd, spare };
        scene.wait_until_well().await?;
        Ok(scene)
    }

    /// Waits until every member answers and every sidecar is in its place, for a while on end. Returns who leads.
    ///
    /// # Errors
    /// When that does not come about, with what they say.
    pub async fn wait_until_well(&self) -> Result<Lead> {
        let deadline = Moment::now().after(PATIENCE);
        loop {
            self.wait_for_members(deadline).await?;
            let begin = Moment::now();
            let stays = begin.after(WELL_FOR);
            // Each look is at answers that came since `begin`, so that a frozen past does not count.
            let disturbed = self.observers.wait_for(stays, |seen| (!are_well(&seen.looks())).then_some(()));
            if disturbed.is_none()
                && let Some(lead) = self.observers.lead_since(begin)
            {
                return Ok(lead);
            }
            if deadline.passed() {
                bail!("not well again within {PATIENCE:?}: {:?}\n{}", self.observers.looks(), self.logs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_for_members(&self, deadline: Moment) -> Result<()> {
        loop {
            let running = (0..self.etcd.size()).filter(|member| self.etcd.pid(*member).is_some()).count();
            let leader = self.etcd.leader().await.ok().flatten();
            if running >= MEMBERS && leader.is_some() {
                return Ok(());
            }
            ensure!(!deadline.passed(), "{running} members run, and their leader is {leader:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where in [`stations`](Self::stations) the leader is, as of its last answers.
    pub fn leader(&self) -> Option<usize> {
        let looks = self.observers.looks();
        looks.iter().position(|(_, look)| *look == Some(Look::Leading))
    }

    /// How the lock key of this reign ended; nothing while it is there.
    pub fn key_end(&self, reign: &Reign) -> Option<KeyEnd> {
        let place = SIDECARS.iter().position(|name| *name == reign.leader)?;
        let witnesses: Vec<_> = self.stations.iter().map(|station| &station.witness).collect();
        end_of(reign.term.1, place, &witnesses)
    }

    /// What the applications have come to.
    ///
    /// # Errors
    /// When etcd does not answer.
    pub async fn counted(&self, guard: Guard) -> Result<Count> {
        self.etcd.ask(async |client| count(&self.applications, guard, &mut client.kv_client()).await).await
    }

    /// Ends the applications: from now on what they have come to is exact.
    pub fn rest(&mut self) {
        self.applications.iter_mut().for_each(Application::finish);
    }

    /// The end of every sidecar's log.
    pub fn logs(&self) -> String {
        let log = |station: &Station| format!("--- {}:\n{}\n", station.name, station.log().join("\n"));
        self.stations.iter().map(log).collect()
    }
}

/// One leads, the others are in line.
fn are_well(looks: &[(String, Option<Look>)]) -> bool {
    let count = |wanted: Look| looks.iter().filter(|(_, look)| *look == Some(wanted)).count();
    count(Look::Leading) == 1 && count(Look::Leading) + count(Look::Standby) == looks.len()
}

fn station(
    place: usize,
    host: Host,
    etcd: &EtcdCluster,
    security: Security,
    sabotage: Option<&str>,
) -> Result<Station> {
    let name = SIDECARS[place];
    let mut proxies = Vec::new();
    for member in (0..MEMBERS).filter(|_| place >= FIRST_WITH_PROXIES) {
        let server = etcd.client_address(member).parse().context("an address")?;
        proxies.push(host.within(|| Proxy::start(server))??);
    }
    let ttl = format!("{}s", LEASE_TTL.as_secs());
    let endpoints = endpoints(etcd, &proxies, security);
    let secrets = security.arguments(etcd)?;
    let mut options = SidecarOptions::new(env!("CARGO_BIN_EXE_bellwether"), name, &endpoints)
        .on(&host)
        .with(&["--lease-ttl", &ttl])
        .with(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
    if let Some(protection) = sabotage {
        options = options.with_env("BELLWETHER_SABOTAGE", protection);
    }
    let clock = WallClock::new()?;
    let sidecar = Sidecar::start(&clock.give_to(options))?;
    let access = security.access(etcd)?;
    let witness = host.within(|| Witness::start(endpoints, access))??;
    Ok(Station { name, host, sidecar, proxies, clock, witness, past: Vec::new() })
}

/// How etcd is reached: through these proxies, or directly when there are none.
fn endpoints(etcd: &EtcdCluster, proxies: &[Proxy], security: Security) -> Vec<String> {
    if proxies.is_empty() {
        return (0..MEMBERS).map(|member| etcd.endpoint(member)).collect();
    }
    proxies.iter().map(|proxy| format!("{}://{}", security.scheme(), proxy.address())).collect()
}
