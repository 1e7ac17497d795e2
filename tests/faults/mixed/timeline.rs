//! What a run has seen, at a glance: a picture, with nothing it needs from elsewhere, in light and in dark.
//!
//! On top the whole run as one strip: who led, and what struck. Below it the same in strips of two minutes, with a lane
//! for each sidecar, coloured by how it looked; faults are bands through all lanes, with their names above. Colour is
//! never alone: leading is a full bar with the sidecar's letter, everything else is thinner or hatched.

use std::fmt::Write as _;
use std::time::Duration;

use support::Moment;

use super::lane::{Lane, Look, Span};
use super::limits::Promise;
use super::report::{clock, totals};
use super::run::Story;
use super::scene::SIDECARS;
use super::trial::Trial;

/// Width of the time axis, and what is left of it for names, in the picture's units.
const AXIS: f64 = 1200.0;
const LEFT: f64 = 70.0;
const WIDTH: f64 = LEFT + AXIS + 20.0;
/// The time in a strip: a trial of some twelve seconds is then wide enough for its name.
const STRIP: Duration = Duration::from_secs(120);
/// Height of a lane, and from one to the next.
const LANE: f64 = 16.0;
const LANE_STEP: f64 = 20.0;
/// Rows of fault names above the lanes: neighbours stand in different ones.
const NAME_ROWS: usize = 3;
const NAME_STEP: f64 = 13.0;
const STRIP_HEAD: f64 = 50.0;
const STRIP_FOOT: f64 = 34.0;
/// How wide a letter of the names is, for what fits where.
const LETTER: f64 = 6.2;

