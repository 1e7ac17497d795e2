//! Members that come, go, lose their data or hand over, and the care of their stores.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use etcd_client::{AlarmAction, AlarmOptions, AlarmType, Client, DeleteOptions, MemberAddOptions};
use tokio::time::{Instant, sleep, timeout};

use super::{EtcdCluster, Member, START_DEADLINE};
use crate::lab::Host;

/// How long one member may take for a request before another is asked: a disk's hiccup, not a fault.
const ASK_NEXT_AFTER: Duration = Duration::from_secs(3);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Where the stuffing of a store is.
const STUFFING: &str = "/stuffing/";
/// The size of one piece: etcd takes no request above 1.5 MiB.
const STUFFING_BYTES: usize = 512 * 1024;
/// More than any quota that a test sets.
const STUFFING_MOST: usize = 256;

impl EtcdCluster {
    /// How many members there have ever been: their numbers are below it.
    #[must_use]
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// The host of a member, in a lab.
    #[must_use]
    pub fn host(&self, member: usize) -> Option<&Host> {
        self.members[member].host.as_ref()
    }

    /// Asks the running members, one after the other, until one gives what is asked for.
    ///
    /// # Errors
    /// When none does, with what the last one said.
    pub async fn ask<T>(&self, question: impl AsyncFn(Client) -> Result<T>) -> Result<T> {
        let mut failure = anyhow!("no member is running");
        for member in (0..self.members.len()).filter(|member| self.members[*member].process.is_some()) {
            let answer = async { question(self.client(member).await?).await };
            match timeout(ASK_NEXT_AFTER, answer).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failure = error.context(format!("etcd-{member}")),
                Err(_elapsed) => failure = anyhow!("etcd-{member} does not answer within {ASK_NEXT_AFTER:?}"),
            }
        }
        Err(failure)
    }

    /// The id that the cluster knows a member by.
    ///
    /// # Errors
    /// When it knows none with this member's address.
    pub async fn id_of(&self, member: usize) -> Result<u64> {
        let url = self.members[member].peer_url();
        let known = self.ask(async |mut client| Ok(client.member_list().await?)).await?;
        let found = known.members().iter().find(|known| known.peer_urls().contains(&url));
        Ok(found.with_context(|| format!("the cluster has no member at {url}"))?.id())
    }

    /// Adds a member: first as a learner, then, when it has caught up, with a vote. Returns its number.
    ///
    /// # Errors
    /// When the cluster has no quorum, or the new member does not catch up in time.
    pub async fn add_member(&mut self, host: Option<&Host>) -> Result<usize> {
        ensure!(host.is_some() != self.options.hosts.is_empty(), "all members are on hosts of a lab, or none is");
        self.members.push(Member::new(host.cloned())?);
        let member = self.members.len() - 1;
        self.join(member, None).await?;
        Ok(member)
    }

    /// Takes a member out of the cluster, ends it and deletes its data. Its number stays unused.
    ///
    /// # Errors
    /// When the cluster has no quorum.
    pub async fn remove_member(&mut self, member: usize) -> Result<()> {
        let id = self.id_of(member).await?;
        until_accepted(Instant::now() + START_DEADLINE, || self.take_out(id)).await?;
        self.kill(member);
        Ok(fs::remove_dir_all(self.data_directory(member))?)
    }

    /// A member loses its disk: it is killed, its data deleted; the operator takes it out of the cluster and adds it
    /// anew, under the same name and address.
    ///
    /// # Errors
    /// When the others have no quorum, or it does not catch up in time.
    pub async fn wipe_member(&mut self, member: usize) -> Result<()> {
        let id = self.id_of(member).await?;
        self.kill(member);
        fs::remove_dir_all(self.data_directory(member))?;
        // Refused for as long as those that are left do not see each other well.
        until_accepted(Instant::now() + START_DEADLINE, || self.take_out(id)).await?;
        self.join(member, Some(id)).await
    }

    async fn join(&mut self, member: usize, gone: Option<u64>) -> Result<()> {
        let url = self.members[member].peer_url();
        let deadline = Instant::now() + START_DEADLINE;
        let known = until_accepted(deadline, || self.announce(&url, gone)).await?;
        let is_new = |known: &&etcd_client::Member| known.peer_urls().contains(&url) && Some(known.id()) != gone;
        let id = known.iter().find(is_new).context("what was added is there")?.id();
        // It has no name yet: that is what it brings along when it starts.
        let cluster = known.iter().flat_map(|known| {
            let name = if known.id() == id { format!("etcd-{member}") } else { known.name().to_owned() };
            known.peer_urls().iter().map(move |url| format!("{name}={url}"))
        });
        self.members[member].joined = Some(cluster.collect::<Vec<_>>().join(","));
        self.restart(member)?;
        // Refused until it has caught up.
        until_accepted(deadline, || self.promote(id)).await?;
        self.wait_until_ready().await
    }

    /// Adds a learner with this address, unless an attempt whose answer was lost has done it. Returns all members.
    async fn announce(&self, url: &str, gone: Option<u64>) -> Result<Vec<etcd_client::Member>> {
        self.ask(async |mut client| {
            let known = client.member_list().await?;
            let here = |known: &etcd_client::Member| known.peer_urls().iter().any(|it| it == url);
            if known.members().iter().any(|known| here(known) && Some(known.id()) != gone) {
                return Ok(known.members().to_vec());
            }
            let learner = MemberAddOptions::new().with_is_learner();
            Ok(client.member_add([url], Some(learner)).await?.member_list().to_vec())
        })
        .await
    }

    async fn promote(&self, id: u64) -> Result<()> {
        self.ask(async |mut client| {
            let known = client.member_list().await?;
            if known.members().iter().any(|known| known.id() == id && !known.is_learner()) {
                return Ok(());
            }
            client.member_promote(id).await?;
            Ok(())
        })
        .await
    }

    /// Takes a member out, unless an attempt whose answer was lost has done it.
    async fn take_out(&self, id: u64) -> Result<()> {
        self.ask(async |mut client| {
            let known = client.member_list().await?;
            if known.members().iter().any(|known| known.id() == id) {
                client.member_remove(id).await?;
            }
            Ok(())
        })
        .await
    }

    /// Has the cluster's leader hand over to another member.
    ///
    /// # Errors
    /// When there is no leader, or it does not get it done.
    pub async fn move_leader(&self, to: usize) -> Result<()> {
        let id = self.id_of(to).await?;
        let leader = self.wait_for_leader().await?;
        if leader != to {
            self.client(leader).await?.move_leader(id).await?;
        }
        Ok(())
    }

    /// Has a member rewrite its store without the room that compaction has freed. It answers nobody meanwhile.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn defragment(&self, member: usize) -> Result<()> {
        self.client(member).await?.defragment().await?;
        Ok(())
    }

    /// Puts stuffing into the store until it takes no more: the NOSPACE alarm. Needs a quota.
    ///
    /// # Errors
    /// When it takes it all, or refuses for another reason.
    pub async fn fill_up(&self) -> Result<()> {
        ensure!(self.options.quota_bytes.is_some(), "a store without a quota is not filled");
        let piece = vec![b'x'; STUFFING_BYTES];
        for number in 0..STUFFING_MOST {
            let key = format!("{STUFFING}{number}");
            let put = self.ask(async |mut client| Ok(client.put(key.as_str(), piece.clone(), None).await?)).await;
            match put {
                Ok(_) => {}
                Err(error) if format!("{error:#}").contains("space exceeded") => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(anyhow!("{STUFFING_MOST} pieces of {STUFFING_BYTES} bytes have not filled the store"))
    }

    /// What an operator does about NOSPACE: deletes the stuffing, compacts, defragments each member, disarms the alarm.
    ///
    /// # Errors
    /// What etcd says.
    pub async fn make_room(&self) -> Result<()> {
        let all = DeleteOptions::new().with_prefix();
        let deleted = self.ask(async |mut client| Ok(client.delete(STUFFING, Some(all.clone())).await?)).await?;
        let revision = deleted.header().context("an answer without a header")?.revision();
        self.compact(revision).await?;
        for member in (0..self.members.len()).filter(|member| self.members[*member].process.is_some()) {
            self.defragment(member).await?;
        }
        let deadline = Instant::now() + START_DEADLINE;
        // Another member may raise it once more before it has seen the room.
        loop {
            self.disarm().await?;
            if self.ask(async |mut client| Ok(client.put(STUFFING, "", None).await?)).await.is_ok() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the store takes nothing although there is room");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Each member has an alarm of its own.
    async fn disarm(&self) -> Result<()> {
        self.ask(async |mut client| {
            let raised = client.alarm(AlarmAction::Get, AlarmType::Nospace, None).await?;
            for alarm in raised.alarms() {
                let mut whose = AlarmOptions::new();
                whose.with_member(alarm.member_id());
                client.alarm(AlarmAction::Deactivate, alarm.alarm(), Some(whose)).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Asks again until it is granted.
async fn until_accepted<T>(deadline: Instant, ask: impl AsyncFn() -> Result<T>) -> Result<T> {
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() >= deadline => return Err(error.context("not granted in time")),
            Err(_not_yet) => sleep(LOOK_AGAIN).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdOptions;
    use crate::lab::{Lab, inside};

    async fn three_on_hosts(lab: &mut Lab, quota_bytes: Option<u64>) -> Result<EtcdCluster> {
        let hosts =
            ["etcd-0", "etcd-1", "etcd-2"].into_iter().map(|name| lab.host(name)).collect::<Result<Vec<_>>>()?;
        EtcdCluster::start(EtcdOptions { members: 3, quota_bytes, hosts, ..EtcdOptions::default() }).await
    }

    #[test]
    fn members_on_hosts_are_added_removed_wiped_and_led_by_another() -> Result<()> {
        inside("etcd::membership::tests::members_on_hosts_are_added_removed_wiped_and_led_by_another", async || {
            let mut lab = Lab::new()?;
            let mut etcd = three_on_hosts(&mut lab, None).await?;
            etcd.put("/kept", "value", 0).await?;
            etcd.move_leader(2).await?;
            assert_eq!(etcd.wait_for_leader().await?, 2);
            let old_id = etcd.id_of(1).await?;
            etcd.wipe_member(1).await?;
            assert_ne!(etcd.id_of(1).await?, old_id);
            let fourth = lab.host("etcd-3")?;
            let member = etcd.add_member(Some(&fourth)).await?;
            etcd.remove_member(2).await?;
            etcd.wait_for_leader().await?;
            for member in [0, 1, member] {
                let kept = etcd.client(member).await?.get("/kept", None).await?;
                assert_eq!(kept.kvs().len(), 1, "etcd-{member}");
            }
            etcd.id_of(2).await.unwrap_err();
            // It starts again from what it has, like any other.
            etcd.kill(member);
            etcd.restart(member)?;
            etcd.wait_until_ready().await
        })
    }

    #[test]
    fn a_full_store_takes_nothing_until_room_is_made() -> Result<()> {
        inside("etcd::membership::tests::a_full_store_takes_nothing_until_room_is_made", async || {
            let mut lab = Lab::new()?;
            let etcd = three_on_hosts(&mut lab, Some(4 << 20)).await?;
            etcd.fill_up().await?;
            etcd.put("/refused", "", 0).await.unwrap_err();
            etcd.make_room().await?;
            etcd.put("/taken", "", 0).await?;
            Ok(())
        })
    }

    #[test]
    fn a_member_that_is_cut_off_from_the_others_is_not_followed_and_comes_back() -> Result<()> {
        inside(
            "etcd::membership::tests::a_member_that_is_cut_off_from_the_others_is_not_followed_and_comes_back",
            async || {
                let mut lab = Lab::new()?;
                let mut etcd = three_on_hosts(&mut lab, None).await?;
                let old = etcd.wait_for_leader().await?;
                let hosts = lab.hosts();
                for other in hosts.iter().filter(|other| other.name() != hosts[old].name()) {
                    hosts[old].cut_off_from(other, crate::lab::Verdict::Drop)?;
                }
                let others: Vec<usize> = (0..3).filter(|member| *member != old).collect();
                let deadline = Instant::now() + START_DEADLINE;
                let new = loop {
                    ensure!(Instant::now() < deadline, "the majority elects nobody");
                    let status = etcd.client(others[0]).await?.status().await?;
                    let mut ids = Vec::new();
                    for other in &others {
                        ids.push(etcd.id_of(*other).await?);
                    }
                    if ids.contains(&status.leader()) {
                        break status.leader();
                    }
                    sleep(LOOK_AGAIN).await;
                };
                lab.heal()?;
                etcd.wait_until_ready().await?;
                assert_ne!(etcd.id_of(old).await?, new);
                Ok(())
            },
        )
    }
}
