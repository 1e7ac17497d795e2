//! The folder's disk fails under a leader.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use support::Moment;
use support::lab::inside;

use super::{Folder, leader_in};
use crate::flock::VALID_UNTIL_UNTIL;

/// What is said when the state cannot be written.
const LINE: &str = "the state cannot be written";

/// The folder's file system is changed below the leader: it leads on, says so once, and its next life inherits nothing
/// wrong.
fn a_disk_that_fails(test: &str, fail: fn(&Path) -> Result<()>) -> Result<()> {
    inside(test, async || {
        let lo = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
        ensure!(lo.success(), "{lo}");
        let root = tempfile::tempdir()?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), root.path(), Some("tmpfs"), flags, Some("size=1m,mode=0700")).context("a small disk")?;
        let folder = Folder { root };
        let (_etcd, mut flock, folder, before) = leader_in(folder, &VALID_UNTIL_UNTIL).await?;
        fail(folder.path())?;
        let written = folder.state();
        flock.wait_for_log("leader", LINE)?;
        flock.wait_for_renewals("leader", 4)?;
        let lines = flock.sidecar("leader")?.log().iter().filter(|line| line.contains(LINE)).count();
        ensure!(lines == 1, "{lines} lines say so");
        ensure!(flock.lead_of_one("leader", Moment::now())?.term == before.term, "it leads on");
        ensure!(folder.state() == written, "the file is as it was");
        let audit = flock.end()?;
        ensure!(audit.reigns.len() == 1, "{audit}");
        Ok(())
    })
}

#[test]
fn a_leader_whose_state_folder_is_full_leads_on_and_says_so_once() -> Result<()> {
    a_disk_that_fails("resume::disk::a_leader_whose_state_folder_is_full_leads_on_and_says_so_once", |folder| {
        let mut filler = std::fs::File::create(folder.join("filler"))?;
        // Until there is no room left: that is what it is for.
        std::io::copy(&mut std::io::repeat(0), &mut filler).err().context("the disk has no end")?;
        Ok(())
    })
}

#[test]
fn a_leader_whose_state_folder_becomes_read_only_leads_on_and_says_so_once() -> Result<()> {
    let name = "resume::disk::a_leader_whose_state_folder_becomes_read_only_leads_on_and_says_so_once";
    a_disk_that_fails(name, |folder| {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(None::<&str>, folder, None::<&str>, flags, None::<&str>).context("the disk stays writable")
    })
}
