//! Asks one sidecar `/leader` again and again and writes down every answer with its moments.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::http::{HttpClient, HttpResponse};
use crate::lab::Host;
use crate::moment::Moment;

/// One request to `/leader` and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Before the request left.
    pub sent: Moment,
    /// After the answer, or the failure, arrived. The sidecar answered somewhere in between.
    pub received: Moment,
    /// What came.
    pub outcome: Outcome,
}

impl Sample {
    /// The answer, if it was a 200.
    #[must_use]
    pub const fn leading(&self) -> Option<Answer> {
        match self.outcome {
            Outcome::Answered(answer) if answer.status == 200 => Some(answer),
            Outcome::Answered(_) | Outcome::Refused | Outcome::TimedOut | Outcome::Broken => None,
        }
    }
}

/// What came of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Answered(Answer),
    /// Nobody listens: not the leader.
    Refused,
    /// No answer in time.
    TimedOut,
    /// The connection broke, or what came was not HTTP.
    Broken,
}

/// An answer of `/leader`. The numbers are 0 where the body lacks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 for the leader, else 503.
    pub status: u16,
    /// The epoch of the term.
    pub epoch: u64,
    /// The known leader's term; the sidecar's own with a 200.
    pub term: u64,
    /// How long the answer is good for.
    pub valid_for: Duration,
    /// What the sidecar says that it is.
    pub state: State,
}

/// The `state` of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Not registered yet.
    Starting,
    /// In line.
    Standby,
    /// Leader.
    Leading,
    /// Held the lock, and does not know whether it still does.
    Jeopardy,
    /// Stops leading of its own will.
    StandingDown,
    /// Has let go of everything.
    Stopped,
    /// It does not say, or nothing that is known.
    #[default]
    Unknown,
}

impl State {
    fn named(name: &str) -> Self {
        match name {
            "starting" => Self::Starting,
            "standby" => Self::Standby,
            "leading" => Self::Leading,
            "jeopardy" => Self::Jeopardy,
            "standing_down" => Self::StandingDown,
            "stopped" => Self::Stopped,
            _ => Self::Unknown,
        }
    }
}

/// How to poll.
#[derive(Clone, Copy, Debug)]
pub struct PollerOptions {
    /// From one request to the next; a slower answer delays the next request.
    pub interval: Duration,
    /// After this a request counts as unanswered and its connection is closed. Longer than a freeze, if the answer
    /// that comes after it, on the connection from before, is of interest.
    pub timeout: Duration,
    /// Opens a new connection for every request instead of keeping one.
    pub fresh_connections: bool,
    /// How many requests are sent at a time, in one write.
    pub pipelined: usize,
}

impl Default for PollerOptions {
    /// Every 4 ms, which proves "5 ms or faster", over a kept connection.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(4),
            timeout: Duration::from_secs(1),
            fresh_connections: false,
            pipelined: 1,
        }
    }
}

/// A thread that polls. Dropping it stops it.
#[derive(Debug)]
pub struct Poller {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    book: Mutex<Book>,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Book {
    samples: Vec<Sample>,
    stop: bool,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        // A panic of another thread leaves the book whole: samples are pushed in one step.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Poller {
    /// Starts polling `http://<sidecar>/leader`.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(sidecar: SocketAddr, options: PollerOptions) -> Result<Self> {
        Self::start_on(None, sidecar, options)
    }

    /// As [`start`](Self::start), from a host of a lab.
    ///
    /// # Errors
    /// When no thread can be started, or it cannot enter the host.
    pub fn start_on(host: Option<Host>, sidecar: SocketAddr, options: PollerOptions) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let (entering, entered) = sync_channel(1);
        let work = move || {
            let at_home = host.map_or(Ok(()), |host| host.enter());
            let is_at_home = at_home.is_ok();
            // Whoever started this waits for it.
            entering.send(at_home).ok();
            if is_at_home {
                poll(&theirs, sidecar, options);
            }
        };
        let thread = thread::Builder::new()
            .name(format!("poll {sidecar}"))
            .spawn(work)
            .context("cannot start a poller's thread")?;
        entered.recv().context("a poller's thread has ended")??;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Every sample so far, in order.
    #[must_use]
    pub fn samples(&self) -> Vec<Sample> {
        self.shared.book().samples.clone()
    }

    /// The samples of requests sent at or after this moment.
    #[must_use]
    pub fn samples_since(&self, since: Moment) -> Vec<Sample> {
        let book = self.shared.book();
        let first = book.samples.partition_point(|sample| sample.sent < since);
        book.samples[first..].to_vec()
    }

    /// The samples whose answers came in at or after this moment, however long ago their requests were sent.
    #[must_use]
    pub fn samples_received_since(&self, since: Moment) -> Vec<Sample> {
        let book = self.shared.book();
        let first = book.samples.partition_point(|sample| sample.received < since);
        book.samples[first..].to_vec()
    }

