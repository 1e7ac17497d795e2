//! What a former life has left and is of no use: one line, and an election as if there were nothing.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use support::Sidecar;

use super::{Folder, leader_and_standby};
use crate::flock::{Flock, Lead};

/// What every such line says.
const LINE: &str = "what an earlier process left is not used";

/// The leader is killed, its state file changed, and it comes back with these arguments.
async fn a_state_file_that_is_changed(change: impl FnOnce(&mut Value), flags: &[&str], why: &str) -> Result<()> {
    let (_etcd, mut flock, folder, before) = leader_and_standby(&["--answer-validity", "1s"]).await?;
    flock.sidecar("leader")?.kill9()?;
    let mut state = folder.state().context("it is there")?;
    change(&mut state);
    std::fs::write(folder.file(), state.to_string())?;
    is_ignored(&mut flock, &folder, &before, flags, why)?;
    flock.end()?;
    Ok(())
}

fn is_ignored(flock: &mut Flock, folder: &Folder, before: &Lead, flags: &[&str], why: &str) -> Result<()> {
    let options = flock.options("leader").with(&folder.flags()?).with(flags);
    let sidecar = flock.sidecar("leader")?;
    let (http, telemetry) = (sidecar.http(), sidecar.telemetry());
    *sidecar = Sidecar::start_at(options, http, telemetry)?;
    let line = flock.wait_for_log("leader", LINE)?;
    ensure!(line.contains(why), "{line}");
    // Its lease of before expires; then somebody leads, whoever is first.
    flock.next_term(before)?;
    let lines = flock.sidecar("leader")?.log().iter().filter(|line| line.contains(LINE)).count();
    ensure!(lines == 1, "{lines} lines say so");
    Ok(())
}

#[tokio::test]
async fn a_stale_one() -> Result<()> {
    let older = |state: &mut Value| state["sent_ns"] = (state["sent_ns"].as_u64().unwrap_or(0) - 3_000_000_000).into();
    a_state_file_that_is_changed(older, &[], "it is stale").await
}

#[tokio::test]
async fn one_of_another_boot() -> Result<()> {
    a_state_file_that_is_changed(|state| state["boot"] = "another".into(), &[], "the machine was started again").await
}

#[tokio::test]
async fn one_of_another_epoch() -> Result<()> {
    a_state_file_that_is_changed(|_| {}, &["--epoch", "1"], "it is of another epoch").await
}

#[tokio::test]
async fn one_with_a_lease_that_is_too_short_now() -> Result<()> {
    let shorter = |state: &mut Value| state["lease_ttl_ns"] = 2_500_000_000_u64.into();
    a_state_file_that_is_changed(shorter, &[], "its lease lasts 2s500ms, less than --lease-ttl 3s").await
}

#[tokio::test]
async fn a_damaged_one() -> Result<()> {
    a_state_file_that_is_changed(|state| state["lease"] = Value::Null, &[], "it is damaged").await
}

#[tokio::test]
async fn one_of_a_newer_version() -> Result<()> {
    a_state_file_that_is_changed(|state| state["version"] = 2.into(), &[], "its version is 2").await
}
