//! Logistic regression with an L2 penalty, fitted by Newton's method with conjugate gradients. A threshold, calibrated
//! by cross-validation over groups of examples, limits the false alarm rate.

use burn::tensor::{Device, Tensor, TensorData};

use crate::TrainError;
use crate::lda::columns;

/// A binary classifier: positive if `weight x + bias` is above 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    /// One weight per feature.
    pub weight: Vec<f32>,
    /// The offset.
    pub bias: f32,
}

/// Examples: feature rows of equal length, their labels and groups.
#[derive(Clone, Copy, Debug)]
pub struct Examples<'a> {
    /// `[n, width]`
    pub rows: &'a [f32],
    /// Number of leading features of a row that are used.
    pub used: usize,
    /// Label of each row.
    pub labels: &'a [bool],
    /// Group of each row. Rows of one group are in the same fold of cross-validation.
    pub groups: &'a [usize],
}

/// A classifier with its cross-validation results.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibrated {
    /// Fitted to all examples, with the threshold in its bias. It has the full width, with zeros for unused features.
    pub classifier: Logistic,
    /// Number of leading features used.
    pub used: usize,
    /// The best penalty.
    pub penalty: f64,
    /// Cross-validated recall: share of positive examples found.
    pub recall: f32,
    /// Cross-validated false alarm rate: share of negative examples classified as positive.
    pub false_alarms: f32,
}

/// Added to each dimension's standard deviation, so that standardisation does not amplify nearly constant dimensions.
const SPREAD_FLOOR: f64 = 1e-3;
/// Maximum number of Newton steps.
const STEPS: usize = 15;
/// Maximum number of conjugate gradient iterations per step, and the relative residual at which they stop.
const TURNS: usize = 60;
const LEFT: f64 = 1e-3;
/// Number of folds that groups are divided into.
const FOLDS: usize = 10;

fn wrong<T>(what: &str) -> Result<T, TrainError> {
    Err(TrainError::Stage(format!(
        "The classifier cannot be fitted: {what}."
    )))
}

impl Examples<'_> {
    fn width(&self) -> usize {
        self.rows.len() / self.labels.len().max(1)
    }

    fn row(&self, i: usize) -> &[f32] {
        &self.rows[i * self.width()..][..self.used]
    }
}

/// Standardised examples with a trailing 1 each, `[n, width]`, with labels and sample weights.
struct Problem {
    x: Tensor<2>,
    labels: Vec<f64>,
    shares: Vec<f64>,
    /// Penalty of each weight. The last one, of the bias, is nearly 0.
    penalties: Vec<f64>,
}

impl Problem {
    /// `X w`
    fn scores(&self, w: &[f64]) -> Vec<f64> {
        product(self.x.clone(), w)
    }

    /// `Xᵀ v`
    fn back(&self, v: &[f64]) -> Vec<f64> {
        product(self.x.clone().transpose(), v)
    }

    fn loss(&self, w: &[f64]) -> f64 {
        let scores = self.scores(w).into_iter();
        let each = scores
            .zip(&self.labels)
            .zip(&self.shares)
            .map(|((s, y), share)| {
                let softplus = s.max(0.0) + (-s.abs()).exp().ln_1p();
                share * (softplus - y * s)
            });
        let penalties = w.iter().zip(&self.penalties).map(|(w, p)| p * w * w / 2.0);
        each.sum::<f64>() + penalties.sum::<f64>()
    }

    /// The Newton step at `w`, by conjugate gradients; to be subtracted.
    fn step(&self, w: &[f64]) -> Vec<f64> {
        let scores = self.scores(w).into_iter();
        let chances: Vec<f64> = scores.map(|s| 1.0 / (1.0 + (-s).exp())).collect();
        let all = || chances.iter().zip(&self.labels).zip(&self.shares);
        let slopes: Vec<f64> = all().map(|((p, y), share)| share * (p - y)).collect();
        let bends: Vec<f64> = all().map(|((p, _), share)| share * p * (1.0 - p)).collect();
        let penalised = |mut v: Vec<f64>, w: &[f64]| {
            let own = w.iter().zip(&self.penalties).map(|(w, p)| w * p);
            v.iter_mut().zip(own).for_each(|(v, own)| *v += own);
            v
        };
        let curved = |d: &[f64]| {
            let mut along = self.scores(d);
            along
                .iter_mut()
                .zip(&bends)
                .for_each(|(v, bend)| *v *= bend);
            penalised(self.back(&along), d)
        };
        let mut rest = penalised(self.back(&slopes), w);
        let (mut step, mut towards) = (vec![0.0; w.len()], rest.clone());
        let mut length = dot(&rest, &rest);
        let enough = length * LEFT * LEFT;
        for _ in 0..TURNS {
            let bent = curved(&towards);
            let by = length / dot(&towards, &bent);
            if !(by.is_finite() && length > enough) {
                break;
            }
            add(&mut step, by, &towards);
            add(&mut rest, -by, &bent);
            let shorter = dot(&rest, &rest);
            let kept = shorter / length;
            length = shorter;
            towards = { towards.iter().zip(&rest) }
                .map(|(t, r)| r + kept * t)
                .collect();
        }
        step
    }
}