    /// Forgets the samples of requests sent before this moment: for whoever polls for hours.
    pub fn forget_before(&self, moment: Moment) {
        let mut book = self.shared.book();
        let first = book.samples.partition_point(|sample| sample.sent < moment);
        book.samples.drain(..first);
    }

    /// Takes the samples out, for whoever condenses them as they come. `wait_for` then waits for later ones.
    #[must_use]
    pub fn take(&self) -> Vec<Sample> {
        std::mem::take(&mut self.shared.book().samples)
    }

    /// The newest sample.
    #[must_use]
    pub fn last(&self) -> Option<Sample> {
        self.shared.book().samples.last().copied()
    }

    /// Waits for the first sample received at or after `since` that `is_it`; `None` at the deadline.
    pub fn wait_for(&self, since: Moment, deadline: Moment, is_it: impl Fn(&Sample) -> bool) -> Option<Sample> {
        let mut book = self.shared.book();
        loop {
            // From the start each time: old samples may be forgotten in between.
            let first = book.samples.partition_point(|sample| sample.received < since);
            if let Some(found) = book.samples[first..].iter().find(|sample| is_it(sample)) {
                return Some(*found);
            }
            let left = deadline.remaining();
            if left.is_zero() {
                return None;
            }
            book = self.shared.written.wait_timeout(book, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Stops polling and returns every sample.
    #[must_use]
    pub fn stop(mut self) -> Vec<Sample> {
        self.join();
        std::mem::take(&mut self.shared.book().samples)
    }

    fn join(&mut self) {
        self.shared.book().stop = true;
        self.shared.written.notify_all();
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        self.join();
    }
}

fn poll(shared: &Shared, sidecar: SocketAddr, options: PollerOptions) {
    let mut client = HttpClient::new(sidecar, options.timeout);
    loop {
        let sent = Moment::now();
        let results = client.pipeline(options.pipelined, "/leader");
        if options.fresh_connections {
            client = HttpClient::new(sidecar, options.timeout);
        }
        let mut book = shared.book();
        book.samples.extend(results.into_iter().map(|result| sample_of(sent, result)));
        shared.written.notify_all();
        let next = sent.after(options.interval);
        while !book.stop && !next.passed() {
            let left = next.remaining();
            book = shared.written.wait_timeout(book, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if book.stop {
            return;
        }
    }
}

fn sample_of(sent: Moment, result: io::Result<HttpResponse>) -> Sample {
    match result {
        Ok(response) => Sample { sent, received: response.received, outcome: Outcome::Answered(answer_of(&response)) },
        Err(error) => {
            let outcome = if error.kind() == io::ErrorKind::ConnectionRefused {
                Outcome::Refused
            } else if error.kind() == io::ErrorKind::TimedOut {
                Outcome::TimedOut
            } else {
                Outcome::Broken
            };
            Sample { sent, received: Moment::now(), outcome }
        }
    }
}

fn answer_of(response: &HttpResponse) -> Answer {
    let body = response.json();
    let number = |name: &str| body[name].as_u64().unwrap_or(0);
    Answer {
        status: response.status,
        epoch: number("epoch"),
        term: number("term"),
        valid_for: Duration::from_millis(number("valid_for_ms")),
        state: State::named(body["state"].as_str().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_answer_is_written_down_with_its_term_and_validity() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::Builder::new()
            .spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream);
                let mut line = String::new();
                while lines.read_line(&mut line).unwrap_or(0) > 0 {
                    if line == "\r\n" {
                        let body = r#"{"epoch":2,"term":48,"valid_for_ms":900,"state":"leading"}"#;
                        write!(lines.get_mut(), "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
                            .unwrap();
                    }
                    line.clear();
                }
            })
            .unwrap();
        let begin = Moment::now();
        let poller = Poller::start(address, PollerOptions::default()).unwrap();
        let deadline = begin.after(Duration::from_secs(10));
        let sample = poller.wait_for(begin, deadline, |sample| sample.leading().is_some()).unwrap();
        let valid_for = Duration::from_millis(900);
        let expected = Answer { status: 200, epoch: 2, term: 48, valid_for, state: State::Leading };
        assert_eq!(sample.leading(), Some(expected));
        poller.wait_for(sample.received, deadline, |later| later.sent > sample.received).unwrap();
        let samples = poller.stop();
        assert!(samples.len() >= 2);
        assert!(samples.iter().all(|sample| begin < sample.sent && sample.sent < sample.received));
    }

    #[test]
    fn a_closed_port_is_refused_and_waiting_ends_at_its_deadline() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let poller = Poller::start(closed, PollerOptions::default()).unwrap();
        let begin = Moment::now();
        let deadline = begin.after(Duration::from_millis(50));
        assert_eq!(poller.wait_for(begin, deadline, |sample| sample.leading().is_some()), None);
        assert!(poller.stop().iter().all(|sample| sample.outcome == Outcome::Refused));
    }
}
