//! The adapter against real listeners, sockets and files.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::answer::Failure;
use super::prober::Prober;
use super::{AppHealthError, AppProbes, Report};
use crate::config::{AppHealthConfig, HostPort, Target, Thresholds};
use crate::election::AppHealth;

const PATIENCE: Duration = Duration::from_secs(20);

fn config(target: Target) -> AppHealthConfig {
    AppHealthConfig {
        target,
        interval: Duration::from_millis(10),
        timeout: Duration::from_secs(5),
        thresholds: Thresholds { failures: 2, successes: 1, start_grace: Duration::from_secs(60) },
    }
}

async fn probe(target: Target) -> Result<(), Failure> {
    Prober::new(&config(target)).probe().await
}

fn local(port: u16) -> HostPort {
    HostPort { host: "localhost".into(), port }
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    (listener, port)
}

/// Answers every connection with this, and keeps it open; remembers what the last one asked.
fn serve(
    listener: TcpListener,
    answer: impl AsRef<[u8]> + Send + 'static,
) -> (JoinSet<()>, tokio::sync::watch::Receiver<String>) {
    let (asked, last) = tokio::sync::watch::channel(String::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.unwrap_or(0);
            asked.send_replace(String::from_utf8_lossy(&request[..read]).into_owned());
            // Who has heard enough may close before the end.
            stream.write_all(answer.as_ref()).await.ok();
            open.push(stream);
        }
    });
    (tasks, last)
}

#[tokio::test]
async fn http_is_healthy_from_200_to_399_and_follows_nothing() {
    for (line, healthy) in [
        ("200 OK", true),
        ("204 No Content", true),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", true),
        ("399 What", true),
        ("400 Bad Request", false),
        ("503 Service Unavailable", false),
    ] {
        let (listener, port) = listener().await;
        let (_server, asked) = serve(listener, format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n"));
        let result = probe(Target::Http { host: local(port), path: "/healthz?full=1".into() }).await;
        assert_eq!(result.is_ok(), healthy, "{line}: {result:?}");
        assert!(!result.is_err_and(|failure| failure.is_absence()), "somebody answers");
        let asked = asked.borrow().to_ascii_lowercase();
        assert!(asked.starts_with("get /healthz?full=1 http/1.1\r\n"), "{asked}");
        assert!(asked.contains(&format!("\r\nhost: localhost:{port}\r\n")), "{asked}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_read_to_its_bound_only() {
    let (listener, port) = listener().await;
    let body = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 1 << 20]].concat();
    let (_server, _asked) = serve(listener, body);
    assert_eq!(probe(Target::Http { host: local(port), path: "/".into() }).await, Ok(()), "the body does not matter");

    let (listener, port) = self::listener().await;
    let head = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(1 << 20));
    let (_server, _asked) = serve(listener, head);
    let failure = probe(Target::Http { host: local(port), path: "/".into() }).await.expect_err("the head is endless");
    assert!(failure.to_string().starts_with("did not answer in HTTP/1.1"), "{failure}");
}

#[tokio::test]
async fn nobody_listening_is_absence_and_silence_is_not() {
    let (listener, port) = listener().await;
    let http = Target::Http { host: local(port), path: "/".into() };
    let quick = AppHealthConfig { timeout: Duration::from_millis(50), ..config(http.clone()) };
    // The kernel accepts the connection.
    let silence = Prober::new(&quick).probe().await;
    assert_eq!(silence, Err(Failure::Slow(Duration::from_millis(50))));
    assert_eq!(probe(Target::Tcp(local(port))).await, Ok(()), "a connection is enough");

    drop(listener);
    for target in [http, Target::Tcp(local(port))] {
        let failure = probe(target).await.expect_err("nobody listens");
        assert!(failure.is_absence() && failure.to_string().contains("Connection refused"), "{failure}");
    }
    let nowhere = Target::Tcp(HostPort { host: "nobody.invalid".into(), port: 1 });
    let failure = probe(nowhere).await.expect_err("there is no such name");
    assert!(!failure.is_absence(), "a name server does not know who lives: {failure}");
}