/// Matrix-vector product.
fn product(matrix: Tensor<2>, vector: &[f64]) -> Vec<f64> {
    let column: Vec<f32> = vector.iter().map(|&v| v as f32).collect();
    let data = TensorData::new(column, [vector.len(), 1]);
    let column = Tensor::<2>::from_data(data, &Device::flex());
    let product = matrix.matmul(column).into_data();
    product.iter::<f32>().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `a + by · b`
fn add(a: &mut [f64], by: f64, b: &[f64]) {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += by * b);
}

impl Logistic {
    /// The score of an example; positive if above 0.
    pub fn score(&self, example: &[f32]) -> f32 {
        let products = self.weight.iter().zip(example).map(|(w, v)| w * v);
        products.sum::<f32>() + self.bias
    }

    /// Fits the examples at the indices `among`. Both classes have the same total weight. `penalty` applies to the weights
    /// of standardised features, relative to the mean loss per example.
    ///
    /// # Errors
    /// If a class has no example, a number is not finite, or `penalty` is not positive.
    pub fn fit(examples: &Examples<'_>, among: &[usize], penalty: f64) -> Result<Self, TrainError> {
        let width = examples.used;
        if !(penalty > 0.0 && penalty.is_finite()) {
            return wrong("the penalty is not above 0");
        }
        let yes = among.iter().filter(|&&i| examples.labels[i]).count();
        let n = among.len();
        if width == 0 || width > examples.width() || yes == 0 || yes == n {
            return wrong("a class has no examples");
        }

        // 1. standardise the examples
        let mut rows: Vec<f32> = Vec::with_capacity(n * width);
        among.iter().for_each(|&i| rows.extend(examples.row(i)));
        if rows.iter().any(|v| !v.is_finite()) {
            return wrong("an example is not finite");
        }
        let moments: Vec<(f64, f64)> = columns(&rows, width)
            .into_iter()
            .map(|(mean, variance)| (mean, variance.max(0.0).sqrt() + SPREAD_FLOOR))
            .collect();
        let mut x = Vec::with_capacity(n * (width + 1));
        for row in rows.chunks_exact(width) {
            let pairs = row.iter().zip(&moments);
            x.extend(pairs.map(|(&v, (m, s))| ((f64::from(v) - m) / s) as f32));
            x.push(1.0);
        }
        let labels = among.iter().map(|&i| examples.labels[i]);
        let share = |label: bool| 0.5 / if label { yes } else { n - yes } as f64;
        let mut penalties = vec![penalty; width];
        penalties.push(penalty * 1e-6);
        let problem = Problem {
            x: Tensor::from_data(TensorData::new(x, [n, width + 1]), &Device::flex()),
            shares: labels.clone().map(share).collect(),
            labels: labels.map(|label| f64::from(u8::from(label))).collect(),
            penalties,
        };

        // 2. Newton steps, with backtracking
        let mut w = vec![0.0f64; width + 1];
        let mut at = problem.loss(&w);
        for _ in 0..STEPS {
            let step = problem.step(&w);
            let tried = [1.0, 0.5, 0.25, 0.0625].into_iter().map(|by| {
                let mut moved = w.clone();
                add(&mut moved, -by, &step);
                (problem.loss(&moved), moved)
            });
            let Some((lower, next)) = tried.into_iter().find(|(l, _)| *l < at) else {
                break;
            };
            let gained = at - lower;
            (at, w) = (lower, next);
            if gained < 1e-6 {
                break;
            }
        }

        // 3. rescale to raw examples
        let mut bias = w[width];
        let mut weight = Vec::with_capacity(width);
        for (w, (m, s)) in w.iter().zip(&moments) {
            bias -= w * m / s;
            weight.push((w / s) as f32);
        }
        Ok(Self {
            weight,
            bias: bias as f32,
        })
    }
}

