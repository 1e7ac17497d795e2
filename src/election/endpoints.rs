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
    /// It belongs to another cluster: it is asked nothing but now and then which it belongs to.
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

    /// The pinned cluster, once something has been answered.
    pub(super) const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Whether this is the pinned cluster; the first answer pins it.
    pub(super) fn are_of(&mut self, cluster: ClusterId) -> bool {
        *self.cluster.get_or_insert(cluster) == cluster
    }

    /// A refused endpoint has said which cluster it belongs to. True when it is the pinned one, and it is refused no more:
    /// an address with a balancer behind it may have led to a stranger for a moment.
    pub(super) fn readmit(&mut self, id: EndpointId, cluster: ClusterId) -> bool {
        let ours = self.is_refused(id) && self.cluster == Some(cluster);
        if ours {
            self.list[id.0].health = EndpointHealth::Answering;
        }
        ours
    }

    /// Notes a failure; when it was the preferred endpoint, another one is from now on.
    pub(super) fn failed(&mut self, id: EndpointId, operation: Operation, kind: CallErrorKind) {
        if self.is_refused(id) {
            return;
        }
        self.list[id.0].health = EndpointHealth::Failing { operation, kind };
        self.leave(id);
    }

    /// Prefers another one, if this was the preferred.
    pub(super) fn leave(&mut self, id: EndpointId) {
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

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ClusterId = ClusterId(7);
    const THEIRS: ClusterId = ClusterId(13);

    fn three(preferred: usize) -> Endpoints {
        let mut endpoints = Endpoints::new(3, &mut Random::from_seed(1));
        endpoints.prefer(EndpointId(preferred));
        endpoints
    }

    fn fail(endpoints: &mut Endpoints, id: usize) {
        endpoints.failed(EndpointId(id), Operation::KeepAlive, CallErrorKind::Unavailable);
    }

    #[test]
    #[should_panic(expected = "at least one endpoint")]
    fn there_is_at_least_one() {
        let _ = Endpoints::new(0, &mut Random::from_seed(1));
    }

    #[test]
    fn candidates_spread_over_the_endpoints() {
        let first = |seed| Endpoints::new(3, &mut Random::from_seed(seed)).preferred();
        for wanted in 0..3 {
            assert!((0..50).any(|seed| first(seed) == Some(EndpointId(wanted))));
        }
    }

    #[test]
    fn after_a_failure_another_one_is_preferred_and_a_failing_one_comes_last() {
        let mut endpoints = three(0);
        fail(&mut endpoints, 1);
        assert_eq!(endpoints.preferred(), Some(EndpointId(0)), "its own failure only");
        assert_eq!(endpoints.other_than(EndpointId(0)), Some(EndpointId(2)), "not the failing one");
        fail(&mut endpoints, 0);
        assert_eq!(endpoints.preferred(), Some(EndpointId(2)));
        fail(&mut endpoints, 2);
        assert!(endpoints.preferred().is_some(), "when all fail each is tried in turn");
        assert_ne!(endpoints.preferred(), Some(EndpointId(2)));
    }

    #[test]
    fn one_endpoint_has_no_other() {
        let mut alone = Endpoints::new(1, &mut Random::from_seed(1));
        fail(&mut alone, 0);
        assert_eq!(alone.other_than(EndpointId(0)), None);
        assert_eq!(alone.preferred(), Some(EndpointId(0)));
    }

    #[test]
    fn the_first_answer_pins_the_cluster_and_strangers_are_refused_for_good() {
        let mut endpoints = three(1);
        assert!(matches!(endpoints.answered(EndpointId(0), OURS), Membership::Ours));
        assert!(matches!(endpoints.answered(EndpointId(1), THEIRS), Membership::Foreign { pinned: OURS }));
        assert!(endpoints.is_refused(EndpointId(1)));
        assert_eq!(endpoints.preferred(), Some(EndpointId(2)));
        fail(&mut endpoints, 1);
        assert!(endpoints.is_refused(EndpointId(1)), "a failure does not bring it back");
        for other in [0, 2] {
            assert_ne!(endpoints.other_than(EndpointId(other)), Some(EndpointId(1)));
        }
    }

    #[test]
    fn with_every_endpoint_refused_there_is_nobody_to_ask() {
        let mut endpoints = Endpoints::new(2, &mut Random::from_seed(1));
        endpoints.answered(EndpointId(0), OURS);
        endpoints.answered(EndpointId(0), THEIRS);
        endpoints.answered(EndpointId(1), THEIRS);
        assert_eq!(endpoints.preferred(), None);
    }

    #[test]
    fn a_version_is_news_once() {
        let mut endpoints = three(0);
        assert!(endpoints.set_version(EndpointId(0), "3.5.13"));
        assert!(!endpoints.set_version(EndpointId(0), "3.5.13"));
        assert!(endpoints.set_version(EndpointId(0), "3.5.28"), "after an upgrade");
    }
}
