//! Durations as people write them in flags: `15s`, `500ms`, `1m30s`.

use std::fmt;
use std::time::Duration;

use thiserror::Error;

/// Why a text is not a duration, with the way out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DurationFault {
    /// Nothing there.
    #[error("is empty; write for example 15s")]
    Empty,
    /// A number alone: seconds for some programs, milliseconds for others.
    #[error("has no unit; write {0}s for seconds or {0}ms for milliseconds")]
    NoUnit(u64),
    /// `1.5s`
    #[error("has a fraction; write whole numbers, for example 1s500ms")]
    Fraction,
    /// `5 parsecs`
    #[error("has the unknown unit {0:?}; the units are h, m, s and ms")]
    UnknownUnit(String),
    /// `30s1m`, `1s1s`
    #[error("names its units out of order; write the largest first and each once, for example 1m30s")]
    Order,
    /// Not even close.
    #[error("is not a duration; write for example 15s, 500ms or 1m30s")]
    Malformed,
    /// More than 2^64 milliseconds.
    #[error("is too long to count")]
    TooLong,
    /// More than it may be.
    #[error("is longer than {}", Span(*.0))]
    MoreThan(Duration),
}

/// How long a candidate that resigned stays away, unless told otherwise: long enough for another to take over and
/// settle, or for a rolling update to reach the next replica; short enough not to be forgotten.
pub const COOLDOWN_DEFAULT: Duration = Duration::from_secs(30);
/// Whoever wants a candidate out for longer should stop it.
const COOLDOWN_MOST: Duration = Duration::from_hours(1);

/// Parses how long a candidate that resigns stays away.
///
/// # Errors
/// What [`parse_duration`] says, or that it is longer than an hour.
pub fn parse_cooldown(text: &str) -> Result<Duration, DurationFault> {
    let cooldown = parse_duration(text)?;
    if cooldown > COOLDOWN_MOST { Err(DurationFault::MoreThan(COOLDOWN_MOST)) } else { Ok(cooldown) }
}

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses `15s`, `500ms`, `2m`, `1h`, and combinations with the largest unit first. A bare number is
/// refused: it means seconds to some and milliseconds to others.
///
/// # Errors
/// What is wrong with the text, worded to follow the text itself.
pub fn parse_duration(text: &str) -> Result<Duration, DurationFault> {
    if text.is_empty() {
        return Err(DurationFault::Empty);
    }
    let mut rest = text;
    let mut units_left = &UNITS[..];
    let mut total_ms: u64 = 0;
    while !rest.is_empty() {
        let (number, after_number) = split_while(rest, |c| c.is_ascii_digit());
        if number.is_empty() {
            return Err(DurationFault::Malformed);
        }
        let number: u64 = number.parse().map_err(|_why| DurationFault::TooLong)?;
        if after_number.starts_with(['.', ',']) {
            return Err(DurationFault::Fraction);
        }
        let (unit, after_unit) = split_while(after_number, |c| !c.is_ascii_digit());
        if unit.is_empty() {
            return Err(if rest.len() == text.len() {
                DurationFault::NoUnit(number)
            } else {
                DurationFault::Malformed
            });
        }
        if !UNITS.iter().any(|(name, _)| *name == unit) {
            return Err(DurationFault::UnknownUnit(unit.to_owned()));
        }
        let place = units_left.iter().position(|(name, _)| *name == unit).ok_or(DurationFault::Order)?;
        let part_ms = number.checked_mul(units_left[place].1).ok_or(DurationFault::TooLong)?;
        total_ms = total_ms.checked_add(part_ms).ok_or(DurationFault::TooLong)?;
        units_left = &units_left[place + 1..];
        rest = after_unit;
    }
    Ok(Duration::from_millis(total_ms))
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A duration in the words [`parse_duration`] understands, to the millisecond, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest_ms = self.0.as_millis();
        if rest_ms == 0 {
            return f.write_str("0s");
        }
        for (unit, unit_ms) in UNITS {
            let count = rest_ms / u128::from(unit_ms);
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            rest_ms %= u128::from(unit_ms);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_documented_forms_are_understood() {
        for (text, ms) in
            [("15s", 15_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("1m30s", 90_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_the_way_out() {
        let fault = |text: &str| parse_duration(text).expect_err("refused").to_string();
        assert_eq!(fault(""), "is empty; write for example 15s");
        assert_eq!(fault("15"), "has no unit; write 15s for seconds or 15ms for milliseconds");
        assert_eq!(fault("0"), "has no unit; write 0s for seconds or 0ms for milliseconds");
        assert_eq!(fault("1.5s"), "has a fraction; write whole numbers, for example 1s500ms");
        assert_eq!(fault("5min"), "has the unknown unit \"min\"; the units are h, m, s and ms");
        assert_eq!(
            fault("30s1m"),
            "names its units out of order; write the largest first and each once, for example 1m30s"
        );
        assert_eq!(
            fault("1s1s"),
            "names its units out of order; write the largest first and each once, for example 1m30s"
        );
        for malformed in ["-1s", "s", "1m30", " 1s", "+1s"] {
            assert_eq!(fault(malformed), "is not a duration; write for example 15s, 500ms or 1m30s", "{malformed:?}");
        }
        for too_long in ["99999999999999999999s", "18446744073709551615h", "18446744073709551615ms1ms"] {
            assert!(parse_duration(too_long).is_err(), "{too_long}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(ms: u64) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&Span(duration).to_string()), Ok(duration));
        }

        #[test]
        fn what_is_understood_means_what_it_says(text in "[0-9hms. \\-é]{0,12}") {
            if let Ok(duration) = parse_duration(&text) {
                prop_assert_eq!(parse_duration(&Span(duration).to_string()), Ok(duration));
            }
        }
    }
}
