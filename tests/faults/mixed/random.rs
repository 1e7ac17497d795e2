//! Order and parameters of a run, from its seed.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// `SplitMix64`: the whole run follows from its seed.
pub struct Random(u64);

impl Random {
    /// A run of this seed.
    pub const fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    /// A seed for a run that was given none.
    pub fn new_seed() -> u64 {
        RandomState::new().build_hasher().finish()
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`, which is above 0.
    pub fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("a machine word");
        usize::try_from(self.word() % bound).expect("below a usize")
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// A time in this range, in steps of 10 ms.
    pub fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let step = Duration::from_millis(10);
        let steps = most.saturating_sub(least).as_millis() / step.as_millis() + 1;
        let steps = self.below(usize::try_from(steps).expect("a trial lasts seconds"));
        least + step * u32::try_from(steps).expect("a trial lasts seconds")
    }
}

/// Cards that are all dealt before any is dealt again.
pub struct Deck<T> {
    cards: Vec<T>,
    left: Vec<T>,
}

impl<T: Copy> Deck<T> {
    /// A full deck.
    pub fn of(cards: &[T]) -> Self {
        Self { cards: cards.to_vec(), left: Vec::new() }
    }

    /// Whether it has no cards at all.
    pub const fn is_empty(&self) -> bool {
        self.cards.is_empty()
    }

    /// The next card; a new deck is shuffled when there is none left.
    pub fn deal(&mut self, random: &mut Random) -> T {
        if self.left.is_empty() {
            self.left.clone_from(&self.cards);
        }
        let index = random.below(self.left.len());
        self.left.swap_remove(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_deals_the_same_cards_and_each_once_before_any_twice() {
        const CARDS: [u8; 5] = [1, 2, 3, 4, 5];
        let deal = |seed| {
            let (mut random, mut deck) = (Random::seeded(seed), Deck::of(&CARDS));
            (0..10).map(|_| deck.deal(&mut random)).collect::<Vec<_>>()
        };
        assert_eq!(deal(7), deal(7));
        assert_ne!(deal(7), deal(8));
        let mut first = deal(7)[..5].to_vec();
        first.sort_unstable();
        assert_eq!(first, CARDS);
    }

    #[test]
    fn a_time_is_within_its_range_and_both_ends_come() {
        let (least, most) = (Duration::from_millis(100), Duration::from_millis(130));
        let mut random = Random::seeded(1);
        let times: Vec<_> = (0..100).map(|_| random.between(least, most)).collect();
        assert!(times.iter().all(|time| (least..=most).contains(time)));
        assert!(times.contains(&least) && times.contains(&most));
    }
}
