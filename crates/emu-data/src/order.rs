//! Order of samples: permutations and mixtures computed from the step alone, so that a resumed run needs no saved
//! state.

use crate::DataError;
use crate::rng::mix;

/// A pseudo-random permutation of `0..len` for every epoch.
///
/// A Feistel network of four rounds on the smallest even number of bits that holds `len`, with cycle walking until the
/// value is in range (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002). Nothing is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochOrder {
    /// Different seeds give independent orders.
    pub seed: u64,
    /// Number of samples in an epoch.
    pub len: u64,
}

impl EpochOrder {
    /// An order over `len` samples.
    pub fn new(seed: u64, len: u64) -> Self {
        Self { seed, len }
    }

    /// Index of the sample at `position` in an epoch, below `len`. Positions past the end wrap around; an empty order
    /// gives 0.
    pub fn at(&self, epoch: u64, position: u64) -> u64 {
        if self.len <= 1 {
            return 0;
        }
        let half_bits = (64 - (self.len - 1).leading_zeros()).div_ceil(2).max(1);
        let mut value = position % self.len;
        loop {
            value = self.feistel(epoch, value, half_bits);
            if value < self.len {
                return value;
            }
        }
    }

    /// Index of the sample at a step counted over all epochs.
    pub fn index(&self, step: u64) -> u64 {
        match self.len {
            0 => 0,
            len => self.at(step / len, step % len),
        }
    }

    fn feistel(&self, epoch: u64, value: u64, half_bits: u32) -> u64 {
        let mask = (1u64 << half_bits) - 1;
        let (mut left, mut right) = (value >> half_bits, value & mask);
        let key = mix(self.seed ^ mix(epoch));
        for round in 0..4 {
            let f = mix(key ^ mix(right ^ (round << 60))) & mask;
            (left, right) = (right, left ^ f);
        }
        (left << half_bits) | right
    }
}

/// Source of one sample of a [`Mixture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Index of the data set.
    pub part: usize,
    /// Index of the sample in it.
    pub sample: u64,
}

/// A data set's turn in a [`Mixture`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Index of the data set.
    pub part: usize,
    /// Number of turns that it had before, in the order of the mixture's blocks.
    pub before: u64,
}

/// Several data sets sampled in fixed proportions, deterministic by (seed, step).
///
/// Steps are divided into blocks. Every block holds each part in its exact proportion, shuffled. The number of
/// samples that a part has provided before a block is therefore known, and each part follows its own [`EpochOrder`]
/// without a counter.
#[derive(Debug, Clone)]
pub struct Mixture {
    seed: u64,
    orders: Vec<EpochOrder>,
    /// Number of slots of a block.
    block: u64,
    /// `ends[i]`: number of slots of a block that belong to the parts up to and including `i`.
    ends: Vec<u64>,
}

/// Slots of a block of [`Mixture::new`], and most slots of one of [`Mixture::rounds`].
const BLOCK: u64 = 1024;

impl Mixture {
    /// A mixture of parts given as (weight, number of samples), in blocks of 1024. Weights need not sum to one.
    ///
    /// # Errors
    /// If there is no part, a part is empty, or a weight is not positive, not finite or below 1/1024 of the sum.
    pub fn new(seed: u64, parts: &[(f64, u64)]) -> Result<Self, DataError> {
        Self::in_blocks(seed, parts, BLOCK)
    }

    /// A mixture in the shortest blocks that hold every part in its proportion: with weights 2, 1 and 1, each four
    /// steps hold the first part twice and the others once. If more than 1024 slots would be needed, blocks of 1024.
    ///
    /// # Errors
    /// As for [`Mixture::new`].
    pub fn rounds(seed: u64, parts: &[(f64, u64)]) -> Result<Self, DataError> {
        let sum: f64 = parts.iter().map(|part| part.0).sum();
        let is_whole = |slots: f64| (slots - slots.round()).abs() < 1e-6 && slots.round() >= 1.0;
        let holds = |block: u64| {
            let mut weights = parts.iter().map(|part| part.0);
            weights.all(|weight| is_whole(weight / sum * block as f64))
        };
        let block = (parts.len() as u64..BLOCK).find(|block| holds(*block));
        Self::in_blocks(seed, parts, block.unwrap_or(BLOCK))
    }

    fn in_blocks(seed: u64, parts: &[(f64, u64)], block: u64) -> Result<Self, DataError> {
        let sum: f64 = parts.iter().map(|part| part.0).sum();
        if parts.is_empty() {
            return Err(DataError::Mixture("it has no parts".into()));
        }
        for (i, &(weight, len)) in parts.iter().enumerate() {
            if !(weight > 0.0 && weight.is_finite() && sum.is_finite()) {
                return Err(DataError::Mixture(format!("part {i} has weight {weight}")));
            }
            if len == 0 {
                return Err(DataError::Mixture(format!("part {i} has no samples")));
            }
        }
        let mut ends = Vec::with_capacity(parts.len());
        let (mut total, mut start) = (0.0, 0);
        for (i, part) in parts.iter().enumerate() {
            total += part.0;
            let end = (total / sum * block as f64).round() as u64;
            if end == start {
                return Err(DataError::Mixture(format!(
                    "part {i} has less than 1/{block} of the weight"
                )));
            }
            ends.push(end);
            start = end;
        }
        let orders = parts
            .iter()
            .enumerate()
            .map(|(i, part)| EpochOrder::new(mix(seed ^ mix(i as u64 + 1)), part.1))
            .collect();
        Ok(Self {
            seed,
            orders,
            block,
            ends,
        })
    }

