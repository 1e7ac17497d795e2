//! The judge is judged: of each invariant a history that it must let pass, and the nearest one that it must refuse.

use bellwether::election::{Epoch, Identity, Inheritance, Lead, Timings, TimingsRequest, Until};

use super::*;
use crate::clock::nanos;

pub(super) const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
/// With the default timings: TTL 15 s, margin 3 s, and an answer is good for 1 s.
const RIGHT: u64 = 12 * SECOND;
const VALIDITY: u64 = SECOND;

/// Sidecars that say what a test has them say, an etcd that shows what a test has it show, and the judge.
pub(super) struct Court {
    pub(super) judge: Judge,
    pub(super) nodes: Vec<Node>,
    pub(super) lock: Option<LockKey>,
    leases: BTreeSet<LeaseId>,
    /// What an old server revokes of its own, sooner or later.
    old_revokes: Vec<StaleRevoke>,
    revision: Revision,
}

pub(super) fn term(epoch: u64, token: i64) -> Term {
    Term { epoch: Epoch(epoch), token: Revision(token) }
}

/// The lease that a candidate has.
pub(super) fn lease(node: usize) -> LeaseId {
    LeaseId(i64::try_from(node).expect("a handful of nodes") + 100)
}

pub(super) fn key(node: usize, token: i64) -> LockKey {
    let holder = Identity::new(&format!("web-{node}"));
    LockKey { holder, lease: Some(lease(node)), create_revision: Revision(token), mod_revision: Revision(token) }
}

pub(super) fn refused(verdict: &Verdict) -> &'static str {
    verdict.as_ref().expect_err("it must be refused").invariant
}

impl Court {
    /// Three sidecars with leases that live.
    pub(in crate::invariants) fn sits(weather: Weather) -> Self {
        let timings = Timings::new(TimingsRequest::default()).expect("the defaults hold together");
        let mut nodes: Vec<Node> = (0..3).map(|node| Node::new(&format!("web-{node}"), timings, 1, 0)).collect();
        for node in &mut nodes {
            node.start(0, 1, timings, Inheritance::Nothing);
        }
        let mut judge = Judge::new(nodes.len(), weather, None);
        for node in 0..nodes.len() {
            judge.calls(node, &Call::Grant { lease: lease(node), ttl: timings.lease_ttl() }).expect("it chose it");
        }
        let leases = (0..nodes.len()).map(lease).collect();
        let old_revokes = match weather {
            Weather::OldRevokes => vec![StaleRevoke { at: 0, lease: lease(0) }],
            Weather::Storm
            | Weather::Operators
            | Weather::Fading
            | Weather::Handovers
            | Weather::Restarts
            | Weather::Copies => Vec::new(),
        };
        Self { judge, nodes, lock: None, leases, old_revokes, revision: Revision(1000) }
    }

    /// One who leads term 10 with the lock and its lease, seen at 5 s: its answer is good until 6 s.
    pub(in crate::invariants) fn with_a_leader(weather: Weather) -> Self {
        let mut court = Self::sits(weather);
        court.lock_becomes(0, Some(key(0, 10))).expect("it was free");
        court.leads(0, term(0, 10), RIGHT);
        court.look(5 * SECOND).expect("one leads, and holds what it needs");
        court
    }

    /// What a sidecar's listeners see from now on: that it leads this term until then.
    pub(in crate::invariants) fn leads(&mut self, node: usize, term: Term, until: u64) {
        let boot = self.nodes[node].clock.reading(until);
        let lead = Lead { term, until: Until::of_renewal(boot, Duration::ZERO, Duration::ZERO) };
        self.process(node).published.lead = Some(lead);
    }

    fn stands_down(&mut self, node: usize) {
        self.process(node).published.lead = None;
    }

    pub(in crate::invariants) fn process(&mut self, node: usize) -> &mut crate::node::Process {
        self.nodes[node].process.as_mut().expect("all of them run")
    }

    /// The lock passes, and with it the lead, from who led to another; etcd shows it, and the judge is told.
    pub(in crate::invariants) fn passes_to(&mut self, now: u64, node: usize, term: Term) -> Verdict {
        (0..self.nodes.len()).for_each(|other| self.stands_down(other));
        self.lock_becomes(now, Some(key(node, term.token.0)))?;
        self.leads(node, term, now + RIGHT);
        self.look(now)
    }

    pub(in crate::invariants) fn lock_becomes(&mut self, now: u64, lock: Option<LockKey>) -> Verdict {
        self.lock = lock;
        self.judge.lock_changes(now, self.lock.as_ref(), &self.old_revokes)
    }

