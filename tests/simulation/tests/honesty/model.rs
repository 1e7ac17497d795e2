//! The modelled etcd as a party, and what lies it can be made to tell.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bellwether::election::{Answer, Call, CallError, CallErrorKind, Identity, LeaseId, Revision, WatchTarget};
use simulation::etcd::{Asked, Behaviour, Cluster, ClusterOptions, Extension, Operation, Output, Ticket};

use crate::party::{Heard, Party, Renewed, Sent, Shape};

/// What a wrong model would say: the comparison must notice each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A keep-alive of a lease that is not there renews it.
    MissingLeaseLives,
    /// Leases do not expire.
    NothingExpires,
    /// A claim with a lease that is gone wins.
    LostLeaseClaims,
    /// A resume that finds no candidate key is won.
    EveryResumeIsWon,
    /// A watch from before a compaction is silent.
    CompactionGoesUnsaid,
}

pub struct Model {
    cluster: Cluster,
    behaviour: Behaviour,
    now: u64,
    tickets: u64,
    lie: Option<Lie>,
    granted: BTreeSet<LeaseId>,
    answered: BTreeMap<Ticket, Result<Answer, CallError>>,
    renewed: BTreeMap<Ticket, Renewed>,
    heard: BTreeMap<Ticket, VecDeque<Heard>>,
    /// Until when a call may take, and where it went.
    patience: BTreeMap<Ticket, (u64, usize)>,
}

impl Model {
    pub fn new(shape: Shape, behaviour: Behaviour, seed: u64, lie: Option<Lie>) -> Self {
        let options = ClusterOptions {
            members: shape.members,
            behaviour,
            extension: Extension::Full,
            election_timeout: shape.election_timeout,
            seed,
        };
        Self {
            cluster: Cluster::new(options),
            behaviour,
            now: 0,
            tickets: 0,
            lie,
            granted: BTreeSet::new(),
            answered: BTreeMap::new(),
            renewed: BTreeMap::new(),
            heard: BTreeMap::new(),
            patience: BTreeMap::new(),
        }
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn ask(&mut self, member: usize, asked: Asked) -> Ticket {
        let ticket = self.ticket();
        self.cluster.ask(self.now, member, ticket, asked);
        ticket
    }

    /// To the next thing that happens, or `until`.
    fn step(&mut self, until: u64) {
        self.now = self.cluster.next_at().map_or(until, |at| at.clamp(self.now, until));
        self.cluster.advance(self.now);
        while let Some(output) = self.cluster.poll_output() {
            self.take(output);
        }
    }

    fn take(&mut self, output: Output) {
        let heard = match output {
            Output::Answered { ticket, result } => {
                self.answered.insert(ticket, result);
                return;
            }
            Output::KeptAlive { ticket, header, ttl_seconds } => {
                self.renewed.insert(ticket, Ok((header, ttl_seconds)));
                return;
            }
            Output::StreamEnded { ticket, error } => {
                self.renewed.insert(ticket, Err(error));
                return;
            }
            Output::WatchCreated { ticket, header } => (ticket, Heard::Created(header)),
            Output::WatchChanged { ticket, header, change } => (ticket, Heard::Changed(header, change)),
            Output::WatchEnded { error, .. }
                if error.kind == CallErrorKind::Compacted && self.lie == Some(Lie::CompactionGoesUnsaid) =>
            {
                return;
            }
            Output::WatchEnded { ticket, error } => (ticket, Heard::Ended(error)),
        };
        self.heard.entry(heard.0).or_default().push_back(heard.1);
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + nanos(time);
        while self.now < until {
            self.step(until);
        }
    }

    /// Runs until it holds, for so long at most.
    fn run_until(&mut self, within: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let until = self.now + nanos(within);
        loop {
            if holds(self) {
                return true;
            }
            if self.now >= until {
                return false;
            }
            self.step(until);
        }
    }

    fn lied(&self, call: &Call) -> Option<Call> {
        match (self.lie, call) {
            (Some(Lie::LostLeaseClaims), Call::Claim { lease, .. } | Call::Register { lease, .. })
                if !self.cluster.has_lease(*lease) =>
            {
                Some(Call::Grant { lease: *lease, ttl: Duration::from_secs(10) })
            }
            (Some(Lie::EveryResumeIsWon), Call::Resume { lease, record, .. }) => {
                Some(Call::Register { lease: *lease, record: record.clone() })
            }
            _ => None,
        }
    }
}

impl Party for Model {
    fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    fn clock(&self) -> Duration {
        Duration::from_nanos(self.now)
    }

    fn slack(&self) -> Duration {
        Duration::from_millis(50)
    }

    async fn rest(&mut self, time: Duration) -> Result<()> {
        if self.lie != Some(Lie::NothingExpires) {
            self.run(time);
            return Ok(());
        }
        let until = self.now + nanos(time);
        while self.now < until {
            for lease in self.granted.clone() {
                self.ask(0, Asked::KeepAlive { lease });
            }
            self.run(Duration::from_millis(100).min(Duration::from_nanos(until - self.now)));
        }
        Ok(())
    }

