//! From single answers to a judgement: thresholds and the grace at the start. No IO, no clock.

use crate::config::Thresholds;
use crate::election::{AppHealth, Instant};

/// What has been made of the answers so far.
#[derive(Debug)]
pub(super) struct Verdict {
    thresholds: Thresholds,
    standing: Standing,
    /// Answers in a row that speak against the standing.
    against: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Never healthy yet, and not given up on before this.
    Starting {
        grace_ends: Instant,
    },
    Judged(AppHealth),
}

impl Verdict {
    /// The application may have just been started.
    pub(super) fn new(thresholds: Thresholds, now: Instant) -> Self {
        let standing = Standing::Starting { grace_ends: now.after(thresholds.start_grace) };
        Self { thresholds, standing, against: 0 }
    }

    /// Takes one answer into account, and returns the judgement if it is another than before.
    ///
    /// The grace ends with the first judgement, as with a startup probe of Kubernetes: who has been healthy is not
    /// starting any more.
    pub(super) fn hear(&mut self, now: Instant, answer_is_good: bool) -> Option<AppHealth> {
        let (wanted, needed) = match self.standing {
            Standing::Starting { grace_ends } if !answer_is_good && now >= grace_ends => {
                return Some(self.judge(AppHealth::Unhealthy));
            }
            Standing::Starting { .. } | Standing::Judged(AppHealth::Unhealthy) => {
                (AppHealth::Healthy, self.thresholds.successes)
            }
            Standing::Judged(AppHealth::Healthy) => (AppHealth::Unhealthy, self.thresholds.failures),
        };
        let speaks_against = answer_is_good == (wanted == AppHealth::Healthy);
        self.against = if speaks_against { self.against + 1 } else { 0 };
        (self.against >= needed).then(|| self.judge(wanted))
    }

    fn judge(&mut self, judgement: AppHealth) -> AppHealth {
        self.standing = Standing::Judged(judgement);
        self.against = 0;
        judgement
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use AppHealth::{Healthy, Unhealthy};

    const GRACE: Duration = Duration::from_secs(30);
    const START: Instant = Instant::from_nanos(7);

    fn verdict(failures: u32, successes: u32) -> Verdict {
        Verdict::new(Thresholds { failures, successes, start_grace: GRACE }, START)
    }

    /// Hears `+` and `-`, one a second, beginning so many seconds after the start; tells each judgement with its second.
    fn story(verdict: &mut Verdict, from: u64, answers: &str) -> Vec<(u64, AppHealth)> {
        let at = |second: u64| START.after(Duration::from_secs(second));
        let heard = |(second, answer)| Some((second, verdict.hear(at(second), answer == '+')?));
        (from..).zip(answers.chars()).filter_map(heard).collect()
    }

    #[test]
    fn failures_in_the_grace_do_not_count_and_the_first_success_ends_it() {
        let mut it = verdict(3, 1);
        assert_eq!(story(&mut it, 0, "-----+"), [(5, Healthy)]);
        assert_eq!(story(&mut it, 6, "---"), [(8, Unhealthy)], "who was healthy is not starting any more");
    }

    #[test]
    fn who_is_not_healthy_when_the_grace_ends_is_unhealthy() {
        let mut it = verdict(3, 1);
        assert_eq!(story(&mut it, 28, "--"), []);
        assert_eq!(story(&mut it, 30, "---"), [(30, Unhealthy)], "told once");
        assert_eq!(story(&mut it, 33, "+"), [(33, Healthy)]);
    }

    #[test]
    fn without_a_grace_the_first_answer_decides() {
        let mut it = Verdict::new(Thresholds { failures: 3, successes: 1, start_grace: Duration::ZERO }, START);
        assert_eq!(story(&mut it, 0, "-"), [(0, Unhealthy)]);
    }

    #[test]
    fn answers_count_in_a_row_only() {
        let mut it = verdict(3, 2);
        assert_eq!(story(&mut it, 0, "+-+-++"), [(5, Healthy)]);
        assert_eq!(story(&mut it, 6, "--+--+--+"), [], "flapping below the threshold changes nothing");
        assert_eq!(story(&mut it, 15, "---"), [(17, Unhealthy)]);
        assert_eq!(story(&mut it, 18, "+-+-+-"), []);
        assert_eq!(story(&mut it, 24, "++"), [(25, Healthy)]);
    }

    proptest! {
        #[test]
        fn every_judgement_is_new_and_stands_on_as_many_answers_as_it_needs(
            answers in prop::collection::vec(any::<bool>(), 0..200), failures in 1u32..5, successes in 1u32..5,
        ) {
            let mut it = verdict(failures, successes);
            let mut last = None;
            for (second, answer) in (0u64..).zip(&answers) {
                let Some(judgement) = it.hear(START.after(Duration::from_secs(second)), *answer) else { continue };
                prop_assert_ne!(last, Some(judgement));
                let (needed, good) = match judgement {
                    Healthy => (successes, true),
                    Unhealthy if last.is_none() => (1, false),
                    Unhealthy => (failures, false),
                };
                let end = usize::try_from(second).expect("it is short") + 1;
                let needed = usize::try_from(needed).expect("it is small");
                prop_assert!(end >= needed && answers[end - needed..end].iter().all(|answer| *answer == good));
                prop_assert!(last.is_some() || judgement == Healthy || second >= GRACE.as_secs());
                last = Some(judgement);
            }
        }
    }
}
