//! What bellwether and a guardian say to each other: lines of text on a socket.

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::Duration;

#[cfg(test)]
use crate::election::WallTime;
use crate::election::{Instant, Reading, Until};

/// No line is longer than the three numbers of an [`Order::Until`] at their longest, twice over.
const LINE_MOST: usize = 256;

/// When a run must have ended, by itself if nobody says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// From here on it is being stopped.
    pub(crate) stop_at: Instant,
    /// What is left then is killed.
    pub(crate) kill_at: Instant,
    /// How far the wall clock may be ahead of the boot clock, in nanoseconds. More says that the boot clock stood still
    /// while the lease did not.
    pub(crate) wall_bound: i128,
}

impl Deadline {
    /// The end of a right to act, and what is left at its end killed after `stop_time`.
    pub(crate) fn of(until: &Until, stop_time: Duration) -> Self {
        Self { stop_at: until.boot(), kill_at: until.boot().after(stop_time), wall_bound: until.wall_bound() }
    }

    /// So long from now, whatever becomes of the lease.
    pub(crate) fn within(now: Instant, time: Duration, stop_time: Duration) -> Self {
        let stop_at = now.after(time);
        Self { stop_at, kill_at: stop_at.after(stop_time), wall_bound: i128::MAX }
    }

    /// The same, or `bound` where that is earlier.
    pub(crate) fn at_most(self, bound: &Self) -> Self {
        Self { stop_at: self.stop_at.min(bound.stop_at), kill_at: self.kill_at.min(bound.kill_at), ..self }
    }

    /// What the boot clock would show at least, had it not stood still.
    pub(crate) fn true_time(&self, now: Reading) -> Instant {
        let ahead = now.wall_lead().saturating_sub(self.wall_bound).clamp(0, u64::MAX.into());
        now.boot.after(Duration::from_nanos(u64::try_from(ahead).unwrap_or(u64::MAX)))
    }

    /// Whether the run must be being stopped by `now`.
    pub(crate) fn passed(&self, now: Reading) -> bool {
        now.boot >= self.stop_at || now.wall_lead() > self.wall_bound
    }
}

/// What bellwether tells a guardian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// The run's end. The first one starts it; later ones move the end.
    Until(Deadline),
    /// Send this signal to the group.
    Signal(i32),
    /// Stop now: this signal first.
    Stop {
        /// SIGTERM, or what bellwether itself was told to stop with.
        first: i32,
        /// What is left then is killed.
        kill_at: Instant,
    },
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Until(Deadline { stop_at, kill_at, wall_bound }) => {
                writeln!(f, "until {} {} {wall_bound}", stop_at.nanos(), kill_at.nanos())
            }
            Self::Signal(number) => writeln!(f, "signal {number}"),
            Self::Stop { first, kill_at } => writeln!(f, "stop {first} {}", kill_at.nanos()),
        }
    }
}

impl FromStr for Order {
    type Err = NotUnderstood;

    fn from_str(line: &str) -> Result<Self, NotUnderstood> {
        let mut words = Words::of(line);
        let order = match words.word()? {
            "until" => Self::Until(Deadline {
                stop_at: Instant::from_nanos(words.number()?),
                kill_at: Instant::from_nanos(words.number()?),
                wall_bound: words.number()?,
            }),
            "signal" => Self::Signal(words.number()?),
            "stop" => Self::Stop { first: words.number()?, kill_at: Instant::from_nanos(words.number()?) },
            _ => return Err(words.not_understood()),
        };
        words.end().map(|()| order)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
}

impl Ending {
    /// The exit code that says so, as a shell does: 128 + n for a signal.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(number) => u8::try_from(number).unwrap_or(0).saturating_add(128),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// What a guardian tells bellwether.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// The process of this id, which leads a group of its own, is about to become the command.
    Started(i32),
    /// The system refused, with this error number.
    Refused(i32),
    /// The deadline had passed before the command could be started.
    Late,
    /// The deadline has passed: it is being stopped without an order.
    Stopping,
    /// The command itself has ended; what it left behind is being stopped.
    Exited(Ending),
    /// Nothing is left of it.
    Gone,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started(pid) => writeln!(f, "started {pid}"),
            Self::Refused(errno) => writeln!(f, "refused {errno}"),
            Self::Late => writeln!(f, "late"),
            Self::Stopping => writeln!(f, "stopping"),
            Self::Exited(Ending::Code(code)) => writeln!(f, "exited code {code}"),
            Self::Exited(Ending::Signal(number)) => writeln!(f, "exited signal {number}"),
            Self::Gone => writeln!(f, "gone"),
        }
    }
}

