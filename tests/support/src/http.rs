//! A small HTTP/1.1 client that keeps its connection and knows when it sent and when it received.
//!
//! Small on purpose: between the moments it reports and the socket there is nothing that could queue or retry.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use crate::moment::Moment;

/// The largest body read: `/metrics` of a sidecar is a tenth of it.
const BODY_MOST: u64 = 1 << 20;

/// A client of one server, with at most one connection, which stays open between requests.
#[derive(Debug)]
pub struct HttpClient {
    server: SocketAddr,
    timeout: Duration,
    connection: Option<BufReader<TcpStream>>,
}

/// A response, with the moments around its answering.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// Before the request was handed to the kernel.
    pub sent: Moment,
    /// After the last byte of the response was read.
    pub received: Moment,
    /// The status code.
    pub status: u16,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// A header's value, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `Null` when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl HttpClient {
    /// A client that gives a request, connecting included, this long.
    #[must_use]
    pub const fn new(server: SocketAddr, timeout: Duration) -> Self {
        Self { server, timeout, connection: None }
    }

    /// Whether a connection is open, as far as is known.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Opens the connection if there is none.
    ///
    /// # Errors
    /// When the server refuses or does not answer in time.
    pub fn connect(&mut self) -> io::Result<()> {
        if self.connection.is_none() {
            let stream = TcpStream::connect_timeout(&self.server, self.timeout)?;
            stream.set_nodelay(true)?;
            self.connection = Some(BufReader::new(stream));
        }
        Ok(())
    }

    /// `GET path`.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn get(&mut self, path: &str) -> io::Result<HttpResponse> {
        self.request("GET", path, &[])
    }

    /// One request without a body. After an error the connection is closed; the next request opens another.
    ///
    /// # Errors
    /// `ConnectionRefused` when nobody listens, `TimedOut` when nothing came in time, others when it broke.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> io::Result<HttpResponse> {
        self.exchange(1, method, path, headers).pop().unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()))
    }

    /// So many `GET path` in one write, answered one after the other. An error is the last result.
    pub fn pipeline(&mut self, count: usize, path: &str) -> Vec<io::Result<HttpResponse>> {
        self.exchange(count, "GET", path, &[])
    }

    fn exchange(
        &mut self,
        count: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Vec<io::Result<HttpResponse>> {
        let deadline = Moment::now().after(self.timeout);
        let text = request_text(self.server, method, path, headers).repeat(count);
        let sent = match self.send(&text) {
            Ok(sent) => sent,
            Err(error) => {
                self.connection = None;
                return vec![Err(error)];
            }
        };
        let mut results = Vec::with_capacity(count);
        while results.len() < count
            && let Some(connection) = &mut self.connection
        {
            let result = receive(connection, sent, deadline, method);
            match &result {
                Ok(response) if response.header("connection") != Some("close") => {}
                Ok(_) | Err(_) => self.connection = None,
            }
            results.push(result);
        }
        results
    }

    fn send(&mut self, text: &str) -> io::Result<Moment> {
        self.connect()?;
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let sent = Moment::now();
        connection.get_mut().write_all(text.as_bytes())?;
        Ok(sent)
    }
}

fn request_text(server: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut request = vec![format!("{method} {path} HTTP/1.1")];
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push(format!("host: {server}"));
    }
    request.extend(headers.iter().map(|(name, value)| format!("{name}: {value}")));
    request.join("\r\n") + "\r\n\r\n"
}

fn receive(
    connection: &mut BufReader<TcpStream>,
    sent: Moment,
    deadline: Moment,
    method: &str,
) -> io::Result<HttpResponse> {
    let status_line = read_line(connection, deadline)?;
    let status = status_line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| bad(&format!("not a status line: {status_line:?}")))?;
    let mut received_headers = Vec::new();
    loop {
        let line = read_line(connection, deadline)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| bad(&format!("not a header: {line:?}")))?;
        received_headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = HttpResponse { sent, received: sent, status, headers: received_headers, body: Vec::new() };
    if method != "HEAD" && status != 204 {
        response.body = read_body(connection, deadline, &response)?;
    }
    response.received = Moment::now();
    Ok(response)
}

