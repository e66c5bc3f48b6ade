//! Linear discriminant analysis: a linear classifier in closed form. All classes share one covariance, shrunk towards
//! the identity. With few examples for each of hundreds of classes, it beats training by gradient descent.

use burn::tensor::{Device, Tensor, TensorData};

use crate::TrainError;

/// A linear classifier. The largest entry of `weight x + bias` is the predicted class.
#[derive(Clone, Debug, PartialEq)]
pub struct Lda {
    /// Length of an example vector.
    pub width: usize,
    /// `[classes, width]`
    pub weight: Vec<f32>,
    /// `[classes]`
    pub bias: Vec<f32>,
}

/// Added to each dimension's standard deviation, so that standardisation does not amplify nearly constant dimensions.
const SPREAD_FLOOR: f32 = 0.05;

impl Lda {
    /// Fits examples `[n, width]` with these labels. `shrinkage` is added to the diagonal of the covariance of the
    /// standardised examples.
    ///
    /// # Errors
    /// If a class has no example, a number is not finite, or `shrinkage` is not positive.
    pub fn fit(
        examples: &[f32],
        labels: &[usize],
        classes: usize,
        shrinkage: f64,
    ) -> Result<Self, TrainError> {
        let wrong = |what: String| {
            Err(TrainError::Stage(format!(
                "The classifier cannot be fitted: {what}."
            )))
        };
        let n = labels.len();
        let width = examples.len() / n.max(1);
        if n == 0 || width == 0 || examples.len() != n * width {
            return wrong("there are no examples of one length for each label".into());
        }
        if !(shrinkage > 0.0 && shrinkage.is_finite()) {
            return wrong(format!("the shrinkage is {shrinkage}, not above 0"));
        }
        if let Some(bad) = examples.iter().position(|v| !v.is_finite()) {
            return wrong(format!("example {} is not finite", bad / width));
        }
        let mut counts = vec![0usize; classes];
        for &label in labels {
            match counts.get_mut(label) {
                Some(count) => *count += 1,
                None => return wrong(format!("there is no class {label} of {classes}")),
            }
        }
        if let Some(class) = counts.iter().position(|&count| count == 0) {
            return wrong(format!("class {class} has no example"));
        }

        // 1. standardise the examples, and take the mean of each class
        let (mean, std) = spread(examples, width);
        let standard = |row: &[f32]| -> Vec<f32> {
            let values = row.iter().zip(&mean).zip(&std);
            values.map(|((v, m), s)| (v - m) / s).collect()
        };
        let mut rows: Vec<f32> = examples.chunks_exact(width).flat_map(standard).collect();
        let mut means = vec![0.0f32; classes * width];
        for (row, &label) in rows.chunks_exact(width).zip(labels) {
            let share = 1.0 / counts[label] as f32;
            let mean = &mut means[label * width..][..width];
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += v * share);
        }

        // 2. within-class covariance
        for (row, &label) in rows.chunks_exact_mut(width).zip(labels) {
            let mean = &means[label * width..][..width];
            row.iter_mut().zip(mean).for_each(|(v, m)| *v -= m);
        }
        let rows: Tensor<2> = Tensor::from_data(TensorData::new(rows, [n, width]), &Device::flex());
        let covariance = rows.clone().transpose().matmul(rows).div_scalar(n as f64);
        let covariance = covariance.into_data();
        let mut matrix: Vec<f64> = covariance.iter::<f32>().map(f64::from).collect();
        (0..width).for_each(|i| matrix[i * width + i] += shrinkage);