impl FromStr for Told {
    type Err = NotUnderstood;

    fn from_str(line: &str) -> Result<Self, NotUnderstood> {
        let mut words = Words::of(line);
        let told = match words.word()? {
            "started" => Self::Started(words.number()?),
            "refused" => Self::Refused(words.number()?),
            "late" => Self::Late,
            "stopping" => Self::Stopping,
            "exited" => Self::Exited(match words.word()? {
                "code" => Ending::Code(words.number()?),
                "signal" => Ending::Signal(words.number()?),
                _ => return Err(words.not_understood()),
            }),
            "gone" => Self::Gone,
            _ => return Err(words.not_understood()),
        };
        words.end().map(|()| told)
    }
}

/// A line that neither side says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not understood")]
pub(crate) struct NotUnderstood(String);

/// The words of one line, taken from the left.
struct Words<'a> {
    line: &'a str,
    left: SplitAsciiWhitespace<'a>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self { line, left: line.split_ascii_whitespace() }
    }

    fn not_understood(&self) -> NotUnderstood {
        NotUnderstood(self.line.to_owned())
    }

    fn word(&mut self) -> Result<&'a str, NotUnderstood> {
        self.left.next().ok_or_else(|| self.not_understood())
    }

    fn number<T: FromStr>(&mut self) -> Result<T, NotUnderstood> {
        self.word()?.parse().map_err(|_not_a_number| self.not_understood())
    }

    fn end(mut self) -> Result<(), NotUnderstood> {
        if self.left.next().is_none() { Ok(()) } else { Err(self.not_understood()) }
    }
}

/// Bytes that arrive in pieces, as the lines they are.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
}

impl Lines {
    /// Takes in what has arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line, in the words of one side.
    pub(crate) fn next<T: FromStr<Err = NotUnderstood>>(&mut self) -> Option<Result<T, NotUnderstood>> {
        let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') else {
            let endless = self.bytes.len() > LINE_MOST;
            return endless.then(|| Err(NotUnderstood(String::from_utf8_lossy(&self.bytes).into_owned())));
        };
        let line: Vec<u8> = self.bytes.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().parse())
    }
}

