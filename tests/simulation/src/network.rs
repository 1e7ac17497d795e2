//! The network between candidates and members: what becomes of each message, and how long it takes.
//!
//! It knows nothing of what it carries. Conditions lie on one link or on all, in one direction or both, overlap, and
//! end by themselves. What a link has held back comes in a burst when it is whole again.

use std::time::Duration;

use crate::dice::Dice;

/// One message in this many takes long, of the ordinary ones…
const SLOW_ONE_IN: usize = 20;
/// …and in this many, very long: a segment lost twice.
const VERY_SLOW_ONE_IN: usize = 200;
/// One unary call in this many is lost, cut after it was applied, or repeated, even in fair weather.
const TROUBLE_ONE_IN: u64 = 300;

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the candidate to the member.
    To,
    /// From the member to the candidate.
    Back,
}

/// Which directions a condition is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ways {
    Both,
    /// The member hears nothing, and is heard.
    OnlyTo,
    /// The member hears, and is not heard.
    OnlyBack,
}

impl Ways {
    fn include(self, direction: Direction) -> bool {
        match self {
            Self::Both => true,
            Self::OnlyTo => direction == Direction::To,
            Self::OnlyBack => direction == Direction::Back,
        }
    }
}

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Nothing arrives and nothing is reported. What is held comes when the link is whole again.
    Cut { ways: Ways, hold: bool },
    /// Connections are refused.
    Refused,
    /// One message in two takes up to this long.
    Slow { ways: Ways, most: Duration },
    /// Every answer waits so long in a queue.
    Queued { delay: Duration },
    /// One unary call in this many is lost.
    Lossy { one_in: u64 },
    /// One request in two arrives twice.
    Repeating,
}

impl Condition {
    fn cuts(self, direction: Direction) -> bool {
        matches!(self, Self::Cut { ways, .. } if ways.include(direction))
    }
}

/// What becomes of a message that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Through,
    Lost,
    /// Until the link is whole again.
    Held,
    Refused,
}

/// A condition and its time.
#[derive(Debug)]
struct Laid {
    from: u64,
    until: u64,
    condition: Condition,
}

#[derive(Debug, Default)]
struct Link(Vec<Laid>);

/// All links.
#[derive(Debug)]
pub(crate) struct Network {
    links: Vec<Vec<Link>>,
    dice: Dice,
    calm: bool,
}

impl Network {
    pub(crate) fn new(seed: u64, candidates: usize, members: usize) -> Self {
        let links = (0..candidates).map(|_| (0..members).map(|_| Link::default()).collect()).collect();
        Self { links, dice: Dice::of(seed, "network"), calm: false }
    }

    /// From now on nothing is lost, and little is slow.
    pub(crate) fn heal(&mut self) {
        self.calm = true;
        self.links.iter_mut().flatten().for_each(|link| link.0.clear());
    }

    pub(crate) fn lay(&mut self, now: u64, node: usize, member: usize, lasts: u64, condition: Condition) {
        self.links[node][member].0.push(Laid { from: now, until: now + lasts, condition });
    }

    fn conditions(&self, now: u64, node: usize, member: usize) -> impl Iterator<Item = Condition> {
        self.links[node][member]
            .0
            .iter()
            .filter(move |laid| laid.from <= now && laid.until > now)
            .map(|laid| laid.condition)
    }

    /// Forgets conditions that are over.
    pub(crate) fn tidy(&mut self, now: u64, node: usize, member: usize) {
        self.links[node][member].0.retain(|laid| laid.until > now);
    }

    /// Whether nothing gets through in this direction, held back or not.
    pub(crate) fn is_cut(&self, now: u64, node: usize, member: usize, direction: Direction) -> bool {
        self.conditions(now, node, member).any(|condition| condition.cuts(direction))
    }

    /// Whether it has been cut all the time since then, or nearly: conditions that began later do not count.
    pub(crate) fn was_cut_since(&self, now: u64, since: u64, node: usize, member: usize, direction: Direction) -> bool {
        let began_then = |laid: &&Laid| laid.from <= since && laid.until > now;
        self.links[node][member].0.iter().filter(began_then).any(|laid| laid.condition.cuts(direction))
    }

    /// What becomes of a message that arrives now. `unary` ones can be lost one at a time; streams cannot.
    pub(crate) fn fate(&mut self, now: u64, node: usize, member: usize, direction: Direction, unary: bool) -> Fate {
        let (mut fate, mut lossy) = (Fate::Through, TROUBLE_ONE_IN);
        for condition in self.conditions(now, node, member) {
            match condition {
                Condition::Refused => return Fate::Refused,
                Condition::Cut { ways, hold } if ways.include(direction) => {
                    if !hold || fate == Fate::Lost {
                        fate = Fate::Lost;
                    } else {
                        fate = Fate::Held;
                    }
                }
                Condition::Lossy { one_in } => lossy = lossy.min(one_in),
                Condition::Cut { .. } | Condition::Slow { .. } | Condition::Queued { .. } | Condition::Repeating => {}
            }
        }
        let lost = fate == Fate::Through && unary && !self.calm && self.dice.once_in(lossy);
        if lost { Fate::Lost } else { fate }
    }

    /// How long a message takes that leaves now.
    pub(crate) fn delay(&mut self, now: u64, node: usize, member: usize, direction: Direction) -> u64 {
        let slow = self.conditions(now, node, member).filter_map(|condition| match condition {
            Condition::Slow { ways, most } if ways.include(direction) => Some((false, most / 20, most)),
            Condition::Queued { delay } if direction == Direction::Back => Some((true, delay, delay)),
            Condition::Slow { .. }
            | Condition::Queued { .. }
            | Condition::Cut { .. }
            | Condition::Refused
            | Condition::Lossy { .. }
            | Condition::Repeating => None,
        });
        if let Some((always, least, most)) = slow.max()
            && (always || self.dice.coin())
        {
            return self.dice.nanos(least, most);
        }
        let most = match self.dice.below(VERY_SLOW_ONE_IN) {
            0 if !self.calm => Duration::from_secs(4),
            1..=SLOW_EVERY => Duration::from_millis(if self.calm { 20 } else { 300 }),
            _ => Duration::from_millis(3),
        };
        self.dice.nanos(Duration::from_micros(100), most)
    }

    /// How much later a request arrives a second time, if it does.
    pub(crate) fn repeats(&mut self, now: u64, node: usize, member: usize, most: Duration) -> Option<u64> {
        let repeating = self.conditions(now, node, member).any(|condition| condition == Condition::Repeating);
        let again = if repeating { self.dice.coin() } else { !self.calm && self.dice.once_in(TROUBLE_ONE_IN) };
        again.then(|| self.dice.nanos(Duration::from_micros(200), most))
    }

    /// Whether the connection breaks while an answer is on its way.
    pub(crate) fn breaks(&mut self) -> bool {
        !self.calm && self.dice.once_in(TROUBLE_ONE_IN * 2)
    }
}

const SLOW_EVERY: usize = VERY_SLOW_ONE_IN / SLOW_ONE_IN;
