//! What ends a fault.

use std::time::Duration;

use anyhow::{Context as _, Result};
use support::{DiskStall, Host, Moment, Starvation};

use super::scene::{QUOTA_BYTES, Scene};

/// How long a sidecar may take to end after SIGTERM: the drain and the release, each bounded by the product, with
/// etcd out of reach.
const EXITS_WITHIN: Duration = Duration::from_secs(30);
/// How long an operator goes on trying: the cluster may be electing.
const OPERATOR_TRIES: Duration = Duration::from_secs(30);

/// Far below the quota, far above what is in a store that is not stuffed.
const SLIM_BYTES: i64 = QUOTA_BYTES / 4;

/// What ends a part of a fault.
#[derive(Debug)]
pub enum Undo {
    /// It has been killed or told to end.
    StartSidecar(usize),
    /// It has been stopped.
    ThawSidecar(usize),
    /// Its firewall has rules.
    Open(Host),
    /// Its link is down.
    PlugIn(Host),
    /// The proxies beside this sidecar do not simply pass on.
    HealProxies(usize),
    /// It has been killed.
    StartMember(usize),
    /// It has been stopped.
    ThawMember(usize),
    /// It was added.
    RemoveMember(usize),
    /// The store is full.
    MakeRoom,
    /// It gets too little of a processor.
    Feed(Starvation),
    /// Its wall clock is wrong.
    SetClock(usize),
    /// A member's disk is stalled.
    EndStall(DiskStall),
}

impl Undo {
    /// What needs a cluster that works comes after what mends it.
    pub const fn needs_a_quorum(&self) -> bool {
        match self {
            Self::RemoveMember(_) | Self::MakeRoom => true,
            Self::StartSidecar(_)
            | Self::ThawSidecar(_)
            | Self::Open(_)
            | Self::PlugIn(_)
            | Self::HealProxies(_)
            | Self::StartMember(_)
            | Self::ThawMember(_)
            | Self::Feed(_)
            | Self::SetClock(_)
            | Self::EndStall(_) => false,
        }
    }

    async fn carry_out(self, scene: &mut Scene) -> Result<()> {
        match self {
            Self::StartSidecar(place) => start_sidecar(scene, place),
            Self::ThawSidecar(place) => scene.stations[place].sidecar.thaw(),
            Self::Open(host) => host.open(),
            Self::PlugIn(host) => host.plug_in(),
            Self::HealProxies(place) => {
                scene.stations[place].proxies.iter().for_each(support::Proxy::heal);
                Ok(())
            }
            Self::StartMember(member) => scene.etcd.restart(member),
            Self::ThawMember(member) => scene.etcd.thaw(member),
            Self::RemoveMember(member) => scene.etcd.remove_member(member).await,
            Self::MakeRoom => make_room(scene).await,
            Self::Feed(starved) => starved.end(),
            Self::SetClock(place) => scene.stations[place].clock.set_ahead_by(0),
            Self::EndStall(stall) => stall.end(),
        }
    }
}

fn start_sidecar(scene: &mut Scene, place: usize) -> Result<()> {
    let station = &mut scene.stations[place];
    station.sidecar.wait_exit(EXITS_WITHIN).with_context(|| station.log().join("\n"))?;
    station.restart()
}

async fn make_room(scene: &Scene) -> Result<()> {
    let deadline = Moment::now().after(OPERATOR_TRIES);
    loop {
        match scene.etcd.make_room().await {
            Ok(()) => return Ok(()),
            Err(error) if deadline.passed() => return Err(error),
            Err(_not_yet) => {}
        }
    }
}

/// A member that joins applies the history from its beginning. If the store was full in it, the member's own is now,
/// and it raises the alarm anew: so the operator makes room again.
///
/// # Errors
/// When the member does not answer, or no room can be made.
pub async fn make_room_after_joining(member: usize, scene: &Scene) -> Result<()> {
    let size = scene.etcd.client(member).await?.status().await?.db_size();
    if size > SLIM_BYTES { make_room(scene).await } else { Ok(()) }
}

/// Carries out all of it, in an order in which it can be. At the first failure it stops.
///
/// # Errors
/// When something cannot be mended, with what.
pub async fn heal(mut undo: Vec<Undo>, scene: &mut Scene) -> Result<()> {
    undo.sort_by_key(Undo::needs_a_quorum);
    for step in undo {
        let what = format!("{step:?}");
        step.carry_out(scene).await.with_context(|| format!("healing: {what}"))?;
    }
    Ok(())
}
