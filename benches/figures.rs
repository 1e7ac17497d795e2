//! `make bench`: the figures that README.md and the release notes quote, of the release binary, in one run.
//!
//! How big it is, what it holds in memory while idle, how fast a clean handover is with and without waiting for
//! answers given out, and how fast a leader hears that an operator has deleted its lock key, beside the delay of the
//! watch event itself.

#![expect(clippy::print_stdout, reason = "stdout is what the figures are for")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, EventType};
use nix::sys::signal::Signal;
use support::etcd::EtcdServer;
use support::{Moment, Outcome, Poller, PollerOptions, Sidecar, SidecarOptions};

/// Enough for a median that does not move in its first digit between runs.
const TRIALS_DEFAULT: usize = 30;
/// A handover takes at most a second of answer validity and some milliseconds here; a minute is a failure.
const PATIENCE: Duration = Duration::from_mins(1);
/// Long enough for the allocator and the connections to have settled: three renewals at the default interval.
const IDLE: Duration = Duration::from_secs(16);

fn main() -> Result<()> {
    let binary: PathBuf =
        std::env::var_os("BELLWETHER_BIN").context("BELLWETHER_BIN: the binary to measure; use make bench")?.into();
    let trials = match std::env::args().skip(1).find(|argument| argument != "--bench") {
        Some(number) => number.parse().with_context(|| format!("{number:?} is not a number of trials"))?,
        None => TRIALS_DEFAULT,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let bytes = std::fs::metadata(&binary)?.len();
        println!("binary                                  {:.2} MB ({bytes} bytes)", decimal_megabytes(bytes));
        let etcd = EtcdServer::start().await?;
        memory(&binary, &etcd)?;
        for validity in ["0s", "1s"] {
            handover(&binary, &etcd, validity, trials)?;
        }
        deletion(&binary, &etcd, trials).await
    })
}

fn memory(binary: &PathBuf, etcd: &EtcdServer) -> Result<()> {
    let options = |name| election(binary, etcd, name, "memory");
    let (leader, standby) = (Sidecar::start(&options("a"))?, Sidecar::start(&options("b"))?);
    leader.wait_until_leading(PATIENCE)?;
    let mut settled = Moment::now().after(IDLE);
    while !settled.passed() {
        std::thread::sleep(settled.remaining());
        settled = settled.max(Moment::now());
    }
    for (role, sidecar) in [("leader", &leader), ("standby", &standby)] {
        let (resident, threads) = resident(sidecar.pid())?;
        println!(
            "memory, idle {role:<8}                   {:.2} MiB resident, {threads} thread(s)",
            mebibytes(resident)
        );
    }
    Ok(())
}

/// From SIGTERM to the leader to the first 200 of another sidecar, at the default lease TTL of 15 s.
fn handover(binary: &PathBuf, etcd: &EtcdServer, validity: &str, trials: usize) -> Result<()> {
    let name = format!("handover-{validity}");
    let start = |identity: &str| {
        Sidecar::start(&election(binary, etcd, identity, &name).with(&["--answer-validity", validity]))
    };
    let mut sidecars = vec![start("a")?, start("b")?, start("c")?];
    let mut took = Vec::with_capacity(trials);
    for _ in 0..trials {
        let leader = leader_of(&sidecars)?;
        let pollers = sidecars.iter().map(|sidecar| sidecar.poll(fast())).collect::<Result<Vec<_>>>()?;
        let signalled = Moment::now();
        sidecars[leader].signal(Signal::SIGTERM)?;
        let others: Vec<&Poller> =
            pollers.iter().enumerate().filter(|(each, _)| *each != leader).map(|(_, poller)| poller).collect();
        took.push(first_leading(&others, signalled)?.since(signalled));
        drop(pollers);
        sidecars[leader].wait_exit(PATIENCE)?;
        sidecars[leader].restart()?;
    }
    print(&format!("SIGTERM to next 200, validity {validity}"), &mut took);
    Ok(())
}

