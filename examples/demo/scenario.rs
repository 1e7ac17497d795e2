//! The ways to break it, and what must come of each.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;
use nix::sys::signal::Signal;
use support::Moment;

use crate::stage::{Leader, Stage};

/// How long a sidecar that was asked to stop may take: its `--drain-timeout` and some air.
const STOP_PATIENCE: Duration = Duration::from_secs(15);
/// How long a resigned sidecar stays away: short, so that a series of trials does not run out of candidates.
const COOLDOWN: &str = "1s";
/// How long etcd is gone, besides its own time to start: a restart, not an outage.
const ETCD_DOWN: Duration = Duration::from_millis(500);
/// How long a thawed sidecar is watched: a stale answer would come in the first milliseconds.
const WATCH_AFTER_THAW: Duration = Duration::from_secs(1);
/// How long everything is watched before it is broken, so that the old leader's answers are on record.
const WATCH_BEFORE: Duration = Duration::from_millis(500);

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// SIGKILL to the leader: the lease runs out, then another leads.
    Kill,
    /// SIGSTOP to the leader for longer than the lease, then SIGCONT: it must not answer 200 again.
    Pause,
    /// POST /resign to the leader.
    Resign,
    /// SIGTERM to the leader.
    Term,
    /// etcd is killed and started again with its data.
    EtcdRestart,
}

impl Scenario {
    /// The one behind a key, if there is one.
    pub(crate) fn of_key(key: u8) -> Option<Self> {
        match key.to_ascii_lowercase() {
            b'k' => Some(Self::Kill),
            b'p' => Some(Self::Pause),
            b'r' => Some(Self::Resign),
            b't' => Some(Self::Term),
            b'e' => Some(Self::EtcdRestart),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Resign => "resign",
            Self::Term => "term",
            Self::EtcdRestart => "etcd-restart",
        }
    }

    /// What the time that is printed means.
    pub(crate) const fn measures(self) -> &'static str {
        match self {
            Self::Kill => "from SIGKILL to another's 200",
            Self::Pause => "from SIGSTOP to another's 200",
            Self::Resign => "from POST /resign to another's 200",
            Self::Term => "from SIGTERM to another's 200",
            Self::EtcdRestart => "from etcd's death to a leader with a confirmed renewal",
        }
    }
}

/// Plays a scenario, mends what it broke, and judges what the pollers saw. Returns the time that the scenario
/// measures. An error says what was promised and not kept.
pub(crate) fn play_and_judge(stage: &mut Stage, scenario: Scenario) -> Result<Duration> {
    let began = Moment::now();
    stage.pause(WATCH_BEFORE)?;
    let old = stage.wait_for_leader()?;
    let (new, took) = play(stage, scenario, old)?;
    let resumed = new.place == old.place && new.term == old.term;
    let (name, seconds) = (stage.name(new.place).to_owned(), took.as_secs_f64());
    if scenario == Scenario::EtcdRestart && resumed {
        stage
            .story
            .tell(&format!("{name} leads on in term {}: confirmed {seconds:.3} s after etcd's death", new.term.1));
    } else {
        ensure!(new.term > old.term, "the term did not grow: {:?} after {:?}", new.term, old.term);
        stage
            .story
            .tell(&format!("{name} took over: term {} after {}, takeover time {seconds:.3} s", new.term.1, old.term.1));
    }
    mend(stage, scenario, old)?;
    let audit = stage.audit_since(began);
    stage.story.tell(&format!("audit: {audit}"));
    ensure!(audit.keeps_the_promise(), "two answered 200 at one instant, or a promise was broken: {audit}");
    ensure!(audit.leading_samples > 0, "nobody was seen to lead");
    Ok(took)
}

