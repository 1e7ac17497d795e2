//! The judgement by intervals over condensed lanes.
//!
//! Each 200 was answered between the sending of its request and the receiving of the answer, nobody knows when. So
//! what is *certain* (no choice of those instants is innocent) and what is only *possible* are two numbers. The
//! reasoning about reigns is [`support::audit`]'s; here it gets the decisive samples of every stretch, which is as
//! good as all of them, and its pairs are measured.

use std::time::Duration;

use support::audit::Reign;
use support::{Audit, Moment, audit};

use super::lane::{Lane, Stretch};

/// Two reigns of different sidecars that were, or may have been, at one time.
#[derive(Clone, Debug)]
pub struct Overlap {
    /// The one that began earlier.
    pub first: Reign,
    /// The one that began later.
    pub second: Reign,
    /// No choice of instants puts one before the other.
    pub is_certain: bool,
    /// For at least so long. Zero for an overlap that is certain in one instant only.
    pub certain: Duration,
    /// For at most so long.
    pub possible: Duration,
}

impl Overlap {
    fn of(a: &Reign, b: &Reign, is_certain: bool) -> Self {
        let (first, second) = if a.begin_earliest <= b.begin_earliest { (a, b) } else { (b, a) };
        let certain = first.end_earliest.min(second.end_earliest).since(first.begin_latest.max(second.begin_latest));
        let possible = first.end_latest.min(second.end_latest).since(second.begin_earliest);
        Self { first: first.clone(), second: second.clone(), is_certain, certain, possible }
    }
}

/// A time in which nobody was seen to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The last 200 before came in.
    pub begin: Moment,
    /// The first 200 after came in.
    pub end: Moment,
}

impl Gap {
    /// How long it was.
    pub const fn lasted(&self) -> Duration {
        self.end.since(self.begin)
    }
}

/// What the lanes prove.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// Over all of it.
    pub audit: Audit,
    /// Certain and possible ones.
    pub overlaps: Vec<Overlap>,
    /// Times without a leader that are longer than polling is coarse, in order.
    pub gaps: Vec<Gap>,
    /// How many requests were answered with 200.
    pub leading: u64,
}

/// Judges what was seen. One sidecar may have several lanes.
pub fn judge(lanes: &[&Lane]) -> Judgement {
    let decisive: Vec<_> = lanes
        .iter()
        .map(|lane| {
            let samples: Vec<_> = lane.stretches.iter().flat_map(Stretch::decisive).collect();
            (lane.name.as_str(), samples)
        })
        .collect();
    let audit = audit(decisive.iter().map(|(name, samples)| (*name, samples.as_slice())));
    let leading = lanes.iter().flat_map(|lane| &lane.stretches).map(|stretch| stretch.answers).sum();
    Judgement { overlaps: overlaps(&audit), gaps: gaps(lanes), leading, audit }
}

fn overlaps(audit: &Audit) -> Vec<Overlap> {
    let mut overlaps: Vec<_> = audit.overlaps.iter().map(|(a, b)| Overlap::of(a, b, true)).collect();
    let is_known = |overlaps: &[Overlap], candidate: &Overlap| {
        overlaps.iter().any(|it| it.first == candidate.first && it.second == candidate.second)
    };
    for (place, b) in audit.reigns.iter().enumerate() {
        for a in audit.reigns[..place].iter().filter(|a| a.leader != b.leader) {
            let candidate = Overlap::of(a, b, false);
            if !candidate.possible.is_zero() && !is_known(&overlaps, &candidate) {
                overlaps.push(candidate);
            }
        }
    }
    overlaps
}

fn gaps(lanes: &[&Lane]) -> Vec<Gap> {
    let mut times: Vec<_> =
        lanes.iter().flat_map(|lane| &lane.stretches).map(|stretch| (stretch.begin(), stretch.end())).collect();
    times.sort_unstable();
    let mut gaps = Vec::new();
    let mut covered: Option<Moment> = None;
    for (begin, end) in times {
        if let Some(covered) = covered
            && begin > covered
        {
            gaps.push(Gap { begin: covered, end: begin });
        }
        covered = Some(covered.map_or(end, |covered| covered.max(end)));
    }
    gaps
}

#[cfg(test)]
pub mod tests {
    use support::{Answer, Outcome, Sample, State};

    use super::*;
    use crate::mixed::random::Random;

    const fn at(millis: u64) -> Moment {
        Moment::from_nanos(millis * 1_000_000)
    }

    /// A 200 in this term, sent and received at these milliseconds, valid for so many.
    pub const fn yes(term: u64, sent: u64, received: u64, valid_for: u64) -> Sample {
        let valid_for = Duration::from_millis(valid_for);
        let answer = Answer { status: 200, epoch: 0, term, valid_for, state: State::Leading };
        Sample { sent: at(sent), received: at(received), outcome: Outcome::Answered(answer) }
    }

    /// A standby's 503.
    pub const fn no(sent: u64, received: u64) -> Sample {
        let answer = Answer { status: 503, epoch: 0, term: 9, valid_for: Duration::ZERO, state: State::Standby };
        Sample { sent: at(sent), received: at(received), outcome: Outcome::Answered(answer) }
    }

    /// No answer.
    pub const fn silent(sent: u64, received: u64) -> Sample {
        Sample { sent: at(sent), received: at(received), outcome: Outcome::TimedOut }
    }

