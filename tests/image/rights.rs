//! It needs no rights: a user that is only a number, no capabilities, nothing writable, no /proc, no /dev.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{Sidecar, SidecarOptions};

use crate::dockerfile::Dockerfile;
use crate::empty_root::{EmptyRoot, PodFiles, in_own_network, run};

/// How long things may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One line of /proc/<pid>/status.
fn status(sidecar: &Sidecar, field: &str) -> Result<String> {
    let text = fs::read_to_string(format!("/proc/{}/status", sidecar.pid()))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {field}"))?.trim().to_owned())
}

#[test]
fn it_leads_and_hands_over_without_any_rights() -> Result<()> {
    in_own_network(async || {
        let etcd = EtcdServer::start().await?;
        let root = EmptyRoot::with(&PodFiles::default())?;
        let mut sidecar = Sidecar::start(&SidecarOptions::new(root.entrypoint()?, "web-0", &etcd.endpoints()))?;
        sidecar.wait_until_leading(PATIENCE)?;

        // Without these the rest would show nothing.
        let users = fs::read_to_string(format!("/proc/{}/uid_map", sidecar.pid()))?;
        let users: Vec<&str> = users.split_whitespace().collect();
        ensure!(users == [Dockerfile::read()?.user()?.0.to_string().as_str(), "0", "1"], "{users:?}");
        for set in ["CapPrm", "CapEff", "CapAmb"] {
            ensure!(status(&sidecar, set)?.trim_start_matches('0').is_empty(), "{set} {}", status(&sidecar, set)?);
        }
        ensure!(status(&sidecar, "NoNewPrivs")? == "1");
        ensure!(!fs::exists(format!("/proc/{}/root/proc", sidecar.pid()))?, "its root has a /proc");

        ensure!(sidecar.metric("bellwether_leading")? == Some(1.0), "{}", sidecar.metrics()?);
        sidecar.signal(Signal::SIGTERM)?;
        let exit = sidecar.wait_exit(PATIENCE)?;
        ensure!(exit.success(), "{exit}: {}", sidecar.log_tail());
        ensure!(etcd.get("/bellwether/default/test").await?.is_none(), "the lock was not released");
        Ok(())
    })
}

#[test]
fn a_program_that_is_not_static_does_not_start_there() -> Result<()> {
    in_own_network(async || {
        let usual = PathBuf::from(env!("CARGO_BIN_EXE_bellwether"));
        ensure!(run(usual.clone(), &["--version"])?.status.success());
        let root = EmptyRoot::with(&PodFiles { files: vec![("usual", usual)], ..PodFiles::default() })?;
        let output = run(root.entry("/usual")?, &["--version"])?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && message.contains("No such file or directory"), "{output:?}");
        ensure!(run(root.entrypoint()?, &["--version"])?.status.success());
        Ok(())
    })
}

#[test]
fn the_image_s_program_can_be_asked_where_there_is_no_shell() -> Result<()> {
    in_own_network(async || {
        let etcd = EtcdServer::start().await?;
        let root = EmptyRoot::with(&PodFiles::default())?;
        let sidecar = Sidecar::start(&SidecarOptions::new(root.entrypoint()?, "web-0", &etcd.endpoints()))?;
        sidecar.wait_until_leading(PATIENCE)?;
        let ask = |address: String| run(root.entrypoint()?, &["probe", "leader", "--api", &address]);
        let yes = ask(format!("http://{}", sidecar.http()))?;
        ensure!(yes.status.code() == Some(0), "{yes:?}");
        let nobody = ask("http://127.0.0.1:9".to_owned())?;
        ensure!(nobody.status.code() == Some(2), "{nobody:?}");
        Ok(())
    })
}

#[test]
fn the_image_s_command_without_settings_says_what_is_missing() -> Result<()> {
    in_own_network(async || {
        let root = EmptyRoot::with(&PodFiles::default())?;
        let command: Vec<String> = serde_json::from_str(Dockerfile::read()?.last("CMD")?)?;
        let output = run(root.entrypoint()?, &command.iter().map(String::as_str).collect::<Vec<_>>())?;
        let message = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(64), "{output:?}");
        ensure!(message.contains("--election") && message.contains("--etcd-endpoints"), "{message}");
        Ok(())
    })
}
