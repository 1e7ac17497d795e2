//! Between one sidecar and the real API server, request by request: each can be counted, held, refused, or have its
//! answer fall silent. What is not interfered with is answered by the server.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use futures_util::stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};
use support::{Moment, SidecarOptions};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::stage::{NEVER_EXPIRES, PATIENCE, PROMISES_LITTLE, Stage, pod_options, wait_for};

/// A request of the sidecar.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Moment,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: String,
    /// What was sent; `Null` when nothing was.
    pub body: Value,
}

impl Asked {
    /// Whether it is a patch of this pod.
    pub fn patches(&self, pod: &str) -> bool {
        self.method == Method::PATCH
            && self.uri.split('?').next().is_some_and(|path| path.ends_with(&format!("/{pod}")))
    }

    /// Whether it opens a watch by this kind of selector.
    pub fn watches_by(&self, selector: &str) -> bool {
        self.uri.contains("watch=true") && self.uri.contains(selector)
    }
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server answers.
    Pass,
    /// It is passed on when the gate is opened, whether the sidecar still waits or not.
    Hold,
    /// This status is answered in the server's stead, as the server words it.
    Refuse(u16),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Silent,
    Ended,
}

type Rule = Box<dyn Fn(&Asked) -> Verdict + Send>;

struct Shared {
    rule: Mutex<Rule>,
    asked: Mutex<Vec<Asked>>,
    /// What has become of answers that were under way, by the number of their request.
    fates: watch::Sender<BTreeMap<usize, Fate>>,
    open: watch::Sender<bool>,
    connections: AtomicUsize,
    passed_late: Mutex<Vec<u16>>,
    upstream: Client,
}

/// `web-0` leads behind a gate, through which it watches its own pod and the others.
pub async fn leader_behind_a_gate() -> Result<(Stage, Gate)> {
    let mut stage = Stage::shared(&[&NEVER_EXPIRES, &PROMISES_LITTLE]).await?;
    stage.create(&pod_options("web-0"))?;
    let gate = Gate::start(&stage)?;
    let options = gate.before(&stage, stage.options("web-0")?)?;
    stage.start_with("web-0", |_| options)?;
    stage.at_rest()?;
    for selector in ["fieldSelector", "labelSelector"] {
        wait_for(selector, PATIENCE, || Ok(gate.asked().iter().any(|asked| asked.watches_by(selector))))?;
    }
    Ok((stage, gate))
}

/// A running gate. Dropping it ends its connections.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    folder: TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Fault>>;

