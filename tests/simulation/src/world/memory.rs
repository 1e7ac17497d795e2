//! What a candidate keeps for its next process, and what that one makes of it: as `src/state_dir/` does.

use bellwether::election::{Inheritance, Memory};

use super::World;
use crate::guardian::Guardian;
use crate::node::Kept;

/// One write in so many does not happen: the disk is full, or slow. That what was kept is removed is not left to chance: the
/// core counts on it.
const NOT_WRITTEN_ONE_IN: u64 = 10;
/// One folder in so many is gone when the next process looks for it.
const FOLDER_LOST_ONE_IN: u64 = 12;

impl World {
    pub(super) fn remembers(&mut self, node: usize, memory: Memory) {
        if !self.company_dice.once_in(NOT_WRITTEN_ONE_IN) {
            let it = &mut self.nodes[node];
            let began = it.process.as_ref().expect("it has effects").began;
            it.kept = Some(Kept { memory, began, epoch: it.epoch });
        }
    }

    /// Whether the folder is still held by the guardian of an earlier life.
    pub(super) fn folder_is_held(&self, node: usize) -> bool {
        self.nodes[node].company.remembers && self.nodes[node].guardians.iter().any(Guardian::is_alive)
    }

    /// What the process that starts now inherits.
    pub(super) fn inherits(&mut self, node: usize) -> Inheritance {
        if self.nodes[node].kept.is_some() && self.company_dice.once_in(FOLDER_LOST_ONE_IN) {
            self.nodes[node].kept = None;
        }
        let it = &mut self.nodes[node];
        let Some(kept) = it.kept.clone() else { return Inheritance::Nothing };
        let now = it.clock.reading(self.now).boot;
        let memory = kept.memory;
        if kept.epoch != it.epoch || now.since(memory.sent) >= memory.ttl {
            it.kept = None;
            return Inheritance::Nothing;
        }
        // What is kept is this life's from now on: one that dies before its first renewal has not lasted.
        let taken_over = Kept { began: now, memory: memory.clone(), epoch: it.epoch };
        let outlasted = memory.sent.since(kept.began) >= memory.ttl;
        it.kept = Some(taken_over);
        if outlasted {
            self.note(format!("{node} goes on with what it remembers of {}", memory.term));
            Inheritance::Resume(memory)
        } else {
            self.note(format!("{node} gives back what it remembers of {}", memory.term));
            let not_before = now.after(memory.validity);
            Inheritance::Release { memory, not_before }
        }
    }
}
