//! Numbers as people write and read them.

use std::fmt::Write as _;
use std::ops::Range;
use std::time::Duration;

/// Nobody means more: it bounds what a typing error in a range can ask for.
const NUMBER_MOST: usize = 100_000;

/// `10000` is the seeds from 0 on, `100..200` those from 100 to 199.
pub(super) fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("'{text}' is no number: write 10000, or 100..200 for those from 100 to 199"))
    };
    let range = match text.split_once("..") {
        None => 0..number(text)?,
        Some((first, end)) => number(first)?..number(end)?,
    };
    if range.is_empty() {
        return Err(format!("there is no seed from {} to below {}", range.start, range.end));
    }
    Ok(range)
}

/// `3,7-9` is 3, 7, 8 and 9: the numbers of faults to leave out.
///
/// # Errors
/// Says which part is none.
pub fn parse_left_out(text: &str) -> Result<Vec<usize>, String> {
    let number = |text: &str| match text.parse::<usize>() {
        Ok(number) if number <= NUMBER_MOST => Ok(number),
        Ok(_) | Err(_) => Err(format!("'{text}' is no number of a fault: write 3 or 3,7-9")),
    };
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            None => (number(part)?, number(part)?),
            Some((first, last)) => (number(first)?, number(last)?),
        };
        if last < first {
            return Err(format!("'{part}' ends before it begins"));
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// The other way round; `numbers` grow.
pub fn left_out_list(numbers: &[usize]) -> String {
    let mut list = String::new();
    for run in numbers.chunk_by(|one, next| one + 1 == *next) {
        let comma = if list.is_empty() { "" } else { "," };
        match run {
            [] => {}
            [one] => write!(list, "{comma}{one}").expect("a String takes everything"),
            [first, .., end] => write!(list, "{comma}{first}-{end}").expect("a String takes everything"),
        }
    }
    list
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many of something in a second; 0 while no time has passed.
pub(super) fn per_second(number: u64, took: Duration) -> u64 {
    let scaled = u128::from(number) * 1_000_000_000;
    scaled.checked_div(took.as_nanos()).map_or(0, |rate| u64::try_from(rate).unwrap_or(u64::MAX))
}

/// Minutes and seconds; hours where there are any.
pub(super) fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_seeds_or_a_range_of_them() {
        assert_eq!(parse_seeds("10000"), Ok(0..10_000));
        assert_eq!(parse_seeds("100..200"), Ok(100..200));
    }

    #[test]
    fn seeds_that_are_none_are_refused_with_the_way_out() {
        for (text, says) in [
            ("ten", "'ten' is no number: write 10000, or 100..200 for those from 100 to 199"),
            ("1..", "'' is no number: write 10000, or 100..200 for those from 100 to 199"),
            ("-5", "'-5' is no number: write 10000, or 100..200 for those from 100 to 199"),
            ("0", "there is no seed from 0 to below 0"),
            ("9..3", "there is no seed from 9 to below 3"),
        ] {
            assert_eq!(parse_seeds(text), Err(says.to_owned()));
        }
    }

    #[test]
    fn a_list_of_faults_reads_as_it_is_written() {
        for (text, numbers) in [("3", vec![3]), ("3,7-9", vec![3, 7, 8, 9]), ("0-1,3", vec![0, 1, 3])] {
            assert_eq!(parse_left_out(text), Ok(numbers.clone()));
            assert_eq!(left_out_list(&numbers), text);
        }
        assert_eq!(parse_left_out("9,3-5,4"), Ok(vec![3, 4, 5, 9]));
        assert_eq!(left_out_list(&[]), "");
    }

    #[test]
    fn a_list_of_faults_with_something_else_in_it_is_refused() {
        for text in ["", "x", "1,,2", "5-3", "1-", "99999999", "0-99999999"] {
            assert!(parse_left_out(text).is_err(), "{text:?} went through");
        }
    }

    #[test]
    fn large_numbers_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(clock(Duration::from_secs(75)), "1:15");
        assert_eq!(clock(Duration::from_secs(3661)), "1:01:01");
        assert_eq!(per_second(10, Duration::from_secs(4)), 2);
        assert_eq!(per_second(10, Duration::ZERO), 0);
    }
}
