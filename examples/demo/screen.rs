//! The live view: the story scrolls by above, the table stays below.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use support::{HttpClient, Moment};

use crate::stage::Watched;
use crate::table::{Row, Told, lines};
use crate::terminal::draw;

/// Five views a second: alive, and readable.
const REDRAW: Duration = Duration::from_millis(200);
/// How long the view waits for one sidecar. Who is slower is shown as silent.
const ANSWER_WITHIN: Duration = Duration::from_millis(100);
/// A poller without an answer for so long says that asking is of no use: frozen.
const SILENT_AFTER: Duration = Duration::from_millis(300);
const HELP: &str = "  k kill -9 the leader   p pause it   r resign   t SIGTERM   e restart etcd   q quit\x1b[K";

/// A thread that draws. Dropping it stops it.
#[derive(Debug)]
pub(crate) struct Screen {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    pub(crate) fn start(watched: Vec<Arc<Watched>>, story: Receiver<String>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("screen".to_owned())
            .spawn(move || show(watched, &story, &stopped))
            .context("cannot start a thread for the screen")?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread's own panic has been printed already.
            thread.join().ok();
        }
    }
}

fn show(watched: Vec<Arc<Watched>>, story: &Receiver<String>, stopped: &AtomicBool) {
    let mut windows: Vec<_> = watched.into_iter().map(Window::new).collect();
    let mut drawn = 0;
    while !stopped.load(Ordering::Relaxed) {
        let rows: Vec<_> = windows.iter_mut().map(Window::row).collect();
        let mut view = lines(&rows);
        view.push(HELP.to_owned());
        let mut told: Vec<String> = story.try_iter().collect();
        // Up to the first line of the view before, the new lines of the story over it, the new view below.
        let up = if drawn == 0 { String::new() } else { format!("\x1b[{drawn}A") };
        for line in &mut told {
            line.push_str("\x1b[K");
        }
        drawn = view.len();
        told.append(&mut view);
        draw(&format!("{up}\r{}\n", told.join("\n")));
        thread::sleep(REDRAW);
    }
    // What was told while the stage was being left.
    for line in story.try_iter() {
        draw(&format!("{line}\n"));
    }
}

/// The view's own connections to one sidecar.
struct Window {
    watched: Arc<Watched>,
    local: HttpClient,
    telemetry: HttpClient,
}

impl Window {
    fn new(watched: Arc<Watched>) -> Self {
        let local = HttpClient::new(watched.http, ANSWER_WITHIN);
        let telemetry = HttpClient::new(watched.telemetry, ANSWER_WITHIN);
        Self { watched, local, telemetry }
    }

    fn row(&mut self) -> Row {
        let silent_since = Moment::now().before(SILENT_AFTER);
        let silent = self.watched.poller.last().is_none_or(|sample| sample.received < silent_since);
        let answer = if silent { None } else { self.ask() };
        let renewals = answer.as_ref().and_then(|_| self.renewals());
        Row {
            identity: self.watched.identity.clone(),
            pid: self.watched.pid.load(Ordering::Relaxed),
            url: format!("http://{}", self.watched.http),
            answer,
            renewals,
        }
    }

    fn ask(&mut self) -> Option<Told> {
        let response = self.local.get("/leader").ok()?;
        let body = response.json();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        Some(Told {
            status: response.status,
            state: text(&body["state"]),
            term: body["term"].as_u64().unwrap_or(0),
            valid_for_ms: body["valid_for_ms"].as_u64().unwrap_or(0),
            etcd: text(&body["etcd"]),
        })
    }

    fn renewals(&mut self) -> Option<u64> {
        let text = self.telemetry.get("/metrics").ok()?.text();
        let text = support::without_election(&text);
        text.lines().find_map(|line| line.strip_prefix("bellwether_renewals_total{result=\"ok\"} ")?.parse().ok())
    }
}
