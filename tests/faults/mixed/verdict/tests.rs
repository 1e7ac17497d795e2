//! Planted reigns, and what is found of them.

use support::Sample;

use super::*;
use crate::mixed::access::Security;
use crate::mixed::catalogue::Kind;
use crate::mixed::judge::judge;
use crate::mixed::judge::tests::yes;
use crate::mixed::lane::Lane;
use crate::mixed::limits::Promise;
use crate::mixed::trial::Part;

/// The term that a theft in these trials takes the lock of.
const STOLEN: u64 = 5;

/// A trial of everything up to the 100th second.
fn trial_of(kinds: &[Kind], promise: Promise) -> Trial {
    trial_between(0, 100, kinds, promise)
}

/// A trial between these seconds, whose faults are healed ten seconds before its end.
fn trial_between(begin: u64, end: u64, kinds: &[Kind], promise: Promise) -> Trial {
    let at = |seconds: u64| Moment::from_nanos(seconds * 1_000_000_000);
    let healed = at(end - 10);
    let part = |kind: &Kind| Part {
        kind: *kind,
        whom: String::new(),
        sidecars: if *kind == Kind::SidecarDeaf { vec!["a"] } else { Vec::new() },
        has_hit: true,
        locks: if *kind == Kind::KeyDeleted { vec![STOLEN] } else { Vec::new() },
        begin: at(begin),
        healing: healed,
        end: healed,
    };
    let parts = kinds.iter().map(part).collect();
    let (bound, security, seen) = (Duration::from_secs(7), Security::Open, Seen::default());
    Trial { number: 1, security, parts, begin: at(begin), healed, end: at(end), bound, promise, seen }
}

/// 200s every 50 ms between these milliseconds.
fn reign(term: u64, begin: u64, end: u64, valid_for: u64) -> Vec<Sample> {
    (begin..end).step_by(50).map(|sent| yes(term, sent, sent + 1, valid_for)).collect()
}

fn look(trial: &Trial, first: &[Sample], second: &[Sample]) -> Seen {
    look_with(trial, first, second, None)
}

/// The first one's key was gone after so many milliseconds, and so many later it was known everywhere.
fn look_with(trial: &Trial, first: &[Sample], second: &[Sample], gone: Option<(u64, Option<u64>)>) -> Seen {
    let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
    let key_end = |reign: &Reign| {
        let (gone, news) = gone.filter(|_| reign.leader == "a")?;
        Some(KeyEnd { gone: at(gone), news: news.map(|news| at(gone + news)) })
    };
    look_back(trial, &judged(&[("a", first), ("b", second)]), key_end, Duration::ZERO)
}

fn judged(samples: &[(&str, &[Sample])]) -> Judgement {
    judged_by(samples, Moment::from_nanos(u64::MAX))
}

/// What is known by then.
fn judged_by(samples: &[(&str, &[Sample])], now: Moment) -> Judgement {
    let lanes = samples.iter().map(|(name, samples)| {
        let so_far: Vec<_> = samples.iter().filter(|sample| sample.received <= now).copied().collect();
        let mut lane = Lane::new(name);
        lane.extend(&so_far);
        lane
    });
    judge(&lanes.collect::<Vec<_>>().iter().collect::<Vec<_>>())
}

/// What a run finds in its trials, each of which looks back when it is over, and then in none of them.
fn found(mut trials: Vec<Trial>, samples: &[(&str, &[Sample])]) -> (Vec<String>, Vec<String>) {
    for trial in &mut trials {
        trial.seen = look_back(trial, &judged_by(samples, trial.end), |_| None, Duration::ZERO);
    }
    let between = look_between(&trials, &judged(samples), |_| None, |_, _| Duration::ZERO);
    let between = between.violations.into_iter().map(|(_, violation)| violation).collect();
    (trials.into_iter().flat_map(|trial| trial.seen.violations).collect(), between)
}

fn stopped_between(begin: u64, end: u64) -> Trial {
    trial_between(begin, end, &[Kind::SidecarStopped], Promise::Whole)
}

#[test]
fn one_after_the_other_within_the_bound_is_no_violation() {
    let trial = trial_of(&[Kind::SidecarKilled], Promise::Whole);
    let seen = look(&trial, &reign(5, 1000, 2000, 1000), &reign(7, 8000, 9000, 1000));
    assert!(seen.violations.is_empty(), "{seen:?}");
    assert_eq!((seen.failovers, seen.leaderless), (2, Duration::from_millis(8001 - 1951)));
}

