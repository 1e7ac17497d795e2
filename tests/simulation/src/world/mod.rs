//! A world: machines, one etcd, the network between them, and what happens next. Time is true time, in nanoseconds.

mod application;
mod beside;
mod connections;
mod driver;
mod memory;
mod pods;
mod rest;
mod wire;
mod work;

use std::collections::BTreeMap;
use std::time::Duration;

use bellwether::election::{Event, LockKey, OpId};

use crate::clock::nanos;
use crate::company::Company;
use crate::dice::Dice;
use crate::etcd::{Cluster, Snapshot, Ticket};
use crate::faults::{LastRenewal, Planned, Restored, UnderConfirm, plan};
use crate::invariants::{Judge, Verdict};
use crate::labels::{Labels, Patch};
use crate::network::Network;
use crate::node::Node;
use crate::scenario::{Control, Scenario, Tally, Violation, Weather};
use crate::setup::Setup;
use wire::{Flight, Homeward};

pub(crate) use wire::unavailable;

/// Everything that is to happen, and does so at its time.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The fault of this number strikes.
    Fault(usize),
    /// A request, or a watch, reaches its member.
    Reaches(Ticket),
    /// What a member said reaches its candidate's machine.
    Returns(Homeward),
    /// Something on the machine itself is told to the process.
    Tells { node: usize, life: u64, event: Event },
    /// The adapter has waited for this call as long as it was to.
    CallTimesOut { node: usize, life: u64, op: OpId },
    /// The turn under way goes on.
    Step { node: usize, life: u64 },
    /// The loop wakes, unless it has turned since.
    Timer { node: usize, life: u64, number: u64 },
    /// A stopped process or guest goes on.
    Wakes { node: usize },
    /// A machine's process starts, unless one runs.
    Starts { node: usize },
    /// A machine's process is killed, and restarted with this epoch.
    RestartsWithEpoch { node: usize, epoch: u64 },
    /// The answers given out have perhaps expired.
    Settles { node: usize, life: u64, op: OpId },
    /// A labeller looks.
    LabelRound { node: usize, life: u64, number: u64 },
    /// A patch of a pod lands.
    PatchLands(Patch),
    /// A condition of a link ends.
    LinkTurns { node: usize, member: usize },
    /// HTTP/2 pings have not come back for too long, if the link has been cut since then.
    PingsFail { node: usize, member: usize, cut_at: u64 },
    /// A fault of etcd ends.
    MemberTurns(MemberTurn),
    /// A process of this life is killed, unless it has ended.
    Dies { node: usize, life: u64, rest: u64 },
    /// Whatever process a machine has is killed, and starts again at once.
    Crashes { node: usize },
    /// A machine's guardians look at its clocks.
    Guards { node: usize },
    /// The first check of an application says something.
    AppChecked { node: usize, life: u64 },
    /// There is one reason less for an application not to be healthy.
    AppRecovers { node: usize },
    /// Nothing happens but that everybody is looked at.
    Look,
}

/// How a fault of etcd ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberTurn {
    Starts(usize),
    GoesOn(usize),
    /// A fault in two steps.
    Stalls(usize),
    DiskWrites(usize),
    Rejoins(usize),
    Mends {
        from: usize,
        to: usize,
    },
    KeepsUp(usize),
    Joins(usize),
    SpaceIsBack,
    StoreGoes {
        down: Duration,
        restart_after: Duration,
    },
    StoreIsBack {
        with: Restored,
    },
    LockIsCleared,
}

/// More than this at one instant is a world that stands still.
const AT_ONE_INSTANT_MOST: u32 = 100_000;

/// One run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) setup: Setup,
    pub(crate) cluster: Cluster,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) labels: Labels,
    pub(crate) judge: Judge,
    pub(crate) control: Option<Control>,
    pub(crate) plan: Vec<Planned>,
    pub(crate) story: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) weather: Weather,
    pub(crate) healed: bool,
    /// All members are down, for the store to be restored.
    pub(crate) store_is_away: bool,
    /// Until when some member is struck by something.
    pub(crate) members_struck_until: u64,
    pub(crate) last_renewal: Option<LastRenewal>,
    pub(crate) under_confirm: Option<UnderConfirm>,
    /// What candidates are to be restarted with.
    pub(crate) epoch: u64,
    /// Taken early in the run, or just before what it is restored for.
    pub(crate) backup: Option<Snapshot>,
    /// What broke first.
    pub(crate) broken: Option<Violation>,
    /// From the heal on nobody's application is healthy.
    pub(crate) all_stay_ill: bool,
    /// Chances of what candidates have beside their election.
    pub(crate) company_dice: Dice,
    /// Chances of the machines: how long turns take, how late timers are.
    dice: Dice,
    seeds: Dice,
    queue: BTreeMap<(u64, u64), Happening>,
    number: u64,
    flights: BTreeMap<Ticket, Flight>,
    tickets: u64,
    /// What links hold back, in the order it came.
    held: Vec<wire::Held>,
    known_lock: Option<LockKey>,
    elections: u64,
    /// Since when nobody has led.
    leaderless_since: Option<u64>,
}

