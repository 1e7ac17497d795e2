//! `make bench-push`: how fast a change of the view reaches who waits for it, and what a thousand event streams, a
//! hundred of them never read, cost those who poll, in latency and in memory. All in one run, so that the figures can
//! be compared.
//!
//! The local API serves in a process of its own, this program once more, as the sidecar does: on one thread, with its
//! own limits. Its view is turned on command, and the time of that comes back; both processes read the same boot
//! clock.

#![expect(clippy::print_stdout, reason = "stdout is what the figures are for")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bellwether::clock;
use bellwether::config::{HttpConfig, HttpListen};
use bellwether::election::{
    Epoch, EtcdContact, Identity, Instant, KnownLeader, Lead, Part, PublicState, Revision, Term, Timings,
    TimingsRequest, Until, View,
};
use bellwether::http::{About, Limits, LocalApi, Shared, allow_for_open_streams};
use bellwether::metrics::Metrics;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

/// Enough for a p99 of twenty values.
const CHANGES_DEFAULT: usize = 2000;
/// Open streams, and how many of them nobody reads.
const STREAMS: usize = 1000;
const NEVER_READ: usize = 100;
/// Changes before the measurement, so that the sockets that nobody reads are full: each takes a few hundred events.
const CHANGES_TO_FILL: usize = 1500;
/// Requests per round on each of the connections, and rounds with and without streams in turn, so that what else the
/// machine does falls on both.
const REQUESTS: usize = 4000;
const CONNECTIONS: usize = 4;
const ROUNDS: usize = 3;
/// Between changes where there is one now and then.
const CHANGE_EVERY: Duration = Duration::from_millis(500);

fn main() -> Result<()> {
    let argument = std::env::args().skip(1).find(|argument| argument != "--bench");
    if argument.as_deref() == Some("--serve") {
        return serve();
    }
    let changes = match argument {
        Some(number) => number.parse().with_context(|| format!("{number:?} is not a number of changes"))?,
        None => CHANGES_DEFAULT,
    };
    allow_for_open_streams()?;
    let mut server = Server::start()?;
    println!("change of the view to the news at the client, one client, nothing else open");
    print("  long poll", &mut by_long_poll(&mut server, changes)?);
    print("  events", &mut by_events(&mut server, changes)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (mut quiet, mut changing) = (Pair::default(), Pair::default());
    for round in 0..ROUNDS {
        quiet.without.extend(poll(&mut server, None)?);
        changing.without.extend(poll(&mut server, Some(CHANGE_EVERY))?);
        let alone = server.resident()?;
        let crowd = Crowd::gather(&mut server, &runtime)?;
        let together = server.resident()?;
        quiet.with.extend(poll(&mut server, None)?);
        changing.with.extend(poll(&mut server, Some(CHANGE_EVERY))?);
        if round == 0 {
            println!("the same, with {STREAMS} streams open of which {NEVER_READ} are never read");
            print("  events", &mut by_events(&mut server, changes / 10)?);
            println!("resident memory of the server's process");
            println!("  no streams {alone} KiB, {STREAMS} streams {together} KiB");
        }
        drop(crowd);
    }
    println!(
        "/leader on {CONNECTIONS} kept connections, no streams and {STREAMS} of which {NEVER_READ} are never read"
    );
    quiet.print("  nothing changes");
    changing.print("  a change every 0.5 s");
    Ok(())
}

/// Answers from a view that each line on stdin turns; each is answered with the time of that.
fn serve() -> Result<()> {
    allow_for_open_streams()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let http = HttpConfig { listen: vec![HttpListen::Tcp(any_port)], allow_remote_resign: false };
        // Who never reads is to stay.
        let limits = Limits { stall: Duration::from_hours(1), ..LocalApi::LIMITS };
        let local_api = LocalApi::bind(&http).await?.with_limits(limits);
        let about = About {
            identity: Identity::new("web-1"),
            election: "default/web".into(),
            part: Part::Candidate,
            timings: Timings::new(TimingsRequest::default()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?,
            endpoints: vec!["http://localhost:2379".into()],
            allow_remote_resign: false,
            compat: None,
        };
        let (view, published) = watch::channel(Arc::new(turned(0)));
        let (commands, _resignations) = mpsc::channel(1);
        let metrics = Arc::new(Metrics::new("web", &about.timings, false)?);
        let shared = Shared::new(about, clock::now, published, commands, metrics);
        println!("{}", local_api.local_addrs().first().context("an address")?);
        let serving = tokio::spawn(local_api.serve(shared));
        let (sender, mut lines) = mpsc::channel(1);
        let reader = std::thread::spawn(move || {
            for _ in std::io::stdin().lines() {
                if sender.blocking_send(()).is_err() {
                    break;
                }
            }
        });
        let mut news = 0;
        while let Some(()) = lines.recv().await {
            news += 1;
            let drawn = Arc::new(turned(news));
            let at = clock::now().boot;
            view.send_replace(drawn);
            println!("{}", at.nanos());
        }
        serving.abort();
        reader.join().map_err(|_panic| anyhow::anyhow!("the reader of stdin panicked"))
    })
}