    pub(in crate::invariants) fn look(&mut self, now: u64) -> Verdict {
        let leases = &self.leases;
        let has_lease = |lease| leases.contains(&lease);
        self.judge.look(now, &mut self.nodes, self.lock.as_ref(), has_lease, self.revision)
    }

    /// An operator takes the lock of who leads term 10 away, and another claims it: the first has not been told.
    pub(in crate::invariants) fn robbed(weather: Weather, now: u64) -> Self {
        let mut court = Self::with_a_leader(weather);
        if weather == Weather::Operators {
            court.judge.operator_touches_lock(now);
        }
        court.lock_becomes(now, None).expect("nobody could prevent it");
        court.lock_becomes(now, Some(key(1, 20))).expect("it was free");
        // Nothing but the bound ends what they lead.
        court.leads(0, term(0, 10), 1000 * SECOND);
        court.leads(1, term(0, 20), 1000 * SECOND);
        court
    }
}

// ---- at_most_one_leader_answers

#[test]
fn one_leader_after_the_other_may_answer() {
    let mut court = Court::with_a_leader(Weather::Storm);
    court.passes_to(6 * SECOND, 1, term(0, 20)).unwrap();
    court.passes_to(8 * SECOND, 0, term(0, 30)).unwrap();
    assert_eq!(court.judge.terms(), 3);
    assert_eq!(court.judge.answering(), [Answering { node: 0, term: term(0, 30) }]);
}

#[test]
fn two_who_answer_at_one_instant_are_refused() {
    for other in [term(0, 10), term(0, 20), term(1, 20)] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.leads(1, other, RIGHT);
        assert_eq!(refused(&court.look(5 * SECOND)), "at_most_one_leader_answers", "{other}");
    }
}

#[test]
fn who_leads_beyond_until_or_is_stopped_does_not_answer_and_who_is_a_nanosecond_before_does() {
    let mut court = Court::with_a_leader(Weather::Storm);
    court.leads(1, term(0, 20), 5 * SECOND);
    court.look(5 * SECOND).unwrap();
    court.leads(1, term(0, 20), 5 * SECOND + 1);
    court.nodes[1].pause = Some(crate::node::Pause { until: RIGHT, guest: false });
    court.look(5 * SECOND).unwrap();
    court.nodes[1].pause = None;
    assert_eq!(refused(&court.look(5 * SECOND)), "at_most_one_leader_answers");
}

// ---- answers_hold_for_their_validity

#[test]
fn the_lock_may_go_once_the_last_answer_has_run_out_and_not_a_nanosecond_before() {
    for (at, holds) in [(5 * SECOND + VALIDITY, true), (5 * SECOND + VALIDITY - 1, false), (5 * SECOND, false)] {
        for next in [None, Some(key(1, 20))] {
            let mut court = Court::with_a_leader(Weather::Storm);
            court.stands_down(0);
            let verdict = court.lock_becomes(at, next);
            assert_eq!(verdict.is_ok(), holds, "{at}");
            assert!(holds || refused(&verdict) == "answers_hold_for_their_validity");
        }
    }
}

#[test]
fn another_may_answer_once_the_last_answer_has_run_out_and_not_a_nanosecond_before() {
    for (at, holds) in [(5 * SECOND + VALIDITY, true), (5 * SECOND + VALIDITY - 1, false)] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.stands_down(0);
        // The judge is not told, so that it has to see for itself.
        court.lock = Some(key(1, 20));
        court.leads(1, term(0, 20), RIGHT);
        let verdict = court.look(at);
        assert_eq!(verdict.is_ok(), holds, "{at}");
        assert!(holds || refused(&verdict) == "answers_hold_for_their_validity");
    }
}

#[test]
fn a_later_answer_takes_nothing_back_of_an_earlier_one() {
    let mut court = Court::with_a_leader(Weather::Storm);
    court.leads(0, term(0, 10), 5 * SECOND + 300 * MILLISECOND);
    court.look(5 * SECOND + 100 * MILLISECOND).unwrap();
    court.stands_down(0);
    let verdict = court.lock_becomes(5 * SECOND + VALIDITY - 1, None);
    assert_eq!(refused(&verdict), "answers_hold_for_their_validity");
}

#[test]
fn an_answer_right_before_until_is_good_until_then_only() {
    let mut court = Court::with_a_leader(Weather::Storm);
    court.look(RIGHT - 100 * MILLISECOND).unwrap();
    court.stands_down(0);
    court.lock_becomes(RIGHT, None).unwrap();
}

