//! How each fault strikes, and whom.

use std::time::Duration;

use anyhow::{Result, bail};
use etcd_client::{Client, GetOptions, SortOrder, SortTarget};
use nix::sys::signal::Signal;
use support::lab::{Peer, Verdict, Way};
use support::{Direction, Flow, Moment, Starvation};

use super::catalogue::Kind;
use super::heal::Undo;
use super::random::Random;
use super::scene::{FIRST_WITH_PROXIES, SIDECARS, Scene};
use crate::certificates::{authority, renew_the_clients};
use crate::flock::LOCK_KEY;

mod members;

/// How often its connections are reset, and how long after each other: the first is hardly over when the next comes.
const RESETS: usize = 3;
const RESETS_APART: Duration = Duration::from_millis(150);
/// A slow link, one way: there and back twice, for a keep-alive and its confirm, an attempt (833 ms) still has time.
const SLOW: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(80));
/// And one on which it has not.
const TOO_SLOW: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(900));
/// The part of a processor, in percent, that a starved sidecar gets.
const STARVED_PERCENT: u32 = 5;
/// By how much the wall clock of a sidecar jumps, in milliseconds: below and far above the margin of 1 s.
const JUMPS_MS: [i64; 4] = [400, 3_000, 60_000, 3_600_000];
/// Whom the faults of this trial have hit, so that the next one hits another.
#[derive(Debug, Default)]
pub struct Taken {
    sidecars: Vec<usize>,
    members: Vec<usize>,
    /// The terms whose lock was taken.
    locks: Vec<u64>,
}

/// A fault that has struck.
#[derive(Debug)]
pub struct Struck {
    /// Which.
    pub kind: Kind,
    /// Whom, and with what parameters.
    pub whom: String,
    /// The sidecars whose process, host or way to etcd it hit.
    pub sidecars: Vec<usize>,
    /// There was somebody to hit.
    pub has_hit: bool,
    /// The terms whose lock it took from whoever held it.
    pub locks: Vec<u64>,
    /// Before it struck.
    pub begin: Moment,
    /// After it had struck.
    pub end: Moment,
    /// What ends it.
    pub undo: Vec<Undo>,
}

/// Strikes.
///
/// # Errors
/// When what makes the fault fails, which is no finding about the product.
pub async fn strike(kind: Kind, scene: &mut Scene, random: &mut Random, taken: &mut Taken) -> Result<Struck> {
    let begin = Moment::now();
    let (sidecars_before, locks_before) = (taken.sidecars.len(), taken.locks.len());
    let mut strike = Strike { scene, random, taken, has_hit: true };
    let (whom, undo) = strike.hit(kind).await?;
    let has_hit = strike.has_hit;
    let (sidecars, locks) = (taken.sidecars[sidecars_before..].to_vec(), taken.locks[locks_before..].to_vec());
    Ok(Struck { kind, whom, sidecars, has_hit, locks, begin, end: Moment::now(), undo })
}

/// Whom it hit, and what ends it.
type Hit = Result<(String, Vec<Undo>)>;

struct Strike<'a> {
    scene: &'a mut Scene,
    random: &'a mut Random,
    taken: &'a mut Taken,
    /// Until it turns out that there is nobody to hit.
    has_hit: bool,
}

