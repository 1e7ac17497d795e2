//! What is printed at the end: figures, and each failing run with what it takes to see it again.

use std::fmt::Write as _;

use super::edges::{SEEDS_FOR_ALL, edge_name};
use super::numbers::{grouped, per_second};
use super::{Coverage, EDGES, Failure, Shrunk, Summary, left_out_list, weather_name};
use crate::Tally;

/// The lines of a story that are shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Told {
    /// All.
    Whole,
    /// The last.
    Last(usize),
}

/// The figures of a batch.
pub(super) fn figures(summary: &Summary) -> String {
    let total = summary.total();
    let mut text = String::new();
    let mut line = |name: &str, value: String| writeln!(text, "  {name:<34} {value:>16}").expect("a String");
    line("runs", grouped(summary.runs()));
    line("runs a second", grouped(per_second(summary.runs(), summary.took)));
    line("time it took", format!("{:.1} s", summary.took.as_secs_f64()));
    line("simulated time", format!("{} h", grouped(total.simulated.as_secs() / 3600)));
    line("turns of candidates", grouped(total.turns));
    line("transitions", grouped(summary.transitions()));
    line("terms led", grouped(total.terms));
    line("longest without leader after heal", format!("{:.3} s", total.leaderless_after_heal.as_secs_f64()));
    for (weather, runs) in &summary.weathers {
        let name = format!("longest overlap, {}", weather_name(*weather));
        line(&name, format!("{:.6} s", runs.tally.overlap.as_secs_f64()));
    }
    text + &faults(&total) + &transitions(summary)
}

fn faults(total: &Tally) -> String {
    let mut text = String::from("\nFaults by kind\n");
    for (kind, number) in &total.faults {
        writeln!(text, "  {kind:<34} {:>16}", grouped(*number)).expect("a String");
    }
    text
}

fn transitions(summary: &Summary) -> String {
    let mut text = format!("\n{:<46}", "Transitions");
    for weather in summary.weathers.keys() {
        write!(text, " {:>12}", weather_name(*weather)).expect("a String");
    }
    text.push('\n');
    for edge in &EDGES {
        write!(text, "  {:<44}", edge_name(edge.key)).expect("a String");
        for (weather, runs) in &summary.weathers {
            let number = runs.tally.transitions.get(&edge.key).copied().unwrap_or_default();
            let shown = if number == 0 && !edge.weathers.contains(weather) { "-".into() } else { grouped(number) };
            write!(text, " {shown:>12}").expect("a String");
        }
        text.push('\n');
    }
    text
}

/// What the edges come to, and whether that is a failure: only of runs large enough to have gone them all.
pub(super) fn coverage(coverage: &Coverage, seeds: u64, is_whole: bool) -> (String, bool) {
    let mut text = String::new();
    for (weather, key, seed) in &coverage.unlisted {
        let (name, weather) = (edge_name(*key), weather_name(*weather));
        writeln!(text, "  {name}: not in the list of src/runner/edges.rs, first gone by seed {seed} in {weather}")
            .expect("a String");
    }
    for edge in &EDGES {
        let unseen = coverage.unseen.iter().filter(|(_, other)| other.key == edge.key);
        let weathers: Vec<&str> = unseen.map(|(weather, _)| weather_name(*weather)).collect();
        if !weathers.is_empty() {
            let (name, origin) = (edge_name(edge.key), edge.origin);
            writeln!(text, "  {name}: never gone in {} ({origin})", weathers.join(", ")).expect("a String");
        }
    }
    let matters = is_whole && seeds >= SEEDS_FOR_ALL;
    if !coverage.unseen.is_empty() && !matters {
        writeln!(text, "  (a run of fewer than {} seeds need not go every edge)", grouped(SEEDS_FOR_ALL))
            .expect("a String");
    }
    if text.is_empty() {
        text = "  every edge of the state machine was gone in every weather that leads there\n".into();
    }
    (format!("\nEdges\n{text}"), !coverage.unlisted.is_empty() || (matters && !coverage.unseen.is_empty()))
}

/// A failing run: what broke, its story, the command that plays it again.
pub(super) fn failure(failure: &Failure, control: Option<&str>, told: Told) -> String {
    let scenario = &failure.scenario;
    let (weather, seed) = (weather_name(scenario.weather), scenario.seed);
    let mut text = format!("Seed {seed} in {weather} broke {}\n", failure.violation);
    text += &story(&failure.story, told);
    writeln!(text, "Again: {}", again(failure, control)).expect("a String");
    text
}

/// What is left of a failing run.
pub(super) fn shrunk(shrunk: &Shrunk, control: Option<&str>, told: Told) -> String {
    let planned = shrunk.failure.faults_planned;
    let (left, runs) = (shrunk.faults_left.len(), shrunk.runs);
    let sure = if shrunk.is_minimal { "none can be left out" } else { "perhaps not the fewest" };
    let numbers = if left == 0 { String::new() } else { format!(" ({})", left_out_list(&shrunk.faults_left)) };
    let mut text = format!("Shrunk in {runs} runs to {left} of {planned} faults{numbers}, {sure}:\n");
    writeln!(text, "{}", shrunk.failure.violation).expect("a String");
    text += &story(&shrunk.failure.story, told);
    writeln!(text, "Again: {}", again(&shrunk.failure, control)).expect("a String");
    text
}

/// The lines of a story, each indented.
pub(super) fn story(story: &[String], told: Told) -> String {
    let skipped = match told {
        Told::Whole => 0,
        Told::Last(most) => story.len().saturating_sub(most),
    };
    let mut text = String::new();
    if skipped > 0 {
        writeln!(text, "    … {} lines before (--whole-story shows them)", grouped(skipped as u64)).expect("a String");
    }
    story[skipped..].iter().for_each(|line| writeln!(text, "    {line}").expect("a String"));
    text
}

fn again(failure: &Failure, control: Option<&str>) -> String {
    let scenario = &failure.scenario;
    let mut command = format!("make simulate SEED={} WEATHER={}", scenario.seed, weather_name(scenario.weather));
    if !scenario.left_out.is_empty() {
        write!(command, " LEAVE_OUT={}", left_out_list(&scenario.left_out)).expect("a String");
    }
    if scenario.bare {
        command += " ARGS=--bare";
    }
    if let Some(control) = control {
        write!(command, " CONTROL={control}").expect("a String");
    }
    command
}
