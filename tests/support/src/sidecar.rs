//! The real binary, started as a child.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::http::{HttpClient, HttpResponse};
use crate::moment::Moment;
use crate::poller::{Poller, PollerOptions};
use crate::ports::free_loopback_address;
use crate::process::Process;

mod options;

pub use options::SidecarOptions;

/// The product's own ports, for a sidecar that has a host to itself.
const HOST_HTTP: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4040);
const HOST_TELEMETRY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4041);
/// How long a sidecar may take to open its listeners: a loaded machine, not a promise of the product.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long a request of these helpers may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at something that is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How often another pair of ports is tried when somebody took one in between.
const PORT_ATTEMPTS: usize = 5;
/// How many lines of the log a failing test shows.
const LOG_TAIL: usize = 60;
/// The exit code for a configuration that is refused.
const EXIT_CONFIG_REFUSED: i32 = 64;

/// A running sidecar. Dropping it kills it; when the test is failing, the end of its log is shown.
#[derive(Debug)]
pub struct Sidecar {
    options: SidecarOptions,
    http: SocketAddr,
    telemetry: SocketAddr,
    process: Process,
    stdout: Lines,
    stderr: Lines,
}

impl Sidecar {
    /// Starts it and waits until its local API listens.
    ///
    /// # Errors
    /// When it exits, with its log in the message, or does not listen in time.
    pub fn start(options: &SidecarOptions) -> Result<Self> {
        if options.host.is_some() {
            return Self::start_at(options.clone(), HOST_HTTP, HOST_TELEMETRY);
        }
        let mut failure = None;
        for _ in 0..PORT_ATTEMPTS {
            let (http, telemetry) = (free_loopback_address()?, free_loopback_address()?);
            match Self::start_at(options.clone(), http, telemetry) {
                Err(error) if format!("{error:#}").to_lowercase().contains("in use") => failure = Some(error),
                started => return started,
            }
        }
        Err(failure.context("no attempt was made")?.context("every port was taken in between"))
    }

