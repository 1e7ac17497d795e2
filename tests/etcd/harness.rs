//! The adapter under test, with a deadline on every wait.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bellwether::config::{EtcdConfig, LockKeyName};
use bellwether::election::{
    Answer, Body, Call, CallError, CandidateRecord, EndpointId, Epoch, Event, Header, Identity, LeaseId, LockKey, OpId,
    Request, Revision, StreamId, Timings, TimingsRequest, WallTime, WatchId, WatchTarget,
};
use bellwether::etcd::Etcd;
use support::etcd::{EtcdCluster, EtcdOptions, EtcdServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longer than anything here takes on a busy machine; reaching it is a failure.
pub const DEADLINE: Duration = Duration::from_secs(15);
/// The timeout of calls that are expected to be answered.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);

pub const LOCK: &str = "/bellwether/default/web";
pub const ME: &str = "web-0";
pub const LEASE: LeaseId = LeaseId(4711);
pub const TTL: Duration = Duration::from_secs(30);

/// Members that elect a leader in a tenth of a second.
pub fn quick() -> EtcdOptions {
    EtcdOptions {
        heartbeat_interval: Duration::from_millis(20),
        election_timeout: Duration::from_millis(200),
        ..EtcdOptions::default()
    }
}

pub async fn server() -> Result<EtcdServer> {
    EtcdServer::start_with(quick()).await
}

pub fn plain(endpoints: Vec<String>) -> EtcdConfig {
    EtcdConfig { endpoints, tls: None, auth: None }
}

/// The default lock key, as the command line would make it.
pub fn lock_key() -> LockKeyName {
    LOCK.parse().expect("a good key")
}

pub fn record() -> CandidateRecord {
    CandidateRecord {
        epoch: Epoch(2),
        registered_at: WallTime::from_unix_nanos(1_000_000_000),
        leading_since: None,
        nonce: None,
    }
}

/// The adapter, and counters for ids.
pub struct Adapter {
    pub etcd: Etcd,
    next_id: u64,
    /// Events that came while something else was awaited.
    pub others: Vec<Event>,
}

impl Adapter {
    pub fn of(server: &EtcdCluster) -> Result<Self> {
        Self::new(&plain(server.endpoints()), ME)
    }

    pub fn named(server: &EtcdCluster, identity: &str) -> Result<Self> {
        Self::new(&plain(server.endpoints()), identity)
    }

    pub fn new(config: &EtcdConfig, identity: &str) -> Result<Self> {
        // As main does; the second time is an error of no interest.
        let _installed_already = rustls::crypto::ring::default_provider().install_default();
        let timings = Timings::new(TimingsRequest::default()).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
        let etcd = Etcd::new(config, &lock_key(), &Identity::new(identity), &timings)?;
        Ok(Self { etcd, next_id: 0, others: Vec::new() })
    }

    pub fn send(&mut self, endpoint: usize, timeout: Duration, call: Call) -> OpId {
        self.next_id += 1;
        let id = OpId(self.next_id);
        self.etcd.request(Request { id, endpoint: EndpointId(endpoint), timeout, call });
        id
    }

    /// The next event, whatever it is.
    pub async fn event(&mut self) -> Result<Event> {
        Ok(tokio::time::timeout(DEADLINE, self.etcd.next_event()).await.context("no event in time")??)
    }

    /// No event within `quiet`.
    pub async fn silence(&mut self, quiet: Duration) -> Result<()> {
        match tokio::time::timeout(quiet, self.etcd.next_event()).await {
            Err(_) => Ok(()),
            Ok(event) => bail!("expected silence, got {event:?}"),
        }
    }

    /// The answer to one request; other events are kept.
    pub async fn answer(&mut self, wanted: OpId) -> Result<Result<Answer, CallError>> {
        loop {
            match self.event().await? {
                Event::Answered { id, result } if id == wanted => return Ok(result),
                other => self.others.push(other),
            }
        }
    }

    pub async fn try_call(&mut self, call: Call) -> Result<Result<Answer, CallError>> {
        self.try_call_at(0, CALL_TIMEOUT, call).await
    }

    pub async fn try_call_at(
        &mut self,
        endpoint: usize,
        timeout: Duration,
        call: Call,
    ) -> Result<Result<Answer, CallError>> {
        let id = self.send(endpoint, timeout, call);
        self.answer(id).await
    }

    pub async fn call(&mut self, call: Call) -> Result<Answer> {
        let operation = call.operation().as_str();
        self.try_call(call).await?.map_err(|error| anyhow::anyhow!("{operation}: {error:?}"))
    }

    pub async fn refusal(&mut self, call: Call) -> Result<CallError> {
        match self.try_call(call).await? {
            Ok(answer) => bail!("expected a refusal, got {answer:?}"),
            Err(error) => Ok(error),
        }
    }

    pub async fn grant(&mut self, lease: LeaseId, ttl: Duration) -> Result<Answer> {
        self.call(Call::Grant { lease, ttl }).await
    }

    /// Grants the lease and claims the lock with it.
    pub async fn claim(&mut self, lease: LeaseId) -> Result<(bool, LockKey, Header)> {
        self.grant(lease, TTL).await?;
        let answer = self.call(Call::Claim { lease, record: record() }).await?;
        match answer.body {
            Body::Claimed { won, lock } => Ok((won, lock, answer.header)),
            other => bail!("expected a claim, got {other:?}"),
        }
    }

    /// The lock key as a linearizable read shows it.
    pub async fn lock(&mut self) -> Result<Option<LockKey>> {
        match self.call(Call::Confirm).await?.body {
            Body::Confirmed { lock, .. } => Ok(lock),
            other => bail!("expected the lock, got {other:?}"),
        }
    }

    pub fn keep_alive(&mut self, stream: u64, lease: LeaseId) {
        self.etcd.keep_alive(StreamId(stream), EndpointId(0), lease);
    }

    /// The next event, which must be an answer on this stream: its header and seconds.
    pub async fn renewal(&mut self, wanted: u64) -> Result<(Header, i64)> {
        match self.event().await? {
            Event::KeepAliveAnswered { stream, header, ttl_seconds } if stream == StreamId(wanted) => {
                Ok((header, ttl_seconds))
            }
            other => bail!("expected an answer on stream {wanted}, got {other:?}"),
        }
    }

    /// The next event, which must be the end of this stream.
    pub async fn stream_end(&mut self, wanted: u64) -> Result<CallError> {
        match self.event().await? {
            Event::StreamEnded { stream, error } if stream == StreamId(wanted) => Ok(error),
            other => bail!("expected the end of stream {wanted}, got {other:?}"),
        }
    }

    pub fn watch(&mut self, watch: u64, target: WatchTarget, from: i64) {
        self.etcd.watch(WatchId(watch), EndpointId(0), target, Revision(from));
    }

    /// The next event, which must be the creation of this watch.
    pub async fn watch_created(&mut self, wanted: u64) -> Result<Header> {
        match self.event().await? {
            Event::WatchCreated { watch, header } if watch == WatchId(wanted) => Ok(header),
            other => bail!("expected watch {wanted} to be created, got {other:?}"),
        }
    }

    /// The next event, which must be the end of this watch.
    pub async fn watch_end(&mut self, wanted: u64) -> Result<CallError> {
        match self.event().await? {
            Event::WatchEnded { watch, error } if watch == WatchId(wanted) => Ok(error),
            other => bail!("expected the end of watch {wanted}, got {other:?}"),
        }
    }
}

/// How often etcd has counted this gRPC method in this metric, e.g. `grpc_server_started_total`.
pub async fn metric(server: &EtcdServer, name: &str, method: &str) -> Result<u64> {
    let mut connection = TcpStream::connect(server.client_address(0)).await?;
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    let method = format!("grpc_method=\"{method}\"");
    let counts = text.lines().filter(|line| line.starts_with(name) && line.contains(&method));
    counts.map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>().context("a count")).sum()
}

/// Waits until `holds` does; the deadline is a failure. It is looked at again and again: what an etcd counts or logs, it
/// does not announce.
pub async fn eventually<F: AsyncFnMut() -> Result<bool>>(what: &str, mut holds: F) -> Result<()> {
    let wait = async {
        while !holds().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(DEADLINE, wait).await.with_context(|| format!("never happened: {what}"))?
}
