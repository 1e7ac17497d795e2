//! What must hold at every instant. DESIGN names these invariants; a violation names the one that broke.

use bellwether::election::{LockKey, Term};

use super::node::Node;

/// Watches a run from outside, on the true clock.
pub struct Judge {
    /// Operators, or an old etcd, take the lock away: then two may overlap by a watch event's delay.
    pub operators: bool,
    highest: Option<(Term, usize)>,
    /// Until when, in true time, answers given out by each candidate may be relied on.
    promised: Vec<u64>,
    pub terms: u64,
}

pub type Verdict = Result<(), String>;

impl Judge {
    pub fn new(candidates: usize, operators: bool) -> Self {
        Self { operators, highest: None, promised: vec![0; candidates], terms: 0 }
    }

    pub fn promised(&self, candidate: usize) -> u64 {
        self.promised[candidate]
    }

    /// Looks at everybody at one instant.
    pub fn look(&mut self, now: u64, nodes: &[Node], lock: Option<&LockKey>) -> Verdict {
        let leaders: Vec<usize> = (0..nodes.len()).filter(|place| nodes[*place].answers_200(now)).collect();
        if !self.operators {
            at_most_one_leader_answers(&leaders)?;
            self.answers_hold_for_their_validity(now, &leaders)?;
            no_leader_without_lease_and_key(&leaders, nodes, lock)?;
        }
        for place in leaders {
            self.terms_only_grow(place, nodes[place].term())?;
            let promise = now + nodes[place].promise(now);
            self.promised[place] = self.promised[place].max(promise);
        }
        Ok(())
    }

    fn answers_hold_for_their_validity(&self, now: u64, leaders: &[usize]) -> Verdict {
        for leader in leaders {
            for (other, promised) in self.promised.iter().enumerate() {
                if other != *leader && *promised > now {
                    let left = promised - now;
                    return Err(format!("answers_hold_for_their_validity: {leader} leads, {other} has {left} ns left"));
                }
            }
        }
        Ok(())
    }

    fn terms_only_grow(&mut self, place: usize, term: Term) -> Verdict {
        match self.highest {
            Some((highest, leader)) if term == highest && leader == place => Ok(()),
            Some((highest, leader)) if term <= highest && !self.operators => {
                Err(format!("terms_only_grow: {place} leads {term} after {leader} led {highest}"))
            }
            Some((highest, _)) if term <= highest => Ok(()),
            Some(_) | None => {
                self.highest = Some((term, place));
                self.terms += 1;
                Ok(())
            }
        }
    }

    /// A candidate's own call has taken the lock away.
    pub fn lock_let_go(&self, now: u64, by: usize, holder: &LockKey, nodes: &[Node]) -> Verdict {
        if !self.operators && holder.holder != *nodes[by].identity() {
            return Err(format!("resign_deletes_only_own_key: {by} deleted {holder:?}"));
        }
        if !self.operators && self.promised[by] > now {
            let left = self.promised[by] - now;
            return Err(format!("answers_hold_for_their_validity: {by} let go with {left} ns left"));
        }
        Ok(())
    }
}

fn at_most_one_leader_answers(leaders: &[usize]) -> Verdict {
    if leaders.len() > 1 { Err(format!("at_most_one_leader_answers: {leaders:?}")) } else { Ok(()) }
}

fn no_leader_without_lease_and_key(leaders: &[usize], nodes: &[Node], lock: Option<&LockKey>) -> Verdict {
    for place in leaders {
        let (term, identity) = (nodes[*place].term(), nodes[*place].identity());
        if !lock.is_some_and(|lock| lock.create_revision == term.token && lock.holder == *identity) {
            return Err(format!("no_leader_without_lease_and_key: {place} leads {term}, the key is {lock:?}"));
        }
    }
    Ok(())
}
