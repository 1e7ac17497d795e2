//! A small application that answers `GET` with what it is told to, and goes when it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use support::Moment;

use crate::flock::PATIENCE;

/// What the application answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// 200.
    Well,
    /// 503.
    Ill,
    /// 503 twice, then 200, over and over.
    Flapping,
}

#[derive(Debug)]
struct Shared {
    answers: Mutex<Answers>,
    asked: AtomicU64,
    over: AtomicBool,
}

/// An application. Its port is free once it has ended.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
}

impl App {
    /// Starts one on a free port of loopback.
    pub fn start(answers: Answers) -> Result<Self> {
        Self::start_at("127.0.0.1:0".parse()?, answers)
    }

    /// Starts one at a given address.
    pub fn start_at(address: SocketAddr, answers: Answers) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let shared =
            Arc::new(Shared { answers: Mutex::new(answers), asked: AtomicU64::new(0), over: AtomicBool::new(false) });
        let theirs = Arc::clone(&shared);
        let server = thread::Builder::new().name("application".to_owned()).spawn(move || serve(&listener, &theirs))?;
        Ok(Self { address, shared, server: Some(server) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `--app-health`.
    pub fn http(&self) -> String {
        format!("http://{}/healthz", self.address)
    }

    /// For `--app-health`.
    pub fn tcp(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// From now on it answers this.
    pub fn answer(&self, answers: Answers) {
        *self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
    }

    /// Waits until it has been asked so many times more.
    pub fn wait_until_asked(&self, times: u64) -> Result<()> {
        let asked = || self.shared.asked.load(Ordering::SeqCst);
        let enough = asked() + times;
        let deadline = Moment::now().after(PATIENCE);
        while asked() < enough {
            ensure!(!deadline.passed(), "asked {} times, and not {enough}, within {PATIENCE:?}", asked());
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Ends it. Returns the moment after which nobody listens any more.
    pub fn end(mut self) -> Moment {
        self.close();
        Moment::now()
    }

    fn close(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // Wakes it up.
        TcpStream::connect(self.address).ok();
        if let Some(server) = self.server.take() {
            // Its own panic has been printed already.
            server.join().ok();
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.close();
    }
}

/// One connection after the other, as one prober needs it.
fn serve(listener: &TcpListener, shared: &Shared) {
    for stream in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            // Who only connects, to see whether somebody listens, hears nothing.
            answer(stream, shared).ok();
        }
    }
}

fn answer(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let asked = shared.asked.fetch_add(1, Ordering::SeqCst);
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let status = match *shared.answers.lock().unwrap_or_else(PoisonError::into_inner) {
        Answers::Well => "200 OK",
        Answers::Flapping if asked % 3 == 2 => "200 OK",
        Answers::Ill | Answers::Flapping => "503 Service Unavailable",
    };
    let mut stream = reader.into_inner();
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").as_bytes())?;
    stream.shutdown(Shutdown::Write)
}
