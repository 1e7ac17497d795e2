//! What a run has seen, for people: Markdown.

use std::fmt::Write as _;
use std::time::Duration;

use support::Moment;

use super::access::Security;
use super::catalogue::Kind;
use super::limits::BETWEEN_TRIALS;
use super::run::Story;
use super::theft::VIEW;
use super::trial::Trial;
use super::verdict::Together;

/// What the mixed scene does not have, and where it is tried instead.
const ELSEWHERE: [(&str, &str); 4] = [
    ("the authority itself rotated", "`tests/faults/secured.rs`: it takes operators a while, in steps"),
    ("the whole store wiped or restored", "`tests/faults/store.rs`: it ends an election until an operator acts"),
    (
        "several elections on one etcd, a foreign program on the lock",
        "`tests/faults/thaw.rs`, `tests/faults/operator.rs`",
    ),
    ("the API server and the label", "`tests/kubernetes/`"),
];

/// One line.
pub fn totals(story: &Story) -> String {
    let stolen: Together = story.trials.iter().map(|trial| trial.seen.stolen).sum();
    let innocent = story.trials.iter().map(|trial| trial.seen.together).sum::<Together>() + story.between.together;
    let struck = |trial: &Trial| trial.parts.iter().filter(|part| part.has_hit).count();
    format!(
        "{} trials in {}, {} faults, {} failovers; overlap certain {} ms, possible {} ms (by theft: certain {} ms, possible \
         {} ms); {} guarded increments, {} lost; {} unguarded, {} lost; {} violations",
        story.trials.len(),
        clock(story.end.since(story.begin)),
        story.trials.iter().map(struck).sum::<usize>(),
        story.trials.iter().map(|trial| trial.seen.failovers).sum::<usize>(),
        millis(innocent.certain),
        millis(innocent.possible),
        millis(stolen.certain),
        millis(stolen.possible),
        story.guarded.acknowledged,
        story.guarded.lost(),
        story.unguarded.acknowledged,
        story.unguarded.lost(),
        story.violations.len(),
    )
}

/// The whole report.
pub fn markdown(story: &Story) -> String {
    let mut text = String::new();
    head(&mut text, story);
    violations(&mut text, story);
    table(&mut text, "Faults alone", story, |trial, kind| trial.parts.len() == 1 && trial.was_struck_by(kind));
    table(&mut text, "The same in mixtures of two or three", story, |trial, kind| {
        trial.parts.len() > 1 && trial.was_struck_by(kind)
    });
    thefts(&mut text, story);
    counters(&mut text, story);
    not_tried(&mut text, story);
    every_trial(&mut text, story);
    text
}

fn line(text: &mut String, line: impl std::fmt::Display) {
    writeln!(text, "{line}").expect("a String takes everything");
}

fn head(text: &mut String, story: &Story) {
    let Story { plan, pace, .. } = story;
    line(text, "# Mixed faults\n");
    line(text, format_args!("**{}**\n", totals(story)));
    line(
        text,
        format_args!(
            "- Began {}, lasted {}. Picture: [timeline.svg](timeline.svg)",
            story.began_at,
            clock(story.end.since(story.begin))
        ),
    );
    line(
        text,
        format_args!(
            "- To repeat this order of faults: `make faults DURATION={}s SEED={}{}`",
            plan.duration.as_secs(),
            plan.seed,
            only(&plan.kinds)
        ),
    );
    line(
        text,
        format_args!(
            "- etcd {}, three members; five sidecars with a lease of 5 s, two of them behind proxies; {} trials in the clear, {} over \
             TLS with client certificates, passwords, and tokens that expire after 1 s",
            story.etcd_version,
            story.trials.iter().filter(|trial| trial.security == Security::Open).count(),
            story.trials.iter().filter(|trial| trial.security == Security::Secured).count()
        ),
    );
    let prompt = percent(pace.prompt, pace.intervals);
    line(
        text,
        format_args!(
            "- {} requests to `/leader`, {} of them answered 200; {prompt} % were sent within 5 ms of the one before, where that \
             was answered; the longest such interval was {} ms",
            pace.requests,
            story.leading,
            millis(pace.longest)
        ),
    );
    line(
        text,
        "- *Certain*: no choice of instants between sending and receiving puts one leader after the other. *Possible*: what was \
         seen leaves room for it. *Theft*: an operator, or an old etcd (#15247), takes the lock from a leader that has not let it \
         go; the bound is one watch event's delay, and `until`. Only pairs whose first leader was robbed count as such.",
    );
    let between = &story.between;
    line(
        text,
        format_args!(
            "- Between trials and after the last, when leaders resign until the right one leads, the whole promise is judged too, and \
             whatever else no trial has taken: {} reigns began, overlap certain {} ms, possible {} ms. Nobody led for {:.2} s at the most, \
             bound {:.2} s; what is not judged is the time before the first 200 of an act and after its last\n",
            between.reigns,
            millis(between.together.certain),
            millis(between.together.possible),
            between.leaderless.as_secs_f64(),
            BETWEEN_TRIALS.as_secs_f64(),
        ),
    );
}

