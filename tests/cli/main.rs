//! The command line, by the real binary.

mod clients;
mod election;
mod faults;
mod help;
mod one_answer;
mod program;
mod run;
