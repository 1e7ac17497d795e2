//! Durations that were measured, beside the bound that they must keep.

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::flock::figure;

/// How many trials: as many as `make test` has time for, or more if `BELLWETHER_TRIALS` says so.
pub fn trials(in_make_test: usize) -> Result<usize> {
    let wanted = match std::env::var("BELLWETHER_TRIALS") {
        Ok(text) => text.parse().context("BELLWETHER_TRIALS is a number")?,
        Err(_) => 0,
    };
    Ok(in_make_test.max(wanted))
}

/// What was measured in the trials of one story.
pub struct Figures {
    what: String,
    bound: RangeInclusive<Duration>,
    /// Each with what a reader needs to find out why it was out of bounds.
    measured: Vec<(Duration, String)>,
}

impl Figures {
    /// Nothing yet; all of it must lie within `bound`.
    pub fn new(what: &str, bound: RangeInclusive<Duration>) -> Self {
        Self { what: what.to_owned(), bound, measured: Vec::new() }
    }

    /// One more trial.
    pub fn add(&mut self, duration: Duration, circumstances: String) {
        self.measured.push((duration, circumstances));
    }

    /// Prints count, median, longest and bound.
    ///
    /// # Errors
    /// When nothing was measured, or something out of bounds.
    pub fn judge(mut self) -> Result<()> {
        self.measured.sort();
        let (begin, end) = (self.bound.start(), self.bound.end());
        let longest = self.measured.last().with_context(|| format!("{}: nothing was measured", self.what))?.0;
        let median = self.measured[self.measured.len() / 2].0;
        let count = self.measured.len();
        figure(
            &self.what,
            format_args!("{count} trials, median {median:.3?}, longest {longest:.3?}, bound {begin:?} to {end:?}"),
        );
        let wrong = self.measured.iter().filter(|(duration, _)| !self.bound.contains(duration));
        let wrong: Vec<String> = wrong.map(|(duration, why)| format!("{duration:.3?}; {why}")).collect();
        ensure!(wrong.is_empty(), "{}: out of {begin:?} to {end:?}:\n{}", self.what, wrong.join("\n"));
        Ok(())
    }
}
