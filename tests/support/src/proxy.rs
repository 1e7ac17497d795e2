//! A TCP proxy that can be told, while connections are open, to delay, to fall silent or to cut.
//!
//! A userland proxy is not a network: it always accepts a connection (the kernel does) and acknowledges bytes that it
//! then holds back. What it holds back comes through when the silence ends, as after a partition.

use std::net::{self, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

mod connections;

use connections::serve;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From whoever connected to the proxy.
    ToServer,
    /// From the server behind it.
    ToClient,
}

/// What happens to bytes going one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They arrive at once.
    Forward,
    /// They arrive this much later.
    Delay(Duration),
    /// They do not arrive until the flow is another; nobody is told.
    Silent,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Where new connections are forwarded to.
    server: SocketAddr,
    to_server: Flow,
    to_client: Flow,
    /// New connections are reset.
    refusing: bool,
    /// Connections accepted in an earlier generation are reset.
    generation: u64,
}

impl State {
    const fn flow(&self, direction: Direction) -> Flow {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }
}

/// How many bytes have come in that have not gone out yet, each way.
#[derive(Clone, Debug, Default)]
struct Held {
    to_server: Arc<AtomicUsize>,
    to_client: Arc<AtomicUsize>,
}

impl Held {
    const fn of(&self, direction: Direction) -> &Arc<AtomicUsize> {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

/// A running proxy. Dropping it ends its connections and frees its port.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
    held: Held,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free loopback port and forwards to `server`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(server: SocketAddr) -> Result<Self> {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into(), server)
    }