#[test]
fn a_wipe_takes_every_promise_with_it_and_what_goes_after_it_does_not_go_with_it() {
    for (at, holds) in [(5 * SECOND + 1, true), (5 * SECOND + 2, false)] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.judge.store_is_wiped(5 * SECOND + 1);
        let verdict = court.lock_becomes(at, None);
        assert_eq!(verdict.is_ok(), holds, "{at}");
        assert!(holds || refused(&verdict) == "answers_hold_for_their_validity");
    }
}

#[test]
fn a_lock_that_is_put_again_is_not_gone() {
    let mut court = Court::with_a_leader(Weather::Storm);
    court.lock_becomes(5 * SECOND + 1, Some(LockKey { mod_revision: Revision(11), ..key(0, 10) })).unwrap();
}

// ---- terms_only_grow

#[test]
fn a_higher_token_and_a_higher_epoch_are_growth_and_so_is_the_same_reign() {
    for next in [term(0, 11), term(1, 11)] {
        Court::with_a_leader(Weather::Storm).passes_to(7 * SECOND, 1, next).unwrap();
    }
    Court::with_a_leader(Weather::Storm).passes_to(7 * SECOND, 0, term(0, 10)).unwrap();
}

#[test]
fn a_lower_term_after_a_higher_one_and_the_same_of_two_sidecars_are_refused() {
    for next in [term(0, 9), term(0, 10)] {
        let verdict = Court::with_a_leader(Weather::Storm).passes_to(7 * SECOND, 1, next);
        assert_eq!(refused(&verdict), "terms_only_grow", "{next}");
    }
    let mut court = Court::with_a_leader(Weather::Storm);
    court.passes_to(7 * SECOND, 1, term(1, 20)).unwrap();
    assert_eq!(refused(&court.passes_to(9 * SECOND, 0, term(0, 99))), "terms_only_grow");
}

#[test]
fn after_a_wipe_a_lower_term_is_led_only_by_who_has_not_heard_of_a_later_revision() {
    for (heard, epoch, holds) in [(1000, 0, true), (1001, 0, false), (1001, 1, true)] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.judge.store_is_wiped(6 * SECOND);
        court.process(1).heard = Revision(heard);
        let verdict = court.passes_to(7 * SECOND, 1, term(epoch, 3));
        assert_eq!(verdict.is_ok(), holds, "heard of {heard}, epoch {epoch}");
        assert!(holds || refused(&verdict) == "terms_only_grow");
    }
}

#[test]
fn in_the_new_history_after_a_wipe_tokens_only_grow_again() {
    for (next, holds) in [(term(0, 4), true), (term(0, 3), false), (term(0, 2), false), (term(1, 2), false)] {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.judge.store_is_wiped(6 * SECOND);
        court.passes_to(7 * SECOND, 1, term(0, 3)).unwrap();
        let verdict = court.passes_to(9 * SECOND, 2, next);
        assert_eq!(verdict.is_ok(), holds, "{next}");
        assert!(holds || refused(&verdict) == "terms_only_grow");
    }
}

// ---- no_leader_without_lease_and_key

#[test]
fn a_leader_without_the_key_or_without_a_lease_that_lives_is_refused() {
    let keys = [
        None,
        Some(LockKey { lease: None, ..key(0, 10) }),
        Some(LockKey { create_revision: Revision(9), ..key(0, 10) }),
        Some(LockKey { holder: key(1, 10).holder, ..key(0, 10) }),
        Some(LockKey { lease: Some(LeaseId(7)), ..key(0, 10) }),
    ];
    for lock in keys {
        let mut court = Court::with_a_leader(Weather::Storm);
        court.lock = lock;
        let verdict = court.look(5 * SECOND + 1);
        assert_eq!(refused(&verdict), "no_leader_without_lease_and_key", "{:?}", court.lock);
    }
    let mut court = Court::with_a_leader(Weather::Storm);
    court.leases.remove(&lease(0));
    assert_eq!(refused(&court.look(5 * SECOND + 1)), "no_leader_without_lease_and_key");
}

// ---- resign_deletes_only_own_key

/// The two ways to let go of what hangs on this lease.
fn both_ways(lease: LeaseId) -> [Call; 2] {
    [Call::DeleteLock { create_revision: Revision(10), lease }, Call::Revoke { lease }]
}

