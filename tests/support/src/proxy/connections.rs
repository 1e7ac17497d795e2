//! Moving the bytes of each connection, as the proxy's state says at the time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::{Direction, Flow, Held, State};
use crate::moment::Moment;

/// The largest piece read at once.
const CHUNK_BYTES: usize = 16 * 1024;
/// How many pieces wait in a delayed or silent direction; then the sender's kernel holds back, as on a real path.
const CHUNKS_WAITING: usize = 64;

/// Bytes that are being held, counted until they have gone out or their connection has.
struct Chunk {
    arrived: Moment,
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

impl Chunk {
    fn arrives(bytes: &[u8], held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(bytes.len(), Ordering::Relaxed);
        Self { arrived: Moment::now(), bytes: bytes.to_vec(), held: Arc::clone(held) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// Takes connections until it is stopped.
pub(super) async fn serve(
    listener: TcpListener,
    state: &watch::Receiver<State>,
    accepted: &AtomicUsize,
    held: &Held,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => {}
            incoming = listener.accept() => {
                // An accept that fails (out of descriptors) is seen by the client as a connection that does not work.
                let Ok((client, _)) = incoming else { continue };
                accepted.fetch_add(1, Ordering::Relaxed);
                connections.spawn(connection(client, state.clone(), held.clone()));
            }
        }
    }
}

/// One connection, until both sides have closed it, or it is cut. Errors end it: there is nobody to tell.
async fn connection(mut client: TcpStream, mut state: watch::Receiver<State>, held: Held) -> io::Result<()> {
    let now = *state.borrow_and_update();
    if now.refusing {
        return client.set_zero_linger();
    }
    let mut upstream = TcpStream::connect(now.server).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = upstream.split();
        let cut = state.clone();
        tokio::select! {
            () = until_cut(cut, now.generation) => {}
            // An error of one side (a reset, say) is passed on as a reset of the other.
            result = async { tokio::try_join!(
                pump(from_client, to_server, Direction::ToServer, &held, state.clone()),
                pump(from_server, to_client, Direction::ToClient, &held, state.clone()),
            ) } => if result.is_ok() {
                return Ok(());
            }
        }
    }
    // With this the close that follows is a reset.
    client.set_zero_linger()?;
    upstream.set_zero_linger()
}

async fn until_cut(mut state: watch::Receiver<State>, generation: u64) {
    // Fails when the proxy is dropped, which is a cut as well.
    state.wait_for(|later| later.generation != generation).await.ok();
}

/// Moves bytes one way until the sender closes, and passes the close on.
async fn pump(
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
    direction: Direction,
    held: &Held,
    state: watch::Receiver<State>,
) -> io::Result<()> {
    let (arrived, waiting) = mpsc::channel(CHUNKS_WAITING);
    tokio::try_join!(read_all(from, held.of(direction), arrived), deliver(waiting, to, direction, state))?;
    Ok(())
}

async fn read_all(mut from: ReadHalf<'_>, held: &Arc<AtomicUsize>, arrived: mpsc::Sender<Chunk>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        // A failure to hand it on: the other side is gone, and its own error is on the way.
        if length == 0 || arrived.send(Chunk::arrives(&buffer[..length], held)).await.is_err() {
            return Ok(());
        }
    }
}

async fn deliver(
    mut waiting: mpsc::Receiver<Chunk>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    while let Some(chunk) = waiting.recv().await {
        pass(chunk.arrived, direction, &mut state).await;
        to.write_all(&chunk.bytes).await?;
    }
    pass(Moment::now(), direction, &mut state).await;
    to.shutdown().await
}

/// Waits until something that arrived at this moment may pass.
async fn pass(arrived: Moment, direction: Direction, state: &mut watch::Receiver<State>) {
    loop {
        let flow = state.borrow_and_update().flow(direction);
        let left = match flow {
            Flow::Forward => return,
            Flow::Delay(by) => arrived.after(by).remaining(),
            Flow::Silent => Duration::MAX,
        };
        if left.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            // Without a sender the proxy is being dropped, and this task with it.
            changed = state.changed() => if changed.is_err() { return },
        }
    }
}
