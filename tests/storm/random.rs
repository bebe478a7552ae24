//! Chance that a seed decides: splitmix64.

pub struct Random(u64);

impl Random {
    /// Another stream for each `word` of one seed, so that a new wish for chance here changes nothing there.
    pub fn new(seed: u64, word: &str) -> Self {
        let mut stream = Self(seed);
        for byte in word.bytes() {
            stream.0 ^= u64::from(byte);
            stream.next();
        }
        stream
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between `low` and `high`, either included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    /// One of `all` with equal chances.
    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.between(0, all.len() as u64 - 1)).expect("an index fits")]
    }
}
