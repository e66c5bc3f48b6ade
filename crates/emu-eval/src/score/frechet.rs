//! The Frechet distance of two sets of features, taken for normal distributions (Heusel et al. 2017).
//!
//! With the features of the FID network (Inception of 2015-12-05, 2048 numbers a picture) this is the FID. With any other
//! network's it is another number and needs another name.

use serde::{Deserialize, Serialize};

use crate::score::eigen::{dot, eigenvalues, factor};
use crate::score::error::ScoreError;

/// Samples that are added to a covariance at once: their rows and one row of the matrix stay in the cache.
const BATCH: usize = 64;

/// Mean and covariance of a set of features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Mean of each feature.
    pub mean: Vec<f64>,
    /// Covariance, divided by n - 1: a square matrix, row by row.
    pub covariance: Vec<f64>,
}

/// Collects features, sample by sample.
#[derive(Debug, Clone)]
pub struct Collector {
    features: usize,
    samples: usize,
    /// The first sample. Sums are of differences from it, so that a large mean does not cost precision.
    origin: Vec<f64>,
    sums: Vec<f64>,
    /// Sums of products, on and above the diagonal.
    products: Vec<f64>,
    /// Samples that are not in `products` yet.
    pending: Vec<Vec<f64>>,
}

impl Collector {
    /// A collector of samples with so many features.
    pub fn new(features: usize) -> Self {
        Self {
            features,
            samples: 0,
            origin: Vec::new(),
            sums: vec![0.0; features],
            products: vec![0.0; features * features],
            pending: Vec::new(),
        }
    }

    /// Number of samples so far.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// Another number of features, or one that is not finite.
    pub fn add(&mut self, sample: &[f64]) -> Result<(), ScoreError> {
        if sample.len() != self.features {
            return Err(ScoreError::Length {
                what: "A list of features",
                found: sample.len(),
                expected: self.features,
            });
        }
        if sample.iter().any(|value| !value.is_finite()) {
            return Err(ScoreError::NotFinite {
                what: "A list of features",
            });
        }
        if self.samples == 0 {
            self.origin = sample.to_vec();
        }
        let difference: Vec<f64> = sample
            .iter()
            .zip(&self.origin)
            .map(|(x, o)| x - o)
            .collect();
        self.sums
            .iter_mut()
            .zip(&difference)
            .for_each(|(sum, x)| *sum += x);
        self.pending.push(difference);
        self.samples += 1;
        if self.pending.len() == BATCH {
            self.flush();
        }
        Ok(())
    }

    fn flush(&mut self) {
        for i in 0..self.features {
            let row = &mut self.products[i * self.features + i..(i + 1) * self.features];
            for sample in &self.pending {
                let factor = sample[i];
                row.iter_mut()
                    .zip(&sample[i..])
                    .for_each(|(sum, x)| *sum += factor * x);
            }
        }
        self.pending.clear();
    }

    /// Mean and covariance.
    ///
    /// # Errors
    /// Fewer than two samples.
    pub fn finish(mut self) -> Result<Statistics, ScoreError> {
        if self.samples < 2 {
            return Err(ScoreError::TooFewSamples {
                found: self.samples,
            });
        }
        self.flush();
        let (n, count) = (self.features, self.samples as f64);
        let mut covariance = self.products;
        for i in 0..n {
            for j in i..n {
                let value =
                    (covariance[i * n + j] - self.sums[i] * self.sums[j] / count) / (count - 1.0);
                covariance[i * n + j] = value;
                covariance[j * n + i] = value;
            }
        }
        let mean = self
            .origin
            .iter()
            .zip(&self.sums)
            .map(|(o, sum)| o + sum / count)
            .collect();
        Ok(Statistics { mean, covariance })
    }
}

impl Statistics {
    /// Of a list of samples.
    ///
    /// # Errors
    /// Fewer than two samples, samples of different length, or a number that is not finite.
    pub fn of(samples: &[Vec<f64>]) -> Result<Self, ScoreError> {
        let mut collector = Collector::new(samples.first().map_or(0, Vec::len));
        for sample in samples {
            collector.add(sample)?;
        }
        collector.finish()
    }

    fn check(&self, features: usize) -> Result<(), ScoreError> {
        for (what, found, expected) in [
            ("A mean", self.mean.len(), features),
            ("A covariance", self.covariance.len(), features * features),
        ] {
            if found != expected {
                return Err(ScoreError::Length {
                    what,
                    found,
                    expected,
                });
            }
        }
        if self
            .mean
            .iter()
            .chain(&self.covariance)
            .any(|value| !value.is_finite())
        {
            return Err(ScoreError::NotFinite {
                what: "A mean or covariance",
            });
        }
        Ok(())
    }
}

