//! Help is reviewed text: a change of it shows up as a change of these snapshots.

use crate::program::{say, say_with};

fn help(arguments: &[&str]) -> String {
    // Values of the environment do not belong into a help text, least of all passwords.
    let said = say_with(arguments, &[("BELLWETHER_ETCD_USER", "somebody"), ("BELLWETHER_ELECTION", "web")]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    said.out
}

#[test]
fn the_help_of_the_program() {
    insta::assert_snapshot!(help(&["--help"]));
}

#[test]
fn the_help_of_run() {
    insta::assert_snapshot!(help(&["run", "--help"]));
}

#[test]
fn the_help_of_exec() {
    insta::assert_snapshot!(help(&["exec", "--help"]));
}

#[test]
fn the_help_of_status() {
    insta::assert_snapshot!(help(&["status", "--help"]));
}

#[test]
fn the_help_of_resign() {
    insta::assert_snapshot!(help(&["resign", "--help"]));
}

#[test]
fn the_help_of_probe() {
    insta::assert_snapshot!(help(&["probe", "--help"]));
}

#[test]
fn the_version_is_that_of_the_package() {
    let said = say(&["--version"]);
    assert_eq!((said.code, said.out), (Some(0), format!("bellwether {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn wrong_usage_is_exit_code_64_like_any_other_wrong_configuration() {
    for arguments in
        [&[][..], &["runn"], &["run", "--nonsense"], &["probe"], &["probe", "health"], &["run", "--election"]]
    {
        let said = say(arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(64), ""), "{arguments:?}");
        assert!(said.err.contains("Usage: bellwether") || said.err.contains("--help"), "{}", said.err);
    }
}
