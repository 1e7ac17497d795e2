//! `/leader`, at once or when it has something new to tell.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use axum::response::IntoResponse;

use super::Shared;
use super::answer::{LeaderBody, Moment};
use super::connection::AnswerInProgress;
use super::handover::{Handover, Wait, Waited};
use super::local_api::{Answer, commit, with_term};
use super::query::{bad, shown};
use super::refusal::{Refusal, json};
use crate::config::{DurationFault, parse_duration};
use crate::metrics::Push;

/// The longest wait. A client that wants to know for longer asks again, and finds out by that whether anybody is there;
/// what lies between the two rarely keeps a silent connection for longer.
const WAIT_MOST: Duration = Duration::from_mins(5);
/// When a poll that had to be answered at once, because too many wait, should come back: a second, as one that cannot
/// wait would poll.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// What the query asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    /// Whether `identity` is absent or names this sidecar, every time it is given.
    to_me: bool,
    wait: Duration,
    /// What the client has seen.
    seen: Option<String>,
}

pub(super) async fn leader(
    State(shared): State<Arc<Shared>>,
    Extension(answer): Answer,
    request: Request<Body>,
) -> Result<Response<Body>, Refusal> {
    if let Some(waited) = request.extensions().get::<Waited>() {
        return Ok(tell(&shared, &answer, waited.to_me));
    }
    let asked = Asked::read(request.uri(), shared.about().identity.as_str())?;
    // Who has seen nothing is told what there is, and not made to wait for what comes after it.
    let waits_with = asked.seen.filter(|_| !asked.wait.is_zero());
    let seen = waits_with.and_then(|seen| Some(shared.version()).filter(|present| present.is_shown_by(&seen)));
    let Some(seen) = seen else {
        return Ok(tell(&shared, &answer, asked.to_me));
    };
    let Some(place) = shared.places().take(Push::Polls) else {
        // The truth at once: a refusal would tell a leader that it does not lead.
        let mut response = tell(&shared, &answer, asked.to_me);
        response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        return Ok(response);
    };
    let wait = Wait::new(&shared, &request, Waited { to_me: asked.to_me }, seen, asked.wait);
    match answer.hand_over(Handover::Wait(wait, place)).await {}
}

fn tell(shared: &Shared, answer: &AnswerInProgress, to_me: bool) -> Response<Body> {
    let view = shared.view();
    let moment = shared.moment(&view);
    let leading = moment.leading().filter(|_| to_me);
    commit(answer, leading);
    let status = if leading.is_some() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_version(with_term(json(status, &LeaderBody::of(&moment, to_me)), &moment), &moment)
}

fn with_version(mut response: Response<Body>, moment: &Moment<'_>) -> Response<Body> {
    let tag = format!("\"{}\"", moment.version());
    let tag = HeaderValue::try_from(tag).expect("a version is made of hexadecimal digits and hyphens");
    response.headers_mut().insert(header::ETAG, tag);
    response.into_response()
}

impl Asked {
    fn read(uri: &Uri, identity: &str) -> Result<Self, Refusal> {
        let mut asked = Self { to_me: true, ..Self::default() };
        if uri.query().is_none() {
            return Ok(asked);
        }
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            // What cannot be read may have named somebody else.
            return Ok(Self::default());
        };
        for (name, value) in pairs {
            match name.as_str() {
                "identity" => asked.to_me &= value == identity,
                "wait" => asked.wait = read_wait(&value)?,
                "seen" => asked.seen = Some(value),
                _other => {}
            }
        }
        Ok(asked)
    }
}

fn read_wait(text: &str) -> Result<Duration, Refusal> {
    let wait = parse_duration(text)
        .and_then(|wait| if wait > WAIT_MOST { Err(DurationFault::MoreThan(WAIT_MOST)) } else { Ok(wait) });
    wait.map_err(|fault| bad(format!("wait: {:?} {fault}; write it like ?wait=30s&seen=<version>", shown(text))))
}
