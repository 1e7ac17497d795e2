//! Judges what pollers saw: can all of it have happened with at most one leader at any instant?
//!
//! A sample proves only this: the sidecar answered at *some* instant between sending and receiving. So a
//! violation is reported only where no choice of those instants is innocent, and what remains open is counted
//! apart. The reasoning is about reigns: all 200s of one sidecar in one term. The lock key of a term exists for
//! one stretch of time, so of two reigns one must be over before the other begins, even when the sidecar was
//! silent in between.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::moment::Moment;
use crate::poller::Sample;

/// All 200s of one sidecar in one term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reign {
    /// Who.
    pub leader: String,
    /// Epoch, then term.
    pub term: (u64, u64),
    /// How many 200s.
    pub answers: usize,
    /// When the first 200 can have been answered at the earliest: its sending.
    pub begin_earliest: Moment,
    /// And at the latest: the earliest receiving.
    pub begin_latest: Moment,
    /// When the last 200 can have been answered at the earliest: the latest sending.
    pub end_earliest: Moment,
    /// And at the latest: its receiving.
    pub end_latest: Moment,
    /// Until when the sidecar promised, counted from the sendings, so as early as can be.
    pub promised_until: Moment,
}

impl Reign {
    fn of(leader: &str, term: (u64, u64), sample: &Sample, valid_for: Duration) -> Self {
        Self {
            leader: leader.to_owned(),
            term,
            answers: 1,
            begin_earliest: sample.sent,
            begin_latest: sample.received,
            end_earliest: sample.sent,
            end_latest: sample.received,
            promised_until: sample.sent.after(valid_for),
        }
    }

    fn add(&mut self, other: &Self) {
        self.answers += other.answers;
        self.begin_earliest = self.begin_earliest.min(other.begin_earliest);
        self.begin_latest = self.begin_latest.min(other.begin_latest);
        self.end_earliest = self.end_earliest.max(other.end_earliest);
        self.end_latest = self.end_latest.max(other.end_latest);
        self.promised_until = self.promised_until.max(other.promised_until);
    }

    /// Whether this reign can have been over before the other began.
    fn can_precede(&self, other: &Self) -> bool {
        self.end_earliest < other.begin_latest
    }

    /// Whether it was over before the other began, whatever the instants.
    fn surely_precedes(&self, other: &Self) -> bool {
        self.end_latest <= other.begin_earliest
    }
}

impl fmt::Display for Reign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (epoch, term) = self.term;
        write!(f, "{} in term {epoch}.{term} ({} × 200)", self.leader, self.answers)
    }
}

/// One reign followed by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// Who led.
    pub from: String,
    /// Who leads now.
    pub to: String,
    /// From the last 200 of the old to the first 200 of the new, as a client saw them come in.
    pub gap: Duration,
}

/// What the samples prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// How many requests were looked at.
    pub samples: usize,
    /// How many of them were answered with 200.
    pub leading_samples: usize,
    /// The reigns, in order of time.
    pub reigns: Vec<Reign>,
    /// Pairs of reigns that cannot have been one after the other: two leaders at one instant, proven.
    pub overlaps: Vec<(Reign, Reign)>,
    /// Pairs of reigns that can have been one after the other, but whose samples are too coarse to prove it.
    pub undecided: usize,
    /// A 200 of the second while a 200 of the first was still valid, proven. Expected only where the holder did
    /// not let the lock go: an operator deleted the key.
    pub broken_promises: Vec<(Reign, Reign)>,
    /// A reign followed by one whose term is not higher.
    pub terms_not_growing: Vec<(Reign, Reign)>,
    /// The changes of leader.
    pub takeovers: Vec<Takeover>,
    /// The longest time between two 200s coming in, from whomever. The time before the first and after the last
    /// does not count.
    pub longest_without_leader: Duration,
}

impl Audit {
    /// At most one led at any instant, as far as can be proven, and terms only grew.
    #[must_use]
    pub fn one_leader_at_a_time(&self) -> bool {
        self.overlaps.is_empty() && self.terms_not_growing.is_empty()
    }