/// How to say it to `make`, if not all faults were tried.
fn only(kinds: &[Kind]) -> String {
    if kinds.len() == Kind::ALL.len() {
        return String::new();
    }
    format!(" ONLY='{}'", kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(","))
}

fn violations(text: &mut String, story: &Story) {
    line(text, "## Violations\n");
    if story.violations.is_empty() {
        line(text, "None.\n");
        return;
    }
    for (place, violation) in story.violations.iter().enumerate() {
        line(text, format_args!("{}. {violation} ([logs](violation-{}.log))", place + 1, place + 1));
    }
    line(text, "");
}

fn table(text: &mut String, title: &str, story: &Story, belongs: impl Fn(&Trial, Kind) -> bool) {
    line(text, format_args!("## {title}\n"));
    line(
        text,
        "| fault | trials | failovers | overlap, ms: certain / possible | longest without a leader / its bound, s | lost guarded increments |",
    );
    line(text, "|---|---:|---:|---:|---:|---:|");
    for kind in Kind::ALL {
        let trials: Vec<&Trial> = story.trials.iter().filter(|trial| belongs(trial, kind)).collect();
        if !trials.is_empty() {
            line(text, format_args!("| {} | {} |", kind.name(), cells(&trials)));
        }
    }
    let all: Vec<&Trial> =
        story.trials.iter().filter(|trial| Kind::ALL.iter().any(|kind| belongs(trial, *kind))).collect();
    line(text, format_args!("| **all, each trial once** | {} |\n", cells(&all)));
}

fn cells(trials: &[&Trial]) -> String {
    let sum = |what: fn(&Trial) -> Duration| trials.iter().map(|trial| what(trial)).sum::<Duration>();
    // The one that came closest to its bound.
    let closest = trials.iter().max_by(|a, b| {
        let share = |trial: &Trial| trial.seen.leaderless.as_secs_f64() / trial.bound.as_secs_f64();
        share(a).total_cmp(&share(b))
    });
    let (longest, bound) = closest.map_or((0.0, 0.0), |it| (it.seen.leaderless.as_secs_f64(), it.bound.as_secs_f64()));
    let thefts = trials.iter().flat_map(|trial| &trial.seen.thefts).count();
    let theft = if thefts > 0 { format!(" ({thefts} thefts)") } else { String::new() };
    format!(
        "{} | {} | {} / {}{theft} | {longest:.2} / {bound:.2} | {}",
        trials.len(),
        trials.iter().map(|trial| trial.seen.failovers).sum::<usize>(),
        millis(sum(|trial| trial.seen.together.certain + trial.seen.stolen.certain)),
        millis(sum(|trial| trial.seen.together.possible + trial.seen.stolen.possible)),
        trials.iter().map(|trial| trial.seen.lost).sum::<u64>(),
    )
}