        // 3. weights for standardised examples, then for raw ones
        if !cholesky(&mut matrix, width) {
            return wrong("the covariance is not positive".into());
        }
        let (mut weight, mut bias) = (Vec::with_capacity(classes * width), vec![]);
        for class in means.chunks_exact(width) {
            let solved = solve(&matrix, width, class);
            let product =
                |a: &[f64]| -> f64 { a.iter().zip(class).map(|(a, &b)| a * f64::from(b)).sum() };
            let mut offset = -0.5 * product(&solved);
            for ((w, &m), &s) in solved.iter().zip(&mean).zip(&std) {
                let w = w / f64::from(s);
                offset -= w * f64::from(m);
                weight.push(w as f32);
            }
            bias.push(offset as f32);
        }
        Ok(Self {
            width,
            weight,
            bias,
        })
    }

    /// The score of each class.
    pub fn scores(&self, example: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.width).zip(&self.bias);
        rows.map(|(row, bias)| {
            let products = row.iter().zip(example).map(|(w, v)| w * v);
            products.sum::<f32>() + bias
        })
        .collect()
    }

    /// Whether `class` is among the `n` highest scores.
    pub fn is_among(&self, example: &[f32], class: usize, n: usize) -> bool {
        let scores = self.scores(example);
        let Some(&own) = scores.get(class) else {
            return false;
        };
        scores.iter().filter(|&&score| score > own).count() < n
    }
}

/// Mean of each dimension, and standard deviation plus [`SPREAD_FLOOR`].
fn spread(examples: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let moments = columns(examples, width).into_iter();
    moments
        .map(|(mean, variance)| {
            let std = variance.max(0.0).sqrt() as f32;
            (mean as f32, std + SPREAD_FLOOR)
        })
        .unzip()
}

/// Mean and variance of each of `width` columns. Rounding may make a variance slightly negative.
pub(crate) fn columns(values: &[f32], width: usize) -> Vec<(f64, f64)> {
    let rows = (values.len() / width).max(1) as f64;
    let mut sums = vec![(0.0f64, 0.0f64); width];
    for row in values.chunks_exact(width) {
        for (sum, &v) in sums.iter_mut().zip(row) {
            sum.0 += f64::from(v);
            sum.1 += f64::from(v) * f64::from(v);
        }
    }
    sums.into_iter()
        .map(|(sum, squares)| {
            let mean = sum / rows;
            (mean, squares / rows - mean * mean)
        })
        .collect()
}

/// Replaces a symmetric matrix by its lower Cholesky factor. Returns whether it was positive definite.
fn cholesky(matrix: &mut [f64], n: usize) -> bool {
    for j in 0..n {
        let (above, rest) = matrix.split_at_mut(j * n);
        // Row j up to its diagonal.
        let row = &mut rest[..n];
        for k in 0..j {
            let other = &above[k * n..][..k + 1];
            let dot: f64 = row[..k].iter().zip(other).map(|(a, b)| a * b).sum();
            row[k] = (row[k] - dot) / other[k];
        }
        let dot: f64 = row[..j].iter().map(|a| a * a).sum();
        let square = row[j] - dot;
        if !(square > 0.0 && square.is_finite()) {
            return false;
        }
        row[j] = square.sqrt();
    }
    true
}

/// Solves `L Lᵀ x = b` for `x`.
fn solve(factor: &[f64], n: usize, b: &[f32]) -> Vec<f64> {
    let mut x: Vec<f64> = b.iter().map(|&v| f64::from(v)).collect();
    for i in 0..n {
        let row = &factor[i * n..][..i + 1];
        let dot: f64 = row[..i].iter().zip(&x).map(|(a, b)| a * b).sum();
        x[i] = (x[i] - dot) / row[i];
    }
    for i in (0..n).rev() {
        x[i] /= factor[i * n + i];
        let value = x[i];
        let row = &factor[i * n..][..i];
        x[..i]
            .iter_mut()
            .zip(row)
            .for_each(|(x, a)| *x -= a * value);
    }
    x
}

#[cfg(test)]
mod tests {
    use emu_kernels::random::Philox;

    use super::*;

