//! How far a batch is: a bar on a terminal, else a line now and then.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Duration;

use super::numbers::{clock, grouped, per_second};
use super::{Summary, weather_name};

/// Between two lines where there is no terminal: a log of an hour's run stays readable.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// Characters: with the figures it fits on a line of 80.
const BAR: u64 = 24;

/// What has been shown last.
#[derive(Debug)]
pub(super) struct Progress {
    on_terminal: bool,
    next_line: Duration,
    endless: usize,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { on_terminal: stderr().is_terminal(), next_line: LINE_EVERY, endless: 0 }
    }

    pub(super) fn show(&mut self, summary: &Summary) {
        for scenario in &summary.endless[self.endless..] {
            let (seed, weather) = (scenario.seed, weather_name(scenario.weather));
            self.end();
            writeln!(stderr(), "seed {seed} in {weather} does not end: alone with SEED={seed} WEATHER={weather}").ok();
        }
        self.endless = summary.endless.len();
        let figures = figures(summary);
        if self.on_terminal {
            // One write, so that nothing comes between the erasing and the line.
            write!(stderr(), "\r\x1b[K{} {figures}", bar(summary.runs(), summary.planned)).ok();
        } else if summary.took >= self.next_line {
            self.next_line = summary.took + LINE_EVERY;
            writeln!(stderr(), "{} of {figures}", grouped(summary.runs())).ok();
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        if self.on_terminal {
            write!(stderr(), "\r\x1b[K").ok();
        }
    }
}

fn bar(done: u64, planned: u64) -> String {
    let filled = (u128::from(done) * u128::from(BAR)).checked_div(u128::from(planned)).unwrap_or_default();
    let filled = usize::try_from(filled).expect("as long as the bar at most");
    let percent = (u128::from(done) * 100).checked_div(u128::from(planned)).unwrap_or_default();
    let rest = usize::try_from(BAR).expect("some dozens").saturating_sub(filled);
    format!("[{}{}] {percent:>3} %", "#".repeat(filled), "·".repeat(rest))
}

fn figures(summary: &Summary) -> String {
    let (runs, rate) = (summary.runs(), per_second(summary.runs(), summary.took));
    let left = (summary.planned.saturating_sub(runs)).checked_div(rate).unwrap_or_default();
    let failed = match summary.failures.len() {
        0 => String::new(),
        some => format!(", {some} FAILED"),
    };
    let left = clock(Duration::from_secs(left));
    format!("{} runs, {}/s, {left} left{failed}", grouped(summary.planned), grouped(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_from_nothing_to_all() {
        assert_eq!(bar(0, 10), "[························]   0 %");
        assert_eq!(bar(5, 10), "[############············]  50 %");
        assert_eq!(bar(10, 10), "[########################] 100 %");
        assert_eq!(bar(0, 0), "[························]   0 %");
    }
}
