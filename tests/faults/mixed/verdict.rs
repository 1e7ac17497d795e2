//! What a judgement comes to: each pair of reigns in it is taken by the one trial in whose time it came to be as it is, or
//! by none. What no trial has taken is judged at the end, with nobody excused.

use std::iter::Sum;
use std::ops::Add;
use std::time::Duration;

use support::Moment;
use support::audit::Reign;

use super::judge::{Gap, Judgement, Overlap};
use super::limits::BETWEEN_TRIALS;
use super::theft::{Last, Theft};
use super::trial::Trial;
use super::witness::KeyEnd;

#[cfg(test)]
mod tests;

/// How long two led at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Together {
    /// Proven.
    pub certain: Duration,
    /// For all that was seen.
    pub possible: Duration,
}

impl Add for Together {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { certain: self.certain + other.certain, possible: self.possible + other.possible }
    }
}

impl Sum for Together {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// What was seen in a trial.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Reigns that began.
    pub failovers: usize,
    /// How long two led at once of whom the first had not been robbed.
    pub together: Together,
    /// How long they did where it had been.
    pub stolen: Together,
    /// The pairs of which the trial has judged.
    pub taken: Vec<Pair>,
    /// The longest time in which nobody was seen to lead.
    pub leaderless: Duration,
    /// For how long the machine had no processor for this process: so much longer it may take.
    pub held_up: Duration,
    /// Guarded increments lost.
    pub lost: u64,
    /// The lock, taken from a leader that had not let it go.
    pub thefts: Vec<Theft>,
    /// What must not be.
    pub violations: Vec<String>,
}

/// What belongs to no trial.
#[derive(Clone, Debug, Default)]
pub struct Between {
    /// Reigns that began.
    pub reigns: usize,
    /// How long two led at once.
    pub together: Together,
    /// The longest time in which nobody was seen to lead.
    pub leaderless: Duration,
    /// What must not be, and since when it is known.
    pub violations: Vec<(Moment, String)>,
}

impl Between {
    /// Takes in what another act had.
    pub fn add(&mut self, other: &Self) {
        self.reigns += other.reigns;
        self.together = self.together + other.together;
        self.leaderless = self.leaderless.max(other.leaderless);
        self.violations.extend_from_slice(&other.violations);
    }
}

/// What there is to say against two reigns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Charge {
    Overlap,
    /// Two may have led at once; it counts, and violates nothing.
    PossibleOverlap,
    BrokenPromise,
    FallenTerm,
}

/// Two reigns with something to say against them.
#[derive(Clone, Debug)]
pub struct Pair {
    charge: Charge,
    /// The one that began earlier; with a fallen term, the one that was over.
    first: Reign,
    second: Reign,
    together: Together,
    /// When the last answer came in that makes it what it is. It moves on with each answer that makes it worse, such as that
    /// of an old leader long after its successor's first.
    known: Moment,
}

impl Pair {
    fn of_overlap(overlap: &Overlap) -> Self {
        let Overlap { first, second, is_certain, certain, possible } = overlap.clone();
        let charge = if is_certain { Charge::Overlap } else { Charge::PossibleOverlap };
        // Two in one term contradict each other though one was over: that is known with the later one's first answer.
        let known = first.end_latest.min(second.end_latest).max(first.begin_latest).max(second.begin_latest);
        Self { charge, first, second, together: Together { certain, possible }, known }
    }

    fn of_broken_promise((one, other): &(Reign, Reign)) -> Self {
        let (first, second) = if one.begin_earliest <= other.begin_earliest { (one, other) } else { (other, one) };
        let (first, second) = (first.clone(), second.clone());
        let known = first.end_latest.max(second.begin_latest);
        Self { charge: Charge::BrokenPromise, first, second, together: Together::default(), known }
    }

    fn of_fallen_term((first, second): &(Reign, Reign)) -> Self {
        let (first, second) = (first.clone(), second.clone());
        let known = second.begin_latest;
        Self { charge: Charge::FallenTerm, first, second, together: Together::default(), known }
    }

    fn all(judgement: &Judgement) -> impl Iterator<Item = Self> {
        let audit = &judgement.audit;
        let overlaps = judgement.overlaps.iter().map(Self::of_overlap);
        let promises = audit.broken_promises.iter().map(Self::of_broken_promise);
        overlaps.chain(promises).chain(audit.terms_not_growing.iter().map(Self::of_fallen_term))
    }

    /// Whether an earlier judgement said the same: as bad as this, and for no shorter time.
    fn is_as(&self, earlier: &Self) -> bool {
        let id = |pair: &Self| {
            let who = |reign: &Reign| (reign.leader.clone(), reign.term);
            (pair.charge, who(&pair.first), who(&pair.second), pair.known)
        };
        id(self) == id(earlier)
    }