    /// The sample at a step.
    pub fn pick(&self, step: u64) -> Pick {
        let Turn { part, before } = self.turn(step);
        Pick {
            part,
            sample: self.sample(part, before),
        }
    }

    /// The part whose turn a step is.
    pub fn turn(&self, step: u64) -> Turn {
        let (block, slot) = (step / self.block, step % self.block);
        let slot = EpochOrder::new(mix(self.seed), self.block).at(block, slot);
        let part = self.ends.partition_point(|&end| end <= slot);
        let start = match part {
            0 => 0,
            i => self.ends[i - 1],
        };
        let quota = self.ends[part] - start;
        Turn {
            part,
            before: block * quota + slot - start,
        }
    }

    /// Index of the sample at a position in the stream of a part, counted over all epochs.
    pub fn sample(&self, part: usize, position: u64) -> u64 {
        self.orders[part].index(position)
    }

    /// Number of parts.
    pub fn parts(&self) -> usize {
        self.orders.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_a_permutation() {
        for len in [1u64, 2, 3, 7, 64, 65, 1000] {
            let order = EpochOrder::new(3, len);
            for epoch in 0..3 {
                let mut seen: Vec<u64> = (0..len).map(|i| order.at(epoch, i)).collect();
                seen.sort_unstable();
                assert_eq!(seen, (0..len).collect::<Vec<_>>(), "len {len}");
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let run = |seed, epoch| -> Vec<u64> {
            (0..100)
                .map(|i| EpochOrder::new(seed, 100).at(epoch, i))
                .collect()
        };
        assert_eq!(run(1, 0), run(1, 0));
        assert_ne!(run(1, 0), run(1, 1));
        assert_ne!(run(1, 0), run(2, 0));
        assert_ne!(run(1, 0), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn step_counts_over_epochs() {
        let order = EpochOrder::new(9, 10);
        assert_eq!(order.index(23), order.at(2, 3));
        assert_eq!(EpochOrder::new(9, 0).index(5), 0);
    }

    #[test]
    fn mixture_keeps_proportions_and_visits_everything() {
        let mixture = Mixture::new(5, &[(3.0, 300), (1.0, 50)]).expect("valid");
        let mut counts = [0u64; 2];
        let mut first = vec![0u32; 300];
        for step in 0..2048 {
            let pick = mixture.pick(step);
            counts[pick.part] += 1;
            if pick.part == 0 && counts[0] <= 300 {
                first[pick.sample as usize] += 1;
            }
        }
        assert_eq!(counts, [1536, 512]);
        // The order inside a block is shuffled, so the first epoch of a part is complete only over several blocks.
        let seen: std::collections::BTreeSet<u64> = (0..2048)
            .map(|step| mixture.pick(step))
            .filter(|pick| pick.part == 1)
            .map(|pick| pick.sample)
            .collect();
        assert_eq!(seen.len(), 50);
    }

    #[test]
    fn rounds_are_as_short_as_the_weights_allow() {
        for (weights, block) in [
            (&[1.0, 1.0, 1.0, 1.0, 1.0][..], 5),
            (&[2.0, 1.0, 1.0], 4),
            (&[0.5, 0.25, 0.75], 6),
            (&[0.1, 0.2, 0.7], 10),
            (&[3.0], 1),
            (&[1.0, 1.000_01], BLOCK),
        ] {
            let parts: Vec<(f64, u64)> = weights.iter().map(|weight| (*weight, 7)).collect();
            let mixture = Mixture::rounds(3, &parts).expect("valid");
            assert_eq!(mixture.block, block, "{weights:?}");
            let sum: f64 = weights.iter().sum();
            for round in 0..4 {
                let mut counts = vec![0u64; weights.len()];
                (round * block..(round + 1) * block)
                    .for_each(|step| counts[mixture.turn(step).part] += 1);
                for (count, weight) in counts.iter().zip(weights) {
                    let share = weight / sum * block as f64;
                    assert!((*count as f64 - share).abs() <= 0.5, "{weights:?}");
                }
            }
        }
        assert!(Mixture::rounds(0, &[]).is_err());
        assert!(Mixture::rounds(0, &[(1.0, 5), (1e-9, 5)]).is_err());
    }

    #[test]
    fn turns_of_a_part_are_numbered_without_gaps() {
        let mixture = Mixture::rounds(11, &[(2.0, 9), (1.0, 9)]).expect("valid");
        let mut turns = [vec![], vec![]];
        for step in 0..30 {
            let turn = mixture.turn(step);
            turns[turn.part].push(turn.before);
            let sample = mixture.sample(turn.part, turn.before);
            assert_eq!(mixture.pick(step).sample, sample);
        }
        for (turns, count) in turns.iter_mut().zip([20, 10]) {
            turns.sort_unstable();
            assert_eq!(*turns, (0..count).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn mixture_refuses_bad_parts() {
        for parts in [
            &[][..],
            &[(0.0, 5)],
            &[(f64::NAN, 5)],
            &[(-1.0, 5), (2.0, 5)],
            &[(f64::INFINITY, 5)],
            &[(1.0, 0)],
            &[(1.0, 5), (1e-9, 5)],
        ] {
            assert!(Mixture::new(0, parts).is_err(), "{parts:?}");
        }
    }
}
