//! The control that confirms beside the keep-alive: its read leaves at the same moment, and what it brought is handed
//! over when the candidate asks for it.

use bellwether::election::{Answer, Call, CallError, Event, OpId};

use super::wire::{Cargo, Waiting};
use super::{Happening, World};
use crate::etcd::Asked;
use crate::network::Direction;
use crate::node::Beside;

impl World {
    pub(super) fn confirms_beside(&mut self, node: usize, member: usize) {
        self.tickets += 1;
        let number = self.tickets;
        let identity = self.nodes[node].identity.clone();
        let cargo = Cargo::Asked(Asked::Call { identity, call: Call::Confirm });
        let ticket = self.takes_off(node, member, Waiting::Beside(number), cargo);
        let delay = self.network.delay(self.now, node, member, Direction::To);
        self.after(delay, Happening::Reaches(ticket));
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        process.beside.insert(member, Beside { number, answer: None, wanted_as: None });
    }

    /// The core asks for the confirm that has left already.
    pub(super) fn answers_from_beside(&mut self, node: usize, member: usize, op: OpId) -> bool {
        let life = self.nodes[node].life;
        let process = self.nodes[node].process.as_mut().expect("it has effects");
        let Some(beside) = process.beside.get_mut(&member) else { return false };
        match beside.answer.take() {
            Some(result) => self.tells_soon(node, life, Event::Answered { id: op, result }),
            None => beside.wanted_as = Some(op),
        }
        true
    }

    pub(super) fn beside_answers(&mut self, node: usize, number: u64, result: Result<Answer, CallError>) {
        let life = self.nodes[node].life;
        let Some(process) = &mut self.nodes[node].process else { return };
        let Some(beside) = process.beside.values_mut().find(|beside| beside.number == number) else { return };
        match beside.wanted_as.take() {
            Some(id) => self.tells_soon(node, life, Event::Answered { id, result }),
            None => beside.answer = Some(result),
        }
    }
}