    /// Whether the lock having been taken from the first accounts for it: how long the first goes on leading then has a
    /// bound of its own. A term must grow whatever happens.
    const fn can_be_by_theft(&self) -> bool {
        match self.charge {
            Charge::Overlap | Charge::PossibleOverlap | Charge::BrokenPromise => true,
            Charge::FallenTerm => false,
        }
    }

    /// The violation that it is, if nobody is excused.
    fn violation(&self) -> Option<String> {
        let (first, second, certain) = (who(&self.first), who(&self.second), self.together.certain);
        match self.charge {
            Charge::Overlap => {
                Some(format!("two leaders at one instant, for {certain:?} at least: {first} and {second}"))
            }
            Charge::PossibleOverlap => None,
            Charge::BrokenPromise => {
                let early = self.first.promised_until.since(self.second.begin_latest);
                Some(format!(
                    "a promise was broken: {second} came {early:?} before the last answer of {first} had expired"
                ))
            }
            Charge::FallenTerm => Some(format!("the term did not grow: {first}, then {second}")),
        }
    }
}

/// What the judgement says of the time of this trial, and when the key of each reign was gone.
pub fn look_back(
    trial: &Trial,
    judgement: &Judgement,
    key_end: impl Fn(&Reign) -> Option<KeyEnd>,
    held_up: Duration,
) -> Seen {
    let failovers = judgement.audit.reigns.iter().filter(|reign| trial.covers(reign.begin_latest)).count();
    let mut seen = Seen { failovers, held_up, ..Seen::default() };
    for pair in Pair::all(judgement).filter(|pair| trial.covers(pair.known)) {
        if pair.can_be_by_theft() && trial.took(&pair.first, key_end(&pair.first)) {
            seen.stolen = seen.stolen + pair.together;
        } else {
            seen.together = seen.together + pair.together;
            seen.violations.extend(pair.violation());
        }
        seen.taken.push(pair);
    }
    for reign in &judgement.audit.reigns {
        if let Some(end) = key_end(reign).filter(|end| trial.covers(last_known(reign, *end))) {
            let last = Last::of(reign, end, trial.hits(&reign.leader), held_up);
            seen.violations.extend(last.excess());
            seen.thefts.extend(last.theft());
        }
    }
    let gaps = judgement.gaps.iter().filter(|gap| trial.covers(gap.end));
    seen.leaderless = gaps.map(Gap::lasted).max().unwrap_or_default();
    if seen.leaderless > trial.bound + held_up {
        seen.violations.push(format!(
            "nobody led for {:?}, and the bound is {:?}, the machine having held us up for {held_up:?}",
            seen.leaderless, trial.bound
        ));
    }
    seen
}

/// What the final judgement of an act says that none of its trials has taken. `held_up`: for how long the machine had no
/// processor for this process between two moments.
pub fn look_between(
    trials: &[Trial],
    judgement: &Judgement,
    key_end: impl Fn(&Reign) -> Option<KeyEnd>,
    held_up: impl Fn(Moment, Moment) -> Duration,
) -> Between {
    let is_between = |moment: Moment| !trials.iter().any(|trial| trial.covers(moment));
    let reigns = judgement.audit.reigns.iter().filter(|reign| is_between(reign.begin_latest)).count();
    let mut between = Between { reigns, ..Between::default() };
    // What a trial has taken, not what is of its time: an answer may have come in after it had looked back.
    let is_taken = |pair: &Pair| trials.iter().flat_map(|trial| &trial.seen.taken).any(|taken| pair.is_as(taken));
    for pair in Pair::all(judgement).filter(|pair| !is_taken(pair)) {
        between.together = between.together + pair.together;
        between.violations.extend(pair.violation().map(|violation| (pair.known, violation)));
    }
    for reign in &judgement.audit.reigns {
        if let Some(end) = key_end(reign).filter(|end| is_between(last_known(reign, *end))) {
            // What the fault before has left may still keep the news from it, so `until` is the bound.
            let last = Last::of(reign, end, true, Duration::ZERO);
            between.violations.extend(last.excess().map(|excess| (last_known(reign, end), excess)));
        }
    }
    for gap in judgement.gaps.iter().filter(|gap| is_between(gap.end)) {
        between.leaderless = between.leaderless.max(gap.lasted());
        if gap.lasted() > BETWEEN_TRIALS + held_up(gap.begin, gap.end) {
            let violation = format!("nobody led for {:?}, and the bound is {BETWEEN_TRIALS:?}", gap.lasted());
            between.violations.push((gap.end, violation));
        }
    }
    between
}

/// When it was known how long the leader went on after its key was gone.
fn last_known(reign: &Reign, end: KeyEnd) -> Moment {
    reign.end_latest.max(end.gone)
}

/// A reign, in words.
pub fn who(reign: &Reign) -> String {
    format!("{} in term {}.{}", reign.leader, reign.term.0, reign.term.1)
}
