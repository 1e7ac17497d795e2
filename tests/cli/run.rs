//! `bellwether run` as a process: how it starts and how it ends. No etcd is needed for that.

use std::fs::{self, File, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use bellwether::clock;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{Said, bellwether, say};

/// A process that has not done in this time what it does in milliseconds never will.
const DEADLINE: Duration = Duration::from_secs(20);

/// Looks again and again until there is something: another process does not announce that it listens, and the standard
/// library waits for its end only without a deadline.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = clock::now().boot;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(clock::now().boot.since(started) < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A sidecar without an etcd: nobody listens at its endpoint.
struct Sidecar {
    child: Child,
    api: String,
    folder: TempDir,
}

impl Sidecar {
    fn start() -> Self {
        Self::start_in(TempDir::new().expect("a temporary folder"), &[])
    }

    fn start_in(folder: TempDir, more: &[&str]) -> Self {
        let log = File::create(folder.path().join("log")).expect("the folder takes files");
        Self::start_logging_to(log, folder, more)
    }

    fn start_logging_to(log: File, folder: TempDir, more: &[&str]) -> Self {
        let socket = folder.path().join("b.sock");
        let api = format!("unix:{}", socket.display());
        let mut command = bellwether(&[&arguments(&api, "127.0.0.1:0"), more].concat());
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let child = child.expect("the binary that was just built starts");
        let sidecar = Self { child, api, folder };
        eventually("the local API is up", || UnixStream::connect(&socket).ok());
        sidecar
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args([&format!("-{signal}"), &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{signal}");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("the log is text")
    }

    fn end(&mut self) -> ExitStatus {
        eventually("the process ends", || self.child.try_wait().expect("a child can be waited for"))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // Ended already, unless the test has failed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn arguments<'a>(http: &'a str, telemetry: &'a str) -> Vec<&'a str> {
    let etcd = ["run", "--election", "web", "--id", "web-0", "--etcd-endpoints", "http://127.0.0.1:1"];
    [&etcd[..], &["--http", http, "--telemetry", telemetry]].concat()
}

#[test]
fn a_signal_stops_it_in_order_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut sidecar = Sidecar::start();
        sidecar.send(signal);
        assert_eq!(sidecar.end().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_nothing_to_die_of() {
    let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has a device that is always full");
    let folder = TempDir::new().expect("a temporary folder");
    let mut sidecar = Sidecar::start_logging_to(full, folder, &[]);
    sidecar.send("TERM");
    assert_eq!(sidecar.end().code(), Some(0));
}

/// A name server that is silent, or a file on a network that is gone: the thread that waits for it cannot be
/// interrupted, and must not keep the process. Here it is a pipe that nobody writes to.
#[test]
fn a_system_call_that_does_not_come_back_does_not_keep_a_sidecar_that_has_stood_down() {
    let folder = TempDir::new().expect("a temporary folder");
    let (password, pipe) = (folder.path().join("password"), folder.path().join("pipe"));
    fs::write(&password, "secret").expect("a file in a fresh folder");
    let file = password.display().to_string();
    let mut sidecar = Sidecar::start_in(folder, &["--etcd-user", "web", "--etcd-password-file", &file]);
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo");
    fs::rename(&pipe, &password).expect("both are in one folder");
    // A pipe can be opened like this only once somebody reads it. Nothing is ever written.
    let non_blocking = nix::libc::O_NONBLOCK;
    let _silent = eventually("the password is read again", || {
        OpenOptions::new().write(true).custom_flags(non_blocking).open(&password).ok()
    });
    sidecar.send("TERM");
    assert_eq!(sidecar.end().code(), Some(0));
}

#[test]
fn the_first_line_of_a_log_says_who_takes_part_in_what_and_where() {
    let mut sidecar = Sidecar::start();
    sidecar.send("TERM");
    assert_eq!(sidecar.end().code(), Some(0));
    let log = sidecar.log();
    let first: Value = serde_json::from_str(log.lines().next().unwrap_or_default()).expect("the log is JSON");
    assert_eq!(first["message"], "campaigning", "{log}");
    assert_eq!((&first["version"], &first["epoch"]), (&env!("CARGO_PKG_VERSION").into(), &0.into()));
    assert_eq!((&first["identity"], &first["lease_ttl"]), (&"web-0".into(), &"15s".into()));
    assert_eq!(
        (&first["local_api"], &first["etcd_endpoints"]),
        (&sidecar.api.as_str().into(), &"http://127.0.0.1:1".into())
    );
    assert!(first["telemetry"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:") && !at.ends_with(":0")), "{log}");
}

#[test]
fn sighup_does_not_stop_it() {
    let mut sidecar = Sidecar::start();
    sidecar.send("HUP");
    assert_eq!(say(&["status", "--api", &sidecar.api]).code, Some(0));
    sidecar.send("TERM");
    assert_eq!(sidecar.end().code(), Some(0));
}

#[test]
fn the_commands_that_ask_understand_the_real_sidecar() {
    let mut sidecar = Sidecar::start();
    let Said { code, out, .. } = say(&["status", "--api", &sidecar.api]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("/web\nLeader    none\n"), "{out}");
    let Said { code, out, .. } = say(&["probe", "leader", "--api", &sidecar.api]);
    assert_eq!(code, Some(1), "{out}");
    assert!(out.starts_with("no: web-0 does not lead ") && out.ends_with(", and knows no leader\n"), "{out}");
    let Said { code, err, .. } = say(&["resign", "--api", &sidecar.api, "--cooldown", "1m30s"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.starts_with("web-0 does not lead"), "{err}");
    sidecar.send("TERM");
    assert_eq!(sidecar.end().code(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_exit_code_75() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = taken.local_addr().expect("a bound listener has an address").to_string();
    let Said { code, err, .. } = say(&arguments(&address, "127.0.0.1:0"));
    assert_eq!(code, Some(75), "{err}");
    assert!(err.contains(&address), "{err}");
}
