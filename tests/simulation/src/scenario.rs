//! What a seed decides, and what comes of it.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bellwether::election::{PublicState, Reason};

use crate::world::World;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weather {
    /// Networks, processes, machines, clocks, etcd: the promise must hold at every instant.
    Storm,
    /// And operators who delete keys, put them, revoke leases: two may overlap by a watch event's delay.
    Operators,
    /// An etcd that revokes live leases of its own (#15247, second half): the same bound.
    OldRevokes,
    /// The leader's network fades: slow at first, then none.
    Fading,
    /// The lock is let go of and taken again in no time, while answers are late: what was true when it was said, and is
    /// not any more when it is heard.
    Handovers,
    /// Candidates that remember their term die and come back, soon or late, again and again, while what they have sent is
    /// still under way.
    Restarts,
    /// And somebody runs a second process on a copy of a candidate's memory: two go on with the same term for a while.
    Copies,
}

/// One run, whole: the same scenario gives the same outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// Everything else follows from it, the chances of the network included.
    pub seed: u64,
    /// What goes wrong.
    pub weather: Weather,
    /// The faults that are left out, by their number in the order of the seed's plan: how a failing seed is shrunk.
    pub left_out: Vec<usize>,
    /// Candidates have nothing beside their election, whatever the seed says: no work, no memory, no application.
    pub bare: bool,
}

impl Scenario {
    /// The whole plan of a seed.
    #[must_use]
    pub fn of_seed(seed: u64, weather: Weather) -> Self {
        Self { seed, weather, left_out: Vec::new(), bare: false }
    }
}

/// What a control takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// One of the candidate's own protections.
    Candidate(bellwether::protections::Protections),
    /// The driver publishes the view after the effects have been carried out.
    ViewAfterEffects,
    /// The confirming read leaves beside the keep-alive, not after its answer.
    ConfirmBeside,
    /// The time that work may take to stop is not taken off `until`.
    StopTimeKept,
}

/// What broke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The name of the function that says so, or `panic`.
    pub invariant: &'static str,
    /// Who, what, when.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {}", self.invariant, self.what)
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether everything held.
    pub verdict: Result<(), Violation>,
    /// One line per thing worth telling, in order, each with its time.
    pub story: Vec<String>,
    /// Figures.
    pub tally: Tally,
}

/// What happened, in numbers; of many runs, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Simulated time.
    pub simulated: Duration,
    /// How many inputs candidates have handled.
    pub turns: u64,
    /// How many faults there were in the plan: the range of [`Scenario::left_out`].
    pub faults_planned: usize,
    /// How often each kind of fault happened.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often each edge of the state machine was gone.
    pub transitions: BTreeMap<(PublicState, PublicState, Reason), u64>,
    /// How many terms were led.
    pub terms: u64,
    /// How long nobody led at most, from the heal on.
    pub leaderless_after_heal: Duration,
    /// Where the bound stands in for the promise: the longest overlap.
    pub overlap: Duration,
}

/// Plays a scenario, with a protection taken away or none.
///
/// A protection of the candidate can only be taken away in builds with the `sabotage` feature.
#[must_use]
pub fn run(scenario: &Scenario, control: Option<Control>) -> Outcome {
    let _given_back = TakenAway::from(control);
    let mut world = World::new(scenario, control);
    let played = catch_unwind(AssertUnwindSafe(|| world.play()));
    let panicked = played.err().map(|panic| Violation { invariant: "panic", what: words_of(&panic) });
    let World { story, tally, broken, .. } = world;
    Outcome { verdict: broken.or(panicked).map_or(Ok(()), Err), story, tally }
}

fn words_of(panic: &Box<dyn Any + Send>) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    words.unwrap_or("without words").to_owned()
}

/// A protection is away as long as this lives, on this thread.
struct TakenAway;

impl TakenAway {
    #[cfg(feature = "sabotage")]
    fn from(control: Option<Control>) -> Self {
        let protection = match control {
            Some(Control::Candidate(protection)) => Some(protection),
            Some(Control::ViewAfterEffects | Control::ConfirmBeside | Control::StopTimeKept) | None => None,
        };
        bellwether::protections::Protections::take_away(protection);
        Self
    }

    #[cfg(not(feature = "sabotage"))]
    fn from(control: Option<Control>) -> Self {
        let inside = matches!(control, Some(Control::Candidate(_)));
        assert!(!inside, "candidates keep their protections: build with the sabotage feature");
        Self
    }
}

impl Drop for TakenAway {
    fn drop(&mut self) {
        #[cfg(feature = "sabotage")]
        bellwether::protections::Protections::take_away(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::runner::WEATHERS;

    #[test]
    fn the_same_scenario_tells_the_same_story() {
        for weather in WEATHERS {
            let scenario = Scenario { left_out: vec![1, 4], ..Scenario::of_seed(3, weather) };
            let (one, other) = (run(&scenario, None), run(&scenario, None));
            assert_eq!(one.story, other.story);
            assert_eq!((one.verdict, one.tally), (other.verdict, other.tally));
        }
    }

    #[test]
    fn what_is_left_out_does_not_happen_and_the_plan_stays_what_it_is() {
        for weather in WEATHERS {
            let whole = run(&Scenario::of_seed(5, weather), None);
            let nothing =
                Scenario { left_out: (0..whole.tally.faults_planned).collect(), ..Scenario::of_seed(5, weather) };
            let quiet = run(&nothing, None);
            assert_eq!(quiet.tally.faults_planned, whole.tally.faults_planned);
            assert!(quiet.tally.faults.is_empty() && !whole.tally.faults.is_empty());
            assert_eq!(quiet.verdict, Ok(()));
        }
    }

    #[cfg(feature = "sabotage")]
    #[test]
    fn a_protection_is_given_back_after_the_run() {
        use bellwether::protections::Protections;
        let control = Some(Control::Candidate(Protections::NO_MARGIN));
        drop(run(&Scenario::of_seed(1, Weather::Fading), control));
        assert!(!Protections::NO_MARGIN.taken_away());
    }
}