    /// Examples of classes that differ in two dimensions; the other dimensions are strongly correlated.
    fn examples(seed: u64, each: usize, classes: usize) -> (Vec<f32>, Vec<usize>) {
        let mut random = Philox::with_stream(seed, 77, 0);
        let (mut rows, mut labels) = (vec![], vec![]);
        for class in 0..classes {
            let angle = class as f32 / classes as f32 * std::f32::consts::TAU;
            for _ in 0..each {
                let n = random.normals(6);
                let common = 5.0 * n[5];
                rows.extend([
                    angle.cos() + 0.2 * n[0] + common,
                    angle.sin() + 0.2 * n[1] - common,
                    common + 0.1 * n[2],
                    0.01 * n[3],
                    3.0 + n[4],
                ]);
                labels.push(class);
            }
        }
        (rows, labels)
    }

    #[test]
    fn unseen_examples_are_told_apart() {
        let (rows, labels) = examples(1, 40, 8);
        let lda = Lda::fit(&rows, &labels, 8, 1e-3).expect("fits");
        let (rows, labels) = examples(2, 40, 8);
        let among = |n| {
            let pairs = rows.chunks_exact(5).zip(&labels);
            pairs
                .filter(|(row, class)| lda.is_among(row, **class, n))
                .count()
        };
        // Half the distance to a neighbour is about 1.7 standard deviations, with a neighbour on each side: 0.91 at
        // best.
        assert!(among(1) > 265, "{} of 320", among(1));
        assert!(among(2) >= among(1) && among(8) == 320);
        assert!(!lda.is_among(&rows[..5], 8, 8), "there is no such class");
    }

    #[test]
    fn two_classes_are_parted_as_the_formula_says() {
        // One dimension: means -1 and 1, within-class variance 0.25, standardised by sqrt(1.25) + 0.05.
        let rows = [-1.5, -0.5, 0.5, 1.5];
        let lda = Lda::fit(&rows, &[0, 0, 1, 1], 2, 0.1).expect("fits");
        let std = 1.25f64.sqrt() + 0.05;
        let slope = (1.0 / std) / (0.25 / (std * std) + 0.1) / std;
        assert!((f64::from(lda.weight[1]) - slope).abs() < 1e-4, "{lda:?}");
        assert!((lda.weight[0] + lda.weight[1]).abs() < 1e-5);
        assert!((lda.bias[0] - lda.bias[1]).abs() < 1e-5, "halfway at 0");
    }

    #[test]
    fn a_factor_solves_its_matrix() {
        let matrix = [4.0, 2.0, 0.6, 2.0, 5.0, 1.0, 0.6, 1.0, 3.0];
        let mut factor = matrix;
        assert!(cholesky(&mut factor, 3));
        let x = solve(&factor, 3, &[1.0, -2.0, 0.5]);
        for (row, b) in matrix.chunks_exact(3).zip([1.0, -2.0, 0.5]) {
            let sum: f64 = row.iter().zip(&x).map(|(a, x)| a * x).sum();
            assert!((sum - b).abs() < 1e-12);
        }
        assert!(!cholesky(&mut [1.0, 2.0, 2.0, 1.0], 2));
    }

    #[test]
    fn what_cannot_be_fitted_is_said() {
        let error = |rows: &[f32], labels: &[usize], classes, shrinkage| {
            let refused = Lda::fit(rows, labels, classes, shrinkage);
            refused.expect_err("refused").to_string()
        };
        assert!(error(&[], &[], 1, 1.0).contains("no examples"));
        assert!(error(&[1.0, 2.0], &[0, 0], 2, 1.0).contains("class 1 has no example"));
        assert!(error(&[1.0, 2.0], &[0, 3], 2, 1.0).contains("no class 3"));
        assert!(error(&[1.0, f32::NAN], &[0, 1], 2, 1.0).contains("example 1 is not finite"));
        assert!(error(&[1.0, 2.0], &[0, 1], 2, 0.0).contains("shrinkage"));
    }
}