const STYLE: &str = "
text { font: 11px system-ui, sans-serif; fill: #1f2328; }
.page { fill: #ffffff; } .quiet { fill: #59636e; } .title { font-size: 15px; font-weight: 600; }
.fault { fill: #d4a72c; fill-opacity: .16; } .edge { stroke: #9a6700; stroke-width: 1; } .name { font-size: 10.5px; fill: #7d4e00; }
.theft { fill: #8250df; fill-opacity: .14; } .grid { stroke: #d1d9e0; stroke-width: 1; }
.leading { fill: #0969da; } .in { fill: #ffffff; font-weight: 600; font-size: 10.5px; }
.standby { fill: #b6c8da; } .jeopardy { fill: #e16f24; } .standing-down { fill: #a475f9; } .starting { fill: #e7d27c; }
.silent { fill: #57606a; } .down { fill: none; stroke: #57606a; stroke-dasharray: 2 2; }
.violation { stroke: #d1242f; stroke-width: 2; } .bad { fill: #d1242f; font-weight: 700; } .good { fill: #1a7f37; font-weight: 600; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .page { fill: #0d1117; } .quiet { fill: #9198a1; }
.fault { fill: #e3b341; } .edge { stroke: #bb8009; } .name { fill: #e3b341; } .theft { fill: #bc8cff; } .grid { stroke: #2b323b; }
.leading { fill: #4493f8; } .in { fill: #0d1117; } .standby { fill: #34465a; } .starting { fill: #8a7a2f; }
.jeopardy { fill: #f0883e; } .standing-down { fill: #ab7df8; } .silent { fill: #8b949e; } .down { stroke: #8b949e; }
.violation { stroke: #ff7b72; } .bad { fill: #ff7b72; } .good { fill: #3fb950; }
}
";

/// The picture.
pub fn svg(story: &Story) -> String {
    let strips = strips(story);
    let mut canvas = Canvas::default();
    let mut y = 24.0;
    canvas.text(LEFT, y, "title", "Mixed faults: who led, and what was broken");
    y += 18.0;
    let verdict = if story.violations.is_empty() { "good" } else { "bad" };
    canvas.text(LEFT, y, verdict, &totals(story));
    y += 16.0;
    legend(&mut canvas, y);
    y += 26.0;
    y = overview(&mut canvas, story, y);
    for (begin, end) in strips {
        y = strip(&mut canvas, story, begin, end, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\">\n\
         <title>Mixed faults: timeline</title>\n<style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n{}</svg>\n",
        canvas.text
    )
}

/// The beginnings and ends of the strips.
fn strips(story: &Story) -> Vec<(Moment, Moment)> {
    let mut strips = Vec::new();
    let mut begin = story.begin;
    while begin < story.end {
        strips.push((begin, begin.after(STRIP)));
        begin = begin.after(STRIP);
    }
    strips
}

const fn class(look: Look) -> &'static str {
    match look {
        Look::Leading => "leading",
        Look::Standby => "standby",
        Look::Starting => "starting",
        Look::Jeopardy => "jeopardy",
        Look::StandingDown => "standing-down",
        Look::Silent => "silent",
        Look::Down => "down",
    }
}

const fn meaning(look: Look) -> &'static str {
    match look {
        Look::Leading => "leads (200)",
        Look::Standby => "stands by",
        Look::Starting => "starts",
        Look::Jeopardy => "jeopardy",
        Look::StandingDown => "stands down",
        Look::Silent => "does not answer",
        Look::Down => "does not run",
    }
}

/// How high a lane's bar is: leading is full, so that it is seen without colour.
const fn height(look: Look) -> f64 {
    match look {
        Look::Leading => LANE,
        Look::Jeopardy | Look::StandingDown => 10.0,
        Look::Standby | Look::Starting | Look::Silent | Look::Down => 5.0,
    }
}

fn legend(canvas: &mut Canvas, y: f64) {
    let mut x = LEFT;
    for look in Look::ALL {
        canvas.bar(class(look), x, y - 4.0 - height(look) / 2.0, 22.0, height(look), meaning(look));
        canvas.text(x + 27.0, y, "quiet", meaning(look));
        x += 132.0;
    }
    for (class, meaning) in [("fault", "a fault, until healed"), ("theft", "with a theft of the lock")] {
        canvas.bar(class, x, y - 12.0, 22.0, LANE, meaning);
        canvas.text(x + 27.0, y, "quiet", meaning);
        x += 155.0;
    }
}

/// The whole run in one row: who led, and what struck.
fn overview(canvas: &mut Canvas, story: &Story, y: f64) -> f64 {
    let scale = Scale { begin: story.begin, end: story.end };
    canvas.text(8.0, y + 12.0, "", "all of it");
    for trial in &story.trials {
        let (x, width) = scale.place(trial.begin, trial.healed);
        let class = if trial.promise == Promise::Bounded { "theft" } else { "fault" };
        canvas.bar(class, x, y - 4.0, width, LANE + 8.0, &told(story, trial));
    }
    let height = LANE / 5.0;
    for lane in &story.lanes {
        let row = row_of(lane);
        for span in lane.spans.iter().filter(|span| span.look == Look::Leading) {
            let (x, width) = scale.place(span.begin, span.end);
            canvas.bar("leading", x, y + f64::from(row) * height, width, height, &says(story, lane, span));
        }
    }
    axis(canvas, story, &scale, y + LANE + 4.0);
    y + LANE + 50.0
}

fn strip(canvas: &mut Canvas, story: &Story, begin: Moment, end: Moment, top: f64) -> f64 {
    let scale = Scale { begin, end };
    let lanes_top = top + STRIP_HEAD;
    let bottom = lanes_top + LANE_STEP * 5.0;
    faults(canvas, story, &scale, top, bottom);
    for lane in &story.lanes {
        let y = lanes_top + LANE_STEP * f64::from(row_of(lane));
        canvas.text(LEFT - 22.0, y + 12.0, "", &lane.name);
        for span in lane.spans.iter().filter(|span| span.begin < end && span.end > begin) {
            draw_span(canvas, story, lane, span, &scale, y);
        }
    }
    axis(canvas, story, &scale, bottom);
    bottom + STRIP_FOOT
}

fn draw_span(canvas: &mut Canvas, story: &Story, lane: &Lane, span: &Span, scale: &Scale, y: f64) {
    let (x, width) = scale.place(span.begin, span.end);
    let height = height(span.look);
    canvas.bar(class(span.look), x, y + (LANE - height) / 2.0, width, height, &says(story, lane, span));
    let term = format!("{} · term {}", lane.name, span.term.1);
    if span.look == Look::Leading && wide(&term) < width {
        canvas.text(x + 4.0, y + 12.0, "in", &term);
    }
}

/// Bands through the lanes, with the names of the faults above; a trial's names stand in one row.
fn faults(canvas: &mut Canvas, story: &Story, scale: &Scale, top: f64, bottom: f64) {
    let mut free = [LEFT; NAME_ROWS];
    for trial in story.trials.iter().filter(|trial| trial.begin < scale.end && trial.healed > scale.begin) {
        for part in &trial.parts {
            let (x, width) = scale.place(part.begin, part.end);
            let theft = trial.promise == Promise::Bounded;
            let class = if theft { "theft" } else { "fault" };
            canvas.bar(class, x, top + STRIP_HEAD - 6.0, width, bottom - top - STRIP_HEAD + 6.0, &part.whom);
            canvas.line("edge", x, top + STRIP_HEAD - 6.0, bottom);
        }
        name(canvas, story, trial, scale, top, &mut free);
        if !trial.seen.violations.is_empty() {
            canvas.line("violation", scale.x(trial.end), top, bottom);
        }
    }
}

/// In the first row that has room; cut short where none has.
fn name(canvas: &mut Canvas, story: &Story, trial: &Trial, scale: &Scale, top: f64, free: &mut [f64; NAME_ROWS]) {
    let x = scale.x(trial.begin);
    let goes_on = if trial.begin < scale.begin { "… " } else { "" };
    let text = format!("{goes_on}{} {}", trial.number, trial.title());
    let row = free.iter().position(|end| *end <= x);
    let row = row.unwrap_or_else(|| (0..NAME_ROWS).min_by(|a, b| free[*a].total_cmp(&free[*b])).unwrap_or(0));
    let x = x.max(free[row]);
    let room = LEFT + AXIS + 10.0 - x;
    let mut shown = text;
    while wide(&shown) > room && shown.pop().is_some() {}
    free[row] = x + wide(&shown) + 8.0;
    let rows_below = f64::from(u8::try_from(NAME_ROWS - 1 - row).expect("a few rows"));
    let class = if trial.seen.violations.is_empty() { "name" } else { "bad" };
    let y = top + STRIP_HEAD - 10.0 - rows_below * NAME_STEP;
    canvas.told(x, y, class, &shown, &told(story, trial));
}

/// Below the lanes: a tick every so often, with the time since the beginning.
fn axis(canvas: &mut Canvas, story: &Story, scale: &Scale, y: f64) {
    let whole = scale.end.since(scale.begin);
    let steps = [10, 30, 60, 300, 600, 1800].map(Duration::from_secs);
    let step = steps.into_iter().find(|step| whole.as_secs_f64() / step.as_secs_f64() <= 13.0);
    let step = step.unwrap_or(Duration::from_secs(3600));
    let mut at = scale.begin;
    while at <= scale.end {
        let x = scale.x(at);
        canvas.line("grid", x, y, y + 5.0);
        canvas.text(x - 10.0, y + 17.0, "quiet", &clock(at.since(story.begin)));
        at = at.after(step);
    }
}

fn row_of(lane: &Lane) -> u8 {
    let place = SIDECARS.iter().position(|name| *name == lane.name).unwrap_or_default();
    u8::try_from(place).expect("there are five sidecars")
}

fn wide(text: &str) -> f64 {
    f64::from(u16::try_from(text.chars().count()).unwrap_or(u16::MAX)) * LETTER
}

fn says(story: &Story, lane: &Lane, span: &Span) -> String {
    let term = if span.look == Look::Leading { format!(", term {}", span.term.1) } else { String::new() };
    let (from, to) = (span.begin.since(story.begin).as_secs_f64(), span.end.since(story.begin).as_secs_f64());
    format!("{} {}{term}: {from:.2} s to {to:.2} s", lane.name, meaning(span.look))
}

fn told(story: &Story, trial: &Trial) -> String {
    let seen = &trial.seen;
    let mut text = format!(
        "trial {} at {:.1} s: {}\n{} failovers, {:.2} s without a leader (bound {:.2} s)",
        trial.number,
        trial.begin.since(story.begin).as_secs_f64(),
        trial.story(),
        seen.failovers,
        seen.leaderless.as_secs_f64(),
        trial.bound.as_secs_f64()
    );
    for violation in &seen.violations {
        text.push_str("\nVIOLATION: ");
        text.push_str(violation);
    }
    text
}

/// A time and its place on the axis.
struct Scale {
    begin: Moment,
    end: Moment,
}

impl Scale {
    fn x(&self, at: Moment) -> f64 {
        let whole = self.end.since(self.begin).as_secs_f64().max(0.001);
        LEFT + AXIS * (at.since(self.begin).as_secs_f64() / whole).min(1.0)
    }

    /// Where something from here to there is, and how wide: seen in any case.
    fn place(&self, begin: Moment, end: Moment) -> (f64, f64) {
        let x = self.x(begin);
        (x, (self.x(end) - x).max(0.6))
    }
}

/// Shapes so far.
#[derive(Default)]
struct Canvas {
    text: String,
}

impl Canvas {
    fn add(&mut self, shape: std::fmt::Arguments<'_>) {
        self.text.write_fmt(shape).expect("a String takes everything");
        self.text.push('\n');
    }

    fn bar(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64, title: &str) {
        let title = escaped(title);
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"><title>{title}</title></rect>"
        ));
    }

    fn line(&mut self, class: &str, x: f64, top: f64, bottom: f64) {
        self.add(format_args!("<path class=\"{class}\" d=\"M{x:.1} {top:.1}V{bottom:.1}\"/>"));
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        let text = escaped(text);
        self.add(format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
    }

    fn told(&mut self, x: f64, y: f64, class: &str, text: &str, title: &str) {
        let (text, title) = (escaped(text), escaped(title));
        self.add(format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}<title>{title}</title></text>"));
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
