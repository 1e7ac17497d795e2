//! Starting the real binary with nothing around it but what a test gives.

use std::process::{Command, Output, Stdio};

/// What a command that ended has said.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the command line writes UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The binary without any environment.
pub fn bellwether(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bellwether"));
    command.args(arguments).env_clear().stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub fn say(arguments: &[&str]) -> Said {
    say_with(arguments, &[])
}

/// Runs it to its end in this environment.
pub fn say_with(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = bellwether(arguments);
    command.envs(environment.iter().copied());
    command.output().expect("the binary that was just built starts").into()
}
