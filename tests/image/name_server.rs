//! A name server that knows a few names and says of all others that they do not exist, as a cluster's does.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Where resolvers ask: there is no way to name another port in /etc/resolv.conf.
const PORT: u16 = 53;
/// How often the thread looks whether it should end.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs until it is dropped. Every name that it knows is this machine.
pub struct NameServer {
    asked: Arc<Mutex<Vec<String>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NameServer {
    /// On loopback, on the port of name servers: only in a network of the test's own.
    pub fn start(known: &'static [&'static str]) -> Result<Self> {
        let socket =
            UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).context("cannot listen on port 53")?;
        socket.set_read_timeout(Some(LOOK_AGAIN))?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let ending = Arc::new(AtomicBool::new(false));
        let (names, end) = (Arc::clone(&asked), Arc::clone(&ending));
        let serve = move || {
            let mut packet = [0; 512];
            while !end.load(Ordering::Relaxed) {
                if let Ok((length, asker)) = socket.recv_from(&mut packet)
                    && let Some(question) = Question::parse(&packet[..length])
                {
                    socket.send_to(&question.answer(known), asker).ok();
                    names.lock().unwrap_or_else(PoisonError::into_inner).push(question.name);
                }
            }
        };
        let thread = thread::Builder::new().name("name server".to_owned()).spawn(serve)?;
        Ok(Self { asked, ending, thread: Some(thread) })
    }

    /// The names that it was asked for, without a dot at the end.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Question {
    id: [u8; 2],
    name: String,
    /// 1: IPv4 address. 28: IPv6 address.
    kind: u16,
    /// The question as it came, which the answer repeats.
    bytes: Vec<u8>,
}

const HEADER_BYTES: usize = 12;
const KIND_IPV4: u16 = 1;

impl Question {
    fn parse(packet: &[u8]) -> Option<Self> {
        let mut labels = Vec::new();
        let mut at = HEADER_BYTES;
        loop {
            let length = usize::from(*packet.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
        let bytes = packet.get(HEADER_BYTES..at + 4)?.to_vec();
        Some(Self { id: packet.get(..2)?.try_into().ok()?, name: labels.join("."), kind, bytes })
    }

    fn answer(&self, known: &[&str]) -> Vec<u8> {
        let exists = known.contains(&self.name.as_str());
        let has_address = exists && self.kind == KIND_IPV4;
        let mut answer = self.id.to_vec();
        // A response, recursion available; 3: there is no such name.
        answer.extend([0x81, if exists { 0x80 } else { 0x83 }]);
        answer.extend([0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
        answer.extend(&self.bytes);
        if has_address {
            // The name of the question, an IPv4 address of the internet, good for 5 s, 4 bytes.
            answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
            answer.extend(Ipv4Addr::LOCALHOST.octets());
        }
        answer
    }
}
