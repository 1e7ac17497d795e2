//! A disk that stalls: every flush of a process takes longer by a given time.

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use crate::moment::Moment;
use crate::process::Process;
use crate::tools;

/// How long attaching and letting go may take: a process of some dozen threads on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A stall of one process' disk: `strace` holds each `fsync` and `fdatasync` back. Dropping it lets the process go on, at
/// once, flushes that are being held back included.
#[derive(Debug)]
pub struct DiskStall {
    strace: Process,
    process: u32,
}

impl DiskStall {
    /// Stalls the disk of this process, all threads of it: each flush begins so much later. Returns when it is in force.
    ///
    /// # Errors
    /// When there is no `strace`, or it may not attach: the process is not a child, and Yama forbids it.
    pub fn begin(process: u32, delay: Duration) -> Result<Self> {
        let mut command = Command::new(tools::program("strace")?);
        command.args(["-f", "-qqq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:delay_enter={}", delay.as_micros())]);
        command.args(["-p", &process.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut stall = Self { strace: Process::spawn(command)?, process };
        let deadline = Moment::now().after(PATIENCE);
        while !stall.holds_every_thread()? {
            if let Some(status) = stall.strace.exited()? {
                bail!("strace cannot stall process {process}: {status}");
            }
            ensure!(!deadline.passed(), "strace has not attached to process {process} within {PATIENCE:?}");
            thread::sleep(LOOK_AGAIN);
        }
        Ok(stall)
    }

    /// Ends the stall; the process runs on. Returns when strace has let go of it.
    ///
    /// # Errors
    /// When it has not in time.
    pub fn end(mut self) -> Result<()> {
        if self.strace.exited()?.is_none() {
            self.strace.signal(Signal::SIGTERM)?;
            self.strace.wait_exit(PATIENCE)?;
        }
        Ok(())
    }

    fn holds_every_thread(&self) -> Result<bool> {
        let tracer = format!("TracerPid:\t{}\n", self.strace.pid());
        let threads = fs::read_dir(format!("/proc/{}/task", self.process))
            .with_context(|| format!("there is no process {}", self.process))?;
        for thread in threads {
            // A thread may have ended in between.
            let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_else(|_gone| tracer.clone());
            if !status.contains(&tracer) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::EtcdServer;

    /// Far above a flush of a healthy disk.
    const DELAY: Duration = Duration::from_millis(700);

    async fn put(etcd: &EtcdServer) -> Result<Duration> {
        let begin = Moment::now();
        etcd.put("/key", "value", 0).await?;
        Ok(Moment::now().since(begin))
    }

    #[tokio::test]
    async fn a_stalled_member_writes_late_and_goes_on_when_the_stall_ends() -> Result<()> {
        let etcd = EtcdServer::start().await?;
        let healthy = put(&etcd).await?;
        let pid = etcd.pid(0).context("it runs")?;
        let stall = DiskStall::begin(pid, DELAY)?;
        let stalled = put(&etcd).await?;
        ensure!(stalled >= DELAY, "not stalled: {stalled:?}, healthy: {healthy:?}");
        stall.end()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        ensure!(status.contains("TracerPid:\t0\n"), "{status}");
        put(&etcd).await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_stall_that_ends_lets_a_flush_that_is_held_back_go_at_once() -> Result<()> {
        let etcd = EtcdServer::start().await?;
        let stall = DiskStall::begin(etcd.pid(0).context("it runs")?, Duration::from_secs(3600))?;
        let (written, ended) = tokio::join!(put(&etcd), async {
            // Begins after the put was sent: both are on one thread, and the put waits first.
            tokio::time::sleep(DELAY).await;
            stall.end()
        });
        ended?;
        ensure!(written? >= DELAY);
        Ok(())
    }

    #[test]
    fn a_process_that_is_not_there_cannot_be_stalled() {
        let mut gone = Process::spawn(Command::new("true")).unwrap();
        gone.wait_exit(PATIENCE).unwrap();
        DiskStall::begin(gone.pid(), DELAY).unwrap_err();
    }
}
