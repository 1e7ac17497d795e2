//! Putting a test into a network of its own: the test program starts itself again, in new namespaces.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::process::spawn_bound;
use crate::tools;

/// Set inside, to the file that tells the process outside that the test was entered.
const INSIDE: &str = "BELLWETHER_INSIDE_LAB";

/// Whether this process is one that [`inside`] has started.
pub(super) fn is_inside() -> bool {
    env::var_os(INSIDE).is_some()
}

/// Runs the body of a test in a network and below a `/run` of its own: this program is started again in new namespaces,
/// to run the test of this name and nothing else. The namespaces, and what the test has made in them, end with that
/// process.
///
/// `test` is the name as `cargo test` prints it: `module::the_claim`. The body gets a runtime of one thread, as in
/// `#[tokio::test]`, and may as well block.
///
/// # Errors
/// What the body says; when the kernel allows no namespaces or a program is missing, that, and the way out.
pub fn inside<Body>(test: &str, body: Body) -> Result<()>
where
    Body: AsyncFnOnce() -> Result<()>,
{
    let Some(entered) = env::var_os(INSIDE) else { return start_inside(test) };
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Names of network namespaces are files below /run.
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, None::<&str>).context("cannot mount a /run of its own")?;
    fs::write(entered, test)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(body())
}

/// Whether a laboratory network can be had here.
///
/// # Errors
/// When not: why, and the way out.
pub fn possible() -> Result<()> {
    for name in ["ip", "nft", "nsenter"] {
        tools::program(name)?;
    }
    let mut probe = namespaces()?;
    probe.arg("true");
    tools::run_command(probe, "").map(drop).context(
        "no network of its own for this test: it takes root with CAP_SYS_ADMIN, or user namespaces (sysctl \
         user.max_user_namespaces above 0; where there is kernel.unprivileged_userns_clone or \
         kernel.apparmor_restrict_unprivileged_userns: 1 and 0)",
    )
}

/// What starts a program in namespaces of its own, as root of them.
fn namespaces() -> Result<Command> {
    let mut command = Command::new(tools::program("unshare")?);
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--net", "--mount", "--propagation", "private"]);
    Ok(command)
}

fn start_inside(test: &str) -> Result<()> {
    possible()?;
    let directory = TempDir::with_prefix("bellwether-lab-")?;
    let entered = directory.path().join("entered");
    let mut command = namespaces()?;
    command.arg(env::current_exe()?);
    command.args(["--exact", test, "--nocapture", "--include-ignored", "--test-threads", "1"]);
    command.env(INSIDE, &entered);
    for (name, value) in program_variables()? {
        command.env(name, value);
    }
    command.stdout(Stdio::piped());
    let mut child = spawn_bound(command)?;
    pass_on(child.stdout.take().context("stdout is piped")?)?;
    let status = child.wait()?;
    ensure!(was_entered(&entered, test), "this program has no test {test}");
    ensure!(status.success(), "{test} failed inside its network, {status}: see above");
    Ok(())
}

/// What the inner run says on stdout, but for the harness's own lines: the harness outside says and counts the same.
fn pass_on(stdout: impl Read) -> Result<()> {
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        if !line.is_empty() && !["test ", "running ", "failures:"].iter().any(|own| line.starts_with(own)) {
            #[expect(clippy::print_stdout, reason = "the test's own output is where this belongs")]
            {
                println!("{line}");
            }
        }
    }
    Ok(())
}

/// Programs found here, so that they need not be looked for below another `/run`.
fn program_variables() -> Result<Vec<(String, OsString)>> {
    let variable = |name: &str| Ok((format!("BELLWETHER_{}", name.to_uppercase()), tools::program(name)?.into()));
    ["ip", "nft", "nsenter"].into_iter().map(variable).collect()
}

fn was_entered(marker: &Path, test: &str) -> bool {
    fs::read_to_string(marker).is_ok_and(|name| name == test)
}