#[test]
fn two_leaders_are_a_violation_in_any_trial_without_a_theft() {
    let trial = trial_of(&[Kind::SidecarKilled], Promise::Whole);
    let seen = look(&trial, &reign(5, 1000, 2000, 0), &reign(7, 1800, 3000, 0));
    assert!(seen.violations[0].starts_with("two leaders at one instant"), "{seen:?}");
    let Together { certain, possible } = seen.together;
    assert!(certain > Duration::ZERO && possible > certain);
    assert_eq!(seen.stolen, Together::default());
}

#[test]
fn a_thief_is_granted_the_delay_of_the_news() {
    let (short, long) = (reign(5, 1000, 3100, 0), reign(5, 1000, 3200, 0));
    let second = reign(7, 3000, 7000, 0);
    let alone = trial_of(&[Kind::KeyDeleted], Promise::Bounded);
    let seen = look_with(&alone, &short, &second, Some((2995, Some(10))));
    assert!(seen.violations.is_empty(), "{seen:?}");
    let [theft] = seen.thefts.as_slice() else { panic!("{seen:?}") };
    assert_eq!((theft.news, theft.bound), (Some(Duration::from_millis(10)), Duration::from_millis(60)));
    let seen = look_with(&alone, &long, &second, Some((2995, Some(10))));
    assert!(seen.violations[0].contains("after its key was gone"), "{seen:?}");
    assert!(!look_with(&alone, &long, &second, None).violations.is_empty(), "nobody stole anything");
}

#[test]
fn whom_the_news_does_not_reach_leads_on_until_until_and_no_longer() {
    let second = reign(7, 3000, 9000, 0);
    let deaf = trial_of(&[Kind::KeyDeleted, Kind::SidecarDeaf], Promise::Bounded);
    let alone = trial_of(&[Kind::KeyDeleted], Promise::Bounded);
    for (trial, news) in [(&deaf, Some(10)), (&alone, None)] {
        let gone = Some((2990, news));
        assert!(look_with(trial, &reign(5, 1000, 6900, 0), &second, gone).violations.is_empty());
        assert_eq!(look_with(trial, &reign(5, 1000, 7200, 0), &second, gone).violations.len(), 1);
    }
}

#[test]
fn a_broken_promise_a_fallen_term_and_too_long_a_time_without_a_leader_are_violations() {
    let trial = trial_of(&[Kind::SidecarKilled], Promise::Whole);
    let broken = look(&trial, &reign(5, 1000, 2000, 1000), &reign(7, 2500, 3000, 1000));
    assert!(broken.violations[0].starts_with("a promise was broken"), "{broken:?}");
    let fallen = look(&trial, &reign(7, 1000, 2000, 0), &reign(5, 2500, 3000, 0));
    assert!(fallen.violations[0].starts_with("the term did not grow"), "{fallen:?}");
    let leaderless = look(&trial, &reign(5, 1000, 2000, 0), &reign(7, 10_000, 11_000, 0));
    assert!(leaderless.violations[0].starts_with("nobody led for"), "{leaderless:?}");
}

#[test]
fn a_leader_of_before_that_answers_again_in_a_later_trial_is_found() {
    let trials = vec![stopped_between(0, 20), stopped_between(20, 40)];
    let mut a = reign(5, 1_000, 2_000, 0);
    // Its successor has led since the first trial; it says 200 for a whole second of the second.
    a.extend(reign(5, 30_000, 31_000, 0));
    let (in_trials, between) = found(trials, &[("a", &a), ("b", &reign(7, 8_000, 39_000, 0))]);
    assert!(in_trials[0].starts_with("two leaders"), "{in_trials:?}");
    assert!(between.is_empty(), "taken by one trial: {between:?}");
}

#[test]
fn a_leader_of_before_is_found_again_though_its_theft_was_excused() {
    let trials = [
        trial_between(0, 20, &[Kind::KeyDeleted], Promise::Bounded),
        trial_between(20, 40, &[Kind::EtcdLeaderStopped], Promise::Bounded),
    ];
    let mut a = reign(STOLEN, 1_000, 3_051, 1000);
    a.extend(reign(STOLEN, 30_000, 30_100, 0));
    let b = reign(7, 3_000, 39_000, 1000);
    let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
    let gone = KeyEnd { gone: at(2_995), news: Some(at(3_000)) };
    let key_end = |reign: &Reign| (reign.leader == "a").then_some(gone);
    let [first, second] = trials.map(|trial| {
        let judgement = judged_by(&[("a", &a), ("b", &b)], trial.end);
        look_back(&trial, &judgement, key_end, Duration::ZERO)
    });
    assert!(first.violations.is_empty() && !first.stolen.certain.is_zero(), "{first:?}");
    assert!(second.violations.iter().any(|violation| violation.starts_with("two leaders")), "{second:?}");
}