impl Gate {
    /// A gate before the API server of this stage, through which everything passes.
    pub fn start(stage: &Stage) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let mut config = Config::new(stage.server().url().parse()?);
        config.root_cert_file = Some(stage.server().ca_file());
        config.default_retry = false;
        let (listener, upstream) = {
            let _context = runtime.enter();
            (tokio::net::TcpListener::from_std(listener)?, Client::try_from(config)?)
        };
        let shared = Arc::new(Shared {
            rule: Mutex::new(Box::new(|_| Verdict::Pass)),
            asked: Mutex::default(),
            fates: watch::channel(BTreeMap::new()).0,
            open: watch::channel(false).0,
            connections: AtomicUsize::new(0),
            passed_late: Mutex::default(),
            upstream,
        });
        let (stop, stopped) = oneshot::channel();
        let theirs = Arc::clone(&shared);
        let serve = move || runtime.block_on(serve(listener, theirs, stopped));
        let thread = thread::Builder::new().name(format!("gate {address}")).spawn(serve)?;
        Ok(Self { address, shared, folder: TempDir::new()?, stop: Some(stop), thread: Some(thread) })
    }

    /// Leads the sidecar of a pod through this gate.
    pub fn before(&self, stage: &Stage, mut options: SidecarOptions) -> Result<SidecarOptions> {
        let user = json!({"tokenFile": stage.mount(&options.identity)?.token_file()});
        std::fs::write(self.kubeconfig(), self.kubeconfig_of(&stage.namespace, &user))?;
        let flag = options.arguments.iter().position(|argument| argument == "--kubeconfig");
        let flag = flag.context("a stage gives a kubeconfig")?;
        options.arguments[flag + 1] = self.kubeconfig().display().to_string();
        Ok(options)
    }

    /// The file that the sidecar reads.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A kubeconfig that leads here, for this user.
    pub fn kubeconfig_of(&self, namespace: &str, user: &Value) -> String {
        let server = format!("http://{}", self.address);
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": server}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "current-context": "test",
        })
        .to_string()
    }

    /// From now on, requests are judged so.
    pub fn judge(&self, rule: impl Fn(&Asked) -> Verdict + Send + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// From now on, everything passes; what is held stays so.
    pub fn pass_everything(&self) {
        self.judge(|_| Verdict::Pass);
    }

    /// Passes on what is held, and whatever would be.
    pub fn open(&self) {
        self.shared.open.send_replace(true);
    }

    /// What the server said to what was held, once it has.
    pub fn passed_late(&self) -> Vec<u16> {
        lock(&self.shared.passed_late).clone()
    }

    /// The answers to these requests so far fall silent: their connections stay open, and nothing comes any more.
    pub fn silence(&self, which: impl Fn(&Asked) -> bool) -> usize {
        self.decide(Fate::Silent, which)
    }

    /// The answers to these requests so far end, as a watch does that has had its time.
    pub fn end(&self, which: impl Fn(&Asked) -> bool) -> usize {
        self.decide(Fate::Ended, which)
    }

    fn decide(&self, fate: Fate, which: impl Fn(&Asked) -> bool) -> usize {
        let asked = self.asked();
        let numbers: Vec<_> = (0..asked.len()).filter(|number| which(&asked[*number])).collect();
        self.shared.fates.send_modify(|fates| fates.extend(numbers.iter().map(|number| (*number, fate))));
        numbers.len()
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.shared.asked).clone()
    }

    /// Those since then.
    pub fn asked_since(&self, since: Moment) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.at >= since).collect()
    }

    /// How many connections the sidecar has opened.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: tokio::net::TcpListener, shared: Arc<Shared>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stopped => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                shared.connections.fetch_add(1, Ordering::Relaxed);
                let shared = Arc::clone(&shared);
                let answer = service_fn(move |request| answer(Arc::clone(&shared), request));
                connections.spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
            }
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let asked = Asked {
        at: Moment::now(),
        method: parts.method.clone(),
        uri: parts.uri.to_string(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let verdict = lock(&shared.rule)(&asked);
    let number = {
        let mut all = lock(&shared.asked);
        all.push(asked);
        all.len() - 1
    };
    let mut request = Request::from_parts(parts, Body::from(body.to_vec()));
    // The client puts in the server's own.
    request.headers_mut().remove(hyper::header::HOST);
    let answered = match verdict {
        Verdict::Refuse(code) => Ok(refusal(code)),
        Verdict::Pass => pass(&shared, request, number).await,
        // A task of its own: the sidecar may hang up.
        Verdict::Hold => {
            let theirs = Arc::clone(&shared);
            let held = tokio::spawn(async move {
                theirs.open.subscribe().wait_for(|open| *open).await.ok();
                let answered = pass(&theirs, request, number).await;
                let status = answered.as_ref().map_or(0, |answer| answer.status().as_u16());
                lock(&theirs.passed_late).push(status);
                answered
            });
            held.await.map_err(|error| anyhow!(error)).flatten()
        }
    };
    Ok(answered.unwrap_or_else(|error| {
        let mut answer = refusal(502);
        *answer.body_mut() = whole(format!("{error:#}"));
        answer
    }))
}

async fn pass(shared: &Arc<Shared>, request: Request<Body>, number: usize) -> Result<Answer> {
    let (parts, body) = shared.upstream.send(request).await?.into_parts();
    let fates = shared.fates.subscribe();
    let frames = stream::unfold((body, fates), move |(mut body, mut fates)| async move {
        let decided = async {
            let fate = fates.wait_for(|fates| fates.contains_key(&number)).await.ok();
            fate.and_then(|fates| fates.get(&number).copied())
        };
        tokio::select! {
            biased;
            fate = decided => match fate {
                Some(Fate::Silent) => std::future::pending().await,
                Some(Fate::Ended) | None => None,
            },
            frame = body.frame() => {
                let frame: Result<Frame<Bytes>, Fault> = frame?.map_err(Into::into);
                Some((frame, (body, fates)))
            }
        }
    });
    let mut answer = Response::from_parts(parts, StreamBody::new(frames).boxed_unsync());
    answer.headers_mut().remove(hyper::header::TRANSFER_ENCODING);
    Ok(answer)
}

/// As the API server words it.
fn refusal(code: u16) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "message": "refused by the gate of a test", "reason": "Test",
    });
    let mut answer = Response::new(whole(status.to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    answer
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    answer
}

fn whole(text: String) -> UnsyncBoxBody<Bytes, Fault> {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}