#[test]
fn ones_own_key_and_lease_may_be_let_go_of_also_after_a_wipe_and_nobody_elses() {
    let mut court = Court::with_a_leader(Weather::Storm);
    court.judge.store_is_wiped(6 * SECOND);
    for call in both_ways(lease(0)) {
        court.judge.calls(0, &call).unwrap();
        assert_eq!(refused(&court.judge.calls(1, &call)), "resign_deletes_only_own_key", "{call:?}");
    }
    for nobodys in both_ways(LeaseId(7)) {
        assert_eq!(refused(&court.judge.calls(0, &nobodys)), "resign_deletes_only_own_key", "{nobodys:?}");
    }
}

// ---- overlap_ends_with_the_news_and_by_until

const BOUND: &str = "overlap_ends_with_the_news_and_by_until";

#[test]
fn who_was_robbed_may_answer_until_it_is_told_so_and_not_after() {
    let put = |mod_revision| Change::LockPut(LockKey { mod_revision: Revision(mod_revision), ..key(1, 20) });
    for weather in [Weather::Operators, Weather::OldRevokes] {
        for (news, old_news) in [(Change::Deleted(Revision(11)), Change::Deleted(Revision(9))), (put(20), put(10))] {
            let mut court = Court::robbed(weather, 5 * SECOND + 1);
            court.look(5 * SECOND + 2).unwrap();
            court.judge.is_told(0, Some(term(0, 10)), &old_news);
            court.judge.is_told(0, None, &news);
            court.judge.is_told(1, Some(term(0, 10)), &news);
            court.look(5 * SECOND + 3).unwrap();
            court.judge.is_told(0, Some(term(0, 10)), &news);
            assert_eq!(refused(&court.look(5 * SECOND + 4)), BOUND, "{weather:?}, {news:?}");
            court.judge.is_born(0);
            court.look(5 * SECOND + 5).unwrap();
            court.stands_down(0);
            court.look(6 * SECOND).unwrap();
            assert_eq!(court.judge.longest_overlap, Duration::from_nanos(SECOND - 2));
        }
    }
}

#[test]
fn who_was_robbed_and_never_told_may_answer_as_long_as_its_lease_had_been_confirmed_and_not_longer() {
    let taken = 5 * SECOND + 1;
    // The TTL, less three quarters of the margin.
    let most = nanos(Duration::from_millis(12_750));
    for (at, holds) in [(taken + most, true), (taken + most + 1, false)] {
        let verdict = Court::robbed(Weather::Operators, taken).look(at);
        assert_eq!(verdict.is_ok(), holds, "{at}");
        assert!(holds || refused(&verdict) == BOUND);
    }
}

#[test]
fn besides_who_was_robbed_only_one_may_answer_and_needs_lease_and_key() {
    let mut court = Court::robbed(Weather::Operators, 5 * SECOND + 1);
    court.leads(2, term(0, 30), RIGHT);
    assert_eq!(refused(&court.look(5 * SECOND + 2)), "at_most_one_leader_answers");
    court.stands_down(2);
    court.leases.remove(&lease(1));
    assert_eq!(refused(&court.look(5 * SECOND + 2)), "no_leader_without_lease_and_key");
}

/// The lock of who leads term 10 goes, right after an answer.
fn goes(court: &mut Court, at: u64) -> Verdict {
    court.stands_down(0);
    court.lock_becomes(at, None)
}

#[test]
fn an_old_server_is_an_excuse_for_the_lease_it_revoked_and_for_no_other_that_ends() {
    for revoked in [lease(0), lease(1)] {
        let mut court = Court::with_a_leader(Weather::OldRevokes);
        court.old_revokes = vec![StaleRevoke { at: 5 * SECOND, lease: revoked }];
        let verdict = goes(&mut court, 5 * SECOND + 1);
        assert_eq!(verdict.is_ok(), revoked == lease(0));
        assert!(verdict.is_ok() || refused(&verdict) == "answers_hold_for_their_validity");
    }
}

#[test]
fn an_old_server_is_no_excuse_for_who_let_go_by_itself() {
    for own in both_ways(lease(0)) {
        let mut court = Court::with_a_leader(Weather::OldRevokes);
        court.judge.calls(0, &own).unwrap();
        assert_eq!(refused(&goes(&mut court, 5 * SECOND + 1)), "answers_hold_for_their_validity", "{own:?}");
    }
}

