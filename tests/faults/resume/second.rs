//! Two processes and one folder, or a copy of it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use support::{Moment, Sidecar};

use super::{Folder, leader_and_standby};
use crate::flock::VALID_UNTIL_UNTIL;

#[tokio::test]
async fn a_second_process_on_the_folder_is_refused_with_75_and_the_leader_leads_on() -> Result<()> {
    let (_etcd, flock, folder, before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    let refused = Sidecar::start(&flock.options("leader").with(&folder.flags()?));
    let said = format!("{:#}", refused.err().context("it was started")?);
    for part in ["exit status: 75", "a live process holds", folder.flags()?[1], "a folder of its own"] {
        ensure!(said.contains(part), "{part:?} is not said: {said}");
    }
    let after = flock.lead_of_one("leader", Moment::now())?;
    ensure!(after.term == before.term);
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}

/// A leader that is stopped (SIGSTOP) is as alive as any: when it goes on it finds the folder its own.
#[tokio::test]
async fn a_second_process_is_refused_while_the_first_is_frozen() -> Result<()> {
    let (_etcd, mut flock, folder, _before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    flock.sidecar("leader")?.freeze()?;
    let refused = Sidecar::start(&flock.options("leader").with(&folder.flags()?));
    let said = format!("{:#}", refused.err().context("it was started")?);
    flock.sidecar("leader")?.thaw()?;
    ensure!(said.contains("exit status: 75"), "{said}");
    flock.lead_since(Moment::now())?;
    flock.end()?;
    Ok(())
}

#[tokio::test]
async fn a_copy_of_the_folder_is_ignored_and_its_process_stays_out_of_the_election() -> Result<()> {
    let (_etcd, mut flock, folder, before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    let copy = Folder::new()?;
    for name in ["lock", "state.json"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name))?;
    }
    let options = flock.options("leader").with(&copy.flags()?);
    flock.join_as("copy", &options)?;
    flock.wait_for_log("copy", "the folder is a copy")?;
    flock.wait_for_log("copy", "another live candidate has this identity")?;
    flock.wait_for_renewals("leader", 3)?;
    let after = flock.lead_of_one("leader", Moment::now())?;
    ensure!(after.term == before.term);
    ensure!(flock.leads_so_far("copy")?.is_empty());
    flock.end()?;
    Ok(())
}

/// The next life is there before the former has died: it waits at the folder, and goes on with the term.
#[tokio::test]
async fn a_life_that_is_started_while_the_former_still_lives_waits_for_its_end_and_goes_on() -> Result<()> {
    let (_etcd, mut flock, folder, before) = leader_and_standby(&VALID_UNTIL_UNTIL).await?;
    let options = flock.options("leader").with(&folder.flags()?);
    let former = flock.sidecar("leader")?;
    let next = Sidecar::start_at(options, former.http(), former.telemetry())?;
    next.wait_for_log("a live process holds the folder", Duration::from_secs(10))?;
    former.kill9()?;
    let dead = Moment::now();
    *former = next;
    let after = flock.lead_of_one("leader", dead)?;
    ensure!(after.term == before.term, "{after:?}");
    let audit = flock.end()?;
    ensure!(audit.reigns.len() == 1, "{audit}");
    Ok(())
}
