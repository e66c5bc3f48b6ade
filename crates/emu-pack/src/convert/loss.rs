//! What storing a tensor in a narrower type loses.

use serde::{Deserialize, Serialize};

/// Differences between values and what is stored of them, summed over any number of values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Sum of the squared differences.
    pub squared_error: f64,
    /// Sum of the squared values.
    pub squares: f64,
    /// Greatest difference.
    pub worst: f32,
    /// Greatest value, without its sign.
    pub largest: f32,
}

impl Loss {
    /// Of two disjoint sets of values.
    pub fn and(self, other: Self) -> Self {
        Self {
            squared_error: self.squared_error + other.squared_error,
            squares: self.squares + other.squares,
            worst: self.worst.max(other.worst),
            largest: self.largest.max(other.largest),
        }
    }

    /// Of values and what became of them.
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

    /// The error's length over the tensor's: 0 of nothing lost, about 0.1 of 4 bits, 0.005 of 8.
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

/// What became of one tensor in a pack.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The model's name for it.
    pub tensor: String,
    /// The component it is in.
    pub component: String,
    /// Its shape as the model has it.
    pub shape: Vec<usize>,
    /// `q8`, `q4`, `q4_1`, or the element type.
    pub stored: String,
    /// Bytes of it on disk, scales and minima included.
    pub bytes: u64,
    /// What was lost.
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