/// The wall clock that far ahead of this point on the boot clock.
#[cfg(test)]
pub(crate) fn reading(boot: Instant, wall_lead: i64) -> Reading {
    let boot_nanos = i64::try_from(boot.nanos()).expect("a test's time");
    Reading { boot, wall: WallTime::from_unix_nanos(boot_nanos + wall_lead) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn instants() -> impl Strategy<Value = Instant> {
        any::<u64>().prop_map(Instant::from_nanos)
    }

    fn orders() -> impl Strategy<Value = Order> {
        let until = (instants(), instants(), any::<i128>())
            .prop_map(|(stop_at, kill_at, wall_bound)| Order::Until(Deadline { stop_at, kill_at, wall_bound }));
        let stop = (any::<i32>(), instants()).prop_map(|(first, kill_at)| Order::Stop { first, kill_at });
        prop_oneof![until, any::<i32>().prop_map(Order::Signal), stop]
    }

    fn tidings() -> impl Strategy<Value = Told> {
        prop_oneof![
            any::<i32>().prop_map(Told::Started),
            any::<i32>().prop_map(Told::Refused),
            Just(Told::Late),
            Just(Told::Stopping),
            any::<u8>().prop_map(|code| Told::Exited(Ending::Code(code))),
            any::<i32>().prop_map(|number| Told::Exited(Ending::Signal(number))),
            Just(Told::Gone),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_understood_in_whatever_pieces_it_arrives(
            orders in prop::collection::vec(orders(), 0..8), piece in 1_usize..64,
        ) {
            let said: String = orders.iter().map(ToString::to_string).collect();
            let (mut lines, mut heard) = (Lines::default(), Vec::new());
            for bytes in said.as_bytes().chunks(piece) {
                lines.push(bytes);
                while let Some(order) = lines.next::<Order>() {
                    heard.push(order.expect("an order"));
                }
            }
            prop_assert_eq!(heard, orders);
        }

        #[test]
        fn a_guardian_is_understood(told in tidings()) {
            let mut lines = Lines::default();
            lines.push(told.to_string().as_bytes());
            prop_assert_eq!(lines.next::<Told>(), Some(Ok(told)));
            prop_assert_eq!(lines.next::<Told>(), None);
        }

        #[test]
        fn no_line_is_longer_than_the_longest_allowed(order in orders()) {
            prop_assert!(order.to_string().len() <= LINE_MOST / 2 + 1);
        }
    }

    #[test]
    fn what_nobody_says_is_refused() {
        for line in ["", "until 1 2", "until 1 2 x", "until 1 2 3 4", "signal", "signal x", "stop 15 1 1", "begin"] {
            assert!(line.parse::<Order>().is_err(), "{line}");
        }
        for line in ["", "started", "exited code 256", "exited 0", "gone fishing"] {
            assert!(line.parse::<Told>().is_err(), "{line}");
        }
        let mut endless = Lines::default();
        endless.push(&[b'x'; LINE_MOST + 1]);
        assert!(matches!(endless.next::<Order>(), Some(Err(_))));
    }

    #[test]
    fn a_signal_is_an_exit_code_as_a_shell_says_it() {
        assert_eq!(Ending::Code(7).exit_code(), 7);
        assert_eq!(Ending::Signal(9).exit_code(), 137);
    }

    #[test]
    fn a_deadline_passes_when_the_right_to_act_does() {
        let (sent, ttl, margin) = (Instant::from_nanos(5_000_000_000), Duration::from_secs(15), Duration::from_secs(3));
        let until = Until::of_renewal(reading(sent, 7_000), ttl, margin);
        let deadline = Deadline::of(&until, Duration::from_secs(2));
        assert_eq!(deadline.kill_at.since(deadline.stop_at), Duration::from_secs(2));
        let margin_nanos = i64::try_from(margin.as_nanos()).expect("3 s");
        for after in [Duration::ZERO, Duration::from_nanos(11_999_999_999), Duration::from_secs(12)] {
            for ahead in [i64::MIN / 2, 0, 7_000 + margin_nanos, 7_001 + margin_nanos] {
                let now = reading(sent.after(after), ahead);
                assert_eq!(deadline.passed(now), until.passed(now), "{after:?} {ahead}");
            }
        }
    }

    #[test]
    fn a_boot_clock_that_stood_still_is_made_up_for() {
        let begin = Instant::from_nanos(1_000_000_000);
        let until = Until::of_renewal(reading(begin, 0), Duration::from_secs(10), Duration::from_secs(2));
        let deadline = Deadline::of(&until, Duration::from_secs(1));
        assert_eq!(deadline.true_time(reading(begin, 2_000_000_000)), begin, "within what clocks may differ by");
        assert_eq!(deadline.true_time(reading(begin, 5_000_000_000)), begin.after(Duration::from_secs(3)));
        let whatever = Deadline::within(begin, Duration::from_secs(1), Duration::ZERO);
        assert_eq!(whatever.true_time(reading(begin, i64::MAX / 2)), begin);
    }
}