#[tokio::test]
async fn a_unix_socket_is_absent_when_it_is_not_there_or_nobody_listens() {
    let folder = TempDir::new().expect("a temporary folder");
    let socket = folder.path().join("app.sock");
    let target = || Target::Unix { socket: socket.clone(), path: "/healthz".into() };
    assert!(probe(target()).await.expect_err("it is not there").is_absence());

    let listener = UnixListener::bind(&socket).expect("a socket can be made");
    let mut server = JoinSet::new();
    server.spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody connects");
        let mut request = [0; 14];
        stream.read_exact(&mut request).await.expect("it is asked");
        assert_eq!(&request, b"GET /healthz H");
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("it can answer");
    });
    assert_eq!(probe(target()).await, Ok(()));
    server.join_next().await.expect("it was started").expect("it was asked as it should be");
    assert!(socket.exists());
    assert!(probe(target()).await.expect_err("nobody listens").is_absence());
}

struct App {
    _folder: TempDir,
    file: PathBuf,
    probes: AppProbes,
}

impl App {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("alive");
        let target = Target::File { path: file.clone(), max_age: None };
        Self { _folder: folder, file, probes: AppProbes::start(Some(&config(target))) }
    }

    fn appears(&self) {
        fs::write(&self.file, "").expect("it can be written");
    }

    fn goes(&self) {
        fs::remove_file(&self.file).expect("it is there");
    }

    async fn report(&mut self) -> Report {
        timeout(PATIENCE, self.probes.next_report()).await.expect("it reports").expect("its task lives")
    }

    async fn says_nothing(&mut self) {
        let report = timeout(Duration::from_millis(200), self.probes.next_report()).await;
        assert!(report.is_err(), "{report:?}");
    }
}

#[tokio::test]
async fn only_changes_are_reported() {
    let mut app = App::new();
    app.says_nothing().await;
    app.appears();
    assert_eq!(app.report().await, Report::Health(AppHealth::Healthy));
    app.says_nothing().await;
    app.goes();
    assert_eq!(app.report().await, Report::Health(AppHealth::Unhealthy));
    app.says_nothing().await;
    app.appears();
    assert_eq!(app.report().await, Report::Health(AppHealth::Healthy));
}

#[tokio::test]
async fn once_stopping_its_end_is_told_once_and_nothing_else() {
    let mut app = App::new();
    app.appears();
    assert_eq!(app.report().await, Report::Health(AppHealth::Healthy));
    app.probes.stopping();
    app.says_nothing().await;
    app.goes();
    assert_eq!(app.report().await, Report::Gone);
    app.says_nothing().await;
}

#[tokio::test]
async fn who_is_gone_already_is_told_at_once_also_in_the_midst_of_a_slow_probe() {
    let (listener, port) = listener().await;
    let target = Target::Http { host: local(port), path: "/".into() };
    let slow = AppHealthConfig { interval: PATIENCE, timeout: PATIENCE, ..config(target) };
    let mut probes = AppProbes::start(Some(&slow));
    let asked = tokio::select! {
        report = probes.next_report() => panic!("nobody has answered: {report:?}"),
        asked = listener.accept() => asked,
    };
    asked.expect("it is asked");
    drop(listener);
    probes.stopping();
    let told = timeout(PATIENCE / 4, probes.next_report()).await.expect("the probe on its way is given up");
    assert_eq!(told.expect("the task lives"), Report::Gone);
}

#[tokio::test]
async fn the_end_of_its_task_is_an_error() {
    let mut app = App::new();
    let AppProbes::On(running) = &mut app.probes else { unreachable!("it has a target") };
    running.tasks.abort_all();
    let ended = timeout(PATIENCE, app.probes.next_report()).await.expect("it is told");
    assert!(matches!(ended, Err(AppHealthError::TaskDied(_))), "{ended:?}");
}

#[tokio::test]
async fn nobody_is_asked_without_a_target() {
    let mut probes = AppProbes::start(None);
    probes.stopping();
    assert!(timeout(Duration::from_millis(50), probes.next_report()).await.is_err());
}
