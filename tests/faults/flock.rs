//! The sidecars of one election, each polled from its start, and judged together at the end.

use std::fmt::Display;
use std::io::Write as _;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::etcd::EtcdOptions;
use support::{Audit, Moment, Poller, PollerOptions, Sample, Sidecar, SidecarOptions, audit};

/// For conditions that must come true: far above what a loaded machine needs, reached only by failing tests.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// The lock key of the election `test`.
pub const LOCK_KEY: &str = "/bellwether/default/test";
/// With these every 200 is valid until `until` itself: a poller then sees how far ahead it is, and the
/// judgement holds the next leader to it.
pub const VALID_UNTIL_UNTIL: [&str; 4] = ["--answer-validity", "60s", "--drain-timeout", "60s"];

/// A lease that no test outlives: whatever happens did not happen because it expired.
pub const NEVER_EXPIRES: [&str; 2] = ["--lease-ttl", "60s"];

/// etcd members that elect a leader within half a second.
pub fn quick() -> EtcdOptions {
    EtcdOptions {
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(200),
        ..EtcdOptions::default()
    }
}

/// A figure for who reads the output; nothing is asserted of it.
pub fn figure(what: &str, value: impl Display) {
    // Nobody reading is no failure.
    writeln!(std::io::stderr(), "    figure: {what}: {value}").ok();
}

/// Waits until this moment, which is part of the story: a fault that lasts so long.
pub fn wait_until(moment: Moment) {
    while !moment.passed() {
        thread::sleep(moment.remaining());
    }
}

