//! The wall clock of one process, set forward and back while it runs; the machine's is never touched.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::sidecar::SidecarOptions;
use crate::tools;

/// What shifts the clock, inside the process.
const SHIM: &str = include_str!("wall_clock.c");

/// The wall clock of the processes started with it. Works for programs that are linked dynamically: one that is linked
/// statically does not look at `LD_PRELOAD`.
#[derive(Debug)]
pub struct WallClock {
    offset: File,
    directory: TempDir,
}

impl WallClock {
    /// A clock that is right. Compiles the shim.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn new() -> Result<Self> {
        let directory = TempDir::with_prefix("bellwether-wall-clock-")?;
        let source = directory.path().join("wall_clock.c");
        fs::write(&source, SHIM)?;
        let arguments = ["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"].map(Into::into);
        let library = directory.path().join("wall_clock.so");
        let last = [library.into_os_string(), source.into_os_string(), "-ldl".into()];
        tools::run(&tools::program("cc")?, &[arguments.as_slice(), last.as_slice()].concat(), "")?;
        let path = directory.path().join("offset");
        fs::write(&path, 0_i64.to_ne_bytes())?;
        let offset = OpenOptions::new().write(true).open(path)?;
        Ok(Self { offset, directory })
    }

    /// Shows the processes a wall clock that is so many milliseconds ahead of the machine's, or behind it if negative.
    /// In force at once.
    ///
    /// # Errors
    /// When the number is out of range or the file cannot be written.
    pub fn set_ahead_by(&self, milliseconds: i64) -> Result<()> {
        let nanoseconds = milliseconds.checked_mul(1_000_000).context("no clock goes that far")?;
        // Eight bytes, aligned, in one write: who maps them sees the old or the new number.
        Ok(self.offset.write_all_at(&nanoseconds.to_ne_bytes(), 0)?)
    }

    /// The environment of a process that is to have this clock.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        let file = |name: &str| self.directory.path().join(name);
        [("LD_PRELOAD", file("wall_clock.so")), ("WALL_CLOCK_OFFSET", file("offset"))]
    }

    /// A sidecar with this clock.
    #[must_use]
    pub fn give_to(&self, options: SidecarOptions) -> SidecarOptions {
        let variables = self.environment();
        variables.iter().fold(options, |options, (name, value)| options.with_env(name, &value.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::{Duration, SystemTime};

    use nix::time::{ClockId, clock_gettime};

    use super::*;
    use crate::moment::Moment;

    /// What the test below says in a process with this wall clock: its wall clock in seconds, its boot clock.
    fn clocks(clock: &WallClock) -> Result<(i64, Moment)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", THE_TEST, "--nocapture", "--test-threads", "1"]);
        command.envs(clock.environment()).env(ASKED, "1").stderr(Stdio::null());
        let answer = tools::run_command(command, "")?;
        let line = answer.lines().find_map(|line| line.split_once(ASKED)).context("it says nothing")?;
        let (wall, boot) = line.1.trim().split_once(' ').context("two numbers")?;
        Ok((wall.parse()?, Moment::from_nanos(boot.parse()?)))
    }

    const THE_TEST: &str =
        "wall_clock::tests::the_wall_clock_of_a_process_is_set_forward_and_back_and_its_boot_clock_is_not";
    /// Set in the process that is asked for its clocks, and the beginning of its answer.
    const ASKED: &str = "BELLWETHER_BOTH_CLOCKS";

    fn wall() -> i64 {
        clock_gettime(ClockId::CLOCK_REALTIME).unwrap().tv_sec()
    }

    #[test]
    fn the_wall_clock_of_a_process_is_set_forward_and_back_and_its_boot_clock_is_not() -> Result<()> {
        if std::env::var_os(ASKED).is_some() {
            let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?).as_nanos();
            let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
            println!("{ASKED} {wall} {boot}");
            return Ok(());
        }
        let clock = WallClock::new()?;
        for ahead in [0, 3600, -7200, 0] {
            clock.set_ahead_by(ahead * 1000)?;
            let (before, boot_before) = (wall(), Moment::now());
            let (theirs, boot) = clocks(&clock)?;
            assert!((before..=wall()).contains(&(theirs - ahead)), "{before} {theirs} {ahead}");
            assert!((boot_before..=Moment::now()).contains(&boot), "the boot clock was moved");
        }
        Ok(())
    }

    #[test]
    fn a_process_without_its_offset_does_not_start() {
        let clock = WallClock::new().unwrap();
        let [preload, _offset] = clock.environment();
        let mut command = Command::new("true");
        command.env(preload.0, preload.1);
        tools::run_command(command, "").unwrap_err();
    }
}
