//! A real etcd as a party, seen through the product's own adapter.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bellwether::config::{EtcdConfig, LockKeyName};
use bellwether::election::{
    Answer, Body, Call, CallError, CallErrorKind, EndpointId, Event, Identity, LeaseId, OpId, Request, Revision,
    StreamId, Timings, TimingsRequest, WatchId, WatchTarget,
};
use bellwether::etcd::Etcd;
use simulation::etcd::{Behaviour, Operation};
use support::DiskStall;
use support::etcd::{EtcdCluster, EtcdOptions, etcd_binary};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::party::{Heard, Party, Renewed, Sent, Shape};

const LOCK: &str = "/bellwether/default/web";
/// Two of the stuffing's pieces fit.
const SMALL_BYTES: u64 = 1 << 20;

/// Longer than any story: the end of a stall is when it is ended.
const FOR_GOOD: Duration = Duration::from_secs(600);

/// The servers at hand: the default one, and a current one where there is one.
pub fn binaries() -> Result<(PathBuf, Option<PathBuf>)> {
    let default = etcd_binary()?;
    let current = std::env::var_os("BELLWETHER_ETCD_CURRENT").map(PathBuf::from);
    Ok((default.clone(), current.filter(|current| *current != default)))
}

/// One candidate's adapter, and what it has reported.
struct Client {
    etcd: Etcd,
    answered: BTreeMap<OpId, Result<Answer, CallError>>,
    renewed: BTreeMap<StreamId, VecDeque<Renewed>>,
    heard: BTreeMap<WatchId, VecDeque<Heard>>,
}

impl Client {
    /// Takes reports until there is one that `wanted` finds, for so long at most.
    async fn wait<T>(&mut self, until: Instant, wanted: impl Fn(&mut Self) -> Option<T>) -> Result<Option<T>> {
        loop {
            if let Some(found) = wanted(self) {
                return Ok(Some(found));
            }
            match timeout_at(until, self.etcd.next_event()).await {
                Ok(event) => self.take(event?)?,
                Err(_elapsed) => return Ok(None),
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Answered { id, result } => {
                self.answered.insert(id, result);
            }
            Event::KeepAliveAnswered { stream, header, ttl_seconds } => {
                self.renewed.entry(stream).or_default().push_back(Ok((header, ttl_seconds)));
            }
            Event::StreamEnded { stream, error } => self.renewed.entry(stream).or_default().push_back(Err(error)),
            Event::WatchCreated { watch, header } => {
                self.heard.entry(watch).or_default().push_back(Heard::Created(header));
            }
            Event::WatchChanged { watch, header, change } => {
                self.heard.entry(watch).or_default().push_back(Heard::Changed(header, change));
            }
            Event::WatchEnded { watch, error } => self.heard.entry(watch).or_default().push_back(Heard::Ended(error)),
            Event::AnswersSettled { .. }
            | Event::Published { .. }
            | Event::WorkFailed { .. }
            | Event::WorkFinished { .. }
            | Event::WorkStopped { .. }
            | Event::AppHealth(_)
            | Event::AppGone
            | Event::Stop
            | Event::Resign { .. }
            | Event::CredentialsRenewed => bail!("the adapter does not report {event:?}"),
        }
        Ok(())
    }
}

pub struct Real {
    /// Before the cluster, because dropped before it: a process that is traced cannot be ended.
    stalled: BTreeMap<usize, DiskStall>,
    cluster: EtcdCluster,
    behaviour: Behaviour,
    began: Instant,
    clients: BTreeMap<&'static str, Client>,
    patience: BTreeMap<u64, Instant>,
    /// The open stream of each member and lease.
    streams: BTreeMap<(usize, LeaseId), StreamId>,
    stopped: BTreeSet<usize>,
    ids: u64,
}

impl Real {
    pub async fn start(shape: Shape, binary: PathBuf) -> Result<Self> {
        let options = EtcdOptions {
            members: shape.members,
            heartbeat_interval: shape.election_timeout / 10,
            election_timeout: shape.election_timeout,
            quota_bytes: shape.small.then_some(SMALL_BYTES),
            binary: Some(binary),
            ..EtcdOptions::default()
        };
        let mut cluster = EtcdCluster::start(options).await?;
        cluster.wait_until_ready().await?;
        let mut real = Self {
            cluster,
            behaviour: Behaviour::Current,
            began: Instant::now(),
            clients: BTreeMap::new(),
            patience: BTreeMap::new(),
            streams: BTreeMap::new(),
            stopped: BTreeSet::new(),
            stalled: BTreeMap::new(),
            ids: 0,
        };
        let sent = real.send("web-0", 0, Duration::from_secs(10), Call::Probe).await?;
        let answer = real.outcome(sent).await?.map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let Body::Probed { version, .. } = answer.body else { bail!("{answer:?}") };
        real.behaviour = behaviour(&version)?;
        Ok(real)
    }

