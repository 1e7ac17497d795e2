//! A server that gives one answer to one request.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::{Builder, JoinHandle};

/// Waits for one request on another thread.
pub struct OneAnswer {
    pub address: String,
    serving: JoinHandle<io::Result<String>>,
}

impl OneAnswer {
    /// Listens on a free port and answers with `status` (`503 Service Unavailable`) and `body`.
    pub fn http(status: &str, body: &str) -> Self {
        Self::raw(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
    }

    /// Listens on a free port and answers with these bytes.
    pub fn raw(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address").to_string();
        Self { address, serving: on_a_thread(move || serve(listener.accept()?.0, &answer)) }
    }

    /// Listens on a unix socket.
    pub fn unix(path: &Path, status: &str, body: &str) -> Self {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let listener = UnixListener::bind(path).expect("a socket in a temporary folder can be bound");
        let address = format!("unix:{}", path.display());
        Self { address, serving: on_a_thread(move || serve(listener.accept()?.0, &answer)) }
    }

    /// The request that came: its first line and headers.
    pub fn request(self) -> String {
        self.serving.join().expect("the server does not panic").expect("the client sent a whole request")
    }
}

fn on_a_thread(serve: impl FnOnce() -> io::Result<String> + Send + 'static) -> JoinHandle<io::Result<String>> {
    Builder::new().spawn(serve).expect("a thread can be started")
}

fn serve(mut stream: impl Read + Write, answer: &str) -> io::Result<String> {
    let mut request = String::new();
    let mut reader = BufReader::new(&mut stream);
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    stream.write_all(answer.as_bytes())?;
    Ok(request)
}
