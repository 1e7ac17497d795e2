//! Turns of the drivers, and what becomes of the effects that are the machine's own business.

use std::collections::VecDeque;
use std::time::Duration;

use bellwether::election::{Call, Effect, Epoch, Event, Notice, OpId, Revision};

use super::{Happening, World};
use crate::invariants::{effects_per_input_are_bounded, no_hot_loop, queues_are_bounded};
use crate::node::{Pause, Place, Step};
use crate::scenario::Control;

/// An answer on a stream or watch that its candidate has closed was read before, once in so many times, and arrives.
const READ_BEFORE_ONE_IN: u64 = 2;

/// One time in this many a release waits for an answer whose client reads slowly, up to the limit on such.
const SLOW_ANSWER_ONE_IN: u64 = 8;
const SLOW_ANSWER_MOST: Duration = Duration::from_secs(5);

/// Between two looks at a folder that an earlier life's guardian holds.
const FOLDER_LOOKED_AT_EVERY: u64 = 10_000_000;

impl World {
    pub(super) fn starts(&mut self, node: usize) {
        if self.nodes[node].process.is_some() {
            return;
        }
        if let Some(pause) = self.nodes[node].pause {
            return self.at(pause.until + 1, Happening::Starts { node });
        }
        if self.folder_is_held(node) {
            return self.after(FOLDER_LOOKED_AT_EVERY, Happening::Starts { node });
        }
        let seed = self.seeds.roll();
        let epoch = self.nodes[node].epoch;
        self.note(format!("{node} starts with epoch {epoch}"));
        let inheritance = self.inherits(node);
        let timings = match self.control {
            Some(Control::StopTimeKept) => self.setup.timings,
            Some(Control::Candidate(_) | Control::ConfirmBeside | Control::ViewAfterEffects) | None => {
                self.nodes[node].timings
            }
        };
        self.nodes[node].start(self.now, seed, timings, inheritance);
        self.judge.is_born(node);
        self.begins_to_look_at_application(node);
        self.begin_turn(node);
    }

    /// The process is gone, in order or not: its connections are closed, what it sent is on its way.
    pub(crate) fn ends(&mut self, node: usize) {
        let Some(process) = self.nodes[node].end() else { return };
        for watch in process.watches.values() {
            self.cluster.forget(watch.ticket);
            self.flights.remove(&watch.ticket);
        }
        self.orphans_work(node);
    }

    pub(super) fn restarts_with_epoch(&mut self, node: usize, epoch: u64) {
        if self.nodes[node].epoch.0 >= epoch {
            return;
        }
        if let Some(pause) = self.nodes[node].pause.filter(|pause| pause.guest) {
            return self.at(pause.until + 1, Happening::RestartsWithEpoch { node, epoch });
        }
        self.note(format!("{node} is restarted with epoch {epoch}"));
        self.nodes[node].epoch = Epoch(epoch);
        self.nodes[node].pause = None;
        self.ends(node);
        self.after(1, Happening::Starts { node });
    }

    pub(super) fn wakes(&mut self, node: usize) {
        if self.nodes[node].pause.is_none_or(|pause| pause.until > self.now) {
            return;
        }
        self.note(format!("{node} goes on"));
        let guest = self.nodes[node].pause.take().is_some_and(|pause| pause.guest);
        let stood_still = self.nodes[node].clock.go_on(self.now);
        if guest {
            self.guest_went_on(node, stood_still);
        }
        let Some(process) = &self.nodes[node].process else { return };
        let life = self.nodes[node].life;
        // A turn goes on where it was stopped: nothing else runs in between. A loop that waited takes a moment, in
        // which the listeners may answer.
        if process.turn.is_empty() {
            let number = process.timer;
            let soon = self.dice.nanos(Duration::ZERO, Duration::from_millis(5));
            self.after(soon, Happening::Timer { node, life, number });
        } else {
            self.goes_on(node, life);
        }
    }

    // ---- what wakes the loop

    /// Something for the process, which takes it when its loop gets to it.
    pub(super) fn tells(&mut self, node: usize, life: u64, event: Event) {
        let it = &mut self.nodes[node];
        let Some(process) = it.process.as_mut().filter(|_| it.life == life) else { return };
        process.inbox.push_back(event);
        if let Some(late) = self.nodes[node].lateness(self.now) {
            // The loop gets to it when it gets the processor.
            let (number, late) = (self.rearm(node), self.dice.nanos(Duration::ZERO, late));
            self.after(late, Happening::Timer { node, life, number });
        } else if self.nodes[node].is_waiting() {
            self.next_turn(node);
        }
    }

