//! What a pod says of itself, and what it ought to say. Pure: metadata in, patch out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use crate::config::Labels;
use crate::election::{Epoch, Revision, Role, Term};
use crate::protections::Protections;

/// What a pod's metadata says about the election.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) uid: String,
    /// The version that a patch is for: it lands only while nobody else has changed the pod.
    pub(super) resource_version: String,
    role: Option<String>,
    election: Option<String>,
    stamp: Option<Stamp>,
    /// As it is written, which may be otherwise than this program writes it.
    stamp_text: Option<String>,
}

/// The highest term that this pod has seen: its own, or that of whoever took its label off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    epoch: u64,
    token: i64,
}

impl Stamp {
    pub(super) const fn of(term: Term) -> Self {
        Self { epoch: term.epoch.0, token: term.token.0 }
    }

    /// `None` for whatever somebody wrote by hand.
    fn parse(text: &str) -> Option<Self> {
        let (epoch, token) = text.split_once('/')?;
        Some(Self { epoch: epoch.parse().ok()?, token: token.parse().ok()? })
    }

    fn text(self) -> String {
        format!("{}/{}", self.epoch, self.token)
    }

    pub(super) const fn term(self) -> Term {
        Term { epoch: Epoch(self.epoch), token: Revision(self.token) }
    }
}

/// What the labeller remembers of its own pod.
#[derive(Debug, Default)]
pub(super) struct Recollection {
    /// It has carried this election's label: whoever writes another one there is mistaken.
    pub(super) mine: bool,
    /// A leader's patch that may have landed, or may yet.
    pub(super) doubt: Option<Doubt>,
}

/// Until the pod has moved on to another version, nobody knows.
#[derive(Debug)]
pub(super) struct Doubt {
    /// The version that the patch was made for.
    pub(super) resource_version: String,
    pub(super) term: Term,
}

/// What is to be done with a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// It says what it should.
    Leave,
    /// Send this merge patch.
    Patch(Value),
    /// It has seen a higher term: whoever wants to label it is late.
    Newer(Stamp),
    /// It takes part in another election.
    Foreign(String),
}