/// Leading at even numbers, else not.
fn turned(news: u64) -> View {
    let now = clock::now();
    let leads = news.is_multiple_of(2);
    let term = Term { epoch: Epoch(0), token: Revision(48_213) };
    let until = Until::of_renewal(now, Duration::from_hours(1), Duration::from_secs(3));
    View {
        version: news,
        news,
        state: if leads { PublicState::Leading } else { PublicState::Standby },
        lead: leads.then_some(Lead { term, until }),
        leader: leads.then(|| KnownLeader { identity: Identity::new("web-1"), term }),
        epoch: Epoch(0),
        since: now.wall,
        etcd: EtcdContact::Connected,
        not_leading: None,
        candidates: Vec::new(),
        candidates_total: 0,
        recent_terms: Vec::new(),
        endpoints: Vec::new(),
        jeopardy_episodes: 0,
    }
}

/// The process that serves.
struct Server {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start() -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let commands = process.stdin.take().context("it was piped")?;
        let mut answers = BufReader::new(process.stdout.take().context("it was piped")?);
        let mut address = String::new();
        answers.read_line(&mut address)?;
        let address = address.trim().parse().with_context(|| format!("no address: {address:?}"))?;
        Ok(Self { process, commands, answers, address })
    }

    /// Turns the view, and says when that was.
    fn change(&mut self) -> Result<Instant> {
        self.commands.write_all(b"\n")?;
        let mut at = String::new();
        self.answers.read_line(&mut at)?;
        Ok(Instant::from_nanos(at.trim().parse().with_context(|| format!("no time: {at:?}"))?))
    }

    /// KiB
    fn resident(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nothing is left to do then.
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

/// A connection whose answers are read whole.
struct Connection {
    socket: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { socket, received: Vec::new() })
    }

    fn send(&mut self, target: &str) -> Result<()> {
        Ok(self.socket.write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?)
    }

    /// Reads to the end of what `ends` finds the end of.
    fn read_to(&mut self, ends: impl Fn(&[u8]) -> Option<usize>) -> Result<String> {
        loop {
            if let Some(end) = ends(&self.received) {
                return Ok(String::from_utf8(self.received.drain(..end).collect())?);
            }
            let mut bytes = [0; 4096];
            let length = self.socket.read(&mut bytes)?;
            ensure!(length > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
            self.received.extend_from_slice(&bytes[..length]);
        }
    }

    /// The body of one answer, which ends with its line.
    fn answer(&mut self) -> Result<String> {
        self.read_to(|bytes| bytes.windows(2).position(|two| two == b"}\n").map(|at| at + 2))
    }

    fn event(&mut self) -> Result<String> {
        self.read_to(|bytes| bytes.windows(2).position(|two| two == b"\n\n").map(|at| at + 2))
    }
}

fn version(answer: &str) -> Result<String> {
    let (_, rest) = answer.split_once("\"version\":\"").with_context(|| format!("no version: {answer}"))?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

fn by_long_poll(server: &mut Server, changes: usize) -> Result<Vec<Duration>> {
    let mut client = Connection::open(server.address)?;
    client.send("/leader")?;
    let mut seen = version(&client.answer()?)?;
    let mut took = Vec::with_capacity(changes);
    for _ in 0..changes {
        client.send(&format!("/leader?wait=1m&seen={seen}"))?;
        // So that it waits when the view is turned.
        std::thread::sleep(Duration::from_millis(1));
        let turned = server.change()?;
        seen = version(&client.answer()?)?;
        took.push(clock::now().boot.since(turned));
    }
    Ok(took)
}

fn by_events(server: &mut Server, changes: usize) -> Result<Vec<Duration>> {
    let mut client = Connection::open(server.address)?;
    client.send("/events")?;
    client.read_to(|bytes| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4))?;
    client.event()?;
    let mut took = Vec::with_capacity(changes);
    for _ in 0..changes {
        std::thread::sleep(Duration::from_millis(1));
        let turned = server.change()?;
        client.event()?;
        took.push(clock::now().boot.since(turned));
    }
    Ok(took)
}