impl World {
    pub(crate) fn new(scenario: &Scenario, control: Option<Control>) -> Self {
        let setup = Setup::of(scenario);
        let plan = plan(scenario, &setup);
        let members = setup.cluster.members;
        let nodes = (0..setup.candidates)
            .map(|place| {
                let company = setup.companies[place];
                let timings = if company.works { setup.working_timings } else { setup.timings };
                let name = if setup.twin == Some(place) { 0 } else { place };
                let mut node = Node::new(&format!("web-{name}"), timings, members, setup.drifts[place]);
                node.company = company;
                node
            })
            .collect();
        let mut world = Self {
            now: 0,
            cluster: Cluster::new(setup.cluster.clone()),
            nodes,
            network: Network::new(scenario.seed, setup.candidates, members),
            labels: Labels::new(scenario.seed, setup.candidates),
            judge: Judge::new(setup.candidates, scenario.weather, setup.twin),
            control,
            tally: Tally { faults_planned: plan.len(), ..Tally::default() },
            plan,
            story: Vec::new(),
            weather: scenario.weather,
            healed: false,
            store_is_away: false,
            members_struck_until: 0,
            last_renewal: None,
            under_confirm: None,
            epoch: 0,
            backup: None,
            broken: None,
            all_stay_ill: false,
            company_dice: Dice::of(scenario.seed, "company in the world"),
            dice: Dice::of(scenario.seed, "machines"),
            seeds: Dice::of(scenario.seed, "candidates"),
            queue: BTreeMap::new(),
            number: 0,
            flights: BTreeMap::new(),
            tickets: 0,
            held: Vec::new(),
            known_lock: None,
            elections: 0,
            leaderless_since: Some(0),
            setup,
        };
        world.begin(scenario);
        world
    }

    fn begin(&mut self, scenario: &Scenario) {
        let Setup { candidates, timings, cluster, .. } = &self.setup;
        let frame = format!(
            "{candidates} candidates, {} members ({:?}, leases {:?}), T {:?} K {:?} R {:?} M {:?} V {:?}",
            cluster.members,
            cluster.behaviour,
            cluster.extension,
            timings.lease_ttl(),
            timings.keepalive_interval(),
            timings.attempt_timeout(),
            timings.safety_margin(),
            timings.answer_validity(),
        );
        self.note(frame);
        if self.setup.companies.iter().any(|company| *company != Company::default()) {
            let each: Vec<String> = self.setup.companies.iter().map(|company| company.describe()).collect();
            let stop_time = self.setup.working_timings.stop_time();
            self.note(format!(
                "with work, remembering, with an application, observing: {}; G {stop_time:?}",
                each.join(" ")
            ));
        }
        for node in 0..self.nodes.len() {
            let soon = self.dice.nanos(Duration::ZERO, Duration::from_secs(1));
            // The twin comes later.
            if self.setup.twin != Some(node) {
                self.after(soon, Happening::Starts { node });
            }
        }
        for number in (0..self.plan.len()).filter(|number| !scenario.left_out.contains(number)) {
            self.at(self.plan[number].at, Happening::Fault(number));
        }
    }

    /// The whole run: the storm, the heal, the rest.
    pub(crate) fn play(&mut self) {
        self.run_until(nanos(self.setup.storm));
        if self.broken.is_none() {
            self.heal_and_rest();
        }
        self.tally.simulated = Duration::from_nanos(self.now);
        self.tally.terms = self.judge.terms();
        self.tally.overlap = self.judge.longest_overlap;
    }

    pub(crate) fn at(&mut self, at: u64, what: Happening) {
        self.number += 1;
        self.queue.insert((at.max(self.now), self.number), what);
    }

    pub(crate) fn after(&mut self, delay: u64, what: Happening) {
        self.at(self.now + delay, what);
    }

    pub(crate) fn note(&mut self, what: impl AsRef<str>) {
        let seconds = Duration::from_nanos(self.now).as_secs_f64();
        self.story.push(format!("{seconds:>10.4}s  {}", what.as_ref()));
    }

