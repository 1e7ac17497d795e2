//! `bellwether exec`: runs a command, only while this candidate leads.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::exit::Exit;
use super::flags::ExecFlags;
use super::output::complain;
use super::run;
use crate::config::{ConfigFault, Sources};

/// The two flags without a default first.
pub const USAGE: &str =
    "bellwether exec --election <NAME> --etcd-endpoints <URL,…> [OPTIONS] -- <COMMAND> [ARGUMENTS]…";

/// Examples, signals and exit codes, below the flags.
pub const AFTER_HELP: &str = "\
Every flag can be given as its environment variable; the flag wins, and an empty variable counts as not set.

The command and the hooks find in their environment: BELLWETHER_TERM, BELLWETHER_EPOCH, BELLWETHER_LOCK_KEY,
BELLWETHER_ELECTION, BELLWETHER_NAMESPACE, BELLWETHER_IDENTITY.

Signals:
  TERM, INT, QUIT  the command gets it first; then stand down in order, once the command is gone; a second TERM or
                   INT exits at once, and the command is stopped all the same
  HUP              read certificates and password again; the command gets it, too
  others           are for the command alone

Exit codes:
  0      stood down in order, or the command ended with 0
  64     the configuration is wrong: every fault is on stderr, one per line
  70     a bug in bellwether, or a guardian was killed: the command was killed
  75     the system refused something at the start, such as a listen address that is taken;
         starting again may help
  126    the command cannot be executed
  127    the command cannot be found
  128+n  signal n ended the command; or a second signal n ended bellwether
  other  the command ended by itself, with this code

Examples:
  bellwether exec --election backup --etcd-endpoints http://localhost:2379 -- /usr/local/bin/backup --all
  bellwether exec --election web --ttl 30s --stop-timeout 5s --restart always \\
    --etcd-endpoints http://localhost:2379 --on-lead 'ip address add 192.0.2.7/24 dev eth0' \\
    --on-stand-down 'ip address del 192.0.2.7/24 dev eth0' -- /usr/sbin/nginx -g 'daemon off;'";

/// What a shell says of a command that is there but cannot be executed.
const NOT_EXECUTABLE: Exit = Exit::Command(126);
/// What a shell says of a command that is not there.
const NOT_FOUND: Exit = Exit::Command(127);

/// Parses, looks for the command, then runs until a signal, or until the command has ended.
///
/// # Errors
/// Every fault of the configuration.
pub fn exec(flags: &ExecFlags, sources: &Sources) -> Result<Exit, Vec<ConfigFault>> {
    let config = run::parse(&flags.run, Some(&flags.command), sources)?;
    let program = flags.command.command.first().map_or(OsStr::new(""), |program| program.as_os_str());
    match find(program, env::var_os("PATH").as_deref()) {
        Ok(()) => run::drive_to_the_end(config),
        Err((exit, why)) => {
            complain(&format!("error: {}: {why}\n", program.to_string_lossy()));
            Ok(exit)
        }
    }
}

/// Whether the program can be executed, as far as can be told before it is: a standby should not find that out when it
/// comes to lead.
fn find(program: &OsStr, path: Option<&OsStr>) -> Result<(), (Exit, &'static str)> {
    let places: Vec<PathBuf> = if program.as_encoded_bytes().contains(&b'/') {
        vec![program.into()]
    } else if program.is_empty() {
        Vec::new()
    } else {
        // Without PATH the C library has a list of its own.
        let Some(path) = path else { return Ok(()) };
        env::split_paths(path).map(|folder| folder.join(program)).collect()
    };
    if places.iter().any(|place| is_executable(place)) {
        Ok(())
    } else if places.iter().any(|place| place.exists()) {
        Err((NOT_EXECUTABLE, "is there, but cannot be executed"))
    } else {
        Err((NOT_FOUND, "there is no such command"))
    }
}

fn is_executable(place: &Path) -> bool {
    fs::metadata(place).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_looked_for_as_the_system_does() {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let (program, file) = (folder.path().join("program"), folder.path().join("file"));
        for (path, mode) in [(&program, 0o755), (&file, 0o644)] {
            fs::write(path, "").expect("a file in a fresh folder");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is mine");
        }
        let path = env::join_paths(["/nonexistent".as_ref(), folder.path()]).expect("no colon in it");
        let exit = |name: &OsStr| find(name, Some(&path)).err().map(|(exit, _)| exit);
        assert_eq!(exit(OsStr::new("program")), None);
        assert_eq!(exit(program.as_os_str()), None);
        assert_eq!(exit(OsStr::new("file")), Some(NOT_EXECUTABLE));
        assert_eq!(exit(folder.path().as_os_str()), Some(NOT_EXECUTABLE), "a folder");
        assert_eq!(exit(OsStr::new("nothing")), Some(NOT_FOUND));
        assert_eq!(exit(OsStr::new("./program-that-is-not-there")), Some(NOT_FOUND));
        assert_eq!(exit(OsStr::new("")), Some(NOT_FOUND));
    }
}
