//! The seeds that have found something once: `seeds/*.txt`.
//!
//! One a line, `weather seed [left out] [bare]  # what it found, which commit mended it`. Empty lines and lines that begin
//! with `#` are for people.

use super::{parse_left_out, weather_named};
use crate::Scenario;

/// A seed with what it found.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    /// What to play.
    pub scenario: Scenario,
    /// What it found, and which commit mended it.
    pub remark: String,
}

/// The kept seeds in a file's text.
///
/// # Errors
/// Names the file, the line, and what is wrong with it.
pub fn parse(file: &str, text: &str) -> Result<Vec<Kept>, String> {
    let lines = text.lines().enumerate().map(|(place, line)| (place + 1, line.trim()));
    let seeds = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    seeds.map(|(number, line)| parse_line(line).map_err(|wrong| format!("{file}, line {number}: {wrong}"))).collect()
}

fn parse_line(line: &str) -> Result<Kept, String> {
    let (plan, remark) = line.split_once('#').map_or((line, ""), |(plan, remark)| (plan, remark.trim()));
    if remark.is_empty() {
        return Err("say after a # what it found and which commit mended it".into());
    }
    let mut words: Vec<&str> = plan.split_whitespace().collect();
    let bare = words.pop_if(|last| *last == "bare").is_some();
    let (weather, seed, left_out) = match words.as_slice() {
        [weather, seed] => (weather, seed, Vec::new()),
        [weather, seed, left_out] => (weather, seed, parse_left_out(left_out)?),
        [] | [_] | [_, _, _, _, ..] => {
            return Err("a line is 'weather seed', or 'weather seed 3,7-9' with faults left out".into());
        }
    };
    let seed = seed.parse().map_err(|_| format!("'{seed}' is no seed: a whole number"))?;
    Ok(Kept {
        scenario: Scenario { seed, weather: weather_named(weather)?, left_out, bare },
        remark: remark.to_owned(),
    })
}