/// Breaks it, and waits for the leader after.
fn play(stage: &mut Stage, scenario: Scenario, old: Leader) -> Result<(Leader, Duration)> {
    let (name, pid) = (stage.name(old.place).to_owned(), stage.sidecar(old.place).pid());
    let ttl = stage.ttl();
    stage.story.tell(&match scenario {
        Scenario::Kill => format!("kill -9 of {name}, pid {pid}: the lease of {ttl:?} must run out"),
        Scenario::Pause => format!("SIGSTOP to {name}, pid {pid}, for longer than the lease of {ttl:?}"),
        Scenario::Resign => format!("POST /resign to {name}"),
        Scenario::Term => format!("SIGTERM to {name}, pid {pid}"),
        Scenario::EtcdRestart => "kill -9 of etcd, and a start with its data".to_owned(),
    });
    let broken = Moment::now();
    let sidecar = stage.sidecar(old.place);
    match scenario {
        Scenario::Kill => sidecar.signal(Signal::SIGKILL)?,
        Scenario::Pause => sidecar.freeze()?,
        Scenario::Term => sidecar.signal(Signal::SIGTERM)?,
        Scenario::Resign => {
            let status = sidecar.resign(COOLDOWN)?;
            ensure!(status == 202, "POST /resign was answered with {status}");
        }
        Scenario::EtcdRestart => return restart_etcd(stage, broken),
    }
    let new = stage.wait_for_leading(broken, Some(old.place), ttl)?;
    if scenario == Scenario::Pause {
        // Until long after its lease: what it believed at the freeze must not matter.
        stage.pause(broken.after(ttl + ttl / 2).remaining())?;
    }
    Ok((new, new.received.since(broken)))
}

fn restart_etcd(stage: &mut Stage, broken: Moment) -> Result<(Leader, Duration)> {
    stage.kill_etcd();
    let renewals: Vec<_> = (0..stage.watched().len()).map(|place| stage.renewals(place)).collect();
    stage.pause(ETCD_DOWN)?;
    stage.restart_etcd()?;
    let back = Moment::now();
    let seconds = back.since(broken).as_secs_f64();
    stage.story.tell(&format!("etcd answers again, {seconds:.3} s after its death"));
    loop {
        // A leader may answer 200 on the strength of its old lease: wait for one that has renewed since.
        let leader = stage.wait_for_leading(Moment::now(), None, stage.ttl())?;
        if stage.renewals(leader.place) > renewals[leader.place] {
            return Ok((leader, Moment::now().since(broken)));
        }
    }
}

/// Puts back what was broken and waits until all take part again.
fn mend(stage: &mut Stage, scenario: Scenario, old: Leader) -> Result<()> {
    let name = stage.name(old.place).to_owned();
    match scenario {
        Scenario::Kill => {
            stage.sidecar(old.place).wait_exit(STOP_PATIENCE)?;
            stage.restart_sidecar(old.place)?;
        }
        Scenario::Term => {
            let status = stage.sidecar(old.place).wait_exit(STOP_PATIENCE)?;
            ensure!(status.success(), "{name} ended with {status} after SIGTERM");
            stage.restart_sidecar(old.place)?;
        }
        Scenario::Pause => thaw(stage, old.place)?,
        Scenario::Resign | Scenario::EtcdRestart => {}
    }
    stage.wait_until_all_take_part()
}

fn thaw(stage: &mut Stage, place: usize) -> Result<()> {
    let thawed = Moment::now();
    stage.sidecar(place).thaw()?;
    stage.story.tell(&format!("SIGCONT to {}", stage.name(place)));
    stage.pause(WATCH_AFTER_THAW)?;
    // A request that was sent during the freeze is answered after it.
    let answers = stage.watched()[place].poller.samples_received_since(thawed);
    let wrong = answers.iter().filter(|sample| sample.leading().is_some()).count();
    stage.story.tell(&format!(
        "{} answered {} times after the thaw, {wrong} of them 200",
        stage.name(place),
        answers.len()
    ));
    ensure!(wrong == 0, "{} answered 200 after its lease was gone", stage.name(place));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_key_and_the_name_that_the_command_line_takes() {
        for scenario in Scenario::value_variants() {
            assert_eq!(Scenario::of_key(scenario.name().as_bytes()[0]), Some(*scenario));
            assert_eq!(Scenario::from_str(scenario.name(), false), Ok(*scenario));
        }
        assert_eq!(Scenario::of_key(b'x'), None);
    }
}