/// The Frechet distance: |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)).
///
/// With a factor C1 = F F', the product C1 C2 has the eigenvalues of the symmetric matrix F' C2 F, and those that are 0. The
/// trace of the root is the sum of their roots. Sets of fewer samples than features need no special treatment.
///
/// # Errors
/// Different numbers of features, or numbers that are not finite.
pub fn distance(a: &Statistics, b: &Statistics) -> Result<f64, ScoreError> {
    let n = a.mean.len();
    a.check(n)?;
    b.check(n)?;
    let means: f64 = a
        .mean
        .iter()
        .zip(&b.mean)
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    let trace = |of: &Statistics| -> f64 { (0..n).map(|i| of.covariance[i * n + i]).sum() };

    let columns = factor(a.covariance.clone(), n);
    let rank = columns.len();
    let mut inner = vec![0.0; rank * rank];
    for (i, column) in columns.iter().enumerate() {
        let image: Vec<f64> = b.covariance.chunks(n).map(|row| dot(row, column)).collect();
        for (j, other) in columns.iter().enumerate().take(i + 1) {
            let value = dot(&image, other);
            inner[i * rank + j] = value;
            inner[j * rank + i] = value;
        }
    }
    let values = eigenvalues(inner, rank).ok_or(ScoreError::NoConvergence)?;
    let root: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    Ok(means + trace(a) + trace(b) - 2.0 * root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn statistics(mean: &[f64], covariance: &[f64]) -> Statistics {
        Statistics {
            mean: mean.to_vec(),
            covariance: covariance.to_vec(),
        }
    }

    #[test]
    fn of_diagonal_covariances_the_deviations_differ() {
        let a = statistics(&[0.0, 1.0], &[4.0, 0.0, 0.0, 9.0]);
        let b = statistics(&[3.0, 1.0], &[1.0, 0.0, 0.0, 25.0]);
        // 3^2 + (2 - 1)^2 + (3 - 5)^2
        assert!((distance(&a, &b).expect("distance") - 14.0).abs() < 1e-12);
        assert!(distance(&a, &a).expect("distance").abs() < 1e-12);
    }

    #[test]
    fn statistics_are_those_of_the_definition_and_survive_a_large_mean() {
        let samples: Vec<Vec<f64>> = (0..130)
            .map(|i| vec![1e6 + f64::from(i % 7), f64::from(i % 5) - 2.0])
            .collect();
        let found = Statistics::of(&samples).expect("samples");
        for i in 0..2 {
            let mean =
                samples.iter().map(|s| s[i] - samples[0][i]).sum::<f64>() / 130.0 + samples[0][i];
            assert!((found.mean[i] - mean).abs() < 1e-9);
            for j in 0..2 {
                let product = |s: &Vec<f64>| (s[i] - found.mean[i]) * (s[j] - found.mean[j]);
                let expected = samples.iter().map(product).sum::<f64>() / 129.0;
                assert!(
                    (found.covariance[i * 2 + j] - expected).abs() < 1e-8,
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn bad_input() {
        assert_eq!(
            Statistics::of(&[]),
            Err(ScoreError::TooFewSamples { found: 0 })
        );
        assert_eq!(
            Statistics::of(&[vec![1.0]]),
            Err(ScoreError::TooFewSamples { found: 1 })
        );
        let uneven = [vec![1.0], vec![1.0, 2.0]];
        assert!(matches!(
            Statistics::of(&uneven),
            Err(ScoreError::Length { .. })
        ));
        let broken = [vec![1.0], vec![f64::INFINITY]];
        assert!(matches!(
            Statistics::of(&broken),
            Err(ScoreError::NotFinite { .. })
        ));
        let a = statistics(&[0.0], &[1.0]);
        let b = statistics(&[0.0, 0.0], &[1.0, 0.0, 0.0, 1.0]);
        assert!(matches!(distance(&a, &b), Err(ScoreError::Length { .. })));
        let c = statistics(&[0.0], &[f64::NAN]);
        assert!(matches!(
            distance(&a, &c),
            Err(ScoreError::NotFinite { .. })
        ));
    }

    proptest! {
        #[test]
        fn it_is_symmetric_and_not_negative(
            a in proptest::collection::vec(proptest::collection::vec(-3.0f64..3.0, 4), 2..9),
            b in proptest::collection::vec(proptest::collection::vec(-3.0f64..3.0, 4), 2..9),
        ) {
            let (a, b) = (Statistics::of(&a).expect("samples"), Statistics::of(&b).expect("samples"));
            let (there, back) = (distance(&a, &b).expect("distance"), distance(&b, &a).expect("distance"));
            prop_assert!((there - back).abs() < 1e-5, "{there} {back}");
            prop_assert!(there > -1e-5);
        }
    }
}
