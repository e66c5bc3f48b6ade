//! A linear classifier in closed form: linear discriminant analysis, with one covariance for all classes that is shrunk
//! towards the identity. Where there are a few examples of each of hundreds of classes, it beats what gradients find.

use burn::tensor::{Device, Tensor, TensorData};

use crate::TrainError;

/// A classifier: `weight x + bias`, the largest wins.
#[derive(Clone, Debug, PartialEq)]
pub struct Lda {
    /// Length of an example.
    pub width: usize,
    /// `[classes, width]`
    pub weight: Vec<f32>,
    /// `[classes]`
    pub bias: Vec<f32>,
}

/// Added to each dimension's standard deviation: what hardly varies is not blown up.
const SPREAD_FLOOR: f32 = 0.05;

impl Lda {
    /// Fits examples, `[n, width]`, of these classes. `shrinkage` is added to the diagonal of the covariance of
    /// standardised examples.
    ///
    /// # Errors
    /// Where a class has no example, a number is not finite, or `shrinkage` is not positive.
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

        // 1. standardised examples, and the mean of each class
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

        // 2. covariance within classes
        for (row, &label) in rows.chunks_exact_mut(width).zip(labels) {
            let mean = &means[label * width..][..width];
            row.iter_mut().zip(mean).for_each(|(v, m)| *v -= m);
        }
        let rows: Tensor<2> = Tensor::from_data(TensorData::new(rows, [n, width]), &Device::flex());
        let covariance = rows.clone().transpose().matmul(rows).div_scalar(n as f64);
        let covariance = covariance.into_data();
        let mut matrix: Vec<f64> = covariance.iter::<f32>().map(f64::from).collect();
        (0..width).for_each(|i| matrix[i * width + i] += shrinkage);

        // 3. weights of standardised examples, then of examples as they come
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

    /// The score of each class for an example.
    pub fn scores(&self, example: &[f32]) -> Vec<f32> {
        let rows = self.weight.chunks_exact(self.width).zip(&self.bias);
        rows.map(|(row, bias)| {
            let products = row.iter().zip(example).map(|(w, v)| w * v);
            products.sum::<f32>() + bias
        })
        .collect()
    }

    /// Whether the right class is among the `n` largest scores.
    pub fn is_among(&self, example: &[f32], class: usize, n: usize) -> bool {
        let scores = self.scores(example);
        let Some(&own) = scores.get(class) else {
            return false;
        };
        scores.iter().filter(|&&score| score > own).count() < n
    }
}

/// Mean and widened standard deviation of each dimension.
fn spread(examples: &[f32], width: usize) -> (Vec<f32>, Vec<f32>) {
    let moments = columns(examples, width).into_iter();
    moments
        .map(|(mean, variance)| {
            let std = variance.max(0.0).sqrt() as f32;
            (mean as f32, std + SPREAD_FLOOR)
        })
        .unzip()
}

/// Mean and variance of each of `width` columns; rounding may leave a variance below 0.
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

/// Replaces a symmetric matrix by its lower Cholesky factor; whether it was positive.
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

/// `x` of `L Lᵀ x = b`.
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

    /// Examples of classes that differ along two dimensions and share a strong correlation of the others.
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
        // Half of the way to a neighbour is about 1.7 standard deviations, with one neighbour on each side: 0.91 at best.
        assert!(among(1) > 265, "{} of 320", among(1));
        assert!(among(2) >= among(1) && among(8) == 320);
        assert!(!lda.is_among(&rows[..5], 8, 8), "there is no such class");
    }

    #[test]
    fn two_classes_are_parted_as_the_formula_says() {
        // One dimension: means -1 and 1, variance within 0.25, standardised by sqrt(1.25) + 0.05.
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