#[test]
fn two_leaders_between_two_trials_are_found() {
    // Between trials all are waited for, and leaders are asked to resign until one with proxies leads.
    let trials = vec![stopped_between(0, 20), stopped_between(25, 40)];
    let (a, b) = (reign(5, 1_000, 24_000, 0), reign(7, 22_000, 39_000, 0));
    let (in_trials, between) = found(trials, &[("a", &a), ("b", &b)]);
    assert!(in_trials.is_empty(), "{in_trials:?}");
    assert!(between[0].starts_with("two leaders"), "{between:?}");
}

#[test]
fn a_broken_promise_a_fallen_term_and_too_long_a_gap_between_two_trials_are_found() {
    let between = |first: &[Sample], second: &[Sample]| {
        let (in_trials, between) =
            found(vec![stopped_between(0, 10), stopped_between(50, 60)], &[("a", first), ("b", second)]);
        assert!(in_trials.is_empty(), "{in_trials:?}");
        between
    };
    let whole = between(&reign(5, 1_000, 20_000, 1000), &reign(7, 21_000, 55_000, 1000));
    assert!(whole.is_empty(), "{whole:?}");
    let broken = between(&reign(5, 1_000, 20_000, 1000), &reign(7, 20_500, 55_000, 1000));
    assert!(broken[0].starts_with("a promise was broken"), "{broken:?}");
    let fallen = between(&reign(7, 1_000, 20_000, 0), &reign(5, 21_000, 55_000, 0));
    assert!(fallen[0].starts_with("the term did not grow"), "{fallen:?}");
    let leaderless = between(&reign(5, 1_000, 20_000, 0), &reign(7, 28_000, 55_000, 0));
    assert!(leaderless[0].starts_with("nobody led for"), "{leaderless:?}");
}

#[test]
fn two_leaders_in_one_term_are_found_however_far_apart() {
    let trials = vec![stopped_between(0, 20), stopped_between(20, 40)];
    let (in_trials, _) = found(trials, &[("a", &reign(5, 1_000, 2_000, 0)), ("b", &reign(5, 30_000, 31_000, 0))]);
    assert!(in_trials.iter().any(|violation| violation.starts_with("two leaders")), "{in_trials:?}");
}

#[test]
fn what_becomes_certain_after_a_trial_has_looked_back_is_found_at_the_end() {
    // b's later request comes in after the trial; before, its answer at 15.0 s may have been the only one.
    let b = [yes(7, 14_000, 14_500, 0), yes(7, 19_999, 20_001, 0)];
    let (in_trials, between) = found(
        vec![stopped_between(0, 20)],
        &[("a", &[yes(5, 14_100, 14_600, 0), yes(5, 19_000, 19_950, 0)]), ("b", &b)],
    );
    assert!(in_trials.is_empty(), "{in_trials:?}");
    assert!(between[0].starts_with("two leaders"), "{between:?}");
}

#[test]
fn a_theft_excuses_only_the_pairs_of_whom_it_robbed() {
    let trial = trial_of(&[Kind::KeyDeleted], Promise::Bounded);
    let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
    let ends = |reign: &Reign| match reign.leader.as_str() {
        "a" => Some(KeyEnd { gone: at(2_000), news: Some(at(2_005)) }),
        // It let go, or its lease ended, long before what it had promised was over.
        "b" => Some(KeyEnd { gone: at(5_990), news: Some(at(5_995)) }),
        _ => None,
    };
    let a = reign(STOLEN, 1_000, 2_030, 1000);
    let of = |b: &[Sample], c: &[Sample]| {
        look_back(&trial, &judged(&[("a", &a), ("b", b), ("c", c)]), ends, Duration::ZERO).violations
    };
    let (b, late) = (reign(7, 2_010, 5_500, 1000), reign(9, 6_600, 9_000, 1000));
    assert!(of(&b, &late).is_empty(), "a was robbed: {:?}", of(&b, &late));
    let early = of(&b, &reign(9, 6_000, 9_000, 1000));
    assert!(matches!(&early[..], [one] if one.starts_with("a promise was broken: c")), "{early:?}");
    let together = of(&reign(7, 2_010, 6_020, 0), &reign(9, 5_995, 9_000, 0));
    assert!(together.iter().any(|violation| violation.starts_with("two leaders")), "{together:?}");
}

#[test]
fn a_server_that_wakes_up_robs_nobody_before() {
    let trial = trial_of(&[Kind::EtcdLeaderStopped], Promise::Bounded);
    let of = |gone: u64| {
        let (first, second) = (reign(5, 1_000, gone + 30, 1000), reign(7, gone + 10, gone + 9_000, 1000));
        look_with(&trial, &first, &second, Some((gone, Some(5)))).violations
    };
    assert!(of(90_100).is_empty(), "{:?}", of(90_100));
    assert!(of(50_000).iter().any(|violation| violation.starts_with("a promise was broken")), "{:?}", of(50_000));
}
