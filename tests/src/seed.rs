/// Numbers that look random and are the same for the same seed, on every machine and version.
#[derive(Debug, Clone)]
pub struct Seed(u64);

impl Seed {
    /// Starts from a number.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Starts from `TRIBUTARY_TEST_SEED` or else from the clock, and tells on stderr.
    ///
    /// # Panics
    ///
    /// When the variable is no number.
    #[must_use]
    pub fn of_test(test: &str) -> Self {
        let seed = std::env::var("TRIBUTARY_TEST_SEED").map_or_else(
            |_| {
                let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
                u64::from(now.subsec_nanos()) ^ now.as_secs()
            },
            |text| text.parse().expect("TRIBUTARY_TEST_SEED is a number"),
        );
        eprintln!("{test}: TRIBUTARY_TEST_SEED={seed}");
        Self(seed)
    }

    /// Returns the next number (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number of at least `from` and below `to`.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.number() % (to - from)
    }

    /// Returns one of the items.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = usize::try_from(self.between(0, items.len() as u64));
        &items[index.expect("an index of a slice fits")]
    }
}