    /// Starts it on given addresses.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_at(options: SidecarOptions, http: SocketAddr, telemetry: SocketAddr) -> Result<Self> {
        let mut process = Process::spawn(options.command(http, telemetry)?)?;
        let stdout = Lines::read(process.child_mut().stdout.take().context("stdout is piped")?)?;
        let stderr = Lines::read(process.child_mut().stderr.take().context("stderr is piped")?)?;
        let mut sidecar = Self { options, http, telemetry, process, stdout, stderr };
        sidecar.wait_until_listening()?;
        Ok(sidecar)
    }

    /// Starts it again, on the same ports, after it has exited or been killed.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn restart(&mut self) -> Result<()> {
        if self.process.exited()?.is_none() {
            self.process.signal(Signal::SIGKILL)?;
            self.process.wait_exit(START_PATIENCE)?;
        }
        *self = Self::start_at(self.options.clone(), self.http, self.telemetry)?;
        Ok(())
    }

    fn wait_until_listening(&mut self) -> Result<()> {
        let deadline = Moment::now().after(START_PATIENCE);
        loop {
            if let Some(status) = self.process.exited()? {
                self.stderr.finish();
                let code = if status.code() == Some(EXIT_CONFIG_REFUSED) { " (configuration refused)" } else { "" };
                bail!("{} exited at its start, {status}{code}:\n{}", self.identity(), self.log_tail());
            }
            if self.options.within(|| HttpClient::new(self.http, REQUEST_TIMEOUT).connect())?.is_ok() {
                return Ok(());
            }
            if deadline.passed() {
                bail!("{} does not listen on {}:\n{}", self.identity(), self.http, self.log_tail());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Its identity.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.options.identity
    }

    /// Where its local API listens.
    #[must_use]
    pub const fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where its telemetry listens.
    #[must_use]
    pub const fn telemetry(&self) -> SocketAddr {
        self.telemetry
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// One request to the local API, on a connection of its own.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Result<HttpResponse> {
        self.options
            .within(|| HttpClient::new(self.http, REQUEST_TIMEOUT).request(method, path, headers))?
            .with_context(|| format!("{method} http://{}{path}", self.http))
    }

    /// `GET /leader`: status and body.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn leader(&self) -> Result<(u16, Value)> {
        let response = self.request("GET", "/leader", &[])?;
        Ok((response.status, response.json()))
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn status(&self) -> Result<Value> {
        Ok(self.request("GET", "/status", &[])?.json())
    }

    /// `POST /resign`: the status code.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn resign(&self, cooldown: &str) -> Result<u16> {
        let path = format!("/resign?cooldown={cooldown}");
        Ok(self.request("POST", &path, &[("content-length", "0")])?.status)
    }

    /// `GET /metrics` as text.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn metrics(&self) -> Result<String> {
        let scrape = || HttpClient::new(self.telemetry, REQUEST_TIMEOUT).get("/metrics");
        let response = self.options.within(scrape)?.context("GET /metrics")?;
        Ok(response.text())
    }

    /// One metric's value, by its name with labels as printed, less the election that all have: `bellwether_renewals_total{result="ok"}`.
    ///
    /// # Errors
    /// When `/metrics` is not answered.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let text = self.metrics()?;
        let text = without_election(&text);
        Ok(text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok()))
    }

    /// Waits until `/leader` answers something that `is_it`, and returns that.
    ///
    /// # Errors
    /// When it does not happen `within` this time; the message has the last answer and the log.
    pub fn wait_for(&self, within: Duration, is_it: impl Fn(u16, &Value) -> bool) -> Result<Value> {
        let deadline = Moment::now().after(within);
        loop {
            let answer = self.leader();
            if let Ok((status, body)) = &answer
                && is_it(*status, body)
            {
                return Ok(body.clone());
            }
            if deadline.passed() {
                bail!("{}: not within {within:?}; last: {answer:?}\n{}", self.identity(), self.log_tail());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Waits until it leads, and returns its term.
    ///
    /// # Errors
    /// When it does not within this time.
    pub fn wait_until_leading(&self, within: Duration) -> Result<u64> {
        let body = self.wait_for(within, |status, _| status == 200)?;
        body["term"].as_u64().context("a leader's answer has a term")
    }

    /// Starts polling its `/leader`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn poll(&self, options: PollerOptions) -> Result<Poller> {
        Poller::start_on(self.options.host.clone(), self.http, options)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has exited.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGSTOP: it does nothing until [`thaw`](Self::thaw), while the kernel keeps its connections open.
    ///
    /// # Errors
    /// When it has exited.
    pub fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it has exited.
    pub fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// SIGKILL, and waits until it is gone.
    ///
    /// # Errors
    /// When it had exited before.
    pub fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.process.wait_exit(START_PATIENCE)?;
        Ok(())
    }

    /// How it exited, if it has.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.process.exited()
    }

    /// Waits for its exit and the end of its output.
    ///
    /// # Errors
    /// When it does not exit within this time.
    pub fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let status = self.process.wait_exit(within)?;
        self.stdout.finish();
        self.stderr.finish();
        Ok(status)
    }

    /// The lines on its stdout so far.
    #[must_use]
    pub fn stdout(&self) -> Vec<String> {
        self.stdout.so_far()
    }

    /// The lines of its log so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.stderr.so_far()
    }

    /// Waits for a line of the log that contains `text`.
    ///
    /// # Errors
    /// When there is none within this time.
    pub fn wait_for_log(&self, text: &str, within: Duration) -> Result<String> {
        let deadline = Moment::now().after(within);
        loop {
            if let Some(line) = self.log().into_iter().find(|line| line.contains(text)) {
                return Ok(line);
            }
            if deadline.passed() {
                bail!("{}: no {text:?} in the log within {within:?}:\n{}", self.identity(), self.log_tail());
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let lines = self.log();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "the failing test's output is where this belongs")]
            {
                eprintln!("--- log of {} (pid {}):\n{}\n---", self.identity(), self.pid(), self.log_tail());
            }
        }
    }
}

/// The lines of a pipe, read by a thread so that the child never blocks on a full one.
#[derive(Debug)]
struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    fn read(pipe: impl Read + Send + 'static) -> Result<Self> {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&lines);
        let reader = thread::Builder::new()
            .name("lines of a sidecar".to_owned())
            .spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    theirs.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                }
            })
            .context("cannot start a thread to read a sidecar's output")?;
        Ok(Self { lines, reader: Some(reader) })
    }

    fn so_far(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end of the pipe: only when the child has exited.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // The thread's own panic has been printed already.
            reader.join().ok();
        }
    }
}

/// The text of a scrape without the label that every series has.
#[must_use]
pub fn without_election(scrape: &str) -> String {
    let mut text = String::with_capacity(scrape.len());
    for line in scrape.lines() {
        match line.split_once("election=\"") {
            Some((before, rest)) if !line.starts_with('#') => {
                let rest = rest.split_once('"').map_or("", |(_, rest)| rest);
                match (before.strip_suffix('{'), rest.strip_prefix('}')) {
                    (Some(name), Some(value)) => text.extend([name, value]),
                    _ => text.extend([before, rest.strip_prefix(',').unwrap_or(rest)]),
                }
            }
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text.replace(",}", "}")
}
