//! The fewest faults with which a failing run still breaks the same.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Failure, Play, play_guarded};
use crate::{Control, Scenario};

/// How many runs shrinking may take. A plan has some dozens of faults, of which two or three matter: halving down to
/// those takes about twice as many runs as there are faults, and the round that shows that none can go one for each
/// left. This is several times that, and some seconds.
const RUNS_MOST: u32 = 400;

/// A failing run with fewer faults.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The same violation, with as many faults left out as could be.
    pub failure: Failure,
    /// The faults that are left, by number.
    pub faults_left: Vec<usize>,
    /// How many runs it took.
    pub runs: u32,
    /// Whether it still fails with each single fault that is left, but for lack of runs or of patience nobody knows.
    pub is_minimal: bool,
}

/// Leaves out faults of a failing run, many at once first, as long as the same invariant breaks.
pub fn shrink(play: Play<'_>, failure: &Failure, control: Option<Control>, stop: &AtomicBool) -> Shrunk {
    let given = &failure.scenario.left_out;
    let left = (0..failure.faults_planned).filter(|fault| !given.contains(fault)).collect();
    let mut shrinking = Shrinking { play, control, stop, runs: 0, best: failure.clone(), left };
    let mut width = shrinking.left.len();
    let mut is_minimal = width == 0;
    while width > 0 {
        let Some(shorter) = shrinking.leave_out_each(width) else { break };
        // Without one fault another may have become superfluous, so the last round is one that changes nothing.
        is_minimal = width == 1 && !shorter;
        width = if width == 1 { usize::from(shorter) } else { width / 2 };
    }
    Shrunk { failure: shrinking.best, faults_left: shrinking.left, runs: shrinking.runs, is_minimal }
}

struct Shrinking<'a> {
    play: Play<'a>,
    control: Option<Control>,
    stop: &'a AtomicBool,
    runs: u32,
    best: Failure,
    left: Vec<usize>,
}

impl Shrinking<'_> {
    /// Tries to do without each `width` neighbours. Whether any could go; `None` when there is no run left.
    fn leave_out_each(&mut self, width: usize) -> Option<bool> {
        let (mut at, mut shorter) = (0, false);
        while at < self.left.len() {
            let end = (at + width).min(self.left.len());
            if self.breaks_without(at..end)? {
                self.left.drain(at..end);
                shorter = true;
            } else {
                at = end;
            }
        }
        Some(shorter)
    }

    fn breaks_without(&mut self, places: std::ops::Range<usize>) -> Option<bool> {
        if self.runs == RUNS_MOST || self.stop.load(Ordering::Relaxed) {
            return None;
        }
        self.runs += 1;
        let mut left_out = self.best.scenario.left_out.clone();
        left_out.extend(&self.left[places]);
        left_out.sort_unstable();
        let scenario = Scenario { left_out, ..self.best.scenario.clone() };
        let outcome = play_guarded(self.play, &scenario, self.control);
        let Err(violation) = outcome.verdict else { return Some(false) };
        let same = violation.invariant == self.best.violation.invariant;
        if same {
            self.best = Failure { scenario, violation, story: outcome.story, ..self.best.clone() };
        }
        Some(same)
    }
}