impl Pod {
    /// `None` when the API server left out what it never leaves out.
    pub(super) fn read(metadata: &ObjectMeta, labels: &Labels) -> Option<Self> {
        let label = |key: &str| metadata.labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(&labels.term_key));
        Some(Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            resource_version: metadata.resource_version.clone()?,
            role: label(&labels.role_key),
            election: label(&labels.election_key),
            stamp: annotation.and_then(|text| Stamp::parse(text)),
            stamp_text: annotation.cloned(),
        })
    }

    /// What it takes for the sidecar's own pod to show `role`.
    pub(super) fn show(&self, role: &Role, labels: &Labels, recollection: &Recollection) -> Plan {
        match &self.election {
            // Two sidecars in one pod would take the label from each other for ever.
            Some(other) if *other != labels.election && !recollection.mine => return Plan::Foreign(other.clone()),
            Some(_) | None => {}
        }
        let doubt = recollection.doubt.as_ref().filter(|doubt| doubt.resource_version == self.resource_version);
        let overtaking = doubt.map(|doubt| self.overtaking(doubt.term));
        let (value, stamp) = match role {
            Role::Unknown => (None, overtaking),
            Role::Follower => (labels.follower.as_ref(), overtaking),
            Role::Leader { term, .. } => {
                let stamp = Stamp::of(*term);
                if let Some(newer) = self.newer_than(stamp) {
                    return Plan::Newer(newer);
                }
                (Some(&labels.leader), Some(stamp.text()).filter(|text| self.stamp_text.as_ref() != Some(text)))
            }
        };
        let mut changes = Map::new();
        if self.role.as_ref() != value {
            changes.insert(labels.role_key.clone(), json!(value));
        }
        if !self.is_of(labels) {
            changes.insert(labels.election_key.clone(), json!(labels.election));
        }
        self.plan(changes, stamp, labels)
    }

    /// What it takes for another pod of the election not to pass for the leader any more, now or when a patch that
    /// is on its way arrives: without the label, and of another version than any patch of before was made for.
    pub(super) fn strip(&self, term: Term, labels: &Labels) -> Plan {
        if !self.is_of(labels) {
            return Plan::Leave;
        }
        let stamp = Stamp::of(term);
        if let Some(newer) = self.newer_than(stamp) {
            return Plan::Newer(newer);
        }
        let mut changes = Map::new();
        if self.leads(labels) {
            changes.insert(labels.role_key.clone(), Value::Null);
        }
        self.plan(changes, Some(stamp).filter(|stamp| self.stamp != Some(*stamp)).map(Stamp::text), labels)
    }

    /// Whether it says that it takes part in this election.
    pub(super) fn is_of(&self, labels: &Labels) -> bool {
        self.election.as_ref() == Some(&labels.election)
    }

    /// Whether this is an earlier version of the same pod: news of it may arrive after the answer to a later patch.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        let version = |pod: &Self| pod.resource_version.parse::<u64>().ok();
        self.uid == other.uid && version(self).zip(version(other)).is_some_and(|(mine, others)| mine < others)
    }

    /// A stamp that says no less than this pod's and this term, and is written otherwise than the pod's: whatever is
    /// written makes another version of the pod, and no patch for this one can land any more. A pod has its leader's
    /// term already when its label was being repaired.
    fn overtaking(&self, term: Term) -> String {
        let stamp = self.stamp.unwrap_or(Stamp::of(term)).max(Stamp::of(term));
        let text = stamp.text();
        if self.stamp_text.as_ref() == Some(&text) { format!("{}/0{}", stamp.epoch, stamp.token) } else { text }
    }

    fn newer_than(&self, stamp: Stamp) -> Option<Stamp> {
        self.stamp.filter(|seen| *seen > stamp && !Protections::NO_TERM_CHECK.taken_away())
    }

    /// Whether it passes for the leader.
    pub(super) fn leads(&self, labels: &Labels) -> bool {
        self.role.as_ref() == Some(&labels.leader)
    }

    fn plan(&self, changes: Map<String, Value>, stamp: Option<String>, labels: &Labels) -> Plan {
        if changes.is_empty() && stamp.is_none() {
            return Plan::Leave;
        }
        let mut metadata = Map::new();
        if !Protections::NO_RESOURCE_VERSION.taken_away() {
            metadata.insert("resourceVersion".into(), json!(self.resource_version));
        }
        if !changes.is_empty() {
            metadata.insert("labels".into(), Value::Object(changes));
        }
        if let Some(stamp) = stamp {
            metadata.insert("annotations".into(), json!({ labels.term_key.clone(): stamp }));
        }
        Plan::Patch(json!({ "metadata": metadata }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Recollection = Recollection { mine: false, doubt: None };

    fn labels() -> Labels {
        Labels {
            role_key: "role".into(),
            leader: "leader".into(),
            follower: Some("follower".into()),
            election_key: "election".into(),
            election: "web".into(),
            term_key: "term".into(),
        }
    }

    fn pod(role: Option<&str>, stamp: Option<&str>) -> Pod {
        let role = role.map(|role| ("role".to_owned(), role.to_owned()));
        let election = Some(("election".to_owned(), "web".to_owned()));
        let metadata = ObjectMeta {
            name: Some("web-0".into()),
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            labels: Some(role.into_iter().chain(election).collect()),
            annotations: stamp.map(|stamp| [("term".to_owned(), stamp.to_owned())].into()),
            ..ObjectMeta::default()
        };
        Pod::read(&metadata, &labels()).expect("complete metadata")
    }

    const fn term(epoch: u64, token: i64) -> Term {
        Term { epoch: Epoch(epoch), token: Revision(token) }
    }

    const fn leader(epoch: u64, token: i64) -> Role {
        Role::Leader { term: term(epoch, token), predecessor: None }
    }

    fn patch(labels: &Value, annotations: &Value) -> Plan {
        let mut metadata = json!({ "resourceVersion": "7", "labels": labels, "annotations": annotations });
        metadata.as_object_mut().expect("an object").retain(|_, part| !part.is_null());
        Plan::Patch(json!({ "metadata": metadata }))
    }

    #[test]
    fn a_leader_carries_label_and_term_and_the_patch_is_for_the_version_seen() {
        let expected = patch(&json!({ "role": "leader" }), &json!({ "term": "0/9" }));
        assert_eq!(pod(Some("follower"), Some("0/8")).show(&leader(0, 9), &labels(), &NOTHING), expected);
        assert_eq!(pod(Some("leader"), Some("0/9")).show(&leader(0, 9), &labels(), &NOTHING), Plan::Leave);
    }

    #[test]
    fn a_patch_of_an_old_leader_never_overwrites_a_higher_term() {
        for (stamp, newer) in [("0/10", term(0, 10)), ("1/1", term(1, 1))] {
            assert_eq!(pod(None, Some(stamp)).show(&leader(0, 9), &labels(), &NOTHING), Plan::Newer(Stamp::of(newer)));
            assert_eq!(pod(Some("leader"), Some(stamp)).strip(term(0, 9), &labels()), Plan::Newer(Stamp::of(newer)));
        }
        let expected = patch(&json!({ "role": "leader" }), &json!({ "term": "1/2" }));
        assert_eq!(pod(None, Some("0/99")).show(&leader(1, 2), &labels(), &NOTHING), expected, "the epoch comes first");
    }

    #[test]
    fn a_follower_and_nobody_leave_the_term_alone() {
        let to = |role: Value| patch(&json!({ "role": role }), &Value::Null);
        assert_eq!(pod(Some("leader"), Some("0/9")).show(&Role::Follower, &labels(), &NOTHING), to(json!("follower")));
        assert_eq!(pod(Some("leader"), Some("0/9")).show(&Role::Unknown, &labels(), &NOTHING), to(Value::Null));
        assert_eq!(pod(None, Some("0/9")).show(&Role::Unknown, &labels(), &NOTHING), Plan::Leave);
        let bare = Labels { follower: None, ..labels() };
        assert_eq!(pod(Some("leader"), None).show(&Role::Follower, &bare, &NOTHING), to(Value::Null));
    }

    #[test]
    fn a_term_written_by_hand_is_written_over() {
        let expected = patch(&json!({ "role": "leader" }), &json!({ "term": "0/9" }));
        assert_eq!(pod(None, Some("high")).show(&leader(0, 9), &labels(), &NOTHING), expected);
    }

    #[test]
    fn the_election_is_added_where_it_is_missing_and_another_is_respected() {
        let bare = Pod { election: None, ..pod(None, None) };
        let expected = patch(&json!({ "election": "web", "role": "follower" }), &Value::Null);
        assert_eq!(bare.show(&Role::Follower, &labels(), &NOTHING), expected);
        let foreign = Pod { election: Some("db".into()), ..pod(Some("follower"), None) };
        assert_eq!(foreign.show(&Role::Follower, &labels(), &NOTHING), Plan::Foreign("db".into()));
        let remembered = Recollection { mine: true, ..NOTHING };
        let expected = patch(&json!({ "election": "web" }), &Value::Null);
        assert_eq!(foreign.show(&Role::Follower, &labels(), &remembered), expected, "it was this election's before");
        assert_eq!(foreign.strip(term(0, 9), &labels()), Plan::Leave);
    }

    #[test]
    fn the_predecessor_is_stamped_even_when_it_has_taken_its_label_off() {
        assert_eq!(
            pod(Some("leader"), Some("0/8")).strip(term(0, 9), &labels()),
            patch(&json!({ "role": null }), &json!({ "term": "0/9" }))
        );
        assert_eq!(pod(None, Some("0/8")).strip(term(0, 9), &labels()), patch(&Value::Null, &json!({ "term": "0/9" })));
        assert_eq!(pod(None, Some("0/9")).strip(term(0, 9), &labels()), Plan::Leave);
    }

    #[test]
    fn a_patch_that_may_yet_land_is_overtaken_by_a_change_of_the_pod() {
        let doubtful = |version: &str| {
            let doubt = Doubt { resource_version: version.into(), term: term(0, 9) };
            Recollection { doubt: Some(doubt), ..NOTHING }
        };
        let stamped = |text: &str| patch(&Value::Null, &json!({ "term": text }));
        let show = |pod: Pod| pod.show(&Role::Unknown, &labels(), &doubtful("7"));
        assert_eq!(show(pod(None, Some("0/8"))), stamped("0/9"));
        // Its label was taken off by hand and being repaired.
        assert_eq!(show(pod(None, Some("0/9"))), stamped("0/09"), "the same stamp again would change nothing");
        assert_eq!(show(pod(None, Some("0/09"))), stamped("0/9"));
        assert_eq!(show(pod(None, Some("0/10"))), stamped("0/010"), "a stamp is never lowered");
        let follower = pod(Some("follower"), Some("0/9")).show(&Role::Follower, &labels(), &doubtful("7"));
        assert_eq!(follower, stamped("0/09"));
        let moved_on = pod(None, Some("0/9")).show(&Role::Unknown, &labels(), &doubtful("6"));
        assert_eq!(moved_on, Plan::Leave, "it has landed, or never will");
    }

    #[test]
    fn a_leaders_stamp_is_written_in_one_way() {
        let expected = patch(&Value::Null, &json!({ "term": "0/9" }));
        assert_eq!(pod(Some("leader"), Some("0/09")).show(&leader(0, 9), &labels(), &NOTHING), expected);
    }

    #[test]
    fn versions_are_ordered_within_one_life_of_a_pod() {
        let later = Pod { resource_version: "10".into(), ..pod(None, None) };
        assert!(pod(None, None).is_older_than(&later) && !later.is_older_than(&pod(None, None)));
        let reborn = Pod { uid: "v".into(), ..pod(None, None) };
        assert!(!reborn.is_older_than(&later), "a pod of the same name in a StatefulSet is another pod");
        let opaque = Pod { resource_version: "abc".into(), ..pod(None, None) };
        assert!(!opaque.is_older_than(&later));
    }

    #[test]
    fn a_copy_of_the_leaders_pod_with_its_very_term_is_stripped() {
        let expected = patch(&json!({ "role": null }), &Value::Null);
        assert_eq!(pod(Some("leader"), Some("0/9")).strip(term(0, 9), &labels()), expected);
    }
}
