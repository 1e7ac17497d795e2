//! The seeds that have found something once.

use std::path::Path;

use simulation::runner::kept::{Kept, parse};
use simulation::runner::play_guarded;
use simulation::{Scenario, Weather};

fn all() -> Vec<Kept> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let files = std::fs::read_dir(&folder).expect("the folder of kept seeds is there");
    let mut kept = Vec::new();
    for file in files {
        let path = file.expect("a readable folder").path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            kept.extend(parse(&path.display().to_string(), &text).unwrap_or_else(|wrong| panic!("{wrong}")));
        }
    }
    kept
}

#[test]
fn no_kept_seed_breaks_anything_again() {
    for Kept { scenario, remark } in all() {
        let outcome = play_guarded(&simulation::run, &scenario, None);
        if let Err(violation) = outcome.verdict {
            panic!("{scenario:?} ({remark}) is back: {violation}\n{}", outcome.story.join("\n"));
        }
    }
}

#[test]
fn a_line_is_a_weather_a_seed_and_what_it_found() {
    let text = "# for people\n\nstorm 17  # two leaders, 0a1b2c3\n  fading 4 0-2,9 # slow\nstorm 5 bare # old\n";
    let kept = parse("here.txt", text).expect("it is well-formed");
    let first = Kept { scenario: Scenario::of_seed(17, Weather::Storm), remark: "two leaders, 0a1b2c3".into() };
    let left_out = vec![0, 1, 2, 9];
    let second = Scenario { seed: 4, weather: Weather::Fading, left_out, bare: false };
    let third = Scenario { bare: true, ..Scenario::of_seed(5, Weather::Storm) };
    let slow = Kept { scenario: second, remark: "slow".into() };
    assert_eq!(kept, [first, slow, Kept { scenario: third, remark: "old".into() }]);
}

#[test]
fn a_malformed_line_is_named_with_what_is_wrong() {
    for (line, says) in [
        (
            "strom 17 # x",
            "'strom' is no weather: there are storm, operators, old-revokes, fading, handovers, restarts, copies",
        ),
        ("storm # x", "a line is 'weather seed', or 'weather seed 3,7-9' with faults left out"),
        ("storm 1 2 3 # x", "a line is 'weather seed', or 'weather seed 3,7-9' with faults left out"),
        ("storm -1 # x", "'-1' is no seed: a whole number"),
        ("storm 1 a # x", "'a' is no number of a fault: write 3 or 3,7-9"),
        ("storm 1", "say after a # what it found and which commit mended it"),
        ("storm 1 #", "say after a # what it found and which commit mended it"),
    ] {
        let text = format!("# fine\n{line}\n");
        assert_eq!(parse("here.txt", &text), Err(format!("here.txt, line 2: {says}")));
    }
}
