//! Chance from a seed: one seed, one run.

use std::time::Duration;

use crate::etcd::nanos;

/// `SplitMix64`.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5bd1_e995)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("below a usize")
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.roll().is_multiple_of(of)
    }

    pub fn between(&mut self, least: Duration, most: Duration) -> u64 {
        let (least, most) = (nanos(least), nanos(most));
        least + self.roll() % (most - least + 1)
    }
}
