//! Reads the figures of a step back from the device, in one transfer.

use burn::tensor::Tensor;

use crate::optim::{GradientSum, floats};
use crate::stage::{StepLoss, Term};

/// Loss, terms and gradient norm of a step, in one transfer. Each term is the mean over the micro-batches that have it.
pub(crate) fn read_back(
    losses: &[StepLoss],
    gradients: &GradientSum,
) -> (f64, Vec<(String, f32)>, f64) {
    let mut pending: Vec<Tensor<1>> = Vec::new();
    let mut later = |tensor: &Tensor<1>| {
        pending.push(tensor.clone().inner().reshape([1]));
        pending.len() - 1
    };
    enum Figure {
        Known(f32),
        Pending(usize),
    }
    let (known, squares) = gradients.square_sum();
    let squares = squares.map(|tensor| later(&tensor));
    let total: f64 = losses.iter().map(|loss| loss.samples as f64).sum();
    let mut figures: Vec<(Option<&str>, f64, Figure)> = Vec::new();
    for loss in losses {
        let weight = if total > 0.0 {
            loss.samples as f64
        } else {
            1.0
        };
        figures.push((None, weight, Figure::Pending(later(&loss.loss))));
        for (name, term) in &loss.terms {
            let figure = match term {
                Term::Value(value) => Figure::Known(*value),
                Term::Tensor(tensor) => Figure::Pending(later(tensor)),
            };
            figures.push((Some(name), weight, figure));
        }
    }
    let values = if pending.is_empty() {
        vec![]
    } else {
        floats(Tensor::cat(pending, 0))
    };
    let at = |i: usize| values.get(i).copied().unwrap_or(f32::NAN);

    // Weighted sum and total weight, by name.
    let mut sums: Vec<(Option<&str>, f64, f64)> = Vec::new();
    for (name, weight, figure) in figures {
        let value = match figure {
            Figure::Known(value) => value,
            Figure::Pending(i) => at(i),
        };
        match sums.iter_mut().find(|(other, ..)| *other == name) {
            Some((_, sum, weights)) => {
                (*sum, *weights) = (*sum + weight * f64::from(value), *weights + weight)
            }
            None => sums.push((name, weight * f64::from(value), weight)),
        }
    }
    let mean = |sum: f64, weights: f64| {
        if weights > 0.0 {
            sum / weights
        } else {
            f64::NAN
        }
    };
    let loss = sums
        .iter()
        .find(|(name, ..)| name.is_none())
        .map_or(f64::NAN, |(_, sum, weights)| mean(*sum, *weights));
    let terms = sums
        .iter()
        .filter_map(|(name, sum, weights)| {
            name.map(|name| (name.to_string(), mean(*sum, *weights) as f32))
        })
        .collect();
    (
        loss,
        terms,
        (known + squares.map_or(0.0, |i| f64::from(at(i)))).sqrt(),
    )
}
