//! A proxy that makes watches deaf and nothing else.
//!
//! A watch shares its connection with every call and every keep-alive to the same member, so no fault of the connection
//! hits it alone. This proxy looks at the frames of HTTP/2: it notes on which streams watches are created, lets the
//! answer through that a watch is there, and nothing that the server says on that stream afterwards. Nobody is told,
//! and what else goes over the connection goes on.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};

/// What a client of HTTP/2 sends before its first frame.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// Length (3 bytes), type, flags, stream (4 bytes).
const FRAME_HEADER: usize = 9;
const DATA: u8 = 0;
/// Before each message of gRPC: whether it is compressed, and its length (4 bytes).
const MESSAGE_HEADER: usize = 5;
/// Protobuf's tag of field 1 where that is a message or text.
const FIELD_1: u8 = 0x0a;

/// The streams of one connection on which a watch was asked for, and of these the ones that were told that it is there.
#[derive(Default)]
struct Watches {
    asked_for: BTreeSet<u32>,
    told: BTreeSet<u32>,
}

#[derive(Default)]
struct Shared {
    kept_back: AtomicUsize,
    stopping: AtomicBool,
    /// To end their threads by.
    sockets: Mutex<Vec<TcpStream>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is locked here is changed in one step: a panic leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Clone, Copy)]
enum Way {
    ToServer,
    ToClient,
}

/// A running proxy. Dropping it ends its connections.
pub struct Muffler {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

impl Muffler {
    /// Listens on a free loopback port and forwards to `server`.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the muffler cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let theirs = Arc::clone(&shared);
        let serve = move || serve(&listener, server, &theirs);
        let listening = Some(thread::Builder::new().name(format!("muffler {address}")).spawn(serve)?);
        Ok(Self { address, shared, listening })
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many times a watch had something to tell.
    pub fn kept_back(&self) -> usize {
        self.shared.kept_back.load(Ordering::Relaxed)
    }
}

impl Drop for Muffler {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts. If that fails it has ended already.
        TcpStream::connect(self.address).ok();
        if let Some(thread) = self.listening.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

/// Accepts until stopped, then ends every connection and waits for its threads.
fn serve(listener: &TcpListener, server: SocketAddr, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    for incoming in listener.incoming() {
        if shared.stopping.load(Ordering::Relaxed) {
            break;
        }
        // One that fails is seen by the client as a connection that does not work.
        if let Ok(client) = incoming
            && let Ok(both) = connection(client, server, shared)
        {
            pumps.extend(both);
        }
    }
    for socket in lock(&shared.sockets).drain(..) {
        socket.shutdown(Shutdown::Both).ok();
    }
    for pump in pumps {
        pump.join().ok();
    }
}

fn connection(client: TcpStream, server: SocketAddr, shared: &Arc<Shared>) -> Result<[JoinHandle<()>; 2]> {
    let server = TcpStream::connect(server)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    lock(&shared.sockets).extend([client.try_clone()?, server.try_clone()?]);
    let watches = Arc::<Mutex<Watches>>::default();
    let ways = [(client.try_clone()?, server.try_clone()?, Way::ToServer), (server, client, Way::ToClient)];
    let start = |(from, to, way): (TcpStream, TcpStream, Way)| {
        let (shared, watches) = (Arc::clone(shared), Arc::clone(&watches));
        thread::Builder::new().name("muffler's pump".to_owned()).spawn(move || {
            // Whichever way ends first, and however, ends both.
            match way {
                Way::ToServer => to_server(&from, &to, &watches).ok(),
                Way::ToClient => to_client(&from, &to, &watches, &shared.kept_back).ok(),
            };
            from.shutdown(Shutdown::Both).ok();
            to.shutdown(Shutdown::Both).ok();
        })
    };
    let [one, other] = ways.map(start);
    Ok([one?, other?])
}

/// Passes on what the client says, and notes the watches in it.
fn to_server(mut from: &TcpStream, mut to: &TcpStream, watches: &Mutex<Watches>) -> io::Result<()> {
    let mut preface = [0; PREFACE];
    from.read_exact(&mut preface)?;
    to.write_all(&preface)?;
    loop {
        let frame = Frame::read(from)?;
        if frame.is_data() && creates_a_watch(frame.payload()) {
            lock(watches).asked_for.insert(frame.stream());
        }
        to.write_all(&frame.0)?;
    }
}

/// Passes on what the server says, but for what a watch would tell.
fn to_client(
    from: &TcpStream,
    mut to: &TcpStream,
    watches: &Mutex<Watches>,
    kept_back: &AtomicUsize,
) -> io::Result<()> {
    loop {
        let frame = Frame::read(from)?;
        let tells_a_watch = frame.is_data() && {
            let mut watches = lock(watches);
            watches.asked_for.contains(&frame.stream()) && !watches.told.insert(frame.stream())
        };
        if tells_a_watch {
            kept_back.fetch_add(1, Ordering::Relaxed);
        } else {
            to.write_all(&frame.0)?;
        }
    }
}

/// One frame, with its header.
struct Frame(Vec<u8>);

impl Frame {
    fn read(mut from: &TcpStream) -> io::Result<Self> {
        let mut frame = vec![0; FRAME_HEADER];
        from.read_exact(&mut frame)?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        let length = usize::try_from(length).expect("24 bits");
        frame.resize(FRAME_HEADER + length, 0);
        from.read_exact(&mut frame[FRAME_HEADER..])?;
        Ok(Self(frame))
    }

    fn is_data(&self) -> bool {
        self.0[3] == DATA
    }

    fn stream(&self) -> u32 {
        u32::from_be_bytes([self.0[5], self.0[6], self.0[7], self.0[8]])
    }

    fn payload(&self) -> &[u8] {
        &self.0[FRAME_HEADER..]
    }
}

/// Whether this begins with a `WatchRequest` whose field 1 is a `WatchCreateRequest` whose field 1 is the key. In a read
/// the key itself comes first, in a transaction a comparison, and that never begins with its field 1 as text.
fn creates_a_watch(data: &[u8]) -> bool {
    let message = data.get(MESSAGE_HEADER..).unwrap_or_default();
    matches!(message, [FIELD_1, _, FIELD_1, _, b'/', ..])
}
