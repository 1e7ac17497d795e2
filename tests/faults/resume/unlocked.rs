//! What the lock of the folder is for.

use std::time::Duration;

use anyhow::{Result, ensure};
use support::Moment;
use support::etcd::EtcdServer;

use super::{Folder, LEASE_TTL};
use crate::flock::{Flock, Lead, VALID_UNTIL_UNTIL, figure, quick};

/// Two lives of one identity on one folder without its lock: the former answers on until its next confirm.
#[tokio::test]
async fn control_without_the_lock_two_processes_on_one_folder_answer_200_at_one_instant() -> Result<()> {
    const MOST: usize = 5;
    let etcd = EtcdServer::start_with(quick()).await?;
    for trial in 1..=MOST {
        let election = format!("unlocked-{trial}");
        let mut flock = Flock::new(etcd.endpoints(), &[&LEASE_TTL, &VALID_UNTIL_UNTIL]).in_election(&election);
        flock = flock.polled_every(Duration::from_millis(1));
        let folder = Folder::new()?;
        let options = flock.options("leader").with(&folder.flags()?).with_env("BELLWETHER_SABOTAGE", "no-state-lock");
        flock.join_as("former", &options)?;
        let former: Lead = flock.lead_of_one("former", Moment::now())?;
        folder.wait_until_resumable()?;
        flock.join_as("next", &options)?;
        let next = flock.lead_of_one("next", Moment::now())?;
        ensure!(next.term == former.term);
        flock.not_leading_since("former", next.sample.received)?;
        let audit = flock.end_unjudged();
        if !audit.one_leader_at_a_time() {
            figure("one folder without its lock", format_args!("two led at one instant in trial {trial}: {audit}"));
            return Ok(());
        }
    }
    anyhow::bail!("{MOST} trials without the lock, and nothing was wrong")
}
