//! `make simulate`: see [`simulation::runner`].

use std::process::ExitCode;

fn main() -> ExitCode {
    simulation::runner::command(&simulation::run)
}