    pub(super) fn timer_rings(&mut self, node: usize, life: u64, number: u64) {
        let it = &self.nodes[node];
        let counts = it.life == life && it.process.as_ref().is_some_and(|process| process.timer == number);
        if counts && it.is_waiting() {
            self.next_turn(node);
        }
    }

    /// The timers from before do not count any more. The number of the next one.
    fn rearm(&mut self, node: usize) -> u64 {
        let process = self.nodes[node].process.as_mut().expect("only a process arms timers");
        process.timer += 1;
        process.timer
    }

    fn next_turn(&mut self, node: usize) {
        let event = self.next_event(node);
        let process = self.nodes[node].process.as_mut().expect("its loop waits");
        let (leads, tells_of_lock) = (
            process.published.lead.map(|lead| lead.term),
            match &event {
                Some(Event::WatchChanged { watch, change, .. }) => {
                    process.watches.get(watch).filter(|open| open.on_lock).map(|_| change.clone())
                }
                Some(_) | None => None,
            },
        );
        let header = event.as_ref().and_then(Event::header);
        process.heard = process.heard.max(header.map_or(Revision(0), |header| header.revision));
        self.tally.turns += 1;
        // A deadline that is handled first may close the watch, and what it tells is not read any more.
        let change = tells_of_lock.filter(|_| !self.nodes[node].is_due(self.now));
        if let Some(change) = change {
            self.judge.is_told(node, leads, &change);
        }
        let handled = self.nodes[node].handle(self.now, event);
        self.judged(no_hot_loop(node, handled));
        self.begin_turn(node);
    }

    /// The first thing in the queue that anybody waits for.
    fn next_event(&mut self, node: usize) -> Option<Event> {
        loop {
            let event = self.nodes[node].process.as_mut().expect("its loop waits").inbox.pop_front()?;
            let read_before = self.dice.once_in(READ_BEFORE_ONE_IN);
            if self.nodes[node].takes(&event, read_before) {
                return Some(event);
            }
        }
    }

    // ---- a turn

    /// The candidate has handled its input: view, then effects.
    fn begin_turn(&mut self, node: usize) {
        let steps = match self.control {
            Some(Control::ViewAfterEffects) => [Step::Effects, Step::Publish],
            Some(Control::Candidate(_) | Control::ConfirmBeside | Control::StopTimeKept) | None => {
                [Step::Publish, Step::Effects]
            }
        };
        let it = &mut self.nodes[node];
        it.process.as_mut().expect("it is in a turn").turn = VecDeque::from(steps);
        if let Some((Place::BeforeAnything, lasts)) = it.pause_in_turn {
            it.pause_in_turn = None;
            self.stop_in_turn(node, "before its view", lasts);
            return;
        }
        let life = it.life;
        self.goes_on(node, life);
    }

    fn stop_in_turn(&mut self, node: usize, place: &str, lasts: u64) {
        self.note(format!("{node} is stopped {place} for {:?}", Duration::from_nanos(lasts)));
        self.nodes[node].pause = Some(Pause { until: self.now + lasts, guest: false });
        self.after(lasts, Happening::Wakes { node });
    }

    /// The next step of the turn under way.
    pub(super) fn goes_on(&mut self, node: usize, life: u64) {
        let it = &mut self.nodes[node];
        if it.life != life || it.is_stopped() {
            return;
        }
        let Some(process) = &mut it.process else { return };
        match process.turn.pop_front() {
            Some(Step::Publish) => it.publish(),
            Some(Step::Effects) => {
                self.carry_out(node);
                if self.nodes[node].life != life {
                    return;
                }
            }
            None => return,
        }
        let it = &mut self.nodes[node];
        let done = it.process.as_ref().is_none_or(|process| process.turn.is_empty());
        if done {
            self.end_turn(node);
        } else if let Some((Place::InBetween, lasts)) = it.pause_in_turn {
            it.pause_in_turn = None;
            self.stop_in_turn(node, "between view and effects", lasts);
        } else {
            let late = it.lateness(self.now);
            // Now and then somebody else gets the processor in between.
            let most = if self.dice.once_in(8) { Duration::from_millis(20) } else { Duration::from_micros(50) };
            let gap = self.dice.nanos(Duration::from_micros(1), late.unwrap_or(most));
            self.after(gap, Happening::Step { node, life });
        }
    }

    fn end_turn(&mut self, node: usize) {
        let number = self.rearm(node);
        let it = &self.nodes[node];
        let (life, late) = (it.life, it.lateness(self.now));
        let process = it.process.as_ref().expect("it was in a turn");
        let open = [process.calls.len(), process.streams.len(), process.watches.len()];
        let more = !process.inbox.is_empty();
        self.judged(queues_are_bounded(node, open));
        if more {
            let soon = self.dice.nanos(Duration::ZERO, late.unwrap_or(Duration::from_micros(20)));
            self.after(soon, Happening::Timer { node, life, number });
        } else if let Some(at) = self.nodes[node].wakes_at(self.now) {
            let most = if self.dice.once_in(20) { Duration::from_millis(60) } else { Duration::from_millis(1) };
            let late = self.dice.nanos(Duration::ZERO, late.unwrap_or(most));
            self.at(at + late, Happening::Timer { node, life, number });
        }
    }

