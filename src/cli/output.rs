//! Text to a terminal or a pipe.

use std::io::{self, Write};

/// Writes to stdout. That nobody reads it (`bellwether status | head -1`) is no error of ours.
pub fn print(text: &str) {
    let _reader_gone = io::stdout().lock().write_all(text.as_bytes());
}

/// Writes to stderr, which may be closed.
pub fn complain(text: &str) {
    let _reader_gone = io::stderr().lock().write_all(text.as_bytes());
}

/// Text that others wrote, without the characters that move a terminal's cursor or change its colours.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_spelled_out_and_everything_else_stays() {
        assert_eq!(printable("wéb-0\x1b[2J\n"), "wéb-0\\u{1b}[2J\\n");
    }
}