    fn client(&mut self, who: &'static str) -> Result<&mut Client> {
        if !self.clients.contains_key(who) {
            let config = EtcdConfig { endpoints: self.cluster.endpoints(), tls: None, auth: None };
            let lock: LockKeyName = LOCK.parse().map_err(|fault| anyhow::anyhow!("{LOCK}: {fault}"))?;
            let timings = Timings::new(TimingsRequest::default()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
            let etcd = Etcd::new(&config, &lock, &Identity::new(who), &timings)?;
            let client = Client { etcd, answered: BTreeMap::new(), renewed: BTreeMap::new(), heard: BTreeMap::new() };
            self.clients.insert(who, client);
        }
        self.clients.get_mut(who).context("inserted just now")
    }

    fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    /// The members that may be expected to answer.
    fn awake(&self) -> impl Iterator<Item = usize> + '_ {
        let awake = |member: &usize| {
            self.cluster.pid(*member).is_some() && !self.stopped.contains(member) && !self.stalled.contains_key(member)
        };
        (0..self.cluster.size()).filter(awake)
    }

    /// Whom those take for the leader, if they agree and it is one of them.
    async fn agreed_leader(&self) -> Result<Option<usize>> {
        let mut leaders = BTreeSet::new();
        let mut ids = BTreeMap::new();
        for member in self.awake() {
            let status = self.cluster.client(member).await?.status().await?;
            ids.insert(status.header().context("an answer without a header")?.member_id(), member);
            leaders.insert(status.leader());
        }
        Ok(leaders.pop_first().filter(|_| leaders.is_empty()).and_then(|leader| ids.get(&leader).copied()))
    }
}

/// Which model a server of this version is to be held against.
fn behaviour(version: &str) -> Result<Behaviour> {
    let numbers: Vec<u32> = version.split('.').map_while(|number| number.parse().ok()).collect();
    let [major, minor, patch] = numbers[..] else { bail!("no version: {version}") };
    let mended = match (major, minor) {
        (3, 4) => patch >= 31,
        (3, 5) => patch >= 13,
        _ => (major, minor) > (3, 5),
    };
    Ok(if mended { Behaviour::Current } else { Behaviour::WithStaleLeases })
}

impl Party for Real {
    fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    fn clock(&self) -> Duration {
        self.began.elapsed()
    }

    fn slack(&self) -> Duration {
        Duration::from_millis(1500)
    }

    async fn rest(&mut self, time: Duration) -> Result<()> {
        sleep(time).await;
        Ok(())
    }

    async fn send(&mut self, who: &'static str, member: usize, patience: Duration, call: Call) -> Result<Sent> {
        let id = self.next_id();
        self.patience.insert(id, Instant::now() + 2 * patience);
        let request = Request { id: OpId(id), endpoint: EndpointId(member), timeout: patience, call };
        self.client(who)?.etcd.request(request);
        Ok(Sent { who, id })
    }

    async fn outcome(&mut self, sent: Sent) -> Result<Result<Answer, CallError>> {
        let until = self.patience.remove(&sent.id).context("it has been sent")?;
        let client = self.client(sent.who)?;
        let answer = client.wait(until, |client| client.answered.remove(&OpId(sent.id))).await?;
        answer.context("the adapter answers every call within its timeout")
    }