fn thefts(text: &mut String, story: &Story) {
    line(text, "## Thefts\n");
    line(
        text,
        format_args!(
            "Times from when anybody first heard that the key was gone. *News*: watches beside the victim had heard of it by way of \
             every member; the bound is {} ms later, and what the machine was busy. Where a way was disturbed, or a fault had hit \
             the victim, the bound is `until`.\n",
            millis(VIEW)
        ),
    );
    line(
        text,
        "| # | faults | from | news, ms | the victim's last 200, ms | its bound, ms |\n|---:|---|---|---:|---:|---:|",
    );
    for trial in &story.trials {
        for theft in &trial.seen.thefts {
            line(
                text,
                format_args!(
                    "| {} | {} | {} | {} | {} | {} |",
                    trial.number,
                    trial.story(),
                    theft.leader,
                    theft.news.map_or("disturbed".to_owned(), millis),
                    millis(theft.last),
                    millis(theft.bound)
                ),
            );
        }
    }
    line(text, "");
}

fn counters(text: &mut String, story: &Story) {
    line(text, "## Counters\n");
    line(
        text,
        "An application beside each sidecar adds one while it is told that it leads; at times it is paused between reading and writing until its term is over.\n",
    );
    line(text, "| counter | acknowledged | refused by the guard | unknown | pauses | came to be | value | lost |");
    line(text, "|---|---:|---:|---:|---:|---:|---:|---:|");
    for (name, count) in [("guarded by the term", &story.guarded), ("unguarded, the control", &story.unguarded)] {
        line(
            text,
            format_args!(
                "| {name} | {} | {} | {} | {} | {} | {} | {} |",
                count.acknowledged,
                count.refused,
                count.unknown,
                count.pauses,
                count.applied,
                count.value,
                count.lost()
            ),
        );
    }
    line(text, "");
}

fn not_tried(text: &mut String, story: &Story) {
    line(text, "## Not tried\n");
    for (what, place) in ELSEWHERE {
        line(text, format_args!("- {what}: {place}"));
    }
    let tried = |kind: Kind| story.trials.iter().any(|trial| trial.was_struck_by(kind));
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !tried(**kind)).map(|kind| kind.name()).collect();
    if !missing.is_empty() {
        line(text, format_args!("- no time was left in this run for: {}", missing.join(", ")));
    }
    line(text, "");
}

fn every_trial(text: &mut String, story: &Story) {
    line(text, "## Every trial\n");
    line(
        text,
        "| # | at | members | faults | lasted, s | failovers | without a leader / bound, s | machine busy, s | well again after, s |",
    );
    line(text, "|---:|---:|---|---|---:|---:|---:|---:|---:|");
    for trial in &story.trials {
        line(
            text,
            format_args!(
                "| {} | {} | {} | {} | {:.1} | {} | {:.2} / {:.2} | {:.2} | {:.1} |",
                trial.number,
                clock(since(story, trial.begin)),
                trial.security.name(),
                trial.story(),
                trial.healed.since(trial.begin).as_secs_f64(),
                trial.seen.failovers,
                trial.seen.leaderless.as_secs_f64(),
                trial.bound.as_secs_f64(),
                trial.seen.held_up.as_secs_f64(),
                trial.end.since(trial.healed).as_secs_f64(),
            ),
        );
    }
    line(text, "\n| fault | what is done |\n|---|---|");
    for kind in Kind::ALL {
        line(text, format_args!("| {} | {} |", kind.name(), kind.means()));
    }
}

fn since(story: &Story, moment: Moment) -> Duration {
    moment.since(story.begin)
}

/// `1:02:03`, `2:03`.
pub fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn millis(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1000.0)
}

fn percent(part: u64, whole: u64) -> String {
    // Rounded down: 100 means all.
    let thousandths = (part * 100_000).checked_div(whole).unwrap_or(0);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_clocks_show_them() {
        assert_eq!(clock(Duration::from_secs(123)), "2:03");
        assert_eq!(clock(Duration::from_secs(3723)), "1:02:03");
    }

    #[test]
    fn a_hundred_percent_are_all_of_them() {
        assert_eq!(percent(999_999, 1_000_000), "99.999");
        assert_eq!(percent(5, 5), "100.000");
        assert_eq!(percent(0, 0), "0.000");
    }
}