    /// The whole promise: one leader at a time, and nobody took over before the last answer had expired.
    #[must_use]
    pub fn keeps_the_promise(&self) -> bool {
        self.one_leader_at_a_time() && self.broken_promises.is_empty()
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} samples, {} of them 200, {} reigns; overlaps: {}, undecided: {}, broken promises: {}, \
             terms not growing: {}; longest time between two 200s: {:.3} s",
            self.samples,
            self.leading_samples,
            self.reigns.len(),
            self.overlaps.len(),
            self.undecided,
            self.broken_promises.len(),
            self.terms_not_growing.len(),
            self.longest_without_leader.as_secs_f64(),
        )?;
        let violations = [
            ("two leaders at one instant", &self.overlaps),
            ("a promise was broken", &self.broken_promises),
            ("the term did not grow", &self.terms_not_growing),
        ];
        for (what, pairs) in violations {
            for (first, second) in pairs {
                write!(f, "\n  {what}: {first} and {second}")?;
            }
        }
        Ok(())
    }
}

/// Judges the samples of all sidecars of one election, given by identity. One identity may come more than once,
/// from several pollers.
#[must_use]
pub fn audit<'a>(samples: impl IntoIterator<Item = (&'a str, &'a [Sample])>) -> Audit {
    let mut result = Audit::default();
    let mut reigns: BTreeMap<(String, (u64, u64)), Reign> = BTreeMap::new();
    let mut arrivals = Vec::new();
    for (leader, samples) in samples {
        result.samples += samples.len();
        for sample in samples {
            let Some(answer) = sample.leading() else { continue };
            result.leading_samples += 1;
            arrivals.push(sample.received);
            let term = (answer.epoch, answer.term);
            let reign = Reign::of(leader, term, sample, answer.valid_for);
            reigns.entry((leader.to_owned(), term)).and_modify(|known| known.add(&reign)).or_insert(reign);
        }
    }
    arrivals.sort_unstable();
    result.longest_without_leader =
        arrivals.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or(Duration::ZERO);
    result.reigns = reigns.into_values().collect();
    result.reigns.sort_by_key(|reign| (reign.end_earliest, reign.begin_latest));
    judge_pairs(&mut result);
    result
}

