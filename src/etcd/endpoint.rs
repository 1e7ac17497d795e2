//! One endpoint: its connection, dialled when needed, and its authentication token, shared by every call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use etcd_client::Client;
use futures_util::future::{BoxFuture, Shared};
use futures_util::{FutureExt as _, TryFutureExt as _};
use rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::codegen::http::uri::InvalidUri;
use tonic::codegen::http::{HeaderValue, Request, Response, Uri};
use tonic::transport::{Channel, Endpoint as Dial};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt as _};

use super::connect::{Connector, Evidence, Tls};
use super::credentials::{Credentials, TlsSetup, current_password};
use super::error::{EtcdError, call_error, is_auth_disabled, of_client};
use crate::config::{AuthConfig, EtcdConfig};
use crate::election::{CallError, CallErrorKind};

/// How long a connection, and then its TLS handshake, may take at most: another endpoint has been asked by then.
pub(super) const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(1);

/// HTTP/2 pings end a connection whose other side is frozen or gone. etcd drops clients that ping more
/// often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// bcrypt takes etcd 85 ms; an authentication that takes this long is started over.
const AUTHENTICATION_TIMEOUT: Duration = Duration::from_secs(5);

/// One endpoint with one generation of credentials.
pub(super) struct Endpoint {
    dialler: Dialler,
    auth: Option<AuthConfig>,
    state: Mutex<State>,
}

/// How to make a connection.
struct Dialler {
    dial: Dial,
    tls: Option<Tls>,
    connect_timeout: Duration,
}

/// Both are replaced, never changed: who holds an older one goes on with it.
#[derive(Default)]
struct State {
    connection: Option<Connection>,
    authentication: Option<Authentication>,
    made: u64,
}

#[derive(Clone)]
struct Connection {
    number: u64,
    channel: Channel,
    evidence: Arc<Evidence>,
}

/// A token, or the attempt to get one: all who need it wait for the same attempt, and it goes on with
/// whoever still waits when the first one has given up. Inside is `None` when the server has
/// authentication switched off.
type Attempt = Shared<BoxFuture<'static, Result<Option<HeaderValue>, CallError>>>;

struct Authentication {
    number: u64,
    attempt: Attempt,
}

/// A connection with a token, for one call, one stream or one watch.
pub(super) struct Link {
    connection: Connection,
    token: Option<HeaderValue>,
    /// Which authentication the token is from.
    authentication: Option<u64>,
}

/// A connection at one moment, to tell later whether it has been silent since.
pub(super) struct Mark {
    number: u64,
    heard: u64,
}

impl Endpoint {
    /// One for each configured endpoint, in order.
    pub(super) fn all(
        config: &EtcdConfig,
        credentials: &Credentials,
        connect_timeout: Duration,
    ) -> Result<Vec<Arc<Self>>, EtcdError> {
        let tls = credentials.tls()?;
        let endpoint = |url: &String| Self::new(url, config, tls.clone(), connect_timeout).map(Arc::new);
        config.endpoints.iter().map(endpoint).collect()
    }

    fn new(
        url: &str,
        config: &EtcdConfig,
        setup: Option<TlsSetup>,
        connect_timeout: Duration,
    ) -> Result<Self, EtcdError> {
        let wrong = |reason: &str| EtcdError::Endpoint { endpoint: url.to_owned(), reason: reason.to_owned() };
        let origin: Uri = url.parse().map_err(|error: InvalidUri| wrong(&error.to_string()))?;
        let tls = match setup {
            Some(TlsSetup { config: rustls, client }) => {
                let host = origin.host().unwrap_or_default();
                let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
                let configured = config.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
                let server_name = ServerName::try_from(configured.unwrap_or(host).to_owned())
                    .map_err(|error| wrong(&error.to_string()))?;
                Some(Tls { config: rustls, client, server_name })
            }
            None => None,
        };
        let dial = Dial::from(without_tls(&origin).ok_or_else(|| wrong("it has no host"))?)
            .origin(origin)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(false);
        Ok(Self { dialler: Dialler { dial, tls, connect_timeout }, auth: config.auth.clone(), state: Mutex::default() })
    }

    /// A connection (not waited for) and a token (waited for, when authentication is configured).
    pub(super) async fn link(&self) -> Result<Link, CallError> {
        self.link_after(None).await
    }

    /// The same after the server has refused a link's token: with a newer one.
    pub(super) async fn renewed_link(&self, refused: &Link) -> Result<Link, CallError> {
        self.link_after(refused.authentication).await
    }

    async fn link_after(&self, refused: Option<u64>) -> Result<Link, CallError> {
        let (connection, authentication) = {
            let mut state = self.state();
            let connection = state.connect(&self.dialler);
            let authentication = self.auth.as_ref().map(|auth| state.authenticate(&connection, auth, refused));
            (connection, authentication)
        };
        match authentication {
            None => Ok(Link { connection, token: None, authentication: None }),
            Some((number, attempt)) => Ok(Link { connection, token: attempt.await?, authentication: Some(number) }),
        }
    }

    /// Whether this failure may be mended by a new token.
    pub(super) fn wants_new_token(&self, kind: CallErrorKind) -> bool {
        self.auth.is_some() && kind == CallErrorKind::Unauthenticated
    }

