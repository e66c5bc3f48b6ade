//! Random numbers determined by a key alone, so that sample `i` of a build does not depend on the thread.

/// One step of SplitMix64 (Steele, Lea and Flood, 2014): a bijection of 64-bit words that mixes every bit.
pub fn mix(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hash of some texts with a seed: FNV-1a per text, then mixed. Stable across platforms and releases.
pub fn hash_texts(seed: u64, texts: &[&str]) -> u64 {
    texts.iter().fold(mix(seed), |state, text| {
        let fnv = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| {
            (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        mix(state ^ fnv)
    })
}

/// A small random number generator: SplitMix64 over a counter.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator keyed by a seed, a stream name and an index.
    pub fn new(seed: u64, stream: &str, index: u64) -> Self {
        Self(mix(hash_texts(seed, &[stream]) ^ mix(index)))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0..bound` (0 for an empty range). The bias of the multiplication is below 2^-32 for the sizes used
    /// here.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.bits()) * bound as u128) >> 64) as usize
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// A random item; `None` for an empty slice.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Fisher-Yates shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_repeatable_and_distinct() {
        let draw = |stream, index| Rng::new(7, stream, index).bits();
        assert_eq!(draw("a", 0), draw("a", 0));
        assert_ne!(draw("a", 0), draw("a", 1));
        assert_ne!(draw("a", 0), draw("b", 0));
    }

    #[test]
    fn below_covers_its_range_evenly() {
        let mut rng = Rng::new(1, "test", 0);
        let mut seen = [0usize; 5];
        for _ in 0..5000 {
            seen[rng.below(5)] += 1;
        }
        assert!(seen.iter().all(|&n| (900..1100).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