    async fn send(&mut self, who: &'static str, member: usize, patience: Duration, call: Call) -> Result<Sent> {
        let identity = Identity::new(who);
        if let Some(first) = self.lied(&call) {
            self.ask(member, Asked::Call { identity: identity.clone(), call: first });
            self.run(Duration::from_millis(20));
        }
        if let Call::Grant { lease, .. } = call {
            self.granted.insert(lease);
        }
        let ticket = self.ask(member, Asked::Call { identity, call });
        self.patience.insert(ticket, (self.now + nanos(patience), member));
        if !self.cluster.is_running(member) {
            self.answered.insert(ticket, Err(refused()));
        }
        Ok(Sent { who, id: ticket.0 })
    }

    async fn outcome(&mut self, sent: Sent) -> Result<Result<Answer, CallError>> {
        let ticket = Ticket(sent.id);
        let (until, _) = self.patience.remove(&ticket).context("it has been sent")?;
        let within = Duration::from_nanos(until.saturating_sub(self.now));
        if self.run_until(within, |model| model.answered.contains_key(&ticket)) {
            return self.answered.remove(&ticket).context("seen just now");
        }
        self.cluster.forget(ticket);
        Ok(Err(CallError { kind: CallErrorKind::Timeout, message: String::new() }))
    }

    async fn keep_alive(&mut self, member: usize, patience: Duration, lease: LeaseId) -> Result<Renewed> {
        if !self.cluster.is_running(member) {
            return Ok(Err(refused()));
        }
        let ticket = self.ask(member, Asked::KeepAlive { lease });
        if !self.run_until(patience, |model| model.renewed.contains_key(&ticket)) {
            self.cluster.forget(ticket);
            return Ok(Err(CallError { kind: CallErrorKind::Timeout, message: String::new() }));
        }
        let renewed = self.renewed.remove(&ticket).context("seen just now")?;
        Ok(match (self.lie, renewed) {
            (Some(Lie::MissingLeaseLives), Ok((header, 0))) => Ok((header, 15)),
            (_, renewed) => renewed,
        })
    }

    async fn watch(&mut self, who: &'static str, member: usize, target: WatchTarget, from: Revision) -> Result<Sent> {
        let ticket = self.ticket();
        self.cluster.watch(self.now, member, ticket, target, from);
        Ok(Sent { who, id: ticket.0 })
    }

    async fn heard(&mut self, watch: Sent, within: Duration) -> Result<Option<Heard>> {
        let ticket = Ticket(watch.id);
        let until = self.now + nanos(within);
        while self.heard.get(&ticket).is_none_or(VecDeque::is_empty) && self.now < until {
            let lives_on = self.lie == Some(Lie::NothingExpires);
            let time = Duration::from_millis(if lives_on { 100 } else { 1 });
            self.rest(time.min(Duration::from_nanos(until - self.now))).await?;
        }
        Ok(self.heard.get_mut(&ticket).and_then(VecDeque::pop_front))
    }

    async fn operate(&mut self, operation: Operation) -> Result<()> {
        self.leader().await?;
        ensure!(self.cluster.operate(self.now, operation), "somebody leads");
        self.run(Duration::from_millis(20));
        Ok(())
    }

    async fn leader(&mut self) -> Result<usize> {
        ensure!(self.run_until(Duration::from_secs(30), |model| model.cluster.leader().is_some()), "nobody leads");
        // Until everybody has heard of it.
        self.run(Duration::from_millis(20));
        self.cluster.leader().context("somebody led just now")
    }

    async fn kill(&mut self, member: usize) -> Result<()> {
        self.cluster.kill(self.now, member);
        for (ticket, _) in self.patience.iter().filter(|(_, (_, at))| *at == member) {
            self.answered.entry(*ticket).or_insert_with(|| Err(refused()));
        }
        Ok(())
    }

    async fn restart(&mut self, member: usize) -> Result<()> {
        self.cluster.restart(self.now, member);
        let ready = |model: &Self| model.cluster.leader().is_some();
        ensure!(self.run_until(Duration::from_secs(30), ready), "nobody leads");
        self.run(Duration::from_millis(20));
        Ok(())
    }

    async fn stop(&mut self, member: usize) -> Result<()> {
        self.cluster.stop(self.now, member);
        Ok(())
    }

    async fn cont(&mut self, member: usize) -> Result<()> {
        self.cluster.cont(self.now, member);
        Ok(())
    }

    async fn stall(&mut self, member: usize) -> Result<()> {
        self.cluster.stall(self.now, member);
        Ok(())
    }

    async fn end_stall(&mut self, member: usize) -> Result<()> {
        self.cluster.end_stall(self.now, member);
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        self.cluster.fill(self.now);
        let call = Call::Grant { lease: LeaseId(999), ttl: Duration::from_secs(60) };
        let sent = self.send("filler", 0, Duration::from_secs(5), call).await?;
        ensure!(self.outcome(sent).await?.is_err(), "a full store refuses");
        self.run(Duration::from_millis(20));
        Ok(())
    }

    async fn make_room(&mut self) -> Result<()> {
        ensure!(self.cluster.make_room(self.now), "somebody leads");
        self.run(Duration::from_millis(20));
        Ok(())
    }

    async fn wipe(&mut self) -> Result<()> {
        self.cluster.wipe(self.now);
        self.leader().await?;
        Ok(())
    }
}

/// What the network says of a process that is gone.
fn refused() -> CallError {
    CallError { kind: CallErrorKind::Unavailable, message: String::new() }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("no story lasts that long")
}