#[test]
fn an_operator_is_an_excuse_for_the_lock_that_was_meant_and_for_another_while_the_command_is_under_way() {
    let mut meant = Court::with_a_leader(Weather::Operators);
    meant.judge.operator_touches_lock(5 * SECOND);
    goes(&mut meant, 5 * SECOND + OPERATION_TAKES_MOST + 1).unwrap();
    for (begun, holds) in [(5 * SECOND - OPERATION_TAKES_MOST + 1, true), (5 * SECOND - OPERATION_TAKES_MOST, false)] {
        let mut another = Court::sits(Weather::Operators);
        // There is no lock yet when it begins.
        another.judge.operator_touches_lock(begun);
        another.lock_becomes(begun, Some(key(0, 10))).unwrap();
        another.leads(0, term(0, 10), RIGHT);
        another.look(5 * SECOND).unwrap();
        let verdict = goes(&mut another, 5 * SECOND + 1);
        assert_eq!(verdict.is_ok(), holds, "begun at {begun}");
        assert!(holds || refused(&verdict) == "answers_hold_for_their_validity");
    }
}

#[test]
fn what_was_known_of_a_key_is_forgotten_with_its_store() {
    let wiped_at = 5 * SECOND + 2;
    // That it was taken away: two who answer are two leaders again.
    let mut court = Court::robbed(Weather::Operators, 5 * SECOND + 1);
    court.judge.store_is_wiped(wiped_at);
    assert_eq!(refused(&court.look(wiped_at)), "at_most_one_leader_answers");
    // That its leader has been told so: it has to be told anew.
    let mut court = Court::robbed(Weather::Operators, 5 * SECOND + 1);
    court.judge.is_told(0, Some(term(0, 10)), &Change::Deleted(Revision(11)));
    court.judge.store_is_wiped(wiped_at);
    court.lock_becomes(wiped_at, Some(key(0, 10))).unwrap();
    court.judge.operator_touches_lock(wiped_at);
    court.lock_becomes(wiped_at + 1, Some(key(1, 20))).unwrap();
    court.look(wiped_at + 1).unwrap();
    // That its leader let it go: an old server can have revoked this one.
    let mut court = Court::with_a_leader(Weather::OldRevokes);
    for own in both_ways(lease(0)) {
        court.judge.calls(0, &own).unwrap();
    }
    court.judge.store_is_wiped(wiped_at);
    goes(&mut court, wiped_at + 1).unwrap();
    // That an operator meant it: one of the same revision goes without an excuse.
    let mut court = Court::with_a_leader(Weather::Operators);
    court.judge.operator_touches_lock(5 * SECOND);
    court.judge.store_is_wiped(wiped_at);
    let verdict = goes(&mut court, 5 * SECOND + OPERATION_TAKES_MOST + 1);
    assert_eq!(refused(&verdict), "answers_hold_for_their_validity");
}

// ---- what is looked at once, or at rest

#[test]
fn the_label_is_on_the_leader_alone() {
    label_follows_lock(&[1], 1).unwrap();
    for labelled in [&[][..], &[0], &[0, 1], &[1, 2]] {
        assert_eq!(refused(&label_follows_lock(labelled, 1)), "label_follows_lock", "{labelled:?}");
    }
}

#[test]
fn nobody_after_the_heal_is_refused() {
    let mut court = Court::sits(Weather::Storm);
    court.nodes[2].end();
    someone_leads_after_heal(true, &court.nodes, None).unwrap();
    let verdict = someone_leads_after_heal(false, &court.nodes, Some(&key(2, 10)));
    assert_eq!(refused(&verdict), "someone_leads_after_heal");
    let story = verdict.unwrap_err().what;
    assert!(story.contains("not running") && story.contains("web-2"), "{story}");
}

#[test]
fn a_transition_at_rest_is_refused() {
    let court = Court::with_a_leader(Weather::Storm);
    nothing_changes_at_rest(17, 17, &court.nodes).unwrap();
    assert_eq!(refused(&nothing_changes_at_rest(17, 18, &court.nodes)), "nothing_changes_at_rest");
}

#[test]
fn what_is_bounded_may_come_to_its_bound_and_not_beyond() {
    quiet_at_rest(0, 100, 100, Duration::from_secs(15)).unwrap();
    assert_eq!(refused(&quiet_at_rest(0, 101, 100, Duration::from_secs(15))), "quiet_at_rest");
    no_hot_loop(0, Ok(())).unwrap();
    assert_eq!(refused(&no_hot_loop(0, Err("due".into()))), "no_hot_loop");
    effects_per_input_are_bounded(0, EFFECTS_MOST).unwrap();
    assert_eq!(refused(&effects_per_input_are_bounded(0, EFFECTS_MOST + 1)), "effects_per_input_are_bounded");
    queues_are_bounded(0, [OPEN_MOST; 3]).unwrap();
    for place in 0..3 {
        let mut open = [0; 3];
        open[place] = OPEN_MOST + 1;
        assert_eq!(refused(&queues_are_bounded(0, open)), "queues_are_bounded");
    }
}
