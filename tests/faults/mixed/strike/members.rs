//! How faults strike members of the cluster, and what operators do to it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use etcd_client::{Client, DeleteOptions};
use support::lab::{Peer, Verdict, Way};
use support::{DiskStall, Host};

use super::super::access::SIDECAR;
use super::super::heal::{Undo, make_room_after_joining};
use super::super::scene::MEMBERS;
use super::{Hit, Strike};
use crate::certificates::{authority, renew_the_servers};
use crate::flock::LOCK_KEY;

/// Longer than any trial: a flush that has begun while the disk is stalled ends with the stall.
const STALLED_FOR: Duration = Duration::from_secs(600);

impl Strike<'_> {
    /// A member that is not hit yet and does not lead the cluster.
    pub(super) async fn follower(&mut self) -> Result<usize> {
        let leader = self.scene.etcd.leader().await.ok().flatten();
        let free: Vec<_> = (0..MEMBERS).filter(|member| !self.taken.members.contains(member)).collect();
        let followers: Vec<_> = free.iter().copied().filter(|member| Some(*member) != leader).collect();
        let member = self.random.one_of(if followers.is_empty() { &free } else { &followers });
        self.taken.members.push(member);
        Ok(member)
    }

    /// The member that leads the cluster; with another one hit just now there may be none to be seen, and then it is
    /// any that is left.
    pub(super) async fn etcd_leader(&mut self) -> Result<usize> {
        match self.scene.etcd.leader().await.ok().flatten() {
            Some(leader) if !self.taken.members.contains(&leader) => {
                self.taken.members.push(leader);
                Ok(leader)
            }
            Some(_) | None => self.follower().await,
        }
    }

    pub(super) fn member_host(&self, member: usize) -> Result<Host> {
        Ok(self.scene.etcd.host(member).context("every member has a host")?.clone())
    }

    pub(super) fn member_killed(&mut self, member: usize) -> Hit {
        self.scene.etcd.kill(member);
        if self.random.below(3) == 0 {
            self.scene.etcd.restart(member)?;
            return Ok((format!("etcd-{member}, started again at once"), Vec::new()));
        }
        Ok((format!("etcd-{member}"), vec![Undo::StartMember(member)]))
    }

    pub(super) fn member_stopped(&mut self, member: usize) -> Hit {
        self.scene.etcd.freeze(member)?;
        Ok((format!("etcd-{member}"), vec![Undo::ThawMember(member)]))
    }

    pub(super) fn member_cut_off(&mut self, member: usize) -> Hit {
        let host = self.member_host(member)?;
        if self.random.below(2) == 0 {
            host.isolate(Verdict::Drop)?;
            return Ok((format!("etcd-{member}, from everybody"), vec![Undo::Open(host)]));
        }
        for other in (0..MEMBERS).filter(|other| *other != member) {
            host.cut_off_from(&self.member_host(other)?, Verdict::Drop)?;
        }
        Ok((format!("etcd-{member}, from the members"), vec![Undo::Open(host)]))
    }

    pub(super) fn member_unplugged(&mut self) -> Hit {
        let free: Vec<_> = (0..MEMBERS).filter(|member| !self.taken.members.contains(member)).collect();
        let member = self.random.one_of(&free);
        self.taken.members.push(member);
        let host = self.member_host(member)?;
        host.unplug()?;
        Ok((format!("etcd-{member}"), vec![Undo::PlugIn(host)]))
    }

    pub(super) async fn etcd_leader_one_way(&mut self, way: Way) -> Hit {
        let member = self.etcd_leader().await?;
        let host = self.member_host(member)?;
        for other in (0..MEMBERS).filter(|other| *other != member) {
            host.block(&Peer::Host(self.member_host(other)?), way, Verdict::Drop)?;
        }
        Ok((format!("etcd-{member}"), vec![Undo::Open(host)]))
    }

    pub(super) async fn etcd_leader_reset(&mut self) -> Hit {
        let member = self.etcd_leader().await?;
        let host = self.member_host(member)?;
        host.isolate(Verdict::Reset)?;
        Ok((format!("etcd-{member}"), vec![Undo::Open(host)]))
    }

    pub(super) async fn etcd_leader_stalled(&mut self) -> Hit {
        let member = self.etcd_leader().await?;
        let pid = self.scene.etcd.pid(member).context("the etcd leader runs")?;
        let stall = DiskStall::begin(pid, STALLED_FOR)?;
        Ok((format!("etcd-{member}"), vec![Undo::EndStall(stall)]))
    }

    pub(super) fn quorum_lost(&mut self) -> (String, Vec<Undo>) {
        let alive = self.random.below(MEMBERS);
        let dead: Vec<_> = (0..MEMBERS).filter(|member| *member != alive).collect();
        let undo = dead
            .iter()
            .filter(|member| !self.taken.members.contains(member))
            .map(|member| {
                self.scene.etcd.kill(*member);
                Undo::StartMember(*member)
            })
            .collect();
        self.taken.members.extend(&dead);
        (format!("etcd-{} and etcd-{}", dead[0], dead[1]), undo)
    }

    pub(super) async fn member_wiped(&mut self) -> Hit {
        let member = self.random.below(MEMBERS);
        self.scene.etcd.wipe_member(member).await?;
        make_room_after_joining(member, self.scene).await?;
        Ok((format!("etcd-{member}"), Vec::new()))
    }

    pub(super) async fn member_added(&mut self) -> Hit {
        let spare = self.scene.spare.clone();
        let member = self.scene.etcd.add_member(Some(&spare)).await?;
        make_room_after_joining(member, self.scene).await?;
        Ok((format!("etcd-{member}"), vec![Undo::RemoveMember(member)]))
    }

    pub(super) async fn server_certificate_rotated(&mut self) -> Hit {
        let etcd = &mut self.scene.etcd;
        renew_the_servers(etcd, authority(etcd)?, MEMBERS)?;
        for member in 0..MEMBERS {
            etcd.kill(member);
            etcd.restart(member)?;
            etcd.wait_until_ready().await?;
        }
        Ok(("all members".to_owned(), Vec::new()))
    }

    pub(super) async fn tokens_forgotten(&mut self) -> Hit {
        let [user, password] = SIDECAR;
        self.scene.etcd.ask(async |mut client| Ok(client.user_change_password(user, password).await?)).await?;
        Ok(("of every sidecar".to_owned(), Vec::new()))
    }

    pub(super) async fn compacted(&mut self) -> Hit {
        let etcd = &self.scene.etcd;
        let read = etcd.ask(async |mut client| Ok(client.get("revision", None).await?)).await?;
        let revision = read.header().context("an answer without a header")?.revision();
        etcd.ask(async |mut client| Ok(client.compact(revision, None).await?)).await?;
        for member in 0..MEMBERS {
            etcd.defragment(member).await?;
        }
        Ok((format!("revision {revision}"), Vec::new()))
    }

    pub(super) async fn no_space(&mut self) -> Hit {
        self.scene.etcd.fill_up().await?;
        Ok(("all members".to_owned(), vec![Undo::MakeRoom]))
    }

    pub(super) async fn key_deleted(&mut self) -> Hit {
        let whom = self.scene.leader().map_or("nobody".to_owned(), |leader| self.described(leader));
        let options = DeleteOptions::new().with_prev_key();
        let delete = async |mut client: Client| Ok(client.delete(LOCK_KEY, Some(options.clone())).await?);
        let deleted = self.scene.etcd.ask(delete).await?;
        let Some(lock) = deleted.prev_kvs().first() else { return Ok(self.missed("the lock is free")) };
        self.taken.locks.push(lock.create_revision().try_into()?);
        Ok((format!("of {whom}"), Vec::new()))
    }

    pub(super) async fn lease_revoked(&mut self) -> Hit {
        let whom = self.scene.leader().map_or("nobody".to_owned(), |leader| self.described(leader));
        let held = self.scene.etcd.ask(async |mut client| Ok(client.get(LOCK_KEY, None).await?)).await?;
        let Some(lock) = held.kvs().first() else { return Ok(self.missed("the lock is free")) };
        let lease = lock.lease();
        self.scene.etcd.ask(async |mut client| Ok(client.lease_revoke(lease).await?)).await?;
        self.taken.locks.push(lock.create_revision().try_into()?);
        Ok((format!("of {whom}"), Vec::new()))
    }
}