    /// The connection as it is now.
    pub(super) fn mark(&self) -> Mark {
        let connection = self.state().connect(&self.dialler);
        Mark { number: connection.number, heard: connection.evidence.count() }
    }

    /// Gives up a connection that has been silent since `mark`: the next call dials anew instead of
    /// waiting for TCP to retransmit. Streams on it stay until the core closes them.
    pub(super) fn give_up_if_silent(&self, mark: &Mark) {
        let mut state = self.state();
        let silent =
            state.connection.as_ref().is_some_and(|it| it.number == mark.number && it.evidence.count() == mark.heard);
        if silent {
            state.connection = None;
            state.authentication.take_if(|it| it.attempt.peek().is_none());
        }
    }

    /// Gives up the connection, and the token that whoever is at its other end has given out. Streams on it stay until
    /// the core closes them.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        state.connection = None;
        state.authentication = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is a single assignment: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// tonic would insist on doing TLS itself if it saw `https` here. Requests still carry the true origin.
fn without_tls(origin: &Uri) -> Option<Uri> {
    let default_port = if origin.scheme_str() == Some("https") { 443 } else { 80 };
    let authority = format!("{}:{}", origin.host()?, origin.port_u16().unwrap_or(default_port));
    Uri::builder().scheme("http").authority(authority).path_and_query("/").build().ok()
}

impl Dialler {
    /// Nothing is connected until the first call.
    fn connection(&self, number: u64) -> Connection {
        let evidence = Arc::<Evidence>::default();
        let connector = Connector::new(self.tls.clone(), self.connect_timeout, Arc::clone(&evidence));
        Connection { number, channel: self.dial.connect_with_connector_lazy(connector), evidence }
    }
}

impl State {
    fn connect(&mut self, dialler: &Dialler) -> Connection {
        let number = self.made;
        self.made += 1;
        self.connection.get_or_insert_with(|| dialler.connection(number)).clone()
    }

    /// The token there is or is being asked for, unless it failed or is the one `refused`.
    fn authenticate(&mut self, connection: &Connection, auth: &AuthConfig, refused: Option<u64>) -> (u64, Attempt) {
        let usable = |it: &Authentication| refused != Some(it.number) && !matches!(it.attempt.peek(), Some(Err(_)));
        if let Some(authentication) = self.authentication.as_ref().filter(|it| usable(it)) {
            return (authentication.number, authentication.attempt.clone());
        }
        let number = self.made;
        self.made += 1;
        let attempt = authenticate(connection.clone(), auth.clone()).boxed().shared();
        self.authentication = Some(Authentication { number, attempt: attempt.clone() });
        (number, attempt)
    }
}

async fn authenticate(connection: Connection, auth: AuthConfig) -> Result<Option<HeaderValue>, CallError> {
    let password = current_password(auth.password).await?;
    let link = Link { connection, token: None, authentication: None };
    let mut client = link.client().await?.auth_client();
    let answer = tokio::time::timeout(AUTHENTICATION_TIMEOUT, client.authenticate(auth.user, password)).await;
    match answer {
        Ok(Ok(response)) => {
            let mut token = HeaderValue::from_str(response.token())
                .map_err(|_invalid| call_error(CallErrorKind::Other, "etcd sent a token that is no header value"))?;
            token.set_sensitive(true);
            Ok(Some(token))
        }
        Ok(Err(error)) if is_auth_disabled(&error) => Ok(None),
        Ok(Err(error)) => Err(link.explain(of_client(&error))),
        Err(_elapsed) => Err(call_error(
            CallErrorKind::Timeout,
            format!("no answer to the authentication within {AUTHENTICATION_TIMEOUT:?}"),
        )),
    }
}

impl Link {
    /// A client over this link.
    pub(super) async fn client(&self) -> Result<Client, CallError> {
        // Without a user in its options it does no IO.
        let service = BoxCloneSyncService::new(self.service().map_err(BoxError::from));
        let channel = etcd_client::Channel::Custom(service);
        Client::from_channel(channel, None).await.map_err(|error| of_client(&error))
    }

    /// The link as a service of HTTP requests.
    pub(super) fn service(&self) -> Service {
        let Connection { channel, evidence, .. } = self.connection.clone();
        Service { channel, evidence, token: self.token.clone() }
    }

    /// Notes that something came over this connection.
    pub(super) fn heard(&self) {
        self.connection.evidence.heard();
    }

    /// An error of this link in the best words there are for it.
    pub(super) fn explain(&self, error: CallError) -> CallError {
        self.connection.evidence.explain(error)
    }
}

/// A connection that puts the token and `hasleader` on each request.
#[derive(Clone)]
pub(super) struct Service {
    channel: Channel,
    evidence: Arc<Evidence>,
    token: Option<HeaderValue>,
}

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let headers = request.headers_mut();
        // A member that has lost its leader says so at once, and ends streams, instead of being silent.
        headers.insert("hasleader", HeaderValue::from_static("true"));
        if let Some(token) = &self.token {
            headers.insert("token", token.clone());
        }
        let (response, evidence) = (self.channel.call(request), Arc::clone(&self.evidence));
        Box::pin(response.inspect_ok(move |_| evidence.heard()))
    }
}