    fn lane(name: &str, samples: &[Sample]) -> Lane {
        let mut lane = Lane::new(name);
        lane.extend(samples);
        lane
    }

    fn judged(a: &[Sample], b: &[Sample]) -> Judgement {
        judge(&[&lane("a", a), &lane("b", b)])
    }

    /// An answer every 4 ms from `begin` to `end`.
    fn reign(term: u64, begin: u64, end: u64, valid_for: u64) -> Vec<Sample> {
        (begin..end).step_by(4).map(|sent| yes(term, sent, sent + 1, valid_for)).collect()
    }

    #[test]
    fn a_planted_overlap_is_found_and_measured() {
        let judgement = judged(&reign(5, 0, 1000, 0), &reign(7, 600, 2000, 0));
        let [overlap] = judgement.overlaps.as_slice() else { panic!("{judgement:?}") };
        assert!(overlap.is_certain);
        assert_eq!((overlap.first.leader.as_str(), overlap.second.leader.as_str()), ("a", "b"));
        // a's last request is sent at 996 and answered by 997; b's first is sent at 600 and answered by 601.
        assert_eq!(overlap.certain, Duration::from_millis(996 - 601));
        assert_eq!(overlap.possible, Duration::from_millis(997 - 600));
    }

    #[test]
    fn one_stray_answer_of_a_leader_of_before_is_found() {
        // Thawed after its successor has led for a while, it says 200 once.
        let mut a = reign(5, 0, 100, 0);
        a.extend([silent(100, 1100), yes(5, 5000, 5001, 0), no(5004, 5005)]);
        let judgement = judged(&a, &reign(7, 4000, 6000, 0));
        let [overlap] = judgement.overlaps.as_slice() else { panic!("{judgement:?}") };
        assert!(overlap.is_certain);
        assert_eq!(overlap.certain, Duration::from_millis(5000 - 4001));
    }

    #[test]
    fn requests_that_were_under_way_together_are_a_possible_overlap_only() {
        let mut a = reign(5, 0, 100, 0);
        a.push(yes(5, 100, 180, 0));
        let judgement = judged(&a, &reign(7, 150, 400, 0));
        let [overlap] = judgement.overlaps.as_slice() else { panic!("{judgement:?}") };
        assert!(!overlap.is_certain);
        assert_eq!((overlap.certain, overlap.possible), (Duration::ZERO, Duration::from_millis(30)));
        assert!(judgement.audit.one_leader_at_a_time());
    }

    #[test]
    fn one_after_the_other_is_no_overlap_and_the_time_between_them_a_gap() {
        let judgement = judged(&reign(5, 0, 1000, 0), &reign(7, 1500, 2000, 0));
        assert!(judgement.overlaps.is_empty() && judgement.audit.keeps_the_promise());
        assert_eq!(judgement.gaps, [Gap { begin: at(997), end: at(1501) }]);
    }

    #[test]
    fn a_successor_within_the_validity_of_the_last_answer_breaks_a_promise() {
        let judgement = judged(&reign(5, 0, 1000, 700), &reign(7, 1500, 2000, 0));
        assert!(judgement.overlaps.is_empty());
        assert_eq!(judgement.audit.broken_promises.len(), 1);
    }

    #[test]
    fn a_term_that_is_lower_than_one_before_is_found() {
        assert_eq!(judged(&reign(7, 0, 100, 0), &reign(5, 200, 300, 0)).audit.terms_not_growing.len(), 1);
    }

    #[test]
    fn a_leader_that_is_silent_for_a_while_leaves_a_gap_in_its_own_reign() {
        let mut a = reign(5, 0, 100, 0);
        a.push(silent(100, 700));
        a.extend(reign(5, 700, 800, 0));
        assert_eq!(judged(&a, &[]).gaps, [Gap { begin: at(97), end: at(701) }]);
    }

    /// Whatever two sidecars answer, condensing changes nothing of the verdict.
    #[test]
    fn condensed_lanes_are_judged_as_all_their_samples_are() {
        let mut random = Random::seeded(20_261_122);
        let mut guilty = 0;
        for _ in 0..2000 {
            let (a, b) = (any_samples(&mut random), any_samples(&mut random));
            let whole = audit([("a", a.as_slice()), ("b", b.as_slice())]);
            let condensed = judged(&a, &b);
            let counts = |audit: &Audit| {
                let pairs = [&audit.overlaps, &audit.broken_promises, &audit.terms_not_growing].map(Vec::len);
                (pairs, audit.undecided, audit.reigns.len())
            };
            assert_eq!(counts(&whole), counts(&condensed.audit), "{a:?}\n{b:?}");
            guilty += usize::from(!whole.keeps_the_promise());
        }
        assert!((200..1800).contains(&guilty), "both verdicts must come, {guilty} of 2000 were guilty");
    }

    fn any_samples(random: &mut Random) -> Vec<Sample> {
        let mut now = u64::try_from(random.below(400)).unwrap();
        let mut term = u64::try_from(random.below(3)).unwrap();
        let mut some = |bound: usize| u64::try_from(random.below(bound)).unwrap();
        let mut samples = Vec::new();
        for _ in 0..some(12) {
            let (sent, received) = (now + some(20), now + 20 + some(60));
            term += u64::from(some(4) == 0);
            samples.push(if some(3) == 0 { no(sent, received) } else { yes(term, sent, received, some(150)) });
            now = received + some(120);
        }
        samples
    }
}
