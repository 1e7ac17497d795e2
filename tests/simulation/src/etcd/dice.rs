//! The cluster's own chances: the same seed rolls the same.

/// splitmix64: small, and good enough for delays.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to, not including, `high`.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low < high, "an empty range");
        low + self.roll() % (high - low)
    }

    pub(super) fn one_in(&mut self, sides: u64) -> bool {
        self.roll().is_multiple_of(sides)
    }
}
