//! Quantization and rounding loss of stored tensors.

use serde::{Deserialize, Serialize};

/// Error statistics of stored values against the originals; accumulates over any number of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Sum of the squared differences.
    pub squared_error: f64,
    /// Sum of the squared values.
    pub squares: f64,
    /// Maximum absolute difference.
    pub worst: f32,
    /// Maximum absolute value.
    pub largest: f32,
}

impl Loss {
    /// Combines the statistics of two disjoint sets of values.
    pub fn and(self, other: Self) -> Self {
        Self {
            squared_error: self.squared_error + other.squared_error,
            squares: self.squares + other.squares,
            worst: self.worst.max(other.worst),
            largest: self.largest.max(other.largest),
        }
    }

    /// Statistics of pairs (original, stored).
    pub fn between(values: impl IntoIterator<Item = (f32, f32)>) -> Self {
        let mut loss = Self::default();
        for (before, after) in values {
            let off = f64::from(after) - f64::from(before);
            loss.squared_error += off * off;
            loss.squares += f64::from(before) * f64::from(before);
            loss.worst = loss.worst.max(off.abs() as f32);
            loss.largest = loss.largest.max(before.abs());
        }
        loss
    }

    /// Relative error: norm of the error over norm of the tensor. 0 if lossless, about 0.1 at 4 bits, 0.005 at 8.
    pub fn relative(&self) -> f64 {
        if self.squared_error == 0.0 {
            return 0.0;
        }
        (self.squared_error / self.squares).sqrt()
    }

    pub(crate) fn is_finite(&self) -> bool {
        self.squared_error.is_finite() && self.squares.is_finite()
    }
}

/// How one tensor was stored in a pack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Tensor name in the model.
    pub tensor: String,
    /// Component that contains it.
    pub component: String,
    /// Shape in the model.
    pub shape: Vec<usize>,
    /// `q8`, `q4`, `q4_1`, or the element type.
    pub stored: String,
    /// Size on disk in bytes, scales and minima included.
    pub bytes: u64,
    /// The loss.
    pub loss: Loss,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_add_up() {
        let (a, b) = (
            Loss::between([(3.0, 3.0), (-4.0, -4.5)]),
            Loss::between([(12.0, 10.0)]),
        );
        let both = a.and(b);
        assert_eq!(both.squared_error, 4.25);
        assert_eq!(both.squares, 169.0);
        assert_eq!((both.worst, both.largest), (2.0, 12.0));
        assert!((both.relative() - (4.25f64 / 169.0).sqrt()).abs() < 1e-12);
        assert_eq!(Loss::default().relative(), 0.0);
        assert_eq!(Loss::between([(0.0, 1.0)]).relative(), f64::INFINITY);
    }
}