impl Calibrated {
    /// Fits examples with each combination of feature count `used` and penalty, and keeps the one with the highest
    /// cross-validated recall. The threshold admits at most a share `false_alarms` of the negative examples.
    ///
    /// # Errors
    /// As [`Logistic::fit`].
    pub fn fit(
        examples: &Examples<'_>,
        used: &[usize],
        penalties: &[f64],
        false_alarms: f64,
    ) -> Result<Self, TrainError> {
        let n = examples.labels.len();
        if examples.groups.len() != n || examples.rows.len() != n * examples.width() {
            return wrong("there are not as many rows, labels and groups");
        }
        let mut best: Option<Self> = None;
        for &used in used {
            let examples = Examples { used, ..*examples };
            for &penalty in penalties {
                let found = Self::try_out(&examples, penalty, false_alarms)?;
                if best.as_ref().is_none_or(|best| found.recall > best.recall) {
                    best = Some(found);
                }
            }
        }
        let Some(mut best) = best else {
            return wrong("there is no penalty");
        };
        let all: Vec<usize> = (0..n).collect();
        let chosen = Examples {
            used: best.used,
            ..*examples
        };
        let mut whole = Logistic::fit(&chosen, &all, best.penalty)?;
        whole.bias += best.classifier.bias;
        whole.weight.resize(examples.width(), 0.0);
        best.classifier = whole;
        Ok(best)
    }

    /// Cross-validates one setting. The returned classifier has no weights; its bias is the negative threshold.
    fn try_out(
        examples: &Examples<'_>,
        penalty: f64,
        false_alarms: f64,
    ) -> Result<Self, TrainError> {
        let scores = left_out(examples, penalty)?;
        let of = |label: bool| {
            let own = scores.iter().zip(examples.labels);
            own.filter(move |(_, l)| **l == label).map(|(s, _)| *s)
        };
        let mut no: Vec<f32> = of(false).collect();
        no.sort_by(|a, b| b.total_cmp(a));
        // Number of negative examples allowed above the threshold.
        let passing = (no.len() as f64 * false_alarms).floor() as usize;
        let threshold = no.get(passing).copied().unwrap_or(0.0);
        let share = |label: bool| {
            let above = of(label).filter(|s| *s > threshold).count();
            above as f32 / of(label).count().max(1) as f32
        };
        Ok(Self {
            classifier: Logistic {
                weight: vec![],
                bias: -threshold,
            },
            used: examples.used,
            penalty,
            recall: share(true),
            false_alarms: share(false),
        })
    }
}

