//! The command line, by the real binary.
#![expect(clippy::panic_in_result_fn, reason = "a test may both assert and use `?`")]

mod application;
mod clients;
mod election;
mod faults;
mod help;
mod one_answer;
mod program;
mod run;