    /// Takes note of the first thing that broke; the run ends with it.
    pub(crate) fn judged(&mut self, verdict: Verdict) {
        if let Err(violation) = verdict
            && self.broken.is_none()
        {
            self.note(format!("BROKEN {violation}"));
            self.broken = Some(violation);
        }
    }

    /// Lets everything happen that happens before `end`.
    pub(crate) fn run_until(&mut self, end: u64) {
        let mut at_this_instant = 0;
        while self.broken.is_none() {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let inside = self.cluster.next_at();
            let next = queued.into_iter().chain(inside).min().filter(|next| *next < end);
            let passed = next.unwrap_or(end) > self.now;
            self.now = next.unwrap_or(end).max(self.now);
            if passed {
                self.look();
                at_this_instant = 0;
            }
            at_this_instant += 1;
            assert!(at_this_instant < AT_ONE_INSTANT_MOST, "the world stands still at {}", self.now);
            let Some(next) = next else { return };
            if inside == Some(next) {
                self.cluster.advance(self.now);
            } else if let Some((_, what)) = self.queue.pop_first() {
                self.happens(what);
            }
            self.hear_the_cluster();
            self.look();
        }
    }

    fn happens(&mut self, what: Happening) {
        match what {
            Happening::Fault(number) => self.strikes(number),
            Happening::Reaches(ticket) => self.reaches(ticket),
            Happening::Returns(homeward) => self.returns(homeward),
            Happening::Tells { node, life, event } => self.tells(node, life, event),
            Happening::CallTimesOut { node, life, op } => self.call_times_out(node, life, op),
            Happening::Step { node, life } => self.goes_on(node, life),
            Happening::Timer { node, life, number } => self.timer_rings(node, life, number),
            Happening::Wakes { node } => self.wakes(node),
            Happening::Starts { node } => self.starts(node),
            Happening::RestartsWithEpoch { node, epoch } => self.restarts_with_epoch(node, epoch),
            Happening::Settles { node, life, op } => self.settles(node, life, op),
            Happening::LabelRound { node, life, number } => self.label_round(node, life, number),
            Happening::PatchLands(patch) => self.patch_lands(&patch),
            Happening::LinkTurns { node, member } => self.link_turns(node, member),
            Happening::PingsFail { node, member, cut_at } => self.pings_fail(node, member, cut_at),
            Happening::MemberTurns(turn) => self.member_turns(turn),
            Happening::Dies { node, life, rest } => self.dies(node, life, rest),
            Happening::Crashes { node } => self.crashes(node),
            Happening::Guards { node } => self.guards(node),
            Happening::AppChecked { node, life } => self.application_is_checked(node, life),
            Happening::AppRecovers { node } => self.application_recovers(node),
            Happening::Look => {}
        }
    }

    /// Looks at everybody, as somebody would who asks all of them at once.
    fn look(&mut self) {
        self.looks_at_twins();
        let (cluster, judge) = (&self.cluster, &mut self.judge);
        let overlapped = judge.answering().len() > 1;
        let has_lease = |lease| cluster.has_lease(lease);
        let verdict = judge
            .look(self.now, &mut self.nodes, cluster.lock(), has_lease, cluster.revision())
            .and_then(|()| judge.looks_at_company(self.now, &self.nodes, cluster.lock()));
        self.judged(verdict);
        let answering = self.judge.answering();
        if answering.len() > 1 && !overlapped {
            // So that the end of the overlap is seen when it comes.
            let ends: Vec<u64> = answering.iter().filter_map(|one| self.nodes[one.node].until()).collect();
            for end in ends {
                self.at(end, Happening::Look);
            }
        }
        self.count_leaderless();
    }

    /// Which of two processes of one candidate has its key.
    fn looks_at_twins(&mut self) {
        let Some(twin) = self.setup.twin else { return };
        let key = self.cluster.candidate(&self.nodes[0].identity);
        let Some(nonce) = key.and_then(|key| key.record.as_ref()?.nonce) else { return };
        let wrote = |node: &usize| self.nodes[*node].process.as_ref().is_some_and(|process| process.nonce == nonce);
        if let Some(writer) = [0, twin].into_iter().find(wrote) {
            self.judge.is_written_by(self.now, writer);
        }
    }

    fn count_leaderless(&mut self) {
        match (self.judge.answering().is_empty(), self.leaderless_since) {
            (true, None) => self.leaderless_since = Some(self.now),
            (false, Some(since)) => {
                self.note_leaderless(since);
                self.leaderless_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    fn note_leaderless(&mut self, since: u64) {
        if self.healed {
            let longest = &mut self.tally.leaderless_after_heal;
            *longest = (*longest).max(Duration::from_nanos(self.now - since));
        }
    }
}
