//! Which endpoint to ask, what each last did, and which cluster they belong to.

use super::effect::Operation;
use super::event::CallErrorKind;
use super::ids::{ClusterId, EndpointId};
use super::random::Random;
use super::view::{EndpointHealth, EndpointView};

/// The endpoints in the order of `--etcd-endpoints`.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    list: Vec<EndpointView>,
    preferred: usize,
    cluster: Option<ClusterId>,
}

/// What a response's cluster id says of its endpoint.
pub(super) enum Membership {
    /// It belongs to the pinned cluster; the first answer pins it.
    Ours,
    /// It belongs to another cluster and is not asked any more.
    Foreign { pinned: ClusterId },
}

impl Endpoints {
    /// # Panics
    /// When `count` is 0: the configuration has at least one.
    pub(super) fn new(count: usize, random: &mut Random) -> Self {
        assert!(count > 0, "a configuration has at least one endpoint");
        let list = vec![EndpointView { health: EndpointHealth::Unknown, version: None }; count];
        let preferred = usize::try_from(random.below(count as u64)).expect("below a usize");
        Self { list, preferred, cluster: None }
    }

    pub(super) fn views(&self) -> Vec<EndpointView> {
        self.list.clone()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = EndpointId> + use<> {
        (0..self.list.len()).map(EndpointId)
    }

    pub(super) fn is_refused(&self, id: EndpointId) -> bool {
        self.list[id.0].health == EndpointHealth::Refused
    }

    /// Where the next call goes, unless every endpoint was refused.
    pub(super) fn preferred(&self) -> Option<EndpointId> {
        let id = EndpointId(self.preferred);
        if self.is_refused(id) { self.other_than(id) } else { Some(id) }
    }

    pub(super) const fn prefer(&mut self, id: EndpointId) {
        self.preferred = id.0;
    }

    /// Another endpoint than `id`: the next one that is not failing, else the next one.
    pub(super) fn other_than(&self, id: EndpointId) -> Option<EndpointId> {
        let others = || {
            (1..self.list.len())
                .map(|step| EndpointId((id.0 + step) % self.list.len()))
                .filter(|other| !self.is_refused(*other))
        };
        others()
            .find(|other| !matches!(self.list[other.0].health, EndpointHealth::Failing { .. }))
            .or_else(|| others().next())
    }

    /// Notes an answer's cluster id.
    pub(super) fn answered(&mut self, id: EndpointId, cluster: ClusterId) -> Membership {
        let pinned = *self.cluster.get_or_insert(cluster);
        if pinned == cluster {
            self.list[id.0].health = EndpointHealth::Answering;
            Membership::Ours
        } else {
            self.list[id.0].health = EndpointHealth::Refused;
            Membership::Foreign { pinned }
        }
    }

    /// Notes a failure; when it was the preferred endpoint, another one is from now on.
    pub(super) fn failed(&mut self, id: EndpointId, operation: Operation, kind: CallErrorKind) {
        if self.is_refused(id) {
            return;
        }
        self.list[id.0].health = EndpointHealth::Failing { operation, kind };
        if self.preferred == id.0
            && let Some(other) = self.other_than(id)
        {
            self.preferred = other.0;
        }
    }

    /// Notes the version a server says. True when it is news.
    pub(super) fn set_version(&mut self, id: EndpointId, version: &str) -> bool {
        let known = &mut self.list[id.0].version;
        if known.as_deref() == Some(version) {
            return false;
        }
        *known = Some(version.to_owned());
        true
    }
}
