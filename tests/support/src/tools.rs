//! The system's programs that faults are made with.

use std::env;
use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

/// Where administrators' programs are, which an ordinary user's PATH leaves out.
const ADMINISTRATORS_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// A program by its name: the variable `BELLWETHER_<NAME>` names it, or it is on the PATH, or where administrators' are.
///
/// # Errors
/// When there is none, with what to do.
pub fn program(name: &str) -> Result<PathBuf> {
    let variable = format!("BELLWETHER_{}", name.to_uppercase());
    if let Some(path) = env::var_os(&variable).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ADMINISTRATORS_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
        .with_context(|| {
            format!("there is no {name}: run this with `scripts/tools.sh with faults -- …`, or set {variable}")
        })
}

/// Runs a program to its end, with `input` as its stdin, and returns its stdout.
///
/// # Errors
/// When it cannot be started or fails, with its stderr.
pub fn run<S: AsRef<OsStr>>(program: &Path, arguments: &[S], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    run_command(command, input)
}

/// As [`run`].
///
/// # Errors
/// When it cannot be started or fails, with its stderr.
pub fn run_command(mut command: Command, input: &str) -> Result<String> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let mut stdin = child.stdin.take().context("stdin is piped")?;
    // One that ends without reading tells why by its exit.
    stdin.write_all(input.as_bytes()).ok();
    drop(stdin);
    let output = child.wait_with_output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} ended with {}: {stderr}{input}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