    async fn keep_alive(&mut self, member: usize, patience: Duration, lease: LeaseId) -> Result<Renewed> {
        let fresh = StreamId(self.next_id());
        let stream = *self.streams.entry((member, lease)).or_insert(fresh);
        let client = self.client("web-0")?;
        client.etcd.keep_alive(stream, EndpointId(member), lease);
        let first = |client: &mut Client| client.renewed.get_mut(&stream)?.pop_front();
        let renewed = client.wait(Instant::now() + patience, first).await?;
        if renewed.is_none() {
            client.etcd.close_stream(stream);
        }
        let timed_out = Err(CallError { kind: CallErrorKind::Timeout, message: String::new() });
        let renewed = renewed.unwrap_or(timed_out);
        if renewed.is_err() {
            self.streams.remove(&(member, lease));
        }
        Ok(renewed)
    }

    async fn watch(&mut self, who: &'static str, member: usize, target: WatchTarget, from: Revision) -> Result<Sent> {
        let id = self.next_id();
        self.client(who)?.etcd.watch(WatchId(id), EndpointId(member), target, from);
        Ok(Sent { who, id })
    }

    async fn heard(&mut self, Sent { who, id }: Sent, within: Duration) -> Result<Option<Heard>> {
        let first = |client: &mut Client| client.heard.get_mut(&WatchId(id))?.pop_front();
        self.client(who)?.wait(Instant::now() + within, first).await
    }

    async fn operate(&mut self, operation: Operation) -> Result<()> {
        // As an operator would, with etcdctl, at a member that answers.
        let mut client = self.cluster.client(self.awake().next().context("no member answers")?).await?;
        match operation {
            Operation::DeleteLock => {
                client.delete(LOCK, None).await?;
            }
            Operation::PutLock { holder, lease } => {
                let lease = lease.map_or(0, |lease| lease.0);
                self.cluster.put(LOCK, holder.as_str(), lease).await?;
            }
            Operation::DeleteCandidate(identity) => {
                client.delete(format!("{LOCK}/candidates/{identity}"), None).await?;
            }
            Operation::Revoke(lease) => {
                client.lease_revoke(lease.0).await?;
            }
            Operation::Compact(revision) => self.cluster.compact(revision.0).await?,
            Operation::PutElsewhere => {
                client.put("/elsewhere", "", None).await?;
            }
        }
        Ok(())
    }

    async fn leader(&mut self) -> Result<usize> {
        let until = Instant::now() + Duration::from_secs(30);
        while Instant::now() < until {
            if let Ok(Ok(Some(leader))) = timeout(Duration::from_secs(5), self.agreed_leader()).await {
                return Ok(leader);
            }
            sleep(Duration::from_millis(50)).await;
        }
        bail!("nobody leads")
    }

    async fn kill(&mut self, member: usize) -> Result<()> {
        self.cluster.kill(member);
        Ok(())
    }

    async fn restart(&mut self, member: usize) -> Result<()> {
        self.cluster.restart(member)?;
        self.cluster.wait_until_ready().await
    }

    async fn stop(&mut self, member: usize) -> Result<()> {
        self.stopped.insert(member);
        self.cluster.freeze(member)
    }

    async fn cont(&mut self, member: usize) -> Result<()> {
        ensure!(self.stopped.remove(&member), "it is stopped");
        self.cluster.thaw(member)
    }

    async fn stall(&mut self, member: usize) -> Result<()> {
        let pid = self.cluster.pid(member).context("it is running")?;
        self.stalled.insert(member, DiskStall::begin(pid, FOR_GOOD)?);
        Ok(())
    }

    async fn end_stall(&mut self, member: usize) -> Result<()> {
        self.stalled.remove(&member).context("it is stalled")?.end()
    }

    async fn fill(&mut self) -> Result<()> {
        self.cluster.fill_up().await
    }

    async fn make_room(&mut self) -> Result<()> {
        self.cluster.make_room().await
    }

    async fn wipe(&mut self) -> Result<()> {
        self.cluster.wipe().await
    }
}