/// Waits until something is so.
pub fn wait_for(what: &str, is_so: impl Fn() -> bool) -> Result<()> {
    let deadline = Moment::now().after(PATIENCE);
    while !is_so() {
        ensure!(!deadline.passed(), "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// A 200.
#[derive(Clone, Debug)]
pub struct Lead {
    /// Whose.
    pub name: String,
    /// Epoch, then term.
    pub term: (u64, u64),
    /// The sample.
    pub sample: Sample,
}

impl Lead {
    /// The last moment at which the client could still rely on it.
    pub fn promised_until(&self) -> Moment {
        let valid_for = self.sample.leading().map_or(Duration::ZERO, |answer| answer.valid_for);
        self.sample.sent.after(valid_for)
    }
}

struct Member {
    name: String,
    sidecar: Sidecar,
    poller: Poller,
}

/// The sidecars of one election. They are known by name, which is the identity unless two share one.
pub struct Flock {
    endpoints: Vec<String>,
    arguments: Vec<String>,
    election: String,
    polling: PollerOptions,
    members: Vec<Member>,
    /// What others saw: floods, sidecars that were taken out.
    more: Vec<(String, Vec<Sample>)>,
}

impl Flock {
    /// Sidecars of these endpoints, started with these arguments.
    pub fn new(endpoints: Vec<String>, arguments: &[&[&str]]) -> Self {
        let arguments = arguments.concat().iter().map(ToString::to_string).collect();
        let polling = PollerOptions { timeout: PATIENCE, ..PollerOptions::default() };
        let election = "test".to_owned();
        Self { endpoints, arguments, election, polling, members: Vec::new(), more: Vec::new() }
    }

    /// In an election of another name.
    pub fn in_election(mut self, election: &str) -> Self {
        election.clone_into(&mut self.election);
        self
    }

    /// Polled at this interval.
    pub fn polled_every(mut self, interval: Duration) -> Self {
        self.polling.interval = interval;
        self
    }

    /// How a sidecar of this flock is started.
    pub fn options(&self, identity: &str) -> SidecarOptions {
        let mut options = SidecarOptions::new(env!("CARGO_BIN_EXE_bellwether"), identity, &self.endpoints);
        options.election.clone_from(&self.election);
        options.arguments.clone_from(&self.arguments);
        options
    }

    /// Starts a sidecar and waits until it stands by or leads: so they are in line in the order of joining.
    pub fn join(&mut self, identity: &str) -> Result<()> {
        let options = self.options(identity);
        self.join_as(identity, &options)?;
        self.wait_for(identity, |_, body| body["state"] != "starting")?;
        Ok(())
    }

    /// Starts a sidecar that reaches etcd in a way of its own, and waits as [`join`](Self::join) does.
    pub fn join_through(&mut self, identity: &str, endpoints: &[String]) -> Result<()> {
        let mut options = self.options(identity);
        options.etcd_endpoints = endpoints.to_vec();
        self.join_as(identity, &options)?;
        self.wait_for(identity, |_, body| body["state"] != "starting")?;
        Ok(())
    }

    /// Starts a sidecar with options of its own and polls it; does not wait for anything.
    pub fn join_as(&mut self, name: &str, options: &SidecarOptions) -> Result<()> {
        let sidecar = Sidecar::start(options)?;
        let poller = sidecar.poll(self.polling)?;
        self.members.push(Member { name: name.to_owned(), sidecar, poller });
        Ok(())
    }

    /// The sidecar of this name.
    pub fn sidecar(&mut self, name: &str) -> Result<&mut Sidecar> {
        let member = self.members.iter_mut().find(|member| member.name == name);
        Ok(&mut member.with_context(|| format!("there is no {name}"))?.sidecar)
    }

    /// Its poller.
    pub fn poller(&self, name: &str) -> Result<&Poller> {
        Ok(&self.member(name)?.poller)
    }

    fn member(&self, name: &str) -> Result<&Member> {
        self.members.iter().find(|member| member.name == name).with_context(|| format!("there is no {name}"))
    }

    /// The names, in order of joining.
    pub fn names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// Waits until the `/leader` of this sidecar answers something that `is_it`.
    pub fn wait_for(&self, name: &str, is_it: impl Fn(u16, &Value) -> bool) -> Result<Value> {
        self.member(name)?.sidecar.wait_for(PATIENCE, is_it)
    }

    /// Waits for a line in the log of this sidecar.
    pub fn wait_for_log(&self, name: &str, text: &str) -> Result<String> {
        self.member(name)?.sidecar.wait_for_log(text, PATIENCE)
    }

    /// Waits for the first 200 of anybody to a request that was sent at or after `since`.
    pub fn lead_since(&self, since: Moment) -> Result<Lead> {
        self.lead_of(since, &self.names(), |_| true)
    }

    /// Waits for the first 200 of this sidecar to a request that was sent at or after `since`.
    pub fn lead_of_one(&self, name: &str, since: Moment) -> Result<Lead> {
        self.lead_of(since, &[name.to_owned()], |_| true)
    }

    /// Waits for the first 200 in a higher term than this one, from anybody.
    pub fn next_term(&self, after: &Lead) -> Result<Lead> {
        self.lead_of(after.sample.sent, &self.names(), |term| term > after.term)
    }

    fn lead_of(&self, since: Moment, names: &[String], wanted: impl Fn((u64, u64)) -> bool) -> Result<Lead> {
        let deadline = Moment::now().after(PATIENCE);
        loop {
            for member in self.members.iter().filter(|member| names.contains(&member.name)) {
                let leads = |sample: &Sample| {
                    sample.leading().map(|answer| (answer.epoch, answer.term)).filter(|term| wanted(*term))
                };
                let samples = member.poller.samples_since(since);
                if let Some((sample, term)) = samples.iter().find_map(|sample| Some((*sample, leads(sample)?))) {
                    return Ok(Lead { name: member.name.clone(), term, sample });
                }
            }
            ensure!(
                !deadline.passed(),
                "none of {names:?} leads within {PATIENCE:?}; they say: {}",
                self.what_they_say()
            );
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits for the first answer of this sidecar, received at or after `since`, that is not a 200.
    pub fn not_leading_since(&self, name: &str, since: Moment) -> Result<Sample> {
        let deadline = Moment::now().after(PATIENCE);
        let sample = self.poller(name)?.wait_for(since, deadline, |sample| sample.leading().is_none());
        sample.with_context(|| format!("{name} answers 200 for {PATIENCE:?} on: {}", self.what_they_say()))
    }

    /// Every 200 of this sidecar so far.
    pub fn leads_so_far(&self, name: &str) -> Result<Vec<Lead>> {
        let lead = |sample: &Sample| {
            let answer = sample.leading()?;
            Some(Lead { name: name.to_owned(), term: (answer.epoch, answer.term), sample: *sample })
        };
        Ok(self.poller(name)?.samples().iter().filter_map(lead).collect())
    }

    /// That nobody has answered 200 since this moment; everybody is asked once more.
    pub fn nobody_led_since(&self, since: Moment) -> Result<()> {
        for member in &self.members {
            let now = Moment::now();
            let answered = member.poller.wait_for(now, now.after(PATIENCE), |sample| sample.sent >= now);
            ensure!(answered.is_some(), "{} does not answer", member.name);
            let led = member.poller.samples_since(since).into_iter().find(|sample| sample.leading().is_some());
            ensure!(led.is_none(), "{} led: {led:?}", member.name);
        }
        Ok(())
    }

    /// Waits until this sidecar has renewed its lease so many times more.
    pub fn wait_for_renewals(&mut self, name: &str, more: u32) -> Result<()> {
        const SERIES: &str = "bellwether_renewals_total{result=\"ok\"}";
        let sidecar = &self.member(name)?.sidecar;
        let renewals = || sidecar.metric(SERIES).ok().flatten().unwrap_or(0.0);
        let enough = renewals() + f64::from(more);
        wait_for(&format!("{name} renews {more} times more"), || renewals() >= enough)
    }

    /// Kills a sidecar and starts it again on the same ports, with more arguments.
    pub fn restart_with(&mut self, name: &str, arguments: &[&str]) -> Result<()> {
        let options = self.options(name).with(arguments);
        let sidecar = self.sidecar(name)?;
        let (http, telemetry) = (sidecar.http(), sidecar.telemetry());
        sidecar.kill9()?;
        *sidecar = Sidecar::start_at(options, http, telemetry)?;
        Ok(())
    }

    /// What somebody else saw of a sidecar.
    pub fn also_seen(&mut self, name: &str, samples: Vec<Sample>) {
        self.more.push((name.to_owned(), samples));
    }

    fn what_they_say(&self) -> String {
        let say = |member: &Member| {
            let answer = member.sidecar.leader();
            format!("\n{}: {answer:?}\n{}", member.name, member.sidecar.log_tail())
        };
        self.members.iter().map(say).collect()
    }

    /// Ends the story: the whole promise must have been kept.
    pub fn end(self) -> Result<Audit> {
        let audit = self.end_unjudged();
        ensure!(audit.keeps_the_promise(), "{audit}");
        Ok(audit)
    }

    /// Ends a story in which an operator, or an old etcd, took the lock from the leader: terms still only grow.
    pub fn end_of_a_story_with_a_thief(self) -> Result<Audit> {
        let audit = self.end_unjudged();
        ensure!(audit.terms_not_growing.is_empty(), "{audit}");
        Ok(audit)
    }

    /// Ends the story without a judgement.
    pub fn end_unjudged(self) -> Audit {
        let mut samples = self.more;
        for member in self.members {
            samples.push((member.name, member.poller.stop()));
        }
        audit(samples.iter().map(|(name, samples)| (name.as_str(), samples.as_slice())))
    }
}