impl Strike<'_> {
    async fn hit(&mut self, kind: Kind) -> Hit {
        match kind {
            Kind::SidecarKilled => self.sidecar_killed(),
            Kind::SidecarStopped => self.sidecar_stopped(),
            Kind::SidecarTerminated => self.sidecar_terminated(),
            Kind::SidecarResigned => self.sidecar_resigned(),
            Kind::SidecarCutOff => self.sidecar_behind(&[Way::In, Way::Out], Verdict::Drop),
            Kind::SidecarUnheard => self.sidecar_behind(&[Way::Out], Verdict::Drop),
            Kind::SidecarDeaf => self.sidecar_behind(&[Way::In], Verdict::Drop),
            Kind::SidecarReset => self.sidecar_behind(&[Way::In, Way::Out], Verdict::Reset),
            Kind::SidecarUnplugged => self.sidecar_unplugged(),
            Kind::SidecarStarved => self.sidecar_starved(),
            Kind::ClockForward => self.clock_jumps(1),
            Kind::ClockBack => self.clock_jumps(-1),
            Kind::ProxyReset => Ok(self.connections_reset()),
            Kind::ProxySilent => Ok(self.proxies("", |_| Flow::Silent, &[Direction::ToServer, Direction::ToClient])),
            Kind::ProxyUnheard => Ok(self.proxies("", |_| Flow::Silent, &[Direction::ToServer])),
            Kind::ProxyDeaf => Ok(self.proxies("", |_| Flow::Silent, &[Direction::ToClient])),
            Kind::SlowLink => Ok(self.slow_link(SLOW)),
            Kind::VerySlowLink => Ok(self.slow_link(TOO_SLOW)),
            Kind::WatchDead => self.watch_dead().await,
            Kind::MemberKilled => {
                let member = self.follower().await?;
                self.member_killed(member)
            }
            Kind::MemberStopped => {
                let member = self.follower().await?;
                self.member_stopped(member)
            }
            Kind::MemberCutOff => {
                let member = self.follower().await?;
                self.member_cut_off(member)
            }
            Kind::MemberUnplugged => self.member_unplugged(),
            Kind::MemberWiped => self.member_wiped().await,
            Kind::MemberAdded => self.member_added().await,
            Kind::EtcdLeaderKilled => {
                let member = self.etcd_leader().await?;
                self.member_killed(member)
            }
            Kind::EtcdLeaderStopped => {
                let member = self.etcd_leader().await?;
                self.member_stopped(member)
            }
            Kind::EtcdLeaderCutOff => {
                let member = self.etcd_leader().await?;
                self.member_cut_off(member)
            }
            Kind::EtcdLeaderUnheard => self.etcd_leader_one_way(Way::Out).await,
            Kind::EtcdLeaderDeaf => self.etcd_leader_one_way(Way::In).await,
            Kind::EtcdLeaderReset => self.etcd_leader_reset().await,
            Kind::EtcdLeaderStalled => self.etcd_leader_stalled().await,
            Kind::QuorumLost => Ok(self.quorum_lost()),
            Kind::Compacted => self.compacted().await,
            Kind::NoSpace => self.no_space().await,
            Kind::KeyDeleted => self.key_deleted().await,
            Kind::LeaseRevoked => self.lease_revoked().await,
            Kind::ClientCertificateRotated => self.client_certificate_rotated(),
            Kind::ServerCertificateRotated => self.server_certificate_rotated().await,
            Kind::TokensForgotten => self.tokens_forgotten().await,
        }
    }

    /// The leader, in three of four cases; else, or when it is taken, any other that is not.
    fn victim(&mut self) -> (usize, String) {
        let free: Vec<_> = (0..SIDECARS.len()).filter(|place| !self.taken.sidecars.contains(place)).collect();
        let place = match self.scene.leader().filter(|leader| free.contains(leader)) {
            Some(leader) if self.random.below(4) > 0 => leader,
            Some(_) | None => self.random.one_of(&free),
        };
        self.taken.sidecars.push(place);
        (place, self.described(place))
    }

    /// In a mixture there may be nobody to hit just now: that is told, and does not count.
    fn missed(&mut self, why: &str) -> (String, Vec<Undo>) {
        self.has_hit = false;
        (format!("nobody: {why}"), Vec::new())
    }

    fn described(&self, place: usize) -> String {
        let role = if self.scene.leader() == Some(place) { "leader" } else { "standby" };
        format!("{} ({role})", SIDECARS[place])
    }

    fn sidecar_killed(&mut self) -> Hit {
        let (place, whom) = self.victim();
        self.scene.stations[place].sidecar.kill9()?;
        Ok((whom, vec![Undo::StartSidecar(place)]))
    }

    fn sidecar_stopped(&mut self) -> Hit {
        let (place, whom) = self.victim();
        self.scene.stations[place].sidecar.freeze()?;
        Ok((whom, vec![Undo::ThawSidecar(place)]))
    }

    fn sidecar_terminated(&mut self) -> Hit {
        let (place, whom) = self.victim();
        self.scene.stations[place].sidecar.signal(Signal::SIGTERM)?;
        Ok((whom, vec![Undo::StartSidecar(place)]))
    }

    fn sidecar_resigned(&mut self) -> Hit {
        // Only a leader can. In a mixture there may be none just now, or it may be stopped.
        let Some(place) = self.scene.leader().filter(|leader| !self.taken.sidecars.contains(leader)) else {
            return Ok(self.missed("no leader that answers"));
        };
        let whom = self.described(place);
        match self.scene.stations[place].sidecar.resign("1s")? {
            202 => Ok((whom, Vec::new())),
            409 => Ok(self.missed(&format!("{whom} leads no more"))),
            status => bail!("resign: {status}"),
        }
    }

    fn sidecar_behind(&mut self, ways: &[Way], verdict: Verdict) -> Hit {
        let (place, whom) = self.victim();
        let host = self.scene.stations[place].host.clone();
        for way in ways {
            host.block(&Peer::Everybody, *way, verdict)?;
        }
        Ok((whom, vec![Undo::Open(host)]))
    }

    fn sidecar_unplugged(&mut self) -> Hit {
        let (place, whom) = self.victim();
        let host = self.scene.stations[place].host.clone();
        host.unplug()?;
        Ok((whom, vec![Undo::PlugIn(host)]))
    }

    fn sidecar_starved(&mut self) -> Hit {
        let (place, whom) = self.victim();
        let starvation = Starvation::to_percent(STARVED_PERCENT)?;
        starvation.starve(self.scene.stations[place].sidecar.pid())?;
        Ok((whom, vec![Undo::Feed(starvation)]))
    }

    fn clock_jumps(&mut self, sign: i64) -> Hit {
        let (place, whom) = self.victim();
        let by = sign * self.random.one_of(&JUMPS_MS);
        self.scene.stations[place].clock.set_ahead_by(by)?;
        Ok((format!("{whom}, by {by:+} ms"), vec![Undo::SetClock(place)]))
    }

    /// One of those that have proxies: the leader, if it is free and has some.
    fn victim_with_proxies(&mut self) -> (usize, String) {
        let free = |place: &usize| !self.taken.sidecars.contains(place);
        let leader = self.scene.leader().filter(|leader| *leader >= FIRST_WITH_PROXIES).filter(free);
        let any: Vec<_> = (FIRST_WITH_PROXIES..SIDECARS.len()).filter(free).collect();
        // With both taken it is hit twice, which proxies can stand.
        let place = leader.or(any.first().copied()).unwrap_or(FIRST_WITH_PROXIES);
        self.taken.sidecars.push(place);
        (place, self.described(place))
    }

    fn connections_reset(&mut self) -> (String, Vec<Undo>) {
        let (place, whom) = self.victim_with_proxies();
        for _ in 0..RESETS {
            self.scene.stations[place].proxies.iter().for_each(support::Proxy::cut);
            std::thread::sleep(RESETS_APART);
        }
        (format!("{whom}, {RESETS} times"), Vec::new())
    }

    fn proxies(&mut self, how: &str, flow: impl Fn(Direction) -> Flow, ways: &[Direction]) -> (String, Vec<Undo>) {
        let (place, whom) = self.victim_with_proxies();
        for proxy in &self.scene.stations[place].proxies {
            for way in ways {
                proxy.set(*way, flow(*way));
            }
        }
        (format!("{whom}{how}"), vec![Undo::HealProxies(place)])
    }

    fn slow_link(&mut self, (least, most): (Duration, Duration)) -> (String, Vec<Undo>) {
        let (there, back) = (self.random.between(least, most), self.random.between(least, most));
        let delay = |way| match way {
            Direction::ToServer => Flow::Delay(there),
            Direction::ToClient => Flow::Delay(back),
        };
        let how = format!(", {there:?} and {back:?}");
        self.proxies(&how, delay, &[Direction::ToServer, Direction::ToClient])
    }

    /// Every sidecar is told but those that are hit already: they may be gone.
    fn client_certificate_rotated(&mut self) -> Hit {
        renew_the_clients(&self.scene.etcd, authority(&self.scene.etcd)?)?;
        let free: Vec<_> = (0..SIDECARS.len()).filter(|place| !self.taken.sidecars.contains(place)).collect();
        for place in &free {
            self.scene.stations[*place].sidecar.signal(Signal::SIGHUP)?;
        }
        Ok((free.iter().map(|place| SIDECARS[*place]).collect::<Vec<_>>().join(", "), Vec::new()))
    }

    /// The candidates, as etcd has them in line.
    async fn line(&self) -> Result<Vec<usize>> {
        let prefix = format!("{LOCK_KEY}/candidates/");
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let ask = async |mut client: Client| Ok(client.get(prefix.as_str(), Some(options.clone())).await?);
        let line = self.scene.etcd.ask(ask).await?;
        let names = line.kvs().iter().filter_map(|kv| kv.key_str().ok()?.strip_prefix(&prefix));
        Ok(names.filter_map(|name| SIDECARS.iter().position(|it| *it == name)).collect())
    }

    /// The heir's watch says nothing any more, and nobody tells it; then it would be its turn.
    async fn watch_dead(&mut self) -> Hit {
        let free = |place: &usize| !self.taken.sidecars.contains(place);
        // In a mixture there may be no leader just now, or it may be stopped.
        let Some(leader) = self.scene.leader().filter(free) else {
            return Ok(self.missed("no leader that answers"));
        };
        // Nor may etcd say who is in line, without a quorum.
        let line = self.line().await.unwrap_or_default();
        let Some(heir) = line.into_iter().find(|place| *place != leader).filter(free) else {
            return Ok(self.missed("no heir to be seen"));
        };
        self.taken.sidecars.extend([leader, heir]);
        let whom = format!("{}'s, then SIGTERM to {}", SIDECARS[heir], self.described(leader));
        let station = &self.scene.stations[heir];
        let undo = if station.proxies.is_empty() {
            station.host.block(&Peer::Everybody, Way::In, Verdict::Drop)?;
            Undo::Open(station.host.clone())
        } else {
            station.proxies.iter().for_each(|proxy| proxy.set(Direction::ToClient, Flow::Silent));
            Undo::HealProxies(heir)
        };
        self.scene.stations[leader].sidecar.signal(Signal::SIGTERM)?;
        Ok((whom, vec![undo, Undo::StartSidecar(leader)]))
    }
}