/// Open streams, most of them read as fast as they come.
struct Crowd<'a> {
    runtime: &'a tokio::runtime::Runtime,
    readers: Vec<tokio::task::JoinHandle<()>>,
    never_read: Vec<TcpStream>,
}

impl<'a> Crowd<'a> {
    fn gather(server: &mut Server, runtime: &'a tokio::runtime::Runtime) -> Result<Self> {
        let mut crowd = Self { runtime, readers: Vec::new(), never_read: Vec::new() };
        for stream in 0..STREAMS {
            let mut connection = Connection::open(server.address)?;
            connection.send("/events")?;
            connection.event()?;
            if stream < NEVER_READ {
                crowd.never_read.push(connection.socket);
                continue;
            }
            connection.socket.set_nonblocking(true)?;
            let _inside = crowd.runtime.enter();
            let mut socket = tokio::net::TcpStream::from_std(connection.socket)?;
            crowd.readers.push(crowd.runtime.spawn(async move {
                let mut bytes = [0; 4096];
                while socket.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
            }));
        }
        for _ in 0..CHANGES_TO_FILL {
            server.change()?;
        }
        // Until everybody has heard of it, and for what is slow to settle.
        std::thread::sleep(Duration::from_secs(1));
        Ok(crowd)
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        self.never_read.clear();
        for reader in &self.readers {
            reader.abort();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The time of each of many requests, sent one after the other on each connection.
fn poll(server: &mut Server, change_every: Option<Duration>) -> Result<Vec<Duration>> {
    let address = server.address;
    let polling: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            std::thread::spawn(move || -> Result<Vec<Duration>> {
                let mut client = Connection::open(address)?;
                let mut took = Vec::with_capacity(REQUESTS);
                for _ in 0..REQUESTS {
                    let asked = clock::now().boot;
                    client.send("/leader")?;
                    client.answer()?;
                    took.push(clock::now().boot.since(asked));
                    std::thread::sleep(Duration::from_micros(500));
                }
                Ok(took)
            })
        })
        .collect();
    while polling.iter().any(|thread| !thread.is_finished()) {
        std::thread::sleep(change_every.unwrap_or(Duration::from_millis(50)));
        if change_every.is_some() {
            server.change()?;
        }
    }
    let mut took = Vec::with_capacity(CONNECTIONS * REQUESTS);
    for thread in polling {
        took.extend(thread.join().map_err(|_panic| anyhow::anyhow!("a poller panicked"))??);
    }
    Ok(took)
}

/// The same with and without streams.
#[derive(Default)]
struct Pair {
    without: Vec<Duration>,
    with: Vec<Duration>,
}

impl Pair {
    fn print(&mut self, what: &str) {
        self.without.sort_unstable();
        self.with.sort_unstable();
        print!("{what:<24}");
        for part in [50, 95, 99] {
            let (without, with) = (millis(&self.without, part), millis(&self.with, part));
            print!("p{part} {without:>6.3} / {with:>6.3} ms ({:.2}x)   ", with / without);
        }
        println!("({} requests each)", self.with.len());
    }
}

fn print(what: &str, took: &mut [Duration]) {
    took.sort_unstable();
    println!(
        "{what:<24}p50 {:>7.3} ms   p95 {:>7.3} ms   p99 {:>7.3} ms   max {:>7.3} ms   ({} changes)",
        millis(took, 50),
        millis(took, 95),
        millis(took, 99),
        millis(took, 100),
        took.len()
    );
}

fn millis(sorted: &[Duration], part: usize) -> f64 {
    sorted[(sorted.len() * part / 100).min(sorted.len() - 1)].as_secs_f64() * 1e3
}
