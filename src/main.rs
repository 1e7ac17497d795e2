//! The program: everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    rustls::crypto::ring::default_provider().install_default().expect("nothing has installed another before main");
    bellwether::cli::main(std::env::args_os()).into()
}
