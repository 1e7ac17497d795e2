//! Processes that get a small share of a CPU.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::moment::Moment;

/// How much time of a CPU is shared out at once: the kernel's default.
const PERIOD: Duration = Duration::from_millis(100);
/// How long a group may take to be empty after its processes were moved out or killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A control group of its own with a small share of a CPU. Dropping it gives its processes their share back, and removes it.
#[derive(Debug)]
pub struct Starvation {
    group: PathBuf,
    /// This process' own group, where those it has started were before, and go again.
    home: PathBuf,
}

impl Starvation {
    /// A group whose processes, together, get so many hundredths of one CPU.
    ///
    /// # Errors
    /// When this process may make no control group, or none with a quota: not root, or a container whose groups are
    /// read-only. What was to be tried with it can then not be tried.
    pub fn to_percent(percent: u32) -> Result<Self> {
        ensure!((1..100).contains(&percent), "{percent} % starves nobody");
        let quota = PERIOD * percent / 100;
        let Place { home, parent, version } = place().context("no control group with a CPU quota can be had here")?;
        let unique = format!(
            "bellwether-starved-{}-{}",
            std::process::id(),
            Moment::now().since(Moment::from_nanos(0)).as_nanos()
        );
        let starvation = Self { group: parent.join(unique), home };
        fs::create_dir(&starvation.group)
            .with_context(|| format!("no control group can be made in {}", parent.display()))?;
        let (file, value) = match version {
            Version::One => ("cpu.cfs_quota_us", quota.as_micros().to_string()),
            Version::Two => ("cpu.max", format!("{} {}", quota.as_micros(), PERIOD.as_micros())),
        };
        if version == Version::One {
            starvation.write("cpu.cfs_period_us", &PERIOD.as_micros().to_string())?;
        }
        starvation.write(file, &value)?;
        Ok(starvation)
    }

    /// Starves a process, with every thread of it.
    ///
    /// # Errors
    /// When it is gone, or the kernel refuses.
    pub fn starve(&self, process: u32) -> Result<()> {
        self.write("cgroup.procs", &process.to_string())
    }

    /// How often the group has run out of its share.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn times_throttled(&self) -> Result<u64> {
        let statistics = fs::read_to_string(self.group.join("cpu.stat"))?;
        let line = statistics.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        Ok(line.context("no nr_throttled in cpu.stat")?.parse()?)
    }

    /// Gives the processes their share back, and removes the group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn end(self) -> Result<()> {
        self.release()
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.group.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    fn release(&self) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        while self.group.exists() {
            for process in fs::read_to_string(self.group.join("cgroup.procs"))?.lines() {
                // Fails for one that has just exited.
                fs::write(self.home.join("cgroup.procs"), process).ok();
            }
            // Refused while a process is on its way out.
            if let Err(error) = fs::remove_dir(&self.group)
                && deadline.passed()
            {
                return Err(error).with_context(|| format!("cannot remove {}", self.group.display()));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }
}

impl Drop for Starvation {
    fn drop(&mut self) {
        // Nobody is left to tell; an empty group does no harm.
        self.release().ok();
    }
}

/// The two kinds of control groups, which a machine may mix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Where this process is among the control groups.
struct Place {
    /// Its own group.
    home: PathBuf,
    /// The nearest one, upwards, in which a group with a quota can be made.
    parent: PathBuf,
    version: Version,
}

fn place() -> Result<Place> {
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mounted = |kind: &str, option: &str| {
        let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        fields.find_map(|fields| match fields.as_slice() {
            [_, folder, found, options, ..] if *found == kind && options.split(',').any(|it| it == option) => {
                Some(PathBuf::from(*folder))
            }
            _ => None,
        })
    };
    // `4:cpu,cpuacct:/path` is a group of the first kind, `0::/path` of the second.
    let group = |is_it: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            is_it(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    if let Some(root) = mounted("cgroup", "cpu")
        && let Some(path) = group(&|controllers| controllers.split(',').any(|it| it == "cpu"))
    {
        let home = root.join(path);
        return Ok(Place { parent: home.clone(), home, version: Version::One });
    }
    let root = mounted("cgroup2", "rw").context("no control groups of the second kind that can be written")?;
    let path = group(&|controllers| controllers.is_empty()).context("this process is in no control group")?;
    let home = root.join(path);
    Ok(Place { parent: above_that_shares_cpu(&root, &home)?, home, version: Version::Two })
}

/// The nearest group, upwards, that shares CPU time out among those below it.
fn above_that_shares_cpu(root: &Path, own: &Path) -> Result<PathBuf> {
    let shares = |group: &&Path| {
        let controllers = fs::read_to_string(group.join("cgroup.subtree_control")).unwrap_or_default();
        controllers.split_whitespace().any(|it| it == "cpu")
    };
    let upwards = own.ancestors().take_while(|group| group.starts_with(root));
    Ok(upwards.into_iter().find(shares).context("no group above this process shares CPU time out")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::process::Process;

    /// How much CPU time a process has had: user and system, in clock ticks.
    fn ticks(process: &Process) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    #[test]
    fn a_starved_process_gets_its_share_and_no_more_and_the_group_is_gone_afterwards() -> Result<()> {
        let starvation = match Starvation::to_percent(5) {
            Ok(starvation) => starvation,
            Err(error) => {
                eprintln!("not tried: {error:#}");
                return Ok(());
            }
        };
        let mut command = Command::new("sh");
        command.args(["-c", "while :; do :; done"]);
        let process = Process::spawn(command)?;
        starvation.starve(process.pid())?;
        let (begin, before, throttled) = (Moment::now(), ticks(&process), starvation.times_throttled()?);
        while starvation.times_throttled()? < throttled + 10 {
            thread::sleep(LOOK_AGAIN);
        }
        // One tick is 10 ms. What a period has left over the next may use.
        let had = Duration::from_millis(10 * (ticks(&process) - before));
        let passed = Moment::now().since(begin);
        assert!(had <= (passed + 2 * PERIOD) / 20 + Duration::from_millis(20), "{had:?} in {passed:?}");
        let group = starvation.group.clone();
        starvation.end()?;
        assert!(!group.exists());
        assert!(fs::metadata(format!("/proc/{}", process.pid())).is_ok(), "it goes on");
        Ok(())
    }
}
