//! Events on the pod: who became leader, who stopped. Best effort, beside the label and never before it.

use std::collections::VecDeque;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::fault::ApiCode;
use super::pod::Pod;
use super::pods::Pods;
use crate::clock;
use crate::election::{Identity, Role, Term, WallTime};

/// Events that wait for the API server: a few changes of leader during an outage. More than these, and an event says
/// less than the log does; the newest are left out.
const WAITING_MAX: usize = 8;
/// How often one event is tried: at a call every few seconds, an outage of a minute or two.
const TRIES_MAX: u32 = 60;
/// The name of this program as the API server shows it.
const REPORTING_CONTROLLER: &str = "bellwether.dev/sidecar";
/// What the API server allows.
const REPORTING_INSTANCE_BYTES_MAX: usize = 128;
/// What the API server allows for a name, less a dot and a time.
const NAME_BYTES_MAX: usize = 253 - 17;

/// One thing to say about the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Announcement {
    action: &'static str,
    note: String,
    at: WallTime,
}

/// What has been said, and what is still to be said once the pod is known.
pub(super) struct Announcer {
    identity: Identity,
    leads: Option<Term>,
    waiting: VecDeque<Announcement>,
    poster: mpsc::Sender<Event>,
}

impl Announcer {
    /// And where the events come out.
    pub(super) fn new(identity: Identity) -> (Self, mpsc::Receiver<Event>) {
        let (poster, events) = mpsc::channel(WAITING_MAX);
        (Self { identity, leads: None, waiting: VecDeque::new(), poster }, events)
    }

    /// Takes in a role, in the order in which they are published.
    pub(super) fn note(&mut self, role: &Role) {
        let leads = match role {
            Role::Leader { term, .. } => Some(*term),
            Role::Follower | Role::Unknown => None,
        };
        let before = std::mem::replace(&mut self.leads, leads);
        if before == leads {
            return;
        }
        if before.is_some() {
            self.say("Lead", "stopped leading");
        }
        if leads.is_some() {
            self.say("Lead", "became leader");
        }
    }

    fn say(&mut self, action: &'static str, what: &str) {
        if self.waiting.len() < WAITING_MAX {
            let note = format!("{} {what}", self.identity);
            self.waiting.push_back(Announcement { action, note, at: clock::now().wall });
        }
    }

    /// Hands over what is to be said, without waiting. What finds no room is left out.
    pub(super) fn announce(&mut self, pod: &Pod, namespace: &str) {
        for announcement in self.waiting.drain(..) {
            self.poster.try_send(event(&announcement, &self.identity, pod, namespace)).ok();
        }
    }
}

/// Creates events, one after the other, until nobody has any more to say.
pub(super) async fn post(mut pods: Pods, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        let mut pace = pods.pace();
        for _ in 0..TRIES_MAX {
            match pods.create_event(&event).await {
                Ok(()) => break,
                // An earlier try was done, and its answer lost; or no try ever will.
                Err(fault) if is_settled(fault.code) => break,
                Err(fault) => sleep(pace.after(&fault)).await,
            }
        }
    }
}

/// Whether trying again cannot change anything. A right that is missing may be granted, and is missing for the next
/// event too.
const fn is_settled(code: ApiCode) -> bool {
    match code {
        ApiCode::Conflict | ApiCode::Rejected | ApiCode::NotFound => true,
        ApiCode::Forbidden
        | ApiCode::Unauthorized
        | ApiCode::Throttled
        | ApiCode::Timeout
        | ApiCode::Unavailable
        | ApiCode::Unusable
        | ApiCode::Other => false,
    }
}

fn event(announcement: &Announcement, identity: &Identity, pod: &Pod, namespace: &str) -> Event {
    let at = announcement.at.unix_nanos();
    let instance = identity.as_str();
    let name = &pod.name[..pod.name.floor_char_boundary(NAME_BYTES_MAX)];
    let short = instance.floor_char_boundary(REPORTING_INSTANCE_BYTES_MAX);
    Event {
        metadata: ObjectMeta {
            // As kubectl's own: unique per pod and instant, so that a second try is the same event.
            name: Some(format!("{}.{at:x}", name.trim_end_matches(['-', '.']))),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some(announcement.action.into()),
        event_time: Some(MicroTime(Timestamp::from_nanosecond(at.into()).unwrap_or(Timestamp::UNIX_EPOCH))),
        note: Some(announcement.note.clone()),
        reason: Some("LeaderElection".into()),
        regarding: Some(ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            name: Some(pod.name.clone()),
            namespace: Some(namespace.to_owned()),
            uid: Some(pod.uid.clone()),
            ..ObjectReference::default()
        }),
        reporting_controller: Some(REPORTING_CONTROLLER.into()),
        reporting_instance: Some(instance[..short].to_owned()),
        type_: Some("Normal".into()),
        ..Event::default()
    }
}
