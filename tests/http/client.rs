//! An HTTP/1.1 client that shows exactly what came over the wire.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bellwether::metrics::Push;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::sidecar::{Sidecar, eventually};

/// Longer than any answer may take; a test that gets here has failed.
const PATIENCE: Duration = Duration::from_secs(10);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection that is kept alive.
pub struct Client {
    socket: Box<dyn Socket>,
    received: Vec<u8>,
}

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }

    /// What a poll that waits has seen after this answer.
    pub fn version(&self) -> String {
        self.header("etag").unwrap_or_else(|| panic!("no version: {self:?}")).trim_matches('"').to_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

impl Client {
    pub async fn tcp(address: SocketAddr) -> Result<Self> {
        Ok(Self { socket: Box::new(TcpStream::connect(address).await?), received: Vec::new() })
    }

    pub async fn unix(path: &Path) -> Result<Self> {
        Ok(Self { socket: Box::new(UnixStream::connect(path).await?), received: Vec::new() })
    }

    /// On a socket that is connected already, and does not block.
    pub fn unix_of(socket: std::os::unix::net::UnixStream) -> Result<Self> {
        Ok(Self { socket: Box::new(UnixStream::from_std(socket)?), received: Vec::new() })
    }

    /// Sends a request with `Host: localhost` and no other header.
    pub async fn ask(&mut self, method: &str, target: &str) -> Result<Answer> {
        self.ask_with(method, target, &["Host: localhost"]).await
    }

    pub async fn ask_with(&mut self, method: &str, target: &str, headers: &[&str]) -> Result<Answer> {
        self.send(request(method, target, headers).as_bytes()).await?;
        self.answer(method == "HEAD").await
    }

    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(PATIENCE, self.socket.write_all(bytes)).await.context("sending took too long")??;
        Ok(())
    }

    /// Reads one answer. That of a HEAD has no body whatever its Content-Length says.
    pub async fn answer(&mut self, to_head: bool) -> Result<Answer> {
        timeout(PATIENCE, self.read_answer(to_head)).await.context("no answer in time")?
    }

    async fn read_answer(&mut self, to_head: bool) -> Result<Answer> {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(self.read_more().await? > 0, "closed after {:?}", String::from_utf8_lossy(&self.received));
        };
        let head = String::from_utf8(self.received.drain(..end).collect())?;
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
        let mut headers = Vec::new();
        for line in lines {
            let Some((name, value)) = line.split_once(": ") else { bail!("not a header: {line}") };
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length = if to_head { 0 } else { answer.header("content-length").unwrap_or("0").parse()? };
        while self.received.len() < length {
            ensure!(self.read_more().await? > 0, "closed in the middle of a body");
        }
        answer.body = String::from_utf8(self.received.drain(..length).collect())?;
        Ok(answer)
    }

    async fn read_more(&mut self) -> Result<usize> {
        Ok(self.socket.read_buf(&mut self.received).await?)
    }

    /// Sends a poll that waits, and comes back when the sidecar has taken it for one.
    pub async fn wait(&mut self, sidecar: &Sidecar, method: &str, query: &str) -> Result<()> {
        let waiting = sidecar.open(Push::Polls);
        self.send(request(method, &format!("/leader?{query}"), &["Host: localhost"]).as_bytes()).await?;
        eventually("the poll waits", || sidecar.open(Push::Polls) == waiting + 1).await
    }

    /// Whether anything has arrived that is not part of an answer read so far.
    pub fn has_more(&self) -> bool {
        !self.received.is_empty()
    }

    /// What has come until nothing comes any more for a while.
    pub async fn until_quiet(&mut self) -> Result<String> {
        while let Ok(read) = timeout(Duration::from_millis(300), self.read_more()).await {
            if read? == 0 {
                break;
            }
        }
        Ok(String::from_utf8(std::mem::take(&mut self.received))?)
    }

    /// Waits until the other side closes, and returns what it sent before.
    pub async fn until_closed(&mut self) -> Result<Vec<u8>> {
        let reading = async {
            // A reset closes too.
            while self.read_more().await.unwrap_or(0) > 0 {}
        };
        timeout(PATIENCE, reading).await.context("the connection stays open")?;
        Ok(std::mem::take(&mut self.received))
    }
}

/// A stream of events, as it comes.
pub struct Events {
    client: Client,
    head: Answer,
    told: String,
}

/// One event. A comment alone has none of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub kind: String,
    pub id: String,
    pub data: String,
}

impl Event {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Events {
    pub async fn open(address: SocketAddr, headers: &[&str]) -> Result<Self> {
        Self::on(Client::tcp(address).await?, "/events", headers).await
    }

    /// On a connection that may have been used before.
    pub async fn on(mut client: Client, target: &str, headers: &[&str]) -> Result<Self> {
        let headers: Vec<_> = ["Host: localhost"].iter().chain(headers).copied().collect();
        client.send(request("GET", target, &headers).as_bytes()).await?;
        let head = client.answer(true).await?;
        ensure!(head.status == 200, "{head:?}");
        Ok(Self { client, head, told: String::new() })
    }

    /// The next event that is none of the comments.
    pub async fn next_event(&mut self) -> Result<Event> {
        loop {
            let event = self.next().await?;
            if event != Event::default() {
                return Ok(event);
            }
        }
    }

    /// The next event, or comment.
    pub async fn next(&mut self) -> Result<Event> {
        timeout(PATIENCE, self.read_next()).await.context("no event in time")?
    }

    async fn read_next(&mut self) -> Result<Event> {
        let end = loop {
            if let Some(at) = self.client.received.windows(2).position(|two| two == b"\n\n") {
                break at + 2;
            }
            ensure!(self.client.read_more().await? > 0, "the stream ended");
        };
        let block = String::from_utf8(self.client.received.drain(..end).collect())?;
        self.told.push_str(&block);
        let mut event = Event::default();
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => value.clone_into(&mut event.kind),
                Some(("id", value)) => value.clone_into(&mut event.id),
                Some(("data", value)) => value.clone_into(&mut event.data),
                _ => ensure!(line.is_empty() || line.starts_with(':'), "not of an event: {line}"),
            }
        }
        Ok(event)
    }

    /// Head and what has come so far, as one answer.
    pub fn answer(&self) -> Answer {
        Answer { body: self.told.clone(), ..self.head.clone() }
    }
}

pub fn request(method: &str, target: &str, headers: &[&str]) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text
}