/// The cross-validated score of each example: by a classifier fitted without the fold of its group.
fn left_out(examples: &Examples<'_>, penalty: f64) -> Result<Vec<f32>, TrainError> {
    let mut scores = vec![0.0; examples.labels.len()];
    for fold in 0..FOLDS {
        let (out, rest): (Vec<usize>, Vec<usize>) =
            (0..scores.len()).partition(|&i| examples.groups[i] % FOLDS == fold);
        if out.is_empty() {
            continue;
        }
        let classifier = Logistic::fit(examples, &rest, penalty)?;
        for i in out {
            scores[i] = classifier.score(examples.row(i));
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use emu_kernels::random::Philox;

    use super::*;

    /// Two clusters along the first of three features, `apart` standard deviations from each other.
    fn clouds(n: usize, apart: f32) -> (Vec<f32>, Vec<bool>, Vec<usize>) {
        let mut random = Philox::with_stream(5, 78, 0);
        let (mut rows, mut labels) = (vec![], vec![]);
        for i in 0..n {
            let x = random.normals(3);
            labels.push(i % 3 == 0);
            let shift = if i % 3 == 0 { apart } else { 0.0 };
            rows.extend([10.0 + 2.0 * (x[0] + shift), 0.01 * x[1], x[2] - 4.0]);
        }
        (rows, labels, (0..n).map(|i| i / 3).collect())
    }

    fn share(classifier: &Logistic, rows: &[f32], labels: &[bool], label: bool) -> f32 {
        let own = rows
            .chunks_exact(3)
            .zip(labels)
            .filter(|(_, l)| **l == label);
        let above = own.clone().filter(|(row, _)| classifier.score(row) > 0.0);
        above.count() as f32 / own.count() as f32
    }

    #[test]
    fn clouds_are_parted_in_the_middle() {
        let (rows, labels, groups) = clouds(3000, 4.0);
        let examples = Examples {
            rows: &rows,
            used: 3,
            labels: &labels,
            groups: &groups,
        };
        let all: Vec<usize> = (0..3000).collect();
        let found = Logistic::fit(&examples, &all, 1e-4).expect("fits");
        // The boundary is halfway, at 14 in the first feature. Both error rates are 2.3%, whatever the class sizes.
        let (yes, no) = (
            share(&found, &rows, &labels, true),
            share(&found, &rows, &labels, false),
        );
        assert!(yes > 0.965 && no < 0.035, "{yes} {no}");
        let middle = -(found.bias - 4.0 * found.weight[2]) / found.weight[0];
        assert!((middle - 14.0).abs() < 0.3, "{middle}");
        // A strong penalty shrinks the slope.
        let flat = Logistic::fit(&examples, &all, 10.0).expect("fits");
        assert!(flat.weight[0] < 0.2 * found.weight[0]);
    }

    #[test]
    fn thresholds_keep_false_alarms_rare() {
        let (rows, labels, groups) = clouds(3000, 4.0);
        let examples = Examples {
            rows: &rows,
            used: 3,
            labels: &labels,
            groups: &groups,
        };
        let found = Calibrated::fit(&examples, &[1, 3], &[1e-3, 1e3], 0.003).expect("fits");
        assert!(found.false_alarms <= 0.003, "{found:?}");
        // The threshold is 2.75 standard deviations from one mean and 1.25 from the other: 89% are found.
        assert!((0.8..0.97).contains(&found.recall), "{found:?}");
        let no = share(&found.classifier, &rows, &labels, false);
        assert!(no < 0.006, "{no}");
    }

    #[test]
    fn groups_are_left_out_together() {
        // Each group has a feature of its own, and nothing else identifies it.
        let (mut rows, mut labels, mut groups) = (vec![], vec![], vec![]);
        for i in 0..200 {
            let group = i % 20;
            let mut row = [0.0; 20];
            row[group] = 1.0;
            rows.extend(row);
            labels.push(group % 2 == 0);
            groups.push(group);
        }
        let examples = Examples {
            rows: &rows,
            used: 20,
            labels: &labels,
            groups: &groups,
        };
        let all: Vec<usize> = (0..200).collect();
        let seen = Logistic::fit(&examples, &all, 1e-6).expect("fits");
        let right = (0..200).filter(|&i| (seen.score(examples.row(i)) > 0.0) == labels[i]);
        assert_eq!(right.count(), 200);
        let found = Calibrated::fit(&examples, &[20], &[1e-6], 0.003).expect("fits");
        assert!(found.recall < 0.3, "{found:?}");
    }

    #[test]
    fn only_what_helps_is_looked_at() {
        // The first feature carries no information, the second nearly all.
        let mut random = Philox::with_stream(6, 79, 0);
        let (mut rows, mut labels) = (vec![], vec![]);
        for i in 0..400 {
            let x = random.normals(2);
            labels.push(i % 2 == 0);
            rows.extend([x[0], if i % 2 == 0 { 3.0 } else { -3.0 } + x[1]]);
        }
        let groups: Vec<usize> = (0..400).map(|i| i / 2).collect();
        let examples = Examples {
            rows: &rows,
            used: 1,
            labels: &labels,
            groups: &groups,
        };
        let found = Calibrated::fit(&examples, &[1, 2], &[1e-3], 0.01).expect("fits");
        assert_eq!(found.used, 2);
        assert!(found.recall > 0.95, "{found:?}");
        let found = Calibrated::fit(&examples, &[1], &[1e-3], 0.01).expect("fits");
        assert!(
            found.recall < 0.1 && found.classifier.weight[1] == 0.0,
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_fitted_is_said() {
        let error = |rows: &[f32], labels: &[bool], penalty| {
            let groups = vec![0; labels.len()];
            let examples = Examples {
                rows,
                used: 1,
                labels,
                groups: &groups,
            };
            let all: Vec<usize> = (0..labels.len()).collect();
            let refused = Logistic::fit(&examples, &all, penalty);
            refused.expect_err("refused").to_string()
        };
        assert!(error(&[1.0, 2.0], &[true, true], 1.0).contains("no examples"));
        assert!(error(&[1.0, f32::NAN], &[true, false], 1.0).contains("not finite"));
        assert!(error(&[1.0, 2.0], &[true, false], 0.0).contains("penalty"));
    }
}
