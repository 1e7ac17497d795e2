//! One election with its etcd, its sidecars and the book that their commands write to.

use std::fmt::Display;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::etcd::{EtcdOptions, EtcdServer};
use support::{Moment, Sidecar, SidecarOptions};
use tempfile::TempDir;

use crate::witness::{Life, Manner, lives, overlaps, witness};

/// For conditions that must come true: far above what a loaded machine needs, reached only by failing tests.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// The lock key of the election `test`.
pub const LOCK_KEY: &str = "/bellwether/default/test";
/// The lease of these stories: K = 900 ms, R = 300 ms, M = 600 ms, G = 900 ms.
pub const TTL: Duration = Duration::from_secs(3);
/// The same as flags.
pub const TIMINGS: [&str; 10] = [
    "--lease-ttl",
    "3s",
    "--keepalive-interval",
    "900ms",
    "--attempt-timeout",
    "300ms",
    "--safety-margin",
    "600ms",
    "--stop-timeout",
    "900ms",
];
/// M
pub const MARGIN: Duration = Duration::from_millis(600);
/// G
pub const STOP_TIME: Duration = Duration::from_millis(900);
/// How late a process may be seen alive after the instant of its SIGKILL: a sixth of the margin that is there for it.
pub const KILL_LATENCY: Duration = Duration::from_millis(100);

/// An etcd member that elects itself at once.
pub fn quick() -> EtcdOptions {
    EtcdOptions {
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(200),
        ..EtcdOptions::default()
    }
}

/// A figure for who reads the output; nothing is asserted of it.
pub fn figure(what: &str, value: impl Display) {
    // Nobody reading is no failure.
    writeln!(std::io::stderr(), "    figure: {what}: {value}").ok();
}

/// Waits until there is something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Moment::now().after(PATIENCE);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        ensure!(!deadline.passed(), "not within {PATIENCE:?}: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// Waits for a moment, which is part of the story.
pub fn wait_until(moment: Moment) {
    while !moment.passed() {
        thread::sleep(moment.remaining());
    }
}

/// One election.
pub struct Scene {
    pub etcd: EtcdServer,
    folder: TempDir,
}

impl Scene {
    pub async fn new() -> Result<Self> {
        Ok(Self { etcd: EtcdServer::start_with(quick()).await?, folder: TempDir::new()? })
    }

    /// A file of this scene.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the witnesses wrote.
    pub fn book(&self) -> PathBuf {
        self.path("book")
    }

    /// A sidecar of this election, as `bellwether exec`, with this command.
    pub fn options(&self, identity: &str, command: &[&str]) -> SidecarOptions {
        SidecarOptions::new(env!("CARGO_BIN_EXE_bellwether"), identity, &self.etcd.endpoints())
            .with(&TIMINGS)
            .executing(command)
    }

    /// A sidecar whose command is a witness.
    pub fn with_witness(&self, identity: &str, manner: Manner) -> Result<SidecarOptions> {
        let command = witness(&self.book(), manner)?;
        Ok(self.options(identity, &command.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    /// Waits until a witness of this identity and all of its family write, and returns its term.
    pub fn wait_for_family(&self, identity: &str, after_term: u64) -> Result<u64> {
        wait_for(&format!("the witnesses of {identity} after term {after_term}"), || {
            let lives = lives(&self.book())?;
            let is_it = |life: &&Life| life.identity == identity && life.term > after_term;
            let Some(term) = lives.iter().filter(is_it).map(|life| life.term).max() else { return Ok(None) };
            let there = |role| lives.iter().any(|life| life.term == term && life.role == role);
            Ok(["command", "child", "orphan"].into_iter().all(there).then_some(term))
        })
    }

    /// What the witnesses of this term were.
    pub fn lives_of(&self, term: u64) -> Result<Vec<Life>> {
        Ok(lives(&self.book())?.into_iter().filter(|life| life.term == term).collect())
    }

    /// The last sign of life of this term so far.
    pub fn last_of(&self, term: u64) -> Result<Moment> {
        self.lives_of(term)?.iter().map(|life| life.last).max().context("somebody lived in this term")
    }

    /// That no two commands of different terms were alive together.
    pub fn nobody_overlapped(&self) -> Result<()> {
        let overlaps = overlaps(&lives(&self.book())?);
        ensure!(overlaps.is_empty(), "{overlaps:#?}");
        Ok(())
    }

    /// Waits until none of the witnesses is there any more, and returns their last sign of life.
    pub fn wait_for_the_end_of(&self, term: u64) -> Result<Moment> {
        wait_for(&format!("the witnesses of term {term} are gone"), || {
            Ok(self.lives_of(term)?.iter().all(|life| !is_there(life.pid)).then_some(()))
        })?;
        self.last_of(term)
    }

    /// The lines of a file that hooks wrote.
    pub fn lines(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().map(str::to_owned).collect()
    }
}

/// Whether a process of this number exists and is not dead.
pub fn is_there(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The guardian of what this sidecar runs at this moment, if it runs anything.
pub fn guardian_of(sidecar: &Sidecar) -> Option<Pid> {
    let mine = |folder: &Path| -> Option<i32> {
        let pid = folder.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        let parent: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let line = fs::read(folder.join("cmdline")).ok()?;
        (parent == sidecar.pid() && line.starts_with(b"bellwether\0guard\0")).then_some(pid)
    };
    let pid = fs::read_dir("/proc").ok()?.filter_map(Result::ok).find_map(|entry| mine(&entry.path()));
    pid.map(Pid::from_raw)
}

/// Sends a signal to a process that is not ours to wait for.
pub fn send(pid: Pid, signal: Signal) -> Result<()> {
    kill(pid, signal).with_context(|| format!("{signal} to {pid}"))
}