fn read_body(connection: &mut BufReader<TcpStream>, deadline: Moment, response: &HttpResponse) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if response.header("transfer-encoding") == Some("chunked") {
        loop {
            let line = read_line(connection, deadline)?;
            let length = u64::from_str_radix(&line, 16).map_err(|error| bad(&error.to_string()))?;
            read_exactly(connection, deadline, length, &mut body)?;
            read_line(connection, deadline)?;
            if length == 0 {
                return Ok(body);
            }
        }
    }
    let length = match response.header("content-length").map(str::parse) {
        Some(Ok(length)) => length,
        Some(Err(_)) => return Err(bad("content-length is not a number")),
        None => return Err(bad("neither content-length nor chunked")),
    };
    read_exactly(connection, deadline, length, &mut body)?;
    Ok(body)
}

fn read_exactly(
    connection: &mut BufReader<TcpStream>,
    deadline: Moment,
    length: u64,
    body: &mut Vec<u8>,
) -> io::Result<()> {
    let end = usize::try_from(length.min(BODY_MOST)).map_err(io::Error::other)?.saturating_add(body.len());
    if length > BODY_MOST {
        return Err(bad("the body is too large"));
    }
    while body.len() < end {
        arm(connection, deadline)?;
        let missing = u64::try_from(end - body.len()).map_err(io::Error::other)?;
        let mut chunk = Vec::new();
        if connection.fill_buf().map_err(timed_out)?.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let buffered = u64::try_from(connection.buffer().len()).map_err(io::Error::other)?;
        connection.take(missing.min(buffered)).read_to_end(&mut chunk)?;
        body.append(&mut chunk);
    }
    Ok(())
}

fn read_line(connection: &mut BufReader<TcpStream>, deadline: Moment) -> io::Result<String> {
    arm(connection, deadline)?;
    let mut line = String::new();
    if connection.read_line(&mut line).map_err(timed_out)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Gives the next read what is left of the time.
fn arm(connection: &BufReader<TcpStream>, deadline: Moment) -> io::Result<()> {
    let left = deadline.remaining();
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    connection.get_ref().set_read_timeout(Some(left))
}

/// The kernel reports a socket's timeout as `WouldBlock`.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { io::ErrorKind::TimedOut.into() } else { error }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Serves the given raw responses to one connection, one for each request, then holds it open.
    fn server(responses: &'static [&'static str]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::Builder::new()
            .spawn(move || {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                for response in responses {
                    let mut line = String::new();
                    while reader.read_line(&mut line).unwrap() > 2 {
                        line.clear();
                    }
                    reader.get_mut().write_all(response.as_bytes()).unwrap();
                }
                let mut rest = Vec::new();
                reader.read_to_end(&mut rest).ok();
            })
            .unwrap();
        address
    }

    #[test]
    fn two_requests_go_over_one_connection() {
        let address = server(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 13\r\nBellwether-Term: 7\r\n\r\n{\"leading\":1}",
            "HTTP/1.1 503 Service Unavailable\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ]);
        let mut client = HttpClient::new(address, Duration::from_secs(10));
        let first = client.get("/leader").unwrap();
        assert_eq!((first.status, first.header("bellwether-term")), (200, Some("7")));
        assert_eq!(first.json()["leading"], 1);
        assert!(first.sent < first.received);
        let second = client.get("/leader").unwrap();
        assert_eq!((second.status, second.text().as_str()), (503, "abc"));
    }

    #[test]
    fn a_pipeline_is_answered_in_order_and_ends_with_its_first_error() {
        const ANSWERS: [&str; 2] =
            ["HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\na", "HTTP/1.1 503 No\r\ncontent-length: 1\r\n\r\nb"];
        let mut client = HttpClient::new(server(&ANSWERS), Duration::from_millis(50));
        let results = client.pipeline(4, "/leader");
        let texts: Vec<String> = results.iter().map_while(|it| Some(it.as_ref().ok()?.text())).collect();
        assert_eq!(texts, ["a", "b"]);
        assert_eq!(results.len(), 3, "{results:?}");
        assert_eq!(results[2].as_ref().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_silent_server_is_a_timeout_and_a_closed_port_a_refusal() {
        let address = server(&[]);
        let mut client = HttpClient::new(address, Duration::from_millis(50));
        assert_eq!(client.get("/").unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(!client.is_connected());
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut client = HttpClient::new(closed, Duration::from_millis(500));
        assert_eq!(client.get("/").unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
