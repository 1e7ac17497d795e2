//! Three machines, one etcd, and a network that delays, loses and repeats, under one seed.

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether::election::{
    Call, CallErrorKind, Effect, EndpointId, Event, LockKey, PublicState, Publication, RaftTerm, StreamId, Timings,
    WatchId,
};

use super::dice::Dice;
use super::judge::{Judge, Verdict};
use super::node::{Node, OpenWatch};
use crate::etcd::{Etcd, error, nanos};
use crate::scene::{Pending, failed};

pub const CANDIDATES: usize = 3;
/// Once faults have stopped, a leader is due within T and this: etcd's own extension of leases on a change
/// of its leader, a drain, and a few attempts.
const HEALED_WITHIN: Duration = Duration::from_secs(6);
/// At rest a candidate renews and confirms, every K and hedged now and then; more than this many calls a second
/// is a storm of its own.
const CALLS_PER_SECOND: u64 = 6;
/// And it looks once every T, and probes three endpoints every 30 s.
const CALLS_BESIDE: u64 = 8;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Networks, machines, clocks and etcd.
    Storm,
    /// And operators, who take the lock away from whoever holds it.
    StormWithOperators,
    /// The leader's network, again and again: slow at first, then none.
    Fading,
}

/// The way from one candidate to one endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Up,
    Slow,
    /// Connections are refused and cut.
    Refused,
    /// Nothing arrives and nothing is reported.
    BlackHole,
}

/// An etcd leader that was deposed and does not know: it acknowledges keep-alives, and nothing else.
#[derive(Clone, Copy)]
pub struct Stale {
    pub until: u64,
    raft_term: RaftTerm,
}

pub enum Happening {
    /// A request reaches etcd.
    Arrives {
        node: usize,
        life: u64,
        pending: Pending,
    },
    /// An event reaches its candidate.
    Returns {
        node: usize,
        life: u64,
        event: Event,
    },
    Watched {
        node: usize,
        life: u64,
        watch: WatchId,
    },
    Timer {
        node: usize,
        number: u64,
    },
    Wakes {
        node: usize,
    },
    Starts {
        node: usize,
        life: u64,
    },
    LinkTurns {
        node: usize,
        endpoint: usize,
        to: Link,
    },
    Fault,
}

pub struct World {
    pub now: u64,
    pub dice: Dice,
    pub etcd: Etcd,
    pub nodes: Vec<Node>,
    pub links: Vec<Vec<Link>>,
    pub stale: Vec<Option<Stale>>,
    pub timings: Timings,
    pub judge: Judge,
    pub weather: Weather,
    pub story: Vec<String>,
    queue: BTreeMap<(u64, u64), Happening>,
    number: u64,
    pub healed: bool,
}

impl World {
    pub fn new(seed: u64, timings: Timings, endpoints: usize, weather: Weather) -> Self {
        let mut dice = Dice::new(seed);
        // Clocks differ by up to a third of what the margin allows for.
        let allowed = timings.safety_margin().as_nanos() * 1_000_000 / timings.lease_ttl().as_nanos() / 3;
        let allowed = i64::try_from(allowed).expect("less than a million");
        let drifts = [-allowed, 0, allowed];
        let turned = dice.below(CANDIDATES);
        let nodes = (0..CANDIDATES)
            .map(|place| Node::new(&format!("web-{place}"), timings, endpoints, drifts[(place + turned) % CANDIDATES]))
            .collect();
        let mut world = Self {
            now: 0,
            dice,
            etcd: Etcd::new(),
            nodes,
            links: vec![vec![Link::Up; endpoints]; CANDIDATES],
            stale: vec![None; endpoints],
            timings,
            judge: Judge::new(CANDIDATES, weather == Weather::StormWithOperators),
            weather,
            story: Vec::new(),
            queue: BTreeMap::new(),
            number: 0,
            healed: false,
        };
        for node in 0..CANDIDATES {
            let soon = world.dice.between(Duration::ZERO, Duration::from_secs(1));
            world.after(soon, Happening::Starts { node, life: 0 });
        }
        world
    }

    pub fn after(&mut self, delay: u64, what: Happening) {
        self.number += 1;
        self.queue.insert((self.now + delay, self.number), what);
    }

    pub fn note(&mut self, what: impl Into<String>) {
        self.story.push(format!("{:>9.3}s {}", Duration::from_nanos(self.now).as_secs_f64(), what.into()));
    }

    /// Lets everything happen until `end`.
    pub fn run_until(&mut self, end: u64) -> Verdict {
        loop {
            let next = self.queue.keys().next().map_or(end, |(at, _)| *at).min(end);
            if let Some(expiry) = self.etcd.next_expiry().filter(|expiry| *expiry <= next) {
                self.now = expiry;
                self.look()?;
                self.etcd.expire(expiry);
                self.tell_watchers();
                self.look()?;
                continue;
            }
            self.now = next;
            if next == end {
                return self.look();
            }
            self.look()?;
            let (_, what) = self.queue.pop_first().expect("it was looked at");
            self.happens(what)?;
            self.tell_watchers();
            self.look()?;
        }
    }