fn judge_pairs(result: &mut Audit) {
    for (place, second) in result.reigns.iter().enumerate() {
        for first in &result.reigns[..place] {
            // One sidecar in two terms is one answerer: it cannot contradict itself, only the order of terms.
            if first.leader != second.leader {
                let pair = || (first.clone(), second.clone());
                if first.term == second.term || !(first.can_precede(second) || second.can_precede(first)) {
                    result.overlaps.push(pair());
                } else if !first.surely_precedes(second) && !second.surely_precedes(first) {
                    result.undecided += 1;
                }
                if second.begin_latest < first.promised_until {
                    result.broken_promises.push(pair());
                }
            }
            if second.term <= first.term && first.surely_precedes(second) {
                result.terms_not_growing.push((first.clone(), second.clone()));
            }
        }
    }
    result.takeovers = result
        .reigns
        .windows(2)
        .map(|pair| Takeover {
            from: pair[0].leader.clone(),
            to: pair[1].leader.clone(),
            gap: pair[1].begin_latest.since(pair[0].end_latest),
        })
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poller::{Answer, Outcome, State};

    /// A 200 in this term, sent and received at these milliseconds, valid for so many.
    fn yes(term: u64, sent: u64, received: u64, valid_for: u64) -> Sample {
        let valid_for = Duration::from_millis(valid_for);
        let answer = Answer { status: 200, epoch: 0, term, valid_for, state: State::Leading };
        sample(sent, received, Outcome::Answered(answer))
    }

    fn no(sent: u64, received: u64) -> Sample {
        let valid_for = Duration::ZERO;
        let answer = Answer { status: 503, epoch: 0, term: 9, valid_for, state: State::Standby };
        sample(sent, received, Outcome::Answered(answer))
    }

    fn sample(sent: u64, received: u64, outcome: Outcome) -> Sample {
        let at = |millis| Moment::from_nanos(millis * 1_000_000);
        Sample { sent: at(sent), received: at(received), outcome }
    }

    fn judge(a: &[Sample], b: &[Sample]) -> Audit {
        audit([("a", a), ("b", b)])
    }

    #[test]
    fn one_leader_after_the_other_is_clean() {
        let audit = judge(&[yes(5, 0, 1, 0), yes(5, 10, 11, 0), no(20, 21)], &[no(0, 1), yes(7, 30, 31, 0)]);
        assert!(audit.keeps_the_promise(), "{audit}");
        assert_eq!((audit.samples, audit.leading_samples, audit.undecided), (5, 3, 0));
        assert_eq!(audit.longest_without_leader, Duration::from_millis(20));
        let expected = Takeover { from: "a".into(), to: "b".into(), gap: Duration::from_millis(20) };
        assert_eq!(audit.takeovers, [expected]);
    }

    #[test]
    fn a_leader_between_two_answers_of_another_is_an_overlap() {
        let audit = judge(&[yes(5, 0, 1, 0), yes(5, 20, 21, 0)], &[yes(7, 10, 11, 0)]);
        assert_eq!(audit.overlaps.len(), 1, "{audit}");
    }

    #[test]
    fn requests_in_flight_together_prove_nothing() {
        let audit = judge(&[yes(5, 0, 10, 0)], &[yes(7, 5, 15, 0)]);
        assert!(audit.one_leader_at_a_time(), "{audit}");
        assert_eq!(audit.undecided, 1);
    }

    #[test]
    fn a_long_request_around_a_whole_foreign_reign_is_undecided_not_proven() {
        let audit = judge(&[yes(5, 0, 100, 0)], &[yes(7, 40, 41, 0)]);
        assert!(audit.overlaps.is_empty(), "{audit}");
        assert_eq!(audit.undecided, 1);
    }

    #[test]
    fn crossed_answers_are_an_overlap_though_no_single_pair_is() {
        // a can answer at 0 and b at 10 only in one order, and the other pair forces the other order.
        let a = [yes(5, 0, 1, 0), yes(5, 20, 30, 0)];
        let b = [yes(7, 2, 19, 0), yes(7, 25, 35, 0)];
        assert_eq!(judge(&a, &b).overlaps.len(), 1);
    }

    #[test]
    fn one_term_with_two_leaders_is_an_overlap_whatever_the_times() {
        let audit = judge(&[yes(5, 0, 1, 0)], &[yes(5, 1000, 1001, 0)]);
        assert_eq!(audit.overlaps.len(), 1, "{audit}");
    }

    #[test]
    fn the_same_term_resumed_is_one_reign() {
        let audit = judge(&[yes(5, 0, 1, 0), no(10, 11), yes(5, 20, 21, 0)], &[]);
        assert_eq!(audit.reigns.len(), 1);
        assert!(audit.keeps_the_promise());
        assert!(audit.takeovers.is_empty());
    }

    #[test]
    fn a_takeover_within_the_validity_of_the_last_answer_breaks_a_promise() {
        let audit = judge(&[yes(5, 0, 1, 1000)], &[yes(7, 500, 501, 1000)]);
        assert!(audit.one_leader_at_a_time());
        assert_eq!(audit.broken_promises.len(), 1, "{audit}");
        assert!(judge(&[yes(5, 0, 1, 1000)], &[yes(7, 1000, 1001, 0)]).keeps_the_promise());
    }

    #[test]
    fn a_term_that_does_not_grow_is_found_for_one_sidecar_too() {
        assert_eq!(judge(&[yes(7, 0, 1, 0)], &[yes(5, 10, 11, 0)]).terms_not_growing.len(), 1);
        assert_eq!(judge(&[yes(7, 0, 1, 0), yes(5, 10, 11, 0)], &[]).terms_not_growing.len(), 1);
    }

    #[test]
    fn a_higher_epoch_outweighs_a_lower_term() {
        let mut restored = yes(5, 10, 11, 0);
        if let Outcome::Answered(answer) = &mut restored.outcome {
            answer.epoch = 1;
        }
        assert!(judge(&[yes(7, 0, 1, 0)], &[restored]).keeps_the_promise());
    }

    #[test]
    fn nothing_seen_is_no_leader() {
        let audit = judge(&[], &[]);
        assert_eq!((audit.samples, audit.reigns.len()), (0, 0));
    }
}
