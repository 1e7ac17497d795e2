//! What is told: lines with the time since the start.

use std::sync::mpsc::{Receiver, Sender, channel};

use support::Moment;

/// Where the lines go.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    began: Moment,
    /// To the screen; without one, to stdout.
    screen: Option<Sender<String>>,
}

impl Story {
    /// Told on stdout.
    pub(crate) fn plain() -> Self {
        Self { began: Moment::now(), screen: None }
    }

    /// Told to a screen, which takes the lines from the receiver. They are few: one per thing that happens.
    pub(crate) fn live() -> (Self, Receiver<String>) {
        let (screen, lines) = channel();
        (Self { began: Moment::now(), screen: Some(screen) }, lines)
    }

    /// Tells one line.
    pub(crate) fn tell(&self, what: &str) {
        let line = format!("[{:8.3} s] {what}", Moment::now().since(self.began).as_secs_f64());
        match &self.screen {
            // Without a screen any more there is nobody to tell.
            Some(screen) => screen.send(line).unwrap_or(()),
            None => print(&line),
        }
    }
}

#[expect(clippy::print_stdout, reason = "stdout is what the demo is for")]
fn print(line: &str) {
    println!("{line}");
}