    fn look(&mut self) -> Verdict {
        self.judge.look(self.now, &self.nodes, self.etcd.lock())
    }

    fn happens(&mut self, what: Happening) -> Verdict {
        match what {
            Happening::Arrives { node, life, pending } => return self.arrives(node, life, &pending),
            Happening::Returns { node, life, event } => self.returns(node, life, event),
            Happening::Watched { node, life, watch } => self.watched(node, life, watch),
            Happening::Timer { node, number } => {
                if self.nodes[node].timer == number && self.nodes[node].paused.is_none() {
                    self.turn(node, None);
                }
            }
            Happening::Wakes { node } => self.wakes(node),
            Happening::Starts { node, life } => {
                if self.nodes[node].life == life && !self.nodes[node].is_running() {
                    let seed = self.dice.roll();
                    let effects = self.nodes[node].start(self.now, seed);
                    self.carry_out(node, effects);
                }
            }
            Happening::LinkTurns { node, endpoint, to } => {
                self.links[node][endpoint] = if self.healed { Link::Up } else { to };
            }
            Happening::Fault => self.fault(),
        }
        Ok(())
    }

    // ---- the candidates

    fn wakes(&mut self, node: usize) {
        if self.nodes[node].paused.is_none_or(|pause| pause.until > self.now) {
            return;
        }
        self.nodes[node].wakes(self.now);
        self.turn(node, None);
        for event in std::mem::take(&mut self.nodes[node].inbox) {
            self.turn(node, Some(event));
        }
    }

    fn returns(&mut self, node: usize, life: u64, event: Event) {
        let to = &mut self.nodes[node];
        if to.life != life || !to.is_running() {
            return;
        }
        if let Event::Answered { id, .. } = &event
            && !to.open_calls.remove(id)
        {
            return;
        }
        if to.paused.is_some() { to.inbox.push(event) } else { self.turn(node, Some(event)) }
    }

    pub fn turn(&mut self, node: usize, event: Option<Event>) {
        let effects = self.nodes[node].turn(self.now, event);
        self.carry_out(node, effects);
    }