    // ---- effects

    fn carry_out(&mut self, node: usize) {
        let mut count = 0;
        while let Some(effect) = self.nodes[node].process.as_mut().and_then(|process| process.candidate.poll_effect()) {
            count += 1;
            let lets_go = matches!(&effect, Effect::Request(request) if lets_go(&request.call));
            self.carry_out_one(node, effect);
            if lets_go && let Some(rest) = self.nodes[node].dies_at_release.take() {
                self.note(format!("{node} dies when its release has left"));
                self.ends(node);
                self.after(rest, Happening::Starts { node });
                return;
            }
        }
        self.looks_at_stopped_work(node);
        self.judged(effects_per_input_are_bounded(node, count));
    }

    fn carry_out_one(&mut self, node: usize, effect: Effect) {
        let life = self.nodes[node].life;
        match effect {
            Effect::Request(request) => self.sends_call(node, request),
            Effect::KeepAlive { stream, endpoint, lease } => self.sends_keep_alive(node, stream, endpoint.0, lease),
            Effect::CloseStream(stream) => {
                self.nodes[node].process.as_mut().expect("it runs").streams.remove(&stream);
            }
            Effect::Redial(endpoint) => unreachable!("there is one cluster, and {endpoint:?} is of it"),
            Effect::Watch { watch, endpoint, target, from } => self.opens_watch(node, watch, endpoint.0, target, from),
            Effect::Unwatch(watch) => self.closes_watch(node, watch),
            Effect::SettleAnswers(op) => {
                // Now and then an answer is slow to leave for its socket.
                let most = if self.dice.once_in(SLOW_ANSWER_ONE_IN) { SLOW_ANSWER_MOST } else { Duration::ZERO };
                let later = self.dice.nanos(Duration::ZERO, most);
                self.after(later, Happening::Settles { node, life, op });
            }
            Effect::Publish(publication) => {
                let soon = self.labels.publish(node, life, publication);
                self.looks_at_labels(node, life, soon);
            }
            Effect::StartWork { id, term, until } => self.starts_work(node, id, term, until),
            Effect::ExtendWork { id, until } => self.extends_work(node, id, until),
            Effect::StopWork { id, kill_at } => self.stops_work(node, id, kill_at),
            Effect::Remember(memory) => self.remembers(node, memory),
            Effect::Forget => self.nodes[node].kept = None,
            Effect::Tell(notice) => self.hears(node, &notice),
            Effect::Exit => {
                self.note(format!("{node} exits"));
                let rest = self.nodes[node].rest;
                self.ends(node);
                self.after(rest, Happening::Starts { node });
            }
        }
    }

    fn hears(&mut self, node: usize, notice: &Notice) {
        let Notice::Transition { from, to, reason, term } = notice else { return };
        *self.tally.transitions.entry((*from, *to, *reason)).or_default() += 1;
        let term = term.map(|term| format!(", term {term}")).unwrap_or_default();
        self.note(format!("{node}: {} → {} ({}){term}", from.as_str(), to.as_str(), reason.as_str()));
    }

    /// The promises given out before the call have run out on the machine's own clock, or are waited for.
    pub(super) fn settles(&mut self, node: usize, life: u64, op: OpId) {
        let it = &self.nodes[node];
        let Some(process) = it.process.as_ref().filter(|_| it.life == life) else { return };
        if let Some(pause) = it.pause {
            return self.at(pause.until + 1, Happening::Settles { node, life, op });
        }
        match process.promised.filter(|promised| *promised > it.clock.reading(self.now).boot) {
            Some(promised) => {
                let at = it.clock.true_time(promised);
                let late = self.dice.nanos(Duration::ZERO, Duration::from_millis(2));
                self.at(at + late, Happening::Settles { node, life, op });
            }
            None => self.after(1, Happening::Tells { node, life, event: Event::AnswersSettled { id: op } }),
        }
    }
}

/// Whether etcd takes the lock from its holder when it carries this out.
fn lets_go(call: &Call) -> bool {
    match call {
        Call::DeleteLock { .. } | Call::Revoke { .. } => true,
        Call::Probe
        | Call::Grant { .. }
        | Call::Observe { .. }
        | Call::Register { .. }
        | Call::Unregister { .. }
        | Call::Claim { .. }
        | Call::Resume { .. }
        | Call::Confirm => false,
    }
}
