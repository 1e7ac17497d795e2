//! What one sidecar answered, condensed as it comes: hours of polling in little memory, and nothing lost that the
//! judgement needs.

use std::time::Duration;

use support::{Moment, Outcome, Sample, State};

/// 200s further apart than this are written down as two stretches: the time between them counts as time without a
/// leader. Far above the interval of polling, far below a failover.
const COARSE: Duration = Duration::from_millis(100);
/// "5 ms or faster": what is counted as prompt.
const PROMPT: Duration = Duration::from_millis(5);

/// How a sidecar looked from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// 200.
    Leading,
    /// 503, in line.
    Standby,
    /// 503, not registered yet.
    Starting,
    /// 503, does not know whether it holds the lock.
    Jeopardy,
    /// 503, stops of its own will.
    StandingDown,
    /// No answer: stopped, starved, or about to die.
    Silent,
    /// Nobody listens.
    Down,
}

impl Look {
    /// Every look, in the order of the legend.
    pub const ALL: [Self; 7] =
        [Self::Leading, Self::Standby, Self::Jeopardy, Self::StandingDown, Self::Starting, Self::Silent, Self::Down];

    fn of(sample: &Sample) -> Self {
        match sample.outcome {
            Outcome::Answered(answer) if answer.status == 200 => Self::Leading,
            Outcome::Answered(answer) => match answer.state {
                State::Standby => Self::Standby,
                State::Jeopardy => Self::Jeopardy,
                State::StandingDown | State::Stopped => Self::StandingDown,
                // A view that says "leading" with a 503: `until` has passed, and the loop has not looked yet.
                State::Leading => Self::Jeopardy,
                State::Starting | State::Unknown => Self::Starting,
            },
            Outcome::Refused => Self::Down,
            Outcome::TimedOut | Outcome::Broken => Self::Silent,
        }
    }
}

/// A time in which a sidecar looked the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How.
    pub look: Look,
    /// The term of the 200s; of no meaning otherwise.
    pub term: (u64, u64),
    /// From.
    pub begin: Moment,
    /// To.
    pub end: Moment,
}

/// 200s of one sidecar in one term with nothing else in between. Of all its samples those are kept that a reign's
/// bounds are made of: the first, the last, and the one that promised farthest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// How many 200s.
    pub answers: u64,
    first: Sample,
    last: Sample,
    farthest: Sample,
}

impl Stretch {
    const fn of(sample: Sample) -> Self {
        Self { answers: 1, first: sample, last: sample, farthest: sample }
    }

    fn goes_on_with(&self, sample: &Sample) -> bool {
        term(&self.last) == term(sample) && sample.received.since(self.last.received) <= COARSE
    }

    fn add(&mut self, sample: Sample) {
        self.answers += 1;
        self.last = sample;
        if promised_until(&sample) > promised_until(&self.farthest) {
            self.farthest = sample;
        }
    }

    /// When its first 200 came in.
    pub const fn begin(&self) -> Moment {
        self.first.received
    }

    /// When its last 200 came in.
    pub const fn end(&self) -> Moment {
        self.last.received
    }

    /// Epoch, then term.
    pub fn term(&self) -> (u64, u64) {
        term(&self.first)
    }

    /// What a judgement of all its samples comes to.
    pub const fn decisive(&self) -> [Sample; 3] {
        [self.first, self.last, self.farthest]
    }
}

fn term(sample: &Sample) -> (u64, u64) {
    sample.leading().map_or((0, 0), |answer| (answer.epoch, answer.term))
}

/// At the earliest: from the sending.
fn promised_until(sample: &Sample) -> Moment {
    sample.sent.after(sample.leading().map_or(Duration::ZERO, |answer| answer.valid_for))
}

/// How closely a sidecar was looked at: from one request to the next, where the one before was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Requests.
    pub requests: u64,
    /// Intervals between requests.
    pub intervals: u64,
    /// Those of 5 ms or less.
    pub prompt: u64,
    /// The longest.
    pub longest: Duration,
}

impl Pace {
    /// Taken together.
    pub fn and(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            intervals: self.intervals + other.intervals,
            prompt: self.prompt + other.prompt,
            longest: self.longest.max(other.longest),
        }
    }
}

/// What one poller saw of one sidecar.
#[derive(Clone, Debug)]
pub struct Lane {
    /// The sidecar's identity.
    pub name: String,
    /// How it looked, without holes, in order.
    pub spans: Vec<Span>,
    /// Its 200s, in order.
    pub stretches: Vec<Stretch>,
    /// How closely it was looked at.
    pub pace: Pace,
    last: Option<Sample>,
}