    fn carry_out(&mut self, node: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.carry_out_one(node, effect);
        }
        if self.nodes[node].exited {
            self.nodes[node].crash();
            let (life, rest) = (self.nodes[node].life, self.dice.between(Duration::ZERO, Duration::from_secs(3)));
            self.after(rest, Happening::Starts { node, life });
            return;
        }
        self.nodes[node].timer += 1;
        if let Some(at) = self.nodes[node].next_timer() {
            let late = if self.dice.once_in(20) { Duration::from_millis(60) } else { Duration::from_millis(1) };
            let late = self.dice.between(Duration::ZERO, late);
            let number = self.nodes[node].timer;
            self.after((at + late).saturating_sub(self.now), Happening::Timer { node, number });
        }
    }

    fn carry_out_one(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        match effect {
            Effect::Request(request) => {
                self.nodes[node].open_calls.insert(request.id);
                let timeout = nanos(request.timeout);
                let pending = Pending::Call(request);
                let event = failed(&pending, CallErrorKind::Timeout);
                self.after(timeout, Happening::Returns { node, life, event });
                self.send(node, pending);
            }
            Effect::KeepAlive { stream, endpoint, lease } => {
                self.nodes[node].streams.insert(stream, endpoint);
                self.send(node, Pending::KeepAlive { stream, endpoint, lease });
            }
            // A closed stream's answer may have been read already: it is delivered, and must do no harm.
            Effect::CloseStream(stream) => drop(self.nodes[node].streams.remove(&stream)),
            Effect::Watch { watch, endpoint, target, from } => {
                let open = OpenWatch { endpoint, target, from, log_place: None, last_delivery: 0, lossy: false };
                self.nodes[node].watches.insert(watch, open);
                let delay = self.delay();
                self.after(delay, Happening::Watched { node, life, watch });
            }
            Effect::Unwatch(watch) => drop(self.nodes[node].watches.remove(&watch)),
            Effect::SettleAnswers(id) => {
                let settled = self.judge.promised(node).saturating_sub(self.now);
                if !self.dice.once_in(8) {
                    self.after(settled, Happening::Returns { node, life, event: Event::AnswersSettled { id } });
                }
            }
            Effect::Publish(Publication { id, .. }) => {
                if !self.dice.once_in(8) {
                    let delay = self.dice.between(Duration::ZERO, Duration::from_secs(1));
                    self.after(delay, Happening::Returns { node, life, event: Event::Published { id } });
                }
            }
            Effect::Tell(_) => {}
            Effect::Exit => self.nodes[node].exited = true,
        }
    }

    // ---- the network

    /// On the way back, where a slow link is slow: an answer that took long is not one whose request did.
    fn delay_back(&mut self, node: usize, endpoint: EndpointId) -> u64 {
        if self.links[node][endpoint.0] == Link::Slow && self.dice.once_in(2) {
            return self.dice.between(Duration::from_millis(50), self.timings.attempt_timeout());
        }
        self.delay()
    }

    fn delay(&mut self) -> u64 {
        let most = match self.dice.below(200) {
            0 if !self.healed => Duration::from_secs(4),
            1..10 => Duration::from_millis(300),
            _ => Duration::from_millis(3),
        };
        self.dice.between(Duration::from_micros(100), most)
    }

    fn send(&mut self, node: usize, pending: Pending) {
        self.nodes[node].requests += 1;
        let life = self.nodes[node].life;
        let delay = self.delay();
        self.after(delay, Happening::Arrives { node, life, pending });
    }

    fn reply(&mut self, node: usize, life: u64, endpoint: EndpointId, event: Event) {
        let delay = self.delay_back(node, endpoint);
        self.after(delay, Happening::Returns { node, life, event });
    }

    fn arrives(&mut self, node: usize, life: u64, pending: &Pending) -> Verdict {
        let endpoint = pending.endpoint();
        let lost = !self.healed && self.dice.once_in(300);
        match self.links[node][endpoint.0] {
            Link::BlackHole => return Ok(()),
            Link::Refused => {
                self.reply(node, life, endpoint, failed(pending, CallErrorKind::Unavailable));
                return Ok(());
            }
            Link::Up | Link::Slow if lost => return Ok(()),
            Link::Up | Link::Slow => {}
        }
        let event = match (self.stale[endpoint.0].filter(|stale| stale.until > self.now), pending) {
            (Some(stale), Pending::KeepAlive { stream, .. }) => {
                let header = bellwether::election::Header { raft_term: stale.raft_term, ..self.etcd.header(endpoint) };
                let ttl_seconds = i64::try_from(self.timings.lease_ttl().as_secs()).expect("an hour at most");
                Event::KeepAliveAnswered { stream: *stream, header, ttl_seconds }
            }
            // A linearizable call needs a majority, which this member does not hear of.
            (Some(_), Pending::Call(_)) => return Ok(()),
            (None, pending) => self.apply(node, pending)?,
        };
        if !self.healed && self.dice.once_in(300) {
            let cut = failed(pending, CallErrorKind::Unavailable);
            self.reply(node, life, endpoint, cut);
        } else if self.healed || !self.dice.once_in(300) {
            self.reply(node, life, endpoint, event);
        }
        Ok(())
    }

    fn apply(&mut self, node: usize, pending: &Pending) -> Result<Event, String> {
        match pending {
            Pending::Call(request) => {
                let before: Option<LockKey> = self.etcd.lock().cloned();
                let identity = self.nodes[node].identity().clone();
                let result = self.etcd.call(self.now, &identity, request.endpoint, &request.call);
                let lets_go = matches!(request.call, Call::DeleteLock { .. } | Call::Revoke { .. });
                if let Some(held) = before.filter(|_| lets_go && self.etcd.lock().is_none()) {
                    self.judge.lock_let_go(self.now, node, &held, &self.nodes)?;
                }
                Ok(Event::Answered { id: request.id, result })
            }
            Pending::KeepAlive { stream, endpoint, lease } => {
                let header = self.etcd.header(*endpoint);
                let ttl_seconds = self.etcd.keep_alive(self.now, *lease);
                Ok(Event::KeepAliveAnswered { stream: *stream, header, ttl_seconds })
            }
        }
    }

    // ---- watches

    fn watched(&mut self, node: usize, life: u64, watch: WatchId) {
        if self.nodes[node].life != life {
            return;
        }
        let Some(open) = self.nodes[node].watches.get_mut(&watch) else { return };
        match self.links[node][open.endpoint.0] {
            Link::BlackHole => {}
            Link::Refused => {
                let endpoint = open.endpoint;
                let event = Event::WatchEnded { watch, error: error(CallErrorKind::Unavailable) };
                self.reply(node, life, endpoint, event);
            }
            Link::Up | Link::Slow => {
                open.log_place = Some(0);
                let header = self.etcd.header(open.endpoint);
                self.after(0, Happening::Returns { node, life, event: Event::WatchCreated { watch, header } });
            }
        }
    }

    /// Carries every change to everybody who watches its key, each in order, each in its own time.
    fn tell_watchers(&mut self) {
        let end = self.etcd.changes_so_far();
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            let behind = |open: &OpenWatch| open.log_place.is_some_and(|place| place < end);
            let watches: Vec<WatchId> =
                self.nodes[node].watches.iter().filter(|(_, open)| behind(open)).map(|(id, _)| *id).collect();
            for watch in watches {
                self.tell_watcher(node, life, watch, end);
            }
        }
    }

    fn tell_watcher(&mut self, node: usize, life: u64, watch: WatchId, end: usize) {
        let open = self.nodes[node].watches.get_mut(&watch).expect("it was listed");
        let (endpoint, place) = (open.endpoint, open.log_place.replace(end).expect("it was acknowledged"));
        let (target, from) = (open.target.clone(), open.from);
        let deaf = self.links[node][endpoint.0] == Link::BlackHole
            || self.stale[endpoint.0].is_some_and(|stale| stale.until > self.now);
        for at in place..end {
            let (changed, change) = self.etcd.change(at).clone();
            if changed != target || change.revision() < from || deaf {
                continue;
            }
            let delay = self.delay_back(node, endpoint);
            let now = self.now;
            let open = self.nodes[node].watches.get_mut(&watch).expect("it was listed");
            if std::mem::take(&mut open.lossy) {
                continue;
            }
            open.last_delivery = (now + delay).max(open.last_delivery + 1);
            let (wait, header) = (open.last_delivery - now, self.etcd.header(endpoint));
            self.after(wait, Happening::Returns { node, life, event: Event::WatchChanged { watch, header, change } });
        }
    }

    // ---- faults other modules choose, and their end

    /// Cuts what runs from a candidate to an endpoint.
    pub fn cut(&mut self, node: usize, endpoint: usize) {
        let life = self.nodes[node].life;
        let streams: Vec<StreamId> =
            self.nodes[node].streams.iter().filter(|(_, to)| to.0 == endpoint).map(|(id, _)| *id).collect();
        for stream in streams {
            self.nodes[node].streams.remove(&stream);
            let event = Event::StreamEnded { stream, error: error(CallErrorKind::Unavailable) };
            self.after(1, Happening::Returns { node, life, event });
        }
        let watches: Vec<WatchId> =
            self.nodes[node].watches.iter().filter(|(_, to)| to.endpoint.0 == endpoint).map(|(id, _)| *id).collect();
        for watch in watches {
            self.end_watch(node, watch, CallErrorKind::Unavailable);
        }
    }

    pub fn end_watch(&mut self, node: usize, watch: WatchId, kind: CallErrorKind) {
        let life = self.nodes[node].life;
        self.nodes[node].watches.remove(&watch);
        self.after(1, Happening::Returns { node, life, event: Event::WatchEnded { watch, error: error(kind) } });
    }

    pub fn depose(&mut self, endpoint: usize, lasts: u64) {
        let raft_term = RaftTerm(self.etcd.raft_term);
        self.stale[endpoint] = Some(Stale { until: self.now + lasts, raft_term });
        self.etcd.elects_a_leader(self.now);
    }

    /// Faults stop, everything runs: somebody must lead soon, and all must be quiet.
    pub fn heals(&mut self) -> Verdict {
        self.healed = true;
        self.note("everything is repaired");
        self.stale.fill(None);
        for links in &mut self.links {
            links.fill(Link::Up);
        }
        for node in 0..self.nodes.len() {
            if let Some(pause) = &mut self.nodes[node].paused {
                pause.until = self.now;
                self.after(0, Happening::Wakes { node });
            }
            let life = self.nodes[node].life;
            self.after(0, Happening::Starts { node, life });
        }
        let within = self.timings.lease_ttl() + self.timings.drain_timeout() + HEALED_WITHIN;
        self.run_until(self.now + nanos(within))?;
        self.someone_leads()?;
        self.is_quiet()
    }

    fn someone_leads(&self) -> Verdict {
        if self.nodes.iter().any(|node| node.answers_200(self.now)) {
            return Ok(());
        }
        let states: Vec<Option<PublicState>> = self.nodes.iter().map(Node::state).collect();
        Err(format!("someone_leads_after_heal: {states:?}, the key is {:?}", self.etcd.lock()))
    }

    fn is_quiet(&mut self) -> Verdict {
        let before: Vec<u64> = self.nodes.iter().map(|node| node.requests).collect();
        let span = self.timings.lease_ttl();
        self.run_until(self.now + nanos(span))?;
        self.someone_leads()?;
        for (place, node) in self.nodes.iter().enumerate() {
            let calls = node.requests - before[place];
            if calls > CALLS_PER_SECOND * span.as_secs() + CALLS_BESIDE {
                return Err(format!("is_quiet: {place} made {calls} calls in {span:?} of rest"));
            }
        }
        Ok(())
    }
}