/// From an operator's delete, as it is sent, to the watch event, and to the old leader's first 503.
async fn deletion(binary: &PathBuf, etcd: &EtcdServer, trials: usize) -> Result<()> {
    let options = |name| election(binary, etcd, name, "deletion");
    let sidecars = [Sidecar::start(&options("a"))?, Sidecar::start(&options("b"))?];
    let mut client = Client::connect([etcd.endpoint()], None).await?;
    let key = "/bellwether/default/deletion";
    let (mut to_event, mut to_503) = (Vec::new(), Vec::new());
    for _ in 0..trials {
        let leader = leader_of(&sidecars)?;
        let poller = sidecars[leader].poll(fast())?;
        let mut watch = client.watch(key, None).await?;
        let watcher = tokio::spawn(async move {
            while let Some(response) = watch.message().await? {
                if response.events().iter().any(|event| event.event_type() == EventType::Delete) {
                    return Ok(Moment::now());
                }
            }
            anyhow::bail!("the watch ended before the deletion")
        });
        let deleted = Moment::now();
        client.delete(key, None).await?;
        to_event.push(watcher.await??.since(deleted));
        let stood_down = poller
            .wait_for(deleted, deleted.after(PATIENCE), |sample| status(sample.outcome) == Some(503))
            .context("the leader did not stand down")?;
        to_503.push(stood_down.received.since(deleted));
    }
    print("operator's delete to the watch event", &mut to_event);
    print("operator's delete to the leader's 503", &mut to_503);
    Ok(())
}

fn election(binary: &PathBuf, etcd: &EtcdServer, identity: &str, election: &str) -> SidecarOptions {
    let mut options = SidecarOptions::new(binary, identity, &[etcd.endpoint()]).with(&["--namespace", "default"]);
    election.clone_into(&mut options.election);
    options
}

fn fast() -> PollerOptions {
    PollerOptions { interval: Duration::from_millis(1), ..PollerOptions::default() }
}

fn status(outcome: Outcome) -> Option<u16> {
    match outcome {
        Outcome::Answered(answer) => Some(answer.status),
        Outcome::Refused | Outcome::TimedOut | Outcome::Broken => None,
    }
}

/// Who leads, once all are in line: a candidate that is still starting would not be the heir.
fn leader_of(sidecars: &[Sidecar]) -> Result<usize> {
    let deadline = Moment::now().after(PATIENCE);
    while !deadline.passed() {
        let mut leader = None;
        let mut in_line = 0;
        for (each, sidecar) in sidecars.iter().enumerate() {
            let status = sidecar.status()?;
            in_line += usize::from(status["state"] == "standby" && status["name"] != "");
            if status["leading"] == true {
                leader = Some(each);
            }
        }
        if let Some(leader) = leader.filter(|_| in_line + 1 == sidecars.len()) {
            return Ok(leader);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    anyhow::bail!("nobody leads, or not everybody is in line")
}

fn first_leading(pollers: &[&Poller], since: Moment) -> Result<Moment> {
    let deadline = since.after(PATIENCE);
    while !deadline.passed() {
        let led = |poller: &&Poller| {
            poller.samples_since(since).into_iter().find(|sample| status(sample.outcome) == Some(200))
        };
        if let Some(first) = pollers.iter().filter_map(led).map(|sample| sample.received).min() {
            return Ok(first);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    anyhow::bail!("nobody took over")
}

/// Resident bytes and threads of a process.
fn resident(pid: u32) -> Result<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> Result<u64> {
        let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line.split_whitespace().nth(1).with_context(|| format!("no number in {line}"))?.parse()?)
    };
    Ok((field("VmRSS:")? * 1024, field("Threads:")?))
}

fn print(what: &str, took: &mut [Duration]) {
    took.sort_unstable();
    let millis = |part: usize| took[(took.len() * part / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:<40}p50 {:>8.2} ms   p95 {:>8.2} ms   max {:>8.2} ms   ({} trials)",
        millis(50),
        millis(95),
        millis(100),
        took.len()
    );
}

#[expect(clippy::cast_precision_loss, reason = "a size in megabytes, for a person")]
fn decimal_megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[expect(clippy::cast_precision_loss, reason = "a size in mebibytes, for a person")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
