//! The program, from outside.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use simulation::runner::{TRIALS, WEATHERS, weather_name};

fn simulate(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulate")).args(arguments).output().expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("it writes UTF-8")
}

#[test]
fn its_help_names_every_weather_and_control() {
    let output = simulate(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    let names = WEATHERS.map(weather_name).into_iter().chain(TRIALS.map(|trial| trial.name));
    for word in names.chain(["--seeds", "--seed", "--leave-out", "Exit code 0"]) {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
}

#[test]
fn bad_input_is_named_with_its_flag_and_the_way_out() {
    for (arguments, says) in [
        (
            &["--seeds", "ten"][..],
            "invalid value 'ten' for '--seeds <NUMBER|FROM..TO>': 'ten' is no number: write 10000",
        ),
        (&["--seeds", "9..3"], "there is no seed from 9 to below 3"),
        (&["--seed", "x"], "invalid value 'x' for '--seed <NUMBER>'"),
        (
            &["--seeds", "1", "--weather", "rain"],
            "'rain' is no weather: there are storm, operators, old-revokes, fading",
        ),
        (&["--seeds", "1", "--control", "no-luck"], "'no-luck' is no control: there are no-request-check, no-margin"),
        (&["--seed", "1", "--leave-out", "3"], "--weather <NAME>"),
        (&["--seed", "1", "--weather", "storm", "--leave-out", "a"], "'a' is no number of a fault: write 3 or 3,7-9"),
        (&["--seeds", "1", "--failures", "0"], "invalid value '0' for '--failures <NUMBER>'"),
        (&["--seeds", "1", "--seed", "1"], "cannot be used with"),
        (&[], "<--seeds <NUMBER|FROM..TO>|--seed <NUMBER>>"),
    ] {
        let output = simulate(arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(says), "{arguments:?} should say {says}\n{error}");
    }
}

#[test]
fn a_batch_ends_with_its_figures_and_exit_code_0() {
    let output = simulate(&["--seeds", "2"]);
    let told = text(&output.stdout);
    assert!(output.status.success(), "{told}");
    for word in ["2 seeds in 7 weathers", "simulated time", "Faults by kind", "Edges", "violations: 0 in 14 runs"] {
        assert!(told.contains(word), "{word} is not in\n{told}");
    }
}

#[test]
fn one_seed_tells_its_story() {
    let told = text(&simulate(&["--seed", "3", "--weather", "storm", "--whole-story"]).stdout);
    assert!(told.starts_with("Seed 3 in storm:\n    "), "{told}");
    assert!(told.contains("violations: 0 in 1 runs"), "{told}");
}

#[test]
fn an_interrupted_batch_tells_what_it_has() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_simulate"));
    child.args(["--seeds", "1000000000"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().expect("it starts");
    // The first line of progress: from then on there are figures to tell.
    let mut line = String::new();
    let mut errors = BufReader::new(child.stderr.take().expect("it is piped"));
    errors.read_line(&mut line).expect("it tells how far it is");
    assert!(line.contains("runs, "), "{line}");
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.expect("there is a kill").success());
    let output = child.wait_with_output().expect("it ends");
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(130), "{told}");
    assert!(told.contains("not all played") && told.contains("violations: 0"), "{told}");
}

/// `make simulate` passes its variables on as flags: the same here.
#[cfg(feature = "sabotage")]
fn as_flags(command: &str) -> Vec<String> {
    let words = command.strip_prefix("Again: make simulate ").expect("a command").split(' ');
    let pairs = words.map(|word| word.split_once('=').expect("a variable"));
    pairs.flat_map(|(name, value)| [format!("--{}", name.to_lowercase().replace('_', "-")), value.to_owned()]).collect()
}

#[cfg(feature = "sabotage")]
#[test]
fn a_seed_that_breaks_is_told_shrunk_and_breaks_again_by_the_command_it_prints() {
    let told = simulate(&["--seeds", "100", "--control", "no-request-check", "--story", "5"]);
    let text_of = text(&told.stdout);
    assert!(told.status.success(), "the control was not found out:\n{text_of}");
    assert!(text_of.contains("lines before (--whole-story shows them)") && text_of.contains("Shrunk in "), "{text_of}");
    let commands: Vec<&str> = text_of.lines().filter(|line| line.starts_with("Again: ")).collect();
    let [whole, shrunk] = commands.as_slice() else { panic!("two commands: {commands:?}") };
    assert!(!whole.contains("LEAVE_OUT") && shrunk.contains("LEAVE_OUT"), "{commands:?}");
    for command in commands {
        let flags = as_flags(command);
        let again = simulate(&flags.iter().map(String::as_str).chain(["--no-shrink"]).collect::<Vec<_>>());
        let again = text(&again.stdout);
        assert!(again.contains(" broke ") && again.contains(command), "{command}\n{again}");
        let without: Vec<&str> = flags
            .iter()
            .map(String::as_str)
            .filter(|flag| *flag != "--control" && *flag != "no-request-check")
            .collect();
        let held = simulate(&without);
        assert!(held.status.success(), "it breaks with the protection too: {}", text(&held.stdout));
    }
}
