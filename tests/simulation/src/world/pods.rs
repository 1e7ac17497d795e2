//! The labellers' side of a run.

use bellwether::election::Event;

use super::{Happening, World};
use crate::labels::{Next, Patch};

impl World {
    /// A labeller looks, so much later; not when it was to before.
    pub(super) fn looks_at_labels(&mut self, node: usize, life: u64, later: u64) {
        let number = self.labels.next_look(node);
        self.after(later, Happening::LabelRound { node, life, number });
    }

    pub(super) fn label_round(&mut self, node: usize, life: u64, number: u64) {
        let it = &self.nodes[node];
        if it.life != life || it.process.is_none() || !self.labels.is_last_look(node, number) {
            return;
        }
        if let Some(pause) = it.pause {
            self.at(pause.until + 1, Happening::LabelRound { node, life, number });
            return;
        }
        for next in self.labels.round(self.now, node, life) {
            match next {
                Next::Lands(later, patch) => self.after(later, Happening::PatchLands(patch)),
                Next::Looks(later) => self.looks_at_labels(node, life, later),
                Next::Seen(Some((later, id))) => {
                    self.after(later, Happening::Tells { node, life, event: Event::Published { id } });
                }
                Next::Seen(None) => {}
            }
        }
    }

    pub(super) fn patch_lands(&mut self, patch: &Patch) {
        self.labels.lands(self.now, patch);
        if self.nodes[patch.by].life == patch.life {
            self.looks_at_labels(patch.by, patch.life, 1);
        }
    }
}