impl Lane {
    /// Of this sidecar, nothing seen yet.
    pub fn new(name: &str) -> Self {
        let name = name.to_owned();
        Self { name, spans: Vec::new(), stretches: Vec::new(), pace: Pace::default(), last: None }
    }

    /// Takes in the next samples, in order.
    pub fn extend(&mut self, samples: &[Sample]) {
        for sample in samples {
            self.add(*sample);
        }
    }

    fn add(&mut self, sample: Sample) {
        self.keep_pace(&sample);
        let (look, term) = (Look::of(&sample), term(&sample));
        let before = self.last.map_or(sample.sent, |last| last.received);
        match self.spans.last_mut() {
            Some(span) if span.look == look && span.term == term => span.end = sample.received,
            Some(_) | None => self.spans.push(Span { look, term, begin: before, end: sample.received }),
        }
        if look == Look::Leading {
            let unbroken = self.last.is_some_and(|last| last.leading().is_some());
            match self.stretches.last_mut() {
                Some(stretch) if unbroken && stretch.goes_on_with(&sample) => stretch.add(sample),
                Some(_) | None => self.stretches.push(Stretch::of(sample)),
            }
        }
        self.last = Some(sample);
    }

    fn keep_pace(&mut self, sample: &Sample) {
        self.pace.requests += 1;
        if let Some(Sample { sent, outcome: Outcome::Answered(_), .. }) = self.last {
            let interval = sample.sent.since(sent);
            self.pace.intervals += 1;
            self.pace.prompt += u64::from(interval <= PROMPT);
            self.pace.longest = self.pace.longest.max(interval);
        }
    }

    /// The first stretch whose first request was sent at or after this moment, or the one that goes on beyond it.
    pub fn lead_since(&self, since: Moment) -> Option<&Stretch> {
        let first = self.stretches.partition_point(|stretch| stretch.last.sent < since);
        self.stretches.get(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixed::judge::tests::{no, silent, yes};

    fn lane(samples: &[Sample]) -> Lane {
        let mut lane = Lane::new("a");
        lane.extend(samples);
        lane
    }

    #[test]
    fn answers_in_one_term_are_one_stretch_and_one_span() {
        let lane = lane(&[yes(5, 0, 1, 900), yes(5, 4, 5, 1000), yes(5, 8, 9, 990)]);
        assert_eq!((lane.stretches.len(), lane.spans.len()), (1, 1));
        let stretch = lane.stretches[0];
        assert_eq!(stretch.answers, 3);
        assert_eq!(stretch.decisive(), [yes(5, 0, 1, 900), yes(5, 8, 9, 990), yes(5, 4, 5, 1000)]);
    }

    #[test]
    fn another_term_another_answer_and_a_hole_each_end_a_stretch() {
        assert_eq!(lane(&[yes(5, 0, 1, 0), yes(7, 4, 5, 0)]).stretches.len(), 2);
        assert_eq!(lane(&[yes(5, 0, 1, 0), no(4, 5), yes(5, 8, 9, 0)]).stretches.len(), 2);
        assert_eq!(lane(&[yes(5, 0, 1, 0), silent(4, 5), yes(5, 8, 9, 0)]).stretches.len(), 2);
        assert_eq!(lane(&[yes(5, 0, 1, 0), yes(5, 4, 500, 0)]).stretches.len(), 2);
    }

    #[test]
    fn spans_leave_no_hole() {
        let lane = lane(&[yes(5, 0, 1, 0), no(4, 5), no(8, 9), silent(12, 1012), yes(5, 1020, 1021, 0)]);
        assert_eq!(lane.spans.len(), 4);
        assert!(lane.spans.windows(2).all(|pair| pair[0].end == pair[1].begin));
    }

    #[test]
    fn a_lead_is_found_by_any_of_its_requests_sent_since() {
        let lane = lane(&[yes(5, 0, 1, 0), yes(5, 4, 5, 0), no(8, 9)]);
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        assert!(lane.lead_since(at(3)).is_some());
        assert!(lane.lead_since(at(5)).is_none());
    }

    #[test]
    fn the_pace_counts_intervals_after_answers_only() {
        let lane = lane(&[no(0, 1), no(4, 5), silent(14, 1014), no(1020, 1021)]);
        let expected = Pace { requests: 4, intervals: 2, prompt: 1, longest: Duration::from_millis(10) };
        assert_eq!(lane.pace, expected);
    }
}
