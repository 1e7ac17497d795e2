//! Chance from a seed: one seed, one run.

use std::time::Duration;

use crate::clock::nanos;

/// `SplitMix64`. Each purpose has dice of its own, so that what one throws does not depend on how often another does.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn of(seed: u64, purpose: &str) -> Self {
        // FNV-1a, so that purposes start far from one another.
        let mixed = purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(mixed ^ seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % bound as u64).expect("below a usize")
    }

    /// True once in `of` times.
    pub(crate) fn once_in(&mut self, of: u64) -> bool {
        self.roll().is_multiple_of(of)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.once_in(2)
    }

    pub(crate) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        Duration::from_nanos(self.nanos(least, most))
    }

    /// In nanoseconds.
    pub(crate) fn nanos(&mut self, least: Duration, most: Duration) -> u64 {
        let (least, most) = (nanos(least), nanos(most));
        least + self.roll() % (most.saturating_sub(least) + 1)
    }
}
