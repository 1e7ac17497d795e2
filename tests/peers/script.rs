//! An application as a shell script: what a document tells its users to write.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use support::{Moment, Process};
use tempfile::TempDir;

/// For what takes milliseconds, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The line with which a script pauses itself until [`Script::go_on`].
pub const PAUSE: &str = "kill -STOP $$";

/// A running script, in a folder of its own.
pub struct Script {
    process: Process,
    folder: TempDir,
}

/// How a script ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Script {
    pub fn start(text: &str, files: &[(&str, &str)], environment: &[(String, String)]) -> Result<Self> {
        let folder = TempDir::new()?;
        for (name, content) in files {
            fs::write(folder.path().join(name), content)?;
        }
        fs::write(folder.path().join("script"), text)?;
        let mut command = Command::new("bash");
        command
            .args(["-u", "script"])
            .current_dir(folder.path())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("out"))?)
            .stderr(File::create(folder.path().join("err"))?);
        let process = Process::spawn(command).context("there is no bash")?;
        Ok(Self { process, folder })
    }

    /// Waits until it has paused itself.
    pub fn wait_until_paused(&mut self) -> Result<()> {
        let deadline = Moment::now().after(PATIENCE);
        loop {
            if let Some(status) = self.process.exited()? {
                bail!("it ended before its pause, {status}: {}{}", self.read("out")?, self.read("err")?);
            }
            let stat = fs::read_to_string(Path::new("/proc").join(self.process.pid().to_string()).join("stat"))?;
            // The state comes after the name, which is in parentheses and can hold anything.
            if stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T')) {
                return Ok(());
            }
            if deadline.passed() {
                bail!("it has not paused: {}{}", self.read("out")?, self.read("err")?);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends its pause, and waits for its end.
    pub fn go_on(mut self) -> Result<Ended> {
        self.process.signal(Signal::SIGCONT)?;
        self.wait()
    }

    pub fn wait(mut self) -> Result<Ended> {
        let status = self.process.wait_exit(PATIENCE)?;
        Ok(Ended { code: status.code(), out: self.read("out")?, err: self.read("err")? })
    }

    fn read(&self, name: &str) -> Result<String> {
        Ok(fs::read_to_string(self.folder.path().join(name))?)
    }
}
