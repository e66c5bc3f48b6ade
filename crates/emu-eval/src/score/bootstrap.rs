//! Confidence intervals by the bootstrap (Efron 1979): percentiles of the score over resampled sets.
//!
//! The random numbers are part of this module, so that a seed gives the same interval on every machine and in every version.

use serde::{Deserialize, Serialize};

use crate::score::error::ScoreError;

/// What to compute.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bootstrap {
    /// Number of resampled sets.
    pub resamples: usize,
    /// Share of them that the interval contains.
    pub level: f64,
    /// Seed of the random numbers.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 95% of 1000 sets.
    fn default() -> Self {
        Self {
            resamples: 1000,
            level: 0.95,
            seed: 0,
        }
    }
}

/// A confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl Bootstrap {
    /// The interval of a mean.
    ///
    /// # Errors
    /// No values, a value that is not finite, or parameters out of range.
    pub fn mean(&self, values: &[f64]) -> Result<Interval, ScoreError> {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ScoreError::NotFinite {
                what: "The list of scores",
            });
        }
        self.interval(values.len(), |chosen| {
            chosen.iter().map(|item| values[*item]).sum::<f64>() / chosen.len() as f64
        })
    }

    /// The interval of any score of a set of `items`. `score` gets the indices of a resampled set: as many as there are
    /// items, with repetitions.
    ///
    /// # Errors
    /// No items, or parameters out of range.
    pub fn interval(
        &self,
        items: usize,
        mut score: impl FnMut(&[usize]) -> f64,
    ) -> Result<Interval, ScoreError> {
        if items == 0 {
            return Err(ScoreError::Empty);
        }
        if self.resamples == 0 {
            return Err(ScoreError::Parameter {
                name: "The number of resampled sets",
                value: 0.0,
                range: "1 or more",
            });
        }
        if !(self.level > 0.0 && self.level < 1.0) {
            return Err(ScoreError::Parameter {
                name: "The level of the interval",
                value: self.level,
                range: "between 0 and 1",
            });
        }
        let mut random = SplitMix(self.seed);
        let mut chosen = vec![0; items];
        let mut scores: Vec<f64> = (0..self.resamples)
            .map(|_| {
                chosen.fill_with(|| random.below(items));
                score(&chosen)
            })
            .collect();
        scores.sort_by(f64::total_cmp);
        let outside = (1.0 - self.level) / 2.0;
        Ok(Interval {
            low: quantile(&scores, outside),
            high: quantile(&scores, 1.0 - outside),
        })
    }
}

/// A quantile of sorted values, linear between two of them.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    if below == above {
        below
    } else {
        below + (above - below) * at.fract()
    }
}

/// SplitMix64 (Steele et al. 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `count`. Its bias is below count / 2^64.
    fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_splitmix64() {
        let mut random = SplitMix(1_234_567);
        let found: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(
            found,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
    }

    #[test]
    fn the_interval_of_a_mean_is_that_of_theory() {
        // 400 answers, half of them right: the standard error is 0.025.
        let values: Vec<f64> = (0..400).map(|item| f64::from(item % 2)).collect();
        let bootstrap = Bootstrap {
            resamples: 4000,
            ..Bootstrap::default()
        };
        let found = bootstrap.mean(&values).expect("values");
        assert!(
            (found.low - (0.5 - 1.96 * 0.025)).abs() < 0.004,
            "{found:?}"
        );
        assert!(
            (found.high - (0.5 + 1.96 * 0.025)).abs() < 0.004,
            "{found:?}"
        );
    }

    #[test]
    fn a_seed_gives_the_same_interval_again() {
        let values: Vec<f64> = (0..50).map(|item| f64::from(item).sqrt()).collect();
        let of = |seed| {
            Bootstrap {
                seed,
                ..Bootstrap::default()
            }
            .mean(&values)
            .expect("values")
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn equal_values_have_no_width() {
        let found = Bootstrap::default().mean(&[0.25; 7]).expect("values");
        assert_eq!(
            found,
            Interval {
                low: 0.25,
                high: 0.25
            }
        );
    }

    #[test]
    fn bad_input() {
        let good = Bootstrap::default();
        assert_eq!(good.mean(&[]), Err(ScoreError::Empty));
        assert!(matches!(
            good.mean(&[f64::NAN]),
            Err(ScoreError::NotFinite { .. })
        ));
        for level in [0.0, 1.0, -1.0, f64::NAN] {
            let bad = Bootstrap { level, ..good };
            assert!(
                matches!(bad.mean(&[1.0]), Err(ScoreError::Parameter { .. })),
                "{level}"
            );
        }
        let none = Bootstrap {
            resamples: 0,
            ..good
        };
        assert!(matches!(
            none.mean(&[1.0]),
            Err(ScoreError::Parameter { .. })
        ));
    }
}