    /// Listens on this address (port 0: a free one) and forwards to `server`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start_on(address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Bound here, so that it also works for who is within a runtime of its own.
        let listener =
            net::TcpListener::bind(address).with_context(|| format!("the proxy cannot listen on {address}"))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _context = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let initial =
            State { server, to_server: Flow::Forward, to_client: Flow::Forward, refusing: false, generation: 0 };
        let (state, watched) = watch::channel(initial);
        let (stop, stopped) = oneshot::channel();
        let accepted = Arc::new(AtomicUsize::new(0));
        let held = Held::default();
        let (counter, holding) = (Arc::clone(&accepted), held.clone());
        let thread = thread::Builder::new()
            .name(format!("proxy {address}"))
            .spawn(move || runtime.block_on(serve(listener, &watched, &counter, &holding, stopped)))
            .context("cannot start the proxy's thread")?;
        Ok(Self { address, state, accepted, held, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it has accepted, refused ones included.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// How many bytes going this way have arrived here and not been passed on.
    #[must_use]
    pub fn held(&self, direction: Direction) -> usize {
        self.held.of(direction).load(Ordering::Relaxed)
    }

    /// Switches one direction, for open connections and for later ones.
    pub fn set(&self, direction: Direction, flow: Flow) {
        self.state.send_modify(|state| match direction {
            Direction::ToServer => state.to_server = flow,
            Direction::ToClient => state.to_client = flow,
        });
    }

    /// Everything passes again: silence ends, new connections are taken.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            (state.to_server, state.to_client, state.refusing) = (Flow::Forward, Flow::Forward, false);
        });
    }

    /// Silence both ways; connections stay open.
    pub fn black_hole(&self) {
        self.set(Direction::ToServer, Flow::Silent);
        self.set(Direction::ToClient, Flow::Silent);
    }

    /// Resets every open connection, and forwards new ones to another server: an address that has changed hands.
    pub fn retarget(&self, server: SocketAddr) {
        self.state.send_modify(|state| {
            state.generation += 1;
            state.server = server;
        });
    }

    /// Forwards new connections to another server; open ones stay where they lead: a balancer.
    pub fn balance_to(&self, server: SocketAddr) {
        self.state.send_modify(|state| state.server = server);
    }

    /// Resets every open connection (RST). New ones are taken.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.generation += 1);
    }

    /// Resets every open connection, and new ones until [`heal`](Self::heal).
    pub fn cut_and_refuse(&self) {
        self.state.send_modify(|state| {
            state.generation += 1;
            state.refusing = true;
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read as _, Write as _};

    use super::*;
    use crate::moment::Moment;

    /// Long enough for a loaded machine; only failing tests take it.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// How long nothing may come through a silent direction. A shorter time could only make the test pass wrongly.
    const SILENCE: Duration = Duration::from_millis(100);

    /// A server that sends back what it gets, on as many connections as come.
    fn echo() -> SocketAddr {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = |mut stream: net::TcpStream| {
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                if stream.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new()
            .spawn(move || {
                for stream in listener.incoming() {
                    let stream = stream.unwrap();
                    thread::Builder::new().spawn(move || serve(stream)).unwrap();
                }
            })
            .unwrap();
        address
    }

    fn connect(proxy: &Proxy) -> net::TcpStream {
        let stream = net::TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn round_trip(stream: &mut net::TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes())?;
        receive(stream, text.len())
    }

    fn receive(stream: &mut net::TcpStream, length: usize) -> io::Result<String> {
        let mut back = vec![0; length];
        stream.read_exact(&mut back)?;
        Ok(String::from_utf8(back).unwrap())
    }

    #[test]
    fn bytes_pass_both_ways_and_so_does_a_close() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        assert_eq!(round_trip(&mut stream, "hello").unwrap(), "hello");
        stream.shutdown(net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
        assert_eq!(proxy.accepted(), 1);
    }

    #[test]
    fn silence_holds_back_either_way_and_delivers_when_it_ends() {
        for direction in [Direction::ToServer, Direction::ToClient] {
            let proxy = Proxy::start(echo()).unwrap();
            let mut stream = connect(&proxy);
            assert_eq!(round_trip(&mut stream, "before").unwrap(), "before");
            proxy.set(direction, Flow::Silent);
            stream.set_read_timeout(Some(SILENCE)).unwrap();
            let error = round_trip(&mut stream, "during").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "{direction:?}");
            assert_eq!(proxy.held(direction), 6);
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            proxy.heal();
            assert_eq!(receive(&mut stream, 6).unwrap(), "during");
            assert_eq!(round_trip(&mut stream, "after").unwrap(), "after");
        }
    }

    #[test]
    fn a_black_hole_says_nothing_to_new_connections_either() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.black_hole();
        let mut stream = connect(&proxy);
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        assert_eq!(round_trip(&mut stream, "x").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_cut_resets_open_connections_and_takes_new_ones() {
        let proxy = Proxy::start(echo()).unwrap();
        let mut stream = connect(&proxy);
        round_trip(&mut stream, "x").unwrap();
        proxy.cut();
        assert_eq!(stream.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(round_trip(&mut connect(&proxy), "again").unwrap(), "again");
    }

    #[test]
    fn refusing_resets_new_connections_until_healed() {
        let proxy = Proxy::start(echo()).unwrap();
        proxy.cut_and_refuse();
        assert!(round_trip(&mut connect(&proxy), "x").is_err());
        proxy.heal();
        assert_eq!(round_trip(&mut connect(&proxy), "again").unwrap(), "again");
    }

    #[test]
    fn a_delay_delays_each_way() {
        let proxy = Proxy::start(echo()).unwrap();
        let by = Duration::from_millis(50);
        proxy.set(Direction::ToServer, Flow::Delay(by));
        proxy.set(Direction::ToClient, Flow::Delay(by));
        let begin = Moment::now();
        round_trip(&mut connect(&proxy), "x").unwrap();
        assert!(Moment::now().since(begin) >= 2 * by);
    }

    #[test]
    fn a_dropped_proxy_ends_its_connections_and_frees_its_port() {
        let proxy = Proxy::start(echo()).unwrap();
        let address = proxy.address();
        let mut stream = connect(&proxy);
        round_trip(&mut stream, "x").unwrap();
        drop(proxy);
        assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
        assert_eq!(net::TcpStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
